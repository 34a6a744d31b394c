//! Several servers as one, over a real NATS: members of one room at different nodes, over different transports.

mod carry;
pub(crate) mod durable;
mod loss;
pub(crate) mod moves;
pub(crate) mod nats;
mod restart;

use std::collections::BTreeSet;
use std::time::Duration;

use http::{HeaderMap, Method};
use rustls::RootCertStore;
use serde_json::{Value, json};
use wigwag::auth::Algorithm;
use wigwag::client::{Connection, Endpoint, Http1, Trust, Via};
use wigwag::config::Config;

use crate::cli::{Shell, contains};
use crate::support::{TestServer, config, within};
use crate::tokens::{Issuer, answer, hear, next, say};
use crate::transcripts::{TRANSCRIPTS, WAITING, hold, tokens};
use nats::{Nats, policy};

/// A node with this configuration.
pub(crate) async fn node(nats: &Nats, change: impl FnOnce(Config) -> Config) -> TestServer {
    let admin = Some("127.0.0.1:0".parse().expect("an address"));
    TestServer::start_with(change(Config { cluster: Some(nats.policy()), admin, ..config() })).await
}

/// Nodes that have links with one another.
pub(crate) async fn nodes<const N: usize>(nats: &Nats, change: impl Fn(Config) -> Config) -> [TestServer; N] {
    let mut nodes = Vec::new();
    for _ in 0..N {
        nodes.push(Box::pin(node(nats, &change)).await);
    }
    for node in &nodes {
        linked(node, N - 1).await;
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!())
}

/// Waits until a node has so many links.
pub(crate) async fn linked(node: &TestServer, links: usize) {
    let cluster = node.context.cluster.as_ref().expect("a node of a cluster");
    within(async {
        while cluster.status().links != links {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A member, and its `joined`.
async fn enter(node: &TestServer, via: Via, room: &str) -> (Connection, Value) {
    let mut connection = node.connect(via, room).await;
    say(&mut connection, &json!({"type": "join"})).await;
    let joined = next(&mut connection).await;
    assert_eq!(joined["type"], "joined", "{joined}");
    (connection, joined)
}

async fn ask(node: &TestServer, path: &str) -> String {
    let admin = node.addresses.admin.expect("an admin listener");
    let endpoint = Endpoint { encrypted: false, host: "127.0.0.1".into(), port: admin.port() };
    let trust = Trust::new(RootCertStore::empty(), vec![]).expect("TLS 1.3");
    let mut connection = within(Http1::connect(&endpoint, &trust.tls)).await.expect("a connection");
    let response = within(connection.request(Method::GET, path, &HeaderMap::new())).await.expect("a response");
    assert_eq!(response.status(), 200, "{path}");
    String::from_utf8(response.body().to_vec()).expect("UTF-8")
}

/// Each conversation of the conformance suite with the speakers at three nodes, over transports of their own.
#[tokio::test]
async fn conversations_are_the_same_at_three_nodes() {
    let nats = Nats::start(&[]).await;
    let open = nodes::<3>(&nats, |config| config).await;
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let other = Nats::start(&[]).await;
    let guarded = nodes::<3>(&other, |config| Config { tokens: Some(issuer.policy()), ..config }).await;
    let (open, guarded) = (open.each_ref(), guarded.each_ref());
    let mut met = BTreeSet::new();
    let rotated = |vias: &[Via], first: usize| {
        let mut cast = vias.to_vec();
        cast.rotate_left(first);
        cast
    };
    let lasting: Vec<Via> = Via::ALL.into_iter().filter(|via| !via.is_long_poll()).collect();
    for first in 0..Via::ALL.len() {
        // Between two polls there is no transport to lose or to be replaced.
        let lasts = |title: &str| matches!(title, "resume" | "join-key" | "waiting-again");
        let cast = |title| match lasts(title) {
            true => (first < lasting.len()).then(|| rotated(&lasting, first)),
            false => Some(rotated(&Via::ALL, first)),
        };
        for (title, text) in TRANSCRIPTS {
            if let Some(cast) = cast(title) {
                hold(&open, &[], &mut met, (title, text), &cast).await;
            }
        }
        for (title, text) in WAITING {
            if let Some(cast) = cast(title) {
                hold(&guarded, &tokens(&issuer), &mut met, (title, text), &cast).await;
            }
        }
    }
}

#[tokio::test]
async fn each_transport_reaches_each_other_one_at_another_node() {
    let nats = Nats::start(&[]).await;
    let [x, y] = nodes(&nats, |config| config).await;
    for from in Via::ALL {
        for to in Via::ALL {
            let room = format!("{}.{}", from.name(), to.name());
            let (mut a, joined) = enter(&x, from, &room).await;
            assert_eq!(joined["peers"], json!([]));
            let (mut b, joined) = enter(&y, to, &room).await;
            assert_eq!(joined["peers"].as_array().map(Vec::len), Some(1), "the picture is whole");
            let peer = hear(&mut a, "peerJoined").await["peer"].clone();
            assert_eq!(peer, joined["self"]["peer"]);
            let offer = json!({"type": "message", "id": 1, "to": peer, "data": {"from": from.name()}});
            assert_eq!(answer(&mut a, &offer).await.0, Value::Null, "no error code");
            assert_eq!(hear(&mut b, "message").await["data"], json!({"from": from.name()}));
        }
    }
}

#[tokio::test]
async fn nodes_that_lose_nats_go_on_alone_and_find_one_another_again() {
    let nats = Nats::start(&[]).await;
    let [x, y] = nodes(&nats, |config| config).await;
    let (mut a, _) = enter(&x, Via::WebSocketH1, "r").await;
    let (mut b, _) = enter(&y, Via::WebTransport, "r").await;
    hear(&mut a, "peerJoined").await;
    assert_eq!(ask(&x, "/readyz").await, "ready\ncluster: connected\n");
    let port = nats.kill().await;
    // After four seconds of silence.
    hear(&mut a, "peerAway").await;
    hear(&mut b, "peerAway").await;
    assert_eq!(ask(&x, "/readyz").await, "ready\ncluster: not connected\n");
    assert!(ask(&x, "/metrics").await.contains("\nwigwag_cluster_connected 0\n"));
    let (mut c, joined) = enter(&x, Via::WebSocketH2, "r").await;
    assert_eq!(joined["peers"].as_array().map(Vec::len), Some(2), "who is away is still there");
    hear(&mut a, "peerJoined").await;
    let message = |id: u64, state: &str| json!({"type": "message", "id": id, "to": peer_of(&joined, state), "data": 1});
    assert_eq!(answer(&mut c, &message(1, "here")).await.0, Value::Null, "local rooms go on");
    assert_eq!(answer(&mut c, &message(2, "away")).await.0, "queueFull");
    let again = std::time::Instant::now();
    let _nats = Nats::start_at(port, &[]).await;
    for member in [&mut a, &mut c] {
        hear(member, "peerBack").await;
    }
    hear(&mut b, "peerBack").await;
    hear(&mut b, "peerJoined").await;
    assert!(again.elapsed() < Duration::from_secs(5), "{:?}", again.elapsed());
    assert_eq!(answer(&mut c, &message(3, "away")).await.0, Value::Null, "no error code");
    let metrics = ask(&x, "/metrics").await;
    for line in ["wigwag_cluster_connected 1", "wigwag_cluster_nodes 1", "wigwag_cluster_links 1"] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line} is not in:\n{metrics}");
    }
    assert!(metrics.contains("wigwag_cluster_notes_total{kind=\"relay\"}"), "{metrics}");
}

/// The peer of a picture that is in this state.
fn peer_of(joined: &Value, state: &str) -> Value {
    let peers = joined["peers"].as_array().expect("a list");
    peers.iter().find(|info| info["state"] == state).expect("one in that state")["peer"].clone()
}

#[tokio::test]
async fn a_node_that_is_drained_and_stopped_takes_its_members_along() {
    let nats = Nats::start(&[]).await;
    let [x, y] = nodes(&nats, |config| Config { drain: Duration::ZERO, ..config }).await;
    let (mut a, _) = enter(&x, Via::WebTransport, "r").await;
    let (b, _) = enter(&y, Via::WebSocketH2, "r").await;
    hear(&mut a, "peerJoined").await;
    y.stop().await;
    hear(&mut a, "peerAway").await;
    assert_eq!(hear(&mut a, "peerLeft").await["reason"], "nodeLost");
    linked(&x, 0).await;
    drop(b);
}

#[tokio::test]
async fn a_server_starts_without_nats_and_joins_the_cluster_when_it_comes() {
    let port = Nats::start(&[]).await.kill().await;
    let cluster = Some(policy(&format!("nats://127.0.0.1:{port}")));
    let [x, y] = [
        TestServer::start_with(Config { cluster: cluster.clone(), ..config() }).await,
        TestServer::start_with(Config { cluster, ..config() }).await,
    ];
    let (mut a, _) = enter(&x, Via::WebSocketH1, "r").await;
    let (mut b, joined) = enter(&y, Via::WebSocketH1, "r").await;
    assert_eq!(joined["peers"], json!([]));
    let _nats = Nats::start_at(port, &[]).await;
    hear(&mut a, "peerJoined").await;
    hear(&mut b, "peerJoined").await;
}

#[tokio::test]
async fn clusters_of_other_names_do_not_hear_of_one_another() {
    let nats = Nats::start(&[]).await;
    let [x, y] = nodes(&nats, |config| config).await;
    let other = Config {
        cluster: Some(wigwag::cluster::Policy { name: "b".parse().expect("a name"), ..nats.policy() }),
        ..config()
    };
    let z = TestServer::start_with(other).await;
    let (_c, _) = enter(&z, Via::WebSocketH1, "r").await;
    let (_a, _) = enter(&x, Via::WebSocketH1, "r").await;
    let (_b, joined) = enter(&y, Via::WebSocketH1, "r").await;
    assert_eq!(joined["peers"].as_array().map(Vec::len), Some(1));
    assert_eq!(z.context.cluster.as_ref().expect("a node").status().nodes, 0);
}

#[tokio::test]
async fn members_of_a_node_that_was_killed_are_away_and_then_gone() {
    let nats = Nats::start(&[]).await;
    let x = node(&nats, |config| Config { resume_window: Duration::from_secs(6), ..config }).await;
    let shell = Shell::new();
    let args = ["--listen", "127.0.0.1:0", "--plain", "127.0.0.1:0", "--admin", "off", "--cluster", &nats.url()];
    let (mut y, line) = shell.serve(&args, "unencrypted on ").await;
    let port = line.rsplit_once(':').and_then(|(_, port)| port.trim().parse().ok()).expect("a port");
    linked(&x, 1).await;
    let (mut a, _) = enter(&x, Via::WebTransport, "r").await;
    let endpoint = Endpoint { encrypted: false, host: "127.0.0.1".into(), port };
    let room = wigwag::protocol::RoomName::parse("r").expect("a name");
    let none = HeaderMap::new();
    let opened = Connection::open(&endpoint, &room, Via::WebSocketH1, &x.trust, &none);
    let mut b = within(opened).await.expect("the transport opens");
    say(&mut b, &json!({"type": "join"})).await;
    let peer = next(&mut b).await["self"]["peer"].clone();
    assert_eq!(hear(&mut a, "peerJoined").await["peer"], peer);
    y.kill().await.expect("a child of ours");
    let killed = std::time::Instant::now();
    assert_eq!(hear(&mut a, "peerAway").await["peer"], peer);
    let left = hear(&mut a, "peerLeft").await;
    assert_eq!((&left["peer"], &left["reason"]), (&peer, &json!("nodeLost")));
    // From what was heard of it last, a second before at most.
    assert!(killed.elapsed() > Duration::from_secs(4), "{:?}", killed.elapsed());
}

#[tokio::test]
async fn nodes_meet_over_tls_and_with_a_password_which_shows_nowhere() {
    let alone = TestServer::start().await;
    let certificate = alone.ca.with_file_name("localhost.pem");
    let certificate = certificate.to_str().expect("UTF-8");
    let secured = ["--tls", "--tlscert", certificate, "--tlskey", certificate, "--user", "u", "--pass", "hunter2"];
    let nats = Nats::start(&secured).await;
    let url = format!("tls://u:hunter2@127.0.0.1:{}", nats.port);
    let cluster = Some(wigwag::cluster::Policy { ca: Some(alone.ca.clone()), ..policy(&url) });
    let x = TestServer::start_with(Config { cluster: cluster.clone(), ..config() }).await;
    let y = TestServer::start_with(Config { cluster, ..config() }).await;
    linked(&x, 1).await;
    linked(&y, 1).await;
    assert!(!format!("{:?}", x.context.config).contains("hunter2"));
}

#[tokio::test]
async fn mistakes_about_the_cluster_are_told_in_one_line() {
    let shell = Shell::new();
    let cluster = |flag, value| ["--cluster", "nats://127.0.0.1:4222", flag, value];
    contains(
        &shell.refused(&["--cluster", "127.0.0.1:4222"]).await,
        &["--cluster is 127.0.0.1:4222", "nats://HOST:4222"],
    );
    contains(&shell.refused(&cluster("--cluster-name", "a.b")).await, &["--cluster-name is a.b"]);
    contains(&shell.refused(&["--cluster-timeout", "6s"]).await, &["without --cluster"]);
    contains(
        &shell.refused(&["--cluster", "nats://127.0.0.1:4222", "--cluster-durable"]).await,
        &["--cluster-durable", "without --cluster-key"],
    );
    contains(&shell.refused(&cluster("--cluster-credentials", "none")).await, &["none", "--cluster-credentials"]);
    contains(&shell.refused(&cluster("--cluster-ca", "none")).await, &["none", "--cluster-ca"]);
    contains(&shell.refused(&cluster("--cluster-key", "none")).await, &["none", "--cluster-key"]);
    let short = shell.write("short.key", "0123456789");
    std::fs::set_permissions(&short, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    let said = shell.refused(&cluster("--cluster-key", &short)).await;
    contains(&said, &["--cluster-key", "32 characters"]);
    assert!(!said.contains("0123456789"), "{said}");
    let creds = shell.write("user.creds", "no credentials");
    #[cfg(unix)]
    std::fs::set_permissions(&creds, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    let said = shell.refused(&cluster("--cluster-credentials", &creds)).await;
    contains(&said, &["user.creds", "JWT"]);
    assert!(!said.contains("no credentials"), "{said}");
}
