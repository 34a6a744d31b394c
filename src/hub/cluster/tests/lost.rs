//! What is said to all, does not arrive, and has to be told to be lost, although those whom it was for go from node to node.

use super::moves::{resume, scene, ticket};
use super::*;

/// How much has come from a node to another.
fn heard_of(node: &Node, other: &Node) -> u64 {
    node.hub
        .with_hall(&room(), |hall| hall.ties.as_ref().map_or(0, |ties| ties.heard_of(other.cluster.id()).number))
        .unwrap_or(0)
}

/// Whether a node is told of each change at another.
fn is_told(node: &Node, by: &Node) -> bool {
    let tie = |hall: &mut Hall| hall.tie(node.cluster.id()).is_some_and(|tie| tie.told.is_some());
    by.hub.with_hall(&room(), tie) == Some(true)
}

/// How much a member is told to have missed, when it has come back after having been asked to for that.
async fn lost(node: &Node, member: Member) -> Value {
    let ended = loop {
        match member.next().await {
            heard if heard["type"] == "ended" => break heard,
            heard => assert_ne!(heard["type"], "message"),
        }
    };
    assert!(ended["with"].as_str().is_some_and(|with| with.contains("SlowConsumer")), "{ended}");
    let ticket = member.session.seat.quietly(|seat| seat.ticket()).to_text();
    let seq = member.session.seat.quietly(|seat| seat.sent());
    drop(member);
    resume(node, &ticket, seq).await.expect("the seat is there").1["lost"].clone()
}

#[tokio::test(start_paused = true)]
async fn what_a_full_link_has_refused_is_counted_for_one_who_comes_there_later() {
    const SAID: u64 = 20;
    // The node to which it comes has a member, or one who is about to join.
    for has_member in [true, false] {
        let bus = Memory::default();
        let [x, y, z] = [(); 3].map(|()| Node::with(&bus, 20_000));
        linked(&[&x, &y, &z]).await;
        let room = room();
        let (a, (_b, joined)) = (x.member().await, y.join(Rights::MEMBER).await);
        let _entering = z.hub.enter(&room).await.expect("there may be rooms");
        let _member = if has_member { Some(z.member().await) } else { None };
        until(|| x.ties() == 2).await;
        // What is on its way to the second node gets there when the member has left it.
        part(&bus, &[[&x, &y]]);
        for id in 1..=SAID {
            a.say(&json!({"type": "message", "id": id, "data": "x".repeat(1000)}));
        }
        until(|| heard_of(&z, &x) == SAID).await;
        let (_moved, greeting) = resume(&z, ticket(&joined), 0).await.expect("the seat is there");
        assert_eq!(greeting["lost"], SAID, "with a member: {has_member}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_said_while_its_node_could_not_hear_of_one_who_came_is_told_to_be_lost() {
    let bus = Memory::default();
    let ([x, y, z], a, b, [_, of_b]) = scene(&bus).await;
    let room = room();
    let _entering = z.hub.enter(&room).await.expect("there may be rooms");
    a.say(&json!({"type": "message", "data": 1}));
    let seq = b.hear("message").await["seq"].as_u64().expect("a number");
    until(|| heard_of(&z, &x) == 1 && x.cluster.status().bytes == 0).await;
    part(&bus, &[[&x, &z]]);
    until(|| !is_told(&x, &z) && !is_told(&z, &x)).await;
    // The first node does not know that anybody is at the third; the second node gets this when nobody is there any more.
    part(&bus, &[[&x, &z], [&x, &y]]);
    a.say(&json!({"type": "message", "data": 2}));
    let (moved, _) = resume(&z, &of_b, seq).await.expect("the seat is there");
    part(&bus, &[]);
    assert_eq!(lost(&z, moved).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_to_nobody_but_one_on_its_way_is_told_to_be_lost() {
    let bus = Memory::default();
    let ([x, y, z], a, _b, [_, of_b]) = scene(&bus).await;
    part(&bus, &[[&x, &z]]);
    let (moved, _) = resume(&z, &of_b, 0).await.expect("the seat is there");
    until(|| y.hub.room_count() == 0 && x.roster().len() == 2 && !is_told(&y, &x)).await;
    a.say(&json!({"type": "message", "data": 1}));
    part(&bus, &[]);
    assert_eq!(lost(&z, moved).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_has_arrived_is_not_told_to_be_lost_with_its_acknowledgement() {
    let bus = Memory::default();
    let [x, y] = Node::pair(&bus).await;
    let (a, b) = (x.member().await, y.member().await);
    a.hear("peerJoined").await;
    until(|| x.cluster.status().bytes == 0).await;
    bus.part([[y.cluster.id(), x.cluster.id()]]);
    a.say(&json!({"type": "message", "data": 1}));
    assert_eq!(b.hear("message").await["data"], 1);
    until(|| !is_told(&y, &x)).await;
    // This one does not arrive.
    a.say(&json!({"type": "message", "data": 2}));
    bus.part([]);
    until(|| is_told(&y, &x) && is_told(&x, &y)).await;
    assert_eq!(lost(&y, b).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_node_said_before_it_was_heard_of_may_have_been_for_one_who_came_from_elsewhere() {
    let bus = Memory::default();
    let [x, y, z] = Node::three(&bus).await;
    let (_a, joined) = x.join(Rights::MEMBER).await;
    part(&bus, &[[&y, &z]]);
    let (moved, _) = resume(&y, ticket(&joined), 0).await.expect("the seat is there");
    // Three in all, of which it counts only the last as missing here: when it said the others it took the peer to be elsewhere.
    let said = Said { hall: 1, number: 3 };
    y.hub.with_hall(&room(), |hall| hall.take_in_said(z.cluster.id(), said, Missing::own(1)));
    assert_eq!(lost(&y, moved).await, 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_the_first_that_comes_is_told_to_be_lost_to_one_who_came_from_elsewhere() {
    let bus = Memory::default();
    let [x, y, z] = Node::three(&bus).await;
    let (_a, joined) = x.join(Rights::MEMBER).await;
    let say = |node: &Node, number| {
        let (said, body) = (Some(Said { hall: 1, number }), moves::message(PeerId::new(uuid::Uuid::now_v7()), number));
        node.hub.with_hall(&room(), |hall| hall.take_in_for_all(z.cluster.id(), said, Some(body)));
    };
    say(&x, 1);
    // The room is opened at the second node, and gets the fourth before the third node has told whom it has.
    part(&bus, &[[&y, &z]]);
    let (moved, _) = resume(&y, ticket(&joined), 0).await.expect("the seat is there");
    assert_eq!(moved.hear("message").await["data"], 1);
    say(&y, 4);
    assert_eq!(moved.hear("message").await["data"], 4);
    assert_eq!(lost(&y, moved).await, 2);
}
