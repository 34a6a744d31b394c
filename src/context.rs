//! What every connection's task needs to have at hand, assembled once by [`server`](crate::server).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::auth::{Inviter, Verifier};
use crate::clients::{Client, Clients, Excess};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::hub::Hub;
use crate::metrics::{Metrics, Refused};
use crate::origin::Origins;
use crate::pace::{Pace, Seldom, jitter};
use crate::protocol::{Code, Refusal};
use crate::signal::Signal;
use crate::tls::Certificates;
use crate::traces::Traces;

/// Those who are sent to another node come there within this time.
const ELSEWHERE: Duration = Duration::from_secs(2);

/// Shared by all listeners, connections and sessions. Everything is static after construction or locks for itself.
#[derive(Debug)]
pub struct Context {
    /// The checked configuration.
    pub config: Config,
    /// Rooms and seats.
    pub hub: Arc<Hub>,
    /// The other nodes, where there may be any.
    pub cluster: Option<Arc<Cluster>>,
    /// Counters.
    pub metrics: Metrics,
    /// Records how sessions came about.
    pub traces: Traces,
    /// What TLS and QUIC show.
    pub certificates: Certificates,
    /// Who may come in; `None` where everybody may.
    pub auth: Option<Verifier>,
    /// Makes invitations, where the operator has given it a key.
    pub inviter: Option<Inviter>,
    /// Which `Origin` may open a session.
    pub origins: Origins,
    /// One permit for each connection that may be open, TCP and QUIC together.
    pub connections: Arc<Semaphore>,
    /// One permit for each TCP connection that may be open, which is an open file besides.
    pub tcp_connections: Arc<Semaphore>,
    /// One permit for each TLS handshake over TCP that may be computing, as many as there are processors: one takes as long as a
    /// hundred messages, and those of sessions go between two.
    pub handshakes: Semaphore,
    /// When the log is told again that there are no connections left.
    pub full_told: Seldom,
    /// How many sessions may open at once.
    pub pace: Pace,
    /// What each client address has asked for.
    pub clients: Clients,
    /// Raised when the operator asks for draining by the admin listener; it begins then as after SIGTERM.
    pub ask_to_drain: Signal,
    /// Raised when draining begins: open no sessions, send GOAWAY and `goAway`; sessions go on.
    pub drain: Signal,
    /// When the drain time is over; known once draining has begun.
    pub drained_by: OnceLock<Instant>,
    /// Raised when the drain time is over: everything still open is closed with `goingAway`.
    pub stop: Signal,
    /// Every task of a listener, connection or session; shutdown waits for it.
    pub tasks: TaskTracker,
}

impl Context {
    /// Who sent a request that came from `peer`.
    ///
    /// # Errors
    /// `badRequest`: a trusted proxy says what cannot be understood.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<Client, Refusal> {
        self.clients.of_request(peer, headers).map_err(|malformed| {
            debug!(%peer, %malformed, "request refused");
            self.metrics.refused(Refused::ProxyHeader);
            Refusal::bad_request(malformed.to_string())
        })
    }

    /// Whether there is a certificate to show: an authority may not have issued the first yet.
    pub fn has_certificate(&self) -> bool {
        self.certificates.shown().borrow().is_some()
    }

    /// A permit for a connection from `remote`; `None` if there are as many as may be, of which the log hears from time to time.
    pub fn take_connection(&self, remote: SocketAddr) -> Option<OwnedSemaphorePermit> {
        self.take(&self.connections, self.config.connections.connections, remote)
    }

    /// The same for a TCP connection, which takes two: that of a connection, and that of an open file.
    pub fn take_tcp_connection(&self, remote: SocketAddr) -> Option<[OwnedSemaphorePermit; 2]> {
        let file = self.take(&self.tcp_connections, self.config.connections.tcp_connections, remote)?;
        Some([file, self.take_connection(remote)?])
    }

    fn take(&self, permits: &Arc<Semaphore>, most: usize, remote: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(permits).try_acquire_owned().ok();
        if permit.is_none() {
            self.metrics.refused(Refused::Full);
            // Whoever causes this would fill the log as well.
            if self.full_told.is_due(Instant::now()) {
                warn!(%remote, most, "connections refused: as many are open as may be; those that are open are served");
            }
        }
        permit
    }

    /// Notes that a connection was refused for what its address has asked for.
    pub fn refuse_connection(&self, remote: SocketAddr, excess: Excess) {
        self.metrics.refused(Refused::Address(excess.limit));
        debug!(%remote, limit = excess.limit.name(), "connection refused");
    }

    /// What a client is told that has asked for more than its address may.
    pub fn too_much(&self, excess: Excess) -> Refusal {
        self.metrics.refused(Refused::Address(excess.limit));
        // Those behind one address must not come back together.
        let wait = excess.wait + jitter(excess.wait);
        Refusal::new(Code::RateLimited, excess.limit.describe()).retry_after(wait.max(Duration::from_millis(1)))
    }

    /// Whether another session of this client may open, or a present one move to another transport.
    ///
    /// # Errors
    /// `goingAway`, and when to come back: while the server drains, and when more come at once than it takes. `rateLimited` if
    /// more come from this address than may.
    pub fn let_in(&self, client: &Client) -> Result<(), Refusal> {
        if self.drain.is_raised() {
            return Err(self.going_away());
        }
        client.join().map_err(|excess| self.too_much(excess))?;
        self.pace.enter(Instant::now()).map_err(|wait| {
            self.metrics.refused(Refused::Pace);
            Refusal::new(Code::GoingAway, "too many sessions open at this moment; come back a little later")
                .retry_after(wait)
        })
    }

    /// The server drains. Come back when its time is over, or at once where another node has the room as well; and not all at the
    /// same moment: a server that has just started must not be stormed.
    pub fn going_away(&self) -> Refusal {
        let elsewhere = self.cluster.as_ref().is_some_and(|cluster| !cluster.staying().is_empty());
        let spread = self.config.drain / 2;
        let wait = if elsewhere {
            jitter(spread.min(ELSEWHERE))
        } else {
            let left = self.drained_by.get().map_or(Duration::ZERO, |by| by.saturating_duration_since(Instant::now()));
            left + jitter(spread)
        };
        Refusal::new(Code::GoingAway, "the server is shutting down").retry_after(wait)
    }
}
