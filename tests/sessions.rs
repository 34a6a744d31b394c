//! How sessions end, seen from the wire: `leave` in company, `leave` beside a transport, and a fault of the server's own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wigwag::client::Via;
use wigwag::protocol::{Frame, RoomName};
use wigwag::traces::Span;
use wigwag::transport::{self, Close, HttpVersion, Opening, Received, Transport, Wire, WireError, drive};

use crate::limits::Peer;
use crate::support::{TestServer, config, within};

/// A client that says all it has to say in one burst.
struct Burst {
    lines: VecDeque<String>,
    end: End,
    heard: Arc<Mutex<Vec<Value>>>,
}

/// What comes after the last line.
enum End {
    /// The client's close.
    Closed,
    /// A fault in the server's own code.
    Panic,
}

impl Burst {
    fn new(lines: &[&str], end: End) -> (Self, Arc<Mutex<Vec<Value>>>) {
        let heard = Arc::<Mutex<Vec<Value>>>::default();
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        (Burst { lines, end, heard: Arc::clone(&heard) }, heard)
    }
}

impl Wire for Burst {
    fn poll_recv(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<Received>, WireError>> {
        match (self.lines.pop_front(), &self.end) {
            (Some(line), _) => Poll::Ready(Ok(Some(Received::Message(Bytes::from(line))))),
            (None, End::Closed) => Poll::Ready(Ok(None)),
            (None, End::Panic) => panic!("a fault of one session"),
        }
    }

    fn feed(&mut self, frame: Frame) -> Result<(), WireError> {
        self.heard.lock().push(serde_json::from_slice(&frame.text()).expect("JSON"));
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        Poll::Ready(Ok(()))
    }

    fn probe(&mut self) -> Result<(), WireError> {
        Ok(())
    }

    fn last_heard(&self) -> Option<Instant> {
        None
    }

    async fn close(self, _: Close) {}
}

fn opening(server: &TestServer, room: &str) -> Opening {
    let address = server.addresses.plain[0];
    let via = transport::Via { version: HttpVersion::H1, remote: address, local: address, encrypted: false };
    let client = server.context.client(address.ip(), &http::HeaderMap::new()).expect("no header, no mistake");
    let place = client.session().expect("loopback is not limited");
    let room = RoomName::parse(room).expect("a name");
    Opening {
        room,
        transport: Transport::WebSocketH1,
        via,
        grant: None,
        client,
        place,
        begun: std::time::Instant::now(),
        trace: Span::NONE,
    }
}

#[tokio::test]
async fn leave_is_answered_though_the_close_came_in_the_same_burst() {
    let server = TestServer::start().await;
    // Which of several things that are ready is done first is a matter of chance.
    for _ in 0..50 {
        let (wire, heard) = Burst::new(&[r#"{"type":"join"}"#, r#"{"type":"leave","id":1}"#], End::Closed);
        within(drive(wire, opening(&server, "burst"), Arc::clone(&server.context))).await;
        let heard: Vec<Value> = heard.lock().iter().map(|message| message["type"].clone()).collect();
        assert_eq!(heard, ["joined", "ok"]);
    }
    assert_eq!(server.context.hub.room_count(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_panic_in_a_session_costs_that_session_its_transport_and_nobody_else_anything() {
    let server = TestServer::start().await;
    let mut one = Peer::join(&server, Via::WebSocketH2, "panic").await;
    let mut two = Peer::join(&server, Via::WebTransport, "panic").await;
    let (wire, heard) = Burst::new(&[r#"{"type":"join"}"#], End::Panic);
    let session = drive(wire, opening(&server, "panic"), Arc::clone(&server.context));
    let ended = within(server.context.tasks.spawn(session)).await;
    assert!(ended.expect_err("it panicked").is_panic());
    let ticket = heard.lock()[0]["ticket"].clone();
    for peer in [&mut one, &mut two] {
        peer.hear("peerAway").await;
        peer.hears_nothing().await;
    }
    // Its seat is kept as after any loss.
    let mut back = server.connect(Via::WebSocketH1, "panic").await;
    back.send(&json!({"type": "resume", "ticket": ticket, "seq": 0}).to_string()).await.expect("open");
    one.hear("peerBack").await;
    server.stop().await;
}

/// One POST on a connection of its own; returns the status and the body.
async fn post(server: &TestServer, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.addresses.plain[0]).await.expect("it listens");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/x-ndjson\r\n{headers}\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("open");
    let mut response = String::new();
    within(stream.read_to_string(&mut response)).await.expect("an answer");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

/// What a poll that does not wait asks for.
const POLL: &str = "accept: application/x-ndjson\r\nprefer: wait=0\r\n";

/// Joins by a poll; returns `joined`.
async fn join_by_poll(server: &TestServer, path: &str, join: &str) -> Value {
    let (status, lines) = post(server, path, POLL, join).await;
    let joined = lines.lines().find(|line| line.starts_with('{')).expect("a line");
    let joined: Value = serde_json::from_str(joined).expect("JSON");
    assert_eq!((status, &joined["type"]), (200, &json!("joined")));
    joined
}

#[tokio::test]
async fn a_leave_between_two_polls_has_taken_effect_when_it_is_accepted() {
    let server = TestServer::start().await;
    let mut stays = Peer::join(&server, Via::WebSocketH1, "polls").await;
    let joined = join_by_poll(&server, "/v1/rooms/polls", r#"{"type":"join"}"#).await;
    stays.hear("peerJoined").await;

    let ticket = joined["ticket"].as_str().expect("a ticket");
    let headers = format!("wigwag-ticket: {ticket}\r\n");
    let leave = concat!(r#"{"type":"message","id":1,"data":"bye"}"#, "\n", r#"{"type":"leave","id":2}"#);
    assert_eq!(post(&server, "/v1/rooms/polls/messages", &headers, leave).await.0, 202);
    assert_eq!(stays.hear("message").await["data"], "bye");
    assert_eq!(stays.hear("peerLeft").await["reason"], "left");
    // Whoever polls on is told that there is nothing left.
    let resume = json!({"type": "resume", "ticket": ticket, "seq": 0}).to_string();
    assert_eq!(post(&server, "/v1/rooms/polls", POLL, &resume).await.0, 410);

    let metrics = server.context.metrics.encode().expect("text");
    for counted in ["join", "message", "leave"] {
        let line = format!("wigwag_messages_total{{type=\"{counted}\",transport=\"long-poll\"}} 1");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_used_join_key_does_not_take_the_seat_from_who_only_posts_and_polls() {
    let server = TestServer::start().await;
    let join = r#"{"type":"join","key":"00112233445566778899aabbccddeeff"}"#;
    let joined = join_by_poll(&server, "/v1/rooms/key", join).await;
    assert_eq!(post(&server, "/v1/rooms/key", POLL, join).await.0, 200, "the answer may have been lost");
    let headers = format!("wigwag-ticket: {}\r\n", joined["ticket"].as_str().expect("a ticket"));
    let message = r#"{"type":"message","id":1,"data":1}"#;
    assert_eq!(post(&server, "/v1/rooms/key/messages", &headers, message).await.0, 202);
    assert_eq!(post(&server, "/v1/rooms/key", POLL, join).await.0, 409);
    server.stop().await;
}

#[tokio::test]
async fn a_burst_of_requests_is_answered_though_the_queue_has_room_for_a_few_answers_only() {
    let mut config = config();
    config.limits.queue_messages = 16;
    let server = TestServer::start_with(config).await;
    let requests: Vec<_> = (1..=60).map(|id| json!({"type": "message", "data": null, "id": id}).to_string()).collect();
    let first = [r#"{"type":"join"}"#].into_iter();
    let lines: Vec<_> =
        first.chain(requests.iter().map(String::as_str)).chain([r#"{"type":"leave","id":61}"#]).collect();
    for _ in 0..50 {
        let (wire, heard) = Burst::new(&lines, End::Closed);
        within(drive(wire, opening(&server, "answers"), Arc::clone(&server.context))).await;
        let heard = heard.lock();
        let answered: Vec<_> = heard.iter().filter_map(|message| message["id"].as_u64()).collect();
        assert_eq!(answered, (1..=61).collect::<Vec<u64>>(), "{:?}", heard.last());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_poll_that_comes_while_lines_are_on_their_way_does_not_refuse_them() {
    let server = TestServer::start().await;
    let mut other = Peer::join(&server, Via::WebSocketH1, "beside").await;
    let joined = join_by_poll(&server, "/v1/rooms/beside", r#"{"type":"join"}"#).await;
    other.hear("peerJoined").await;
    let ticket = joined["ticket"].as_str().expect("a ticket");

    let line = r#"{"type":"message","data":"on its way","id":1}"#;
    let mut stream = TcpStream::connect(server.addresses.plain[0]).await.expect("it listens");
    let head = format!(
        "POST /v1/rooms/beside/messages HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nexpect: 100-continue\r\n\
         content-type: application/x-ndjson\r\nwigwag-ticket: {ticket}\r\ncontent-length: {}\r\n\r\n",
        line.len()
    );
    stream.write_all(head.as_bytes()).await.expect("open");
    // The server asks for the body when it knows whose it is.
    let mut asked = [0; 25];
    within(stream.read_exact(&mut asked)).await.expect("100 Continue");
    assert!(asked.starts_with(b"HTTP/1.1 100"));
    let resume = json!({"type": "resume", "ticket": ticket, "seq": 0}).to_string();
    assert_eq!(post(&server, "/v1/rooms/beside", POLL, &resume).await.0, 200);
    stream.write_all(line.as_bytes()).await.expect("open");
    let mut response = String::new();
    within(stream.read_to_string(&mut response)).await.expect("an answer");
    assert!(response.starts_with("HTTP/1.1 202"), "{response}");
    assert_eq!(other.hear("message").await["data"], "on its way");
    server.stop().await;
}
