//! Ordinary requests: what every HTTP version must answer alike.

use std::io::Read as _;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, ALT_SVC, CACHE_CONTROL,
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HOST, IF_MATCH, IF_NONE_MATCH, IF_RANGE,
    RANGE, STRICT_TRANSPORT_SECURITY, TE, TRAILER, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wigwag::client::webtransport::client_config;

use crate::support::{TestServer, config, within};

const SCRIPT: &str = "/wigwag/session.js";
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

type Fields<'a> = &'a [(HeaderName, &'a str)];

/// A connection of one version, to ask and be answered whole, trailers included.
pub(crate) enum Client {
    Plain(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(h2::client::SendRequest<Bytes>),
    Http3(h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>),
}

/// A response, and what came behind its body.
pub(crate) struct Answer {
    head: http::response::Parts,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn field(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }
}

impl Client {
    /// One connection of each kind.
    pub(crate) async fn all(server: &TestServer) -> [Client; 4] {
        let plain = TcpStream::connect(server.addresses.plain[0]).await.expect("a connection");
        let http1 = tls(server, b"http/1.1").await;
        let (http2, connection) = h2::client::handshake(tls(server, b"h2").await).await.expect("HTTP/2");
        tokio::spawn(connection);
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
        let config = client_config(&server.trust).expect("QUIC's cipher suites");
        let quic = endpoint.connect_with(config, server.addresses.secure[0], "localhost").expect("a name");
        let quic = h3_quinn::Connection::new(quic.await.expect("a QUIC connection"));
        let (mut connection, http3) = h3::client::new(quic).await.expect("HTTP/3");
        tokio::spawn(async move { connection.wait_idle().await });
        [
            Client::Plain(http1_over(plain).await),
            Client::Http1(http1_over(http1).await),
            Client::Http2(http2),
            Client::Http3(http3),
        ]
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Client::Plain(_) => "plaintext",
            Client::Http1(_) => "HTTP/1.1",
            Client::Http2(_) => "HTTP/2",
            Client::Http3(_) => "HTTP/3",
        }
    }

    pub(crate) async fn ask(&mut self, method: Method, path: &str, fields: Fields<'_>, body: &str) -> Answer {
        let mut request = Request::new(Bytes::from(body.to_owned()));
        *request.method_mut() = method;
        let values = fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a value")));
        request.headers_mut().extend(values);
        within(self.send(path, request)).await
    }

    async fn get(&mut self, path: &str, fields: Fields<'_>) -> Answer {
        self.ask(Method::GET, path, fields, "").await
    }

    async fn send(&mut self, path: &str, request: Request<Bytes>) -> Answer {
        let (mut head, body) = request.into_parts();
        let absolute = if path == "*" { "*".to_owned() } else { format!("https://localhost{path}") };
        head.uri = absolute.parse().expect("a URL");
        match self {
            Client::Plain(requests) | Client::Http1(requests) => {
                head.uri = path.parse().expect("a path");
                head.headers.insert(HOST, HeaderValue::from_static("localhost"));
                requests.ready().await.expect("a connection");
                let request = Request::from_parts(head, Full::new(body));
                let (head, body) = requests.send_request(request).await.expect("a response").into_parts();
                let body = body.collect().await.expect("a body");
                Answer { head, trailers: body.trailers().cloned(), body: body.to_bytes() }
            }
            Client::Http2(requests) => {
                head.version = http::Version::HTTP_2;
                let mut requests = requests.clone().ready().await.expect("a connection");
                let (response, mut send) =
                    requests.send_request(Request::from_parts(head, ()), body.is_empty()).expect("a stream");
                if !body.is_empty() {
                    send.send_data(body, true).expect("sent");
                }
                let (head, mut recv) = response.await.expect("a response").into_parts();
                let mut body = BytesMut::new();
                while let Some(data) = recv.data().await {
                    let data = data.expect("no reset");
                    recv.flow_control().release_capacity(data.len()).expect("capacity");
                    body.extend_from_slice(&data);
                }
                Answer { head, body: body.freeze(), trailers: recv.trailers().await.expect("no reset") }
            }
            Client::Http3(requests) => {
                let mut stream = requests.send_request(Request::from_parts(head, ())).await.expect("a stream");
                if !body.is_empty() {
                    stream.send_data(body).await.expect("sent");
                }
                stream.finish().await.expect("sent");
                let (head, ()) = stream.recv_response().await.expect("a response").into_parts();
                let mut body = BytesMut::new();
                while let Some(mut data) = stream.recv_data().await.expect("no reset") {
                    body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                }
                Answer { head, body: body.freeze(), trailers: stream.recv_trailers().await.expect("no reset") }
            }
        }
    }
}

async fn tls(server: &TestServer, alpn: &[u8]) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut config = server.trust.tls.clone();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(server.addresses.secure[0]).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
}

async fn http1_over<S>(stream: S) -> hyper::client::conn::http1::SendRequest<Full<Bytes>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    requests
}

#[tokio::test]
async fn files_are_what_they_are_called() {
    let server = TestServer::start().await;
    for mut client in Client::all(&server).await {
        for (path, content_type, first) in [
            ("/", "text/html; charset=utf-8", "<!doctype html>"),
            (SCRIPT, "text/javascript; charset=utf-8", "//"),
            ("/demo/base.css", "text/css; charset=utf-8", ""),
            ("/favicon.svg", "image/svg+xml", "<svg"),
        ] {
            let told = format!("{path} over {}", client.name());
            let answer = client.get(path, &[]).await;
            assert_eq!((answer.status(), answer.field(CONTENT_TYPE)), (200, Some(content_type)), "{told}");
            let begins = String::from_utf8_lossy(&answer.body).to_lowercase();
            assert!(begins.starts_with(first), "{told}");
            assert_eq!(answer.field(CONTENT_LENGTH), Some(answer.body.len().to_string().as_str()), "{told}");
            assert_eq!(answer.field(CACHE_CONTROL), Some("no-cache"), "{told}");
            assert_eq!(answer.field(ACCEPT_RANGES), Some("bytes"), "{told}");

            let head = client.ask(Method::HEAD, path, &[], "").await;
            assert!(head.body.is_empty(), "{told}");
            assert_eq!(without_moment(head.head), without_moment(answer.head), "{told}: HEAD and GET");
        }
    }
    server.stop().await;
}

/// A head without what differs from one answer to the next.
fn without_moment(head: http::response::Parts) -> HeaderMap {
    let mut headers = head.headers;
    for name in [SERVER_TIMING, http::header::DATE] {
        assert!(headers.remove(&name).is_some(), "{name}");
    }
    headers
}

#[tokio::test]
async fn who_has_a_file_is_not_sent_it_again() {
    let server = TestServer::start().await;
    for mut client in Client::all(&server).await {
        let etag = client.get(SCRIPT, &[]).await.field(ETAG).expect("an ETag").to_owned();
        let weak = format!("W/{etag}");
        let among = format!("\"other\", {etag}");
        for (name, tag, status) in [
            (IF_NONE_MATCH, etag.as_str(), 304),
            (IF_NONE_MATCH, &weak, 304),
            (IF_NONE_MATCH, &among, 304),
            (IF_NONE_MATCH, "*", 304),
            (IF_NONE_MATCH, "\"other\"", 200),
            (IF_MATCH, &etag, 200),
            (IF_MATCH, "*", 200),
            (IF_MATCH, "\"other\"", 412),
            (IF_MATCH, &weak, 412),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let told = format!("{method} with {name}: {tag} over {}", client.name());
                let answer = client.ask(method, SCRIPT, &[(name.clone(), tag)], "").await;
                assert_eq!(answer.status(), status, "{told}");
                if status != 412 {
                    assert_eq!(answer.field(ETAG), Some(etag.as_str()), "{told}");
                    assert_eq!(answer.field(VARY), Some("accept-encoding"), "{told}");
                }
                assert!(status != 304 || answer.body.is_empty() && answer.field(CONTENT_LENGTH).is_none(), "{told}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn one_range_of_a_file_is_sent_alone() {
    let server = TestServer::start().await;
    for mut client in Client::all(&server).await {
        let whole = client.get(SCRIPT, &[]).await;
        let (length, etag) = (whole.body.len(), whole.field(ETAG).expect("an ETag").to_owned());
        let last = format!("bytes {}-{}/{length}", length - 5, length - 1);
        let beyond = format!("bytes={length}-");
        for (fields, status, range, body) in [
            (&[(RANGE, "bytes=0-9")][..], 206, Some(format!("bytes 0-9/{length}")), 0..10),
            (&[(RANGE, "bytes=-5")], 206, Some(last), length - 5..length),
            (&[(RANGE, "bytes=0-9"), (IF_RANGE, &etag)], 206, Some(format!("bytes 0-9/{length}")), 0..10),
            (&[(RANGE, "bytes=0-9"), (IF_RANGE, "\"other\"")], 200, None, 0..length),
            (&[(RANGE, "bytes=0-1,4-5")], 200, None, 0..length),
            (&[(RANGE, "lines=0-9")], 200, None, 0..length),
            (&[(RANGE, &beyond)], 416, Some(format!("bytes */{length}")), 0..0),
        ] {
            let told = format!("{fields:?} over {}", client.name());
            let answer = client.get(SCRIPT, fields).await;
            assert_eq!((answer.status(), answer.field(CONTENT_RANGE)), (status, range.as_deref()), "{told}");
            if status == 416 {
                assert_eq!(answer.field(CONTENT_TYPE), Some("application/problem+json"), "{told}");
                continue;
            }
            assert_eq!(answer.body, whole.body[body], "{told}");
            assert_eq!(answer.field(ETAG), Some(etag.as_str()), "{told}");
        }
        let head = client.ask(Method::HEAD, SCRIPT, &[(RANGE, "bytes=0-9")], "").await;
        assert_eq!((head.status(), head.field(CONTENT_RANGE)), (200, None), "a range is of GET alone");
        let coded = client.get(SCRIPT, &[(RANGE, "bytes=0-9"), (ACCEPT_ENCODING, "br")]).await;
        assert_eq!((coded.status(), coded.field(ACCEPT_RANGES)), (200, None), "and of the plain file alone");
    }
    server.stop().await;
}

#[tokio::test]
async fn text_is_compressed_as_the_client_likes_it() {
    let server = TestServer::start().await;
    let mut tags = std::collections::BTreeSet::new();
    for mut client in Client::all(&server).await {
        let plain = client.get(SCRIPT, &[]).await;
        for (accepted, coding) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("gzip", Some("gzip")),
            ("br;q=0.1, gzip;q=0.2", Some("gzip")),
            ("*", Some("br")),
            ("identity;q=0, gzip;q=0.001", Some("gzip")),
            ("deflate", None),
            ("identity, br;q=0.5", None),
        ] {
            let told = format!("{accepted} over {}", client.name());
            let fields = [(ACCEPT_ENCODING, accepted)];
            let answer = client.get(SCRIPT, &fields).await;
            assert_eq!((answer.status(), answer.field(CONTENT_ENCODING)), (200, coding), "{told}");
            assert_eq!(answer.field(VARY), Some("accept-encoding"), "{told}");
            assert_eq!(answer.field(CONTENT_LENGTH), Some(answer.body.len().to_string().as_str()), "{told}");
            assert_eq!(decoded(coding, &answer.body), plain.body, "{told}");
            assert!(coding.is_none() || answer.body.len() < plain.body.len() / 2, "{told}");
            let etag = answer.field(ETAG).expect("an ETag").to_owned();
            let again = client.get(SCRIPT, &[(ACCEPT_ENCODING, accepted), (IF_NONE_MATCH, &etag)]).await;
            assert_eq!(again.status(), 304, "{told}");
            tags.insert((coding, etag));
            let head = client.ask(Method::HEAD, SCRIPT, &fields, "").await;
            assert_eq!(without_moment(head.head), without_moment(answer.head), "{told}: HEAD and GET");
        }
        for (path, accepted) in [(SCRIPT, "*;q=0"), ("/favicon.svg", "gzip, identity;q=0")] {
            let refused = client.get(path, &[(ACCEPT_ENCODING, accepted)]).await;
            assert_eq!(refused.status(), 406, "{path} as {accepted} over {}", client.name());
            assert_eq!(refused.field(CONTENT_TYPE), Some("application/problem+json"));
        }
        let small = client.get("/favicon.svg", &[(ACCEPT_ENCODING, "br")]).await;
        assert!(small.body.len() < 1024, "the test needs a small file");
        assert_eq!((small.field(CONTENT_ENCODING), small.field(VARY)), (None, None));
    }
    assert_eq!(tags.len(), 3, "each coding has one tag of its own: {tags:?}");
    server.stop().await;
}

fn decoded(coding: Option<&str>, body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut plain).expect("brotli"),
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut plain).expect("gzip"),
        _ => return body.to_vec(),
    };
    plain
}

#[tokio::test]
async fn every_path_tells_what_may_be_asked_of_it() {
    let server = TestServer::start().await;
    for mut client in Client::all(&server).await {
        for (path, wrong, allowed) in [
            ("/", Method::PUT, "GET,HEAD,OPTIONS"),
            (SCRIPT, Method::DELETE, "GET,HEAD,OPTIONS"),
            ("/v1/discovery", Method::POST, "GET,HEAD,OPTIONS"),
            ("/v1/openapi.json", Method::POST, "GET,HEAD,OPTIONS"),
            ("/v1/messages.schema.json", Method::POST, "GET,HEAD,OPTIONS"),
            ("/v1/rooms/demo", Method::PUT, "GET,HEAD,POST,OPTIONS"),
            ("/v1/rooms/demo/messages", Method::GET, "POST,OPTIONS"),
            ("/v1/rooms/demo/log", Method::POST, "GET,HEAD,OPTIONS"),
        ] {
            let told = format!("{path} over {}", client.name());
            let refused = client.ask(wrong, path, &[], "").await;
            assert_eq!((refused.status(), refused.field(ALLOW)), (405, Some(allowed)), "{told}");
            assert_eq!(refused.field(CONTENT_TYPE), Some("application/problem+json"), "{told}");
            let options = client.ask(Method::OPTIONS, path, &[], "").await;
            assert!(options.head.status.is_success() && options.body.is_empty(), "{told}");
            assert_eq!(options.field(ALLOW), Some(allowed), "{told}");
            let is_204 = options.status() == 204;
            assert!(!is_204 || options.field(CONTENT_LENGTH).is_none(), "{told}");
        }
        for method in [Method::GET, Method::HEAD] {
            let missing = client.ask(method.clone(), "/no/such/file.js", &[], "").await;
            assert_eq!(missing.status(), 404);
            assert_eq!(missing.field(CONTENT_TYPE), Some("application/problem+json"));
            assert_eq!(missing.body.is_empty(), method == Method::HEAD, "{method} over {}", client.name());
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn who_may_use_an_answer_stands_in_its_head() {
    let server = TestServer::start().await;
    let port = server.addresses.secure[0].port();
    for mut client in Client::all(&server).await {
        for (path, policy, origin) in [
            ("/", "same-origin", None),
            ("/demo/main.js", "same-origin", None),
            ("/wigwag.js", "cross-origin", Some("*")),
            (SCRIPT, "cross-origin", Some("*")),
            ("/v1/discovery", "cross-origin", Some("*")),
        ] {
            let told = format!("{path} over {}", client.name());
            let answer = client.get(path, &[]).await;
            assert_eq!(answer.field(RESOURCE_POLICY), Some(policy), "{told}");
            assert_eq!(answer.field(ACCESS_CONTROL_ALLOW_ORIGIN), origin, "{told}");
            assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{told}");
            assert_eq!(answer.field("referrer-policy"), Some("no-referrer"), "{told}");
            assert_eq!(answer.field("cross-origin-opener-policy"), Some("same-origin"), "{told}");
            assert!(
                answer.field("content-security-policy").is_some_and(|policy| policy.contains("default-src 'self'"))
            );
            let timing =
                answer.field(SERVER_TIMING).and_then(|timing| timing.strip_prefix("app;dur=")).expect("a timing");
            assert!(timing.parse::<f64>().is_ok_and(|duration| duration >= 0.0), "{told}: {timing}");
            assert_eq!(answer.field(STRICT_TRANSPORT_SECURITY), None, "{told}: development certificates");
            let offered = matches!(client, Client::Http1(_) | Client::Http2(_));
            let alt_svc = offered.then(|| format!("h3=\":{port}\"; ma=86400"));
            assert_eq!(answer.field(ALT_SVC), alt_svc.as_deref(), "{told}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn an_event_stream_ends_with_what_it_was() {
    let server = TestServer::start().await;
    let stream = [(CONTENT_TYPE, "application/x-ndjson"), (ACCEPT, "text/event-stream")];
    let with_te = [&stream[..], &[(TE, "trailers")]].concat();
    let lines = "{\"type\":\"join\"}\n{\"type\":\"leave\",\"id\":1}\n";
    for mut client in Client::all(&server).await {
        let told = client.name();
        let answer = client.ask(Method::POST, "/v1/rooms/demo", &with_te, lines).await;
        assert_eq!((answer.status(), answer.field(TRAILER)), (200, Some("Server-Timing")), "{told}");
        let events = String::from_utf8_lossy(&answer.body).matches("data: ").count();
        assert_eq!(events, 2, "joined and ok");
        let trailers = answer.trailers.expect("trailers");
        let timing = trailers[SERVER_TIMING].to_str().expect("ASCII");
        let (session, messages) = timing.split_once(", ").expect("two metrics");
        let lasted = session.strip_prefix("session;dur=").and_then(|lasted| lasted.parse::<u64>().ok());
        assert!(lasted.is_some_and(|lasted| lasted < 30_000), "{told}: {timing}");
        assert_eq!(messages, "messages;desc=\"2\"", "{told}");

        let answer = client.ask(Method::POST, "/v1/rooms/demo", &stream, lines).await;
        let unasked = matches!(client, Client::Plain(_) | Client::Http1(_));
        assert_eq!(answer.trailers.is_none(), unasked, "HTTP/1.1 sends trailers on request only");
        assert_eq!(answer.field(TRAILER).is_none(), unasked, "and announces them only then");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_peer_may_download_what_has_happened_at_its_seat() {
    let server = TestServer::start().await;
    for (number, mut client) in Client::all(&server).await.into_iter().enumerate() {
        let (told, room) = (client.name(), format!("/v1/rooms/log-{number}"));
        let poll = [(CONTENT_TYPE, "application/x-ndjson"), (ACCEPT, "application/x-ndjson")];
        let stranger = "01970000-0000-7000-8000-000000000000";
        let secret = "never-to-be-seen";
        let lines = [
            json!({"type": "join", "metadata": {"name": secret}}),
            json!({"type": "message", "id": 1, "data": secret}),
            json!({"type": "message", "id": 2, "to": stranger, "data": secret}),
        ];
        let lines = lines.map(|line| line.to_string()).join("\n");
        let answer = client.ask(Method::POST, &room, &poll, &lines).await;
        let joined: Value =
            serde_json::from_slice(answer.body.split(|byte| *byte == b'\n').next().expect("a line")).expect("JSON");
        let ticket = joined["ticket"].as_str().expect("a ticket").to_owned();
        let line = json!({"type": "resume", "ticket": ticket, "seq": 0}).to_string();
        let at_once = [&poll[..], &[(HeaderName::from_static("prefer"), "wait=0")]].concat();
        client.ask(Method::POST, &room, &at_once, &line).await;

        let answer = client.get(&format!("{room}/log"), &[(HeaderName::from_static("wigwag-ticket"), &ticket)]).await;
        assert_eq!((answer.status(), answer.field(CACHE_CONTROL)), (200, Some("no-store")), "{told}");
        let disposition = answer.field("content-disposition").expect("a file name");
        let date = disposition.strip_prefix(&format!("attachment; filename=\"wigwag-log-{number}-"));
        let date = date.and_then(|rest| rest.strip_suffix(".ndjson\"")).expect("room and date");
        assert_eq!(date.split('-').map(str::len).collect::<Vec<_>>(), [4, 2, 2], "{told}: {date}");

        let text = std::str::from_utf8(&answer.body).expect("UTF-8");
        for hidden in [secret, stranger, &ticket] {
            assert!(!text.contains(hidden), "{told}: {text}");
        }
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines[0]["peer"], joined["self"]["peer"], "{told}");
        assert_eq!((&lines[0]["requests"], &lines[0]["errors"]), (&json!(2), &json!({"peerGone": 1})), "{told}");
        let events: Vec<_> = lines[1..].iter().map(|line| (&line["event"], &line["transport"])).collect();
        assert_eq!(events, [(&json!("joined"), &json!("long-poll"))], "one poll after the other is nothing new");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_operators_side_answers_in_the_same_way() {
    let mut config = config();
    config.admin = Some("127.0.0.1:0".parse().expect("an address"));
    let server = TestServer::start_with(config).await;
    let stream = TcpStream::connect(server.addresses.admin.expect("an admin listener")).await.expect("a connection");
    let mut client = Client::Plain(http1_over(stream).await);
    for path in ["/metrics", "/healthz", "/readyz", "/openapi.json"] {
        let head = client.ask(Method::HEAD, path, &[], "").await;
        assert_eq!((head.status(), head.body.len()), (200, 0), "{path}");
        let options = client.ask(Method::OPTIONS, path, &[], "").await;
        assert_eq!((options.status(), options.field(ALLOW)), (204, Some("GET,HEAD,OPTIONS")), "{path}");
        let refused = client.ask(Method::POST, path, &[], "").await;
        assert_eq!((refused.status(), refused.field(ALLOW)), (405, Some("GET,HEAD,OPTIONS")), "{path}");
        assert_eq!(refused.field(CONTENT_TYPE), Some("application/problem+json"), "{path}");
    }
    let missing = client.get("/nowhere", &[]).await;
    assert_eq!((missing.status(), missing.field(CONTENT_TYPE)), (404, Some("application/problem+json")));
    drop(client);
    server.stop().await;
}
