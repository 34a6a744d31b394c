//! The client's half of a session that outlives its transports: ids, requests without an answer, sequence numbers,
//! acknowledgements, tickets, and the room. Pure: no clock, no I/O, no chance; all that happens comes in from whoever has links.
//!
//! A *link* is one transport from its greeting on. Several may be there at once, as when a live session moves: [`Seat::greet`]
//! begins one, the last begun is the one whose `joined` or `resumed` counts, and until that has come the one before goes on.
//! Messages of an earlier link, still on the way when a later one was greeted, are taken in where they fit.
//!
//! The invariant: whatever the links bring, the application gets each numbered message once and in order, and each request has
//! one answer.

use std::collections::BTreeMap;

use serde::Serialize;

use super::message::{Change, IceServers, Incoming, Joined, Payload, Refused, Resumed, ServerMessage, Ticket};
use super::request::Request;
use super::roster::Roster;
use crate::protocol::Limits;

/// An acknowledgement must not wait any more after this many messages; the protocol wants one at least every 32.
const ACK_EVERY: u64 = 16;

/// What may wait for an answer, or for a link while there is none.
const PENDING_REQUESTS: usize = 1024;
/// The same in bytes.
const PENDING_BYTES: usize = 1024 * 1024;

/// Links whose messages are taken in; those of older ones are not waited for.
const LINKS: usize = 8;

/// One transport of a seat, by the order of their greetings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u64);

/// What a greeting says of oneself.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// What the others are told: a JSON object.
    pub metadata: Option<Payload>,
    /// Proves who one is. In a `resume` it renews the session's.
    pub token: Option<Token>,
}

/// A token, which must not show in a log.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What the application is told.
#[derive(Debug, Clone)]
pub enum Told {
    /// A whole picture: of the first seat, of a new one, or of the same one after a hole. Changes that it shows follow.
    Joined(Box<Joined>),
    /// The seat was taken up again on another link, and nothing is missing.
    Resumed(Resumed),
    /// The room has changed.
    Room(Change),
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
    /// A request of one's own has its answer.
    Answered {
        /// The request.
        id: u64,
        /// What came of it.
        answer: Result<(), Refused>,
    },
    /// An error that is about no request of one's own.
    Error(Refused),
    /// A moderator must admit one first.
    Waiting {
        /// Silence after which the server pings, in milliseconds.
        heartbeat_ms: Option<u64>,
    },
    /// A token for somebody else, as was asked for.
    Invitation {
        /// What to show in a join.
        token: Token,
        /// It is good for so many milliseconds.
        expire_ms: u64,
    },
    /// The session's token runs out.
    TokenExpiring {
        /// In so many milliseconds.
        expire_ms: u64,
    },
    /// Fresh TURN credentials.
    IceServers(IceServers),
}

/// What comes of one message.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For the application, in order.
    pub told: Vec<Told>,
    /// For the link that brought it, in order.
    pub lines: Vec<String>,
}

impl Outcome {
    fn tell(told: Told) -> Self {
        Outcome { told: vec![told], lines: Vec::new() }
    }
}

/// A message is missing on the present link: the server's mistake or a proxy's. Give the link up and resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message after number {after} is missing")]
pub struct Gap {
    /// The last that was there.
    pub after: u64,
}

/// How urgent an acknowledgement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Everything is acknowledged.
    None,
    /// It may wait for company, though not long.
    Soon,
    /// It is due.
    Now,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The server would refuse it.
    #[error("the message has {bytes} bytes, the server takes {limit}")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What the server takes.
        limit: usize,
    },
    /// Requests come in faster than they are answered, or there is no connection for long.
    #[error("too many requests wait for an answer or for a connection")]
    QueueFull,
}

/// One seat, or the wish for one.
#[derive(Debug)]
pub struct Seat {
    key: Token,
    ticket: Option<Ticket>,
    /// The last number handled, and the last acknowledged.
    last_seq: u64,
    acked_seq: u64,
    last_id: u64,
    /// Answers to requests up to here may be among what was lost in a hole: no replay brings them.
    unsure_to: u64,
    frame_bytes: usize,
    pending: BTreeMap<u64, String>,
    pending_bytes: usize,
    roster: Roster,
    /// The last link begun.
    newest: u64,
    /// The link whose greeting waits for its answer, and the number that it said was the last handled.
    greeting: Option<LinkId>,
    greeted_seq: u64,
    /// Links whose greeting was answered and counted, oldest first.
    links: Vec<LinkId>,
    /// The last of them, until it is over. An earlier one does not take its place: what was sent on the later one would
    /// not go again on it.
    in_use: Option<LinkId>,
    /// The number that it has come to; behind the last handled while it repeats what an earlier one brought meanwhile.
    in_use_at: u64,
}

impl Seat {
    /// No seat yet. `key` is 128 random bits as text, under which a `join` may be said again.
    pub fn new(key: String) -> Self {
        Seat {
            key: Token(key),
            ticket: None,
            last_seq: 0,
            acked_seq: 0,
            last_id: 0,
            unsure_to: 0,
            frame_bytes: Limits::default().frame_bytes,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            roster: Roster::default(),
            newest: 0,
            greeting: None,
            greeted_seq: 0,
            links: Vec::new(),
            in_use: None,
            in_use_at: 0,
        }
    }

    /// Whether that link's greeting was answered `waiting`, and nothing has been decided since.
    pub fn is_waiting(&self, link: LinkId) -> bool {
        self.greeting == Some(link) && self.links.contains(&link)
    }

    /// Begins a link: its first line is `join` where there is no seat, else `resume`.
    ///
    /// An earlier greeting that still has no answer is given up by it.
    pub fn greet(&mut self, member: &Member) -> (LinkId, String) {
        self.newest += 1;
        let link = LinkId(self.newest);
        // With the greeting, a link that waits is given up: what it brings would be of a room that is not known here.
        let given_up = self.greeting.replace(link);
        self.links.retain(|one| Some(*one) != given_up);
        self.greeted_seq = self.last_seq;
        let line = match &self.ticket {
            None => join(&self.key, member),
            Some(ticket) => resume(ticket, self.last_seq, member.token.as_ref()),
        };
        (link, line)
    }

    /// The next `resume` of the link in use, which is a long poll: its answer is more of the same link.
    pub fn poll(&self) -> Option<String> {
        self.ticket.as_ref().map(|ticket| resume(ticket, self.last_seq, None))
    }

    /// The link to send on: the last whose greeting was answered, unless it is over. What is asked while there is none waits for the next.
    pub fn link(&self) -> Option<LinkId> {
        self.in_use
    }

    /// The link whose greeting waits for its answer.
    pub fn greeting(&self) -> Option<LinkId> {
        self.greeting
    }

    /// The link is over: nothing of it will be taken in or sent on it any more.
    pub fn unlink(&mut self, link: LinkId) {
        self.greeting = self.greeting.filter(|greeting| *greeting != link);
        self.in_use = self.in_use.filter(|one| *one != link);
        self.links.retain(|one| *one != link);
    }

    /// The seat is gone for good; the next greeting asks for a new one, under a new key.
    pub fn forget(&mut self, key: String) {
        self.key = Token(key);
        self.ticket = None;
        self.greeting = None;
        self.in_use = None;
        self.links.clear();
        (self.last_seq, self.acked_seq) = (0, 0);
    }

    /// Whether there is a seat to take up again.
    pub fn has_ticket(&self) -> bool {
        self.ticket.is_some()
    }

    /// The room as it is known here.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Requests without an answer.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether any request that the server would take can be entered.
    pub fn has_room(&self) -> bool {
        self.pending.len() < PENDING_REQUESTS && self.pending_bytes + self.frame_bytes <= self.most_pending_bytes()
    }

    /// One request must fit, however large the server lets it be.
    fn most_pending_bytes(&self) -> usize {
        PENDING_BYTES.max(self.frame_bytes)
    }

    /// The number of the last message handled.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Enters a request, which is kept until it is answered. Returns its id and its line, to be sent on [`link`](Self::link) where
    /// there is one; where there is none, the next link's greeting brings the line out.
    ///
    /// # Errors
    /// [`NotTaken`]; the seat stays as it was.
    pub fn request(&mut self, request: &Request) -> Result<(u64, String), NotTaken> {
        let id = self.last_id + 1;
        let line = request.line(Some(id));
        if line.len() > self.frame_bytes {
            return Err(NotTaken::TooLarge { bytes: line.len(), limit: self.frame_bytes });
        }
        if self.pending.len() >= PENDING_REQUESTS || self.pending_bytes + line.len() > self.most_pending_bytes() {
            return Err(NotTaken::QueueFull);
        }
        self.last_id = id;
        self.pending_bytes += line.len();
        self.pending.insert(id, line.clone());
        Ok((id, line))
    }

    /// A `ping` with an id of its own; its `pong` does not go through the seat.
    pub fn ping(&mut self) -> (u64, String) {
        self.last_id += 1;
        (self.last_id, format!(r#"{{"type":"ping","id":{}}}"#, self.last_id))
    }

    /// Takes in what a link has brought. `ping`, `pong`, `goAway` and `closed` belong to the link and change nothing here.
    ///
    /// # Errors
    /// [`Gap`], on the link in use only: an earlier one may be behind, and what it skips comes by replay.
    pub fn receive(&mut self, link: LinkId, incoming: Incoming) -> Result<Outcome, Gap> {
        match incoming.message {
            ServerMessage::Joined(joined) if self.is_answer(link) => return Ok(self.joined(link, joined)),
            ServerMessage::Resumed(resumed) if self.is_answer(link) => return Ok(self.resumed(link, resumed)),
            ServerMessage::Joined(_) | ServerMessage::Resumed(_) => return Ok(Outcome::default()),
            ServerMessage::Waiting { heartbeat_ms } if self.is_answer(link) => {
                return Ok(self.waiting(link, heartbeat_ms));
            }
            _ if !self.links.contains(&link) => return Ok(Outcome::default()),
            _ => {}
        }
        let in_use = self.in_use == Some(link);
        if in_use && let Some(seq) = incoming.seq {
            self.in_use_at = seq;
        }
        match incoming.seq {
            Some(seq) if seq <= self.last_seq => return Ok(Outcome::default()),
            // `joined` will say what comes next; what was acknowledged on an earlier link does not come again.
            Some(seq) if self.is_waiting(link) => self.last_seq = seq,
            Some(seq) if seq > self.last_seq + 1 => {
                return if in_use && self.greeting.is_none() {
                    Err(Gap { after: self.last_seq })
                } else {
                    Ok(Outcome::default())
                };
            }
            Some(seq) => self.last_seq = seq,
            // Ephemeral: on an earlier link, or on one that is behind, others may have overtaken it.
            None if !in_use || self.in_use_at < self.last_seq => return Ok(Outcome::default()),
            None => {}
        }
        Ok(self.take(incoming.message))
    }

    /// Whether `joined` or `resumed` of this link counts: as the answer to the last greeting; or, while no greeting is on its way, on
    /// the link in use, which polls. Whoever greets anew has given the earlier attempt up: what comes on that one may be about a
    /// seat that is gone, and must not use up the ticket that the new greeting goes by.
    fn is_answer(&self, link: LinkId) -> bool {
        match self.greeting {
            Some(greeting) => greeting == link,
            None => self.link() == Some(link),
        }
    }

    fn joined(&mut self, link: LinkId, joined: Box<Joined>) -> Outcome {
        let before = self.roster.own().map(|own| own.peer.clone());
        let is_first = before.is_none();
        let is_new = before.is_some_and(|before| before != joined.own.peer);
        let abandoned = if is_new { std::mem::take(&mut self.pending) } else { BTreeMap::new() };
        if is_new {
            self.pending_bytes = 0;
        }
        // What came while another link waited may have had the numbers of another seat.
        if is_new || is_first && !self.links.contains(&link) {
            self.last_seq = 0;
        }
        // What was lost leaves numbers free, under which refusals are said again: an earlier link's mean something else.
        self.links.retain(|earlier| *earlier == link);
        self.open(link, joined.ticket.clone(), joined.replay_from);
        // An earlier link may have brought in, meanwhile, what this picture was to make up for.
        self.last_seq = self.last_seq.max(joined.replay_from.saturating_sub(1));
        self.acked_seq = joined.replay_from.saturating_sub(1);
        self.frame_bytes = joined.limits.frame_bytes;
        let changes = self.roster.replace(&joined);
        let mut told = vec![Told::Joined(joined)];
        told.extend(abandoned.into_keys().map(|id| Told::Answered { id, answer: Err(unknown_fate()) }));
        told.extend(changes.into_iter().map(Told::Room));
        // Answers may be among what was lost, so all go again, until each has come: what was handled is only answered.
        self.unsure_to = self.last_id;
        Outcome { told, lines: self.pending.values().cloned().collect() }
    }

    /// The greeting is not answered until `joined` comes; what the server has to say meanwhile has numbers already.
    fn waiting(&mut self, link: LinkId, heartbeat_ms: Option<u64>) -> Outcome {
        if !self.links.contains(&link) {
            self.links.push(link);
            (self.last_seq, self.acked_seq) = (0, 0);
        }
        Outcome::tell(Told::Waiting { heartbeat_ms })
    }

    fn resumed(&mut self, link: LinkId, resumed: Resumed) -> Outcome {
        let is_next_poll = self.greeting.is_none();
        self.open(link, resumed.ticket.clone(), resumed.replay_from);
        if is_next_poll {
            return Outcome::default();
        }
        // A `resume` acknowledges what it names.
        self.acked_seq = self.greeted_seq;
        // Answers to what was handled before come by replay.
        let is_open = |id: &u64| *id > resumed.last_id || *id <= self.unsure_to;
        let lines = self.pending.iter().filter(|(id, _)| is_open(id)).map(|(_, line)| line.clone()).collect();
        Outcome { told: vec![Told::Resumed(resumed)], lines }
    }

    fn open(&mut self, link: LinkId, ticket: Ticket, replay_from: u64) {
        self.in_use_at = replay_from.saturating_sub(1);
        self.ticket = Some(ticket);
        self.greeting = None;
        if self.in_use != Some(link) {
            self.links.push(link);
            self.in_use = Some(link);
        }
        if self.links.len() > LINKS {
            self.links.remove(0);
        }
    }

    fn take(&mut self, message: ServerMessage) -> Outcome {
        Outcome::tell(match message {
            ServerMessage::Room { revision, change } => match self.roster.apply(revision, change) {
                Some(change) => Told::Room(change),
                None => return Outcome::default(),
            },
            ServerMessage::Description { from, description } => Told::Description { from, description },
            ServerMessage::Candidate { from, candidate } => Told::Candidate { from, candidate },
            ServerMessage::Message { from, data } => Told::Message { from, data },
            ServerMessage::Ok { id, invitation } => match id.filter(|id| self.settle(*id)) {
                Some(id) => {
                    let invitation = invitation.map(|(token, expire_ms)| Told::Invitation { token, expire_ms });
                    let told = invitation.into_iter().chain([Told::Answered { id, answer: Ok(()) }]).collect();
                    return Outcome { told, lines: Vec::new() };
                }
                None => return Outcome::default(),
            },
            ServerMessage::Error { id, refused } => match id {
                Some(id) if self.settle(id) => Told::Answered { id, answer: Err(refused) },
                // Said again after a hole; the first answer counts.
                Some(id) if id <= self.last_id => return Outcome::default(),
                _ => Told::Error(refused),
            },
            ServerMessage::TokenExpiring { expire_ms } => Told::TokenExpiring { expire_ms },
            ServerMessage::IceServers(ice_servers) => Told::IceServers(ice_servers),
            ServerMessage::Joined(_)
            | ServerMessage::Resumed(_)
            | ServerMessage::Waiting { .. }
            | ServerMessage::GoAway { .. }
            | ServerMessage::Closed(_)
            | ServerMessage::Ping
            | ServerMessage::Pong { .. }
            | ServerMessage::Unknown => return Outcome::default(),
        })
    }

    /// Takes a request out, as it has its answer; false where none waits under this id.
    fn settle(&mut self, id: u64) -> bool {
        let settled = self.pending.remove(&id);
        self.pending_bytes -= settled.as_ref().map_or(0, String::len);
        settled.is_some()
    }

    /// Whether an acknowledgement is due on the link in use. A poll needs none: its `resume` says how far it has got.
    pub fn ack(&self) -> Ack {
        match self.last_seq.saturating_sub(self.acked_seq) {
            0 => Ack::None,
            1..ACK_EVERY => Ack::Soon,
            _ => Ack::Now,
        }
    }

    /// The acknowledgement's line; what it names counts as acknowledged from now on.
    pub fn take_ack(&mut self) -> String {
        self.acked_seq = self.last_seq;
        format!(r#"{{"type":"ack","seq":{}}}"#, self.last_seq)
    }
}

fn join(key: &Token, member: &Member) -> String {
    #[derive(Serialize)]
    struct Join<'a> {
        r#type: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<&'a Token>,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a Payload>,
        key: &'a Token,
    }
    let join = Join { r#type: "join", token: member.token.as_ref(), metadata: member.metadata.as_ref(), key };
    serde_json::to_string(&join).expect("strings and JSON")
}

fn resume(ticket: &Ticket, seq: u64, token: Option<&Token>) -> String {
    #[derive(Serialize)]
    struct Resume<'a> {
        r#type: &'static str,
        ticket: &'a str,
        seq: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<&'a Token>,
    }
    let resume = Resume { r#type: "resume", ticket: ticket.text(), seq, token };
    serde_json::to_string(&resume).expect("strings and numbers")
}

fn unknown_fate() -> Refused {
    Refused {
        code: "resumeExpired".into(),
        message: "the seat was lost before this request was answered".into(),
        retry_after_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seat() -> Seat {
        Seat::new("0123456789abcdef".into())
    }

    fn hear(seat: &mut Seat, link: LinkId, message: &Value) -> Outcome {
        let incoming = Incoming::parse(&message.to_string()).expect("well-formed");
        seat.receive(link, incoming).expect("no gap")
    }

    fn joined(own: &str, ticket: &str, replay_from: u64) -> Value {
        json!({"type": "joined", "replayFrom": replay_from, "self": {"peer": own}, "ticket": ticket, "peers": [],
            "room": {"name": "r", "locked": false, "revision": 1}})
    }

    fn resumed(ticket: &str, last_id: u64) -> Value {
        json!({"type": "resumed", "ticket": ticket, "lastId": last_id, "replayFrom": 1})
    }

    fn numbered(seq: u64) -> Value {
        json!({"type": "message", "seq": seq, "from": "b", "data": seq})
    }

    fn greet(seat: &mut Seat) -> (LinkId, Value) {
        let (link, line) = seat.greet(&Member::default());
        (link, serde_json::from_str(&line).expect("JSON"))
    }

    fn ids(lines: &[String]) -> Vec<u64> {
        let id = |line: &String| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_u64().expect("an id");
        lines.iter().map(id).collect()
    }

    /// A seat on its first link.
    fn seated() -> (Seat, LinkId) {
        let mut seat = seat();
        let (link, _) = greet(&mut seat);
        hear(&mut seat, link, &joined("me", "t1", 1));
        (seat, link)
    }

    #[test]
    fn the_first_greeting_joins_under_a_key_and_the_next_resumes() {
        let mut seat = seat();
        let member = Member { metadata: Payload::from_json(r#"{"name":"x"}"#).ok(), token: Some(Token("jwt".into())) };
        let (link, line) = seat.greet(&member);
        assert_eq!(line, r#"{"type":"join","token":"jwt","metadata":{"name":"x"},"key":"0123456789abcdef"}"#);
        let (second, again) = seat.greet(&member);
        assert_eq!(again, line, "the answer may be lost or slow");
        assert!(hear(&mut seat, link, &joined("late", "t0", 1)).told.is_empty(), "that attempt was given up");
        hear(&mut seat, second, &joined("me", "t1", 1));
        hear(&mut seat, second, &numbered(1));
        let (_, resume) = seat.greet(&Member::default());
        assert_eq!(resume, r#"{"type":"resume","ticket":"t1","seq":1}"#);
        assert!(!format!("{seat:?} {member:?}").contains("jwt"));
    }

    #[test]
    fn requests_wait_for_a_link_and_for_their_answers() {
        let mut seat = seat();
        let (first, _) = seat.request(&Request::ice_servers()).expect("taken");
        let (link, _) = greet(&mut seat);
        let (second, _) = seat.request(&Request::ice_servers()).expect("taken");
        assert_eq!(seat.link(), None);
        assert_eq!(ids(&hear(&mut seat, link, &joined("me", "t1", 1)).lines), [first, second]);
        let told = hear(&mut seat, link, &json!({"type": "ok", "seq": 1, "id": second})).told;
        assert!(matches!(told[..], [Told::Answered { id, answer: Ok(()) }] if id == second));
        assert!(hear(&mut seat, link, &json!({"type": "ok", "seq": 2, "id": second})).told.is_empty());
        let refusal = json!({"type": "error", "seq": 3, "id": first, "code": "peerGone", "message": "m"});
        let told = hear(&mut seat, link, &refusal).told;
        assert!(
            matches!(&told[..], [Told::Answered { id, answer: Err(why) }] if *id == first && why.code == "peerGone")
        );
        let told = hear(&mut seat, link, &json!({"type": "error", "seq": 4, "code": "badRequest"})).told;
        assert!(matches!(&told[..], [Told::Error(why)] if why.code == "badRequest"));
        let again = json!({"type": "error", "seq": 5, "id": first, "code": "peerGone", "message": "m"});
        assert!(hear(&mut seat, link, &again).told.is_empty(), "said again after a hole");
        assert_eq!(seat.pending(), 0);
    }

    #[test]
    fn after_a_resume_only_what_was_not_handled_goes_again() {
        let (mut seat, link) = seated();
        for _ in 0..3 {
            seat.request(&Request::ice_servers()).expect("taken");
        }
        seat.unlink(link);
        let (link, _) = greet(&mut seat);
        let outcome = hear(&mut seat, link, &resumed("t2", 2));
        assert_eq!(ids(&outcome.lines), [3]);
        assert!(matches!(outcome.told[..], [Told::Resumed(_)]));
        assert_eq!(seat.link(), Some(link));
    }

    #[test]
    fn after_a_hole_on_the_same_seat_all_go_again_and_the_loss_is_told() {
        let (mut seat, link) = seated();
        seat.request(&Request::ice_servers()).expect("taken");
        hear(&mut seat, link, &numbered(1));
        let (link, _) = greet(&mut seat);
        let mut picture = joined("me", "t2", 40);
        picture["lost"] = json!(7);
        let outcome = hear(&mut seat, link, &picture);
        assert_eq!(ids(&outcome.lines), [1]);
        assert!(matches!(&outcome.told[..], [Told::Joined(joined)] if joined.lost == Some(7)));
        assert_eq!((seat.last_seq(), seat.ack()), (39, Ack::None));
        assert_eq!(hear(&mut seat, link, &numbered(40)).told.len(), 1);
    }

    #[test]
    fn a_link_that_waits_is_given_up_by_the_next_greeting_and_its_numbers_with_it() {
        let mut seat = seat();
        let (asked, _) = seat.request(&Request::ice_servers()).expect("taken");
        let waiting = json!({"type": "waiting", "heartbeatMs": 10_000, "expireMs": 600_000});
        let (first, _) = greet(&mut seat);
        hear(&mut seat, first, &waiting);
        let refusal = json!({"type": "error", "seq": 1, "code": "forbidden", "message": "m"});
        assert_eq!(hear(&mut seat, first, &refusal).told.len(), 1);
        let (second, _) = greet(&mut seat);
        assert!(!seat.is_waiting(first));
        hear(&mut seat, first, &joined("me", "t1", 2));
        assert!(hear(&mut seat, first, &numbered(2)).told.is_empty(), "of a room that nobody has told of");
        hear(&mut seat, second, &joined("me again", "u1", 1));
        let told = hear(&mut seat, second, &json!({"type": "ok", "seq": 1, "id": asked})).told;
        assert!(matches!(told[..], [Told::Answered { answer: Ok(()), .. }]), "the new seat counts anew");
        assert_eq!(hear(&mut seat, second, &numbered(2)).told.len(), 1);
    }

    #[test]
    fn an_earlier_link_is_not_used_again_when_the_later_one_is_over() {
        let (mut seat, poll) = seated();
        let (later, _) = greet(&mut seat);
        hear(&mut seat, later, &resumed("t2", 0));
        seat.request(&Request::ice_servers()).expect("taken");
        seat.unlink(later);
        assert_eq!(seat.link(), None, "what was sent on the later one would not go again");
        hear(&mut seat, poll, &resumed("t3", 0));
        assert_eq!(seat.link(), None);
        assert_eq!(hear(&mut seat, poll, &numbered(1)).told.len(), 1, "it was on the way");
        let (link, _) = greet(&mut seat);
        assert_eq!(ids(&hear(&mut seat, link, &resumed("t3", 0)).lines), [1]);
    }

    #[test]
    fn requests_from_before_a_hole_go_again_until_they_are_answered() {
        let (mut seat, link) = seated();
        seat.request(&Request::ice_servers()).expect("taken");
        seat.unlink(link);
        let (link, _) = greet(&mut seat);
        assert_eq!(ids(&hear(&mut seat, link, &joined("me", "t2", 40)).lines), [1]);
        // That link has lost them on the way, and the server had handled them before.
        let (later, _) = seat.request(&Request::ice_servers()).expect("taken");
        seat.unlink(link);
        let (link, _) = greet(&mut seat);
        assert_eq!(ids(&hear(&mut seat, link, &resumed("t3", later)).lines), [1]);
    }

    #[test]
    fn on_a_new_seat_earlier_requests_are_given_up() {
        let (mut seat, old) = seated();
        hear(&mut seat, old, &numbered(1));
        seat.request(&Request::ice_servers()).expect("taken");
        seat.forget("fedcba9876543210".into());
        let (link, line) = greet(&mut seat);
        assert_eq!(line["key"], "fedcba9876543210");
        let outcome = hear(&mut seat, link, &joined("me again", "u1", 1));
        assert!(outcome.lines.is_empty());
        assert!(
            matches!(&outcome.told[..], [Told::Joined(_), Told::Answered { id: 1, answer: Err(why) }] if why.code == "resumeExpired")
        );
        assert!(hear(&mut seat, old, &numbered(1)).told.is_empty(), "that is the former seat's");
        assert_eq!(hear(&mut seat, link, &numbered(1)).told.len(), 1);
        assert_eq!(seat.request(&Request::ice_servers()).expect("taken").0, 2, "ids never begin anew");
    }

    #[test]
    fn messages_are_taken_once_and_in_order_whichever_link_brings_them() {
        let (mut seat, old) = seated();
        let (new, resume) = greet(&mut seat);
        assert_eq!(resume["seq"], 0);
        // The earlier link goes on until the new one has its answer, and what it skips does not matter.
        assert_eq!(hear(&mut seat, old, &numbered(1)).told.len(), 1);
        assert_eq!(seat.link(), Some(old));
        assert!(hear(&mut seat, new, &numbered(2)).told.is_empty(), "not before its greeting is answered");
        hear(&mut seat, new, &resumed("t2", 0));
        assert!(hear(&mut seat, new, &numbered(1)).told.is_empty(), "taken already");
        assert_eq!(hear(&mut seat, old, &numbered(2)).told.len(), 1, "it was on the way");
        let ephemeral = json!({"type": "message", "from": "b", "data": 0});
        assert!(hear(&mut seat, old, &ephemeral).told.is_empty(), "it may have been overtaken");
        assert!(hear(&mut seat, new, &ephemeral).told.is_empty(), "number 2 has overtaken it");
        assert!(hear(&mut seat, old, &numbered(9)).told.is_empty());
        assert!(hear(&mut seat, new, &numbered(2)).told.is_empty());
        assert_eq!(hear(&mut seat, new, &ephemeral).told.len(), 1);
        assert_eq!(hear(&mut seat, new, &numbered(3)).told.len(), 1);
        let gap = Incoming::parse(&numbered(5).to_string()).expect("well-formed");
        assert_eq!(seat.receive(new, gap).expect_err("4 is missing"), Gap { after: 3 });
    }

    #[test]
    fn a_picture_does_not_bring_back_what_an_earlier_link_has_brought_meanwhile() {
        let (mut seat, old) = seated();
        let (new, _) = greet(&mut seat);
        for seq in 1..=5 {
            hear(&mut seat, old, &numbered(seq));
        }
        hear(&mut seat, new, &joined("me", "t2", 3));
        assert!(hear(&mut seat, new, &numbered(3)).told.is_empty());
        assert_eq!(hear(&mut seat, new, &numbered(6)).told.len(), 1);
    }

    #[test]
    fn a_poll_renews_its_ticket_unless_another_greeting_is_on_its_way() {
        let (mut seat, poll) = seated();
        assert_eq!(seat.poll().expect("a seat"), r#"{"type":"resume","ticket":"t1","seq":0}"#);
        let outcome = hear(&mut seat, poll, &resumed("t2", 0));
        assert!(outcome.told.is_empty() && outcome.lines.is_empty());
        assert!(seat.poll().expect("a seat").contains("t2"));
        let (move_to, line) = greet(&mut seat);
        assert_eq!(line["ticket"], "t2");
        hear(&mut seat, poll, &resumed("t3", 0));
        assert!(seat.poll().expect("a seat").contains("t2"), "using t3 would make the greeting's ticket invalid");
        seat.unlink(move_to);
        hear(&mut seat, poll, &resumed("t3", 0));
        assert!(seat.poll().expect("a seat").contains("t3"));
        assert_eq!(seat.link(), Some(poll), "the move came to nothing");
    }

    #[test]
    fn acknowledgements_become_due() {
        let (mut seat, link) = seated();
        assert_eq!(seat.ack(), Ack::None);
        for seq in 1..=16 {
            hear(&mut seat, link, &numbered(seq));
            assert_eq!(seat.ack(), if seq < 16 { Ack::Soon } else { Ack::Now });
        }
        assert_eq!(seat.take_ack(), r#"{"type":"ack","seq":16}"#);
        assert_eq!(seat.ack(), Ack::None);
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_in_bytes() {
        let mut seat = seat();
        let large = Request::broadcast(&"x".repeat(100_000)).expect("JSON");
        let taken = (0..20).take_while(|_| seat.request(&large).is_ok()).count();
        assert_eq!(taken, 10);
        assert_eq!(seat.request(&large), Err(NotTaken::QueueFull));
        let huge = Request::broadcast(&"x".repeat(200_000)).expect("JSON");
        assert!(matches!(seat.request(&huge), Err(NotTaken::TooLarge { limit: 163_840, .. })));
        let mut seat = Seat::new("0123456789abcdef".into());
        let taken = (0..2000).take_while(|_| seat.request(&Request::ice_servers()).is_ok()).count();
        assert_eq!(taken, PENDING_REQUESTS);
    }
}
