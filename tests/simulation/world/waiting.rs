//! The waiting room: who may come in and by whose word, what is said at the door, and what must hold of it.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use wigwag::hub::Speaker;
use wigwag::protocol::{
    Code, Command, Grant, Limits, Newcomers, Refusal, Request, Rights, Token, Transport, WaitingRoom,
};
use wigwag::traces::Span;

use super::super::client::{Client, Role};
use super::super::link::Link;
use super::{Endpoint, Fate, World};

/// What is known of the door of a room, from what was done.
pub(super) struct Door {
    /// Nobody waits where no token is asked for.
    pub(super) policy: Option<WaitingRoom>,
    /// Who may be in the room: because nobody has to wait with its token, or a moderator has said so.
    open_to: HashSet<String>,
    /// Who has ever shown a moderator's token.
    moderators: HashSet<String>,
    /// Until when each may wait, of all who have knocked.
    until: BTreeMap<String, Instant>,
    /// Whom a moderator has refused, in time or not.
    refusals: HashSet<String>,
    /// Messages of those who were outside when they were sent: sender and number.
    unheard: HashSet<(String, u64)>,
}

impl Door {
    pub(super) fn new(policy: Option<WaitingRoom>) -> Self {
        Door {
            policy,
            open_to: HashSet::new(),
            moderators: HashSet::new(),
            until: BTreeMap::new(),
            refusals: HashSet::new(),
            unheard: HashSet::new(),
        }
    }

    /// The waiting room of half of all worlds. Who gets a new picture must have room for all who wait.
    pub(super) fn by_chance(rng: &mut fastrand::Rng, limits: &Limits) -> Self {
        let peers: &[usize] = if limits.queue_messages < 16 { &[1, 2] } else { &[1, 2, 32] };
        let policy = WaitingRoom {
            holds: if rng.bool() { Newcomers::Guests } else { Newcomers::Everyone },
            peers: *rng.choice(peers).expect("not empty"),
            time: Duration::from_secs(*rng.choice(&[10, 60, 600]).expect("not empty")),
        };
        Door::new(rng.bool().then_some(policy))
    }

    fn holds(&self, role: Role) -> bool {
        self.policy.is_some_and(|policy| policy.holds.include(rights(role)).expect("a waiting room is open to all"))
    }

    /// What a client's token lets it do; `None` where none is asked for, or none was shown.
    pub(super) fn grant(&self, token: Option<&Token<'_>>, limits: &Limits) -> Option<Grant> {
        let token = token.filter(|_| self.policy.is_some())?;
        let role = Role::of(token.as_str());
        Some(Grant { rights: rights(role), ..Grant::open(limits.clone().into()) })
    }

    /// A token was shown for a seat.
    pub(super) fn is_shown(&mut self, peer: &str, token: Option<&str>) {
        let role = token.map(Role::of);
        if self.policy.is_none() || role.is_some_and(|role| !self.holds(role)) {
            self.open_to.insert(peer.to_owned());
        }
        if role == Some(Role::Moderator) {
            self.moderators.insert(peer.to_owned());
        }
    }

    /// A line was carried out: what may follow from it?
    fn hears(&mut self, peer: &str, line: &Value) {
        let (kind, other) = (line["type"].as_str(), line["peer"].as_str().unwrap_or_default());
        match kind {
            Some("token") => self.is_shown(peer, line["token"].as_str()),
            Some("admit") if self.moderators.contains(peer) && self.is_open_for(other) => {
                self.open_to.insert(other.to_owned());
            }
            Some("refuse") if self.moderators.contains(peer) => _ = self.refusals.insert(other.to_owned()),
            Some("message") if !self.open_to.contains(peer) => {
                let number = line["data"]["number"].as_u64().expect("a number");
                self.unheard.insert((peer.to_owned(), number));
            }
            _ => {}
        }
    }

    /// Whether one may still wait.
    fn is_open_for(&self, peer: &str) -> bool {
        self.until.get(peer).is_some_and(|until| *until > Instant::now())
    }

    /// The deadlines of all who have knocked.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        self.until.values().copied()
    }

    /// The server tells one of them something: nothing of the room before it is let in, nobody who is not, no more than there
    /// may be, and knocks to moderators alone.
    pub(super) fn check_told(&self, peer: &str, message: &Value) {
        let is_in = |peer: &Value| self.open_to.contains(peer.as_str().expect("an id"));
        match message["type"].as_str().expect("a type") {
            "waiting" | "ok" | "error" | "closed" | "resumed" => {}
            kind => {
                assert!(self.open_to.contains(peer), "one who waits was told {message}");
                match kind {
                    "joined" => {
                        let peers = message["peers"].as_array().expect("a list");
                        assert!(peers.iter().all(|peer| is_in(&peer["peer"])), "one who waits is seen: {message}");
                        let most = message["limits"]["peers"].as_u64().expect("a number");
                        assert!((peers.len() as u64) < most, "more than {most} are in: {message}");
                    }
                    "peerJoined" => assert!(is_in(&message["peer"]), "nobody has admitted {message}"),
                    "knock" => assert!(self.moderators.contains(peer), "not to a moderator: {message}"),
                    "message" => {
                        let from = message["from"].as_str().expect("an id").to_owned();
                        let number = message["data"]["number"].as_u64().expect("a number");
                        assert!(!self.unheard.contains(&(from, number)), "from one who waited: {message}");
                    }
                    _ => {}
                }
            }
        }
    }

    /// A transport that lasts was told by when it will have been admitted: however often one comes back, the deadline stays.
    pub(super) fn check_deadline(&self, peer: &str, greeting: &Value) {
        if let Some(left) = greeting["expireMs"].as_u64() {
            let until = Instant::now() + Duration::from_millis(left);
            assert_eq!(self.until.get(peer), Some(&until), "its deadline has moved: {greeting}");
            assert!(self.is_open_for(peer), "it waits on after its deadline");
        }
    }
}

/// Carries out one line; returns whether the seat was the speaker's.
pub(super) fn handle(speaker: &Speaker, line: &str, limits: &Limits, door: &mut Door) -> bool {
    let peer = speaker.peer().to_string();
    let request = Request::parse(line.as_bytes(), limits).expect("clients are well-behaved");
    let newer = match &request.command {
        Command::Token(token) => door.grant(Some(token), limits),
        _ => None,
    };
    let current = match newer {
        Some(newer) => speaker.renew(request.id, Ok(newer)),
        None => speaker.handle(request, &Span::NONE),
    };
    // What one says to whom the seat no longer belongs opens no door.
    if current {
        door.hears(&peer, &super::parsed(line.as_bytes()));
    }
    current
}

fn rights(role: Role) -> Rights {
    match role {
        Role::Guest => Rights { join: false, ..Rights::MEMBER },
        Role::Member => Rights::MEMBER,
        Role::Moderator => Rights { moderate: true, ..Rights::MEMBER },
    }
}

impl Endpoint {
    /// The link on which the client waits, if what it says there arrives by itself or with a poll.
    pub(super) fn waiting_on(&mut self) -> Option<&mut Link> {
        let seat = &self.client.seat;
        let speaks = |link: &&mut Link| seat.is_waiting(link.id) && link.transport != Transport::EventStream;
        self.links.iter_mut().filter(|link| !link.deserted).find(speaks)
    }

    /// Whether the client has been told to wait, and nothing else since.
    pub(super) fn waits(&self) -> bool {
        !self.client.gone && self.links.iter().any(|link| self.client.seat.is_waiting(link.id))
    }
}

impl World {
    /// A moderator answers a knock, or one that nobody has heard of late.
    pub(super) fn decide(&mut self, who: usize) {
        let client = &self.clients[who].client;
        if !client.is_present() || client.role != Role::Moderator {
            return;
        }
        let knocks: Vec<String> = match self.rng.u32(..8) {
            0 => self.door.until.keys().cloned().collect(),
            _ => client.app.knocks.iter().cloned().collect(),
        };
        let Some(peer) = self.rng.choice(&knocks).cloned() else { return };
        let verb = if self.rng.u32(..3) == 0 { "refuse" } else { "admit" };
        if let Some(id) = self.request(who, &json!({"type": verb, "peer": peer})) {
            self.clients[who].client.app.decisions.insert(id, (verb == "admit", peer, None));
        }
    }

    /// Somebody who waits, or did.
    pub(super) fn outside(&mut self, who: usize) -> Option<String> {
        let own = &self.clients[who].client.app.peer;
        let others: Vec<String> = self.door.until.keys().filter(|peer| *peer != own).cloned().collect();
        self.rng.choice(&others).cloned()
    }

    /// A client gets a better token, and shows it: at once, or when it comes the next time.
    pub(super) fn improve(&mut self, who: usize) {
        let client = &mut self.clients[who].client;
        if self.door.policy.is_none() || client.gone || client.role == Role::Moderator {
            return;
        }
        client.role = if client.role == Role::Guest && self.rng.bool() { Role::Member } else { Role::Moderator };
        client.renewed = true;
        // What was asked for with an earlier token is not to be answered after a greeting with this one.
        if client.seat.pending() == 0 && self.rng.bool() {
            return self.connect(who);
        }
        let message = json!({"type": "token", "token": client.role.token()});
        self.request(who, &message);
        self.say_waiting(who, &message);
    }

    /// Sends what one may say who waits. Without an id: those of requests that wait for `joined` are lower.
    pub(super) fn say_waiting(&mut self, who: usize, message: &Value) {
        if let Some(link) = self.clients[who].waiting_on() {
            link.up.push_back(message.to_string());
        }
    }

    /// Who waits speaks to the room, or to somebody in it.
    pub(super) fn intrude(&mut self, who: usize) {
        let others: Vec<String> = self.door.until.keys().cloned().collect();
        let to = if self.rng.bool() { self.rng.choice(&others).cloned() } else { None };
        let endpoint = &mut self.clients[who];
        let Some(own) = endpoint.client.knocked.clone() else { return };
        // On a transport that would not say it twice.
        if endpoint.waiting_on().is_some_and(|link| link.is_lasting()) && to.as_ref() != Some(&own) {
            let (_, mut message) = endpoint.client.numbered(to.as_deref(), false);
            message["data"]["from"] = json!(own);
            message.as_object_mut().expect("an object").remove("ephemeral");
            self.say_waiting(who, &message);
        }
    }

    /// A join has taken a seat, or a place before the door.
    pub(super) fn comes(&mut self, who: usize, peer: &str, first: &str) {
        let first = super::parsed(first.as_bytes());
        let client = &mut self.clients[who].client;
        if first["key"].as_str() == Some(&client.key) {
            client.knocked = Some(peer.to_owned());
        }
        let late = self.door.until.get(peer).is_some_and(|until| *until <= Instant::now());
        assert!(!late || self.door.open_to.contains(peer), "one whom nobody admitted in time has its seat again");
        self.door.is_shown(peer, first["token"].as_str());
        if let Some(policy) = self.door.policy.filter(|_| !self.door.open_to.contains(peer)) {
            self.door.until.entry(peer.to_owned()).or_insert_with(|| Instant::now() + policy.time);
        }
    }

    /// No more wait than may. Who was no moderator for a while has not heard who has gone.
    pub(super) fn check_crowd(&self, client: &Client) {
        let most = self.door.policy.map_or(0, |policy| policy.peers);
        assert!(client.renewed || client.app.knocks.len() <= most, "more than {most} wait: {:?}", client.app.knocks);
    }

    /// A join was refused at the door: rightly? Returns false if it was refused for another reason.
    pub(super) fn is_turned_away(&mut self, who: usize, refusal: &Refusal) -> bool {
        if self.door.policy.is_none() || !matches!(refusal.code, Code::Forbidden | Code::RoomFull) {
            return false;
        }
        let knocked = self.clients[who].client.knocked.clone();
        if refusal.code == Code::RoomFull {
            let fate = knocked.as_ref().and_then(|peer| self.seats.get(peer));
            assert!(
                !fate.is_some_and(Fate::is_kept),
                "client {who}: a seat that is kept was refused to who has its key"
            );
            self.check_full();
            if self.settling || self.rng.u32(..8) == 0 {
                self.resign(who);
            }
            return true;
        }
        let peer = knocked.expect("nobody is turned away who has not knocked");
        let decided = self.door.refusals.contains(&peer) || !self.door.is_open_for(&peer);
        assert!(decided, "client {who} was turned away, though nobody has said so");
        if self.settling || self.rng.bool() {
            self.resign(who);
        } else {
            self.start_anew(who);
        }
        true
    }

    /// There was no place: in the waiting room, or in the room. An `admit` may have found no place either, so that one who waits
    /// may count in both.
    fn check_full(&self) {
        let kept = || self.seats.iter().filter(|(_, fate)| fate.is_kept()).map(|(peer, _)| peer);
        let waiting = kept().filter(|peer| self.door.is_open_for(peer)).count();
        let members = kept().filter(|peer| self.door.open_to.contains(*peer)).count();
        let (most_waiting, most) = (self.door.policy.map_or(usize::MAX, |policy| policy.peers), self.limits.peers);
        assert!(
            waiting >= most_waiting || members >= most,
            "{waiting} fill what has room for {most_waiting} who wait, or {members} what has room for {most}"
        );
    }

    /// The client gives up.
    fn resign(&mut self, who: usize) {
        self.clients[who].client.gone = true;
        self.hang_up_all(who, |_| true);
    }

    /// What must hold of the door when all has been said.
    pub(super) fn check_door(&self) {
        let waiting: HashSet<&String> =
            self.clients.iter().filter(|one| one.waits()).filter_map(|one| one.client.knocked.as_ref()).collect();
        for peer in &waiting {
            assert!(self.door.is_open_for(peer), "{peer} waits after its deadline");
        }
        for Endpoint { client, .. } in &self.clients {
            let is_outside = client.knocked.as_ref().is_some_and(|peer| waiting.contains(peer));
            assert!(
                client.gone || client.is_present() != is_outside,
                "client {} does not know where it is",
                client.name
            );
            if client.is_present() && client.role == Role::Moderator {
                self.check_knocks(client, &waiting);
            }
            for (admitted, peer, answer) in client.app.decisions.values() {
                let knocked = |one: &&Endpoint| one.client.knocked.as_ref() == Some(peer);
                let Some(Endpoint { client: other, .. }) = self.clients.iter().find(knocked) else { continue };
                match answer {
                    Some(true) if *admitted => {
                        assert!(other.gone || other.app.peer == *peer, "client {} was admitted in vain", other.name);
                    }
                    Some(true) => assert_ne!(other.app.peer, *peer, "client {} was refused and is in", other.name),
                    _ => {}
                }
            }
        }
    }

    /// A moderator knows who waits; of those who have gone while its token was a worse one, it need not.
    fn check_knocks(&self, client: &Client, waiting: &HashSet<&String>) {
        let mut knocks: HashSet<&String> = client.app.knocks.iter().collect();
        let roster: HashSet<&String> = client.seat.roster().waiting().keys().collect();
        assert_eq!(roster, knocks, "client {} was not told of every knock", client.name);
        knocks.retain(|peer| waiting.contains(peer) || !client.renewed && !self.is_orphaned(peer));
        assert_eq!(&knocks, waiting, "client {} has another picture of who waits", client.name);
    }
}
