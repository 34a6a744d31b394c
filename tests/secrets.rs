//! What must never show in a log: tokens, tickets, join keys, TURN credentials, and whatever peers say to each other. All of it is sent
//! through every path of a server that logs as much as it can.

use std::fs;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use wigwag::auth::{Algorithm, Claims, Signer, SigningKey};
use wigwag::client::{Connection, Endpoint, Error, Event, Http1, Http2, Http3, Trust, Via, certificate_hashes};
use wigwag::protocol::RoomName;

use crate::cli::{Shell, signal};
use crate::support::{authority, within};

/// A part of everything that is secret.
const CANARY: &str = "c4n4ry";

/// A server that logs all it can, and what it must not log of that.
struct Watched {
    shell: Shell,
    process: tokio::process::Child,
    endpoint: Endpoint,
    trust: Trust,
    signer: Signer,
    /// Secrets that the server or a library made.
    secrets: Vec<String>,
}

impl Watched {
    async fn start() -> Self {
        let shell = Shell::new();
        let keys = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        let signer = Signer::parse(&keys.private).expect("a key that signs");
        let public = shell.write("keys.json", &signer.public);
        let secret = shell.write("turn", format!("{CANARY}-turn-secret"));
        private(&secret);
        let log = fs::File::create(shell.dir.path().join("log")).expect("writable");
        let args = ["--listen", "127.0.0.1:0", "--plain", "off", "--admin", "off", "--log", "trace"];
        let ice = ["--ice-server", "turn:127.0.0.1:3478", "--turn-secret", &secret, "--token-keys", &public];
        let mut command = shell.command(&[&args[..], &ice].concat());
        let mut process = command.stdout(Stdio::piped()).stderr(log).spawn().expect("it runs");
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let port = loop {
            let line = within(lines.next_line()).await.expect("UTF-8").expect("it becomes ready");
            if line.contains("listening") {
                break line.rsplit(':').next().expect("a port").parse().expect("a number");
            }
        };
        let endpoint = Endpoint { encrypted: true, host: "127.0.0.1".into(), port };
        let trust = Trust::new(authority(&shell.dir.path().join("certs/ca.pem")), vec![]).expect("TLS 1.3");
        let mut http1 = Http1::connect(&endpoint, &trust.tls).await.expect("it listens");
        let discovery = http1.request(Method::GET, "/v1/discovery", &HeaderMap::new()).await.expect("an answer");
        let hashes = certificate_hashes(&serde_json::from_slice(discovery.body()).expect("JSON"));
        let trust = Trust { hashes, ..trust };
        Watched { shell, process, endpoint, trust, signer, secrets: vec![CANARY.to_owned()] }
    }

    /// A token that lets in; no part of it may show.
    fn token(&mut self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let grants = ["join", "publish", "message", "moderate"];
        let claims = json!({"exp": now + 600, "room": "*", "grants": grants, "metadata": {"id": CANARY}});
        let token = self.signer.sign(&serde_json::from_value::<Claims>(claims).expect("claims")).expect("signed");
        self.secrets.extend(token.split('.').skip(1).map(str::to_owned));
        token
    }

    async fn open(&self, via: Via, headers: &HeaderMap) -> Result<Connection, Error> {
        let room = RoomName::parse("secrets").expect("a name");
        within(Connection::open(&self.endpoint, &room, via, &self.trust, headers)).await
    }

    /// What a first message is answered, and the connection.
    async fn greet(&self, via: Via, greeting: &Value) -> (Connection, Value) {
        let mut connection = self.open(via, &HeaderMap::new()).await.expect("it opens");
        connection.send(&greeting.to_string()).await.expect("open");
        let answer = next(&mut connection).await.expect("an answer");
        (connection, answer)
    }

    /// Joins; what the server gives is secret.
    async fn join(&mut self, via: Via, key: &str) -> (Connection, Value) {
        let token = self.token();
        let join = json!({"type": "join", "token": token, "key": key, "metadata": {"name": CANARY}});
        let (connection, joined) = self.greet(via, &join).await;
        assert_eq!(joined["type"], "joined", "{joined}");
        for secret in [&joined["ticket"], &joined["iceServers"][0]["credential"]] {
            self.secrets.push(secret.as_str().expect("a text").to_owned());
        }
        self.secrets.push(key.to_owned());
        (connection, joined)
    }

    /// Ends the server as an operator would; its log, which has each kind of line.
    async fn log(mut self) -> String {
        signal(&self.process, "TERM").await;
        assert!(within(self.process.wait()).await.expect("it ran").success());
        fs::read_to_string(self.shell.dir.path().join("log")).expect("UTF-8")
    }
}

fn private(path: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
}

/// The next message, or nothing after the last.
async fn next(connection: &mut Connection) -> Option<Value> {
    match within(connection.recv()).await {
        Ok(Event::Message(text) | Event::Datagram(text)) => Some(serde_json::from_str(&text).expect("JSON")),
        Ok(Event::Closed { .. }) | Err(_) => None,
    }
}

/// Everything that a peer can say, right and wrong.
fn sayings(other: &Value) -> Vec<String> {
    let sdp = format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns={CANARY}\r\nt=0 0\r\n");
    let description = |sdp: &str| json!({"type": "offer", "sdp": sdp});
    let candidate =
        |text: &str| json!({"candidate": text, "sdpMid": CANARY, "sdpMLineIndex": 0, "usernameFragment": CANARY});
    let good = format!("candidate:1 1 udp 1 {CANARY}.local 9 typ host");
    let mut sayings: Vec<String> = [
        json!({"type": "description", "to": other, "description": description(&sdp)}),
        json!({"type": "description", "to": other, "description": description(CANARY)}),
        json!({"type": "description", "to": CANARY, "description": description(&sdp)}),
        json!({"type": "candidate", "to": other, "candidate": candidate(&good)}),
        json!({"type": "candidate", "to": other, "candidate": candidate(CANARY)}),
        json!({"type": "message", "to": other, "data": CANARY}),
        json!({"type": "message", "data": CANARY}),
        json!({"type": "message", "data": CANARY, "ephemeral": true}),
        json!({"type": "message", "data": CANARY.repeat(20_000)}),
        json!({"type": "metadata", "metadata": {"name": CANARY}}),
        json!({"type": "metadata", "metadata": CANARY}),
        json!({"type": "token", "token": CANARY}),
        json!({"type": "kick", "peer": CANARY, "reason": CANARY}),
        json!({"type": CANARY}),
        json!([CANARY]),
    ]
    .iter()
    .map(Value::to_string)
    .collect();
    sayings.extend([
        format!(r#"{{"type":"{CANARY}"#),
        CANARY.to_owned(),
        format!(r#"{{"type":"message","data":"{CANARY}\ud800"}}"#),
    ]);
    sayings
}

/// Doors that stay closed, each with a secret in the hand.
async fn is_refused_everywhere(server: &mut Watched, via: Via) {
    let token = server.token();
    for greeting in [
        json!({"type": "join", "token": CANARY}),
        json!({"type": "join", "token": format!("{CANARY}.{CANARY}.{CANARY}")}),
        json!({"type": "resume", "ticket": CANARY, "seq": 0, "token": token}),
        json!({"type": "resume", "ticket": format!("{CANARY:A<43}"), "seq": 0, "token": token}),
        json!({"type": "message", "data": CANARY}),
    ] {
        let (_, answer) = server.greet(via, &greeting).await;
        assert_eq!(answer["type"], "closed", "{via:?}: {answer}");
    }
    let bearer = HeaderValue::try_from(format!("Bearer {CANARY}")).expect("a field value");
    let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer)]);
    if let Ok(mut connection) = server.open(via, &headers).await {
        // Where no session is opened before the first message.
        let _ = connection.send(r#"{"type":"join"}"#).await;
        while next(&mut connection).await.is_some() {}
    }
}

/// Says everything, loses the connection, resumes, and is kicked by a moderator in the end.
async fn lives(server: &mut Watched, via: Via) {
    let (mut moderator, moderated) = server.join(Via::WebSocketH1, &format!("{CANARY}-moderator-{}", via.name())).await;
    let (mut peer, joined) = server.join(via, &format!("{CANARY}-key-{}", via.name())).await;
    for saying in sayings(&moderated["self"]["peer"]) {
        // A line that is none may end the connection.
        if peer.send(&saying).await.is_err() {
            break;
        }
    }
    // What was said is heard when this is answered, or the connection is at its end.
    let _ = peer.send(r#"{"type":"ping","id":1}"#).await;
    while next(&mut peer).await.is_some_and(|message| message["type"] != "pong") {}
    drop(peer);
    let resume = json!({"type": "resume", "ticket": joined["ticket"], "seq": 0});
    let (mut peer, resumed) = server.greet(via, &resume).await;
    if let Some(ticket) = resumed["ticket"].as_str() {
        server.secrets.push(ticket.to_owned());
    }
    let kick = json!({"type": "kick", "peer": joined["self"]["peer"], "reason": CANARY});
    moderator.send(&kick.to_string()).await.expect("open");
    while next(&mut peer).await.is_some() {}
    moderator.send(&json!({"type": "leave", "reason": CANARY}).to_string()).await.expect("open");
    while next(&mut moderator).await.is_some() {}
}

/// Ordinary requests with secrets where none belong.
async fn asks(server: &Watched) {
    let headers = HeaderMap::from_iter([
        (HeaderName::from_static("wigwag-ticket"), HeaderValue::from_static(CANARY)),
        (AUTHORIZATION, HeaderValue::from_static(CANARY)),
        (http::header::COOKIE, HeaderValue::from_static(CANARY)),
    ]);
    let (endpoint, trust) = (&server.endpoint, &server.trust);
    for path in ["/v1/rooms/secrets/log", "/v1/rooms/secrets/messages", "/v1/rooms/secrets?token=c4n4ry", "/?c4n4ry"] {
        for method in [Method::GET, Method::POST] {
            let mut http1 = Http1::connect(endpoint, &trust.tls).await.expect("it listens");
            http1.request(method.clone(), path, &headers).await.expect("an answer");
            let http2 = Http2::connect(endpoint, &trust.tls).await.expect("it listens");
            http2.request(method.clone(), path, &headers).await.expect("an answer");
            let http3 = Http3::connect(endpoint, trust).await.expect("it listens");
            http3.request(method, path, &headers).await.expect("an answer");
        }
    }
}

#[tokio::test]
async fn no_secret_and_no_payload_shows_in_the_most_verbose_log() {
    let mut server = Watched::start().await;
    for via in Via::ALL {
        is_refused_everywhere(&mut server, via).await;
        lives(&mut server, via).await;
    }
    asks(&server).await;
    let secrets = server.secrets.clone();
    assert!(secrets.iter().all(|secret| secret.len() >= CANARY.len()), "{secrets:?}");
    let log = server.log().await;
    for word in ["DEBUG", "INFO", "kicked", "unauthorized"] {
        assert!(log.contains(word), "nothing was logged at {word}");
    }
    for line in log.lines() {
        assert!(!secrets.iter().any(|secret| line.contains(secret.as_str())), "{line}");
    }
}
