//! Load on a server, and what it costs the server: the workloads of `wigwag bench`.
//!
//! A [`workload`] drives [`Peer`]s of a [`Service`] and reads the server's processor time from outside, so that what the load itself
//! costs does not count, and a noisy neighbour only a little. Nothing here knows how a service is spoken to, so that others can be
//! measured in the same way.

use std::future::Future;

use anyhow::Result;

mod member;
pub mod nats;
pub mod process;
pub mod report;
mod sdp;
pub mod workload;

pub use member::Wigwag;
pub use process::Process;
pub use sdp::{answer, candidate, offer};

/// Options of `wigwag serve` by which its limits are above every load.
pub const ABOVE_LIMITS: &[&str] = &[
    "--rate=1000000",
    "--burst=1000000",
    "--sessions-per-second=1000000",
    "--max-peers=10000",
    "--max-connections=1000000",
];

/// A server as its clients know it.
pub trait Service: Clone + Send + Sync + 'static {
    /// One client in one room.
    type Peer: Peer;

    /// Connects and enters `room`. Done when the server has let the peer in.
    ///
    /// # Errors
    /// Whatever kept it out.
    fn join(&self, room: &str) -> impl Future<Output = Result<Self::Peer>> + Send;
}

/// A client in a room.
pub trait Peer: Sized + Send + 'static {
    /// Queues `data`, a JSON text, to the others in the room: to `to` alone where it is given.
    ///
    /// # Errors
    /// If the connection is lost.
    fn feed(&mut self, to: Option<&str>, data: &str) -> Result<()>;

    /// Sends what is queued. Cancel safe.
    ///
    /// # Errors
    /// If the connection is lost.
    fn flush(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Waits for what another peer has sent. Cancel safe.
    ///
    /// # Errors
    /// If the connection is lost.
    fn recv(&mut self) -> impl Future<Output = Result<String>> + Send;

    /// Queues an offer or an answer. Where a service has no such message, it is data like any other.
    ///
    /// # Errors
    /// If the connection is lost.
    fn feed_description(&mut self, to: &str, description: &str) -> Result<()> {
        self.feed(Some(to), description)
    }

    /// Queues a candidate; see [`feed_description`](Self::feed_description).
    ///
    /// # Errors
    /// If the connection is lost.
    fn feed_candidate(&mut self, to: &str, candidate: &str) -> Result<()> {
        self.feed(Some(to), candidate)
    }

    /// The name by which others address it.
    fn id(&self) -> &str;

    /// Leaves, and ends the connection in order.
    fn leave(self) -> impl Future<Output = Result<()>> + Send;
}
