//! A node that is cut off from NATS and so from the other nodes, and NATS that is away: life goes on meanwhile, and soon after it
//! is over all nodes tell their members the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use wigwag::client::{Connection, Event, Via};

use super::network::{self, Link};
use super::process::ServerProcess;
use super::report;
use crate::cluster::nats::Nats;
use crate::cluster::{linked, nodes};
use crate::schema::Messages;
use crate::support::{TestServer, within};
use crate::tokens::{next, say};

const ROOMS: usize = 20;
const OUTAGE: Duration = Duration::from_secs(20);
/// Within this all are to have a true picture again.
const HEALING: Duration = Duration::from_secs(5);
/// Between two messages of one to another.
const PAUSE: Duration = Duration::from_millis(200);

/// Messages that one may have to say at once.
const MOST_UNSAID: usize = 64;

/// What a member has been told.
#[derive(Debug, Default)]
struct Told {
    /// The others, and whether they are here or away.
    picture: BTreeMap<String, String>,
    /// The codes of errors, null for none, by what they answer.
    answers: BTreeMap<u64, Value>,
    /// What came, by whom it came from.
    heard: BTreeMap<String, Vec<u64>>,
}

impl Told {
    fn take(&mut self, message: &Value) {
        let peer = || text(&message["peer"]);
        match message["type"].as_str() {
            Some("peerJoined") => assert!(self.picture.insert(peer(), "here".into()).is_none(), "twice: {message}"),
            Some("peerLeft") => assert!(self.picture.remove(&peer()).is_some(), "a stranger: {message}"),
            Some("peerAway") => *self.picture.get_mut(&peer()).expect("one who is known") = "away".into(),
            Some("peerBack") => *self.picture.get_mut(&peer()).expect("one who is known") = "here".into(),
            Some("message") => {
                let number = message["data"].as_u64().expect("a number");
                self.heard.entry(text(&message["from"])).or_default().push(number);
            }
            Some("ok" | "error") => {
                self.answers.insert(message["id"].as_u64().expect("an answer"), message["code"].clone());
            }
            Some("closed") => panic!("{message}"),
            _ => {}
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Somebody who stays, and takes in all that comes.
struct Member {
    own: String,
    told: watch::Receiver<Told>,
    saying: mpsc::Sender<Value>,
    _living: AbortOnDropHandle<()>,
}

impl Member {
    async fn join(mut connection: Connection) -> Self {
        say(&mut connection, &json!({"type": "join"})).await;
        let joined = next(&mut connection).await;
        assert_eq!(joined["type"], "joined", "{joined}");
        let peers = joined["peers"].as_array().expect("a list");
        let picture = peers.iter().map(|peer| (text(&peer["peer"]), text(&peer["state"]))).collect();
        let (tell, told) = watch::channel(Told { picture, ..Told::default() });
        let (saying, said) = mpsc::channel(MOST_UNSAID);
        let living = AbortOnDropHandle::new(tokio::spawn(live(connection, tell, said)));
        Member { own: text(&joined["self"]["peer"]), told, saying, _living: living }
    }

    fn say(&self, message: Value) {
        self.saying.try_send(message).expect("it lives, and says what it is to say");
    }

    /// Waits until something is true of what it has been told.
    async fn until(&self, what: impl FnMut(&Told) -> bool) {
        self.told.clone().wait_for(what).await.expect("it lives");
    }

    async fn leave(self) {
        self.say(json!({"type": "leave", "id": 1_000_000}));
        within(self.until(|told| told.answers.contains_key(&1_000_000))).await;
    }
}

async fn live(mut connection: Connection, tell: watch::Sender<Told>, mut said: mpsc::Receiver<Value>) {
    let mut seq = 0;
    loop {
        tokio::select! {
            Some(message) = said.recv() => say(&mut connection, &message).await,
            event = connection.recv() => {
                let Ok(Event::Message(text) | Event::Datagram(text)) = event else { return };
                let message = Messages::read(&text);
                tell.send_modify(|told| told.take(&message));
                let number = message["seq"].as_u64().unwrap_or(seq);
                if number >= seq + 32 {
                    seq = number;
                    say(&mut connection, &json!({"type": "ack", "seq": seq})).await;
                }
            }
        }
    }
}

/// What is taken away for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    /// The way between one node and NATS.
    OneNode,
    /// NATS.
    Nats,
}

/// Two nodes beside NATS, and one that reaches it by the hostile link.
struct Place {
    near: [TestServer; 2],
    far: ServerProcess,
}

impl Place {
    async fn start(nats: &Nats) -> Self {
        let near: [TestServer; 2] = nodes(nats, |config| config).await;
        let far = ServerProcess::start(&["--cluster", &format!("nats://192.0.2.2:{}", nats.port)]).await;
        for node in &near {
            linked(node, 2).await;
        }
        Place { near, far }
    }

    /// Joins at one of the three.
    async fn join(&self, node: usize, room: usize) -> Member {
        let room = format!("r{room}");
        let connection = match node {
            2 => self.far.connect(Link::Calm, Via::WebSocketH2, &room).await,
            near => self.near[near].connect([Via::WebSocketH1, Via::WebTransport][near], &room).await,
        };
        Member::join(connection).await
    }
}

type Rooms = Vec<Vec<Member>>;

/// Waits until each member's picture is of all the others of its room, none of them away.
async fn agree(rooms: &Rooms) {
    join_all(rooms.iter().map(async |members| {
        let all: BTreeSet<&String> = members.iter().map(|member| &member.own).collect();
        join_all(members.iter().map(async |member| {
            let is_true = |told: &Told| {
                told.picture.values().all(|state| state == "here")
                    && told.picture.keys().chain([&member.own]).collect::<BTreeSet<_>>() == all
            };
            member.until(is_true).await;
        }))
        .await;
    }))
    .await;
}

/// The first of each room talks to the second and the third, who are at other nodes, for as long as the outage lasts. Returns how
/// many messages each of the two was sent.
async fn talk(rooms: &Rooms, begun: Instant) -> u64 {
    let mut rounds = 0;
    while begun.elapsed() < OUTAGE {
        for members in rooms {
            for (to, id) in [(&members[1], 2 * rounds + 1), (&members[2], 2 * rounds + 2)] {
                members[0].say(json!({"type": "message", "id": id, "to": to.own, "data": id}));
            }
        }
        rounds += 1;
        sleep(PAUSE).await;
    }
    rounds
}

/// What was answered `ok` came, once and in order. Returns how many were refused.
async fn nothing_was_lost(rooms: &Rooms, rounds: u64) -> usize {
    let mut refused = 0;
    for members in rooms {
        let from = &members[0];
        within(from.until(|told| told.answers.len() as u64 == 2 * rounds)).await;
        let accepted = |id: &u64| from.told.borrow().answers[id].is_null();
        for (at, to) in members[1..3].iter().enumerate() {
            let sent: Vec<u64> = (0..rounds).map(|round| 2 * round + 1 + at as u64).collect();
            let ok: Vec<u64> = sent.iter().copied().filter(accepted).collect();
            refused += sent.len() - ok.len();
            let heard = |told: &Told| told.heard.get(&from.own).cloned().unwrap_or_default();
            within(to.until(|told| ok.last().is_none_or(|last| heard(told).contains(last)))).await;
            let heard = heard(&to.told.borrow());
            assert!(heard.is_sorted_by(|one, next| one < next), "each once, and in order: {heard:?}");
            assert_eq!(heard.iter().copied().filter(accepted).collect::<Vec<_>>(), ok, "nothing that was accepted");
        }
    }
    refused
}

/// In each room one comes at each node, and one of those who were there leaves at each.
async fn come_and_go(place: &Place, rooms: &mut Rooms) {
    for (number, members) in rooms.iter_mut().enumerate() {
        for member in members.drain(3..).collect::<Vec<_>>() {
            member.leave().await;
        }
        for node in 0..3 {
            members.push(place.join(node, number).await);
        }
    }
}

async fn survive(outage: Outage) {
    let what = match outage {
        Outage::OneNode => "One node of three is cut off from NATS",
        Outage::Nats => "NATS is away from three nodes",
    };
    report::scenario(format_args!("{what} for {OUTAGE:?}; {ROOMS} rooms talk, come and go"));
    network::reset().await;
    let nats = Nats::start(&["--addr", "0.0.0.0"]).await;
    let place = Box::pin(Place::start(&nats)).await;
    let mut rooms = Rooms::new();
    for room in 0..ROOMS {
        let mut members = Vec::new();
        for node in [0, 1, 2, 0, 1, 2] {
            members.push(place.join(node, room).await);
        }
        rooms.push(members);
    }
    within(agree(&rooms)).await;
    report::progress("all know all; now the outage begins");
    let begun = Instant::now();
    let nats = match outage {
        Outage::OneNode => {
            network::vanish().await;
            Ok(nats)
        }
        Outage::Nats => Err(nats.kill().await),
    };
    let rounds = talk(&rooms, begun).await;
    // Last, so that nobody can hear of it before it is over.
    come_and_go(&place, &mut rooms).await;
    let nats = match nats {
        Ok(nats) => {
            network::calm_down().await;
            nats
        }
        Err(port) => Nats::start_at(port, &["--addr", "0.0.0.0"]).await,
    };
    let over = Instant::now();
    timeout(HEALING, agree(&rooms)).await.expect("all have a true picture again");
    let healed = over.elapsed();
    let refused = nothing_was_lost(&rooms, rounds).await;
    report::line(format_args!(
        "rosters agree {:.1} s after it; of {} messages {refused} were refused, and no other lost",
        healed.as_secs_f64(),
        2 * rounds as usize * ROOMS
    ));
    drop((place, nats));
    report::passed();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs network namespaces: scripts/hostile"]
async fn rosters_agree_soon_after_a_node_was_cut_off() {
    Box::pin(survive(Outage::OneNode)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs network namespaces: scripts/hostile"]
async fn rosters_agree_soon_after_nats_was_away() {
    Box::pin(survive(Outage::Nats)).await;
}
