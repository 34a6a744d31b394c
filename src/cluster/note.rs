//! What nodes say to one another, as JSON. Payloads of clients stay the text that they were.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::link::Packet;
use crate::protocol::{Body, Claim, Code, Kind, LeftReason, Member, Metadata, NodeId, PeerId, Refusal, RoomName};

/// The version of all that is in here. Nodes of different versions do not talk to one another.
pub const VERSION: u32 = 1;

/// What the envelope of a packet adds to a note, at most.
pub const ENVELOPE_BYTES: usize = 192;

/// What a note adds to the payload that it carries, at most.
pub const PAYLOAD_BYTES: usize = 480;

/// Said by each node once a second, to all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Who says it.
    pub from: NodeId,
    /// What it speaks.
    pub version: u32,
    /// It drains: no more seats should be handed to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drains: bool,
    /// It is the last one: the node stops, and its members are gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stops: bool,
}

/// A member, and whether it has a transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// Who it is.
    pub member: Member,
    /// It lost its transport, and its seat is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub away: bool,
    /// How often its seat was handed from node to node; much more if a lost node has left it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moves: u64,
}

/// How much a node has said to all members of a room: of two, the greater is the later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Said {
    /// Which of the rooms that were ever opened there it is.
    pub hall: u64,
    /// How many payloads for all were said in it.
    pub number: u64,
}

impl Said {
    /// How many payloads there were since an earlier moment, at least.
    pub fn since(self, earlier: Said) -> u64 {
        match earlier.hall == self.hall {
            true => self.number.saturating_sub(earlier.number),
            false if self > earlier => self.number,
            false => 0,
        }
    }
}

/// Payloads for all that could not be sent to a node, or may not have arrived there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// How many of those that count in what the sender has said to all; what has arrived tells how many of them did after all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub own: u64,
    /// How many that were said at other nodes, by members whose seats have come from there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub brought: u64,
}

impl Missing {
    /// So many of the sender's own.
    pub fn own(own: u64) -> Self {
        Missing { own, brought: 0 }
    }

    /// All of them.
    pub fn sum(self) -> u64 {
        self.own.saturating_add(self.brought)
    }

    /// These, and others.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Missing { own: self.own.saturating_add(other.own), brought: self.brought.saturating_add(other.brought) }
    }
}

/// Whether a room is locked: of two that differ the greater one holds, in the order of what stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lock {
    /// How often it was changed, as far as who changed it knew; 0 for never.
    pub count: u64,
    /// Who changed it.
    pub by: NodeId,
    /// What to.
    pub locked: bool,
}

/// Part of what a node says over a link.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Note<'a> {
    /// The sender opens this room and wants the whole roster, if the recipient has it open.
    Enter {
        /// Which room.
        room: RoomName,
        /// It has it open already, and does not know what the recipient has.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
        /// What to say when that is told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<u64>,
    },
    /// The answer, if it has not.
    Absent {
        /// Which room.
        room: RoomName,
    },
    /// The sender has these rooms open; the recipient answers for those that it has, too.
    Rooms {
        /// Which rooms.
        rooms: Vec<RoomName>,
    },
    /// A part of the sender's own roster of a room.
    Roster {
        /// Which room.
        room: RoomName,
        /// Members.
        members: Vec<Present>,
        /// Those who wait to be admitted.
        waiting: Vec<Member>,
        /// Whether the room is locked.
        lock: Lock,
        /// What was missed since the link was up the last time; told with the last part.
        missing: Missing,
        /// What was said to all until now.
        said: Said,
        /// Nothing follows: who was not in any part is not there.
        last: bool,
    },
    /// The sender has closed the room: none of its members is left.
    Gone {
        /// Which room.
        room: RoomName,
    },
    /// Somebody is a member now.
    Joined {
        /// Of which room.
        room: RoomName,
        /// Who.
        present: Present,
    },
    /// A member's seat was handed to another node, which will say that it has it.
    Moved {
        /// Of which room.
        room: RoomName,
        /// Who.
        peer: PeerId,
        /// Which node.
        to: NodeId,
        /// How often it was handed on.
        moves: u64,
    },
    /// A member, or one who waits, is no longer there.
    Left {
        /// Of which room.
        room: RoomName,
        /// Who.
        peer: PeerId,
        /// Why.
        reason: LeftReason,
    },
    /// A member has lost its transport, or has one again.
    State {
        /// Of which room.
        room: RoomName,
        /// Who.
        peer: PeerId,
        /// Which of the two.
        away: bool,
    },
    /// A member has other metadata.
    Updated {
        /// Of which room.
        room: RoomName,
        /// Who.
        peer: PeerId,
        /// Which.
        metadata: Metadata,
    },
    /// Somebody waits to be admitted.
    Knocked {
        /// To which room.
        room: RoomName,
        /// Who.
        member: Member,
    },
    /// A moderator has locked or unlocked the room.
    Locked {
        /// Which room.
        room: RoomName,
        /// Which of the two.
        lock: Lock,
    },
    /// A payload for one member of the recipient's.
    Relay {
        /// In which room.
        room: RoomName,
        /// For whom.
        to: PeerId,
        /// How often the recipient's seat was handed on, as far as the sender's node knew.
        moves: u64,
        /// What `done` is to name; without it nobody wants to know.
        receipt: Option<u64>,
        /// It may be dropped.
        ephemeral: bool,
        /// Who has said it, and its id there, by which it is known when it comes again.
        #[serde(default)]
        sender: Option<(PeerId, u64)>,
        /// The span that it is part of, as a `traceparent`, where one is recorded.
        #[serde(default)]
        trace: Option<String>,
        /// The message as the member gets it, without its number.
        #[serde(borrow)]
        body: &'a RawValue,
    },
    /// A payload for all members of the recipient's.
    Broadcast {
        /// In which room.
        room: RoomName,
        /// What was said to all with it; without it, it may be dropped.
        said: Option<Said>,
        /// The message as the members get it, without its number.
        #[serde(borrow)]
        body: &'a RawValue,
    },
    /// Payloads for all could not be sent.
    Missed {
        /// In which room.
        room: RoomName,
        /// How many.
        missing: Missing,
        /// What was said to all until now.
        said: Said,
    },
    /// A moderator's wish about a member of the recipient's, or one who waits there.
    Moderate {
        /// In which room.
        room: RoomName,
        /// About whom.
        peer: PeerId,
        /// What.
        wish: Wish,
        /// What `done` is to name.
        receipt: u64,
    },
    /// What has become of a `relay` or `moderate`.
    Done {
        /// Which one.
        receipt: u64,
        /// Why it was not done.
        refused: Option<Refused>,
    },
    /// The sender wants the seat of this ticket, with which a client has come there.
    Take {
        /// In which room.
        room: RoomName,
        /// The ticket's text.
        #[serde(borrow)]
        ticket: Cow<'a, str>,
        /// What the client shows beside it; without that nobody has come, and the recipient has offered the seat.
        claim: Option<Claim>,
        /// What each node has said to all in the room, as far as the sender has heard.
        heard: Vec<(NodeId, Said)>,
        /// It was asked for before, and is for how many milliseconds.
        waited: Option<u64>,
        /// What the answer is to name.
        receipt: u64,
    },
    /// The answer, if the seat is not handed over.
    Kept {
        /// Which `take`.
        receipt: u64,
        /// Why.
        why: Kept,
    },
    /// The answer, if it is: a part of the seat.
    Seat {
        /// Which `take`.
        receipt: u64,
        /// Some of its text.
        #[serde(borrow)]
        part: Cow<'a, str>,
        /// Nothing follows.
        last: bool,
    },
    /// A part of a request that came to the sender, for a session of the recipient's.
    Carry {
        /// What the answer is to name.
        number: u64,
        /// Some of its text.
        #[serde(borrow)]
        part: Cow<'a, str>,
        /// Nothing follows.
        last: bool,
    },
    /// A part of the answer.
    Carried {
        /// To which request.
        number: u64,
        /// Some of its text.
        #[serde(borrow)]
        part: Cow<'a, str>,
        /// Nothing follows.
        last: bool,
    },
    /// Nobody waits for the answer any more.
    Recall {
        /// To which request.
        number: u64,
    },
    /// The sender stops, and asks the recipient to take this seat.
    Offer {
        /// In which room.
        room: RoomName,
        /// The seat's ticket.
        #[serde(borrow)]
        ticket: Cow<'a, str>,
    },
}

/// Why a seat is not handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kept {
    /// Something that was said by its client, or to it, is still on its way. Ask again.
    Busy,
    /// It was handed to this node before.
    Moved(NodeId),
    /// It is not for who has this ticket, or cannot be handed over.
    Refused(Refused),
}

/// What a moderator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wish {
    /// Remove a member, which is told this.
    Kick(String),
    /// Let one in who waits.
    Admit,
    /// Turn one away who waits.
    Refuse,
}

/// A refusal on its way between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    code: Cow<'static, str>,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl From<&Refusal> for Refused {
    fn from(refusal: &Refusal) -> Self {
        Refused {
            code: refusal.code.name().into(),
            message: refusal.message.clone().into_owned(),
            retry_after_ms: refusal.retry_after.map(|wait| wait.as_millis() as u64),
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let code = Code::ALL.into_iter().find(|code| code.name() == refused.code);
        let retry_after = refused.retry_after_ms.map(Duration::from_millis);
        Refusal { retry_after, ..Refusal::new(code.unwrap_or(Code::Internal), refused.message) }
    }
}

/// A note as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What it is, for the counters.
    pub kind: &'static str,
    /// JSON in UTF-8.
    pub text: Text,
}

/// A note's text, which must not show in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(pub Bytes);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

impl fmt::Debug for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Note({})", self.kind())
    }
}

impl<'a> Note<'a> {
    /// The note as text.
    pub fn write(&self) -> Written {
        let text = serde_json::to_vec(self).expect("notes have string keys and no failing parts");
        Written { kind: self.kind(), text: Text(text.into()) }
    }

    /// Reads a note.
    ///
    /// # Errors
    /// It is none, or has a name, an id or metadata in it that is none.
    pub fn parse(text: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// What it is, for the counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Note::Enter { .. } => "enter",
            Note::Absent { .. } => "absent",
            Note::Rooms { .. } => "rooms",
            Note::Roster { .. } => "roster",
            Note::Gone { .. } => "gone",
            Note::Joined { .. } => "joined",
            Note::Left { .. } => "left",
            Note::State { .. } => "state",
            Note::Updated { .. } => "updated",
            Note::Knocked { .. } => "knocked",
            Note::Locked { .. } => "locked",
            Note::Relay { .. } => "relay",
            Note::Broadcast { .. } => "broadcast",
            Note::Missed { .. } => "missed",
            Note::Moderate { .. } => "moderate",
            Note::Done { .. } => "done",
            Note::Moved { .. } => "moved",
            Note::Take { .. } => "take",
            Note::Kept { .. } => "kept",
            Note::Seat { .. } => "seat",
            Note::Carry { .. } => "carry",
            Note::Carried { .. } => "carried",
            Note::Recall { .. } => "recall",
            Note::Offer { .. } => "offer",
        }
    }
}

/// A [`Note::Relay`], whose body need not be parsed to be put into it.
pub fn relay(
    room: &RoomName,
    (to, moves): (PeerId, u64),
    receipt: Option<u64>,
    sender: Option<(PeerId, u64)>,
    trace: Option<&str>,
    body: &Body,
) -> Written {
    let receipt = receipt.map_or("null".to_owned(), |receipt| receipt.to_string());
    let sender = sender.map_or(String::new(), |(peer, id)| format!(r#","sender":["{peer}",{id}]"#));
    let trace = trace.map_or(String::new(), |trace| format!(r#","trace":"{trace}""#));
    let ephemeral = body.kind == Kind::Ephemeral;
    let told = format!(r#""moves":{moves},"receipt":{receipt},"ephemeral":{ephemeral}{sender}{trace}"#);
    let members = format!(r#""room":"{room}","to":"{to}",{told}"#);
    payload("relay", &members, body)
}

/// A [`Note::Broadcast`], which may be dropped if it does not count in what was `said`.
pub fn broadcast(room: &RoomName, said: Option<Said>, body: &Body) -> Written {
    let said =
        said.map_or("null".to_owned(), |Said { hall, number }| format!(r#"{{"hall":{hall},"number":{number}}}"#));
    payload("broadcast", &format!(r#""room":"{room}","said":{said}"#), body)
}

fn payload(kind: &'static str, members: &str, body: &Body) -> Written {
    let text = format!(r#"{{"{kind}":{{{members},"body":{}}}}}"#, body.text());
    Written { kind, text: Text(text.into()) }
}

/// The body of a payload's note, out of the text in which it came.
pub fn body(text: &Bytes, raw: &RawValue, ephemeral: bool) -> Option<Body> {
    Body::relayed(text.slice_ref(raw.get().as_bytes()), ephemeral)
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A packet with who sent it.
pub fn seal(from: NodeId, packet: &Packet) -> Bytes {
    let note = packet.note.as_ref().map_or(0, |(_, note)| note.len());
    let mut text = String::with_capacity(note + ENVELOPE_BYTES);
    let Packet { life, peer, ack, hello, .. } = packet;
    write!(text, r#"{{"from":"{from}","life":{life},"peer":{peer},"ack":{ack},"hello":{hello}"#)
        .expect("a String takes all");
    if let Some((number, note)) = &packet.note {
        let note = std::str::from_utf8(note).expect("a note is text");
        write!(text, r#","number":{number},"note":{note}"#).expect("a String takes all");
    }
    text.push('}');
    text.into()
}

/// Reads a packet, but not its note.
///
/// # Errors
/// It is none.
pub fn open(text: &Bytes) -> Result<(NodeId, Packet), serde_json::Error> {
    #[derive(Deserialize)]
    struct Sealed<'a> {
        from: NodeId,
        life: u64,
        peer: u64,
        ack: u64,
        hello: bool,
        number: Option<u64>,
        #[serde(borrow)]
        note: Option<&'a RawValue>,
    }
    let sealed: Sealed<'_> = serde_json::from_slice(text)?;
    let note = sealed.number.zip(sealed.note).map(|(number, raw)| (number, text.slice_ref(raw.get().as_bytes())));
    let Sealed { from, life, peer, ack, hello, .. } = sealed;
    Ok((from, Packet { life, peer, ack, hello, note }))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use uuid::Uuid;

    use super::*;
    use crate::protocol::{Outbound, PayloadKind, Shown};

    fn node(number: u64) -> NodeId {
        NodeId::new(NonZeroU64::new(number).expect("not zero"))
    }

    fn peer(number: u128) -> PeerId {
        PeerId::new(Uuid::from_u128(number))
    }

    fn room() -> RoomName {
        RoomName::parse("a.b~c").expect("a name")
    }

    fn message(data: &str, ephemeral: bool) -> Body {
        let payload = data.to_owned().into();
        let outbound =
            Outbound { kind: PayloadKind::Message, to: None, payload, ephemeral, dropped: false, step: None };
        Body::relay(peer(1), &outbound)
    }

    #[test]
    fn every_note_is_read_as_it_was_written() {
        let room = room();
        let member = |user: Option<&str>| Member {
            peer: peer(2),
            user: user.map(Into::into),
            metadata: Metadata::new(r#"{"a":"\"}"}"#),
        };
        let lock = Lock { count: 3, by: node(9), locked: true };
        let refusal = Refusal::new(Code::QueueFull, "no \"room\"").retry_after(Duration::from_millis(1500));
        let notes = [
            Note::Enter { room: room.clone(), again: false, receipt: None },
            Note::Enter { room: room.clone(), again: true, receipt: Some(3) },
            Note::Absent { room: room.clone() },
            Note::Rooms { rooms: vec![room.clone(), room.clone()] },
            Note::Roster {
                room: room.clone(),
                members: vec![Present { member: member(Some("ä\n")), away: true, moves: 2 }],
                waiting: vec![member(None)],
                lock,
                missing: Missing { own: 3, brought: 1 },
                said: Said { hall: 1, number: 2 },
                last: true,
            },
            Note::Gone { room: room.clone() },
            Note::Joined { room: room.clone(), present: Present { member: member(None), away: false, moves: 0 } },
            Note::Moved { room: room.clone(), peer: peer(3), to: node(4), moves: 1 },
            Note::Take {
                room: room.clone(),
                ticket: "t".into(),
                claim: Some(Claim { seq: 3, token: Shown::Newer(None) }),
                heard: vec![(node(4), Said { hall: 1, number: 9 })],
                waited: Some(10),
                receipt: 5,
            },
            Note::Missed { room: room.clone(), missing: Missing::own(2), said: Said { hall: 1, number: 3 } },
            Note::Kept { receipt: 5, why: Kept::Busy },
            Note::Kept { receipt: 5, why: Kept::Moved(node(4)) },
            Note::Kept { receipt: 5, why: Kept::Refused(Refused::from(&refusal)) },
            Note::Seat { receipt: 5, part: r#"{"peer":"\n"#.into(), last: true },
            Note::Carry { number: 6, part: "\n".into(), last: false },
            Note::Carried { number: 6, part: "".into(), last: true },
            Note::Recall { number: 6 },
            Note::Offer { room: room.clone(), ticket: "t".into() },
            Note::Left { room: room.clone(), peer: peer(3), reason: LeftReason::NodeLost },
            Note::State { room: room.clone(), peer: peer(3), away: true },
            Note::Updated { room: room.clone(), peer: peer(3), metadata: Metadata::new("{}") },
            Note::Knocked { room: room.clone(), member: member(Some("u")) },
            Note::Locked { room: room.clone(), lock },
            Note::Moderate { room: room.clone(), peer: peer(3), wish: Wish::Kick("why".into()), receipt: 7 },
            Note::Moderate { room, peer: peer(3), wish: Wish::Admit, receipt: 8 },
            Note::Done { receipt: 1, refused: None },
            Note::Done { receipt: 1, refused: Some(Refused::from(&refusal)) },
        ];
        for note in notes {
            let written = note.write();
            let Text(text) = &written.text;
            let read = Note::parse(text).expect("a note");
            assert_eq!((read.write(), written.kind), (written.clone(), note.kind()));
            assert!(text.starts_with(format!(r#"{{"{}""#, note.kind()).as_bytes()), "the kind is the name");
        }
        assert_eq!(Refusal::from(Refused::from(&refusal)), refusal);
    }

    #[test]
    fn payloads_come_out_as_the_text_that_they_were() {
        let long = RoomName::parse(&"x".repeat(128)).expect("a name");
        let sent = message("1", false);
        let (to, sender) = ((peer(4), u64::MAX), Some((peer(5), u64::MAX)));
        let trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert!(relay(&long, to, Some(u64::MAX), sender, trace, &sent).text.0.len() <= sent.len() + PAYLOAD_BYTES);
        for ephemeral in [false, true] {
            let sent = message(r#"{"b" :1.50, "a":"x\ny"}"#, ephemeral);
            let from = (!ephemeral).then_some((peer(5), 6));
            let trace = trace.filter(|_| !ephemeral);
            let Text(text) = relay(&room(), (peer(4), 6), Some(5), from, trace, &sent).text;
            let Ok(Note::Relay { room: name, to, moves, receipt, ephemeral: may_drop, sender, trace: told, body: raw }) =
                Note::parse(&text)
            else {
                panic!("a relay")
            };
            assert_eq!(told.as_deref(), trace);
            let told = (name, to, moves, receipt, may_drop, sender);
            assert_eq!(told, (room(), peer(4), 6, Some(5), ephemeral, from));
            let received = body(&text, raw, may_drop).expect("a body");
            assert_eq!((received.text(), received.kind), (sent.text(), sent.kind));
            let said = (!ephemeral).then_some(Said { hall: 7, number: u64::MAX });
            let Text(text) = broadcast(&long, said, &sent).text;
            assert!(text.len() <= sent.len() + PAYLOAD_BYTES);
            let Ok(Note::Broadcast { body: raw, said: read, .. }) = Note::parse(&text) else { panic!("a broadcast") };
            assert_eq!((raw.get(), read), (sent.text(), said));
        }
    }

    #[test]
    fn packets_come_out_as_they_went_in_and_envelopes_are_as_small_as_is_said() {
        let Text(note) = Note::Enter { room: room(), again: true, receipt: None }.write().text;
        for note in [None, Some((u64::MAX, note))] {
            let packet = Packet { life: u64::MAX, peer: u64::MAX, hello: false, ack: u64::MAX, note };
            let text = seal(node(u64::MAX), &packet);
            assert_eq!(open(&text).expect("a packet"), (node(u64::MAX), packet.clone()));
            assert!(text.len() <= ENVELOPE_BYTES + packet.note.map_or(0, |(_, note)| note.len()));
        }
    }

    #[test]
    fn a_member_that_is_not_known_here_is_passed_over() {
        let Text(text) = relay(&room(), (peer(4), 0), Some(1), None, None, &message("1", false)).text;
        let text = std::str::from_utf8(&text).expect("text").replacen(r#""room""#, r#""later":["x"],"room""#, 1);
        assert!(matches!(Note::parse(text.as_bytes()), Ok(Note::Relay { receipt: Some(1), trace: None, .. })));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bad in [
            "",
            "{}",
            "null",
            r#"{"enter":{}}"#,
            r#"{"enter":{"room":"a/b"}}"#,
            r#"{"unknown":{"room":"a"}}"#,
            r#"{"left":{"room":"a","peer":"x","reason":"left"}}"#,
            r#"{"left":{"room":"a","peer":"00000000-0000-0000-0000-000000000001","reason":"bored"}}"#,
            r#"{"updated":{"room":"a","peer":"00000000-0000-0000-0000-000000000001","metadata":[]}}"#,
            r#"{"enter":{"room":"a"}} "#.trim_end_matches(' ').trim_end_matches('}'),
        ] {
            assert!(Note::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in ["", "{}", r#"{"from":"1","life":1,"peer":0,"ack":0,"hello":true}"#] {
            assert!(open(&Bytes::from(bad.to_owned())).is_err(), "{bad}");
        }
        let broken = r#"{"relay":{"room":"a","to":"00000000-0000-0000-0000-000000000001","moves":0,"receipt":1,"ephemeral":false,"body":{"a"
            :1}}}"#;
        let text = Bytes::from(broken);
        let Ok(Note::Relay { body: raw, .. }) = Note::parse(&text) else { panic!("JSON it is") };
        assert!(body(&text, raw, false).is_none(), "a line break would forge a line");
    }
}
