//! What an HTTP/1.1 connection is doing, and until when it may.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::ConnectionLimits;

/// What the connection is doing.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Waiting for a request, since then.
    Idle(Instant),
    /// Reading a request's head, since then.
    Head(Instant),
    /// Answering. The handler has its own deadlines, and a client that does not read the answer meets TCP_USER_TIMEOUT.
    Busy,
}

/// Follows one connection. All of it happens while the connection is polled, by one task; the lock is never waited for.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    phase: Arc<Mutex<Phase>>,
    head: Duration,
    idle: Duration,
}

impl Clock {
    /// The first head is due from the beginning, not from its first byte.
    pub(super) fn new(limits: &ConnectionLimits) -> Self {
        let phase = Arc::new(Mutex::new(Phase::Head(Instant::now())));
        Clock { phase, head: limits.request_head, idle: limits.idle }
    }

    /// When the connection has to be given up unless something happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match *self.phase.lock() {
            Phase::Idle(since) => Some(since + self.idle),
            Phase::Head(since) => Some(since + self.head),
            Phase::Busy => None,
        }
    }

    /// A request's head is complete.
    pub(super) fn request_begins(&self) {
        *self.phase.lock() = Phase::Busy;
    }

    /// The connection is idle again when `body` has been sent or given up.
    pub(super) fn until_sent(&self, body: Body) -> Tracked {
        Tracked { body, clock: self.clone() }
    }

    pub(super) fn bytes_arrived(&self) {
        let mut phase = self.phase.lock();
        if let Phase::Idle(_) = *phase {
            *phase = Phase::Head(Instant::now());
        }
    }

    fn request_ended(&self) {
        *self.phase.lock() = Phase::Idle(Instant::now());
    }
}

/// A response's body, which tells the clock when hyper is done with it.
pub(super) struct Tracked {
    body: Body,
    clock: Clock,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.clock.request_ended();
    }
}
