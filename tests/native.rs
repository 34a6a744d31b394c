//! The native session over networks that fail: what its application is promised, transport by transport.

use std::time::{Duration, Instant};

use serde_json::json;
use wigwag::client::session::{Closed, Event, Joined, Options, Session, Timing};
use wigwag::client::{Endpoint, Request, Via};
use wigwag::config::Config;
use wigwag::protocol::{Limits, RoomName};

use crate::relay::{Mode, Network};
use crate::support::{TestServer, config, within};

/// Quick where the waits are not what is tested.
pub(crate) fn hasty() -> Timing {
    Timing {
        probe: Duration::from_millis(400),
        backoff_base: Duration::from_millis(20),
        backoff_cap: Duration::from_millis(200),
        young: Duration::ZERO,
        ack: Duration::from_millis(20),
        ..Timing::default()
    }
}

/// [`config`] with a server that does not wait for anybody to leave.
fn brisk() -> Config {
    Config { drain: Duration::from_millis(100), ..config() }
}

fn options(server: &TestServer, discovery: &Endpoint, room: &str) -> Options {
    let room = RoomName::parse(room).expect("a name");
    Options { timing: hasty(), ..Options::at(discovery.clone(), room, server.trust.clone()) }
}

/// A session in the room, and the picture that it begins with.
pub(crate) async fn join(options: Options) -> (Session, Joined) {
    let mut session = within(Session::connect(options)).await.expect("it joins");
    match within(session.next()).await {
        Some(Event::Joined(joined)) => (session, *joined),
        other => panic!("not joined but {other:?}"),
    }
}

/// The first event that `pick` takes; the others are dropped.
pub(crate) async fn wait_for<T>(session: &mut Session, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    within(async {
        loop {
            let event = session.next().await.expect("the session goes on");
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    })
    .await
}

pub(crate) async fn reconnecting(session: &mut Session) {
    wait_for(session, |event| matches!(event, Event::Reconnecting { .. }).then_some(())).await;
}

/// The next `count` numbers that others have sent.
pub(crate) async fn numbers(session: &mut Session, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let number = wait_for(session, |event| match event {
            Event::Message { data, .. } => Some(data.read::<u64>().expect("a number")),
            _ => None,
        });
        numbers.push(number.await);
    }
    numbers
}

/// Broadcasts numbers; returns when the server has answered all.
pub(crate) async fn say(session: &Session, numbers: impl IntoIterator<Item = u64>) {
    let mut answers = Vec::new();
    for number in numbers {
        answers.push(session.send(Request::broadcast(&number).expect("JSON")).await.expect("open"));
    }
    for answer in answers {
        within(answer).await.expect("accepted");
    }
}

#[tokio::test]
async fn over_each_transport_a_session_survives_the_loss_of_it_and_everything_arrives_once_and_in_order() {
    let server = TestServer::start_with(brisk()).await;
    for via in Via::ALL {
        let network = Network::to(&server).await;
        let room = via.name();
        let (mut alice, joined) = join(options(&server, &network.discovery, room).transports([via])).await;
        assert_eq!(joined.transport.as_deref(), Some(via.transport().name()));
        let (mut bob, _) = join(options(&server, &server.secure(), room)).await;
        say(&bob, 0..10).await;
        say(&alice, 0..10).await;
        network.kill(via);
        // Half of it is said before the loss is noticed, half of it while there is no connection.
        let sender = alice.sender();
        let mut answers = Vec::new();
        for number in 10..15 {
            answers.push(sender.send(Request::broadcast(&number).expect("JSON")).await.expect("open"));
        }
        reconnecting_after(&mut alice, 0..10).await;
        for number in 15..20 {
            answers.push(sender.send(Request::broadcast(&number).expect("JSON")).await.expect("open"));
        }
        say(&bob, 10..20).await;
        network.heal();
        for answer in answers {
            within(answer).await.expect("accepted");
        }
        assert_eq!(numbers(&mut bob, 20).await, (0..20).collect::<Vec<_>>(), "{room}");
        let mut resumed = 0;
        let mut heard = Vec::new();
        while heard.len() < 10 {
            match within(alice.next()).await.expect("the session goes on") {
                Event::Resumed { .. } => resumed += 1,
                Event::Message { data, .. } => heard.push(data.read::<u64>().expect("a number")),
                Event::Joined(_) | Event::TransportChanged { .. } | Event::Refused(_) | Event::Closed(_) => {
                    panic!("{room}: a loss that was none")
                }
                _ => {}
            }
        }
        assert_eq!((heard, resumed), ((10..20).collect(), 1), "{room}");
        within(alice.leave()).await;
        within(bob.leave()).await;
    }
    server.stop().await;
}

/// Waits for the loss to be noticed; before it exactly these numbers have come.
async fn reconnecting_after(session: &mut Session, expected: std::ops::Range<u64>) {
    let mut heard = Vec::new();
    wait_for(session, |event| match event {
        Event::Message { data, .. } => {
            heard.push(data.read::<u64>().expect("a number"));
            None
        }
        Event::Reconnecting { .. } => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(heard, expected.collect::<Vec<_>>());
}

/// What the application hears while the session moves to `transport`: numbers, and nothing of a loss.
async fn moved(session: &mut Session, expected: &str) -> (String, Vec<u64>) {
    let mut heard = Vec::new();
    let from = wait_for(session, |event| match event {
        Event::Message { data, .. } => {
            heard.push(data.read::<u64>().expect("a number"));
            None
        }
        Event::TransportChanged { from, to } => {
            assert_eq!(to, expected);
            Some(from)
        }
        Event::Joined(_) | Event::Resumed { .. } | Event::Reconnecting { .. } | Event::Closed(_) => {
            panic!("the application was told of a loss")
        }
        _ => None,
    })
    .await;
    (from, heard)
}

#[tokio::test]
async fn where_udp_is_swallowed_a_websocket_wins_and_the_session_moves_up_once_udp_is_open() {
    let server = TestServer::start_with(brisk()).await;
    let network = Network::to(&server).await;
    network.udp(Mode::Swallow);
    let timing = Timing { better: Duration::from_millis(100), better_cap: Duration::from_millis(100), ..hasty() };
    let begun = Instant::now();
    let (mut alice, joined) = join(Options { timing, ..options(&server, &network.discovery, "up") }).await;
    assert_eq!(joined.transport.as_deref(), Some("websocket-h2"));
    assert!(begun.elapsed() < Duration::from_secs(3), "WebTransport has a head start, no more");
    let (mut bob, _) = join(options(&server, &server.secure(), "up")).await;
    network.udp(Mode::Open);
    // Both go on talking while alice moves.
    let (sender, talker) = (bob.sender(), alice.sender());
    let talk = tokio::spawn(async move {
        for number in 0..200u64 {
            for sender in [&sender, &talker] {
                let answer = sender.send(Request::broadcast(&number).expect("JSON")).await.expect("open");
                answer.await.expect("accepted");
            }
        }
    });
    let (from, mut heard) = moved(&mut alice, "webtransport").await;
    assert_eq!(from, "websocket-h2");
    let rest = 200 - heard.len();
    heard.extend(numbers(&mut alice, rest).await);
    assert_eq!(heard, (0..200).collect::<Vec<_>>());
    assert_eq!(numbers(&mut bob, 200).await, heard);
    within(talk).await.expect("all was accepted");
    server.stop().await;
}

#[tokio::test]
async fn where_udp_is_blocked_in_mid_session_the_session_moves_down_within_five_seconds() {
    let server = TestServer::start_with(brisk()).await;
    let network = Network::to(&server).await;
    // The waits that everybody has.
    let patient = Options { timing: Timing::default(), ..options(&server, &network.discovery, "down") };
    let (mut alice, joined) = join(patient).await;
    assert_eq!(joined.transport.as_deref(), Some("webtransport"));
    network.udp(Mode::Swallow);
    let begun = Instant::now();
    say(&alice, [7]).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    let changed = wait_for(&mut alice, |event| match event {
        Event::TransportChanged { from, to } => Some((from, to)),
        _ => None,
    });
    assert_eq!(changed.await, ("webtransport".to_owned(), "websocket-h2".to_owned()));
    server.stop().await;
}

/// Every way in which the network changes in this test; `true`: nothing arrives until it is healed.
const WEATHER: [(Mode, Mode, bool); 8] = [
    (Mode::Open, Mode::Swallow, false),
    (Mode::Open, Mode::Open, false),
    (Mode::Refuse, Mode::Open, false),
    (Mode::Swallow, Mode::Swallow, true),
    (Mode::Refuse, Mode::Swallow, true),
    (Mode::Open, Mode::Swallow, false),
    (Mode::Swallow, Mode::Open, false),
    (Mode::Open, Mode::Open, false),
];

#[tokio::test]
async fn with_all_transports_a_session_survives_any_weather() {
    let server = TestServer::start_with(brisk()).await;
    let network = Network::to(&server).await;
    let better = Duration::from_millis(50);
    let timing = Timing { better, better_cap: better, open: Duration::from_secs(1), ..hasty() };
    let (mut alice, _) = join(Options { timing, ..options(&server, &network.discovery, "weather") }).await;
    let (mut bob, _) = join(options(&server, &server.secure(), "weather")).await;
    for (round, (tcp, udp, dark)) in (0..).zip(WEATHER) {
        network.tcp(tcp);
        network.udp(udp);
        network.cut();
        let said = (round * 10)..(round * 10 + 10);
        let sender = alice.sender();
        let mut answers = Vec::new();
        for number in said.clone() {
            answers.push(sender.send(Request::broadcast(&number).expect("JSON")).await.expect("open"));
        }
        say(&bob, said.clone()).await;
        if dark {
            reconnecting(&mut alice).await;
            network.heal();
        }
        for answer in answers {
            within(answer).await.expect("accepted");
        }
        assert_eq!(numbers(&mut bob, 10).await, said.collect::<Vec<_>>(), "round {round}");
    }
    within(alice.leave()).await;
    let mut heard = Vec::new();
    while let Some(event) = within(alice.next()).await {
        match event {
            Event::Message { data, .. } => heard.push(data.read::<u64>().expect("a number")),
            Event::Joined(_) => panic!("a seat was lost"),
            _ => {}
        }
    }
    // Those that came before a loss was noticed are not in here; none came twice or out of order.
    assert!(heard.is_sorted_by(|a, b| a < b), "{heard:?}");
    assert_eq!(heard.last(), Some(&79));
    server.stop().await;
}

#[tokio::test]
async fn after_the_window_a_session_joins_anew_and_its_requests_are_told() {
    let server = TestServer::start_with(Config { resume_window: Duration::from_millis(300), ..brisk() }).await;
    let network = Network::to(&server).await;
    let by_tcp = [Via::WebSocketH2];
    let (mut alice, first) = join(options(&server, &network.discovery, "anew").transports(by_tcp)).await;
    let (mut bob, _) = join(options(&server, &server.secure(), "anew")).await;
    network.kill(Via::WebSocketH2);
    reconnecting(&mut alice).await;
    let answer = alice.send(Request::broadcast(&1).expect("JSON")).await.expect("open");
    let left = wait_for(&mut bob, |event| match event {
        Event::PeerLeft { peer, reason } => Some((peer, reason)),
        _ => None,
    });
    assert_eq!(left.await, (first.own.peer.clone(), "timeout".to_owned()));
    network.heal();
    let second = wait_for(&mut alice, |event| match event {
        Event::Joined(joined) => Some(joined),
        _ => None,
    });
    let second = second.await;
    assert_ne!(second.own.peer, first.own.peer);
    assert_eq!(within(answer).await.expect_err("nobody can tell").code, "resumeExpired");
    // The pair is a new one: bob is told to have left and to be there.
    wait_for(&mut alice, |event| matches!(event, Event::PeerJoined(_)).then_some(())).await;
    assert_eq!(alice.roster().peers().len(), 1);
    say(&alice, [2]).await;
    assert_eq!(numbers(&mut bob, 1).await, [2]);
    server.stop().await;
}

#[tokio::test]
async fn what_could_not_be_kept_is_told_as_lost() {
    let limits = Limits { queue_messages: 4, ..Limits::default() };
    let server = TestServer::start_with(Config { limits, ..brisk() }).await;
    let network = Network::to(&server).await;
    let (mut alice, first) = join(options(&server, &network.discovery, "lost").transports([Via::WebSocketH1])).await;
    let (mut bob, _) = join(options(&server, &server.secure(), "lost")).await;
    wait_for(&mut alice, |event| matches!(event, Event::PeerJoined(_)).then_some(())).await;
    network.kill(Via::WebSocketH1);
    wait_for(&mut bob, |event| matches!(event, Event::PeerAway { .. }).then_some(())).await;
    say(&bob, 0..20).await;
    network.heal();
    let again = wait_for(&mut alice, |event| match event {
        Event::Joined(joined) => Some(joined),
        _ => None,
    });
    let again = again.await;
    assert_eq!(again.own.peer, first.own.peer, "the seat is the same");
    let lost = again.lost.expect("it is told") as usize;
    assert!((1..20).contains(&lost));
    assert_eq!(numbers(&mut alice, 20 - lost).await, (0..20 - lost as u64).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test]
async fn replaced_by_somebody_else_is_the_end() {
    let server = TestServer::start_with(brisk()).await;
    let network = Network::in_plain_text(&server).await;
    let (mut alice, _) = join(options(&server, &network.discovery, "thief").transports([Via::WebSocketH1])).await;
    let overheard = network.overheard();
    let (_, rest) = overheard.split_once(r#""ticket":""#).expect("it was told in plain text");
    let ticket = rest.split('"').next().expect("a ticket");
    let mut thief = server.connect(Via::WebSocketH1, "thief").await;
    let resume = json!({"type": "resume", "ticket": ticket, "seq": 0});
    within(thief.send(&resume.to_string())).await.expect("sent");
    let closed = wait_for(&mut alice, |event| match event {
        Event::Closed(why) => Some(why),
        Event::Reconnecting { .. } => panic!("it must not fight for the seat"),
        _ => None,
    });
    assert_eq!(closed.await.close_code, Some(4510));
    assert!(within(alice.next()).await.is_none());
    assert!(alice.send(Request::ice_servers()).await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn a_refusal_is_one_clear_error_over_every_transport() {
    let limits = Limits { peers: 1, ..Limits::default() };
    let server = TestServer::start_with(Config { limits, ..brisk() }).await;
    let (alice, _) = join(options(&server, &server.secure(), "full")).await;
    for via in Via::ALL {
        let refused = within(Session::connect(options(&server, &server.secure(), "full").transports([via]))).await;
        let Closed { code, close_code, .. } = refused.expect_err("there is no place");
        assert_eq!((code.as_str(), close_code), ("roomFull", Some(4011)), "{}", via.name());
    }
    let trust = server.trust.clone();
    let bad =
        Options::new(&"https://127.0.0.1:1".parse().expect("a URL"), "no room", trust.clone()).expect_err("a space");
    assert!(bad.to_string().contains("no room"), "{bad}");
    let nobody = Options::new(&"https://127.0.0.1:1".parse().expect("a URL"), "room", trust).expect("well-formed");
    let unreachable = within(Session::connect(nobody)).await.expect_err("nobody is there");
    assert_eq!((unreachable.code.as_str(), unreachable.close_code), ("unreachable", None));
    drop(alice);
    server.stop().await;
}

#[tokio::test]
async fn leaving_is_told_over_every_transport() {
    let server = TestServer::start_with(brisk()).await;
    for via in Via::ALL {
        let (mut bob, _) = join(options(&server, &server.secure(), "leave")).await;
        let (mut alice, joined) = join(options(&server, &server.secure(), "leave").transports([via])).await;
        wait_for(&mut bob, |event| matches!(event, Event::PeerJoined(_)).then_some(())).await;
        within(alice.leave()).await;
        let left = wait_for(&mut bob, |event| match event {
            Event::PeerLeft { peer, reason } => Some((peer, reason)),
            _ => None,
        });
        assert_eq!(left.await, (joined.own.peer, "left".to_owned()), "{}", via.name());
        let closed = wait_for(&mut alice, |event| match event {
            Event::Closed(why) => Some(why.code),
            _ => None,
        });
        assert_eq!(closed.await, "left");
        within(bob.leave()).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_refused_request_is_told_to_who_made_it_and_an_ephemeral_message_is_not_answered() {
    let server = TestServer::start_with(brisk()).await;
    let (mut alice, _) = join(options(&server, &server.secure(), "answers")).await;
    let (bob, own) = join(options(&server, &server.secure(), "answers")).await;
    let nobody = alice.send(Request::message("nobody", &1).expect("JSON")).await.expect("open");
    assert_eq!(within(nobody).await.expect_err("refused").code, "peerGone");
    let huge = bob.send(Request::broadcast(&"x".repeat(200_000)).expect("JSON")).await.expect("open");
    assert_eq!(within(huge).await.expect_err("refused").code, "tooLarge");
    let passing = bob.send(Request::broadcast(&5).expect("JSON").ephemeral()).await.expect("open");
    within(passing).await.expect("sent");
    assert_eq!(numbers(&mut alice, 1).await, [5]);
    drop(alice.send(Request::message("nobody", &1).expect("JSON")).await.expect("open"));
    let refused = wait_for(&mut alice, |event| match event {
        Event::Refused(why) => Some(why.code),
        _ => None,
    });
    assert_eq!(refused.await, "peerGone");
    assert!(alice.ping().await.expect("open") < Duration::from_secs(5));
    assert!(alice.roster().peers().contains_key(&own.own.peer));
    server.stop().await;
}
