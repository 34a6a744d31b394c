//! Sessions that lose their transport and are resumed at another node.

use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::{Value, json};
use wigwag::client::{Connection, Via};
use wigwag::cluster::Policy;
use wigwag::config::Config;
use wigwag::secret::SecretSource;

use super::nats::Nats;
use super::{enter, nodes};
use crate::support::TestServer;
use crate::tokens::{hear, next, say};

/// A file with a key, readable by its owner alone; all tests have the same.
pub(crate) fn key() -> SecretSource {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let path = std::env::temp_dir().join(format!("wigwag-test-{}.key", std::process::id()));
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").expect("a temporary directory");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
        path
    };
    SecretSource::File(FILE.get_or_init(make).clone())
}

/// Nodes that share the key.
pub(crate) async fn sharing<const N: usize>(nats: &Nats, change: impl Fn(Config) -> Config) -> [TestServer; N] {
    nodes(nats, |config| {
        let config = change(config);
        Config { cluster: config.cluster.map(|cluster| Policy { key: Some(key()), ..cluster }), ..config }
    })
    .await
}

/// A node as clients and the operator are told of it.
fn id(node: &TestServer) -> Value {
    json!(node.context.cluster.as_ref().expect("a cluster").id())
}

/// Takes a seat up; returns what comes first.
async fn resume(node: &TestServer, via: Via, room: &str, ticket: &Value, seq: u64) -> (Connection, Value) {
    let mut connection = node.connect(via, room).await;
    say(&mut connection, &json!({"type": "resume", "ticket": ticket, "seq": seq})).await;
    let first = next(&mut connection).await;
    (connection, first)
}

/// Hears so many messages; returns them, and the last number. Nothing else may come but what is named.
async fn messages(connection: &mut Connection, count: usize, beside: &[&str], mut seq: u64) -> (Vec<u64>, u64) {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let message = next(connection).await;
        if let Some(number) = message["seq"].as_u64() {
            assert_eq!(number, seq + 1, "no hole before {message}");
            seq = number;
        }
        match message["type"].as_str() {
            Some("message") => numbers.extend(message["data"].as_u64()),
            Some(kind) if beside.contains(&kind) => {}
            _ => panic!("unexpected: {message}"),
        }
    }
    (numbers, seq)
}

/// The next message that is meant; for who hears it nobody comes or leaves until then.
pub(super) async fn stays(connection: &mut Connection, is_meant: impl Fn(&Value) -> bool) -> Value {
    loop {
        let message = next(connection).await;
        if is_meant(&message) {
            return message;
        }
        assert!(!["peerJoined", "peerLeft"].contains(&message["type"].as_str().expect("a type")), "{message}");
    }
}

#[tokio::test]
async fn each_transport_is_taken_up_at_another_node_over_each_other_with_all_that_was_said_meanwhile() {
    let nats = Nats::start(&[]).await;
    let [x, y, z] = sharing(&nats, |config| config).await;
    let quiet = ["resumed", "ping", "peerAway", "peerBack", "ok"];
    for from in Via::ALL {
        for to in Via::ALL {
            let room = format!("{}.{}", from.name(), to.name());
            let (mut a, _) = enter(&x, Via::WebSocketH1, &room).await;
            let (mut b, joined) = enter(&y, from, &room).await;
            let (peer, ticket) = (joined["self"]["peer"].clone(), joined["ticket"].clone());
            hear(&mut a, "peerJoined").await;
            // Some before, more while it has no transport, all others when it is back.
            let mut asked = 0;
            let mut say_some = async |a: &mut Connection, numbers: std::ops::RangeInclusive<u64>| {
                for number in numbers {
                    let to = if number % 2 == 0 { json!({"to": peer}) } else { json!({}) };
                    loop {
                        asked += 1;
                        let mut message = json!({"type": "message", "id": asked, "data": number});
                        message.as_object_mut().expect("an object").extend(to.as_object().expect("one").clone());
                        say(a, &message).await;
                        let answered = stays(a, |message| message["id"] == asked).await;
                        if answered["type"] == "ok" {
                            break;
                        }
                        // The seat was on its way: not delivered, and to be said again.
                        assert_eq!((&answered["code"], number > 10), (&json!("queueFull"), true), "{answered}");
                    }
                }
            };
            say_some(&mut a, 1..=4).await;
            let ticket = match from.is_long_poll() {
                // Its client goes on by tickets of its own.
                true => ticket,
                false => {
                    assert_eq!(messages(&mut b, 4, &[], 0).await.0, [1, 2, 3, 4]);
                    ticket
                }
            };
            let heard = if from.is_long_poll() { 0 } else { 4 };
            drop(b);
            say_some(&mut a, 5..=10).await;
            let (mut b, resumed) = resume(&z, to, &room, &ticket, heard).await;
            assert_eq!(resumed["type"], "resumed", "{room}: {resumed}");
            // A poll is carried to the node that has the seat.
            let taken = if to.is_long_poll() { &y } else { &z };
            assert_eq!((&joined["node"], &resumed["node"]), (&id(&y), &id(taken)), "{room}");
            say_some(&mut a, 11..=14).await;
            let (numbers, _) = messages(&mut b, 14 - heard as usize, &quiet, heard).await;
            assert_eq!(numbers, (heard + 1..=14).collect::<Vec<_>>(), "{room}");
            let message = json!({"type": "message", "id": 1, "to": joined["peers"][0]["peer"], "data": 99});
            say(&mut b, &message).await;
            assert_eq!(stays(&mut a, |message| message["type"] == "message").await["data"], 99, "{room}");
        }
    }
}
