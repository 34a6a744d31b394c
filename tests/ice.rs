//! What clients are told of STUN and TURN servers, and when.

use std::time::Duration;

use serde_json::{Value, json};
use wigwag::client::{Connection, Event, Via};
use wigwag::config::Config;
use wigwag::ice::Policy;
use wigwag::secret::SecretSource;

use crate::support::{TestServer, config, within};

async fn next(connection: &mut Connection) -> Value {
    match within(connection.recv()).await {
        Ok(Event::Message(text)) => serde_json::from_str(&text).expect("JSON"),
        other => panic!("no message but {other:?}"),
    }
}

async fn hear(connection: &mut Connection, kind: &str) -> Value {
    loop {
        let message = next(connection).await;
        if message["type"] == kind {
            return message;
        }
    }
}

/// Seconds since 1970 at which a user name of the TURN REST scheme ends, and whose it is.
fn username(servers: &Value) -> (u64, String) {
    let (ends, peer) = servers[1]["username"].as_str().and_then(|name| name.split_once(':')).expect("time:peer");
    (ends.parse().expect("a number"), peer.to_owned())
}

#[tokio::test]
async fn turn_credentials_are_told_on_joining_on_request_and_before_they_end() {
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), "north").expect("written");
    let ice = Policy {
        urls: ["stun:127.0.0.1", "turn:127.0.0.1"].map(|url| url.parse().expect("a URL")).to_vec(),
        secret: Some(SecretSource::File(secret.path().to_owned())),
        lifetime: Duration::from_secs(4),
    };
    let server = TestServer::start_with(Config { ice, ..config() }).await;
    let renewed = Via::ALL.map(|via| {
        let server = &server;
        async move {
            let mut peer = server.connect(via, &format!("ice.{}", via.name())).await;
            peer.send(r#"{"type":"join"}"#).await.expect("open");
            let joined = next(&mut peer).await;
            assert_eq!(joined["iceServers"][0], json!({"urls": ["stun:127.0.0.1"]}), "{joined}");
            assert_eq!(joined["iceServersExpireMs"], 4000);
            let (first, name) = username(&joined["iceServers"]);
            assert_eq!(json!(name), joined["self"]["peer"]);

            peer.send(r#"{"type":"iceServers","id":1}"#).await.expect("open");
            let asked = hear(&mut peer, "iceServers").await;
            assert_eq!(hear(&mut peer, "ok").await["id"], 1);
            let pushed = hear(&mut peer, "iceServers").await;
            assert_eq!(pushed["expireMs"], 4000);
            let (second, third) = (username(&asked["iceServers"]).0, username(&pushed["iceServers"]).0);
            assert!(first <= second && second < third, "{first} {second} {third}");
        }
    });
    futures_util::future::join_all(renewed).await;
    server.stop().await;
}

#[tokio::test]
async fn candidates_of_private_networks_are_left_out_where_the_operator_says_so() {
    let mut config = config();
    config.limits.checks.drop_private = true;
    let server = TestServer::start_with(config).await;
    let mut alice = server.connect(Via::WebSocketH2, "private").await;
    alice.send(r#"{"type":"join"}"#).await.expect("open");
    let joined = next(&mut alice).await;
    let mut bob = server.connect(Via::WebTransport, "private").await;
    bob.send(r#"{"type":"join"}"#).await.expect("open");
    next(&mut bob).await;
    let candidate = |address: &str| format!("candidate:1 1 udp 1 {address} 9 typ host");
    for (id, text) in [(1, candidate("192.168.1.7")), (2, candidate("203.0.113.7")), (3, String::new())] {
        let to = joined["self"]["peer"].clone();
        let message = json!({"type": "candidate", "id": id, "to": to, "candidate": {"candidate": text}});
        bob.send(&message.to_string()).await.expect("open");
        assert_eq!(hear(&mut bob, "ok").await["id"], id);
    }
    for text in [candidate("203.0.113.7"), String::new()] {
        assert_eq!(hear(&mut alice, "candidate").await["candidate"]["candidate"], text);
    }
    drop((alice, bob));
    server.stop().await;
}
