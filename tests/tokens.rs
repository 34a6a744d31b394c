//! Tokens: who gets in with which, what they may do there, how a token ends and is renewed, and where keys come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use wigwag::auth::{Algorithm, Claims, KeySource, Names, Policy, Reach, RoomPattern, Signer, SigningKey, Verifier};
use wigwag::client::{Connection, Error, Event, Via};
use wigwag::config::Config;
use wigwag::protocol::{Limits, Newcomers, RoomName, Token, WaitingRoom};

use crate::schema::Messages;
use crate::support::{TestServer, config, within};

const RSA: &str = include_str!("tokens/rsa.pem");

/// A server's keys in a file, and who signs with them.
pub(crate) struct Issuer {
    signer: Signer,
    file: tempfile::NamedTempFile,
    private: tempfile::NamedTempFile,
}

impl Issuer {
    fn new(private: &str) -> Self {
        let signer = Signer::parse(private).expect("a key that signs");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &signer.public).expect("written");
        let private_file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(private_file.path(), private).expect("written");
        Issuer { signer, file, private: private_file }
    }

    pub(crate) fn generate(algorithm: Algorithm) -> Self {
        Issuer::new(&SigningKey::generate(algorithm).expect("a key").private)
    }

    pub(crate) fn policy(&self) -> Policy {
        let (keys, private) = (self.file.path().to_owned(), self.private.path().to_owned());
        Policy { keys: KeySource::File(keys), issuer: None, audience: None, invite_key: Some(private) }
    }

    pub(crate) async fn server(&self) -> TestServer {
        TestServer::start_with(Config { tokens: Some(self.policy()), ..config() }).await
    }

    /// A token with these claims and no others.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.signer.sign(claims).expect("signed")
    }

    /// A token for any room, good for an hour, with these claims on top.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let mut all = json!({"exp": seconds() + 3600, "room": "*"});
        all.as_object_mut().expect("an object").extend(claims.as_object().expect("an object").clone());
        self.signer.sign(&serde_json::from_value::<Claims>(all).expect("claims")).expect("signed")
    }
}

pub(crate) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

pub(crate) fn join(token: &str) -> Value {
    json!({"type": "join", "token": token})
}

pub(crate) async fn say(connection: &mut Connection, message: &Value) {
    connection.send(&message.to_string()).await.expect("open");
}

pub(crate) async fn next(connection: &mut Connection) -> Value {
    match within(connection.recv()).await {
        Ok(Event::Message(text) | Event::Datagram(text)) => Messages::read(&text),
        other => panic!("no message but {other:?}"),
    }
}

/// The next message of that type.
pub(crate) async fn hear(connection: &mut Connection, kind: &str) -> Value {
    loop {
        let message = next(connection).await;
        if message["type"] == kind {
            return message;
        }
    }
}

pub(crate) async fn enter(server: &TestServer, via: Via, room: &str, token: &str) -> (Connection, Value) {
    let mut connection = server.connect(via, room).await;
    say(&mut connection, &join(token)).await;
    let joined = next(&mut connection).await;
    assert_eq!(joined["type"], "joined", "{joined}");
    (connection, joined)
}

/// How the server answers a request: code and text.
pub(crate) async fn answer(connection: &mut Connection, request: &Value) -> (Value, Value) {
    say(connection, request).await;
    loop {
        let message = next(connection).await;
        if message["id"] == request["id"] {
            return (message["code"].clone(), message["message"].clone());
        }
    }
}

fn encoded(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

/// What must not get in, each for a reason of its own.
fn bad_tokens(issuer: &Issuer) -> Vec<(&'static str, String)> {
    let good = issuer.token(&json!({}));
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let (header, payload) = head.split_once('.').expect("three parts");
    let unsigned = |alg: &str| encoded(&json!({"alg": alg, "typ": "JWT"}));
    // The public key's own text as an HMAC secret.
    let confused =
        Signer::parse(&json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(&issuer.signer.public)}).to_string());
    let confused =
        confused.expect("a secret").sign(&claims(json!({"exp": seconds() + 60, "room": "*"}))).expect("signed");
    let stranger = Issuer::generate(Algorithm::EdDsa);
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let nested = encoded(&json!({"alg": "EdDSA", "cty": "JWT"}));
    let critical = encoded(&json!({"alg": "EdDSA", "crit": ["b64"], "b64": false}));
    vec![
        ("empty", String::new()),
        ("no token at all", "nonsense".into()),
        ("alg none", format!("{}.{payload}.", unsigned("none"))),
        ("alg none, signed", format!("{}.{payload}.{signature}", unsigned("none"))),
        ("another algorithm in the header", format!("{}.{payload}.{signature}", unsigned("ES256"))),
        ("a public key as secret", confused),
        ("a stranger's key", stranger.token(&json!({}))),
        ("expired", issuer.token(&json!({"exp": seconds() - 1}))),
        ("not yet valid", issuer.token(&json!({"nbf": seconds() + 3600}))),
        ("another room's", issuer.token(&json!({"room": ["other", "else-*"]}))),
        ("no room's", issuer.token(&json!({"room": []}))),
        ("forged signature", format!("{head}.{flipped}{}", &signature[1..])),
        ("without signature", head.to_owned()),
        ("forged claims", format!("{header}.{}.{signature}", encoded(&json!({"exp": 9_999_999_999u64, "room": "*"})))),
        ("claims that are no object", format!("{header}.{}.{signature}", encoded(&json!([1])))),
        ("nested", format!("{nested}.{payload}.{signature}")),
        ("encrypted", format!("{head}.{signature}.AAAA.AAAA")),
        ("with a critical header", format!("{critical}.{payload}.{signature}")),
        ("huge", issuer.token(&json!({"metadata": {"x": "x".repeat(10_000)}}))),
        ("a user with a line break", issuer.token(&json!({"sub": "a\nb"}))),
    ]
}

fn claims(claims: Value) -> Claims {
    serde_json::from_value(claims).expect("claims")
}

#[tokio::test]
async fn bad_tokens_are_refused_alike_over_every_transport() {
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let server = issuer.server().await;
    let mut answers = std::collections::BTreeSet::new();
    for via in Via::ALL {
        for (why, token) in bad_tokens(&issuer) {
            let mut connection = server.connect(via, "demo").await;
            say(&mut connection, &join(&token)).await;
            let closed = next(&mut connection).await;
            assert_eq!((&closed["type"], &closed["code"]), (&json!("closed"), &json!("unauthorized")), "{why}");
            answers.insert(closed["message"].to_string());
        }
        let mut connection = server.connect(via, "demo").await;
        say(&mut connection, &json!({"type": "join"})).await;
        let closed = next(&mut connection).await;
        assert_eq!((&closed["code"], &closed["closeCode"]), (&json!("unauthorized"), &json!(4501)), "{closed}");
        answers.insert(closed["message"].to_string());
    }
    assert_eq!(answers.len(), 1, "the texts differ: {answers:?}");
    server.stop().await;
}

#[tokio::test]
async fn bad_tokens_in_the_request_are_refused_by_status() {
    let issuer = Issuer::generate(Algorithm::Es256);
    let server = issuer.server().await;
    for via in [Via::WebTransport, Via::WebSocketH2, Via::WebSocketH1] {
        for authorization in ["Bearer nonsense".to_owned(), "Basic YTpi".to_owned(), "Bearer ".to_owned()] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(&authorization).expect("text"))]);
            match server.try_connect(via, "demo", &headers).await {
                Err(Error::Refused(response)) => assert_eq!(response.status(), 401, "{authorization}"),
                Err(error) => panic!("{error}"),
                Ok(_) => panic!("{authorization} opened a session over {}", via.name()),
            }
        }
        let bearer = format!("Bearer {}", issuer.token(&json!({"sub": "alice"})));
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(bearer).expect("text"))]);
        let mut connection = server.try_connect(via, "demo", &headers).await.expect("opens");
        say(&mut connection, &json!({"type": "join"})).await;
        assert_eq!(next(&mut connection).await["self"]["user"], "alice");
    }
    server.stop().await;
}

#[tokio::test]
async fn each_algorithm_lets_in_and_the_room_hears_who_it_is() {
    let issuers = [
        Issuer::generate(Algorithm::EdDsa),
        Issuer::generate(Algorithm::Es256),
        Issuer::generate(Algorithm::Hs256),
        Issuer::new(RSA),
    ];
    for issuer in issuers {
        let server = issuer.server().await;
        let (mut alice, _) = enter(&server, Via::WebSocketH2, "demo", &issuer.token(&json!({"sub": "alice"}))).await;
        for via in Via::ALL {
            let token = issuer.token(&json!({"sub": "bob", "room": ["x", "de*"], "metadata": {"team": 7}}));
            let mut bob = server.connect(via, "demo").await;
            say(&mut bob, &json!({"type": "join", "token": token, "metadata": {"team": 1, "name": "Bob"}})).await;
            let joined = next(&mut bob).await;
            assert_eq!(joined["self"]["user"], "bob", "{joined}");
            let told = hear(&mut alice, "peerJoined").await;
            assert_eq!((&told["user"], &told["metadata"]), (&json!("bob"), &json!({"name": "Bob", "team": 7})));
        }
        drop(alice);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_token_grants_what_it_names_and_no_more() {
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let server = issuer.server().await;
    let waiting = WaitingRoom { holds: Newcomers::Off, ..WaitingRoom::default() };
    let strict = TestServer::start_with(Config { tokens: Some(issuer.policy()), waiting, ..config() }).await;
    for via in Via::ALL {
        let room = format!("grants.{}", via.name());
        let (mut other, joined) = enter(&server, Via::WebSocketH1, &room, &issuer.token(&json!({}))).await;
        let to = joined["self"]["peer"].clone();
        let requests = [
            ("publish", json!({"type": "candidate", "id": 1, "to": to, "candidate": null})),
            ("message", json!({"type": "message", "id": 2, "to": to, "data": 1})),
            ("moderate", json!({"type": "lock", "id": 3, "locked": false})),
        ];
        for granted in ["publish", "message", "moderate"] {
            let token = issuer.token(&json!({"grants": ["join", granted]}));
            let (mut peer, _) = enter(&server, via, &room, &token).await;
            for (needed, request) in &requests {
                let (code, text) = answer(&mut peer, request).await;
                let refused = json!("forbidden");
                assert_eq!(
                    code,
                    if *needed == granted { Value::Null } else { refused },
                    "{needed} by {granted}: {text}"
                );
            }
            assert_eq!(answer(&mut peer, &json!({"type": "leave", "id": 4})).await.0, Value::Null);
            hear(&mut other, "peerLeft").await;
        }
        let mut uninvited = strict.connect(via, &room).await;
        match uninvited.send(&join(&issuer.token(&json!({"grants": ["publish"]}))).to_string()).await {
            Ok(()) => assert_eq!(next(&mut uninvited).await["code"], "forbidden"),
            Err(Error::Refused(response)) => assert_eq!(response.status(), 403),
            Err(error) => panic!("{error}"),
        }
    }
    strict.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_tokens_limits_are_told_and_kept() {
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let server = issuer.server().await;
    let token = issuer.token(&json!({"limits": {"dataBytes": 5, "metadataBytes": 20, "peers": 1, "queueBytes": 1}}));
    let (mut peer, joined) = enter(&server, Via::WebTransport, "narrow", &token).await;
    let limits = &joined["limits"];
    assert_eq!((&limits["dataBytes"], &limits["queueBytes"]), (&json!(5), &json!(1024 * 1024)));
    let (code, _) = answer(&mut peer, &json!({"type": "message", "id": 1, "data": "abc"})).await;
    assert_eq!(code, Value::Null);
    let (code, _) = answer(&mut peer, &json!({"type": "message", "id": 2, "data": "abcd"})).await;
    assert_eq!(code, "tooLarge");
    let mut second = server.connect(Via::WebTransport, "narrow").await;
    say(&mut second, &join(&token)).await;
    assert_eq!(next(&mut second).await["code"], "roomFull");
    let mut talkative = server.connect(Via::WebTransport, "other").await;
    let metadata = json!({"name": "much too long for it"});
    say(&mut talkative, &json!({"type": "join", "token": token, "metadata": metadata})).await;
    assert_eq!(next(&mut talkative).await["code"], "tooLarge");
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn a_token_ends_with_a_warning_and_its_seat_is_resumed_with_a_new_one() {
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let server = issuer.server().await;
    let tests = Via::ALL.map(|via| {
        let (issuer, server) = (&issuer, &server);
        async move {
            let room = format!("ends.{}", via.name());
            let (mut witness, _) = enter(server, Via::WebSocketH1, &room, &issuer.token(&json!({}))).await;
            let token = issuer.token(&json!({"sub": "bob", "exp": seconds() + 3}));
            let (mut bob, joined) = enter(server, via, &room, &token).await;
            let expiring = hear(&mut bob, "tokenExpiring").await;
            assert!(expiring["expireMs"].as_u64().is_some_and(|ms| ms <= 2000), "{expiring}");
            let mut ticket = joined["ticket"].clone();
            let closed = loop {
                let message = next(&mut bob).await;
                if let Some(newer) = message.get("ticket") {
                    ticket = newer.clone();
                }
                if message["type"] == "closed" {
                    break message;
                }
            };
            assert_eq!((&closed["code"], &closed["closeCode"]), (&json!("tokenExpired"), &json!(4502)));
            let resume = |token: Option<String>| json!({"type": "resume", "ticket": ticket, "seq": 1, "token": token});
            // Via a lasting transport: a poll's own client hides the ticket that it holds.
            let lasting = if via.is_long_poll() { return } else { via };
            for (token, code) in [
                (None, "tokenExpired"),
                (Some(issuer.token(&json!({"sub": "mallory"}))), "unauthorized"),
                (Some("nonsense".to_owned()), "unauthorized"),
            ] {
                let mut message = resume(token);
                if message["token"].is_null() {
                    message.as_object_mut().expect("an object").remove("token");
                }
                let mut again = server.connect(lasting, &room).await;
                say(&mut again, &message).await;
                assert_eq!(next(&mut again).await["code"], code);
            }
            let mut again = server.connect(lasting, &room).await;
            say(&mut again, &resume(Some(issuer.token(&json!({"sub": "bob"}))))).await;
            assert_eq!(next(&mut again).await["type"], "resumed");
            let away_and_back = [hear(&mut witness, "peerAway").await, hear(&mut witness, "peerBack").await];
            assert_eq!(away_and_back[0]["peer"], away_and_back[1]["peer"]);
        }
    });
    futures_util::future::join_all(tests).await;
    server.stop().await;
}

#[tokio::test]
async fn a_live_session_renews_its_token() {
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let server = issuer.server().await;
    futures_util::future::join_all(Via::ALL.map(|via| renews(&issuer, &server, via))).await;
    server.stop().await;
}

async fn renews(issuer: &Issuer, server: &TestServer, via: Via) {
    let token = issuer.token(&json!({"sub": "bob", "exp": seconds() + 3, "grants": ["join"]}));
    let (mut bob, _) = enter(server, via, "renew", &token).await;
    let message = |id: u64| json!({"type": "message", "id": id, "data": 1});
    let renewal = |id: u64, token: String| json!({"type": "token", "id": id, "token": token});
    assert_eq!(answer(&mut bob, &message(1)).await.0, "forbidden");
    let other = issuer.token(&json!({"sub": "mallory"}));
    assert_eq!(answer(&mut bob, &renewal(2, other)).await.0, "unauthorized");
    let newer = issuer.token(&json!({"sub": "bob", "exp": seconds() + 8}));
    assert_eq!(answer(&mut bob, &renewal(3, newer)).await, (Value::Null, Value::Null));
    assert_eq!(answer(&mut bob, &message(4)).await.0, Value::Null);
    // The first token's end passes without a word of it; the warning is the newer one's.
    let expiring = hear(&mut bob, "tokenExpiring").await;
    assert!(expiring["expireMs"].as_u64().is_some_and(|ms| ms > 2000), "{expiring}");
}

#[tokio::test]
async fn a_moderator_locks_and_kicks() {
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let server = issuer.server().await;
    for via in Via::ALL {
        let room = format!("moderated.{}", via.name());
        let moderator = issuer.token(&json!({"grants": ["join", "moderate"]}));
        let (mut alice, _) = enter(&server, Via::WebSocketH2, &room, &moderator).await;
        let (mut bob, joined) = enter(&server, via, &room, &issuer.token(&json!({}))).await;
        let (bob_id, ticket) = (joined["self"]["peer"].clone(), joined["ticket"].clone());

        say(&mut alice, &json!({"type": "lock", "id": 1, "locked": true})).await;
        assert_eq!(hear(&mut alice, "roomUpdated").await["locked"], true);
        let told = hear(&mut bob, "roomUpdated").await;
        assert_eq!((&told["locked"], &told["revision"]), (&json!(true), &json!(3)));
        let mut late = server.connect(via, &room).await;
        say(&mut late, &join(&issuer.token(&json!({})))).await;
        assert_eq!(next(&mut late).await["code"], "roomLocked");

        let (code, _) = answer(&mut alice, &json!({"type": "kick", "id": 2, "peer": "nobody"})).await;
        assert_eq!(code, "peerGone");
        let kick = json!({"type": "kick", "id": 3, "peer": bob_id, "reason": "too loud"});
        assert_eq!(answer(&mut alice, &kick).await.0, Value::Null);
        let closed = hear(&mut bob, "closed").await;
        if via.is_long_poll() {
            // Between two polls there is nobody to tell; the next one finds no seat.
            assert!(closed["code"] == "kicked" || closed["code"] == "resumeExpired", "{closed}");
        } else {
            assert_eq!((&closed["code"], &closed["closeCode"]), (&json!("kicked"), &json!(4511)));
            assert_eq!(closed["message"], "a moderator removed this peer: too loud");
        }
        let mut again = server.connect(Via::WebSocketH1, &room).await;
        say(&mut again, &json!({"type": "resume", "ticket": ticket, "seq": 0})).await;
        assert_eq!(next(&mut again).await["code"], "resumeExpired");
    }
    server.stop().await;
}

/// A web server that answers with whatever it is told to, over TLS with the development CA's certificate.
struct WebServer {
    url: String,
    ca: std::path::PathBuf,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl WebServer {
    async fn start(dir: &std::path::Path) -> Self {
        use wigwag::config::{CertificateSource, Protocols};
        let source = CertificateSource::Development { dir: dir.to_owned(), names: vec![] };
        let (certificates, _) =
            wigwag::tls::Certificates::load(&source, Protocols { h3: false, h2: false, tls12: false })
                .expect("certificates");
        let tls = TlsAcceptor::from(Arc::clone(&certificates.tcp().borrow()));
        let ca = certificates.ca_path().expect("a CA").to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://localhost:{}/jwks.json", listener.local_addr().expect("bound").port());
        let answer = Arc::new(Mutex::new(String::new()));
        let asked = Arc::new(AtomicUsize::new(0));
        let (told, count) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut stream) = tls.accept(tcp).await else { continue };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                count.fetch_add(1, Ordering::Relaxed);
                let text = told.lock().clone();
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        WebServer { url, ca, answer, asked }
    }

    fn serve(&self, body: &str) {
        *self.answer.lock() = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    }

    fn policy(&self, private: bool) -> Policy {
        let reach = Reach { ca: Some(self.ca.clone()), private };
        let keys = KeySource::Url { url: self.url.parse().expect("a URL"), reach };
        Policy { keys, issuer: None, audience: None, invite_key: None }
    }
}

#[tokio::test]
async fn keys_at_a_url_rotate_without_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let web = WebServer::start(dir.path()).await;
    let (old, new) = (Issuer::generate(Algorithm::EdDsa), Issuer::generate(Algorithm::Es256));
    web.serve(&old.signer.public);
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&told);
    let verifier = Verifier::load(web.policy(true), &Limits::default()).await.expect("keys");
    let verifier = verifier.telling(move |read| hears.lock().push(read));
    let room = RoomName::parse("demo").expect("a name");
    let good = |token: String| {
        let (verifier, room) = (&verifier, &room);
        async move { verifier.verify(Some(&Token::new(token)), room).await.is_ok() }
    };
    assert!(good(old.token(&json!({}))).await);
    web.serve(&new.signer.public);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    // An unknown kid has the keys read again, once for all who wait.
    let before = web.asked.load(Ordering::Relaxed);
    let both = futures_util::future::join(good(new.token(&json!({}))), good(new.token(&json!({})))).await;
    assert_eq!(both, (true, true));
    assert_eq!(web.asked.load(Ordering::Relaxed), before + 1);
    assert!(!good(old.token(&json!({}))).await, "a key that is no longer published is no longer good");
    // Strangers' tokens do not make the server ask again and again.
    for _ in 0..10 {
        assert!(!good(Issuer::generate(Algorithm::EdDsa).token(&json!({}))).await);
    }
    assert_eq!(web.asked.load(Ordering::Relaxed), before + 1);
    assert_eq!(*told.lock(), [true], "what a token has caused is counted, too");
    web.serve("spoilt");
    verifier.read_again().await.expect_err("no keys");
    assert_eq!(*told.lock(), [true, false]);
}

#[tokio::test]
async fn keys_are_fetched_from_where_the_operator_said_and_nowhere_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let web = WebServer::start(dir.path()).await;
    web.serve(&Issuer::generate(Algorithm::EdDsa).signer.public);
    let refused = |policy: Policy| async move {
        Verifier::load(policy, &Limits::default()).await.expect_err("refused").to_string()
    };
    let error = refused(web.policy(false)).await;
    assert!(error.contains("not a public one; --token-keys-private allows that"), "{error}");
    *web.answer.lock() = "HTTP/1.1 302 Found\r\nlocation: https://localhost/\r\ncontent-length: 0\r\n\r\n".to_owned();
    let error = refused(web.policy(true)).await;
    assert!(error.contains("302 Found; redirects are not followed"), "{error}");
    web.serve(&"x".repeat(300 * 1024));
    let error = refused(web.policy(true)).await;
    assert!(error.contains("over 256 KiB"), "{error}");
    web.serve(&SigningKey::generate(Algorithm::Hs256).expect("a key").public);
    let error = refused(web.policy(true)).await;
    assert!(error.contains("a secret"), "{error}");
    let untrusted = KeySource::Url { url: web.url.parse().expect("a URL"), reach: Reach { ca: None, private: true } };
    let error = refused(Policy { keys: untrusted, issuer: None, audience: None, invite_key: None }).await;
    assert!(error.contains("TLS failed"), "{error}");
}

#[tokio::test]
async fn issuer_and_audience_are_asked_for_where_the_operator_says_so() {
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let policy = Policy { issuer: Some("id".into()), audience: Some("calls".into()), ..issuer.policy() };
    let verifier = Verifier::load(policy, &Limits::default()).await.expect("keys");
    let room = RoomName::parse("demo").expect("a name");
    let good = jsonwebtoken_claims(&issuer, json!({"iss": "id", "aud": ["calls", "mail"]}));
    assert!(verifier.verify(Some(&Token::new(good)), &room).await.is_ok());
    for other in
        [json!({}), json!({"iss": "id"}), json!({"iss": "no", "aud": "calls"}), json!({"iss": "id", "aud": "mail"})]
    {
        let token = jsonwebtoken_claims(&issuer, other.clone());
        assert!(verifier.verify(Some(&Token::new(token)), &room).await.is_err(), "{other}");
    }
}

/// A token with claims that [`Claims`] does not make.
fn jsonwebtoken_claims(issuer: &Issuer, more: Value) -> String {
    let mut all = json!({"exp": seconds() + 3600, "room": "*"});
    all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    issuer.signer.sign(&all).expect("signed")
}

#[test]
fn the_end_of_a_token_is_reckoned_from_now() {
    let claims = Claims::lasting(Duration::from_secs(60), Names::One(RoomPattern("*".into())));
    assert!((seconds() + 59..=seconds() + 61).contains(&claims.exp));
}
