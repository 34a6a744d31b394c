//! A native client: the protocol's other side, over every transport. Used by the command line, the benchmarks and the tests.
//!
//! [`Session`] is one peer's place in one room, whatever becomes of its connections: what an application wants. [`Connection`] is one
//! transport without a memory: it sends and receives whole messages and tells how it was closed.

use std::future::poll_fn;
use std::path::Path;
use std::task::{Context, Poll, ready};

use ::http::HeaderMap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::Instant;

use self::requests::{Requests, Version};
use crate::protocol::{ROOMS_PATH, RoomName};
use crate::transport::Transport;

mod backoff;
mod closing;
mod datagrams;
mod discovery;
mod download;
mod driver;
mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod http;
pub mod message;
mod poll;
mod race;
mod renewal;
mod request;
mod requests;
mod roster;
mod search;
pub mod seat;
pub mod session;
pub mod websocket;
mod websocket_h2;
mod websocket_h3;
pub mod webtransport;

pub use download::Download;
pub use http::{Endpoint, Error, Http1, Http2};
pub use message::Payload;
pub use request::Request;
pub use roster::Roster;
pub use session::Session;
pub use webtransport::Http3;

/// How to reach a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// WebTransport over HTTP/3.
    WebTransport,
    /// WebSocket over HTTP/3.
    WebSocketH3,
    /// WebSocket over HTTP/2.
    WebSocketH2,
    /// WebSocket over HTTP/1.1.
    WebSocketH1,
    /// Event stream over HTTP/3.
    EventStreamH3,
    /// Event stream over HTTP/2.
    EventStreamH2,
    /// Event stream over HTTP/1.1.
    EventStreamH1,
    /// Long poll over HTTP/3.
    LongPollH3,
    /// Long poll over HTTP/2.
    LongPollH2,
    /// Long poll over HTTP/1.1.
    LongPollH1,
}

impl Via {
    /// All of them, best first.
    pub const ALL: [Via; 10] = [
        Via::WebTransport,
        Via::WebSocketH3,
        Via::WebSocketH2,
        Via::WebSocketH1,
        Via::EventStreamH3,
        Via::EventStreamH2,
        Via::EventStreamH1,
        Via::LongPollH3,
        Via::LongPollH2,
        Via::LongPollH1,
    ];

    /// The transport as the server names it.
    pub fn transport(self) -> Transport {
        match self {
            Via::WebTransport => Transport::WebTransport,
            Via::WebSocketH3 => Transport::WebSocketH3,
            Via::WebSocketH2 => Transport::WebSocketH2,
            Via::WebSocketH1 => Transport::WebSocketH1,
            Via::EventStreamH3 | Via::EventStreamH2 | Via::EventStreamH1 => Transport::EventStream,
            Via::LongPollH3 | Via::LongPollH2 | Via::LongPollH1 => Transport::LongPoll,
        }
    }

    /// Its name, with the version of HTTP where there are several: `long-poll-h2`.
    pub fn name(self) -> &'static str {
        match self {
            Via::WebTransport | Via::WebSocketH3 | Via::WebSocketH2 | Via::WebSocketH1 => self.transport().name(),
            Via::EventStreamH3 => "event-stream-h3",
            Via::EventStreamH2 => "event-stream-h2",
            Via::EventStreamH1 => "event-stream-h1",
            Via::LongPollH3 => "long-poll-h3",
            Via::LongPollH2 => "long-poll-h2",
            Via::LongPollH1 => "long-poll-h1",
        }
    }

    /// Whether messages come down as the events of one long answer.
    pub fn is_event_stream(self) -> bool {
        self.transport() == Transport::EventStream
    }

    /// Whether messages come down in answers to one poll after the other.
    pub fn is_long_poll(self) -> bool {
        self.transport() == Transport::LongPoll
    }
}

/// What a transport brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// One message.
    Message(String),
    /// One message that came as a datagram.
    Datagram(String),
    /// The server closed the transport; nothing follows.
    Closed {
        /// Its close code, where the transport carried one.
        code: Option<u32>,
        /// What a developer may want to read.
        reason: String,
    },
}

/// What a client trusts, and how it speaks TLS.
#[derive(Debug, Clone)]
pub struct Trust {
    /// For TLS over TCP, and for QUIC where no hashes are given.
    pub tls: rustls::ClientConfig,
    /// SHA-256 of the certificates that QUIC may show, as discovery tells them.
    pub hashes: Vec<[u8; 32]>,
}

impl Trust {
    /// Trusts the authorities in `roots`.
    ///
    /// # Errors
    /// If the provider cannot do TLS 1.3.
    pub fn new(roots: rustls::RootCertStore, hashes: Vec<[u8; 32]>) -> Result<Self, rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Trust { tls, hashes })
    }
}

/// The system's authorities, and the one in the file `ca`.
///
/// # Errors
/// The file, and why it is no certificate of an authority.
pub fn authorities(ca: Option<&Path>) -> Result<rustls::RootCertStore, String> {
    let mut roots = rustls::RootCertStore::empty();
    // Certificates of the system's that cannot be read are as good as not there.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(ca) = ca {
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", ca.display());
        let certificate = CertificateDer::from_pem_file(ca).map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    Ok(roots)
}

/// With so much on its way already, what may get lost is not queued behind it.
const QUEUED_BYTES: usize = 64 * 1024;

/// One transport to a room, without a session of its own: the caller sends `join` or `resume`.
pub struct Connection {
    wire: ClientWire,
    /// Bytes queued since all was sent last.
    queued: usize,
}

enum ClientWire {
    WebTransport(Box<webtransport::WebTransport>),
    WebSocket(Box<websocket::WebSocket>),
    Polling(Box<poll::Polling>),
}

impl ClientWire {
    async fn begin(
        endpoint: &Endpoint,
        path: &str,
        via: Via,
        trust: &Trust,
        headers: &HeaderMap,
    ) -> Result<Self, Error> {
        let version = match via {
            Via::WebTransport => {
                let session = Http3::connect(endpoint, trust).await?.begin_webtransport(path, headers).await?;
                return Ok(ClientWire::WebTransport(Box::new(session)));
            }
            Via::WebSocketH3 => return Ok(websocket_h3::begin(endpoint, path, trust, headers).await?.into()),
            Via::WebSocketH2 => {
                return Ok(Http2::connect(endpoint, &trust.tls).await?.begin_websocket(path, headers).await?.into());
            }
            Via::WebSocketH1 => {
                return Ok(Http1::connect(endpoint, &trust.tls).await?.websocket(path, headers).await?.into());
            }
            Via::EventStreamH3 | Via::LongPollH3 => Version::Http3,
            Via::EventStreamH2 | Via::LongPollH2 => Version::Http2,
            Via::EventStreamH1 | Via::LongPollH1 => Version::Http1,
        };
        let requests = Requests::new(endpoint, trust, version);
        let polling = poll::Polling::new(requests, path.to_owned(), via.is_event_stream(), headers);
        Ok(ClientWire::Polling(Box::new(polling)))
    }
}

impl From<websocket::WebSocket> for ClientWire {
    fn from(socket: websocket::WebSocket) -> Self {
        ClientWire::WebSocket(Box::new(socket))
    }
}

impl Connection {
    /// Opens a transport to `room`. `endpoint` is where `via` is served; `headers` go along (`Origin`, `Authorization`).
    ///
    /// # Errors
    /// Whatever kept it from opening; [`Error::Refused`] has the server's answer.
    pub async fn open(
        endpoint: &Endpoint,
        room: &RoomName,
        via: Via,
        trust: &Trust,
        headers: &HeaderMap,
    ) -> Result<Self, Error> {
        let mut connection = Connection::begin(endpoint, room, via, trust, headers).await?;
        poll_fn(|cx| connection.poll_opened(cx)).await?;
        Ok(connection)
    }

    /// Asks for a transport to `room`. What is sent on it goes along at once, without waiting for the server's answer, which saves a
    /// round trip; what it refuses to open is told by [`recv`](Self::recv). HTTP/1.1 has to wait (RFC 6455, 4.1), as what is said
    /// on a connection that is not upgraded would be taken for the next request.
    ///
    /// # Errors
    /// Whatever kept it from being asked for; over HTTP/1.1 also [`Error::Refused`].
    pub async fn begin(
        endpoint: &Endpoint,
        room: &RoomName,
        via: Via,
        trust: &Trust,
        headers: &HeaderMap,
    ) -> Result<Self, Error> {
        let path = format!("{ROOMS_PATH}{room}");
        // Handshakes are large, and what waits for them should not be.
        let wire = Box::pin(ClientWire::begin(endpoint, &path, via, trust, headers)).await?;
        Ok(Connection { wire, queued: 0 })
    }

    /// Waits until the server has accepted the transport.
    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.wire {
            ClientWire::WebTransport(session) => session.poll_opened(cx),
            ClientWire::WebSocket(socket) => socket.poll_opened(cx),
            // The first message opens it.
            ClientWire::Polling(_) => Poll::Ready(Ok(())),
        }
    }

    /// Sends one message. Cancel safe: a message whose sending was given up is queued and goes out before the next.
    ///
    /// # Errors
    /// If the transport is closed.
    pub async fn send(&mut self, message: &str) -> Result<(), Error> {
        self.feed(message)?;
        self.flush().await
    }

    /// Sends what was queued. Cancel safe.
    ///
    /// # Errors
    /// If the transport is closed.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Waits for the next message, or the end. Cancel safe.
    ///
    /// # Errors
    /// If the connection is lost without a close; [`Error::Refused`] if the server does not open the transport.
    pub async fn recv(&mut self) -> Result<Event, Error> {
        let event = poll_fn(|cx| self.poll_recv(cx, false)).await?;
        if let (ClientWire::WebTransport(session), Event::Closed { .. }) = (&mut self.wire, &event) {
            session.answer_close().await;
        }
        Ok(event)
    }

    /// Closes the transport tidily, which leaves the seat as it is: away.
    ///
    /// # Errors
    /// If the connection ends before.
    pub async fn close(mut self) -> Result<(), Error> {
        if matches!(self.wire, ClientWire::Polling(_)) {
            // There is nothing to close, and no order between what would still be sent and what another transport sends.
            return Ok(());
        }
        poll_fn(|cx| self.poll_flush(cx)).await?;
        match self.wire {
            ClientWire::WebTransport(session) => Ok(session.close(0, "").await?),
            ClientWire::WebSocket(socket) => Ok(socket.close().await?),
            ClientWire::Polling(_) => Ok(()),
        }
    }

    /// Queues one message.
    ///
    /// # Errors
    /// If the transport is closed.
    pub fn feed(&mut self, message: &str) -> Result<(), Error> {
        self.queued += message.len();
        match &mut self.wire {
            ClientWire::WebTransport(session) => session.feed(message),
            ClientWire::WebSocket(socket) => socket.feed(message)?,
            ClientWire::Polling(polling) => polling.feed(message),
        }
        Ok(())
    }

    /// Queues one message that may get lost; where there are datagrams it goes by one at once, and where much is queued it is
    /// dropped.
    fn feed_ephemeral(&mut self, message: &str) -> Result<(), Error> {
        match &mut self.wire {
            ClientWire::WebTransport(session) if session.send_datagram(message).is_ok() => Ok(()),
            _ if self.queued > QUEUED_BYTES => Ok(()),
            _ => self.feed(message),
        }
    }

    /// Sends what was queued.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = match &mut self.wire {
            ClientWire::WebTransport(session) => session.poll_flush(cx).map_err(Error::Io),
            ClientWire::WebSocket(socket) => socket.poll_flush(cx).map_err(Error::Io),
            ClientWire::Polling(polling) => polling.poll_flush(cx),
        };
        if flushed.is_ready() {
            self.queued = 0;
        }
        flushed
    }

    /// Sends what was queued and, if `reads`, waits for the next message; or for the end.
    fn poll(&mut self, cx: &mut Context<'_>, reads: bool) -> Poll<Result<Event, Error>> {
        let flushed = self.poll_flush(cx);
        // What has been said before the transport broke may tell why.
        if reads && let Poll::Ready(received) = self.poll_recv(cx, true) {
            return Poll::Ready(received);
        }
        match flushed {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// When something last came down that need not have been a message: an empty answer to a poll, say.
    fn heard(&self) -> Option<Instant> {
        match &self.wire {
            ClientWire::Polling(polling) => polling.heard(),
            ClientWire::WebTransport(_) | ClientWire::WebSocket(_) => None,
        }
    }

    /// Waits for the next message; `all` of them, or those that the caller of [`recv`](Self::recv) has asked for.
    fn poll_recv(&mut self, cx: &mut Context<'_>, all: bool) -> Poll<Result<Event, Error>> {
        ready!(self.poll_opened(cx))?;
        Poll::Ready(Ok(match &mut self.wire {
            ClientWire::WebTransport(session) => match ready!(session.poll_recv(cx))? {
                webtransport::Incoming::Message(text) => Event::Message(String::from_utf8_lossy(&text).into_owned()),
                webtransport::Incoming::Datagram(text) => Event::Datagram(String::from_utf8_lossy(&text).into_owned()),
                webtransport::Incoming::Closed { code, reason } => Event::Closed { code: Some(code), reason },
            },
            ClientWire::WebSocket(socket) => match ready!(socket.poll_recv(cx))? {
                websocket::Incoming::Message(text) => Event::Message(String::from_utf8_lossy(&text).into_owned()),
                websocket::Incoming::Closed { code, reason } => Event::Closed { code: Some(code.into()), reason },
            },
            ClientWire::Polling(polling) => return polling.poll_recv(cx, all),
        }))
    }
}

/// The hashes of the WebTransport certificates in a discovery document.
pub fn certificate_hashes(discovery: &serde_json::Value) -> Vec<[u8; 32]> {
    use base64::Engine as _;
    let transports = discovery["transports"].as_array().into_iter().flatten();
    let hashes = transports.filter_map(|transport| transport["certificateHashes"].as_array()).flatten();
    let values = hashes.filter(|hash| hash["algorithm"] == "sha-256").filter_map(|hash| hash["value"].as_str());
    values.filter_map(|value| base64::engine::general_purpose::STANDARD.decode(value).ok()?.try_into().ok()).collect()
}
