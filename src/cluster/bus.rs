//! What carries packets between nodes. It may lose, double and overtake them; a [`link`](super::link) makes up for it.

#[cfg(test)]
mod memory;

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;

use crate::protocol::NodeId;

#[cfg(test)]
pub use memory::{Faults, Memory};

/// Texts that may wait to be taken in. What comes beyond is lost, and sent again.
pub const INCOMING: usize = 4096;

/// Whom a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// All nodes, the sender too.
    All,
    /// One of them.
    Node(NodeId),
}

/// What a bus brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Something that a node has published, or anybody else who can.
    Text(Bytes),
    /// The bus is there.
    Connected,
    /// It is not.
    Disconnected,
}

/// A node's end of the bus. Nothing here waits.
pub trait Bus: fmt::Debug + Send + Sync {
    /// Hands a text over, which may get lost.
    fn publish(&self, to: To, text: Bytes);

    /// Whether the bus is there.
    fn is_connected(&self) -> bool;

    /// Bytes that a text may have.
    fn largest(&self) -> usize;

    /// Waits until what was published before is on its way.
    fn flush(&self) -> Flushed<'_>;
}

/// Completes when a bus is flushed.
pub type Flushed<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
