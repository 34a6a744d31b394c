//! The seat as its transport's task sees it: the next frame to write, or the end.

use std::future::poll_fn;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::protocol::Frame;
use crate::seat::{Ending, Next, Seat};

/// One in so many payloads for a seat is timed: to look at the clock for each would cost more than the rest of a delivery.
const TIMED: u32 = 16;

/// A seat that the [`hub`](crate::hub) and one transport's task share.
///
/// Lock order: a room's shard first, then one seat, never two seats at once. A transport's task takes the seat alone. No lock
/// is held across an await.
#[derive(Debug)]
pub(crate) struct SharedSeat {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seat: Seat,
    /// The present transport's task, if it waits. A takeover wakes it, and it does not wait again.
    waiting: Option<Waker>,
    /// Counts the seat as served while it waits for the next poll.
    expected: Option<TaskTrackerToken>,
    /// Of the seat's count of payloads, what has been looked at.
    payloads: u32,
    /// The payload that is being timed, by its number, and since when.
    timed: Option<(u64, Instant)>,
}

impl State {
    /// Nothing for the present transport yet: its task is woken by the next change. A transport that was replaced does not come here, as
    /// it has its end to read.
    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        match &mut self.waiting {
            Some(task) => task.clone_from(cx.waker()),
            None => self.waiting = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Begins to time what was pushed last, if it is its turn and nothing else is timed.
    fn time(&mut self) {
        let payloads = self.seat.payloads();
        if payloads != self.payloads {
            self.payloads = payloads;
            if payloads % TIMED == 1 && self.timed.is_none() {
                self.begin_to_time();
            }
        }
    }

    // Apart from what is done for every message, so that this stays short.
    #[cold]
    fn begin_to_time(&mut self) {
        self.timed = Some((self.seat.last_seq(), Instant::now()));
    }

    /// Notes in the frame how long it has waited, if it is the one that is timed.
    #[cold]
    fn end_to_time(&mut self, frame: &mut Frame) {
        if let Some((_, since)) = self.timed.take_if(|(seq, _)| frame.seq >= Some(*seq)) {
            let micros = u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX);
            frame.waited = NonZeroU32::new(micros.max(1));
        }
    }

    /// What the transport of that generation is woken for.
    #[inline]
    fn next(&mut self, generation: u64, wants_frames: bool) -> Option<Output> {
        match self.seat.next(generation, wants_frames) {
            Next::Frame(mut frame) => {
                if self.timed.is_some() {
                    self.end_to_time(&mut frame);
                }
                Some(Output::Frame(frame))
            }
            Next::End(ending) => Some(Output::End(ending)),
            Next::Nothing => None,
        }
    }
}

impl SharedSeat {
    /// Shares a new seat with its first transport.
    pub(crate) fn new(seat: Seat) -> Arc<Self> {
        Arc::new(SharedSeat {
            state: Mutex::new(State { seat, waiting: None, expected: None, payloads: 0, timed: None }),
        })
    }

    /// Changes the seat, and wakes its transport afterwards: whatever changed may be of interest to it.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Seat) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state.seat);
        state.time();
        let waiting = state.waiting.take();
        drop(state);
        if let Some(task) = waiting {
            task.wake();
        }
        result
    }

    /// Looks at the seat, or changes what its transport need not hear of.
    pub(crate) fn quietly<T>(&self, look: impl FnOnce(&mut Seat) -> T) -> T {
        look(&mut self.lock().seat)
    }

    /// Counts the seat as served without a transport, or no longer so.
    pub(crate) fn expect_poll(&self, token: Option<TaskTrackerToken>) {
        self.lock().expected = token;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// One transport's end of a seat.
#[derive(Debug)]
pub(crate) struct Outbox {
    seat: Arc<SharedSeat>,
    generation: u64,
}

/// What a transport's task is woken for.
#[derive(Debug)]
pub enum Output {
    /// Write this.
    Frame(Frame),
    /// Say the last word and close.
    End(Ending),
}

impl Outbox {
    /// The present transport's end.
    pub(crate) fn new(seat: Arc<SharedSeat>) -> Self {
        let mut state = seat.lock();
        // What it finds has waited for it, not for a turn.
        state.timed = None;
        let generation = state.seat.generation();
        drop(state);
        Outbox { seat, generation }
    }

    /// Which of the seat's transports this is.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Waits for the next frame or the end; with `wants_frames` false, while earlier ones are still being written, for the
    /// end alone.
    pub(crate) fn poll_next(&self, wants_frames: bool, cx: &mut Context<'_>) -> Poll<Output> {
        let mut state = self.seat.lock();
        match state.next(self.generation, wants_frames) {
            Some(output) => Poll::Ready(output),
            None => state.wait(cx),
        }
    }

    /// The same without waiting.
    pub(crate) fn try_next(&self, wants_frames: bool) -> Option<Output> {
        self.seat.lock().next(self.generation, wants_frames)
    }

    /// Waits until [`try_next`](Self::try_next) has something. Cancel safe.
    pub(crate) async fn ready(&self) {
        poll_fn(|cx| {
            let mut state = self.seat.lock();
            if state.seat.has_next(self.generation) { Poll::Ready(()) } else { state.wait(cx) }
        })
        .await;
    }

    /// Whether [`try_next`](Self::try_next) has something.
    pub(crate) fn has_next(&self) -> bool {
        self.seat.quietly(|seat| seat.has_next(self.generation))
    }
}

impl Drop for Outbox {
    /// A waker keeps its task's memory, which a seat may outlive by far.
    fn drop(&mut self) {
        let mut state = self.seat.lock();
        if state.seat.generation() == self.generation {
            state.waiting = None;
        }
    }
}
