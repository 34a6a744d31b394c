//! A native client: the protocol's other side, over every transport. Used by the command line, the benchmarks and the tests.
//!
//! [`Connection`] is one transport without a memory: it sends and receives whole messages and tells how it was closed.

use ::http::HeaderMap;

use crate::protocol::{ROOMS_PATH, RoomName};
use crate::transport::Transport;

mod datagrams;
mod download;
pub mod http;
mod poll;
pub mod websocket;
mod websocket_h3;
pub mod webtransport;

pub use download::Download;
pub use http::{Endpoint, Error, Http1, Http2};
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
    /// Event stream over HTTP/1.1.
    EventStream,
    /// Long poll over HTTP/1.1.
    LongPoll,
}

impl Via {
    /// All of them, best first.
    pub const ALL: [Via; 6] =
        [Via::WebTransport, Via::WebSocketH3, Via::WebSocketH2, Via::WebSocketH1, Via::EventStream, Via::LongPoll];

    /// The transport as the server names it.
    pub fn transport(self) -> Transport {
        match self {
            Via::WebTransport => Transport::WebTransport,
            Via::WebSocketH3 => Transport::WebSocketH3,
            Via::WebSocketH2 => Transport::WebSocketH2,
            Via::WebSocketH1 => Transport::WebSocketH1,
            Via::EventStream => Transport::EventStream,
            Via::LongPoll => Transport::LongPoll,
        }
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

/// One transport to a room, without a session of its own: the caller sends `join` or `resume`.
pub struct Connection {
    wire: ClientWire,
}

enum ClientWire {
    WebTransport(Box<webtransport::WebTransport>),
    WebSocket(Box<websocket::WebSocket>),
    Polling(Box<poll::Polling>),
}

impl ClientWire {
    async fn open(
        endpoint: &Endpoint,
        path: &str,
        via: Via,
        trust: &Trust,
        headers: &HeaderMap,
    ) -> Result<Self, Error> {
        let socket = match via {
            Via::WebTransport => {
                let session = Http3::connect(endpoint, trust).await?.webtransport(path, headers).await?;
                return Ok(ClientWire::WebTransport(Box::new(session)));
            }
            Via::WebSocketH3 => websocket_h3::open(endpoint, path, trust, headers).await?,
            Via::WebSocketH2 => Http2::connect(endpoint, &trust.tls).await?.websocket(path, headers).await?,
            Via::WebSocketH1 => Http1::connect(endpoint, &trust.tls).await?.websocket(path, headers).await?,
            Via::EventStream | Via::LongPoll => {
                let is_stream = via == Via::EventStream;
                let polling = poll::Polling::new(endpoint, path.to_owned(), is_stream, trust, headers);
                return Ok(ClientWire::Polling(Box::new(polling)));
            }
        };
        Ok(ClientWire::WebSocket(Box::new(socket)))
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
        let path = format!("{ROOMS_PATH}{room}");
        // Handshakes are large, and what waits for them should not be.
        let wire = Box::pin(ClientWire::open(endpoint, &path, via, trust, headers)).await?;
        Ok(Connection { wire })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// If the transport is closed.
    pub async fn send(&mut self, message: &str) -> Result<(), Error> {
        match &mut self.wire {
            ClientWire::WebTransport(session) => Ok(session.send(message).await?),
            ClientWire::WebSocket(socket) => Ok(socket.send(message).await?),
            ClientWire::Polling(polling) => polling.send(message).await,
        }
    }

    /// Waits for the next message, or the end. Cancel safe.
    ///
    /// # Errors
    /// If the connection is lost without a close.
    pub async fn recv(&mut self) -> Result<Event, Error> {
        match &mut self.wire {
            ClientWire::WebTransport(session) => Ok(match session.recv().await? {
                webtransport::Incoming::Message(text) => Event::Message(String::from_utf8_lossy(&text).into_owned()),
                webtransport::Incoming::Datagram(text) => Event::Datagram(String::from_utf8_lossy(&text).into_owned()),
                webtransport::Incoming::Closed { code, reason } => Event::Closed { code: Some(code), reason },
            }),
            ClientWire::Polling(polling) => polling.recv().await,
            ClientWire::WebSocket(socket) => Ok(match socket.recv().await? {
                websocket::Incoming::Message(text) => Event::Message(String::from_utf8_lossy(&text).into_owned()),
                websocket::Incoming::Closed { code, reason } => Event::Closed { code: Some(code.into()), reason },
            }),
        }
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
