//! Configuration in two stages: [`Settings`] is what was typed (flags, environment, file; everything optional), [`Config`] is
//! what is meant (resolved, checked, complete: it cannot be wrong).

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

mod file;
mod resolve;
mod settings;
mod units;

pub use settings::{LogFormat, RELOADED, Settings, Sources};
pub use units::{Address, CandidateKind, HeaderName, Listen, Network, Rate, Size, Span};

use crate::auth;
use crate::clients;
use crate::cluster;
use crate::ice;
use crate::protocol::{Limits, WaitingRoom};
use crate::secret::SecretSource;
use crate::timeline;

/// Everything the server needs to know, checked. `Config::default()` is what a start without any setting means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Addresses on which QUIC (UDP) and TLS (TCP) listen.
    pub listen: Vec<SocketAddr>,
    /// Addresses of the plaintext HTTP/1.1 listener; empty switches it off. Beyond loopback only for a proxy that ends TLS.
    pub plain: Vec<SocketAddr>,
    /// Address of the admin listener (health, metrics, rooms); `None` switches it off. Beyond loopback only on express wish.
    pub admin: Option<SocketAddr>,
    /// What who asks the admin listener for more than health must show (RFC 6750); `None` where reaching it is enough.
    pub admin_token: Option<SecretSource>,
    /// Whether the admin listener tells clients' whole addresses, and not only of what kind they are.
    pub admin_addresses: bool,
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
    /// Origins allowed beside the server's own, as browsers send them (`https://app.example.org`, or `null`), lower case.
    pub origins: Vec<String>,
    /// What tokens must be like; `None` lets everybody into every room.
    pub tokens: Option<auth::Policy>,
    /// STUN and TURN servers that clients are told of.
    pub ice: ice::Policy,
    /// Directory of the operator's own page and files, in place of the embedded page.
    pub web: Option<PathBuf>,
    /// Protocols that are served; all of them unless some were switched off.
    pub protocols: Protocols,
    /// What a session may ask for.
    pub limits: Limits,
    /// Rooms at once.
    pub rooms: usize,
    /// What connections may ask for before and beside their sessions.
    pub connections: ConnectionLimits,
    /// Who is believed about clients' addresses, and what one address may ask for.
    pub clients: clients::Policy,
    /// Silence after which the server sends a `ping`; a client silent for two of them is gone.
    pub heartbeat: Duration,
    /// How long a seat is kept for a client that lost its transport.
    pub resume_window: Duration,
    /// Who has to wait to be admitted.
    pub waiting: WaitingRoom,
    /// What is recorded of each room, for the admin listener to tell.
    pub timelines: timeline::Policy,
    /// The operator's application, where it is to be told of rooms.
    pub webhook: Option<Webhook>,
    /// The collector of traces, where there is one.
    pub otlp: Option<Otlp>,
    /// How long shutting down may take.
    pub drain: Duration,
    /// The other nodes that rooms are shared with; `None` where there is only this one.
    pub cluster: Option<cluster::Policy>,
}

impl Default for Config {
    fn default() -> Self {
        let loopback =
            |port| vec![SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
        Config {
            listen: loopback(4433),
            plain: loopback(8080),
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 9433))),
            admin_token: None,
            admin_addresses: false,
            certificate: CertificateSource::Development { dir: PathBuf::from("certs"), names: Vec::new() },
            origins: Vec::new(),
            tokens: None,
            ice: ice::Policy { lifetime: Duration::from_secs(3600), ..ice::Policy::default() },
            web: None,
            protocols: Protocols { h3: true, h2: true, tls12: false },
            limits: Limits::default(),
            rooms: 65_536,
            connections: ConnectionLimits::default(),
            clients: clients::Policy::default(),
            heartbeat: Duration::from_secs(10),
            resume_window: Duration::from_secs(30),
            waiting: WaitingRoom::default(),
            timelines: timeline::Policy::default(),
            webhook: None,
            otlp: None,
            drain: Duration::from_secs(10),
            cluster: None,
        }
    }
}

/// Where the operator's application is told of rooms, and how it knows that it is us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The application's URL: `https`, or `http` on this machine.
    pub url: Uri,
    /// Signs each request.
    pub secret: SecretSource,
    /// How many events wait to be told.
    pub queue: usize,
    /// A CA that is trusted beside the system's.
    pub ca: Option<PathBuf>,
}

/// Why a program without the feature `otlp` sends no traces.
pub const NO_TRACES: &str =
    "this program was built without OpenTelemetry; build it with --features otlp, or leave it out";

/// Where traces are sent, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// The collector's URL, to which `/v1/traces` is added.
    pub endpoint: Uri,
    /// Headers of each request, as a list like that of `OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: Option<SecretSource>,
    /// A CA that is trusted beside the system's.
    pub ca: Option<PathBuf>,
    /// One in so many is recorded that belongs to no trace of somebody else's.
    pub one_in: u32,
}

/// Where the server's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Issued by an authority that is asked by ACME, for QUIC and TCP alike.
    Acme(Acme),
}

/// What is ordered by ACME (RFC 8555), and of whom. The authority's terms of service have been agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The server's names, all in one certificate; at least one, no wildcards.
    pub domains: Vec<String>,
    /// The authority's directory, an `https` URL.
    pub directory: Uri,
    /// URLs by which the authority may reach the operator, such as `mailto:ops@example.org`.
    pub contact: Vec<String>,
    /// A CA that the directory's own certificate may be signed by, beside the system's.
    pub ca: Option<PathBuf>,
    /// Where accounts and certificates are kept.
    pub dir: PathBuf,
}

impl Acme {
    /// What is kept of this authority alone: another one, or another of its directories, knows nothing of that.
    pub fn authority_dir(&self) -> PathBuf {
        let place = format!("{}{}", self.directory.authority().map_or("", |name| name.as_str()), self.directory.path());
        let kept = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
        self.dir.join(place.chars().map(kept).collect::<String>())
    }
}

/// Protocols that can be switched off, and one that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    /// QUIC: HTTP/3 and WebTransport.
    pub h3: bool,
    /// HTTP/2 over TLS.
    pub h2: bool,
    /// TLS 1.2 beside 1.3, over TCP.
    pub tls12: bool,
}

/// Limits of connections, whatever they carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at once, TCP and QUIC together.
    pub connections: usize,
    /// Of those, TCP connections, each of which is an open file.
    pub tcp_connections: usize,
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
    /// Sessions that may open in a second, or move to another transport, after a first burst of as many.
    pub sessions_per_second: u32,
    /// Bytes of a request's header list.
    pub header_bytes: u32,
    /// Time a closing transport has to take its last words.
    pub close: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
            connections: 16_384,
            tcp_connections: 16_384,
            streams: 256,
            handshake: Duration::from_secs(5),
            request_head: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            retry_above: 256,
            sessions_per_second: 1000,
            header_bytes: 16 * 1024,
            close: Duration::from_secs(2),
        }
    }
}
