//! Counters, in the Prometheus text format.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::clients::Limit;
use crate::protocol::{Code, Transport};

/// Everything that is counted. Cheap to clone: all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    connections: Family<ConnectionLabels, Counter>,
    open_connections: Family<ConnectionLabels, Gauge>,
    sessions: Family<TransportLabels, Counter>,
    open_sessions: Family<TransportLabels, Gauge>,
    messages: Family<MessageLabels, Counter>,
    closes: Family<CloseLabels, Counter>,
    handshake_failures: Family<ConnectionLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    certificate_expiry: Family<ListenerLabels, Gauge>,
    reloads: Family<ReloadLabels, Counter>,
}

/// What a connection speaks, as counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    protocol: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransportLabels {
    transport: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    r#type: &'static str,
    transport: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CloseLabels {
    transport: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    what: &'static str,
    outcome: &'static str,
}

/// What a certificate is shown by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// TLS over TCP.
    Tls,
    /// QUIC.
    Quic,
}

/// What is read again while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// Certificates and their keys.
    Certificates,
    /// The keys by which tokens are verified.
    TokenKeys,
    /// The file of settings.
    Settings,
}

impl Reloaded {
    const ALL: [Reloaded; 3] = [Reloaded::Certificates, Reloaded::TokenKeys, Reloaded::Settings];

    fn labels(self, succeeded: bool) -> ReloadLabels {
        let what = match self {
            Reloaded::Certificates => "certificates",
            Reloaded::TokenKeys => "token-keys",
            Reloaded::Settings => "settings",
        };
        ReloadLabels { what, outcome: if succeeded { "done" } else { "failed" } }
    }
}

/// Why something was not let in, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// One client address has, or asks for, too much.
    Address(Limit),
    /// As many connections are open as may be.
    Full,
    /// Sessions open faster than they may.
    Pace,
    /// A client floods its connection with frames, streams or datagrams that carry nothing.
    Flood,
    /// A PROXY, `Forwarded` or `X-Forwarded-For` header is missing, comes from a stranger or cannot be understood.
    ProxyHeader,
}

impl Refused {
    fn name(self) -> &'static str {
        match self {
            Refused::Address(limit) => limit.name(),
            Refused::Full => "connections",
            Refused::Pace => "sessions-per-second",
            Refused::Flood => "flood",
            Refused::ProxyHeader => "proxy-header",
        }
    }
}

/// What a connection speaks, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionKind {
    /// QUIC.
    H3,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/1.1 over TLS.
    H1,
    /// HTTP/1.1 in plain text.
    Plain,
    /// TLS over TCP, before it is known what it carries.
    Tls,
}

impl ConnectionKind {
    fn labels(self) -> ConnectionLabels {
        let protocol = match self {
            ConnectionKind::H3 => "h3",
            ConnectionKind::H2 => "h2",
            ConnectionKind::H1 => "http/1.1",
            ConnectionKind::Plain => "plain http/1.1",
            ConnectionKind::Tls => "tls",
        };
        ConnectionLabels { protocol }
    }
}

/// Counts one kind of event for whoever knows of no other.
#[derive(Debug, Clone, Default)]
pub struct Tally(Option<Counter>);

impl Tally {
    /// It has happened once more.
    pub fn count(&self) {
        if let Some(counter) = &self.0 {
            counter.inc();
        }
    }
}

/// Counts one thing as open for as long as it lives.
#[derive(Debug)]
pub struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Open(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Metrics {
            registry: Arc::default(),
            connections: Family::default(),
            open_connections: Family::default(),
            sessions: Family::default(),
            open_sessions: Family::default(),
            messages: Family::default(),
            closes: Family::default(),
            handshake_failures: Family::default(),
            refusals: Family::default(),
            certificate_expiry: Family::default(),
            reloads: Family::default(),
        };
        let mut registry = Registry::with_prefix("wigwag");
        registry.register("connections", "Connections established since the start", metrics.connections.clone());
        registry.register("open_connections", "Connections open now", metrics.open_connections.clone());
        registry.register("sessions", "Transports on which a session was joined or resumed", metrics.sessions.clone());
        registry.register("open_sessions", "Transports with a session now", metrics.open_sessions.clone());
        registry.register("messages", "Messages received from clients", metrics.messages.clone());
        registry.register("closes", "Transports closed, by close reason", metrics.closes.clone());
        registry.register(
            "handshake_failures",
            "TLS and QUIC handshakes that failed or took too long",
            metrics.handshake_failures.clone(),
        );
        registry.register(
            "refusals",
            "Connections, sessions and messages refused for a limit, by its name",
            metrics.refusals.clone(),
        );
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the certificate in use expires, in seconds since 1970",
            metrics.certificate_expiry.clone(),
        );
        registry.register(
            "reloads",
            "Certificates, token keys and settings read again, by what became of it",
            metrics.reloads.clone(),
        );
        // An alert on what has never happened needs a zero to begin with.
        for what in Reloaded::ALL {
            for succeeded in [true, false] {
                drop(metrics.reloads.get_or_create(&what.labels(succeeded)));
            }
        }
        *metrics.registry.lock() = registry;
        metrics
    }
}

impl Metrics {
    /// A connection is established; it is counted as open until the guard drops.
    pub fn connection(&self, kind: ConnectionKind) -> Open {
        self.connections.get_or_create(&kind.labels()).inc();
        Open::new(&self.open_connections.get_or_create(&kind.labels()))
    }

    /// A handshake failed or took too long.
    pub fn handshake_failed(&self, kind: ConnectionKind) {
        self.handshake_failures.get_or_create(&kind.labels()).inc();
    }

    /// Something was refused for a limit.
    pub fn refused(&self, reason: Refused) {
        self.tally(reason).count();
    }

    /// The same for whoever refuses for that reason alone.
    pub fn tally(&self, reason: Refused) -> Tally {
        Tally(Some(self.refusals.get_or_create(&RefusalLabels { reason: reason.name() }).clone()))
    }

    /// A session was joined or resumed on `transport`; open until the guard drops.
    pub fn session(&self, transport: Transport) -> Open {
        let labels = TransportLabels { transport: transport.name() };
        self.sessions.get_or_create(&labels).inc();
        Open::new(&self.open_sessions.get_or_create(&labels))
    }

    /// A message of `type` arrived on `transport`. `type` must come from the closed set of the protocol.
    pub fn message(&self, transport: Transport, r#type: &'static str) {
        self.messages.get_or_create(&MessageLabels { r#type, transport: transport.name() }).inc();
    }

    /// A transport was closed by the server; `None` after `leave`.
    pub fn closed(&self, transport: Transport, code: Option<Code>) {
        let code = code.map_or("left", Code::name);
        self.closes.get_or_create(&CloseLabels { transport: transport.name(), code }).inc();
    }

    /// The certificate in use expires at this time, in seconds since 1970.
    pub fn certificate_expires(&self, listener: Listener, at: i64) {
        let listener = match listener {
            Listener::Tls => "tls",
            Listener::Quic => "quic",
        };
        self.certificate_expiry.get_or_create(&ListenerLabels { listener }).set(at);
    }

    /// Something was read again, or could not be.
    pub fn reloaded(&self, what: Reloaded, succeeded: bool) {
        self.reloads.get_or_create(&what.labels(succeeded)).inc();
    }

    /// All of it as text (OpenMetrics 1.0).
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}
