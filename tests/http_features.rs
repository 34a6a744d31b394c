//! What ordinary requests get beyond an answer: pushes, early hints, priorities, and a directory in place of the page.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wigwag::client::websocket::{self, WebSocket};
use wigwag::client::webtransport::{self, WebTransport};
use wigwag::client::{Connection, Download, Event, Http1, Http2, Http3, Via};
use wigwag::config::Config;

use crate::support::{TestServer, config, within};

/// A download that no window and no buffer takes whole.
const LARGE: usize = 24 * 1024 * 1024;

type H2 = SendRequest<Bytes>;

impl TestServer {
    async fn h2(&self, change: impl FnOnce(&mut h2::client::Builder)) -> H2 {
        let mut tls = self.trust.tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let tcp = TcpStream::connect(self.addresses.secure[0]).await.expect("TCP");
        let stream = within(TlsConnector::from(Arc::new(tls)).connect(name, tcp)).await.expect("TLS");
        let mut builder = h2::client::Builder::new();
        change(&mut builder);
        let (requests, connection) = within(builder.handshake(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        within(requests.ready()).await.expect("the server's settings")
    }

    /// Asks for the same over all versions.
    async fn everywhere(&self, path: &str, headers: &HeaderMap) -> [Response<Bytes>; 3] {
        let mut h1 = within(Http1::connect(&self.secure(), &self.trust.tls)).await.expect("HTTP/1.1");
        let h2 = within(Http2::connect(&self.secure(), &self.trust.tls)).await.expect("HTTP/2");
        let h3 = within(Http3::connect(&self.secure(), &self.trust)).await.expect("HTTP/3");
        [
            within(h1.request(Method::GET, path, headers)).await.expect("an answer"),
            within(h2.request(Method::GET, path, headers)).await.expect("an answer"),
            within(h3.request(Method::GET, path, headers)).await.expect("an answer"),
        ]
    }
}

fn get(path: &str) -> Request<()> {
    let uri = format!("https://127.0.0.1{path}");
    Request::get(uri).version(http::Version::HTTP_2).body(()).expect("a request")
}

async fn body(mut recv: h2::RecvStream) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(data) = within(poll_fn(|cx| recv.poll_data(cx))).await {
        let data = data.expect("data");
        recv.flow_control().release_capacity(data.len()).expect("taken");
        body.extend_from_slice(&data);
    }
    body
}

/// What the page's modules import, read from the files of the repository by other means than the server's.
fn module_graph() -> Vec<String> {
    let web = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
    let mut found = vec!["demo/main.js".to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        let text = std::fs::read_to_string(web.join(&path)).expect("a module");
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with(['*', '/'])).collect();
        for quoted in code.join("\n").split('\'').filter(|text| text.ends_with(".js") && text.starts_with('.')) {
            let base = joined(&path, quoted);
            if !found.contains(&base) {
                found.push(base);
            }
        }
    }
    let mut paths: Vec<_> = found.into_iter().map(|path| format!("/{path}")).collect();
    paths.sort();
    paths
}

fn joined(from: &str, to: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in to.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn links(headers: &HeaderMap) -> Vec<String> {
    let mut links: Vec<_> = headers
        .get_all("link")
        .iter()
        .map(|link| link.to_str().expect("ASCII"))
        .map(|link| {
            link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=modulepreload")).expect(link).into()
        })
        .collect();
    links.sort();
    links
}

#[tokio::test]
async fn a_client_that_takes_pushes_gets_the_modules_with_the_page() {
    let server = TestServer::start().await;
    let mut h2 = server.h2(|_| ()).await;
    let (mut answer, _) = h2.send_request(get("/"), true).expect("sent");
    let mut promises = answer.push_promises();
    let page = within(answer).await.expect("an answer");
    assert_eq!(page.status(), StatusCode::OK);
    assert!(body(page.into_body()).await.starts_with(b"<!doctype html>"));
    let mut pushed = Vec::new();
    while let Some(promise) = within(promises.push_promise()).await {
        let (request, answer) = promise.expect("a promise").into_parts();
        assert_eq!((request.method(), request.uri().authority().unwrap().as_str()), (&Method::GET, "127.0.0.1"));
        let answer = within(answer).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/javascript; charset=utf-8");
        let path = request.uri().path().to_owned();
        let file = std::fs::read(format!("{}/web{path}", env!("CARGO_MANIFEST_DIR"))).expect("a module");
        assert_eq!(body(answer.into_body()).await, file, "{path}");
        pushed.push(path);
    }
    pushed.sort();
    assert_eq!(pushed, module_graph());
}

#[tokio::test]
async fn nothing_is_pushed_with_what_is_not_the_page() {
    let server = TestServer::start().await;
    let mut h2 = server.h2(|_| ()).await;
    let head = Request::head("https://127.0.0.1/").body(()).expect("a request");
    for request in [get("/wigwag.js"), get("/v1/discovery"), get("/index.html"), head] {
        let (mut answer, _) = h2.send_request(request, true).expect("sent");
        let mut promises = answer.push_promises();
        let answer = within(answer).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        body(answer.into_body()).await;
        assert!(within(promises.push_promise()).await.is_none());
    }
}

#[tokio::test]
async fn a_client_without_pushes_gets_early_hints() {
    let server = TestServer::start().await;
    let mut h2 = server.h2(|builder| _ = builder.enable_push(false)).await;
    let (mut answer, _) = h2.send_request(get("/"), true).expect("sent");
    let hints = within(poll_fn(|cx| answer.poll_informational(cx))).await.expect("hints").expect("hints");
    assert_eq!(hints.status(), StatusCode::EARLY_HINTS);
    assert_eq!(links(hints.headers()), module_graph());
    let page = within(answer).await.expect("an answer");
    assert_eq!(page.status(), StatusCode::OK);
    let etag = page.headers()["etag"].clone();

    // Whoever has the page has its modules.
    let mut again = get("/");
    again.headers_mut().insert("if-none-match", etag);
    let (mut answer, _) = h2.send_request(again, true).expect("sent");
    assert!(within(poll_fn(|cx| answer.poll_informational(cx))).await.is_none(), "no hints");
    assert_eq!(within(answer).await.expect("an answer").status(), StatusCode::NOT_MODIFIED);
}

/// The statuses of all responses to GET of the page over HTTP/3, and the first one's header fields.
async fn statuses_h3(server: &TestServer, headers: &HeaderMap) -> (Vec<StatusCode>, HeaderMap) {
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let config = wigwag::client::webtransport::client_config(&server.trust).expect("QUIC's cipher suites");
    let quic = endpoint.connect_with(config, server.addresses.secure[0], "localhost").expect("a name");
    let quic = h3_quinn::Connection::new(within(quic).await.expect("QUIC"));
    let (mut driver, mut requests) = within(h3::client::new(quic)).await.expect("HTTP/3");
    let driver = tokio::spawn(async move { poll_fn(|cx| driver.poll_close(cx)).await });
    let mut request = get("/");
    *request.version_mut() = http::Version::HTTP_3;
    *request.headers_mut() = headers.clone();
    let mut stream = within(requests.send_request(request)).await.expect("sent");
    within(stream.finish()).await.expect("sent");
    let first = within(stream.recv_response()).await.expect("an answer");
    let mut statuses = vec![first.status()];
    while statuses.last().is_some_and(StatusCode::is_informational) {
        statuses.push(within(stream.recv_response()).await.expect("an answer").status());
    }
    driver.abort();
    (statuses, first.headers().clone())
}

#[tokio::test]
async fn http3_hints_at_the_modules_when_a_browser_goes_to_the_page() {
    let server = TestServer::start().await;
    let navigation = HeaderMap::from_iter([(http::header::ACCEPT, HeaderValue::from_static("text/html,*/*;q=0.8"))]);
    let (statuses, headers) = statuses_h3(&server, &navigation).await;
    assert_eq!(statuses, [StatusCode::EARLY_HINTS, StatusCode::OK]);
    assert_eq!(links(&headers), module_graph());
    let (statuses, _) = statuses_h3(&server, &HeaderMap::new()).await;
    assert_eq!(statuses, [StatusCode::OK], "no interim response for those that may not expect any");
}

#[tokio::test]
async fn http1_gets_the_page_alone() {
    let server = TestServer::start().await;
    let mut socket = TcpStream::connect(server.addresses.plain[0]).await.expect("TCP");
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\naccept: text/html\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    within(socket.read_to_string(&mut answer)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn whatever_priority_says_the_answer_comes() {
    let server = TestServer::start().await;
    for priority in ["u=0", "u=7, i", "i", "u=8", "u=-1", "urgent", "u=,=;\"", ""] {
        let headers = HeaderMap::from_iter([(HeaderName::from_static("priority"), HeaderValue::from_static(priority))]);
        for answer in server.everywhere("/wigwag.js", &headers).await {
            assert_eq!(answer.status(), StatusCode::OK, "{priority}");
            assert!(!answer.body().is_empty(), "{priority}");
        }
    }
}

/// A server with a directory of its own, which the test fills.
async fn with_directory() -> (TestServer, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config { web: Some(dir.path().to_owned()), ..config() };
    (TestServer::start_with(config).await, dir)
}

#[tokio::test]
async fn the_operators_directory_takes_the_place_of_the_page() {
    let (server, dir) = with_directory().await;
    let write = |path: &str, text: &str| std::fs::write(dir.path().join(path), text).expect("written");
    std::fs::create_dir(dir.path().join("sub")).expect("a directory");
    write("index.html", "own page");
    write("sub/index.html", "own subpage");
    write("sub/style.css", "own style");
    write("call.js", "own call");
    write(".secret", "secret");
    let outside = tempfile::tempdir().expect("a directory");
    std::fs::write(outside.path().join("secret"), "secret").expect("written");
    std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("link")).expect("a link");
    std::os::unix::fs::symlink(outside.path(), dir.path().join("away")).expect("a link");
    std::os::unix::fs::symlink("sub", dir.path().join("inside")).expect("a link");
    for (path, status, kind, text) in [
        ("/", 200, "text/html", "own page"),
        ("/index.html", 200, "text/html", "own page"),
        ("/sub/", 200, "text/html", "own subpage"),
        ("/sub/style.css", 200, "text/css", "own style"),
        ("/inside/style.css", 200, "text/css", "own style"),
        ("/call.js", 200, "text/javascript", "own call"),
        ("/wigwag.js", 200, "text/javascript", "import { Session }"),
        ("/call/peer.js", 200, "text/javascript", "CallPeer"),
        ("/v1/discovery", 200, "application/json", "wigwag.v1"),
        ("/sub", 308, "", ""),
        ("/demo/main.js", 404, "application/problem+json", "notFound"),
        ("/link", 404, "application/problem+json", "notFound"),
        ("/away/secret", 404, "application/problem+json", "notFound"),
        ("/.secret", 404, "application/problem+json", "notFound"),
        ("/sub/%2e%2e/%2e%2e/etc/passwd", 404, "application/problem+json", "notFound"),
    ] {
        for answer in server.everywhere(path, &HeaderMap::new()).await {
            assert_eq!(answer.status(), status, "{path}");
            let found = answer.headers().get("content-type").map_or("", |kind| kind.to_str().expect("ASCII"));
            assert!(found.starts_with(kind), "{path}: {found}");
            assert!(String::from_utf8_lossy(answer.body()).contains(text), "{path}");
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff", "{path}");
        }
    }
    let mut h2 = server.h2(|_| ()).await;
    let (mut answer, _) = h2.send_request(get("/"), true).expect("sent");
    let mut promises = answer.push_promises();
    body(within(answer).await.expect("an answer").into_body()).await;
    assert!(within(promises.push_promise()).await.is_none(), "the built-in page's modules are not this page's");
}

#[tokio::test]
async fn a_directory_that_is_not_there_keeps_the_server_from_starting() {
    let config = Config { web: Some("/nowhere/at/all".into()), ..config() };
    let error = wigwag::server::Server::load(config).await.expect_err("no directory").to_string();
    assert_eq!(error, "cannot open the directory /nowhere/at/all: no such file or directory; check --web");
}

/// A server with a file of [`LARGE`] at `/large`, and a peer in the room `demo`.
async fn with_download() -> (TestServer, tempfile::TempDir, Connection) {
    let (server, dir) = with_directory().await;
    std::fs::write(dir.path().join("large"), vec![7; LARGE]).expect("written");
    let mut peer = server.connect(Via::WebSocketH1, "demo").await;
    peer.send(r#"{"type":"join"}"#).await.expect("sent");
    let Event::Message(joined) = within(peer.recv()).await.expect("a message") else { panic!("closed") };
    assert!(joined.contains("joined"), "{joined}");
    (server, dir, peer)
}

/// One of the two sessions that share a connection with downloads.
trait Session {
    async fn next(&mut self) -> Bytes;

    async fn hears(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.next().await).contains(text) {}
    }
}

impl Session for WebSocket {
    async fn next(&mut self) -> Bytes {
        match self.recv().await.expect("a message") {
            websocket::Incoming::Message(message) => message,
            closed => panic!("{closed:?}"),
        }
    }
}

impl Session for WebTransport {
    async fn next(&mut self) -> Bytes {
        match self.recv().await.expect("a message") {
            webtransport::Incoming::Message(message) => message,
            other => panic!("{other:?}"),
        }
    }
}

/// A message arrives while nobody reads the download; and when it is read, long before its end.
async fn overtakes(mut session: impl Session, mut download: Download, mut peer: Connection) {
    within(download.chunk()).await.expect("a part").expect("a part");
    peer.send(r#"{"type":"message","id":1,"data":"stalled"}"#).await.expect("sent");
    within(session.hears("stalled")).await;

    peer.send(r#"{"type":"message","id":2,"data":"flowing"}"#).await.expect("sent");
    let before = {
        let mut read = 0;
        let mut heard = pin!(session.hears("flowing"));
        within(async {
            loop {
                tokio::select! {
                    () = &mut heard => return read,
                    part = download.chunk() => read += part.expect("a part").expect("the message, not the end").len(),
                }
            }
        })
        .await
    };
    assert!(before < LARGE / 2, "{before} bytes went before the message");
    let mut rest = 0;
    while let Some(part) = within(download.chunk()).await.expect("a part") {
        rest += part.len();
    }
    assert!(before + rest > LARGE / 2, "the download goes on to its end: {before} and {rest}");
}

#[tokio::test]
async fn a_message_overtakes_a_download_on_its_http2_connection() {
    let (server, _dir, peer) = with_download().await;
    let h2 = within(Http2::connect(&server.secure(), &server.trust.tls)).await.expect("HTTP/2");
    let mut session = within(h2.websocket("/v1/rooms/demo", &HeaderMap::new())).await.expect("a WebSocket");
    session.send(r#"{"type":"join"}"#).await.expect("sent");
    within(session.hears("joined")).await;
    let download = within(h2.download("/large", &HeaderMap::new())).await.expect("an answer");
    assert_eq!(download.status(), StatusCode::OK);
    overtakes(session, download.into_body(), peer).await;
}

#[tokio::test]
async fn a_message_overtakes_a_download_on_its_quic_connection() {
    let (server, _dir, peer) = with_download().await;
    let h3 = within(Http3::connect(&server.secure(), &server.trust)).await.expect("HTTP/3");
    let mut session = within(h3.webtransport("/v1/rooms/demo", &HeaderMap::new())).await.expect("a session");
    session.send(r#"{"type":"join"}"#).await.expect("sent");
    within(session.hears("joined")).await;
    let download = within(h3.download("/large", &HeaderMap::new())).await.expect("an answer");
    assert_eq!(download.status(), StatusCode::OK);
    overtakes(session, download.into_body(), peer).await;
}
