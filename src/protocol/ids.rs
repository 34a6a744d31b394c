//! Names and secrets: rooms, peers, tickets, join keys and tokens.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

/// A room's name: 1 to 128 of `A-Z a-z 0-9 - . _ ~`, neither `.` nor `..`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

/// The room's name is not one; says what would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a room name is 1 to 128 of A-Z a-z 0-9 - . _ ~ (never percent-encoded), and neither \".\" nor \"..\"")]
pub struct InvalidRoomName;

impl RoomName {
    /// Checks `name`, taken from the path as it stands there (RFC 3986 unreserved characters only).
    pub fn parse(name: &str) -> Result<Self, InvalidRoomName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        if name.is_empty() || name.len() > 128 || name == "." || name == ".." || !name.bytes().all(allowed) {
            return Err(InvalidRoomName);
        }
        Ok(RoomName(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RoomName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RoomName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RoomName::parse(&Cow::<str>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A node of a cluster: one start of one server, so that a server that was started again is another node. Random, not zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// Wraps a number that was drawn elsewhere.
    pub const fn new(id: NonZeroU64) -> Self {
        NodeId(id)
    }

    /// Reads 16 hexadecimal digits, as [`Display`](fmt::Display) writes them.
    pub fn parse(text: &str) -> Option<Self> {
        let written = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        written.then(|| u64::from_str_radix(text, 16).ok().and_then(NonZeroU64::new).map(NodeId)).flatten()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NodeId::parse(&Cow::<str>::deserialize(deserializer)?).ok_or_else(|| de::Error::custom("no node's id"))
    }
}

/// A peer's id, minted by the server: a UUIDv7 (RFC 9562). Its order is the order of joining on one server, and decides
/// which of two peers is polite.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(Uuid);

impl PeerId {
    /// Wraps an id that was drawn elsewhere: time and randomness are the caller's.
    pub const fn new(id: Uuid) -> Self {
        PeerId(id)
    }

    /// Reads the canonical form, as the server writes it.
    pub fn parse(text: &str) -> Option<Self> {
        // Uuid::try_parse also takes braces, URNs and no hyphens; an id that we never wrote is nobody's.
        if text.len() != 36 { None } else { Uuid::try_parse(text).ok().map(PeerId) }
    }
}

impl PeerId {
    /// When it was minted, as it says itself (RFC 9562, 5.7); `None` for an id of another kind.
    pub fn minted(self) -> Option<SystemTime> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
    }

    /// Its text in a buffer, for those who write many.
    pub(super) fn encode(self, buffer: &mut [u8; 36]) -> &mut str {
        self.0.hyphenated().encode_lower(buffer)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.encode(&mut [0; 36]))
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PeerId::parse(&Cow::<str>::deserialize(deserializer)?).ok_or_else(|| de::Error::custom("no peer's id"))
    }
}

/// Proof of a seat: whom it belongs to and 128 random bits. Compared in constant time, never shown in a log.
#[derive(Clone, Copy)]
pub struct Ticket {
    /// The seat's peer.
    pub peer: PeerId,
    secret: [u8; 16],
    /// Where it was written, if nodes of a cluster know one another's.
    home: Option<Home>,
}

/// The node that wrote a ticket, and the proof that one of its cluster did.
#[derive(Clone, Copy)]
struct Home {
    node: NodeId,
    seal: [u8; 16],
}

impl Ticket {
    /// Bytes of a ticket for one server, and of one for a cluster.
    const ALONE: usize = 32;
    const SEALED: usize = 56;

    /// A ticket to `peer`'s seat; `secret` is drawn by the caller.
    pub const fn new(peer: PeerId, secret: [u8; 16]) -> Self {
        Ticket { peer, secret, home: None }
    }

    /// The same for all nodes of the cluster in which `node` writes it. `seal` is made of [`content`](Self::content).
    pub fn sealed(self, node: NodeId, seal: impl FnOnce(&[u8]) -> [u8; 16]) -> Self {
        let seal = seal(&self.content(node));
        Ticket { home: Some(Home { node, seal }), ..self }
    }

    /// The node that wrote it and the seal, which is still to be compared; `None` for a ticket without.
    pub fn home(&self) -> Option<(NodeId, [u8; 16])> {
        self.home.map(|home| (home.node, home.seal))
    }

    /// What a seal is made of, beside the room: node, peer and secret.
    pub fn content(&self, node: NodeId) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&node.0.get().to_be_bytes());
        bytes[8..24].copy_from_slice(self.peer.0.as_bytes());
        bytes[24..].copy_from_slice(&self.secret);
        bytes
    }

    /// Reads a ticket as a client sent it; `None` for anything that no server can have written.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (own, home) = bytes.split_at_checked(Self::ALONE)?;
        let ticket = Ticket::new(PeerId(Uuid::from_slice(&own[..16]).ok()?), own[16..].try_into().ok()?);
        match bytes.len() {
            Self::ALONE => Some(ticket),
            Self::SEALED => {
                let node = NonZeroU64::new(u64::from_be_bytes(home[..8].try_into().ok()?)).map(NodeId)?;
                Some(Ticket { home: Some(Home { node, seal: home[8..].try_into().ok()? }), ..ticket })
            }
            _ => None,
        }
    }

    /// The ticket's text. The only way for it to leave the process.
    pub fn to_text(self) -> String {
        let mut bytes = Vec::with_capacity(Self::SEALED);
        bytes.extend_from_slice(self.peer.0.as_bytes());
        bytes.extend_from_slice(&self.secret);
        if let Some(Home { node, seal }) = self.home {
            bytes.extend_from_slice(&node.0.get().to_be_bytes());
            bytes.extend_from_slice(&seal);
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        self.peer == other.peer && self.secret.ct_eq(&other.secret).into()
    }
}

impl Eq for Ticket {}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({}, …)", self.peer)
    }
}

/// The client's own 128 random bits in a `join`: a second join with the same key takes the same seat. As secret as a ticket.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct JoinKey(Box<str>);

impl JoinKey {
    /// Takes the text as the client spells it (hex, base64, UUID): 16 to 128 characters.
    pub fn parse(text: &str) -> Option<Self> {
        (16..=128).contains(&text.chars().count()).then(|| JoinKey(text.into()))
    }

    /// The text, to compare it, or to hand it to another node.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinKey(…)")
    }
}

/// A JSON Web Token (RFC 7519) as a client sent it, unread. As secret as a ticket.
#[derive(Clone, PartialEq, Eq)]
pub struct Token<'a>(Cow<'a, str>);

impl<'a> Token<'a> {
    /// Wraps the text, whatever it is.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Self {
        Token(text.into())
    }

    /// The text, for whoever verifies it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_names_are_unreserved_characters_only() {
        for good in ["a", "demo", "A-Z.a_z~9", &"x".repeat(128), "..."] {
            assert!(RoomName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "a%20b", "ä", "a\n", &"x".repeat(129)] {
            assert!(RoomName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_is_known_by_sixteen_digits() {
        let node = NodeId::new(NonZeroU64::new(0x1f).expect("not zero"));
        assert_eq!(node.to_string(), "000000000000001f");
        assert_eq!(NodeId::parse(&node.to_string()), Some(node));
        for bad in ["", "1f", "0000000000000000", "000000000000001F", "+00000000000001f"] {
            assert_eq!(NodeId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_ticket_survives_its_text_and_nothing_else_is_one() {
        let peer = PeerId::new(Uuid::from_u128(7));
        let ticket = Ticket::new(peer, [9; 16]);
        assert_eq!(Ticket::parse(&ticket.to_text()), Some(ticket));
        assert_ne!(Ticket::new(peer, [8; 16]), ticket);
        let node = NodeId::new(NonZeroU64::MAX);
        let sealed = ticket.sealed(node, |content| content[24..].try_into().expect("16 bytes"));
        let read = Ticket::parse(&sealed.to_text()).expect("a ticket");
        assert_eq!((read, read.home()), (sealed, Some((node, [9; 16]))));
        for bad in ["", "x", &ticket.to_text()[1..], &format!("{}A", ticket.to_text()), &sealed.to_text()[4..]] {
            assert_eq!(Ticket::parse(bad), None, "{bad}");
        }
        assert!(!format!("{ticket:?}").contains("CQkJ"));
    }
}
