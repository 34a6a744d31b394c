//! Configuration in two stages: [`Settings`] is what was typed (flags, environment, file; everything optional), [`Config`] is
//! what is meant (resolved, checked, complete: it cannot be wrong).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::protocol::Limits;

/// Everything the server needs to know, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses on which QUIC (UDP) and TLS (TCP) listen.
    pub listen: Vec<SocketAddr>,
    /// Addresses of the plaintext HTTP/1.1 listener; loopback only, empty switches it off.
    pub plain: Vec<SocketAddr>,
    /// Address of the admin listener (health, metrics); loopback only, `None` switches it off.
    pub admin: Option<SocketAddr>,
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
    /// Origins allowed beside the server's own, as browsers send them (`https://app.example.org`, or `null`).
    pub origins: Vec<String>,
    /// Protocols that are served; all of them unless some were switched off.
    pub protocols: Protocols,
    /// What a session may ask for.
    pub limits: Limits,
    /// Rooms at once.
    pub rooms: usize,
    /// What connections may ask for before and beside their sessions.
    pub connections: ConnectionLimits,
    /// Silence after which the server sends a `ping`; a client silent for two of them is gone.
    pub heartbeat: Duration,
    /// How long a seat is kept for a client that lost its transport.
    pub resume_window: Duration,
    /// How long shutting down may take.
    pub drain: Duration,
}

/// Where the server's certificate comes from.
#[derive(Debug, Clone)]
pub enum CertificateSource {
    /// The user's own PEM files, for QUIC and TCP alike.
    Files {
        /// Certificate chain, leaf first.
        cert: PathBuf,
        /// Private key.
        key: PathBuf,
        /// The server's own names beyond those that the certificate spells out (a host under its wildcard).
        names: Vec<String>,
    },
    /// Made here, for development.
    Development {
        /// Directory in which the CA and the certificates are kept.
        dir: PathBuf,
        /// Names and addresses beyond localhost, 127.0.0.1 and ::1.
        names: Vec<String>,
    },
}

/// Protocols that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    /// QUIC: HTTP/3 and WebTransport.
    pub h3: bool,
    /// HTTP/2 over TLS.
    pub h2: bool,
}

/// Limits of connections, whatever they carry.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Connections at once, TCP and QUIC together.
    pub connections: usize,
    /// Requests or streams at once on one HTTP/2 or HTTP/3 connection; a browser that finds it used up hangs.
    pub streams: u32,
    /// From TCP accept or QUIC Initial to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the handshake to the first complete request head, and for each further head once begun.
    pub request_head: Duration,
    /// An HTTP connection without a request in flight is closed after this time.
    pub idle: Duration,
    /// Half-open QUIC handshakes above which addresses are validated by Retry (RFC 9000, 8.1.2).
    pub retry_above: usize,
    /// Bytes of a request's header list.
    pub header_bytes: u32,
    /// Time a closing transport has to take its last words.
    pub close: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
            connections: 16_384,
            streams: 256,
            handshake: Duration::from_secs(5),
            request_head: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            retry_above: 256,
            header_bytes: 16 * 1024,
            close: Duration::from_secs(2),
        }
    }
}
