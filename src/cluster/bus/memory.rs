//! A bus within one process, whose faults a test chooses.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Bus, Flushed, INCOMING, Incoming, To};
use crate::protocol::NodeId;

/// A bus within one process.
#[derive(Debug, Default, Clone)]
pub struct Memory(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    nodes: Mutex<HashMap<NodeId, mpsc::Sender<Incoming>>>,
    faults: Mutex<Option<Faults>>,
    is_cut: AtomicBool,
    apart: Mutex<Vec<[NodeId; 2]>>,
}

/// What the bus does to texts: one in so many gets lost, one in so many comes twice, by a sequence that a seed begins.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// Begins the sequence; not zero.
    pub seed: u64,
    /// One in so many is lost.
    pub lost: u64,
    /// One in so many is doubled.
    pub doubled: u64,
}

impl Faults {
    /// Whether the next text gets lost, and whether it is doubled. Xorshift (Marsaglia, 2003): no more chance is needed here.
    fn next(&mut self) -> (bool, bool) {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed.is_multiple_of(self.lost), (self.seed >> 32).is_multiple_of(self.doubled))
    }
}

/// A node's end of a bus in memory.
#[derive(Debug)]
struct Plug {
    node: NodeId,
    bus: Memory,
}

impl Memory {
    /// A node's end, and what comes out of it.
    pub fn plug(&self, node: NodeId) -> (Arc<dyn Bus>, mpsc::Receiver<Incoming>) {
        let (sender, receiver) = mpsc::channel(INCOMING);
        // A fresh channel has room.
        let _ = sender.try_send(Incoming::Connected);
        self.0.nodes.lock().insert(node, sender);
        (Arc::new(Plug { node, bus: self.clone() }), receiver)
    }

    /// From now on texts get lost and come twice.
    pub fn fail(&self, faults: Option<Faults>) {
        *self.0.faults.lock() = faults;
    }

    /// Takes a node off the bus: nothing reaches it any more.
    pub fn unplug(&self, node: NodeId) {
        self.0.nodes.lock().remove(&node);
    }

    /// From now on nothing gets from the first to the second node of these pairs.
    pub fn part(&self, pairs: impl Into<Vec<[NodeId; 2]>>) {
        *self.0.apart.lock() = pairs.into();
    }

    /// Takes the bus away from all, or gives it back.
    pub fn cut(&self, is_cut: bool) {
        self.0.is_cut.store(is_cut, Ordering::Relaxed);
        let news = || if is_cut { Incoming::Disconnected } else { Incoming::Connected };
        self.0.nodes.lock().values().for_each(|node| drop(node.try_send(news())));
    }
}

impl Bus for Plug {
    fn publish(&self, to: To, text: Bytes) {
        let shared = &self.bus.0;
        if shared.is_cut.load(Ordering::Relaxed) {
            return;
        }
        let (lost, doubled) = shared.faults.lock().as_mut().map_or((false, false), Faults::next);
        let copies = if lost { 0 } else { 1 + usize::from(doubled) };
        let apart = shared.apart.lock();
        let passes = |to| !apart.contains(&[self.node, to]);
        let nodes = shared.nodes.lock();
        let recipients = nodes.iter().filter(|(id, _)| (to == To::All || to == To::Node(**id)) && passes(**id));
        for (_, recipient) in recipients {
            for _ in 0..copies {
                // A full queue loses it, as a full queue of a real bus does.
                let _ = recipient.try_send(Incoming::Text(text.clone()));
            }
        }
    }

    fn is_connected(&self) -> bool {
        !self.bus.0.is_cut.load(Ordering::Relaxed)
    }

    fn largest(&self) -> usize {
        1024 * 1024
    }

    fn flush(&self) -> Flushed<'_> {
        Box::pin(std::future::ready(()))
    }
}
