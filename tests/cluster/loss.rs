//! A node of three is killed while hundreds of sessions talk, and one of three NATS servers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use wigwag::client::{Connection, Endpoint, Via};
use wigwag::config::Config;
use wigwag::protocol::RoomName;

use super::moves::{key, sharing};
use super::nats::{Nats, policy};
use super::{enter, linked};
use crate::cli::Shell;
use crate::support::{TestServer, config, within};
use crate::tokens::{answer, hear, next, say};

const ROOMS: usize = 40;

/// In each room, at each node.
const EACH: usize = 2;

/// What a client has been told of its room: who is there.
struct Member {
    connection: Connection,
    own: String,
    view: BTreeSet<String>,
}

impl Member {
    fn of(connection: Connection, joined: &Value) -> Self {
        assert_eq!(joined["type"], "joined", "{joined}");
        let id = |peer: &Value| peer["peer"].as_str().expect("an id").to_owned();
        let view = joined["peers"].as_array().expect("a list").iter().map(id).collect();
        Member { connection, own: id(&joined["self"]), view }
    }

    /// Takes in what it is told until so many others are in its picture, none of them away.
    async fn until(mut self, others: &BTreeSet<String>) -> Self {
        while self.view != *others {
            let message = next(&mut self.connection).await;
            let peer = || message["peer"].as_str().expect("an id").to_owned();
            match message["type"].as_str() {
                Some("peerJoined") => assert!(self.view.insert(peer()), "twice: {message}"),
                Some("peerLeft") => assert!(self.view.remove(&peer()), "a stranger: {message}"),
                _ => {}
            }
        }
        self
    }
}

/// Each hears of exactly those who are there.
async fn all_see(rooms: BTreeMap<usize, Vec<Member>>) -> BTreeMap<usize, Vec<Member>> {
    let mut waiting = JoinSet::new();
    for (room, members) in rooms {
        let all: BTreeSet<String> = members.iter().map(|member| member.own.clone()).collect();
        for member in members {
            let others = all.iter().filter(|peer| **peer != member.own).cloned().collect();
            waiting.spawn(async move { (room, member.until(&others).await) });
        }
    }
    let mut rooms: BTreeMap<usize, Vec<Member>> = BTreeMap::new();
    while let Some(member) = waiting.join_next().await {
        let (room, member) = member.expect("its picture is true");
        rooms.entry(room).or_default().push(member);
    }
    rooms
}

#[tokio::test]
async fn when_one_node_of_three_is_killed_all_who_are_left_have_a_true_picture() {
    let nats = Nats::start(&[]).await;
    let window = Duration::from_secs(5);
    let [x, y] = sharing(&nats, |config| Config { resume_window: window, ..config }).await;
    let shell = Shell::new();
    let key = shell.write("cluster.key", "0123456789abcdef0123456789abcdef");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    let args = ["--listen", "127.0.0.1:0", "--plain", "127.0.0.1:0", "--admin", "off", "--cluster", &nats.url()];
    let (mut z, line) = shell.serve(&[&args[..], &["--cluster-key", &key]].concat(), "unencrypted on ").await;
    let port = line.rsplit_once(':').and_then(|(_, port)| port.trim().parse().ok()).expect("a port");
    let killed = Endpoint { encrypted: false, host: "127.0.0.1".into(), port };
    linked(&x, 2).await;
    linked(&y, 2).await;
    let mut rooms: BTreeMap<usize, Vec<Member>> = BTreeMap::new();
    let (mut doomed, mut tickets) = (Vec::new(), Vec::new());
    for room in 0..ROOMS {
        let name = format!("r{room}");
        for _ in 0..EACH {
            for node in [&x, &y] {
                let (connection, joined) = enter(node, Via::WebSocketH1, &name).await;
                rooms.entry(room).or_default().push(Member::of(connection, &joined));
            }
            let parsed = RoomName::parse(&name).expect("a name");
            let none = HeaderMap::new();
            let opened = Connection::open(&killed, &parsed, Via::WebSocketH1, &x.trust, &none);
            let mut connection = within(opened).await.expect("the transport opens");
            say(&mut connection, &json!({"type": "join"})).await;
            tickets.push((name.clone(), next(&mut connection).await["ticket"].clone()));
            doomed.push(connection);
        }
    }
    // All talk, to the doomed ones as well; what becomes of that is told by an answer or by their end.
    for members in rooms.values_mut() {
        for member in members {
            for number in 0..10 {
                say(&mut member.connection, &json!({"type": "message", "data": number})).await;
            }
        }
    }
    z.kill().await.expect("a child of ours");
    drop(doomed);
    // Who comes back while nobody knows yet is told to come again, and to join anew in the end.
    let (room, ticket) = &tickets[0];
    let refused = loop {
        let mut connection = y.connect(Via::WebSocketH1, room).await;
        say(&mut connection, &json!({"type": "resume", "ticket": ticket, "seq": 0})).await;
        let closed = next(&mut connection).await;
        if closed["code"] != "goingAway" {
            break closed;
        }
        tokio::time::sleep(Duration::from_millis(closed["retryAfterMs"].as_u64().expect("when"))).await;
    };
    assert_eq!(refused["code"], "resumeExpired", "{refused}");
    let rooms = all_see(rooms).await;
    assert_eq!(rooms.values().map(Vec::len).sum::<usize>(), 2 * EACH * ROOMS);
}

#[tokio::test]
async fn nodes_go_on_when_one_of_three_nats_servers_is_lost() {
    let first = Nats::start(&["--cluster_name", "c", "--cluster", "nats://127.0.0.1:-1"]).await;
    let route = format!("nats://127.0.0.1:{}", first.cluster.expect("it listens for routes"));
    let others = ["--cluster_name", "c", "--cluster", "nats://127.0.0.1:-1", "--routes", &route];
    let (second, third) = (Nats::start(&others).await, Nats::start(&others).await);
    let node = async |server: &Nats| {
        let servers = [server, &second, &third].map(|nats| policy(&nats.url()).servers[0].clone());
        let cluster = wigwag::cluster::Policy { servers: servers.into(), key: Some(key()), ..policy(&server.url()) };
        TestServer::start_with(Config { cluster: Some(cluster), ..config() }).await
    };
    let (x, y) = (node(&first).await, node(&second).await);
    linked(&x, 1).await;
    linked(&y, 1).await;
    let (mut a, _) = enter(&x, Via::WebSocketH1, "r").await;
    let (mut b, joined) = enter(&y, Via::WebSocketH1, "r").await;
    hear(&mut a, "peerJoined").await;
    let peer = joined["self"]["peer"].clone();
    first.kill().await;
    for number in 1..=50 {
        let message = json!({"type": "message", "id": number, "to": peer, "data": number});
        assert_eq!(answer(&mut a, &message).await.0, Value::Null, "it is said again until it has arrived");
        assert_eq!(hear(&mut b, "message").await["data"], number);
    }
}
