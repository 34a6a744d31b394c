//! The waiting room and invitations, beyond what the transcripts tell: limits, deadlines, lost answers, and what is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};
use wigwag::auth::Algorithm;
use wigwag::client::session::{Event, Options, Peer, Session};
use wigwag::client::{Connection, Endpoint, Error, Request, Via};
use wigwag::config::Config;
use wigwag::protocol::{Limits, Newcomers, RoomName, WaitingRoom};

use crate::native::{hasty, reconnecting, wait_for};
use crate::relay::Network;
use crate::support::{TestServer, config, within};
use crate::tokens::{Issuer, answer, enter, hear, join, next, say};

const KEY: &str = "00112233445566778899aabbccddeeff";

/// A server with a waiting room, and whoever signs its tokens.
struct House {
    issuer: Issuer,
    server: TestServer,
}

impl House {
    async fn open() -> Self {
        Self::with(|config| config).await
    }

    async fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let issuer = Issuer::generate(Algorithm::EdDsa);
        let config = Config { tokens: Some(issuer.policy()), ..config() };
        House { server: TestServer::start_with(change(config)).await, issuer }
    }

    fn guest(&self) -> String {
        self.issuer.token(&json!({"sub": "guest", "grants": ["message"]}))
    }

    async fn moderator(&self, room: &str) -> Connection {
        let token = self.issuer.token(&json!({"sub": "mo", "grants": ["join", "moderate"]}));
        enter(&self.server, Via::WebSocketH1, room, &token).await.0
    }

    /// A guest's join with that key; returns the first answer.
    async fn knock(&self, via: Via, room: &str, key: &str) -> (Connection, Value) {
        let mut guest = self.server.connect(via, room).await;
        say(&mut guest, &json!({"type": "join", "token": self.guest(), "key": key})).await;
        let first = next(&mut guest).await;
        (guest, first)
    }

    /// How a join is refused, by `closed` or by an HTTP status.
    async fn refusal(&self, via: Via, room: &str, message: &Value) -> Value {
        let mut guest = self.server.connect(via, room).await;
        match guest.send(&message.to_string()).await {
            Ok(()) => next(&mut guest).await["code"].clone(),
            Err(Error::Refused(response)) => {
                serde_json::from_slice::<Value>(response.body()).expect("a problem")["code"].clone()
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_join_said_again_makes_no_second_knock_over_any_transport() {
    let house = House::open().await;
    for via in Via::ALL {
        let room = format!("again.{}", via.name());
        let mut moderator = house.moderator(&room).await;
        let (first, waiting) = house.knock(via, &room, KEY).await;
        assert_eq!(waiting["type"], "waiting");
        let peer = hear(&mut moderator, "knock").await["peer"].clone();
        let (mut second, waiting) = house.knock(via, &room, KEY).await;
        assert_eq!(waiting["type"], "waiting");
        drop(first);
        say(&mut moderator, &json!({"type": "admit", "id": 1, "peer": peer})).await;
        let told = next(&mut moderator).await;
        assert_eq!((&told["type"], &told["peer"]), (&json!("peerJoined"), &peer), "nothing came between");
        assert_eq!(next(&mut second).await["self"]["peer"], peer);
    }
    house.server.stop().await;
}

#[tokio::test]
async fn whom_a_moderator_refused_hears_the_same_again_until_its_window_ends() {
    let house = House::with(|config| Config { resume_window: Duration::from_millis(300), ..config }).await;
    for via in Via::ALL {
        let room = format!("refused.{}", via.name());
        let mut moderator = house.moderator(&room).await;
        let (mut guest, _) = house.knock(via, &room, KEY).await;
        let peer = hear(&mut moderator, "knock").await["peer"].clone();
        assert_eq!(answer(&mut moderator, &json!({"type": "refuse", "id": 1, "peer": peer})).await.0, Value::Null);
        assert_eq!(next(&mut guest).await["code"], "forbidden");
        let again = json!({"type": "join", "token": house.guest(), "key": KEY});
        assert_eq!(house.refusal(via, &room, &again).await, "forbidden");
        assert_eq!(answer(&mut moderator, &json!({"type": "lock", "id": 2, "locked": false})).await.0, Value::Null);
        drop(guest);
        // Another key is another knock.
        let (_another, waiting) = house.knock(via, &room, "another 0011223344").await;
        assert_eq!(waiting["type"], "waiting");
        assert_ne!(hear(&mut moderator, "knock").await["peer"], peer);
    }
    house.server.stop().await;
}

#[tokio::test]
async fn a_knocker_that_goes_without_a_word_is_gone_when_its_window_ends_or_at_once_without_a_key() {
    let house = House::with(|config| Config { resume_window: Duration::from_millis(300), ..config }).await;
    let mut moderator = house.moderator("gone").await;
    let (keyed, _) = house.knock(Via::WebSocketH2, "gone", KEY).await;
    let peer = hear(&mut moderator, "knock").await["peer"].clone();
    drop(keyed);
    let left = hear(&mut moderator, "peerLeft").await;
    assert_eq!((&left["peer"], &left["reason"]), (&peer, &json!("timeout")));
    assert_eq!(answer(&mut moderator, &json!({"type": "admit", "id": 1, "peer": peer})).await.0, "peerGone");
    house.server.stop().await;

    // The window is half a minute here, and so no reason to be gone.
    let house = House::open().await;
    let mut moderator = house.moderator("gone").await;
    let mut keyless = house.server.connect(Via::WebTransport, "gone").await;
    say(&mut keyless, &join(&house.guest())).await;
    assert_eq!(next(&mut keyless).await["type"], "waiting");
    let peer = hear(&mut moderator, "knock").await["peer"].clone();
    drop(keyless);
    assert_eq!(hear(&mut moderator, "peerLeft").await["peer"], peer);
    let code = house.refusal(Via::LongPollH2, "gone", &join(&house.guest())).await;
    assert_eq!(code, "badRequest", "a poll cannot wait without a key");
    house.server.stop().await;
}

#[tokio::test]
async fn whom_nobody_admits_in_time_is_turned_away() {
    let waiting = WaitingRoom { time: Duration::from_millis(200), ..WaitingRoom::default() };
    let house = House::with(|config| Config { waiting, ..config }).await;
    for via in Via::ALL {
        let room = format!("late.{}", via.name());
        let mut moderator = house.moderator(&room).await;
        let (mut guest, waiting) = house.knock(via, &room, KEY).await;
        assert!(waiting["expireMs"].as_u64().is_some_and(|ms| ms <= 200), "{waiting}");
        let left = hear(&mut moderator, "peerLeft").await;
        assert_eq!(left["reason"], "timeout");
        assert_eq!(next(&mut guest).await["code"], "forbidden");
        assert_eq!(
            answer(&mut moderator, &json!({"type": "admit", "id": 1, "peer": left["peer"]})).await.0,
            "peerGone"
        );
    }
    house.server.stop().await;
}

#[tokio::test]
async fn who_waits_needs_no_moderator_and_the_next_one_hears_of_it() {
    let house = House::open().await;
    let (mut guest, waiting) = house.knock(Via::WebTransport, "empty", KEY).await;
    assert_eq!(waiting["type"], "waiting");
    let mut moderator = house.moderator("empty").await;
    let peer = hear(&mut moderator, "knock").await["peer"].clone();
    say(&mut moderator, &json!({"type": "leave"})).await;
    hear(&mut moderator, "ok").await;
    let mut another = house.moderator("empty").await;
    assert_eq!(hear(&mut another, "knock").await["peer"], peer);
    say(&mut another, &json!({"type": "admit", "peer": peer})).await;
    let joined = next(&mut guest).await;
    assert_eq!(joined["peers"].as_array().map(Vec::len), Some(1));
    house.server.stop().await;
}

#[tokio::test]
async fn a_moderator_that_gets_a_new_picture_is_told_again_who_waits() {
    let house = House::open().await;
    let token = house.issuer.token(&json!({"sub": "mo", "grants": ["join", "moderate"]}));
    let greeting = json!({"type": "join", "token": token, "key": "mo's key 001122334455"});
    let mut moderator = house.server.connect(Via::WebSocketH1, "picture").await;
    say(&mut moderator, &greeting).await;
    let joined = next(&mut moderator).await;
    let (_guest, _) = house.knock(Via::EventStreamH1, "picture", KEY).await;
    let first = hear(&mut moderator, "knock").await;
    let mut again = house.server.connect(Via::WebTransport, "picture").await;
    say(&mut again, &greeting).await;
    let picture = next(&mut again).await;
    assert_eq!(picture["self"]["peer"], joined["self"]["peer"]);
    // The first one is replayed, and is older than the picture; what is told again is newer.
    let (replayed, told) = (next(&mut again).await, next(&mut again).await);
    assert_eq!((&replayed["revision"], &told["peer"]), (&first["revision"], &first["peer"]));
    assert!(told["revision"].as_u64() > picture["room"]["revision"].as_u64(), "{told}");
    house.server.stop().await;
}

#[tokio::test]
async fn so_many_wait_and_a_full_room_admits_nobody() {
    let limits = Limits { peers: 2, ..Limits::default() };
    let waiting = WaitingRoom { peers: 1, ..WaitingRoom::default() };
    let house = House::with(|config| Config { limits, waiting, ..config }).await;
    let mut moderator = house.moderator("small").await;
    let member = enter(&house.server, Via::WebSocketH1, "small", &house.issuer.token(&json!({}))).await.0;
    let (mut guest, waiting) = house.knock(Via::WebSocketH2, "small", KEY).await;
    assert_eq!(waiting["type"], "waiting", "a full room does not keep one from waiting");
    let peer = hear(&mut moderator, "knock").await["peer"].clone();
    let more = json!({"type": "join", "token": house.guest(), "key": "one more 00112233"});
    assert_eq!(house.refusal(Via::WebTransport, "small", &more).await, "roomFull");
    assert_eq!(answer(&mut moderator, &json!({"type": "admit", "id": 1, "peer": peer})).await.0, "roomFull");
    let mut member = member;
    say(&mut member, &json!({"type": "leave"})).await;
    hear(&mut moderator, "peerLeft").await;
    assert_eq!(answer(&mut moderator, &json!({"type": "lock", "id": 2, "locked": true})).await.0, Value::Null);
    assert_eq!(answer(&mut moderator, &json!({"type": "admit", "id": 3, "peer": peer})).await.0, Value::Null);
    assert_eq!(next(&mut guest).await["type"], "joined");
    assert_eq!(house.refusal(Via::WebTransport, "small", &more).await, "roomLocked");
    house.server.stop().await;
}

#[tokio::test]
async fn one_admitted_while_it_is_away_is_told_so_and_finds_its_seat() {
    let house = House::open().await;
    let mut moderator = house.moderator("away").await;
    // A poll that is over leaves its seat between two polls, where it counts as here.
    let (guest, _) = house.knock(Via::LongPollH2, "away", KEY).await;
    let peer = hear(&mut moderator, "knock").await["peer"].clone();
    drop(guest);
    assert_eq!(answer(&mut moderator, &json!({"type": "admit", "id": 1, "peer": peer})).await.0, Value::Null);
    let (_guest, joined) = house.knock(Via::LongPollH2, "away", KEY).await;
    assert_eq!((&joined["type"], &joined["self"]["peer"]), (&json!("joined"), &peer));
    assert_eq!((&joined["lastId"], &joined["lost"]), (&json!(0), &json!(0)));
    house.server.stop().await;
}

#[tokio::test]
async fn a_better_token_spares_the_waiting_and_makes_a_moderator_who_hears_of_it() {
    let house = House::open().await;
    let member = house.issuer.token(&json!({"sub": "guest"}));
    let (mut guest, _) = house.knock(Via::WebTransport, "better", KEY).await;
    assert_eq!(answer(&mut guest, &json!({"type": "token", "id": 1, "token": house.guest()})).await.0, Value::Null);
    say(&mut guest, &json!({"type": "token", "id": 2, "token": member})).await;
    let joined = next(&mut guest).await;
    assert_eq!((&joined["type"], &joined["replayFrom"]), (&json!("joined"), &json!(2)));
    assert_eq!(next(&mut guest).await["id"], 2);

    let (_other, _) = house.knock(Via::WebSocketH1, "better", "other 001122334455").await;
    let moderates = house.issuer.token(&json!({"sub": "guest", "grants": ["moderate"]}));
    say(&mut guest, &json!({"type": "token", "id": 3, "token": moderates})).await;
    assert_eq!(next(&mut guest).await["id"], 3);
    let knock = next(&mut guest).await;
    assert_eq!(knock["type"], "knock");
    let admitted = answer(&mut guest, &json!({"type": "admit", "id": 4, "peer": knock["peer"]})).await;
    assert_eq!(admitted.0, Value::Null, "a member stays one, whatever its token says of joining");
    house.server.stop().await;
}

#[tokio::test]
async fn a_better_token_in_a_resume_makes_a_moderator_who_hears_who_waits() {
    let house = House::open().await;
    for via in Via::ALL {
        let room = format!("resumed.{}", via.name());
        let (_first, joined) = enter(&house.server, via, &room, &house.issuer.token(&json!({"sub": "mo"}))).await;
        let (_guest, _) = house.knock(Via::WebSocketH1, &room, KEY).await;
        let moderates = house.issuer.token(&json!({"sub": "mo", "grants": ["join", "moderate"]}));
        let mut again = house.server.connect(via, &room).await;
        say(&mut again, &json!({"type": "resume", "ticket": joined["ticket"], "seq": 0, "token": moderates})).await;
        assert_eq!(next(&mut again).await["type"], "resumed", "over {}", via.name());
        hear(&mut again, "knock").await;
    }
    house.server.stop().await;
}

#[tokio::test]
async fn everyone_but_moderators_waits_where_the_operator_wants_that() {
    let waiting = WaitingRoom { holds: Newcomers::Everyone, ..WaitingRoom::default() };
    let house = House::with(|config| Config { waiting, ..config }).await;
    let mut moderator = house.moderator("everyone").await;
    let mut member = house.server.connect(Via::EventStreamH1, "everyone").await;
    say(&mut member, &json!({"type": "join", "token": house.issuer.token(&json!({})), "key": KEY})).await;
    assert_eq!(next(&mut member).await["type"], "waiting");
    // What an event stream has to say goes with the join, as there is no ticket yet.
    say(&mut member, &json!({"type": "leave", "id": 1})).await;
    assert_eq!(hear(&mut moderator, "peerLeft").await["reason"], "left");
    house.server.stop().await;
}

#[tokio::test]
async fn an_invitation_counts_seats_and_neither_retries_nor_resumes() {
    let house = House::open().await;
    let token = house.issuer.token(&json!({"jti": "party", "uses": 2}));
    let with_key = json!({"type": "join", "token": token, "key": KEY});
    let mut first = house.server.connect(Via::WebSocketH1, "party").await;
    say(&mut first, &with_key).await;
    assert_eq!(next(&mut first).await["type"], "joined");
    let mut retry = house.server.connect(Via::WebTransport, "party").await;
    say(&mut retry, &with_key).await;
    let joined = next(&mut retry).await;
    let mut resumed = house.server.connect(Via::WebSocketH2, "party").await;
    say(&mut resumed, &json!({"type": "resume", "ticket": joined["ticket"], "seq": 0, "token": token})).await;
    assert_eq!(next(&mut resumed).await["type"], "resumed");
    let too_much = json!({"type": "join", "token": token, "metadata": {"name": "x".repeat(5000)}});
    assert_eq!(house.refusal(Via::WebSocketH1, "party", &too_much).await, "tooLarge");
    let (mut second, _) = enter(&house.server, Via::EventStreamH1, "other-room", &token).await;
    say(&mut second, &json!({"type": "leave"})).await;
    hear(&mut second, "ok").await;
    for via in Via::ALL {
        assert_eq!(house.refusal(via, "party", &join(&token)).await, "forbidden", "seats are counted, not places");
    }
    // Without an id there is nothing to count by.
    for claims in [json!({"uses": 2}), json!({"jti": "", "uses": 2}), json!({"jti": "a", "uses": 0})] {
        let uncountable = house.issuer.token(&claims);
        assert_eq!(house.refusal(Via::WebSocketH1, "party", &join(&uncountable)).await, "unauthorized");
    }
    house.server.stop().await;
}

#[tokio::test]
async fn two_who_come_at_once_do_not_both_take_the_last_seat() {
    let house = House::open().await;
    let token = house.issuer.token(&json!({"jti": "race", "uses": 1}));
    let comers = (0..8).map(|number| {
        let (house, token) = (&house, &token);
        async move {
            let mut comer = house.server.connect(Via::WebTransport, &format!("race-{number}")).await;
            say(&mut comer, &join(token)).await;
            next(&mut comer).await["type"] == "joined"
        }
    });
    let let_in = within(futures_util::future::join_all(comers)).await;
    assert_eq!(let_in.into_iter().filter(|let_in| *let_in).count(), 1);
    house.server.stop().await;
}

#[tokio::test]
async fn a_server_without_a_key_makes_no_invitations_and_one_with_a_strange_key_does_not_start() {
    let (issuer, stranger) = (Issuer::generate(Algorithm::Es256), Issuer::generate(Algorithm::Es256));
    let without = wigwag::auth::Policy { invite_key: None, ..issuer.policy() };
    let server = TestServer::start_with(Config { tokens: Some(without), ..config() }).await;
    let token = issuer.token(&json!({"grants": ["join", "publish", "message", "moderate"]}));
    let (mut moderator, _) = enter(&server, Via::WebSocketH1, "plain", &token).await;
    assert_eq!(answer(&mut moderator, &json!({"type": "invite", "id": 1})).await.0, "notFound");
    server.stop().await;

    let strange = wigwag::auth::Policy { invite_key: stranger.policy().invite_key, ..issuer.policy() };
    let refused = wigwag::server::Server::load(Config { tokens: Some(strange), ..config() }).await;
    let Err(error) = refused else { panic!("its tokens would let nobody in") };
    let error = error.to_string();
    assert!(error.contains("--invite-key") && error.contains("--token-keys"), "{error}");
}

#[tokio::test]
async fn an_invitation_is_for_its_room_and_names_what_the_server_asks_for() {
    let issuer = Issuer::generate(Algorithm::Hs256);
    let policy = wigwag::auth::Policy { issuer: Some("id".into()), audience: Some("calls".into()), ..issuer.policy() };
    let server = TestServer::start_with(Config { tokens: Some(policy), ..config() }).await;
    let claims = json!({"exp": crate::tokens::seconds() + 60, "room": "*", "iss": "id", "aud": "calls",
        "grants": ["join", "publish", "message", "moderate"]});
    let token = issuer.sign(&claims);
    let (mut moderator, _) = enter(&server, Via::WebTransport, "here", &token).await;
    say(&mut moderator, &json!({"type": "invite", "id": 1, "uses": 2})).await;
    let invited = next(&mut moderator).await;
    assert_eq!((&invited["id"], &invited["expireMs"]), (&json!(1), &json!(3_600_000)));
    let invitation = invited["token"].as_str().expect("a token");
    enter(&server, Via::LongPollH2, "here", invitation).await;
    let mut elsewhere = server.try_connect(Via::WebSocketH1, "there", &HeaderMap::new()).await.expect("open");
    say(&mut elsewhere, &join(invitation)).await;
    assert_eq!(next(&mut elsewhere).await["code"], "unauthorized");
    server.stop().await;
}

/// Options of a native session that comes by `discovery`.
fn options(house: &House, discovery: &Endpoint, room: &str, token: String) -> Options {
    let room = RoomName::parse(room).expect("a name");
    Options { timing: hasty(), ..Options::at(discovery.clone(), room, house.server.trust.clone()) }.token(token)
}

async fn moderating(house: &House, room: &str) -> Session {
    let token = house.issuer.token(&json!({"sub": "mo", "grants": ["join", "message", "moderate"]}));
    crate::native::join(options(house, &house.server.secure(), room, token)).await.0
}

async fn knocked(session: &mut Session) -> Peer {
    wait_for(session, |event| match event {
        Event::Knock(peer) => Some(peer),
        _ => None,
    })
    .await
}

async fn ask(session: &Session, request: &Value) {
    let request = Request::from_json(&request.to_string()).expect("a request");
    within(session.send(request).await.expect("open")).await.expect("accepted");
}

#[tokio::test]
async fn a_native_session_that_waits_survives_the_loss_of_its_transport_and_says_then_what_it_was_asked() {
    let house = House::with(|config| Config { heartbeat: Duration::from_millis(200), ..config }).await;
    for via in [Via::WebTransport, Via::WebSocketH2, Via::EventStreamH1, Via::LongPollH1] {
        let network = Network::to(&house.server).await;
        let mut moderator = moderating(&house, via.name()).await;
        let comes = options(&house, &network.discovery, via.name(), house.guest()).transports([via]);
        let mut guest = within(Session::connect(comes)).await.expect("it waits");
        assert!(matches!(guest.next().await, Some(Event::Waiting)));
        let hello = guest.send(Request::broadcast("hello").expect("JSON")).await.expect("open");
        let peer = knocked(&mut moderator).await;
        network.kill(via);
        reconnecting(&mut guest).await;
        network.heal();
        wait_for(&mut guest, |event| matches!(event, Event::Waiting).then_some(())).await;
        let renews = Request::token(&house.guest()).expect("JSON");
        let renewed = guest.send(renews).await.expect("open");
        ask(&moderator, &json!({"type": "admit", "peer": peer.peer})).await;
        let joined = wait_for(&mut guest, |event| match event {
            Event::Joined(joined) => Some(joined),
            _ => None,
        })
        .await;
        assert_eq!(joined.own.peer, peer.peer);
        within(hello).await.expect("it was kept until then");
        within(renewed).await.expect("and is answered once");
        let heard = wait_for(&mut moderator, |event| match event {
            Event::Knock(_) => panic!("a second knock over {}", via.name()),
            Event::Message { data, .. } => Some(data.read::<String>().expect("text")),
            _ => None,
        });
        assert_eq!(heard.await, "hello");
        within(guest.leave()).await;
        within(moderator.leave()).await;
    }
    house.server.stop().await;
}

#[tokio::test]
async fn a_native_session_leaves_while_it_waits_and_is_told_when_it_is_refused() {
    let house = House::open().await;
    for via in [Via::WebTransport, Via::EventStreamH2, Via::LongPollH2] {
        let mut moderator = moderating(&house, via.name()).await;
        let comes = || options(&house, &house.server.secure(), via.name(), house.guest()).transports([via]);
        let guest = within(Session::connect(comes())).await.expect("it waits");
        let peer = knocked(&mut moderator).await;
        within(guest.leave()).await;
        let reason = wait_for(&mut moderator, |event| match event {
            Event::PeerLeft { peer: left, reason } if left == peer.peer => Some(reason),
            _ => None,
        });
        assert_eq!(reason.await, "left", "{}", via.name());

        let mut guest = within(Session::connect(comes())).await.expect("it waits");
        let peer = knocked(&mut moderator).await;
        ask(&moderator, &json!({"type": "refuse", "peer": peer.peer})).await;
        let closed = wait_for(&mut guest, |event| match event {
            Event::Closed(why) => Some(why),
            _ => None,
        });
        assert_eq!(closed.await.code, "forbidden", "{}", via.name());
        within(moderator.leave()).await;
    }
    house.server.stop().await;
}

#[tokio::test]
async fn a_native_session_gets_its_tokens_where_the_application_says() {
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let server = issuer.server().await;
    let room = RoomName::parse("renewed").expect("a name");
    let options = Options { timing: hasty(), ..Options::at(server.secure(), room, server.trust.clone()) };
    // The first ends soon, and so does the second, which is told only if it has taken the first one's place.
    let end = crate::tokens::seconds();
    let tokens = [4, 8, 3600].map(|lasts| issuer.token(&json!({"sub": "bob", "exp": end + lasts})));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let renewing = options.clone().renew_token(move || {
        let token = tokens[count.fetch_add(1, Ordering::SeqCst).min(2)].clone();
        async { Ok::<_, String>(token) }
    });
    let (mut session, _) = crate::native::join(renewing).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1, "for the first token, too");
    for _ in 0..2 {
        wait_for(&mut session, |event| match event {
            Event::TokenExpiring { .. } => Some(()),
            Event::Closed(_) | Event::Reconnecting { .. } | Event::Refused(_) => panic!("{event:?}"),
            _ => None,
        })
        .await;
    }
    let failing = options.renew_token(|| std::future::ready(Err::<String, _>("the shop is closed")));
    let refused = within(Session::connect(failing)).await.expect_err("there is no token");
    assert!(refused.message.contains("the shop is closed"), "{refused}");
    server.stop().await;
}
