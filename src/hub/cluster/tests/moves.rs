//! Sessions that are resumed at another node than that at which they were.

use super::*;
use crate::protocol::{Metadata, Outbound, PayloadKind, Resume, Ticket};

/// Takes a seat up at a node.
pub(super) async fn resume(node: &Node, ticket: &str, seq: u64) -> Result<(Member, Value), Refusal> {
    let resume = Resume { ticket: Ticket::parse(ticket), seq, token: None };
    node.hub.fetch(&room(), &resume, None).await?;
    let (session, greeting) = node.hub.resume(&room(), &resume, None, Transport::WebTransport)?;
    Ok((Member { peer: session.peer().to_string(), session }, value(&greeting)))
}

pub(super) fn ticket(message: &Value) -> &str {
    message["ticket"].as_str().expect("a ticket")
}

/// A message of a peer's, as another one gets it.
pub(super) fn message(from: PeerId, data: u64) -> Body {
    let payload = data.to_string().into();
    let outbound =
        Outbound { kind: PayloadKind::Message, to: None, payload, ephemeral: false, dropped: false, step: None };
    Body::relay(from, &outbound)
}

/// Three nodes, the first two with a member each, and the tickets of these.
pub(super) async fn scene(bus: &Memory) -> ([Node; 3], Member, Member, [String; 2]) {
    let nodes = Node::three(bus).await;
    let (a, joined) = nodes[0].join(Rights::MEMBER).await;
    let (b, other) = nodes[1].join(Rights::MEMBER).await;
    a.hear("peerJoined").await;
    (nodes, a, b, [&joined, &other].map(|joined| ticket(joined).to_owned()))
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_at_another_node_with_all_that_was_said_meanwhile() {
    let bus = Memory::default();
    let ([x, y, z], a, b, [_, of_b]) = scene(&bus).await;
    let (c, _) = z.join(Rights::MEMBER).await;
    a.hear("peerJoined").await;
    b.hear("peerJoined").await;
    b.say(&json!({"type": "message", "id": 1, "to": a.peer, "data": "before"}));
    a.hear("message").await;
    assert_eq!(b.hear("ok").await["seq"], 2);
    drop(b.session);
    a.hear("peerAway").await;
    a.say(&json!({"type": "message", "id": 1, "to": b.peer, "data": 1}));
    c.say(&json!({"type": "message", "id": 1, "data": 2}));
    for member in [&a, &c] {
        while member.next().await["type"] != "ok" {}
    }
    let (b, resumed) = resume(&x, &of_b, 2).await.expect("the seat is there");
    assert_eq!(
        (&resumed["type"], &resumed["lastId"], &resumed["replayFrom"]),
        (&json!("resumed"), &json!(1), &json!(3))
    );
    let heard = [b.hear("message").await, b.hear("message").await];
    let mut data: Vec<_> = heard.iter().map(|message| message["data"].as_u64().expect("a number")).collect();
    data.sort_unstable();
    assert_eq!((data, &heard[1]["seq"]), (vec![1, 2], &json!(4)));
    b.hears_nothing();
    while a.next().await["type"] != "peerBack" {}
    while c.next().await["type"] != "peerBack" {}
    b.say(&json!({"type": "message", "id": 1, "to": a.peer, "data": "again"}));
    assert_eq!(b.hear("ok").await["id"], 1, "it was handled where it was");
    for (id, to) in [(2, &a), (3, &c)] {
        b.say(&json!({"type": "message", "id": id, "to": to.peer, "data": "after"}));
        assert_eq!(to.hear("message").await["data"], "after");
        assert_eq!(b.hear("ok").await["id"], id);
        to.say(&json!({"type": "message", "id": 9, "to": b.peer, "data": "back"}));
        assert_eq!(b.hear("message").await["data"], "back");
        to.hear("ok").await;
    }
    until(|| y.ties() == 0 && y.hub.room_count() == 0).await;
    assert!(x.roster() == z.roster() && x.roster().len() == 3);
    // And on to a third one, by the ticket that the second has written.
    drop(b.session);
    a.hear("peerAway").await;
    c.hear("peerAway").await;
    let (b, resumed) = resume(&y, ticket(&resumed), 9).await.expect("the seat is there");
    assert_eq!(resumed["lastId"], 3);
    a.hear("peerBack").await;
    b.say(&json!({"type": "leave"}));
    assert_eq!(a.hear("peerLeft").await["reason"], "left");
}

#[tokio::test(start_paused = true)]
async fn a_live_session_is_taken_over_and_others_hear_nothing() {
    let bus = Memory::default();
    let ([x, y, z], a, b, [_, of_b]) = scene(&bus).await;
    let (moved, resumed) = resume(&z, &of_b, 0).await.expect("the seat is there");
    assert_eq!(resumed["type"], "resumed", "{resumed}");
    assert!(b.next().await["with"].as_str().is_some_and(|with| with.contains("Replaced")));
    tokio::time::sleep(Duration::from_secs(60)).await;
    a.hears_nothing();
    moved.hears_nothing();
    assert_eq!(x.roster(), z.roster());
    let (again, _) = resume(&y, &of_b, 0).await.expect("the answer may have been lost");
    assert_eq!(moved.next().await["type"], "ended");
    let (_last, _) = resume(&x, ticket(&resumed), 0).await.expect("it is the same that the answers named");
    assert_eq!(again.next().await["type"], "ended");
    let refused = resume(&y, &of_b, 0).await.expect_err("its successor has been used");
    assert_eq!(refused.code, Code::ResumeExpired);
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_that_want_a_seat_at_once_one_has_it_in_the_end() {
    for seed in 1..=20 {
        let bus = Memory::default();
        let ([x, _y, z], a, b, [_, of_b]) = scene(&bus).await;
        drop(b.session);
        a.hear("peerAway").await;
        bus.fail(Some(Faults { seed, lost: 4, doubled: 4 }));
        let (one, other) = tokio::join!(resume(&x, &of_b, 0), resume(&z, &of_b, 0));
        let here = [&one, &other].map(|resumed| {
            let Ok((member, _)) = resumed else { return false };
            !matches!(member.session.try_next(), Some(Output::End(_)))
        });
        assert!(here == [true, false] || here == [false, true], "seed {seed}: {here:?}");
        bus.fail(None);
        let all_are_here = || x.roster().len() == 2 && x.roster().values().all(|state| *state == PeerState::Here);
        // Where the seat is not, and nobody else either, the room is closed.
        until(|| all_are_here() && (z.roster() == x.roster()) == here[1]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_node_cannot_prove_or_reach_is_refused() {
    let bus = Memory::default();
    let ([x, y, z], a, b, [of_a, of_b]) = scene(&bus).await;
    let mut forged = of_b.clone().into_bytes();
    forged[30] = if forged[30] == b'A' { b'B' } else { b'A' };
    let sent = x.cluster.status().sent.get("take").copied();
    let refused = resume(&x, std::str::from_utf8(&forged).expect("text"), 0).await.expect_err("it is forged");
    assert_eq!((refused.code, x.cluster.status().sent.get("take").copied()), (Code::ResumeExpired, sent));
    // Its node is killed: at first that may be an outage, then the seat is given up.
    y.task.abort();
    bus.unplug(y.cluster.id());
    let refused = resume(&x, &of_b, 0).await.expect_err("nobody answers");
    assert_eq!(refused.code, Code::GoingAway);
    assert!(refused.retry_after.is_some());
    let refused = resume(&x, &of_b, 0).await.expect_err("nobody answers");
    assert_eq!(refused.code, Code::ResumeExpired);
    // Out of reach, but not gone.
    bus.cut(true);
    let refused = resume(&z, &of_a, 0).await.expect_err("nobody answers");
    assert_eq!(refused.code, Code::GoingAway);
    bus.cut(false);
    let (moved, _) = resume(&z, &of_a, 0).await.expect("the seat is there");
    assert_eq!(moved.peer, a.peer);
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn a_full_seat_goes_in_parts_and_one_that_does_not_fit_the_link_stays() {
    let bus = Memory::default();
    let ([x, _y, z], a, b, [_, of_b]) = scene(&bus).await;
    drop(b.session);
    a.hear("peerAway").await;
    let data = "\"x\\".repeat(1000);
    for id in 1..=100 {
        a.say(&json!({"type": "message", "id": id, "to": b.peer, "data": data}));
        assert_eq!(a.hear("ok").await["id"], id);
    }
    let (b, _) = resume(&z, &of_b, 0).await.expect("the seat is there");
    for _ in 1..=100 {
        assert_eq!(b.hear("message").await["data"], data);
    }
    a.hear("peerBack").await;
    let small = [Node::with(&bus, 100_000), Node::with(&bus, 100_000)];
    linked(&[&x, &_y, &z, &small[0], &small[1]]).await;
    let (c, joined) = small[0].join(Rights::MEMBER).await;
    let (d, _) = small[0].join(Rights::MEMBER).await;
    drop(c.session);
    for id in 1..=10 {
        d.say(&json!({"type": "message", "id": id, "to": c.peer, "data": data}));
    }
    let refused = resume(&small[1], ticket(&joined), 0).await.expect_err("it has more than the link may");
    assert_eq!((refused.code, refused.retry_after.is_some()), (Code::GoingAway, true));
    assert!(resume(&small[0], ticket(&joined), 0).await.is_ok(), "it is where it was");
}

#[tokio::test(start_paused = true)]
async fn polls_may_come_to_any_node_and_wait_there_and_nobody_hears_of_it() {
    let bus = Memory::default();
    let ([x, y, z], a, b, _) = scene(&bus).await;
    let line = br#"{"type":"join"}"#;
    let Ok(Request { command: Command::Join(join), .. }) = Request::parse(line, &Limits::default()) else { panic!() };
    let next_poll = || crate::hub::now() + Duration::from_secs(45);
    let poll = x.hub.join_by_poll(&room(), &join, None, next_poll()).expect("it is let in");
    let joined = value(&poll.answer(true, None, usize::MAX).expect("it is there")[0]);
    let (peer, mut present) = (joined["self"]["peer"].clone(), ticket(&joined).to_owned());
    a.hear("peerJoined").await;
    b.hear("peerJoined").await;
    let mut seq = 0;
    for (number, node) in [&y, &z, &x, &z, &y, &y, &x].into_iter().enumerate() {
        let resume = Resume { ticket: Ticket::parse(&present), seq, token: None };
        node.hub.fetch(&room(), &resume, None).await.expect("it can be had");
        let poll = node.hub.poll(&room(), &resume, None, next_poll()).expect("it is here");
        assert!(!poll.moved() && !poll.is_due(), "it waits, as where it was");
        if number % 2 == 0 {
            assert!(poll.answer(false, None, usize::MAX).expect("it is there").is_empty());
            continue;
        }
        // The ticket has not changed since another node wrote it.
        a.say(&json!({"type": "message", "id": number, "to": peer, "data": number}));
        assert_eq!(a.hear("ok").await["id"], number);
        poll.ready().await;
        let answer: Vec<_> = poll.answer(true, None, usize::MAX).expect("it is there").iter().map(value).collect();
        assert_eq!((&answer[0]["type"], &answer[1]["data"]), (&json!("resumed"), &json!(number)));
        (present, seq) = (ticket(&answer[0]).to_owned(), answer[1]["seq"].as_u64().expect("a number"));
    }
    a.hears_nothing();
    b.hears_nothing();
    tokio::time::sleep(Duration::from_secs(44)).await;
    a.hears_nothing();
    a.hear("peerAway").await;
    assert_eq!(a.hear("peerLeft").await["reason"], "timeout");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_gives_its_seats_to_others_and_what_waits_in_them() {
    let bus = Memory::default();
    let ([x, y, z], a, b, [_, of_b]) = scene(&bus).await;
    let mut away = Vec::new();
    for _ in 0..5 {
        let (member, joined) = y.join(Rights::MEMBER).await;
        a.hear("peerJoined").await;
        away.push(ticket(&joined).to_owned());
        drop(member.session);
        a.hear("peerAway").await;
    }
    drop(b.session);
    a.hear("peerAway").await;
    a.say(&json!({"type": "message", "id": 1, "data": "kept"}));
    a.hear("ok").await;
    [&x, &y, &z].iter().for_each(|node| node.cluster.drain());
    until(|| y.cluster.staying().is_empty()).await;
    y.hub.give_away(Duration::from_secs(10)).await;
    assert_eq!(y.roster().len(), 7, "no other node stays");
    let w = Node::start(&bus);
    linked(&[&x, &y, &z, &w]).await;
    y.hub.give_away(Duration::from_secs(10)).await;
    y.cluster.stop().await;
    y.task.abort();
    assert_eq!((y.hub.room_count(), w.roster().len()), (0, 7));
    tokio::time::sleep(Duration::from_secs(5)).await;
    a.hears_nothing();
    let mut back = Vec::new();
    for (at, ticket) in away.iter().chain([&of_b]).enumerate() {
        let (member, resumed) = resume([&x, &w][at % 2], ticket, 0).await.expect("its seat is kept");
        assert_eq!(resumed["type"], "resumed");
        while member.next().await["data"] != "kept" {}
        a.hear("peerBack").await;
        back.push(member);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_wanted_elsewhere_by_one_who_gives_up_is_asked_to_come_back() {
    let bus = Memory::default();
    let ([x, y, z], a, b, [_, of_b]) = scene(&bus).await;
    bus.unplug(x.cluster.id());
    b.say(&json!({"type": "message", "id": 1, "to": a.peer, "data": "nobody answers"}));
    // What it is owed an answer to keeps it from going, and its client does not wait for that.
    let gives_up = tokio::time::timeout(ENTER + Duration::from_millis(50), resume(&z, &of_b, 0)).await;
    assert!(gives_up.is_err());
    let begun = tokio::time::Instant::now();
    let ended = b.next().await;
    assert!(ended["with"].as_str().is_some_and(|with| with.contains("GoingAway")), "{ended}");
    assert!(begun.elapsed() <= Duration::from_secs(1), "it is not left waiting");
    drop(b);
    let (b, resumed) = resume(&y, &of_b, 0).await.expect("it is where it was");
    assert_eq!(resumed["lastId"], 1);
    b.say(&json!({"type": "message", "id": 2, "data": "it is read again"}));
    while b.next().await["id"] != 2 {}
}

/// The note by which a node that stops offers a seat, sent to one that may take it.
fn offer(from: &Node, to: &Node, ticket: &str) {
    let offer = Note::Offer { room: room(), ticket: ticket.into() }.write();
    from.cluster.send(to.cluster.id(), None, offer, Weight::Payload).expect("the link is up");
}

#[tokio::test(start_paused = true)]
async fn an_offer_takes_no_seat_whose_client_is_there_whichever_node_has_it() {
    let bus = Memory::default();
    let ([x, y, z], a, b, [_, of_b]) = scene(&bus).await;
    offer(&y, &z, &of_b);
    tokio::time::sleep(Duration::from_secs(5)).await;
    b.hears_nothing();
    b.say(&json!({"type": "message", "id": 1, "to": a.peer, "data": "is read"}));
    a.hear("message").await;
    // It has come back to another node before the offer was answered.
    let (moved, _) = resume(&x, &of_b, 0).await.expect("the seat is there");
    offer(&y, &z, &of_b);
    tokio::time::sleep(Duration::from_secs(5)).await;
    moved.hear("ok").await;
    moved.hears_nothing();
    a.hears_nothing();
}

#[tokio::test(start_paused = true)]
async fn a_seat_that_goes_on_has_all_of_its_time_once_more() {
    let bus = Memory::default();
    let ([x, y, z], a, b, [_, of_b]) = scene(&bus).await;
    let (_moved, _) = resume(&z, &of_b, 0).await.expect("the seat is there");
    tokio::time::sleep(WINDOW - Duration::from_secs(1)).await;
    // The second node may tell of it long before the third does.
    let peer = b.session.peer();
    let moved = Note::Moved { room: room(), peer, to: y.cluster.id(), moves: 2 };
    x.hub.change(z.cluster.id(), 1, moved).expect("the room is open");
    tokio::time::sleep(Duration::from_secs(20)).await;
    a.hears_nothing();
    assert_eq!(a.hear("peerLeft").await["reason"], "nodeLost");
}

#[tokio::test(start_paused = true)]
async fn a_seat_whose_node_cannot_be_reached_for_a_moment_has_not_expired() {
    let bus = Memory::default();
    let [x, y, z] = [Node::start(&bus), Node::start(&bus), Node::start(&bus)];
    linked(&[&x, &y, &z]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (b, joined) = y.join(Rights::MEMBER).await;
    let peer = b.session.peer();
    drop(b);
    offer(&y, &z, ticket(&joined));
    until(|| z.hub.has_seat(&room(), peer)).await;
    y.cluster.stop().await;
    y.task.abort();
    bus.cut(true);
    let refused = resume(&x, ticket(&joined), 0).await.expect_err("the node that has it cannot be reached");
    assert_eq!((refused.code, refused.retry_after.is_some()), (Code::GoingAway, true));
    bus.cut(false);
    let (b, resumed) = resume(&x, ticket(&joined), 0).await.expect("the seat is there");
    // And where nobody remembers that it has gone.
    let (moved, _) = resume(&z, ticket(&resumed), 0).await.expect("the seat is there");
    assert_eq!(b.next().await["type"], "ended");
    drop(b);
    until(|| x.hub.room_count() == 0).await;
    x.cluster.moves.forget(&room(), peer);
    bus.cut(true);
    let refused = resume(&x, ticket(&resumed), 0).await.expect_err("the node that has it cannot be reached");
    assert_eq!(refused.code, Code::GoingAway);
    bus.cut(false);
    resume(&x, ticket(&resumed), 0).await.expect("the seat is there");
    assert_eq!(moved.next().await["type"], "ended");
    let stranger = Ticket::new(PeerId::new(uuid::Uuid::now_v7()), [7; 16]);
    let nobody = x.cluster.seal(stranger, &room()).to_text();
    let refused = resume(&x, &nobody, 0).await.expect_err("all have answered that they have no such seat");
    assert_eq!(refused.code, Code::ResumeExpired);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_all_its_rooms_takes_in_a_seat_of_another_one() {
    let bus = Memory::default();
    let ([_x, _y, z], a, b, [_, of_b]) = scene(&bus).await;
    z.hub.rooms.fetch_add(z.hub.policy.rooms, std::sync::atomic::Ordering::Relaxed);
    let (moved, _) = resume(&z, &of_b, 0).await.expect("the seat is there, and has to be somewhere");
    assert_eq!(b.next().await["type"], "ended");
    moved.say(&json!({"type": "message", "id": 1, "to": a.peer, "data": 1}));
    a.hear("message").await;
}

#[tokio::test(start_paused = true)]
async fn a_seat_that_cannot_be_sent_is_not_taken_from_its_transport_for_good() {
    let bus = Memory::default();
    let nodes = [Node::with(&bus, 100_000), Node::with(&bus, 100_000)];
    linked(&[&nodes[0], &nodes[1]]).await;
    let (a, _) = nodes[0].join(Rights::MEMBER).await;
    let (b, joined) = nodes[0].join(Rights::MEMBER).await;
    for id in 1..=10 {
        a.say(&json!({"type": "message", "id": id, "to": b.peer, "data": "\"x\\".repeat(1000)}));
    }
    let refused = resume(&nodes[1], ticket(&joined), 0).await.expect_err("it has more than the link may");
    assert_eq!(refused.code, Code::GoingAway);
    let ended = loop {
        let heard = b.next().await;
        if heard["type"] != "message" {
            break heard;
        }
    };
    assert!(ended["with"].as_str().is_some_and(|with| with.contains("GoingAway")), "it may come back: {ended}");
}

#[tokio::test(start_paused = true)]
async fn a_resume_that_will_be_refused_moves_no_seat() {
    let bus = Memory::default();
    let ([_x, _y, z], a, b, [_, of_b]) = scene(&bus).await;
    let refused = resume(&z, &of_b, 99).await.expect_err("it was never sent");
    assert_eq!(refused.code, Code::BadRequest);
    b.say(&json!({"type": "message", "id": 1, "to": a.peer, "data": 1}));
    b.hear("ok").await;
    a.hear("message").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    b.hears_nothing();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_late_does_not_come_after_a_later_one_to_who_has_been_elsewhere_meanwhile() {
    let bus = Memory::default();
    let ([x, y, z], a, b, [_, of_b]) = scene(&bus).await;
    let (moved, _) = resume(&z, &of_b, 0).await.expect("the seat is there");
    a.say(&json!({"type": "message", "id": 2, "to": b.peer, "data": 2}));
    assert_eq!(moved.hear("message").await["data"], 2);
    a.hear("ok").await;
    let (back, _) = resume(&y, &of_b, 1).await.expect("the seat is there");
    // Sent before the seat had gone, and on its way until now.
    let [from, to] = [&a, &b].map(|member| member.session.peer());
    let late = |receipt| note::relay(&room(), (to, 0), Some(receipt), None, None, &message(from, 1));
    let pending = Pending::Request { room: room(), from, moves: 0, id: Some(1) };
    x.cluster.ask(y.cluster.id(), None, pending, Weight::Payload, late).expect("the link is up");
    let refused = a.hear("error").await;
    assert_eq!((&refused["id"], &refused["code"]), (&json!(1), &json!("queueFull")));
    back.hears_nothing();
    a.say(&json!({"type": "message", "id": 3, "to": b.peer, "data": 3}));
    assert_eq!(back.hear("message").await["data"], 3);
    assert_eq!(a.hear("ok").await["id"], 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_at_one_node_is_not_heard_again_at_the_next_but_one() {
    let bus = Memory::default();
    let ([x, y, z], a, _b, [of_a, _]) = scene(&bus).await;
    let (far, from) = (fresh_id(), PeerId::new(uuid::Uuid::now_v7()));
    // The link from where it is said is fast to the first node, slow to the second, and slower to the third.
    let say = |node: &Node, number| {
        let said = Some(Said { hall: 1, number });
        node.hub.with_hall(&room(), |hall| hall.take_in_for_all(far, said, Some(message(from, number))));
    };
    say(&x, 1);
    let seq = a.hear("message").await["seq"].as_u64().expect("a number");
    let (second, resumed) = resume(&z, &of_a, seq).await.expect("the seat is there");
    second.hears_nothing();
    let (third, _) = resume(&y, ticket(&resumed), seq).await.expect("the seat is there");
    say(&y, 1);
    third.hears_nothing();
    say(&y, 2);
    assert_eq!(third.hear("message").await["data"], 2);
}

/// Three nodes, the first two with a member each; who is at the second cannot be heard of at the third. The ticket is the first member's.
async fn apart(bus: &Memory) -> ([Node; 3], [Member; 2], String) {
    let (nodes, a, b, [of_a, _]) = scene(bus).await;
    part(bus, &[[&nodes[1], &nodes[2]]]);
    until(|| nodes[2].cluster.is_lost(nodes[1].cluster.id())).await;
    (nodes, [a, b], of_a)
}

#[tokio::test(start_paused = true)]
async fn who_is_at_a_node_that_the_new_one_cannot_reach_is_away_and_has_not_left() {
    let bus = Memory::default();
    let ([_x, _y, z], [_a, b], of_a) = apart(&bus).await;
    let (moved, resumed) = resume(&z, &of_a, 1).await.expect("the seat is there");
    assert_eq!(resumed["type"], "resumed");
    assert_eq!(moved.hear("peerAway").await["peer"], b.peer);
    moved.say(&json!({"type": "message", "id": 1, "to": b.peer, "data": 1}));
    assert_eq!(moved.hear("error").await["code"], "queueFull");
    part(&bus, &[]);
    assert_eq!(moved.hear("peerBack").await["peer"], b.peer);
    b.say(&json!({"type": "message", "id": 1, "to": moved.peer, "data": 1}));
    assert_eq!(moved.hear("message").await["from"], b.peer);
}

#[tokio::test(start_paused = true)]
async fn who_has_left_where_neither_node_could_hear_of_it_is_told_to_have_left_as_soon_as_one_can() {
    let bus = Memory::default();
    let ([x, y, z], [a, b], of_a) = apart(&bus).await;
    part(&bus, &[[&x, &y], [&z, &y]]);
    assert_eq!(a.hear("peerAway").await["peer"], b.peer);
    b.say(&json!({"type": "leave"}));
    let (moved, _) = resume(&z, &of_a, 2).await.expect("the seat is there");
    moved.hears_nothing();
    part(&bus, &[]);
    let begun = tokio::time::Instant::now();
    assert_eq!(moved.hear("peerLeft").await["peer"], b.peer);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_has_left_where_only_the_new_node_could_hear_of_it_is_told_to_have_left_at_once() {
    let bus = Memory::default();
    let ([x, y, z], _a, b, [of_a, _]) = scene(&bus).await;
    part(&bus, &[[&x, &y]]);
    b.say(&json!({"type": "leave"}));
    until(|| y.hub.room_count() == 0).await;
    let (moved, _) = resume(&z, &of_a, 1).await.expect("the seat is there");
    let begun = tokio::time::Instant::now();
    assert_eq!(moved.hear("peerLeft").await["peer"], b.peer);
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_is_at_a_node_that_the_new_one_has_given_up_is_lost_with_it() {
    let bus = Memory::default();
    let ([_x, y, z], [_a, b], of_a) = apart(&bus).await;
    until(|| z.cluster.has_gone(y.cluster.id())).await;
    let (moved, _) = resume(&z, &of_a, 1).await.expect("the seat is there");
    let left = moved.hear("peerLeft").await;
    assert_eq!((&left["peer"], &left["reason"]), (&json!(b.peer), &json!("nodeLost")));
    part(&bus, &[]);
    assert_eq!(moved.hear("peerJoined").await["peer"], b.peer);
}

#[tokio::test(start_paused = true)]
async fn who_is_at_a_node_that_the_new_one_never_hears_of_is_lost_in_the_end() {
    let bus = Memory::default();
    let ([x, y, _z], a, b, [of_a, _]) = scene(&bus).await;
    let id = fresh_id();
    bus.part([[y.cluster.id(), id], [id, y.cluster.id()]]);
    let w = Node::of(id, &bus, LINK_BYTES, None);
    until(|| w.cluster.nodes().contains(&x.cluster.id())).await;
    let (moved, _) = resume(&w, &of_a, 1).await.expect("the seat is there");
    assert_eq!(a.next().await["type"], "ended");
    assert_eq!(moved.hear("peerAway").await["peer"], b.peer);
    tokio::time::sleep(WINDOW - Duration::from_secs(1)).await;
    moved.hears_nothing();
    let left = moved.hear("peerLeft").await;
    assert_eq!((&left["peer"], &left["reason"]), (&json!(b.peer), &json!("nodeLost")));
}

#[tokio::test(start_paused = true)]
async fn who_is_on_the_way_from_one_node_to_another_has_not_left_for_one_who_goes_at_the_same_time() {
    let bus = Memory::default();
    let ([x, y, z], a, _b, [of_a, _]) = scene(&bus).await;
    let peer = PeerId::new(uuid::Uuid::now_v7());
    let member = crate::protocol::Member { peer, user: None, metadata: Metadata::new("{}") };
    let present = Present { member, away: false, moves: 0 };
    let from_y = |note| x.hub.change(y.cluster.id(), 1, note).expect("the room is open");
    from_y(Note::Joined { room: room(), present });
    assert_eq!(a.hear("peerJoined").await["peer"], peer.to_string());
    from_y(Note::Moved { room: room(), peer, to: z.cluster.id(), moves: 1 });
    let (moved, _) = resume(&z, &of_a, 2).await.expect("the seat is there");
    moved.hears_nothing();
    assert_eq!(moved.hear("peerLeft").await["reason"], "nodeLost", "it has never come");
}

#[tokio::test(start_paused = true)]
async fn who_has_just_come_or_gone_elsewhere_is_told_to_one_who_goes_as_its_own_node_says() {
    let bus = Memory::default();
    let ([x, y, z], a, b, [of_a, of_b]) = scene(&bus).await;
    let _d = z.member().await;
    for member in [&a, &b] {
        member.hear("peerJoined").await;
    }
    // The third node has not heard yet that it has come.
    part(&bus, &[[&y, &z]]);
    let c = y.member().await;
    assert_eq!(a.hear("peerJoined").await["peer"], c.peer);
    let (moved, _) = resume(&z, &of_a, 3).await.expect("the seat is there");
    part(&bus, &[]);
    until(|| z.roster().len() == 4 && x.hub.room_count() == 0).await;
    moved.hears_nothing();
    // And the second one not yet that it has left.
    part(&bus, &[[&y, &z]]);
    moved.say(&json!({"type": "leave"}));
    let seq = b.session.seat.quietly(|seat| seat.sent());
    let (back, _) = resume(&x, &of_b, seq).await.expect("the seat is there");
    let left = loop {
        match back.next().await {
            heard if heard["type"] == "peerLeft" => break heard,
            heard => assert_eq!(heard["peer"], c.peer, "{heard}"),
        }
    };
    assert_eq!((&left["peer"], x.roster().len()), (&json!(moved.peer), 3));
}

#[tokio::test(start_paused = true)]
async fn what_a_node_said_before_it_had_a_seat_does_not_hold_for_one_who_knows_that_it_has() {
    let bus = Memory::default();
    let [x, y, z] = Node::three(&bus).await;
    let (_a, of_a) = x.join(Rights::MEMBER).await;
    let (_b, of_b) = x.join(Rights::MEMBER).await;
    // The third node opens the room and closes it; the second one will hear of that later than of what the first one knows.
    bus.part([[z.cluster.id(), y.cluster.id()]]);
    drop(z.hub.enter(&room()).await.expect("there may be rooms"));
    let (_moved, _) = resume(&z, ticket(&of_a), 0).await.expect("the seat is there");
    let (witness, _) = resume(&y, ticket(&of_b), 0).await.expect("the seat is there");
    bus.part([]);
    let settled = |node: &Node| node.roster().len() == 2 && node.cluster.status().bytes == 0;
    until(|| settled(&y) && settled(&z)).await;
    witness.hears_nothing();
}

#[tokio::test(start_paused = true)]
async fn who_has_gone_from_a_node_that_nobody_is_left_at_has_not_left_for_one_who_comes_there() {
    let bus = Memory::default();
    let ([x, y, z], a, _b, [_, of_b]) = scene(&bus).await;
    let view = x.hub.with_hall(&room(), |hall| hall.room.view(a.session.peer())).expect("it is open");
    let (there, _) = resume(&z, &of_b, 0).await.expect("the seat is there");
    until(|| y.hub.room_count() == 0).await;
    // One who comes now, and set out before, knows it here; and the third node cannot say that it is there.
    part(&bus, &[[&y, &z]]);
    let room = room();
    let _entering = y.hub.enter(&room).await.expect("there may be rooms");
    let place = y.hub.with_hall(&room, |hall| {
        hall.believe(x.cluster.id(), &view);
        hall.room.node_of(there.session.peer())
    });
    assert_eq!(place, Some(Some(z.cluster.id())));
}

#[tokio::test(start_paused = true)]
async fn who_has_been_elsewhere_meanwhile_is_not_answered_what_was_asked_before() {
    let bus = Memory::default();
    let ([x, y, z], a, _b, [of_a, _]) = scene(&bus).await;
    let (_there, resumed) = resume(&z, &of_a, 1).await.expect("the seat is there");
    let (back, _) = resume(&x, ticket(&resumed), 1).await.expect("the seat is there");
    // As if the seat had been taken up elsewhere while this was open, where it was asked again.
    let asked = |moves| Pending::Request { room: room(), from: a.session.peer(), moves, id: Some(1) };
    x.hub.settle(y.cluster.id(), asked(0), Ok(()));
    back.hears_nothing();
    x.hub.settle(y.cluster.id(), asked(2), Ok(()));
    assert_eq!(back.hear("ok").await["id"], 1);
}
