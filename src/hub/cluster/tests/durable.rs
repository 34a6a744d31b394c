//! Seats that outlive their node.

use super::moves::{resume, ticket};
use super::*;
use crate::cluster::store::{self, Counts};

/// What nodes share, and nodes with links between them.
async fn scene<const N: usize>() -> (Memory, Arc<store::Memory>, [Node; N]) {
    let (bus, store) = (Memory::default(), Arc::new(store::Memory::default()));
    let over = || Some(Arc::clone(&store) as Arc<dyn Store>);
    let nodes = std::array::from_fn(|_| Node::of(fresh_id(), &bus, LINK_BYTES, over()));
    linked(&nodes.each_ref()).await;
    (bus, store, nodes)
}

/// The same with a member at each of the first two, of which the first has heard of the second; and what these were told first.
async fn members<const N: usize>() -> (Memory, Arc<store::Memory>, [Node; N], [(Member, Value); 2]) {
    let (bus, store, nodes) = scene().await;
    let a = nodes[0].join(Rights::MEMBER).await;
    let b = nodes[1].join(Rights::MEMBER).await;
    a.0.hear("peerJoined").await;
    (bus, store, nodes, [a, b])
}

impl Node {
    fn counts(&self) -> Counts {
        self.cluster.desk().map(|desk| desk.counts()).unwrap_or_default()
    }

    /// How many seats of lost nodes have gone on here.
    pub(super) fn restored(&self) -> usize {
        self.counts().restored as usize
    }

    /// As if its process were killed.
    fn kill(self, bus: &Memory) {
        bus.unplug(self.cluster.id());
    }
}

/// Takes a seat up, again and again while that is not to be had at the moment.
async fn come_back(node: &Node, ticket: &str, seq: u64) -> Result<(Member, Value), Refusal> {
    loop {
        match resume(node, ticket, seq).await {
            Err(refusal) if refusal.code == Code::GoingAway => tokio::time::sleep(Duration::from_millis(500)).await,
            result => return result,
        }
    }
}

fn message(id: u64, to: &Member) -> Value {
    json!({"type": "message", "id": id, "to": to.peer, "data": id})
}

#[tokio::test(start_paused = true)]
async fn a_session_of_a_node_that_was_killed_goes_on_with_what_it_was_promised() {
    let (bus, store, [x, y, z], [(a, _), (b, joined)]) = members().await;
    for id in 1..=3 {
        a.say(&message(id, &b));
        a.hear("ok").await;
    }
    assert_eq!(b.hear("message").await["data"], 1);
    let seq = b.hear("message").await["seq"].as_u64().expect("a number");
    let ticket = ticket(&joined).to_owned();
    y.kill(&bus);
    let begun = tokio::time::Instant::now();
    let (b, joined) = come_back(&z, &ticket, seq).await.expect("it is kept");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((&joined["self"]["peer"], &joined["type"]), (&json!(b.peer), &json!("joined")));
    assert_eq!((&joined["replayFrom"], &joined["lastId"], &joined["lost"]), (&json!(3), &json!(0), &json!(0)));
    assert_eq!(joined["self"]["metadata"], json!({"a": 1}));
    let third = b.hear("message").await;
    assert_eq!((&third["data"], &third["seq"]), (&json!(3), &json!(3)));
    assert_eq!(a.hear("peerAway").await["peer"], b.peer);
    assert_eq!(a.hear("peerBack").await["peer"], b.peer);
    a.say(&message(4, &b));
    a.hear("ok").await;
    assert_eq!(b.hear("message").await["data"], 4);
    // What it has said it says again, as it cannot know what was heard.
    b.say(&message(1, &a));
    assert_eq!(a.hear("message").await["data"], 1);
    assert_eq!((z.restored(), x.counts().failed), (1, 0));
    // Its place is gone with it.
    b.say(&json!({"type": "leave"}));
    assert_eq!(a.hear("peerLeft").await["reason"], "left");
    until(|| store.seats() == 1).await;
    assert_eq!(resume(&x, &ticket, 0).await.expect_err("it is over").code, Code::ResumeExpired);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_the_senders_node_was_killed_comes_once_though_it_is_said_again() {
    let (bus, _store, [x, _y, z], [(a, joined), (b, _)]) = members().await;
    a.say(&message(1, &b));
    a.say(&message(2, &b));
    for number in [1, 2] {
        assert_eq!(b.hear("message").await["data"], number);
    }
    // Nobody has read an answer.
    let ticket = ticket(&joined).to_owned();
    x.kill(&bus);
    let (a, _) = come_back(&z, &ticket, 1).await.expect("it is kept");
    for id in 1..=3 {
        a.say(&message(id, &b));
        assert_eq!(a.hear("ok").await["id"], id);
    }
    b.hear("peerAway").await;
    b.hear("peerBack").await;
    assert_eq!(b.hear("message").await["data"], 3);
    b.hears_nothing();
}

#[tokio::test(start_paused = true)]
async fn after_a_nodes_loss_any_of_its_tickets_is_good_once_more() {
    let (bus, store, [x, y, z]) = scene().await;
    let (_a, joined) = x.join(Rights::MEMBER).await;
    let first = ticket(&joined).to_owned();
    let (_, second) = resume(&x, &first, 0).await.expect("it is its seat");
    let second = ticket(&second).to_owned();
    let (_, third) = resume(&x, &second, 0).await.expect("it is its seat");
    let third = ticket(&third).to_owned();
    assert_eq!(resume(&x, &first, 0).await.expect_err("it was used up").code, Code::ResumeExpired);
    until(|| store.seats() == 1).await;
    x.kill(&bus);
    let forged = format!("{}{}", &third[..third.len() - 4], "AAAA");
    assert_eq!(come_back(&y, &forged, 0).await.expect_err("nobody wrote it").code, Code::ResumeExpired);
    let (_, again) = come_back(&y, &first, 0).await.expect("it is kept");
    let fourth = ticket(&again).to_owned();
    for dead in [&second, &third] {
        assert_eq!(resume(&y, dead, 0).await.expect_err("another one was shown").code, Code::ResumeExpired);
    }
    resume(&z, &fourth, 0).await.expect("it is its seat");
    assert_eq!(resume(&z, &first, 0).await.expect_err("it is used up").code, Code::ResumeExpired);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_acknowledged_and_had_no_room_is_told_to_be_lost() {
    const LARGE: usize = 60_000;
    const SAID: u64 = 40;
    let (bus, _store, [_x, y, z], [(a, _), (b, joined)]) = members().await;
    let text = "x".repeat(LARGE);
    for id in 1..=SAID {
        a.say(&json!({"type": "message", "id": id, "to": b.peer, "data": text}));
        a.hear("ok").await;
        assert_eq!(b.hear("message").await["seq"], id);
    }
    y.kill(&bus);
    let (b, joined) = come_back(&z, ticket(&joined), 0).await.expect("it is kept");
    let lost = joined["lost"].as_u64().expect("a number");
    assert!(lost > 0 && lost < SAID, "{lost}");
    for number in 1..=SAID - lost {
        assert_eq!(b.hear("message").await["seq"], number);
    }
    a.hear("peerAway").await;
    a.hear("peerBack").await;
    b.hears_nothing();
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_that_want_a_seat_at_once_one_has_it() {
    for shift in 0..6 {
        let (bus, _store, [x, y, z], [(a, _), (b, joined)]) = members().await;
        a.say(&message(1, &b));
        a.hear("ok").await;
        let ticket = ticket(&joined).to_owned();
        y.kill(&bus);
        until(|| [&x, &z].iter().all(|node| node.cluster.status().nodes == 1)).await;
        let late = async {
            tokio::time::sleep(Duration::from_micros(700 * shift)).await;
            come_back(&z, &ticket, 0).await
        };
        let came = tokio::join!(come_back(&x, &ticket, 0), late);
        let places = || [&x, &z].map(|node| node.hub.has_seat(&room(), b.session.peer()));
        until(|| places() == [true, false] || places() == [false, true]).await;
        // The later one has taken it from the other, or could not have it.
        let came = [came.0, came.1].into_iter().filter_map(Result::ok);
        let frames = |member: &Member| -> Vec<Value> {
            let frames = std::iter::from_fn(|| match member.session.try_next() {
                Some(Output::Frame(frame)) => Some(value(&frame)["data"].clone()),
                Some(Output::End(_)) | None => None,
            });
            frames.filter(|data| !data.is_null()).collect()
        };
        let told: Vec<Vec<Value>> = came.map(|(member, _)| frames(&member)).collect();
        assert!(told.iter().any(|told| told == &[json!(1)]), "{told:?}");
        assert_eq!(x.restored() + z.restored(), 1, "one has won");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_taken_for_lost_gives_up_its_seat_and_accepts_nothing_more_for_it() {
    let (bus, _store, [x, y]) = scene().await;
    let (b, joined) = x.join(Rights::MEMBER).await;
    let a = x.member().await;
    b.hear("peerJoined").await;
    bus.cut(true);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (again, _) = come_back(&y, ticket(&joined), 1).await.expect("it is kept");
    assert_eq!(again.peer, b.peer);
    // The first node does not know it yet.
    a.say(&message(1, &b));
    assert_eq!(a.hear("error").await["code"], "queueFull");
    assert_eq!(b.next().await["with"].as_str().map(|with| with.contains("Replaced")), Some(true));
    bus.cut(false);
    until(|| x.roster() == y.roster()).await;
    again.hear("peerJoined").await;
    a.say(&message(2, &again));
    a.hear("ok").await;
    assert_eq!(again.hear("message").await["data"], 2);
    assert_eq!(x.counts().dropped, 1);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_at_a_node_that_was_taken_for_lost_takes_nothing_from_the_node_that_has_the_seat() {
    let (bus, store, [x, y]) = scene().await;
    let (b, joined) = x.join(Rights::MEMBER).await;
    until(|| store.seats() == 1).await;
    bus.cut(true);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (again, _) = come_back(&y, ticket(&joined), 1).await.expect("it is kept");
    // The first node does not know it yet.
    b.say(&json!({"type": "leave"}));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.seats(), 1, "it is kept as the other node has it");
    again.say(&json!({"type": "leave"}));
    until(|| store.seats() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn who_was_taken_from_a_node_that_was_taken_for_lost_has_not_left_for_one_who_hears_of_that_node_first() {
    let (bus, _store, [x, y, z], [(b, joined), _]) = members().await;
    let a = z.member().await;
    bus.cut(true);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (again, _) = come_back(&y, ticket(&joined), 1).await.expect("it is kept");
    part(&bus, &[[&x, &z], [&y, &z]]);
    bus.cut(false);
    until(|| !x.hub.has_seat(&room(), b.session.peer())).await;
    part(&bus, &[[&y, &z]]);
    until(|| z.cluster.nodes() == [x.cluster.id()] && z.cluster.status().bytes == 0 && x.cluster.status().bytes == 0)
        .await;
    part(&bus, &[]);
    until(|| z.roster() == y.roster()).await;
    while let Some(heard) = a.session.try_next() {
        let Output::Frame(frame) = heard else { continue };
        assert_ne!(value(&frame)["type"], "peerLeft");
    }
    drop(again);
}

#[tokio::test(start_paused = true)]
async fn whose_time_has_passed_at_a_node_that_was_taken_for_lost_has_not_left_for_those_at_a_third() {
    let (bus, _store, [x, y, z], [(b, joined), _other]) = members().await;
    let a = z.member().await;
    drop(b);
    part(&bus, &[[&x, &y], [&x, &z]]);
    until(|| y.cluster.is_lost(x.cluster.id())).await;
    let (again, _) = come_back(&y, ticket(&joined), 0).await.expect("it is kept");
    // The third node hears of the first one again before it can hear of the second.
    part(&bus, &[[&x, &y], [&x, &z], [&y, &z]]);
    until(|| x.hub.room_count() == 0).await;
    part(&bus, &[[&x, &y], [&y, &z]]);
    until(|| z.cluster.nodes() == [x.cluster.id()] && z.cluster.status().bytes == 0).await;
    part(&bus, &[]);
    until(|| z.roster().len() == 3 && z.roster() == y.roster()).await;
    while let Some(heard) = a.session.try_next() {
        let Output::Frame(frame) = heard else { continue };
        let left = value(&frame);
        assert!(left["type"] != "peerLeft" || left["peer"] != again.peer, "{left}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_back_when_its_node_is_and_is_nowhere_else_has_left_a_little_later() {
    let (bus, _store, [x, y], [(b, _), (a, _)]) = members().await;
    bus.cut(true);
    assert_eq!(a.hear("peerAway").await["peer"], b.peer);
    b.say(&json!({"type": "leave"}));
    bus.cut(false);
    until(|| y.cluster.nodes() == [x.cluster.id()] && y.cluster.status().bytes == 0).await;
    let begun = tokio::time::Instant::now();
    let left = a.hear("peerLeft").await;
    assert_eq!((&left["peer"], &left["reason"]), (&json!(b.peer), &json!("timeout")));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_was_handed_on_and_lost_before_that_was_stored_goes_on_for_those_who_had_heard_of_it() {
    let (bus, store, [x, y, z], [(a, _), (b, joined)]) = members().await;
    until(|| store.seats() == 2).await;
    store.cut(true);
    let (_there, resumed) = come_back(&x, ticket(&joined), 0).await.expect("it is handed over");
    let (_back, resumed) = come_back(&y, ticket(&resumed), 0).await.expect("it is handed back");
    until(|| x.hub.with_hall(&room(), |hall| hall.room.is_in_transit(b.session.peer())) == Some(false)).await;
    y.kill(&bus);
    store.cut(false);
    // This node has never heard of it, and what is kept says that it has never moved.
    let (again, _) = come_back(&z, ticket(&resumed), 0).await.expect("it is kept");
    assert_eq!(again.peer, b.peer);
    tokio::time::sleep(2 * WINDOW).await;
    assert_eq!((x.roster().len(), x.roster()), (2, z.roster()));
    while let Some(Output::Frame(frame)) = a.session.try_next() {
        assert_ne!(value(&frame)["type"], "peerLeft");
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_is_locked_as_it_was_when_all_who_were_in_it_are_taken_up_elsewhere() {
    let (bus, _store, [x, y]) = scene().await;
    let (a, joined) = x.join(moderator()).await;
    until(|| x.counts().stored == 1).await;
    a.say(&json!({"type": "lock", "id": 1, "locked": true}));
    until(|| x.counts().stored == 2).await;
    x.kill(&bus);
    let (_again, joined) = come_back(&y, ticket(&joined), 0).await.expect("it is kept");
    assert_eq!(joined["room"]["locked"], true, "{joined}");
    assert_eq!(y.try_join(Rights::MEMBER).await.expect_err("nobody admits it").code, Code::RoomLocked);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_is_refused_and_leaves_no_hole() {
    let (_bus, store, [x, y]) = scene().await;
    let (a, b, c) = (x.member().await, x.member().await, y.member().await);
    a.hear("peerJoined").await;
    a.hear("peerJoined").await;
    b.hear("peerJoined").await;
    store.cut(true);
    for sender in [&a, &c] {
        sender.say(&message(1, &b));
    }
    // Behind what is being stored.
    a.say(&json!({"type": "message", "id": 2, "data": "to all"}));
    for _ in 0..2 {
        let heard = a.next().await;
        if heard["id"] == 1 {
            assert_eq!((&heard["code"], &heard["retryAfterMs"]), (&json!("queueFull"), &json!(1000)));
        }
    }
    assert_eq!(c.hear("message").await["data"], "to all");
    assert_eq!(c.hear("error").await["code"], "queueFull");
    let all = b.hear("message").await;
    assert_eq!((&all["data"], &all["seq"]), (&json!("to all"), &json!(2)));
    store.cut(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    a.say(&message(3, &b));
    a.hear("ok").await;
    assert_eq!(b.hear("message").await["seq"], 3);
    // Without a store all is as it is where nobody has asked for one.
    store.turn_off(true);
    a.say(&message(4, &b));
    a.hear("ok").await;
    assert_eq!(b.hear("message").await["seq"], 4);
}
