//! Why something was refused: one enum, mapped once to names, close codes and HTTP statuses.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Every reason for which the server refuses a message, a session or a request.
///
/// Close codes from 4000 to 4499 invite the client to come back, those from 4500 on do not. The last four are told only
/// in an `error` message and never close anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Code {
    /// The server drains or stops.
    GoingAway,
    /// The client did not read fast enough, its queue passed the limit.
    SlowConsumer,
    /// A fault of the server's own.
    Internal,
    /// No first message, or no sign of life, in time.
    Timeout,
    /// More than the rate allows.
    RateLimited,
    /// The room has as many members as it may.
    RoomFull,
    /// The room is locked.
    RoomLocked,
    /// The seat to resume is no longer there, or the ticket never was one.
    ResumeExpired,
    /// The message cannot be understood or breaks a rule of the protocol.
    BadRequest,
    /// A token or ticket is missing or not valid.
    Unauthorized,
    /// The session's token has expired.
    TokenExpired,
    /// The session's grants or the `Origin` do not allow it.
    Forbidden,
    /// There is nothing of that name.
    NotFound,
    /// Larger than the limits allow.
    TooLarge,
    /// A later transport took the seat.
    Replaced,
    /// A moderator removed the peer.
    Kicked,
    /// Only in `error`: the recipient is not in the room.
    PeerGone,
    /// Only in `error`: the recipient's queue has no room for the message.
    QueueFull,
    /// Only in `error`: not an RTCSessionDescriptionInit.
    InvalidDescription,
    /// Only in `error`: not an RTCIceCandidateInit.
    InvalidCandidate,
}

impl Code {
    /// All of them, those that only an `error` has at the end.
    pub const ALL: [Code; 20] = [
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
        Code::PeerGone,
        Code::QueueFull,
        Code::InvalidDescription,
        Code::InvalidCandidate,
    ];

    /// Whether it may close a session, and is not only told in an `error`.
    pub fn closes(self) -> bool {
        !matches!(self, Code::PeerGone | Code::QueueFull | Code::InvalidDescription | Code::InvalidCandidate)
    }

    /// The code's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Code::GoingAway => "goingAway",
            Code::SlowConsumer => "slowConsumer",
            Code::Internal => "internal",
            Code::Timeout => "timeout",
            Code::RateLimited => "rateLimited",
            Code::RoomFull => "roomFull",
            Code::RoomLocked => "roomLocked",
            Code::ResumeExpired => "resumeExpired",
            Code::BadRequest => "badRequest",
            Code::Unauthorized => "unauthorized",
            Code::TokenExpired => "tokenExpired",
            Code::Forbidden => "forbidden",
            Code::NotFound => "notFound",
            Code::TooLarge => "tooLarge",
            Code::Replaced => "replaced",
            Code::Kicked => "kicked",
            Code::PeerGone => "peerGone",
            Code::QueueFull => "queueFull",
            Code::InvalidDescription => "invalidDescription",
            Code::InvalidCandidate => "invalidCandidate",
        }
    }

    /// The code with which a WebSocket (RFC 6455, 7.4.2) or WebTransport session is closed.
    pub fn close_code(self) -> u16 {
        match self {
            Code::GoingAway => 4000,
            Code::SlowConsumer => 4001,
            Code::Internal => 4002,
            Code::Timeout => 4003,
            Code::RateLimited => 4010,
            Code::RoomFull => 4011,
            Code::RoomLocked => 4012,
            Code::ResumeExpired => 4020,
            Code::BadRequest | Code::InvalidDescription | Code::InvalidCandidate => 4500,
            Code::Unauthorized => 4501,
            Code::TokenExpired => 4502,
            Code::Forbidden => 4503,
            Code::NotFound | Code::PeerGone => 4504,
            Code::TooLarge | Code::QueueFull => 4505,
            Code::Replaced => 4510,
            Code::Kicked => 4511,
        }
    }

    /// The HTTP status of a request refused for this reason.
    pub fn status(self) -> u16 {
        match self {
            Code::GoingAway | Code::SlowConsumer | Code::RoomFull => 503,
            Code::Internal => 500,
            Code::Timeout => 408,
            Code::RateLimited | Code::QueueFull => 429,
            Code::RoomLocked => 423,
            Code::ResumeExpired => 410,
            Code::BadRequest | Code::InvalidDescription | Code::InvalidCandidate => 400,
            Code::Unauthorized | Code::TokenExpired => 401,
            Code::Forbidden | Code::Kicked => 403,
            Code::NotFound | Code::PeerGone => 404,
            Code::TooLarge => 413,
            Code::Replaced => 409,
        }
    }
}

/// One refusal as it is told to the client: in an `error`, a `closed`, or as problem+json (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub code: Code,
    /// What was wrong and what would be right, for a developer to read.
    pub message: Cow<'static, str>,
    /// How long to wait before trying again, where waiting helps.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal for which waiting changes nothing.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Refusal { code, message: message.into(), retry_after: None }
    }

    /// `badRequest`, the most frequent of all.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Refusal::new(Code::BadRequest, message)
    }

    /// The same refusal with a time after which to try again.
    pub fn retry_after(self, wait: Duration) -> Self {
        Refusal { retry_after: Some(wait), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_codes_are_listed_once() {
        assert_eq!(Code::ALL.map(|code| code as usize), std::array::from_fn(|at| at));
        assert_eq!(Code::ALL.len(), Code::InvalidCandidate as usize + 1);
    }
}
