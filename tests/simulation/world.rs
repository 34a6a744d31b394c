//! The hub, the clients round it, the links between them, and whatever chance does to these.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::Instant;
use wigwag::hub::{Hub, Policy, Speaker};
use wigwag::outbox::Output;
use wigwag::protocol::{Code, Command, Limits, Refusal, Request, RoomName, Transport};
use wigwag::traces::{Span, Traces};

use super::client::{Client, Role, entry};
use super::link::{Answer, Exchange, Kind, Link, Server, Stage};
use waiting::{Door, handle};

mod waiting;

pub(super) const WINDOW: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The longest that a poll may wait and be expected again.
pub(super) const LONGEST_POLL: Duration = Duration::from_secs(60 + 20);

const TRANSPORTS: [Transport; 4] =
    [Transport::WebTransport, Transport::WebSocketH1, Transport::EventStream, Transport::LongPoll];

/// More clients than this are not born, in one run, into a room that loses some.
const MOST_CLIENTS: usize = 7;

/// Far more than it takes until all has been said.
const MOST_MOVES: usize = 100_000;

pub(super) struct World {
    seed: u64,
    pub(super) hub: Arc<Hub>,
    room: RoomName,
    limits: Limits,
    pub(super) rng: Rng,
    pub(super) clients: Vec<Endpoint>,
    /// What must become of each seat, by its peer.
    seats: HashMap<String, Fate>,
    /// Each ticket's successor, as answers have told them.
    successors: HashMap<String, String>,
    door: Door,
    /// It comes to an end: nobody begins anew.
    settling: bool,
    numbers: u64,
    /// What happened, if anybody wants to know.
    pub(super) log: Option<Vec<String>>,
}

/// A client and all that is under way between it and the hub.
pub(super) struct Endpoint {
    pub(super) client: Client,
    links: Vec<Link>,
    exchanges: Vec<Exchange>,
}

impl Endpoint {
    /// The link that the client sends on.
    fn in_use(&mut self) -> Option<&mut Link> {
        let id = self.client.seat.link();
        self.links.iter_mut().find(|link| Some(link.id) == id && !link.deserted)
    }
}

/// What the simulation knows of a seat, from what it did.
#[derive(Default)]
struct Fate {
    /// What has the seat, or had it last.
    holder: u64,
    /// When it is to be given up, unless it is taken up before; `None` while it is held.
    kept_until: Option<Instant>,
    /// Its client has said `leave`.
    left: bool,
    /// A ticket has come back, so the first answer had arrived: its join key is worth nothing any more.
    ticket_shown: bool,
}

impl Fate {
    /// Whether it can still be taken up.
    fn is_kept(&self) -> bool {
        !self.left && self.kept_until.is_none_or(|until| until > Instant::now())
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let limits = Limits {
            queue_messages: *rng.choice(&[4usize, 16, 2048]).expect("not empty"),
            queue_bytes: *rng.choice(&[2_000usize, 1 << 20]).expect("not empty"),
            messages_per_second: 1_000_000,
            burst: 1_000_000,
            peers: *rng.choice(&[3, 64]).expect("not empty"),
            ..Limits::default()
        };
        let door = Door::by_chance(&mut rng, &limits);
        let limits = if door.policy.is_some() { limits } else { Limits { peers: 64, ..limits } };
        let hub = Hub::new(Policy {
            limits: limits.clone(),
            rooms: 10,
            heartbeat: HEARTBEAT,
            resume_window: WINDOW,
            ice_servers: Default::default(),
            waiting: door.policy.unwrap_or_default(),
            timelines: Default::default(),
            hook: None,
            traces: Traces::NONE,
        });
        let room = RoomName::parse("sim").expect("a name");
        let born = rng.usize(2..=4);
        let mut world = World {
            seed,
            hub,
            room,
            limits,
            rng,
            clients: vec![],
            seats: HashMap::new(),
            successors: HashMap::new(),
            door,
            settling: false,
            numbers: 0,
            log: std::env::var_os("WIGWAG_SIM_LOG").map(|_| vec![]),
        };
        (0..born).for_each(|_| world.bear());
        world
    }

    fn bear(&mut self) {
        let name = self.clients.len();
        // Most rooms have a moderator from the beginning.
        let roles = [Role::Guest, Role::Guest, Role::Member, Role::Moderator];
        let role = if name == 0 && self.rng.u32(..4) > 0 {
            Role::Moderator
        } else {
            *self.rng.choice(&roles).expect("not empty")
        };
        let client = Client::new(name, self.seed, role);
        self.clients.push(Endpoint { client, links: vec![], exchanges: vec![] });
    }

    /// One thing happens.
    pub(super) async fn step(&mut self) {
        let who = self.rng.usize(..self.clients.len());
        match self.rng.u32(..128) {
            0..16 => self.say(who),
            16..20 => self.decide(who),
            20 => self.improve(who),
            21 => self.intrude(who),
            22..44 => self.arrive(who),
            44..64 => self.serve(who),
            64..84 => self.read(who),
            84..98 => self.ask(who),
            98..102 => self.lose(who),
            102..105 => self.break_link(who),
            105..112 => self.connect(who),
            112..114 => self.stall(who),
            114..116 => self.update(who),
            116 => self.double_join(who),
            117..119 => self.drain_queue(who),
            119..121 => self.double(who),
            121..126 => self.let_time_pass().await,
            126 if self.rng.u32(..4) == 0 => self.leave(who),
            127 if self.clients.len() < MOST_CLIENTS && self.rng.u32(..4) == 0 => self.bear(),
            _ => {}
        }
    }

    fn note(&mut self, who: usize, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{who}: {}", what()));
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    // What a client does.

    /// The application sends a numbered message to somebody, or to all.
    fn say(&mut self, who: usize) {
        let others: Vec<String> = self.clients[who].client.app.roster.keys().cloned().collect();
        let to = if self.rng.bool() { self.rng.choice(&others).cloned() } else { None };
        // Somebody may know who waits.
        let to = if self.rng.u32(..16) == 0 { self.outside(who).or(to) } else { to };
        let ephemeral = self.rng.u32(..4) == 0;
        let endpoint = &mut self.clients[who];
        if !endpoint.client.is_present() {
            return;
        }
        let (number, mut message) = endpoint.client.numbered(to.as_deref(), ephemeral);
        if ephemeral && self.rng.bool() {
            message["data"]["datagram"] = json!(true);
            let over = endpoint.in_use().filter(|link| link.transport == Transport::WebTransport);
            if let Some(session) = over.and_then(|link| link.session()) {
                let text = message.to_string();
                let outbound = Request::parse_datagram(text.as_bytes(), &self.limits).expect("well-formed");
                session.handle_datagram(&outbound);
            }
        } else if let Some(id) = self.request(who, &message)
            && !ephemeral
        {
            // Whoever is known by now, and stays, is in the room when a broadcast is carried out.
            let to = to.map_or(others, |to| vec![to]);
            self.clients[who].client.app.sent.insert(id, (to, number, None));
        }
    }

    fn update(&mut self, who: usize) {
        if self.clients[who].client.is_present() {
            self.clients[who].client.app.version += 1;
            let version = self.clients[who].client.app.version;
            self.request(who, &json!({"type": "metadata", "metadata": {"version": version}}));
        }
    }

    fn leave(&mut self, who: usize) {
        if self.clients[who].client.is_present() || self.clients[who].waits() {
            self.request(who, &json!({"type": "leave"}));
            self.say_waiting(who, &json!({"type": "leave"}));
        }
    }

    fn request(&mut self, who: usize, message: &Value) -> Option<u64> {
        let endpoint = &mut self.clients[who];
        let (id, line) = endpoint.client.request(message)?;
        if let Some(link) = endpoint.in_use() {
            link.up.push_back(line);
        }
        Some(id)
    }

    /// The client opens a transport, because it lost the last or because it has found a better one.
    fn connect(&mut self, who: usize) {
        let (number, transport) = (self.number(), *self.rng.choice(&TRANSPORTS).expect("not empty"));
        let Endpoint { client, links, .. } = &mut self.clients[who];
        if client.gone {
            return;
        }
        let (id, greeting) = client.greet();
        links.push(Link::new(id, number, transport, greeting));
        self.note(who, || format!("link {number} is opened, {}", transport.name()));
    }

    /// The client sends what waits for a request, and polls.
    fn ask(&mut self, who: usize) {
        let number = self.number();
        let along = self.rng.bool();
        let wait = *self.rng.choice(&[0, 1, 25, 60]).expect("not empty");
        let Some(at) = self.pick_link(who, |link| !link.is_lasting() && !link.deserted) else { return };
        let Endpoint { client, links, exchanges } = &mut self.clients[who];
        let link = &mut links[at];
        let in_use = client.seat.link() == Some(link.id);
        let waits = client.seat.is_waiting(link.id);
        let kind = if link.is_polled() && link.polling.is_none() && (in_use || link.is_opening(&client.seat)) {
            // The first one shows whether the transport works.
            let wait = if in_use || waits { wait } else { 0 };
            let first = client.seat.poll().filter(|_| in_use).unwrap_or_else(|| link.greeting.clone());
            let rest: Vec<String> =
                if (in_use || waits) && along && link.posting.is_none() { link.up.drain(..).collect() } else { vec![] };
            link.polling = Some((number, rest.clone()));
            Kind::Poll { first, rest, wait }
        } else if in_use && link.may_post() {
            let lines: Vec<String> = link.up.drain(..).collect();
            link.posting = Some((number, lines.clone()));
            Kind::Post { ticket: client.ticket().expect("who was greeted has one"), lines }
        } else {
            return;
        };
        exchanges.push(Exchange { number, link: link.number, kind, stage: Stage::Going });
    }

    /// Something arrives at the client.
    fn read(&mut self, who: usize) {
        let answers: Vec<usize> = (0..self.clients[who].exchanges.len())
            .filter(|&at| matches!(self.clients[who].exchanges[at].stage, Stage::Coming(_)))
            .collect();
        let acks = self.rng.bool();
        if let Some(&at) = self.rng.choice(&answers)
            && self.rng.bool()
        {
            let exchange = self.clients[who].exchanges.swap_remove(at);
            return self.read_answer(who, exchange, acks);
        }
        let Some(at) = self.pick_link(who, |link| !link.down.is_empty()) else { return };
        let link = &mut self.clients[who].links[at];
        let message = link.down.pop_front().expect("picked for it");
        let number = link.number;
        if !link.deserted {
            self.read_message(who, number, &message, acks);
        }
    }

    fn read_answer(&mut self, who: usize, exchange: Exchange, acks: bool) {
        let Stage::Coming(answer) = exchange.stage else { unreachable!("only answers are read") };
        let links = &mut self.clients[who].links;
        let Some(link) = links.iter_mut().find(|link| link.number == exchange.link && !link.deserted) else { return };
        if link.polling.as_ref().is_some_and(|(number, _)| *number == exchange.number) {
            link.polling = None;
            match answer {
                Answer::Messages(messages) => {
                    for message in messages {
                        self.read_message(who, exchange.link, &message, acks);
                    }
                }
                Answer::Refused | Answer::Accepted => self.give_up(who, exchange.link),
            }
        } else if link.awaits(exchange.number) {
            let (_, lines) = link.posting.take().expect("it is awaited");
            // Refused for want of a seat at that moment: send again what has no answer.
            if matches!(answer, Answer::Refused) {
                link.take_back(lines);
            }
        }
    }

    fn read_message(&mut self, who: usize, number: u64, message: &Value, acks: bool) {
        self.note(who, || format!("link {number} reads {message}"));
        if message["type"] == "closed" {
            return self.give_up(who, number);
        }
        let Endpoint { client, links, .. } = &mut self.clients[who];
        let Some(link) = links.iter_mut().find(|link| link.number == number) else { return };
        let before = client.seat.link();
        let lines = client.receive(link.id, message);
        if client.seat.link() != before {
            link.up = lines.into();
            link.posting = None;
        } else if !lines.is_empty() {
            link.up = lines.into();
        }
        // Who waits says it without an id.
        client.app.left |= client.app.leaving.is_some() && message["type"] == "ok" && message["id"].is_null();
        if client.app.left {
            client.gone = true;
            return self.hang_up_all(who, |_| true);
        }
        let leaves = client.app.leaving.is_some() && message["type"] == "waiting";
        if leaves {
            self.say_waiting(who, &json!({"type": "leave"}));
        }
        self.check_crowd(&self.clients[who].client);
        let endpoint = &mut self.clients[who];
        if let Some(ack) = endpoint.client.ack(acks) {
            // Who waits has no link in use yet.
            let link = if endpoint.in_use().is_some() { endpoint.in_use() } else { endpoint.waiting_on() };
            if let Some(link) = link {
                link.up.push_back(ack);
            }
        }
    }

    fn give_up(&mut self, who: usize, number: u64) {
        let Endpoint { client, links, .. } = &mut self.clients[who];
        for link in links.iter_mut().filter(|link| link.number == number) {
            client.seat.unlink(link.id);
            link.desert();
        }
    }

    // What the server does.

    /// Something arrives at the server: a line on a link that is still open there, or a request.
    fn arrive(&mut self, who: usize) {
        let going: Vec<usize> = (0..self.clients[who].exchanges.len())
            .filter(|&at| matches!(self.clients[who].exchanges[at].stage, Stage::Going))
            .collect();
        if let Some(&at) = self.rng.choice(&going)
            && self.rng.bool()
        {
            return self.arrive_request(who, at);
        }
        let arrives = |link: &Link| {
            !link.up.is_empty()
                && match link.server {
                    Server::Idle => !link.is_polled(),
                    Server::Serving(..) => link.is_lasting(),
                    Server::Over => false,
                }
        };
        let Some(at) = self.pick_link(who, arrives) else { return };
        let line = self.clients[who].links[at].up.pop_front().expect("picked for it");
        let number = self.clients[who].links[at].number;
        self.note(who, || format!("link {number} brings {line}"));
        if let Some(session) = self.clients[who].links[at].session() {
            let peer = session.peer().to_string();
            let current = handle(session, &line, &self.limits, &mut self.door);
            return self.departs(who, &peer, &line, current);
        }
        self.open(who, at, &line);
    }

    /// The first message of a transport that is not a poll.
    fn open(&mut self, who: usize, at: usize, line: &str) {
        let link = &self.clients[who].links[at];
        let (number, transport) = (link.number, link.transport);
        let request = Request::parse(line.as_bytes(), &self.limits).expect("well-formed");
        let resumes = matches!(request.command, Command::Resume(_));
        let opened = match request.command {
            Command::Join(join) => {
                let grant = self.door.grant(join.token.as_ref(), &self.limits);
                self.hub.join(&self.room, &join, grant, transport)
            }
            Command::Resume(resume) => {
                let newer = self.door.grant(resume.token.as_ref(), &self.limits);
                self.hub.resume(&self.room, &resume, newer, transport)
            }
            _ => unreachable!("one of the two"),
        };
        match opened {
            Ok((session, greeting)) => {
                let peer = session.peer().to_string();
                let holder = self.takes(who, peer.clone(), resumes);
                let greeting = parsed(&greeting.text());
                self.comes(who, &peer, line);
                self.shows(line);
                self.succeeds(line, &greeting);
                self.door.check_told(&peer, &greeting);
                self.door.check_deadline(&peer, &greeting);
                let link = &mut self.clients[who].links[at];
                link.down.push_back(greeting);
                link.server = Server::Serving(holder, session);
            }
            Err(refusal) => {
                self.clients[who].links[at].server = Server::Over;
                if self.refused(who, number, line, &refusal) {
                    self.clients[who].links[at].down.push_back(json!({"type": "closed"}));
                }
            }
        }
    }

    fn arrive_request(&mut self, who: usize, at: usize) {
        let Exchange { number, link, ref kind, .. } = self.clients[who].exchanges[at];
        let kind = kind.clone();
        self.note(who, || format!("request {number} of link {link} brings {kind:?}"));
        let stage = match kind {
            Kind::Post { ticket, lines } => Stage::Coming(self.post(who, &ticket, &lines)),
            Kind::Poll { first, rest, wait } => self.poll(who, number, &first, &rest, wait),
        };
        // A seat that is gone has taken its client's requests along.
        if let Some(exchange) = self.clients[who].exchanges.get_mut(at) {
            exchange.stage = stage;
        }
    }

    fn post(&mut self, who: usize, ticket: &str, lines: &[String]) -> Answer {
        let first = json!({"type": "resume", "ticket": ticket, "seq": 0}).to_string();
        let Command::Resume(resume) = Request::parse(first.as_bytes(), &self.limits).expect("well-formed").command
        else {
            unreachable!("it is one")
        };
        let Ok(speaker) = self.hub.speaker(&self.room, resume.ticket) else { return Answer::Refused };
        self.seats.entry(speaker.peer().to_string()).or_default().ticket_shown = true;
        self.shows(&first);
        if self.speak(who, &speaker, lines) { Answer::Accepted } else { Answer::Refused }
    }

    fn speak(&mut self, who: usize, speaker: &Speaker, lines: &[String]) -> bool {
        for line in lines {
            let current = handle(speaker, line, &self.limits, &mut self.door);
            self.departs(who, &speaker.peer().to_string(), line, current);
            if !current {
                return false;
            }
        }
        true
    }

    fn poll(&mut self, who: usize, number: u64, first: &str, rest: &[String], wait: u64) -> Stage {
        let until = Instant::now() + Duration::from_secs(wait);
        let next_poll = until + 2 * HEARTBEAT;
        let request = Request::parse(first.as_bytes(), &self.limits).expect("well-formed");
        let resumes = matches!(request.command, Command::Resume(_));
        let opened = match request.command {
            Command::Join(join) => {
                let grant = self.door.grant(join.token.as_ref(), &self.limits);
                self.hub.join_by_poll(&self.room, &join, grant, next_poll.into_std())
            }
            Command::Resume(resume) => {
                let newer = self.door.grant(resume.token.as_ref(), &self.limits);
                self.hub.poll(&self.room, &resume, newer, next_poll.into_std())
            }
            _ => unreachable!("one of the two"),
        };
        match opened {
            Ok(poll) => {
                let peer = poll.speaker().peer().to_string();
                let holder = self.takes(who, peer.clone(), resumes);
                self.comes(who, &peer, first);
                self.shows(first);
                if !self.speak(who, poll.speaker(), rest) && !poll.speaker().has_left() {
                    drop(poll);
                    self.releases(&peer, holder, next_poll);
                    return Stage::Coming(Answer::Refused);
                }
                Stage::Held { holder, poll, until, next_poll }
            }
            Err(refusal) => {
                let links = &self.clients[who].links;
                if let Some(link) = links.iter().find(|link| link.awaits(number)).map(|link| link.number) {
                    self.refused(who, link, first, &refusal);
                }
                Stage::Coming(Answer::Refused)
            }
        }
    }

    /// The server writes to a link, or answers a poll.
    fn serve(&mut self, who: usize) {
        let held: Vec<usize> = (0..self.clients[who].exchanges.len())
            .filter(|&at| matches!(self.clients[who].exchanges[at].stage, Stage::Held { .. }))
            .collect();
        if let Some(&at) = self.rng.choice(&held)
            && self.rng.bool()
        {
            self.answer_poll(who, at);
            return;
        }
        if let Some(at) = self.pick_link(who, |link| link.session().is_some() && !link.stalled) {
            self.write(who, at);
        }
    }

    /// Answers a poll if it is time; returns whether it did.
    fn answer_poll(&mut self, who: usize, at: usize) -> bool {
        let exchange = &mut self.clients[who].exchanges[at];
        let Stage::Held { poll, until, .. } = &exchange.stage else { return false };
        let wants_none = matches!(exchange.kind, Kind::Poll { wait: 0, .. });
        let due = poll.is_due() || wants_none;
        if !due && Instant::now() < *until {
            return false;
        }
        let Stage::Held { holder, poll, next_poll, .. } = std::mem::replace(&mut exchange.stage, Stage::Going) else {
            unreachable!("just seen")
        };
        let peer = poll.speaker().peer().to_string();
        // A small answer leaves the rest to the next poll.
        let most = *self.rng.choice(&[1, 300, 1 << 20]).expect("not empty");
        let answer = match poll.answer(due, None, most) {
            Ok(frames) => Answer::Messages(frames.iter().map(|frame| parsed(&frame.text())).collect()),
            Err(_) => Answer::Refused,
        };
        if let (Kind::Poll { first, .. }, Answer::Messages(messages)) = (&self.clients[who].exchanges[at].kind, &answer)
            && let Some(greeting) = messages.first()
        {
            let (first, greeting) = (first.clone(), greeting.clone());
            self.succeeds(&first, &greeting);
        }
        if let Answer::Messages(messages) = &answer {
            messages.iter().for_each(|message| self.door.check_told(&peer, message));
        }
        self.clients[who].exchanges[at].stage = Stage::Coming(answer);
        self.releases(&peer, holder, next_poll);
        true
    }

    /// Writes one message to a link; returns whether there was anything.
    fn write(&mut self, who: usize, at: usize) -> bool {
        let link = &mut self.clients[who].links[at];
        let Some(session) = link.session() else { return false };
        let peer = session.peer().to_string();
        let Some(output) = session.try_next() else { return false };
        match output {
            Output::Frame(frame) => {
                let message = parsed(&frame.text());
                self.door.check_told(&peer, &message);
                link.down.push_back(message);
            }
            Output::End(ending) => {
                let number = link.number;
                link.down.push_back(json!({"type": "closed"}));
                self.note(who, || format!("link {number} ends: {ending:?}"));
                self.hang_up(who, at);
            }
        }
        true
    }

    /// The server writes all that waits: no more than a queue may hold, and as many answers.
    fn drain_queue(&mut self, who: usize) {
        let Some(at) = self.pick_link(who, |link| link.session().is_some() && !link.stalled) else { return };
        let link = &mut self.clients[who].links[at];
        let session = link.session().expect("picked for it");
        let mut waiting = Vec::new();
        let peer = session.peer().to_string();
        while let Some(Output::Frame(frame)) = session.try_next() {
            let message = parsed(&frame.text());
            self.door.check_told(&peer, &message);
            waiting.push(message);
        }
        // The picture for one who was admitted goes before the queue.
        let (answers, queued): (Vec<&Value>, Vec<&Value>) = waiting
            .iter()
            .filter(|message| message["type"] != "joined")
            .partition(|message| message["type"] == "ok" || message["type"] == "error");
        let most = self.limits.queue_messages;
        assert!(queued.len() <= most, "{} messages in a queue of {most}", queued.len());
        // One answer above the limit closes the transport, or the request that asked for it was in a body of several.
        assert!(answers.len() <= 2 * most + 1, "{} answers in a queue of {most}", answers.len());
        link.down.extend(waiting);
    }

    // What becomes of seats.

    /// A transport or poll has taken a seat; returns the number under which it holds it.
    fn takes(&mut self, who: usize, peer: String, resumes: bool) -> u64 {
        let holder = self.number();
        self.note(who, || format!("{peer} is taken by {holder}"));
        let now = Instant::now();
        let fate = self.seats.entry(peer).or_default();
        assert!(!fate.left, "a seat that was left is taken up");
        assert!(fate.kept_until.is_none_or(|until| now < until), "a seat is taken up after its window");
        assert!(resumes || !fate.ticket_shown, "a used join key has taken the seat");
        fate.ticket_shown |= resumes;
        fate.holder = holder;
        fate.kept_until = None;
        holder
    }

    /// A ticket was accepted: its successor has not been used, or it would have one itself.
    fn shows(&self, first: &str) {
        let first = parsed(first.as_bytes());
        let successor = first["ticket"].as_str().and_then(|ticket| self.successors.get(ticket));
        let used = successor.is_some_and(|successor| self.successors.contains_key(successor));
        assert!(!used, "a ticket was accepted whose successor has been used");
    }

    /// An answer names the ticket to use next.
    fn succeeds(&mut self, first: &str, greeting: &Value) {
        // Who waits has none.
        let (first, Some(next)) = (parsed(first.as_bytes()), greeting["ticket"].as_str()) else { return };
        let Some(shown) = first["ticket"].as_str().filter(|shown| *shown != next) else { return };
        let before = self.successors.insert(shown.to_owned(), next.to_owned());
        assert!(before.is_none_or(|before| before == next), "a ticket got another successor");
    }

    /// What held a seat under a number is over; the seat is kept for a window from then on.
    fn releases(&mut self, peer: &str, holder: u64, from: Instant) {
        let fate = self.seats.entry(peer.to_owned()).or_default();
        if fate.holder == holder && fate.kept_until.is_none() {
            fate.kept_until = Some(from + WINDOW);
        }
    }

    /// A line was carried out, or the seat was no longer its speaker's: who has left by it?
    fn departs(&mut self, who: usize, peer: &str, line: &str, current: bool) {
        if current && parsed(line.as_bytes())["type"] == "leave" {
            self.note(who, || format!("{peer} leaves"));
            self.seats.entry(peer.to_owned()).or_default().left = true;
        }
    }

    /// A first message was refused: rightly? Returns whether the client goes on with another attempt.
    fn refused(&mut self, who: usize, link: u64, first: &str, refusal: &Refusal) -> bool {
        self.note(who, || format!("link {link} is refused: {refusal:?}"));
        let Endpoint { client, links, .. } = &mut self.clients[who];
        let first = parsed(first.as_bytes());
        let resumes = first["type"] == "resume";
        let outdated = resumes && first["ticket"].as_str() != client.ticket().as_deref();
        let counts =
            |link: &&Link| !link.deserted && (link.is_opening(&client.seat) || client.seat.link() == Some(link.id));
        if !links.iter().filter(|one| one.number == link).any(|one| counts(&one)) || client.gone || outdated {
            // Given up before; its ticket or key may be used up by now.
            let at_the_door = self.door.policy.is_some() && matches!(refusal.code, Code::Forbidden | Code::RoomFull);
            assert!(at_the_door || matches!(refusal.code, Code::ResumeExpired | Code::Replaced), "{refusal:?}");
            return true;
        }
        if !resumes && self.is_turned_away(who, refusal) {
            return !self.clients[who].client.gone;
        }
        let client = &self.clients[who].client;
        assert_eq!(refusal.code, Code::ResumeExpired, "client {}: {refusal:?}", client.name);
        if !resumes {
            // The seat of this key is about to be given up, and nobody has heard of it.
            self.start_anew(who);
            return true;
        }
        let fate = self.seats.get(&client.app.peer).expect("it had a seat");
        assert!(!fate.is_kept(), "client {}: a seat that is kept was refused to who has its ticket", client.name);
        self.clients[who].client.gone = true;
        self.hang_up_all(who, |_| true);
        false
    }

    /// The client gives up a seat that it has never heard of, and comes under another key.
    fn start_anew(&mut self, who: usize) {
        let Endpoint { client, links, .. } = &mut self.clients[who];
        client.key.push('x');
        client.knocked = None;
        client.seat.forget(client.key.clone());
        links.iter_mut().for_each(Link::desert);
    }

    // What chance does.

    /// A request or an answer is lost; its client hears of it, or will grow tired of waiting.
    fn lose(&mut self, who: usize) {
        if self.clients[who].exchanges.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.clients[who].exchanges.len());
        let exchange = self.clients[who].exchanges.swap_remove(at);
        let (number, on) = (exchange.number, exchange.link);
        self.note(who, || format!("request {number} of link {on} is lost"));
        self.drop_exchange(exchange);
        let again = self.rng.bool();
        let Endpoint { client, links, .. } = &mut self.clients[who];
        let Some(link) = links.iter_mut().find(|link| link.awaits(number)) else { return };
        if !again || client.seat.link() != Some(link.id) && !client.seat.is_waiting(link.id) {
            return self.give_up(who, on);
        }
        let lost = if link.posting.as_ref().is_some_and(|(own, _)| *own == number) {
            &mut link.posting
        } else {
            &mut link.polling
        };
        let (_, lines) = lost.take().expect("it is awaited");
        link.take_back(lines);
    }

    fn drop_exchange(&mut self, exchange: Exchange) {
        if let Stage::Held { holder, poll, next_poll, .. } = exchange.stage {
            let peer = poll.speaker().peer().to_string();
            drop(poll);
            self.releases(&peer, holder, next_poll);
        }
    }

    /// A browser, or a proxy, sends a request again of which it cannot know whether it arrived.
    fn double(&mut self, who: usize) {
        let exchanges = &mut self.clients[who].exchanges;
        if !exchanges.is_empty() && exchanges.len() < 8 {
            let at = self.rng.usize(..exchanges.len());
            let Exchange { number, link, ref kind, .. } = exchanges[at];
            let copy = Exchange { number, link, kind: kind.clone(), stage: Stage::Going };
            self.note(who, || format!("request {number} of link {link} is doubled"));
            self.clients[who].exchanges.push(copy);
        }
    }

    /// A transport breaks: what was on the way is lost, here or there or both.
    fn break_link(&mut self, who: usize) {
        let Some(at) = self.pick_link(who, |_| true) else { return };
        let number = self.clients[who].links[at].number;
        self.note(who, || format!("link {number} breaks"));
        if self.rng.bool() && !self.clients[who].links[at].is_polled() {
            // Only the server has noticed so far.
            return self.hang_up(who, at);
        }
        self.give_up(who, number);
        if self.rng.bool() {
            self.hang_up(who, at);
            self.clients[who].links.remove(at);
        }
    }

    /// The server's side of a link ends.
    fn hang_up(&mut self, who: usize, at: usize) {
        let server = std::mem::replace(&mut self.clients[who].links[at].server, Server::Over);
        if let Server::Serving(holder, session) = server {
            let peer = session.peer().to_string();
            drop(session);
            self.releases(&peer, holder, Instant::now());
        }
    }

    fn stall(&mut self, who: usize) {
        if let Some(at) = self.pick_link(who, |link| !link.is_polled()) {
            let link = &mut self.clients[who].links[at];
            link.stalled = !link.stalled;
        }
    }

    /// A `join` that was on the way for long arrives: it must not take the seat from whoever has shown its ticket since.
    fn double_join(&mut self, who: usize) {
        let client = &self.clients[who].client;
        let shown = self.seats.get(&client.app.peer).is_some_and(|fate| fate.ticket_shown);
        if client.gone || !shown {
            return;
        }
        let token = client.role.token();
        let first = json!({"type": "join", "key": client.key, "metadata": {"version": 0}, "token": token}).to_string();
        let request = Request::parse(first.as_bytes(), &self.limits).expect("well-formed");
        let Command::Join(join) = request.command else { unreachable!("it is one") };
        let grant = self.door.grant(join.token.as_ref(), &self.limits);
        match self.hub.join(&self.room, &join, grant, Transport::EventStream) {
            // Another late one has knocked anew since, and nobody has admitted it; or the waiting room is full.
            Err(refusal) if self.door.policy.is_some() && matches!(refusal.code, Code::Forbidden | Code::RoomFull) => {}
            Err(refusal) => assert!(matches!(refusal.code, Code::Replaced | Code::ResumeExpired), "{refusal:?}"),
            // Its seat was given up long ago: a new one, which is left again.
            Ok((session, _)) => {
                self.door.is_shown(&session.peer().to_string(), Some(token));
                assert_ne!(session.peer().to_string(), client.app.peer, "a used join key has taken the seat");
                session.handle(Request { id: None, command: Command::Leave }, &Span::NONE);
            }
        }
    }

    /// The clock goes on: a little, just to a deadline, or far beyond all of them.
    async fn let_time_pass(&mut self) {
        let now = Instant::now();
        let held =
            self.clients.iter().flat_map(|endpoint| &endpoint.exchanges).filter_map(|exchange| match exchange.stage {
                Stage::Held { next_poll, .. } => Some(next_poll),
                _ => None,
            });
        let mut deadlines: Vec<Instant> =
            self.seats.values().filter_map(|fate| fate.kept_until).chain(held).chain(self.door.deadlines()).collect();
        deadlines.retain(|at| *at > now);
        // From a map, in whatever order.
        deadlines.sort_unstable();
        let step = match self.rng.u32(..64) {
            0 => WINDOW * 2 + LONGEST_POLL,
            1..16 => {
                let deadline = self.rng.choice(&deadlines).copied().unwrap_or(now);
                let about = Duration::from_millis(self.rng.u64(..3));
                (deadline + about - now).saturating_sub(Duration::from_millis(1))
            }
            16..32 => Duration::from_millis(self.rng.u64(..2_000)),
            _ => Duration::from_secs(self.rng.u64(..12)),
        };
        pass(step).await;
        self.note(usize::MAX, || format!("{} ms pass", step.as_millis()));
        self.answer_overdue();
        pass(Duration::ZERO).await;
    }

    /// A poll is answered when its time has come, however busy the server is.
    fn answer_overdue(&mut self) {
        let now = Instant::now();
        for who in 0..self.clients.len() {
            for at in 0..self.clients[who].exchanges.len() {
                if matches!(self.clients[who].exchanges[at].stage, Stage::Held { until, .. } if until <= now) {
                    self.answer_poll(who, at);
                }
            }
        }
    }

    fn pick_link(&mut self, who: usize, fits: impl Fn(&Link) -> bool) -> Option<usize> {
        let links = &self.clients[who].links;
        let fitting: Vec<usize> = (0..links.len()).filter(|&at| fits(&links[at])).collect();
        self.rng.choice(&fitting).copied()
    }

    // How it ends.

    /// Everybody who is not gone gets a transport that works until nothing is left to say.
    pub(super) fn settle(&mut self) {
        self.settling = true;
        for who in 0..self.clients.len() {
            // A late greeting may have brought an earlier token again.
            let client = &self.clients[who].client;
            let in_use = client.seat.link().filter(|_| !client.renewed);
            self.hang_up_all(who, |link| Some(link.id) != in_use);
            self.clients[who].links.iter_mut().for_each(|link| link.stalled = false);
        }
        let mut moves = 0;
        loop {
            let before = moves;
            for who in 0..self.clients.len() {
                while self.flow(who) {
                    moves += 1;
                    assert!(moves < MOST_MOVES, "it does not come to rest");
                }
            }
            if moves == before {
                return;
            }
        }
    }

    /// Ends links and whatever belongs to them.
    pub(super) fn hang_up_all(&mut self, who: usize, which: impl Fn(&Link) -> bool) {
        for at in (0..self.clients[who].links.len()).rev() {
            if which(&self.clients[who].links[at]) {
                self.hang_up(who, at);
                let link = self.clients[who].links.remove(at);
                self.clients[who].client.seat.unlink(link.id);
            }
        }
        let kept: Vec<u64> = self.clients[who].links.iter().map(|link| link.number).collect();
        for at in (0..self.clients[who].exchanges.len()).rev() {
            let exchange = &self.clients[who].exchanges[at];
            let awaited = self.clients[who].links.iter().any(|link| link.awaits(exchange.number));
            if !kept.contains(&exchange.link) || !awaited {
                let exchange = self.clients[who].exchanges.swap_remove(at);
                self.drop_exchange(exchange);
            }
        }
    }

    /// Moves whatever can be moved between a client and the hub; returns false if nothing can.
    fn flow(&mut self, who: usize) -> bool {
        if self.clients[who].client.gone {
            return false;
        }
        self.hang_up_all(who, |link| link.deserted);
        let Some(link) = self.clients[who].links.last() else {
            self.connect(who);
            return true;
        };
        if matches!(link.server, Server::Over) && link.down.is_empty() && !link.is_polled() {
            let number = link.number;
            self.give_up(who, number);
            return true;
        }
        self.flow_down(who) || self.flow_up(who)
    }

    fn flow_down(&mut self, who: usize) -> bool {
        let Endpoint { links, exchanges, .. } = &mut self.clients[who];
        if let Some(link) = links.iter_mut().find(|link| !link.down.is_empty()) {
            let (number, message) = (link.number, link.down.pop_front().expect("just seen"));
            self.read_message(who, number, &message, true);
            return true;
        }
        if let Some(at) = exchanges.iter().position(|exchange| matches!(exchange.stage, Stage::Coming(_))) {
            let exchange = exchanges.swap_remove(at);
            self.read_answer(who, exchange, true);
            return true;
        }
        (0..links.len()).any(|at| self.write(who, at))
            || (0..self.clients[who].exchanges.len()).any(|at| self.answer_poll(who, at))
    }

    fn flow_up(&mut self, who: usize) -> bool {
        let Endpoint { client, links, exchanges } = &mut self.clients[who];
        if let Some(at) = exchanges.iter().position(|exchange| matches!(exchange.stage, Stage::Going)) {
            self.arrive_request(who, at);
            return true;
        }
        let link = links.last().expect("it has one");
        let in_use = client.seat.link() == Some(link.id);
        let polls = link.is_polled() && link.polling.is_none();
        let asks = polls || (!link.is_lasting() && in_use && link.may_post());
        let arrives =
            !link.up.is_empty() && (link.is_lasting() || (matches!(link.server, Server::Idle) && !link.is_polled()));
        // A request whose answer was lost is asked again.
        let forgotten =
            !link.is_lasting() && exchanges.is_empty() && (link.polling.is_some() || link.posting.is_some());
        let number = link.number;
        if forgotten {
            self.give_up(who, number);
        } else if asks {
            self.ask(who);
        } else if arrives {
            self.arrive(who);
        } else {
            return false;
        }
        true
    }

    /// Whether it is the seat of a `join` that came so late that its client had given it up: kept until its window ends.
    fn is_orphaned(&self, peer: &str) -> bool {
        let claimed = self.clients.iter().any(|endpoint| {
            let client = &endpoint.client;
            client.is_present() && client.app.peer == peer
                || endpoint.waits() && client.knocked.as_deref() == Some(peer)
        });
        let fate = self.seats.get(peer);
        !claimed && fate.is_some_and(|fate| !fate.left && fate.kept_until.is_some_and(|until| until > Instant::now()))
    }

    /// What must hold when all has been said.
    pub(super) fn check(&self) {
        let clients: Vec<&Client> = self.clients.iter().map(|endpoint| &endpoint.client).collect();
        let present: Vec<&&Client> = clients.iter().filter(|client| client.is_present()).collect();
        for client in &present {
            let others: BTreeMap<_, _> = present
                .iter()
                .filter(|other| other.app.peer != client.app.peer)
                .map(|other| (other.app.peer.clone(), (other.app.version, true)))
                .collect();
            let mut roster = client.app.roster.clone();
            roster.retain(|peer, _| !self.is_orphaned(peer));
            assert_eq!(roster, others, "client {} has another picture of the room", client.name);
            let known: BTreeMap<_, _> = client.seat.roster().peers().values().map(entry).collect();
            assert_eq!(known, client.app.roster, "client {} was not told of every change", client.name);
            assert_eq!(client.seat.pending(), 0, "client {} was never answered", client.name);
        }
        for client in &clients {
            check_order(client);
        }
        check_promises(&clients);
        self.check_door();
    }
}

/// What came from one sender came in its order, and once.
fn check_order(client: &Client) {
    let mut last: HashMap<&str, u64> = HashMap::new();
    for (from, number) in &client.app.got {
        let before = last.insert(from, *number).unwrap_or(0);
        assert!(before < *number, "client {} got {number} after {before} from {from}", client.name);
    }
}

/// What was accepted has arrived, but for what its recipient was told to have lost; what was refused has not.
fn check_promises(clients: &[&Client]) {
    for recipient in clients {
        let mut missing = 0;
        for sender in clients {
            let to_it = sender.app.sent.values().filter(|(to, ..)| to.contains(&recipient.app.peer));
            for (_, number, answer) in to_it {
                let arrived = recipient.app.got.contains(&(sender.app.peer.clone(), *number));
                match answer {
                    Some(true) if !arrived => missing += 1,
                    Some(false) => {
                        assert!(!arrived, "{} -> {}: {number} was refused and came", sender.name, recipient.name)
                    }
                    _ => {}
                }
            }
        }
        let lost = recipient.app.lost;
        assert!(recipient.gone || missing <= lost, "client {} misses {missing}, {lost} told", recipient.name);
    }
}

fn parsed(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("messages are JSON")
}

/// Moves the clock, and lets the hub look at it.
pub(super) async fn pass(step: Duration) {
    tokio::time::advance(step).await;
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}
