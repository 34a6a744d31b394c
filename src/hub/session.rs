//! A seat as its client's side sees it: requests go in through a [`Speaker`], a [`Session`] is that and the transport that
//! has the seat.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::recording::end;
use super::{Hall, Hub, now};
use crate::cluster::note::Note;
use crate::outbox::{Outbox, Output, SharedSeat};
use crate::protocol::{
    Body, Code, Command, Frame, Grant, Invite, LeftReason, Limits, Metadata, Milestone, Moderate, Outbound, PeerId,
    Recipient, Refusal, Request, Rights, RoomName, Transport,
};
use crate::seat::{Admission, Ending, Lease, Log, Seat};
use crate::timeline::Outcome;
use crate::traces::Span;

/// What has happened at a seat up to a moment.
#[derive(Debug, Clone)]
pub struct History {
    /// Events and counts.
    pub log: Log,
    /// How many numbered messages the client has been sent.
    pub sent: u64,
    /// The moment.
    pub until: Instant,
}

/// Whoever may make requests for a seat, as long as the transport that has the seat now keeps it.
#[derive(Debug)]
pub struct Speaker {
    pub(super) hub: Arc<Hub>,
    pub(super) room: RoomName,
    pub(super) peer: PeerId,
    pub(super) seat: Arc<SharedSeat>,
    pub(super) generation: u64,
    pub(super) limits: Arc<Limits>,
}

impl Speaker {
    pub(super) fn new(hub: Arc<Hub>, room: RoomName, peer: PeerId, seat: Arc<SharedSeat>, generation: u64) -> Self {
        let limits = seat.quietly(|seat| Arc::clone(&seat.grant().limits));
        Speaker { hub, room, peer, seat, generation, limits }
    }

    /// Whose seat it is.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Its room.
    pub fn room(&self) -> &RoomName {
        &self.room
    }

    /// The same again where only the next poll has taken the seat up meanwhile, which changes nothing for what is sent beside polls.
    pub fn after_poll(&self) -> Option<Self> {
        let (generation, transport) = self.seat.quietly(|seat| (seat.generation(), seat.transport()));
        let is_next = transport == Transport::LongPoll && generation != self.generation;
        is_next
            .then(|| Self::new(Arc::clone(&self.hub), self.room.clone(), self.peer, Arc::clone(&self.seat), generation))
    }

    /// Says where the client is, for the operator.
    pub fn is_at(&self, address: IpAddr) {
        self.seat.quietly(|seat| seat.set_address(address));
    }

    /// What has happened at the seat.
    pub fn history(&self) -> History {
        self.seat.quietly(|seat| History { log: seat.log().clone(), sent: seat.sent(), until: now() })
    }

    /// What the session may ask for: its token's limits, or the server's.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Carries out one request; what there is to answer goes through the seat's queue. Returns false, and has done nothing, if
    /// the seat is no longer this speaker's or about to be closed. `trace` ends with what has become of a payload.
    pub fn handle(&self, request: Request<'_>, trace: &Span) -> bool {
        self.handle_noting(request, trace, |_| {})
    }

    /// The same for who counts the milestones that are told: `noted` is given one that was told for the first time.
    pub fn handle_noting(&self, request: Request<'_>, trace: &Span, noted: impl FnOnce(&Milestone)) -> bool {
        match request.command {
            Command::Ping => self.answer(Body::pong(request.id)),
            Command::Ack(seq) => self.ack(request.id, seq),
            command => self.execute(request.id, command, trace, noted),
        }
    }

    /// Answers a message that could not be understood. It counts against the rate and its id is handled, as if it had been.
    pub fn refuse(&self, id: Option<u64>, refusal: &Refusal) -> bool {
        let mut shard = self.hub.shard(&self.room).lock();
        let (told, code) = match self.admit(id, now()) {
            Admitted::Execute(_) => (self.answer(Body::error(id, refusal)), refusal.code),
            Admitted::Refused(code) => (true, code),
            Admitted::Answered => return true,
            Admitted::Stale => return false,
        };
        if let Some(hall) = shard.get_mut(&self.room) {
            hall.record_refusal(self.peer, code);
        }
        told
    }

    /// Whether the seat was left, or its peer removed.
    pub fn has_left(&self) -> bool {
        self.seat.quietly(|seat| seat.lease() == Lease::Left)
    }

    /// What serves the seat, or did last.
    pub fn transport(&self) -> Transport {
        self.seat.quietly(|seat| seat.transport())
    }

    /// Why a request was not carried out.
    pub fn staleness(&self) -> Refusal {
        self.seat.quietly(|seat| seat.staleness(self.generation))
    }

    /// Carries out a datagram. There is no id to answer, and nothing but a failure to be told.
    pub fn handle_datagram(&self, outbound: &Outbound<'_>) {
        let mut shard = self.hub.shard(&self.room).lock();
        let Some(hall) = shard.get_mut(&self.room) else { return };
        let now = now();
        match self.admit(None, now) {
            Admitted::Execute(rights) => match rights.allow_to_send(outbound) {
                Ok(()) => self.relay(hall, None, outbound, now, &Span::NONE),
                Err(refusal) => {
                    self.answer(Body::error(None, &refusal));
                }
            },
            Admitted::Answered | Admitted::Refused(_) | Admitted::Stale => {}
        }
    }

    /// Pushes an answer into the seat's own queue, unless a later transport has the seat.
    fn answer(&self, body: Body) -> bool {
        self.seat.with(|seat| seat.generation() == self.generation && seat.push(body))
    }

    fn ack(&self, id: Option<u64>, seq: u64) -> bool {
        // The `resume` that wants the seat elsewhere may have been sent before, and want what it acknowledges.
        let is_ours = |seat: &Seat| seat.generation() == self.generation && !seat.is_parting();
        let acked = self.seat.quietly(|seat| is_ours(seat).then(|| seat.ack(seq)));
        match acked {
            None => false,
            Some(Err(refusal)) => self.refuse(id, &refusal),
            // An `ack` is told that it was heard only if it asks.
            Some(Ok(())) => id.is_none() || self.answer(Body::ok(id)),
        }
    }

    fn execute(&self, id: Option<u64>, command: Command<'_>, trace: &Span, noted: impl FnOnce(&Milestone)) -> bool {
        let mut shard = self.hub.shard(&self.room).lock();
        let Some(hall) = shard.get_mut(&self.room) else { return false };
        let now = now();
        let rights = match self.admit(id, now) {
            Admitted::Execute(rights) => rights,
            Admitted::Refused(code) => {
                trace.fail(code.name());
                hall.record_refusal(self.peer, code);
                return true;
            }
            Admitted::Answered => {
                trace.end("repeated");
                return true;
            }
            Admitted::Stale => {
                trace.fail("stale");
                return false;
            }
        };
        if let Err(refusal) = rights.allow(&command) {
            trace.fail(refusal.code.name());
            hall.record_refusal(self.peer, refusal.code);
            hall.answer(self.peer, Body::error(id, &refusal));
            return true;
        }
        let answer = match command {
            Command::Send(outbound) => {
                self.relay(hall, id, &outbound, now, trace);
                return true;
            }
            Command::Leave => {
                hall.answer(self.peer, Body::ok(id));
                hall.remove(self.peer, LeftReason::Left, Some(Ending::Left));
                self.hub.drop_if_empty(&mut shard, &self.room);
                return true;
            }
            Command::Metadata(metadata) => {
                let metadata = self.seat.quietly(|seat| Metadata::vouched(&metadata, seat.grant().metadata.as_deref()));
                let mut out = Vec::new();
                hall.room.update(self.peer, metadata.clone(), &mut out);
                hall.carry_out(out);
                hall.announce(|room| Note::Updated { room, peer: self.peer, metadata });
                hall.touch_journal(self.peer);
                Ok(())
            }
            Command::IceServers => {
                hall.answer(self.peer, self.hub.ice_servers(&self.seat));
                self.hub.tend(hall, self.peer);
                Ok(())
            }
            Command::Milestone(told) => hall.note_milestone(self.peer, &told, now).inspect(|()| noted(&told)),
            Command::Moderate(request) => match hall.moderate_elsewhere(self.peer, id, &request) {
                Some(Ok(())) => return true,
                Some(Err(refusal)) => Err(refusal),
                None => self.moderate(hall, request),
            },
            Command::Join(_) | Command::Resume(_) => {
                Err(Refusal::bad_request("\"join\" and \"resume\" are first messages; this session has begun"))
            }
            Command::Invite(_) => {
                Err(Refusal::new(Code::NotFound, "this server makes no invitations; see --invite-key"))
            }
            // Without keys there is nothing that a token could change.
            Command::Token(_) | Command::Ack(_) | Command::Ping => Ok(()),
        };
        match answer {
            Ok(()) if id.is_some() => hall.answer(self.peer, Body::ok(id)),
            Ok(()) => {}
            Err(refusal) => {
                hall.record_refusal(self.peer, refusal.code);
                hall.answer(self.peer, Body::error(id, &refusal));
            }
        }
        true
    }

    /// Carries out what only a moderator may ask.
    fn moderate(&self, hall: &mut Hall, request: Moderate<'_>) -> Result<(), Refusal> {
        match request {
            Moderate::Lock(locked) => {
                hall.lock(locked, Some(self.peer));
                Ok(())
            }
            Moderate::Kick(Recipient::Peer(peer), _) if peer == self.peer => {
                Err(Refusal::bad_request("\"peer\" is the moderator itself; \"leave\" leaves"))
            }
            Moderate::Kick(Recipient::Peer(peer), reason) if hall.room.has(peer) => {
                hall.kick(peer, kick_message(reason.as_deref()));
                Ok(())
            }
            Moderate::Kick(..) => Err(Refusal::new(Code::PeerGone, "no such peer in the room")),
            Moderate::Admit(Recipient::Peer(peer)) => self.hub.let_in(hall, peer),
            Moderate::Refuse(Recipient::Peer(peer)) => hall.turn_away(peer, LeftReason::Kicked, NOT_ADMITTED),
            Moderate::Admit(Recipient::Nobody) | Moderate::Refuse(Recipient::Nobody) => {
                Err(Refusal::new(Code::PeerGone, "no such peer waits to be admitted"))
            }
        }
    }

    /// Puts a newer token in the place of the session's, or answers why that cannot be. As [`handle`](Self::handle) else.
    pub fn renew(&self, id: Option<u64>, newer: Result<Grant, Refusal>) -> bool {
        let mut shard = self.hub.shard(&self.room).lock();
        let Some(hall) = shard.get_mut(&self.room) else { return false };
        match self.admit(id, now()) {
            Admitted::Execute(_) => {}
            Admitted::Answered | Admitted::Refused(_) => return true,
            Admitted::Stale => return false,
        }
        match newer.and_then(|newer| self.seat.quietly(|seat| seat.renew(newer, now()))) {
            Ok(()) => {
                if id.is_some() {
                    hall.answer(self.peer, Body::ok(id));
                }
                hall.update_role(self.peer, &self.seat, false);
                hall.touch_journal(self.peer);
                self.hub.spare_waiting(hall, self.peer, &self.seat);
                self.hub.tend(hall, self.peer);
            }
            Err(refusal) => {
                hall.record_refusal(self.peer, refusal.code);
                hall.answer(self.peer, Body::error(id, &refusal));
            }
        }
        true
    }

    /// Makes an invitation by `make`, for a moderator whose grants are no less than those asked for. As
    /// [`handle`](Self::handle) else.
    pub fn invite(&self, id: Option<u64>, invite: &Invite, make: impl FnOnce() -> Result<String, Refusal>) -> bool {
        let admitted = {
            let _order = self.hub.shard(&self.room).lock();
            self.admit(id, now())
        };
        let rights = match admitted {
            Admitted::Execute(rights) => rights,
            Admitted::Answered | Admitted::Refused(_) => return true,
            Admitted::Stale => return false,
        };
        // Signing takes its time, and needs no lock.
        let answer = match rights.allow_to_invite(invite).and_then(|()| make()) {
            Ok(token) => Body::invited(id, &token, invite.lasts.as_millis() as u64),
            Err(refusal) => Body::error(id, &refusal),
        };
        // For whichever transport has the seat now: the id counts as handled.
        self.seat.with(|seat| seat.push(answer));
        true
    }

    fn relay(&self, hall: &mut Hall, id: Option<u64>, outbound: &Outbound<'_>, now: Instant, trace: &Span) {
        let mut out = Vec::new();
        hall.room.relay(self.peer, id, outbound, &mut out);
        let outcome = hall.carry_out_in(trace, out);
        if let Some(step) = outbound.step {
            let otherwise = if outbound.dropped { Outcome::Filtered } else { Outcome::PeerGone };
            let outcome = outcome.unwrap_or(otherwise);
            end(trace, outcome);
            hall.record_step(self.peer, outbound, step, outcome, now);
        }
        if outbound.to.is_none() {
            hall.broadcast_elsewhere(self.peer, outbound);
        }
    }

    /// Whether a request is to be carried out. Called under the shard's lock, so that what one transport had admitted is done
    /// before a later one takes the seat.
    fn admit(&self, id: Option<u64>, now: Instant) -> Admitted {
        let admission = self.seat.quietly(|seat| seat.admit(self.generation, id, now));
        let answer = match admission {
            Admission::Execute(rights) => return Admitted::Execute(rights),
            Admission::Stale => return Admitted::Stale,
            Admission::Repeat => Body::ok(id),
            Admission::Asked => return Admitted::Answered,
            Admission::Refused(refusal) => {
                self.answer(Body::error(id, &refusal));
                return Admitted::Refused(refusal.code);
            }
        };
        self.answer(answer);
        Admitted::Answered
    }
}

/// What one who was not admitted is told.
pub(super) const NOT_ADMITTED: &str = "a moderator did not admit this peer";

/// What one who is kicked is told, in one line whatever the moderator wrote.
pub(super) fn kick_message(reason: Option<&str>) -> String {
    let reason = reason.map(|reason| format!(": {}", reason.replace(char::is_control, " ")));
    format!("a moderator removed this peer{}", reason.unwrap_or_default())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admitted {
    Execute(Rights),
    Answered,
    /// Answered with an `error` of this code.
    Refused(Code),
    Stale,
}

/// A seat with the transport that has it. Dropping it is losing the transport: the seat goes away, whatever ended the task.
#[derive(Debug)]
pub struct Session {
    speaker: Speaker,
    pub(super) outbox: Outbox,
    /// Until when the seat waits for the next poll before it counts as away; `None` on a transport that lasts.
    pub(super) next_poll: Option<Instant>,
    _served: TaskTrackerToken,
}

impl Session {
    pub(super) fn new(hub: Arc<Hub>, room: RoomName, peer: PeerId, seat: Arc<SharedSeat>) -> Self {
        let outbox = Outbox::new(Arc::clone(&seat));
        let served = hub.served.token();
        seat.expect_poll(None);
        let speaker = Speaker::new(hub, room, peer, seat, outbox.generation());
        Session { speaker, outbox, next_poll: None, _served: served }
    }

    /// Waits for something to write, or the end; with `wants_frames` false for the end alone.
    pub fn poll_next(&self, wants_frames: bool, cx: &mut Context<'_>) -> Poll<Output> {
        self.outbox.poll_next(wants_frames, cx)
    }

    /// `waiting`, as long as the peer waits to be admitted.
    pub(super) fn still_waiting(&self) -> Option<Frame> {
        let waits = self.seat.quietly(|seat| seat.waits_until().filter(|_| seat.lease() != Lease::Left));
        waits.map(|until| self.hub.waiting(until))
    }

    /// The same without waiting.
    pub fn try_next(&self) -> Option<Output> {
        self.outbox.try_next(true)
    }
}

impl Deref for Session {
    type Target = Speaker;

    fn deref(&self) -> &Speaker {
        &self.speaker
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.speaker.hub.detach(&self.speaker, self.next_poll);
    }
}
