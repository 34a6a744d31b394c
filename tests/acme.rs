//! Certificates by ACME, from Debian's pebble: had, renewed, missed, and kept from one start to the next.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use wigwag::client::{Connection, Endpoint, Event, Http1, Trust, Via};
use wigwag::protocol::RoomName;

use crate::cli::{Shell, contains, signal};
use crate::support::{authority, shown_by_quic, shown_by_tcp, within};

/// In seconds, as long as a first certificate must last that is to be renewed while the test looks on.
const SHORT: u64 = 9;
const LONG: u64 = 90 * 86_400;

/// Where an authority is, whether it runs or not, and the CA that signs for it.
struct Place {
    dir: TempDir,
    port: u16,
    management: u16,
}

/// An authority that runs. It has forgotten everything that an earlier one at its place knew.
struct Pebble {
    child: Child,
    /// Trusts what it issues.
    trust: Trust,
}

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new([]).expect("no names");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let write = |name: &str, text: String| fs::write(dir.path().join(name), text).expect("written");
        write("ca.pem", ca.self_signed(&ca_key).expect("signed").pem());
        let key = KeyPair::generate().expect("a key");
        let own = CertificateParams::new(["127.0.0.1".into()]).expect("a name");
        write("cert.pem", own.signed_by(&key, &Issuer::new(ca, ca_key)).expect("signed").pem());
        write("key.pem", key.serialize_pem());
        Place { port: free_port(), management: free_port(), dir }
    }

    fn ca(&self) -> String {
        self.dir.path().join("ca.pem").to_str().expect("UTF-8").to_owned()
    }

    /// What orders certificates of it for `localhost`.
    fn flags(&self) -> Vec<String> {
        let directory = format!("https://127.0.0.1:{}/dir", self.port);
        let flags =
            ["--acme-domain", "localhost", "--acme-agree", "--acme-directory", &directory, "--acme-ca", &self.ca()];
        flags.map(str::to_owned).to_vec()
    }

    /// Starts the authority. It asks names at `port`, and what it issues is good for so many seconds.
    async fn start(&self, port: u16, seconds: u64) -> Pebble {
        let config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": "cert.pem",
            "privateKey": "key.pem",
            "httpPort": 1,
            "tlsPort": port,
            "certificateValidityPeriod": seconds,
        }});
        fs::write(self.dir.path().join("pebble.json"), config.to_string()).expect("written");
        let mut command = Command::new("pebble");
        command.args(["-config", "pebble.json"]).current_dir(self.dir.path());
        // It asks at once, each time, and makes no difficulties by chance.
        command.envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0"), ("PEBBLE_WFE_NONCEREJECT", "0")]);
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("pebble is installed; scripts/test installs it");
        let mut said = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        hear(&mut said, "ACME directory available").await;
        listening(self.management).await;
        listening(self.port).await;
        // It must not stop because nobody reads what it says.
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
        Pebble { child, trust: self.root().await }
    }

    /// Its root is made anew at each start.
    async fn root(&self) -> Trust {
        let tls = Trust::new(authority(self.ca().as_ref()), vec![]).expect("TLS 1.3").tls;
        let endpoint = Endpoint { encrypted: true, host: "127.0.0.1".into(), port: self.management };
        let mut connection = within(Http1::connect(&endpoint, &tls)).await.expect("pebble answers");
        let root = within(connection.request(Method::GET, "/roots/0", &HeaderMap::new())).await.expect("its root");
        let path = self.dir.path().join("root.pem");
        fs::write(&path, root.body()).expect("written");
        Trust::new(authority(&path), vec![]).expect("TLS 1.3")
    }
}

impl Pebble {
    async fn kill(mut self) -> Self {
        within(self.child.kill()).await.expect("a child of ours");
        self
    }
}

/// Waits for a line with these words; returns what was said until then.
async fn hear<R: AsyncRead + Unpin>(lines: &mut Lines<BufReader<R>>, words: &str) -> String {
    let mut said = String::new();
    loop {
        let line = within(lines.next_line()).await.expect("UTF-8");
        let Some(line) = line else { panic!("it ended without {words:?}:\n{said}") };
        said += &line;
        if line.contains(words) {
            return said;
        }
        said.push('\n');
    }
}

/// Waits until a program of somebody else's listens, which has no other way to tell.
async fn listening(port: u16) {
    within(async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A server that orders its certificate.
struct Server {
    child: Child,
    _said: Lines<BufReader<ChildStdout>>,
    log: Lines<BufReader<ChildStderr>>,
    secure: SocketAddr,
    admin: u16,
}

impl Server {
    async fn start(shell: &Shell, listen: &str, more: &[String]) -> Self {
        let flags = ["--listen", listen, "--plain", "off", "--admin", "127.0.0.1:0"].map(str::to_owned);
        let mut command = shell.command(&[&flags[..], more].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut said = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let log = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let secure = hear(&mut said, "listening").await;
        let secure = secure.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("an address");
        let admin = hear(&mut said, "admin").await;
        let admin = admin.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        Server { child, _said: said, log, secure, admin: admin.expect("a port") }
    }

    /// Waits until the log says this.
    async fn says(&mut self, words: &str) -> String {
        hear(&mut self.log, words).await
    }

    async fn hang_up(&self) {
        signal(&self.child, "HUP").await;
    }

    async fn stop(mut self) {
        signal(&self.child, "TERM").await;
        assert!(within(self.child.wait()).await.expect("it ends").success());
    }

    /// What the admin listener answers.
    async fn ask(&self, path: &str) -> (u16, String) {
        let endpoint = Endpoint { encrypted: false, host: "127.0.0.1".into(), port: self.admin };
        let tls = Trust::new(rustls::RootCertStore::empty(), vec![]).expect("TLS 1.3").tls;
        let mut connection = within(Http1::connect(&endpoint, &tls)).await.expect("it listens");
        let answer = within(connection.request(Method::GET, path, &HeaderMap::new())).await.expect("an answer");
        (answer.status().as_u16(), String::from_utf8(answer.body().to_vec()).expect("text"))
    }

    async fn has_metrics(&self, lines: &[&str]) {
        let (_, metrics) = self.ask("/metrics").await;
        for line in lines {
            assert!(metrics.lines().any(|known| known == *line), "{line} is not in:\n{metrics}");
        }
    }

    async fn session(&self, via: Via, trust: &Trust) -> Connection {
        let endpoint = Endpoint { encrypted: true, host: "localhost".into(), port: self.secure.port() };
        let room = RoomName::parse("demo").expect("a room's name");
        within(Connection::open(&endpoint, &room, via, trust, &HeaderMap::new())).await.expect("it opens")
    }
}

/// Has a message answered.
async fn talk(session: &mut Connection, message: &str, answer: &str) {
    session.send(message).await.expect("sent");
    while !matches!(within(session.recv()).await.expect("the session goes on"), Event::Message(text) if text.contains(answer))
    {
    }
}

/// A client whose clock stands still, so that it does not matter how long the test takes.
fn still(trust: &Trust) -> ClientConfig {
    #[derive(Debug)]
    struct Still(UnixTime);
    impl TimeProvider for Still {
        fn current_time(&self) -> Option<UnixTime> {
            Some(self.0)
        }
    }
    let mut tls = trust.tls.clone();
    tls.time_provider = Arc::new(Still(UnixTime::now()));
    tls
}

#[tokio::test]
async fn a_certificate_is_had_renewed_in_time_and_missed_without_harm() {
    let (shell, place) = (Shell::new(), Place::new());
    let mut server = Server::start(&shell, "127.0.0.1:0", &place.flags()).await;

    // Nobody there: the server waits, and shows nothing that is no certificate.
    contains(
        &server.says("no certificate could be had").await,
        &["TLS is refused", "asking 127.0.0.1: cannot connect"],
    );
    assert_eq!(server.ask("/readyz").await.0, 503);
    server.has_metrics(&[r#"wigwag_reloads_total{what="acme",outcome="failed"} 1"#]).await;
    let endpoint = Endpoint { encrypted: true, host: "localhost".into(), port: server.secure.port() };
    let anybody = Trust::new(authority(place.ca().as_ref()), vec![]).expect("TLS 1.3");
    assert!(within(Http1::connect(&endpoint, &anybody.tls)).await.is_err());

    // There: the first, for TCP and QUIC.
    let pebble = place.start(server.secure.port(), SHORT).await;
    server.hang_up().await;
    server.says("certificates renewed").await;
    let tls = still(&pebble.trust);
    let first = shown_by_tcp(server.secure, &tls).await;
    // A QUIC endpoint hears of it a moment later.
    within(async { while shown_by_quic(server.secure, &tls).await.as_ref() != Ok(&first) {} }).await;
    assert_eq!(server.ask("/readyz").await, (200, "ready\n".to_owned()));
    let trust = Trust { tls: tls.clone(), hashes: vec![] };
    let mut sessions = vec![];
    for (name, via) in [("0a", Via::WebTransport), ("0b", Via::WebSocketH2)] {
        let mut session = server.session(via, &trust).await;
        talk(
            &mut session,
            &format!(r#"{{"type":"join","id":1,"key":"0011223344556677889900aabbccdd{name}"}}"#),
            r#""type":"joined""#,
        )
        .await;
        sessions.push(session);
    }

    // Gone when the next is due: the first stays.
    pebble.kill().await;
    contains(&server.says("no certificate could be had").await, &["the one in use stays"]);
    assert_eq!(first, shown_by_tcp(server.secure, &tls).await);
    server.has_metrics(&[r#"wigwag_last_reload_successful{what="acme"} 0"#]).await;

    // Back, without any memory of the account: the next, and no session has noticed.
    let pebble = place.start(server.secure.port(), LONG).await;
    server.hang_up().await;
    server.says("certificates renewed").await;
    let second = shown_by_tcp(server.secure, &pebble.trust.tls).await;
    within(async { while shown_by_quic(server.secure, &pebble.trust.tls).await.as_ref() != Ok(&second) {} }).await;
    assert_ne!(first, second);
    for session in &mut sessions {
        talk(session, r#"{"type":"ping","id":2}"#, r#""type":"pong""#).await;
    }
    server
        .has_metrics(&[
            r#"wigwag_reloads_total{what="acme",outcome="failed"} 2"#,
            r#"wigwag_reloads_total{what="acme",outcome="done"} 2"#,
            r#"wigwag_last_reload_successful{what="acme"} 1"#,
        ])
        .await;
    drop(sessions);

    server.stop().await;
    pebble.kill().await;
}

#[tokio::test]
async fn the_next_start_has_what_was_issued_and_orders_names_that_it_lacks() {
    let (shell, place) = (Shell::new(), Place::new());
    let mut server = Server::start(&shell, "127.0.0.1:0", &place.flags()).await;
    server.says("no certificate could be had").await;
    let pebble = place.start(server.secure.port(), LONG).await;
    server.hang_up().await;
    server.says("certificates renewed").await;
    let issued = shown_by_tcp(server.secure, &pebble.trust.tls).await;
    let kept = shell.dir.path().join(format!("acme/127.0.0.1_{}_dir", place.port));
    for file in ["account.json", "certificate.pem"] {
        let mode = fs::metadata(kept.join(file)).expect("it is kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    server.stop().await;
    let Pebble { trust, .. } = pebble.kill().await;

    let mut server = Server::start(&shell, "127.0.0.1:0", &place.flags()).await;
    assert_eq!(server.ask("/readyz").await.0, 200);
    assert_eq!(issued, shown_by_tcp(server.secure, &trust.tls).await);
    server.hang_up().await;
    let said = server.says("certificates read again").await;
    assert!(!said.contains("ordering a certificate"), "{said}");
    server.stop().await;

    let lacking = [place.flags(), vec!["--acme-domain".into(), "second.test".into()]].concat();
    let mut server = Server::start(&shell, "127.0.0.1:0", &lacking).await;
    let said = server.says("no certificate could be had").await;
    contains(&said, &["ordering a certificate", "localhost,second.test", "the one in use stays"]);
    assert_eq!(issued, shown_by_tcp(server.secure, &trust.tls).await);
    server.stop().await;
}

#[tokio::test]
async fn an_authority_that_cannot_ask_is_told_of_with_its_reason() {
    let (shell, place) = (Shell::new(), Place::new());
    // Where nobody answers.
    let pebble = place.start(free_port(), LONG).await;
    let mut server = Server::start(&shell, "127.0.0.1:0", &place.flags()).await;
    let said = server.says("no certificate could be had").await;
    contains(&said, &["error=localhost: Failed to connect", "TLS is refused until there is one"]);
    server.stop().await;
    pebble.kill().await;
}

#[tokio::test]
async fn what_cannot_be_right_is_refused() {
    let shell = Shell::new();
    let ordered = ["--listen", "127.0.0.1:0", "--acme-domain", "localhost"];
    contains(&shell.refused(&ordered).await, &["--acme-domain is localhost", "--acme-agree"]);
    let agreed = [&ordered[..], &["--acme-agree"]].concat();
    contains(&shell.refused(&[&agreed[..], &["--acme-ca", "missing.pem"]].concat()).await, &["--acme-ca missing.pem"]);
    let file = shell.write("file", "no directory");
    contains(&shell.refused(&[&agreed[..], &["--acme-dir", &file]].concat()).await, &["cannot make", "--acme-dir"]);
    let certs = [&agreed[..], &["--cert", "c.pem", "--key", "k.pem"]].concat();
    contains(&shell.refused(&certs).await, &["--cert and --key"]);
}
