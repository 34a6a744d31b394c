//! QUIC as clients of every kind meet it: well-behaved ones of our own, and hostile ones that speak raw QUIC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::post;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use wigwag::client::webtransport::{Incoming, WebTransport, client_config};
use wigwag::client::{Connection, Endpoint, Error, Event, Http3, Via};
use wigwag::config::Config;
use wigwag::server::Server;
use wigwag::transport::quic;

use crate::support::{TestServer, config, within};

const BUFFERED_STREAM_REJECTED: u64 = 0x3994_bd84;
const H3_STREAM_CREATION_ERROR: u64 = 0x103;
const H3_EXCESSIVE_LOAD: u64 = 0x107;
const H3_ID_ERROR: u64 = 0x108;
const H3_REQUEST_INCOMPLETE: u64 = 0x10d;
/// An application's error 4500 (`badRequest`) among HTTP/3's own.
const BAD_REQUEST_STREAM: u64 = 0x52e4_a40f_a8db + 4500 + 4500 / 0x1e;

/// Few streams, and short waits for everything that a hostile client leaves undone.
fn impatient() -> Config {
    let mut config = config();
    config.connections.request_head = Duration::from_millis(300);
    config.connections.handshake = Duration::from_millis(300);
    config
}

impl TestServer {
    async fn http3(&self) -> Http3 {
        within(Http3::connect(&self.secure(), &self.trust)).await.expect("an HTTP/3 connection")
    }

    /// A QUIC connection on which nothing has been said yet.
    pub(crate) async fn raw_quic(&self) -> quinn::Connection {
        raw(self.addresses.secure[0], &self.trust).await
    }
}

async fn raw(address: SocketAddr, trust: &wigwag::client::Trust) -> quinn::Connection {
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let config = client_config(trust).expect("QUIC's cipher suites");
    within(endpoint.connect_with(config, address, "localhost").expect("a name")).await.expect("a QUIC connection")
}

async fn session(http3: &Http3, room: &str) -> WebTransport {
    within(http3.webtransport(&format!("/v1/rooms/{room}"), &HeaderMap::new())).await.expect("a session")
}

async fn join(http3: &Http3, room: &str) -> WebTransport {
    let mut session = session(http3, room).await;
    session.send(r#"{"type":"join"}"#).await.expect("sent");
    assert_eq!(hear(&mut session).await["type"], "joined");
    session
}

/// The next message, whether it comes by the stream or by datagram.
async fn hear(session: &mut WebTransport) -> Value {
    match within(session.recv()).await.expect("a message") {
        Incoming::Message(text) | Incoming::Datagram(text) => serde_json::from_slice(&text).expect("JSON"),
        closed => panic!("no message but {closed:?}"),
    }
}

/// The session works in both directions.
async fn ping(session: &mut WebTransport) {
    session.send(r#"{"type":"ping","id":1}"#).await.expect("sent");
    assert_eq!(hear(session).await["type"], "pong");
}

/// The code with which the session is closed, whatever comes before.
async fn close_code(session: &mut WebTransport) -> u32 {
    loop {
        if let Incoming::Closed { code, .. } = within(session.recv()).await.expect("a close") {
            return code;
        }
    }
}

async fn event(connection: &mut Connection) -> Value {
    match within(connection.recv()).await.expect("a message") {
        Event::Message(text) => serde_json::from_str(&text).expect("JSON"),
        other => panic!("no message but {other:?}"),
    }
}

#[tokio::test]
async fn requests_and_five_sessions_share_a_connection_and_each_is_closed_with_its_own_code() {
    let mut config = config();
    config.limits.first_message_ms = 500;
    let frame_bytes = config.limits.frame_bytes;
    let server = TestServer::start_with(config).await;
    let http3 = server.http3().await;
    let get = || async {
        let response =
            within(http3.request(Method::GET, "/v1/discovery", &HeaderMap::new())).await.expect("a response");
        assert_eq!(response.status(), StatusCode::OK);
        let discovery: Value = serde_json::from_slice(response.body()).expect("JSON");
        assert_eq!(discovery["protocol"], "wigwag.v1");
    };
    let mut silent = session(&http3, "a").await;
    get().await;
    let mut nonsense = session(&http3, "b").await;
    let mut endless = session(&http3, "c").await;
    let mut leaving = join(&http3, "d").await;
    get().await;
    let mut replaced = session(&http3, "e").await;
    replaced.send(r#"{"type":"join"}"#).await.expect("sent");
    let joined = hear(&mut replaced).await;

    nonsense.send("nonsense").await.expect("sent");
    endless.send(&"x".repeat(frame_bytes + 1)).await.expect("sent");
    leaving.send(r#"{"type":"leave"}"#).await.expect("sent");
    let mut later = server.connect(Via::WebTransport, "e").await;
    let resume = json!({"type": "resume", "ticket": joined["ticket"], "seq": 0});
    later.send(&resume.to_string()).await.expect("sent");

    assert_eq!(close_code(&mut nonsense).await, 4500);
    assert_eq!(close_code(&mut endless).await, 4505);
    assert_eq!(close_code(&mut leaving).await, 0);
    assert_eq!(close_code(&mut replaced).await, 4510);
    assert_eq!(close_code(&mut silent).await, 4003);
    get().await;
    ping(&mut join(&http3, "f").await).await;
}

#[tokio::test]
async fn a_client_that_closes_with_a_code_is_answered_and_away_at_once() {
    let server = TestServer::start().await;
    let http3 = server.http3().await;
    let mut witness = join(&http3, "demo").await;
    let leaving = join(&http3, "demo").await;
    assert_eq!(hear(&mut witness).await["type"], "peerJoined");
    within(leaving.close(1234, "see you")).await.expect("the server ends its side");
    assert_eq!(hear(&mut witness).await["type"], "peerAway");
}

#[tokio::test]
async fn datagrams_reach_the_session_that_they_are_for() {
    let server = TestServer::start().await;
    let (senders, receivers) = (server.http3().await, server.http3().await);
    let rooms = ["a", "b", "c", "d", "e"];
    let mut pairs = Vec::new();
    for room in rooms {
        let mut receiver = join(&receivers, room).await;
        let sender = join(&senders, room).await;
        assert_eq!(hear(&mut receiver).await["type"], "peerJoined");
        pairs.push((sender, receiver));
    }
    for (room, (sender, _)) in rooms.iter().zip(&pairs) {
        sender.send_datagram(&json!({"type": "message", "data": room}).to_string()).expect("it fits");
    }
    for (room, (_, receiver)) in rooms.iter().zip(&mut pairs) {
        let Incoming::Datagram(text) = within(receiver.recv()).await.expect("a message") else {
            panic!("an ephemeral message that fits comes by datagram");
        };
        assert_eq!(serde_json::from_slice::<Value>(&text).expect("JSON")["data"], *room);
    }
    let (sender, receiver) = &mut pairs[0];
    let large = json!({"type": "message", "ephemeral": true, "data": "x".repeat(5000)});
    sender.send(&large.to_string()).await.expect("sent");
    assert!(
        matches!(within(receiver.recv()).await, Ok(Incoming::Message(text)) if text.len() > 5000),
        "one that does not fit comes by the stream"
    );
}

#[tokio::test]
async fn openings_that_are_not_right_are_refused_by_status() {
    let server = TestServer::start().await;
    let http3 = server.http3().await;
    let header = |name: &'static str, value: &'static str| {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
    };
    for (path, headers, status, code) in [
        ("/v1/rooms/a%20b", HeaderMap::new(), 400, "badRequest"),
        ("/v1/elsewhere", HeaderMap::new(), 404, "notFound"),
        ("/v1/rooms/demo", header("origin", "https://evil.example"), 403, "forbidden"),
        ("/v1/rooms/demo", header("authorization", "Basic eA=="), 401, "unauthorized"),
        ("/v1/rooms/demo", header("wt-available-protocols", "\"other\""), 400, "badRequest"),
    ] {
        let Err(Error::Refused(response)) = within(http3.webtransport(path, &headers)).await else {
            panic!("{path} with {headers:?} is not refused");
        };
        assert_eq!(response.status(), status, "{path} with {headers:?}");
        let problem: Value = serde_json::from_slice(response.body()).expect("problem+json");
        assert_eq!(problem["code"], code, "{path} with {headers:?}");
    }
    let response = within(http3.request(Method::GET, "/v1/rooms/demo", &HeaderMap::new())).await.expect("a response");
    assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
    drop(join(&http3, "demo").await);
}

/// Raw HTTP/3, as far as hostile clients need it.
pub(crate) mod h3 {
    pub(crate) fn varint(value: u64) -> Vec<u8> {
        match value {
            0..0x40 => vec![value as u8],
            0x40..0x4000 => (0x4000 | value as u16).to_be_bytes().to_vec(),
            0x4000..0x4000_0000 => (0x8000_0000 | value as u32).to_be_bytes().to_vec(),
            _ => (0xc000_0000_0000_0000 | value).to_be_bytes().to_vec(),
        }
    }

    pub(crate) fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        [varint(kind), varint(payload.len() as u64), payload.to_vec()].concat()
    }

    /// The head of a control stream: H3_DATAGRAM and draft 02's WebTransport.
    pub(crate) fn control_stream() -> Vec<u8> {
        control_stream_of(&[varint(0x33), varint(1), varint(0x2b60_3742), varint(1)].concat())
    }

    /// The head of a control stream with other SETTINGS.
    pub(crate) fn control_stream_of(settings: &[u8]) -> Vec<u8> {
        [varint(0), frame(0x04, settings)].concat()
    }

    /// A HEADERS frame of literal fields (RFC 9204, 4.5.6).
    pub(crate) fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut section = vec![0, 0];
        for (name, value) in fields {
            section.extend(prefixed(0x20, 3, name));
            section.extend(prefixed(0x00, 7, value));
        }
        frame(0x01, &section)
    }

    fn prefixed(flags: u8, bits: u32, text: &str) -> Vec<u8> {
        let most = (1usize << bits) - 1;
        let mut out = Vec::new();
        if text.len() < most {
            out.push(flags | text.len() as u8);
        } else {
            out.push(flags | most as u8);
            let mut rest = text.len() - most;
            while rest >= 0x80 {
                out.push(0x80 | (rest & 0x7f) as u8);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
        [out, text.as_bytes().to_vec()].concat()
    }

    pub(crate) fn connect(room: &str) -> Vec<u8> {
        headers(&[
            (":method", "CONNECT"),
            (":protocol", "webtransport"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", &format!("/v1/rooms/{room}")),
        ])
    }

    pub(crate) fn get(path: &str) -> Vec<u8> {
        headers(&[(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)])
    }

    /// What a stream of session `id` begins with.
    pub(crate) fn session_stream(id: u64) -> Vec<u8> {
        [varint(0x41), varint(id)].concat()
    }
}

/// The whole answer to a CONNECT on a stream of its own.
async fn connect_answer(quic: &quinn::Connection, fields: &[(&str, &str)]) -> String {
    let common = [(":scheme", "https"), (":authority", "localhost"), (":path", "/v1/rooms/demo")];
    let (_send, mut recv) = open(quic, &h3::headers(&[fields, &common].concat())).await;
    let answer = within(recv.read_to_end(64 * 1024)).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_connect_for_something_else_is_answered_and_a_malformed_one_is_reset() {
    const H3_MESSAGE_ERROR: u64 = 0x10e;
    let server = TestServer::start().await;
    let quic = server.raw_quic().await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    let (connect, websocket) = ((":method", "CONNECT"), (":protocol", "websocket"));
    for (fields, status) in [
        (&[connect][..], 501),
        (&[connect, (":protocol", "connect-udp")], 501),
        (&[connect, (":protocol", "carrier-pigeon")], 501),
        (&[connect, (":protocol", "")], 501),
        (&[(":method", "GET"), websocket], 400),
        (&[connect, websocket], 400),
        (&[connect, websocket, ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat")], 400),
    ] {
        let answer = connect_answer(&quic, fields).await;
        assert!(answer.contains(&format!("\"status\":{status}")), "{fields:?}: {answer}");
    }
    let twice = h3::headers(&[connect, websocket, websocket, (":scheme", "https"), (":authority", "localhost")]);
    let (_send, mut recv) = open(&quic, &twice).await;
    assert_eq!(reset_code(&mut recv).await, H3_MESSAGE_ERROR);
}

#[tokio::test]
async fn websockets_and_webtransport_share_a_connection() {
    let server = TestServer::start().await;
    let quic = server.raw_quic().await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    let head = h3::headers(&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/v1/rooms/demo"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "wigwag.v1"),
    ]);
    // A masked text frame (RFC 6455, 5.2) with a mask of zeros, in DATA frames of one byte; sent before the answer has come.
    let join = [&[0x81, 0x80 | 15, 0, 0, 0, 0][..], br#"{"type":"join"}"#].concat();
    let data: Vec<u8> = join.iter().flat_map(|&byte| h3::frame(0x00, &[byte])).collect();
    let (mut websocket, mut frames) = open(&quic, &[head, data].concat()).await;
    read_until(&mut frames, "\"transport\":\"websocket-h3\"").await;
    let (connect, _answer) = open(&quic, &h3::connect("demo")).await;
    let (mut lines, mut messages) = open(&quic, &h3::session_stream(connect.id().into())).await;
    lines.write_all(b"{\"type\":\"join\"}\n{\"type\":\"message\",\"data\":\"hello\"}\n").await.expect("sent");
    read_until(&mut messages, "\"joined\"").await;
    read_until(&mut frames, "\"hello\"").await;
    websocket.finish().expect("open");
    read_until(&mut messages, "\"peerAway\"").await;
}

pub(crate) async fn open(quic: &quinn::Connection, bytes: &[u8]) -> (quinn::SendStream, quinn::RecvStream) {
    let (mut send, recv) = within(quic.open_bi()).await.expect("a stream");
    send.write_all(bytes).await.expect("sent");
    (send, recv)
}

pub(crate) async fn open_uni(quic: &quinn::Connection, bytes: &[u8]) -> quinn::SendStream {
    let mut send = within(quic.open_uni()).await.expect("a stream");
    send.write_all(bytes).await.expect("sent");
    send
}

/// The code with which the server resets a stream.
async fn reset_code(recv: &mut quinn::RecvStream) -> u64 {
    match within(recv.read_chunk(usize::MAX, true)).await {
        Err(quinn::ReadError::Reset(code)) => code.into_inner(),
        other => panic!("not reset: {other:?}"),
    }
}

/// The code with which the server closes a connection.
pub(crate) async fn connection_code(quic: &quinn::Connection) -> u64 {
    match within(quic.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("not closed: {other:?}"),
    }
}

/// Waits for some bytes that hold `expected`.
pub(crate) async fn read_until(recv: &mut quinn::RecvStream, expected: &str) {
    let mut text = String::new();
    // The deadline is that of the whole: the server's pings come for ever.
    within(async {
        while !text.contains(expected) {
            let chunk = recv.read_chunk(usize::MAX, true).await.expect("readable").expect("not ended");
            text.push_str(&String::from_utf8_lossy(&chunk.bytes));
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_asked_for_before_settings_is_answered_behind_them() {
    let server = TestServer::start().await;
    let quic = server.raw_quic().await;
    let (_connect, mut answer) = open(&quic, &h3::connect("demo")).await;
    let (mut lines, mut messages) = open(&quic, &h3::session_stream(0)).await;
    lines.write_all(b"{\"type\":\"join\"}\n").await.expect("sent");
    // Once a later request has been answered, the session would have been, too.
    let (mut get, mut response) = open(&quic, &h3::get("/v1/discovery")).await;
    get.finish().expect("open");
    within(response.read_to_end(64 * 1024)).await.expect("a response");
    assert!(futures_util::FutureExt::now_or_never(answer.read_chunk(1, true)).is_none(), "answered before SETTINGS");
    let _control = open_uni(&quic, &h3::control_stream()).await;
    assert_eq!(within(answer.read_chunk(1, true)).await.expect("readable").expect("an answer").bytes[0], 0x01);
    read_until(&mut messages, "\"joined\"").await;
}

#[tokio::test]
async fn a_client_that_takes_no_datagrams_hears_everything_by_its_stream() {
    let server = TestServer::start().await;
    let quic = server.raw_quic().await;
    let _control = open_uni(&quic, &h3::control_stream_of(&[])).await;
    let (connect, _answer) = open(&quic, &h3::connect("demo")).await;
    let (mut lines, mut messages) = open(&quic, &h3::session_stream(connect.id().into())).await;
    lines.write_all(b"{\"type\":\"join\"}\n").await.expect("sent");
    read_until(&mut messages, "\"joined\"").await;
    let sender = join(&server.http3().await, "demo").await;
    sender.send_datagram(&json!({"type": "message", "data": "hello"}).to_string()).expect("it fits");
    read_until(&mut messages, "\"hello\"").await;
}

#[tokio::test]
async fn of_two_hundred_early_streams_the_first_is_the_session_and_the_others_are_reset() {
    let server = TestServer::start().await;
    let quic = server.raw_quic().await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    // The session's id is that of a stream on which nothing has been sent yet.
    let (mut connect, _answer) = within(quic.open_bi()).await.expect("a stream");
    let header = h3::session_stream(connect.id().into());
    let (mut lines, mut messages) = open(&quic, &header).await;
    lines.write_all(b"{\"type\":\"join\"}\n").await.expect("sent");
    let mut others = Vec::new();
    for _ in 1..16 {
        others.push(open(&quic, &header).await);
    }
    // Whichever of them come first are kept; a stream more is one too many.
    let mut rejected = 0;
    for _ in 16..200 {
        let (_send, mut recv) = open(&quic, &header).await;
        rejected += u32::from(reset_code(&mut recv).await == BUFFERED_STREAM_REJECTED);
    }
    assert_eq!(rejected, 184);
    connect.write_all(&h3::connect("demo")).await.expect("sent");
    read_until(&mut messages, "\"joined\"").await;
    for (_send, recv) in &mut others {
        assert_eq!(reset_code(recv).await, BAD_REQUEST_STREAM);
    }
    let (_send, mut late) = open(&quic, &header).await;
    assert_eq!(reset_code(&mut late).await, BAD_REQUEST_STREAM, "a session has one stream");
    let uni = open_uni(&quic, &[h3::varint(0x54), h3::varint(connect.id().into())].concat()).await;
    let stopped = within(uni.stopped()).await.expect("still connected").expect("stopped");
    assert_eq!(stopped.into_inner(), BUFFERED_STREAM_REJECTED);
}

#[tokio::test]
async fn streams_that_tell_nothing_end_by_themselves_and_disturb_nobody() {
    let server = TestServer::start_with(impatient()).await;
    let quic = server.raw_quic().await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    let endless_frame = [h3::varint(0x1f * 99 + 0x21), h3::varint(1 << 60), vec![0; 5000]].concat();
    let head = h3::get("/v1/discovery");
    let mut silent = Vec::new();
    // As many as may be at once: half a type, a frame without an end, half a head, a session that never comes.
    for bytes in [&[0x40][..], &endless_frame, &head[..head.len() - 1], &h3::session_stream(396)] {
        for _ in 0..24 {
            silent.push(open(&quic, bytes).await);
        }
    }
    let (mut get, mut response) = open(&quic, &head).await;
    get.finish().expect("open");
    within(response.read_to_end(64 * 1024)).await.expect("a response beside them");
    for (_send, recv) in &mut silent {
        reset_code(recv).await;
    }
    // With their other halves gone, too, there is room for as many again.
    drop(silent);
    for _ in 0..99 {
        open(&quic, &[0x40]).await;
    }
    drop(server.http3().await.request(Method::GET, "/", &HeaderMap::new()).await.expect("a response"));
}

#[tokio::test]
async fn a_thousand_streams_opened_and_reset_leave_the_connection_working() {
    let server = TestServer::start().await;
    let quic = server.raw_quic().await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    for number in 0..1000 {
        let (mut send, mut recv) = open(&quic, &h3::get("/v1/discovery")).await;
        if number % 2 == 0 {
            send.reset(1u32.into()).expect("open");
        }
        recv.stop(1u32.into()).expect("open");
    }
    let (mut get, mut response) = open(&quic, &h3::get("/v1/discovery")).await;
    get.finish().expect("open");
    within(response.read_to_end(64 * 1024)).await.expect("a response");
}

#[tokio::test]
async fn what_is_no_http3_is_stopped_or_ends_the_connection() {
    let server = TestServer::start_with(impatient()).await;
    let stopped = async |bytes: Vec<u8>| {
        let quic = server.raw_quic().await;
        let _control = open_uni(&quic, &h3::control_stream()).await;
        let send = open_uni(&quic, &bytes).await;
        within(send.stopped()).await.expect("still connected").expect("stopped").into_inner()
    };
    assert_eq!(stopped(h3::varint(0x1f * 7 + 0x21)).await, H3_STREAM_CREATION_ERROR, "an unknown type");
    assert_eq!(stopped(vec![0xff; 8]).await, H3_STREAM_CREATION_ERROR, "garbage");

    let closed = async |uni: Vec<u8>, bidi: Vec<u8>| {
        let quic = server.raw_quic().await;
        let _uni = open_uni(&quic, &uni).await;
        let (_send, _recv) = open(&quic, &bidi).await;
        connection_code(&quic).await
    };
    assert_eq!(closed(h3::control_stream(), h3::session_stream(3)).await, H3_ID_ERROR, "no client's stream");
    assert_eq!(closed(h3::varint(1), vec![]).await, H3_STREAM_CREATION_ERROR, "a push stream");
    let quic = server.raw_quic().await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    let (send, mut recv) = open(&quic, &h3::headers(&[("x", &"y".repeat(40_000))])).await;
    assert_eq!(within(send.stopped()).await.expect("connected").expect("stopped").into_inner(), H3_EXCESSIVE_LOAD);
    reset_code(&mut recv).await;
    let (mut empty, mut answer) = open(&quic, &[]).await;
    empty.finish().expect("open");
    assert_eq!(reset_code(&mut answer).await, H3_REQUEST_INCOMPLETE);
}

#[tokio::test]
async fn a_broken_connect_stream_costs_its_session_alone() {
    let server = TestServer::start().await;
    let quic = server.raw_quic().await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    for (capsule, code) in [
        (h3::frame(0x2843, b"abc"), 4500u32),
        ([h3::varint(0x99), h3::varint(1 << 40)].concat(), 4500),
        (h3::frame(0x2843, &[0, 0, 0, 1]), 0),
    ] {
        let (mut connect, mut answer) = open(&quic, &h3::connect("demo")).await;
        let (mut lines, mut messages) = open(&quic, &h3::session_stream(connect.id().into())).await;
        lines.write_all(b"{\"type\":\"join\"}\n").await.expect("sent");
        read_until(&mut messages, "\"joined\"").await;
        // A capsule of no meaning comes first, as Chromium sends it.
        let data = [h3::frame(0x17, &[9; 40]), capsule].concat();
        connect.write_all(&h3::frame(0x00, &data)).await.expect("sent");
        connect.finish().expect("open");
        let answer = within(answer.read_to_end(64 * 1024)).await.expect("it ends");
        // The capsule's type, its length (the first two bits of an integer tell how many bytes it has), the code.
        let told = answer.windows(2).position(|pair| pair == h3::varint(0x2843));
        match told {
            Some(at) => {
                let begin = at + 2 + (1 << (answer[at + 2] >> 6));
                assert_eq!(answer[begin..begin + 4], code.to_be_bytes());
            }
            None => assert_eq!(code, 0, "a client that closed is told nothing"),
        }
    }
}

/// Whether a packet is a Retry: whoever gets it has to prove its address first, and has cost the server nothing that lasts
/// (RFC 9000, 17.2.5). What else it may have in its first byte is random.
pub(crate) fn is_retry(packet: &[u8]) -> bool {
    const LONG_HEADER: u8 = 0x80;
    const TYPE: u8 = 0x30;
    packet.first().is_some_and(|first| first & (LONG_HEADER | TYPE) == LONG_HEADER | TYPE)
}

/// Starts a handshake at `server` that is never finished, and returns whether it was answered by a Retry.
async fn half_open(server: &TestServer) -> bool {
    half_open_from(server, "127.0.0.1").await
}

/// The same from an address of this machine.
pub(crate) async fn half_open_from(server: &TestServer, from: &str) -> bool {
    let initial = first_packet(&server.trust).await;
    let forward = UdpSocket::bind((from, 0)).await.expect("a socket");
    forward.send_to(&initial, server.addresses.secure[0]).await.expect("sent");
    let mut answer = vec![0; 2000];
    let (length, _) = within(forward.recv_from(&mut answer)).await.expect("the server answers");
    is_retry(&answer[..length])
}

/// What a client sends first.
pub(crate) async fn first_packet(trust: &wigwag::client::Trust) -> Vec<u8> {
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let config = client_config(trust).expect("QUIC's cipher suites");
    let mut packets = first_packets(&endpoint, &config, 1).await;
    packets.pop().expect("one")
}

/// The first `count` packets of a client that takes a trap to be its server, and gives up after the first of them: its last word
/// is the second. Each client has a trap of its own, so that no other's words are among them.
pub(crate) async fn first_packets(
    endpoint: &quinn::Endpoint,
    config: &quinn::ClientConfig,
    count: usize,
) -> Vec<Vec<u8>> {
    let trap = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let trapped = trap.local_addr().expect("bound");
    let mut connecting = Some(endpoint.connect_with(config.clone(), trapped, "localhost").expect("a name"));
    let mut packets = Vec::with_capacity(count);
    for _ in 0..count {
        let mut packet = vec![0; 2000];
        let (length, _) = within(trap.recv_from(&mut packet)).await.expect("a client's packet");
        packet.truncate(length);
        packets.push(packet);
        connecting = None;
    }
    drop(connecting);
    packets
}

#[tokio::test]
async fn a_handshake_never_finished_ends_and_gives_its_place_back() {
    let mut config = impatient();
    config.connections.connections = 1;
    let server = TestServer::start_with(config).await;
    half_open(&server).await;
    let refused = within(Http3::connect(&server.secure(), &server.trust)).await;
    assert!(refused.is_err(), "the only place is taken");
    let place = within(server.context.connections.acquire()).await.expect("a place");
    drop(place);
    let metrics = server.context.metrics.encode().expect("text");
    assert!(metrics.contains("wigwag_handshake_failures_total{protocol=\"h3\"} 1"), "{metrics}");
    drop(join(&server.http3().await, "demo").await);
}

/// Between two looks at what changes by itself.
const LOOK: Duration = Duration::from_millis(20);

/// One who begins handshakes and ends them at once would be asked for no proof otherwise, and fill the server's memory.
#[tokio::test]
async fn a_handshake_that_failed_counts_as_half_open_until_nothing_of_it_is_left() {
    let mut config = impatient();
    config.connections.retry_above = 1;
    let server = TestServer::start_with(config).await;
    half_open(&server).await;
    let failed = async {
        let failure = "wigwag_handshake_failures_total{protocol=\"h3\"} 1";
        while !server.context.metrics.encode().expect("text").contains(failure) {
            sleep(LOOK).await;
        }
    };
    within(failed).await;
    assert!(half_open(&server).await, "something is left of it");
    // A Retry leaves nothing behind, so that looking does not take the place.
    let given_back = async {
        while half_open(&server).await {
            sleep(LOOK).await;
        }
    };
    within(given_back).await;
}

#[tokio::test]
async fn under_load_addresses_are_validated_first() {
    let mut config = config();
    config.connections.retry_above = 1;
    let server = TestServer::start_with(config).await;
    assert!(!half_open(&server).await, "not under load yet");
    assert!(half_open(&server).await, "under load");
    drop(join(&server.http3().await, "demo").await);
}

#[tokio::test]
async fn connections_without_a_request_are_closed_and_those_with_a_session_are_not() {
    let mut config = impatient();
    config.connections.idle = Duration::from_millis(300);
    let server = TestServer::start_with(config).await;
    let busy = server.http3().await;
    let mut session = join(&busy, "demo").await;
    let never_asked = server.http3().await;
    within(never_asked.closed()).await;
    let idle = server.http3().await;
    within(idle.request(Method::GET, "/v1/discovery", &HeaderMap::new())).await.expect("a response");
    within(idle.closed()).await;
    ping(&mut session).await;
}

#[tokio::test]
async fn a_client_that_changes_its_address_keeps_its_session() {
    let server = TestServer::start().await;
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    endpoint.set_default_client_config(client_config(&server.trust).expect("QUIC's cipher suites"));
    let quic = endpoint.connect(server.addresses.secure[0], "localhost").expect("a name");
    let quic = within(quic).await.expect("a connection");
    let http3 = Http3::over(quic, "localhost".into()).await.expect("HTTP/3");
    let mut session = join(&http3, "demo").await;
    let before = endpoint.local_addr().expect("bound");
    endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket")).expect("another socket");
    assert_ne!(endpoint.local_addr().expect("bound"), before);
    ping(&mut session).await;
}

#[tokio::test]
async fn draining_refuses_what_is_new_and_lets_sessions_go_on_until_the_server_stops() {
    let server = TestServer::start().await;
    let http3 = server.http3().await;
    let mut session = join(&http3, "demo").await;
    server.context.drain.raise();
    assert_eq!(hear(&mut session).await["type"], "goAway");
    let late = server.http3().await;
    let refused = within(late.webtransport("/v1/rooms/demo", &HeaderMap::new())).await;
    let Err(Error::Refused(response)) = refused else { panic!("a new session was let in") };
    assert_eq!(response.status(), 503);
    assert!(within(late.request(Method::GET, "/v1/discovery", &HeaderMap::new())).await.is_ok(), "an ordinary request");
    ping(&mut session).await;
    assert!(within(http3.request(Method::GET, "/", &HeaderMap::new())).await.is_err(), "a new request");
    server.context.stop.raise();
    assert_eq!(close_code(&mut session).await, 4000);
    assert!(within(http3.closed()).await.contains("closed by peer"));
    server.stop().await;
}

#[tokio::test]
async fn a_session_is_only_asked_for_where_settings_offer_it() {
    let server = Server::load(config()).await.expect("a certificate");
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let tls = Arc::clone(&server.certificates().quic().borrow());
    let endpoint = quic::bind(loopback, &tls, server.config()).expect("a socket");
    let port = endpoint.local_addr().expect("bound").port();
    let hashes = server.certificates().hashes().borrow().clone();
    let trust = wigwag::client::Trust::new(rustls::RootCertStore::empty(), hashes).expect("TLS 1.3");
    let (extended_connect, datagrams, webtransport) = (0x08, 0x33, 0x2b60_3742);
    for (settings, offered) in [
        (&[datagrams, webtransport][..], false),
        (&[extended_connect, webtransport], false),
        (&[extended_connect, datagrams], false),
        (&[extended_connect, datagrams, webtransport], true),
    ] {
        let asking = async {
            let address = Endpoint { encrypted: true, host: "127.0.0.1".into(), port };
            let http3 = Http3::connect(&address, &trust).await.expect("an HTTP/3 connection");
            http3.webtransport("/v1/rooms/demo", &HeaderMap::new()).await.err()
        };
        let answering = async {
            let quic = endpoint.accept().await.expect("a client").await.expect("a connection");
            let settings: Vec<u8> = settings.iter().flat_map(|&id| [h3::varint(id), h3::varint(1)].concat()).collect();
            let _control = open_uni(&quic, &h3::control_stream_of(&settings)).await;
            let asked = quic.accept_bi().await.is_ok();
            quic.close(0u32.into(), b"");
            asked
        };
        let (error, asked) = within(async { tokio::join!(Box::pin(asking), answering) }).await;
        assert_eq!(asked, offered, "{settings:x?}");
        let told = error.expect("no session in any case").to_string();
        assert_ne!(told.contains("does not offer WebTransport"), offered, "{settings:x?}: {told}");
    }
}

/// An endpoint with a router of the test's own.
struct Custom {
    address: SocketAddr,
    server: Server,
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
}

impl Custom {
    async fn start(router: Router) -> Self {
        let server = Server::load(config()).await.expect("the server starts");
        let (tls, seen) = watch::channel(Arc::clone(&server.certificates().quic().borrow()));
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let endpoint = quic::bind(loopback, &tls.borrow(), server.config()).expect("a socket");
        let address = endpoint.local_addr().expect("bound");
        tokio::spawn(quic::serve(endpoint, seen, router, Arc::clone(server.context())));
        Custom { address, server, tls }
    }

    fn trust(&self) -> wigwag::client::Trust {
        let hashes = self.server.certificates().hashes().borrow().clone();
        wigwag::client::Trust::new(rustls::RootCertStore::empty(), hashes).expect("TLS 1.3")
    }

    async fn http3(&self) -> Http3 {
        let endpoint = Endpoint { encrypted: true, host: "127.0.0.1".into(), port: self.address.port() };
        within(Http3::connect(&endpoint, &self.trust())).await.expect("an HTTP/3 connection")
    }
}

#[tokio::test]
async fn bodies_larger_than_every_window_go_through_both_ways() {
    let router = Router::new().route("/echo", post(|body: Body| async { body }));
    let custom = Custom::start(router).await;
    let quic = raw(custom.address, &custom.trust()).await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    let head = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/echo")];
    let (mut send, mut recv) = open(&quic, &h3::headers(&head)).await;
    let body: Vec<u8> = (0..1024 * 1024u32).map(|number| number as u8).collect();
    let sending = async {
        for chunk in body.chunks(10_000) {
            send.write_all(&h3::frame(0x00, chunk)).await.expect("sent");
        }
        send.finish().expect("open");
    };
    let (answer, ()) = within(async { tokio::join!(recv.read_to_end(4 * 1024 * 1024), sending) }).await;
    assert!(answer.expect("an answer").len() > body.len());
}

#[tokio::test]
async fn a_head_has_no_body_and_a_body_shorter_than_declared_is_no_body() {
    let router = Router::new().route("/echo", post(|body: Bytes| async { body }).get(|| async { "twelve bytes" }));
    let custom = Custom::start(router).await;
    let http3 = custom.http3().await;
    let response = within(http3.request(Method::HEAD, "/echo", &HeaderMap::new())).await.expect("a response");
    assert_eq!((&response.headers()[CONTENT_LENGTH], response.body().len()), (&HeaderValue::from(12), 0));
    let quic = raw(custom.address, &custom.trust()).await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    let (_send, mut recv) = open(
        &quic,
        &h3::headers(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", "/echo"),
            ("x", &"y".repeat(17_000)),
        ]),
    )
    .await;
    read_until(&mut recv, "the header fields may have 16384 bytes").await;
    let head = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/echo"),
        ("content-length", "5"),
    ];
    let (mut send, mut recv) = open(&quic, &[h3::headers(&head), h3::frame(0, b"four")].concat()).await;
    send.finish().expect("open");
    let answer = within(recv.read_to_end(64 * 1024)).await.expect("an answer");
    assert!(String::from_utf8_lossy(&answer).contains("Content-Length"), "it says why");
}

#[tokio::test]
async fn a_handler_ends_with_the_client_that_it_works_for() {
    let (dropped, ended) = oneshot::channel::<()>();
    let (begun, begins) = oneshot::channel::<()>();
    let once = Arc::new(parking_lot::Mutex::new(Some((dropped, begun))));
    let router = Router::new().route(
        "/wait",
        post(|| async move {
            let taken = once.lock().take();
            let (_dropped, begun) = taken.expect("one request");
            let _ = begun.send(());
            std::future::pending::<()>().await;
        }),
    );
    let custom = Custom::start(router).await;
    let quic = raw(custom.address, &custom.trust()).await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    let head = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/wait")];
    let (_send, mut recv) = open(&quic, &h3::headers(&head)).await;
    within(begins).await.expect("it begins");
    recv.stop(0x10cu32.into()).expect("open");
    assert!(within(ended).await.is_err(), "its sender is dropped");
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections() {
    let custom = Custom::start(Router::new()).await;
    let old = custom.http3().await;
    let other = Server::load(Config { certificate: fresh_certificates(), ..config() }).await.expect("another server");
    custom.tls.send_replace(Arc::clone(&other.certificates().quic().borrow()));
    let hashes = other.certificates().hashes().borrow().clone();
    let trust = wigwag::client::Trust::new(rustls::RootCertStore::empty(), hashes).expect("TLS 1.3");
    let endpoint = Endpoint { encrypted: true, host: "127.0.0.1".into(), port: custom.address.port() };
    // The endpoint hears of it in its own time; until then the old certificate is shown, and not trusted.
    within(async { while Http3::connect(&endpoint, &trust).await.is_err() {} }).await;
    within(old.request(Method::GET, "/", &HeaderMap::new())).await.expect("a response on the old connection");
}

fn fresh_certificates() -> wigwag::config::CertificateSource {
    let dir = tempfile::tempdir().expect("a directory").keep();
    wigwag::config::CertificateSource::Development { dir, names: vec![] }
}

#[tokio::test]
async fn one_connection_too_many_is_refused() {
    let mut config = config();
    config.connections.connections = 2;
    let server = TestServer::start_with(config).await;
    let (first, second) = (server.http3().await, server.connect(Via::WebSocketH2, "demo").await);
    assert!(within(Http3::connect(&server.secure(), &server.trust)).await.is_err(), "TCP and QUIC count together");
    drop((first, second));
    let both = within(server.context.connections.acquire_many(2)).await.expect("places");
    drop(both);
    let mut third = server.connect(Via::WebTransport, "demo").await;
    third.send(r#"{"type":"join"}"#).await.expect("sent");
    assert_eq!(event(&mut third).await["type"], "joined");
}
