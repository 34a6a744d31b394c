//! What the server says. A [`Body`] is encoded once, however many hear it; each recipient's `seq` is put in front when it is
//! written. The functions of [`notice`] make the messages that belong to a transport and have no `seq`.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Code, Limits, NodeId, Outbound, PeerId, Refusal, Step};

/// One message on its way to a client's wire: a JSON object without a line break anywhere, which comes to be in one piece where it is
/// [`put`](Self::put).
#[derive(Clone)]
pub struct Frame {
    /// Without the number, as all have it who hear the message.
    text: Bytes,
    /// Its number in the session, if it has one.
    pub seq: Option<u64>,
    /// May be dropped, and rides a datagram where there is one and it fits.
    pub ephemeral: bool,
    /// How many microseconds it has waited to be written, if it is one of those that are timed. No wider, so that a frame, which
    /// is moved a good deal, has room for it already.
    pub waited: Option<NonZeroU32>,
}

/// A payload must not show in a log, so a frame shows as its size.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:?}, {} bytes)", self.seq, self.len())
    }
}

impl Frame {
    /// A message that has no number.
    pub fn unnumbered(text: Bytes) -> Self {
        Frame { text, seq: None, ephemeral: false, waited: None }
    }

    fn of(message: &impl Serialize) -> Self {
        Frame::unnumbered(encode(message).into())
    }

    /// Bytes that [`put`](Self::put) writes.
    pub fn len(&self) -> usize {
        match self.seq {
            Some(seq) => Head::len(seq) + self.text.len() - 1,
            None => self.text.len(),
        }
    }

    /// Whether there is nothing in it; no message is empty.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Appends the message.
    pub fn put(&self, out: &mut impl BufMut) {
        match self.seq {
            Some(seq) => {
                out.put_slice(Head::new(seq).text());
                out.put_slice(&self.text[1..]);
            }
            None => out.put_slice(&self.text),
        }
    }

    /// The message in a piece of its own.
    pub fn text(&self) -> Bytes {
        let mut text = Vec::with_capacity(self.len());
        self.put(&mut text);
        text.into()
    }
}

/// The beginning of a numbered message, up to the comma behind the number. Written for each recipient of each message, without the
/// machinery of formatting.
struct Head {
    text: [u8; Self::BYTES],
    start: usize,
}

impl Head {
    const OPEN: &[u8] = br#"{"seq":"#;
    /// With the longest number and the comma.
    const BYTES: usize = Self::OPEN.len() + 20 + 1;

    fn new(seq: u64) -> Self {
        let mut text = [b','; Self::BYTES];
        let (mut start, mut left) = (Self::BYTES - 1, seq);
        loop {
            start -= 1;
            text[start] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        text[start - Self::OPEN.len()..start].copy_from_slice(Self::OPEN);
        Head { text, start: start - Self::OPEN.len() }
    }

    /// How long one with this number is.
    fn len(seq: u64) -> usize {
        Self::BYTES - 20 + seq.checked_ilog10().map_or(1, |log| log as usize + 1)
    }

    fn text(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

/// What a message means to the seat that keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Who is in the room and how; a whole picture makes up for it.
    Presence,
    /// A `message`, `description` or `candidate`: lost when it is lost.
    Payload,
    /// A `message` that may be dropped and is never replayed.
    Ephemeral,
    /// Belongs to the transport (`pong`): no number, never replayed.
    Notice,
    /// `ok`, `iceServers` …: told to this client only.
    Answer,
    /// `error`: an answer that must not get lost, because a repeated id is answered `ok`.
    Error(Code),
}

impl Kind {
    /// Whether it gets a `seq` and is replayed until it is acknowledged.
    pub fn is_numbered(self) -> bool {
        !matches!(self, Kind::Ephemeral | Kind::Notice)
    }

    /// Whether it answers a request of the client's own, and must not get lost.
    pub fn is_answer(self) -> bool {
        matches!(self, Kind::Answer | Kind::Error(_))
    }
}

/// A message without its `seq`, encoded once and shared by all who hear it.
#[derive(Clone)]
pub struct Body {
    text: Bytes,
    /// What it means to the seat that keeps it.
    pub kind: Kind,
}

/// A payload must not show in a log, so a body shows as its size.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({:?}, {} bytes)", self.kind, self.text.len())
    }
}

impl Body {
    /// Someone's payload for someone else: as sent, with `to` replaced by `from`.
    pub fn relay(from: PeerId, outbound: &Outbound<'_>) -> Self {
        let (name, field, payload) = (outbound.kind.name(), outbound.kind.field(), &*outbound.payload);
        let mut buffer = [0; 36];
        let from: &str = from.encode(&mut buffer);
        // Pieces of known length, as this is written for each message: the machinery of formatting would cost more than the copy.
        let pieces = [r#"{"type":""#, name, r#"","from":""#, from, r#"",""#, field, r#"":"#, payload, "}"];
        let text = pieces.concat();
        Body { text: text.into(), kind: if outbound.ephemeral { Kind::Ephemeral } else { Kind::Payload } }
    }

    /// A payload that another node has encoded as [`relay`](Self::relay) does; `None` for what is no object in one line.
    pub fn relayed(text: Bytes, ephemeral: bool) -> Option<Self> {
        Self::kept(text, if ephemeral { Kind::Ephemeral } else { Kind::Payload })
    }

    /// A message that another node has kept for a seat; `None` for what is no object in one line.
    pub fn kept(text: Bytes, kind: Kind) -> Option<Self> {
        let whole =
            text.starts_with(br#"{""#) && text.ends_with(b"}") && memchr::memchr2(b'\n', b'\r', &text).is_none();
        whole.then_some(Body { text, kind })
    }

    /// Which step of a negotiation it is, and whose, if it is a payload that is one. For those that other nodes have encoded: a
    /// description is looked into as far as its `type`.
    pub fn step(&self) -> Option<(PeerId, Step)> {
        #[derive(Deserialize)]
        struct Description<'a> {
            #[serde(borrow)]
            r#type: Cow<'a, str>,
        }
        #[derive(Deserialize)]
        struct Relayed<'a> {
            from: PeerId,
            #[serde(borrow)]
            description: Option<Description<'a>>,
            #[serde(borrow)]
            candidate: Option<&'a RawValue>,
        }
        if self.text.starts_with(br#"{"type":"message""#) {
            return None;
        }
        let relayed: Relayed<'_> = serde_json::from_slice(&self.text).ok()?;
        let step = match (relayed.description, relayed.candidate) {
            (Some(description), _) => Step::description(&description.r#type)?,
            (None, Some(_)) => Step::Candidate,
            // `null` reads as none.
            (None, None) => Step::EndOfCandidates,
        };
        Some((relayed.from, step))
    }

    /// The JSON object without its number, for another node.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.text).expect("it was written as text")
    }

    /// `peerJoined` or `peerUpdated`.
    pub fn peer(presence: Presence, member: &Member, polite: bool, revision: u64) -> Self {
        #[derive(Serialize)]
        struct Peer<'a> {
            r#type: &'static str,
            #[serde(flatten)]
            member: &'a Member,
            polite: bool,
            revision: u64,
        }
        Body::of(Kind::Presence, &Peer { r#type: presence.name(), member, polite, revision })
    }

    /// `peerAway` or `peerBack`.
    pub fn peer_state(presence: Presence, peer: PeerId, revision: u64) -> Self {
        #[derive(Serialize)]
        struct State {
            r#type: &'static str,
            peer: PeerId,
            revision: u64,
        }
        Body::of(Kind::Presence, &State { r#type: presence.name(), peer, revision })
    }

    /// `peerLeft`.
    pub fn peer_left(peer: PeerId, reason: LeftReason, revision: u64) -> Self {
        #[derive(Serialize)]
        struct Left {
            r#type: &'static str,
            peer: PeerId,
            reason: LeftReason,
            revision: u64,
        }
        Body::of(Kind::Presence, &Left { r#type: "peerLeft", peer, reason, revision })
    }

    /// `ok`. Only `leave` is answered without an id when it had none.
    pub fn ok(id: Option<u64>) -> Self {
        #[derive(Serialize)]
        struct Ok {
            r#type: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<u64>,
        }
        Body::of(Kind::Answer, &Ok { r#type: "ok", id })
    }

    /// `ok` to an `invite`; `expire_ms` counts from now.
    pub fn invited(id: Option<u64>, token: &str, expire_ms: u64) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Invited<'a> {
            r#type: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<u64>,
            token: &'a str,
            expire_ms: u64,
        }
        Body::of(Kind::Answer, &Invited { r#type: "ok", id, token, expire_ms })
    }

    /// `knock`.
    pub fn knock(member: &Member, revision: u64) -> Self {
        #[derive(Serialize)]
        struct Knock<'a> {
            r#type: &'static str,
            #[serde(flatten)]
            member: &'a Member,
            revision: u64,
        }
        Body::of(Kind::Presence, &Knock { r#type: "knock", member, revision })
    }

    /// `error`.
    pub fn error(id: Option<u64>, refusal: &Refusal) -> Self {
        Body::of(Kind::Error(refusal.code), &Refused::new("error", id, refusal))
    }

    /// `pong`, with the `id` of the client's `ping`.
    pub fn pong(id: Option<u64>) -> Self {
        #[derive(Serialize)]
        struct Pong {
            r#type: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<u64>,
        }
        Body::of(Kind::Notice, &Pong { r#type: "pong", id })
    }

    /// `iceServers`; `expire_ms` counts from now.
    pub fn ice_servers(ice_servers: &[serde_json::Value], expire_ms: Option<u64>) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct IceServers<'a> {
            r#type: &'static str,
            ice_servers: &'a [serde_json::Value],
            #[serde(skip_serializing_if = "Option::is_none")]
            expire_ms: Option<u64>,
        }
        Body::of(Kind::Answer, &IceServers { r#type: "iceServers", ice_servers, expire_ms })
    }

    /// `roomUpdated`.
    pub fn room_updated(locked: bool, revision: u64) -> Self {
        #[derive(Serialize)]
        struct RoomUpdated {
            r#type: &'static str,
            locked: bool,
            revision: u64,
        }
        Body::of(Kind::Presence, &RoomUpdated { r#type: "roomUpdated", locked, revision })
    }

    /// `tokenExpiring`; `expire_ms` counts from now.
    pub fn token_expiring(expire_ms: u64) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct TokenExpiring {
            r#type: &'static str,
            expire_ms: u64,
        }
        Body::of(Kind::Answer, &TokenExpiring { r#type: "tokenExpiring", expire_ms })
    }

    fn of(kind: Kind, message: &impl Serialize) -> Self {
        Body { text: encode(message).into(), kind }
    }

    /// Bytes that the message takes in a queue.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether it is empty; no message is.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The message as one recipient gets it: numbered, unless it is ephemeral.
    pub fn frame(&self, seq: Option<u64>) -> Frame {
        Frame { text: self.text.clone(), seq, ephemeral: self.kind == Kind::Ephemeral, waited: None }
    }
}

/// What happened to a peer's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It took a seat.
    Joined,
    /// It changed its metadata.
    Updated,
    /// Its transport is lost, its seat is kept.
    Away,
    /// It took its seat up again.
    Back,
}

impl Presence {
    fn name(self) -> &'static str {
        match self {
            Presence::Joined => "peerJoined",
            Presence::Updated => "peerUpdated",
            Presence::Away => "peerAway",
            Presence::Back => "peerBack",
        }
    }
}

/// Why a peer is no longer in the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LeftReason {
    /// It said so.
    Left,
    /// It did not come back within the resume window.
    Timeout,
    /// A moderator removed it.
    Kicked,
    /// Its server is gone.
    NodeLost,
}

impl LeftReason {
    /// All of them.
    pub const ALL: [LeftReason; 4] = [LeftReason::Left, LeftReason::Timeout, LeftReason::Kicked, LeftReason::NodeLost];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            LeftReason::Left => "left",
            LeftReason::Timeout => "timeout",
            LeftReason::Kicked => "kicked",
            LeftReason::NodeLost => "nodeLost",
        }
    }
}

/// A member of a room as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub peer: PeerId,
    /// The user's name or id, from the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// What it says of itself.
    pub metadata: Metadata,
}

/// The JSON text of an object, as its owner sent it.
#[derive(Clone)]
pub struct Metadata(Arc<RawValue>);

impl Metadata {
    /// Takes a JSON text; anything else than JSON becomes `{}`, which requests were checked against before.
    pub fn new(json: &str) -> Self {
        let raw = RawValue::from_string(json.to_owned()).or_else(|_| RawValue::from_string("{}".to_owned()));
        Metadata(raw.expect("an empty object is JSON").into())
    }

    /// Bytes of the text.
    pub fn len(&self) -> usize {
        self.0.get().len()
    }

    /// Whether it is empty; no object is.
    pub fn is_empty(&self) -> bool {
        self.0.get().is_empty()
    }

    /// The client's own object with the members of `vouched` in place of those of the same name. What a token vouches for
    /// cannot be spoofed by its bearer.
    pub fn vouched(own: &str, vouched: Option<&RawValue>) -> Self {
        let Some(vouched) = vouched else { return Metadata::new(own) };
        let parsed = (serde_json::from_str::<Members<'_>>(own), serde_json::from_str::<Members<'_>>(vouched.get()));
        let (Ok(Members(mut members)), Ok(Members(vouched))) = parsed else { return Metadata::new(own) };
        members.retain(|(name, _)| !vouched.iter().any(|(other, _)| other == name));
        members.extend(vouched);
        let text: Vec<String> = members
            .iter()
            .map(|(name, value)| format!("{}:{}", serde_json::Value::from(name.as_str()), value.get()))
            .collect();
        Metadata::new(&format!("{{{}}}", text.join(",")))
    }
}

/// An object's members in their order, values unparsed.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Visit).map(Members)
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for Metadata {}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metadata({} bytes)", self.len())
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::serialize(&self.0, serializer)
    }
}

/// As another node tells it.
impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = super::compact(raw.get()).map_err(de::Error::custom)?;
        if text.starts_with('{') { Ok(Metadata::new(&text)) } else { Err(de::Error::custom("metadata is an object")) }
    }
}

/// Another member in the picture that `joined` gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerInfo {
    /// Who it is.
    #[serde(flatten)]
    pub member: Member,
    /// The recipient's role toward that peer.
    pub polite: bool,
    /// Whether it has a transport.
    pub state: PeerState,
}

/// Whether a member has a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PeerState {
    /// It has.
    Here,
    /// It lost it, and its seat is kept.
    Away,
}

/// The room in the picture that `joined` gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoomInfo {
    /// Its name.
    pub name: String,
    /// Whether newcomers are refused.
    pub locked: bool,
    /// Grows with each change that members are told of.
    pub revision: u64,
}

/// The whole picture of a room for one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Picture {
    /// The member itself.
    #[serde(rename = "self")]
    pub own: Member,
    /// The room.
    pub room: RoomInfo,
    /// The others, in the order of their ids.
    pub peers: Vec<PeerInfo>,
}

/// `joined`: the first answer, and the answer to a `resume` when a gap cannot be filled.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined<'a> {
    /// The `seq` that comes next.
    pub replay_from: u64,
    /// The last id handled, when the session is not new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_id: Option<u64>,
    /// How many payloads could not be kept, when the session is not new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// The member, the room, the others.
    #[serde(flatten)]
    pub picture: Picture,
    /// The ticket to use next.
    pub ticket: String,
    /// How long the seat is kept without a transport.
    pub resume_window_ms: u64,
    /// Silence after which the server pings.
    pub heartbeat_ms: u64,
    /// STUN and TURN servers as RTCIceServer dictionaries.
    pub ice_servers: &'a [serde_json::Value],
    /// Milliseconds from now until their credentials expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ice_servers_expire_ms: Option<u64>,
    /// What the session may ask for.
    pub limits: &'a Limits,
    /// What it runs over.
    pub transport: &'static str,
    /// Whether the client may tell milestones: servers of earlier versions know nothing of them.
    pub milestones: bool,
    /// Which node of a cluster has the seat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
}

/// `resumed`: the answer to a `resume` that every message since can be replayed to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resumed {
    /// The last id handled; 0 when there was none yet.
    pub last_id: u64,
    /// The ticket to use next.
    pub ticket: String,
    /// The `seq` that comes next.
    pub replay_from: u64,
    /// What it runs over now.
    pub transport: &'static str,
    /// As in `joined`: the server may be another one.
    pub milestones: bool,
    /// As in `joined`: the seat may have moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    close_code: Option<u16>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl<'a> Refused<'a> {
    fn new(r#type: &'static str, id: Option<u64>, refusal: &'a Refusal) -> Self {
        let retry_after_ms = refusal.retry_after.map(|wait| wait.as_millis() as u64);
        Refused { r#type, id, code: refusal.code.name(), close_code: None, message: &refusal.message, retry_after_ms }
    }
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages have string keys and no failing parts")
}

/// Messages that belong to a transport, not to the session: they have no `seq` and are never replayed.
pub mod notice {
    use std::time::Duration;

    use super::{Frame, Joined, Refused, Resumed, Serialize};
    use crate::protocol::Refusal;

    #[derive(Serialize)]
    struct Tagged<'a, T> {
        r#type: &'static str,
        #[serde(flatten)]
        message: &'a T,
    }

    /// `joined`.
    pub fn joined(joined: &Joined<'_>) -> Frame {
        Frame::of(&Tagged { r#type: "joined", message: joined })
    }

    /// `waiting`: a moderator has to admit this peer, within `left`.
    pub fn waiting(heartbeat: Duration, left: Duration) -> Frame {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Waiting {
            r#type: &'static str,
            heartbeat_ms: u64,
            expire_ms: u64,
        }
        let (heartbeat_ms, expire_ms) = (heartbeat.as_millis() as u64, left.as_millis() as u64);
        Frame::of(&Waiting { r#type: "waiting", heartbeat_ms, expire_ms })
    }

    /// `resumed`.
    pub fn resumed(resumed: &Resumed) -> Frame {
        Frame::of(&Tagged { r#type: "resumed", message: resumed })
    }

    /// `ping`: the server has been silent for a heartbeat.
    pub fn ping() -> Frame {
        Frame::unnumbered(bytes::Bytes::from_static(br#"{"type":"ping"}"#))
    }

    /// `goAway`: resume elsewhere within `after`.
    pub fn go_away(after: Duration) -> Frame {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct GoAway {
            r#type: &'static str,
            after_ms: u64,
        }
        Frame::of(&GoAway { r#type: "goAway", after_ms: after.as_millis() as u64 })
    }

    /// `closed`: the last message of a transport.
    pub fn closed(refusal: &Refusal) -> Frame {
        Frame::of(&Refused { close_code: Some(refusal.code.close_code()), ..Refused::new("closed", None, refusal) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_long_as_it_says() {
        let text = Bytes::from_static(br#"{"type":"pong"}"#);
        for seq in [None, Some(0), Some(9), Some(10), Some(99), Some(100), Some(u64::MAX)] {
            let frame = Frame { seq, ..Frame::unnumbered(text.clone()) };
            assert_eq!(frame.text().len(), frame.len(), "{seq:?}");
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&frame.text()).unwrap()["seq"].as_u64(), seq);
        }
    }
}
