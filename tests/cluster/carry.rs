//! Requests of one session that come to any node: no balancer keeps a client at its own.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use wigwag::auth::Algorithm;
use wigwag::client::{Connection, Endpoint, Http1, Via};
use wigwag::config::Config;

use super::moves::sharing;
use super::nats::Nats;
use super::{enter, linked};
use crate::cli::Shell;
use crate::support::{TestServer, within};
use crate::tokens::{Issuer, hear, next, say, seconds};

/// One client's requests, each to the next of the nodes.
struct Scattered {
    connections: Vec<Http1>,
    turn: usize,
    room: String,
}

impl Scattered {
    async fn over(nodes: &[&TestServer], room: &str) -> Self {
        let mut connections = Vec::new();
        for node in nodes {
            connections.push(within(Http1::connect(&node.plain(), &node.trust.tls)).await.expect("a connection"));
        }
        Scattered { connections, turn: 0, room: format!("/v1/rooms/{room}") }
    }

    async fn post(&mut self, path: &str, headers: &[(&'static str, &str)], body: String) -> Response<Bytes> {
        let at = self.turn % self.connections.len();
        self.turn += 1;
        let mut all = HeaderMap::new();
        all.insert("content-type", HeaderValue::from_static("application/x-ndjson"));
        for (name, value) in headers {
            all.insert(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let path = format!("{}{path}", self.room);
        within(self.connections[at].post(&path, &all, body.into())).await.expect("an answer")
    }

    /// Lines for the session that a ticket proves.
    async fn tell(&mut self, ticket: &str, lines: &[Value]) -> Response<Bytes> {
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        self.post("/messages", &[("wigwag-ticket", ticket)], lines.join("\n")).await
    }

    /// One poll, and its answer's lines.
    async fn poll(&mut self, first: &Value, wait: &str) -> Vec<Value> {
        let headers = [("accept", "application/x-ndjson"), ("prefer", wait)];
        let answer = self.post("", &headers, first.to_string()).await;
        assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
        answer.body().split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn problem(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).expect("a problem")
}

/// How many notes of a kind a node has sent.
fn sent(node: &TestServer, kind: &str) -> u64 {
    node.context.cluster.as_ref().expect("a node of a cluster").status().sent.get(kind).copied().unwrap_or(0)
}

#[tokio::test]
async fn lines_beside_an_event_stream_may_come_to_any_node_and_keep_their_order() {
    let nats = Nats::start(&[]).await;
    let [x, y, z] = sharing(&nats, |config| config).await;
    for via in [Via::EventStreamH1, Via::EventStreamH2, Via::EventStreamH3] {
        let (mut stream, joined) = enter(&x, via, via.name()).await;
        let (mut other, other_joined) = enter(&z, Via::WebSocketH1, via.name()).await;
        hear(&mut stream, "peerJoined").await;
        let ticket = text(&joined["ticket"]);
        let mut posts = Scattered::over(&[&y, &z, &x], via.name()).await;
        let mut id = 0;
        for _ in 0..20 {
            let lines: Vec<Value> = (1..=3)
                .map(
                    |at| json!({"type": "message", "id": id + at, "to": other_joined["self"]["peer"], "data": id + at}),
                )
                .collect();
            id += 3;
            assert_eq!(posts.tell(&ticket, &lines).await.status(), StatusCode::ACCEPTED);
        }
        for number in 1..=id {
            assert_eq!(hear(&mut other, "message").await["data"], number, "each once and in order");
        }
        for number in 1..=id {
            assert_eq!(hear(&mut stream, "ok").await["id"], number);
        }
    }
    assert_eq!(
        (sent(&y, "take") + sent(&z, "take"), sent(&y, "carry")),
        (0, 21),
        "the sessions stayed where they were"
    );
}

#[tokio::test]
async fn a_poller_may_ask_a_different_node_each_time_and_its_session_stays_where_it_is() {
    let nats = Nats::start(&[]).await;
    let [x, y, z] = sharing(&nats, |config| config).await;
    let (mut other, _) = enter(&z, Via::WebSocketH1, "r").await;
    let mut polls = Scattered::over(&[&x, &y, &z], "r").await;
    let mut posts = Scattered::over(&[&y, &z, &x], "r").await;
    let joined = polls.poll(&json!({"type": "join"}), "wait=0").await.remove(0);
    let (peer, mut ticket) = (joined["self"]["peer"].clone(), text(&joined["ticket"]));
    let other_peer = joined["peers"][0]["peer"].clone();
    hear(&mut other, "peerJoined").await;
    const NUMBERS: u64 = 60;
    // The other one says numbers as fast as they are accepted, and hears those of the poller meanwhile.
    let conversation: JoinHandle<(Connection, Vec<u64>)> = tokio::spawn(async move {
        let (mut heard, mut said) = (Vec::new(), 0);
        while said < NUMBERS || heard.len() < 20 {
            if said < NUMBERS {
                say(&mut other, &json!({"type": "message", "id": said + 1, "to": peer, "data": said + 1})).await;
            }
            loop {
                let message = next(&mut other).await;
                match message["type"].as_str() {
                    Some("message") => heard.push(message["data"].as_u64().expect("a number")),
                    Some("ok") => {
                        said += 1;
                        break;
                    }
                    _ => panic!("neither away nor refused: {message}"),
                }
                if said == NUMBERS {
                    break;
                }
            }
        }
        (other, heard)
    });
    let (mut seq, mut heard, mut told) = (0, Vec::new(), 0);
    while heard.len() < NUMBERS as usize || told < 20 {
        if told < 20 {
            told += 1;
            let line = json!({"type": "message", "id": told, "to": other_peer, "data": told});
            assert_eq!(posts.tell(&ticket, &[line]).await.status(), StatusCode::ACCEPTED);
        }
        for message in polls.poll(&json!({"type": "resume", "ticket": ticket, "seq": seq}), "wait=5").await {
            if let Some(number) = message["seq"].as_u64() {
                assert_eq!(number, seq + 1, "no hole before {message}");
                seq = number;
            }
            match message["type"].as_str() {
                Some("resumed") => ticket = text(&message["ticket"]),
                Some("message") => heard.push(message["data"].as_u64().expect("a number")),
                Some("ok") => {}
                _ => panic!("unexpected: {message}"),
            }
        }
    }
    assert_eq!(heard, (1..=NUMBERS).collect::<Vec<_>>());
    let (_other, answered) = within(conversation).await.expect("it talks");
    assert_eq!(answered, (1..=20).collect::<Vec<_>>());
    assert_eq!(sent(&y, "take") + sent(&z, "take"), 0, "the session stayed where it was");
}

#[tokio::test]
async fn a_request_is_judged_by_the_node_that_has_the_session() {
    let nats = Nats::start(&[]).await;
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let limits = wigwag::protocol::Limits { queue_bytes: 100_000, ..Default::default() };
    let change = |config| Config { tokens: Some(issuer.policy()), limits: limits.clone(), ..config };
    let [x, y] = sharing(&nats, change).await;
    let token = issuer.token(&json!({"sub": "a", "room": "r", "grants": ["join", "send"]}));
    let (mut stream, joined) = crate::tokens::enter(&x, Via::EventStreamH1, "r", &token).await;
    let ticket = text(&joined["ticket"]);
    let mut posts = Scattered::over(&[&y], "r").await;
    // A token is verified there; a bad line costs one error; what is not text is a bad line.
    let newer = issuer.token(&json!({"sub": "b", "room": "r", "grants": ["join", "send"], "exp": seconds() + 600}));
    let lines =
        [json!({"type": "token", "id": 1, "token": newer}), json!({"type": "lock", "id": 2, "locked": true}), json!(7)];
    assert_eq!(posts.tell(&ticket, &lines).await.status(), StatusCode::ACCEPTED);
    for code in ["unauthorized", "forbidden", "badRequest"] {
        assert_eq!(hear(&mut stream, "error").await["code"], code);
    }
    // What is too large is not carried at all.
    let long = json!({"type": "message", "data": "x".repeat(limits.frame_bytes)});
    let refused = posts.tell(&ticket, &[long]).await;
    assert_eq!((refused.status(), sent(&y, "carry")), (StatusCode::PAYLOAD_TOO_LARGE, 1));
    // A forged ticket proves nothing, and costs the other node nothing.
    let mut forged = ticket.clone().into_bytes();
    forged[30] = if forged[30] == b'A' { b'B' } else { b'A' };
    let refused = posts.tell(&String::from_utf8(forged).expect("text"), &[json!({"type": "ping"})]).await;
    assert_eq!((refused.status(), sent(&y, "carry")), (StatusCode::UNAUTHORIZED, 1));
    // Neither does one whose session was left.
    assert_eq!(posts.tell(&ticket, &[json!({"type": "leave"})]).await.status(), StatusCode::ACCEPTED);
    let refused = posts.tell(&ticket, &[json!({"type": "ping"})]).await;
    assert_eq!(
        (refused.status(), problem(&refused)["code"].clone()),
        (StatusCode::UNAUTHORIZED, json!("unauthorized"))
    );
}

#[tokio::test]
async fn a_request_whose_node_dies_is_answered_and_says_what_is_known() {
    let nats = Nats::start(&[]).await;
    let [y] = sharing::<1>(&nats, |config| Config { resume_window: Duration::from_secs(5), ..config }).await;
    let shell = Shell::new();
    let key = shell.write("cluster.key", "0123456789abcdef0123456789abcdef");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    let args = ["--listen", "127.0.0.1:0", "--plain", "127.0.0.1:0", "--admin", "off", "--cluster", &nats.url()];
    let (mut owner, line) = shell.serve(&[&args[..], &["--cluster-key", &key]].concat(), "unencrypted on ").await;
    let port = line.rsplit_once(':').and_then(|(_, port)| port.trim().parse().ok()).expect("a port");
    let owner_at = Endpoint { encrypted: false, host: "127.0.0.1".into(), port };
    linked(&y, 1).await;
    let room = wigwag::protocol::RoomName::parse("r").expect("a name");
    let none = HeaderMap::new();
    let opened = Connection::open(&owner_at, &room, Via::EventStreamH1, &y.trust, &none);
    let mut stream = within(opened).await.expect("the transport opens");
    say(&mut stream, &json!({"type": "join"})).await;
    let ticket = text(&next(&mut stream).await["ticket"]);
    let mut posts = Scattered::over(&[&y], "r").await;
    assert_eq!(posts.tell(&ticket, &[json!({"type": "ping"})]).await.status(), StatusCode::ACCEPTED);
    owner.kill().await.expect("a child of ours");
    // On its way while nobody knows: it may have arrived.
    let unanswered = posts.tell(&ticket, &[json!({"type": "ping"})]).await;
    assert_eq!(unanswered.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(unanswered.headers().contains_key("retry-after"));
    assert_eq!(problem(&unanswered)["code"], "goingAway");
    // Then the node is known to be lost, and so is the session.
    let lost = loop {
        let answer = posts.tell(&ticket, &[json!({"type": "ping"})]).await;
        if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
            break answer;
        }
    };
    assert_eq!(lost.status(), StatusCode::UNAUTHORIZED);
}
