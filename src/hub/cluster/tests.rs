//! Hubs that share rooms over a bus in memory, on a clock that moves when nothing else does.

use std::collections::BTreeMap;
use std::future::poll_fn;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

mod carry;
mod chaos;
mod circles;
mod durable;
mod lost;
mod moves;

use super::*;
use crate::cluster::bus::{Faults, Memory};
use crate::cluster::key::Key;
use crate::cluster::link::Limits as LinkLimits;
use crate::cluster::mesh::Settings;
use crate::cluster::store::Store;
use crate::cluster::{LINK_BYTES, TIMEOUT, fresh_id};
use crate::hub::{Policy, Session};
use crate::ice::IceServers;
use crate::outbox::Output;
use crate::protocol::{Command, Frame, Grant, Limits, Request, Rights, Transport, WaitingRoom};
use crate::traces::{Span, Traces};

const WINDOW: Duration = Duration::from_secs(30);

struct Node {
    hub: Arc<Hub>,
    cluster: Arc<crate::cluster::Cluster>,
    task: JoinHandle<()>,
}

impl Node {
    fn start(bus: &Memory) -> Self {
        Self::with(bus, LINK_BYTES)
    }

    fn with(bus: &Memory, bytes: usize) -> Self {
        Self::of(fresh_id(), bus, bytes, None)
    }

    /// One whose seats are kept, if there is a store.
    fn of(id: NodeId, bus: &Memory, bytes: usize, store: Option<Arc<dyn Store>>) -> Self {
        let (plug, incoming) = bus.plug(id);
        let settings = Settings { limits: LinkLimits { bytes, timeout: TIMEOUT }, keep: WINDOW };
        let (cluster, events) =
            crate::cluster::Cluster::new(id, settings, Some(Key::new(b"shared")), (plug, incoming), store);
        let policy = Policy {
            limits: Limits {
                queue_messages: 4096,
                messages_per_second: 1_000_000,
                burst: 1_000_000,
                ..Limits::default()
            },
            rooms: 1000,
            heartbeat: Duration::from_secs(10),
            resume_window: WINDOW,
            ice_servers: IceServers::load(&crate::ice::Policy::default()).expect("none"),
            waiting: WaitingRoom::default(),
            timelines: crate::timeline::Policy::default(),
            hook: None,
            traces: Traces::NONE,
        };
        let hub = Hub::clustered(policy, Arc::clone(&cluster));
        let task = tokio::spawn({
            let hub = Arc::clone(&hub);
            async move {
                tokio::join!(hub.keep_cluster(events), hub.keep_time());
            }
        });
        Node { hub, cluster, task }
    }

    /// Two nodes with a link.
    async fn pair(bus: &Memory) -> [Self; 2] {
        let nodes = [Node::start(bus), Node::start(bus)];
        linked(&nodes.each_ref()).await;
        nodes
    }

    /// Three nodes with links.
    async fn three(bus: &Memory) -> [Self; 3] {
        let nodes = [Node::start(bus), Node::start(bus), Node::start(bus)];
        linked(&nodes.each_ref()).await;
        nodes
    }

    /// A member, and the first that it hears.
    async fn join(&self, rights: Rights) -> (Member, Value) {
        self.try_join(rights).await.expect("it is let in")
    }

    async fn try_join(&self, rights: Rights) -> Result<(Member, Value), Refusal> {
        let room = room();
        let _entering = self.hub.enter(&room).await.expect("there may be rooms");
        let line = br#"{"type":"join","metadata":{"a":1}}"#;
        let Ok(Request { command: Command::Join(join), .. }) = Request::parse(line, &Limits::default()) else {
            panic!("a join")
        };
        let limits = Arc::new(Limits { messages_per_second: 1_000_000, burst: 1_000_000, ..Limits::default() });
        let grant = Grant { rights, ..Grant::open(limits) };
        let (session, greeting) = self.hub.join(&room, &join, Some(grant), Transport::WebTransport)?;
        Ok((Member { peer: session.peer().to_string(), session }, value(&greeting)))
    }

    async fn member(&self) -> Member {
        self.join(Rights::MEMBER).await.0
    }

    /// Whom the room has, as this node knows it, and in what state.
    fn roster(&self) -> BTreeMap<String, PeerState> {
        let shard = self.hub.shard(&room()).lock();
        let Some(hall) = shard.get(&room()) else { return BTreeMap::new() };
        let Some(own) = hall.room.own_members().next() else { return BTreeMap::new() };
        let picture = hall.room.picture(own.0.peer).expect("a member");
        let others = picture.peers.iter().map(|info| (info.member.peer.to_string(), info.state));
        others.chain([(own.0.peer.to_string(), own.1)]).collect()
    }

    /// How many other nodes share the room, as this one knows.
    fn ties(&self) -> usize {
        self.hub.with_hall(&room(), |hall| hall.ties.as_ref().map_or(0, |ties| ties.nodes.len())).unwrap_or(0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Member {
    peer: String,
    session: Session,
}

impl Member {
    /// What it hears next.
    async fn next(&self) -> Value {
        let next = poll_fn(|cx| self.session.poll_next(true, cx));
        match tokio::time::timeout(Duration::from_secs(60), next).await.expect("it hears something") {
            Output::Frame(frame) => value(&frame),
            Output::End(ending) => json!({"type": "ended", "with": format!("{ending:?}")}),
        }
    }

    async fn hear(&self, kind: &str) -> Value {
        let heard = self.next().await;
        assert_eq!(heard["type"], kind, "{heard}");
        heard
    }

    fn hears_nothing(&self) {
        let heard = self.session.try_next();
        assert!(heard.is_none(), "{heard:?}");
    }

    fn say(&self, message: &Value) {
        let line = message.to_string();
        assert!(
            self.session.handle(Request::parse(line.as_bytes(), &Limits::default()).expect("a request"), &Span::NONE)
        );
    }
}

fn room() -> RoomName {
    RoomName::parse("r").expect("a name")
}

fn value(frame: &Frame) -> Value {
    serde_json::from_slice(&frame.text()).expect("JSON")
}

/// Waits until the links between all of them are up.
async fn linked(nodes: &[&Node]) {
    until(|| nodes.iter().all(|node| node.cluster.nodes().len() == nodes.len() - 1)).await;
}

/// Lets nothing get from one node of these pairs to the other, nor back, and everything between others.
fn part(bus: &Memory, pairs: &[[&Node; 2]]) {
    let ids = pairs.iter().map(|pair| pair.map(|node| node.cluster.id()));
    bus.part(ids.flat_map(|[one, other]| [[one, other], [other, one]]).collect::<Vec<_>>());
}

/// Lets the clock of the test move on until something holds.
async fn until(holds: impl Fn() -> bool) {
    let begun = tokio::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it does not come to hold");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn moderator() -> Rights {
    Rights { moderate: true, ..Rights::MEMBER }
}

#[tokio::test(start_paused = true)]
async fn each_node_records_what_passes_through_it() {
    use crate::timeline::Event as Noted;
    let bus = Memory::default();
    let nodes = Node::pair(&bus).await;
    let (a, b) = (nodes[0].member().await, nodes[1].member().await);
    a.hear("peerJoined").await;
    b.say(&json!({"type": "description", "id": 1, "to": a.peer, "description": {"type": "offer", "sdp": "v=0\r\n"}}));
    a.hear("description").await;
    a.say(&json!({"type": "candidate", "id": 1, "to": b.peer, "candidate": null}));
    b.hear("ok").await;
    b.hear("candidate").await;
    b.say(&json!({"type": "milestone", "id": 2, "peer": a.peer, "milestone": "media", "afterMs": 500}));
    b.hear("ok").await;
    drop(a);
    b.hear("peerAway").await;
    let noted = |node: &Node| -> Vec<String> {
        let (_, recording) = node.hub.recording(&room()).expect("it is open");
        let tell = |event| match event {
            Noted::Joined { transport, .. } => format!("joined {}", transport.is_some()),
            Noted::Relayed { step, outcome, .. } => format!("{} {}", step.name(), outcome.name()),
            Noted::Away { .. } => "away".to_owned(),
            Noted::Reached { reached, .. } => reached.name().to_owned(),
            other => format!("{other:?}"),
        };
        recording.expect("it is recorded").entries.iter().map(|entry| tell(entry.event)).collect()
    };
    let at_a = ["joined true", "joined false", "offer delivered", "endOfCandidates elsewhere", "away"];
    assert_eq!(noted(&nodes[0]), at_a);
    let at_b = ["joined false", "joined true", "offer elsewhere", "endOfCandidates delivered", "media", "away"];
    assert_eq!(noted(&nodes[1]), at_b);
}

#[tokio::test(start_paused = true)]
async fn a_room_is_one_room_on_three_nodes() {
    let bus = Memory::default();
    let nodes = Node::three(&bus).await;
    let a = nodes[0].member().await;
    let begun = tokio::time::Instant::now();
    let (b, joined) = nodes[1].join(Rights::MEMBER).await;
    assert_eq!(joined["peers"][0]["peer"], a.peer, "the picture is whole");
    assert!(begun.elapsed() < ENTER / 10, "nobody is waited for who has answered");
    assert_eq!(joined["peers"][0]["polite"], true);
    assert_eq!(a.hear("peerJoined").await["polite"], false);
    let (c, joined) = nodes[2].join(Rights::MEMBER).await;
    assert_eq!(joined["peers"].as_array().map(Vec::len), Some(2));
    for member in [&a, &b] {
        assert_eq!(member.hear("peerJoined").await["peer"], c.peer);
    }
    a.say(&json!({"type": "message", "id": 1, "to": c.peer, "data": "to c"}));
    let heard = c.hear("message").await;
    assert_eq!((&heard["from"], &heard["data"]), (&json!(a.peer), &json!("to c")));
    assert_eq!(a.hear("ok").await["id"], 1);
    b.say(&json!({"type": "message", "id": 1, "data": "to all"}));
    assert_eq!(b.hear("ok").await["id"], 1);
    for member in [&a, &c] {
        assert_eq!(member.hear("message").await["data"], "to all");
    }
    b.say(&json!({"type": "metadata", "id": 2, "metadata": {"b": 2}}));
    assert_eq!(a.hear("peerUpdated").await["metadata"], json!({"b": 2}));
    b.say(&json!({"type": "leave", "id": 3}));
    c.hear("peerUpdated").await;
    for member in [&a, &c] {
        let left = member.hear("peerLeft").await;
        assert_eq!((&left["peer"], &left["reason"]), (&json!(b.peer), &json!("left")));
    }
    a.say(&json!({"type": "message", "id": 2, "to": b.peer, "data": 0}));
    assert_eq!(a.hear("error").await["code"], "peerGone");
    drop(a);
    c.hear("peerAway").await;
    c.hears_nothing();
}

#[tokio::test(start_paused = true)]
async fn two_who_open_a_room_at_once_come_to_know_of_each_other() {
    let bus = Memory::default();
    let [x, y] = Node::pair(&bus).await;
    let (a, b) = tokio::join!(x.member(), y.member());
    until(|| x.roster().len() == 2 && x.roster() == y.roster()).await;
    let heard = [&a, &b].map(|member| member.session.try_next().is_some());
    assert!(heard.contains(&true), "who did not find the other in its picture was told");
}

#[tokio::test(start_paused = true)]
async fn messages_arrive_once_and_in_order_over_a_bus_that_loses_and_doubles() {
    for seed in 1..=10 {
        let bus = Memory::default();
        let nodes = [Node::start(&bus), Node::start(&bus), Node::start(&bus)];
        linked(&[&nodes[0], &nodes[1], &nodes[2]]).await;
        bus.fail(Some(Faults { seed, lost: 5, doubled: 5 }));
        let mut members = vec![];
        for node in &nodes {
            members.push(node.member().await);
        }
        until(|| nodes.iter().all(|node| node.roster().len() == 3 && node.roster() == nodes[0].roster())).await;
        for number in 1..=40 {
            for (at, member) in members.iter().enumerate() {
                let to = &members[(at + 1) % 3].peer;
                member.say(&json!({"type": "message", "id": 2 * number, "to": to, "data": number}));
                member.say(&json!({"type": "message", "id": 2 * number + 1, "data": number}));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for member in &members {
            let mut heard: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            let mut answered = 0;
            while answered < 80 || heard.values().map(Vec::len).sum::<usize>() < 120 {
                let message = member.next().await;
                match message["type"].as_str() {
                    Some("message") => {
                        let from = message["from"].as_str().expect("a peer").to_owned();
                        heard.entry(from).or_default().push(message["data"].as_u64().expect("a number"));
                    }
                    Some("ok") => answered += 1,
                    Some("peerJoined") => {}
                    _ => panic!("seed {seed}: {message}"),
                }
            }
            for numbers in heard.values() {
                assert!(numbers.is_sorted(), "seed {seed}: {numbers:?}");
                assert!([40, 80].contains(&numbers.len()), "seed {seed}: {numbers:?}");
            }
            member.hears_nothing();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_at_a_lost_node_is_away_and_back_or_left_in_the_end() {
    let bus = Memory::default();
    let [x, y] = Node::pair(&bus).await;
    let a = x.member().await;
    let b = y.member().await;
    a.hear("peerJoined").await;
    bus.cut(true);
    assert_eq!(a.hear("peerAway").await["peer"], b.peer);
    assert_eq!(b.hear("peerAway").await["peer"], a.peer);
    a.say(&json!({"type": "message", "id": 1, "to": b.peer, "data": 0}));
    assert_eq!(a.hear("error").await["code"], "queueFull");
    bus.cut(false);
    assert_eq!(a.hear("peerBack").await["peer"], b.peer);
    b.hear("peerBack").await;
    a.say(&json!({"type": "message", "id": 2, "to": b.peer, "data": 0}));
    b.hear("message").await;
    a.hear("ok").await;
    y.task.abort();
    a.hear("peerAway").await;
    let left = a.hear("peerLeft").await;
    assert_eq!((&left["peer"], &left["reason"]), (&json!(b.peer), &json!("nodeLost")));
    assert!(x.cluster.status().nodes == 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_takes_its_members_along_at_once() {
    let bus = Memory::default();
    let [x, y] = Node::pair(&bus).await;
    let a = x.member().await;
    let _b = y.member().await;
    a.hear("peerJoined").await;
    let before = tokio::time::Instant::now();
    y.cluster.stop().await;
    assert_eq!(a.hear("peerLeft").await["reason"], "nodeLost");
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn what_changed_while_the_bus_was_away_is_told_when_it_is_there_again() {
    let bus = Memory::default();
    let [x, y] = Node::pair(&bus).await;
    let (a, a2) = (x.member().await, x.member().await);
    let b = y.member().await;
    bus.cut(true);
    a2.say(&json!({"type": "leave"}));
    let c = y.member().await;
    b.say(&json!({"type": "metadata", "metadata": {"new": true}}));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let d = x.member().await;
    bus.cut(false);
    until(|| x.roster() == y.roster() && x.roster().len() == 4).await;
    let present = |peer: &str| x.roster().contains_key(peer);
    assert!(present(&a.peer) && present(&b.peer) && present(&c.peer) && present(&d.peer));
    assert!(x.roster().values().all(|state| *state == PeerState::Here));
}

#[tokio::test(start_paused = true)]
async fn rooms_opened_on_both_sides_of_a_cut_become_one() {
    let bus = Memory::default();
    bus.cut(true);
    let (x, y) = (Node::start(&bus), Node::start(&bus));
    let a = x.member().await;
    let b = y.member().await;
    bus.cut(false);
    assert_eq!(a.hear("peerJoined").await["peer"], b.peer);
    assert_eq!(b.hear("peerJoined").await["peer"], a.peer);
}

#[tokio::test(start_paused = true)]
async fn a_moderator_moderates_wherever_the_others_are() {
    let bus = Memory::default();
    let [x, y] = Node::pair(&bus).await;
    let (mo, _) = x.join(moderator()).await;
    let b = y.member().await;
    mo.hear("peerJoined").await;
    let guest = Rights { join: false, ..Rights::MEMBER };
    let (g, waiting) = y.join(guest).await;
    assert_eq!(waiting["type"], "waiting");
    assert_eq!(mo.hear("knock").await["peer"], g.peer);
    mo.say(&json!({"type": "admit", "id": 1, "peer": g.peer}));
    assert_eq!(mo.hear("peerJoined").await["peer"], g.peer);
    assert_eq!(mo.hear("ok").await["id"], 1);
    let joined = g.hear("joined").await;
    assert_eq!(joined["peers"].as_array().map(Vec::len), Some(2));
    b.hear("peerJoined").await;
    let (h, _) = y.join(guest).await;
    mo.hear("knock").await;
    mo.say(&json!({"type": "refuse", "id": 2, "peer": h.peer}));
    assert_eq!(mo.hear("peerLeft").await["reason"], "kicked");
    assert_eq!(mo.hear("ok").await["id"], 2);
    assert!(h.next().await["with"].as_str().is_some_and(|with| with.contains("Forbidden")));
    mo.say(&json!({"type": "kick", "id": 3, "peer": b.peer, "reason": "en\nough"}));
    assert_eq!(mo.hear("peerLeft").await["peer"], b.peer);
    assert_eq!(mo.hear("ok").await["id"], 3);
    assert!(b.next().await["with"].as_str().is_some_and(|with| with.contains("this peer: en ough")));
    mo.say(&json!({"type": "kick", "id": 4, "peer": b.peer}));
    assert_eq!(mo.hear("error").await["code"], "peerGone");
    mo.say(&json!({"type": "lock", "id": 5, "locked": true}));
    assert_eq!(mo.hear("roomUpdated").await["locked"], true);
    g.hear("peerLeft").await;
    assert_eq!(g.hear("roomUpdated").await["locked"], true);
    let z = Node::start(&bus);
    linked(&[&x, &y, &z]).await;
    let late = room();
    let _entering = z.hub.enter(&late).await.expect("there may be rooms");
    let line = br#"{"type":"join"}"#;
    let Ok(Request { command: Command::Join(join), .. }) = Request::parse(line, &Limits::default()) else { panic!() };
    let refused = z.hub.join(&late, &join, None, Transport::WebTransport).map(|_| ()).map_err(|refusal| refusal.code);
    assert_eq!(refused, Err(Code::RoomLocked), "the lock was told with the roster");
}

#[tokio::test(start_paused = true)]
async fn a_room_is_locked_at_all_nodes_or_at_none_when_its_last_member_leaves_while_another_is_admitted() {
    let bus = Memory::default();
    let [x, y, z] = Node::three(&bus).await;
    let (mo, _) = x.join(moderator()).await;
    let guest = Rights { join: false, ..Rights::MEMBER };
    let ((g, _), (_h, _)) = (y.join(guest).await, z.join(guest).await);
    for _ in 0..2 {
        mo.hear("knock").await;
    }
    mo.say(&json!({"type": "lock", "locked": true}));
    let locked = |node: &Node| node.hub.with_hall(&room(), |hall| hall.room.is_locked());
    until(|| [&x, &y, &z].iter().all(|node| locked(node) == Some(true))).await;
    // For the third node the room is without members for a moment, for the second one it never is.
    mo.say(&json!({"type": "admit", "peer": g.peer}));
    mo.say(&json!({"type": "leave"}));
    while g.next().await["type"] != "peerLeft" {}
    until(|| z.hub.with_hall(&room(), |hall| hall.room.has(g.session.peer())) == Some(true)).await;
    until(|| locked(&y) == Some(true) && locked(&z) == Some(true)).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_said_again_is_not_answered_before_the_other_node_has() {
    let bus = Memory::default();
    let [x, y] = Node::pair(&bus).await;
    let a = x.member().await;
    let b = y.member().await;
    a.hear("peerJoined").await;
    bus.cut(true);
    let message = json!({"type": "message", "id": 1, "to": b.peer, "data": 0});
    a.say(&message);
    a.say(&message);
    a.hears_nothing();
    assert_eq!(a.hear("error").await["code"], "queueFull", "there is one answer, and it is not ok");
    a.say(&message);
    a.hear("peerAway").await;
    assert_eq!(a.next().await["type"], "ok", "as for any id that was handled");
}

#[tokio::test(start_paused = true)]
async fn what_was_for_all_and_is_lost_is_counted_where_it_was_to_arrive() {
    let bus = Memory::default();
    let [x, y] = Node::pair(&bus).await;
    let a = x.member().await;
    let b = y.member().await;
    a.hear("peerJoined").await;
    bus.cut(true);
    a.say(&json!({"type": "message", "data": "on its way"}));
    a.hear("peerAway").await;
    a.say(&json!({"type": "message", "data": "nowhere to go"}));
    bus.cut(false);
    a.hear("peerBack").await;
    b.hear("peerAway").await;
    b.hear("peerBack").await;
    let ended = b.next().await;
    assert!(ended["with"].as_str().is_some_and(|with| with.contains("SlowConsumer")), "{ended}");
    let ticket = b.session.seat.quietly(|seat| seat.ticket());
    let resume = crate::protocol::Resume { ticket: Some(ticket), seq: 0, token: None };
    drop(b);
    let (_, joined) = y.hub.resume(&room(), &resume, None, Transport::WebTransport).expect("the seat is there");
    assert_eq!(value(&joined)["lost"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_full_refuses_payloads_and_goes_on() {
    let bus = Memory::default();
    let (x, y) = (Node::with(&bus, 20_000), Node::with(&bus, 20_000));
    linked(&[&x, &y]).await;
    let a = x.member().await;
    let b = y.member().await;
    a.hear("peerJoined").await;
    let data = "x".repeat(1000);
    for id in 1..=30 {
        a.say(&json!({"type": "message", "id": id, "to": b.peer, "data": data}));
    }
    let mut answers = BTreeMap::new();
    for _ in 1..=30 {
        let answer = a.next().await;
        let code = answer["code"].as_str().or(answer["type"].as_str()).expect("text").to_owned();
        *answers.entry(code).or_insert(0) += 1;
    }
    assert!(answers["ok"] >= 10 && answers["queueFull"] >= 10, "{answers:?}");
    for _ in 0..answers["ok"] {
        b.hear("message").await;
    }
    b.hears_nothing();
    assert_eq!(x.cluster.nodes().len(), 1, "the link is up");
}

#[tokio::test(start_paused = true)]
async fn what_is_for_all_and_has_no_room_on_a_link_is_told_although_the_link_lives() {
    let bus = Memory::default();
    let (x, y) = (Node::with(&bus, 20_000), Node::with(&bus, 20_000));
    linked(&[&x, &y]).await;
    let a = x.member().await;
    let b = y.member().await;
    a.hear("peerJoined").await;
    for id in 1..=30 {
        a.say(&json!({"type": "message", "id": id, "data": "x".repeat(1000)}));
        assert_eq!(a.hear("ok").await["id"], id);
    }
    let mut heard = 0;
    let ended = loop {
        let message = b.next().await;
        match message["type"].as_str() {
            Some("message") => heard += 1,
            _ => break message,
        }
    };
    assert!(ended["with"].as_str().is_some_and(|with| with.contains("SlowConsumer")), "{ended}");
    let ticket = b.session.seat.quietly(|seat| seat.ticket());
    let resume = crate::protocol::Resume { ticket: Some(ticket), seq: heard, token: None };
    drop(b);
    a.hear("peerAway").await;
    let (session, joined) = y.hub.resume(&room(), &resume, None, Transport::WebTransport).expect("the seat is there");
    let rest = std::iter::from_fn(|| session.try_next()).count() as u64;
    assert_eq!(value(&joined)["lost"].as_u64().map(|lost| lost + heard + rest), Some(30), "{heard} and {rest}");
    assert_eq!((x.cluster.nodes().len(), y.cluster.nodes().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn presence_that_does_not_fit_is_made_up_for_by_the_whole_roster() {
    let bus = Memory::default();
    let (x, y) = (Node::with(&bus, 4_000), Node::with(&bus, 4_000));
    linked(&[&x, &y]).await;
    let a = x.member().await;
    let b = y.member().await;
    a.hear("peerJoined").await;
    bus.cut(true);
    for number in 1..=50 {
        a.say(&json!({"type": "metadata", "metadata": {"number": number}}));
    }
    bus.cut(false);
    while b.hear("peerUpdated").await["metadata"]["number"] != 50 {}
    linked(&[&x, &y]).await;
}

#[tokio::test(start_paused = true)]
async fn many_rooms_find_one_another_over_a_link_that_takes_few_at_a_time() {
    let bus = Memory::default();
    let nodes = [Node::with(&bus, 30_000), Node::with(&bus, 30_000)];
    linked(&[&nodes[0], &nodes[1]]).await;
    let line = format!(r#"{{"type":"join","metadata":{{"a":"{}"}}}}"#, "x".repeat(300));
    let Ok(Request { command: Command::Join(join), .. }) = Request::parse(line.as_bytes(), &Limits::default()) else {
        panic!("a join")
    };
    let rooms: Vec<_> = (0..300).map(|number| RoomName::parse(&format!("r{number}")).expect("a name")).collect();
    let mut members = vec![];
    let join_all = |node: &Node, rooms: &[RoomName]| -> Vec<Session> {
        let join = |room| node.hub.join(room, &join, None, Transport::WebTransport).expect("there may be rooms").0;
        rooms.iter().map(join).collect()
    };
    let is_whole = |node: &Node| {
        let has_both = |room: &RoomName| node.hub.with_hall(room, |hall| hall.room.len() == 2) == Some(true);
        rooms.iter().all(has_both)
    };
    // Some are known to be shared when the bus fails, the others are opened meanwhile.
    for node in &nodes {
        for few in rooms[..150].chunks(10) {
            members.extend(join_all(node, few));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    bus.cut(true);
    tokio::time::sleep(Duration::from_secs(10)).await;
    for node in &nodes {
        members.extend(join_all(node, &rooms[150..]));
    }
    bus.cut(false);
    until(|| nodes.iter().all(is_whole)).await;
    assert!(nodes.iter().all(|node| node.cluster.nodes().len() == 1), "the link has not failed for it");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_while_it_enters_leaves_nothing() {
    let bus = Memory::default();
    let [x, y] = Node::pair(&bus).await;
    let a = x.member().await;
    bus.fail(Some(Faults { seed: 1, lost: 1, doubled: 1 }));
    let given_up = tokio::time::timeout(Duration::from_millis(1), y.hub.enter(&room())).await.is_err();
    assert!(given_up && y.hub.room_count() == 0);
    bus.fail(None);
    let b = y.member().await;
    assert_eq!(a.hear("peerJoined").await["peer"], b.peer);
    b.say(&json!({"type": "leave"}));
    a.hear("peerLeft").await;
    until(|| x.ties() == 0 && y.hub.room_count() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_room_with_nobody_elsewhere_is_entered_at_once_and_a_silent_node_is_not_waited_for() {
    let bus = Memory::default();
    let x = Node::start(&bus);
    let begun = tokio::time::Instant::now();
    let a = x.member().await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "alone");
    a.say(&json!({"type": "leave"}));
    let y = Node::start(&bus);
    linked(&[&x, &y]).await;
    bus.unplug(y.cluster.id());
    let begun = tokio::time::Instant::now();
    x.member().await;
    assert_eq!(begun.elapsed(), ENTER);
}
