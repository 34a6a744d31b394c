//! The services: how each is started, reached, and which version it is.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::HeaderMap;
use wigwag::bench::process::free_port;
use wigwag::bench::workload::Round;
use wigwag::bench::{ABOVE_LIMITS, Process, Wigwag};
use wigwag::client::Via;

use crate::clients::Target;
use crate::clients::matchbox::Matchbox;
use crate::clients::nats::Nats;
use crate::clients::peerjs::PeerJs;
use crate::clients::raw::{RawQuic, RawTls};
use crate::clients::relay::Relay;
use crate::clients::socketio::SocketIo;
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
    Uwebsockets,
    Matchbox,
    Nats,
    Socketioxide,
    Ws,
    SocketIo,
    PeerJs,
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
        Service::Uwebsockets,
        Service::Matchbox,
        Service::Socketioxide,
        Service::Nats,
        Service::Ws,
        Service::SocketIo,
        Service::PeerJs,
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
            Service::Uwebsockets => "uwebsockets",
            Service::Matchbox => "matchbox",
            Service::Socketioxide => "socketioxide",
            Service::Nats => "nats",
            Service::Ws => "ws",
            Service::SocketIo => "socket.io",
            Service::PeerJs => "peerjs",
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
            Service::Uwebsockets => "relay on uWebSockets (C++), which does not look at messages",
            Service::Matchbox => "matchbox_signaling (Rust), full mesh",
            Service::Socketioxide => "signaling server on socketioxide (Rust), the protocol of Socket.IO",
            Service::Nats => "NATS (Go) over its WebSocket, a subject for each room and member",
            Service::Ws => "relay on ws (Node), which does not look at messages",
            Service::SocketIo => "signaling server on Socket.IO (Node)",
            Service::PeerJs => "PeerJS's own server (Node)",
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
            Service::Matchbox => locked(kit, &["matchbox_signaling", "axum", "rustls"]),
            Service::Socketioxide => locked(kit, &["socketioxide", "axum", "rustls"]),
            Service::Nats => Ok(said(Command::new("nats-server").arg("--version"))?.replace(": v", " ")),
            Service::Uwebsockets => uwebsockets(kit),
            Service::Ws => node(kit, &["ws"]),
            Service::SocketIo => node(kit, &["socket.io", "ws"]),
            Service::PeerJs => node(kit, &["peer", "ws"]),
        }
    }

    fn command(self, kit: &Kit, port: u16) -> Result<Command> {
        let script = |file| {
            let mut command = Command::new("node");
            command.arg(kit.sources.join("servers").join(file));
            command
        };
        let mut command = match self {
            Service::RawTls | Service::RawQuic | Service::Uwebsockets | Service::Matchbox | Service::Socketioxide => {
                Command::new(kit.built.join(self.name()))
            }
            Service::Ws => script("ws.mjs"),
            Service::SocketIo => script("socketio.mjs"),
            Service::PeerJs => script("peerjs.mjs"),
            Service::Wigwag(_) => return Ok(wigwag(kit, port)),
            Service::Nats => return nats(kit, port),
        };
        command.arg(port.to_string()).arg(kit.cert()).arg(kit.key());
        Ok(command)
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
            Service::Uwebsockets | Service::Ws => Client::Relay(Relay(target)),
            Service::Socketioxide | Service::SocketIo => Client::SocketIo(SocketIo(target)),
            Service::PeerJs => Client::PeerJs(PeerJs::new(target)),
            Service::Matchbox => Client::Matchbox(Matchbox::new(target)),
            Service::Nats => Client::Nats(Nats(target)),
        }
    }

    /// Starts the server on a processor of its own; done when it lets clients in.
    ///
    /// # Errors
    /// If it ends, or lets nobody in.
    pub(crate) async fn start(self, kit: &Kit) -> Result<Running> {
        let port = free_port()?;
        let mut process = Process::start(&mut self.command(kit, port)?)?;
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
    command.args(ABOVE_LIMITS);
    command
}

/// A server for clients over WebSocket alone; its port for others is one that nobody knows.
fn nats(kit: &Kit, port: u16) -> Result<Command> {
    let (cert, key) = (kit.cert(), kit.key());
    let config = format!(
        r#"
        host: "127.0.0.1"
        port: -1
        websocket {{
            host: "127.0.0.1"
            port: {port}
            tls {{ cert_file: "{}", key_file: "{}" }}
        }}
        "#,
        cert.display(),
        key.display()
    );
    let path = kit.dir().join(format!("nats-{port}.conf"));
    std::fs::write(&path, config)?;
    let mut command = Command::new("nats-server");
    // It logs to standard error what is of no interest here, unless it fails.
    command.arg("--config").arg(path).arg("--log").arg(kit.dir().join(format!("nats-{port}.log")));
    Ok(command)
}

/// Node and packages that npm has installed.
fn node(kit: &Kit, packages: &[&str]) -> Result<String> {
    let mut versions = vec![format!("node {}", said(Command::new("node").arg("--version"))?.trim_start_matches('v'))];
    for package in packages {
        let path = kit.sources.join("node_modules").join(package).join("package.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{package} is not installed"))?;
        let package_json: serde_json::Value = serde_json::from_str(&text)?;
        versions.push(format!("{package} {}", package_json["version"].as_str().unwrap_or("?")));
    }
    Ok(versions.join(", "))
}

/// Built with the library inside a Python package, which the script that has installed it names.
fn uwebsockets(kit: &Kit) -> Result<String> {
    let program = kit.built.join(Service::Uwebsockets.name());
    anyhow::ensure!(program.exists(), "{} is not built", program.display());
    let wanted = std::fs::read_to_string(kit.sources.join("requirements.txt"))?;
    let version = wanted.lines().find_map(|line| line.strip_prefix("socketify==")?.split(' ').next());
    Ok(format!("uWebSockets as in socketify {}", version.context("requirements.txt names no socketify")?))
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
    Relay(Relay),
    SocketIo(SocketIo),
    PeerJs(PeerJs),
    Matchbox(Matchbox),
    Nats(Nats),
}

/// Does the same with whatever client it is.
macro_rules! with_client {
    ($client:expr, $service:ident => $do:expr) => {
        match $client {
            Client::RawTls($service) => $do,
            Client::RawQuic($service) => $do,
            Client::Wigwag($service) => $do,
            Client::Relay($service) => $do,
            Client::SocketIo($service) => $do,
            Client::PeerJs($service) => $do,
            Client::Matchbox($service) => $do,
            Client::Nats($service) => $do,
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
