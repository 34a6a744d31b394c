//! How a transport ended, and what that means for coming back. Pure.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::RETRY_AFTER;

use super::message;
use super::{Error, poll};
use crate::protocol::Code;

/// How a transport, or a try to have one, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closing {
    /// The protocol's name of the reason; `unreachable` where the server has said nothing.
    pub code: String,
    /// There when the server has said why.
    pub close_code: Option<u16>,
    /// What a person may want to read.
    pub message: String,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
    /// This side gave it up: the server is not known to be in trouble.
    pub local: bool,
}

/// What to do after a transport has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ComeBack {
    /// Take the seat up again.
    Resume,
    /// Ask for a new one.
    Join,
    /// Stay away.
    Never,
}

impl Closing {
    /// The transport is gone, and nobody has said why.
    pub(super) fn lost(message: impl Into<String>) -> Self {
        Closing {
            code: "unreachable".into(),
            close_code: None,
            message: message.into(),
            retry_after: None,
            local: false,
        }
    }

    /// This side gives it up.
    pub(super) fn given_up(message: impl Into<String>) -> Self {
        Closing { local: true, ..Closing::lost(message) }
    }

    /// The server's last word.
    pub(super) fn said(closed: message::Closing) -> Self {
        let close_code =
            closed.close_code.or_else(|| close_code_of(&closed.code)).or(Some(Code::Internal.close_code()));
        Closing {
            code: closed.code,
            close_code,
            message: closed.message,
            retry_after: closed.retry_after_ms.map(Duration::from_millis),
            local: false,
        }
    }

    /// A close code without a last word before it. Codes that are not the protocol's mean that the transport is gone.
    pub(super) fn with_code(code: Option<u32>, reason: String) -> Self {
        let code = code.and_then(|code| u16::try_from(code).ok()).filter(|code| (4000..5000).contains(code));
        let Some(name) = code.map(|code| name_of(code).to_owned()) else {
            let reason = if reason.is_empty() { "the server closed the transport".to_owned() } else { reason };
            return Closing::lost(reason);
        };
        Closing { code: name, close_code: code, message: reason, retry_after: None, local: false }
    }

    /// Whatever kept a transport from opening or from going on.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::Refused(response) => Closing::refused(response),
            error => Closing::lost(with_causes(error)),
        }
    }

    /// An HTTP status. Only problem+json is the protocol's answer (RFC 9457); anything else a proxy's.
    fn refused(response: &Response<Bytes>) -> Self {
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        match serde_json::from_value::<message::Closing>(poll::closed(response)) {
            Ok(closed) if closed.close_code.is_some() => {
                let said = Closing::said(closed);
                Closing { retry_after: said.retry_after.or(retry_after), ..said }
            }
            _ => Closing { retry_after, ..Closing::lost(format!("the server answered {}", response.status())) },
        }
    }

    pub(super) fn is(&self, code: Code) -> bool {
        self.close_code == Some(code.close_code())
    }

    /// Whether the server itself has decided, so that another transport would get the same answer. `internal` and `timeout`
    /// may be the fault of the one transport.
    pub(super) fn is_decision(&self) -> bool {
        self.close_code.is_some() && !self.is(Code::Internal) && !self.is(Code::Timeout)
    }

    /// What to do now, by the ranges of close codes.
    pub(super) fn come_back(&self) -> ComeBack {
        match self.close_code {
            Some(4500..) => ComeBack::Never,
            Some(4010..=4020) => ComeBack::Join,
            _ => ComeBack::Resume,
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// Every code that closes.
const CODES: [Code; 16] = [
    Code::GoingAway,
    Code::SlowConsumer,
    Code::Internal,
    Code::Timeout,
    Code::RateLimited,
    Code::RoomFull,
    Code::RoomLocked,
    Code::ResumeExpired,
    Code::BadRequest,
    Code::Unauthorized,
    Code::TokenExpired,
    Code::Forbidden,
    Code::NotFound,
    Code::TooLarge,
    Code::Replaced,
    Code::Kicked,
];

fn name_of(close_code: u16) -> &'static str {
    CODES.iter().find(|code| code.close_code() == close_code).map_or("unknown", |code| code.name())
}

fn close_code_of(name: &str) -> Option<u16> {
    CODES.iter().find(|code| code.name() == name).map(|code| code.close_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_say_whether_and_how_to_come_back() {
        let come_back = |code: u32| Closing::with_code(Some(code), String::new()).come_back();
        for code in [0, 1000, 1006, 4000, 4003] {
            assert_eq!(come_back(code), ComeBack::Resume, "{code}");
        }
        for code in [4010, 4011, 4012, 4020] {
            assert_eq!(come_back(code), ComeBack::Join, "{code}");
        }
        for code in [4500, 4510, 4511, 4999] {
            assert_eq!(come_back(code), ComeBack::Never, "{code}");
        }
        assert_eq!(Closing::with_code(Some(4011), String::new()).code, "roomFull");
    }

    #[test]
    fn a_refusal_by_status_is_the_servers_only_as_problem_json() {
        let answer = |body: &'static str| {
            let response =
                Response::builder().status(503).header(RETRY_AFTER, "7").body(Bytes::from_static(body.as_bytes()));
            Closing::of(&Error::Refused(Box::new(response.expect("well-formed"))))
        };
        let refused = answer(r#"{"detail":"full","code":"roomFull","closeCode":4011,"retryAfterMs":1500}"#);
        assert!(refused.is_decision() && refused.is(Code::RoomFull));
        assert_eq!((refused.message.as_str(), refused.retry_after), ("full", Some(Duration::from_millis(1500))));
        let proxy = answer("<html>Bad gateway</html>");
        assert!(!proxy.is_decision());
        assert_eq!(proxy.retry_after, Some(Duration::from_secs(7)));
    }
}
