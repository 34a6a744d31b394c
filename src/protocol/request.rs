//! What a client says: from one line or frame to a [`Request`].
//!
//! Parsing has two steps. The envelope is read into raw fields, so that a wrong field still lets the `id` be answered; then
//! each `type` takes the fields that are its own. Payloads are never parsed further than their checks need.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::json::compact;
use super::media::{Candidate, check_sdp};
use super::milestone::{AFTER_MS, CandidateType, Milestone, Reached};
use super::{Code, JoinKey, Limits, PeerId, Refusal, Rights, Ticket, Token};

/// Ids stay exact in every JSON parser: up to 2^53 - 1.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Bytes of a `reason`: a sentence, which must fit into `closed`.
const MAX_REASON: usize = 512;

/// How long an invitation may be good, in milliseconds, and how long one is that does not say so.
const INVITATION_LASTS: RangeInclusive<u64> = 1_000..=30 * 24 * 3600 * 1000;
const INVITATION_MS: u64 = 3600 * 1000;

/// How many seats may be taken with an invitation; one, where nothing is said.
const INVITATION_USES: RangeInclusive<u64> = 1..=10_000;

/// One message of a client, understood and within the limits.
#[derive(Debug)]
pub struct Request<'a> {
    /// The client's own number for it, from 1; answered with `ok` or `error`.
    pub id: Option<u64>,
    /// What it asks for.
    pub command: Command<'a>,
}

/// What a client asks for.
#[derive(Debug)]
pub enum Command<'a> {
    /// A seat in the room; only as the first message.
    Join(Join<'a>),
    /// The seat that a ticket proves; only as the first message.
    Resume(Resume<'a>),
    /// Something for other peers.
    Send(Outbound<'a>),
    /// Replaces one's own metadata (JSON text of an object).
    Metadata(Cow<'a, str>),
    /// Fresh TURN credentials.
    IceServers,
    /// One of the requests that need the `moderate` grant.
    Moderate(Moderate<'a>),
    /// A token for somebody else; needs the `moderate` grant, too.
    Invite(Invite),
    /// Renews the session's token.
    Token(Token<'a>),
    /// Tells how far the connection with a peer has come.
    Milestone(Milestone),
    /// Everything up to this `seq` has been handled.
    Ack(u64),
    /// Measures a round trip.
    Ping,
    /// Gives the seat up.
    Leave,
}

/// Requests that need the `moderate` grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moderate<'a> {
    /// Removes a peer, who is told the reason.
    Kick(Recipient, Option<Cow<'a, str>>),
    /// Locks (`true`) or unlocks the room.
    Lock(bool),
    /// Lets a waiting peer in.
    Admit(Recipient),
    /// Sends a waiting peer away.
    Refuse(Recipient),
}

/// What an invitation is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// How long it is good.
    pub lasts: Duration,
    /// How many seats may be taken with it.
    pub uses: u64,
    /// What it allows; without `join` its bearer waits to be admitted.
    pub rights: Rights,
}

/// The first message of a new session.
#[derive(Debug)]
pub struct Join<'a> {
    /// What the peer says of itself, the JSON text of an object.
    pub metadata: Cow<'a, str>,
    /// Lets a second join take the same seat.
    pub key: Option<JoinKey>,
    /// Says who comes and what it may do, where the server asks for it.
    pub token: Option<Token<'a>>,
}

/// The first message of a client that comes back.
#[derive(Debug, Clone)]
pub struct Resume<'a> {
    /// Proof of the seat; `None` for a text that no server wrote.
    pub ticket: Option<Ticket>,
    /// The last message that the client has handled.
    pub seq: u64,
    /// Takes the place of the session's token.
    pub token: Option<Token<'a>>,
}

/// A payload and whom it goes to.
#[derive(Debug)]
pub struct Outbound<'a> {
    /// Which of the three it is.
    pub kind: PayloadKind,
    /// The recipient; `None` is the whole room.
    pub to: Option<Recipient>,
    /// Its JSON text, checked and without line breaks.
    pub payload: Cow<'a, str>,
    /// May be dropped and is never replayed.
    pub ephemeral: bool,
    /// Policy leaves it out: answered as if it had been delivered.
    pub dropped: bool,
    /// What it is to a negotiation; `None` for a `message`.
    pub step: Option<Step>,
}

/// A step of a negotiation between two peers, as far as its envelope tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A description that opens a negotiation.
    Offer,
    /// One that completes it.
    Answer,
    /// One that may be followed by another (JSEP, 4.1.8).
    Pranswer,
    /// An offer is taken back.
    Rollback,
    /// An ICE candidate.
    Candidate,
    /// There are no more candidates.
    EndOfCandidates,
}

impl Step {
    /// All of them.
    pub const ALL: [Step; 6] =
        [Step::Offer, Step::Answer, Step::Pranswer, Step::Rollback, Step::Candidate, Step::EndOfCandidates];

    /// Its name: a description's `type`, or what stands in its place.
    pub fn name(self) -> &'static str {
        match self {
            Step::Offer => "offer",
            Step::Answer => "answer",
            Step::Pranswer => "pranswer",
            Step::Rollback => "rollback",
            Step::Candidate => "candidate",
            Step::EndOfCandidates => "endOfCandidates",
        }
    }

    /// The description of this `type`.
    pub(super) fn description(r#type: &str) -> Option<Step> {
        [Step::Offer, Step::Answer, Step::Pranswer, Step::Rollback].into_iter().find(|step| step.name() == r#type)
    }

    /// Whether it is a candidate or the end of them, of which there are many.
    pub fn is_candidate(self) -> bool {
        matches!(self, Step::Candidate | Step::EndOfCandidates)
    }
}

/// Whom a payload is for, as the client wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// A peer id that a server could have minted.
    Peer(PeerId),
    /// Any other text: nobody.
    Nobody,
}

impl Recipient {
    fn of(text: &str) -> Self {
        PeerId::parse(text).map_or(Recipient::Nobody, Recipient::Peer)
    }
}

/// The messages that are carried from peer to peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadKind {
    /// An RTCSessionDescriptionInit.
    Description,
    /// An RTCIceCandidateInit, or null for the end of candidates.
    Candidate,
    /// The application's own.
    Message,
}

impl PayloadKind {
    /// The message's `type`.
    pub fn name(self) -> &'static str {
        match self {
            PayloadKind::Description => "description",
            PayloadKind::Candidate => "candidate",
            PayloadKind::Message => "message",
        }
    }

    /// The member that holds the payload.
    pub(crate) fn field(self) -> &'static str {
        match self {
            PayloadKind::Description => "description",
            PayloadKind::Candidate => "candidate",
            PayloadKind::Message => "data",
        }
    }
}

/// A message that cannot be carried out, with the id to answer where there was one.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The message's id, if it had a usable one.
    pub id: Option<u64>,
    /// What is wrong with it.
    pub refusal: Refusal,
}

impl<'a> Request<'a> {
    /// Reads one line or frame.
    ///
    /// # Errors
    /// [`Invalid`] with `badRequest`, `tooLarge`, `invalidDescription` or `invalidCandidate`; nothing of the message takes effect.
    pub fn parse(text: &'a [u8], limits: &Limits) -> Result<Self, Invalid> {
        let anonymous = |refusal| Invalid { id: None, refusal };
        let text = std::str::from_utf8(text).map_err(|_| anonymous(Refusal::bad_request("a message must be UTF-8")))?;
        let fields: Fields<'a> = object(text).map_err(|error| anonymous(not_an_envelope(&error)))?;
        let id = fields.id().map_err(anonymous)?;
        let command = fields.command(limits).map_err(|refusal| Invalid { id, refusal })?;
        Ok(Request { id, command })
    }

    /// Reads one datagram: a `message` whose `id` does not count and which is ephemeral by its nature.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); also `badRequest` for every other type.
    pub fn parse_datagram(text: &'a [u8], limits: &Limits) -> Result<Outbound<'a>, Refusal> {
        match Request::parse(text, limits).map_err(|invalid| invalid.refusal)?.command {
            Command::Send(outbound) if outbound.kind == PayloadKind::Message => {
                Ok(Outbound { ephemeral: true, ..outbound })
            }
            _ => Err(Refusal::bad_request("a datagram carries one message of the type \"message\"")),
        }
    }
}

impl Command<'_> {
    /// The message's `type`, for counters: from a closed set, whatever the client sent.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Join(_) => "join",
            Command::Resume(_) => "resume",
            Command::Send(outbound) => outbound.kind.name(),
            Command::Metadata(_) => "metadata",
            Command::IceServers => "iceServers",
            Command::Moderate(Moderate::Kick(..)) => "kick",
            Command::Moderate(Moderate::Lock(_)) => "lock",
            Command::Moderate(Moderate::Admit(_)) => "admit",
            Command::Moderate(Moderate::Refuse(_)) => "refuse",
            Command::Invite(_) => "invite",
            Command::Token(_) => "token",
            Command::Milestone(_) => "milestone",
            Command::Ack(_) => "ack",
            Command::Ping => "ping",
            Command::Leave => "leave",
        }
    }
}

/// Every member that some message has, unparsed. `null` counts as present: it means something in `candidate` and `data`
/// and is a wrong type everywhere else.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    r#type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    to: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    description: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    candidate: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    ephemeral: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    token: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    key: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    ticket: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    seq: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    peer: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    locked: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    reason: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    expires_in_ms: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    uses: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    grants: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    milestone: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    candidate_type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    after_ms: Option<&'a RawValue>,
}

/// Serde reads `null` into an Option as absent; here it is a value like others.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Fields<'a> {
    fn id(&self) -> Result<Option<u64>, Refusal> {
        let Some(raw) = self.id else { return Ok(None) };
        match serde_json::from_str(raw.get()) {
            Ok(id @ 1..=MAX_SAFE_INTEGER) => Ok(Some(id)),
            _ => Err(Refusal::bad_request("\"id\" must be an integer from 1 to 2^53-1")),
        }
    }

    fn command(self, limits: &Limits) -> Result<Command<'a>, Refusal> {
        let name: Cow<'a, str> = match self.r#type {
            Some(raw) => text(raw).ok_or_else(|| Refusal::bad_request("\"type\" must be a string"))?,
            None => return Err(Refusal::bad_request("\"type\" is missing")),
        };
        Ok(match name.as_ref() {
            "join" => Command::Join(self.join(limits)?),
            "resume" => Command::Resume(self.resume()?),
            "description" => Command::Send(self.description(limits)?),
            "candidate" => Command::Send(self.candidate(limits)?),
            "message" => Command::Send(self.message(limits)?),
            "metadata" => Command::Metadata(self.own_metadata(limits)?.ok_or_else(|| missing("metadata"))?),
            "iceServers" => Command::IceServers,
            "kick" => Command::Moderate(Moderate::Kick(self.peer()?, self.reason()?)),
            "admit" => Command::Moderate(Moderate::Admit(self.peer()?)),
            "refuse" => Command::Moderate(Moderate::Refuse(self.peer()?)),
            "lock" => Command::Moderate(Moderate::Lock(required(self.locked, "locked", "true or false")?)),
            "invite" => Command::Invite(self.invite()?),
            "token" => Command::Token(Token::new(required_text(self.token, "token")?)),
            "milestone" => Command::Milestone(self.milestone()?),
            "ack" => Command::Ack(self.seq()?),
            "ping" => Command::Ping,
            "leave" => {
                self.reason()?;
                Command::Leave
            }
            // The name is the client's own and may be anything: it is not repeated.
            _ => return Err(Refusal::bad_request("unknown \"type\"")),
        })
    }

    fn join(&self, limits: &Limits) -> Result<Join<'a>, Refusal> {
        let token = self.token()?;
        let key = match optional_text(self.key, "key")? {
            Some(key) => Some(JoinKey::parse(&key).ok_or_else(|| {
                Refusal::bad_request("\"key\" must be 128 random bits as text of 16 to 128 characters")
            })?),
            None => None,
        };
        Ok(Join { metadata: self.own_metadata(limits)?.unwrap_or(Cow::Borrowed("{}")), key, token })
    }

    fn resume(&self) -> Result<Resume<'a>, Refusal> {
        let ticket = required_text(self.ticket, "ticket")?;
        Ok(Resume { ticket: Ticket::parse(&ticket), seq: self.seq()?, token: self.token()? })
    }

    fn token(&self) -> Result<Option<Token<'a>>, Refusal> {
        Ok(optional_text(self.token, "token")?.map(Token::new))
    }

    fn seq(&self) -> Result<u64, Refusal> {
        match required(self.seq, "seq", "an integer from 0 to 2^53-1")? {
            seq @ 0..=MAX_SAFE_INTEGER => Ok(seq),
            _ => Err(Refusal::bad_request("\"seq\" must be an integer from 0 to 2^53-1")),
        }
    }

    /// The peer that a request is about.
    fn peer(&self) -> Result<Recipient, Refusal> {
        Ok(Recipient::of(&required_text(self.peer, "peer")?))
    }

    fn reason(&self) -> Result<Option<Cow<'a, str>>, Refusal> {
        let reason = optional_text(self.reason, "reason")?;
        match &reason {
            Some(reason) if reason.len() > MAX_REASON => Err(too_large("reason", MAX_REASON)),
            _ => Ok(reason),
        }
    }

    fn invite(&self) -> Result<Invite, Refusal> {
        let lasts = within(self.expires_in_ms, "expiresInMs", INVITATION_LASTS)?.unwrap_or(INVITATION_MS);
        let uses = within(self.uses, "uses", INVITATION_USES)?.unwrap_or(1);
        let grants = "a list of \"join\", \"publish\", \"message\", \"moderate\"";
        let rights = match self.grants {
            None => Rights::MEMBER,
            Some(raw) => Rights::named(&required::<Vec<String>>(Some(raw), "grants", grants)?)
                .ok_or_else(|| Refusal::bad_request(format!("\"grants\" must be {grants}")))?,
        };
        Ok(Invite { lasts: Duration::from_millis(lasts), uses, rights })
    }

    fn milestone(&self) -> Result<Milestone, Refusal> {
        let name = required_text(self.milestone, "milestone")?;
        let reached = Reached::ALL
            .into_iter()
            .find(|reached| reached.name() == name)
            .ok_or_else(|| Refusal::bad_request("\"milestone\" must be \"connected\", \"media\" or \"failed\""))?;
        let candidate = match optional_text(self.candidate_type, "candidateType")? {
            Some(name) => Some(CandidateType::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
                Refusal::bad_request("\"candidateType\" must be \"host\", \"srflx\", \"prflx\" or \"relay\"")
            })?),
            None => None,
        };
        let after_ms = within(self.after_ms, "afterMs", AFTER_MS)?.ok_or_else(|| missing("afterMs"))?;
        Ok(Milestone { peer: self.peer()?, reached, candidate, after_ms: after_ms as u32 })
    }

    fn own_metadata(&self, limits: &Limits) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(raw) = self.metadata else { return Ok(None) };
        if !raw.get().starts_with('{') {
            return Err(Refusal::bad_request("\"metadata\" must be a JSON object"));
        }
        payload("metadata", raw, limits.metadata_bytes).map(Some)
    }

    fn description(&self, limits: &Limits) -> Result<Outbound<'a>, Refusal> {
        let to = self.recipient()?.ok_or_else(|| missing("to"))?;
        let raw = self.description.ok_or_else(|| missing("description"))?;
        let invalid = |why| Refusal::new(Code::InvalidDescription, why);
        let init: DescriptionInit<'_> = object(raw.get()).map_err(|_| {
            invalid("\"description\" must be {type: \"offer\"|\"answer\"|\"pranswer\"|\"rollback\", sdp: string}")
        })?;
        let sdp = init
            .sdp
            .map(text)
            .map(|sdp| sdp.ok_or_else(|| invalid("\"sdp\" must be a string without lone surrogates")));
        let step = Step::description(&init.r#type)
            .ok_or_else(|| invalid("a description's \"type\" is offer, answer, pranswer or rollback"))?;
        match sdp.transpose()? {
            None if step != Step::Rollback => return Err(invalid("\"sdp\" is missing")),
            Some(sdp) if sdp.len() > limits.sdp_bytes => return Err(too_large("sdp", limits.sdp_bytes)),
            Some(sdp) if step != Step::Rollback && limits.checks.grammar => check_sdp(&sdp).map_err(invalid)?,
            None | Some(_) => {}
        }
        // The SDP has its own limit; around it there is no more than the frame lets through.
        let payload = payload("description", raw, limits.frame_bytes)?;
        let step = Some(step);
        Ok(Outbound { kind: PayloadKind::Description, to: Some(to), payload, ephemeral: false, dropped: false, step })
    }

    fn candidate(&self, limits: &Limits) -> Result<Outbound<'a>, Refusal> {
        let to = self.recipient()?.ok_or_else(|| missing("to"))?;
        let raw = self.candidate.ok_or_else(|| missing("candidate"))?;
        let payload = payload("candidate", raw, limits.candidate_bytes)?;
        let (mut dropped, mut step) = (false, Step::EndOfCandidates);
        if raw.get() != "null" {
            let invalid = |why| Refusal::new(Code::InvalidCandidate, why);
            let init = object::<CandidateInit<'_>>(raw.get()).map_err(|_| {
                invalid("\"candidate\" must be null or {candidate: string, sdpMid: string|null, sdpMLineIndex: 0-65535|null, usernameFragment: string|null}")
            })?;
            match Candidate::parse(&init.candidate) {
                // The end of candidates is never left out.
                _ if init.candidate.is_empty() => {}
                Ok(candidate) => (dropped, step) = (candidate.is_dropped(limits.checks), Step::Candidate),
                Err(why) if limits.checks.grammar => return Err(invalid(why)),
                Err(_) => step = Step::Candidate,
            }
        }
        let step = Some(step);
        Ok(Outbound { kind: PayloadKind::Candidate, to: Some(to), payload, ephemeral: false, dropped, step })
    }

    fn message(&self, limits: &Limits) -> Result<Outbound<'a>, Refusal> {
        let to = self.recipient()?;
        let ephemeral = match self.ephemeral {
            Some(raw) => required(Some(raw), "ephemeral", "true or false")?,
            None => false,
        };
        let raw = self.data.ok_or_else(|| missing("data"))?;
        let payload = payload("data", raw, limits.data_bytes)?;
        Ok(Outbound { kind: PayloadKind::Message, to, payload, ephemeral, dropped: false, step: None })
    }

    fn recipient(&self) -> Result<Option<Recipient>, Refusal> {
        let Some(raw) = self.to else { return Ok(None) };
        match text(raw) {
            Some(to) if !to.is_empty() => Ok(Some(Recipient::of(&to))),
            _ => Err(Refusal::bad_request("\"to\" must be a peer's id")),
        }
    }
}

#[derive(Deserialize)]
struct DescriptionInit<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    sdp: Option<&'a RawValue>,
}

/// The members of an RTCIceCandidateInit with their types; others may stand beside them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "only the types are of interest")]
struct CandidateInit<'a> {
    #[serde(borrow, default)]
    candidate: Cow<'a, str>,
    #[serde(borrow, default)]
    sdp_mid: Option<Cow<'a, str>>,
    #[serde(default)]
    sdp_m_line_index: Option<u16>,
    #[serde(borrow, default)]
    username_fragment: Option<Cow<'a, str>>,
}

/// Reads a JSON object. Serde alone would take an array as well, whose items are the members in their order.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    if text.trim_start().starts_with('[') {
        return Err(serde::de::Error::custom("an array"));
    }
    serde_json::from_str(text)
}

fn not_an_envelope(error: &serde_json::Error) -> Refusal {
    // serde_json's own text may quote the input, which is never repeated; line and column say enough.
    let (line, column) = (error.line(), error.column());
    Refusal::bad_request(match error.classify() {
        serde_json::error::Category::Data => "a message must be one JSON object without repeated members".to_owned(),
        _ => format!("not JSON: line {line}, column {column}"),
    })
}

fn missing(field: &str) -> Refusal {
    Refusal::bad_request(format!("\"{field}\" is missing"))
}

fn too_large(field: &str, limit: usize) -> Refusal {
    Refusal::new(Code::TooLarge, format!("\"{field}\" is larger than {limit} bytes"))
}

/// A JSON string's text; `None` for other types and for lone surrogates.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

fn required_text<'a>(raw: Option<&'a RawValue>, field: &str) -> Result<Cow<'a, str>, Refusal> {
    optional_text(raw, field)?.ok_or_else(|| missing(field))
}

fn optional_text<'a>(raw: Option<&'a RawValue>, field: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(raw) = raw else { return Ok(None) };
    text(raw).map(Some).ok_or_else(|| Refusal::bad_request(format!("\"{field}\" must be a string")))
}

fn required<T: DeserializeOwned>(raw: Option<&RawValue>, field: &str, right: &str) -> Result<T, Refusal> {
    let raw = raw.ok_or_else(|| missing(field))?;
    serde_json::from_str(raw.get()).map_err(|_| Refusal::bad_request(format!("\"{field}\" must be {right}")))
}

fn within(raw: Option<&RawValue>, field: &str, bounds: RangeInclusive<u64>) -> Result<Option<u64>, Refusal> {
    let Some(raw) = raw else { return Ok(None) };
    let right = format!("an integer from {} to {}", bounds.start(), bounds.end());
    match required(Some(raw), field, &right)? {
        number if bounds.contains(&number) => Ok(Some(number)),
        _ => Err(Refusal::bad_request(format!("\"{field}\" must be {right}"))),
    }
}

fn payload<'a>(field: &str, raw: &'a RawValue, limit: usize) -> Result<Cow<'a, str>, Refusal> {
    let text = compact(raw.get()).map_err(|why| Refusal::bad_request(format!("\"{field}\": {why}")))?;
    if text.len() > limit { Err(too_large(field, limit)) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_no_object() {
        for text in [
            r#"["ping"]"#,
            r#" ["ping",1]"#,
            r#"{"type":"description","to":"x","description":["offer","v=0"]}"#,
            r#"{"type":"candidate","to":"x","candidate":["c"]}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    fn parse(text: &str) -> Result<Request<'_>, Invalid> {
        Request::parse(text.as_bytes(), &Limits::default())
    }

    fn code(text: &str) -> (Option<u64>, Code) {
        let invalid = parse(text).expect_err(text);
        (invalid.id, invalid.refusal.code)
    }

    const PEER: &str = "0197a000-0000-7000-8000-000000000001";

    #[test]
    fn a_candidate_keeps_its_text_and_null_is_the_end_of_candidates() {
        let line = format!(
            r#"{{"to":"{PEER}","type":"candidate","id":3,"candidate":{{"sdpMid":"0","candidate":"","x":1e999}},"unknown":[]}}"#
        );
        let request = parse(&line).expect("valid");
        assert_eq!(request.id, Some(3));
        let Command::Send(outbound) = request.command else { panic!("{:?}", request.command) };
        assert_eq!(outbound.payload, r#"{"sdpMid":"0","candidate":"","x":1e999}"#);
        assert!(matches!(outbound.to, Some(Recipient::Peer(_))));
        let null = format!(r#"{{"to":"{PEER}","type":"candidate","candidate":null}}"#);
        assert!(matches!(
            parse(&null).expect("valid").command,
            Command::Send(Outbound { payload: Cow::Borrowed("null"), .. })
        ));
    }

    #[test]
    fn a_wrong_field_is_answered_under_its_id() {
        for (line, want) in [
            (r#"{"type":"message","id":7}"#, Code::BadRequest),
            (r#"{"type":"message","id":7,"data":1,"to":""}"#, Code::BadRequest),
            (r#"{"type":"message","id":7,"data":1,"to":null}"#, Code::BadRequest),
            (r#"{"type":"message","id":7,"data":"\ud800"}"#, Code::BadRequest),
            (r#"{"type":"nonsense","id":7}"#, Code::BadRequest),
            (r#"{"type":5,"id":7}"#, Code::BadRequest),
            (r#"{"id":7}"#, Code::BadRequest),
            (r#"{"type":"join","id":7,"metadata":[]}"#, Code::BadRequest),
            (r#"{"type":"join","id":7,"key":"short"}"#, Code::BadRequest),
            (r#"{"type":"ack","id":7,"seq":-1}"#, Code::BadRequest),
            (r#"{"type":"description","id":7,"to":"x","description":{"type":"offer"}}"#, Code::InvalidDescription),
            (
                r#"{"type":"description","id":7,"to":"x","description":{"type":"bye","sdp":""}}"#,
                Code::InvalidDescription,
            ),
            (r#"{"type":"description","id":7,"to":"x","description":"offer"}"#, Code::InvalidDescription),
            (r#"{"type":"candidate","id":7,"to":"x","candidate":{"candidate":5}}"#, Code::InvalidCandidate),
            (r#"{"type":"candidate","id":7,"to":"x"}"#, Code::BadRequest),
        ] {
            assert_eq!(code(line), (Some(7), want), "{line}");
        }
    }

    #[test]
    fn what_is_no_envelope_has_no_id() {
        for line in [
            "",
            "x",
            "[]",
            "null",
            "{\"type\":\"ping\"} x",
            "{\"type\":\"ping\",\"type\":\"ping\"}",
            "{\"type\":\"ping\",\"id\":0}",
            "{\"type\":\"ping\",\"id\":1.5}",
            "{\"type\":\"ping\",\"id\":\"1\"}",
        ] {
            assert_eq!(code(line), (None, Code::BadRequest), "{line}");
        }
        assert!(Request::parse(b"{\"type\":\"p\xff\"}", &Limits::default()).is_err());
    }

    #[test]
    fn each_payload_has_its_own_limit_to_the_byte() {
        let data = |length: usize| format!(r#"{{"type":"message","data":"{}"}}"#, "x".repeat(length - 2));
        assert!(parse(&data(64 * 1024)).is_ok());
        assert_eq!(code(&data(64 * 1024 + 1)).1, Code::TooLarge);
        // Each line of an SDP ends in four bytes of JSON that are two of SDP.
        let sdp = |length: usize| {
            format!(
                r#"{{"type":"description","to":"x","description":{{"type":"offer","sdp":"{}"}}}}"#,
                "v=0".to_owned() + &"\\r\\na=x".repeat(5) + &"x".repeat(length - 28)
            )
        };
        assert!(parse(&sdp(128 * 1024)).is_ok());
        assert_eq!(code(&sdp(128 * 1024 + 1)).1, Code::TooLarge);
    }

    #[test]
    fn escaped_names_and_a_rollback_without_sdp_are_understood() {
        let line = r#"{"type":"descri\u0070tion","to":"x","description":{"type":"rollback"}}"#;
        assert!(matches!(
            parse(line).expect("valid").command,
            Command::Send(Outbound { to: Some(Recipient::Nobody), .. })
        ));
    }

    #[test]
    fn a_datagram_is_an_ephemeral_message_and_nothing_else() {
        let limits = Limits::default();
        assert!(
            Request::parse_datagram(br#"{"type":"message","data":1,"ephemeral":false}"#, &limits)
                .expect("valid")
                .ephemeral
        );
        assert!(Request::parse_datagram(br#"{"type":"ping"}"#, &limits).is_err());
    }
}
