//! A process that may open few files.

use std::process::Stdio;

use http::{HeaderMap, Method};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use wigwag::client::{Connection, Endpoint, Http1, Trust, Via, certificate_hashes};
use wigwag::protocol::RoomName;

use super::{DISCOVERY, ask, connect_from};
use crate::limits::next;
use crate::support::{authority, within};

/// The program in an empty directory, where it and whatever it starts may open so many files.
fn wigwag(files: u32, dir: &tempfile::TempDir, args: &[&str]) -> Child {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -n {files} && exec \"$0\" \"$@\""))
        .arg(env!("CARGO_BIN_EXE_wigwag"))
        .args(args);
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WIGWAG_")) {
        command.env_remove(variable);
    }
    command.current_dir(dir.path()).kill_on_drop(true).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
}

fn trust(dir: &tempfile::TempDir, hashes: Vec<[u8; 32]>) -> Trust {
    Trust::new(authority(&dir.path().join("certs/ca.pem")), hashes).expect("TLS 1.3")
}

/// Succeeds whatever the limit of files: QUIC connections share a socket.
async fn join_by_quic(endpoint: &Endpoint, trust: &Trust) -> Connection {
    let (room, headers) = (RoomName::parse("full").expect("a name"), HeaderMap::new());
    let opened = within(Connection::open(endpoint, &room, Via::WebTransport, trust, &headers)).await;
    let mut connection = opened.expect("it is let in");
    connection.send(r#"{"type":"join"}"#).await.expect("open");
    assert_eq!(next(&mut connection).await["type"], "joined");
    connection
}

#[tokio::test]
async fn at_its_limit_the_server_serves_those_that_it_has() {
    // A reserve of 256, and 44 connections.
    let dir = tempfile::tempdir().expect("a directory");
    let args = ["--listen", "127.0.0.1:0", "--plain", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut child = wigwag(300, &dir, &args);
    let mut printed = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let (mut secure, mut plain, mut admin) = (None, None, None);
    while secure.is_none() || plain.is_none() || admin.is_none() {
        let line = within(printed.next_line()).await.expect("UTF-8").expect("it becomes ready");
        let address = || line.split([' ', '/']).find_map(|word| word.parse::<std::net::SocketAddr>().ok());
        if line.contains("listening") {
            secure = address();
        } else if line.contains("unencrypted") {
            plain = address();
        } else if line.contains("admin") {
            admin = address();
        }
    }
    let (plain, admin) = (plain.expect("an address"), admin.expect("an address"));
    let endpoint = Endpoint { encrypted: false, host: "127.0.0.1".into(), port: plain.port() };
    let mut first = Http1::connect(&endpoint, &trust(&dir, vec![]).tls).await.expect("it listens");
    let discovery = first.request(Method::GET, "/v1/discovery", &HeaderMap::new()).await.expect("an answer");
    let hashes = certificate_hashes(&serde_json::from_slice(discovery.body()).expect("JSON"));
    let mut open = Vec::new();
    for _ in 1..44 {
        let mut stream = connect_from("127.0.0.1", plain).await;
        assert!(ask(&mut stream, DISCOVERY).await.is_some());
        open.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(ask(&mut connect_from("127.0.0.1", plain).await, DISCOVERY).await, None, "closed unanswered");
    }
    for stream in &mut open {
        assert!(ask(stream, DISCOVERY).await.is_some(), "those that it has are served");
    }
    let endpoint = Endpoint { encrypted: true, port: secure.expect("an address").port(), ..endpoint };
    let _by_quic = join_by_quic(&endpoint, &trust(&dir, hashes)).await;
    let mut operator = connect_from("127.0.0.1", admin).await;
    tokio::io::AsyncWriteExt::write_all(
        &mut operator,
        b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    )
    .await
    .expect("open");
    let mut metrics = String::new();
    within(operator.read_to_string(&mut metrics)).await.expect("UTF-8");
    assert!(metrics.contains("wigwag_refusals_total{reason=\"connections\"} 20"), "{metrics}");
    child.start_kill().expect("it runs");
    let mut log = String::new();
    within(child.stderr.take().expect("it is piped").read_to_string(&mut log)).await.expect("UTF-8");
    assert_eq!(log.matches("connections refused").count(), 1, "one line however many: {log}");
    assert!(log.contains("fewer TCP connections than --max-connections"), "{log}");
}

#[tokio::test]
async fn with_too_few_files_it_does_not_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = within(wigwag(100, &dir, &["--listen", "127.0.0.1:0"]).wait_with_output()).await.expect("it ends");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.lines().any(|line| line.starts_with("wigwag: ") && line.contains("at least 288 are needed")),
        "{said}"
    );
}
