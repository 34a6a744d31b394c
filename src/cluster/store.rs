//! Where seats are kept beyond the life of their node: a log for each, which one node at a time may write.

#[cfg(test)]
mod memory;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::protocol::{PeerId, RoomName};

#[cfg(test)]
pub use memory::Memory;

/// How long a record may take. After that it may or may not be stored.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// After a failure nothing is tried for so long: whoever has something to store is told at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes of payloads that may wait to be stored, of all seats.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Seats that are left and wait to be forgotten; the store forgets any others with time.
const MOST_LEFT: usize = 16_384;

/// Why nothing was stored, or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The log's last record is another one: somebody else has written since.
    Overtaken,
    /// There is no answer, or none that says what has become of it.
    Unreachable,
}

/// A seat's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// From the first to the last.
    pub records: Vec<Bytes>,
    /// The last one's number; 0 for none.
    pub last: u64,
}

/// Completes when the store has answered, or has not in time.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store of logs.
pub trait Store: fmt::Debug + Send + Sync {
    /// Whether there is one. Without it nodes do as if nobody had asked for it.
    fn is_there(&self) -> bool;

    /// Bytes that a record may have.
    fn largest(&self) -> usize;

    /// Adds a record to a seat's log, or puts it in the place of `all` before it, if the last one has this number; 0 stands for
    /// none. Returns the record's own number, a greater one.
    fn append(&self, peer: PeerId, last: u64, record: Bytes, all: bool) -> Doing<'_, Result<u64, Failure>>;

    /// Reads a seat's log.
    fn read(&self, peer: PeerId) -> Doing<'_, Result<Log, Failure>>;

    /// Removes it up to the record with this number, however late that is carried out: what comes after is somebody else's. What cannot
    /// be removed is forgotten with time.
    fn forget(&self, peer: PeerId, until: u64) -> Doing<'_, ()>;
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// This seat has something to write.
    Write(RoomName, PeerId),
    /// This one is left: its log is to be removed up to the record with this number.
    Forget(PeerId, u64),
}

/// What was stored since the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Records.
    pub stored: u64,
    /// Records of which that is not known.
    pub failed: u64,
    /// Seats of lost nodes that go on here.
    pub restored: u64,
    /// Seats that were here and go on at another node, which took this one for lost.
    pub dropped: u64,
}

/// A node's way to the store: which seats have something to write, each of which does so by itself, one record after the other.
#[derive(Debug)]
pub struct Desk {
    store: Arc<dyn Store>,
    busy: Mutex<Busy>,
    /// Something is due.
    wake: Notify,
    bytes: AtomicUsize,
    failed_at: Mutex<Option<Instant>>,
    stored: AtomicU64,
    failed: AtomicU64,
    restored: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Busy {
    /// Seats that are to be written next, each once, so that there are no more than seats; and those that are left.
    to_write: VecDeque<(RoomName, PeerId)>,
    to_forget: VecDeque<(PeerId, u64)>,
    /// Seats that are to be written or are being written, and which of them are to be forgotten afterwards.
    seats: HashSet<PeerId>,
    left: HashMap<PeerId, u64>,
}

impl Busy {
    fn forget(&mut self, peer: PeerId, until: u64) {
        if self.to_forget.len() < MOST_LEFT {
            self.to_forget.push_back((peer, until));
        }
    }
}

impl Desk {
    /// A desk with nothing to do.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Desk {
            store,
            busy: Mutex::default(),
            wake: Notify::new(),
            bytes: AtomicUsize::new(0),
            failed_at: Mutex::default(),
            stored: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            restored: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Waits for what is to be done next. For one task; cancel safe.
    pub async fn next(&self) -> Due {
        loop {
            if let Some(due) = self.take_due() {
                return due;
            }
            self.wake.notified().await;
        }
    }

    fn take_due(&self) -> Option<Due> {
        let mut busy = self.busy.lock();
        let write = busy.to_write.pop_front().map(|(room, peer)| Due::Write(room, peer));
        write.or_else(|| busy.to_forget.pop_front().map(|(peer, until)| Due::Forget(peer, until)))
    }

    /// The store, if there is one at the moment.
    pub fn store(&self) -> Option<&Arc<dyn Store>> {
        Some(&self.store).filter(|store| store.is_there())
    }

    /// Whether it has failed so lately that it is not tried.
    pub fn is_failing(&self, now: Instant) -> bool {
        self.failed_at.lock().is_some_and(|at| now < at + PAUSE)
    }

    /// A seat has something to write.
    pub fn write(&self, room: &RoomName, peer: PeerId) {
        let mut busy = self.busy.lock();
        if busy.seats.insert(peer) {
            busy.to_write.push_back((room.clone(), peer));
            self.wake.notify_one();
        }
    }

    /// It has nothing to write any more. Returns up to which record it is to be forgotten, if it was left meanwhile.
    pub fn rest(&self, peer: PeerId) -> Option<u64> {
        let mut busy = self.busy.lock();
        busy.seats.remove(&peer);
        busy.left.remove(&peer)
    }

    /// Its peer has left: when what is being written is written, all is to be forgotten, up to this record at least.
    pub fn leave(&self, peer: PeerId, until: u64) {
        let mut busy = self.busy.lock();
        if busy.seats.contains(&peer) {
            busy.left.insert(peer, until);
        } else {
            busy.forget(peer, until);
            self.wake.notify_one();
        }
    }

    /// So many more bytes wait to be stored. False, and they must not, if there are too many.
    pub fn take(&self, bytes: usize) -> bool {
        let more = |waiting: usize| Some(waiting + bytes).filter(|sum| *sum <= MOST_BYTES);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// They wait no more.
    pub fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes of payloads that wait to be stored.
    pub fn waiting(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What has become of a record.
    pub fn note(&self, result: Result<(), Failure>, now: Instant) {
        match result {
            Ok(()) => {
                self.stored.fetch_add(1, Ordering::Relaxed);
                *self.failed_at.lock() = None;
            }
            Err(Failure::Unreachable) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                *self.failed_at.lock() = Some(now);
            }
            Err(Failure::Overtaken) => {}
        }
    }

    /// A lost node's seat goes on here.
    pub fn note_restored(&self) {
        self.restored.fetch_add(1, Ordering::Relaxed);
    }

    /// A seat of this node goes on elsewhere.
    pub fn note_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// What was done since the start.
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            stored: read(&self.stored),
            failed: read(&self.failed),
            restored: read(&self.restored),
            dropped: read(&self.dropped),
        }
    }
}
