//! What other nodes of the cluster say, carried out upon the rooms that they share.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::handover::Wanted;
use super::recording::end;
use super::ties::{Tie, on_its_way, unreachable};
use super::{Hall, Hub, now, session};
use crate::cluster::journal::{Asker, Sender};
use crate::cluster::mesh::{Event, Weight};
use crate::cluster::moves::Move;
use crate::cluster::note::{self, Lock, Missing, Note, Present, Refused, Said, Text, Wish};
use crate::cluster::{Cluster, Events, LINK_BYTES, Pending};
use crate::protocol::{Body, Code, LeftReason, Member, NodeId, PeerId, PeerState, Refusal, RoomName, Ticket};
use crate::room::{Delivery, Room};
use crate::seat::Lease;
use crate::timeline::{Event as Noted, Outcome};
use crate::traces::Span;

/// How long the first to enter a room waits for the other nodes' rosters.
const ENTER: Duration = Duration::from_millis(500);

/// Names of rooms in one note.
const ROOMS_AT_ONCE: usize = 256;

/// How often it is looked whether it can be told of more.
const CATCH_UP: Duration = Duration::from_millis(10);

/// Keeps a room open for one who is about to join it.
#[derive(Debug)]
pub struct Entering<'a> {
    hub: &'a Hub,
    room: &'a RoomName,
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        let mut shard = self.hub.shard(self.room).lock();
        if let Some(ties) = shard.get_mut(self.room).and_then(|hall| hall.ties.as_mut()) {
            ties.entering -= 1;
            self.hub.drop_if_empty(&mut shard, self.room);
        }
    }
}

/// What a node is still to be told, as fast as its link takes it.
#[derive(Debug, Default)]
struct Queue {
    /// Rooms that it has, too, and whose rosters it wants.
    rosters: VecDeque<RoomName>,
    /// Rooms that it may have.
    names: VecDeque<RoomName>,
}

/// A peer whose node has it no longer, and how often its seat had been handed on until then.
pub(super) type Doubted = (PeerId, u64);

/// The same for each node.
type CatchUp = HashMap<NodeId, Queue>;

/// What the one task that takes in events has begun and not ended.
#[derive(Debug, Default)]
struct Progress {
    catch_up: CatchUp,
    /// Parts of what a node says in several notes, which come one behind the other.
    parts: HashMap<NodeId, String>,
}

impl Progress {
    /// Puts a part to what a node has said of it before. Returns the whole with its last part.
    fn whole(&mut self, node: NodeId, part: &str, last: bool) -> Option<String> {
        let whole = self.parts.entry(node).or_default();
        if whole.len() + part.len() <= LINK_BYTES {
            whole.push_str(part);
        }
        if last { self.parts.remove(&node) } else { None }
    }
}

impl Hub {
    /// Opens a room for one who is about to join it, and waits, but not for long, until the other nodes have told who is in it,
    /// so that `joined` gives the whole picture. Whoever comes to be known later is told as a newcomer. Nothing is left of it when
    /// it is given up. Without a cluster, or a way to it, it is done at once. To be held until the peer has joined.
    ///
    /// # Errors
    /// `roomFull`: there are as many rooms as may be.
    pub async fn enter<'a>(&'a self, room: &'a RoomName) -> Result<Option<Entering<'a>>, Refusal> {
        if self.cluster.is_none() {
            return Ok(None);
        }
        let begun = self.begin_to_enter(room, self.open(&mut self.shard(room).lock(), room)?);
        Ok(self.hear_of_all(begun).await)
    }

    /// The same for a seat that is to be brought here, however many rooms there are.
    pub(super) async fn enter_for_seat<'a>(&'a self, room: &'a RoomName) -> Option<Entering<'a>> {
        self.cluster.as_ref()?;
        let begun = self.begin_to_enter(room, self.open_for_seat(&mut self.shard(room).lock(), room));
        self.hear_of_all(begun).await
    }

    /// Keeps a room open. Returns what is cancelled when all who were asked have told whom they have.
    fn begin_to_enter<'a>(&'a self, room: &'a RoomName, hall: &mut Hall) -> Option<(Entering<'a>, CancellationToken)> {
        let ties = hall.ties.as_mut()?;
        ties.entering += 1;
        Some((Entering { hub: self, room }, ties.whole.clone()))
    }

    async fn hear_of_all<'a>(&self, begun: Option<(Entering<'a>, CancellationToken)>) -> Option<Entering<'a>> {
        let (entering, whole) = begun?;
        let is_connected = self.cluster.as_ref().is_some_and(|cluster| cluster.is_connected());
        if !is_connected || tokio::time::timeout(ENTER, whole.cancelled()).await.is_err() {
            self.with_hall(entering.room, |hall| hall.ties.iter_mut().for_each(|ties| ties.give_up()));
        }
        Some(entering)
    }

    /// Carries out what other nodes say, and keeps seats where they outlive this node. Runs until it is dropped.
    pub async fn keep_cluster(self: &Arc<Self>, events: Events) {
        tokio::join!(self.hear(events), self.keep_seats());
    }

    async fn hear(self: &Arc<Self>, mut events: Events) {
        let mut progress = Progress::default();
        loop {
            let transit = self.next_transit();
            let catch_up = (!progress.catch_up.is_empty()).then(|| now() + CATCH_UP);
            let wait = transit.into_iter().chain(catch_up).min().map(|until| until.saturating_duration_since(now()));
            let next = async {
                tokio::select! {
                    event = events.next() => Some(event),
                    // There is something to wait for that was not there.
                    () = self.transit_added() => None,
                }
            };
            if let Ok(Some(event)) = tokio::time::timeout(wait.unwrap_or(Duration::MAX), next).await {
                self.handle(event, &mut progress);
            }
            self.catch_up(&mut progress.catch_up);
            self.end_transits();
        }
    }

    fn handle(self: &Arc<Self>, event: Event, progress: &mut Progress) {
        match event {
            Event::Up { node, .. } => {
                self.check_payload();
                progress.catch_up.entry(node).or_default().names = self.names();
            }
            Event::Note { node, life, text } => self.note(node, life, &text, progress),
            Event::Down { node, held, pending } => {
                progress.catch_up.remove(&node);
                self.untie(node, &held);
                progress.parts.remove(&node);
                self.give_up_errands(node);
                pending.into_iter().for_each(|pending| self.settle(node, pending, Err(unreachable())));
            }
            Event::Lost(node) => self.for_each_tie(node, |hall| {
                let away = |peer| Noted::Away { peer, code: None };
                hall.each_of(node, away, |room, peer, out| room.away(peer, out));
            }),
            Event::Gone(node) => self.for_each_tie(node, |hall| hall.lose_node(node)),
            Event::Stranger { .. } => {}
        }
    }

    /// What members may send should fit on the bus.
    fn check_payload(&self) {
        let (wanted, largest) =
            (self.policy.limits.frame_bytes, self.cluster.as_ref().map(|cluster| cluster.largest_note()));
        if let Some(largest) = largest.filter(|largest| *largest < wanted + note::PAYLOAD_BYTES) {
            warn!(
                largest,
                wanted, "NATS takes less than a member may send; raise its max_payload, or lower --max-frame"
            );
        }
    }

    /// A link is up: both ends tell the whole rosters of the rooms that they are known to share, and one of them the names of the
    /// others. Not all at once, as there may be many, and no roster more than the link has room for.
    fn catch_up(&self, catch_up: &mut CatchUp) {
        let Some(cluster) = self.cluster.as_ref().filter(|_| !catch_up.is_empty()) else { return };
        let most = cluster.catch_up_bytes();
        catch_up.retain(|&node, queue| {
            let mut rooms = Vec::new();
            while cluster.bytes(node) < most && rooms.len() < ROOMS_AT_ONCE {
                if let Some(room) = queue.rosters.pop_front() {
                    self.with_hall(&room, |hall| hall.tell_roster(node));
                } else if let Some(room) = queue.names.pop_front() {
                    rooms.extend(Some(room).filter(|room| self.is_to_be_named(cluster, node, room)));
                } else {
                    break;
                }
            }
            let names = Note::Rooms { rooms };
            let sent = matches!(&names, Note::Rooms { rooms } if rooms.is_empty())
                || cluster.send(node, None, names.write(), Weight::Vital).is_ok();
            sent && !(queue.rosters.is_empty() && queue.names.is_empty())
        });
    }

    /// Whether a node is to be asked if it shares a room; one of two asks. If it is known to, it is told the roster.
    fn is_to_be_named(&self, cluster: &Cluster, node: NodeId, room: &RoomName) -> bool {
        let mut shard = self.shard(room).lock();
        let Some(hall) = shard.get_mut(room) else { return false };
        match hall.ties.as_ref().and_then(|ties| ties.nodes.get(&node)) {
            None => cluster.id() < node,
            Some(tie) if tie.told.is_none() => {
                hall.tell_roster(node);
                false
            }
            Some(_) => false,
        }
    }

    fn names(&self) -> VecDeque<RoomName> {
        let mut names = VecDeque::new();
        for shard in &self.shards {
            names.extend(shard.lock().keys().cloned());
        }
        names
    }

    /// The link of a node is down: nothing that was told over it, or by it, can be built upon.
    fn untie(&self, node: NodeId, held: &[Text]) {
        for Text(text) in held {
            let (room, missing) = match Note::parse(text) {
                Ok(Note::Broadcast { room, said: Some(_), .. }) => (room, Missing::own(1)),
                // What it tells of may be news there still.
                Ok(Note::Roster { room, missing, .. } | Note::Missed { room, missing, .. }) => (room, missing),
                _ => continue,
            };
            self.with_hall(&room, |hall| {
                if let Some(tie) = hall.tie(node) {
                    tie.missing = tie.missing.and(missing);
                }
            });
        }
        self.for_each_tie(node, |hall| {
            if let Some(tie) = hall.tie(node) {
                *tie = Tie { missing: tie.missing, ..Tie::default() };
            }
            hall.ties.iter_mut().for_each(|ties| ties.check_whole());
        });
    }

    fn for_each_tie(&self, node: NodeId, mut change: impl FnMut(&mut Hall)) {
        for shard in &self.shards {
            shard.lock().values_mut().filter(|hall| hall.is_tied(node)).for_each(&mut change);
        }
    }

    /// Changes a room that is open. Returns `None` if it is not.
    pub(super) fn with_hall<T>(&self, room: &RoomName, change: impl FnOnce(&mut Hall) -> T) -> Option<T> {
        self.shard(room).lock().get_mut(room).map(change)
    }

    fn note(self: &Arc<Self>, node: NodeId, life: u64, text: &Text, progress: &mut Progress) {
        let note = match Note::parse(&text.0) {
            Ok(note) => note,
            Err(error) => {
                return warn!(%node, %error, "a note cannot be understood: the two pictures may differ until the link begins anew");
            }
        };
        let Some(cluster) = &self.cluster else { return };
        // Where the link has ended meanwhile, the next life brings the whole picture.
        let answer = |note: Note<'_>| {
            let _ = cluster.send(node, Some(life), note.write(), Weight::Vital);
        };
        // Who has gone from here to another node has not left the room.
        let answer_gone = |room: RoomName| {
            moved(cluster, &room).for_each(&answer);
            answer(Note::Gone { room });
        };
        match note {
            Note::Enter { room, again, receipt } => {
                if self.with_hall(&room, |hall| hall.is_entered(node, (life, again))).is_none() {
                    moved(cluster, &room).for_each(&answer);
                    answer(Note::Absent { room });
                }
                if let Some(receipt) = receipt {
                    answer(done(receipt, Ok(())));
                }
            }
            Note::Rooms { rooms } => {
                let rooms = rooms.into_iter().filter(|room| self.with_hall(room, |_| ()).is_some());
                progress.catch_up.entry(node).or_default().rosters.extend(rooms);
            }
            Note::Absent { room } | Note::Gone { room } => {
                let doubted = self.with_hall(&room, |hall| {
                    hall.ties.iter_mut().for_each(|ties| ties.set_asked(node, life, true));
                    hall.is_absent(node)
                });
                self.watch_doubted(&room, doubted.unwrap_or_default());
            }
            Note::Relay { room, to, moves, receipt, ephemeral, sender, trace, body } => {
                let asker = receipt.map(|receipt| Asker::Node(node, life, receipt));
                let trace = self.policy.traces.arrival(trace.as_deref(), &room, to);
                let result = match note::body(&text.0, body, ephemeral) {
                    Some(body) => self.take_in(&room, (to, moves), body, sender, asker, &trace),
                    None => Some(Err(Refusal::bad_request("the payload is not one line"))),
                };
                // What a queue took, or had no room for, has ended it by now.
                match &result {
                    Some(Err(refusal)) => trace.fail(refusal.code.name()),
                    Some(Ok(())) | None => trace.end("repeated"),
                }
                if let Some((receipt, result)) = receipt.zip(result) {
                    answer(done(receipt, result));
                }
            }
            Note::Moderate { room, peer, wish, receipt } => {
                answer(done(receipt, self.moderate_for(&room, peer, wish)));
            }
            Note::Done { receipt, refused } => match cluster.answered(node, receipt) {
                Some(pending) => self.settle(node, pending, refused.map_or(Ok(()), |refused| Err(refused.into()))),
                None => debug!(%node, receipt, "nobody waits for this answer"),
            },
            Note::Broadcast { ref room, said, body } => {
                let body = note::body(&text.0, body, said.is_none());
                if self.with_hall(room, |hall| hall.take_in_for_all(node, said, body)).is_none() {
                    answer_gone(room.clone());
                }
            }
            Note::Missed { room, missing, said } => {
                self.with_hall(&room, |hall| hall.take_in_said(node, said, missing));
            }
            Note::Take { room, ticket, claim, heard, waited, receipt } => {
                let (ticket, heard) = (Ticket::parse(&ticket), heard.into_iter().collect());
                let wanted = Wanted { ticket, claim, heard, waited };
                if let Err(why) = self.hand_over(&room, &wanted, (node, life, receipt)) {
                    answer(Note::Kept { receipt, why });
                }
            }
            Note::Kept { receipt, why } => self.kept(node, receipt, why),
            Note::Seat { receipt, part, last } => {
                if let Some(whole) = progress.whole(node, &part, last) {
                    self.seat_has_come(node, receipt, &whole);
                }
            }
            Note::Carry { number, part, last } => {
                if let Some(whole) = progress.whole(node, &part, last)
                    && let Err(outcome) = self.errand_has_come((node, life, number), &whole)
                {
                    self.carry_back((node, life, number), &outcome);
                }
            }
            Note::Carried { number, part, last } => {
                if let Some(whole) = progress.whole(node, &part, last) {
                    self.errand_is_done(node, number, &whole);
                }
            }
            Note::Recall { number } => self.recall(node, number),
            Note::Offer { room, ticket } => self.offered(node, room, Ticket::parse(&ticket)),
            change => match self.change(node, life, change) {
                Ok(None) => {}
                Ok(Some(room)) => progress.catch_up.entry(node).or_default().rosters.push_back(room),
                Err(room) => answer_gone(room),
            },
        }
    }

    /// Carries out what a node tells of its own members. Returns the room's name if it wants this node's roster in turn, and fails with
    /// it if it is not open here.
    fn change(&self, node: NodeId, life: u64, note: Note<'_>) -> Result<Option<RoomName>, RoomName> {
        let (Note::Roster { room, .. }
        | Note::Joined { room, .. }
        | Note::Moved { room, .. }
        | Note::Left { room, .. }
        | Note::State { room, .. }
        | Note::Updated { room, .. }
        | Note::Knocked { room, .. }
        | Note::Locked { room, .. }) = &note
        else {
            return Ok(None);
        };
        let room = room.clone();
        if let Note::Moved { peer, to, moves, .. } = note {
            let handed_on = self.with_hall(&room, |hall| hall.is_handed_on(peer, node, (to, moves)));
            // Not answered where the room is not open: the answer would be what has moved from here, and so on to and fro.
            if handed_on == Some(true) {
                self.watch_transit(room, peer, moves);
            }
            return Ok(None);
        }
        let mut shard = self.shard(&room).lock();
        let hall = shard.get_mut(&room).ok_or_else(|| room.clone())?;
        let seats = hall.seats.len();
        let doubted = hall.change(node, life, note);
        let wants = hall.tie(node).is_some_and(|tie| std::mem::take(&mut tie.wants_roster));
        if hall.seats.len() < seats {
            // A member here is there by now, and may have been the last one.
            self.drop_if_empty(&mut shard, &room);
        }
        self.watch_doubted(&room, doubted);
        Ok(wants.then_some(room))
    }

    /// A payload for one member here, sent when its seat had been handed on `moves` times. Had it gone from here since and come back, what
    /// was said later may have found it elsewhere meanwhile, and would be overtaken. Who asks is answered later if this tells nothing.
    fn take_in(
        &self,
        room: &RoomName,
        (to, moves): (PeerId, u64),
        body: Body,
        sender: Option<Sender>,
        asker: Option<Asker>,
        trace: &Span,
    ) -> Option<Result<(), Refusal>> {
        let mut shard = self.shard(room).lock();
        if shard.get(room).is_some_and(|hall| hall.room.moves_of(to) > moves) {
            return Some(Err(on_its_way()));
        }
        if let Some(asker) = asker
            && let Some(hall) = shard.get_mut(room)
            && let Some(kept) = hall.keep_from_elsewhere(to, &body, sender, asker, trace)
        {
            return kept;
        }
        let taken = shard.get_mut(room).and_then(|hall| hall.take_in(to, body, trace));
        Some(match taken {
            Some(true) => Ok(()),
            Some(false) => Err(Refusal::new(Code::QueueFull, "the peer's queue has no room for it")),
            None => Err(self.absence(room, to, shard.get(room))),
        })
    }

    /// What there is to say of a peer that another node takes to be here: it has gone from here to another one, or is about to come.
    fn absence(&self, room: &RoomName, peer: PeerId, hall: Option<&Hall>) -> Refusal {
        let moved = self.cluster.as_ref().is_some_and(|cluster| cluster.moves.last(room, peer, now()).is_some());
        if moved || hall.is_some_and(|hall| hall.room.node_of(peer).is_some()) { on_its_way() } else { gone() }
    }

    /// Does for a moderator at another node what it wants of one here.
    fn moderate_for(&self, room: &RoomName, peer: PeerId, wish: Wish) -> Result<(), Refusal> {
        let mut shard = self.shard(room).lock();
        let hall = shard.get_mut(room).ok_or_else(|| self.absence(room, peer, None))?;
        let moderated = match wish {
            Wish::Kick(message) if hall.room.has(peer) && hall.seats.contains_key(&peer) => {
                hall.kick(peer, message.replace(char::is_control, " "));
                Ok(())
            }
            Wish::Kick(_) => Err(self.absence(room, peer, Some(hall))),
            Wish::Admit => self.let_in(hall, peer),
            Wish::Refuse => hall.turn_away(peer, LeftReason::Kicked, session::NOT_ADMITTED),
        };
        self.drop_if_empty(&mut shard, room);
        moderated
    }

    /// Answers whoever waits for what another node has done, or not.
    fn settle(&self, node: NodeId, pending: Pending, outcome: Result<(), Refusal>) {
        match pending {
            Pending::Request { room, from, moves, id } => {
                self.with_hall(&room, |hall| hall.settle_if((from, moves), id, outcome));
            }
            Pending::Whether { room, peers } => {
                let doubted = self.with_hall(&room, |hall| hall.has_said_whether(node, &peers, outcome.is_ok()));
                self.watch_doubted(&room, doubted.unwrap_or_default());
            }
            Pending::Call { number } => self.end_call(number, None),
        }
    }
}

impl Hall {
    fn is_tied(&self, node: NodeId) -> bool {
        self.ties.as_ref().is_some_and(|ties| ties.nodes.contains_key(&node))
    }

    fn tie(&mut self, node: NodeId) -> Option<&mut Tie> {
        self.ties.as_mut()?.nodes.get_mut(&node)
    }

    /// Does something with each of a node's peers; what is news is noted.
    fn each_of(
        &mut self,
        node: NodeId,
        noted: impl Fn(PeerId) -> Noted,
        mut act: impl FnMut(&mut Room, PeerId, &mut Vec<Delivery>) -> bool,
    ) {
        let mut out = Vec::new();
        for peer in self.room.peers_of(node) {
            if act(&mut self.room, peer, &mut out) {
                self.record_elsewhere(|| noted(peer));
            }
        }
        self.carry_out(out);
    }

    /// The same as [`settle`](Self::settle) if its seat has not moved since it was asked.
    pub(super) fn settle_if(&mut self, (from, moves): (PeerId, u64), id: Option<u64>, outcome: Result<(), Refusal>) {
        if self.room.moves_of(from) == moves {
            self.settle(from, id, outcome);
        }
    }

    /// A member here is told what another node has done for it, or not.
    pub(super) fn settle(&mut self, from: PeerId, id: Option<u64>, outcome: Result<(), Refusal>) {
        let Some(seat) = self.seats.get(&from) else { return };
        if let Some(id) = id {
            seat.quietly(|seat| seat.answered(id));
        }
        match outcome {
            Ok(()) if id.is_some() => self.answer(from, Body::ok(id)),
            Ok(()) => {}
            Err(refusal) => {
                self.record_refusal(from, refusal.code);
                self.answer(from, Body::error(id, &refusal));
            }
        }
    }

    /// A node has handed a seat to another one, which has not said so yet. Returns whether that is news.
    fn is_handed_on(&mut self, peer: PeerId, from: NodeId, (to, moves): (NodeId, u64)) -> bool {
        let is_news = self.room.hand_on(peer, Some(from), to, moves);
        if let Some(ties) = self.ties.as_mut().filter(|ties| is_news && to != ties.cluster.id()) {
            // What is said to all meanwhile counts as missed there.
            ties.nodes.entry(to).or_default();
        }
        is_news
    }

    /// A node was asked whether it has these peers, whose seats had been handed on so often: who was not in its answer is missing there.
    /// Or its link has ended: they are among those of whom the next one will tell. Returns who may be elsewhere.
    fn has_said_whether(&mut self, node: NodeId, peers: &[(PeerId, u64)], is_answered: bool) -> Vec<Doubted> {
        let is_open = |&(peer, moves): &Doubted| {
            let (room, its) = (&self.room, self.room.node_of(peer) == Some(node));
            its && room.is_in_transit(peer) && room.moves_of(peer) == moves
        };
        let open: Vec<PeerId> = peers.iter().copied().filter(is_open).map(|(peer, _)| peer).collect();
        if is_answered {
            return self.miss(open);
        }
        open.into_iter().for_each(|peer| self.room.end_transit(peer));
        Vec::new()
    }

    /// The node that has had these peers has them no longer, and did not say why. Returns those whose seats another one may have taken
    /// up, which will say so in a moment; the others have left.
    fn miss(&mut self, peers: Vec<PeerId>) -> Vec<Doubted> {
        let outlive = self.ties.as_ref().is_some_and(|ties| ties.cluster.seats_outlive());
        let (mut out, mut doubted) = (Vec::new(), Vec::new());
        for peer in peers {
            if let Some(moves) = outlive.then(|| self.room.doubt(peer)).flatten() {
                doubted.push((peer, moves));
                continue;
            }
            let reason = self.room.likely_reason(peer);
            self.room.leave_elsewhere(peer, reason, &mut out);
            self.record_elsewhere(|| Noted::Left { peer, reason });
        }
        self.carry_out(out);
        doubted
    }

    /// A node does not share the room, or not any more. Returns who may be elsewhere.
    fn is_absent(&mut self, node: NodeId) -> Vec<Doubted> {
        let doubted = self.miss(self.room.peers_of(node));
        self.forget(node);
        doubted
    }

    /// A node is given up.
    fn lose_node(&mut self, node: NodeId) {
        let reason = LeftReason::NodeLost;
        let left = |peer| Noted::Left { peer, reason };
        self.each_of(node, left, |room, peer, out| {
            room.leave_elsewhere(peer, reason, out);
            true
        });
        self.forget(node);
    }

    /// A node has nobody in the room; but it may be that a seat is on its way there.
    fn forget(&mut self, node: NodeId) {
        let is_expected = self.room.concerns(node);
        if let Some(ties) = &mut self.ties {
            let tie = ties.nodes.remove(&node).filter(|_| is_expected);
            ties.nodes.extend(tie.map(|Tie { missing, .. }| (node, Tie { missing, ..Tie::default() })));
            ties.moving.forget_node(node);
            ties.check_whole();
        }
    }

    /// A payload for one member here: whether its queue has room for it; `None` if there is no such member.
    fn take_in(&mut self, to: PeerId, body: Body, trace: &Span) -> Option<bool> {
        let seat = self.seats.get(&to).filter(|_| self.room.has(to))?;
        let (kept, lease) = (body.clone(), seat.quietly(|seat| seat.lease()));
        let taken = seat.with(|seat| seat.push(body));
        self.record_taken(to, &kept, taken, lease, trace);
        Some(taken)
    }

    /// A payload was taken in for a member here, or was not: that ends its trace, and if it is a step of a negotiation it is noted.
    pub(super) fn record_taken(&mut self, to: PeerId, body: &Body, taken: bool, lease: Lease, trace: &Span) {
        let outcome = match taken {
            true if matches!(lease, Lease::Away { .. }) => Outcome::Kept,
            true => Outcome::Delivered,
            false => Outcome::QueueFull,
        };
        end(trace, outcome);
        let Some((from, step)) = self.timeline.as_ref().and_then(|_| body.step()) else { return };
        let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        self.record_elsewhere(|| Noted::Relayed { from, to, step, bytes, outcome });
    }

    /// A payload for all members here. Who has come from elsewhere may have missed some before it: the room may have been opened here since
    /// its sender's node told whom it has.
    fn take_in_for_all(&mut self, node: NodeId, said: Option<Said>, body: Option<Body>) {
        let Some(body) = body else { return };
        let mut out = Vec::new();
        self.room.tell_here(&body, &mut out);
        if let (Some(ties), Some(said)) = (&mut self.ties, said) {
            if ties.moving.is_known_to_some() {
                out.retain(|delivery| !ties.moving.knows(delivery.to, node, said));
            }
            let is_first = ties.heard_of(node) == Said::default();
            let before = if is_first { said.number.saturating_sub(1) } else { 0 };
            let missed = ties.moving.note(node, said, &body);
            ties.hear(node, said);
            if before > 0 || !missed.is_empty() {
                let of_movers = |moves| if moves > 0 { before } else { 0 };
                self.lose_each(|peer, moves| missed.get(&peer).copied().unwrap_or_else(|| of_movers(moves)));
            }
        }
        self.carry_out(out);
    }

    /// Each member here has missed so much, by its id and how often its seat has moved.
    fn lose_each(&self, missed: impl Fn(PeerId, u64) -> u64) {
        for (member, _, moves) in self.room.own_members() {
            let lost = missed(member.peer, moves);
            if let Some(seat) = self.seats.get(&member.peer).filter(|_| lost > 0) {
                seat.with(|seat| seat.lose(lost));
            }
        }
    }

    /// A node opens the room, or has it open and asks `again`: it is told the roster.
    fn is_entered(&mut self, node: NodeId, (life, again): (u64, bool)) {
        if let Some(ties) = self.ties.as_mut().filter(|_| !again) {
            // It tells its own in turn, and had none before.
            ties.set_asked(node, life, false);
        }
        self.tell_roster(node);
    }

    /// Returns who may be elsewhere.
    fn change(&mut self, node: NodeId, life: u64, note: Note<'_>) -> Vec<Doubted> {
        if let Note::Roster { members, waiting, lock, missing, said, last, .. } = note {
            let doubted = self.take_in_roster(node, members, waiting, (lock, last));
            if last {
                self.take_in_said(node, said, missing);
                self.ties.iter_mut().for_each(|ties| ties.set_asked(node, life, true));
            }
            return doubted;
        }
        let mut out = Vec::new();
        let noted = self.noted(node, &note);
        match note {
            Note::Joined { present, .. } => self.join_elsewhere(node, present, &mut out),
            Note::Knocked { member, .. } => self.room.knock_elsewhere(node, member, &mut out),
            Note::Locked { lock, .. } => self.take_in_lock(lock),
            Note::Left { peer, reason, .. } if self.room.node_of(peer) == Some(node) => {
                self.room.leave_elsewhere(peer, reason, &mut out);
            }
            Note::Updated { peer, metadata, .. } if self.room.node_of(peer) == Some(node) => {
                self.room.update(peer, metadata, &mut out);
            }
            Note::State { peer, away: true, .. } if self.room.node_of(peer) == Some(node) => {
                self.room.away(peer, &mut out);
            }
            Note::State { peer, away: false, .. } if self.room.node_of(peer) == Some(node) => {
                self.room.back(peer, &mut out);
            }
            _ => {}
        }
        self.carry_out(out);
        if let Some(event) = noted {
            self.record_elsewhere(|| event);
        }
        Vec::new()
    }

    /// What is to be noted of what a node tells, if it is news.
    fn noted(&self, node: NodeId, note: &Note<'_>) -> Option<Noted> {
        let is_its = |peer: &PeerId| self.room.node_of(*peer) == Some(node);
        Some(match note {
            Note::Joined { present: Present { member, .. }, .. } if !self.room.has(member.peer) => {
                Noted::Joined { peer: member.peer, transport: None }
            }
            Note::Knocked { member, .. } => Noted::Knocked { peer: member.peer, transport: None },
            Note::Left { peer, reason, .. } if is_its(peer) => Noted::Left { peer: *peer, reason: *reason },
            Note::State { peer, away: true, .. } if is_its(peer) => Noted::Away { peer: *peer, code: None },
            Note::State { peer, away: false, .. } if is_its(peer) => Noted::Back { peer: *peer, transport: None },
            _ => return None,
        })
    }

    /// What a node has said to all until now, of which so much could not be sent here, or may not have arrived. Who has come from another
    /// node may have missed more of it on the way, or heard it there.
    fn take_in_said(&mut self, node: NodeId, said: Said, missing: Missing) {
        let Some(ties) = &mut self.ties else { return };
        // The rest of it has arrived, and what was lost is the acknowledgement.
        let unheard = said.since(ties.heard_of(node));
        let missed = missing.own.min(unheard).saturating_add(missing.brought);
        // All that it has said until it is heard of for the first time may have been for who was elsewhere by then, as it took it.
        let is_first = ties.heard_of(node) == Said::default();
        let missed_by_movers = if is_first { unheard.saturating_add(missing.brought) } else { missed };
        ties.hear(node, said);
        let lost = ties.moving.miss(node, said, missing.brought);
        let otherwise = |moves| if moves > 0 { missed_by_movers } else { missed };
        self.lose_each(|peer, moves| lost.get(&peer).copied().unwrap_or_else(|| otherwise(moves)));
    }

    /// A part of a node's roster. With the last one, those who were in none are missing; and it is told this node's, unless it was. Returns
    /// who may be elsewhere.
    fn take_in_roster(
        &mut self,
        node: NodeId,
        members: Vec<Present>,
        waiting: Vec<Member>,
        (lock, last): (Lock, bool),
    ) -> Vec<Doubted> {
        for Present { member: Member { peer, .. }, .. } in &members {
            if !self.room.has(*peer) {
                self.record_elsewhere(|| Noted::Joined { peer: *peer, transport: None });
            }
        }
        let Some(ties) = &mut self.ties else { return Vec::new() };
        let tie = ties.nodes.entry(node).or_default();
        tie.seen.extend(members.iter().map(|present| present.member.peer));
        tie.seen.extend(waiting.iter().map(|member| member.peer));
        let mut out = Vec::new();
        for present in members {
            self.join_elsewhere(node, present, &mut out);
        }
        for member in waiting {
            self.room.knock_elsewhere(node, member, &mut out);
        }
        self.carry_out(out);
        let mut missing = Vec::new();
        if let Some(tie) = self.tie(node).filter(|_| last) {
            let seen = std::mem::take(&mut tie.seen);
            tie.is_asked = false;
            tie.wants_roster = tie.told.is_none();
            missing = self.room.peers_of(node);
            missing.retain(|peer| !seen.contains(peer));
        }
        let doubted = self.miss(missing);
        self.take_in_lock(lock);
        self.ties.iter_mut().for_each(|ties| ties.check_whole());
        doubted
    }

    fn join_elsewhere(&mut self, node: NodeId, present: Present, out: &mut Vec<Delivery>) {
        let Present { member, away, moves } = present;
        // It took this node for lost.
        if self.room.own_member(member.peer).is_some() && moves > self.room.moves_of(member.peer) {
            self.give_up(member.peer, node);
        }
        let state = if away { PeerState::Away } else { PeerState::Here };
        self.room.join_elsewhere(node, member, (state, moves), out);
    }

    /// The greater of two locks holds, and is passed on: who has told it may not live to tell all others.
    pub(super) fn take_in_lock(&mut self, lock: Lock) {
        let is_greater = self.known_lock().is_some_and(|known| lock > known);
        let Some(ties) = self.ties.as_mut().filter(|_| is_greater && !self.room.is_empty()) else { return };
        ties.lock = lock;
        self.announce(|room| Note::Locked { room, lock });
        let mut out = Vec::new();
        let news = self.room.lock(lock.locked, &mut out);
        self.carry_out(out);
        self.touch_journals();
        if news {
            self.record_elsewhere(|| Noted::Locked { by: None, locked: lock.locked });
        }
    }

    /// So many payloads for all have not arrived here, or may not have.
    pub(super) fn lose(&self, missed: u64) {
        let members = self.room.own_members().map(|(member, ..)| member.peer);
        for seat in members.filter(|_| missed > 0).filter_map(|peer| self.seats.get(&peer)) {
            seat.with(|seat| seat.lose(missed));
        }
    }
}

/// What is told of the seats that have gone from a room to other nodes.
pub(super) fn moved<'a>(cluster: &Cluster, room: &'a RoomName) -> impl Iterator<Item = Note<'static>> + 'a {
    let gone = cluster.moves.of(room, now()).into_iter();
    gone.map(|(peer, Move { to, moves })| Note::Moved { room: room.clone(), peer, to, moves })
}

fn gone() -> Refusal {
    Refusal::new(Code::PeerGone, "no such peer in the room")
}

pub(super) fn done(receipt: u64, result: Result<(), Refusal>) -> Note<'static> {
    Note::Done { receipt, refused: result.err().as_ref().map(Refused::from) }
}

#[cfg(test)]
mod tests;
