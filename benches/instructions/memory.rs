//! A wire that is a queue in memory: what a message takes without a transport.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use wigwag::protocol::Frame;
use wigwag::transport::{Close, Received, Wire, WireError};

/// Both ends.
#[derive(Default)]
struct Pipe {
    up: VecDeque<Bytes>,
    reader: Option<Waker>,
    heard: usize,
    seq: u64,
    last: Vec<u8>,
}

/// The server's end.
pub(crate) struct MemoryWire(Arc<Mutex<Pipe>>);

/// The client's end.
pub(crate) struct Client(Arc<Mutex<Pipe>>);

pub(crate) fn pipe() -> (MemoryWire, Client) {
    let pipe = Arc::<Mutex<Pipe>>::default();
    (MemoryWire(Arc::clone(&pipe)), Client(pipe))
}

impl Client {
    pub(crate) fn say(&self, line: String) {
        let mut pipe = self.0.lock();
        pipe.up.push_back(line.into());
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
    }

    /// Frames that have come.
    pub(crate) fn heard(&self) -> usize {
        self.0.lock().heard
    }

    /// The number of the last frame that had one.
    pub(crate) fn seq(&self) -> u64 {
        self.0.lock().seq
    }

    /// The last frame.
    pub(crate) fn last(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.lock().last)
    }
}

impl Wire for MemoryWire {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Received>, WireError>> {
        let mut pipe = self.0.lock();
        match pipe.up.pop_front() {
            Some(line) => Poll::Ready(Ok(Some(Received::Message(line)))),
            None => {
                pipe.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn feed(&mut self, frame: Frame) -> Result<(), WireError> {
        let mut pipe = self.0.lock();
        pipe.heard += 1;
        pipe.seq = frame.seq.unwrap_or(pipe.seq);
        pipe.last.clear();
        frame.put(&mut pipe.last);
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        Poll::Ready(Ok(()))
    }

    fn probe(&mut self) -> Result<(), WireError> {
        Ok(())
    }

    fn last_heard(&self) -> Option<Instant> {
        None
    }

    async fn close(self, _: Close) {}
}
