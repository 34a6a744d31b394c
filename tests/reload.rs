//! What is read again while the server runs, and that nobody's session notices.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderMap;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use wigwag::client::{Connection, Event, Via};
use wigwag::config::{CertificateSource, Config};
use wigwag::ice::Policy;
use wigwag::secret::SecretSource;

#[cfg(unix)]
use crate::cli::{FREE, Shell, signal};
use crate::support::{TestServer, config, shown_by_quic, shown_by_tcp, within};

/// A certificate authority, and the pair of files that it issues certificates into.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).expect("signed").pem()).expect("written");
        let authority = Authority { dir, issuer: Issuer::new(params, key) };
        authority.issue();
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a new certificate, with a new key, in the place of the last; returns it.
    fn issue(&self) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".into(), "127.0.0.1".into()]).expect("names");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        fs::write(self.path("key.pem"), key.serialize_pem()).expect("written");
        private(&self.path("key.pem"));
        fs::write(self.path("cert.pem"), certificate.pem()).expect("written");
        certificate.der().clone()
    }

    async fn server(&self) -> TestServer {
        let certificate =
            CertificateSource::Files { cert: self.path("cert.pem"), key: self.path("key.pem"), names: vec![] };
        let mut config = Config { certificate, ..config() };
        (config.limits.messages_per_second, config.limits.burst) = (1_000_000, 1_000_000);
        TestServer::start_signed_by(self.path("ca.pem"), config).await
    }
}

#[cfg(unix)]
fn private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the test's own file");
}

#[cfg(not(unix))]
fn private(_: &std::path::Path) {}

/// The next message of this type on a session that must not end.
async fn hear(session: &mut Connection, wanted: &str) -> Value {
    loop {
        match within(session.recv()).await.expect("the session goes on") {
            Event::Message(text) => {
                let message: Value = serde_json::from_str(&text).expect("JSON");
                if message["type"] == wanted {
                    return message;
                }
            }
            other => panic!("no {wanted} but {other:?}"),
        }
    }
}

/// Two who talk over one transport, each message answered for before the next.
struct Talk {
    alice: Connection,
    bob: Connection,
}

impl Talk {
    async fn begin(server: &TestServer, via: Via) -> Self {
        let mut pair = Vec::new();
        for _ in 0..2 {
            let mut session = server.try_connect(via, via.name(), &HeaderMap::new()).await.expect("it opens");
            session.send(r#"{"type":"join"}"#).await.expect("sent");
            hear(&mut session, "joined").await;
            pair.push(session);
        }
        let (Some(bob), Some(alice)) = (pair.pop(), pair.pop()) else { panic!("there are two") };
        Talk { alice, bob }
    }

    async fn go_on(mut self, over: Arc<AtomicBool>, said: watch::Sender<u64>) {
        let mut number = 0;
        while !over.load(Ordering::Relaxed) {
            number += 1;
            let message = json!({ "type": "message", "id": number, "data": number });
            self.alice.send(&message.to_string()).await.expect("sent");
            assert_eq!(hear(&mut self.bob, "message").await["data"], number, "each once and in order");
            assert_eq!(hear(&mut self.alice, "ok").await["id"], number);
            said.send_modify(|said| *said += 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_new_certificates_are_shown_to_new_clients_and_no_session_notices() {
    let authority = Authority::new();
    let server = authority.server().await;
    let (over, (said, mut heard)) = (Arc::new(AtomicBool::new(false)), watch::channel(0));
    let mut talks = JoinSet::new();
    for via in Via::ALL {
        talks.spawn(Talk::begin(&server, via).await.go_on(Arc::clone(&over), said.clone()));
    }
    for _ in 0..100 {
        let (new, before) = (authority.issue(), *heard.borrow());
        server.reloader.read_files().await;
        assert_eq!(shown_by_tcp(server.addresses.secure[0], &server.trust.tls).await, new);
        // The endpoint hears of it in its own time.
        let shown = || shown_by_quic(server.addresses.secure[0], &server.trust.tls);
        within(async { while shown().await.as_ref() != Ok(&new) {} }).await;
        within(heard.wait_for(|said| *said > before)).await.expect("they talk");
    }
    over.store(true, Ordering::Relaxed);
    while let Some(talked) = talks.join_next().await {
        talked.expect("no session was lost");
    }
    assert!(server.metric(r#"wigwag_reloads_total{what="certificates",outcome="done"} 100"#));
    assert!(server.metric(r#"wigwag_reloads_total{what="certificates",outcome="failed"} 0"#));
    server.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_certificate_in_use_and_are_counted() {
    let authority = Authority::new();
    let server = authority.server().await;
    let good = shown_by_tcp(server.addresses.secure[0], &server.trust.tls).await;
    for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        fs::write(authority.path("cert.pem"), broken).expect("written");
        server.reloader.read_files().await;
    }
    fs::remove_file(authority.path("cert.pem")).expect("removed");
    server.reloader.read_files().await;
    assert!(server.metric(r#"wigwag_reloads_total{what="certificates",outcome="failed"} 3"#));
    assert!(server.metric(r#"wigwag_last_reload_successful{what="certificates"} 0"#));
    assert_eq!(shown_by_tcp(server.addresses.secure[0], &server.trust.tls).await, good);
    assert_eq!(shown_by_quic(server.addresses.secure[0], &server.trust.tls).await, Ok(good));

    let new = authority.issue();
    server.reloader.read_files().await;
    assert_eq!(shown_by_tcp(server.addresses.secure[0], &server.trust.tls).await, new);
    assert!(server.metric(r#"wigwag_last_reload_successful{what="certificates"} 1"#));
    server.stop().await;
}

#[tokio::test]
async fn the_metrics_tell_since_and_until_when_the_certificate_in_use_is_valid() {
    let authority = Authority::new();
    let server = authority.server().await;
    let told = |server: &TestServer, of: &str| {
        let text = server.context.metrics.encode().expect("text");
        let [tls, quic] = ["tls", "quic"].map(|listener| {
            let name = format!("wigwag_certificate_{of}_timestamp_seconds{{listener=\"{listener}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<i64>().ok())
        });
        assert_eq!(tls, quic, "one certificate serves both");
        tls
    };
    // rcgen's certificates end in the year 4096 unless they are told otherwise.
    server.reloader.read_files().await;
    let far = told(&server, "expiry").expect("it is told");
    let mut params = CertificateParams::new(["localhost".into()]).expect("names");
    params.not_before = time::macros::datetime!(2020-01-02 03:04:05 UTC);
    params.not_after = time::macros::datetime!(2050-01-02 03:04:05 UTC);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &authority.issuer).expect("signed");
    fs::write(authority.path("cert.pem"), certificate.pem()).expect("written");
    fs::write(authority.path("key.pem"), key.serialize_pem()).expect("written");
    server.reloader.read_files().await;
    assert_eq!(told(&server, "not_before"), Some(1_577_934_245));
    assert_eq!(told(&server, "expiry"), Some(2_524_705_445));
    assert!(far > 2_524_705_445);
    server.stop().await;
}

/// What coturn computes of the user name in an `iceServers` message, by one of its secrets.
fn credential(message: &Value, secret: &str) -> (String, String) {
    use base64::Engine as _;
    let server = &message["iceServers"][0];
    let [name, told] = ["username", "credential"].map(|key| server[key].as_str().expect("text").to_owned());
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let right = base64::engine::general_purpose::STANDARD.encode(ring::hmac::sign(&key, name.as_bytes()));
    (told, right)
}

#[tokio::test]
async fn credentials_are_made_by_the_secret_that_was_read_last() {
    let secret = tempfile::NamedTempFile::new().expect("a file");
    fs::write(secret.path(), "north").expect("written");
    let ice = Policy {
        urls: vec!["turn:127.0.0.1".parse().expect("a URL")],
        secret: Some(SecretSource::File(secret.path().to_owned())),
        lifetime: Duration::from_secs(600),
    };
    let server = TestServer::start_with(Config { ice, ..config() }).await;
    let mut peer = server.connect(Via::WebSocketH2, "demo").await;
    peer.send(r#"{"type":"join"}"#).await.expect("sent");
    let (told, right) = credential(&hear(&mut peer, "joined").await, "north");
    assert_eq!(told, right);

    fs::write(secret.path(), "south").expect("written");
    server.reloader.read_files().await;
    peer.send(r#"{"type":"iceServers","id":1}"#).await.expect("sent");
    let (told, right) = credential(&hear(&mut peer, "iceServers").await, "south");
    assert_eq!(told, right);
    assert!(server.metric(r#"wigwag_reloads_total{what="turn-secret",outcome="done"} 1"#));

    fs::write(secret.path(), "").expect("written");
    server.reloader.read_files().await;
    peer.send(r#"{"type":"iceServers","id":2}"#).await.expect("sent");
    let (told, right) = credential(&hear(&mut peer, "iceServers").await, "south");
    assert_eq!(told, right, "one that cannot be used leaves the one before");
    assert!(server.metric(r#"wigwag_reloads_total{what="turn-secret",outcome="failed"} 1"#));
    assert!(server.metric(r#"wigwag_last_reload_successful{what="turn-secret"} 0"#));
    server.stop().await;
}

/// A server as a process, and what it logs.
#[cfg(unix)]
struct Process {
    child: tokio::process::Child,
    log: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStderr>>,
}

#[cfg(unix)]
impl Process {
    async fn start(shell: &Shell, args: &[&str]) -> Self {
        use tokio::io::AsyncBufReadExt as _;
        let (mut child, _) = shell.serve(&[args, &FREE].concat(), "listening").await;
        let log = tokio::io::BufReader::new(child.stderr.take().expect("it is piped")).lines();
        Process { child, log }
    }

    /// Sends SIGHUP, and reads the log up to a line with this in it.
    async fn reload(&mut self, wanted: &str) -> Vec<String> {
        signal(&self.child, "HUP").await;
        let mut lines = Vec::new();
        loop {
            let line = within(self.log.next_line()).await.expect("UTF-8").expect("it runs on");
            lines.push(line);
            if lines.last().is_some_and(|line| line.contains(wanted)) {
                return lines;
            }
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn sighup_has_a_server_read_its_certificate_again_and_a_broken_one_does_not_end_it() {
    let authority = Authority::new();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| authority.path(name).to_str().expect("UTF-8").to_owned());
    let shell = Shell::new();
    let mut server = Process::start(&shell, &["--cert", &cert, "--key", &key]).await;
    authority.issue();
    server.reload("certificates renewed").await;
    let said = server.reload("certificates read again").await;
    assert!(!said.concat().contains("renewed"), "nothing has changed: {said:?}");
    fs::write(&cert, "half a cert").expect("written");
    let said = server.reload("cannot renew the certificates").await;
    assert!(said.last().is_some_and(|line| line.contains("cert.pem holds no certificate")), "{said:?}");
    authority.issue();
    server.reload("certificates renewed").await;
    signal(&server.child, "TERM").await;
    assert_eq!(within(server.child.wait()).await.expect("it ends").code(), Some(0));
}

#[cfg(unix)]
#[tokio::test]
async fn sighup_puts_changed_settings_into_effect_or_names_those_that_wait() {
    let shell = Shell::new();
    let write = |text: &str| shell.write("wigwag.toml", text);
    let file = write("origin = 'https://a.example'\nlog = 'info'\n");
    let args = ["--config", &file, "--heartbeat", "7s"];
    let mut server = Process::start(&shell, &args).await;
    server.reload("the settings are as they were").await;

    write("origin = 'https://b.example'\nmax-peers = 3\nheartbeat = '3s'\nlog = 'wigwag=debug'\nmax-rooms = 65536\n");
    let said = server.reload("wait for a restart").await.join("\n");
    // What the command line says goes before the file, and a default that is spelled out changes nothing.
    assert!(
        said.contains("in effect settings=\"origin, log\"") && said.contains("restart settings=\"max-peers\""),
        "{said}"
    );

    write("max-peers = 'many'\n");
    let said = server.reload("those in use stay").await.join("\n");
    assert!(said.contains("wigwag.toml:1: max-peers"), "{said}");
    write("max-peers = 3\n");
    let said = server.reload("wait for a restart").await.join("\n");
    assert!(said.contains("in effect settings=\"origin, log\""), "{said}");
    signal(&server.child, "TERM").await;
    assert_eq!(within(server.child.wait()).await.expect("it ends").code(), Some(0));
}

#[cfg(unix)]
#[tokio::test]
async fn a_setting_that_needs_one_which_waits_waits_with_it() {
    let shell = Shell::new();
    let file = shell.write("wigwag.toml", "proxy-protocol = true\ntrusted-proxy = '127.0.0.0/8'\n");
    let mut server = Process::start(&shell, &["--config", &file]).await;
    shell.write("wigwag.toml", "origin = 'https://b.example'\n");
    let said = server.reload("wait for a restart settings").await.join("\n");
    assert!(
        said.contains("in effect settings=\"origin\"")
            && said.contains("depend on settings=\"trusted-proxy\"")
            && said.contains("restart settings=\"proxy-protocol\""),
        "{said}"
    );
    signal(&server.child, "TERM").await;
    assert_eq!(within(server.child.wait()).await.expect("it ends").code(), Some(0));
}

#[tokio::test]
async fn limits_of_addresses_and_origins_change_for_what_comes_next() {
    let server = TestServer::start().await;
    let open = async |origin: &'static str| {
        let headers = HeaderMap::from_iter([(http::header::ORIGIN, http::HeaderValue::from_static(origin))]);
        server.try_connect(Via::WebSocketH2, "demo", &headers).await
    };
    assert!(open("https://b.example").await.is_err());
    let mut changed = Config { origins: vec!["https://b.example".into()], ..config() };
    server.reloader.apply(&changed);
    let mut first = open("https://b.example").await.expect("it is listed now");
    first.send(r#"{"type":"join"}"#).await.expect("sent");
    hear(&mut first, "joined").await;

    changed.clients.exempt.clear();
    changed.clients.limits.open_connections = 0;
    changed.origins.clear();
    server.reloader.apply(&changed);
    assert!(server.try_connect(Via::WebSocketH2, "demo", &HeaderMap::new()).await.is_err());
    first.send(r#"{"type":"ping","id":1}"#).await.expect("sent");
    hear(&mut first, "pong").await;
    server.reloader.apply(&config());
    server.connect(Via::WebSocketH2, "demo").await;
    server.stop().await;
}
