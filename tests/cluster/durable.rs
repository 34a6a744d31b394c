//! Sessions that outlive their node, over JetStream.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::HeaderMap;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use wigwag::client::{Connection, Endpoint, Via};
use wigwag::cluster::{Durable, Policy};
use wigwag::config::Config;
use wigwag::protocol::RoomName;

use super::linked;
use super::moves::sharing;
use super::nats::Nats;
use super::{ask, enter};
use crate::cli::Shell;
use crate::support::{TestServer, within};
use crate::tokens::{answer, hear, next, say};

const ROOMS: usize = 150;

/// In each room, at the node that is lost.
const EACH: usize = 2;

/// Said to each of them before its node is lost, and afterwards.
const SAID: u64 = 6;

/// Seats that outlive this node.
pub(crate) fn durable(config: Config) -> Config {
    let cluster = config.cluster.map(|cluster| Policy { durable: Some(Durable::default()), ..cluster });
    Config { cluster, ..config }
}

async fn metric(node: &TestServer, line: &str) {
    within(Box::pin(async {
        while !ask(node, "/metrics").await.contains(&format!("\n{line}\n")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }))
    .await;
}

/// One at the node that is lost.
struct Doomed {
    room: String,
    peer: Value,
    ticket: Value,
    seq: u64,
    heard: Vec<u64>,
}

impl Doomed {
    /// Takes its seat up at another node; returns how long that took.
    async fn come_back(&mut self, node: &TestServer) -> (Connection, Duration) {
        let begun = Instant::now();
        loop {
            let mut connection = node.connect(Via::WebSocketH1, &self.room).await;
            say(&mut connection, &json!({"type": "resume", "ticket": self.ticket, "seq": self.seq})).await;
            let first = next(&mut connection).await;
            if first["code"] == "goingAway" {
                tokio::time::sleep(Duration::from_millis(first["retryAfterMs"].as_u64().expect("when"))).await;
                continue;
            }
            assert_eq!((&first["type"], &first["self"]["peer"]), (&json!("joined"), &self.peer), "{first}");
            return (connection, begun.elapsed());
        }
    }

    async fn listen_until(&mut self, connection: &mut Connection, last: u64) {
        while self.heard.last() != Some(&last) {
            let message = next(connection).await;
            assert_ne!(message["type"], "peerLeft", "nobody leaves");
            self.seq = message["seq"].as_u64().unwrap_or(self.seq);
            self.heard.extend(message["data"].as_u64());
        }
    }
}

/// Says numbers to one other; returns those that were accepted.
async fn tell(from: &mut Connection, ids: &mut u64, to: &Value, numbers: impl Iterator<Item = u64>) -> BTreeSet<u64> {
    let mut accepted = BTreeSet::new();
    for number in numbers {
        *ids += 1;
        let message = json!({"type": "message", "id": *ids, "to": to, "data": number});
        if answer(from, &message).await.0 == Value::Null {
            accepted.insert(number);
        }
    }
    accepted
}

#[tokio::test]
async fn sessions_of_a_node_that_was_killed_go_on_and_nothing_that_was_accepted_is_lost_or_doubled() {
    let dir = TempDir::new().expect("a directory");
    let nats = Nats::start(&["--jetstream", "--store_dir", dir.path().to_str().expect("UTF-8")]).await;
    let [x, y] = sharing(&nats, durable).await;
    for node in [&x, &y] {
        metric(node, "wigwag_cluster_durable 1").await;
    }
    let shell = Shell::new();
    let secret = shell.write("cluster.key", "0123456789abcdef0123456789abcdef");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    let (url, flags) = (nats.url(), ["--listen", "127.0.0.1:0", "--plain", "127.0.0.1:0", "--admin", "off"]);
    let cluster = ["--cluster", &url, "--cluster-key", &secret, "--cluster-durable"];
    let (mut z, line) = shell.serve(&[&flags[..], &cluster].concat(), "unencrypted on ").await;
    let port = line.rsplit_once(':').and_then(|(_, port)| port.trim().parse().ok()).expect("a port");
    let killed = Endpoint { encrypted: false, host: "127.0.0.1".into(), port };
    linked(&x, 2).await;
    linked(&y, 2).await;
    let mut rooms = Vec::new();
    for room in 0..ROOMS {
        let name = format!("r{room}");
        let (mut a, _) = enter(&x, Via::WebSocketH1, &name).await;
        let (mut doomed, mut ids) = (Vec::new(), 0);
        for _ in 0..EACH {
            let (parsed, none) = (RoomName::parse(&name).expect("a name"), HeaderMap::new());
            let opened = Connection::open(&killed, &parsed, Via::WebSocketH1, &x.trust, &none);
            let mut connection = within(opened).await.expect("the transport opens");
            say(&mut connection, &json!({"type": "join"})).await;
            let joined = next(&mut connection).await;
            let (peer, ticket) = (joined["self"]["peer"].clone(), joined["ticket"].clone());
            hear(&mut a, "peerJoined").await;
            let mut one = Doomed { room: name.clone(), peer, ticket, seq: 0, heard: vec![] };
            let mut accepted = tell(&mut a, &mut ids, &one.peer, 1..=SAID / 2).await;
            one.listen_until(&mut connection, SAID / 2).await;
            // More, which it does not read.
            accepted.extend(tell(&mut a, &mut ids, &one.peer, SAID / 2 + 1..=SAID).await);
            assert_eq!(accepted.len() as u64, SAID);
            doomed.push((one, connection, accepted));
        }
        rooms.push((a, ids, doomed));
    }
    z.kill().await.expect("a child of ours");
    let mut tasks = JoinSet::new();
    let nodes = std::sync::Arc::new([x, y]);
    for (at, (mut a, mut ids, doomed)) in rooms.into_iter().enumerate() {
        let nodes = std::sync::Arc::clone(&nodes);
        tasks.spawn(async move {
            // Meanwhile the other one talks on, to who is away.
            let (mut doomed, told): (Vec<_>, Vec<_>) =
                doomed.into_iter().map(|(one, _, accepted)| (one, accepted)).unzip();
            let peers: Vec<Value> = doomed.iter().map(|one| one.peer.clone()).collect();
            let back = join_all(doomed.iter_mut().map(|one| one.come_back(&nodes[at % 2])));
            let talk = async {
                let mut more = Vec::new();
                for (peer, mut accepted) in peers.iter().zip(told) {
                    accepted.extend(tell(&mut a, &mut ids, peer, SAID + 1..=2 * SAID).await);
                    more.push(accepted);
                }
                more
            };
            let (back, told) = tokio::join!(Box::pin(back), talk);
            let mut times = Vec::new();
            for ((mut one, (mut connection, time)), accepted) in doomed.into_iter().zip(back).zip(told) {
                times.push(time);
                let last = 2 * SAID + 1;
                while tell(&mut a, &mut ids, &one.peer, std::iter::once(last)).await.is_empty() {}
                one.listen_until(&mut connection, last).await;
                assert!(one.heard.windows(2).all(|pair| pair[0] < pair[1]), "once and in order: {:?}", one.heard);
                let missing: Vec<&u64> = accepted.iter().filter(|number| !one.heard.contains(number)).collect();
                assert!(missing.is_empty(), "accepted and lost: {missing:?}");
            }
            times
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done.expect("it goes on"));
    }
    for node in nodes.iter() {
        metric(node, &format!("wigwag_cluster_restored_total{{place=\"here\"}} {}", times.len() / 2)).await;
        metric(node, "wigwag_cluster_restored_total{place=\"elsewhere\"} 0").await;
        metric(node, "wigwag_cluster_unstored_bytes 0").await;
        metric(node, "wigwag_cluster_records_total{outcome=\"failed\"} 0").await;
        let metrics = Box::pin(ask(node, "/metrics")).await;
        let stored =
            metrics.lines().find_map(|line| line.strip_prefix("wigwag_cluster_records_total{outcome=\"stored\"} "));
        let stored: usize = stored.expect("a counter").parse().expect("a number");
        assert!(stored >= times.len() / 2, "{stored}");
    }
    times.sort();
    let most = times[times.len() * 95 / 100];
    println!(
        "{} sessions are back: the first in {:?}, 95 % in {most:?}, all in {:?}",
        times.len(),
        times[0],
        times[times.len() - 1]
    );
    assert!(times[times.len() - 1] < Duration::from_secs(15), "{times:?}");
}

#[tokio::test]
async fn without_jetstream_all_is_as_without_a_store_and_it_is_told() {
    let nats = Nats::start(&[]).await;
    let [x, y] = sharing(&nats, durable).await;
    let (mut a, _) = enter(&x, Via::WebSocketH1, "r").await;
    let (mut b, joined) = enter(&y, Via::WebSocketH1, "r").await;
    hear(&mut a, "peerJoined").await;
    let message = json!({"type": "message", "id": 1, "to": joined["self"]["peer"], "data": 1});
    assert_eq!(answer(&mut a, &message).await.0, Value::Null, "no error code");
    assert_eq!(hear(&mut b, "message").await["data"], 1);
    metric(&x, "wigwag_cluster_durable 0").await;
}
