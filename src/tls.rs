//! Certificates: the operator's own, issued by an authority, or made here for development; served, announced and renewed while the
//! server runs.
//!
//! In development there are three: a CA to be trusted once, a TLS certificate signed by it for TCP, and a short-lived one, signed
//! by it as well, for QUIC, which WebTransport accepts by its hash without any trust put in. An operator's certificate serves
//! both, and so does one that was ordered by ACME, of which there is none at first. [`Certificates`] holds what listeners and discovery need, always up to date; [`Renewal`] keeps it so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

mod challenge;
mod credential;
mod development;
mod facts;
mod issued;
mod make;
mod plan;
mod production;
mod server_config;
#[cfg(test)]
mod tests;

pub use challenge::{Answering, Challenges};
use credential::{Credential, sha256};
use development::{Directory, Held};
pub use facts::Facts;
use issued::Issued;
use production::{KeyPairFiles, Stamp};
use server_config::ConfigMaker;

use crate::config::{CertificateSource, Protocols};
use crate::error::StartError;
use crate::metrics::{Listener, Metrics, Reloaded};

/// Names for which development certificates are always made.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// How often files and dates are looked at. The system's clock is read each time: a sleep of weeks would not notice that
/// the machine was suspended or its clock set.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// SHA-256 hashes of the certificates that QUIC serves: now, and next.
pub type Hashes = Vec<[u8; 32]>;

/// The server's certificates as listeners, discovery and the banner see them.
#[derive(Debug, Clone)]
pub struct Certificates {
    names: Vec<String>,
    ca_path: Option<PathBuf>,
    entries: Vec<Entry>,
    hashes: watch::Receiver<Hashes>,
    verifiable: watch::Receiver<bool>,
    tcp: watch::Receiver<Arc<ServerConfig>>,
    quic: watch::Receiver<Arc<ServerConfig>>,
    shown: watch::Receiver<Option<Facts>>,
    challenges: Option<Challenges>,
    asked: mpsc::Sender<(Look, Answer)>,
}

/// To whoever has asked for something else to be used.
type Answer = oneshot::Sender<Result<(), StartError>>;

/// One certificate, for people to read.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is for.
    pub role: Role,
    /// The file that holds it.
    pub path: PathBuf,
    /// What it says of itself.
    pub facts: Facts,
    /// SHA-256 of its DER form.
    pub sha256: [u8; 32],
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The operator's own or issued by an authority, for TCP and QUIC.
    Server,
    /// Signs the development TLS certificate; the one to be trusted.
    DevelopmentCa,
    /// TLS over TCP.
    DevelopmentTls,
    /// QUIC, served now.
    WebTransport,
    /// QUIC, announced already and served later.
    WebTransportNext,
}

/// Keeps [`Certificates`] up to date.
#[derive(Debug)]
pub struct Renewal {
    source: Source,
    maker: ConfigMaker,
    hashes: watch::Sender<Hashes>,
    verifiable: watch::Sender<bool>,
    tcp: watch::Sender<Arc<ServerConfig>>,
    quic: watch::Sender<Arc<ServerConfig>>,
    shown: watch::Sender<Option<Facts>>,
    asked: mpsc::Receiver<(Look, Answer)>,
}

/// Why the files are looked at. No `Debug`: a private key may be in it.
#[derive(PartialEq, Eq)]
enum Look {
    /// It is time: they are read if they look changed.
    Due,
    /// Somebody asked: they are read whatever they look like.
    Asked,
    /// An authority has issued this chain, whose key is with it.
    Issued(String),
}

#[derive(Debug)]
enum Source {
    Production { files: KeyPairFiles, stamp: Stamp, credential: Box<Credential>, warned: OffsetDateTime },
    Issued(Issued),
    Development { directory: Directory, held: Box<Held> },
}

impl Certificates {
    /// Reads the certificates, in development also makes what is missing or due. Reads and writes files.
    ///
    /// # Errors
    /// Files that cannot be read, written or used, in one line each.
    pub fn load(source: &CertificateSource, protocols: Protocols) -> Result<(Certificates, Renewal), StartError> {
        Self::load_at(source, protocols, OffsetDateTime::now_utc())
    }

    fn load_at(
        source: &CertificateSource,
        protocols: Protocols,
        now: OffsetDateTime,
    ) -> Result<(Certificates, Renewal), StartError> {
        let maker = ConfigMaker::new(protocols, matches!(source, CertificateSource::Acme(_)))?;
        let source = Source::load(source, &maker, now)?;
        let (hashes, hashes_seen) = watch::channel(source.hashes());
        let (verifiable, verifiable_seen) = watch::channel(source.is_quic_verifiable());
        let (tcp, tcp_seen) = watch::channel(maker.tcp(certified(source.for_tcp())));
        let (quic, quic_seen) = watch::channel(maker.quic(certified(source.for_quic())));
        let (shown, shown_seen) = watch::channel(source.facts());
        // Whoever asks while somebody else is waiting for an answer waits behind them.
        let (ask, asked) = mpsc::channel(1);
        let certificates = Certificates {
            names: source.names(),
            ca_path: source.ca_path(),
            entries: source.entries(),
            hashes: hashes_seen,
            verifiable: verifiable_seen,
            tcp: tcp_seen,
            quic: quic_seen,
            shown: shown_seen,
            challenges: maker.challenges.clone(),
            asked: ask,
        };
        Ok((certificates, Renewal { source, maker, hashes, verifiable, tcp, quic, shown, asked }))
    }

    /// The server's own names and addresses, wildcards left out, the ones asked for first: what its own origins and URLs are
    /// made of. They are those of the start; a renewed certificate with others needs a restart.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// SHA-256 hashes of QUIC's certificates, the one served now first; empty with an operator's own certificate. A hash
    /// is there days before its certificate is served.
    pub fn hashes(&self) -> watch::Receiver<Hashes> {
        self.hashes.clone()
    }

    /// Whether who trusts the issuer, the operator's or the development CA, can verify QUIC's certificate without its hash.
    pub fn verifiable(&self) -> watch::Receiver<bool> {
        self.verifiable.clone()
    }

    /// TLS for TCP: ALPN h2 (unless switched off) and http/1.1, 0-RTT off.
    pub fn tcp(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.tcp.clone()
    }

    /// TLS for QUIC: ALPN h3, TLS 1.3 only, 0-RTT off.
    pub fn quic(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.quic.clone()
    }

    /// What the certificate for TCP says of itself; `None` until an authority has issued the first.
    pub fn shown(&self) -> watch::Receiver<Option<Facts>> {
        self.shown.clone()
    }

    /// What answers an authority; `None` where nothing is ordered by ACME.
    pub fn challenges(&self) -> Option<&Challenges> {
        self.challenges.as_ref()
    }

    /// Has the files read again now, whether they look changed or not, and waits until that is done. What is in use stays where
    /// they cannot be used. Connections that are open notice nothing, the next one over TCP sees what was read, and a QUIC
    /// endpoint hears of it a moment later.
    ///
    /// # Errors
    /// What is wrong with the files, which is logged and counted as well; or that the server has ended.
    pub async fn read_again(&self) -> Result<(), StartError> {
        self.ask(Look::Asked).await
    }

    /// Keeps and serves a certificate chain that an authority has issued, in PEM with its key, as [`read_again`](Self::read_again)
    /// does with files.
    ///
    /// # Errors
    /// What is wrong with it, or with the directory that it is kept in; or that the server has ended.
    pub async fn install(&self, pem: String) -> Result<(), StartError> {
        self.ask(Look::Issued(pem)).await
    }

    async fn ask(&self, look: Look) -> Result<(), StartError> {
        let ended = || StartError::new("the server has ended");
        let (answer, answered) = oneshot::channel();
        self.asked.send((look, answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// Whether the certificates were made here.
    pub fn is_development(&self) -> bool {
        self.ca_path.is_some()
    }

    /// The development CA's certificate.
    pub fn ca_path(&self) -> Option<&Path> {
        self.ca_path.as_deref()
    }

    /// Every certificate as it was loaded.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

impl Renewal {
    /// Looks at files and dates once a minute, and when asked to, for ever: drop the future to end it. What goes wrong is logged
    /// and counted, what was served goes on being served, and the next look tries again.
    pub async fn run(mut self, metrics: Metrics) {
        self.tell_validity(&metrics);
        loop {
            let (look, answer) = tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => (Look::Due, None),
                Some((look, answer)) = self.asked.recv() => (look, Some(answer)),
            };
            // Files may lie on a slow disk. The state comes back with the answer, or is lost to a panic, which is not survived.
            let Ok((renewal, looked)) = tokio::task::spawn_blocking(move || {
                let looked = self.look(look, OffsetDateTime::now_utc());
                (self, looked)
            })
            .await
            else {
                return;
            };
            self = renewal;
            match &looked {
                Ok(false) => {}
                Ok(true) => {
                    self.tell_validity(&metrics);
                    metrics.reloaded(Reloaded::Certificates, true);
                }
                Err(_) => metrics.reloaded(Reloaded::Certificates, false),
            }
            if let Some(answer) = answer {
                // Nobody has to wait for it.
                let _ = answer.send(looked.map(drop));
            }
        }
    }

    /// Returns whether anything was read or made.
    fn look(&mut self, look: Look, now: OffsetDateTime) -> Result<bool, StartError> {
        let before = self.source.served();
        let looked = self.source.refresh(look, &self.maker, now);
        match &looked {
            Ok(false) => {}
            Ok(true) => {
                self.publish();
                let expires = self.source.facts().map(|facts| facts.not_after);
                let told =
                    if self.source.served() == before { "certificates read again" } else { "certificates renewed" };
                info!(expires = expires.map(tracing::field::display), "{told}");
            }
            Err(error) => warn!(%error, "cannot renew the certificates; those in use stay"),
        }
        looked
    }

    fn tell_validity(&self, metrics: &Metrics) {
        for (listener, credential) in [(Listener::Tls, self.source.for_tcp()), (Listener::Quic, self.source.for_quic())]
        {
            if let Some(credential) = credential {
                let [start, end] =
                    [credential.facts.not_before, credential.facts.not_after].map(OffsetDateTime::unix_timestamp);
                metrics.certificate_is_valid(listener, start, end);
            }
        }
    }

    /// The new hashes come last: they no longer hold the certificate that was served before.
    fn publish(&self) {
        self.tcp.send_replace(self.maker.tcp(certified(self.source.for_tcp())));
        self.quic.send_replace(self.maker.quic(certified(self.source.for_quic())));
        self.shown.send_replace(self.source.facts());
        self.verifiable.send_replace(self.source.is_quic_verifiable());
        self.hashes.send_replace(self.source.hashes());
    }
}

impl Source {
    fn load(source: &CertificateSource, maker: &ConfigMaker, now: OffsetDateTime) -> Result<Source, StartError> {
        match source {
            CertificateSource::Files { cert, key, names } => {
                let files = KeyPairFiles { cert: cert.clone(), key: key.clone(), names: names.clone() };
                // The stamp is taken first: what changes while it is read is read again.
                let stamp = files.stamp();
                let credential = Box::new(files.load(&maker.provider)?);
                production::warn_of_dates(cert, &credential, now);
                Ok(Source::Production { files, stamp, credential, warned: now })
            }
            CertificateSource::Acme(acme) => Ok(Source::Issued(Issued::load(acme, &maker.provider)?)),
            CertificateSource::Development { dir, names } => {
                let mut all = names.clone();
                all.extend(LOCAL_NAMES.map(str::to_owned).into_iter().filter(|name| !names.contains(name)));
                let directory = Directory::new(dir.clone(), all);
                let held = Box::new(directory.bring_up_to_date(now, &maker.provider)?);
                Ok(Source::Development { directory, held })
            }
        }
    }

    /// Renews what is due; says whether anything was read or made.
    fn refresh(&mut self, look: Look, maker: &ConfigMaker, now: OffsetDateTime) -> Result<bool, StartError> {
        match self {
            Source::Production { files, stamp, credential, warned } => {
                if now - *warned >= time::Duration::DAY {
                    production::warn_of_dates(&files.cert, credential, now);
                    *warned = now;
                }
                let seen = files.stamp();
                if seen == *stamp && look == Look::Due {
                    return Ok(false);
                }
                let renewed = Box::new(files.load(&maker.provider)?);
                if files.own_names(&renewed) != files.own_names(credential) {
                    warn!("the renewed certificate has other names: restart the server to take them as its own");
                }
                production::warn_of_dates(&files.cert, &renewed, now);
                (*stamp, *credential, *warned) = (seen, renewed, now);
                Ok(true)
            }
            Source::Issued(issued) => match look {
                Look::Due => Ok(false),
                Look::Asked => issued.read(&maker.provider),
                Look::Issued(pem) => issued.install(pem.as_bytes(), &maker.provider).map(|()| true),
            },
            Source::Development { directory, held } => {
                if look == Look::Due && !directory.is_due(held, now) {
                    return Ok(false);
                }
                **held = directory.bring_up_to_date(now, &maker.provider)?;
                Ok(true)
            }
        }
    }

    fn for_tcp(&self) -> Option<&Credential> {
        match self {
            Source::Production { credential, .. } => Some(credential),
            Source::Issued(issued) => issued.credential(),
            Source::Development { held, .. } => Some(&held.leaf),
        }
    }

    fn for_quic(&self) -> Option<&Credential> {
        match self {
            Source::Production { credential, .. } => Some(credential),
            Source::Issued(issued) => issued.credential(),
            Source::Development { held, .. } => Some(&held.present),
        }
    }

    fn facts(&self) -> Option<Facts> {
        self.for_tcp().map(|credential| credential.facts.clone())
    }

    /// What clients are shown, over TCP and over QUIC.
    fn served(&self) -> [Option<[u8; 32]>; 2] {
        [self.for_tcp(), self.for_quic()].map(|credential| credential.map(|credential| sha256(credential.leaf())))
    }

    fn hashes(&self) -> Hashes {
        match self {
            Source::Production { .. } | Source::Issued(_) => Vec::new(),
            Source::Development { held, .. } => vec![sha256(held.present.leaf()), sha256(held.next.leaf())],
        }
    }

    /// Without its key the CA cannot sign, and then QUIC's certificate signs itself.
    fn is_quic_verifiable(&self) -> bool {
        match self {
            Source::Production { .. } | Source::Issued(_) => true,
            Source::Development { held, .. } => {
                held.ca_facts.key_id.is_some() && held.present.facts.issuer_key_id == held.ca_facts.key_id
            }
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Source::Production { files, credential, .. } => files.own_names(credential),
            Source::Issued(issued) => issued.domains().to_vec(),
            Source::Development { directory, .. } => directory.names().to_vec(),
        }
    }

    fn ca_path(&self) -> Option<PathBuf> {
        match self {
            Source::Production { .. } | Source::Issued(_) => None,
            Source::Development { directory, .. } => Some(directory.ca_path()),
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |role, path: PathBuf, credential: &Credential| Entry {
            role,
            path,
            facts: credential.facts.clone(),
            sha256: sha256(credential.leaf()),
        };
        match self {
            Source::Production { files, credential, .. } => vec![entry(Role::Server, files.cert.clone(), credential)],
            Source::Issued(issued) => {
                let entry = |credential| entry(Role::Server, issued.path().to_owned(), credential);
                issued.credential().map(entry).into_iter().collect()
            }
            Source::Development { directory, held } => {
                let [ca, leaf, present, next] = directory.paths();
                vec![
                    Entry {
                        role: Role::DevelopmentCa,
                        path: ca,
                        facts: held.ca_facts.clone(),
                        sha256: sha256(&held.ca),
                    },
                    entry(Role::DevelopmentTls, leaf, &held.leaf),
                    entry(Role::WebTransport, present, &held.present),
                    entry(Role::WebTransportNext, next, &held.next),
                ]
            }
        }
    }
}

fn certified(credential: Option<&Credential>) -> Option<Arc<CertifiedKey>> {
    credential.map(|credential| Arc::clone(&credential.certified))
}
