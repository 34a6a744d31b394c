//! Two nodes of which each takes the other one to have a seat.

use super::carry::errand;
use super::*;
use crate::cluster::moves::Move;
use crate::protocol::{Resume, Ticket};

/// Three nodes, of which the first two take one another to have the seat of this ticket, which the first has written.
async fn scene(bus: &Memory) -> ([Node; 3], Ticket) {
    let nodes = Node::three(bus).await;
    let ticket = Ticket::new(PeerId::new(uuid::Uuid::now_v7()), [7; 16]);
    for (from, to) in [(0, 1), (1, 0)] {
        let gone = Move { to: nodes[to].cluster.id(), moves: 1 };
        nodes[from].cluster.moves.remember(room(), ticket.peer, gone, crate::hub::now());
    }
    let ticket = nodes[0].cluster.seal(ticket, &room());
    (nodes, ticket)
}

/// Lets all go on that can without the clock moving, but not for ever.
async fn go_on() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

/// How many notes of a kind a node has sent.
fn sent(node: &Node, kind: &str) -> u64 {
    node.cluster.status().sent.get(kind).copied().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_note_that_a_seat_has_moved_in_a_room_that_is_not_open_is_not_answered() {
    let bus = Memory::default();
    let ([x, y, _z], ticket) = scene(&bus).await;
    let note = Note::Moved { room: room(), peer: ticket.peer, to: y.cluster.id(), moves: 1 };
    x.cluster.send(y.cluster.id(), None, note.write(), Weight::Vital).expect("the link is up");
    go_on().await;
    let answers = || [&x, &y].map(|node| sent(node, "moved") + sent(node, "gone"));
    assert_eq!(answers(), [1, 0]);
    until(|| x.cluster.status().bytes == 0).await;
    assert_eq!(answers(), [1, 0], "it has come, and nobody has said more");
}

#[tokio::test(start_paused = true)]
async fn who_is_sent_to_and_fro_for_a_seat_pauses_and_gives_up_in_the_end() {
    let bus = Memory::default();
    let ([_x, _y, z], ticket) = scene(&bus).await;
    let fetched = tokio::spawn({
        let hub = Arc::clone(&z.hub);
        async move { hub.fetch(&room(), &Resume { ticket: Some(ticket), seq: 0, token: None }, None).await }
    });
    go_on().await;
    assert_eq!(sent(&z, "take"), 2, "both were asked");
    let refused = fetched.await.expect("no panic").expect_err("nobody has it");
    assert_eq!(refused.code, Code::GoingAway);
    assert!(sent(&z, "take") > 10, "it has not given up at once");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_to_and_fro_pauses_and_is_given_up_in_the_end() {
    let bus = Memory::default();
    let ([_x, _y, z], ticket) = scene(&bus).await;
    let carried = tokio::spawn({
        let (hub, errand) = (Arc::clone(&z.hub), errand(&json!(ticket.to_text()), "a"));
        async move { hub.carry(&errand).await }
    });
    go_on().await;
    assert_eq!(sent(&z, "carry"), 2, "both were asked");
    let refused = carried.await.expect("no panic").expect_err("nobody has it");
    assert_eq!(refused.code, Code::GoingAway);
    assert!(sent(&z, "carry") > 10, "it has not given up at once");
}
