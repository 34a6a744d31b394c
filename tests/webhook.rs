//! What the operator's application is told of rooms, by an application of the test's own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use ring::hmac;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use wigwag::auth::Algorithm;
use wigwag::client::Via;
use wigwag::config::{Config, Webhook};
use wigwag::secret::SecretSource;

use crate::cli::{Shell, contains};
use crate::metrics::{Operator, hear, join, observed, say};
use crate::support::{TestServer, within};
use crate::tokens::{Issuer, enter};

const SECRET: &str = "shared with the application";

/// More than any test asks for.
const ANSWERS: usize = 1000;

/// A request as it came.
struct Heard {
    headers: HeaderMap,
    body: String,
}

impl Heard {
    /// The events in it, once the signature has been found right.
    fn events(&self) -> Vec<Value> {
        let signature = self.headers["wigwag-signature"].to_str().expect("text");
        let (seconds, tag) = signature.split_once(",v1=").expect("both parts");
        let seconds = seconds.strip_prefix("t=").expect("the time");
        let tag: Vec<u8> = (0..tag.len() / 2)
            .map(|at| u8::from_str_radix(&tag[2 * at..2 * at + 2], 16).expect("hexadecimal"))
            .collect();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        hmac::verify(&key, format!("{seconds}.{}", self.body).as_bytes(), &tag).expect("it is signed");
        let told: Value = serde_json::from_str(&self.body).expect("JSON");
        told["events"].as_array().expect("a list").clone()
    }
}

/// The application: answers as it was told to, and as the last of that when it is used up; at first 204.
struct Application {
    url: String,
    heard: mpsc::Receiver<Heard>,
    answers: Arc<Mutex<VecDeque<u16>>>,
    /// One permit for each answer.
    turns: Arc<Semaphore>,
    task: JoinHandle<()>,
}

/// Where an application will be, kept for it.
fn place() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    socket
}

fn url_of(place: &TcpSocket) -> String {
    format!("http://{}/hooks?of=wigwag", place.local_addr().expect("bound"))
}

impl Drop for Application {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Application {
    fn start() -> Self {
        Self::start_at(place())
    }

    fn start_at(place: TcpSocket) -> Self {
        let url = url_of(&place);
        let listener = place.listen(64).expect("the place is its own");
        let (tell, heard) = mpsc::channel(64);
        let answers = Arc::new(Mutex::new(VecDeque::new()));
        let turns = Arc::new(Semaphore::new(ANSWERS));
        let (script, waited_for) = (Arc::clone(&answers), Arc::clone(&turns));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (tell, script, turns) = (tell.clone(), Arc::clone(&script), Arc::clone(&waited_for));
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (tell, script, turns) = (tell.clone(), Arc::clone(&script), Arc::clone(&turns));
                    async move {
                        assert_eq!(
                            (request.method().as_str(), request.uri().to_string()),
                            ("POST", "/hooks?of=wigwag".into())
                        );
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.expect("a body").to_bytes();
                        let body = String::from_utf8(body.to_vec()).expect("UTF-8");
                        let _ = tell.send(Heard { headers: head.headers, body }).await;
                        turns.acquire().await.expect("open").forget();
                        let status = next(&mut script.lock());
                        let mut response = Response::new(Full::<Bytes>::default());
                        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Application { url, heard, answers, turns, task }
    }

    fn answer_with<const N: usize>(&self, statuses: [u16; N]) {
        *self.answers.lock() = statuses.into();
    }

    /// A server that tells it, and has said so.
    async fn server(&mut self) -> TestServer {
        let server = TestServer::start_with(self.told()).await;
        assert_eq!(names(&self.next().await.events()), ["serverStarted"]);
        server
    }

    async fn next(&mut self) -> Heard {
        within(self.heard.recv()).await.expect("the application is there")
    }

    /// The next events, however they are batched.
    async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next().await.events());
        }
        events
    }

    /// Answers no more, until it is given turns again.
    fn hold(&self) {
        self.turns.forget_permits(ANSWERS);
    }

    fn told(&self) -> Config {
        telling(&self.url)
    }
}

/// Settings of a server that tells whoever is there.
fn telling(url: &str) -> Config {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{SECRET}\n")).expect("written");
    let (_, path) = file.keep().expect("it stays until the server has read it");
    let (url, secret) = (url.parse().expect("a URL"), SecretSource::File(path));
    Config { webhook: Some(Webhook { url, secret, queue: 10_000, ca: None }), ..observed() }
}

/// The next of these, of which the last stays.
fn next(answers: &mut VecDeque<u16>) -> u16 {
    let first = answers.front().copied().unwrap_or(204);
    if answers.len() > 1 {
        answers.pop_front();
    }
    first
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn the_application_is_told_in_order_and_knows_who_tells_it() {
    let mut application = Application::start();
    let server = application.server().await;
    let (alice, _) = join(&server, Via::WebTransport, "demo").await;
    let (mut bob, _) = join(&server, Via::WebSocketH2, "demo").await;
    drop(alice);
    hear(&mut bob, "peerAway").await;
    say(&mut bob, r#"{"type":"leave","id":1}"#).await;
    hear(&mut bob, "ok").await;
    let events = application.events(5).await;
    assert_eq!(names(&events), ["roomOpened", "peerJoined", "peerJoined", "peerAway", "peerLeft"]);
    assert_eq!((&events[1]["transport"], &events[2]["transport"]), (&json!("webtransport"), &json!("websocket-h2")));
    assert_eq!(events[3]["peer"], events[1]["peer"]);
    assert_eq!((&events[4]["peer"], &events[4]["reason"]), (&events[2]["peer"], &json!("left")));
    assert!(events.iter().all(|event| event["room"] == "demo" && event["atMs"].as_u64() > Some(1_700_000_000_000)));
    let mut operator = Operator::of(&server).await;
    operator.becomes("wigwag_webhook_events_total{outcome=\"delivered\"}", |count| count == 6.0).await;
    server.stop().await;
}

#[tokio::test]
async fn what_happens_last_is_told_before_the_server_has_ended() {
    let mut application = Application::start();
    let server = application.server().await;
    let (_alice, _) = join(&server, Via::WebSocketH2, "demo").await;
    assert_eq!(names(&application.events(2).await), ["roomOpened", "peerJoined"]);
    // The application is about to be there again: it is asked once more.
    application.answer_with([503, 204]);
    server.stop().await;
    let told = [application.next().await, application.next().await];
    assert_eq!(told[0].headers["wigwag-delivery"], told[1].headers["wigwag-delivery"]);
    let node = |heard: &Heard| serde_json::from_str::<Value>(&heard.body).expect("JSON")["node"].clone();
    assert!(node(&told[0]).is_string() && node(&told[0]) == node(&told[1]));
    let mut last = told[1].events();
    if last.len() == 1 {
        last.extend(application.next().await.events());
    }
    assert_eq!(names(&last), ["peerAway", "serverStopped"]);
}

#[tokio::test]
async fn a_leave_too_tells_whose_peer_it_was() {
    let mut application = Application::start();
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let server = TestServer::start_with(Config { tokens: Some(issuer.policy()), ..application.told() }).await;
    let token = issuer.token(&json!({"sub": "alice", "grants": ["join"]}));
    let (mut alice, _) = enter(&server, Via::WebSocketH2, "demo", &token).await;
    say(&mut alice, r#"{"type":"leave","id":1}"#).await;
    let events = application.events(5).await;
    assert_eq!(names(&events), ["serverStarted", "roomOpened", "peerJoined", "peerLeft", "roomEnded"]);
    assert_eq!((&events[2]["user"], &events[3]["user"]), (&json!("alice"), &json!("alice")));
    server.stop().await;
}

#[tokio::test]
async fn an_application_that_fails_is_told_again_and_one_that_refuses_is_not() {
    let mut application = Application::start();
    let server = application.server().await;
    application.answer_with([503, 429, 204]);
    let mut operator = Operator::of(&server).await;
    let mut alice = join(&server, Via::WebSocketH2, "one").await.0;
    let tries = [application.next().await, application.next().await, application.next().await];
    let deliveries = tries.each_ref().map(|heard| heard.headers["wigwag-delivery"].to_str().expect("text").to_owned());
    assert!(deliveries[0] == deliveries[1] && deliveries[1] == deliveries[2], "{deliveries:?}");
    assert!(tries.iter().all(|heard| names(&heard.events()) == ["roomOpened", "peerJoined"]));
    operator.becomes("wigwag_webhook_events_total{outcome=\"delivered\"}", |count| count == 3.0).await;
    // Where a redirect leads, the operator has not said.
    application.answer_with([302]);
    say(&mut alice, r#"{"type":"leave","id":1}"#).await;
    let refused = application.next().await;
    operator.becomes("wigwag_webhook_events_total{outcome=\"failed\"}", |count| count >= 1.0).await;
    let mut after = refused.events();
    if after.len() == 1 {
        after.extend(application.next().await.events());
    }
    assert_eq!(names(&after), ["peerLeft", "roomEnded"]);
    server.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_an_application_that_is_not_there_and_it_is_told_when_it_is() {
    let place = place();
    let server = TestServer::start_with(telling(&url_of(&place))).await;
    let (mut alice, _) = join(&server, Via::WebSocketH2, "demo").await;
    let (mut bob, _) = join(&server, Via::WebSocketH2, "demo").await;
    say(&mut alice, r#"{"type":"message","id":1,"data":1}"#).await;
    hear(&mut bob, "message").await;
    let mut application = Application::start_at(place);
    let events = application.events(4).await;
    assert_eq!(names(&events), ["serverStarted", "roomOpened", "peerJoined", "peerJoined"]);
    drop((alice, bob));
    server.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_an_application_that_never_answers() {
    let mut application = Application::start();
    application.hold();
    let mut server = TestServer::start_with(application.told()).await;
    assert_eq!(names(&application.next().await.events()), ["serverStarted"]);
    let (mut alice, _) = join(&server, Via::WebSocketH2, "demo").await;
    let (mut bob, _) = join(&server, Via::WebTransport, "demo").await;
    say(&mut alice, r#"{"type":"message","id":1,"data":1}"#).await;
    hear(&mut bob, "message").await;
    // The webhook's last words have five seconds, which need not be waited for here; its deadlines are tested beside it.
    server.begin_to_stop();
}

#[tokio::test]
async fn what_is_too_much_for_the_queue_is_left_out_and_the_application_told_how_much() {
    let mut application = Application::start();
    let mut config = application.told();
    config.webhook.as_mut().expect("it is told").queue = 3;
    let server = TestServer::start_with(config).await;
    let mut operator = Operator::of(&server).await;
    assert_eq!(names(&application.next().await.events()), ["serverStarted"]);
    operator.becomes("wigwag_webhook_events_total{outcome=\"delivered\"}", |count| count == 1.0).await;
    // It takes its time over the next request, while more happens than may wait.
    application.hold();
    let mut members = vec![join(&server, Via::WebSocketH2, "demo").await.0];
    let mut told = application.next().await.events().len();
    for _ in 1..9 {
        members.push(join(&server, Via::WebSocketH2, "demo").await.0);
    }
    // A room and nine members, of which those are left out that are neither told nor wait.
    let missed = 10 - told - 3;
    operator.becomes("wigwag_webhook_events_total{outcome=\"dropped\"}", |count| count == missed as f64).await;
    application.turns.add_permits(ANSWERS);
    let next = application.next().await;
    let body: Value = serde_json::from_str(&next.body).expect("JSON");
    told += next.events().len();
    assert_eq!((told + missed, &body["missed"]), (10, &json!(missed)));
    drop((members, operator));
    server.stop().await;
}

#[tokio::test]
async fn a_webhook_must_be_signed_and_encrypted() {
    let shell = Shell::new();
    contains(&shell.refused(&["--webhook", "https://app.example/"]).await, &["--webhook-secret"]);
    for wrong in ["http://app.example/", "https://user:secret@app.example/", "ftp://app.example/", "app.example"] {
        let said = shell.refused(&["--webhook", wrong, "--webhook-secret", "env:X"]).await;
        contains(&said, &["--webhook", "https://HOST/PATH"]);
        assert!(!said.contains("secret@"), "{said}");
    }
    contains(&shell.refused(&["--webhook-ca", "ca.pem"]).await, &["--webhook-ca", "give it too"]);
}
