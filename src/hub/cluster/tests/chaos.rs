//! Nodes that come and go, a bus that fails in every way, members that do anything: in the end everybody knows who is there, and
//! of each message its sender knows what became of it. All chance comes from a seed, which a failure names.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Node, linked, moderator, room, value};
use crate::cluster::bus::{Faults, Memory};
use crate::cluster::{LINK_BYTES, store};
use crate::hub::Session;
use crate::outbox::Output;
use crate::protocol::{Code, Limits, NodeId, Request, Resume, Ticket, Transport};
use crate::traces::Span;

const NODES: usize = 3;
const STEPS: usize = 250;

/// Bytes of a link that is soon full.
const NARROW: usize = 6000;

/// Nothing is on its way for longer.
const ON_ITS_WAY: Duration = Duration::from_secs(6);

/// For so long a seat that was lost is looked for, in seconds.
const LOOKED_FOR: u64 = 150;

/// So much is said at once now and then.
const BURST: usize = 40;

/// A member, and what it has been told.
struct Client {
    name: usize,
    node: usize,
    peer: String,
    session: Option<Session>,
    ticket: String,
    seq: u64,
    /// What came before this is in the picture.
    revision: u64,
    /// Whom it takes to be there: state and metadata.
    view: BTreeMap<String, (String, Value)>,
    /// Whether it takes the room to be locked.
    locked: bool,
    /// Numbers that have come, by sender.
    heard: BTreeMap<String, Vec<u64>>,
    /// Payloads that it was told to be lost.
    lost: u64,
    metadata: Value,
    next_id: u64,
    /// What it has sent to all, and who was there then.
    broadcasts: BTreeMap<u64, Vec<String>>,
    /// Since when it knows whom.
    known: BTreeMap<String, Instant>,
    /// Who has left, as it was told; and whether by their own wish, and after it had known them for long.
    left: BTreeMap<String, bool>,
    /// What it has sent to one other: to whom, and the answer.
    sent: BTreeMap<u64, (String, Option<bool>)>,
}

struct World {
    seed: u64,
    rng: Rng,
    bus: Memory,
    nodes: Vec<Node>,
    /// Of each link.
    bytes: usize,
    clients: Vec<Client>,
    born: usize,
    moves: usize,
    is_cut: bool,
    /// Where seats outlive their nodes, if they do. Payloads for all do not, and are not said then.
    store: Option<Arc<store::Memory>>,
    /// Seats that have.
    restored: usize,
}

impl Client {
    /// Returns whether it was read: while a seat is wanted at another node nothing is, and a client says it again when it has resumed.
    fn say(&self, message: &Value) -> bool {
        let line = message.to_string();
        let read = |session: &Session| {
            session.handle(Request::parse(line.as_bytes(), &Limits::default()).expect("a request"), &Span::NONE)
        };
        self.session.as_ref().is_some_and(read)
    }

    /// Says everything again that has no answer, as a client does when it was told that nobody knows what was handled.
    fn say_again(&self) {
        for (id, (to, _)) in self.sent.iter().filter(|(_, (_, answer))| answer.is_none()) {
            self.say(&json!({"type": "message", "id": id, "to": to, "data": id}));
        }
    }

    /// Takes in all that there is; loses the transport when it is told to.
    fn listen(&mut self, seed: u64) {
        loop {
            match self.session.as_ref().and_then(Session::try_next) {
                Some(Output::Frame(frame)) => self.take_in(&value(&frame), seed),
                Some(Output::End(_)) => self.session = None,
                None => return,
            }
        }
    }

    fn take_in(&mut self, message: &Value, seed: u64) {
        if let Some(seq) = message["seq"].as_u64() {
            assert_eq!(seq, self.seq + 1, "seed {seed}: a hole before {message}");
            self.seq = seq;
        }
        let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        if message["revision"].as_u64().is_some_and(|revision| revision <= self.revision) {
            // Who has left and is in the picture again was owed nothing meanwhile.
            if message["type"] == "peerLeft" {
                self.left.entry(text("peer")).or_insert(false);
            }
            return;
        }
        match message["type"].as_str().expect("a type") {
            "joined" => {
                self.ticket = text("ticket");
                self.seq = message["replayFrom"].as_u64().expect("a number") - 1;
                self.revision = message["room"]["revision"].as_u64().expect("a number");
                self.locked = message["room"]["locked"] == true;
                self.lost += message["lost"].as_u64().unwrap_or(0);
                let peers = message["peers"].as_array().expect("a list").iter();
                let known = peers.map(|info| {
                    let state = info["state"].as_str().unwrap_or_default().to_owned();
                    (info["peer"].as_str().unwrap_or_default().to_owned(), (state, info["metadata"].clone()))
                });
                self.view = known.collect();
                for peer in self.view.keys() {
                    self.known.entry(peer.clone()).or_insert_with(Instant::now);
                }
            }
            "roomUpdated" => self.locked = message["locked"] == true,
            "resumed" => self.ticket = text("ticket"),
            "peerJoined" => {
                self.known.insert(text("peer"), Instant::now());
                let before = self.view.insert(text("peer"), ("here".to_owned(), message["metadata"].clone()));
                assert!(before.is_none(), "seed {seed}: {message} joins twice");
            }
            "peerLeft" => {
                assert!(self.view.remove(&text("peer")).is_some(), "seed {seed}: {message} was not there");
                let since = self.known.remove(&text("peer"));
                let is_long = since.is_some_and(|since| since.elapsed() > ON_ITS_WAY);
                self.left.insert(text("peer"), message["reason"] == "left" && is_long);
            }
            "peerAway" | "peerBack" | "peerUpdated" => {
                let known = self.view.get_mut(&text("peer"));
                let known = known.unwrap_or_else(|| panic!("seed {seed}: {message} is not there"));
                match message["type"].as_str() {
                    Some("peerAway") => known.0 = "away".to_owned(),
                    Some("peerBack") => known.0 = "here".to_owned(),
                    _ => known.1 = message["metadata"].clone(),
                }
            }
            "message" => {
                let number = message["data"].as_u64().expect("a number");
                let heard = self.heard.entry(text("from")).or_default();
                let in_order = heard.last().is_none_or(|last| *last < number);
                assert!(in_order, "seed {seed}: {number} from {} after {heard:?}", text("from"));
                heard.push(number);
            }
            kind @ ("ok" | "error") => {
                let Some((_, answer)) = message["id"].as_u64().and_then(|id| self.sent.get_mut(&id)) else { return };
                assert!(answer.is_none(), "seed {seed}: answered twice: {message}");
                *answer = Some(kind == "ok");
            }
            other => panic!("seed {seed}: unexpected {other}"),
        }
    }
}

impl World {
    fn new(seed: u64, store: Option<Arc<store::Memory>>) -> Self {
        let (bus, mut rng) = (Memory::default(), Rng::with_seed(seed));
        let bytes = if rng.u8(0..4) == 0 { NARROW } else { LINK_BYTES };
        let nodes = (0..NODES).map(|_| start(&bus, &mut rng, bytes, store.as_ref())).collect();
        World { seed, rng, bus, nodes, bytes, clients: vec![], born: 0, moves: 0, is_cut: false, store, restored: 0 }
    }

    async fn bear(&mut self) {
        let node = self.rng.usize(0..NODES);
        let (member, joined) = match self.nodes[node].try_join(moderator()).await {
            Ok(born) => born,
            Err(refusal) => return assert_eq!(refusal.code, Code::RoomLocked, "seed {}", self.seed),
        };
        let (view, heard, sent, broadcasts, known, left) = Default::default();
        let metadata = json!({"a": 1});
        let (name, peer) = (self.born, member.peer);
        let mut client = Client {
            name,
            node,
            peer,
            session: Some(member.session),
            ticket: String::new(),
            seq: 0,
            revision: 0,
            view,
            locked: false,
            heard,
            lost: 0,
            metadata,
            next_id: 1,
            sent,
            broadcasts,
            known,
            left,
        };
        client.take_in(&joined, self.seed);
        self.born += 1;
        self.clients.push(client);
    }

    fn chosen(&mut self) -> Option<usize> {
        (!self.clients.is_empty()).then(|| self.rng.usize(0..self.clients.len()))
    }

    fn listen(&mut self) {
        let seed = self.seed;
        self.clients.iter_mut().for_each(|client| client.listen(seed));
    }

    /// Takes the seat up, or over, at any node; who finds none is gone.
    async fn resume(&mut self, at: usize) {
        let node = self.rng.usize(0..NODES);
        let client = &mut self.clients[at];
        if client.session.is_some() && self.rng.u8(0..4) > 0 {
            return;
        }
        client.listen(self.seed);
        let resume = Resume { ticket: Ticket::parse(&client.ticket), seq: client.seq, token: None };
        let hub = &self.nodes[node].hub;
        let fetched = hub.fetch(&room(), &resume, None).await;
        match fetched.and_then(|()| hub.resume(&room(), &resume, None, Transport::WebTransport)) {
            Ok((session, greeting)) => {
                self.moves += usize::from(client.node != node);
                (client.node, client.session) = (node, Some(session));
                client.take_in(&value(&greeting), self.seed);
                if value(&greeting)["lastId"] == 0 && self.store.is_some() {
                    client.say_again();
                }
            }
            // Its node is out of reach, or would be asked for too much: it may come again.
            Err(refusal) if refusal.code == Code::GoingAway => {}
            Err(_) => drop(self.clients.remove(at)),
        }
    }

    fn send(&mut self, at: usize) {
        let broadcast = self.rng.u8(0..3) == 0 && self.store.is_none();
        let others: Vec<String> = self.clients[at].view.keys().cloned().collect();
        let to = self.rng.choice(&others).cloned();
        let client = &mut self.clients[at];
        if client.session.is_none() {
            return;
        }
        let id = client.next_id;
        client.next_id += 1;
        match to {
            _ if broadcast => {
                let read = client.say(&json!({"type": "message", "id": id, "data": id}));
                client.broadcasts.extend(read.then_some((id, others)));
            }
            Some(to) => {
                let read = client.say(&json!({"type": "message", "id": id, "to": to, "data": id}));
                client.sent.extend(read.then_some((id, (to, None))));
            }
            None => {}
        }
    }

    /// Locks the room, or unlocks it.
    fn lock(&mut self, at: usize) {
        let locked = self.rng.bool();
        self.clients[at].say(&json!({"type": "lock", "locked": locked}));
    }

    /// A node is killed, with all who are there, and another one takes its place.
    fn replace_node(&mut self) {
        let node = self.rng.usize(0..NODES);
        self.bus.unplug(self.nodes[node].cluster.id());
        self.restored += self.nodes[node].restored();
        self.nodes[node] = start(&self.bus, &mut self.rng, self.bytes, self.store.as_ref());
        if self.store.is_none() {
            self.clients.retain(|client| client.node != node);
        }
        let lost = self.clients.iter_mut().filter(|client| client.node == node);
        lost.for_each(|client| client.session = None);
    }

    /// The store, too, fails now and then.
    fn trouble_store(&mut self) {
        let Some(store) = &self.store else { return };
        match self.rng.u8(0..6) {
            0 => store.cut(true),
            1 => store.swallow(true),
            _ => {
                store.cut(false);
                store.swallow(false);
            }
        }
    }

    async fn step(&mut self) {
        let at = self.chosen();
        match (self.rng.u8(0..40), at) {
            (0..=3, _) if self.clients.len() < 7 => self.bear().await,
            (4, Some(at)) => {
                // Who has no transport cannot say so, and is gone when the window ends.
                let client = self.clients.remove(at);
                client.say(&json!({"type": "leave"}));
            }
            (5..=6, Some(at)) => self.clients[at].session = None,
            (7..=10, Some(at)) => self.resume(at).await,
            (12, _) if self.store.is_some() => self.trouble_store(),
            (11, _) if self.store.is_some() => self.replace_node(),
            (11..=12, Some(at)) => {
                let metadata = json!({"n": self.rng.u16(..)});
                let client = &mut self.clients[at];
                if client.say(&json!({"type": "metadata", "metadata": metadata})) {
                    client.metadata = metadata;
                }
            }
            (13, _) if self.rng.bool() => {
                // Two nodes are out of each other's reach, and in that of the others.
                let apart = [0, 1].map(|_| self.nodes[self.rng.usize(0..NODES)].cluster.id());
                self.bus.part(if self.rng.bool() { vec![apart] } else { vec![] });
            }
            (13, _) => {
                self.is_cut = !self.is_cut;
                self.bus.cut(self.is_cut);
            }
            (14..=15, _) => {
                let faults = Faults { seed: self.rng.u64(1..), lost: self.rng.u64(2..6), doubled: self.rng.u64(2..6) };
                self.bus.fail(self.rng.bool().then_some(faults));
            }
            (16, _) if self.rng.u8(0..4) == 0 => self.replace_node(),
            (17..=20, _) => {
                let most = if self.rng.u8(0..4) == 0 { 7000 } else { 600 };
                tokio::time::sleep(Duration::from_millis(self.rng.u64(0..most))).await;
            }
            (21, Some(at)) if self.rng.u8(0..4) == 0 => (0..BURST).for_each(|_| self.send(at)),
            (21, Some(at)) => self.lock(at),
            (22.., Some(at)) => self.send(at),
            _ => {}
        }
        if self.rng.bool() {
            tokio::time::sleep(Duration::from_millis(self.rng.u64(0..30))).await;
        }
        self.listen();
    }

    /// Nothing is in the way any more, and everybody comes back who can.
    async fn settle(&mut self) {
        self.bus.fail(None);
        self.bus.cut(false);
        self.bus.part([]);
        self.store.iter().for_each(|store| {
            store.cut(false);
            store.swallow(false);
        });
        for second in 0.. {
            let are_there = self.clients.iter().all(|client| client.session.is_some());
            if second >= LOOKED_FOR || second >= 60 && are_there {
                break;
            }
            for at in (0..self.clients.len()).rev() {
                if self.clients[at].session.is_none() {
                    self.resume(at).await;
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.listen();
        }
    }

    fn check(&self) {
        let seed = self.seed;
        let all: BTreeMap<_, _> = self
            .clients
            .iter()
            .map(|client| (client.peer.clone(), ("here".to_owned(), client.metadata.clone())))
            .collect();
        for client in &self.clients {
            let mut others = all.clone();
            others.remove(&client.peer);
            assert_eq!(
                client.view,
                others,
                "seed {seed}: what client {} knows, at node {}, away {}",
                client.name,
                client.node,
                client.session.is_none()
            );
        }
        self.check_lock();
        for client in &self.clients {
            let left = |peer: &&String| client.left.get(*peer) == Some(&true);
            assert_eq!(all.keys().find(left), None, "seed {seed}: who is there has left, as {} was told", client.name);
        }
        let present: BTreeSet<&String> = all.keys().collect();
        for node in &self.nodes {
            let roster = node.roster();
            assert!(roster.is_empty() || roster.keys().collect::<BTreeSet<_>>() == present, "seed {seed}");
        }
        self.check_messages();
        self.check_broadcasts();
    }

    /// All nodes and all members take the room to be locked, or none.
    fn check_lock(&self) {
        let seed = self.seed;
        let locked = |node: &Node| node.hub.with_hall(&room(), |hall| hall.room.is_locked());
        let at_nodes: Vec<bool> = self.nodes.iter().filter_map(locked).collect();
        assert!(at_nodes.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: locked at the nodes: {at_nodes:?}");
        for client in &self.clients {
            assert_eq!(Some(&client.locked), at_nodes.first(), "seed {seed}: locked, to client {}", client.name);
        }
    }

    /// What was for all and has not come was told to be lost, unless one of the two had left for the other: then neither is owed it.
    fn check_broadcasts(&self) {
        for client in &self.clients {
            let mut missing = 0;
            let apart = |other: &Client| client.left.contains_key(&other.peer) || other.left.contains_key(&client.peer);
            for sender in self.clients.iter().filter(|sender| !apart(sender)) {
                let heard = client.heard.get(&sender.peer);
                let meant = sender.broadcasts.iter().filter(|(_, to)| to.contains(&client.peer));
                missing += meant.filter(|(id, _)| !heard.is_some_and(|heard| heard.contains(id))).count();
            }
            let (seed, name, lost) = (self.seed, client.name, client.lost);
            assert!(missing as u64 <= lost, "seed {seed}: {missing} are missing at {name}, which was told of {lost}");
        }
    }

    /// What was answered `ok` has come to whoever is still there; nothing was left unanswered.
    fn check_messages(&self) {
        let seed = self.seed;
        for client in &self.clients {
            for (id, (to, answer)) in &client.sent {
                let recipient = self.clients.iter().find(|other| other.peer == *to);
                let heard = recipient.map(|other| other.heard.get(&client.peer).is_some_and(|all| all.contains(id)));
                match answer {
                    Some(true) => assert_ne!(heard, Some(false), "seed {seed}: {id} of {} is lost", client.name),
                    Some(false) => {}
                    None => panic!("seed {seed}: client {} was not told what has become of {id}", client.name),
                }
            }
        }
    }
}

/// A node whose id is the seed's as well: which of two has the greater one decides who asks whom.
fn start(bus: &Memory, rng: &mut Rng, bytes: usize, store: Option<&Arc<store::Memory>>) -> Node {
    let id = NodeId::new(NonZeroU64::new(rng.u64(1..)).expect("not zero"));
    Node::of(id, bus, bytes, store.map(|store| Arc::clone(store) as Arc<dyn store::Store>))
}

/// The seeds to begin with, so many unless `WIGWAG_SIM_SEEDS` says otherwise. Begins at `WIGWAG_SIM_FROM`.
fn seeds(most: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let from = number("WIGWAG_SIM_FROM").unwrap_or(0);
    from..from + number("WIGWAG_SIM_SEEDS").unwrap_or(most)
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_rosters_converge_and_messages_are_accounted_for() {
    let (seeds, mut moves) = (seeds(100), 0);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let mut world = World::new(seed, None);
        if world.rng.bool() {
            let nodes: Vec<&Node> = world.nodes.iter().collect();
            linked(&nodes).await;
        }
        for _ in 0..STEPS {
            world.step().await;
        }
        world.settle().await;
        world.check();
        moves += world.moves;
    }
    assert!(count < 10 || moves as u64 >= count, "there are {moves} moves in {count} lives");
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_kept_seats_go_on_and_nothing_accepted_is_lost_or_doubled() {
    // Each takes its time: with a store there is much more to wait for.
    let (seeds, mut restored) = (seeds(10), 0);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let mut world = World::new(seed, Some(Arc::default()));
        for _ in 0..STEPS {
            world.step().await;
        }
        world.settle().await;
        world.check();
        restored += world.restored + world.nodes.iter().map(Node::restored).sum::<usize>();
    }
    assert!(count < 10 || restored as u64 >= 2 * count, "{restored} seats have outlived their nodes in {count} lives");
}
