//! What every transport has in common: the [`Wire`] that it is, the way a session opens on it, and [`drive()`], which joins
//! the two to the [`hub`](crate::hub).
//!
//! A transport turns its own framing into whole messages and back and knows nothing of rooms. It checks the request that
//! opens a session with [`Opening::admit`], answers it in its own way, and hands the wire to [`drive()`], which does the rest:
//! first message, seat, deadlines, heartbeats, rate, draining and the last word.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::LINK;
use http::{HeaderValue, Response, StatusCode};

pub use crate::protocol::Transport;
use crate::protocol::{Code, Frame, Refusal, RoomName};

mod admit;
pub mod carry;
mod drive;
mod flood;
pub mod http1;
pub mod http2;
pub mod poll;
pub(crate) mod priority;
pub(crate) mod proxy;
pub mod quic;
pub mod tcp;
pub(crate) mod websocket;
pub(crate) mod webtransport;

pub use admit::Opening;
pub use drive::drive;
pub(crate) use http2::Http2Stream;

/// A session that a request has opened, or a connection that a handshake has, to be run to its end.
pub(crate) type Opened = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Does what answers a request, or a handshake, and runs what it opens. The one is large, and over long before the other; a task
/// keeps the largest of its futures, so that each has a box of its own.
fn run_opened(answer: impl Future<Output = Option<Opened>> + Send) -> impl Future<Output = ()> + Send {
    let answer = Box::pin(answer);
    async move {
        if let Some(opened) = answer.await {
            opened.await;
        }
    }
}

/// The connection that a request came on. Every transport puts one into the extensions of each ordinary request, so that
/// the router can tell where it was asked.
#[derive(Debug, Clone, Copy)]
pub struct Via {
    /// The protocol that carried the request.
    pub version: HttpVersion,
    /// The other side's address, as the PROXY protocol tells it where it is spoken.
    pub remote: SocketAddr,
    /// Our own address on that connection.
    pub local: SocketAddr,
    /// Whether the connection is encrypted; the plaintext listener's is not.
    pub encrypted: bool,
}

/// What the client of an answer will ask for next: paths of modules, to be put into the answer's extensions by the router.
/// HTTP/2 pushes them or hints at them, HTTP/3 hints.
#[derive(Debug, Clone)]
pub struct Preload {
    /// What to push or to hint at, the most needed first.
    pub paths: Arc<[String]>,
    /// Whether a browser goes to the page. Some libraries take an interim response for the final one.
    pub navigation: bool,
}

impl Preload {
    /// The interim response with the hints (RFC 8297).
    fn early_hints(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::EARLY_HINTS;
        let links =
            self.paths.iter().filter_map(|path| HeaderValue::try_from(format!("<{path}>; rel=modulepreload")).ok());
        response.headers_mut().extend(links.map(|link| (LINK, link)));
        response
    }
}

/// The HTTP versions that wigwag speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1, with or without TLS.
    H1,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/3 over QUIC.
    H3,
}

/// What a wire brings in.
#[derive(Debug)]
pub enum Received {
    /// One whole line or frame.
    Message(Bytes),
    /// One datagram: an ephemeral `message` by its nature.
    Datagram(Bytes),
    /// Something that is no message at all although the framing is intact (a binary WebSocket frame): costs its sender one
    /// `error`, and the session goes on.
    Unusable(Refusal),
}

/// Why a wire carries nothing more.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection is gone; nothing can be sent any more. The text is for the log.
    #[error("connection lost: {0}")]
    Lost(Cow<'static, str>),
    /// The client broke the framing or a limit of the wire. It can still be told, with `closed` and the close code.
    #[error("{}", .0.message)]
    Broken(Refusal),
}

/// How a session's transport ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The reason, or `None` after `leave`: WebSocket then closes with 1000, WebTransport with 0.
    pub code: Option<Code>,
    /// For a developer's eyes; a WebSocket cuts it to 123 bytes, WebTransport to 1024.
    pub reason: Cow<'static, str>,
}

/// One client's line to the server, whatever it is made of.
///
/// All methods are poll-based, so that both directions can be driven from one task and nothing is lost when a wait is given
/// up: progress lives in the wire, never in a future.
pub trait Wire: Send + Unpin + 'static {
    /// Waits for the next message. `Ok(None)` is the client's tidy end; what it still gets to read is undefined.
    ///
    /// Must also answer what the transport itself asks (WebSocket ping), and must keep at most one message of
    /// `limits.frame_bytes` in memory: what exceeds it is [`WireError::Broken`] with `tooLarge`.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Received>, WireError>>;

    /// Takes one message to be sent. Never waits: [`drive()`] feeds no more than a small batch before it flushes.
    fn feed(&mut self, frame: Frame) -> Result<(), WireError>;

    /// Hands everything that was fed to the transport below, which may exert back-pressure.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>>;

    /// Asks the client's transport for a sign of life that even a throttled page gives (WebSocket ping), to be sent with
    /// the next flush. Does nothing where the connection below looks after itself (QUIC).
    fn probe(&mut self) -> Result<(), WireError>;

    /// When the client was last heard of by this wire; `None` where the connection below reports its loss by itself.
    fn last_heard(&self) -> Option<Instant>;

    /// Says goodbye with the close code, after all that was fed, and waits until the client has had a chance to read it
    /// (its own Close frame, its FIN). The caller sets the deadline and drops the future when it has passed; dropping a
    /// wire must always free all that it holds and reset what is unfinished.
    fn close(self, close: Close) -> impl Future<Output = ()> + Send;
}

/// Where the path of a request leads.
pub(crate) fn room_of_path(path: &str) -> Option<Result<RoomName, Refusal>> {
    let name = path.strip_prefix(crate::protocol::ROOMS_PATH)?;
    if name.contains('/') {
        return None;
    }
    Some(RoomName::parse(name).map_err(|invalid| Refusal::bad_request(invalid.to_string())))
}
