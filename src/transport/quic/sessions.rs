//! Which WebTransport session a stream or datagram belongs to (draft-ietf-webtrans-http3, 4).
//!
//! A session is known by the id of its CONNECT stream. Its streams may overtake the CONNECT; a few of them wait here for it,
//! and are given up by the deadline of all unclassified streams.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::VarInt;
use tokio::time::Instant;

use super::varint;
use crate::protocol::Code;

/// WEBTRANSPORT_BUFFERED_STREAM_REJECTED: no session was there to take the stream, and no place to wait for one.
pub(crate) const BUFFERED_STREAM_REJECTED: u32 = 0x3994_bd84;
/// WEBTRANSPORT_SESSION_GONE: the stream ends because its session did.
pub(crate) const SESSION_GONE: u32 = 0x170d_7b68;

/// Streams of a connection that wait for their session.
const EARLY_STREAMS: usize = 16;
/// Datagrams of a session that wait for it to read them; more are dropped, as datagrams may be.
const DATAGRAMS: usize = 32;

/// An application's error code of a stream among HTTP/3's own (draft-ietf-webtrans-http3, 4.4).
pub(crate) fn application_error(code: u32) -> VarInt {
    const FIRST: u64 = 0x52e4_a40f_a8db;
    let code = u64::from(code);
    // Every 31st value is reserved for greasing (RFC 9114, 8.1).
    VarInt::from_u64(FIRST + code + code / 0x1e).unwrap_or(VarInt::MAX)
}

/// A bidirectional stream of a session, behind its header.
pub(crate) struct SessionStream {
    /// Sending half.
    pub(crate) send: quinn::SendStream,
    /// Receiving half.
    pub(crate) recv: quinn::RecvStream,
    /// What was read with the header; comes before anything from `recv`.
    pub(crate) head: Bytes,
}

impl SessionStream {
    fn reject(mut self, code: VarInt) {
        // Both fail only when the stream is gone already.
        let _ = self.send.reset(code);
        let _ = self.recv.stop(code);
    }
}

/// The sessions of one connection.
pub(crate) struct Sessions {
    /// The most that may be open at once.
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<u64, Inbox>,
    /// Eldest first.
    early: Vec<Early>,
}

impl State {
    /// Takes out the streams that wait for session `id`.
    fn take_early(&mut self, id: u64) -> Vec<Early> {
        let (own, others) = std::mem::take(&mut self.early).into_iter().partition(|early| early.session == id);
        self.early = others;
        own
    }
}

struct Early {
    session: u64,
    since: Instant,
    stream: SessionStream,
}

#[derive(Default)]
struct Inbox {
    stream: Option<SessionStream>,
    /// A session has one stream; this one has had its.
    served: bool,
    datagrams: VecDeque<Bytes>,
    waker: Option<Waker>,
}

impl Inbox {
    fn offer(&mut self, stream: SessionStream) {
        if std::mem::replace(&mut self.served, true) {
            return stream.reject(application_error(Code::BadRequest.close_code().into()));
        }
        self.stream = Some(stream);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Sessions {
    /// No session yet, and later at most so many.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Sessions { most, state: Mutex::default() })
    }

    /// Opens the session of CONNECT stream `id`; `None` if there are as many as may be. It ends when what is returned drops.
    pub(crate) fn open(self: &Arc<Self>, id: u64) -> Option<Session> {
        let mut state = self.state.lock();
        if state.open.len() >= self.most {
            return None;
        }
        let mut inbox = Inbox::default();
        let mut own = state.take_early(id);
        // Packets may have come in any order; the first stream is the one with the least id.
        own.sort_by_key(|early| u64::from(early.stream.recv.id()));
        own.into_iter().for_each(|early| inbox.offer(early.stream));
        state.open.insert(id, inbox);
        drop(state);
        Some(Session { id, sessions: Arc::clone(self) })
    }

    /// The CONNECT with stream `id` was refused: nobody will ask for its streams.
    pub(crate) fn refuse(&self, id: u64) {
        let own = self.state.lock().take_early(id);
        own.into_iter().for_each(|early| early.stream.reject(BUFFERED_STREAM_REJECTED.into()));
    }

    /// Gives a new stream to its session, or lets it wait for it.
    pub(super) fn stream(&self, session: u64, stream: SessionStream) {
        let mut state = self.state.lock();
        if let Some(inbox) = state.open.get_mut(&session) {
            inbox.offer(stream);
        } else if state.early.len() < EARLY_STREAMS {
            state.early.push(Early { session, since: Instant::now(), stream });
        } else {
            stream.reject(BUFFERED_STREAM_REJECTED.into());
        }
    }

    /// Gives a datagram (RFC 9297, 2.1) to its session. Without one, or with too many unread, it is dropped. Returns whether there
    /// is such a session.
    pub(super) fn datagram(&self, mut datagram: Bytes) -> bool {
        let Some((quarter_id, taken)) = varint::get(&datagram) else { return false };
        let mut state = self.state.lock();
        let Some(inbox) = quarter_id.checked_mul(4).and_then(|id| state.open.get_mut(&id)) else { return false };
        if inbox.datagrams.len() < DATAGRAMS {
            inbox.datagrams.push_back(datagram.split_off(taken));
            inbox.wake();
        }
        true
    }

    /// Since when the stream that has waited longest for its session waits.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.state.lock().early.first().map(|early| early.since)
    }

    /// Gives up the streams that have waited since `begin` or longer.
    pub(super) fn expire(&self, begin: Instant) {
        let mut state = self.state.lock();
        let expired = state.early.partition_point(|early| early.since <= begin);
        state.early.drain(..expired).for_each(|early| early.stream.reject(BUFFERED_STREAM_REJECTED.into()));
    }
}

/// One open session's share of its connection.
pub(crate) struct Session {
    id: u64,
    sessions: Arc<Sessions>,
}

impl Session {
    /// Waits for the session's stream, which comes once.
    pub(crate) fn poll_stream(&self, cx: &mut Context<'_>) -> Poll<SessionStream> {
        self.poll(cx, |inbox| inbox.stream.take())
    }

    /// Waits for the next datagram.
    pub(crate) fn poll_datagram(&self, cx: &mut Context<'_>) -> Poll<Bytes> {
        self.poll(cx, |inbox| inbox.datagrams.pop_front())
    }

    /// Takes something out, or sees to it that the task, of which a session has one, is woken when something has come.
    fn poll<T>(&self, cx: &mut Context<'_>, take: impl FnOnce(&mut Inbox) -> Option<T>) -> Poll<T> {
        let mut state = self.sessions.state.lock();
        // Only dropping the session removes it.
        let Some(inbox) = state.open.get_mut(&self.id) else { return Poll::Pending };
        if let Some(taken) = take(inbox) {
            return Poll::Ready(taken);
        }
        if !inbox.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inbox.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// `payload` as a datagram of this session, for the connection to send.
    pub(crate) fn datagram(&self, payload: &[u8]) -> Bytes {
        let mut datagram = Vec::with_capacity(varint::MAX_BYTES + payload.len());
        varint::put(&mut datagram, self.id / 4);
        datagram.extend_from_slice(payload);
        datagram.into()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let inbox = self.sessions.state.lock().open.remove(&self.id);
        if let Some(stream) = inbox.and_then(|inbox| inbox.stream) {
            stream.reject(SESSION_GONE.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn application_errors_skip_the_reserved_codes() {
        for code in [0, 1, 29, 30, 31, 59, 60, 4500, u32::MAX] {
            let mapped = application_error(code).into_inner();
            assert_ne!((mapped - 0x21) % 0x1f, 0, "{code} is mapped to a reserved code");
        }
        assert_eq!(application_error(0).into_inner(), 0x52e4_a40f_a8db);
        assert_eq!(application_error(u32::MAX).into_inner(), 0x52e5_ac98_3162);
    }

    #[test]
    fn datagrams_go_to_their_session_and_not_beyond_its_inbox() {
        let sessions = Sessions::new(2);
        let (first, second) = (sessions.open(0).expect("a place"), sessions.open(400).expect("a place"));
        assert!(sessions.open(8).is_none(), "a third is one too many");
        let mut cx = Context::from_waker(Waker::noop());
        sessions.datagram(second.datagram(b"two"));
        sessions.datagram(Bytes::from_static(&[77]));
        sessions.datagram(Bytes::new());
        assert!(first.poll_datagram(&mut cx).is_pending());
        assert_eq!(second.poll_datagram(&mut cx), Poll::Ready(Bytes::from_static(b"two")));
        for _ in 0..2 * DATAGRAMS {
            sessions.datagram(first.datagram(b"x"));
        }
        let kept = std::iter::from_fn(|| first.poll_datagram(&mut cx).is_ready().then_some(())).count();
        assert_eq!(kept, DATAGRAMS);
        drop(second);
        assert!(sessions.open(8).is_some(), "its place is free again");
    }
}
