//! A seat: one peer's place in a room, for as long as it lives and over whatever transports. Pure: time and randomness come in
//! from the [`hub`](crate::hub).
//!
//! The invariant: what a client is told has numbers 1, 2, 3 … without a gap, whichever transports it came over; where one
//! cannot be kept, the client gets a whole new picture instead and hears how much was lost. Never a silent hole.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::protocol::{Body, Claim, Code, Frame, Grant, Kind, PeerId, Refusal, Rights, Shown, Ticket, Transport};

mod buffer;
mod log;
mod packed;
mod rate;

pub use buffer::Unacknowledged;
use buffer::{Buffer, Gap};
pub use log::{Event, Log};
pub use packed::{Broken, Packed};
use rate::{Rate, Verdict};

/// How long before its token ends a client is told; a token that lives for less than twice this time tells after half of it.
const TOKEN_WARNING: Duration = Duration::from_secs(60);

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
    /// It may, as far as these go.
    Execute(Rights),
    /// It was handled before; `ok` again.
    Repeat,
    /// It was handled before, and another node is still to answer.
    Asked,
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
pub enum Lease {
    /// A transport serves it.
    Here,
    /// It waits for its client's next poll, and counts as here until then.
    Between {
        /// When it counts as away.
        until: Instant,
    },
    /// It has none, and is kept until then.
    Away {
        /// When its peer has left.
        until: Instant,
    },
    /// Its peer has left the room: nothing can be taken up any more.
    Left,
}

/// What its peer is to the room.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// A member.
    Member,
    /// It waits to be admitted, until then at the latest.
    Waiting { until: Instant },
    /// It waited, and was turned away. The seat is kept to tell who asks again.
    TurnedAway(Refusal),
}

/// One peer's place in a room, or in the waiting room before it.
#[derive(Debug)]
pub struct Seat {
    peer: PeerId,
    standing: Standing,
    /// Whether its client has a join key, by which alone it can come back before it has been told a ticket.
    keyed: bool,
    lease: Lease,
    /// What serves it, or did last.
    transport: Transport,
    /// Counts transports: the present one's number. Whoever holds an earlier number has been replaced.
    generation: u64,
    ending: Option<Ending>,
    tickets: Tickets,
    last_id: u64,
    buffer: Buffer,
    rate: Rate,
    grant: Grant,
    /// When the client is to be told that its token ends, until it has been.
    warn_at: Option<Instant>,
    /// When the client needs fresh TURN credentials; `None` where there are none.
    ice_due: Option<Instant>,
    /// When the hub looks at the seat next.
    look: Option<Instant>,
    /// The `joined` of one who was admitted while its transport had the seat; goes before all else.
    greeting: Option<Frame>,
    /// What belongs to its client's picture did not fit, and is told when it comes back.
    incomplete: bool,
    /// A poll has told that the server drains; a transport that lasts remembers it by itself.
    go_away_told: bool,
    /// Counts what others have said to its client, and starts again when it has counted to the end.
    payloads: u32,
    /// Requests whose answer another node will give.
    asked: Vec<u64>,
    /// Where its client was last.
    address: Option<IpAddr>,
    /// When it was wanted at another node the last time. Until it goes, or does not, nothing is read from its transport.
    parting: Option<Instant>,
    log: Log,
}

/// Two tickets are good at any time, because an answer may be lost on the way: the newest, and the one it succeeded until the
/// newest has been used.
#[derive(Debug)]
struct Tickets {
    newest: Ticket,
    previous: Option<Ticket>,
    /// The present transport came with the newest one, whose successor has not been told yet.
    newest_in_use: bool,
    /// One of them has come back, which proves that the answer to the first `join` has arrived.
    shown: bool,
}

impl Seat {
    /// A new member's seat with its first transport, which has generation 1.
    pub fn new(ticket: Ticket, transport: Transport, grant: Grant, now: Instant) -> Self {
        let limits = &grant.limits;
        let mut log = Log::default();
        log.note(now, Event::Joined(transport));
        Seat {
            peer: ticket.peer,
            standing: Standing::Member,
            keyed: false,
            lease: Lease::Here,
            transport,
            generation: 1,
            ending: None,
            tickets: Tickets { newest: ticket, previous: None, newest_in_use: false, shown: false },
            last_id: 0,
            buffer: Buffer::new(limits.queue_bytes, limits.queue_messages),
            rate: Rate::new(limits.messages_per_second, limits.burst, now),
            go_away_told: false,
            payloads: 0,
            asked: Vec::new(),
            address: None,
            parting: None,
            warn_at: warn_at(&grant, now),
            ice_due: None,
            look: None,
            greeting: None,
            incomplete: false,
            log,
            grant,
        }
    }

    /// The same for one who waits to be admitted `until` then. Without a join key it cannot come back before.
    pub fn waiting(self, until: Instant, keyed: bool) -> Self {
        Seat { standing: Standing::Waiting { until }, keyed, ..self }
    }

    /// Until when its peer waits to be admitted, if it does.
    pub fn waits_until(&self) -> Option<Instant> {
        match self.standing {
            Standing::Waiting { until } => Some(until),
            Standing::Member | Standing::TurnedAway(_) => None,
        }
    }

    /// Its peer is a member from now on.
    pub fn let_in(&mut self) {
        self.standing = Standing::Member;
    }

    /// Tells the transport that has the seat, if there is one, what a new member is told first. Any other will ask by itself.
    pub fn greet(&mut self, joined: Frame) {
        self.greeting = (self.lease == Lease::Here).then_some(joined);
    }

    /// The transport that has the seat is told by itself.
    pub fn forget_greeting(&mut self) {
        self.greeting = None;
    }

    /// Its peer is not admitted: the transport is closed, and the join key answered the same for as long as the seat is kept.
    pub fn turn_away(&mut self, refusal: Refusal) {
        self.ending = Some(Ending::Closed(refusal.clone()));
        self.standing = Standing::TurnedAway(refusal);
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

    /// Whether it has a transport, and until when it waits for one.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// What serves it, or did last.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether the last transport was a poll, so that another one is its continuation.
    pub fn is_polled(&self) -> bool {
        self.transport == Transport::LongPoll
    }

    /// Whether it is served by polls, and waits for one or has one.
    pub fn is_poll_expected(&self) -> bool {
        self.is_polled() && self.is_served()
    }

    /// Where its client is, as its last transport came from there.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Its client is there now.
    pub fn set_address(&mut self, address: IpAddr) {
        self.address = Some(address);
    }

    /// What has happened at it.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The number of the last message that the client has been sent; 0 before the first.
    pub fn sent(&self) -> u64 {
        self.buffer.sent()
    }

    /// How many messages wait for its client, and their bytes.
    pub fn queued(&self) -> (usize, usize) {
        self.buffer.queued()
    }

    /// How many payloads were queued, and started again when that was too many.
    pub fn payloads(&self) -> u32 {
        self.payloads
    }

    /// The number that was given last; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.buffer.last_seq()
    }

    /// Whether its transport is about to be closed.
    pub fn is_closing(&self) -> bool {
        matches!(self.ending, Some(Ending::Closed(_)))
    }

    /// What its client may do now: all of its token as a member, who is in whatever a newer token says of joining.
    fn rights(&self) -> Rights {
        match self.standing {
            Standing::Member => Rights { join: true, ..self.grant.rights },
            Standing::Waiting { .. } | Standing::TurnedAway(_) => Rights::WAITING,
        }
    }

    /// What its client's token says.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Lets the holder of a ticket make a request, without using it up. Returns the number of the
    /// transport that has the seat, or `None` if the ticket is no good.
    pub fn show_ticket(&mut self, ticket: Ticket) -> Option<u64> {
        self.accepts(ticket).then(|| {
            self.tickets.shown = true;
            self.generation
        })
    }

    /// Whether a poll is still to tell that the server drains; it counts as told from now on.
    pub fn tell_go_away(&mut self) -> bool {
        !std::mem::replace(&mut self.go_away_told, true)
    }

    /// Checks a ticket.
    pub fn accepts(&self, ticket: Ticket) -> bool {
        self.lease != Lease::Left && (ticket == self.tickets.newest || self.tickets.previous == Some(ticket))
    }

    /// Takes the seat up for a new transport by a ticket, which [`use_ticket`](Self::use_ticket) then uses up; `renewal` takes the
    /// place of its token.
    ///
    /// # Errors
    /// `resumeExpired` for a ticket that is no good, `badRequest` for a `seq` never sent, `unauthorized` for a token of somebody
    /// else's, `tokenExpired` if it needs a new one; the seat stays as it was.
    pub fn resume(
        &mut self,
        ticket: Ticket,
        seq: u64,
        renewal: Option<Grant>,
        transport: Transport,
        now: Instant,
    ) -> Result<Resumption, Refusal> {
        self.check_claim(ticket, &Claim::new(seq, renewal.as_ref()), now)?;
        if let Some(renewal) = renewal {
            self.renew(renewal, now)?;
        }
        self.tickets.shown = true;
        self.tickets.newest_in_use = ticket == self.tickets.newest;
        if self.tickets.newest_in_use {
            // Only whoever read an answer knows its ticket: what the first one under it told of losses has arrived.
            self.buffer.losses_told();
        }
        self.attach(transport, now);
        let retry = !self.tickets.newest_in_use;
        Ok(match self.buffer.rewind(seq, retry) {
            None => Resumption::Replay,
            Some(Gap { lost }) => Resumption::Whole { lost },
        })
    }

    /// Whoever has this ticket, and shows that beside it, wants the seat at another node: nothing more is read from its transport.
    /// `again` says that it was wanted before: a transport that has it now has come since then.
    ///
    /// # Errors
    /// As [`resume`](Self::resume), and `replaced` if somebody else has the seat; it stays as it was.
    pub fn begin_to_part(
        &mut self,
        (ticket, claim): (Ticket, &Claim),
        again: bool,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.check_claim(ticket, claim, now)?;
        if again && self.lease == Lease::Here && self.parting.is_none() {
            return Err(Refusal::new(Code::Replaced, "a later transport took the seat"));
        }
        self.parting = Some(now);
        Ok(())
    }

    /// The same for a seat that was offered to another node because no transport had it.
    ///
    /// # Errors
    /// `replaced` if one has it by now; it stays as it was.
    pub fn begin_to_part_idle(&mut self, now: Instant) -> Result<(), Refusal> {
        if self.idle_ticket().is_none() {
            return Err(Refusal::new(Code::Replaced, "its client has come back since the seat was offered"));
        }
        self.parting = Some(now);
        Ok(())
    }

    /// Whether it is wanted at another node, and nothing is read from its transport.
    pub fn is_parting(&self) -> bool {
        self.parting.is_some()
    }

    /// The seat stays, unless it was wanted later than that. Its transport has to begin anew, as what came on it was not read.
    pub fn stay(&mut self, until: Instant) {
        if self.parting.take_if(|wanted| *wanted <= until).is_some() && self.lease == Lease::Here {
            let why = "the session could not go on at another node; resume";
            self.ending.get_or_insert(Ending::Closed(Refusal::new(Code::GoingAway, why)));
        }
    }

    /// The ticket to hand the seat over by; `None` while a transport has it, and for who is no member.
    pub fn idle_ticket(&self) -> Option<Ticket> {
        let idle =
            matches!(self.lease, Lease::Between { .. } | Lease::Away { .. }) && self.standing == Standing::Member;
        idle.then_some(self.tickets.newest)
    }

    /// Whether a ticket is good to take the seat up.
    fn check(&self, ticket: Ticket, now: Instant) -> Result<(), Refusal> {
        // Whoever has shown the newest has it: an earlier one is a request of its own, late on its way, and must not take the seat
        // from a poll that waits.
        let overtaken = self.tickets.newest_in_use && ticket != self.tickets.newest;
        if !self.accepts(ticket) || overtaken || self.is_expired(now) {
            return Err(Refusal::new(Code::ResumeExpired, "there is no seat for this ticket any more; join anew"));
        }
        Ok(())
    }

    /// Whether the seat may be taken up by who shows that beside a ticket.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub fn check_claim(&self, ticket: Ticket, claim: &Claim, now: Instant) -> Result<(), Refusal> {
        self.check(ticket, now)?;
        if claim.seq > self.buffer.sent() {
            return Err(Refusal::bad_request("\"seq\" was never sent"));
        }
        match &claim.token {
            Shown::Newer(user) if *user != self.grant.user => Err(somebody_elses()),
            Shown::Nothing if self.grant.is_expired(now) => Err(token_expired()),
            Shown::Newer(_) | Shown::Nothing => Ok(()),
        }
    }

    /// The answer to the present transport's `resume` is about to go out. `fresh` succeeds the ticket that it came with, unless
    /// that one's successor was drawn before: a retry whose answer was lost gets the same one again.
    pub fn use_ticket(&mut self, fresh: Ticket) {
        if self.tickets.newest_in_use {
            let previous = Some(self.tickets.newest);
            self.tickets = Tickets { newest: fresh, previous, newest_in_use: false, shown: true };
        }
    }

    /// Takes the seat up by the join key again: the answer to the first join was lost or slow. Returns how many payloads could
    /// not be kept for it meanwhile.
    ///
    /// # Errors
    /// `replaced` once a ticket has been shown, which proves that the answer did arrive; `unauthorized` for a token of somebody
    /// else's; why its peer was not admitted.
    pub fn rejoin(&mut self, grant: Grant, transport: Transport, now: Instant) -> Result<u64, Refusal> {
        if let Standing::TurnedAway(refusal) = &self.standing {
            return Err(refusal.clone());
        }
        if self.lease == Lease::Left || self.is_expired(now) {
            return Err(Refusal::new(Code::ResumeExpired, "the seat of this join key is gone; join with a new one"));
        }
        if self.tickets.shown {
            return Err(Refusal::new(Code::Replaced, "the seat of this join key is in use: its ticket was shown"));
        }
        self.renew(grant, now)?;
        self.attach(transport, now);
        Ok(self.buffer.rewind(0, true).map_or(0, |gap| gap.lost))
    }

    /// A newer token's rights and end take the place of the present ones. Limits and metadata stay those of the first.
    ///
    /// # Errors
    /// `unauthorized` if its subject is another one.
    pub fn renew(&mut self, newer: Grant, now: Instant) -> Result<(), Refusal> {
        if newer.user != self.grant.user {
            return Err(somebody_elses());
        }
        self.warn_at = warn_at(&newer, now);
        self.grant.rights = newer.rights;
        self.grant.expires = newer.expires;
        Ok(())
    }

    /// Whether [`age_token`](Self::age_token) has something to do.
    pub fn is_token_due(&self, now: Instant) -> bool {
        self.grant.is_expired(now) || self.is_served() && self.warn_at.is_some_and(|at| at <= now)
    }

    /// Tells the client that its token is about to end, and ends the transport when it has ended; the seat waits for a `resume`
    /// with a new token as for any other.
    pub fn age_token(&mut self, now: Instant) {
        let Some(expires) = self.grant.expires else { return };
        if expires > now {
            self.warn_at = None;
            if self.is_polled() && self.waits_until().is_some() {
                // Each of its polls brings a token, and would be told again what only an `ack` makes the seat forget.
                return;
            }
            self.push(Body::token_expiring((expires - now).as_millis() as u64));
        } else if self.lease == Lease::Here && self.ending.is_none() {
            self.ending = Some(Ending::Closed(token_expired()));
        }
    }

    /// The client was told TURN credentials, of which it needs fresh ones at `due`.
    pub fn expect_ice(&mut self, due: Option<Instant>) {
        self.ice_due = due;
    }

    /// Whether the client needs fresh TURN credentials, and is there to take them.
    pub fn is_ice_due(&self, now: Instant) -> bool {
        self.ice_due.is_some_and(|due| due <= now) && self.is_served()
    }

    /// When to look at the seat again, unless that, or a sooner look, was said before.
    pub fn next_look(&mut self, now: Instant) -> Option<Instant> {
        let lease = match self.lease {
            Lease::Between { until } | Lease::Away { until } => Some(until),
            Lease::Here | Lease::Left => None,
        };
        let token = self.warn_at.or(self.grant.expires).filter(|at| *at > now);
        let ice = self.ice_due.filter(|_| self.is_served());
        let next = [lease, token, ice, self.waits_until()].into_iter().flatten().min()?;
        if self.look.is_some_and(|look| look <= next) {
            return None;
        }
        self.look = Some(next);
        Some(next)
    }

    /// The look that was due `at` is done.
    pub fn looked(&mut self, at: Instant) {
        self.look.take_if(|look| *look == at);
    }

    /// Whether it has a transport, or waits for the next poll.
    pub fn is_served(&self) -> bool {
        matches!(self.lease, Lease::Here | Lease::Between { .. })
    }

    /// A transport has ended. Returns whether it had the seat, which is then away for `window`.
    pub fn detach(&mut self, generation: u64, now: Instant, window: Duration) -> bool {
        let event = self.departure();
        let comes_back = self.keyed || self.standing == Standing::Member;
        let window = if comes_back { window } else { Duration::ZERO };
        let had = self.release(generation, Lease::Away { until: now + window });
        if had {
            self.log.note(now, event);
            self.buffer.drop_ephemeral();
        }
        had
    }

    /// What is noted of the present transport if it ends now.
    fn departure(&self) -> Event {
        match &self.ending {
            Some(Ending::Closed(refusal)) => Event::Closed(self.transport, refusal.code),
            Some(Ending::Left) | None => Event::Away(self.transport),
        }
    }

    /// A poll has ended. Returns whether it had the seat, which then waits for the next one, and counts as here, until `until`.
    pub fn pause(&mut self, generation: u64, until: Instant) -> bool {
        self.release(generation, Lease::Between { until })
    }

    fn release(&mut self, generation: u64, lease: Lease) -> bool {
        if generation != self.generation || self.lease != Lease::Here {
            return false;
        }
        self.lease = lease;
        self.ending = None;
        self.greeting = None;
        true
    }

    /// No poll has come in time: the seat is away, for `window` from when the next one was due.
    pub fn lapse(&mut self, now: Instant, window: Duration) {
        if let Lease::Between { until } = self.lease
            && until <= now
        {
            self.lease = Lease::Away { until: until + window };
            self.log.note(now, Event::Lapsed);
        }
    }

    /// Whether nobody came back in time.
    fn is_expired(&self, now: Instant) -> bool {
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
    /// request, and once they have filled the queue no request is taken any more until a transport has come for them.
    pub fn push(&mut self, body: Body) -> bool {
        self.take(body, Buffer::push)
    }

    /// The same for a payload that is being stored: it is not written before [`release_held`](Self::release_held).
    pub fn push_held(&mut self, body: Body) -> bool {
        self.take(body, Buffer::push_held)
    }

    /// The first so many of those that were being stored are.
    pub fn release_held(&mut self, count: usize) {
        self.buffer.release(count);
    }

    /// The first so many of those that were being stored are not, and were never there.
    pub fn retract_held(&mut self, count: usize) {
        self.buffer.retract(count);
    }

    /// The first so many payloads that are being stored, with their numbers.
    pub fn held(&self, count: usize) -> Vec<(u64, &Body)> {
        self.buffer.held(count)
    }

    /// All payloads that its client has not acknowledged, of those that are being stored the first so many, with their numbers and
    /// in no more bytes than that. What was written first is left out for it; `None` if what was not written takes more.
    pub fn unacknowledged(&self, held: usize, most: usize) -> Option<Unacknowledged<'_>> {
        self.buffer.payloads(held, most)
    }

    fn take(&mut self, body: Body, push: impl FnOnce(&mut Buffer, Body) -> bool) -> bool {
        if let Kind::Error(code) = body.kind {
            self.log.count_error(code);
        }
        if !body.kind.is_numbered() {
            // Nobody is told when it gets lost, whether for want of a transport or of room.
            if self.is_served() {
                self.buffer.push(body);
            }
            return true;
        }
        let is_payload = body.kind == Kind::Payload;
        let taken = push(&mut self.buffer, body);
        self.payloads = self.payloads.wrapping_add((taken && is_payload).into());
        let is_slow = !taken && self.lease == Lease::Here;
        if (is_slow || self.buffer.is_over()) && self.ending.is_none() {
            self.ending = Some(Ending::Closed(slow_consumer()));
        }
        taken
    }

    /// Queues what belongs to the picture that its client is given. If the queue is too full for it, the transport is closed once
    /// it has written what waits, not before: what could not be read would fill the queue again the next time.
    pub fn complete(&mut self, body: Body) {
        let kind = body.kind;
        if !self.buffer.push(body) {
            self.buffer.miss(kind);
            self.incomplete = true;
        }
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
        if wants_frames && let Some(frame) = self.greeting.take().or_else(|| self.buffer.next()) {
            return Next::Frame(frame);
        }
        match &self.ending {
            Some(ending) if wants_frames => Next::End(ending.clone()),
            // The next poll comes by itself.
            None if wants_frames && self.incomplete && !self.is_polled() => Next::End(Ending::Closed(slow_consumer())),
            _ => Next::Nothing,
        }
    }

    /// Why a request of that transport was [`Stale`](Admission::Stale).
    pub fn staleness(&self, generation: u64) -> Refusal {
        match &self.ending {
            Some(Ending::Closed(refusal)) if generation == self.generation => refusal.clone(),
            _ => Refusal::new(Code::Replaced, "a later transport took the seat; send again what has no answer"),
        }
    }

    /// Whether [`next`](Self::next) has something.
    pub fn has_next(&self, generation: u64) -> bool {
        generation != self.generation || self.ending.is_some() || self.greeting.is_some() || self.buffer.has_next()
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
        if generation != self.generation || self.lease == Lease::Left || self.ending.is_some() || self.parting.is_some()
        {
            return Admission::Stale;
        }
        if self.grant.is_expired(now) {
            // The clock that ends the transport is about to strike.
            return Admission::Stale;
        }
        self.log.count_request();
        let repeated = id.is_some_and(|id| id <= self.last_id);
        self.last_id = self.last_id.max(id.unwrap_or(0));
        match self.rate.take(now) {
            // What was handled is answered as it was, above the rate as well: another answer would ask for it under another id.
            Verdict::Pass | Verdict::Wait(_) if repeated && self.asked.iter().any(|asked| Some(*asked) == id) => {
                Admission::Asked
            }
            Verdict::Pass | Verdict::Wait(_) if repeated => Admission::Repeat,
            Verdict::Pass => Admission::Execute(self.rights()),
            Verdict::Wait(wait) => Admission::Refused(too_many(wait)),
            Verdict::Abuse(wait) => {
                self.ending = Some(Ending::Closed(too_many(wait)));
                Admission::Stale
            }
        }
    }

    /// Another node will answer this request. Said again until then, it is not answered: `ok` would be a guess.
    pub fn ask(&mut self, id: u64) {
        self.asked.push(id);
    }

    /// Whether a request has no answer yet.
    pub fn is_owed_answers(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Another node, or its loss, has answered.
    pub fn answered(&mut self, id: u64) {
        self.asked.retain(|asked| *asked != id);
    }

    /// So many payloads for its client were lost on the way here. The client is asked to come back for a picture that says so.
    pub fn lose(&mut self, payloads: u64) {
        self.buffer.miss_payloads(payloads);
        self.incomplete = true;
    }

    fn attach(&mut self, transport: Transport, now: Instant) {
        // One poll after the other is nothing new.
        if !(self.transport == transport && matches!(self.lease, Lease::Between { .. })) {
            self.log.note(now, Event::Resumed(transport));
        }
        self.transport = transport;
        self.generation += 1;
        // What came between two polls is for the next one, ephemeral or not.
        if !matches!(self.lease, Lease::Between { .. }) {
            self.buffer.drop_ephemeral();
        }
        self.lease = Lease::Here;
        self.ending = None;
        self.greeting = None;
        self.incomplete = false;
        self.parting = None;
    }
}

fn warn_at(grant: &Grant, now: Instant) -> Option<Instant> {
    let lives = grant.expires?.saturating_duration_since(now);
    Some(now + lives.saturating_sub(TOKEN_WARNING.min(lives / 2)))
}

fn somebody_elses() -> Refusal {
    Refusal::new(Code::Unauthorized, "the token's subject is not the one whose seat this is")
}

fn token_expired() -> Refusal {
    Refusal::new(Code::TokenExpired, "the token has expired; resume with a new one")
}

fn slow_consumer() -> Refusal {
    let why = "the queue is full: the client does not read fast enough; resume to get what is in it";
    Refusal::new(Code::SlowConsumer, why)
}

fn too_many(wait: Duration) -> Refusal {
    Refusal::new(Code::RateLimited, "too many messages; see limits.messagesPerSecond and limits.burst")
        .retry_after(wait)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::protocol::{LeftReason, Limits};

    #[test]
    fn an_earlier_ticket_does_not_take_the_seat_from_a_poll_that_came_with_the_newest() {
        let now = Instant::now();
        let ticket = |secret| Ticket::new(PeerId::new(Uuid::nil()), [secret; 16]);
        let mut seat = Seat::new(ticket(1), Transport::LongPoll, Grant::open(Default::default()), now);
        let poll = |seat: &mut Seat, secret| seat.resume(ticket(secret), 0, None, Transport::LongPoll, now);
        poll(&mut seat, 1).expect("the newest");
        seat.use_ticket(ticket(2));
        poll(&mut seat, 1).expect("the answer may have been lost");
        seat.use_ticket(ticket(3));
        poll(&mut seat, 2).expect("the answer has come: its ticket is shown");
        let waiting = seat.generation();
        let late = poll(&mut seat, 1).expect_err("it was long on its way");
        assert_eq!(late.code, Code::ResumeExpired);
        assert_eq!(seat.generation(), waiting, "the poll that waits keeps the seat");
        assert!(seat.show_ticket(ticket(1)).is_some(), "lines may come with the ticket before the present one");
    }

    #[test]
    fn a_seat_is_not_wanted_elsewhere_by_who_could_not_take_it_up_there() {
        let now = Instant::now();
        let ticket = Ticket::new(PeerId::new(Uuid::nil()), [1; 16]);
        let grant = |user: &str| Grant { user: Some(user.into()), ..Grant::open(Default::default()) };
        let expires = Some(now + TOKEN_WARNING);
        let mut seat = Seat::new(ticket, Transport::WebTransport, Grant { expires, ..grant("u") }, now);
        let late = now + TOKEN_WARNING;
        for (seq, renewal, at, code) in [
            (1, None, now, Code::BadRequest),
            (0, Some(grant("v")), now, Code::Unauthorized),
            (0, None, late, Code::TokenExpired),
        ] {
            let claim = Claim::new(seq, renewal.as_ref());
            let refused = seat.begin_to_part((ticket, &claim), false, at).expect_err("it is refused");
            assert_eq!((refused.code, seat.is_parting()), (code, false));
            let refused = seat.resume(ticket, seq, renewal, Transport::WebTransport, at).expect_err("as there");
            assert_eq!(refused.code, code);
        }
        let claim = Claim::new(0, Some(&grant("u")));
        assert!(seat.begin_to_part((ticket, &claim), false, late).is_ok() && seat.is_parting());
    }

    #[test]
    fn what_was_handled_is_not_refused_when_it_is_said_again_above_the_rate() {
        let now = Instant::now();
        let ticket = Ticket::new(PeerId::new(Uuid::nil()), [1; 16]);
        let limits = Limits { burst: 2, messages_per_second: 1, ..Limits::default() };
        let mut seat = Seat::new(ticket, Transport::WebTransport, Grant::open(limits.into()), now);
        for id in [1, 2] {
            assert!(matches!(seat.admit(1, Some(id), now), Admission::Execute(_)));
        }
        seat.ask(2);
        assert_eq!(seat.admit(1, Some(1), now), Admission::Repeat);
        assert_eq!(seat.admit(1, Some(2), now), Admission::Asked);
        assert!(matches!(seat.admit(1, Some(3), now), Admission::Stale), "patience has ended");
    }

    #[test]
    fn a_full_queue_is_read_before_what_did_not_fit_into_it_is_asked_for_again() {
        let now = Instant::now();
        let ticket = Ticket::new(PeerId::new(Uuid::nil()), [1; 16]);
        let limits = Limits { queue_messages: 2, ..Limits::default() };
        let mut seat = Seat::new(ticket, Transport::WebTransport, Grant::open(limits.into()), now);
        let presence = || Body::peer_left(ticket.peer, LeftReason::Left, 1);
        for _ in 0..2 {
            assert!(seat.push(presence()));
        }
        seat.complete(presence());
        for _ in 0..2 {
            assert!(matches!(seat.next(1, true), Next::Frame(_)));
        }
        let Next::End(Ending::Closed(refusal)) = seat.next(1, true) else { panic!("it is to come back") };
        assert_eq!(refusal.code, Code::SlowConsumer);
        let resumed = seat.resume(ticket, 2, None, Transport::WebTransport, now);
        assert_eq!(resumed, Ok(Resumption::Whole { lost: 0 }));
        seat.complete(presence());
        assert!(matches!(seat.next(2, true), Next::Frame(_)));
        assert!(matches!(seat.next(2, true), Next::Nothing));
    }
}
