//! Numbered messages, each of which must come once and in order, and how long they take.

use std::time::{Duration, Instant};

/// One direction between two peers.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    sent: Vec<Instant>,
    latencies: Vec<Duration>,
}

impl Direction {
    /// The number of the next message, which is being sent now.
    pub(crate) fn send(&mut self) -> usize {
        self.sent.push(Instant::now());
        self.sent.len() - 1
    }

    /// A message has come.
    ///
    /// # Panics
    /// If it is not the next one.
    pub(crate) fn hear(&mut self, number: usize) {
        assert_eq!(number, self.latencies.len(), "each message once and in order");
        self.latencies.push(self.sent[number].elapsed());
    }

    /// How many have been sent.
    pub(crate) fn sent(&self) -> usize {
        self.sent.len()
    }

    /// Whether all that were sent have come.
    pub(crate) fn is_complete(&self) -> bool {
        self.latencies.len() == self.sent.len()
    }

    /// How long each took that has come.
    pub(crate) fn latencies(&self) -> &[Duration] {
        &self.latencies
    }
}

/// The `part` (0 to 1) of `sorted` that lies below the returned one.
pub(crate) fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let last = sorted.len().checked_sub(1).expect("there are some");
    sorted[(last as f64 * part).round() as usize]
}
