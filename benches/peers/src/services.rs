//! The services: how each is started, reached, and which version it is.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::HeaderMap;
use wigwag::bench::process::free_port;
use wigwag::bench::workload::Round;
use wigwag::bench::{Process, Wigwag};
use wigwag::client::Via;

use crate::clients::Target;
use crate::clients::raw::{RawQuic, RawTls};
use crate::kit::Kit;
use crate::workload::{Amount, Workload};

/// A server must let somebody in within this time of its start.
const START: Duration = Duration::from_secs(20);
/// Whoever is not let in by then tries again: a packet to a port where nobody listens yet is answered by nobody.
const TRY: Duration = Duration::from_millis(500);
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// A server, spoken to in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    RawTls,
    RawQuic,
    Wigwag(Via),
}

impl Service {
    /// All, as they stand in the table.
    pub(crate) const ALL: &[Service] = &[
        Service::RawTls,
        Service::Wigwag(Via::WebSocketH1),
        Service::Wigwag(Via::WebSocketH2),
        Service::RawQuic,
        Service::Wigwag(Via::WebSocketH3),
        Service::Wigwag(Via::WebTransport),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Service::RawTls => "raw-tls",
            Service::RawQuic => "raw-quic",
            Service::Wigwag(Via::WebSocketH1) => "wigwag-websocket-h1",
            Service::Wigwag(Via::WebSocketH2) => "wigwag-websocket-h2",
            Service::Wigwag(Via::WebSocketH3) => "wigwag-websocket-h3",
            Service::Wigwag(Via::WebTransport) => "wigwag-webtransport",
            Service::Wigwag(other) => other.name(),
        }
    }

    /// What it is, for people.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Service::RawTls => "relay over TLS that knows nothing (tokio, rustls)",
            Service::RawQuic => "relay over QUIC that knows nothing (tokio, quinn)",
            Service::Wigwag(Via::WebSocketH1) => "wigwag, WebSocket over HTTP/1.1",
            Service::Wigwag(Via::WebSocketH2) => "wigwag, WebSocket over HTTP/2",
            Service::Wigwag(Via::WebSocketH3) => "wigwag, WebSocket over HTTP/3",
            Service::Wigwag(Via::WebTransport) => "wigwag, WebTransport",
            Service::Wigwag(_) => "wigwag",
        }
    }

    /// What it is compared with.
    pub(crate) fn yardstick(self) -> Service {
        match self {
            Service::RawQuic | Service::Wigwag(Via::WebTransport | Via::WebSocketH3) => Service::RawQuic,
            _ => Service::RawTls,
        }
    }

    /// Whether a word of the command line means it: its name, or what that begins with.
    pub(crate) fn is_meant_by(self, word: &str) -> bool {
        self.name().strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// The version of what is measured, or why it cannot be.
    pub(crate) fn version(self, kit: &Kit) -> Result<String> {
        match self {
            Service::RawTls => locked(kit, &["tokio", "tokio-rustls", "rustls"]),
            Service::RawQuic => locked(kit, &["tokio", "quinn", "rustls"]),
            Service::Wigwag(_) => said(Command::new(&kit.wigwag).arg("--version")),
        }
    }

    fn command(self, kit: &Kit, port: u16) -> Command {
        let mut command = match self {
            Service::RawTls | Service::RawQuic => Command::new(kit.built.join(self.name())),
            Service::Wigwag(_) => return wigwag(kit, port),
        };
        command.arg(port.to_string()).arg(kit.cert()).arg(kit.key());
        command
    }

    fn client(self, target: Target) -> Client {
        match self {
            Service::RawTls => Client::RawTls(RawTls(target)),
            Service::RawQuic => Client::RawQuic(RawQuic(target)),
            Service::Wigwag(via) => Client::Wigwag(Wigwag {
                endpoint: target.endpoint(),
                trust: target.trust,
                via,
                headers: HeaderMap::new(),
            }),
        }
    }

    /// Starts the server on a processor of its own; done when it lets clients in.
    ///
    /// # Errors
    /// If it ends, or lets nobody in.
    pub(crate) async fn start(self, kit: &Kit) -> Result<Running> {
        let port = free_port()?;
        let mut process = Process::start(&mut self.command(kit, port))?;
        let client = self.client(Target::new(port, kit.roots())?);
        let started = tokio::time::Instant::now();
        loop {
            let refused = match tokio::time::timeout(TRY, client.visit()).await {
                Ok(Ok(())) => return Ok(Running { process, client }),
                Ok(Err(error)) => error.context("it lets nobody in"),
                Err(_) => anyhow::anyhow!("it does not answer"),
            };
            process.check()?;
            if started.elapsed() > START {
                return Err(refused);
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }
}

/// As `wigwag bench` starts it: without the limits that the load is above.
fn wigwag(kit: &Kit, port: u16) -> Command {
    let mut command = Command::new(&kit.wigwag);
    command.args(["serve", "--plain", "off", "--admin", "off", "--log", "error"]);
    command.args(["--listen", &format!("127.0.0.1:{port}"), "--cert"]).arg(kit.cert()).arg("--key").arg(kit.key());
    command.args(["--rate", "1000000", "--burst", "1000000", "--sessions-per-second", "1000000"]);
    command.args(["--max-peers", "10000", "--max-connections", "1000000"]);
    command
}

/// The first line that a program prints.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{} is not there", command.get_program().display()))?;
    let line = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned();
    if output.status.success() { Ok(line) } else { bail!("{} does not run", command.get_program().display()) }
}

/// Versions of crates in the lock file here.
fn locked(kit: &Kit, crates: &[&str]) -> Result<String> {
    let path = kit.sources.join("Cargo.lock");
    let lock = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let version = |name: &&str| {
        let entry = format!("name = \"{name}\"\nversion = \"");
        let version = lock.split_once(&entry).and_then(|(_, rest)| rest.split('"').next());
        version.map(|version| format!("{name} {version}")).with_context(|| format!("{name} is not in Cargo.lock"))
    };
    Ok(crates.iter().map(version).collect::<Result<Vec<_>>>()?.join(", "))
}

/// Every kind of load.
#[derive(Debug, Clone)]
enum Client {
    RawTls(RawTls),
    RawQuic(RawQuic),
    Wigwag(Wigwag),
}

/// Does the same with whatever client it is.
macro_rules! with_client {
    ($client:expr, $service:ident => $do:expr) => {
        match $client {
            Client::RawTls($service) => $do,
            Client::RawQuic($service) => $do,
            Client::Wigwag($service) => $do,
        }
    };
}

impl Client {
    /// Enters a room and leaves it.
    async fn visit(&self) -> Result<()> {
        async fn visit<S: wigwag::bench::Service>(service: &S) -> Result<()> {
            wigwag::bench::Peer::leave(service.join("ready").await?).await
        }
        with_client!(self, service => visit(service).await)
    }
}

/// A server that lets clients in.
pub(crate) struct Running {
    process: Process,
    client: Client,
}

impl Running {
    pub(crate) async fn round(&self, workload: Workload, amount: Amount) -> Result<Round> {
        with_client!(&self.client, service => workload.round(amount, service, &self.process).await)
    }
}

/// The services that are named, in their own order.
///
/// # Errors
/// If a word means none.
pub(crate) fn named(words: &[String]) -> Result<Vec<Service>> {
    for word in words {
        if !Service::ALL.iter().any(|service| service.is_meant_by(word)) {
            bail!("there is no service {word}; --list shows them");
        }
    }
    let meant = |service: &&Service| words.is_empty() || words.iter().any(|word| service.is_meant_by(word));
    Ok(Service::ALL.iter().filter(meant).copied().collect())
}

/// Where this package lies.
pub(crate) fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
