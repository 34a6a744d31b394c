//! The seat as its transport's task sees it: the next frame to write, or the end.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::protocol::Frame;
use crate::seat::{Ending, Next, Seat};

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
    /// Wakes the present transport's task. Each transport has its own, so that a takeover cannot steal a wake-up.
    wake: Arc<Notify>,
    /// Counts the seat as served while it waits for the next poll.
    expected: Option<TaskTrackerToken>,
}

impl SharedSeat {
    /// Shares a new seat with its first transport.
    pub(crate) fn new(seat: Seat) -> Arc<Self> {
        Arc::new(SharedSeat { state: Mutex::new(State { seat, wake: Arc::default(), expected: None }) })
    }

    /// Changes the seat, and wakes its transport afterwards: whatever changed may be of interest to it.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Seat) -> T) -> T {
        let mut state = self.state.lock();
        let generation = state.seat.generation();
        let result = change(&mut state.seat);
        state.wake.notify_one();
        if state.seat.generation() != generation {
            // The earlier transport was woken to learn that it has been replaced.
            state.wake = Arc::default();
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
    wake: Arc<Notify>,
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
        let (wake, generation) = {
            let state = seat.lock();
            (Arc::clone(&state.wake), state.seat.generation())
        };
        Outbox { seat, wake, generation }
    }

    /// Which of the seat's transports this is.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Waits for the next frame or the end; with `wants_frames` false, while earlier ones are still being written, for the
    /// end alone. Cancel safe: a frame is taken in the same step in which it is returned.
    pub(crate) async fn next(&self, wants_frames: bool) -> Output {
        loop {
            if let Some(output) = self.try_next(wants_frames) {
                return output;
            }
            // A change since the look above has left its permit here.
            self.wake.notified().await;
        }
    }

    /// The same without waiting.
    pub(crate) fn try_next(&self, wants_frames: bool) -> Option<Output> {
        match self.seat.quietly(|seat| seat.next(self.generation, wants_frames)) {
            Next::Frame(frame) => Some(Output::Frame(frame)),
            Next::End(ending) => Some(Output::End(ending)),
            Next::Nothing => None,
        }
    }

    /// Waits until [`try_next`](Self::try_next) has something. Cancel safe.
    pub(crate) async fn ready(&self) {
        while !self.has_next() {
            self.wake.notified().await;
        }
    }

    /// Whether [`try_next`](Self::try_next) has something.
    pub(crate) fn has_next(&self) -> bool {
        self.seat.quietly(|seat| seat.has_next(self.generation))
    }
}
