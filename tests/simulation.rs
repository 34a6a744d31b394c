//! Rooms, seats and client state machines under hostile transports, all chance from one seed.
//!
//! The real hub runs on a clock that stands still unless the simulation moves it. Around it are clients as the protocol
//! describes them, joined to it by links that lose what is on the way when they break, keep delivering after a takeover, stall,
//! and break at every possible point: before a request arrived, after it was handled, before its answer was read.
//!
//! At the end of each run every client is let through, and then must hold:
//! - no double, no strangers, order per pair: what a client's application got from another is a growing sequence of numbers;
//! - no silent loss: a directed message answered `ok` was delivered, one never delivered was answered `error`, unless the
//!   recipient was told by `lost` or its seat was given up;
//! - no hole in `seq`;
//! - one order of presence: `revision` grows, and all rosters equal the room;
//! - no ghosts: who left or timed out is in no roster;
//! - bounded memory: no queue ever held more than its limit, answers aside.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use wigwag::hub::{Hub, Policy, Session};
use wigwag::outbox::Output;
use wigwag::protocol::{Code, Command, Limits, Request, RoomName, Transport};

const WINDOW: Duration = Duration::from_secs(30);

/// One transport between a client and the hub.
struct Link {
    /// Which of the client's attempts it is.
    number: usize,
    /// The server's side; `None` once it has ended there.
    session: Option<Session>,
    up: VecDeque<String>,
    down: VecDeque<Value>,
    /// Whether `joined` or `resumed` was read. Before that nothing is sent: what is pending from before must go first.
    greeted: bool,
}

#[derive(Default)]
struct Client {
    name: usize,
    key: String,
    /// The present link last; earlier ones may still bring in what was on the way.
    links: Vec<Link>,
    attempts: usize,
    /// The newest attempt that brought `joined` or `resumed`; what earlier ones still bring of that kind is stale.
    greeted_by: usize,
    peer: String,
    ticket: Option<String>,
    handled: u64,
    unacked: u64,
    next_id: u64,
    /// Requests without an answer, in order.
    pending: BTreeMap<u64, Value>,
    /// The others: the version of their metadata, and whether they are here.
    roster: BTreeMap<String, (i64, bool)>,
    revision: u64,
    version: i64,
    resumes: u64,
    lost: u64,
    /// What the application got: sender and number, in order.
    got: Vec<(String, u64)>,
    next_number: u64,
    /// What became of each directed message: recipient, number, and the answer.
    sent: HashMap<u64, (String, u64, Option<bool>)>,
    gone: bool,
}

struct World {
    hub: std::sync::Arc<Hub>,
    room: RoomName,
    limits: Limits,
    rng: Rng,
    clients: Vec<Client>,
    /// Peers whose seat was given up, by `leave` or by the window.
    departed: Vec<String>,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let limits = Limits {
            queue_messages: *rng.choice(&[4usize, 16, 2048]).expect("not empty"),
            queue_bytes: *rng.choice(&[2_000usize, 1 << 20]).expect("not empty"),
            messages_per_second: 1_000_000,
            burst: 1_000_000,
            ..Limits::default()
        };
        let hub = Hub::new(Policy {
            limits: limits.clone(),
            rooms: 10,
            heartbeat: Duration::from_secs(10),
            resume_window: WINDOW,
            ice_servers: Default::default(),
        });
        let clients = (0..rng.usize(2..=4))
            .map(|name| Client { name, key: format!("key-{seed:020}-{name}"), ..Client::default() })
            .collect();
        let room = RoomName::parse("sim").expect("a name");
        World { hub, room, limits, rng, clients, departed: vec![], log: vec![] }
    }

    /// One thing happens.
    async fn step(&mut self) {
        let who = self.rng.usize(..self.clients.len());
        match self.rng.u32(..100) {
            0..24 => self.say(who),
            24..44 => self.carry_up(who),
            44..66 => self.carry_down(who),
            66..84 => self.read(who),
            84..90 => self.break_link(who),
            90..97 => self.connect(who),
            97 if self.rng.bool() => self.update(who),
            97 if self.rng.bool() => self.double_join(who),
            97 => self.drain_queue(who),
            98 => {
                let seconds = self.rng.u64(..20);
                tokio::time::advance(Duration::from_secs(seconds)).await;
                tokio::task::yield_now().await;
            }
            _ if self.rng.u32(..8) == 0 => self.leave(who),
            _ => self.connect(who),
        }
    }

    /// The application sends a numbered message to somebody, or to all.
    fn say(&mut self, who: usize) {
        let to = {
            let others: Vec<String> = self.clients[who].roster.keys().cloned().collect();
            if others.is_empty() || self.rng.bool() { None } else { self.rng.choice(&others).cloned() }
        };
        let client = &mut self.clients[who];
        if client.peer.is_empty() || client.gone {
            return;
        }
        client.next_number += 1;
        let number = client.next_number;
        let ephemeral = to.is_none() && number.is_multiple_of(3);
        let data = json!({"from": client.peer, "number": number, "ephemeral": ephemeral});
        let mut message = json!({"type": "message", "data": data, "ephemeral": ephemeral});
        if let Some(to) = &to {
            message["to"] = json!(to);
        }
        let id = client.request(message);
        if let Some(to) = to {
            client.sent.insert(id, (to, number, None));
        }
    }

    fn update(&mut self, who: usize) {
        let client = &mut self.clients[who];
        if !client.peer.is_empty() && !client.gone {
            client.version += 1;
            let version = client.version;
            client.request(json!({"type": "metadata", "metadata": {"version": version}}));
        }
    }

    fn leave(&mut self, who: usize) {
        let client = &mut self.clients[who];
        if !client.peer.is_empty() && !client.gone {
            client.request(json!({"type": "leave"}));
        }
    }

    /// A line arrives at the server, on any link that still has one.
    fn carry_up(&mut self, who: usize) {
        let Some(at) = self.pick_link(who, |link| !link.up.is_empty() && link.session.is_some()) else { return };
        let link = &mut self.clients[who].links[at];
        let line = link.up.pop_front().expect("picked for it");
        let request = Request::parse(line.as_bytes(), &self.limits).expect("clients are well-behaved");
        let leaves = matches!(request.command, Command::Leave);
        link.session.as_ref().expect("picked for it").handle(request);
        if leaves && at + 1 == self.clients[who].links.len() {
            let peer = self.clients[who].peer.clone();
            self.departed.push(peer);
        }
    }

    /// The server writes one message to a link.
    fn carry_down(&mut self, who: usize) {
        let Some(at) = self.pick_link(who, |link| link.session.is_some()) else { return };
        let link = &mut self.clients[who].links[at];
        match link.session.as_ref().expect("picked for it").try_next() {
            None => {}
            Some(Output::Frame(frame)) => {
                link.down.push_back(serde_json::from_slice(&frame.text).expect("messages are JSON"));
            }
            Some(Output::End(ending)) => {
                self.log.push(format!("{who}: link {at} ends: {ending:?}"));
                link.session = None;
            }
        }
    }

    /// A message arrives at the client.
    fn read(&mut self, who: usize) {
        let Some(at) = self.pick_link(who, |link| !link.down.is_empty()) else { return };
        let message = self.clients[who].links[at].down.pop_front().expect("picked for it");
        let last = self.clients[who].links.len() - 1;
        self.log.push(format!("{who}: link {at} of {last} reads {message}"));
        let acks = self.rng.bool();
        let number = self.clients[who].links[at].number;
        self.clients[who].handle(&message, number, acks);
    }

    /// A transport breaks: what was on the way is lost, here or there or both.
    fn break_link(&mut self, who: usize) {
        let Some(at) = self.pick_link(who, |_| true) else { return };
        self.log.push(format!("{who}: link {at} breaks"));
        if self.rng.bool() {
            self.clients[who].links.remove(at);
        } else {
            // Only the server has noticed so far.
            let link = &mut self.clients[who].links[at];
            link.session = None;
            link.up.clear();
        }
    }

    /// The client opens a transport, because it lost the last or because it has found a better one.
    fn connect(&mut self, who: usize) {
        let client = &mut self.clients[who];
        if client.gone {
            return;
        }
        let first = match &client.ticket {
            None => json!({"type": "join", "key": client.key, "metadata": {"version": client.version}}),
            Some(ticket) => json!({"type": "resume", "ticket": ticket, "seq": client.handled}),
        }
        .to_string();
        let request = Request::parse(first.as_bytes(), &self.limits).expect("well-formed");
        let opened = match request.command {
            Command::Join(join) => self.hub.join(&self.room, &join, None, Transport::EventStream),
            Command::Resume(resume) => self.hub.resume(&self.room, &resume, None, Transport::EventStream),
            _ => unreachable!("one of the two"),
        };
        match opened {
            Ok((session, greeting)) => {
                let greeting = serde_json::from_slice(&greeting.text).expect("JSON");
                client.attempts += 1;
                client.links.push(Link {
                    number: client.attempts,
                    session: Some(session),
                    up: VecDeque::new(),
                    down: VecDeque::from([greeting]),
                    greeted: false,
                });
                if client.links.len() > 4 {
                    client.links.remove(0);
                }
            }
            Err(refusal) => {
                self.log.push(format!("{who}: refused: {refusal:?}"));
                if !client.peer.is_empty() {
                    self.departed.push(client.peer.clone());
                }
                client.gone = true;
                client.links.clear();
            }
        }
    }

    /// A `join` that was on the way for long arrives: it must not take the seat from whoever has resumed since.
    fn double_join(&mut self, who: usize) {
        let client = &mut self.clients[who];
        if client.gone || client.resumes == 0 {
            return;
        }
        let first = json!({"type": "join", "key": client.key, "metadata": {"version": 0}}).to_string();
        let request = Request::parse(first.as_bytes(), &self.limits).expect("well-formed");
        let Command::Join(join) = request.command else { unreachable!("it is one") };
        match self.hub.join(&self.room, &join, None, Transport::EventStream) {
            Err(refusal) => assert!(matches!(refusal.code, Code::Replaced | Code::ResumeExpired), "{refusal:?}"),
            // Its seat was given up long ago: a new one, which is left again.
            Ok((session, _)) => {
                assert_ne!(session.peer().to_string(), client.peer, "a used join key has taken the seat");
                session.handle(Request { id: None, command: Command::Leave });
            }
        }
    }

    /// The server writes all that waits: no more than a queue may hold, answers aside.
    fn drain_queue(&mut self, who: usize) {
        let Some(at) = self.pick_link(who, |link| link.session.is_some()) else { return };
        let link = &mut self.clients[who].links[at];
        let session = link.session.as_ref().expect("picked for it");
        let mut waiting = Vec::new();
        while let Some(Output::Frame(frame)) = session.try_next() {
            waiting.push(serde_json::from_slice::<Value>(&frame.text).expect("messages are JSON"));
        }
        let queued = waiting.iter().filter(|message| message["type"] != "ok" && message["type"] != "error").count();
        assert!(queued <= self.limits.queue_messages, "{queued} messages in a queue of {}", self.limits.queue_messages);
        link.down.extend(waiting);
    }

    fn pick_link(&mut self, who: usize, fits: impl Fn(&Link) -> bool) -> Option<usize> {
        let links = &self.clients[who].links;
        let fitting: Vec<usize> = (0..links.len()).filter(|&at| fits(&links[at])).collect();
        self.rng.choice(&fitting).copied()
    }

    /// Everybody who is not gone gets a transport that works until nothing is left to say.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for who in 0..self.clients.len() {
                if self.clients[who].gone {
                    continue;
                }
                let fresh =
                    self.clients[who].links.last().is_none_or(|link| link.session.is_none() && link.down.is_empty());
                if fresh {
                    self.connect(who);
                    quiet = false;
                }
                while !self.clients[who].gone && self.flow(who) {
                    quiet = false;
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// Moves whatever can be moved on a client's present link, reading before writing, acknowledging all.
    fn flow(&mut self, who: usize) -> bool {
        let last = self.clients[who].links.len() - 1;
        self.clients[who].links.drain(..last);
        let client = &mut self.clients[who];
        let link = &mut client.links[0];
        if let Some(message) = link.down.pop_front() {
            self.log.push(format!("{who}: settling, reads {message}"));
            let number = link.number;
            client.handle(&message, number, true);
            return true;
        }
        if link.session.is_some() {
            self.carry_down(who);
            let link = &self.clients[who].links[0];
            if !link.down.is_empty() || link.session.is_none() {
                return true;
            }
            if !link.up.is_empty() {
                self.carry_up(who);
                return true;
            }
        }
        false
    }

    fn check(&self) {
        let present: Vec<&Client> =
            self.clients.iter().filter(|client| !client.gone && !client.peer.is_empty()).collect();
        for client in &present {
            let others: BTreeMap<_, _> = present
                .iter()
                .filter(|other| other.peer != client.peer)
                .map(|other| (other.peer.clone(), (other.version, true)))
                .collect();
            assert_eq!(client.roster, others, "client {} has another picture of the room", client.name);
            assert!(client.pending.is_empty(), "client {} was never answered: {:?}", client.name, client.pending);
        }
        for client in &self.clients {
            let mut last: HashMap<&str, u64> = HashMap::new();
            for (from, number) in &client.got {
                let before = last.insert(from, *number).unwrap_or(0);
                assert!(before < *number, "client {} got {number} after {before} from {from}", client.name);
            }
            for (to, number, answer) in client.sent.values() {
                let Some(recipient) = self.clients.iter().find(|other| &other.peer == to) else { continue };
                let arrived = recipient.got.contains(&(client.peer.clone(), *number));
                match answer {
                    Some(true) if !recipient.gone && recipient.lost == 0 => {
                        assert!(arrived, "{} -> {}: {number} was accepted and lost", client.name, recipient.name);
                    }
                    Some(false) => {
                        assert!(!arrived, "{} -> {}: {number} was refused and came", client.name, recipient.name)
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Client {
    /// Sends a request under a new id; it is sent again after each resume until it is answered.
    fn request(&mut self, mut message: Value) -> u64 {
        self.next_id += 1;
        message["id"] = json!(self.next_id);
        if let Some(link) = self.links.last_mut().filter(|link| link.greeted) {
            link.up.push_back(message.to_string());
        }
        self.pending.insert(self.next_id, message);
        self.next_id
    }

    fn handle(&mut self, message: &Value, link: usize, acks: bool) {
        let kind = message["type"].as_str().expect("every message has a type");
        if matches!(kind, "joined" | "resumed") {
            // Who tries again has given the earlier attempt up: its answer, coming late, may be about a seat that is gone.
            if link == self.attempts {
                self.greeted_by = link;
                self.greeted(kind, message);
            }
            return;
        }
        let ephemeral = message["data"]["ephemeral"] == true;
        assert_eq!(message["seq"].is_null(), ephemeral, "only what is ephemeral has no number: {message}");
        let Some(seq) = message["seq"].as_u64() else { return };
        if seq <= self.handled {
            return;
        }
        // What a link brings counts only if its greeting did; an overtaken one may be behind, but never ahead.
        let greeted = self.links.iter().any(|one| one.number == link && one.greeted);
        if !greeted || (link < self.greeted_by && seq > self.handled + 1) {
            return;
        }
        assert_eq!(seq, self.handled + 1, "client {}: a hole before {message}", self.name);
        self.handled = seq;
        self.unacked += 1;
        self.apply(kind, message);
        if (acks || self.unacked >= 32)
            && let Some(link) = self.links.last_mut().filter(|link| link.greeted)
        {
            self.unacked = 0;
            link.up.push_back(json!({"type": "ack", "seq": self.handled}).to_string());
        }
    }

    fn greeted(&mut self, kind: &str, message: &Value) {
        self.ticket = message["ticket"].as_str().map(str::to_owned);
        if kind == "joined" {
            self.peer = message["self"]["peer"].as_str().expect("an id").to_owned();
            self.revision = message["room"]["revision"].as_u64().expect("a number");
            self.lost += message["lost"].as_u64().unwrap_or(0);
            let replay_from = message["replayFrom"].as_u64().expect("a number");
            self.handled = self.handled.max(replay_from - 1);
            let peers = message["peers"].as_array().expect("a list");
            self.roster = peers.iter().map(entry).collect();
        } else {
            self.resumes += 1;
            let replay_from = message["replayFrom"].as_u64().expect("a number");
            assert!(replay_from <= self.handled + 1, "client {}: a hole at {message}", self.name);
        }
        let Some(link) = self.links.iter_mut().find(|link| link.number == self.greeted_by) else { return };
        link.greeted = true;
        link.up.clear();
        link.up.extend(self.pending.values().map(Value::to_string));
    }

    fn apply(&mut self, kind: &str, message: &Value) {
        match kind {
            "ok" | "error" => {
                let id = message["id"].as_u64().expect("all requests have ids");
                if let Some(request) = self.pending.remove(&id)
                    && request["type"] == "leave"
                {
                    self.gone = true;
                    self.links.clear();
                }
                // The first answer counts.
                if let Some((.., answer @ None)) = self.sent.get_mut(&id) {
                    *answer = Some(kind == "ok");
                }
            }
            "message" => {
                let from = message["from"].as_str().expect("set by the server");
                assert_eq!(message["data"]["from"], *from, "a stranger's message");
                self.got.push((from.to_owned(), message["data"]["number"].as_u64().expect("a number")));
            }
            _ => {
                let revision = message["revision"].as_u64().expect("presence has a revision");
                // What is older than the picture is in it already.
                if revision <= self.revision {
                    return;
                }
                self.revision = revision;
                let peer = message["peer"].as_str().expect("an id").to_owned();
                if kind == "peerJoined" {
                    assert!(self.roster.insert(peer, entry(message).1).is_none(), "joined twice");
                } else if kind == "peerLeft" {
                    assert!(self.roster.remove(&peer).is_some(), "an unknown peer left");
                } else {
                    let (version, here) = self.roster.get_mut(&peer).expect("a known peer");
                    match kind {
                        "peerUpdated" => *version = entry(message).1.0,
                        "peerAway" => *here = false,
                        "peerBack" => *here = true,
                        other => panic!("unexpected {other}"),
                    }
                }
            }
        }
    }
}

fn entry(member: &Value) -> (String, (i64, bool)) {
    let peer = member["peer"].as_str().expect("an id").to_owned();
    let version = member["metadata"]["version"].as_i64().expect("its version");
    (peer, (version, member["state"] != "away"))
}

fn run(seed: u64) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let mut world = World::new(seed);
        let hub = std::sync::Arc::clone(&world.hub);
        let clock = tokio::spawn(async move { hub.keep_time().await });
        tokio::task::yield_now().await;
        let outcome = std::panic::AssertUnwindSafe(async {
            for _ in 0..world.rng.usize(50..400) {
                world.step().await;
            }
            world.settle();
            world.check();
            // Nobody comes back: no seat and no room may outlive the window.
            world.clients.iter_mut().for_each(|client| client.links.clear());
            tokio::time::advance(WINDOW + Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
            assert_eq!(world.hub.room_count(), 0, "a ghost keeps the room");
        });
        let outcome = futures_util::FutureExt::catch_unwind(outcome).await;
        clock.abort();
        if let Err(panic) = outcome {
            if std::env::var_os("WIGWAG_SIM_LOG").is_some() {
                world.log.iter().for_each(|line| eprintln!("{line}"));
            }
            eprintln!("the simulation failed with WIGWAG_SIM_SEED={seed} (WIGWAG_SIM_LOG=1 prints what happened)");
            std::panic::resume_unwind(panic);
        }
    });
}

/// `WIGWAG_SIM_SEEDS` sets how many, `WIGWAG_SIM_SEED` runs one alone.
#[test]
fn sessions_survive_whatever_their_transports_do() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("WIGWAG_SIM_SEED") {
        return run(seed);
    }
    for seed in 0..number("WIGWAG_SIM_SEEDS").unwrap_or(2_000) {
        run(seed);
    }
}
