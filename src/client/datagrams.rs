//! Which session of a connection a datagram is for (RFC 9297, 2.1).

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::transport::quic::varint;

/// Datagrams of a session that wait for it to read them; more are dropped, as datagrams may be.
const WAITING: usize = 32;

/// The inboxes of a connection's sessions, by the ids of their CONNECT streams.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    inboxes: Mutex<HashMap<u64, mpsc::Sender<Bytes>>>,
}

impl Datagrams {
    /// Opens the inbox of the session of CONNECT stream `session`.
    pub(super) fn open(self: &Arc<Self>, session: u64) -> Inbox {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.inboxes.lock().insert(session, sender);
        Inbox { session, receiver, datagrams: Arc::clone(self) }
    }

    /// Gives a datagram to its session; without one, or with too many unread, it is dropped.
    pub(super) fn deliver(&self, mut datagram: Bytes) {
        let Some((quarter_id, taken)) = varint::get(&datagram) else { return };
        let inboxes = self.inboxes.lock();
        let Some(inbox) = quarter_id.checked_mul(4).and_then(|session| inboxes.get(&session)) else { return };
        let _ = inbox.try_send(datagram.split_off(taken));
    }
}

/// One session's datagrams; closed when it is dropped.
pub(super) struct Inbox {
    session: u64,
    receiver: mpsc::Receiver<Bytes>,
    datagrams: Arc<Datagrams>,
}

impl Inbox {
    /// The id of the session's CONNECT stream.
    pub(super) fn session(&self) -> u64 {
        self.session
    }

    /// Waits for the next datagram.
    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        match self.receiver.poll_recv(cx) {
            Poll::Ready(Some(datagram)) => Poll::Ready(datagram),
            // The sender is there as long as the inbox is.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// `payload` as a datagram of this session, for the connection to send.
    pub(super) fn datagram(&self, payload: &[u8]) -> Bytes {
        let mut datagram = BytesMut::with_capacity(varint::MAX_BYTES + payload.len());
        varint::put(&mut datagram, self.session / 4);
        datagram.extend_from_slice(payload);
        datagram.freeze()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.datagrams.inboxes.lock().remove(&self.session);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn datagrams_go_to_their_session_and_not_beyond_its_inbox() {
        let datagrams = Arc::new(Datagrams::default());
        let (mut first, mut second) = (datagrams.open(0), datagrams.open(400));
        let mut cx = Context::from_waker(Waker::noop());
        datagrams.deliver(second.datagram(b"two"));
        datagrams.deliver(Bytes::from_static(&[77]));
        datagrams.deliver(Bytes::new());
        assert!(first.poll_recv(&mut cx).is_pending());
        assert_eq!(second.poll_recv(&mut cx), Poll::Ready(Bytes::from_static(b"two")));
        for _ in 0..2 * WAITING {
            datagrams.deliver(first.datagram(b"x"));
        }
        let kept = std::iter::from_fn(|| first.poll_recv(&mut cx).is_ready().then_some(())).count();
        assert_eq!(kept, WAITING);
        drop(second);
        assert_eq!(datagrams.inboxes.lock().len(), 1, "a session that is gone leaves nothing behind");
    }
}
