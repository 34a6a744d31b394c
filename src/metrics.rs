//! What is counted and measured, for Prometheus.
//!
//! Whoever adds a metric also adds a test that it moves when its cause happens (`tests/metrics.rs`), and says in its help what is
//! counted when.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

mod cluster;
mod process;
mod text;
mod traffic;

use crate::clients::Limit;
use crate::cluster::Cluster;
use crate::protocol::{CandidateType, Code, Milestone, Reached, Transport};
pub use traffic::Traffic;

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
    certificate_start: Family<ListenerLabels, Gauge>,
    certificate_expiry: Family<ListenerLabels, Gauge>,
    reloads: Family<ReloadLabels, Counter>,
    last_reloads: Family<ReloadedLabels, Gauge>,
    handshakes: Timings<ConnectionLabels>,
    entries: [[Counter; 3]; Transport::ALL.len()],
    joining: [Histogram; Transport::ALL.len()],
    refused_openings: Family<CloseLabels, Counter>,
    relaying: [Histogram; Transport::ALL.len()],
    milestones: Family<MilestoneLabels, Counter>,
    first_media: Timings<PathLabels>,
    quic_rtt: Histogram,
    quic_sent: Counter,
    quic_lost: Counter,
    rooms: Gauge,
    seats: Family<SeatLabels, Gauge>,
    queued_messages: Gauge,
    queued_bytes: Gauge,
    ended_rooms: Gauge,
    timeline_bytes: Gauge,
    webhook_events: Family<OutcomeLabels, Counter>,
    spans: Family<OutcomeLabels, Counter>,
    draining: Gauge,
}

/// Times by some label.
type Timings<L> = Family<L, Histogram, fn() -> Histogram>;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadedLabels {
    what: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EntryLabels {
    transport: &'static str,
    how: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MilestoneLabels {
    milestone: &'static str,
    candidate_type: &'static str,
}

/// How signaling went, and then media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PathLabels {
    transport: &'static str,
    candidate_type: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SeatLabels {
    state: &'static str,
}

/// How a session comes to be on a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A new seat, or one that a join key found again.
    Join,
    /// A seat whose transport was lost.
    Resume,
    /// A seat that another transport had until then.
    Move,
}

impl Entry {
    const ALL: [Entry; 3] = [Entry::Join, Entry::Resume, Entry::Move];

    /// Its name in labels.
    pub fn name(self) -> &'static str {
        match self {
            Entry::Join => "join",
            Entry::Resume => "resume",
            Entry::Move => "move",
        }
    }
}

/// How a transport came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Without a word: nobody was left to tell.
    Lost,
    /// Tidily, by the client; its seat is kept.
    ByClient,
    /// After the client's `leave`.
    Left,
    /// By the server, which said why.
    Closed(Code),
}

impl Ended {
    /// Its name in labels.
    pub fn name(self) -> &'static str {
        match self {
            Ended::Lost => "lost",
            Ended::ByClient => "client",
            Ended::Left => "left",
            Ended::Closed(code) => code.name(),
        }
    }
}

/// Who and what is there at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Population {
    /// Rooms.
    pub rooms: u64,
    /// Members with a transport, or between two polls.
    pub here: u64,
    /// Members without one, whose seat is kept.
    pub away: u64,
    /// Who waits to be admitted.
    pub waiting: u64,
    /// Messages that wait for their clients.
    pub queued_messages: u64,
    /// Bytes of them.
    pub queued_bytes: u64,
    /// Seats by the transport that serves them, or whose next poll they wait for, in the order of [`Transport::ALL`]. Who waits to be
    /// admitted is among them.
    pub sessions: [u64; Transport::ALL.len()],
    /// Rooms that have ended and can still be asked about.
    pub ended_rooms: u64,
    /// Bytes of what is recorded of rooms.
    pub timeline_bytes: u64,
}

/// Seconds, for what is over within a machine: a fifth of a scheduler's turn, and up to what a user notices.
fn within_the_server() -> Histogram {
    Histogram::new([50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0])
}

/// Seconds, for what takes round trips.
fn over_the_network() -> Histogram {
    Histogram::new([1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0, 10.0])
}

/// Seconds, for what somebody sits and waits for.
fn before_a_user() -> Histogram {
    Histogram::new([0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0])
}

/// A type of candidates as a label; `unknown` where the client does not tell it.
fn candidate_label(candidate: Option<CandidateType>) -> &'static str {
    candidate.map_or("unknown", CandidateType::name)
}

/// Metrics by their labels, none of which is ever new.
#[derive(Debug)]
struct ByLabel<L, M>(Vec<(L, M)>);

fn by_transport(histograms: &[Histogram; Transport::ALL.len()]) -> ByLabel<TransportLabels, Histogram> {
    let labels = Transport::ALL.iter().map(|transport| TransportLabels { transport: transport.name() });
    ByLabel(labels.zip(histograms.iter().cloned()).collect())
}

impl<L: EncodeLabelSet, M: EncodeMetric + TypedMetric> EncodeMetric for ByLabel<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.iter().try_for_each(|(labels, metric)| metric.encode(encoder.encode_family(labels)?))
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
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
    /// The secret that is shared with TURN servers.
    TurnSecret,
    /// A certificate that is ordered by ACME.
    Acme,
}

impl Reloaded {
    const ALL: [Reloaded; 5] =
        [Reloaded::Certificates, Reloaded::TokenKeys, Reloaded::Settings, Reloaded::TurnSecret, Reloaded::Acme];

    fn label(self) -> ReloadedLabels {
        let what = match self {
            Reloaded::Certificates => "certificates",
            Reloaded::TokenKeys => "token-keys",
            Reloaded::Settings => "settings",
            Reloaded::TurnSecret => "turn-secret",
            Reloaded::Acme => "acme",
        };
        ReloadedLabels { what }
    }

    fn labels(self, succeeded: bool) -> ReloadLabels {
        ReloadLabels { what: self.label().what, outcome: if succeeded { "done" } else { "failed" } }
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
    fn all() -> impl Iterator<Item = Refused> {
        let others = [Refused::Full, Refused::Pace, Refused::Flood, Refused::ProxyHeader];
        Limit::ALL.into_iter().map(Refused::Address).chain(others)
    }

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

/// Counts what became of events for the webhook, or of spans.
#[derive(Debug, Clone)]
pub struct Told(Counter);

impl Told {
    /// So many more.
    pub fn count(&self, events: u64) {
        self.0.inc_by(events);
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
            certificate_start: Family::default(),
            certificate_expiry: Family::default(),
            reloads: Family::default(),
            last_reloads: Family::default(),
            handshakes: Family::new_with_constructor(over_the_network),
            entries: Default::default(),
            joining: std::array::from_fn(|_| over_the_network()),
            refused_openings: Family::default(),
            relaying: std::array::from_fn(|_| within_the_server()),
            milestones: Family::default(),
            first_media: Family::new_with_constructor(before_a_user),
            quic_rtt: over_the_network(),
            quic_sent: Counter::default(),
            quic_lost: Counter::default(),
            rooms: Gauge::default(),
            seats: Family::default(),
            queued_messages: Gauge::default(),
            queued_bytes: Gauge::default(),
            ended_rooms: Gauge::default(),
            timeline_bytes: Gauge::default(),
            webhook_events: Family::default(),
            spans: Family::default(),
            draining: Gauge::default(),
        };
        // An alert on what has never happened needs a zero to begin with.
        for what in Reloaded::ALL {
            for succeeded in [true, false] {
                drop(metrics.reloads.get_or_create(&what.labels(succeeded)));
            }
            // Or the server would not have started.
            metrics.last_reloads.get_or_create(&what.label()).set(1);
        }
        for reason in Refused::all() {
            drop(metrics.tally(reason));
        }
        for outcome in ["delivered", "failed", "dropped"] {
            drop(metrics.told(outcome));
        }
        for outcome in ["sent", "failed", "dropped"] {
            drop(metrics.spans(outcome));
        }
        for milestone in Reached::ALL {
            for candidate in [None].into_iter().chain(CandidateType::ALL.map(Some)) {
                drop(metrics.milestone(milestone, candidate));
            }
        }
        let mut registry = Registry::default();
        metrics.register(registry.sub_registry_with_prefix("wigwag"));
        registry.register_collector(Box::new(process::Process::default()));
        *metrics.registry.lock() = registry;
        metrics
    }
}

impl Metrics {
    /// Those of a server that may be a node of a cluster.
    pub fn with(cluster: Option<Arc<Cluster>>) -> Self {
        let metrics = Metrics::default();
        if let Some(cluster) = cluster {
            metrics.registry.lock().register_collector(Box::new(cluster::Collected(cluster)));
        }
        metrics
    }

    fn register(&self, to: &mut Registry) {
        to.register("build", "The program that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        to.register("draining", "1 while the server sends its sessions elsewhere", self.draining.clone());
        self.register_connections(to);
        self.register_sessions(to);
        to.register(
            "refusals",
            "Connections, sessions and messages refused for a limit, by its name",
            self.refusals.clone(),
        );
        to.register(
            "certificate_not_before_timestamp_seconds",
            "Since when the certificate in use is valid, in seconds since 1970",
            self.certificate_start.clone(),
        );
        to.register(
            "certificate_expiry_timestamp_seconds",
            "When the certificate in use expires, in seconds since 1970",
            self.certificate_expiry.clone(),
        );
        to.register(
            "reloads",
            "Certificates, token keys, settings and TURN's secret read again, certificates ordered by ACME, by what became of it",
            self.reloads.clone(),
        );
        to.register(
            "last_reload_successful",
            "1 if what was read or ordered last, at the start or since, could be used; 0 while what was in use before stays",
            self.last_reloads.clone(),
        );
    }

    fn entries_by_label(&self) -> ByLabel<EntryLabels, Counter> {
        let mut all = Vec::new();
        for (transport, entries) in Transport::ALL.iter().zip(&self.entries) {
            for (how, counter) in Entry::ALL.iter().zip(entries) {
                all.push((EntryLabels { transport: transport.name(), how: how.name() }, counter.clone()));
            }
        }
        ByLabel(all)
    }

    fn register_connections(&self, to: &mut Registry) {
        to.register("connections", "Connections established since the start", self.connections.clone());
        to.register("open_connections", "Connections open now", self.open_connections.clone());
        to.register(
            "handshake_failures",
            "TLS and QUIC handshakes that failed or took too long",
            self.handshake_failures.clone(),
        );
        to.register(
            "handshake_duration_seconds",
            "From the first byte to the end of TLS and QUIC handshakes that succeeded",
            self.handshakes.clone(),
        );
        let rtt = "Round trips of QUIC connections, as each one's packets tell: every ten seconds and at its end";
        to.register("quic_rtt_seconds", rtt, self.quic_rtt.clone());
        let counted = "counted every ten seconds and at each connection's end";
        to.register("quic_sent_packets", format!("QUIC packets sent, {counted}"), self.quic_sent.clone());
        to.register("quic_lost_packets", format!("QUIC packets sent and lost, {counted}"), self.quic_lost.clone());
    }

    fn register_sessions(&self, to: &mut Registry) {
        to.register("sessions", "Transports on which a session was joined or resumed", self.sessions.clone());
        let open = "Sessions that have a transport, or are between two polls, now";
        to.register("open_sessions", open, self.open_sessions.clone());
        to.register(
            "entries",
            "Sessions that came to a transport: joined, resumed after a loss, or moved from another one",
            self.entries_by_label(),
        );
        to.register(
            "join_duration_seconds",
            "From the request that opens a session to joined, resumed or waiting, the client's first message included",
            by_transport(&self.joining),
        );
        to.register(
            "refused_openings",
            "Requests for a session that were answered by an HTTP status, by its code",
            self.refused_openings.clone(),
        );
        let closes =
            "Transports that ended, by the server's code, or lost, client (closed by it), left; polls are left out";
        to.register("closes", closes, self.closes.clone());
        to.register("messages", "Messages received from clients", self.messages.clone());
        to.register(
            "relay_duration_seconds",
            "From a recipient's queue to its transport, for one message in sixteen; polls are left out",
            by_transport(&self.relaying),
        );
        let told = "Connections between peers that were connected, had their first media or failed, as clients tell";
        to.register("milestones", told, self.milestones.clone());
        to.register(
            "time_to_first_media_seconds",
            "From the beginning of a connection between peers to its first media, as clients tell, by signaling transport and candidate type",
            self.first_media.clone(),
        );
        to.register("rooms", "Rooms now", self.rooms.clone());
        to.register("seats", "Members of rooms and who waits to be, now", self.seats.clone());
        to.register("queued_messages", "Messages that wait for their clients now", self.queued_messages.clone());
        to.register("queued_bytes", "Bytes that wait for their clients now", self.queued_bytes.clone());
        to.register("ended_rooms", "Rooms that have ended and whose timeline is kept", self.ended_rooms.clone());
        let events = "Events for the webhook: delivered, failed (refused, or too late), dropped (too many waited)";
        to.register("webhook_events", events, self.webhook_events.clone());
        let spans =
            "Spans of traces: sent, failed (the collector was away, or would not have them), dropped (too many waited)";
        to.register("spans", spans, self.spans.clone());
        to.register("timeline_bytes", "Bytes that timelines of rooms take", self.timeline_bytes.clone());
    }

    /// A connection is established; it is counted as open until the guard drops.
    pub fn connection(&self, kind: ConnectionKind) -> Open {
        self.connections.get_or_create(&kind.labels()).inc();
        Open::new(&self.open_connections.get_or_create(&kind.labels()))
    }

    /// A handshake failed or took too long.
    pub fn handshake_failed(&self, kind: ConnectionKind) {
        self.handshake_failures.get_or_create(&kind.labels()).inc();
    }

    /// A handshake has succeeded, and took so long.
    pub fn handshaken(&self, kind: ConnectionKind, took: Duration) {
        self.handshakes.get_or_create(&kind.labels()).observe(took.as_secs_f64());
    }

    /// A QUIC connection's round trip, and how many packets it has sent and lost since it was last told.
    pub fn quic_path(&self, rtt: Duration, sent: u64, lost: u64) {
        self.quic_rtt.observe(rtt.as_secs_f64());
        self.quic_sent.inc_by(sent);
        self.quic_lost.inc_by(lost);
    }

    /// Something was refused for a limit.
    pub fn refused(&self, reason: Refused) {
        self.tally(reason).count();
    }

    /// The same for whoever refuses for that reason alone.
    pub fn tally(&self, reason: Refused) -> Tally {
        Tally(Some(self.refusals.get_or_create(&RefusalLabels { reason: reason.name() }).clone()))
    }

    /// A session was joined or resumed on `transport`.
    pub fn began(&self, transport: Transport) {
        self.sessions.get_or_create(&TransportLabels { transport: transport.name() }).inc();
    }

    /// A session came to `transport`, and was greeted so long after it was asked for.
    pub fn entered(&self, transport: Transport, how: Entry, took: Duration) {
        self.entries[transport as usize][how as usize].inc();
        self.joining[transport as usize].observe(took.as_secs_f64());
    }

    /// A request for a session was answered by an HTTP status.
    pub fn refused_opening(&self, transport: Transport, code: Code) {
        self.refused_openings.get_or_create(&CloseLabels { transport: transport.name(), code: code.name() }).inc();
    }

    /// A message has waited so long for the transport that writes it.
    pub fn relayed(&self, transport: Transport, waited: Duration) {
        self.relaying[transport as usize].observe(waited.as_secs_f64());
    }

    /// A client whose session is on `transport` has told a milestone of its connection with a peer.
    pub fn reached(&self, transport: Transport, told: &Milestone) {
        self.milestone(told.reached, told.candidate).inc();
        if told.reached == Reached::Media {
            let labels = PathLabels { transport: transport.name(), candidate_type: candidate_label(told.candidate) };
            self.first_media.get_or_create(&labels).observe(f64::from(told.after_ms) / 1000.0);
        }
    }

    fn milestone(&self, reached: Reached, candidate: Option<CandidateType>) -> Counter {
        let labels = MilestoneLabels { milestone: reached.name(), candidate_type: candidate_label(candidate) };
        self.milestones.get_or_create(&labels).clone()
    }

    /// Who and what is there.
    pub fn population(&self, population: &Population) {
        self.rooms.set(population.rooms as i64);
        for (state, seats) in [("here", population.here), ("away", population.away), ("waiting", population.waiting)] {
            self.seats.get_or_create(&SeatLabels { state }).set(seats as i64);
        }
        for (transport, sessions) in Transport::ALL.iter().zip(population.sessions) {
            self.open_sessions.get_or_create(&TransportLabels { transport: transport.name() }).set(sessions as i64);
        }
        self.queued_messages.set(population.queued_messages as i64);
        self.queued_bytes.set(population.queued_bytes as i64);
        self.ended_rooms.set(population.ended_rooms as i64);
        self.timeline_bytes.set(population.timeline_bytes as i64);
    }

    /// What has been said so far, as [`encode`](Self::encode) tells it: no counter can be asked for its sum over labels.
    pub fn traffic(&self) -> Traffic {
        Traffic::read(&self.encode().unwrap_or_default())
    }

    /// Whether the server drains.
    pub fn draining(&self, draining: bool) {
        self.draining.set(draining.into());
    }

    /// A message of `type` arrived on `transport`. `type` must come from the closed set of the protocol.
    pub fn message(&self, transport: Transport, r#type: &'static str) {
        self.messages.get_or_create(&MessageLabels { r#type, transport: transport.name() }).inc();
    }

    /// Counts events for the webhook with this outcome.
    pub fn told(&self, outcome: &'static str) -> Told {
        Told(self.webhook_events.get_or_create(&OutcomeLabels { outcome }).clone())
    }

    /// Counts spans of traces with this outcome.
    pub fn spans(&self, outcome: &'static str) -> Told {
        Told(self.spans.get_or_create(&OutcomeLabels { outcome }).clone())
    }

    /// A transport that lasts (no poll) came to its end, with a session or before there was one.
    pub fn ended(&self, transport: Transport, how: Ended) {
        self.closes.get_or_create(&CloseLabels { transport: transport.name(), code: how.name() }).inc();
    }

    /// The certificate in use is valid from `start` to `end`, in seconds since 1970.
    pub fn certificate_is_valid(&self, listener: Listener, start: i64, end: i64) {
        let listener = match listener {
            Listener::Tls => "tls",
            Listener::Quic => "quic",
        };
        self.certificate_start.get_or_create(&ListenerLabels { listener }).set(start);
        self.certificate_expiry.get_or_create(&ListenerLabels { listener }).set(end);
    }

    /// Something was read again, or could not be.
    pub fn reloaded(&self, what: Reloaded, succeeded: bool) {
        self.reloads.get_or_create(&what.labels(succeeded)).inc();
        self.last_reloads.get_or_create(&what.label()).set(succeeded.into());
    }

    /// All of it as text (OpenMetrics 1.0).
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }

    /// The same in the older format (0.0.4), for tools that do not ask for the other.
    pub fn encode_classic(&self) -> Result<String, std::fmt::Error> {
        self.encode().map(|text| text::classic(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_and_entries_are_counted_under_their_own_names() {
        for (number, transport) in Transport::ALL.into_iter().enumerate() {
            assert_eq!(transport as usize, number);
            let metrics = Metrics::default();
            metrics.entered(transport, Entry::Move, Duration::from_millis(1));
            metrics.relayed(transport, Duration::from_millis(1));
            let text = metrics.encode().unwrap();
            let name = transport.name();
            for line in [
                format!("wigwag_entries_total{{transport=\"{name}\",how=\"move\"}} 1"),
                format!("wigwag_entries_total{{transport=\"{name}\",how=\"join\"}} 0"),
                format!("wigwag_join_duration_seconds_count{{transport=\"{name}\"}} 1"),
                format!("wigwag_relay_duration_seconds_count{{transport=\"{name}\"}} 1"),
            ] {
                assert!(text.lines().any(|known| known == line), "{line}\n{text}");
            }
        }
        for (number, entry) in Entry::ALL.into_iter().enumerate() {
            assert_eq!(entry as usize, number);
        }
    }
}
