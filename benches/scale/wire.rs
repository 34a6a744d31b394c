//! A bus between nodes of one process, which takes its time, has queues as long as those over NATS, and counts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use wigwag::cluster::bus::{Bus, Flushed, INCOMING, Incoming, To};
use wigwag::protocol::NodeId;

/// From one node to another, by way of NATS.
const LATENCY: Duration = Duration::from_millis(1);

/// Texts that wait for a node: in its own queue, and in that of NATS's client before.
const QUEUE: usize = 2 * INCOMING;

/// What has gone over the bus.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Texts that nodes have put on it.
    pub(crate) published: u64,
    /// Texts that have come out, to however many nodes.
    pub(crate) delivered: u64,
    /// Bytes of those.
    pub(crate) bytes: u64,
    /// Texts for which a node's queue had no room.
    pub(crate) dropped: u64,
}

/// The bus. It carries nothing until it is connected.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    published: Notify,
}

#[derive(Debug, Default)]
struct State {
    is_connected: bool,
    nodes: BTreeMap<NodeId, mpsc::Sender<Incoming>>,
    on_the_way: VecDeque<(Instant, NodeId, To, Bytes)>,
    counts: Counts,
}

/// A node's end.
#[derive(Debug)]
struct Plug {
    wire: Wire,
    node: NodeId,
}

impl Wire {
    /// A node's end, and what comes out of it.
    pub(crate) fn plug(&self, node: NodeId) -> (Arc<dyn Bus>, mpsc::Receiver<Incoming>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.0.state.lock().nodes.insert(node, sender);
        (Arc::new(Plug { wire: self.clone(), node }), receiver)
    }

    /// From now on nothing reaches that node, nor comes from it.
    pub(crate) fn unplug(&self, node: NodeId) {
        self.0.state.lock().nodes.remove(&node);
    }

    /// The bus is there.
    pub(crate) fn connect(&self) {
        let mut state = self.0.state.lock();
        state.is_connected = true;
        state.nodes.values().for_each(|node| drop(node.try_send(Incoming::Connected)));
    }

    /// What has gone over it so far.
    pub(crate) fn counts(&self) -> Counts {
        self.0.state.lock().counts
    }

    /// Brings each text when it is due. Runs until it is dropped.
    pub(crate) async fn carry(self) {
        loop {
            let next = self.0.state.lock().on_the_way.front().map(|(due, ..)| *due);
            match next {
                Some(due) => {
                    tokio::time::sleep_until(due).await;
                    self.0.state.lock().deliver(Instant::now());
                }
                None => self.0.published.notified().await,
            }
        }
    }
}

impl State {
    fn deliver(&mut self, now: Instant) {
        while let Some((_, from, to, text)) = self.on_the_way.pop_front_if(|(due, ..)| *due <= now) {
            match to {
                To::Node(node) => self.hand_to(node, &text),
                To::All => {
                    let others: Vec<NodeId> = self.nodes.keys().copied().filter(|node| *node != from).collect();
                    others.into_iter().for_each(|node| self.hand_to(node, &text));
                }
            }
        }
    }

    fn hand_to(&mut self, node: NodeId, text: &Bytes) {
        let Some(queue) = self.nodes.get(&node) else { return };
        if queue.try_send(Incoming::Text(text.clone())).is_ok() {
            self.counts.delivered += 1;
            self.counts.bytes += text.len() as u64;
        } else {
            self.counts.dropped += 1;
        }
    }
}

impl Bus for Plug {
    fn publish(&self, to: To, text: Bytes) {
        let mut state = self.wire.0.state.lock();
        if !state.is_connected || !state.nodes.contains_key(&self.node) {
            return;
        }
        state.counts.published += 1;
        state.on_the_way.push_back((Instant::now() + LATENCY, self.node, to, text));
        self.wire.0.published.notify_one();
    }

    fn is_connected(&self) -> bool {
        self.wire.0.state.lock().is_connected
    }

    fn largest(&self) -> usize {
        1024 * 1024
    }

    fn flush(&self) -> Flushed<'_> {
        Box::pin(std::future::ready(()))
    }
}
