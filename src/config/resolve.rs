//! From what was typed to what is meant: defaults filled in, every value in its bounds, no two at odds.

use std::collections::HashSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use rustls::pki_types::DnsName;
use tracing_subscriber::EnvFilter;

use super::units::{CandidateKind, Listen, Network, Rate, Size, Span};
use super::{
    Acme, CertificateSource, Config, ConnectionLimits, NO_TRACES, Otlp, Protocols, Settings, Sources, Webhook,
};
use crate::auth::{self, KeySource, Reach};
use crate::clients::{self, Quota};
use crate::cluster;
use crate::error::StartError;
use crate::ice::{self, IceUrl};
use crate::origin::origin_of;
use crate::protocol::{Checks, Limits, Newcomers, WaitingRoom};
use crate::secret::SecretSource;
use crate::timeline;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// What `--acme-directory` is where nothing else is said: Let's Encrypt.
const ACME_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Names in one certificate; Let's Encrypt takes no more.
const ACME_DOMAINS: usize = 100;

/// Minutes of a busy server.
const WEBHOOK_QUEUE: usize = 10_000;

/// Enough to see what is usual, and seldom enough that nobody notices.
const TRACES_ONE_IN: u32 = 10;

/// What a knock takes beside its metadata, most of it the name that a token may give.
const KNOCK_BYTES: usize = 1024;

impl Settings {
    /// Checks everything and fills in the defaults. `sources` only gives errors their names.
    ///
    /// # Errors
    /// The first mistake found: a value out of bounds, two that contradict one another, or an address that other machines
    /// can reach without the flag that says it is meant.
    pub fn resolve(&self, sources: &Sources) -> Result<Config, StartError> {
        let check = Check { sources };
        // Whoever logs makes it again.
        self.log_filter(sources)?;
        let default = Config::default();
        let listen = self.listen.as_ref().map(|list| list.iter().map(|address| address.0).collect());
        let limits = self.limits(&check)?;
        let config = Config {
            listen: listen.unwrap_or(default.listen),
            plain: check.plain(self.plain.as_deref(), default.plain)?,
            admin: match self.admin {
                None => default.admin,
                Some(Listen::Off) => None,
                Some(Listen::At(address)) => Some(address),
            },
            admin_token: self.admin_token(&check)?,
            admin_addresses: self.admin_addresses.unwrap_or(false),
            certificate: self.certificate_source(sources)?,
            origins: check.origins(self.origin.as_deref().unwrap_or_default())?,
            tokens: self.tokens(&check)?,
            ice: self.ice(&check, default.ice.lifetime)?,
            web: self.web.clone(),
            protocols: Protocols {
                h3: !self.no_h3.unwrap_or(false),
                h2: !self.no_h2.unwrap_or(false),
                tls12: self.tls12.unwrap_or(false),
            },
            rooms: check.number("max-rooms", self.max_rooms, default.rooms, 1..=100_000_000)?,
            connections: self.connection_limits(&check)?,
            clients: self.clients(&check)?,
            heartbeat: check.span("heartbeat", self.heartbeat, default.heartbeat, 100 * MILLISECOND..=10 * MINUTE)?,
            resume_window: check.span(
                "resume-window",
                self.resume_window,
                default.resume_window,
                Duration::ZERO..=24 * HOUR,
            )?,
            waiting: self.waiting(&check, &limits)?,
            timelines: self.timelines(&check, &default.timelines)?,
            webhook: self.webhook(&check)?,
            otlp: self.otlp(&check, cfg!(feature = "otlp"))?,
            limits,
            drain: check.span("drain", self.drain, default.drain, Duration::ZERO..=HOUR)?,
            cluster: self.cluster(&check)?,
        };
        check.addresses(&config)?;
        self.check_exposure(&check, &config)?;
        Ok(config)
    }

    /// What to log.
    ///
    /// # Errors
    /// A filter that is none.
    pub fn log_filter(&self, sources: &Sources) -> Result<EnvFilter, StartError> {
        let wanted = self.log.as_deref().unwrap_or("info");
        EnvFilter::builder().parse(wanted).map_err(|error| {
            let right = "write a level (error, warn, info, debug, trace) or a list like wigwag=debug,info";
            Check { sources }.wrong("log", wanted, format_args!("{error}; {right}"))
        })
    }

    /// Where the certificate comes from, for those who need nothing else.
    ///
    /// # Errors
    /// A certificate without its key or the other way round, a name that is none, or ACME beside a certificate of one's own.
    pub fn certificate_source(&self, sources: &Sources) -> Result<CertificateSource, StartError> {
        let check = Check { sources };
        let names = check.names("name", self.name.as_deref().unwrap_or_default())?;
        if let Some(acme) = self.acme(&check)? {
            return Ok(CertificateSource::Acme(acme));
        }
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(CertificateSource::Files { cert: cert.clone(), key: key.clone(), names }),
            (None, None) => {
                let dir = self.certs_dir.clone().unwrap_or_else(|| "certs".into());
                Ok(CertificateSource::Development { dir, names })
            }
            (Some(cert), None) => Err(check.bad("cert", cert.display(), "its private key is missing: give --key too")),
            (None, Some(key)) => Err(check.bad("key", key.display(), "its certificate is missing: give --cert too")),
        }
    }

    /// What is to be ordered by ACME, if anything is.
    fn acme(&self, check: &Check<'_>) -> Result<Option<Acme>, StartError> {
        // Each by itself, before what they are without the others.
        let domains = check.domains(self.acme_domain.as_deref().unwrap_or_default())?;
        let contact = check.contacts(self.acme_contact.as_deref().unwrap_or_default())?;
        let directory = check.acme_directory(self.acme_directory.as_deref().unwrap_or(ACME_DIRECTORY))?;
        if domains.is_empty() {
            let alone = [
                ("acme-agree", self.acme_agree.unwrap_or(false)),
                ("acme-contact", self.acme_contact.is_some()),
                ("acme-directory", self.acme_directory.is_some()),
                ("acme-ca", self.acme_ca.is_some()),
                ("acme-dir", self.acme_dir.is_some()),
            ];
            let alone = alone.iter().find(|(_, said)| *said);
            let refused = |key| check.bad(key, "set", "without --acme-domain nothing is ordered; give it too");
            return alone.map_or(Ok(None), |(key, _)| Err(refused(key)));
        }
        let shown = domains.join(",");
        let refused = |why: &str| Err(check.bad("acme-domain", &shown, why));
        if self.cert.is_some() || self.key.is_some() {
            return refused("it gets a certificate, and --cert and --key are one already; give one or the other");
        }
        if self.name.is_some() {
            return refused("it says what the server is called, as --name does; leave --name out");
        }
        if !self.acme_agree.unwrap_or(false) {
            return refused("the authority wants its terms of service agreed to; read them, and give --acme-agree");
        }
        let dir = self.acme_dir.clone().unwrap_or_else(|| "acme".into());
        Ok(Some(Acme { domains, directory, contact, ca: self.acme_ca.clone(), dir }))
    }

    fn admin_token(&self, check: &Check<'_>) -> Result<Option<SecretSource>, StartError> {
        let Some(text) = &self.admin_token else { return Ok(None) };
        if self.admin == Some(Listen::Off) {
            return Err(check.bad(
                "admin-token",
                "set",
                "nothing asks for it while --admin is off; leave one of them out",
            ));
        }
        text.parse().map(Some).map_err(|why| check.wrong("admin-token", text, why))
    }

    fn tokens(&self, check: &Check<'_>) -> Result<Option<auth::Policy>, StartError> {
        let Some(keys) = &self.token_keys else {
            let alone = [
                ("token-issuer", self.token_issuer.is_some()),
                ("token-audience", self.token_audience.is_some()),
                ("invite-key", self.invite_key.is_some()),
                ("waiting-room", self.waiting_room == Some(Newcomers::Everyone)),
                ("token-keys-ca", self.token_keys_ca.is_some()),
                ("token-keys-private", self.token_keys_private.unwrap_or(false)),
            ];
            return match alone.iter().find(|(_, said)| *said) {
                Some((key, _)) => Err(check.bad(key, "set", "without --token-keys no token is asked for; give it too")),
                None => Ok(None),
            };
        };
        if self.open.unwrap_or(false) {
            return Err(check.bad(
                "open",
                "set",
                "it lets everybody in, and --token-keys only who has a token; give one of them",
            ));
        }
        let mut source: KeySource = keys.parse().map_err(|why| check.wrong("token-keys", keys, why))?;
        let (ca, private) = (self.token_keys_ca.clone(), self.token_keys_private.unwrap_or(false));
        match &mut source {
            KeySource::Url { reach, .. } => *reach = Reach { ca, private },
            _ if ca.is_some() || private => {
                let why = "--token-keys-ca and --token-keys-private are for keys at a URL; leave them out";
                return Err(check.bad("token-keys", keys, why));
            }
            _ => {}
        }
        let (issuer, audience) = (self.token_issuer.clone(), self.token_audience.clone());
        Ok(Some(auth::Policy { keys: source, issuer, audience, invite_key: self.invite_key.clone() }))
    }

    /// A moderator that takes its seat up again is told of all who wait at once, so that its queue must have room for them.
    fn waiting(&self, check: &Check<'_>, limits: &Limits) -> Result<WaitingRoom, StartError> {
        let default = WaitingRoom::default();
        let most = limits.queue_messages.min(limits.queue_bytes / (limits.metadata_bytes + KNOCK_BYTES)).max(1);
        let peers = check.number("max-waiting", self.max_waiting, default.peers.min(most), 1..=10_000)?;
        if peers > most {
            let (queue, messages) = (check.sources.name("max-queue"), check.sources.name("max-queue-messages"));
            let why =
                format_args!("a moderator hears of all of them at once, and {most} of them fill {queue} or {messages}");
            return Err(check.bad("max-waiting", peers, why));
        }
        Ok(WaitingRoom {
            holds: self.waiting_room.unwrap_or(default.holds),
            peers,
            time: check.span("waiting-time", self.waiting_time, default.time, SECOND..=24 * HOUR)?,
        })
    }

    fn cluster(&self, check: &Check<'_>) -> Result<Option<cluster::Policy>, StartError> {
        let servers = self.cluster.iter().flatten();
        // What stands before the @ may be a password.
        let shown = |text: &String| text.rsplit('@').next().unwrap_or_default().to_owned();
        let parse = |text: &String| text.parse().map_err(|why| check.wrong("cluster", shown(text), why));
        let servers: Vec<cluster::Address> = servers.map(parse).collect::<Result<_, _>>()?;
        // Each by itself, before what they are without the other.
        let name = self.cluster_name.as_deref().map(|name| (name, name.parse()));
        let name =
            name.map(|(name, parsed)| parsed.map_err(|why| check.wrong("cluster-name", name, why))).transpose()?;
        let key = self.cluster_key.as_ref();
        let key = key.map(|text| text.parse().map_err(|why| check.wrong("cluster-key", text, why))).transpose()?;
        let timeout = check.span("cluster-timeout", self.cluster_timeout, cluster::TIMEOUT, SECOND..=MINUTE)?;
        let durable = cluster::Durable::default();
        let durable = cluster::Durable {
            replicas: check.number("cluster-replicas", self.cluster_replicas, durable.replicas, 1..=5)?,
            bytes: check.size("cluster-store", self.cluster_store, durable.bytes, MIB..=64 * KIB * KIB * MIB)?,
        };
        if servers.is_empty() {
            let alone = [
                ("cluster-name", self.cluster_name.is_some()),
                ("cluster-credentials", self.cluster_credentials.is_some()),
                ("cluster-ca", self.cluster_ca.is_some()),
                ("cluster-timeout", self.cluster_timeout.is_some()),
                ("cluster-key", self.cluster_key.is_some()),
                ("cluster-durable", self.cluster_durable == Some(true)),
                ("cluster-replicas", self.cluster_replicas.is_some()),
                ("cluster-store", self.cluster_store.is_some()),
            ];
            let alone = alone.iter().find(|(_, said)| *said);
            let refused = |key| check.bad(key, "set", "without --cluster there is only this node; give it too");
            return alone.map_or(Ok(None), |(key, _)| Err(refused(key)));
        }
        let is_durable = self.cluster_durable == Some(true);
        if is_durable && key.is_none() {
            let why = "without --cluster-key no other node can take a session up; give it too";
            return Err(check.bad("cluster-durable", "set", why));
        }
        Ok(Some(cluster::Policy {
            durable: is_durable.then_some(durable),
            servers,
            name: name.unwrap_or_default(),
            credentials: self.cluster_credentials.clone(),
            ca: self.cluster_ca.clone(),
            timeout,
            key,
        }))
    }

    fn timelines(&self, check: &Check<'_>, default: &timeline::Policy) -> Result<timeline::Policy, StartError> {
        Ok(timeline::Policy {
            events: check.number("timeline-events", self.timeline_events, default.events, 0..=100_000)?,
            bytes: check.size("timeline-memory", self.timeline_memory, default.bytes, MIB..=64 * KIB * MIB)?,
            keep: check.span("timeline-keep", self.timeline_keep, default.keep, Duration::ZERO..=24 * HOUR)?,
        })
    }

    fn webhook(&self, check: &Check<'_>) -> Result<Option<Webhook>, StartError> {
        let queue = check.number("webhook-queue", self.webhook_queue, WEBHOOK_QUEUE, 1..=1_000_000)?;
        let Some(text) = &self.webhook else {
            let alone = [
                ("webhook-secret", self.webhook_secret.is_some()),
                ("webhook-queue", self.webhook_queue.is_some()),
                ("webhook-ca", self.webhook_ca.is_some()),
            ];
            let alone = alone.iter().find(|(_, said)| *said);
            let refused = |key| check.bad(key, "set", "without --webhook nobody is told anything; give it too");
            return alone.map_or(Ok(None), |(key, _)| Err(refused(key)));
        };
        // What stands before an @ may be a password.
        let shown = text.rsplit('@').next().unwrap_or_default();
        let wrong =
            || check.wrong("webhook", shown, "write https://HOST/PATH without a user, or http:// on this machine");
        let url: Uri = text.parse().map_err(|_| wrong())?;
        let host = url.host().unwrap_or_default();
        let allowed = match url.scheme_str() {
            Some("https") => !host.is_empty(),
            Some("http") => is_here(host),
            _ => false,
        };
        if !allowed || text.contains('@') {
            return Err(wrong());
        }
        let Some(secret) = &self.webhook_secret else {
            let why = "without a signature anybody could tell the application anything; give --webhook-secret too";
            return Err(check.bad("webhook", shown, why));
        };
        let secret = secret.parse().map_err(|why| check.wrong("webhook-secret", secret, why))?;
        Ok(Some(Webhook { url, secret, queue, ca: self.webhook_ca.clone() }))
    }

    /// `built_in`: whether this program can send traces.
    fn otlp(&self, check: &Check<'_>, built_in: bool) -> Result<Option<Otlp>, StartError> {
        let one_in = check.number("otlp-one-in", self.otlp_one_in, TRACES_ONE_IN, 1..=1_000_000)?;
        let Some(text) = &self.otlp_endpoint else {
            let alone = [("otlp-headers", self.otlp_headers.is_some()), ("otlp-ca", self.otlp_ca.is_some())];
            let alone = alone.iter().find(|(_, said)| *said);
            let refused = |key| check.bad(key, "set", "without --otlp-endpoint no traces are sent; give it too");
            return alone.map_or(Ok(None), |(key, _)| Err(refused(key)));
        };
        // What stands before an @ may be a password.
        let shown = text.rsplit('@').next().unwrap_or_default();
        let wrong = || check.wrong("otlp-endpoint", shown, "write http://HOST:4318 or https://HOST, without a user");
        let endpoint: Uri = text.parse().map_err(|_| wrong())?;
        let host = endpoint.host().unwrap_or_default();
        if !matches!(endpoint.scheme_str(), Some("http" | "https")) || host.is_empty() || text.contains(['@', '?']) {
            return Err(wrong());
        }
        if !built_in {
            return Err(check.bad("otlp-endpoint", shown, NO_TRACES));
        }
        let headers = self.otlp_headers.as_ref();
        let headers =
            headers.map(|text| text.parse().map_err(|why| check.wrong("otlp-headers", text, why))).transpose()?;
        if headers.is_some() && endpoint.scheme_str() == Some("http") && !is_here(host) {
            let why = "what --otlp-headers shows would go there unencrypted; write https://";
            return Err(check.bad("otlp-endpoint", shown, why));
        }
        Ok(Some(Otlp { endpoint, headers, ca: self.otlp_ca.clone(), one_in }))
    }

    fn ice(&self, check: &Check<'_>, lifetime: Duration) -> Result<ice::Policy, StartError> {
        let parse = |text: &String| text.parse::<IceUrl>().map_err(|why| check.wrong("ice-server", text, why));
        let urls: Vec<_> = self.ice_server.iter().flatten().map(parse).collect::<Result<_, _>>()?;
        let secret =
            self.turn_secret.as_ref().map(|text| text.parse().map_err(|why| check.wrong("turn-secret", text, why)));
        let secret = secret.transpose()?;
        match urls.iter().find(|url| url.needs_credentials()) {
            Some(url) if secret.is_none() => {
                return Err(check.bad("ice-server", url, "a TURN server needs credentials; give --turn-secret too"));
            }
            None if secret.is_some() => {
                return Err(check.bad(
                    "turn-secret",
                    "set",
                    "there is no TURN server to use it; give --ice-server turn:HOST too",
                ));
            }
            _ => {}
        }
        // More than an hour would outlive the trust that they were given in.
        let lifetime = check.span("turn-lifetime", self.turn_lifetime, lifetime, MINUTE..=HOUR)?;
        Ok(ice::Policy { urls, secret, lifetime })
    }

    fn checks(&self) -> Checks {
        let dropped = |kind| self.drop_candidates.as_ref().is_some_and(|kinds| kinds.contains(&kind));
        Checks {
            grammar: !self.no_validation.unwrap_or(false),
            drop_private: dropped(CandidateKind::Private),
            drop_mdns: dropped(CandidateKind::Mdns),
        }
    }

    fn limits(&self, check: &Check<'_>) -> Result<Limits, StartError> {
        let default = Limits::default();
        let first_message = Duration::from_millis(default.first_message_ms);
        let limits = Limits {
            frame_bytes: check.size("max-frame", self.max_frame, default.frame_bytes, KIB..=16 * MIB)?,
            data_bytes: check.size("max-data", self.max_data, default.data_bytes, 1..=16 * MIB)?,
            sdp_bytes: check.size("max-sdp", self.max_sdp, default.sdp_bytes, KIB..=16 * MIB)?,
            candidate_bytes: check.size(
                "max-candidate",
                self.max_candidate,
                default.candidate_bytes,
                256..=64 * KIB,
            )?,
            metadata_bytes: check.size("max-metadata", self.max_metadata, default.metadata_bytes, 2..=64 * KIB)?,
            messages_per_second: check.number("rate", self.rate, default.messages_per_second, 1..=1_000_000)?,
            burst: check.number("burst", self.burst, default.burst, 1..=1_000_000)?,
            peers: check.number("max-peers", self.max_peers, default.peers, 1..=10_000)?,
            queue_bytes: check.size("max-queue", self.max_queue, default.queue_bytes, 16 * KIB..=256 * MIB)?,
            queue_messages: check.number(
                "max-queue-messages",
                self.max_queue_messages,
                default.queue_messages,
                16..=1_000_000,
            )?,
            checks: self.checks(),
            first_message_ms: check
                .span("first-message-timeout", self.first_message_timeout, first_message, 100 * MILLISECOND..=MINUTE)?
                .as_millis() as u64,
        };
        let parts = [
            ("max-data", limits.data_bytes),
            ("max-sdp", limits.sdp_bytes),
            ("max-candidate", limits.candidate_bytes),
            ("max-metadata", limits.metadata_bytes),
        ];
        for (key, bytes) in parts {
            check.at_most(key, bytes, "max-frame", limits.frame_bytes)?;
        }
        check.at_most("max-frame", limits.frame_bytes, "max-queue", limits.queue_bytes)?;
        Ok(limits)
    }

    fn connection_limits(&self, check: &Check<'_>) -> Result<ConnectionLimits, StartError> {
        let default = ConnectionLimits::default();
        let wait = 100 * MILLISECOND..=10 * MINUTE;
        let connections = check.number("max-connections", self.max_connections, default.connections, 1..=10_000_000)?;
        Ok(ConnectionLimits {
            connections,
            tcp_connections: connections,
            streams: check.number("max-streams", self.max_streams, default.streams, 8..=65_536)?,
            handshake: check.span("handshake-timeout", self.handshake_timeout, default.handshake, wait.clone())?,
            request_head: check.span("request-timeout", self.request_timeout, default.request_head, wait.clone())?,
            idle: check.span("idle-timeout", self.idle_timeout, default.idle, SECOND..=24 * HOUR)?,
            retry_above: check.number("retry-above", self.retry_above, default.retry_above, 0..=1_000_000)?,
            sessions_per_second: check.number(
                "sessions-per-second",
                self.sessions_per_second,
                default.sessions_per_second,
                1..=1_000_000,
            )?,
            header_bytes: check.size("max-headers", self.max_headers, default.header_bytes, 4 * KIB..=MIB)?,
            close: check.span("close-timeout", self.close_timeout, default.close, wait)?,
        })
    }

    fn clients(&self, check: &Check<'_>) -> Result<clients::Policy, StartError> {
        let default = clients::Policy::default();
        let networks = |list: &Vec<Network>| list.iter().map(|network| network.0).collect();
        let proxy_protocol = self.proxy_protocol.unwrap_or(false);
        let trusted: Vec<_> = self.trusted_proxy.as_ref().map(networks).unwrap_or_default();
        if proxy_protocol && trusted.is_empty() {
            let why = "no proxy is trusted to send a PROXY header; give --trusted-proxy too";
            return Err(check.bad("proxy-protocol", "set", why));
        }
        Ok(clients::Policy {
            trusted,
            header: self.proxy_header.map_or(default.header, |header| header.0),
            proxy_protocol,
            exempt: self.exempt_address.as_ref().map_or(default.exempt, networks),
            limits: self.client_limits(check, &default.limits)?,
        })
    }

    fn client_limits(&self, check: &Check<'_>, default: &clients::Limits) -> Result<clients::Limits, StartError> {
        let count = |key, typed, default| check.quota(key, typed, default, 1..=1_000_000_000);
        let most = |key, typed, default| check.number(key, typed, default, 1..=10_000_000);
        Ok(clients::Limits {
            connections: count("address-connections", self.address_connections, default.connections)?,
            joins: count("address-joins", self.address_joins, default.joins)?,
            failures: count("address-failures", self.address_failures, default.failures)?,
            messages: count("address-messages", self.address_messages, default.messages)?,
            bytes: check.quota("address-bytes", self.address_bytes, default.bytes, 64 * KIB..=MIB * MIB)?,
            open_connections: most("max-address-connections", self.max_address_connections, default.open_connections)?,
            sessions: most("max-address-sessions", self.max_address_sessions, default.sessions)?,
        })
    }

    /// What other machines can reach must have been meant: a mistake here is noticed by others first.
    fn check_exposure(&self, check: &Check<'_>, config: &Config) -> Result<(), StartError> {
        let said = |flag: Option<bool>| flag.unwrap_or(false);
        let beyond = |list: &[SocketAddr]| list.iter().find(|address| !address.ip().is_loopback()).copied();
        let (listen, plain) = (beyond(&config.listen), beyond(&config.plain));
        let guarded = config.admin_token.is_some() || said(self.admin_exposed);
        if let Some(address) = config.admin.filter(|address| !address.ip().is_loopback() && !guarded) {
            let why = "other machines could read metrics and remove peers there; give --admin-token, or --admin-exposed if they may";
            return Err(check.bad("admin", address, why));
        }
        if let Some(address) = plain.filter(|_| !said(self.plain_behind_proxy)) {
            let why = "other machines would talk to it unencrypted, and browsers give pages from there neither camera nor \
                       WebTransport (no secure context); give --plain-behind-proxy if a proxy in front ends TLS";
            return Err(check.bad("plain", address, why));
        }
        let Some((key, address)) =
            listen.map(|address| ("listen", address)).or(plain.map(|address| ("plain", address)))
        else {
            return Ok(());
        };
        let development = matches!(config.certificate, CertificateSource::Development { .. }) && listen.is_some();
        let guarded = said(self.open) || config.tokens.is_some();
        match (guarded, development && !said(self.dev_certs)) {
            (true, false) => Ok(()),
            (false, false) => Err(check.bad(
                key,
                address,
                "whoever reaches it from another machine may enter any room; give --token-keys, or --open if that is meant",
            )),
            (true, true) => Err(check.bad(
                key,
                address,
                "other machines do not trust development certificates; give --cert and --key, or --acme-domain, or --dev-certs if that is meant",
            )),
            (false, true) => Err(check.bad(
                key,
                address,
                "whoever reaches it from another machine may enter any room, and sees development certificates; \
                 give --open and --dev-certs if that is meant, or --token-keys in place of --open",
            )),
        }
    }
}

/// Whether a URL's host is this machine.
fn is_here(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Checks single values and words the errors.
struct Check<'a> {
    sources: &'a Sources,
}

impl Check<'_> {
    fn bad(&self, key: &str, value: impl Display, why: impl Display) -> StartError {
        self.sources.refuse(key, value, why)
    }

    /// A value that is wrong whatever the others are.
    fn wrong(&self, key: &str, value: impl Display, why: impl Display) -> StartError {
        self.bad(key, value, why).about(key)
    }

    fn within<T: PartialOrd + Display>(&self, key: &str, value: T, bounds: RangeInclusive<T>) -> Result<T, StartError> {
        if bounds.contains(&value) {
            return Ok(value);
        }
        Err(self.wrong(key, value, format_args!("it must be from {} to {}", bounds.start(), bounds.end())))
    }

    fn span(
        &self,
        key: &str,
        typed: Option<Span>,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Result<Duration, StartError> {
        let bounds = Span(*bounds.start())..=Span(*bounds.end());
        Ok(self.within(key, typed.unwrap_or(Span(default)), bounds)?.0)
    }

    fn quota(
        &self,
        key: &str,
        typed: Option<Rate>,
        default: Quota,
        amounts: RangeInclusive<u64>,
    ) -> Result<Quota, StartError> {
        let Some(Rate(quota)) = typed else { return Ok(default) };
        if amounts.contains(&quota.amount) && (SECOND..=24 * HOUR).contains(&quota.per) {
            return Ok(quota);
        }
        let (least, most) = (amounts.start(), amounts.end());
        Err(self.wrong(key, Rate(quota), format_args!("it must be from {least} to {most}, in a time from 1s to 1d")))
    }

    fn size<T: TryFrom<u64>>(
        &self,
        key: &str,
        typed: Option<Size>,
        default: T,
        bounds: RangeInclusive<u64>,
    ) -> Result<T, StartError> {
        let Some(size) = typed else { return Ok(default) };
        let size = self.within(key, size, Size(*bounds.start())..=Size(*bounds.end()))?;
        T::try_from(size.0).map_err(|_| self.wrong(key, size, "it is too much for this machine"))
    }

    fn number<T: TryFrom<u64>>(
        &self,
        key: &str,
        typed: Option<u64>,
        default: T,
        bounds: RangeInclusive<u64>,
    ) -> Result<T, StartError> {
        let Some(number) = typed else { return Ok(default) };
        let number = self.within(key, number, bounds)?;
        T::try_from(number).map_err(|_| self.wrong(key, number, "it is too much for this machine"))
    }

    fn at_most(&self, key: &str, bytes: usize, other: &str, most: usize) -> Result<(), StartError> {
        if bytes <= most {
            return Ok(());
        }
        let (bytes, most) = (Size(bytes as u64), Size(most as u64));
        Err(self.bad(key, bytes, format_args!("it cannot be more than {}, which is {most}", self.sources.name(other))))
    }

    fn plain(&self, typed: Option<&[Listen]>, default: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, StartError> {
        let Some(typed) = typed else { return Ok(default) };
        let addresses: Vec<_> = typed
            .iter()
            .filter_map(|listen| match listen {
                Listen::Off => None,
                Listen::At(address) => Some(*address),
            })
            .collect();
        if !addresses.is_empty() && addresses.len() < typed.len() {
            return Err(self.bad("plain", "off and an address", "give one or the other"));
        }
        Ok(addresses)
    }

    /// TCP addresses must differ; port 0 always does.
    fn addresses(&self, config: &Config) -> Result<(), StartError> {
        if config.listen.is_empty() {
            return Err(self.bad("listen", "empty", "give at least one address"));
        }
        let mut seen = HashSet::new();
        let all = [("listen", &config.listen[..]), ("plain", &config.plain[..]), ("admin", config.admin.as_slice())];
        for (key, list) in all {
            for address in list.iter().filter(|address| address.port() != 0) {
                if !seen.insert(address) {
                    return Err(self.bad(key, address, "this address is listened on already; give each one once"));
                }
            }
        }
        Ok(())
    }

    /// Names that a certificate can be ordered for.
    fn domains(&self, typed: &[String]) -> Result<Vec<String>, StartError> {
        let names = self.names("acme-domain", typed)?;
        if let Some(address) = names.iter().find(|name| name.parse::<IpAddr>().is_ok()) {
            return Err(self.wrong(
                "acme-domain",
                address,
                "it is an address; certificates are ordered for names only",
            ));
        }
        if names.len() > ACME_DOMAINS {
            return Err(self.wrong(
                "acme-domain",
                format_args!("{} names", names.len()),
                format_args!("a certificate has no more than {ACME_DOMAINS}"),
            ));
        }
        Ok(names)
    }

    fn contacts(&self, typed: &[String]) -> Result<Vec<String>, StartError> {
        match typed.iter().find(|text| text.strip_prefix("mailto:").is_none_or(|address| !address.contains('@'))) {
            Some(wrong) => Err(self.wrong("acme-contact", wrong, "write it as mailto:ops@example.org")),
            None => Ok(typed.to_vec()),
        }
    }

    fn acme_directory(&self, text: &str) -> Result<Uri, StartError> {
        let url: Option<Uri> = text.parse().ok();
        let named = |url: &Uri| url.host().is_some_and(|host| !host.is_empty());
        let is_right = |url: &Uri| url.scheme_str() == Some("https") && named(url) && !text.contains('@');
        url.filter(is_right).ok_or_else(|| {
            // What stands before an @ may be a password.
            let shown = text.rsplit('@').next().unwrap_or_default();
            self.wrong("acme-directory", shown, "write the authority's URL, https://HOST/PATH without a user")
        })
    }

    fn names(&self, key: &str, typed: &[String]) -> Result<Vec<String>, StartError> {
        let mut names = Vec::new();
        for name in typed {
            let plain = match name.parse::<IpAddr>() {
                Ok(address) if address.is_unspecified() => {
                    return Err(self.wrong(key, name, "it means every address; give one that others can reach"));
                }
                Ok(address) => address.to_string(),
                Err(_) => name.to_ascii_lowercase(),
            };
            if plain.parse::<IpAddr>().is_err() && DnsName::try_from(plain.as_str()).is_err() {
                return Err(self.wrong(
                    key,
                    name,
                    "write a host name or an IP address, without scheme, port or wildcard",
                ));
            }
            if !names.contains(&plain) {
                names.push(plain);
            }
        }
        Ok(names)
    }

    fn origins(&self, typed: &[String]) -> Result<Vec<String>, StartError> {
        let parse = |text: &String| {
            origin(text).ok_or_else(|| {
                let why = "write it as browsers send it, like https://app.example.org or http://localhost:3000 (no path, no \
                           wildcard), or null";
                self.wrong("origin", text, why)
            })
        };
        typed.iter().map(parse).collect()
    }
}

/// An origin as browsers serialize it (RFC 6454, 6.2): lower case, without default port.
fn origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    if text == "null" {
        return Some(text);
    }
    let (scheme, authority) = text.split_once("://")?;
    let named = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(named) {
        return None;
    }
    let parsed: Authority = authority.parse().ok()?;
    let host = parsed.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = bare.parse::<IpAddr>().is_ok();
    if authority.contains(['@', '*']) || !(address || DnsName::try_from(host).is_ok()) {
        return None;
    }
    match parsed.port_u16() {
        Some(port) => Some(origin_of(scheme, bare, port)),
        None if authority == host => Some(format!("{scheme}://{host}")),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Address;

    fn resolve(change: impl FnOnce(&mut Settings)) -> Result<Config, String> {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.resolve(&Sources::default()).map_err(|error| error.to_string())
    }

    fn at(text: &str) -> Listen {
        text.parse().unwrap()
    }

    fn listen(list: &[&str]) -> Option<Vec<Address>> {
        Some(list.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn a_program_without_traces_says_so() {
        let (sources, endpoint) = (Sources::default(), Some("http://localhost:4318".to_owned()));
        let settings = Settings { otlp_endpoint: endpoint, otlp_one_in: Some(3), ..Settings::default() };
        let otlp = |built_in| settings.otlp(&Check { sources: &sources }, built_in);
        let refused = otlp(false).unwrap_err().to_string();
        assert!(
            refused.starts_with("--otlp-endpoint is http://localhost:4318: ") && refused.contains("--features otlp")
        );
        assert_eq!(otlp(true).unwrap().map(|otlp| otlp.one_in), Some(3));
    }

    #[test]
    fn nothing_typed_is_the_default() {
        assert_eq!(resolve(|_| {}), Ok(Config::default()));
    }

    #[test]
    fn values_out_of_bounds_are_named_with_their_bounds() {
        let error = resolve(|s| s.heartbeat = Some(Span(Duration::ZERO))).unwrap_err();
        assert_eq!(error, "--heartbeat is 0ms: it must be from 100ms to 10m");
        let error = resolve(|s| s.max_frame = Some(Size(1))).unwrap_err();
        assert_eq!(error, "--max-frame is 1: it must be from 1KiB to 16MiB");
        let error = resolve(|s| s.rate = Some(0)).unwrap_err();
        assert_eq!(error, "--rate is 0: it must be from 1 to 1000000");
    }

    #[test]
    fn what_one_address_may_ask_for_has_bounds_and_a_proxy_must_be_trusted() {
        let rate = |text: &str| Some(text.parse().unwrap());
        let error = resolve(|s| s.address_joins = rate("0/10s")).unwrap_err();
        assert_eq!(error, "--address-joins is 0/10s: it must be from 1 to 1000000000, in a time from 1s to 1d");
        assert!(resolve(|s| s.address_joins = rate("10/500ms")).is_err());
        assert!(resolve(|s| s.address_bytes = rate("1KiB/10s")).is_err());
        assert!(resolve(|s| s.max_address_sessions = Some(0)).is_err());
        let error = resolve(|s| s.proxy_protocol = Some(true)).unwrap_err();
        assert!(error.contains("give --trusted-proxy too"), "{error}");
        let trusted = vec!["10.0.0.0/8".parse().unwrap()];
        assert!(resolve(|s| (s.proxy_protocol, s.trusted_proxy) = (Some(true), Some(trusted))).is_ok());
    }

    #[test]
    fn a_cluster_has_addresses_of_nats_and_nothing_is_said_of_it_without() {
        let cluster = |servers: &[&str]| Some(servers.iter().map(|&text| text.to_owned()).collect());
        let config = resolve(|s| s.cluster = cluster(&["nats://a:4222", "tls://b"])).unwrap();
        let policy = config.cluster.expect("a cluster");
        assert_eq!((policy.servers.len(), policy.name.to_string()), (2, "wigwag".to_owned()));
        let error = resolve(|s| s.cluster = cluster(&["redis://a"])).unwrap_err();
        assert!(error.starts_with("--cluster is redis://a: write it as nats://"), "{error}");
        let error = resolve(|s| s.cluster = cluster(&["nats://u:hunter2@a/b"])).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
        let error = resolve(|s| s.cluster_name = Some("x".into())).unwrap_err();
        assert!(error.starts_with("--cluster-name is set: without --cluster"), "{error}");
        assert!(resolve(|s| (s.cluster, s.cluster_name) = (cluster(&["nats://a"]), Some("a.b".into()))).is_err());
    }

    #[test]
    fn sizes_that_contradict_one_another_are_refused() {
        let error = resolve(|s| s.max_sdp = Some(Size(256 * KIB))).unwrap_err();
        assert_eq!(error, "--max-sdp is 256KiB: it cannot be more than --max-frame, which is 160KiB");
        assert!(resolve(|s| (s.max_sdp, s.max_frame) = (Some(Size(256 * KIB)), Some(Size(300 * KIB)))).is_ok());
        let error = resolve(|s| s.max_queue = Some(Size(100 * KIB))).unwrap_err();
        assert_eq!(error, "--max-frame is 160KiB: it cannot be more than --max-queue, which is 100KiB");
        let large = |s: &mut Settings| s.max_metadata = Some(Size(63 * KIB));
        assert_eq!(resolve(large).map(|config| config.waiting.peers), Ok(16), "as many as the queue has room for");
        let error = resolve(|s| (large(s), s.max_waiting = Some(17)).1).unwrap_err();
        assert_eq!(
            error,
            "--max-waiting is 17: a moderator hears of all of them at once, and 16 of them fill --max-queue or --max-queue-messages"
        );
    }

    #[test]
    fn what_other_machines_reach_must_be_meant() {
        let public = listen(&["0.0.0.0:4433"]);
        let files = |s: &mut Settings| (s.cert, s.key) = (Some("c.pem".into()), Some("k.pem".into()));
        let error = resolve(|s| s.listen = public.clone()).unwrap_err();
        assert!(error.starts_with("--listen is 0.0.0.0:4433: ") && error.contains("--open and --dev-certs"), "{error}");
        let error = resolve(|s| (s.listen, s.open) = (public.clone(), Some(true))).unwrap_err();
        assert!(error.contains("--dev-certs") && !error.contains("--open"), "{error}");
        let error = resolve(|s| {
            s.listen = public.clone();
            files(s);
        });
        assert!(error.unwrap_err().contains("--open"));
        let meant = resolve(|s| (s.listen, s.open, s.dev_certs) = (public.clone(), Some(true), Some(true)));
        assert!(meant.is_ok());
        assert!(
            resolve(|s| {
                (s.listen, s.open) = (public.clone(), Some(true));
                files(s);
            })
            .is_ok()
        );
    }

    #[test]
    fn token_keys_take_the_place_of_open() {
        let keys = |s: &mut Settings| (s.token_keys, s.dev_certs) = (Some("keys.json".into()), Some(true));
        let config = resolve(|s| {
            keys(s);
            s.listen = listen(&["0.0.0.0:4433"]);
        });
        let policy = config.unwrap().tokens.expect("tokens are asked for");
        assert_eq!(policy.keys, KeySource::File("keys.json".into()));
        let error = resolve(|s| {
            keys(s);
            s.open = Some(true);
        });
        assert!(error.unwrap_err().starts_with("--open is set: "));
    }

    #[test]
    fn plain_text_and_metrics_for_other_machines_must_be_meant() {
        let plain = Some(vec![at("192.0.2.1:80")]);
        let error = resolve(|s| (s.plain, s.open) = (plain.clone(), Some(true))).unwrap_err();
        assert!(error.contains("--plain-behind-proxy") && error.contains("secure context"), "{error}");
        let error = resolve(|s| (s.plain, s.plain_behind_proxy) = (plain.clone(), Some(true))).unwrap_err();
        assert!(error.starts_with("--plain is 192.0.2.1:80") && error.contains("--open"), "{error}");
        let meant = resolve(|s| (s.plain, s.plain_behind_proxy, s.open) = (plain.clone(), Some(true), Some(true)));
        assert_eq!(meant.unwrap().plain, ["192.0.2.1:80".parse().unwrap()]);
        let error = resolve(|s| s.admin = Some(at("[::]:9433"))).unwrap_err();
        assert!(error.contains("--admin-token") && error.contains("--admin-exposed"), "{error}");
        let token = Some("env:ADMIN_TOKEN".to_owned());
        assert!(resolve(|s| (s.admin, s.admin_token) = (Some(at("[::]:9433")), token.clone())).is_ok());
        assert!(resolve(|s| (s.admin, s.admin_token) = (Some(Listen::Off), token.clone())).is_err());
        assert!(resolve(|s| (s.admin, s.admin_exposed) = (Some(at("[::]:9433")), Some(true))).is_ok());
    }

    #[test]
    fn off_switches_off_and_stands_alone() {
        let config = resolve(|s| (s.plain, s.admin) = (Some(vec![Listen::Off]), Some(Listen::Off))).unwrap();
        assert_eq!((config.plain, config.admin), (vec![], None));
        assert!(resolve(|s| s.plain = Some(vec![Listen::Off, at("127.0.0.1:1")])).is_err());
        assert!(resolve(|s| s.listen = Some(vec![])).is_err());
    }

    #[test]
    fn an_address_is_listened_on_once() {
        let error = resolve(|s| s.listen = listen(&["127.0.0.1:8080"])).unwrap_err();
        assert!(error.starts_with("--plain is 127.0.0.1:8080: "), "{error}");
        assert!(resolve(|s| s.listen = listen(&["127.0.0.1:0", "127.0.0.1:0"])).is_ok());
    }

    #[test]
    fn a_certificate_needs_its_key_and_names_are_names() {
        assert!(resolve(|s| s.cert = Some("c.pem".into())).unwrap_err().contains("give --key too"));
        assert!(resolve(|s| s.key = Some("k.pem".into())).unwrap_err().contains("give --cert too"));
        for bad in ["", "https://a.example", "a:4433", "*.example.org", "a b", "0.0.0.0", "[::1]"] {
            assert!(resolve(|s| s.name = Some(vec![bad.into()])).is_err(), "{bad}");
        }
        let names = ["Desk.Test", "desk.test", "FD00:0::1", "my_host"].map(str::to_owned).to_vec();
        let config = resolve(|s| s.name = Some(names)).unwrap();
        let CertificateSource::Development { names, .. } = config.certificate else { panic!("no files were given") };
        assert_eq!(names, ["desk.test", "fd00::1", "my_host"]);
    }

    #[test]
    fn a_certificate_is_ordered_for_names_once_the_terms_are_agreed_to() {
        let names = |list: &[&str]| Some(list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let ordered = |s: &mut Settings| (s.acme_domain, s.acme_agree) = (names(&["A.test", "b.test"]), Some(true));
        let CertificateSource::Acme(acme) = resolve(ordered).unwrap().certificate else { panic!("it was asked for") };
        assert_eq!((acme.domains, acme.dir), (vec!["a.test".to_owned(), "b.test".to_owned()], "acme".into()));
        assert_eq!(acme.directory, ACME_DIRECTORY);
        let public = resolve(|s| {
            ordered(s);
            (s.listen, s.open) = (listen(&["0.0.0.0:443"]), Some(true));
        });
        assert!(public.is_ok(), "its certificates are no development certificates");
        for (change, why) in [
            (Box::new(|s: &mut Settings| s.acme_agree = None) as Box<dyn Fn(&mut Settings)>, "give --acme-agree"),
            (Box::new(|s| s.acme_agree = Some(false)), "give --acme-agree"),
            (Box::new(|s| (s.cert, s.key) = (Some("c".into()), Some("k".into()))), "--cert and --key"),
            (Box::new(|s| s.name = Some(vec!["c.test".into()])), "leave --name out"),
            (Box::new(|s| s.acme_domain = Some(vec!["192.0.2.1".into()])), "it is an address"),
            (Box::new(|s| s.acme_domain = Some(vec!["*.a.test".into()])), "without scheme, port or wildcard"),
            (Box::new(|s| s.acme_domain = Some((0..101).map(|n| format!("{n}.test")).collect())), "no more than 100"),
            (Box::new(|s| s.acme_contact = Some(vec!["ops@a.test".into()])), "mailto:ops@example.org"),
            (Box::new(|s| s.acme_directory = Some("http://a.test/dir".into())), "https://HOST/PATH"),
            (Box::new(|s| s.acme_domain = None), "without --acme-domain"),
        ] {
            let error = resolve(|s| {
                ordered(s);
                change(s);
            });
            let error = error.unwrap_err();
            assert!(error.starts_with("--acme-") && error.contains(why), "{error}");
        }
        let error = resolve(|s| s.acme_directory = Some("https://u:hunter2@a.test/dir".into())).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn each_authority_has_a_directory_of_its_own() {
        let of = |url: &'static str| {
            let directory = Uri::from_static(url);
            Acme { domains: vec![], directory, contact: vec![], ca: None, dir: "acme".into() }.authority_dir()
        };
        assert_eq!(of(ACME_DIRECTORY), std::path::Path::new("acme/acme-v02.api.letsencrypt.org_directory"));
        assert_eq!(of("https://[::1]:14000/../dir"), std::path::Path::new("acme/___1__14000_.._dir"));
    }

    #[test]
    fn origins_are_what_browsers_send() {
        for (typed, sent) in [
            ("https://App.example.org", "https://app.example.org"),
            ("https://app.example.org:443", "https://app.example.org"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[::1]", "http://[::1]"),
            ("tauri://localhost", "tauri://localhost"),
            ("null", "null"),
        ] {
            assert_eq!(origin(typed).as_deref(), Some(sent));
        }
        for bad in [
            "*",
            "",
            "app.example.org",
            "https://",
            "https://a.example/",
            "https://*.example",
            "https://u@a.example",
            "https://a.example:",
            "https://a.example:99999",
            "://a",
            "https://a example",
        ] {
            assert_eq!(origin(bad), None, "{bad}");
        }
    }
}
