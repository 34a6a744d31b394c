//! The span of somebody else's that a request belongs to, as it says by W3C Trace Context.

use std::str::FromStr as _;

use http::HeaderMap;
use http::request::Parts;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Bytes of a `traceparent`, of which later versions may have more (W3C Trace Context, 3.2.4).
const BYTES: usize = 55;

/// Bytes of a `tracestate` that are passed on with each span, as many as must be (W3C Trace Context, 3.3.1.5).
const STATE_BYTES: usize = 512;

/// The parent in a request's head, or else in its query: browsers set no headers on WebSockets and WebTransport. `None` if there
/// is none, and for one that is malformed.
pub(super) fn of(parts: &Parts) -> Option<SpanContext> {
    let parameters = parts.uri.query().unwrap_or_default().split('&');
    let mut parameters = parameters.filter_map(|parameter| parameter.strip_prefix("traceparent="));
    let parent = match parts.headers.contains_key(TRACEPARENT) {
        true => only(&parts.headers, TRACEPARENT)?,
        false => parameters.next()?,
    };
    let state = only(&parts.headers, TRACESTATE).filter(|text| text.len() <= STATE_BYTES);
    read(parent, state.and_then(|text| TraceState::from_str(text).ok()).unwrap_or_default())
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()
}

/// A `traceparent` without a `tracestate`. `None` if it is malformed.
pub(super) fn parse(text: &str) -> Option<SpanContext> {
    read(text, TraceState::default())
}

/// `version-trace-parent-flags` (W3C Trace Context, 3.2.2). The SDK's propagator takes ids of any length and with a sign.
fn read(text: &str, state: TraceState) -> Option<SpanContext> {
    let (known, later) = text.split_at_checked(BYTES)?;
    let mut fields = known.split('-');
    let mut field = |digits: usize| fields.next().filter(|field| field.len() == digits && field.bytes().all(is_digit));
    let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    let is_complete = later.is_empty() || version != "00" && later.starts_with('-');
    if version == "ff" || !is_complete {
        return None;
    }
    // What the other bits mean is not known (3.2.2.5).
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let parent = SpanContext::new(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags, true, state);
    parent.is_valid().then_some(parent)
}

/// Upper case is not one (3.2.2.1).
fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn found(uri: &str, headers: &[(&str, &str)]) -> Option<(String, bool)> {
        let request = headers.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
        let parent = of(&request.body(()).unwrap().into_parts().0)?;
        assert!(parent.is_remote());
        Some((format!("{}-{}", parent.trace_id(), parent.span_id()), parent.is_sampled()))
    }

    #[test]
    fn a_parent_comes_from_the_head_or_else_from_the_query() {
        let ids = || "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331".to_owned();
        assert_eq!(found("/", &[("traceparent", GOOD)]), Some((ids(), true)));
        assert_eq!(found(&format!("/?a=b&traceparent={GOOD}"), &[]), Some((ids(), true)));
        let other = GOOD.replace('b', "c").replace("-01", "-00");
        assert_eq!(found(&format!("/?traceparent={other}"), &[("traceparent", GOOD)]), Some((ids(), true)));
        assert_eq!(found(&format!("/?traceparent={other}"), &[("traceparent", "x")]), None, "the head is what counts");
        assert_eq!(found("/", &[("traceparent", GOOD), ("traceparent", GOOD)]), None, "which, nobody knows");
        assert_eq!(found("/", &[]), None);
    }

    #[test]
    fn flags_and_fields_of_later_versions_are_left_alone() {
        let sampled = |text: &str| found("/", &[("traceparent", text)]).map(|(_, sampled)| sampled);
        assert_eq!(sampled(&GOOD.replace("-01", "-02")), Some(false));
        assert_eq!(sampled(&GOOD.replace("-01", "-ff")), Some(true));
        assert_eq!(sampled(&format!("cc{}-what-else", &GOOD[2..])), Some(true));
    }

    #[test]
    fn what_is_malformed_is_none() {
        let (zero_trace, zero_span) =
            (GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)), "0".repeat(16));
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &GOOD.to_uppercase(),
            &GOOD.replace("00-", "ff-"),
            &GOOD.replace("00-", "+0-"),
            &GOOD.replace("-01", "-+1"),
            &GOOD.replace("-b7", "b-7"),
            &GOOD.replace('a', "g"),
            &zero_trace,
            &GOOD.replace("b7ad6b7169203331", &zero_span),
            &format!("cc{}x", &GOOD[2..]),
        ] {
            assert_eq!(found("/", &[("traceparent", bad)]), None, "{bad}");
        }
    }

    #[test]
    fn the_state_goes_along_with_its_parent() {
        let request = |state: &str| {
            let request = Request::get("/").header("traceparent", GOOD).header("tracestate", state);
            of(&request.body(()).unwrap().into_parts().0).unwrap().trace_state().header()
        };
        assert_eq!(request("vendor=1,other=2"), "vendor=1,other=2");
        for left_out in ["vendor", &format!("vendor={}", "1".repeat(STATE_BYTES))] {
            assert_eq!(request(left_out), "", "{left_out}");
        }
    }
}
