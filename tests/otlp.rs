//! Traces, as a collector of the test's own gets them. Run with `--features otlp`.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span, status::StatusCode as Status};
use prost::Message as _;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wigwag::client::{Connection, Http1, Via};
use wigwag::config::{Config, Otlp};
use wigwag::secret::SecretSource;

use crate::cli::{Shell, contains};
use crate::cluster::durable::durable;
use crate::cluster::moves::sharing;
use crate::cluster::nats::Nats;
use crate::cluster::{linked, node, nodes};
use crate::metrics::{Operator, hear, join, observed, say};
use crate::support::{TestServer, within};
use crate::tokens::{Issuer, enter};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Every way to open a session.
const ALL: [Via; 6] =
    [Via::WebTransport, Via::WebSocketH3, Via::WebSocketH2, Via::WebSocketH1, Via::EventStreamH2, Via::LongPollH2];

/// A collector: keeps what it is sent, and answers with `status`.
struct Collector {
    port: u16,
    heard: mpsc::Receiver<(HeaderMap, Bytes)>,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    async fn start() -> Self {
        Self::answering(StatusCode::OK).await
    }

    async fn answering(status: StatusCode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (tell, heard) = mpsc::channel(64);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let tell = tell.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let tell = tell.clone();
                    async move {
                        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/base/v1/traces"));
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.expect("a body").to_bytes();
                        let _ = tell.send((head.headers, body)).await;
                        let mut response = Response::new(Full::<Bytes>::default());
                        *response.status_mut() = status;
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Collector { port, heard, task }
    }

    /// Settings of a server that sends it every trace.
    fn told(&self) -> Config {
        traced(self.port, 1)
    }

    /// What it was sent by a server that has stopped.
    fn all(mut self) -> Sent {
        let mut sent = Sent::default();
        while let Ok((headers, body)) = self.heard.try_recv() {
            assert_eq!(headers[CONTENT_TYPE], "application/x-protobuf");
            let request = ExportTraceServiceRequest::decode(body.clone()).expect("a request");
            for resource in request.resource_spans {
                sent.resource = attributes(&resource.resource.expect("who sends it").attributes);
                sent.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
            sent.requests.push((headers, body));
        }
        sent
    }
}

fn traced(port: u16, one_in: u32) -> Config {
    let endpoint = format!("http://127.0.0.1:{port}/base/").parse().expect("a URL");
    Config { otlp: Some(Box::new(Otlp { endpoint, headers: None, ca: None, one_in })), ..observed() }
}

#[derive(Default)]
struct Sent {
    requests: Vec<(HeaderMap, Bytes)>,
    resource: HashMap<String, String>,
    spans: Vec<Span>,
}

impl Sent {
    fn named(&self, name: &str) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.name == name).collect()
    }

    fn only(&self, name: &str) -> &Span {
        let found = self.named(name);
        assert_eq!(found.len(), 1, "spans of the name {name}");
        found[0]
    }

    /// Which nodes have sent spans of this name.
    fn senders(&self, name: &str) -> BTreeSet<String> {
        let requests = self.requests.iter().map(|(_, body)| ExportTraceServiceRequest::decode(body.clone()));
        let resources = requests.flat_map(|request| request.expect("a request").resource_spans);
        let tells = |scopes: &[ScopeSpans]| scopes.iter().flat_map(|scope| &scope.spans).any(|span| span.name == name);
        let telling = resources.filter(|one| tells(&one.scope_spans));
        telling.map(|one| attributes(&one.resource.expect("who").attributes)["service.instance.id"].clone()).collect()
    }

    /// The names of what is beneath it, in the order of their beginnings.
    fn steps(&self, span: &Span) -> Vec<&str> {
        let mut steps: Vec<_> = self.spans.iter().filter(|step| step.parent_span_id == span.span_id).collect();
        steps.sort_by_key(|step| step.start_time_unix_nano);
        for step in &steps {
            assert_eq!(step.trace_id, span.trace_id);
            assert!(
                step.start_time_unix_nano >= span.start_time_unix_nano
                    && step.end_time_unix_nano <= span.end_time_unix_nano
            );
        }
        steps.iter().map(|step| step.name.as_str()).collect()
    }
}

fn attributes(list: &[KeyValue]) -> HashMap<String, String> {
    let value = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{} is {other:?}", pair.key),
    };
    list.iter().map(|pair| (pair.key.strip_prefix("wigwag.").unwrap_or(&pair.key).to_owned(), value(pair))).collect()
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == Status::Error)
}

fn traceparent(flags: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("00-{TRACE}-{PARENT}-{flags}")).expect("a value");
    HeaderMap::from_iter([(HeaderName::from_static("traceparent"), value)])
}

async fn join_with(server: &TestServer, via: Via, room: &str, headers: &HeaderMap) -> (Connection, String) {
    let mut session = server.try_connect(via, room, headers).await.expect("it opens");
    say(&mut session, r#"{"type":"join"}"#).await;
    let peer = hear(&mut session, "joined").await["self"]["peer"].as_str().expect("an id").to_owned();
    (session, peer)
}

fn offer(to: &str, id: u64) -> String {
    json!({"type": "description", "id": id, "to": to, "description": {"type": "offer", "sdp": "v=0\r\n"}}).to_string()
}

#[tokio::test]
async fn a_session_is_one_trace_from_the_request_to_joined_beneath_the_clients_own() {
    let collector = Collector::start().await;
    let server = TestServer::start_with(collector.told()).await;
    let mut peers = HashMap::new();
    for via in ALL {
        let (mut session, peer) = join_with(&server, via, "demo", &traceparent("01")).await;
        say(&mut session, r#"{"type":"leave","id":1}"#).await;
        hear(&mut session, "ok").await;
        peers.insert(via.transport().name().to_owned(), peer);
    }
    server.stop().await;
    let sent = collector.all();
    assert_eq!(sent.resource["service.name"], "wigwag");
    assert!(sent.resource.contains_key("service.instance.id"));
    for (transport, peer) in peers {
        let opened =
            sent.named("open").into_iter().filter(|span| attributes(&span.attributes)["transport"] == transport);
        let opened: Vec<_> = opened.collect();
        assert_eq!(opened.len(), 1, "{transport}: its next polls open nothing");
        let (span, known) = (opened[0], attributes(&opened[0].attributes));
        assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE, PARENT), "{transport}");
        assert_eq!((known["room"].as_str(), &known["peer"]), ("demo", &peer));
        assert_eq!((known["how"].as_str(), known["outcome"].as_str()), ("join", "begun"));
        assert!(!failed(span));
        let wanted: &[&str] = match transport.as_str() {
            "long-poll" => &["authorize", "enter"],
            "event-stream" => &["admit", "authorize", "enter"],
            _ => &["admit", "first message", "authorize", "enter"],
        };
        assert_eq!(sent.steps(span), wanted, "{transport}");
    }
}

#[tokio::test]
async fn a_page_says_in_the_query_which_trace_it_belongs_to() {
    let collector = Collector::start().await;
    let server = TestServer::start_with(collector.told()).await;
    let mut connection = Http1::connect(&server.plain(), &server.trust.tls).await.expect("a connection");
    let headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (ACCEPT, HeaderValue::from_static("application/x-ndjson")),
    ]);
    for query in [format!("traceparent=00-{TRACE}-{PARENT}-01"), "traceparent=nonsense".to_owned()] {
        let path = format!("/v1/rooms/demo?{query}");
        let joined = within(connection.post(&path, &headers, r#"{"type":"join"}"#.into())).await.expect("an answer");
        assert_eq!(joined.status(), StatusCode::OK, "{query}");
    }
    server.stop().await;
    let sent = collector.all();
    let parents: Vec<_> = sent.named("open").iter().map(|span| hex(&span.parent_span_id)).collect();
    assert_eq!(parents, [PARENT, ""]);
}

#[tokio::test]
async fn what_becomes_of_each_description_is_a_trace_of_its_own_or_part_of_its_request() {
    let collector = Collector::start().await;
    let server = TestServer::start_with(collector.told()).await;
    let (mut alice, from) = join_with(&server, Via::WebTransport, "demo", &HeaderMap::new()).await;
    let (mut bob, to) = join_with(&server, Via::WebSocketH2, "demo", &HeaderMap::new()).await;
    let (mut carol, _) = join_with(&server, Via::EventStreamH2, "demo", &traceparent("01")).await;
    say(&mut alice, &offer(&to, 1)).await;
    hear(&mut bob, "description").await;
    say(&mut bob, &json!({"type": "candidate", "id": 1, "to": from, "candidate": null}).to_string()).await;
    hear(&mut alice, "candidate").await;
    // To nobody, and no description at all.
    say(&mut alice, &offer("00000000-0000-7000-8000-000000000000", 2)).await;
    hear(&mut alice, "error").await;
    say(&mut alice, &offer(&to, 3).replace("v=0", "x")).await;
    hear(&mut alice, "error").await;
    // Its POST says whose trace it is part of.
    say(&mut carol, &offer(&to, 1)).await;
    hear(&mut bob, "description").await;
    drop((alice, bob, carol));
    server.stop().await;
    let sent = collector.all();
    let relayed = sent.named("relay");
    let told = |span: &&Span| attributes(&span.attributes)["outcome"].clone();
    let outcomes: Vec<_> = relayed.iter().map(told).collect();
    assert_eq!(outcomes, ["delivered", "peerGone", "invalidDescription", "delivered"], "and none of the candidate");
    let known = attributes(&relayed[0].attributes);
    assert_eq!((known["room"].as_str(), &known["peer"], known["transport"].as_str()), ("demo", &from, "webtransport"));
    let bytes = json!({"type": "offer", "sdp": "v=0\r\n"}).to_string().len().to_string();
    assert_eq!((known["type"].as_str(), &known["bytes"]), ("offer", &bytes));
    assert_eq!(relayed.iter().map(|span| failed(span)).collect::<Vec<_>>(), [false, true, true, false]);
    assert!(relayed[..3].iter().all(|span| span.parent_span_id.is_empty()), "each is a trace of its own");
    assert_eq!((hex(&relayed[3].trace_id).as_str(), hex(&relayed[3].parent_span_id).as_str()), (TRACE, PARENT));
}

#[tokio::test]
async fn a_description_for_a_peer_at_another_node_is_one_trace_at_both() {
    let nats = Nats::start(&[]).await;
    let collector = Collector::start().await;
    let [x, y] = nodes(&nats, |config| Config { otlp: collector.told().otlp, ..config }).await;
    // It neither records traces nor passes them on.
    let z = node(&nats, |config| config).await;
    linked(&z, 2).await;
    let none = HeaderMap::new();
    let (mut alice, _) = join_with(&x, Via::WebSocketH2, "demo", &none).await;
    let (bob, bobs) = join_with(&y, Via::WebTransport, "demo", &none).await;
    let (mut carol, carols) = join_with(&z, Via::WebSocketH1, "demo", &none).await;
    for _ in 0..2 {
        hear(&mut alice, "peerJoined").await;
    }
    say(&mut alice, &json!({"type": "candidate", "id": 1, "to": bobs, "candidate": null}).to_string()).await;
    hear(&mut alice, "ok").await;
    say(&mut alice, &offer(&bobs, 2)).await;
    hear(&mut alice, "ok").await;
    drop(bob);
    hear(&mut alice, "peerAway").await;
    say(&mut alice, &offer(&bobs, 3)).await;
    hear(&mut alice, "ok").await;
    say(&mut alice, &offer(&carols, 4)).await;
    hear(&mut carol, "description").await;
    say(&mut carol, &offer(&bobs, 1)).await;
    hear(&mut carol, "ok").await;
    drop((alice, carol));
    for node in [x, y, z] {
        node.stop().await;
    }
    let sent = collector.all();
    let (relayed, arrived) = (sent.named("relay"), sent.named("arrive"));
    let told = |span: &&Span| attributes(&span.attributes)["outcome"].clone();
    assert_eq!(relayed.iter().map(told).collect::<Vec<_>>(), ["elsewhere"; 3], "carol's node records nothing");
    assert_eq!(arrived.iter().map(told).collect::<Vec<_>>(), ["delivered", "kept"], "carol's was not part of a trace");
    for (relay, arrive) in relayed.iter().zip(&arrived) {
        assert_eq!((&arrive.trace_id, &arrive.parent_span_id), (&relay.trace_id, &relay.span_id));
        let known = attributes(&arrive.attributes);
        assert_eq!((known["room"].as_str(), &known["peer"]), ("demo", &bobs), "whom it is for");
    }
    let (from, at) = (sent.senders("relay"), sent.senders("arrive"));
    assert!(from.len() == 1 && at.len() == 1 && from != at, "{from:?} {at:?}");
}

#[tokio::test]
async fn a_description_that_is_stored_first_is_traced_as_well() {
    let store = tempfile::tempdir().expect("a directory");
    let nats = Nats::start(&["--jetstream", "--store_dir", store.path().to_str().expect("UTF-8")]).await;
    let collector = Collector::start().await;
    let [x, y] = sharing(&nats, |config| durable(Config { otlp: collector.told().otlp, ..config })).await;
    let (mut alice, _) = join_with(&x, Via::WebSocketH2, "demo", &HeaderMap::new()).await;
    let (bob, bobs) = join_with(&y, Via::WebSocketH2, "demo", &HeaderMap::new()).await;
    hear(&mut alice, "peerJoined").await;
    say(&mut alice, &offer(&bobs, 1)).await;
    hear(&mut alice, "ok").await;
    drop((alice, bob));
    for node in [x, y] {
        node.stop().await;
    }
    let sent = collector.all();
    let (relay, arrive) = (sent.only("relay"), sent.only("arrive"));
    assert_eq!((&arrive.trace_id, &arrive.parent_span_id), (&relay.trace_id, &relay.span_id));
    assert_eq!(attributes(&arrive.attributes)["outcome"], "delivered");
}

#[tokio::test]
async fn a_session_that_does_not_begin_says_why() {
    let collector = Collector::start().await;
    let issuer = Issuer::generate(wigwag::auth::Algorithm::EdDsa);
    let server = TestServer::start_with(Config { tokens: Some(issuer.policy()), ..collector.told() }).await;
    let mut nobody = server.connect(Via::WebSocketH1, "demo").await;
    say(&mut nobody, r#"{"type":"join"}"#).await;
    hear(&mut nobody, "closed").await;
    drop(nobody);
    let mut wrong = server.connect(Via::WebSocketH2, "demo").await;
    say(&mut wrong, r#"{"type":"leave"}"#).await;
    hear(&mut wrong, "closed").await;
    let mut bearer = HeaderMap::new();
    bearer.insert("authorization", HeaderValue::from_static("Bearer nonsense"));
    assert!(server.try_connect(Via::WebSocketH2, "demo", &bearer).await.is_err(), "it is none");
    server.stop().await;
    let sent = collector.all();
    let opened = sent.named("open");
    assert!(opened.iter().all(|span| failed(span)));
    let told = |span: &&Span| (attributes(&span.attributes)["outcome"].clone(), sent.steps(span));
    let told: Vec<_> = opened.iter().map(told).collect();
    let wanted: [(String, Vec<&str>); 3] = [
        ("unauthorized".into(), vec!["admit", "first message", "authorize"]),
        ("badRequest".into(), vec!["admit", "first message", "authorize", "enter"]),
        ("unauthorized".into(), vec!["admit"]),
    ];
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn a_client_decides_for_its_own_trace_and_chance_for_the_others() {
    let collector = Collector::start().await;
    let server = TestServer::start_with(traced(collector.port, 1_000_000)).await;
    let by_chance = join_with(&server, Via::WebSocketH2, "demo", &HeaderMap::new()).await;
    let unwanted = join_with(&server, Via::WebSocketH2, "demo", &traceparent("00")).await;
    let (wanted, peer) = join_with(&server, Via::WebSocketH2, "demo", &traceparent("01")).await;
    drop((by_chance, unwanted, wanted));
    server.stop().await;
    let sent = collector.all();
    assert_eq!(attributes(&sent.only("open").attributes)["peer"], peer);
    assert_eq!(sent.spans.len(), 5, "it and its four steps");
}

#[tokio::test]
async fn spans_tell_nothing_that_a_log_must_not() {
    let collector = Collector::start().await;
    let issuer = Issuer::generate(wigwag::auth::Algorithm::EdDsa);
    let headers = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(headers.path(), "authorization=Bearer%20collectors-own\n").expect("written");
    let mut config = Config { tokens: Some(issuer.policy()), ..collector.told() };
    config.otlp.as_mut().expect("it is traced").headers = Some(SecretSource::File(headers.path().to_owned()));
    let server = TestServer::start_with(config).await;
    let token = issuer
        .token(&json!({"sub": "canary-user", "grants": ["join", "publish"], "metadata": {"name": "canary-name"}}));
    let (mut alice, joined) = enter(&server, Via::WebSocketH2, "demo", &token).await;
    let (mut bob, also) = enter(&server, Via::WebSocketH2, "demo", &token).await;
    let to = also["self"]["peer"].as_str().expect("an id");
    say(&mut alice, &offer(to, 1).replace("v=0\\r\\n", "v=0\\r\\ns=canary-sdp\\r\\n")).await;
    hear(&mut bob, "description").await;
    drop((alice, bob));
    server.stop().await;
    let sent = collector.all();
    assert_eq!(sent.named("relay").len(), 1);
    let ticket = joined["ticket"].as_str().expect("a ticket");
    let signature = token.rsplit('.').next().expect("a signature");
    for (headers, body) in &sent.requests {
        assert_eq!(headers["authorization"], "Bearer collectors-own");
        let text = String::from_utf8_lossy(body);
        for secret in ["canary", "collectors-own", ticket, signature] {
            assert!(!text.contains(secret), "{secret}");
        }
    }
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_is_away_or_silent() {
    // Bound, so that it is nobody else's, and listened on by nobody.
    let away = TcpSocket::new_v4().expect("a socket");
    away.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let away_port = away.local_addr().expect("bound").port();
    // Takes connections, into its backlog, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    for port in [away_port, silent.local_addr().expect("bound").port()] {
        let mut server = TestServer::start_with(traced(port, 1)).await;
        let metrics = server.context.metrics.clone();
        let (mut alice, _) = join(&server, Via::WebSocketH2, "demo").await;
        let (mut bob, _) = join(&server, Via::WebTransport, "demo").await;
        say(&mut alice, r#"{"type":"message","id":1,"data":1}"#).await;
        hear(&mut bob, "message").await;
        drop((alice, bob));
        if port != away_port {
            // Its last words have five seconds, which need not be waited for here.
            server.begin_to_stop();
            continue;
        }
        server.stop().await;
        let text = metrics.encode().expect("text");
        // Two sessions of five spans each.
        for line in ["wigwag_spans_total{outcome=\"failed\"} 10", "wigwag_spans_total{outcome=\"sent\"} 0"] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }
}

#[tokio::test]
async fn spans_are_counted_by_what_becomes_of_them() {
    for (status, outcome) in [(StatusCode::OK, "sent"), (StatusCode::UNAUTHORIZED, "failed")] {
        let collector = Collector::answering(status).await;
        let server = TestServer::start_with(collector.told()).await;
        let mut operator = Operator::of(&server).await;
        let (alice, _) = join(&server, Via::WebSocketH2, "demo").await;
        let series = format!("wigwag_spans_total{{outcome=\"{outcome}\"}}");
        operator.becomes(&series, |count| count == 5.0).await;
        drop((alice, operator));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_collector_must_be_a_url_and_is_shown_secrets_only_if_nobody_else_hears() {
    let shell = Shell::new();
    for wrong in ["collector:4318", "ftp://collector", "http://user:secret@collector", "http://"] {
        let said = shell.refused(&["--otlp-endpoint", wrong]).await;
        contains(&said, &["--otlp-endpoint", "http://HOST:4318"]);
        assert!(!said.contains("secret"), "{said}");
    }
    let shown = ["--otlp-endpoint", "http://collector:4318", "--otlp-headers", "env:X"];
    contains(&shell.refused(&shown).await, &["--otlp-endpoint", "unencrypted", "https://"]);
    contains(&shell.refused(&["--otlp-headers", "env:X"]).await, &["--otlp-headers", "give it too"]);
    let nowhere = ["--otlp-endpoint", "http://localhost:4318", "--otlp-headers", "env:NOT_SET"];
    contains(&shell.refused(&nowhere).await, &["NOT_SET", "authorization=Bearer"]);
}
