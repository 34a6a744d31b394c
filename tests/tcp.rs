//! HTTP/2 and HTTP/1.1 as clients meet them: real sockets, real TLS, the protocol's own messages. Deadlines are configured
//! short, and each test waits for the event, never for a time.
#![allow(clippy::unwrap_used, reason = "in helpers as in tests, a panic says where it failed")]

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, ETAG, HOST, IF_NONE_MATCH, ORIGIN, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wigwag::client::http::{Endpoint, Error, Http1, Http2};
use wigwag::client::websocket::{Incoming, WebSocket};
use wigwag::config::Config;

use crate::support::{TestServer, config, within};

/// A server that gives connections up soon, so that a test can see it.
async fn impatient() -> TestServer {
    configured(|config| {
        config.connections.handshake = Duration::from_millis(500);
        config.connections.request_head = Duration::from_millis(500);
        config.connections.idle = Duration::from_millis(600);
        config.connections.close = Duration::from_millis(500);
    })
    .await
}

async fn configured(change: impl FnOnce(&mut Config)) -> TestServer {
    let mut config = config();
    change(&mut config);
    TestServer::start_with(config).await
}

impl TestServer {
    async fn http2(&self) -> Http2 {
        within(Http2::connect(&self.secure(), &self.trust.tls)).await.unwrap()
    }

    async fn http1(&self) -> Http1 {
        within(Http1::connect(&self.secure(), &self.trust.tls)).await.unwrap()
    }

    async fn plain_http1(&self) -> Http1 {
        within(Http1::connect(&self.plain(), &self.trust.tls)).await.unwrap()
    }

    /// A socket to the plaintext listener with nothing sent on it.
    pub(crate) async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.addresses.plain[0]).await.unwrap()
    }

    /// A socket to the TLS listener with nothing sent on it.
    async fn raw_secure(&self) -> TcpStream {
        TcpStream::connect(self.addresses.secure[0]).await.unwrap()
    }

    /// TLS with these ALPN names and nothing sent on it.
    pub(crate) async fn raw_tls(&self, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        let mut config = self.trust.tls.clone();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        within(TlsConnector::from(Arc::new(config)).connect(name, self.raw_secure().await)).await.unwrap()
    }

    /// The same request over both versions.
    async fn both(&self, method: Method, path: &str, headers: &HeaderMap) -> [Response<Bytes>; 2] {
        let h1 = within(self.http1().await.request(method.clone(), path, headers)).await.unwrap();
        let h2 = within(self.http2().await.request(method, path, headers)).await.unwrap();
        [h1, h2]
    }
}

fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
}

async fn message(socket: &mut WebSocket) -> Value {
    match within(socket.recv()).await.unwrap() {
        Incoming::Message(text) => serde_json::from_slice(&text).unwrap(),
        closed @ Incoming::Closed { .. } => panic!("{closed:?}"),
    }
}

/// The next message of that type; what comes before it is not of interest.
async fn message_of(socket: &mut WebSocket, r#type: &str) -> Value {
    loop {
        let message = message(socket).await;
        if message["type"] == r#type {
            return message;
        }
    }
}

async fn join(socket: &mut WebSocket) -> Value {
    socket.send(r#"{"type":"join"}"#).await.unwrap();
    let joined = message(socket).await;
    assert_eq!(joined["type"], "joined", "{joined}");
    joined
}

/// Status and problem document of a refused opening.
fn refusal(result: Result<WebSocket, Error>) -> (StatusCode, Value) {
    match result {
        Err(Error::Refused(response)) => {
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            (response.status(), serde_json::from_slice(response.body()).unwrap())
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("opened"),
    }
}

// Sessions

#[tokio::test]
async fn ten_websockets_share_one_http2_connection() {
    let server = TestServer::start().await;
    let http2 = server.http2().await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        let mut socket = within(http2.websocket("/v1/rooms/ten", &HeaderMap::new())).await.unwrap();
        assert_eq!(join(&mut socket).await["transport"], "websocket-h2");
        sockets.push(socket);
    }
    assert!(server.metric(r#"wigwag_connections_total{protocol="h2"} 1"#));
    assert!(server.metric(r#"wigwag_open_sessions{transport="websocket-h2"} 10"#));
    sockets[9].send(r#"{"type":"message","id":1,"data":"hello"}"#).await.unwrap();
    for socket in &mut sockets[..9] {
        assert_eq!(message_of(socket, "message").await["data"], "hello");
    }
    for socket in sockets {
        within(socket.close()).await.unwrap();
    }
}

#[tokio::test]
async fn a_thousand_tiny_messages_in_one_burst_survive_http2() {
    let server = TestServer::start().await;
    let http2 = server.http2().await;
    let mut socket = within(http2.websocket("/v1/rooms/burst", &HeaderMap::new())).await.unwrap();
    socket.feed(r#"{"type":"join"}"#).unwrap();
    for id in 1..=1000 {
        socket.feed(format!(r#"{{"type":"ping","id":{id}}}"#)).unwrap();
    }
    within(socket.flush()).await.unwrap();
    for id in 1..=1000 {
        assert_eq!(message_of(&mut socket, "pong").await["id"], id);
    }
}

#[tokio::test]
async fn a_websocket_over_http1_opens_with_tls_and_without() {
    let server = TestServer::start().await;
    for http1 in [server.http1().await, server.plain_http1().await] {
        let mut socket = within(http1.websocket("/v1/rooms/one", &HeaderMap::new())).await.unwrap();
        assert_eq!(join(&mut socket).await["transport"], "websocket-h1");
        socket.send(r#"{"type":"leave","id":1}"#).await.unwrap();
        message_of(&mut socket, "ok").await;
        let closed = within(socket.recv()).await.unwrap();
        assert!(matches!(closed, Incoming::Closed { code: 1000, .. }), "{closed:?}");
    }
}

#[tokio::test]
async fn frames_sent_before_the_answer_to_the_upgrade_are_not_lost() {
    let server = TestServer::start().await;
    let mut stream = server.raw().await;
    let mut request = upgrade_request("early");
    request.extend(masked(0x81, br#"{"type":"join"}"#));
    stream.write_all(&request).await.unwrap();
    let mut seen = String::new();
    while !seen.contains(r#""type":"joined""#) {
        let mut chunk = [0; 4096];
        let len = within(stream.read(&mut chunk)).await.unwrap();
        assert_ne!(len, 0, "closed after {seen}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..len]));
    }
    assert!(seen.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{seen}");
}

pub(crate) fn upgrade_request(room: &str) -> Vec<u8> {
    format!(
        "GET /v1/rooms/{room} HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-protocol: wigwag.v1\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// A client's frame of up to 125 bytes, masked with zeros.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

/// An HTTP/2 connection and one CONNECT on it, written frame by frame.
pub(crate) async fn raw_connect(server: &TestServer, room: &str) -> (h2::SendStream<Bytes>, h2::RecvStream) {
    let stream = server.raw_tls(&[b"h2"]).await;
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut requests = within(requests.ready()).await.unwrap();
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = format!("https://localhost/v1/rooms/{room}").parse().unwrap();
    *request.headers_mut() = headers(&[(SEC_WEBSOCKET_VERSION, "13"), (SEC_WEBSOCKET_PROTOCOL, "wigwag.v1")]);
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (response, send) = requests.send_request(request, false).unwrap();
    let response = within(response).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "wigwag.v1");
    (send, response.into_body())
}

/// All that the server sends until END_STREAM; a reset fails the test.
pub(crate) async fn to_the_end(mut recv: h2::RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = within(recv.data()).await {
        let data = data.expect("no reset");
        recv.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    all
}

#[tokio::test]
async fn broken_framing_is_told_and_closed_on_both_versions() {
    let server = TestServer::start().await;
    let oversize = [&[0x81, 0xff][..], &(200 * 1024u64).to_be_bytes(), &[0; 4]].concat();
    let cases = [
        ("utf8", masked(0x81, b"\xff"), "badRequest", 4500u16),
        ("unmasked", vec![0x81, 2, b'{', b'}'], "badRequest", 4500),
        ("oversize", oversize, "tooLarge", 4505),
    ];
    for (room, bytes, code, close_code) in cases {
        let bytes = [masked(0x81, br#"{"type":"join"}"#), bytes].concat();
        let (mut send, recv) = raw_connect(&server, room).await;
        send.send_data(bytes.clone().into(), false).unwrap();
        let over_http2 = to_the_end(recv).await;

        let mut stream = server.raw().await;
        stream.write_all(&[upgrade_request(room), bytes].concat()).await.unwrap();
        let mut over_http1 = Vec::new();
        within(stream.read_to_end(&mut over_http1)).await.unwrap();

        let head = over_http1.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a response head") + 4;
        for frames in [frames(&over_http2), frames(&over_http1[head..])] {
            let [.., (0x81, text), (0x88, close)] = &frames[..] else { panic!("{room}: {frames:?}") };
            let closed: Value = serde_json::from_slice(text).unwrap();
            assert_eq!((&closed["type"], &closed["code"]), (&json!("closed"), &json!(code)), "{room}");
            assert_eq!(close[..2], close_code.to_be_bytes(), "{room}");
        }
    }
}

/// The server's frames, first byte and payload; none of those in the tests has more than 65,535 bytes.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    while let [first, len, rest @ ..] = bytes {
        let (len, rest) = match (len, rest) {
            (126, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (len @ 0..=125, rest) => (usize::from(*len), rest),
            _ => panic!("a server's frames are not masked: {bytes:?}"),
        };
        let (payload, rest) = rest.split_at(len);
        frames.push((*first, payload));
        bytes = rest;
    }
    frames
}

#[tokio::test]
async fn a_binary_frame_costs_one_error_and_the_session_goes_on() {
    let server = TestServer::start().await;
    let (mut send, mut recv) = raw_connect(&server, "binary").await;
    let sent = [masked(0x81, br#"{"type":"join"}"#), masked(0x82, b"{}"), masked(0x81, br#"{"type":"ping"}"#)];
    send.send_data(sent.concat().into(), false).unwrap();
    let mut text = String::new();
    while !(text.contains(r#""type":"error""#) && text.contains(r#""type":"pong""#)) {
        let data = within(recv.data()).await.expect("an open stream").unwrap();
        text.push_str(&String::from_utf8_lossy(&data));
    }
    assert!(text.contains("badRequest") && text.contains("binary"), "{text}");
}

#[tokio::test]
async fn one_who_does_not_read_is_closed_and_keeps_nobody_waiting() {
    let server = TestServer::start().await;
    let (mut send, _recv_that_is_never_read) = raw_connect(&server, "slow").await;
    send.send_data(masked(0x81, br#"{"type":"join"}"#).into(), false).unwrap();
    let http2 = server.http2().await;
    let mut sender = within(http2.websocket("/v1/rooms/slow", &HeaderMap::new())).await.unwrap();
    let joined = join(&mut sender).await;
    if joined["peers"].as_array().unwrap().is_empty() {
        message_of(&mut sender, "peerJoined").await;
    }
    let data = "x".repeat(60 * 1024);
    // More than its queue of 1 MiB and all buffers on the way could hold.
    for id in 1..=30 {
        sender.send(json!({"type": "message", "id": id, "data": data}).to_string()).await.unwrap();
    }
    message_of(&mut sender, "peerAway").await;
    // It also cannot read its Close; the stream is reset when the time for that is over.
    let reset = within(poll_fn(|cx| send.poll_reset(cx))).await.unwrap();
    assert_eq!(reset, h2::Reason::CANCEL);
    assert!(server.metric(r#"wigwag_closes_total{transport="websocket-h2",code="slowConsumer"} 1"#));
}

// Refusals

#[tokio::test]
async fn openings_that_are_not_right_are_refused_by_status() {
    let server = TestServer::start().await;
    let none = HeaderMap::new();
    let foreign = headers(&[(ORIGIN, "https://evil.example")]);
    let chat = headers(&[(SEC_WEBSOCKET_PROTOCOL, "chat")]);
    let cases = [
        ("/v1/rooms/a", &foreign, StatusCode::FORBIDDEN, "forbidden"),
        ("/v1/rooms/a%20b", &none, StatusCode::BAD_REQUEST, "badRequest"),
        ("/v1/rooms/..", &none, StatusCode::BAD_REQUEST, "badRequest"),
        ("/v1/rooms/a", &chat, StatusCode::BAD_REQUEST, "badRequest"),
    ];
    for (path, headers, status, code) in cases {
        let over_http2 = within(server.http2().await.websocket(path, headers)).await;
        let over_http1 = within(server.http1().await.websocket(path, headers)).await;
        for (answered, problem) in [refusal(over_http2), refusal(over_http1)] {
            assert_eq!(answered, status, "{path}: {problem}");
            assert_eq!(problem["code"], code);
        }
    }
    let own = format!("https://localhost:{}", server.addresses.secure[0].port());
    let own = headers(&[(ORIGIN, &own)]);
    assert!(within(server.http2().await.websocket("/v1/rooms/a", &own)).await.is_ok());
}

#[tokio::test]
async fn a_connect_for_anything_but_a_websocket_is_not_implemented() {
    let server = TestServer::start().await;
    let (requests, connection) = h2::client::handshake(server.raw_tls(&[b"h2"]).await).await.unwrap();
    tokio::spawn(connection);
    let mut requests = within(requests.ready()).await.unwrap();
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "https://localhost/v1/rooms/a".parse().unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("connect-udp"));
    let (response, _) = requests.send_request(request, false).unwrap();
    assert_eq!(within(response).await.unwrap().status(), StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn a_room_asked_for_in_another_way_says_how_to_enter() {
    let server = TestServer::start().await;
    let [h1, h2] = server.both(Method::GET, "/v1/rooms/a", &HeaderMap::new()).await;
    assert_eq!((h1.status(), h2.status()), (StatusCode::UPGRADE_REQUIRED, StatusCode::UPGRADE_REQUIRED));
    assert_eq!(h1.headers()[UPGRADE], "websocket");
    for response in server.both(Method::DELETE, "/v1/rooms/a", &HeaderMap::new()).await {
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "GET,HEAD,POST,OPTIONS");
    }
    for (path, status) in [
        ("/v1/rooms/a%20b", StatusCode::BAD_REQUEST),
        ("/v1/rooms/", StatusCode::BAD_REQUEST),
        ("/v1/rooms/a/b", StatusCode::NOT_FOUND),
        ("/v2/rooms/a", StatusCode::NOT_FOUND),
        ("/nothing", StatusCode::NOT_FOUND),
    ] {
        for response in server.both(Method::GET, path, &HeaderMap::new()).await {
            assert_eq!(response.status(), status, "{path}");
            assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        }
    }
}

// Ordinary requests

fn websocket_url(response: &Response<Bytes>) -> Value {
    let document: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(document["protocol"], "wigwag.v1");
    let transports = document["transports"].as_array().unwrap();
    transports.iter().find(|transport| transport["type"] == "websocket").unwrap()["url"].clone()
}

#[tokio::test]
async fn discovery_names_the_listener_that_was_asked() {
    let server = TestServer::start().await;
    let (tls, plain) = (server.addresses.secure[0].port(), server.addresses.plain[0].port());
    for response in server.both(Method::GET, "/v1/discovery", &HeaderMap::new()).await {
        assert_eq!(websocket_url(&response), format!("wss://127.0.0.1:{tls}/v1/rooms/{{room}}"));
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
    }
    let mut http1 = server.plain_http1().await;
    let spoofed = headers(&[(HOST, "evil.example")]);
    let response = within(http1.request(Method::GET, "/v1/discovery", &spoofed)).await.unwrap();
    assert_eq!(websocket_url(&response), format!("ws://localhost:{plain}/v1/rooms/{{room}}"));
    for response in server.both(Method::POST, "/v1/discovery", &HeaderMap::new()).await {
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "GET,HEAD,OPTIONS");
    }
}

#[tokio::test]
async fn files_are_revalidated_by_their_etag() {
    let server = TestServer::start().await;
    let [h1, h2] = server.both(Method::GET, "/wigwag.js", &HeaderMap::new()).await;
    assert_eq!(h1.body(), h2.body());
    for response in [&h1, &h2] {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/javascript; charset=utf-8");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert!(response.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'self';"));
        assert!(response.headers().contains_key("date"));
    }
    let etag = h1.headers()[ETAG].to_str().unwrap().to_owned();
    assert!(etag.starts_with('"'), "strong");
    for response in server.both(Method::GET, "/wigwag.js", &headers(&[(IF_NONE_MATCH, &etag)])).await {
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()[ETAG], etag.as_str());
        assert!(response.body().is_empty());
    }
    for response in server.both(Method::HEAD, "/wigwag.js", &HeaderMap::new()).await {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-length"], h1.body().len().to_string().as_str());
        assert!(response.body().is_empty());
    }
    for response in server.both(Method::PUT, "/wigwag.js", &HeaderMap::new()).await {
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "GET,HEAD,OPTIONS");
    }
    for hidden in ["/package.json", "/tsconfig.json", "/../Cargo.toml", "/test/", "/node_modules/"] {
        for response in server.both(Method::GET, hidden, &HeaderMap::new()).await {
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{hidden}");
        }
    }
}

#[tokio::test]
async fn one_port_speaks_both_versions_as_alpn_says() {
    let server = TestServer::start().await;
    assert_eq!(server.raw_tls(&[b"h2", b"http/1.1"]).await.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(server.raw_tls(&[b"http/1.1"]).await.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut silent = server.raw_tls(&[]).await;
    silent.write_all(b"HEAD /v1/discovery HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(silent.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_told_so() {
    let server = TestServer::start().await;
    let mut stream = server.raw_secure().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
}

#[tokio::test]
async fn a_request_without_host_or_with_two_is_refused() {
    let server = TestServer::start().await;
    for host in ["", "host: a\r\nhost: b\r\n"] {
        let mut stream = server.raw().await;
        let request = format!("GET / HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

// Limits and deadlines

/// Reads to the end of the connection; how it ends is the server's choice.
pub(crate) async fn ended(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = within(stream.read_to_end(&mut all)).await;
    all
}

#[tokio::test]
async fn connections_that_say_nothing_or_half_of_it_are_given_up() {
    let server = impatient().await;
    // No ClientHello, no request in plain text, none after TLS, no HTTP/2 preface.
    ended(server.raw_secure().await).await;
    ended(server.raw().await).await;
    ended(server.raw_tls(&[b"http/1.1"]).await).await;
    ended(server.raw_tls(&[b"h2"]).await).await;

    let mut half_a_head = server.raw_tls(&[b"http/1.1"]).await;
    half_a_head.write_all(b"GET / HTTP/1.1\r\nhost: loc").await.unwrap();
    ended(half_a_head).await;

    let mut preface = server.raw_tls(&[b"h2"]).await;
    preface.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    ended(preface).await;

    let mut half_headers = server.raw_tls(&[b"h2"]).await;
    half_headers.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // HEADERS without END_HEADERS, of which no CONTINUATION follows.
    half_headers.write_all(b"\0\0\x01\x01\x01\0\0\0\x01\x82").await.unwrap();
    ended(half_headers).await;
}

#[tokio::test]
async fn a_second_head_has_its_deadline_from_its_first_byte_on() {
    let server = configured(|config| {
        config.connections.request_head = Duration::from_millis(200);
        config.connections.idle = Duration::from_secs(600);
    })
    .await;
    let mut stream = server.raw().await;
    stream.write_all(b"HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    within(stream.read_exact(&mut answer)).await.unwrap();
    stream.write_all(b"G").await.unwrap();
    ended(stream).await;
}

#[tokio::test]
async fn idle_connections_are_closed_and_busy_ones_are_not() {
    let server = impatient().await;
    let http2 = server.http2().await;
    let mut socket = within(http2.websocket("/v1/rooms/busy", &HeaderMap::new())).await.unwrap();
    join(&mut socket).await;

    let mut http1 = server.raw_tls(&[b"http/1.1"]).await;
    http1.write_all(b"HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(ended(http1).await.starts_with(b"HTTP/1.1 200"));

    let (requests, connection) = h2::client::handshake(server.raw_tls(&[b"h2"]).await).await.unwrap();
    let ending = tokio::spawn(connection);
    let mut requests = within(requests.ready()).await.unwrap();
    let (response, _) = requests.send_request(Request::get("https://localhost/").body(()).unwrap(), true).unwrap();
    assert_eq!(within(response).await.unwrap().status(), StatusCode::OK);
    within(ending).await.unwrap().unwrap();

    // All that took longer than `idle`, and the session still answers.
    socket.send(r#"{"type":"ping","id":1}"#).await.unwrap();
    message_of(&mut socket, "pong").await;
}

#[tokio::test]
async fn a_dead_http2_client_is_noticed_though_its_socket_is_open() {
    let server = configured(|config| config.heartbeat = Duration::from_millis(200)).await;
    let mut stream = server.raw_tls(&[b"h2"]).await;
    // Preface, SETTINGS with an initial window of 0, and a GET whose answer therefore stays open; then not a frame more.
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    stream.write_all(settings).await.unwrap();
    stream.write_all(b"\0\0\x0e\x01\x05\0\0\0\x01\x82\x87\x04\x0a/wigwag.js").await.unwrap();
    ended(stream).await;
}

#[tokio::test]
async fn a_flood_of_pings_ends_the_connection_and_a_burst_does_not() {
    // So that it is not the missing request that ends it.
    let server = configured(|config| config.connections.request_head = Duration::from_secs(600)).await;
    let start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let pings = |count: u64| (1..=count).flat_map(|n| [b"\0\0\x08\x06\0\0\0\0\0", &n.to_be_bytes()[..]].concat());

    let mut burst = server.raw_tls(&[b"h2"]).await;
    burst.write_all(&start.iter().copied().chain(pings(100)).collect::<Vec<_>>()).await.unwrap();
    let mut all = Vec::new();
    while !all.windows(8).any(|bytes| bytes == 100u64.to_be_bytes()) {
        assert_ne!(within(burst.read_buf(&mut all)).await.unwrap(), 0, "closed before the last was answered");
    }

    let mut flood = server.raw_tls(&[b"h2"]).await;
    // The server need not take it all.
    let _ = flood.write_all(&start.iter().copied().chain(pings(5000)).collect::<Vec<_>>()).await;
    ended(flood).await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_next_after_one_has_gone_is_not() {
    let server = configured(|config| config.connections.connections = 1).await;
    let mut first = server.plain_http1().await;
    within(first.request(Method::GET, "/v1/discovery", &HeaderMap::new())).await.unwrap();
    ended(server.raw().await).await;
    drop(first);
    let permit = within(Arc::clone(&server.context.connections).acquire_owned()).await;
    drop(permit);
    let mut next = server.plain_http1().await;
    within(next.request(Method::GET, "/v1/discovery", &HeaderMap::new())).await.unwrap();
}

// Draining

#[tokio::test]
async fn draining_ends_what_is_idle_and_leaves_sessions_until_the_server_stops() {
    let server = TestServer::start().await;
    let http2 = server.http2().await;
    let mut over_http2 = within(http2.websocket("/v1/rooms/drain", &HeaderMap::new())).await.unwrap();
    join(&mut over_http2).await;
    let http1 = server.http1().await;
    let mut over_http1 = within(http1.websocket("/v1/rooms/drain", &HeaderMap::new())).await.unwrap();
    join(&mut over_http1).await;
    let mut idle = server.raw().await;
    idle.write_all(b"HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    within(idle.read_exact(&mut [0; 12])).await.unwrap();

    server.context.drain.raise();
    ended(idle).await;
    for socket in [&mut over_http2, &mut over_http1] {
        message_of(socket, "goAway").await;
        socket.send(r#"{"type":"ping","id":1}"#).await.unwrap();
        message_of(socket, "pong").await;
    }
    within(async { while http2.request(Method::GET, "/v1/discovery", &HeaderMap::new()).await.is_ok() {} }).await;
    // New connections are for requests of the sessions that are open, and for being told so.
    let mut late = server.http1().await;
    let none = HeaderMap::new();
    assert_eq!(within(late.request(Method::GET, "/v1/discovery", &none)).await.unwrap().status(), StatusCode::OK);
    for refused in [within(late.websocket("/v1/rooms/drain", &none)).await, {
        within(server.http2().await.websocket("/v1/rooms/drain", &none)).await
    }] {
        let Err(Error::Refused(response)) = refused else { panic!("not refused") };
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
    }

    server.context.stop.raise();
    for socket in [&mut over_http2, &mut over_http1] {
        assert_eq!(message_of(socket, "closed").await["code"], "goingAway");
        let closed = within(socket.recv()).await.unwrap();
        assert!(matches!(closed, Incoming::Closed { code: 4000, .. }), "{closed:?}");
    }
    drop((over_http1, over_http2, http2));
    server.context.tasks.close();
    within(server.context.tasks.wait()).await;
}

#[tokio::test]
async fn the_admin_listener_tells_readiness_while_the_server_drains() {
    let server = configured(|config| config.admin = Some(([127, 0, 0, 1], 0).into())).await;
    let port = server.addresses.admin.unwrap().port();
    let endpoint = Endpoint { encrypted: false, host: "127.0.0.1".into(), port };
    let mut admin = within(Http1::connect(&endpoint, &server.trust.tls)).await.unwrap();
    let none = HeaderMap::new();
    for (path, drained, status) in [
        ("/readyz", false, StatusCode::OK),
        ("/readyz", true, StatusCode::SERVICE_UNAVAILABLE),
        ("/healthz", true, StatusCode::OK),
        ("/v1/rooms/a", true, StatusCode::NOT_FOUND),
    ] {
        if drained {
            server.context.drain.raise();
        }
        let response = within(admin.request(Method::GET, path, &none)).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
    let accept = headers(&[(http::header::ACCEPT, "application/openmetrics-text;version=1.0.0")]);
    let metrics = within(admin.request(Method::GET, "/metrics", &accept)).await.unwrap();
    assert!(metrics.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert!(metrics.body().ends_with(b"# EOF\n"));
    // No sessions here, whatever the path.
    let upgrade = within(admin.websocket("/v1/rooms/a", &none)).await;
    assert!(matches!(upgrade, Err(Error::Refused(response)) if response.status() == StatusCode::NOT_FOUND));
}
