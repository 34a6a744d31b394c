//! What breaks a limit or a deadline, over every transport: each has its one answer, and the honest pair beside it notices
//! nothing.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use wigwag::client::{Connection, Error, Event, Via};

use crate::schema::Messages;
use crate::support::{TestServer, config, within};

/// Transports that carry both ways; on the others what goes up is a request of its own, with an HTTP status.
const LASTING: [Via; 4] = [Via::WebTransport, Via::WebSocketH3, Via::WebSocketH2, Via::WebSocketH1];

/// Transports that are there all the time; a poll is not.
const READERS: [Via; 7] = [
    Via::WebTransport,
    Via::WebSocketH3,
    Via::WebSocketH2,
    Via::WebSocketH1,
    Via::EventStreamH3,
    Via::EventStreamH2,
    Via::EventStreamH1,
];

const POLLERS: [Via; 3] = [Via::LongPollH3, Via::LongPollH2, Via::LongPollH1];

/// A connection with the questions that these tests ask.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) id: String,
    pub(crate) ticket: String,
    /// Who was there before.
    pub(crate) roster: Vec<String>,
}

impl Peer {
    pub(crate) async fn join(server: &TestServer, via: Via, room: &str) -> Self {
        Self::join_with(server, via, room, &HeaderMap::new()).await
    }

    pub(crate) async fn join_with(server: &TestServer, via: Via, room: &str, headers: &HeaderMap) -> Self {
        let mut connection = server.try_connect(via, room, headers).await.expect("the transport opens");
        connection.send(r#"{"type":"join"}"#).await.expect("open");
        let joined = next(&mut connection).await;
        assert_eq!(joined["type"], "joined", "{joined}");
        let roster = joined["peers"].as_array().expect("a list").iter().map(|peer| text(&peer["peer"])).collect();
        Peer { connection, id: text(&joined["self"]["peer"]), ticket: text(&joined["ticket"]), roster }
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.connection.send(&message.to_string()).await.expect("open");
    }

    pub(crate) async fn next(&mut self) -> Value {
        next(&mut self.connection).await
    }

    /// A ping is answered by the very next message.
    pub(crate) async fn hears_nothing(&mut self) {
        self.send(&json!({"type": "ping", "id": 999})).await;
        assert_eq!(self.next().await, json!({"type": "pong", "id": 999}));
    }

    /// No message of that type comes before a ping is answered.
    pub(crate) async fn hears_nothing_of(&mut self, kind: &str) {
        self.send(&json!({"type": "ping", "id": 999})).await;
        loop {
            let message = self.next().await;
            assert_ne!(message["type"], kind, "{message}");
            if message["type"] == "pong" {
                return;
            }
        }
    }

    /// The answer to a request.
    pub(crate) async fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.next().await;
            if message["id"] == id {
                return message;
            }
        }
    }

    /// The next message of that type; others before it are of no interest.
    pub(crate) async fn hear(&mut self, kind: &str) -> Value {
        loop {
            let message = next(&mut self.connection).await;
            if message["type"] == kind {
                return message;
            }
            assert_ne!(message["type"], "closed", "while waiting for {kind}: {message}");
        }
    }
}

pub(crate) async fn next(connection: &mut Connection) -> Value {
    match within(connection.recv()).await {
        Ok(Event::Message(text) | Event::Datagram(text)) => Messages::read(&text),
        other => panic!("no message but {other:?}"),
    }
}

pub(crate) async fn close_code(connection: &mut Connection) -> Option<u32> {
    loop {
        match within(connection.recv()).await {
            Ok(Event::Closed { code, .. }) => return code,
            Ok(_) => {}
            Err(error) => panic!("lost without a close: {error}"),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// Two peers who talk throughout a test, on the transport after the offender's.
struct HonestPair(Peer, Peer);

impl HonestPair {
    async fn meet(server: &TestServer, room: &str) -> Self {
        let first = Peer::join(server, Via::WebSocketH2, room).await;
        HonestPair(first, Peer::join(server, Via::WebSocketH1, room).await)
    }

    /// A message there and back, with nothing else between that concerns the two.
    async fn notice_nothing(&mut self) {
        let HonestPair(one, two) = self;
        Self::talk(one, two).await;
        Self::talk(two, one).await;
    }

    /// Sends large messages to one that reads nothing until one is refused; how many were accepted.
    async fn fill_queue_of(&mut self, slow: &str) -> u64 {
        for accepted in 0.. {
            let data = json!({"number": accepted + 1, "padding": "x".repeat(60_000)});
            self.0.send(&json!({"type": "message", "id": accepted + 1, "to": slow, "data": data})).await;
            let answer = loop {
                let message = self.0.next().await;
                if message["type"] == "ok" || message["type"] == "error" {
                    break message;
                }
            };
            self.0.send(&json!({"type": "ack", "seq": answer["seq"]})).await;
            if answer["type"] == "error" {
                assert_eq!(answer["code"], "queueFull");
                return accepted;
            }
        }
        unreachable!("a queue has an end")
    }

    async fn talk(from: &mut Peer, to: &mut Peer) {
        let number = fastrand::u32(..);
        from.send(&json!({"type": "message", "to": to.id, "data": number})).await;
        let message = to.hear("message").await;
        assert_eq!((text(&message["from"]), &message["data"]), (from.id.clone(), &json!(number)));
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_its_own_limit() {
    let server = TestServer::start().await;
    for via in LASTING {
        let room = format!("large.{}", via.name());
        let mut pair = HonestPair::meet(&server, &room).await;
        let mut offender = Peer::join(&server, via, &room).await;
        let to = pair.0.id.clone();
        let long = |bytes: usize| "x".repeat(bytes);
        for (id, message) in [
            json!({"type": "message", "to": to, "data": long(64 * 1024 - 1)}),
            json!({"type": "description", "to": to, "description": {"type": "offer", "sdp": long(128 * 1024 + 1)}}),
            json!({"type": "candidate", "to": to, "candidate": {"candidate": long(4 * 1024)}}),
            json!({"type": "metadata", "metadata": {"name": long(4 * 1024)}}),
        ]
        .into_iter()
        .enumerate()
        {
            let mut message = message;
            message["id"] = json!(id + 1);
            offender.send(&message).await;
            let error = offender.hear("error").await;
            assert_eq!((&error["id"], &error["code"]), (&json!(id + 1), &json!("tooLarge")), "{via:?}");
        }
        // A whole frame above the limit ends the session: nobody can tell what was in it.
        offender.send(&json!({"type": "message", "data": long(170 * 1024)})).await;
        let closed = loop {
            let message = next(&mut offender.connection).await;
            if message["type"] == "closed" {
                break message;
            }
        };
        assert_eq!((&closed["code"], &closed["closeCode"]), (&json!("tooLarge"), &json!(4505)), "{via:?}");
        assert_eq!(close_code(&mut offender.connection).await, Some(4505), "{via:?}");
        pair.notice_nothing().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn whoever_says_nothing_first_is_closed_with_timeout() {
    let mut config = config();
    config.limits.first_message_ms = 200;
    let server = TestServer::start_with(config).await;
    for via in LASTING {
        let mut silent = server.connect(via, "silent").await;
        let closed = next(&mut silent).await;
        assert_eq!(closed["code"], "timeout", "{via:?}");
        assert_eq!(close_code(&mut silent).await, Some(4003), "{via:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn no_payload_forges_a_line_on_another_transport() {
    let server = TestServer::start().await;
    for from in Via::ALL {
        for to in Via::ALL {
            if from.transport().is_line_delimited() {
                continue; // There the break would end the forger's own line.
            }
            let mut victim = Peer::join(&server, to, "lines").await;
            let mut forger = Peer::join(&server, from, "lines").await;
            victim.hear("peerJoined").await;
            let pretty = format!(
                "{{\"type\":\"message\",\"to\":\"{}\",\"data\":{{\r\n\"a\":1\n,\n\"b\":\n{{\"type\":\"closed\"}}\n}}}}",
                victim.id
            );
            forger.connection.send(&pretty).await.expect("open");
            let message = next(&mut victim.connection).await;
            assert_eq!(message["data"], json!({"a": 1, "b": {"type": "closed"}}), "{from:?} to {to:?}");
            victim.send(&json!({"type": "leave"})).await;
            forger.send(&json!({"type": "leave"})).await;
            close_code(&mut victim.connection).await;
            close_code(&mut forger.connection).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_stops_is_closed_and_finds_all_that_had_fitted_when_it_resumes() {
    let mut config = config();
    config.limits.messages_per_second = 100_000;
    config.limits.burst = 100_000;
    let server = TestServer::start_with(config).await;
    for via in READERS {
        let room = format!("slow.{}", via.name());
        let mut pair = HonestPair::meet(&server, &room).await;
        let slow = Peer::join(&server, via, &room).await;
        // It reads nothing any more. Kernel buffers and windows fill first, then the seat's queue.
        let accepted = pair.fill_queue_of(&slow.id).await;
        pair.0.hear("peerAway").await;
        pair.notice_nothing().await;

        let mut back = server.connect(via, &room).await;
        back.send(&json!({"type": "resume", "ticket": slow.ticket, "seq": 0}).to_string()).await.expect("open");
        let greeting = next(&mut back).await;
        assert_eq!(greeting["type"], if greeting["lost"].is_null() { "resumed" } else { "joined" });
        let lost = greeting["lost"].as_u64().unwrap_or(0);
        let mut numbers = Vec::new();
        let mut seq = greeting["replayFrom"].as_u64().expect("a number") - 1;
        while numbers.last() != Some(&accepted) {
            let message = next(&mut back).await;
            if message["type"] == "ping" {
                continue;
            }
            seq += 1;
            assert_eq!(message["seq"], seq, "{via:?}");
            numbers.extend(message["data"]["number"].as_u64());
        }
        assert_eq!(numbers, (lost + 1..=accepted).collect::<Vec<_>>(), "{via:?}: {lost} lost");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_poller_that_does_not_ask_is_not_sent_more_than_fits_and_finds_all_of_it_with_its_next_polls() {
    let mut config = config();
    config.limits.messages_per_second = 100_000;
    config.limits.burst = 100_000;
    let server = TestServer::start_with(config).await;
    for via in POLLERS {
        let room = format!("slow.{}", via.name());
        let mut pair = HonestPair::meet(&server, &room).await;
        let mut slow = Peer::join(&server, via, &room).await;
        let accepted = pair.fill_queue_of(&slow.id).await;
        pair.notice_nothing().await;
        let mut seq = 0;
        for number in 1..=accepted {
            let message = slow.hear("message").await;
            assert!(message["seq"].as_u64() > Some(seq), "{via:?}: {} after {seq}", message["seq"]);
            seq = message["seq"].as_u64().expect("a number");
            assert_eq!(message["data"]["number"], number, "{via:?}");
            slow.send(&json!({"type": "ack", "seq": seq})).await;
        }
        slow.hears_nothing().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_flood_is_refused_line_by_line_and_then_closed() {
    let server = TestServer::start().await;
    for via in LASTING {
        let room = format!("flood.{}", via.name());
        let mut pair = HonestPair::meet(&server, &room).await;
        let mut offender = Peer::join(&server, via, &room).await;
        let (mut refused, mut sent) = (0, 0u64);
        let closed = 'flood: loop {
            for _ in 0..100 {
                sent += 1;
                // A client that is closed in mid-flood may find its transport gone.
                let message = json!({"type": "metadata", "id": sent, "metadata": {}}).to_string();
                if offender.connection.send(&message).await.is_err() {
                    break;
                }
            }
            loop {
                let message = next(&mut offender.connection).await;
                match message["type"].as_str() {
                    Some("error") => {
                        assert_eq!(message["code"], "rateLimited", "{message}");
                        assert!(message["retryAfterMs"].as_u64().is_some_and(|wait| wait > 0), "{message}");
                        refused += 1;
                    }
                    Some("closed") => break 'flood message,
                    _ => {}
                }
                offender.connection.send(&json!({"type": "ack", "seq": message["seq"]}).to_string()).await.ok();
                if message["id"] == sent {
                    break;
                }
            }
        };
        assert_eq!((&closed["code"], &closed["closeCode"]), (&json!("rateLimited"), &json!(4010)), "{via:?}");
        assert!(refused > 0 && closed["retryAfterMs"].is_u64(), "{via:?}: {closed}");
        pair.notice_nothing().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_full_room_is_refused_and_free_again_when_somebody_leaves() {
    let mut config = config();
    config.limits.peers = 2;
    let server = TestServer::start_with(config).await;
    for via in Via::ALL {
        let room = format!("full.{}", via.name());
        let mut pair = HonestPair::meet(&server, &room).await;
        let mut third = server.connect(via, &room).await;
        third.send(r#"{"type":"join"}"#).await.expect("open");
        assert_eq!(next(&mut third).await["code"], "roomFull", "{via:?}");
        assert_eq!(close_code(&mut third).await, Some(4011), "{via:?}");
        pair.1.send(&json!({"type": "leave"})).await;
        pair.0.hear("peerLeft").await;
        Peer::join(&server, via, &room).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_seat_without_a_transport_is_away_and_left_when_its_window_ends() {
    let mut config = config();
    config.resume_window = Duration::from_millis(300);
    let server = TestServer::start_with(config).await;
    for via in READERS {
        let room = format!("lease.{}", via.name());
        let mut stays = Peer::join(&server, via, &room).await;
        let goes = Peer::join(&server, via, &room).await;
        drop(goes.connection);
        assert_eq!(stays.hear("peerAway").await["peer"], json!(goes.id), "{via:?}");
        let left = stays.hear("peerLeft").await;
        assert_eq!((&left["peer"], &left["reason"]), (&json!(goes.id), &json!("timeout")), "{via:?}");
        let mut late = server.connect(via, &room).await;
        late.send(&json!({"type": "resume", "ticket": goes.ticket, "seq": 0}).to_string()).await.expect("open");
        assert_eq!(next(&mut late).await["code"], "resumeExpired", "{via:?}");
        assert_eq!(close_code(&mut late).await, Some(4020), "{via:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_foreign_origin_is_refused_before_anything_is_accepted() {
    let mut config = config();
    config.origins = vec!["https://app.example".into()];
    let server = TestServer::start_with(config).await;
    for via in LASTING {
        let origin =
            |value: &'static str| HeaderMap::from_iter([(http::header::ORIGIN, HeaderValue::from_static(value))]);
        for foreign in ["https://evil.example", "null", "https://app.example.evil.example"] {
            match server.try_connect(via, "origins", &origin(foreign)).await {
                Err(Error::Refused(response)) => {
                    let problem: Value = serde_json::from_slice(response.body()).expect("problem+json");
                    assert_eq!((response.status().as_u16(), &problem["code"]), (403, &json!("forbidden")), "{via:?}");
                }
                Err(error) => panic!("{via:?}: {error}"),
                Ok(_) => panic!("{via:?}: {foreign} was let in"),
            }
        }
        let allowed = server.try_connect(via, "origins", &origin("https://app.example")).await;
        allowed.expect("a listed origin is let in").send(r#"{"type":"join"}"#).await.expect("open");
    }
    server.stop().await;
}
