//! One QUIC connection shared by HTTP/3 and WebTransport: what h3 knows is handed to h3, what belongs to a session goes to
//! [`Sessions`], and what is neither is stopped.
//!
//! The first integers of each incoming stream tell which it is. All streams that have not told yet are read side by side, so
//! that none waits for another, and each has a deadline; QUIC's limit of concurrent streams bounds their number.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicI32;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::extended::Protocol;
use super::frames::Frames;
use super::sessions::{BUFFERED_STREAM_REJECTED, SessionStream, Sessions};
use super::settings::{CONTROL_STREAM, Settings};
use super::stream::{BidiStream, RecvStream, SendStream, code, connection_error, poll_chunk};
use super::varint;
use crate::metrics::Tally;
use crate::transport::flood::{FRAMES_A_SECOND, Flood};

/// Type of a unidirectional stream of a session.
const WEBTRANSPORT_UNI: u64 = 0x54;
/// What a bidirectional stream of a session begins with.
const WEBTRANSPORT_BIDI: u64 = 0x41;
const PUSH_STREAM: u64 = 0x01;
const QPACK_ENCODER_STREAM: u64 = 0x02;
const QPACK_DECODER_STREAM: u64 = 0x03;

/// From one client-initiated bidirectional stream's id to the next (RFC 9000, 2.1).
const REQUEST_ID_STEP: u64 = 4;

/// Datagrams taken in before other work gets its turn.
const DATAGRAMS_AT_ONCE: usize = 64;

/// Streams that may be opened in a second, requests and all others; many times what a page with several sessions needs.
const STREAMS_A_SECOND: u32 = 2000;

/// Resolves when the client has taken all of a response, or wants no more of it, or is gone.
pub(crate) type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A request that h3 was given, and what only the demultiplexer knows of it.
pub(crate) struct Accepted {
    /// Of its stream.
    pub(crate) id: u64,
    /// When its client no longer waits.
    pub(crate) stopped: Stopped,
    /// The priority of its answer among the connection's streams.
    pub(crate) priority: Arc<AtomicI32>,
    /// Its `:protocol`, as soon as h3 has its head.
    pub(crate) protocol: Arc<OnceLock<Protocol>>,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + Sync>>;

/// A future of quinn's that is kept from poll to poll, as these must be, and made anew when it has resolved.
struct Repeat<T> {
    quic: quinn::Connection,
    make: fn(quinn::Connection) -> BoxFuture<T>,
    future: BoxFuture<T>,
}

impl<T> Repeat<T> {
    fn new(quic: &quinn::Connection, make: fn(quinn::Connection) -> BoxFuture<T>) -> Self {
        Repeat { quic: quic.clone(), make, future: make(quic.clone()) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let output = ready!(self.future.as_mut().poll(cx));
        self.future = (self.make)(self.quic.clone());
        Poll::Ready(output)
    }
}

type Bidi = (quinn::SendStream, quinn::RecvStream);

/// What the configuration says of a connection.
pub(super) struct Options {
    /// Head of our control stream, in place of h3's.
    pub(super) control_head: Bytes,
    /// The most bytes of a frame that h3 has to see whole.
    pub(super) frame_limit: u64,
    /// The most sessions at once.
    pub(super) sessions: usize,
    /// How long a stream may take to tell what it is, and to find its session.
    pub(super) patience: Duration,
    /// Counts floods, for which the connection or a stream ends.
    pub(super) floods: Tally,
}

/// The connection as h3 sees it.
pub(crate) struct Connection {
    quic: quinn::Connection,
    incoming_bidi: Repeat<Result<Bidi, quinn::ConnectionError>>,
    incoming_uni: Repeat<Result<quinn::RecvStream, quinn::ConnectionError>>,
    incoming_datagrams: Repeat<Result<Bytes, quinn::ConnectionError>>,
    opener: OpenStreams,
    unclassified: Vec<Unclassified>,
    deadline: Option<Pin<Box<Sleep>>>,
    requests: Vec<(BidiStream, Arc<OnceLock<Protocol>>)>,
    unidirectional: Vec<RecvStream>,
    options: Options,
    sessions: Arc<Sessions>,
    /// Of streams, whatever they are for.
    stream_flood: Flood,
    /// Of datagrams for no session.
    datagram_flood: Flood,
    settings: watch::Sender<Option<Settings>>,
    /// Requests from this id on are refused: they are behind our GOAWAY.
    closed_from: Option<u64>,
    /// Ids of the requests that h3 was given last, and the greatest of all.
    given: Option<(u64, u64)>,
    last_request: Option<Accepted>,
}

impl Connection {
    pub(super) fn new(quic: quinn::Connection, options: Options) -> Self {
        Connection {
            incoming_bidi: Repeat::new(&quic, |quic| Box::pin(async move { quic.accept_bi().await })),
            incoming_uni: Repeat::new(&quic, |quic| Box::pin(async move { quic.accept_uni().await })),
            incoming_datagrams: Repeat::new(&quic, |quic| Box::pin(async move { quic.read_datagram().await })),
            opener: OpenStreams::new(quic.clone(), Some(options.control_head.clone())),
            unclassified: Vec::new(),
            deadline: None,
            requests: Vec::new(),
            unidirectional: Vec::new(),
            sessions: Sessions::new(options.sessions),
            stream_flood: Flood::new(STREAMS_A_SECOND, options.floods.clone()),
            datagram_flood: Flood::new(FRAMES_A_SECOND, options.floods.clone()),
            options,
            settings: watch::Sender::new(None),
            closed_from: None,
            given: None,
            last_request: None,
            quic,
        }
    }

    /// The connection's sessions.
    pub(super) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// What the client's SETTINGS say, once they are there.
    pub(super) fn settings(&self) -> watch::Receiver<Option<Settings>> {
        self.settings.subscribe()
    }

    /// The request that h3 accepted last. To be taken before the next one.
    pub(super) fn take_last_request(&mut self) -> Option<Accepted> {
        self.last_request.take()
    }

    /// Refuses requests behind the greatest that h3 was given, so that clients may safely send them elsewhere. Returns by how
    /// many that is ahead of the one it was given last.
    pub(super) fn close_behind_greatest(&mut self) -> usize {
        let Some((last, greatest)) = self.given else {
            self.closed_from = Some(0);
            return 0;
        };
        self.closed_from = Some(greatest + REQUEST_ID_STEP);
        ((greatest - last) / REQUEST_ID_STEP) as usize
    }

    /// Takes in all that has come, and does what is due.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Result<(), ConnectionErrorIncoming> {
        while let Poll::Ready(bidi) = self.incoming_bidi.poll(cx) {
            let (send, recv) = bidi.map_err(connection_error)?;
            self.came(Unclassified::new(Some(send), recv));
        }
        while let Poll::Ready(uni) = self.incoming_uni.poll(cx) {
            self.came(Unclassified::new(None, uni.map_err(connection_error)?));
        }
        self.poll_datagrams(cx)?;
        self.classify(cx);
        self.poll_deadline(cx);
        Ok(())
    }

    fn came(&mut self, stream: Unclassified) {
        if self.stream_flood.note() {
            self.quic.close(code(Code::H3_EXCESSIVE_LOAD), b"too many streams in a second");
        }
        self.unclassified.push(stream);
    }

    fn poll_datagrams(&mut self, cx: &mut Context<'_>) -> Result<(), ConnectionErrorIncoming> {
        for _ in 0..DATAGRAMS_AT_ONCE {
            let Poll::Ready(datagram) = self.incoming_datagrams.poll(cx) else { return Ok(()) };
            let for_a_session = self.sessions.datagram(datagram.map_err(connection_error)?);
            if !for_a_session && self.datagram_flood.note() {
                self.quic.close(code(Code::H3_EXCESSIVE_LOAD), b"too many datagrams for no session");
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn classify(&mut self, cx: &mut Context<'_>) {
        let mut index = 0;
        while index < self.unclassified.len() {
            match self.unclassified[index].poll(cx) {
                Poll::Pending => index += 1,
                Poll::Ready(first) => {
                    let stream = take(&mut self.unclassified, index);
                    match first {
                        Some(First { kind, session }) => self.dispatch(stream, kind, session),
                        // Ended or reset before it told: nothing to read, nothing to answer (RFC 9114, 6.2).
                        None => stream.stop(Code::H3_REQUEST_INCOMPLETE),
                    }
                }
            }
        }
    }

    fn dispatch(&mut self, stream: Unclassified, kind: u64, session: Option<(u64, usize)>) {
        let Unclassified { send, recv, head, .. } = stream;
        let mut head = head.freeze();
        let Some(send) = send else {
            return self.dispatch_uni(recv, kind, head);
        };
        let Some((session, header_bytes)) = session else {
            return self.dispatch_request(send, recv, head);
        };
        if !session.is_multiple_of(REQUEST_ID_STEP) {
            // Only a request's stream can have opened a session (draft-ietf-webtrans-http3, 4.3).
            return self.quic.close(code(Code::H3_ID_ERROR), b"not a session");
        }
        let head = head.split_off(header_bytes);
        self.sessions.stream(session, SessionStream { send, recv, head });
    }

    fn dispatch_request(&mut self, mut send: quinn::SendStream, mut recv: quinn::RecvStream, head: Bytes) {
        if self.closed_from.is_some_and(|first| u64::from(recv.id()) >= first) {
            let rejected = code(Code::H3_REQUEST_REJECTED);
            let _ = send.reset(rejected);
            let _ = recv.stop(rejected);
            return;
        }
        let protocol = Arc::default();
        let frames = Frames::of_request(self.options.frame_limit, self.options.floods.clone(), Arc::clone(&protocol));
        let recv = RecvStream::new(recv, Bytes::new(), head, Some(frames));
        self.requests.push((BidiStream { send: SendStream::new(send), recv }, protocol));
    }

    fn dispatch_uni(&mut self, mut recv: quinn::RecvStream, kind: u64, mut head: Bytes) {
        let frames = match kind {
            CONTROL_STREAM => {
                let Options { frame_limit, floods, .. } = &self.options;
                Some(Frames::of_control(*frame_limit, floods.clone(), self.settings.clone()))
            }
            QPACK_ENCODER_STREAM | QPACK_DECODER_STREAM => None,
            PUSH_STREAM => {
                return self.quic.close(code(Code::H3_STREAM_CREATION_ERROR), b"only servers push");
            }
            _ => {
                let reason = match kind {
                    // The protocol has no use for them.
                    WEBTRANSPORT_UNI => BUFFERED_STREAM_REJECTED.into(),
                    _ => code(Code::H3_STREAM_CREATION_ERROR),
                };
                let _ = recv.stop(reason);
                return;
            }
        };
        let preface = head.split_to(varint::get(&head).map_or(0, |(_, taken)| taken));
        self.unidirectional.push(RecvStream::new(recv, preface, head, frames));
    }

    /// Gives up what has waited too long, and sets the timer for what waits.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) {
        loop {
            let eldest = self.unclassified.first().map(|stream| stream.since);
            let Some(since) = eldest.into_iter().chain(self.sessions.waiting_since()).min() else {
                self.deadline = None;
                return;
            };
            let due = since + self.options.patience;
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if deadline.deadline() != due {
                deadline.as_mut().reset(due);
            }
            if deadline.as_mut().poll(cx).is_pending() {
                return;
            }
            self.sessions.expire(since);
            while self.unclassified.first().is_some_and(|stream| stream.since <= since) {
                take(&mut self.unclassified, 0).stop(Code::H3_REQUEST_INCOMPLETE);
            }
        }
    }
}

/// A stream that has not told yet what it is.
struct Unclassified {
    send: Option<quinn::SendStream>,
    recv: quinn::RecvStream,
    head: BytesMut,
    since: Instant,
}

/// What the first integers of a stream say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct First {
    pub(super) kind: u64,
    /// Id of the session and length of all that came before its data.
    pub(super) session: Option<(u64, usize)>,
}

/// Type and session id.
pub(super) const HEAD_BYTES: usize = 2 * varint::MAX_BYTES;

/// Takes one out of a queue that is empty most of the time, and then has no memory.
fn take<T>(queue: &mut Vec<T>, index: usize) -> T {
    let taken = queue.remove(index);
    if queue.is_empty() {
        *queue = Vec::new();
    }
    taken
}

impl First {
    /// Reads the beginning of a stream; `None` while it is not complete.
    pub(super) fn read(head: &[u8], is_bidi: bool) -> Option<Self> {
        let (kind, taken) = varint::get(head)?;
        if !is_bidi || kind != WEBTRANSPORT_BIDI {
            return Some(First { kind, session: None });
        }
        let (session, more) = varint::get(&head[taken..])?;
        Some(First { kind, session: Some((session, taken + more)) })
    }
}

impl Unclassified {
    fn new(send: Option<quinn::SendStream>, recv: quinn::RecvStream) -> Self {
        Unclassified { send, recv, head: BytesMut::new(), since: Instant::now() }
    }

    /// Reads until the kind is clear; `None` if the stream ended before.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<First>> {
        loop {
            if let Some(first) = First::read(&self.head, self.send.is_some()) {
                return Poll::Ready(Some(first));
            }
            let most = HEAD_BYTES - self.head.len();
            match ready!(poll_chunk(&mut self.recv, most, cx)) {
                Ok(Some(chunk)) => self.head.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return Poll::Ready(None),
            }
        }
    }

    fn stop(mut self, reason: Code) {
        let _ = self.recv.stop(code(reason));
        if let Some(send) = &mut self.send {
            let _ = send.reset(code(reason));
        }
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = OpenStreams;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        self.poll_incoming(cx)?;
        if self.unidirectional.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(take(&mut self.unidirectional, 0)))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        self.poll_incoming(cx)?;
        if self.requests.is_empty() {
            return Poll::Pending;
        }
        let (stream, protocol) = take(&mut self.requests, 0);
        let (id, stopped) = stream.send.stopped();
        let priority = stream.send.priority();
        self.given = Some((id, self.given.map_or(id, |(_, greatest)| greatest.max(id))));
        self.last_request = Some(Accepted { id, stopped, priority, protocol });
        Poll::Ready(Ok(stream))
    }

    fn opener(&self) -> OpenStreams {
        OpenStreams::new(self.quic.clone(), None)
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens streams on behalf of h3: the control stream and those of QPACK.
pub(crate) struct OpenStreams {
    quic: quinn::Connection,
    uni: Option<BoxFuture<Result<quinn::SendStream, quinn::ConnectionError>>>,
    /// The first stream that h3 opens is the control stream; it begins with this.
    control_head: Option<Bytes>,
}

impl OpenStreams {
    fn new(quic: quinn::Connection, control_head: Option<Bytes>) -> Self {
        OpenStreams { quic, uni: None, control_head }
    }
}

impl quic::OpenStreams<Bytes> for OpenStreams {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    /// Only clients open requests.
    fn poll_open_bidi(&mut self, _cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        let connection_error = ConnectionErrorIncoming::InternalError("a server opens no requests".into());
        Poll::Ready(Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error }))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let quic = &self.quic;
        let opening = self.uni.get_or_insert_with(|| {
            let quic = quic.clone();
            Box::pin(async move { quic.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.uni = None;
        let stream = opened.map_err(stream_error)?;
        Poll::Ready(Ok(match self.control_head.take() {
            Some(head) => SendStream::control(stream, head),
            None => SendStream::new(stream),
        }))
    }

    fn close(&mut self, reason: Code, text: &[u8]) {
        self.quic.close(code(reason), text);
    }
}

fn stream_error(error: quinn::ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}
