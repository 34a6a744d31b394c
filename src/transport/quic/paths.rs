//! What QUIC's connections know of their paths, told to the metrics from time to time: connections last for hours, and nobody
//! should have to wait for their end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::metrics::Metrics;

/// How often each path is looked at.
const EVERY: Duration = Duration::from_secs(10);

/// How many are looked at in a row before others have their turn.
const AT_ONCE: usize = 64;

/// The paths of an endpoint's connections.
#[derive(Debug)]
pub(super) struct Paths {
    metrics: Metrics,
    open: Mutex<HashMap<u64, Weak<Path>>>,
    next: AtomicU64,
}

impl Paths {
    pub(super) fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Paths { metrics, open: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// Looks at this connection's path from now on, and a last time when what is returned drops.
    pub(super) fn watch(self: &Arc<Self>, quic: quinn::Connection) -> Arc<Path> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let path = Arc::new(Path { id, quic, told: Mutex::default(), paths: Arc::clone(self) });
        self.open.lock().insert(id, Arc::downgrade(&path));
        path
    }

    /// Looks at all of them, again and again: drop the future to end it.
    pub(super) async fn keep_looking(&self) {
        loop {
            sleep(EVERY).await;
            let open: Vec<Weak<Path>> = self.open.lock().values().cloned().collect();
            for some in open.chunks(AT_ONCE) {
                some.iter().filter_map(Weak::upgrade).for_each(|path| path.tell());
                yield_now().await;
            }
        }
    }
}

/// One connection's path.
#[derive(Debug)]
pub(super) struct Path {
    id: u64,
    quic: quinn::Connection,
    told: Mutex<Told>,
    paths: Arc<Paths>,
}

/// Packets that were told of already.
#[derive(Debug, Default)]
struct Told {
    sent: u64,
    lost: u64,
}

impl Path {
    fn tell(&self) {
        let path = self.quic.stats().path;
        let mut told = self.told.lock();
        let (sent, lost) = (path.sent_packets.saturating_sub(told.sent), path.lost_packets.saturating_sub(told.lost));
        *told = Told { sent: path.sent_packets, lost: path.lost_packets };
        self.paths.metrics.quic_path(path.rtt, sent, lost);
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.tell();
        self.paths.open.lock().remove(&self.id);
    }
}
