//! Long polls: a transport that has the seat for the time of one answer.

use std::sync::Arc;
use std::time::Instant;

use super::{Hub, resume_expired, resumed};
use crate::hub::{Session, Speaker};
use crate::outbox::Output;
use crate::protocol::{Frame, Grant, Join, Refusal, Resume, RoomName, Transport};
use crate::seat::{Ending, Resumption};

/// A seat with the one poll that serves it. When it has been answered, or dropped, the seat waits for the next one.
#[derive(Debug)]
pub struct Poll {
    session: Session,
    /// `joined`, if it is the first, or if there is a gap; `waiting`, if that has not been said.
    greeting: Option<Frame>,
    /// It came with `join`: there is no ticket yet to use up.
    enters: bool,
    moved: bool,
}

impl Hub {
    /// Takes a seat in a room by a poll. It stays `here` until `next_poll`. Who waits to be admitted polls by the same join
    /// again: the first is due at once, the others when something is decided.
    ///
    /// # Errors
    /// As [`join`](Self::join); `badRequest` for one who waits without a join key, by which alone it could poll again.
    pub fn join_by_poll(
        self: &Arc<Self>,
        name: &RoomName,
        join: &Join<'_>,
        grant: Option<Grant>,
        next_poll: Instant,
    ) -> Result<Poll, Refusal> {
        let again = self.is_waiting_poll(name, join);
        let (mut session, greeting) = self.join(name, join, grant, Transport::LongPoll)?;
        session.next_poll = Some(next_poll);
        let moved = !again || session.still_waiting().is_none();
        Ok(Poll { session, greeting: moved.then_some(greeting), enters: true, moved })
    }

    /// Whether `join` is the next poll of one who waits to be admitted, and is not away.
    pub fn is_waiting_poll(&self, name: &RoomName, join: &Join<'_>) -> bool {
        let shard = self.shard(name).lock();
        let seat = shard.get(name).and_then(|hall| hall.seats.get(hall.keys.get(join.key.as_ref()?)?));
        seat.is_some_and(|seat| seat.quietly(|seat| seat.waits_until().is_some() && seat.is_poll_expected()))
    }

    /// Takes a seat up for one poll. The ticket is used up only by an answer that carries something. The seat stays `here`
    /// until `next_poll`.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub fn poll(
        self: &Arc<Self>,
        name: &RoomName,
        resume: &Resume<'_>,
        renewal: Option<Grant>,
        next_poll: Instant,
    ) -> Result<Poll, Refusal> {
        let transport = Transport::LongPoll;
        let mut shard = self.shard(name).lock();
        let seat = Self::seat_of(&shard, name, resume.ticket)?.1;
        let moved = seat.quietly(|seat| !seat.is_polled());
        let (mut session, resumption) = self.take_up(&mut shard, name, resume, renewal, transport)?;
        session.next_poll = Some(next_poll);
        let hall = shard.get_mut(name).ok_or_else(resume_expired)?;
        let greeting = match resumption {
            Resumption::Replay => None,
            Resumption::Whole { lost } => {
                session.seat.quietly(|seat| seat.use_ticket(self.fresh_ticket(name, session.peer())));
                Some(self.joined(hall, &session.seat, Some(lost), transport))
            }
        };
        hall.update_role(session.peer(), &session.seat, matches!(resumption, Resumption::Whole { .. }));
        Ok(Poll { session, greeting, enters: false, moved })
    }
}

impl Poll {
    /// Who may speak while it lasts.
    pub fn speaker(&self) -> &Speaker {
        &self.session
    }

    /// Whether another transport served the seat before, or none.
    pub fn moved(&self) -> bool {
        self.moved
    }

    /// Whether it is to be answered at once.
    pub fn is_due(&self) -> bool {
        self.moved || self.greeting.is_some() || self.session.outbox.has_next()
    }

    /// Whether the client is still to be told that the server drains; it counts as told from now on.
    pub fn tell_go_away(&self) -> bool {
        self.session.seat.quietly(|seat| seat.tell_go_away())
    }

    /// Waits until there is something to answer with. Cancel safe.
    pub async fn ready(&self) {
        self.session.outbox.ready().await;
    }

    /// The answer: nothing, which changes nothing, unless it is `due`; or `joined` or `resumed`, which names the next ticket,
    /// then `notice`, and what waits for the client, until `most_bytes` are reached.
    ///
    /// # Errors
    /// Why the seat is no longer this poll's.
    pub fn answer(self, due: bool, notice: Option<Frame>, most_bytes: usize) -> Result<Vec<Frame>, Refusal> {
        let greeting = match self.greeting {
            Some(greeting) => Some(greeting),
            // Who enters has nothing yet that an empty answer could leave as it is.
            None if self.enters => self.session.still_waiting(),
            None if !due => return Ok(Vec::new()),
            None => use_ticket(&self.session),
        };
        let mut frames: Vec<Frame> = greeting.into_iter().chain(notice).collect();
        let mut bytes: usize = frames.iter().map(|frame| frame.len()).sum();
        while bytes < most_bytes {
            match self.session.try_next() {
                Some(Output::Frame(frame)) => {
                    bytes += frame.len();
                    frames.push(frame);
                }
                Some(Output::End(Ending::Closed(refusal))) => return Err(refusal),
                Some(Output::End(Ending::Left)) | None => break,
            }
        }
        Ok(frames)
    }
}

/// Uses up the ticket that a poll came with; returns the `resumed` that names its successor. `None` if there is nothing to
/// resume any more.
fn use_ticket(session: &Session) -> Option<Frame> {
    session.seat.quietly(|seat| {
        let ours = seat.generation() == session.generation && !seat.is_closing();
        ours.then(|| {
            seat.use_ticket(session.hub.fresh_ticket(&session.room, session.peer()));
            resumed(seat, session.hub.node())
        })
    })
}
