//! Draining under load: sessions go on over every transport until they have gone, or the time is over.

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};
use wigwag::client::{Error, Via};

use crate::limits::{Peer, close_code, next};
use crate::support::{TestServer, config, within};

/// What each peer sends to the next while the server drains.
const MESSAGES: u64 = 40;

/// Hears `goAway`, then sends and gets messages until all are answered and there, and leaves.
async fn go_on(mut peer: Peer, to: String, via: Via) {
    assert!(peer.hear("goAway").await["afterMs"].is_u64(), "{via:?}");
    let mut numbers = Vec::new();
    let mut answered = 0;
    for id in 1..=MESSAGES {
        peer.send(&json!({"type": "message", "id": id, "to": to, "data": id})).await;
    }
    while answered < MESSAGES || numbers.len() < MESSAGES as usize {
        let message = peer.next().await;
        match message["type"].as_str() {
            Some("ok") => answered += 1,
            Some("message") => numbers.extend(message["data"].as_u64()),
            Some("goAway" | "error" | "closed") => panic!("{via:?}: {message}"),
            _ => {}
        }
        if message["seq"].as_u64().is_some_and(|seq| seq % 16 == 0) {
            peer.send(&json!({"type": "ack", "seq": message["seq"]})).await;
        }
    }
    assert_eq!(numbers, (1..=MESSAGES).collect::<Vec<_>>(), "{via:?}");
    peer.send(&json!({"type": "leave"})).await;
    assert!(matches!(close_code(&mut peer.connection).await, None | Some(0 | 1000)), "{via:?}");
}

#[tokio::test]
async fn open_sessions_go_on_over_every_transport_and_the_server_ends_with_the_last() {
    let mut config = config();
    config.drain = Duration::from_secs(600);
    let mut server = TestServer::start_with(config).await;
    let mut ring = Vec::new();
    for via in [Via::ALL, Via::ALL].concat() {
        ring.push((Peer::join(&server, via, "drain").await, via));
    }
    let ids: Vec<String> = ring.iter().map(|(peer, _)| peer.id.clone()).collect();
    let ticket = ring[0].0.ticket.clone();
    server.begin_to_stop();
    within(server.context.drain.raised()).await;
    refuses_new_sessions(&server, &ticket).await;
    let going = ring.into_iter().enumerate().map(|(at, (peer, via))| {
        let to = ids[(at + 1) % ids.len()].clone();
        tokio::spawn(go_on(peer, to, via))
    });
    for gone in going.collect::<Vec<_>>() {
        within(gone).await.expect("it goes on");
    }
    // Ten minutes before its time.
    server.stop().await;
}

/// Whoever comes now, with a seat or without, is told when to come back, and everybody another time.
async fn refuses_new_sessions(server: &TestServer, ticket: &str) {
    let mut waits = Vec::new();
    let mut is_refusal = |problem: &Value| {
        assert_eq!(problem["code"], "goingAway", "{problem}");
        waits.push(problem["retryAfterMs"].as_u64().expect("when to come back"));
    };
    for via in Via::ALL {
        if via.is_event_stream() || via.is_long_poll() {
            // A seat that another transport serves cannot move here any more.
            for first in [json!({"type": "join"}), json!({"type": "resume", "ticket": ticket, "seq": 0})] {
                let mut late = server.connect(via, "drain").await;
                late.send(&first.to_string()).await.expect("answered");
                is_refusal(&next(&mut late).await);
                assert_eq!(close_code(&mut late).await, Some(4000), "{via:?}");
            }
        } else {
            match server.try_connect(via, "drain", &HeaderMap::new()).await {
                Err(Error::Refused(response)) => {
                    assert_eq!(response.status(), 503, "{via:?}");
                    is_refusal(&serde_json::from_slice(response.body()).expect("problem+json"));
                }
                Err(error) => panic!("{via:?}: {error}"),
                Ok(_) => panic!("{via:?} was let in"),
            }
        }
    }
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 1, "all would come back at once: {waits:?}");
}

#[tokio::test]
async fn who_is_still_there_when_the_time_is_over_is_closed_and_told_when_to_come_back() {
    let mut config = config();
    config.drain = Duration::from_millis(500);
    let server = TestServer::start_with(config).await;
    let mut peers = Vec::new();
    for via in Via::ALL {
        peers.push((Peer::join(&server, via, &format!("late.{}", via.name())).await, via));
    }
    let stopping = tokio::spawn(server.stop());
    let closing = peers.into_iter().map(|(mut peer, via)| {
        tokio::spawn(async move {
            let go_away = peer.hear("goAway").await;
            assert!(go_away["afterMs"].as_u64().is_some_and(|after| after <= 250), "{go_away}");
            let closed = loop {
                let message = peer.next().await;
                if message["type"] == "closed" {
                    break message;
                }
            };
            assert_eq!(closed["code"], "goingAway", "{via:?}");
            assert!(closed["retryAfterMs"].as_u64().is_some_and(|wait| wait <= 250), "{via:?}: {closed}");
            assert_eq!(close_code(&mut peer.connection).await, Some(4000), "{via:?}");
        })
    });
    for closed in closing.collect::<Vec<_>>() {
        within(closed).await.expect("it is told");
    }
    stopping.await.expect("it stops in order");
}

#[tokio::test]
async fn more_sessions_at_once_than_may_open_are_given_turns() {
    let mut config = config();
    config.connections.sessions_per_second = 2;
    let server = TestServer::start_with(config).await;
    let mut refused = Vec::new();
    for _ in 0..8 {
        match server.try_connect(Via::WebSocketH1, "storm", &HeaderMap::new()).await {
            Ok(_) => {}
            Err(Error::Refused(response)) => {
                assert_eq!(response.status(), 503);
                let seconds =
                    response.headers()["retry-after"].to_str().expect("text").parse::<u64>().expect("a number");
                let problem: Value = serde_json::from_slice(response.body()).expect("problem+json");
                let wait = problem["retryAfterMs"].as_u64().expect("a number");
                assert!(problem["code"] == "goingAway" && seconds * 1000 >= wait, "{problem}");
                refused.push(wait);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused.len() >= 2, "{refused:?}");
    server.stop().await;
}
