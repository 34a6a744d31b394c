//! `wigwag serve` as a process of its own, in the server's namespace.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use http::{HeaderMap, Method};
use rustls::RootCertStore;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use wigwag::client::{Connection, Endpoint, Http1, Trust, Via, certificate_hashes};
use wigwag::protocol::RoomName;

use super::network::{self, Link, PORT};
use crate::support::{authority, within};

const ADMIN_PORT: u16 = 9433;

/// The server; killed with its guard.
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) trust: Trust,
}

impl ServerProcess {
    /// Starts it with `args` beside what makes it listen on both links, and waits until it is ready. Its certificates are those
    /// of the one before.
    pub(crate) async fn start(args: &[&str]) -> Self {
        let dir = network::dir();
        let log = std::fs::File::options().create(true).append(true).open(dir.join("server.log")).expect("a log");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &network::server_namespace(), env!("CARGO_BIN_EXE_wigwag")]);
        command.args(["serve", "--open", "--dev-certs", "--plain", "off", "--admin-exposed"]);
        for link in [Link::Hostile, Link::Calm] {
            command.args(["--listen", &format!("{}:{PORT}", link.server()), "--name", link.server()]);
        }
        command.args(["--admin", &format!("{}:{ADMIN_PORT}", Link::Calm.server())]).args(args);
        command.current_dir(&dir).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("it runs");
        let mut banner = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        while let Some(line) = within(banner.next_line()).await.expect("UTF-8") {
            if line.contains("listening") {
                let trust = trust(&dir.join("certs/ca.pem")).await;
                return ServerProcess { child, trust };
            }
        }
        panic!("the server ended before it was ready; {}/server.log says why", dir.display());
    }

    /// Opens a transport over `link`.
    pub(crate) async fn connect(&self, link: Link, via: Via, room: &str) -> Connection {
        let room = RoomName::parse(room).expect("a room name");
        let headers = super::watcher::short_polls();
        let endpoint = link.endpoint();
        within(Connection::open(&endpoint, &room, via, &self.trust, &headers)).await.expect("the transport opens")
    }

    /// Its metrics as it tells them.
    pub(crate) async fn metrics(&self) -> String {
        metrics_at(&Endpoint { encrypted: false, host: Link::Calm.server().into(), port: ADMIN_PORT }).await
    }

    /// The signal by which it is told to drain and stop.
    pub(crate) async fn terminate(&self) {
        let pid = self.child.id().expect("it runs");
        network::run(&format!("kill -s TERM {pid}")).await;
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        within(self.child.wait()).await.expect("a child of ours")
    }
}

async fn trust(ca: &Path) -> Trust {
    let trust = Trust::new(authority(ca), vec![]).expect("TLS 1.3");
    let mut connection = within(Http1::connect(&Link::Calm.endpoint(), &trust.tls)).await.expect("a connection");
    let headers = HeaderMap::new();
    let discovery = within(connection.request(Method::GET, "/v1/discovery", &headers)).await.expect("a response");
    let discovery = serde_json::from_slice(discovery.body()).expect("JSON");
    Trust { hashes: certificate_hashes(&discovery), ..trust }
}

/// What the admin listener at `admin` tells.
pub(crate) async fn metrics_at(admin: &Endpoint) -> String {
    let trust = Trust::new(RootCertStore::empty(), vec![]).expect("TLS 1.3");
    let mut connection = within(Http1::connect(admin, &trust.tls)).await.expect("a connection");
    let response = within(connection.request(Method::GET, "/metrics", &HeaderMap::new())).await.expect("a response");
    String::from_utf8(response.body().to_vec()).expect("UTF-8")
}

/// The gauges among `metrics` that clients move, those at zero left out: what is there now.
pub(crate) fn gauges(metrics: &str) -> BTreeMap<String, f64> {
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge"));
    // The process itself, its certificates and its version are there whoever else is.
    let clients = ["wigwag_open_", "wigwag_queued_", "wigwag_rooms", "wigwag_seats"];
    let names: Vec<&str> = types.filter(|name| clients.iter().any(|begin| name.starts_with(begin))).collect();
    let values = metrics.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let name = series.split('{').next()?;
        let value: f64 = value.parse().ok()?;
        (names.contains(&name) && value != 0.0).then(|| (series.to_owned(), value))
    });
    values.collect()
}
