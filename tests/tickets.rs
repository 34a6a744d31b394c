//! Tickets and join keys over every transport: what lets its holder take a seat, and what no longer does.

use serde_json::{Value, json};
use wigwag::client::{Connection, Via};

use crate::limits::{Peer, close_code, next};
use crate::support::{TestServer, config};

const KEY: &str = "00112233445566778899aabbccddeeff";

/// Somebody in the room who sees what becomes of a seat; and what it has been told waits for the seat, so that a poll is
/// answered at once.
async fn witness(server: &TestServer, seat: &Peer, room: &str) -> Peer {
    let witness = Peer::join(server, Via::WebSocketH2, room).await;
    assert_eq!(witness.roster, std::slice::from_ref(&seat.id));
    witness
}

async fn first_message(server: &TestServer, via: Via, room: &str, message: &Value) -> (Connection, Value) {
    let mut connection = server.connect(via, room).await;
    connection.send(&message.to_string()).await.expect("open");
    let answer = next(&mut connection).await;
    (connection, answer)
}

async fn resume(server: &TestServer, via: Via, room: &str, ticket: &Value) -> (Connection, Value) {
    first_message(server, via, room, &json!({"type": "resume", "ticket": ticket, "seq": 0})).await
}

async fn is_refused(server: &TestServer, via: Via, room: &str, ticket: &Value) {
    let (mut connection, closed) = resume(server, via, room, ticket).await;
    assert_eq!((&closed["type"], &closed["code"]), (&json!("closed"), &json!("resumeExpired")), "{via:?}");
    assert_eq!(close_code(&mut connection).await, Some(4020), "{via:?}");
}

fn room(name: &str, via: Via) -> String {
    format!("{name}.{}", via.name())
}

#[tokio::test]
async fn a_ticket_is_dead_when_its_successor_has_been_used() {
    let server = TestServer::start().await;
    for via in Via::ALL {
        let room = room("reuse", via);
        let seat = Peer::join(&server, via, &room).await;
        let _witness = witness(&server, &seat, &room).await;
        let first = json!(seat.ticket);
        let (_one, resumed) = resume(&server, via, &room, &first).await;
        assert_eq!(resumed["type"], "resumed", "{via:?}: {resumed}");
        let (_two, again) = resume(&server, via, &room, &resumed["ticket"]).await;
        assert_eq!(again["type"], "resumed", "{via:?}: {again}");
        is_refused(&server, via, &room, &first).await;
        // Whoever tried it has taken nothing from whoever has the seat.
        let (_three, last) = resume(&server, via, &room, &again["ticket"]).await;
        assert_eq!(last["type"], "resumed", "{via:?}: {last}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_forged_ticket_opens_nothing() {
    let server = TestServer::start().await;
    for via in Via::ALL {
        let room = room("forged", via);
        let seat = Peer::join(&server, via, &room).await;
        let mut witness = witness(&server, &seat, &room).await;
        // The same peer with another secret, something shorter, and what never was a ticket.
        let (kept, last) = seat.ticket.split_at(seat.ticket.len() - 4);
        let other = if last.starts_with('A') { "B" } else { "A" };
        for forged in [format!("{kept}{other}{}", &last[1..]), kept.to_owned(), String::new(), "AAAA".repeat(11)] {
            is_refused(&server, via, &room, &json!(forged)).await;
        }
        witness.hears_nothing().await;
        let (_connection, resumed) = resume(&server, via, &room, &json!(seat.ticket)).await;
        assert_eq!(resumed["type"], "resumed", "{via:?}: {resumed}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_ticket_is_good_in_its_own_room_only() {
    let server = TestServer::start().await;
    for via in Via::ALL {
        let peer = Peer::join(&server, via, &room("mine", via)).await;
        let other = room("yours", via);
        let mut resident = Peer::join(&server, Via::WebSocketH2, &other).await;
        is_refused(&server, via, &other, &json!(peer.ticket)).await;
        is_refused(&server, via, &room("nobody-is-here", via), &json!(peer.ticket)).await;
        resident.hears_nothing().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_ticket_expires_with_the_resume_window() {
    let mut config = config();
    config.resume_window = std::time::Duration::from_millis(100);
    let server = TestServer::start_with(config).await;
    for via in Via::ALL {
        // A poller is awaited for long; its seat is taken up by another transport, and lost on that one.
        let room = room("expired", via);
        let mut stays = Peer::join(&server, Via::WebSocketH2, &room).await;
        let goes = Peer::join(&server, via, &room).await;
        let (lasting, resumed) = resume(&server, Via::WebSocketH1, &room, &json!(goes.ticket)).await;
        drop((lasting, goes.connection));
        assert_eq!(stays.hear("peerLeft").await["reason"], "timeout", "{via:?}");
        is_refused(&server, via, &room, &resumed["ticket"]).await;
        is_refused(&server, via, &room, &json!(goes.ticket)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn an_answer_to_join_that_was_lost_costs_no_second_seat() {
    let server = TestServer::start().await;
    for via in Via::ALL {
        let room = room("lost-join", via);
        let mut witness = Peer::join(&server, Via::WebSocketH2, &room).await;
        let join = json!({"type": "join", "key": KEY});
        let mut lost = server.connect(via, &room).await;
        lost.send(&join.to_string()).await.expect("open");
        let newcomer = witness.hear("peerJoined").await["peer"].clone();
        drop(lost);
        let (connection, joined) = first_message(&server, via, &room, &join).await;
        assert_eq!((&joined["type"], &joined["self"]["peer"]), (&json!("joined"), &newcomer), "{via:?}");
        // And by another transport than the first, the second answer being lost as well.
        drop(connection);
        let (mut last, joined) = first_message(&server, Via::WebSocketH1, &room, &join).await;
        assert_eq!((&joined["self"]["peer"], &joined["lastId"]), (&newcomer, &json!(0)), "{via:?}");
        last.send(&json!({"type": "leave"}).to_string()).await.expect("open");
        loop {
            let message = witness.next().await;
            assert_ne!(message["type"], "peerJoined", "{via:?}: a second seat");
            if message["type"] == "peerLeft" {
                assert_eq!(message["peer"], newcomer, "{via:?}");
                break;
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_join_key_is_used_up_when_its_ticket_was_shown() {
    let server = TestServer::start().await;
    for via in Via::ALL {
        let room = room("used-key", via);
        let join = json!({"type": "join", "key": KEY});
        let (_first, joined) = first_message(&server, via, &room, &join).await;
        let mut witness = Peer::join(&server, Via::WebSocketH2, &room).await;
        let (_second, resumed) = resume(&server, via, &room, &joined["ticket"]).await;
        assert_eq!(resumed["type"], "resumed", "{via:?}");
        let (mut late, closed) = first_message(&server, via, &room, &join).await;
        assert_eq!(closed["code"], "replaced", "{via:?}: {closed}");
        assert_eq!(close_code(&mut late).await, Some(4510), "{via:?}");
        witness.hears_nothing_of("peerJoined").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn an_answer_to_resume_that_was_lost_does_not_cost_the_session() {
    let server = TestServer::start().await;
    for via in Via::ALL {
        let room = room("lost-resume", via);
        let seat = Peer::join(&server, via, &room).await;
        let mut witness = witness(&server, &seat, &room).await;
        let first = json!(seat.ticket);
        let mut successors = Vec::new();
        for _ in 0..3 {
            // The first two answers are read here, and lost to the client, who shows the ticket that it knows.
            let (_lost, resumed) = resume(&server, via, &room, &first).await;
            assert_eq!(resumed["type"], "resumed", "{via:?}: {resumed}");
            successors.push(resumed["ticket"].clone());
        }
        assert!(successors.iter().all(|ticket| *ticket == successors[0]), "{via:?}: {successors:?}");
        let (mut last, resumed) = resume(&server, via, &room, &successors[0]).await;
        assert_eq!(resumed["type"], "resumed", "{via:?}: {resumed}");
        witness.send(&json!({"type": "message", "to": seat.id, "data": "still there?"})).await;
        loop {
            let message = next(&mut last).await;
            if message["type"] == "message" {
                assert_eq!(message["data"], "still there?", "{via:?}");
                break;
            }
        }
    }
    server.stop().await;
}
