//! What every connection's task needs to have at hand, assembled once by [`server`](crate::server).

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Verifier;
use crate::config::Config;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::origin::Origins;

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
    /// Which `Origin` may open a session.
    pub origins: Origins,
    /// One permit for each connection that may be open, TCP and QUIC together.
    pub connections: Arc<Semaphore>,
    /// Cancelled when draining begins: stop accepting, send GOAWAY and `goAway`; sessions go on.
    pub drain: CancellationToken,
    /// Cancelled when the drain time is over: everything still open is closed with `goingAway`.
    pub stop: CancellationToken,
    /// Every task of a listener, connection or session; shutdown waits for it.
    pub tasks: TaskTracker,
}
