//! A seat: one peer's place in a room, for as long as it lives and over whatever transports. Pure: time and randomness come in
//! from the [`hub`](crate::hub).
//!
//! The invariant: what a client is told has numbers 1, 2, 3 … without a gap, whichever transports it came over; where one
//! cannot be kept, the client gets a whole new picture instead and hears how much was lost. Never a silent hole.

use std::time::{Duration, Instant};

use crate::protocol::{Body, Code, Frame, Kind, Limits, PeerId, Refusal, Ticket};

mod buffer;
mod rate;

use buffer::{Buffer, Gap};
use rate::{Rate, Verdict};

/// Why what a transport carries comes to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The client said `leave`.
    Left,
    /// Anything else; told as `closed`.
    Closed(Refusal),
}

/// What a transport has to do next.
#[derive(Debug)]
pub enum Next {
    /// Write this.
    Frame(Frame),
    /// Wait: there is nothing.
    Nothing,
    /// Say the last word and close.
    End(Ending),
}

/// Whether a request may be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Execute,
    /// It was handled before; `ok` again.
    Repeat,
    /// It may not: to be answered with this refusal.
    Refused(Refusal),
    /// The transport it came on no longer has the seat, or is about to lose it: not even an answer.
    Stale,
}

/// How a `resume` goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resumption {
    /// Every message since is there: `resumed`, then the replay.
    Replay,
    /// Something is not: `joined` with a new picture, then what was kept.
    Whole {
        /// How many payloads could not be kept.
        lost: u64,
    },
}

/// Whether the seat has a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    /// A transport serves it.
    Here,
    /// It has none, and is kept until then.
    Away { until: Instant },
    /// Its peer has left the room: nothing can be taken up any more.
    Left,
}

/// One peer's place in a room.
#[derive(Debug)]
pub struct Seat {
    peer: PeerId,
    lease: Lease,
    /// Counts transports: the present one's number. Whoever holds an earlier number has been replaced.
    generation: u64,
    ending: Option<Ending>,
    tickets: Tickets,
    last_id: u64,
    buffer: Buffer,
    rate: Rate,
}

/// Two tickets are good at any time, because an answer may be lost on the way: the newest, and the one it succeeded until the
/// newest has been used.
#[derive(Debug)]
struct Tickets {
    newest: Ticket,
    previous: Option<Ticket>,
}

impl Seat {
    /// A new seat with its first transport, which has generation 1.
    pub fn new(ticket: Ticket, limits: &Limits, now: Instant) -> Self {
        Seat {
            peer: ticket.peer,
            lease: Lease::Here,
            generation: 1,
            ending: None,
            tickets: Tickets { newest: ticket, previous: None },
            last_id: 0,
            buffer: Buffer::new(limits.queue_bytes, limits.queue_messages),
            rate: Rate::new(limits.messages_per_second, limits.burst, now),
        }
    }

    /// Whose seat it is.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The present transport's number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The ticket to tell the client.
    pub fn ticket(&self) -> Ticket {
        self.tickets.newest
    }

    /// The last id that was handled; 0 before the first.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// The number of the next message that the client will get.
    pub fn replay_from(&self) -> u64 {
        self.buffer.replay_from()
    }

    /// Whether a transport serves the seat.
    pub fn is_here(&self) -> bool {
        self.lease == Lease::Here
    }

    /// Checks a ticket without using it up.
    pub fn accepts(&self, ticket: Ticket) -> bool {
        self.lease != Lease::Left && (ticket == self.tickets.newest || self.tickets.previous == Some(ticket))
    }

    /// Takes the seat up for a new transport by a ticket. `fresh` succeeds it, unless its successor was drawn before: a retry
    /// whose answer was lost gets the same one again.
    ///
    /// # Errors
    /// `resumeExpired` for a ticket that is no good, `badRequest` for a `seq` never sent; the seat stays as it was.
    pub fn resume(&mut self, ticket: Ticket, seq: u64, fresh: Ticket, now: Instant) -> Result<Resumption, Refusal> {
        if !self.accepts(ticket) || self.is_expired(now) {
            return Err(Refusal::new(Code::ResumeExpired, "there is no seat for this ticket any more; join anew"));
        }
        if seq > self.buffer.sent() {
            return Err(Refusal::bad_request("\"seq\" was never sent"));
        }
        if ticket == self.tickets.newest {
            self.tickets = Tickets { newest: fresh, previous: Some(ticket) };
            // Only whoever read the last answer knows its ticket: what that answer told of losses has arrived.
            self.buffer.losses_told();
        }
        self.attach();
        Ok(match self.buffer.rewind(seq) {
            None => Resumption::Replay,
            Some(Gap { lost }) => Resumption::Whole { lost },
        })
    }

    /// Takes the seat up by the join key again: the answer to the first join was lost or slow.
    ///
    /// # Errors
    /// `replaced` once the first ticket has been used, which proves that the answer did arrive.
    pub fn rejoin(&mut self, now: Instant) -> Result<(), Refusal> {
        if self.lease == Lease::Left || self.is_expired(now) {
            return Err(Refusal::new(Code::ResumeExpired, "the seat of this join key is gone; join with a new one"));
        }
        if self.tickets.previous.is_some() {
            return Err(Refusal::new(Code::Replaced, "the seat of this join key has been resumed elsewhere"));
        }
        self.attach();
        self.buffer.rewind(0);
        Ok(())
    }

    /// A transport has ended. Returns whether it had the seat, which is then away until `until`.
    pub fn detach(&mut self, generation: u64, until: Instant) -> bool {
        if generation != self.generation || self.lease != Lease::Here {
            return false;
        }
        self.lease = Lease::Away { until };
        self.ending = None;
        self.buffer.drop_ephemeral();
        true
    }

    /// Whether nobody came back in time.
    pub fn is_expired(&self, now: Instant) -> bool {
        matches!(self.lease, Lease::Away { until } if until <= now)
    }

    /// The peer has left the room; its transport, if there is one, ends with `ending` after all that waits for it.
    pub fn vacate(&mut self, ending: Ending) {
        self.lease = Lease::Left;
        self.ending = Some(ending);
    }

    /// Queues a message. Returns whether it was taken.
    ///
    /// What does not fit is not delivered. If the peer is here its transport is told to close with `slowConsumer`; it may
    /// resume, and finds all that had fitted. Answers always fit, or a refusal could get lost: there is at most one for each
    /// request, and requests are read only from a transport that is not about to be closed.
    pub fn push(&mut self, body: Body) -> bool {
        if body.kind == Kind::Ephemeral {
            // Nobody is told when it gets lost, whether for want of a transport or of room.
            if self.lease == Lease::Here {
                self.buffer.push(body);
            }
            return true;
        }
        let taken = self.buffer.push(body);
        if (!taken || self.buffer.is_over()) && self.lease == Lease::Here && self.ending.is_none() {
            self.ending = Some(Ending::Closed(Refusal::new(
                Code::SlowConsumer,
                "the queue is full: the client does not read fast enough; resume to get what is in it",
            )));
        }
        taken
    }

    /// A directed message that did not fit is told to its sender; any other that did not fit is missed, and the recipient
    /// gets a new picture when it resumes.
    pub fn miss(&mut self, body: &Body) {
        self.buffer.miss(body.kind);
    }

    /// What the transport of that generation has to do next. With `wants_frames` false only an ending is of interest.
    pub fn next(&mut self, generation: u64, wants_frames: bool) -> Next {
        if generation != self.generation {
            return Next::End(Ending::Closed(Refusal::new(Code::Replaced, "a later transport took the seat")));
        }
        match &self.ending {
            Some(Ending::Left) | None => {}
            Some(ending) => return Next::End(ending.clone()),
        }
        if wants_frames && let Some(frame) = self.buffer.next() {
            return Next::Frame(frame);
        }
        match &self.ending {
            Some(ending) if wants_frames => Next::End(ending.clone()),
            _ => Next::Nothing,
        }
    }

    /// The client has handled everything up to `seq`.
    ///
    /// # Errors
    /// `badRequest` for a `seq` never sent.
    pub fn ack(&mut self, seq: u64) -> Result<(), Refusal> {
        if seq > self.buffer.sent() {
            return Err(Refusal::bad_request("\"seq\" was never sent"));
        }
        self.buffer.ack(seq);
        Ok(())
    }

    /// Decides whether a request of that transport and id is to be carried out. Each id is handled once: what comes back here
    /// other than `Stale` counts as handled, whatever the answer.
    pub fn admit(&mut self, generation: u64, id: Option<u64>, now: Instant) -> Admission {
        if generation != self.generation || self.lease != Lease::Here || self.ending.is_some() {
            return Admission::Stale;
        }
        let repeated = id.is_some_and(|id| id <= self.last_id);
        self.last_id = self.last_id.max(id.unwrap_or(0));
        match self.rate.take(now) {
            Verdict::Pass if repeated => Admission::Repeat,
            Verdict::Pass => Admission::Execute,
            Verdict::Wait(wait) => Admission::Refused(too_many(wait)),
            Verdict::Abuse(wait) => {
                self.ending = Some(Ending::Closed(too_many(wait)));
                Admission::Stale
            }
        }
    }

    fn attach(&mut self) {
        self.generation += 1;
        self.lease = Lease::Here;
        self.ending = None;
        self.buffer.drop_ephemeral();
    }
}

fn too_many(wait: Duration) -> Refusal {
    Refusal::new(Code::RateLimited, "too many messages; see limits.messagesPerSecond and limits.burst")
        .retry_after(wait)
}
