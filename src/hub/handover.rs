//! Seats that go from node to node: a client comes to one with a ticket of another's, which hands its seat over, whole, and
//! forgets it. What still comes for it there is refused: sent on, it could be overtaken by what was said after it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info, warn};

use super::cluster::Doubted;
use super::durable::{Claimant, Restored};
use super::moving::{Going, Heard};
use super::ties::present;
use super::{Hall, Hub, now, resume_expired};
use crate::cluster::journal::HandedOn;
use crate::cluster::mesh::{HEARD_OF_ALL, Weight};
use crate::cluster::moves::Move;
use crate::cluster::note::{Kept, Missing, Note, Present, Refused, Said, Written};
use crate::cluster::{Cluster, Pending};
use crate::outbox::SharedSeat;
use crate::protocol::{
    Claim, Code, Grant, JoinKey, LeftReason, NodeId, PeerId, PeerState, Refusal, Resume, RoomName, Ticket,
};
use crate::room::{Known, View};
use crate::seat::{Ending, Packed, Seat};
use crate::timeline::Event as Noted;

/// How long it is tried to get a seat from another node: not as long as it takes until that counts as lost, if it is.
const HAND_OVER: Duration = Duration::from_millis(2500);

/// The same where seats outlive their node: until that counts as lost, if it is.
const HAND_OVER_OR_TAKE_UP: Duration = Duration::from_secs(6);

/// For so long a seat is not handed over if its node lacks payloads for all that the other one has: they are on their way.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait before a node is asked again that was busy, or is out of reach at the moment.
pub(super) const AGAIN: Duration = Duration::from_millis(10);

/// When a client is to come back whose seat's node is out of reach.
const COME_BACK: Duration = Duration::from_millis(500);

/// For so long a seat that has come does not count as away, and one that is wanted elsewhere is about to go.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Bytes of a text in one note, before they are written as a JSON string, which at most doubles them.
const PART_BYTES: usize = 128 * 1024;

/// A node that was offered a seat and has not taken it after so long is not waited for.
const OFFER: Duration = Duration::from_secs(1);

/// Seats that this node may be asked to take at once.
const MOST_OFFERS: usize = 256;

/// What a node has begun with others that it cannot end alone.
#[derive(Debug)]
pub(super) struct Handovers {
    /// Who waits for another node's answer.
    calls: Mutex<Calls>,
    /// Seats that were handed to a node that has not said so yet.
    /// In the order of their times.
    transits: Mutex<VecDeque<Transit>>,
    transit_added: Notify,
    offers: Arc<Semaphore>,
}

/// A seat on its way, as those see it who wait for its new node to tell.
#[derive(Debug)]
struct Transit {
    /// When nobody waits any longer.
    until: Instant,
    room: RoomName,
    peer: PeerId,
    /// How often it was handed on: when it goes on again, it has its time once more.
    moves: u64,
    /// What is told of its peer if none does.
    reason: LeftReason,
}

#[derive(Debug, Default)]
struct Calls {
    last: u64,
    open: HashMap<u64, oneshot::Sender<Answer>>,
}

/// What has become of a call; nothing if the link has failed.
type Answer = Option<Result<(), Kept>>;

impl Default for Handovers {
    fn default() -> Self {
        let offers = Arc::new(Semaphore::new(MOST_OFFERS));
        Handovers { calls: Mutex::default(), transits: Mutex::default(), transit_added: Notify::new(), offers }
    }
}

/// What another node wants.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) ticket: Option<Ticket>,
    /// What the client shows that has come there; without it nobody has, and this node has offered the seat.
    pub(super) claim: Option<Claim>,
    /// What was said to all, as far as it has come there.
    pub(super) heard: Heard,
    /// It was wanted before, and is for how many milliseconds.
    pub(super) waited: Option<u64>,
}

/// A seat on its way, and what its room has to know of it.
#[derive(Serialize, Deserialize)]
struct Parcel {
    room: RoomName,
    present: Present,
    seat: Packed,
    keys: Vec<String>,
    view: View,
    heard: Vec<(NodeId, Said)>,
    /// Payloads for all that could not be sent, of which the nodes were not told yet.
    owed: Vec<(NodeId, u64)>,
    /// The last record that was kept of it, if that is known, and who has said what to it, where seats outlive their node.
    #[serde(default)]
    journal: Option<HandedOn>,
}

/// Why a seat is asked for, and so where.
#[derive(Debug, Clone)]
enum Cause {
    /// Its client has come and shows that: it is wanted wherever it is, in the last place at the node that wrote the ticket.
    Client { claim: Claim, writer: NodeId },
    /// That node stops and has offered it. Nobody else is asked: if it is elsewhere by now, its client has come there.
    Offer { by: NodeId },
}

/// Where a node that was asked for a seat has sent the one who wants it.
#[derive(Debug, Default)]
pub(super) struct Trail {
    next: Option<NodeId>,
    is_followed: bool,
}

impl Trail {
    /// Goes on to that node, but from the second time on not at once: two nodes may each take the other to have the seat, until their
    /// rosters have come.
    pub(super) async fn follow(&mut self, to: NodeId) {
        if self.is_followed {
            sleep(AGAIN).await;
        }
        (self.next, self.is_followed) = (Some(to), true);
    }

    /// Whom to ask next, if anybody has said so.
    pub(super) fn take(&mut self) -> Option<NodeId> {
        self.next.take()
    }
}

/// Where a seat is.
pub(super) enum Place {
    Here,
    At(NodeId),
    /// On its way.
    Between,
    Nowhere,
}

impl Hub {
    /// Brings a seat here for which a client has come with a ticket, if another node of the cluster has it. When it is done the
    /// client can take it up as any other; what no node has will be refused then.
    ///
    /// # Errors
    /// `goingAway` if the node that has it, or may have it, cannot be reached at the moment; as [`resume`](Self::resume) would, by the
    /// node that has it, which keeps it then.
    pub async fn fetch(
        self: &Arc<Self>,
        room: &RoomName,
        resume: &Resume<'_>,
        renewal: Option<&Grant>,
    ) -> Result<(), Refusal> {
        let Some((ticket, writer)) = self.is_elsewhere(room, resume.ticket) else { return Ok(()) };
        let cause = Cause::Client { claim: Claim::new(resume.seq, renewal), writer };
        let given_up = CancellationToken::new();
        let _guard = given_up.clone().drop_guard();
        let bring = Arc::clone(self).bring(room.clone(), ticket, cause, given_up);
        // What was begun with another node is ended, whether the client waits for it or not.
        tokio::spawn(bring.in_current_span()).await.unwrap_or(Ok(()))
    }

    /// The ticket of a seat that another node may have, and who wrote it.
    pub(super) fn is_elsewhere(&self, room: &RoomName, ticket: Option<Ticket>) -> Option<(Ticket, NodeId)> {
        let (cluster, ticket) = (self.cluster.as_ref()?, ticket?);
        let is_elsewhere = !self.has_seat(room, ticket.peer);
        let writer = cluster.writer(&ticket, room)?;
        is_elsewhere.then_some((ticket, writer))
    }

    async fn bring(
        self: Arc<Self>,
        room: RoomName,
        ticket: Ticket,
        cause: Cause,
        given_up: CancellationToken,
    ) -> Result<(), Refusal> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let begun = now();
        let until = begun + if cluster.seats_outlive() { HAND_OVER_OR_TAKE_UP } else { HAND_OVER };
        let _entering = self.enter_for_seat(&room).await;
        let Some(expecting) = Expecting::begin(&self, &room, ticket.peer) else { return Ok(()) };
        let (mut trail, mut waited) = (Trail::default(), None);
        while now() < until && !given_up.is_cancelled() {
            let node = match self.whom_to_ask(&room, ticket.peer, &cause, trail.take()) {
                Place::Here => return Ok(()),
                Place::Nowhere if self.is_answered(cluster, &room) => return Ok(()),
                Place::At(node) => node,
                Place::Between | Place::Nowhere => {
                    sleep(AGAIN).await;
                    continue;
                }
            };
            let take = |receipt| {
                let heard = expecting.heard.iter().map(|(&node, &said)| (node, said)).collect();
                let claim = match &cause {
                    Cause::Client { claim, .. } => Some(claim.clone()),
                    Cause::Offer { .. } => None,
                };
                Note::Take { room: room.clone(), ticket: ticket.to_text().into(), claim, heard, waited, receipt }
                    .write()
            };
            match self.call(cluster, node, until, take).await {
                Some(Ok(())) => return Ok(()),
                Some(Err(Kept::Moved(_))) if matches!(cause, Cause::Offer { .. }) => return Ok(()),
                Some(Err(Kept::Moved(to))) => trail.follow(to).await,
                Some(Err(Kept::Refused(refused))) => return Err(refused.into()),
                Some(Err(Kept::Busy)) => {
                    waited = Some((now() - begun).as_millis() as u64);
                    sleep(AGAIN).await;
                }
                None if cluster.is_lost(node) && self.is_answered(cluster, &room) => {
                    let Cause::Client { claim, writer } = &cause else { return Ok(()) };
                    let claimant = Claimant { room: &room, ticket, claim, writer: *writer, heard: &expecting.heard };
                    match self.restore(cluster, &claimant).await {
                        Restored::Done => return Ok(()),
                        Restored::Refused(refusal) => return Err(refusal),
                        Restored::At(owner) => trail.follow(owner).await,
                        Restored::Again => sleep(AGAIN).await,
                        Restored::Unreachable => return Err(out_of_reach()),
                    }
                }
                None => sleep(AGAIN).await,
            }
        }
        Err(out_of_reach())
    }

    /// Whether each node that was not given up has said whom it has in a room, so that a seat of which nobody knows is nowhere. Who
    /// could not be asked before is asked. A node that has just come may not have heard of all the others.
    pub(super) fn is_answered(&self, cluster: &Cluster, room: &RoomName) -> bool {
        let answered = self.with_hall(room, |hall| {
            let Some(ties) = &mut hall.ties else { return true };
            ties.ask_rest(room, true);
            cluster.living().into_iter().all(|node| ties.has_answered(node))
        });
        !cluster.is_young() && answered.unwrap_or(true)
    }

    fn whom_to_ask(&self, room: &RoomName, peer: PeerId, cause: &Cause, hint: Option<NodeId>) -> Place {
        match cause {
            Cause::Client { writer, .. } => self.place_of(room, peer, hint, *writer),
            Cause::Offer { .. } if self.has_seat(room, peer) => Place::Here,
            Cause::Offer { by } => Place::At(*by),
        }
    }

    /// Where to ask for a seat: where a node has said that it has gone, or else where the roster has its peer, or else where its
    /// ticket was written.
    pub(super) fn place_of(&self, room: &RoomName, peer: PeerId, hint: Option<NodeId>, writer: NodeId) -> Place {
        let Some(cluster) = &self.cluster else { return Place::Nowhere };
        let known = self.with_hall(room, |hall| match hall.room.node_of(peer) {
            _ if hall.seats.contains_key(&peer) => Some(Place::Here),
            _ if hint.is_some_and(|hint| hint != cluster.id()) => hint.map(Place::At),
            Some(node) if hall.room.is_in_transit(peer) && !self.may_claim_from(cluster, node) => Some(Place::Between),
            Some(node) => Some(Place::At(node)),
            None => None,
        });
        let unknown = || match cluster.moves.last(room, peer, now()) {
            Some(gone) => Place::At(gone.to),
            None if writer != cluster.id() => Place::At(writer),
            None => Place::Nowhere,
        };
        known.flatten().unwrap_or_else(unknown)
    }

    /// Whether a seat may be taken up that this node had when it was lost.
    pub(super) fn may_claim_from(&self, cluster: &Cluster, node: NodeId) -> bool {
        cluster.seats_outlive() && cluster.is_lost(node)
    }

    /// Asks another node for something and waits for its answer; `None` if it cannot be asked, or does not answer in time.
    async fn call(&self, cluster: &Cluster, node: NodeId, until: Instant, make: impl FnOnce(u64) -> Written) -> Answer {
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut calls = self.handovers.calls.lock();
            calls.last += 1;
            let number = calls.last;
            calls.open.insert(number, sender);
            number
        };
        let asked = cluster.ask(node, None, Pending::Call { number }, Weight::Payload, make);
        let answered = match asked {
            Ok(()) => timeout(until.saturating_duration_since(now()), answer).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        self.handovers.calls.lock().open.remove(&number);
        answered.flatten()
    }

    /// A call has been answered, or will not be.
    pub(super) fn end_call(&self, number: u64, answer: Answer) {
        if let Some(call) = self.handovers.calls.lock().open.remove(&number) {
            let _ = call.send(answer);
        }
    }

    /// Another node does not hand a seat over.
    pub(super) fn kept(&self, node: NodeId, receipt: u64, why: Kept) {
        match self.cluster.as_ref().and_then(|cluster| cluster.answered(node, receipt)) {
            Some(Pending::Call { number }) => self.end_call(number, Some(Err(why))),
            _ => debug!(%node, receipt, "nobody waits for this answer"),
        }
    }

    /// Hands a seat to another node, which will name the receipt to who has asked there.
    ///
    /// # Errors
    /// Why it is kept.
    pub(super) fn hand_over(
        &self,
        room: &RoomName,
        wanted: &Wanted,
        (node, life, receipt): (NodeId, u64, u64),
    ) -> Result<(), Kept> {
        let ticket = wanted.ticket.ok_or_else(|| refused(&resume_expired()))?;
        let (peer, cluster) = (ticket.peer, self.cluster.as_ref().ok_or(Kept::Busy)?);
        let mut shard = self.shard(room).lock();
        let Some(hall) = shard.get_mut(room) else { return Err(self.gone_to(room, peer, None)) };
        let Some(seat) = hall.seats.get(&peer).map(Arc::clone) else {
            return Err(self.gone_to(room, peer, Some(hall)));
        };
        let parts_with = seat.with(|seat| match &wanted.claim {
            Some(claim) => seat.begin_to_part((ticket, claim), wanted.waited.is_some(), now()),
            None => seat.begin_to_part_idle(now()),
        });
        parts_with.map_err(|refusal| refused(&refusal))?;
        self.tend_soon(room, peer);
        if hall.is_busy(peer, &seat, wanted) {
            return Err(Kept::Busy);
        }
        let text = hall.parcel(peer, &seat, self.policy.resume_window)?;
        let parts = parts(&text, cluster, |part, last| Note::Seat { receipt, part, last });
        // Without room on the link it stays here, for whoever comes next; its transport is asked to begin anew.
        cluster.send_all(node, life, parts).map_err(|_| refused(&out_of_reach()))?;
        info!(%peer, to = %node, "a session goes on at another node");
        let moves = hall.send_off(peer, node);
        self.watch_transit(room.clone(), peer, moves);
        self.drop_if_empty(&mut shard, room);
        Ok(())
    }

    /// Why a seat cannot be had here: it is on its way here, or has gone, or there is none.
    pub(super) fn gone_to(&self, room: &RoomName, peer: PeerId, hall: Option<&Hall>) -> Kept {
        if hall.and_then(|hall| hall.ties.as_ref()).is_some_and(|ties| ties.moving.expects(peer)) {
            return Kept::Busy;
        }
        let gone = self.cluster.as_ref().and_then(|cluster| cluster.moves.last(room, peer, now()));
        let place = gone.map(|gone| gone.to).or_else(|| hall.and_then(|hall| hall.room.node_of(peer)));
        place.map_or_else(|| refused(&resume_expired()), Kept::Moved)
    }

    /// A seat has come that was asked for.
    pub(super) fn seat_has_come(self: &Arc<Self>, node: NodeId, receipt: u64, text: &str) {
        let Some(cluster) = &self.cluster else { return };
        let Some(Pending::Call { number }) = cluster.answered(node, receipt) else {
            return debug!(%node, receipt, "nobody waits for this seat");
        };
        match serde_json::from_str::<Parcel>(text) {
            Ok(parcel) => self.take_in_seat(cluster, node, parcel),
            Err(error) => warn!(%node, %error, "a seat cannot be understood, and is lost"),
        }
        self.end_call(number, Some(Ok(())));
    }

    fn take_in_seat(self: &Arc<Self>, cluster: &Cluster, from: NodeId, parcel: Parcel) {
        let Parcel { room, present, seat, keys, view, heard, owed, journal } = parcel;
        let Present { member, away, moves } = present;
        let peer = member.peer;
        let seat = match Seat::unpack(seat, self.policy.limits.checks, now()) {
            Ok(seat) if seat.peer() == peer => SharedSeat::new(seat),
            _ => return warn!(%peer, "a seat contradicts itself, and is lost"),
        };
        let mut shard = self.shard(&room).lock();
        let hall = self.open_for_seat(&mut shard, &room);
        if hall.seats.contains_key(&peer) {
            return;
        }
        for (other, moves) in hall.believe(from, &view) {
            self.watch_transit(room.clone(), other, moves);
        }
        let mut out = Vec::new();
        let state = if away { PeerState::Away } else { PeerState::Here };
        hall.room.adopt(member, (state, moves), &mut out);
        hall.carry_out(out);
        hall.seats.insert(peer, Arc::clone(&seat));
        hall.keys.extend(keys.iter().filter_map(|key| Some((JoinKey::parse(key)?, peer))));
        cluster.moves.forget(&room, peer);
        hall.welcome(peer, &seat, &view, &heard.into_iter().collect(), cluster.id());
        hall.go_on_with_journal(peer, journal);
        hall.announce_newcomer(peer);
        hall.owe(owed);
        if seat.quietly(|seat| seat.is_poll_expected()) {
            seat.expect_poll(Some(self.served.token()));
        }
        self.tend_soon(&room, peer);
    }

    /// A seat that was wanted at another node, or has come from there, is looked at if nothing more becomes of that.
    pub(super) fn tend_soon(&self, room: &RoomName, peer: PeerId) {
        self.looks.lock().push(Reverse((now() + GRACE, room.clone(), peer)));
        self.look_added.notify_one();
    }

    /// Another node stops, and asks this one to take a seat.
    pub(super) fn offered(self: &Arc<Self>, by: NodeId, room: RoomName, ticket: Option<Ticket>) {
        let wanted = self.is_elsewhere(&room, ticket);
        let place = Arc::clone(&self.handovers.offers).try_acquire_owned();
        let (Some((ticket, _)), Ok(place)) = (wanted, place) else { return };
        let bring = Arc::clone(self).bring(room, ticket, Cause::Offer { by }, CancellationToken::new());
        tokio::spawn(async move {
            if let Err(refusal) = bring.await {
                debug!(reason = %refusal.message, "a seat that was offered could not be had");
            }
            drop(place);
        });
    }

    /// Has other nodes take the members' seats that are here and have no transport: this node is about to stop. Waits until all have
    /// gone, or as long as is said. Without another node that stays, or a key, they end with this one.
    pub async fn give_away(&self, most: Duration) {
        let Some(cluster) = self.cluster.as_ref().filter(|cluster| cluster.shares_key()) else { return };
        let until = now() + most;
        let mut turn = 0;
        while now() < until {
            let (seats, nodes) = (self.tickets(MOST_OFFERS / 2), cluster.staying());
            if seats.is_empty() || nodes.is_empty() {
                break;
            }
            for (room, ticket) in &seats {
                turn += 1;
                let offer = Note::Offer { room: room.clone(), ticket: ticket.to_text().into() };
                // What is not sent is offered to another one in the next round.
                let _ = cluster.send(nodes[turn % nodes.len()], None, offer.write(), Weight::Payload);
            }
            let round = now() + OFFER;
            while now() < round.min(until) && seats.iter().any(|(room, ticket)| self.has_seat(room, ticket.peer)) {
                sleep(AGAIN).await;
            }
        }
        let left = self.tickets(usize::MAX).len();
        if left > 0 {
            warn!(seats = left, "no other node has taken these seats: their sessions end with this server");
        }
    }

    pub(super) fn has_seat(&self, room: &RoomName, peer: PeerId) -> bool {
        self.with_hall(room, |hall| hall.seats.contains_key(&peer)).unwrap_or(false)
    }

    /// Tickets of so many seats of members that have no transport.
    fn tickets(&self, most: usize) -> Vec<(RoomName, Ticket)> {
        let mut tickets = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let seats = shard.iter().flat_map(|(room, hall)| hall.seats.values().map(move |seat| (room, seat)));
            let idle = seats.filter_map(|(room, seat)| Some((room.clone(), seat.quietly(|seat| seat.idle_ticket())?)));
            tickets.extend(idle.take(most - tickets.len()));
        }
        tickets
    }

    /// A member's seat is handed on, which makes so many `moves`; the node that gets it has the resume window to say so.
    pub(super) fn watch_transit(&self, room: RoomName, peer: PeerId, moves: u64) {
        let (until, reason) = (now() + self.policy.resume_window, LeftReason::NodeLost);
        self.watch(Transit { until, room, peer, moves, reason });
    }

    /// Seats that are no longer where they were may have been taken up by a third node, which then says so as soon as it is heard of.
    pub(super) fn watch_doubted(&self, room: &RoomName, doubted: Vec<Doubted>) {
        for (peer, moves) in doubted {
            let (until, reason) = (now() + HEARD_OF_ALL, LeftReason::Timeout);
            self.watch(Transit { until, room: room.clone(), peer, moves, reason });
        }
    }

    fn watch(&self, transit: Transit) {
        let mut transits = self.handovers.transits.lock();
        let at = transits.partition_point(|other| other.until <= transit.until);
        transits.insert(at, transit);
        self.handovers.transit_added.notify_one();
    }

    /// Waits until there is one more.
    pub(super) async fn transit_added(&self) {
        self.handovers.transit_added.notified().await;
    }

    /// When to look at one of them next.
    pub(super) fn next_transit(&self) -> Option<Instant> {
        self.handovers.transits.lock().front().map(|transit| transit.until)
    }

    /// Those of whom no node has said in time that it has them are gone.
    pub(super) fn end_transits(&self) {
        loop {
            let due = self.handovers.transits.lock().pop_front_if(|transit| transit.until <= now());
            let Some(Transit { room, peer, moves, reason, .. }) = due else { return };
            self.with_hall(&room, |hall| {
                if hall.room.is_in_transit(peer) && hall.room.moves_of(peer) == moves {
                    let mut out = Vec::new();
                    hall.room.leave_elsewhere(peer, reason, &mut out);
                    hall.record_elsewhere(|| Noted::Left { peer, reason });
                    hall.carry_out(out);
                }
            });
        }
    }
}

impl Hall {
    /// Whether something is on its way that its client has said, or that was said to all and that the other node has already.
    fn is_busy(&mut self, peer: PeerId, seat: &SharedSeat, wanted: &Wanted) -> bool {
        // What is being stored for it, or has been said by it and is being stored for somebody else.
        if self.is_storing(peer) || seat.quietly(|seat| seat.is_owed_answers()) {
            return true;
        }
        let Some(ties) = &mut self.ties else { return true };
        let requests = seat.quietly(|seat| seat.log().requests());
        if ties.moving.going(peer).is_none_or(|going| going.requests != requests) {
            let mut marks = if requests > 0 { ties.cluster.marks() } else { Vec::new() };
            marks.retain(|mark| ties.nodes.contains_key(&mark.node()));
            ties.moving.set_going(peer, Going { requests, marks });
        }
        let arrived = ties.moving.going(peer).is_some_and(|going| ties.cluster.have_passed(&going.marks));
        // What was on its way over a link that has failed is counted as soon as that is taken in here.
        let told = |(&node, life): (&NodeId, u64)| ties.cluster.is_up(node, life);
        let counted = ties.nodes.iter().filter_map(|(node, tie)| Some((node, tie.told?))).all(told);
        if !arrived || !counted || ties.cluster.is_asked_by(peer) {
            return true;
        }
        let is_patient = wanted.waited.is_none_or(|waited| waited < PATIENCE.as_millis() as u64);
        let (own, up) = (ties.heard_by(peer), ties.cluster.nodes());
        let lacks = |(node, said): (&NodeId, &Said)| own.get(node).is_none_or(|own| own < said) && up.contains(node);
        is_patient && wanted.heard.iter().any(lacks)
    }

    /// A seat as another node can go on with it, for so long if nobody comes for it there.
    fn parcel(&self, peer: PeerId, seat: &SharedSeat, window: Duration) -> Result<String, Kept> {
        let expired = || refused(&resume_expired());
        let (member, state) = self.room.own_member(peer).ok_or_else(expired)?;
        let own = self.keys.iter().filter(|(_, holder)| **holder == peer);
        let parcel = Parcel {
            room: self.room.name().clone(),
            present: present(member, state, self.room.moves_of(peer) + 1),
            seat: seat.quietly(|seat| seat.pack(now(), window)).ok_or_else(expired)?,
            keys: own.map(|(key, _)| key.as_str().to_owned()).collect(),
            view: self.room.view(peer),
            heard: self.ties.iter().flat_map(|ties| ties.heard_by(peer)).collect(),
            owed: self.owed(),
            journal: self.hand_on_journal(peer),
        };
        Ok(serde_json::to_string(&parcel).expect("a seat has string keys and no failing parts"))
    }

    /// What the nodes have missed and were not told yet. Who goes takes it along, as nobody may be left here to tell them; told twice is
    /// better than not at all.
    fn owed(&self) -> Vec<(NodeId, u64)> {
        let missed = self.ties.iter().flat_map(|ties| &ties.nodes).map(|(&node, tie)| (node, tie.missing.sum()));
        missed.filter(|(_, missed)| *missed > 0).collect()
    }

    /// The same for the node to which the last has come.
    fn owe(&mut self, owed: Vec<(NodeId, u64)>) {
        for (node, missed) in owed {
            let Some(ties) = &mut self.ties else { return };
            if node == ties.cluster.id() {
                self.lose(missed);
            } else {
                let room = self.room.name();
                let missing = Missing { own: 0, brought: missed };
                ties.nodes.entry(node).or_default().miss(missing, ties.said, &ties.cluster, (node, room));
            }
        }
    }

    /// A seat is no longer here, which is remembered. Members here are told nothing: for them its peer goes on.
    /// Returns how often it was handed on by now.
    pub(super) fn send_off(&mut self, peer: PeerId, to: NodeId) -> u64 {
        if let Some(seat) = self.seats.remove(&peer) {
            let replaced = Refusal::new(Code::Replaced, "a later transport took the seat at another node");
            seat.with(|seat| seat.vacate(Ending::Closed(replaced)));
            seat.expect_poll(None);
        }
        self.keys.retain(|_, holder| *holder != peer);
        let moves = self.room.moves_of(peer) + 1;
        self.room.hand_on(peer, None, to, moves);
        if let Some(ties) = &mut self.ties {
            ties.moving.forget(peer);
            ties.cluster.moves.remember(self.room.name().clone(), peer, Move { to, moves }, now());
        }
        self.leave_journal(peer);
        self.announce(|room| Note::Moved { room, peer, to, moves });
        moves
    }

    /// Takes those for members whom one that comes knows from its node and this one does not: to be told that they have left would end
    /// its calls, and it may be that what their own nodes say of them comes later here than there. These are asked, and what they say
    /// holds. Returns those of whom that may never be, and how often their seats were handed on.
    pub(super) fn believe(&mut self, from: NodeId, view: &View) -> Vec<(PeerId, u64)> {
        let Some(ties) = &mut self.ties else { return Vec::new() };
        let (own, mut out, mut on_their_way) = (ties.cluster.id(), Vec::new(), Vec::new());
        let mut strangers: BTreeMap<NodeId, Vec<Known>> = BTreeMap::new();
        for known in self.room.strangers_in(view) {
            let (at, room) = (known.node.unwrap_or(from), self.room.name());
            // It may be that it was here, and that nobody was left when it had gone.
            let gone = ties.cluster.moves.last(room, known.member.peer, now()).filter(|gone| gone.moves > known.moves);
            let (node, moves) = gone.map_or((at, known.moves), |gone| (gone.to, gone.moves));
            let in_transit = known.in_transit || gone.is_some();
            if !ties.cluster.has_gone(node) && (node != own || in_transit) {
                let known = Known { moves, in_transit, ..known.clone() };
                strangers.entry(node).or_default().push(known);
            }
        }
        for (node, strangers) in strangers {
            // It is told what is said to all, or how much of it has missed.
            ties.nodes.entry(node).or_default();
            let (going, there): (Vec<_>, Vec<_>) =
                strangers.iter().partition(|known| known.in_transit || !ties.cluster.knows(node));
            let seats = |known: Vec<&Known>| known.iter().map(|known| (known.member.peer, known.moves)).collect();
            on_their_way.extend::<Vec<_>>(seats(going));
            let is_asked = node != own && ties.ask_whether(self.room.name(), node, seats(there));
            for known in strangers {
                let in_transit = known.in_transit || is_asked || !ties.cluster.knows(node);
                self.room.join_by_hearsay(&known, node, (in_transit, node != own && !is_asked), &mut out);
            }
        }
        self.carry_out(out);
        on_their_way
    }

    /// Tells a member that has come what it has not heard where it was.
    pub(super) fn welcome(&mut self, peer: PeerId, seat: &SharedSeat, view: &View, heard: &Heard, own: NodeId) {
        let moderates = seat.quietly(|seat| seat.grant().rights.moderate);
        // What it knows of who waits it was told there.
        self.room.moderate(peer, moderates);
        let Some(ties) = &mut self.ties else { return };
        let news = self.room.catch_up(peer, view, |node| ties.cluster.has_gone(node));
        let now = ties.heard();
        let missed = ties.moving.arrive(peer, heard, own, &now);
        seat.with(|seat| {
            news.into_iter().for_each(|body| seat.complete(body));
            for body in missed.bodies {
                if !seat.push(body.clone()) {
                    seat.miss(&body);
                }
            }
            if missed.lost > 0 {
                seat.lose(missed.lost);
            }
        });
    }
}

/// What is said to all is kept for a member for as long as its seat is asked for.
struct Expecting<'a> {
    hub: &'a Hub,
    room: &'a RoomName,
    peer: PeerId,
    heard: BTreeMap<NodeId, Said>,
}

impl<'a> Expecting<'a> {
    /// `None` if the seat is here.
    fn begin(hub: &'a Hub, room: &'a RoomName, peer: PeerId) -> Option<Self> {
        let heard = hub.with_hall(room, |hall| {
            let ties = hall.ties.as_mut().filter(|_| !hall.seats.contains_key(&peer))?;
            let heard = ties.heard();
            Some(ties.moving.expect(peer, heard))
        });
        Some(Expecting { hub, room, peer, heard: heard.flatten()? })
    }
}

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        self.hub.with_hall(self.room, |hall| {
            hall.ties.iter_mut().for_each(|ties| ties.moving.give_up(self.peer));
        });
    }
}

/// A text in notes.
pub(super) fn parts<'a>(
    text: &'a str,
    cluster: &Cluster,
    note: impl Fn(Cow<'a, str>, bool) -> Note<'a>,
) -> Vec<Written> {
    let most = PART_BYTES.min(cluster.largest_note() / 3);
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(rest.floor_char_boundary(most.max(4)));
        rest = behind;
        parts.push(note(part.into(), rest.is_empty()).write());
    }
    parts
}

fn refused(refusal: &Refusal) -> Kept {
    Kept::Refused(Refused::from(refusal))
}

pub(super) fn out_of_reach() -> Refusal {
    let why = "the session's node cannot be reached at this moment; resume a little later";
    Refusal::new(Code::GoingAway, why).retry_after(COME_BACK)
}
