//! The other nodes, as far as this one has heard of them, and a link to each. Pure: time comes in, texts for the bus and events for
//! the hub come out.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Pending;
use super::bus::To;
use super::link::{Change, Limits, Link, NoLink, Packet};
use super::note::{self, Beat, ENVELOPE_BYTES, Text, VERSION, Written};
use crate::protocol::NodeId;

/// How often a node says that it is there.
const BEAT: Duration = Duration::from_secs(1);

/// After this silence a node counts as lost: three beats are missing, the third of them half a second late.
const SILENCE: Duration = Duration::from_millis(3500);

/// A node that is there is heard of in this time.
pub const HEARD_OF_ALL: Duration = Duration::from_secs(3);

/// Other nodes at once. Links grow with the square of it, and no larger cluster was thought of.
const MOST_NODES: usize = 256;

/// Nodes that have said that they stop, that cannot be talked to, or that are given up; the latest of them are remembered.
const MOST_STRANGERS: usize = MOST_NODES;

/// Receipts that may be open for one node.
const MOST_PENDING: usize = 16_384;

/// What the hub has to hear of another node.
#[derive(Debug)]
pub enum Event {
    /// The link is up, in this life of this end: neither knows anything of the other.
    Up {
        /// Whose.
        node: NodeId,
        /// Which.
        life: u64,
    },
    /// A note has come.
    Note {
        /// From whom.
        node: NodeId,
        /// In which life of this end.
        life: u64,
        /// Its text, not parsed yet.
        text: Text,
    },
    /// The link is down.
    Down {
        /// Whose.
        node: NodeId,
        /// What may or may not have arrived.
        held: Vec<Text>,
        /// Who wanted to know what has become of something, and will not be told by this link.
        pending: Vec<Pending>,
    },
    /// Nothing was heard of the node for a while, or it could not be talked to.
    Lost(NodeId),
    /// It has stopped, or was silent for as long as seats are kept.
    Gone(NodeId),
    /// It speaks another version, of which nothing can be understood.
    Stranger {
        /// Who.
        node: NodeId,
        /// Which version.
        version: u32,
    },
}

/// What it means if a link has no room for a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The other end's picture would be wrong without it: the link ends, and begins anew with a whole one.
    Vital,
    /// A payload: it is refused, when three quarters of the room are taken.
    Payload,
    /// It may be dropped, and is when half of the room is taken.
    Ephemeral,
}

/// What a mesh is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Limits of each link.
    pub limits: Limits,
    /// How long a lost node's members are kept.
    pub keep: Duration,
}

/// Other nodes and the links to them.
#[derive(Debug)]
pub struct Mesh {
    id: NodeId,
    settings: Settings,
    peers: BTreeMap<NodeId, Peer>,
    strangers: VecDeque<NodeId>,
    /// Nodes that were there and are given up; the latest of them are remembered.
    gone: VecDeque<NodeId>,
    drains: bool,
    next_beat: Instant,
    /// When to look next, at the latest.
    alarm: Instant,
    /// The greatest life of links that are no more.
    lives: u64,
    events: VecDeque<Event>,
    out: Vec<(To, Bytes)>,
    sent: BTreeMap<&'static str, u64>,
    again: u64,
}

#[derive(Debug)]
struct Peer {
    link: Link,
    heard: Instant,
    /// When the link was up the last time. A node that is heard of, but cannot be talked to, is as good as silent.
    linked: Instant,
    /// Its members were given up for the moment.
    is_lost: bool,
    drains: bool,
    /// Open receipts, and when they were asked for.
    pending: BTreeMap<u64, (Instant, Pending)>,
    next_receipt: u64,
}

/// How far has been sent to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    node: NodeId,
    life: u64,
    note: u64,
}

impl Mark {
    /// Which node.
    pub fn node(&self) -> NodeId {
        self.node
    }
}

/// What a mesh is at the moment, for the counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Nodes that are heard of, whether they can be talked to or not.
    pub nodes: usize,
    /// Links that are up.
    pub links: usize,
    /// Bytes of notes that were not acknowledged.
    pub bytes: usize,
    /// Receipts that are open.
    pub pending: usize,
    /// Notes sent, by kind.
    pub sent: BTreeMap<&'static str, u64>,
    /// Notes sent again.
    pub again: u64,
}

impl Mesh {
    /// A mesh of this node alone.
    pub fn new(id: NodeId, settings: Settings, now: Instant) -> Self {
        Mesh {
            id,
            settings,
            peers: BTreeMap::new(),
            strangers: VecDeque::new(),
            gone: VecDeque::new(),
            drains: false,
            next_beat: now,
            alarm: now,
            lives: 0,
            events: VecDeque::new(),
            out: Vec::new(),
            sent: BTreeMap::new(),
            again: 0,
        }
    }

    /// Takes in what the bus has brought. What is malformed is refused.
    ///
    /// # Errors
    /// It is neither packet nor beat.
    pub fn receive(&mut self, text: &Bytes, now: Instant) -> Result<(), serde_json::Error> {
        match note::open(text) {
            Ok((from, packet)) => self.packet(from, packet, now),
            Err(error) => self.beat(&serde_json::from_slice(text).map_err(|_| error)?, now),
        }
        Ok(())
    }

    /// The bus is there again: the others are to know at once that this node is.
    pub fn connected(&mut self, now: Instant) {
        self.next_beat = now;
        self.alarm = now;
    }

    /// Does what time has made due.
    pub fn tick(&mut self, now: Instant) {
        if self.next_beat <= now {
            self.next_beat = now + BEAT;
            self.out.push((To::All, self.own_beat(false)));
        }
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in nodes {
            self.tick_one(node, now);
        }
        let next = self.peers.values().map(|peer| peer.due(self.settings.keep, now)).min();
        self.alarm = next.map_or(self.next_beat, |next| next.min(self.next_beat));
    }

    /// When [`tick`](Self::tick) has something to do, at the earliest.
    pub fn due(&self) -> Instant {
        self.alarm
    }

    /// Says from now on that this node drains.
    pub fn drain(&mut self, now: Instant) {
        self.drains = true;
        self.connected(now);
    }

    /// Says that this node stops.
    pub fn stop(&mut self) {
        self.out.push((To::All, self.own_beat(true)));
    }

    /// The nodes whose links are up and that do not drain.
    pub fn staying(&self) -> Vec<NodeId> {
        let stays = |peer: &Peer| peer.link.life().is_some() && !peer.drains;
        self.peers.iter().filter(|(_, peer)| stays(peer)).map(|(&node, _)| node).collect()
    }

    /// What to put on the bus.
    pub fn take_out(&mut self) -> Vec<(To, Bytes)> {
        std::mem::take(&mut self.out)
    }

    /// What the hub has to hear next.
    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The nodes whose links are up.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.link.life().is_some()).map(|(&node, _)| node).collect()
    }

    /// The nodes that were not given up and are not silent, whether their links are up or not.
    pub fn living(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|(_, peer)| !peer.is_lost).map(|(&node, _)| node).collect()
    }

    /// Bytes that are on their way to a node.
    pub fn bytes(&self, node: NodeId) -> usize {
        self.peers.get(&node).map_or(0, |peer| peer.link.bytes())
    }

    /// Sends a note to a node; with `life` only in that one. Returns the link's life.
    ///
    /// # Errors
    /// The link is down, by now at the latest, or not in that life, or has no room for a note of this weight.
    pub fn send(
        &mut self,
        node: NodeId,
        life: Option<u64>,
        note: Written,
        weight: Weight,
        now: Instant,
    ) -> Result<u64, NoLink> {
        let present = self.life(node, life)?;
        if self.try_send(node, note, weight, now) {
            return Ok(present);
        }
        if weight == Weight::Vital {
            self.fail(node, now);
        }
        Err(NoLink)
    }

    /// Sends a note that the other node answers, which is made of the receipt's number.
    ///
    /// # Errors
    /// The link is down, by now at the latest, or not in that life, or has no room for a note of this weight, or for a receipt.
    pub fn ask(
        &mut self,
        node: NodeId,
        life: Option<u64>,
        pending: Pending,
        weight: Weight,
        make: impl FnOnce(u64) -> Written,
        now: Instant,
    ) -> Result<(), NoLink> {
        self.life(node, life)?;
        let peer = self.peers.get_mut(&node).ok_or(NoLink)?;
        let receipt = peer.next_receipt;
        if peer.pending.len() >= MOST_PENDING {
            if weight == Weight::Vital {
                self.fail(node, now);
            }
            return Err(NoLink);
        }
        self.send(node, life, make(receipt), weight, now)?;
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.next_receipt += 1;
            peer.pending.insert(receipt, (now, pending));
        }
        Ok(())
    }

    /// Sends notes that are of no use without one another, in one life.
    ///
    /// # Errors
    /// The link is down, or not in that life, or has no room for all of them: none was sent.
    pub fn send_all(&mut self, node: NodeId, life: u64, notes: Vec<Written>, now: Instant) -> Result<(), NoLink> {
        self.life(node, Some(life))?;
        let bytes: usize = notes.iter().map(|note| note.text.0.len()).sum();
        if self.bytes(node) + bytes > most_at_once(self.settings.limits.bytes) {
            return Err(NoLink);
        }
        for note in notes {
            self.try_send(node, note, Weight::Vital, now);
        }
        Ok(())
    }

    /// The life of the link to a node, if it is up.
    pub fn up(&self, node: NodeId) -> Option<u64> {
        self.life(node, None).ok()
    }

    /// Whether the link to a node is up, in this life.
    pub fn is_up(&self, node: NodeId, life: u64) -> bool {
        self.life(node, Some(life)).is_ok()
    }

    /// Whether a node is silent, or has never been heard of.
    pub fn is_lost(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_none_or(|peer| peer.is_lost)
    }

    /// Whether a node is heard of, or was before and is not given up yet: what becomes of it will be told.
    pub fn knows(&self, node: NodeId) -> bool {
        self.peers.contains_key(&node)
    }

    /// Whether a node was there and is given up.
    pub fn has_gone(&self, node: NodeId) -> bool {
        self.gone.contains(&node) && !self.peers.contains_key(&node)
    }

    /// Whether there is such an open receipt.
    pub fn awaits(&self, is: impl Fn(&Pending) -> bool) -> bool {
        self.peers.values().flat_map(|peer| peer.pending.values()).any(|(_, pending)| is(pending))
    }

    /// How far has been sent to each node whose link is up.
    pub fn marks(&self) -> Vec<Mark> {
        let up = self.peers.iter().filter_map(|(&node, peer)| Some((node, peer.link.life()?, &peer.link)));
        up.map(|(node, life, link)| Mark { node, life, note: link.sent_and_arrived().0 }).collect()
    }

    /// Whether all up to a mark has arrived, or never will.
    pub fn has_passed(&self, mark: &Mark) -> bool {
        let arrived = self.peers.get(&mark.node).map(|peer| peer.link.sent_and_arrived().1);
        !self.is_up(mark.node, mark.life) || arrived >= Some(mark.note)
    }

    /// Who wanted to know what has become of what has this receipt; `None` if nobody did.
    pub fn answered(&mut self, node: NodeId, receipt: u64) -> Option<Pending> {
        self.peers.get_mut(&node)?.pending.remove(&receipt).map(|(_, answered)| answered)
    }

    /// What it is at the moment.
    pub fn status(&self, now: Instant) -> Status {
        let peers = || self.peers.values();
        Status {
            nodes: peers().filter(|peer| !peer.is_silent(now)).count(),
            links: peers().filter(|peer| peer.link.life().is_some()).count(),
            bytes: peers().map(|peer| peer.link.bytes()).sum(),
            pending: peers().map(|peer| peer.pending.len()).sum(),
            sent: self.sent.clone(),
            again: self.again + peers().map(|peer| peer.link.again()).sum::<u64>(),
        }
    }

    fn life(&self, node: NodeId, wanted: Option<u64>) -> Result<u64, NoLink> {
        let life = self.peers.get(&node).and_then(|peer| peer.link.life()).ok_or(NoLink)?;
        if wanted.is_none_or(|wanted| wanted == life) { Ok(life) } else { Err(NoLink) }
    }

    fn try_send(&mut self, node: NodeId, note: Written, weight: Weight, now: Instant) -> bool {
        let limit = self.settings.limits.bytes;
        let most = match weight {
            Weight::Vital => limit,
            Weight::Payload => most_at_once(limit),
            Weight::Ephemeral => limit / 2,
        };
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        if peer.link.bytes() + note.text.0.len() > most {
            return false;
        }
        let Ok(packet) = peer.link.send(note.text.0, now) else { return false };
        *self.sent.entry(note.kind).or_default() += 1;
        self.out.push((To::Node(node), note::seal(self.id, &packet)));
        self.look_at(node, now);
        true
    }

    /// The alarm is to go off in time for this node.
    fn look_at(&mut self, node: NodeId, now: Instant) {
        if let Some(peer) = self.peers.get(&node) {
            self.alarm = self.alarm.min(peer.due(self.settings.keep, now));
        }
    }

    fn own_beat(&self, stops: bool) -> Bytes {
        let beat = Beat { from: self.id, version: VERSION, drains: self.drains, stops };
        serde_json::to_vec(&beat).expect("a beat has string keys and no failing parts").into()
    }

    fn beat(&mut self, beat: &Beat, now: Instant) {
        let node = beat.from;
        if node == self.id || self.strangers.contains(&node) {
            return;
        }
        if beat.version != VERSION {
            self.estrange(node);
            self.events.push_back(Event::Stranger { node, version: beat.version });
            return;
        }
        if beat.stops {
            self.remove(node, now);
            self.estrange(node);
            return;
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.hear(now);
            peer.drains = beat.drains;
            self.look_at(node, now);
        } else if self.peers.len() < MOST_NODES {
            let link = Link::new(self.settings.limits, self.lives + 1, now);
            let (pending, next_receipt, drains) = (BTreeMap::new(), 1, beat.drains);
            let peer = Peer { link, heard: now, linked: now, is_lost: false, drains, pending, next_receipt };
            self.peers.insert(node, peer);
            // It may have just come, and is to know of this node before the next beat.
            self.out.push((To::Node(node), self.own_beat(false)));
            self.tick_one(node, now);
            self.look_at(node, now);
        }
    }

    fn packet(&mut self, node: NodeId, packet: Packet, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.hear(now);
        let (mut notes, mut packets) = (Vec::new(), Vec::new());
        let changes = peer.link.receive(packet, now, &mut notes, &mut packets);
        let life = peer.link.life();
        self.publish(node, &packets);
        self.changed(node, changes);
        self.look_at(node, now);
        let Some(life) = life else { return };
        self.events.extend(notes.into_iter().map(|text| Event::Note { node, life, text: Text(text) }));
    }

    fn tick_one(&mut self, node: NodeId, now: Instant) {
        let settings = self.settings;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.link.life().is_some() {
            peer.linked = now;
        }
        if peer.is_lost && peer.last_seen() + settings.keep.max(SILENCE) <= now {
            return self.remove(node, now);
        }
        if !peer.is_lost && peer.last_seen() + SILENCE <= now {
            peer.is_lost = true;
            self.fail(node, now);
            return self.events.push_back(Event::Lost(node));
        }
        if peer.is_silent(now) {
            return;
        }
        let mut packets = Vec::new();
        let mut changed = peer.link.tick(now, &mut packets);
        let oldest = peer.pending.first_key_value().map(|(_, (since, _))| *since);
        if oldest.is_some_and(|since| since + settings.limits.timeout <= now) {
            changed = changed.or(peer.link.fail(now));
        }
        self.publish(node, &packets);
        self.changed(node, changed);
    }

    fn publish(&mut self, node: NodeId, packets: &[Packet]) {
        let id = self.id;
        self.out.extend(packets.iter().map(|packet| (To::Node(node), note::seal(id, packet))));
    }

    fn fail(&mut self, node: NodeId, now: Instant) {
        let changed = self.peers.get_mut(&node).and_then(|peer| peer.link.fail(now));
        self.changed(node, changed);
        self.look_at(node, now);
    }

    fn changed(&mut self, node: NodeId, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.events.push_back(match change {
                Change::Up(life) => {
                    self.peers.entry(node).and_modify(|peer| peer.is_lost = false);
                    Event::Up { node, life }
                }
                Change::Down(held) => {
                    let pending = self.peers.get_mut(&node).map(|peer| std::mem::take(&mut peer.pending));
                    let pending = pending.into_iter().flatten().map(|(_, (_, pending))| pending);
                    Event::Down { node, held: held.into_iter().map(Text).collect(), pending: pending.collect() }
                }
            });
        }
    }

    fn remove(&mut self, node: NodeId, now: Instant) {
        self.fail(node, now);
        if let Some(peer) = self.peers.remove(&node) {
            self.lives = self.lives.max(peer.link.last_life());
            self.again += peer.link.again();
            remember(&mut self.gone, node);
            self.events.push_back(Event::Gone(node));
        }
    }

    fn estrange(&mut self, node: NodeId) {
        remember(&mut self.strangers, node);
    }
}

/// The latest of them are.
fn remember(nodes: &mut VecDeque<NodeId>, node: NodeId) {
    if nodes.len() >= MOST_STRANGERS {
        nodes.pop_front();
    }
    nodes.push_back(node);
}

impl Peer {
    fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.heard + SILENCE <= now
    }

    /// When it was both heard of and could be talked to.
    fn last_seen(&self) -> Instant {
        self.heard.min(self.linked)
    }

    /// When there is something to do for it, unless it is heard of before.
    fn due(&self, keep: Duration, now: Instant) -> Instant {
        let silence = if self.is_lost { keep.max(SILENCE) } else { SILENCE };
        // While the link is up this is put off, at each look.
        let lost = if self.link.life().is_some() { self.heard } else { self.last_seen() } + silence;
        let link = self.link.due().filter(|_| !self.is_silent(now));
        link.map_or(lost, |due| due.min(lost))
    }
}

/// Bytes that may be taken of a link's by what need not arrive.
pub fn most_at_once(limit: usize) -> usize {
    limit / 4 * 3
}

/// Bytes of a note that fits into a text of so many.
pub fn note_bytes(text_bytes: usize) -> usize {
    text_bytes.saturating_sub(ENVELOPE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::note::Note;
    use crate::protocol::{PeerId, RoomName};

    fn node(number: u64) -> NodeId {
        NodeId::parse(&format!("{number:016x}")).expect("an id")
    }

    /// Two meshes, and what is between them.
    struct Pair {
        now: Instant,
        meshes: [Mesh; 2],
        is_cut: bool,
        /// Nothing but beats arrives.
        has_beats_alone: bool,
        events: Vec<(usize, Event)>,
    }

    impl Pair {
        /// Each keeps a lost node's members for so many seconds.
        fn new(keeps: [u64; 2]) -> Self {
            let now = Instant::now();
            let limits = Limits { bytes: 10_000, timeout: Duration::from_secs(5) };
            let mesh = |at: usize| {
                let settings = Settings { limits, keep: Duration::from_secs(keeps[at]) };
                Mesh::new(node(at as u64 + 1), settings, now)
            };
            Pair { now, meshes: [mesh(0), mesh(1)], is_cut: false, has_beats_alone: false, events: vec![] }
        }

        fn carry(&mut self) {
            loop {
                let out = [self.meshes[0].take_out(), self.meshes[1].take_out()];
                if out.iter().all(Vec::is_empty) {
                    break;
                }
                for (from, texts) in out.into_iter().enumerate() {
                    let passes = |to: To| !self.is_cut && (to == To::All || !self.has_beats_alone);
                    for (_, text) in texts.into_iter().filter(|(to, _)| passes(*to)) {
                        self.meshes[1 - from].receive(&text, self.now).expect("a text of ours");
                    }
                }
            }
            for at in 0..2 {
                while let Some(event) = self.meshes[at].take_event() {
                    self.events.push((at, event));
                }
            }
        }

        /// Lets so many seconds pass, and tells what has happened.
        fn pass(&mut self, seconds: u64) -> Vec<(usize, Event)> {
            for _ in 0..seconds * 50 {
                self.now += Duration::from_millis(20);
                self.meshes.iter_mut().for_each(|mesh| mesh.tick(self.now));
                self.carry();
            }
            std::mem::take(&mut self.events)
        }

        fn are_linked(&self) -> bool {
            self.meshes.iter().all(|mesh| mesh.nodes().len() == 1)
        }
    }

    fn pending(id: u64) -> Pending {
        let peer = PeerId::parse("01977a3e-0000-7000-8000-000000000001").expect("an id");
        Pending::Request { room: RoomName::parse("r").expect("a name"), from: peer, moves: 0, id: Some(id) }
    }

    fn count(events: &[(usize, Event)], is: impl Fn(&Event) -> bool) -> usize {
        events.iter().filter(|(_, event)| is(event)).count()
    }

    #[test]
    fn a_node_that_was_forgotten_is_linked_with_again_though_it_has_not_forgotten() {
        let mut pair = Pair::new([8, 60]);
        pair.pass(1);
        // First it is lost, and begins another life; then it is forgotten.
        for (seconds, forgotten) in [(6, 0), (12, 1), (6, 0), (12, 1)] {
            assert!(pair.are_linked());
            pair.is_cut = true;
            let events = pair.pass(seconds);
            assert_eq!(count(&events, |event| matches!(event, Event::Lost(_))), 2);
            assert_eq!(count(&events, |event| matches!(event, Event::Gone(_))), forgotten);
            pair.is_cut = false;
            let events = pair.pass(3);
            assert_eq!(count(&events, |event| matches!(event, Event::Up { .. })), 2);
        }
    }

    #[test]
    fn a_node_that_is_heard_of_but_cannot_be_talked_to_is_lost_and_found_again() {
        let mut pair = Pair::new([8, 60]);
        pair.pass(1);
        pair.has_beats_alone = true;
        let note = Note::Done { receipt: 1, refused: None }.write();
        pair.meshes[0].send(node(2), None, note, Weight::Vital, pair.now).expect("nobody knows yet");
        let events = pair.pass(30);
        let of_first = |is: fn(&Event) -> bool| events.iter().filter(|(at, event)| *at == 0 && is(event)).count();
        assert!(of_first(|event| matches!(event, Event::Lost(_))) > 0);
        assert!(of_first(|event| matches!(event, Event::Gone(_))) > 0);
        assert_eq!(pair.meshes[0].status(pair.now).nodes, 1, "it is heard of");
        pair.has_beats_alone = false;
        pair.pass(3);
        assert!(pair.are_linked());
    }

    #[test]
    fn receipts_are_answered_once_and_given_back_when_the_link_is_down() {
        let mut pair = Pair::new([30, 30]);
        pair.pass(1);
        let life = pair.meshes[0].life(node(2), None).expect("it is up");
        let now = pair.now;
        for id in 1..=3 {
            let make = |receipt| Note::Done { receipt, refused: None }.write();
            pair.meshes[0].ask(node(2), Some(life), pending(id), Weight::Payload, make, now).expect("there is room");
        }
        let mark = pair.meshes[0].marks();
        assert!(!pair.meshes[0].has_passed(&mark[0]), "it has not arrived");
        assert_eq!(pair.meshes[0].answered(node(2), 1), Some(pending(1)));
        assert_eq!(pair.meshes[0].answered(node(2), 1), None, "once");
        // They arrive, but nobody answers.
        let mut events = pair.pass(1);
        assert!(pair.meshes[0].has_passed(&mark[0]));
        events.extend(pair.pass(5));
        let given_back = events.iter().find_map(|(_, event)| match event {
            Event::Down { pending, .. } if !pending.is_empty() => Some(pending.clone()),
            _ => None,
        });
        assert_eq!(given_back, Some(vec![pending(2), pending(3)]));
        assert!(pair.are_linked(), "it is up again");
        let late = pair.meshes[0].send(
            node(2),
            Some(life),
            Note::Done { receipt: 1, refused: None }.write(),
            Weight::Vital,
            now,
        );
        assert!(late.is_err(), "not in the life for which it was meant");
    }

    #[test]
    fn who_stops_is_gone_at_once_and_strangers_are_told_once() {
        let mut pair = Pair::new([30, 30]);
        pair.pass(1);
        pair.meshes[1].stop();
        pair.carry();
        let events = std::mem::take(&mut pair.events);
        assert_eq!(count(&events, |event| matches!(event, Event::Gone(_))), 1);
        assert!(
            count(&pair.pass(2), |event| matches!(event, Event::Up { .. })) == 0,
            "its late beats are not believed"
        );
        let strange = Beat { from: node(9), version: VERSION + 1, drains: false, stops: false };
        let strange = Bytes::from(serde_json::to_vec(&strange).expect("a beat"));
        for _ in 0..3 {
            pair.meshes[0].receive(&strange, pair.now).expect("a beat");
        }
        assert_eq!(count(&pair.pass(1), |event| matches!(event, Event::Stranger { .. })), 1);
        assert!(pair.meshes[0].receive(&Bytes::from_static(b"{}"), pair.now).is_err());
    }

    #[test]
    fn there_are_no_more_nodes_than_a_cluster_may_have() {
        let mut mesh = Pair::new([30, 30]).meshes.into_iter().next().expect("one of two");
        let now = Instant::now();
        for number in 2..1000 {
            let beat = Beat { from: node(number), version: VERSION, drains: false, stops: false };
            mesh.receive(&serde_json::to_vec(&beat).expect("a beat").into(), now).expect("a beat");
        }
        assert_eq!(mesh.status(now).nodes, MOST_NODES);
    }
}
