//! What the server says, read: the envelope as values, payloads as the JSON text that they are.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::seat::Token;
use crate::protocol::Limits;

/// A JSON text, token by token as its author wrote it. What it says must not show in a log: `Debug` tells its size alone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payload(Box<RawValue>);

impl Payload {
    /// Writes `value` as JSON.
    ///
    /// # Errors
    /// If it cannot be JSON, as a map whose keys are no strings.
    pub fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        Ok(Payload(to_raw_value(value)?))
    }

    /// Takes over a JSON text.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        Ok(Payload(RawValue::from_string(text.to_owned())?))
    }

    /// The JSON text.
    pub fn json(&self) -> &str {
        self.0.get()
    }

    /// Reads it as a value of the application's own.
    ///
    /// # Errors
    /// If it is another one.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.json())
    }

    fn null() -> Self {
        Payload(RawValue::NULL.to_owned())
    }

    fn empty_object() -> Self {
        Payload(RawValue::from_string("{}".to_owned()).expect("an empty object is JSON"))
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.json().len())
    }
}

/// The ticket of a seat: who has it can take the seat.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Ticket(String);

impl Ticket {
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

/// Whether a peer has a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PeerState {
    /// It has.
    #[default]
    Here,
    /// It lost it; its seat is kept, and what is sent to it waits.
    Away,
}

/// Another peer in the room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its id.
    pub peer: String,
    /// The user's name or id, from its token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it says of itself: a JSON object.
    #[serde(default = "Payload::empty_object")]
    pub metadata: Payload,
    /// One's own role toward it in perfect negotiation; the polite side makes the first offer.
    #[serde(default)]
    pub polite: bool,
    /// Whether it has a transport.
    #[serde(default)]
    pub state: PeerState,
}

/// Oneself, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// One's id.
    pub peer: String,
    /// The user's name or id, from the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// One's metadata: a JSON object.
    #[serde(default = "Payload::empty_object")]
    pub metadata: Payload,
}

/// The room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Its name.
    pub name: String,
    /// Whether newcomers are refused.
    #[serde(default)]
    pub locked: bool,
    /// Grows with each change that one is told of.
    pub revision: u64,
}

/// A whole picture of the room: when the seat is taken, and when what was missed cannot be replayed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// Oneself.
    #[serde(rename = "self")]
    pub own: Own,
    /// The room.
    pub room: Room,
    /// The others.
    pub peers: Vec<Peer>,
    /// How many messages, descriptions and candidates could not be kept, on a seat that one had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// How long the seat is kept without a transport, in milliseconds.
    #[serde(default)]
    pub resume_window_ms: u64,
    /// Silence after which the server pings, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
    /// STUN and TURN servers as RTCIceServer dictionaries.
    #[serde(default)]
    pub ice_servers: Vec<serde_json::Value>,
    /// Milliseconds until their credentials expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ice_servers_expire_ms: Option<u64>,
    /// What the session may ask for.
    #[serde(default)]
    pub limits: Limits,
    /// What it runs over, as the server names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    #[serde(skip_serializing)]
    pub(crate) replay_from: u64,
    #[serde(skip_serializing)]
    pub(crate) ticket: Ticket,
}

/// The seat was taken up again, and nothing is missing.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resumed {
    /// What it runs over now, as the server names it.
    pub transport: Option<String>,
    pub(crate) last_id: u64,
    pub(crate) replay_from: u64,
    pub(crate) ticket: Ticket,
}

/// A change of the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Somebody waits to be admitted.
    Knock(Peer),
    /// A peer took a seat.
    PeerJoined(Peer),
    /// A peer changed its metadata.
    PeerUpdated(Peer),
    /// A peer lost its transport; its seat is kept.
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
}

/// Why the server refused a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{code}: {message}")]
pub struct Refused {
    /// The reason's name, as `peerGone`.
    pub code: String,
    /// What was wrong, for a developer to read.
    #[serde(default)]
    pub message: String,
    /// After so many milliseconds another try may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// The server's last word on a transport.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Closing {
    /// The reason's name, as `kicked`.
    #[serde(default)]
    pub code: String,
    /// The same as a number: from 4500 on, coming back is of no use.
    pub close_code: Option<u16>,
    /// What was wrong, for a developer to read.
    #[serde(default)]
    pub message: String,
    /// After so many milliseconds another try may do.
    pub retry_after_ms: Option<u64>,
}

/// TURN credentials, fresh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IceServers {
    /// STUN and TURN servers as RTCIceServer dictionaries.
    pub ice_servers: Vec<serde_json::Value>,
    /// Milliseconds until they expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_ms: Option<u64>,
}

/// One message of the server's.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Its number in the session, if it has one.
    pub seq: Option<u64>,
    /// The message.
    pub message: ServerMessage,
}

/// What a message says.
#[derive(Debug, Clone)]
pub enum ServerMessage {
    /// `joined`
    Joined(Box<Joined>),
    /// `resumed`
    Resumed(Resumed),
    /// `peerJoined` and its kind.
    Room {
        /// The room's revision with this change.
        revision: Option<u64>,
        /// What changed.
        change: Change,
    },
    /// `description`
    Description {
        /// Whose it is.
        from: String,
        /// An RTCSessionDescriptionInit.
        description: Payload,
    },
    /// `candidate`
    Candidate {
        /// Whose it is.
        from: String,
        /// An RTCIceCandidateInit, or null.
        candidate: Payload,
    },
    /// `message`
    Message {
        /// Whose it is.
        from: String,
        /// What it says.
        data: Payload,
    },
    /// `ok`
    Ok {
        /// The request's id.
        id: Option<u64>,
        /// The token that was asked for, and how long it is good for, in milliseconds.
        invitation: Option<(Token, u64)>,
    },
    /// `error`
    Error {
        /// The request's id, where one could be read.
        id: Option<u64>,
        /// Why.
        refused: Refused,
    },
    /// `waiting`
    Waiting {
        /// Silence after which the server pings, in milliseconds.
        heartbeat_ms: Option<u64>,
    },
    /// `tokenExpiring`
    TokenExpiring {
        /// How long it is good for, in milliseconds.
        expire_ms: u64,
    },
    /// `iceServers`
    IceServers(IceServers),
    /// `goAway`
    GoAway {
        /// How long the server still serves this transport, in milliseconds.
        after_ms: u64,
    },
    /// `closed`
    Closed(Closing),
    /// `ping`
    Ping,
    /// `pong`
    Pong {
        /// The ping's id.
        id: Option<u64>,
    },
    /// Of a later version of the protocol, and not for us.
    Unknown,
}

impl Incoming {
    /// Reads one message.
    ///
    /// # Errors
    /// If it is not JSON, or a message of a known type lacks what belongs to it.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let tag: Tag<'_> = serde_json::from_str(text)?;
        Ok(Incoming { seq: tag.seq, message: ServerMessage::read(&tag.r#type, text)? })
    }
}

/// What every message has, of this version of the protocol or of a later one.
#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    seq: Option<u64>,
}

/// What the small messages of this version have.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    id: Option<u64>,
    revision: Option<u64>,
    from: Option<String>,
    peer: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    locked: bool,
    heartbeat_ms: Option<u64>,
    #[serde(default)]
    expire_ms: u64,
    #[serde(default)]
    after_ms: u64,
    token: Option<Payload>,
    data: Option<Payload>,
    description: Option<Payload>,
    candidate: Option<Payload>,
}

impl ServerMessage {
    fn read(name: &str, text: &str) -> Result<Self, serde_json::Error> {
        Ok(match name {
            "joined" => ServerMessage::Joined(serde_json::from_str(text)?),
            "resumed" => ServerMessage::Resumed(serde_json::from_str(text)?),
            "iceServers" => ServerMessage::IceServers(serde_json::from_str(text)?),
            "closed" => ServerMessage::Closed(serde_json::from_str(text)?),
            "ping" => ServerMessage::Ping,
            "knock" | "peerJoined" | "peerUpdated" | "peerAway" | "peerBack" | "peerLeft" | "roomUpdated"
            | "description" | "candidate" | "message" | "ok" | "error" | "waiting" | "tokenExpiring" | "goAway"
            | "pong" => serde_json::from_str::<Fields>(text)?.read(name, text)?,
            _ => ServerMessage::Unknown,
        })
    }
}

impl Fields {
    fn read(self, name: &str, text: &str) -> Result<ServerMessage, serde_json::Error> {
        let from = self.from.unwrap_or_default();
        // A payload that is `null` reads as an absent one, and is one.
        let payload = |payload: Option<Payload>| payload.unwrap_or_else(Payload::null);
        let peer = self.peer.unwrap_or_default();
        let change = match name {
            "knock" => Change::Knock(serde_json::from_str(text)?),
            "peerJoined" => Change::PeerJoined(serde_json::from_str(text)?),
            "peerUpdated" => Change::PeerUpdated(serde_json::from_str(text)?),
            "peerAway" => Change::PeerAway { peer },
            "peerBack" => Change::PeerBack { peer },
            "peerLeft" => Change::PeerLeft { peer, reason: self.reason.unwrap_or_default() },
            "roomUpdated" => Change::RoomUpdated { locked: self.locked },
            "description" => {
                return Ok(ServerMessage::Description { from, description: payload(self.description) });
            }
            "candidate" => return Ok(ServerMessage::Candidate { from, candidate: payload(self.candidate) }),
            "message" => return Ok(ServerMessage::Message { from, data: payload(self.data) }),
            "ok" => {
                let token = self.token.and_then(|token| token.read::<String>().ok());
                let invitation = token.map(|token| (Token(token), self.expire_ms));
                return Ok(ServerMessage::Ok { id: self.id, invitation });
            }
            "error" => return Ok(ServerMessage::Error { id: self.id, refused: serde_json::from_str(text)? }),
            "waiting" => return Ok(ServerMessage::Waiting { heartbeat_ms: self.heartbeat_ms }),
            "tokenExpiring" => return Ok(ServerMessage::TokenExpiring { expire_ms: self.expire_ms }),
            "goAway" => return Ok(ServerMessage::GoAway { after_ms: self.after_ms }),
            "pong" => return Ok(ServerMessage::Pong { id: self.id }),
            _ => return Ok(ServerMessage::Unknown),
        };
        Ok(ServerMessage::Room { revision: self.revision, change })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_kept_as_they_were_written_and_stay_out_of_logs() {
        let text = r#"{"type":"message","seq":3,"from":"a","data":{"z":1,"a":1e400}}"#;
        let incoming = Incoming::parse(text).expect("well-formed");
        assert_eq!(incoming.seq, Some(3));
        assert!(!format!("{incoming:?}").contains("1e400"));
        let ServerMessage::Message { from, data } = incoming.message else { panic!("a message") };
        assert_eq!((from.as_str(), data.json()), ("a", r#"{"z":1,"a":1e400}"#));
    }

    #[test]
    fn null_is_a_payload_and_unknown_types_are_none_of_our_business() {
        let end_of_candidates = Incoming::parse(r#"{"type":"candidate","from":"a","candidate":null}"#);
        let ServerMessage::Candidate { candidate, .. } = end_of_candidates.expect("well-formed").message else {
            panic!("a candidate")
        };
        assert_eq!(candidate.json(), "null");
        let later = Incoming::parse(r#"{"type":"carrierPigeon","seq":4,"from":{"an":"object"}}"#);
        assert!(matches!(later, Ok(Incoming { seq: Some(4), message: ServerMessage::Unknown })));
        assert!(Incoming::parse("no JSON").is_err());
        assert!(Incoming::parse(r#"{"type":"joined"}"#).is_err());
    }
}
