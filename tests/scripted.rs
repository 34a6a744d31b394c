//! The native session against a server that does as the test says, over WebSocket in plain text.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_websockets::{Message, ServerBuilder, WebSocketStream};
use wigwag::client::session::{Event, Options, Session, Timing};
use wigwag::client::{Connection, Endpoint, Request, Trust, Via};
use wigwag::protocol::RoomName;

use crate::native::{hasty, join, numbers, reconnecting, wait_for};
use crate::relay::discovery;
use crate::support::{TestServer, within};

/// Where clients come to, and the discovery that brings them.
struct Stage {
    listener: TcpListener,
    endpoint: Endpoint,
    discovery: JoinHandle<()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.discovery.abort();
    }
}

/// One client's WebSocket, seen from the server.
struct Guest(Pin<Box<WebSocketStream<TcpStream>>>);

impl Stage {
    /// With further transports that somebody else serves.
    async fn new(further: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let own = json!({"type": "websocket", "url": format!("ws://{address}/v1/rooms/{{room}}")});
        let transports: Vec<_> = [own].iter().chain(further).cloned().collect();
        let document = json!({"protocol": "wigwag.v1", "transports": transports});
        let (endpoint, discovery) = discovery(document).await;
        Stage { listener, endpoint, discovery }
    }

    fn options(&self, timing: Timing) -> Options {
        let trust = Trust::new(rustls::RootCertStore::empty(), vec![]).expect("TLS 1.3");
        let room = RoomName::parse("script").expect("a name");
        Options { timing, ..Options::at(self.endpoint.clone(), room, trust) }
    }

    /// The next client, and its greeting.
    async fn guest(&self) -> (Guest, Value) {
        within(async {
            let (stream, _) = self.listener.accept().await.expect("a client");
            let (_, socket) = ServerBuilder::new().accept(stream).await.expect("a WebSocket");
            let mut guest = Guest(Box::pin(socket));
            let greeting = guest.hear().await;
            (guest, greeting)
        })
        .await
    }

    /// A client that has joined, and the session that it belongs to.
    async fn seated(&self, timing: Timing, joined: Value) -> (Guest, Session) {
        let enter = async {
            let (mut guest, greeting) = self.guest().await;
            assert_eq!(greeting["type"], "join");
            guest.say(joined).await;
            guest
        };
        let (guest, (session, _)) = tokio::join!(enter, join(self.options(timing)));
        (guest, session)
    }
}

impl Guest {
    async fn say(&mut self, message: Value) {
        within(self.0.send(Message::text(message.to_string()))).await.expect("the client is there");
    }

    /// The client's next message, pings aside.
    async fn hear(&mut self) -> Value {
        loop {
            let message = within(self.0.next()).await.expect("the client is there").expect("a message");
            let message: Value = serde_json::from_str(message.as_text().expect("text")).expect("JSON");
            if message["type"] != "ping" {
                return message;
            }
        }
    }

    /// Waits for the client to close.
    async fn ends(mut self) {
        within(async {
            while let Some(Ok(message)) = self.0.next().await
                && !message.is_close()
            {}
        })
        .await;
    }
}

fn joined(heartbeat_ms: u64) -> Value {
    json!({"type": "joined", "replayFrom": 1, "self": {"peer": "me", "metadata": {}}, "ticket": "first", "peers": [],
        "room": {"name": "script", "locked": false, "revision": 1}, "heartbeatMs": heartbeat_ms, "resumeWindowMs": 30_000})
}

fn resumed(last_id: u64) -> Value {
    json!({"type": "resumed", "ticket": "second", "lastId": last_id, "replayFrom": 1})
}

fn numbered(seq: u64) -> Value {
    json!({"type": "message", "seq": seq, "from": "b", "data": seq})
}

#[tokio::test]
async fn a_server_that_goes_away_is_left_in_time_and_nothing_is_told_but_that() {
    let stage = Stage::new(&[]).await;
    let (mut first, mut session) = stage.seated(hasty(), joined(10_000)).await;
    let begun = Instant::now();
    first.say(json!({"type": "goAway", "afterMs": 400})).await;
    first.say(numbered(1)).await;
    let (mut second, resume) = stage.guest().await;
    assert!(begun.elapsed() >= Duration::from_millis(200), "clients that were told together move apart");
    assert_eq!(resume, json!({"type": "resume", "ticket": "first", "seq": 1}));
    // What is still on the way arrives, on whichever of them.
    first.say(numbered(2)).await;
    assert_eq!(numbers(&mut session, 2).await, [1, 2]);
    second.say(resumed(0)).await;
    second.say(numbered(2)).await;
    second.say(numbered(3)).await;
    let event = within(session.next()).await.expect("the session goes on");
    assert!(matches!(&event, Event::Message { data, .. } if data.json() == "3"), "{event:?}");
    first.ends().await;
}

#[tokio::test]
async fn the_wait_that_the_server_asks_for_is_kept() {
    let stage = Stage::new(&[]).await;
    let (mut first, mut session) = stage.seated(hasty(), joined(10_000)).await;
    let begun = Instant::now();
    first
        .say(json!({"type": "closed", "code": "goingAway", "closeCode": 4000, "message": "m", "retryAfterMs": 300}))
        .await;
    reconnecting(&mut session).await;
    session.reconnect().await;
    let (mut second, resume) = stage.guest().await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(resume["ticket"], "first");
    second.say(resumed(0)).await;
    wait_for(&mut session, |event| matches!(event, Event::Resumed { .. }).then_some(())).await;
}

#[tokio::test]
async fn messages_are_acknowledged_in_time_and_by_the_dozen() {
    let stage = Stage::new(&[]).await;
    let (mut guest, mut session) = stage.seated(hasty(), joined(10_000)).await;
    for seq in 1..=40 {
        guest.say(numbered(seq)).await;
    }
    for seq in [16, 32, 40] {
        assert_eq!(guest.hear().await, json!({"type": "ack", "seq": seq}));
    }
    assert_eq!(numbers(&mut session, 40).await, (1..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_missing_message_is_asked_for_again_and_a_repeated_one_is_not_told() {
    let stage = Stage::new(&[]).await;
    let (mut first, mut session) = stage.seated(hasty(), joined(10_000)).await;
    for seq in [1, 1, 3] {
        first.say(numbered(seq)).await;
    }
    let (mut second, resume) = stage.guest().await;
    assert_eq!(resume["seq"], 1);
    second.say(resumed(0)).await;
    for seq in [2, 3] {
        second.say(numbered(seq)).await;
    }
    assert_eq!(numbers(&mut session, 3).await, [1, 2, 3]);
}

#[tokio::test]
async fn silence_of_two_heartbeats_is_the_end_of_a_transport() {
    let stage = Stage::new(&[]).await;
    let begun = Instant::now();
    let (_silent, mut session) = stage.seated(hasty(), joined(150)).await;
    let why = wait_for(&mut session, |event| match event {
        Event::Reconnecting { why, .. } => Some(why),
        _ => None,
    });
    assert!(why.await.contains("nothing was heard"));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let (mut second, resume) = stage.guest().await;
    assert_eq!(resume["type"], "resume");
    second.say(resumed(0)).await;
    wait_for(&mut session, |event| matches!(event, Event::Resumed { .. }).then_some(())).await;
}

#[tokio::test]
async fn a_request_that_stays_unanswered_is_the_end_of_a_transport_and_goes_again_unless_it_was_handled() {
    let stage = Stage::new(&[]).await;
    let (mut first, mut session) = stage.seated(hasty(), joined(60_000)).await;
    let (handled, lost) = (Request::broadcast(&1).expect("JSON"), Request::broadcast(&2).expect("JSON"));
    let answers = [session.send(handled).await.expect("open"), session.send(lost).await.expect("open")];
    for id in [1, 2] {
        assert_eq!(first.hear().await, json!({"type": "message", "id": id, "data": id}));
    }
    let (mut second, resume) = stage.guest().await;
    assert_eq!(resume["ticket"], "first");
    second.say(resumed(1)).await;
    assert_eq!(second.hear().await["id"], 2);
    for (seq, id) in [(1, 1), (2, 2)] {
        second.say(json!({"type": "ok", "seq": seq, "id": id})).await;
    }
    for answer in answers {
        within(answer).await.expect("accepted");
    }
    wait_for(&mut session, |event| matches!(event, Event::Resumed { .. }).then_some(())).await;
}

#[tokio::test]
async fn replaced_by_a_greeting_of_ones_own_is_not_the_end() {
    let stage = Stage::new(&[]).await;
    let (mut first, mut session) = stage.seated(hasty(), joined(10_000)).await;
    let replaced = json!({"type": "closed", "code": "replaced", "closeCode": 4510, "message": "m"});
    // The server takes the seat over, tells the earlier connection, and its answer on the later one gets lost.
    first.say(json!({"type": "goAway", "afterMs": 100})).await;
    let (second, resume) = stage.guest().await;
    assert_eq!(resume["ticket"], "first");
    first.say(replaced.clone()).await;
    first.ends().await;
    drop(second);
    let (mut third, resume) = stage.guest().await;
    assert_eq!(resume["ticket"], "first");
    // It is late on its way, and the third finds the seat taken by the second.
    third.say(replaced.clone()).await;
    let (mut fourth, resume) = stage.guest().await;
    assert_eq!(resume["ticket"], "first");
    fourth.say(resumed(0)).await;
    wait_for(&mut session, |event| matches!(event, Event::Resumed { .. }).then_some(())).await;
    // From then on it is somebody else's.
    fourth.say(replaced).await;
    let closed = wait_for(&mut session, |event| match event {
        Event::Closed(why) => Some(why.code),
        _ => None,
    });
    assert_eq!(closed.await, "replaced");
}

#[tokio::test]
async fn a_token_is_shown_at_the_join_and_again_only_when_it_is_new() {
    let stage = Stage::new(&[]).await;
    let enter = async {
        let (mut guest, greeting) = stage.guest().await;
        assert_eq!(greeting["token"], "old");
        guest.say(joined(10_000)).await;
        guest
    };
    let (mut first, (mut session, _)) = tokio::join!(enter, join(stage.options(hasty()).token("old")));
    let going = json!({"type": "closed", "code": "goingAway", "closeCode": 4000, "message": "m"});
    first.say(going).await;
    let (mut second, resume) = stage.guest().await;
    assert_eq!(resume.get("token"), None, "the session has it");
    second.say(resumed(0)).await;
    wait_for(&mut session, |event| matches!(event, Event::Resumed { .. }).then_some(())).await;
    let renewed = session.send(Request::token("new").expect("JSON")).await.expect("open");
    assert_eq!(second.hear().await, json!({"type": "token", "id": 1, "token": "new"}));
    // It came too late for the server.
    let expired = json!({"type": "closed", "code": "tokenExpired", "closeCode": 4502, "message": "m"});
    second.say(expired.clone()).await;
    let (mut third, resume) = stage.guest().await;
    assert_eq!((&resume["ticket"], &resume["token"]), (&json!("second"), &json!("new")));
    third.say(resumed(1)).await;
    third.say(json!({"type": "ok", "seq": 1, "id": 1})).await;
    within(renewed).await.expect("accepted");
    third.say(expired).await;
    let closed = wait_for(&mut session, |event| match event {
        Event::Closed(why) => Some(why.code),
        _ => None,
    });
    assert_eq!(closed.await, "tokenExpired");
}

/// The event stream of a real server.
fn event_stream(server: &TestServer) -> Value {
    json!({"type": "event-stream", "url": format!("http://{}/v1/rooms/{{room}}", server.addresses.plain[0])})
}

#[tokio::test]
async fn a_transport_that_opens_and_dies_or_never_answers_has_not_won() {
    let server = TestServer::start().await;
    let quick = Timing { head_start: Duration::from_millis(10), patience: Duration::from_millis(100), ..hasty() };
    for dies in [true, false] {
        let stage = Stage::new(&[event_stream(&server)]).await;
        let host = async {
            let (guest, greeting) = stage.guest().await;
            assert_eq!(greeting["type"], "join");
            if dies { drop(guest) } else { guest.ends().await }
        };
        let ((), (session, joined)) = tokio::join!(host, join(stage.options(quick.clone())));
        assert_eq!(joined.transport.as_deref(), Some("event-stream"), "dies: {dies}");
        within(session.leave()).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_refused_transport_leaves_the_others_unasked() {
    let stage = Stage::new(&[]).await;
    let host = async {
        let (mut guest, _) = stage.guest().await;
        guest.say(json!({"type": "closed", "code": "forbidden", "closeCode": 4503, "message": "not you"})).await;
    };
    let only = stage.options(hasty()).transports([Via::WebSocketH1]).patience(Duration::from_secs(60));
    let ((), refused) = tokio::join!(host, within(Session::connect(only)));
    let why = refused.expect_err("it is refused");
    assert_eq!((why.code.as_str(), why.close_code, why.message.as_str()), ("forbidden", Some(4503), "not you"));
}

/// Answers the next request over HTTP/1.1, on a connection of its own.
async fn answer_one(listener: &TcpListener, status: &str, body: &str) {
    let (mut client, _) = listener.accept().await.expect("a client");
    let mut request = String::new();
    let whole = |request: &str| {
        let (head, body) = request.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        Some(length.parse::<usize>().expect("a number") <= body.len())
    };
    while whole(&request) != Some(true) {
        let mut part = [0; 4096];
        let read = client.read(&mut part).await.expect("the client is there");
        assert!(read > 0, "no whole request: {request}");
        request.push_str(std::str::from_utf8(&part[..read]).expect("text"));
    }
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    client.write_all(answer.as_bytes()).await.expect("the client is there");
    client.shutdown().await.expect("the client is there");
}

/// The server remembers the highest id: what comes behind a loss would make it take what was lost for handled.
#[tokio::test]
async fn behind_lines_that_may_be_lost_nothing_more_is_posted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let endpoint = Endpoint { encrypted: false, host: "127.0.0.1".into(), port };
    let trust = Trust::new(rustls::RootCertStore::empty(), vec![]).expect("TLS 1.3");
    let room = RoomName::parse("script").expect("a name");
    let headers = http::HeaderMap::new();
    let open = Connection::open(&endpoint, &room, Via::LongPollH1, &trust, &headers);
    let mut connection = within(open).await.expect("nothing is sent yet");

    let join = json!({"type": "join"}).to_string();
    let (sent, ()) = within(async {
        let seat = joined(20_000).to_string();
        tokio::join!(connection.send(&join), answer_one(&listener, "200 OK", &seat))
    })
    .await;
    sent.expect("joined");

    let lost = json!({"type": "message", "id": 1, "data": "lost"}).to_string();
    let unavailable = answer_one(&listener, "503 Service Unavailable", "");
    let (sent, ()) = Box::pin(within(async { tokio::join!(connection.send(&lost), unavailable) })).await;
    assert!(matches!(sent, Err(wigwag::client::Error::Refused(_))), "{sent:?}");

    let behind = json!({"type": "message", "id": 2, "data": "behind"}).to_string();
    within(async {
        tokio::select! {
            sent = connection.send(&behind) => assert!(sent.is_err(), "it counts as sent"),
            _ = listener.accept() => panic!("it was posted"),
        }
    })
    .await;
}
