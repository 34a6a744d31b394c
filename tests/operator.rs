//! What the operator is told of rooms, what it does to them, and what is kept from everybody else.

use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use wigwag::client::{Connection, Via};
use wigwag::config::Config;
use wigwag::secret::SecretSource;

use crate::cli::{Shell, contains};
use crate::metrics::{Operator, header, hear, join, observed, say};
use crate::support::{TestServer, within};

fn own() -> HeaderMap {
    header(HeaderName::from_static("wigwag-admin"), "1")
}

/// What the server answers, as JSON.
async fn told(operator: &mut Operator, path: &str) -> Value {
    let (status, _, text) = operator.get(path, &HeaderMap::new()).await;
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

/// A member of a room, by whom offers and the like are sent.
struct Peer {
    session: Connection,
    id: String,
    said: u64,
}

impl Peer {
    async fn join(server: &TestServer, via: Via, room: &str) -> Self {
        let mut session = server.connect(via, room).await;
        say(&mut session, r#"{"type":"join"}"#).await;
        let joined = hear(&mut session, "joined").await;
        Peer { session, id: joined["self"]["peer"].as_str().expect("a peer").to_owned(), said: 0 }
    }

    /// Says it, and hears the answer to it.
    async fn say(&mut self, mut message: Value) -> Value {
        self.said += 1;
        message["id"] = json!(self.said);
        self.session.send(&message.to_string()).await.expect("sent");
        loop {
            let text = within(self.session.recv()).await.expect("the session goes on");
            let wigwag::client::Event::Message(text) = text else { continue };
            let answer: Value = serde_json::from_str(&text).expect("JSON");
            if answer["id"] == self.said && (answer["type"] == "ok" || answer["type"] == "error") {
                return answer;
            }
        }
    }

    async fn describe(&mut self, to: &str, kind: &str, sdp: &str) -> Value {
        self.say(json!({"type": "description", "to": to, "description": {"type": kind, "sdp": sdp}})).await
    }

    async fn candidate(&mut self, to: &str) {
        let candidate = "candidate:1 1 udp 2130706431 192.0.2.7 5000 typ host";
        self.say(json!({"type": "candidate", "to": to, "candidate": {"candidate": candidate, "sdpMid": "0"}})).await;
    }

    async fn reach(&mut self, peer: &str, milestone: &str, candidate: &str, after_ms: u32) -> Value {
        let told = json!({"type": "milestone", "peer": peer, "milestone": milestone, "candidateType": candidate, "afterMs": after_ms});
        self.say(told).await
    }
}

const SDP: &str = "v=0\r\na=ice-pwd:not-for-operators\r\n";

/// The events of a room, each as its name, and who did it to whom, by their places in `peers`.
fn events(timeline: &Value, peers: &[&str]) -> Vec<String> {
    let place = |event: &Value, name: &str| {
        let id = event[name].as_str()?;
        peers.iter().position(|peer| *peer == id).map(|at| at.to_string())
    };
    let tell = |event: &Value| {
        let mut parts = vec![event["event"].as_str().expect("a name").to_owned()];
        parts.extend(place(event, "peer"));
        parts.extend(place(event, "to"));
        parts.extend(["outcome", "code", "reason", "count", "candidateType", "afterMs"].iter().filter_map(|name| {
            match &event[*name] {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            }
        }));
        parts.join(" ")
    };
    timeline["events"].as_array().expect("a list").iter().map(tell).collect()
}

#[tokio::test]
async fn what_happens_in_a_room_is_told_in_its_order_over_every_transport() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    for via in [Via::WebTransport, Via::WebSocketH2, Via::EventStreamH2, Via::LongPollH1] {
        let room = via.name();
        let mut alice = Peer::join(&server, via, room).await;
        let mut bob = Peer::join(&server, Via::WebSocketH1, room).await;
        let (a, b) = (alice.id.clone(), bob.id.clone());
        bob.describe(&a, "offer", SDP).await;
        for _ in 0..3 {
            bob.candidate(&a).await;
        }
        alice.describe(&b, "answer", SDP).await;
        alice.say(json!({"type": "candidate", "to": b, "candidate": null})).await;
        assert_eq!(alice.reach(&b, "failed", "srflx", 15_000).await["type"], "ok");
        assert_eq!(bob.describe(&a, "offer", "no SDP").await["code"], "invalidDescription");
        let timeline = told(&mut operator, &format!("/api/rooms/{room}/timeline")).await;
        assert_eq!(
            events(&timeline, &[&a, &b]),
            [
                "joined 0",
                "joined 1",
                "offer 1 0 delivered",
                "candidate 1 0 delivered 3",
                "answer 0 1 delivered",
                "endOfCandidates 0 1 delivered",
                "failed 0 1 srflx 15000",
                "refused 1 invalidDescription",
            ],
            "{room}"
        );
        assert_eq!(timeline["events"][0]["transport"], via.transport().name());
        assert_eq!(timeline["diagnosis"]["state"], "iceFailed", "{timeline:#}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_call_that_failed_is_explained_after_the_room_has_ended_and_then_forgotten() {
    let mut settings = observed();
    settings.resume_window = Duration::from_millis(100);
    settings.timelines.keep = Duration::from_secs(2);
    let server = TestServer::start_with(settings).await;
    let mut operator = Operator::of(&server).await;
    let alice = Peer::join(&server, Via::WebSocketH2, "failed").await;
    let mut bob = Peer::join(&server, Via::WebSocketH2, "failed").await;
    let (a, b) = (alice.id.clone(), bob.id.clone());
    bob.describe(&a, "offer", SDP).await;
    drop(alice);
    hear(&mut bob.session, "peerLeft").await;
    assert_eq!(bob.describe(&a, "offer", SDP).await["code"], "peerGone");
    bob.say(json!({"type": "leave"})).await;
    let ended = within(async {
        loop {
            let ended = told(&mut operator, "/api/ended?filter=failed").await;
            if ended["matching"] == 1 {
                break told(&mut operator, "/api/rooms/failed/timeline").await;
            }
        }
    });
    let timeline = ended.await;
    assert_eq!(
        events(&timeline, &[&a, &b]),
        [
            "joined 0",
            "joined 1",
            "offer 1 0 delivered",
            "away 0",
            "left 0 timeout",
            "offer 1 0 peerGone",
            "left 1 left",
            "ended",
        ]
    );
    assert_eq!((&timeline["open"], &timeline["diagnosis"]["state"]), (&json!(false), &json!("leftDuring")));
    within(async {
        while operator.get("/api/rooms/failed/timeline", &HeaderMap::new()).await.0 != StatusCode::NOT_FOUND {}
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn nothing_of_what_peers_say_is_recorded() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    let mut alice = Peer::join(&server, Via::WebSocketH2, "quiet").await;
    let (mut bob, ticket) = join(&server, Via::WebSocketH2, "quiet").await;
    let b = hear(&mut alice.session, "peerJoined").await["peer"].as_str().expect("a peer").to_owned();
    alice.describe(&b, "offer", SDP).await;
    alice.candidate(&b).await;
    alice.say(json!({"type": "message", "to": b, "data": "not-for-operators"})).await;
    alice.say(json!({"type": "metadata", "metadata": {"name": "not-for-operators"}})).await;
    hear(&mut bob, "message").await;
    for path in ["/api/rooms", "/api/rooms/quiet", "/api/rooms/quiet/timeline", "/api/overview"] {
        let (_, _, text) = operator.get(path, &HeaderMap::new()).await;
        for secret in ["not-for-operators", "192.0.2.7", "127.0.0.1", ticket.as_str()] {
            assert!(!text.contains(secret), "{path} tells {secret}: {text}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn whole_addresses_are_told_only_where_that_was_asked_for() {
    for (whole, expected) in [(false, Value::Null), (true, json!("127.0.0.1"))] {
        let server = TestServer::start_with(Config { admin_addresses: whole, ..observed() }).await;
        let mut operator = Operator::of(&server).await;
        let _alice = Peer::join(&server, Via::WebTransport, "here").await;
        let member = told(&mut operator, "/api/rooms/here").await["members"][0].clone();
        assert_eq!((&member["addressKind"], &member["address"]), (&json!("loopback"), &expected));
        server.stop().await;
    }
}

#[tokio::test]
async fn nothing_is_recorded_where_that_is_switched_off() {
    let mut settings = observed();
    settings.timelines.events = 0;
    let server = TestServer::start_with(settings).await;
    let mut operator = Operator::of(&server).await;
    let _alice = Peer::join(&server, Via::WebTransport, "unseen").await;
    let timeline = told(&mut operator, "/api/rooms/unseen/timeline").await;
    assert_eq!((&timeline["recorded"], &timeline["events"]), (&json!(false), &json!([])));
    server.stop().await;
}

#[tokio::test]
async fn thousands_of_rooms_are_listed_in_parts() {
    let mut settings = observed();
    settings.rooms = 10_000;
    let server = TestServer::start_with(settings).await;
    let mut operator = Operator::of(&server).await;
    let hub = &server.context.hub;
    let join = wigwag::protocol::Join { metadata: "{}".into(), key: None, token: None };
    let mut sessions = Vec::new();
    for number in 0..3000 {
        let room = wigwag::protocol::RoomName::parse(&format!("room-{number:04}")).expect("a name");
        sessions.push(hub.join(&room, &join, None, wigwag::protocol::Transport::WebTransport).expect("there is room"));
    }
    let mut seen = Vec::new();
    for offset in (0..3000).step_by(500) {
        let part = told(&mut operator, &format!("/api/rooms?limit=500&offset={offset}")).await;
        assert_eq!((&part["total"], &part["matching"]), (&json!(3000), &json!(3000)));
        seen.extend(part["rooms"].as_array().expect("a list").iter().map(|room| room["room"].to_string()));
    }
    assert_eq!(seen.len(), 3000);
    assert!(seen.is_sorted() && seen.windows(2).all(|two| two[0] != two[1]));
    let few = told(&mut operator, "/api/rooms?filter=-299&order=newest").await;
    assert_eq!((&few["matching"], &few["rooms"][0]["here"]), (&json!(10), &json!(1)));
    drop(sessions);
    server.stop().await;
}

#[tokio::test]
async fn the_operator_removes_peers_locks_and_closes_rooms() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    let mut alice = Peer::join(&server, Via::WebTransport, "ruled").await;
    let mut bob = Peer::join(&server, Via::EventStreamH2, "ruled").await;
    let mut eve = Peer::join(&server, Via::WebSocketH2, "ruled").await;
    assert_eq!(operator.post("/api/rooms/ruled/lock", &own()).await, StatusCode::NO_CONTENT);
    assert_eq!(hear(&mut alice.session, "roomUpdated").await["locked"], true);
    assert_eq!(
        operator.post(&format!("/api/rooms/ruled/peers/{}/remove", eve.id), &own()).await,
        StatusCode::NO_CONTENT
    );
    let closed = hear(&mut eve.session, "closed").await;
    assert_eq!((&closed["code"], &closed["message"]), (&json!("kicked"), &json!("the operator removed this peer")));
    assert_eq!(hear(&mut bob.session, "peerLeft").await["reason"], "kicked");
    assert_eq!(operator.post("/api/rooms/ruled/close", &own()).await, StatusCode::OK);
    for session in [&mut alice.session, &mut bob.session] {
        assert_eq!(hear(session, "closed").await["message"], "the operator closed the room");
    }
    let timeline = told(&mut operator, "/api/rooms/ruled/timeline").await;
    let events = events(&timeline, &[]);
    assert_eq!(events[3], "locked");
    assert_eq!(events[4..], ["left kicked", "left kicked", "left kicked", "ended"]);
    server.stop().await;
}

/// Without a token the listener's address is what guards it, and a browser on this machine can reach that for any page.
#[tokio::test]
async fn no_page_of_another_origin_has_the_operators_listener_tell_or_do_anything() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    let alice = Peer::join(&server, Via::WebSocketH2, "safe").await;
    let simple = header(ORIGIN, "https://evil.example");
    // What a form can send.
    for path in ["/api/rooms/safe/close", "/api/rooms/safe/lock", "/api/drain"] {
        assert_eq!(operator.post(path, &simple).await, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(
        operator.post(&format!("/api/rooms/safe/peers/{}/remove", alice.id), &simple).await,
        StatusCode::FORBIDDEN
    );
    // What a page is allowed that asks before (Fetch, 4.8): nothing, and it reads nothing either.
    let (status, headers, _) = operator.get("/api/rooms", &simple).await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{headers:?}");
    // A name that leads here today and elsewhere tomorrow.
    for host in ["evil.example", "evil.example:9433", "localhost.evil.example"] {
        let mut rebound = own();
        rebound.insert(HOST, HeaderValue::from_static(host));
        for path in ["/api/rooms", "/metrics"] {
            assert_eq!(operator.get(path, &rebound).await.0, StatusCode::FORBIDDEN, "{path} of {host}");
        }
        assert_eq!(operator.post("/api/rooms/safe/close", &rebound).await, StatusCode::FORBIDDEN, "{host}");
    }
    let room = told(&mut operator, "/api/rooms/safe").await;
    assert_eq!((&room["here"], &room["locked"]), (&json!(1), &json!(false)));
    assert!(!server.context.drain.is_raised());
    server.stop().await;
}

#[tokio::test]
async fn with_a_token_nothing_is_told_or_done_without_it() {
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "long-and-random\n").expect("written");
    let admin_token = Some(SecretSource::File(token.path().to_owned()));
    let server = TestServer::start_with(Config { admin_token, ..observed() }).await;
    let mut operator = Operator::of(&server).await;
    let _alice = Peer::join(&server, Via::WebSocketH2, "safe").await;
    for shown in [own(), header(AUTHORIZATION, "Bearer long-and-rando"), HeaderMap::new()] {
        for path in ["/api/rooms", "/api/rooms/safe/timeline", "/api/overview", "/api/live"] {
            assert_eq!(operator.get(path, &shown).await.0, StatusCode::UNAUTHORIZED, "{path}");
        }
        assert_eq!(operator.post("/api/rooms/safe/close", &shown).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(operator.get("/admin", &HeaderMap::new()).await.0, StatusCode::OK, "the page holds nothing");
    // By a name as well, and without another header: no page of somebody else's knows the token.
    let mut shown = header(AUTHORIZATION, "Bearer long-and-random");
    shown.insert(HOST, HeaderValue::from_static("signal.example.org"));
    assert_eq!(operator.post("/api/rooms/safe/lock", &shown).await, StatusCode::NO_CONTENT);
    server.stop().await;
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere_and_is_shown_in_no_frame() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    for file in ["/admin", "/admin/main.js", "/admin/app.css"] {
        let (status, headers, text) = operator.get(file, &HeaderMap::new()).await;
        assert_eq!(status, StatusCode::OK, "{file}");
        let policy = headers["content-security-policy"].to_str().expect("text");
        contains(policy, &["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"]);
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(!text.contains("style=") && !text.contains("<script>"), "{file}");
    }
    // Those of the public page are elsewhere, and the operator's are not there.
    assert_eq!(operator.get("/admin/wigwag.js", &HeaderMap::new()).await.0, StatusCode::NOT_FOUND);
    let mut public = wigwag::client::Http1::connect(&server.plain(), &server.trust.tls).await.expect("a connection");
    let hidden =
        within(public.request(http::Method::GET, "/admin/main.js", &HeaderMap::new())).await.expect("an answer");
    assert_eq!(hidden.status(), StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn wigwag_why_explains_a_room_and_its_exit_code_says_how_it_is() {
    let server = TestServer::start_with(observed()).await;
    let shell = Shell::new();
    let admin = format!("http://{}", server.addresses.admin.expect("an admin listener"));
    let why = async |room: &str, more: &[&str]| {
        let output = shell.run(&[&["why", room, "--admin", &admin], more].concat()).await;
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8")).concat();
        (output.status.code().expect("it ends by itself"), said)
    };
    let (code, said) = why("nowhere", &[]).await;
    assert_eq!(code, 4);
    contains(&said, &["wigwag: nowhere: ", "--timeline-keep"]);
    let mut alice = Peer::join(&server, Via::WebSocketH2, "call").await;
    assert_eq!(why("call", &[]).await.0, 5);
    let mut bob = Peer::join(&server, Via::WebSocketH2, "call").await;
    let (a, b) = (alice.id.clone(), bob.id.clone());
    bob.describe(&a, "offer", SDP).await;
    let (code, said) = why("call", &[]).await;
    assert_eq!(code, 3);
    contains(&said, &["call (open): ", "which it did not answer", "offer  …", "joined  …", "websocket-h2"]);
    alice.describe(&b, "answer", SDP).await;
    alice.candidate(&b).await;
    bob.candidate(&a).await;
    let (code, said) = why("call", &["--json"]).await;
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&said).expect("JSON")["diagnosis"]["state"], "complete");
    bob.reach(&a, "connected", "relay", 420).await;
    let (code, said) = why("call", &[]).await;
    assert_eq!(code, 0);
    contains(
        &said,
        &["ICE connected between", "after 420 ms by relay", "media have not arrived", "relay  after 420 ms"],
    );
    bob.reach(&a, "failed", "relay", 60_420).await;
    assert_eq!(why("call", &[]).await.0, 3);
    contains(&shell.refused(&["why", "a b"]).await, &["a room name is"]);
    let nobody = shell.run(&["why", "call", "--admin", "http://127.0.0.1:1"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    server.stop().await;
}

#[tokio::test]
async fn wigwag_why_shows_the_token_that_the_server_asks_for() {
    let shell = Shell::new();
    let token = shell.write("token", "long-and-random\n");
    #[cfg(unix)]
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("allowed");
    let admin_token = Some(SecretSource::File(token.clone().into()));
    let server = TestServer::start_with(Config { admin_token, ..observed() }).await;
    let admin = format!("http://{}", server.addresses.admin.expect("an admin listener"));
    let _alice = Peer::join(&server, Via::WebSocketH2, "call").await;
    contains(&shell.refused(&["why", "call", "--admin", &admin]).await, &["give --admin-token"]);
    let shown = shell.run(&["why", "call", "--admin", &admin, "--admin-token", &token]).await;
    assert_eq!(shown.status.code(), Some(5), "{}", String::from_utf8_lossy(&shown.stderr));
    server.stop().await;
}
