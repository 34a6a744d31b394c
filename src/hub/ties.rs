//! What a room shares with other nodes of a cluster, and how its own members' doings are told there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::durable::Journals;
use super::moving::{Heard, Moving};
use super::{Hall, cluster::moved, session};
use crate::cluster::mesh::Weight;
use crate::cluster::note::{self, Lock, Missing, Note, PAYLOAD_BYTES, Present, Said, Wish, Written};
use crate::cluster::{Cluster, Pending};
use crate::protocol::{
    Body, Code, Kind, Member, Moderate, NodeId, Outbound, PeerId, PeerState, Recipient, Refusal, RoomName,
};
use crate::room::{Delivery, Receipt};
use crate::timeline::Outcome;
use crate::traces::Span;

/// Bytes of metadata in one part of a roster, so that it fits on any bus.
const PART_BYTES: usize = 64 * 1024;

/// What a member takes in a roster beside its metadata, about.
const MEMBER_BYTES: usize = 128;

/// Nodes of which it is remembered what they have said to all. More than a cluster has: some were started again.
const MOST_HEARD: usize = 512;

/// The other nodes that have a room open, or were asked whether they have.
#[derive(Debug)]
pub(super) struct Ties {
    pub(super) cluster: Arc<Cluster>,
    pub(super) nodes: BTreeMap<NodeId, Tie>,
    /// Which nodes were asked whom they have, and whether they have answered.
    asked: BTreeMap<NodeId, Asked>,
    pub(super) lock: Lock,
    /// How many are about to join, for whom the room stays open although it has no seats.
    pub(super) entering: usize,
    /// Cancelled when all that were asked have answered.
    pub(super) whole: CancellationToken,
    /// What members here have said to all.
    pub(super) said: Said,
    /// What those at other nodes have, as far as it has come. Of a node that has closed the room, too: others may hear it later.
    heard: Heard,
    /// Members on their way.
    pub(super) moving: Moving,
    /// What is kept of members here beyond the life of this node, if anything is.
    pub(super) journals: Option<Journals>,
}

/// One of them.
#[derive(Debug, Default)]
pub(super) struct Tie {
    /// The link's life in which it was told the whole roster, and is told each change.
    pub(super) told: Option<u64>,
    /// It has told its roster, and does not know this node's.
    pub(super) wants_roster: bool,
    /// It was asked for its roster and has not answered.
    pub(super) is_asked: bool,
    /// Who was in the parts of its roster so far.
    pub(super) seen: BTreeSet<PeerId>,
    /// Payloads for all its members that could not be sent, or may not have arrived.
    pub(super) missing: Missing,
}

/// A question for a node's roster. It holds in one life of the link alone.
#[derive(Debug, Clone, Copy)]
struct Asked {
    life: u64,
    is_answered: bool,
}

impl Tie {
    /// Payloads for all its members were not sent, of all that was said. It is told at once, or with the next roster.
    pub(super) fn miss(&mut self, missing: Missing, said: Said, cluster: &Cluster, (node, room): (NodeId, &RoomName)) {
        self.missing = self.missing.and(missing);
        if self.told.is_some() {
            let note = Note::Missed { room: room.clone(), missing: self.missing, said }.write();
            self.told = cluster.send(node, self.told, note, Weight::Vital).ok();
            if self.told.is_some() {
                self.missing = Missing::default();
            }
        }
    }
}

impl Ties {
    /// Those of a room that is being opened: every node is asked whether it has it open.
    pub(super) fn begin(cluster: &Arc<Cluster>, room: &RoomName) -> Self {
        let lock = Lock { count: 0, by: cluster.id(), locked: false };
        let mut ties = Ties {
            cluster: Arc::clone(cluster),
            nodes: BTreeMap::new(),
            asked: BTreeMap::new(),
            lock,
            entering: 0,
            whole: CancellationToken::new(),
            said: Said { hall: cluster.number_hall(), number: 0 },
            heard: Heard::new(),
            moving: Moving::default(),
            journals: cluster.desk().cloned().map(Journals::new),
        };
        ties.ask_rest(room, false);
        ties.nodes = ties.asked.keys().map(|&node| (node, Tie { is_asked: true, ..Tie::default() })).collect();
        ties.check_whole();
        ties
    }

    /// Asks each node that can be asked and was not, in this life of its link; `again` if the room was open before.
    pub(super) fn ask_rest(&mut self, room: &RoomName, again: bool) {
        for node in self.cluster.nodes() {
            if self.asked(node).is_none() {
                self.ask(room, node, again);
            }
        }
    }

    /// Asks a node whom it has. Returns whether it can be asked.
    pub(super) fn ask(&mut self, room: &RoomName, node: NodeId, again: bool) -> bool {
        let enter = Note::Enter { room: room.clone(), again, receipt: None };
        let asked = self.cluster.send(node, None, enter.write(), Weight::Vital);
        asked.map(|life| self.set_asked(node, life, false)).is_ok()
    }

    /// Asks a node that is said to have these peers, and waits for its answer. Returns whether it can be asked.
    pub(super) fn ask_whether(&mut self, room: &RoomName, node: NodeId, peers: Vec<(PeerId, u64)>) -> bool {
        let pending = Pending::Whether { room: room.clone(), peers };
        let enter = |receipt| Note::Enter { room: room.clone(), again: true, receipt: Some(receipt) }.write();
        self.cluster.ask(node, None, pending, Weight::Vital, enter).is_ok()
    }

    /// A node has told in this life of its link whom it has, or is about to.
    pub(super) fn set_asked(&mut self, node: NodeId, life: u64, is_answered: bool) {
        self.asked.insert(node, Asked { life, is_answered });
        if self.asked.len() > MOST_HEARD {
            self.asked.retain(|&node, asked| self.cluster.is_up(node, asked.life));
        }
    }

    /// Whether it is known whom a node has.
    pub(super) fn has_answered(&self, node: NodeId) -> bool {
        self.asked(node).is_some_and(|asked| asked.is_answered)
    }

    fn asked(&self, node: NodeId) -> Option<Asked> {
        self.asked.get(&node).copied().filter(|asked| self.cluster.is_up(node, asked.life))
    }

    /// The room is closed here.
    pub(super) fn part(&self, room: &RoomName) {
        let gone = Note::Gone { room: room.clone() }.write();
        for &node in self.nodes.keys() {
            // Where the link is down, its next life will begin with what the other node takes this one to have.
            let _ = self.cluster.send(node, None, gone.clone(), Weight::Vital);
        }
    }

    /// Whoever waits for a whole picture need not wait any longer, if nobody has to answer any more.
    pub(super) fn check_whole(&mut self) {
        if !self.nodes.values().any(|tie| tie.is_asked) {
            self.whole.cancel();
        }
    }

    /// Nobody who was asked is waited for any longer.
    pub(super) fn give_up(&mut self) {
        self.nodes.values_mut().for_each(|tie| tie.is_asked = false);
        self.whole.cancel();
    }

    /// What each node has said to all, as far as it is known here.
    pub(super) fn heard(&self) -> Heard {
        self.heard.iter().map(|(&node, &said)| (node, said)).chain([(self.cluster.id(), self.said)]).collect()
    }

    /// What a member here has heard of that: more, of nodes of which it had heard more where it was before.
    pub(super) fn heard_by(&self, peer: PeerId) -> Heard {
        let mut heard = self.heard();
        for (node, said) in self.moving.known_to(peer) {
            let until = heard.entry(node).or_default();
            *until = said.max(*until);
        }
        heard
    }

    /// How much of a node has come.
    pub(super) fn heard_of(&self, node: NodeId) -> Said {
        self.heard.get(&node).copied().unwrap_or_default()
    }

    /// So much of a node has come.
    pub(super) fn hear(&mut self, node: NodeId, said: Said) {
        let heard = self.heard.entry(node).or_default();
        *heard = said.max(*heard);
        if self.heard.len() > MOST_HEARD {
            self.heard.retain(|node, _| self.nodes.contains_key(node));
        }
    }

    fn tell(&mut self, written: &Written) {
        for (&node, tie) in &mut self.nodes {
            if tie.told.is_some() {
                tie.told = self.cluster.send(node, tie.told, written.clone(), Weight::Vital).ok();
            }
        }
    }

    /// The life of the link over which a member's node can be asked something.
    fn life(&self, node: NodeId) -> Result<u64, Refusal> {
        self.nodes.get(&node).and_then(|tie| tie.told).ok_or_else(unreachable)
    }
}

impl Hall {
    /// Whether it may be closed.
    pub(super) fn is_idle(&self) -> bool {
        self.seats.is_empty() && self.ties.as_ref().is_none_or(|ties| ties.entering == 0)
    }

    /// Tells the other nodes of a change.
    pub(super) fn announce<'a>(&mut self, note: impl FnOnce(RoomName) -> Note<'a>) {
        if let Some(ties) = &mut self.ties {
            ties.tell(&note(self.room.name().clone()).write());
        }
    }

    /// Tells them of a new member here, or of one who waits.
    pub(super) fn announce_newcomer(&mut self, peer: PeerId) {
        self.begin_journal(peer);
        let Some(ties) = &mut self.ties else { return };
        let room = self.room.name().clone();
        if let Some((member, state)) = self.room.own_member(peer) {
            let present = present(member, state, self.room.moves_of(peer));
            ties.tell(&Note::Joined { room: room.clone(), present }.write());
            if self.room.is_locked() {
                // Who takes the room to have been empty until now takes it to be unlocked.
                let lock = ties.lock;
                ties.tell(&Note::Locked { room, lock }.write());
            }
        } else if let Some(member) = self.room.own_waiting().find(|member| member.peer == peer).cloned() {
            ties.tell(&Note::Knocked { room, member }.write());
        }
    }

    /// Tells them that a moderator here has locked or unlocked the room.
    pub(super) fn announce_lock(&mut self, locked: bool) {
        let Some(ties) = &mut self.ties else { return };
        ties.lock = Lock { count: ties.lock.count.saturating_add(1), by: ties.cluster.id(), locked };
        let lock = ties.lock;
        self.announce(|room| Note::Locked { room, lock });
        self.touch_journals();
    }

    /// The lock as far as this node knows. A room that nobody was in is unlocked since; but it may be that another node has never seen it
    /// so, as somebody was admitted there before the last one had left here, and what that one says of the lock holds.
    pub(super) fn known_lock(&self) -> Option<Lock> {
        let Ties { lock, cluster, .. } = self.ties.as_deref()?;
        let was_empty = lock.locked && !self.room.is_locked();
        Some(if was_empty { Lock { count: 0, by: cluster.id(), locked: false } } else { *lock })
    }

    /// Tells a node the whole roster, in the link's present life.
    pub(super) fn tell_roster(&mut self, node: NodeId) {
        let known_lock = self.known_lock();
        let (Some(ties), Some(lock)) = (&mut self.ties, known_lock) else { return };
        let tie = ties.nodes.entry(node).or_default();
        let room = || self.room.name().clone();
        let said = ties.said;
        let part = |members, waiting| {
            let (missing, last) = (Missing::default(), false);
            Note::Roster { room: room(), members, waiting, lock, missing, said, last }
        };
        let members = self.room.own_members().map(|(member, state, moves)| present(member, state, moves)).collect();
        let members = parts(members, |present: &Present| &present.member).into_iter().map(|few| part(few, vec![]));
        let waiting = parts(self.room.own_waiting().cloned().collect(), |member| member);
        let waiting = waiting.into_iter().map(|few| part(vec![], few));
        let missing = tie.missing;
        let last = Note::Roster { room: room(), members: vec![], waiting: vec![], lock, missing, said, last: true };
        let gone = moved(&ties.cluster, self.room.name());
        let mut notes = gone.chain(members).chain(waiting).chain([last]);
        let send = |life, note: Note<'_>| ties.cluster.send(node, life, note.write(), Weight::Vital).map(Some);
        tie.told = notes.try_fold(None, send).unwrap_or(None);
        if tie.told.is_some() {
            tie.missing = Missing::default();
        }
    }

    /// Carries a directed payload to a member's node, which will answer for it. Returns what has become of it so far, if that is to be
    /// told.
    pub(super) fn carry_elsewhere(
        &self,
        to: PeerId,
        body: &Body,
        receipt: Option<Receipt>,
        trace: &Span,
    ) -> Option<Outcome> {
        let (ties, node, receipt) = (self.ties.as_ref()?, self.room.node_of(to)?, receipt?);
        let (room, to) = (self.room.name(), (to, self.room.moves_of(to)));
        if body.kind == Kind::Ephemeral {
            let written = note::relay(room, to, None, None, None, body);
            // It may be dropped.
            let _ = ties.life(node).map(|life| ties.cluster.send(node, Some(life), written, Weight::Ephemeral));
            self.reply(receipt.accepted());
            return Some(Outcome::Elsewhere);
        }
        let asked = if body.len() + PAYLOAD_BYTES > ties.cluster.largest_note() {
            Err(Refusal::new(Code::TooLarge, "the peer's node cannot be sent so much; see max_payload of NATS"))
        } else {
            let sender = receipt.id.map(|id| (receipt.from, id));
            let trace = trace.traceparent();
            let make = |number| note::relay(room, to, Some(number), sender, trace.as_deref(), body);
            self.ask(node, receipt.from, receipt.id, make)
        };
        Some(match asked {
            Ok(()) => Outcome::Elsewhere,
            Err(refusal) => {
                self.reply(Some(receipt.refused(&refusal)));
                Outcome::Unreachable
            }
        })
    }

    /// Carries a payload for all to the nodes that share the room. What cannot be sent is told there when it can.
    pub(super) fn broadcast_elsewhere(&mut self, from: PeerId, outbound: &Outbound<'_>) {
        let Some(ties) = self.ties.as_mut().filter(|ties| !ties.nodes.is_empty()) else { return };
        let body = Body::relay(from, outbound);
        let said = (!outbound.ephemeral).then(|| {
            ties.said.number += 1;
            ties.said
        });
        if let Some(said) = said {
            ties.moving.note(ties.cluster.id(), said, &body);
        }
        let written = note::broadcast(self.room.name(), said, &body);
        let fits = body.len() + PAYLOAD_BYTES <= ties.cluster.largest_note();
        let weight = if outbound.ephemeral { Weight::Ephemeral } else { Weight::Payload };
        for (&node, tie) in &mut ties.nodes {
            let sent = fits && tie.told.is_some() && ties.cluster.send(node, tie.told, written.clone(), weight).is_ok();
            let counts = said.filter(|_| !sent && (tie.told.is_some() || self.room.concerns(node)));
            if let Some(said) = counts {
                tie.miss(Missing::own(1), said, &ties.cluster, (node, self.room.name()));
            }
        }
    }

    /// Asks a peer's node for what a moderator wants, if it is another one; its answer will come from there. `None` if the peer is
    /// of this node, or of none.
    pub(super) fn moderate_elsewhere(
        &self,
        from: PeerId,
        id: Option<u64>,
        request: &Moderate<'_>,
    ) -> Option<Result<(), Refusal>> {
        let (peer, wish) = match request {
            Moderate::Kick(Recipient::Peer(peer), reason) if self.room.has(*peer) => {
                (*peer, Wish::Kick(session::kick_message(reason.as_deref())))
            }
            Moderate::Admit(Recipient::Peer(peer)) => (*peer, Wish::Admit),
            Moderate::Refuse(Recipient::Peer(peer)) => (*peer, Wish::Refuse),
            Moderate::Kick(..) | Moderate::Admit(_) | Moderate::Refuse(_) | Moderate::Lock(_) => return None,
        };
        let node = self.room.node_of(peer)?;
        let room = self.room.name().clone();
        Some(self.ask(node, from, id, |receipt| Note::Moderate { room, peer, wish, receipt }.write()))
    }

    /// Sends what another node is to answer to a member here.
    fn ask(
        &self,
        node: NodeId,
        from: PeerId,
        id: Option<u64>,
        make: impl FnOnce(u64) -> Written,
    ) -> Result<(), Refusal> {
        let Some(ties) = &self.ties else { return Err(unreachable()) };
        let life = ties.life(node)?;
        let pending = Pending::Request { room: self.room.name().clone(), from, moves: self.room.moves_of(from), id };
        ties.cluster.ask(node, Some(life), pending, Weight::Payload, make).map_err(|_| unreachable())?;
        if let Some(seat) = self.seats.get(&from)
            && let Some(id) = id
        {
            seat.quietly(|seat| seat.ask(id));
        }
        Ok(())
    }

    fn reply(&self, delivery: Option<Delivery>) {
        if let Some(Delivery { to, body, .. }) = delivery {
            self.answer(to, body);
        }
    }
}

/// A list in parts that fit on any bus.
fn parts<T>(list: Vec<T>, member: impl Fn(&T) -> &Member) -> Vec<Vec<T>> {
    let mut parts: Vec<Vec<T>> = Vec::new();
    let mut bytes = PART_BYTES;
    for one in list {
        let Member { user, metadata, .. } = member(&one);
        let size = metadata.len() + user.as_ref().map_or(0, |user| user.len()) + MEMBER_BYTES;
        bytes += size;
        match parts.last_mut() {
            Some(part) if bytes <= PART_BYTES => part.push(one),
            _ => {
                parts.push(vec![one]);
                bytes = size;
            }
        }
    }
    parts
}

pub(super) fn present(member: &Member, state: PeerState, moves: u64) -> Present {
    Present { member: member.clone(), away: state == PeerState::Away, moves }
}

/// What a sender is told whose message has come where its peer has just gone from, or is not yet, or is again.
pub(super) fn on_its_way() -> Refusal {
    Refusal::new(Code::QueueFull, "the peer is, or was, on its way to another node, and has not got it; send it again")
}

/// What a sender is told whose message could not be handed to another node.
pub(super) fn unreachable() -> Refusal {
    Refusal::new(Code::QueueFull, "the peer's node cannot be reached now; it may or may not have got it")
}
