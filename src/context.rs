//! What every connection's task needs to have at hand, assembled once by [`server`](crate::server).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Inviter, Verifier};
use crate::config::Config;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::origin::Origins;
use crate::pace::{Pace, jitter};
use crate::protocol::{Code, Refusal};

/// Shared by all listeners, connections and sessions. Everything is static after construction or locks for itself.
#[derive(Debug)]
pub struct Context {
    /// The checked configuration.
    pub config: Config,
    /// Rooms and seats.
    pub hub: Arc<Hub>,
    /// Counters.
    pub metrics: Metrics,
    /// Who may come in; `None` where everybody may.
    pub auth: Option<Verifier>,
    /// Makes invitations, where the operator has given it a key.
    pub inviter: Option<Inviter>,
    /// Which `Origin` may open a session.
    pub origins: Origins,
    /// One permit for each connection that may be open, TCP and QUIC together.
    pub connections: Arc<Semaphore>,
    /// How many sessions may open at once.
    pub pace: Pace,
    /// Cancelled when draining begins: open no sessions, send GOAWAY and `goAway`; sessions go on.
    pub drain: CancellationToken,
    /// When the drain time is over; known once draining has begun.
    pub drained_by: OnceLock<Instant>,
    /// Cancelled when the drain time is over: everything still open is closed with `goingAway`.
    pub stop: CancellationToken,
    /// Every task of a listener, connection or session; shutdown waits for it.
    pub tasks: TaskTracker,
}

impl Context {
    /// Whether another session may open, or a present one move to another transport.
    ///
    /// # Errors
    /// `goingAway`, and when to come back: while the server drains, and when more come at once than it takes.
    pub fn let_in(&self) -> Result<(), Refusal> {
        if self.drain.is_cancelled() {
            return Err(self.going_away());
        }
        self.pace.enter(Instant::now()).map_err(|wait| {
            Refusal::new(Code::GoingAway, "too many sessions open at this moment; come back a little later")
                .retry_after(wait)
        })
    }

    /// The server drains. Come back when its time is over, and not all at once: a server that has just started must not be
    /// stormed.
    pub fn going_away(&self) -> Refusal {
        let left = self.drained_by.get().map_or(Duration::ZERO, |by| by.saturating_duration_since(Instant::now()));
        Refusal::new(Code::GoingAway, "the server is shutting down").retry_after(left + jitter(self.config.drain / 2))
    }
}
