//! Seats that outlive their node: what their clients were promised is stored before anybody is told so, and a node to which a client
//! comes takes up from there what a lost node has left. Only who has written a seat's last record can write the next one, so that no
//! two nodes have it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::interval;
use tracing::{debug, info, warn};

use super::cluster::done;
use super::moving::Heard;
use super::ties::{on_its_way, present};
use super::{Hall, Hub, now};
use crate::cluster::Cluster;
use crate::cluster::journal::{Asker, HandedOn, Journal, Kept, Known, Record, Sender, Step, Waiting};
use crate::cluster::mesh::Weight;
use crate::cluster::moves;
use crate::cluster::note::{Lock, Present};
use crate::cluster::store::{Desk, Due, Failure, Log};
use crate::hooks;
use crate::outbox::SharedSeat;
use crate::protocol::{Body, Claim, Code, Kind, NodeId, PeerId, PeerState, Refusal, RoomName, Ticket};
use crate::room::Receipt;
use crate::seat::{Lease, Packed, Seat, Unacknowledged};
use crate::timeline::Outcome;
use crate::traces::Span;

/// How often it is looked whether anything is to be stored that could not be.
const LOOK: Duration = Duration::from_secs(5);

/// Seats that are written at once.
const MOST_TASKS: usize = 1024;

/// After so many looks all is written again, so that the store does not take it for old.
const LOOKS: u64 = 36;

/// When a sender is to try again whose payload could not be stored.
const COME_BACK: Duration = Duration::from_secs(1);

/// Numbers are integers that JSON keeps exactly (RFC 8259, 6).
const GREATEST: u64 = 1 << 53;

/// All that is kept of a member but the payloads for it.
#[derive(Serialize, Deserialize)]
struct State {
    /// Milliseconds since 1970, by the clock of who has written it.
    at: u64,
    room: RoomName,
    present: Present,
    /// The room's: all who were in it may have been at the node that was lost.
    lock: Lock,
    seat: Packed,
}

impl State {
    fn write(&self) -> Option<Box<RawValue>> {
        serde_json::to_string(self).and_then(RawValue::from_string).ok()
    }
}

/// Journals of the members of one room that are here.
#[derive(Debug)]
pub(super) struct Journals {
    desk: Arc<Desk>,
    open: HashMap<PeerId, Journal>,
}

impl Journals {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Journals { desk, open: HashMap::new() }
    }
}

/// What to write next.
enum Write {
    Look,
    Append {
        last: u64,
        record: bytes::Bytes,
        all: bool,
    },
    /// Nothing; or nothing any more, as the peer has left.
    Rest {
        forget: Option<u64>,
    },
}

/// A client that has come with the ticket of a lost node.
pub(super) struct Claimant<'a> {
    pub(super) room: &'a RoomName,
    pub(super) ticket: Ticket,
    /// What it shows beside it.
    pub(super) claim: &'a Claim,
    /// Who has written the ticket.
    pub(super) writer: NodeId,
    /// What was said to all when it came.
    pub(super) heard: &'a Heard,
}

/// What has become of it.
pub(super) enum Restored {
    /// The seat is here, or there is none.
    Done,
    /// It is not its client's.
    Refused(Refusal),
    /// Another node has it.
    At(NodeId),
    /// Somebody else wants it, too.
    Again,
    /// The store cannot be asked.
    Unreachable,
}

impl Hub {
    /// Stores what is to be stored. Runs until it is dropped.
    pub(super) async fn keep_seats(self: &Arc<Self>) {
        let Some(desk) = self.cluster.as_ref().and_then(|cluster| cluster.desk().cloned()) else { return };
        let mut tasks = JoinSet::new();
        let mut looks = interval(LOOK);
        let mut count = 0;
        loop {
            tokio::select! {
                due = desk.next(), if tasks.len() < MOST_TASKS => match due {
                    Due::Write(room, peer) => drop(tasks.spawn(Arc::clone(self).write_seat(Arc::clone(&desk), room, peer))),
                    Due::Forget(peer, until) => drop(tasks.spawn(forget(Arc::clone(&desk), peer, until))),
                },
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended && let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
                _ = looks.tick() => {
                    count += 1;
                    self.look_at_journals(&desk, count % LOOKS == 0);
                }
            }
        }
    }

    /// What could not be stored is tried again.
    fn look_at_journals(&self, desk: &Desk, all: bool) {
        if desk.store().is_none() || desk.is_failing(now()) {
            return;
        }
        for shard in &self.shards {
            for (name, hall) in shard.lock().iter_mut() {
                let Some(journals) = hall.ties.as_mut().and_then(|ties| ties.journals.as_mut()) else { continue };
                for (&peer, journal) in &mut journals.open {
                    if all {
                        journal.renew();
                    }
                    if journal.is_due() {
                        desk.write(name, peer);
                    }
                }
            }
        }
    }

    /// Writes one record of a seat after the other, until there is nothing more to write.
    async fn write_seat(self: Arc<Self>, desk: Arc<Desk>, room: RoomName, peer: PeerId) {
        let mut newest = 0;
        loop {
            let write = self.with_hall(&room, |hall| hall.begin_to_write(peer));
            let write = write.unwrap_or_else(|| Write::Rest { forget: desk.rest(peer) });
            match (write, desk.store()) {
                (Write::Rest { forget: None }, _) => return,
                (Write::Rest { forget: Some(until) }, _) => return forget(desk, peer, until.max(newest)).await,
                (Write::Look, Some(store)) => {
                    let log = store.read(peer).await;
                    desk.note(log.as_ref().map(drop).map_err(|failure| *failure), now());
                    self.looked(&room, peer, log);
                }
                (Write::Append { last, record, all }, Some(store)) => {
                    let bytes = record.len();
                    let stored = store.append(peer, last, record, all).await;
                    newest = stored.unwrap_or(newest);
                    desk.note(stored.map(drop), now());
                    self.with_hall(&room, |hall| hall.has_written(peer, stored, bytes));
                }
                (_, None) => drop(self.with_hall(&room, |hall| hall.has_written(peer, Err(Failure::Unreachable), 0))),
            }
        }
    }

    /// It was not known what is kept of a seat that is here.
    fn looked(&self, room: &RoomName, peer: PeerId, log: Result<Log, Failure>) {
        let Some(cluster) = &self.cluster else { return };
        let read = log.and_then(|log| Kept::read(&log).map(|kept| (kept, log.last)).map_err(|_| Failure::Unreachable));
        let mut shard = self.shard(room).lock();
        let Some(hall) = shard.get_mut(room) else { return };
        let own = hall.room.moves_of(peer);
        match read {
            Ok((Some(kept), _)) if kept.owner != cluster.id() && kept.moves >= own => {
                info!(%peer, to = %kept.owner, "a session goes on at another node, which took this one for lost");
                let moves = hall.give_up(peer, kept.owner);
                self.watch_transit(room.clone(), peer, moves);
                self.drop_if_empty(&mut shard, room);
            }
            Ok((_, last)) => hall.journal(peer, |journal| journal.found(last)).unwrap_or_default(),
            Err(failure) => hall.has_written(peer, Err(failure), 0),
        }
    }

    /// Takes up a seat that a lost node has left, for a client that has come with its ticket.
    pub(super) async fn restore(self: &Arc<Self>, cluster: &Cluster, claimant: &Claimant<'_>) -> Restored {
        let Some(desk) = cluster.desk() else { return Restored::Done };
        let (Some(store), peer) = (desk.store(), claimant.ticket.peer) else { return Restored::Done };
        let Ok(log) = store.read(peer).await else { return Restored::Unreachable };
        let (mut kept, state) = match read(&log, claimant, cluster) {
            Some((kept, _)) if kept.owner != cluster.id() && !cluster.is_lost(kept.owner) => {
                return Restored::At(kept.owner);
            }
            Some((kept, _)) if cluster.has_gone(kept.owner) => return Restored::Done,
            Some(found) => found,
            None => return Restored::Done,
        };
        let (seq, state) = (claimant.claim.seq, self.state_of_claim(claimant, state));
        let (owner, moves) = (cluster.id(), state.present.moves);
        let text = state.write();
        let record = || Record {
            owner,
            moves,
            state: text.clone(),
            claim: Some(seq),
            said: Vec::new(),
            unsure: Vec::new(),
            left: Vec::new(),
            mails: Vec::new(),
        };
        kept.add(record());
        let payloads = kept.mails.into_values().collect();
        let State { present, lock, seat, .. } = state;
        let seat = Seat::unpack(seat.with_payloads(seq, payloads, kept.lost), self.policy.limits.checks, now());
        let Ok(seat) = seat else {
            warn!(%peer, "a seat that was kept contradicts itself, and is lost");
            return Restored::Done;
        };
        if let Err(refusal) = seat.check_claim(claimant.ticket, claimant.claim, now()) {
            return Restored::Refused(refusal);
        }
        let last = match store.append(peer, log.last, record().write(), false).await {
            Ok(last) => last,
            Err(Failure::Overtaken) => return Restored::Again,
            Err(Failure::Unreachable) => return Restored::Unreachable,
        };
        let journal = Journal::after((Some(last), kept.said, kept.unsure));
        self.seat_again(cluster, claimant, (present, lock), SharedSeat::new(seat), journal);
        Restored::Done
    }

    /// What is known of a member of a lost node, by now.
    fn state_of_claim(&self, claimant: &Claimant<'_>, state: State) -> State {
        let State { at, room, mut present, lock, seat } = state;
        let known = self.with_hall(&room, |hall| {
            let member = hall.room.all_members().find(|(member, _)| member.peer == claimant.ticket.peer);
            (member.map(|(member, _)| member.clone()), hall.room.moves_of(claimant.ticket.peer))
        });
        let (member, moves) = known.unwrap_or_default();
        // Its node may have told of other metadata later than it was stored.
        present.member = member.unwrap_or(present.member);
        present.moves = moves::taken_up(moves.max(present.moves));
        present.away = true;
        let passed = Duration::from_millis(hooks::now_ms().saturating_sub(at));
        State {
            at: hooks::now_ms(),
            room,
            present,
            lock,
            seat: seat.taken_up(claimant.ticket, passed, self.policy.resume_window),
        }
    }

    fn seat_again(
        self: &Arc<Self>,
        cluster: &Cluster,
        claimant: &Claimant<'_>,
        (present, lock): (Present, Lock),
        seat: Arc<SharedSeat>,
        journal: Journal,
    ) {
        let (room, peer) = (claimant.room, claimant.ticket.peer);
        let mut shard = self.shard(room).lock();
        let hall = self.open_for_seat(&mut shard, room);
        if hall.seats.contains_key(&peer) {
            return;
        }
        info!(%peer, "a session of a lost node goes on here");
        let mut out = Vec::new();
        hall.room.adopt(present.member, (PeerState::Away, present.moves), &mut out);
        hall.carry_out(out);
        hall.take_in_lock(lock);
        hall.seats.insert(peer, Arc::clone(&seat));
        cluster.moves.forget(room, peer);
        // It is given a whole picture; what was said to all since it came is behind that.
        let view = hall.room.view(peer);
        hall.welcome(peer, &seat, &view, claimant.heard, cluster.id());
        hall.open_journal(peer, journal);
        hall.announce_newcomer(peer);
        cluster.desk().into_iter().for_each(|desk| desk.note_restored());
        self.tend_soon(room, peer);
    }
}

impl Hall {
    fn journals(&mut self) -> Option<&mut Journals> {
        self.ties.as_mut()?.journals.as_mut()
    }

    fn journal<T>(&mut self, peer: PeerId, change: impl FnOnce(&mut Journal) -> T) -> Option<T> {
        self.journals()?.open.get_mut(&peer).map(change)
    }

    /// Begins to keep a member that has come here, unless that was begun before.
    pub(super) fn begin_journal(&mut self, peer: PeerId) {
        if self.room.own_member(peer).is_none() {
            return;
        }
        let room = self.room.name().clone();
        let Some(journals) = self.journals() else { return };
        journals.open.entry(peer).or_default();
        if journals.desk.store().is_some() {
            journals.desk.write(&room, peer);
        }
    }

    fn open_journal(&mut self, peer: PeerId, journal: Journal) {
        if let Some(journals) = self.journals() {
            journals.open.insert(peer, journal);
        }
    }

    /// The same for one that has come from another node, with what that has written.
    pub(super) fn go_on_with_journal(&mut self, peer: PeerId, journal: Option<HandedOn>) {
        self.open_journal(peer, Journal::after(journal.unwrap_or_default()));
    }

    /// What that node needs.
    pub(super) fn hand_on_journal(&self, peer: PeerId) -> Option<HandedOn> {
        Some(self.ties.as_ref()?.journals.as_ref()?.open.get(&peer)?.hand_on())
    }

    /// Something has changed of a member here that is to be kept.
    pub(super) fn touch_journal(&mut self, peer: PeerId) {
        if self.journal(peer, Journal::touch).is_some() {
            self.begin_journal(peer);
        }
    }

    /// The same for all members here.
    pub(super) fn touch_journals(&mut self) {
        let peers = self.journals().map(|journals| journals.open.keys().copied().collect::<Vec<_>>());
        peers.into_iter().flatten().for_each(|peer| self.touch_journal(peer));
    }

    /// Whether anything is being stored for a member here.
    pub(super) fn is_storing(&mut self, peer: PeerId) -> bool {
        self.journal(peer, |journal| journal.is_busy()).unwrap_or(false)
    }

    /// A member has left: nothing of it is kept any longer.
    pub(super) fn end_journal(&mut self, peer: PeerId) {
        let gone = Refusal::new(Code::PeerGone, "no such peer in the room");
        if let Some(newest) = self.close_journal(peer, &gone)
            && let Some(journals) = self.journals()
        {
            journals.desk.leave(peer, newest);
        }
    }

    /// A member is at another node now, which goes on with what is kept.
    pub(super) fn leave_journal(&mut self, peer: PeerId) {
        self.close_journal(peer, &on_its_way());
    }

    /// Returns up to which record the log is this node's to remove.
    fn close_journal(&mut self, peer: PeerId, why: &Refusal) -> Option<u64> {
        let mut journal = self.journals()?.open.remove(&peer)?;
        self.settle_all(journal.failed(true), &Err(why.clone()));
        Some(journal.newest())
    }

    /// Another node has a member that was here. Returns how often its seat has moved by now.
    pub(super) fn give_up(&mut self, peer: PeerId, to: NodeId) -> u64 {
        if let Some(journals) = self.journals() {
            journals.desk.note_dropped();
        }
        self.send_off(peer, to)
    }

    /// A payload of a member here for another one here, which has to be stored first; `None` if it has not.
    pub(super) fn keep_here(&mut self, to: PeerId, body: &Body, receipt: Receipt) -> Option<Outcome> {
        let sender = receipt.id.map(|id| (receipt.from, id));
        let from = (receipt.from, self.room.moves_of(receipt.from));
        let kept = self.keep(to, body, sender, Asker::Here(from, receipt.id))?;
        let asker = self.seats.get(&receipt.from).map(Arc::clone);
        match kept {
            Ok(Known::Stored) => self.settle(receipt.from, receipt.id, Ok(())),
            Ok(Known::Waiting | Known::New | Known::Late | Known::Unsure) => {
                if let (Some(asker), Some(id)) = (asker, receipt.id) {
                    asker.quietly(|seat| seat.ask(id));
                }
            }
            Err(refusal) => {
                self.settle(receipt.from, receipt.id, Err(refusal));
                return Some(Outcome::QueueFull);
            }
        }
        let lease = self.seats.get(&to).map(|seat| seat.quietly(|seat| seat.lease()));
        Some(if matches!(lease, Some(Lease::Away { .. })) { Outcome::Kept } else { Outcome::Delivered })
    }

    /// The same for one of another node's: `None` if it need not be stored, or else what to answer, if that is known by now.
    pub(super) fn keep_from_elsewhere(
        &mut self,
        to: PeerId,
        body: &Body,
        sender: Option<Sender>,
        asker: Asker,
        trace: &Span,
    ) -> Option<Option<Result<(), Refusal>>> {
        let kept = self.keep(to, body, sender, asker)?;
        let lease = self.seats.get(&to)?.quietly(|seat| seat.lease());
        Some(match kept {
            Ok(Known::Stored) => Some(Ok(())),
            Ok(Known::Waiting | Known::Late | Known::Unsure) => None,
            Ok(Known::New) => {
                self.record_taken(to, body, true, lease, trace);
                None
            }
            Err(refusal) => {
                self.record_taken(to, body, false, lease, trace);
                Some(Err(refusal))
            }
        })
    }

    /// Has a payload for a member here stored; `None` if it need not be, as nothing is kept of that one.
    fn keep(
        &mut self,
        to: PeerId,
        body: &Body,
        sender: Option<Sender>,
        asker: Asker,
    ) -> Option<Result<Known, Refusal>> {
        let seat = Arc::clone(self.seats.get(&to).filter(|_| body.kind == Kind::Payload)?);
        let room = self.room.name().clone();
        let journals = self.journals()?;
        let (desk, journal) = (Arc::clone(&journals.desk), journals.open.get_mut(&to)?);
        match journal.knows(sender, &asker) {
            Known::New => {}
            Known::Late => return Some(Err(late())),
            Known::Unsure => return Some(Err(unsure())),
            known => return Some(Ok(known)),
        }
        if desk.store().is_none() {
            // It is among what is written when there is one.
            journal.renew();
            return None;
        }
        let bytes = body.len();
        if desk.is_failing(now()) || !desk.take(bytes) {
            return Some(Err(not_stored()));
        }
        if !seat.with(|seat| seat.push_held(body.clone())) {
            desk.give_back(bytes);
            return Some(Err(Refusal::new(Code::QueueFull, "the peer's queue has no room for it")));
        }
        journal.push(Waiting { sender, askers: vec![asker], bytes });
        desk.write(&room, to);
        Some(Ok(Known::New))
    }

    /// Begins the next record of a seat.
    fn begin_to_write(&mut self, peer: PeerId) -> Write {
        let Some(journals) = self.journals() else { return Write::Rest { forget: None } };
        let desk = Arc::clone(&journals.desk);
        let largest = match desk.store() {
            Some(store) if !desk.is_failing(now()) => store.largest() / 4 * 3,
            _ => {
                self.fail_all(peer);
                return Write::Rest { forget: desk.rest(peer) };
            }
        };
        match self.journal(peer, |journal| journal.begin(largest / 2)) {
            None | Some(Step::Rest) => Write::Rest { forget: desk.rest(peer) },
            Some(Step::Look) => Write::Look,
            Some(Step::Write { last, mails, state, all }) => match self.next_record(peer, largest, (mails, state, all))
            {
                Some(record) => Write::Append { last, record: record.write(), all },
                None => {
                    debug!(%peer, "more waits for a client than can be kept");
                    self.fail_all(peer);
                    Write::Rest { forget: desk.rest(peer) }
                }
            },
        }
    }

    /// The next record; `None` if it is too large.
    fn next_record(
        &mut self,
        peer: PeerId,
        largest: usize,
        (mails, state, all): (usize, bool, bool),
    ) -> Option<Record> {
        let owner = self.ties.as_ref()?.cluster.id();
        let (said, unsure) = self.journal(peer, |journal| {
            let unsure = journal.unsure().iter().copied().filter(|_| all).collect::<Vec<_>>();
            (journal.senders(mails, all), unsure)
        })?;
        let seat = Arc::clone(self.seats.get(&peer)?);
        let state = match state {
            true => Some(self.state(peer, &seat)?),
            false => None,
        };
        let most = largest
            .saturating_sub(state.as_ref().map_or(0, |state| state.get().len()) + (said.len() + unsure.len()) * 64);
        let text = |(number, body): (u64, &Body)| Some((number, RawValue::from_string(body.text().to_owned()).ok()?));
        let (left, mails) = seat.quietly(|seat| {
            let Unacknowledged { left, kept } = match all {
                true => seat.unacknowledged(mails, most)?,
                false => Unacknowledged { left: Vec::new(), kept: seat.held(mails) },
            };
            Some((left, kept.into_iter().map(text).collect::<Option<Vec<_>>>()?))
        })?;
        Some(Record { owner, moves: self.room.moves_of(peer), state, claim: None, said, unsure, left, mails })
    }

    fn state(&self, peer: PeerId, seat: &SharedSeat) -> Option<Box<RawValue>> {
        let (member, state) = self.room.own_member(peer)?;
        let (present, lock) = (present(member, state, self.room.moves_of(peer)), self.known_lock()?);
        let seat = seat.quietly(|seat| seat.outline(now()))?;
        State { at: hooks::now_ms(), room: self.room.name().clone(), present, lock, seat }.write()
    }

    /// What has become of a record.
    fn has_written(&mut self, peer: PeerId, result: Result<u64, Failure>, bytes: usize) {
        let settled = self.journal(peer, |journal| match result {
            Ok(last) => journal.stored(last, bytes),
            // What comes next begins with a look at what there is.
            Err(_) => journal.failed(false),
        });
        let settled = settled.unwrap_or_default();
        let Some(seat) = self.seats.get(&peer).map(Arc::clone) else { return };
        match result {
            Ok(_) => {
                seat.with(|seat| seat.release_held(settled.len()));
                self.settle_all(settled, &Ok(()));
            }
            Err(_) => {
                seat.with(|seat| seat.retract_held(settled.len()));
                self.settle_all(settled, &Err(not_stored()));
            }
        }
    }

    /// Nothing of what waits for a member here can be stored.
    fn fail_all(&mut self, peer: PeerId) {
        let failed = self.journal(peer, |journal| journal.failed(true)).unwrap_or_default();
        if let Some(seat) = self.seats.get(&peer).map(Arc::clone) {
            seat.with(|seat| seat.retract_held(failed.len()));
        }
        self.settle_all(failed, &Err(not_stored()));
    }

    /// Answers those who wait.
    fn settle_all(&mut self, settled: Vec<Waiting>, outcome: &Result<(), Refusal>) {
        for Waiting { askers, bytes, .. } in settled {
            if let Some(journals) = self.journals() {
                journals.desk.give_back(bytes);
            }
            for asker in askers {
                match asker {
                    Asker::Here(from, id) => self.settle_if(from, id, outcome.clone()),
                    Asker::Node(node, life, receipt) => {
                        let Some(ties) = &self.ties else { continue };
                        let note = done(receipt, outcome.clone()).write();
                        // If the link is down, its other end has been told so.
                        let _ = ties.cluster.send(node, Some(life), note, Weight::Vital);
                    }
                }
            }
        }
    }
}

/// A log, and the state in it, if they are of the seat for which a client has come.
fn read(log: &Log, claimant: &Claimant<'_>, cluster: &Cluster) -> Option<(Kept, State)> {
    let kept =
        Kept::read(log).inspect_err(|error| warn!(%error, "what was kept of a seat cannot be understood")).ok()??;
    let state: State = serde_json::from_str(kept.state.as_ref()?.get()).ok()?;
    let is_its = state.room == *claimant.room && state.present.member.peer == claimant.ticket.peer;
    // Which ticket was its last is not stored each time, so that nobody waits for that; but by whom it was written is known.
    let is_good = state.seat.accepts(claimant.ticket) || kept.owner == claimant.writer && kept.owner != cluster.id();
    (is_its && is_good && claimant.claim.seq < GREATEST).then_some((kept, state))
}

async fn forget(desk: Arc<Desk>, peer: PeerId, until: u64) {
    if let Some(store) = desk.store() {
        store.forget(peer, until).await;
    }
}

fn late() -> Refusal {
    Refusal::new(Code::QueueFull, "what was said after it has come before; say it again under another id")
}

fn unsure() -> Refusal {
    Refusal::new(Code::QueueFull, "the peer's node was lost while it was stored; it may or may not have got it")
}

fn not_stored() -> Refusal {
    let why = "the peer's messages cannot be stored now; it may or may not have got it";
    Refusal::new(Code::QueueFull, why).retry_after(COME_BACK)
}
