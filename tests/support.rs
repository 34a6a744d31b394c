//! A server of the test's own, and ways to reach it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderMap;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use wigwag::client::webtransport::client_config;
use wigwag::client::{Connection, Endpoint, Error, Trust, Via};
use wigwag::config::{CertificateSource, Config, ConnectionLimits, Protocols};
use wigwag::context::Context;
use wigwag::protocol::{Limits, RoomName, WaitingRoom};
use wigwag::server::{Addresses, EssentialTaskEnded, Reloader, Server};

/// A wait that ends with an event; reaching this deadline is a failure, whatever the machine's speed.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it happens in time")
}

/// The configuration that tests begin with: loopback, ports of the system's choosing, development certificates.
pub(crate) fn config() -> Config {
    let loopback = "127.0.0.1:0".parse().expect("an address");
    Config {
        listen: vec![loopback],
        plain: vec![loopback],
        admin: None,
        admin_token: None,
        admin_addresses: false,
        certificate: CertificateSource::Development { dir: certificates_dir(), names: vec![] },
        origins: vec![],
        tokens: None,
        ice: Config::default().ice,
        web: None,
        protocols: Protocols { h3: true, h2: true, tls12: false },
        limits: Limits::default(),
        rooms: 1000,
        connections: ConnectionLimits::default(),
        clients: wigwag::clients::Policy::default(),
        heartbeat: Duration::from_secs(10),
        resume_window: Duration::from_secs(30),
        waiting: WaitingRoom::default(),
        timelines: Config::default().timelines,
        webhook: None,
        otlp: None,
        // Not long: it takes all its time where a poller is still expected.
        drain: Duration::from_secs(1),
        cluster: None,
    }
}

/// One directory for all tests of this process; it stays in the system's temporary directory.
fn certificates_dir() -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| std::env::temp_dir().join(format!("wigwag-test-{}", std::process::id()))).clone()
}

/// The authority whose certificate is in the file `ca`.
pub(crate) fn authority(ca: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a PEM file")).expect("a CA");
    roots
}

/// A server in this process.
pub(crate) struct TestServer {
    pub(crate) addresses: Addresses,
    pub(crate) context: Arc<Context>,
    pub(crate) trust: Trust,
    /// Where the CA is that `trust` trusts.
    pub(crate) ca: PathBuf,
    pub(crate) reloader: Reloader,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), EssentialTaskEnded>>,
}

impl TestServer {
    /// With [`config`].
    pub(crate) async fn start() -> Self {
        Self::start_with(config()).await
    }

    /// With development certificates.
    pub(crate) async fn start_with(config: Config) -> Self {
        let server = Server::load(config).await.expect("the server starts");
        let ca = server.certificates().ca_path().expect("development certificates have a CA").to_owned();
        Self::run(server, ca)
    }

    /// With certificates that the CA in the file `ca` has signed.
    pub(crate) async fn start_signed_by(ca: PathBuf, config: Config) -> Self {
        Self::run(Server::load(config).await.expect("the server starts"), ca)
    }

    fn run(server: Server, ca: PathBuf) -> Self {
        let hashes = server.certificates().hashes().borrow().clone();
        let (stop, stopped) = oneshot::channel();
        TestServer {
            addresses: server.addresses().clone(),
            context: Arc::clone(server.context()),
            trust: Trust::new(authority(&ca), hashes).expect("TLS 1.3"),
            ca,
            reloader: server.reloader(),
            stop: Some(stop),
            running: tokio::spawn(server.run(async { stopped.await.unwrap_or(()) }, std::future::pending())),
        }
    }

    /// Where TLS and QUIC are.
    pub(crate) fn secure(&self) -> Endpoint {
        Endpoint { encrypted: true, host: "127.0.0.1".into(), port: self.addresses.secure[0].port() }
    }

    /// Where plaintext HTTP is.
    pub(crate) fn plain(&self) -> Endpoint {
        Endpoint { encrypted: false, host: "127.0.0.1".into(), port: self.addresses.plain[0].port() }
    }

    /// Whether a line of the metrics is this one.
    pub(crate) fn metric(&self, line: &str) -> bool {
        self.context.metrics.population(&self.context.hub.census());
        self.context.metrics.encode().expect("text").lines().any(|known| known == line)
    }

    pub(crate) async fn connect(&self, via: Via, room: &str) -> Connection {
        self.try_connect(via, room, &HeaderMap::new()).await.expect("the transport opens")
    }

    pub(crate) async fn try_connect(&self, via: Via, room: &str, headers: &HeaderMap) -> Result<Connection, Error> {
        let room = RoomName::parse(room).expect("a room name");
        within(Connection::open(&self.secure(), &room, via, &self.trust, headers)).await
    }

    /// Has the server drain as SIGTERM would.
    pub(crate) fn begin_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Shuts the server down as SIGTERM would, and waits until it is gone.
    pub(crate) async fn stop(mut self) {
        self.begin_to_stop();
        within(self.running).await.expect("no panic").expect("the server stops in order");
    }
}

/// The certificate that a new client of TCP is shown as `localhost`.
pub(crate) async fn shown_by_tcp(address: SocketAddr, tls: &ClientConfig) -> CertificateDer<'static> {
    let mut tls = tls.clone();
    tls.resumption = Resumption::disabled();
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = within(TlsConnector::from(Arc::new(tls)).connect(name, stream)).await.expect("TLS");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone()
}

/// The certificate that a new client of QUIC is shown as `localhost`.
pub(crate) async fn shown_by_quic(
    address: SocketAddr,
    tls: &ClientConfig,
) -> Result<CertificateDer<'static>, quinn::ConnectionError> {
    let mut tls = tls.clone();
    tls.resumption = Resumption::disabled();
    let trust = Trust { tls, hashes: vec![] };
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let config = client_config(&trust).expect("QUIC's cipher suites");
    let connecting = endpoint.connect_with(config, address, "localhost").expect("a name");
    let connection = within(connecting).await?;
    let chain: Box<Vec<CertificateDer<'static>>> =
        connection.peer_identity().expect("a certificate").downcast().expect("a chain");
    Ok(chain[0].clone())
}
