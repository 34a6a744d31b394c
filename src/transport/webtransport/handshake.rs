//! Which application protocol a WebTransport session speaks (draft-ietf-webtrans-http3, 3.3).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::protocol::{PROTOCOL, Refusal};

pub(super) const AVAILABLE: HeaderName = HeaderName::from_static("wt-available-protocols");
const CHOSEN: HeaderName = HeaderName::from_static("wt-protocol");

/// The headers of the answer to a CONNECT with `headers`.
///
/// # Errors
/// Protocols were offered, and ours is not among them.
pub(super) fn accept(headers: &HeaderMap) -> Result<HeaderMap, Refusal> {
    let mut answer = HeaderMap::new();
    let Some(offered) = offered(headers) else { return Ok(answer) };
    if !offered.iter().any(|name| name == PROTOCOL) {
        return Err(Refusal::bad_request(format!("WT-Available-Protocols must offer \"{PROTOCOL}\"")));
    }
    let chosen = HeaderValue::try_from(format!("\"{PROTOCOL}\"")).expect("the protocol's name is ASCII");
    answer.insert(CHOSEN, chosen);
    Ok(answer)
}

/// The protocols that the client offers; `None` if it does not, or not in the form of a list of strings (RFC 9651, 3.1 and
/// 3.3.3), in which case the field is ignored as a whole.
pub(super) fn offered(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for value in headers.get_all(AVAILABLE) {
        let mut rest = value.to_str().ok()?.trim_matches([' ', '\t']);
        while !rest.is_empty() {
            let (name, behind) = string(rest)?;
            all.push(name);
            // Parameters mean nothing here.
            let behind = behind.trim_start_matches(|c| c != ',');
            rest = behind.strip_prefix(',').unwrap_or(behind).trim_start_matches([' ', '\t']);
        }
    }
    (!all.is_empty()).then_some(all)
}

/// The string at the head of `text`, and what is behind it.
fn string(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut characters = text.strip_prefix('"')?.chars();
    loop {
        match characters.next()? {
            '"' => return Some((name, characters.as_str())),
            '\\' => name.push(characters.next().filter(|c| matches!(c, '"' | '\\'))?),
            c => name.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(offers: &[&'static str]) -> Result<Option<HeaderValue>, Refusal> {
        let headers = offers.iter().map(|&offer| (AVAILABLE, HeaderValue::from_static(offer))).collect();
        accept(&headers).map(|answer| answer.get(CHOSEN).cloned())
    }

    #[test]
    fn ours_is_chosen_where_it_is_offered() {
        let ours = Ok(Some(HeaderValue::from_static("\"wigwag.v1\"")));
        assert_eq!(answer(&["\"wigwag.v1\""]), ours);
        assert_eq!(answer(&["\"a,\\\"b\", \"wigwag.v1\";q=1 ,\"c\""]), ours);
        assert_eq!(answer(&["\"a\"", "\"wigwag.v1\""]), ours);
    }

    #[test]
    fn no_offer_is_no_choice_and_a_broken_one_is_none() {
        for none in [&[][..], &[""], &["wigwag.v1"], &["\"wigwag.v1"], &["\"a\\b\""], &["1, \"wigwag.v1\""]] {
            assert_eq!(answer(none), Ok(None), "{none:?}");
        }
    }

    #[test]
    fn an_offer_without_ours_is_refused() {
        for other in ["\"wigwag.v2\"", "\"\"", "\"a\", \"b\""] {
            assert!(answer(&[other]).is_err(), "{other}");
        }
    }
}
