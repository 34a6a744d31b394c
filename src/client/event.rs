//! What a session tells its application.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::closing::Closing;
use super::message::{Change, IceServers, Joined, Payload, Peer, Refused};
use super::seat::Token;

/// What happens in a session, in the order in which it happened.
///
/// As JSON it is an object with `type`: the protocol's messages as they are there, and the session's own (`transportChanged`,
/// `reconnecting` …) in the same manner, times in milliseconds.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Event {
    /// One is in the room: a whole picture of it. It comes first; and again when the seat was lost and a new one taken, or when
    /// something could not be replayed ([`Joined::lost`]), followed by the changes since the picture before.
    Joined(Box<Joined>),
    /// A peer took a seat.
    PeerJoined(Peer),
    /// A peer changed its metadata.
    PeerUpdated(Peer),
    /// A peer lost its transport. Its seat is kept: what is sent to it waits for it, and working media goes on.
    PeerAway {
        /// Its id.
        peer: String,
    },
    /// A peer took its seat up again.
    PeerBack {
        /// Its id.
        peer: String,
    },
    /// A peer is gone.
    PeerLeft {
        /// Its id.
        peer: String,
        /// `left`, `timeout`, `kicked` or `nodeLost`.
        reason: String,
    },
    /// The room was locked or opened.
    RoomUpdated {
        /// Whether newcomers are refused.
        locked: bool,
    },
    /// An offer, an answer or a rollback.
    Description {
        /// Whose it is.
        from: String,
        /// An RTCSessionDescriptionInit.
        description: Payload,
    },
    /// A candidate.
    Candidate {
        /// Whose it is.
        from: String,
        /// An RTCIceCandidateInit, or null: there are no more.
        candidate: Payload,
    },
    /// Any JSON from another peer.
    Message {
        /// Whose it is.
        from: String,
        /// What it says.
        data: Payload,
    },
    /// A moderator must admit one first.
    Waiting,
    /// Somebody waits to be admitted: it is [`PeerJoined`](Event::PeerJoined) or [`PeerLeft`](Event::PeerLeft) later.
    Knock(Peer),
    /// Fresh TURN credentials.
    IceServers(IceServers),
    /// The server has made the invitation that was asked for: a token for somebody else.
    Invitation {
        /// What to show in a join.
        token: Token,
        /// How long it is good for.
        #[serde(rename = "expireMs", serialize_with = "millis")]
        expires_in: Duration,
    },
    /// The session's token runs out; renew it with [`Request::token`](super::Request::token), unless
    /// [`Options::renew_token`](super::session::Options::renew_token) does.
    TokenExpiring {
        /// How long it is good for.
        #[serde(rename = "expireMs", serialize_with = "millis")]
        expires_in: Duration,
    },
    /// An error for whose request nobody waits any more, or that is about none.
    Refused(Refused),
    /// The session runs over another transport than before. Nothing was lost or came twice.
    TransportChanged {
        /// The transport before, as the server names it.
        from: String,
        /// The transport now.
        to: String,
    },
    /// The server shuts down or wants to be rid of its clients; the session moves by itself.
    GoAway {
        /// How long it still serves.
        #[serde(rename = "afterMs", serialize_with = "millis")]
        after: Duration,
    },
    /// There is no connection. The session looks for one by itself; what is asked meanwhile waits.
    Reconnecting {
        /// What went wrong.
        why: String,
        /// When it tries again.
        #[serde(rename = "retryInMs", serialize_with = "millis")]
        retry_in: Duration,
    },
    /// There is a connection again, the seat was kept, and nothing is missing.
    Resumed {
        /// What the session runs over, as the server names it.
        transport: String,
    },
    /// The session is over; nothing follows.
    Closed(Closed),
}

impl From<Change> for Event {
    fn from(change: Change) -> Self {
        match change {
            Change::Knock(peer) => Event::Knock(peer),
            Change::PeerJoined(peer) => Event::PeerJoined(peer),
            Change::PeerUpdated(peer) => Event::PeerUpdated(peer),
            Change::PeerAway { peer } => Event::PeerAway { peer },
            Change::PeerBack { peer } => Event::PeerBack { peer },
            Change::PeerLeft { peer, reason } => Event::PeerLeft { peer, reason },
            Change::RoomUpdated { locked } => Event::RoomUpdated { locked },
        }
    }
}

impl Event {
    /// The change of the room that it tells, if it does.
    pub(super) fn change(&self) -> Option<Change> {
        Some(match self.clone() {
            Event::Knock(peer) => Change::Knock(peer),
            Event::PeerJoined(peer) => Change::PeerJoined(peer),
            Event::PeerUpdated(peer) => Change::PeerUpdated(peer),
            Event::PeerAway { peer } => Change::PeerAway { peer },
            Event::PeerBack { peer } => Change::PeerBack { peer },
            Event::PeerLeft { peer, reason } => Change::PeerLeft { peer, reason },
            Event::RoomUpdated { locked } => Change::RoomUpdated { locked },
            _ => return None,
        })
    }
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{code}: {message}")]
pub struct Closed {
    /// The protocol's name of the reason (`kicked`, `roomFull`, …), or one of the client's own: `left` (this side has left),
    /// `unreachable` (no transport got an answer), `unsupported` (the server offers none of the transports that may be used).
    pub code: String,
    /// The reason as a number, where the server has given it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_code: Option<u16>,
    /// What was wrong, for a person to read.
    pub message: String,
    /// When the server says that another try may do.
    #[serde(rename = "retryAfterMs", skip_serializing_if = "Option::is_none", serialize_with = "maybe_millis")]
    pub retry_after: Option<Duration>,
}

impl Closed {
    pub(super) fn left() -> Self {
        let message = "left the room".to_owned();
        Closed { code: "left".to_owned(), close_code: None, message, retry_after: None }
    }
}

impl From<Closing> for Closed {
    fn from(Closing { code, close_code, message, retry_after, .. }: Closing) -> Self {
        Closed { code, close_code, message, retry_after }
    }
}

fn millis<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(span.as_millis())
}

fn maybe_millis<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_millis()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_as_the_protocol_writes_it() {
        let data = Payload::from_json(r#"{"n":1e400}"#).expect("JSON");
        let message = Event::Message { from: "a".into(), data };
        assert_eq!(
            serde_json::to_string(&message).expect("JSON"),
            r#"{"type":"message","from":"a","data":{"n":1e400}}"#
        );
        let away = Event::Reconnecting { why: "w".into(), retry_in: Duration::from_millis(70) };
        let expected = r#"{"type":"reconnecting","why":"w","retryInMs":70}"#;
        assert_eq!(serde_json::to_string(&away).expect("JSON"), expected);
        let joined = r#"{"self":{"peer":"me","metadata":{}},"room":{"name":"r","locked":false,"revision":1},"peers":[],
            "ticket":"secret","replayFrom":1}"#;
        let joined = Event::Joined(Box::new(serde_json::from_str(joined).expect("well-formed")));
        let text = serde_json::to_string(&joined).expect("JSON");
        assert!(
            text.starts_with(r#"{"type":"joined","self":{"peer":"me","metadata":{}},"room":"#)
                && !text.contains("secret")
        );
    }
}
