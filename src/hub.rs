//! Rooms and seats under sharded locks, and the time that passes for them. The hub is the only caller of
//! [`room`](crate::room) and [`seat`](crate::seat): it carries out what the one decides upon the other.
//!
//! A message takes one shard lock, in which the sender's request is admitted, the room decides and the recipients' seats take
//! it in; then each recipient's task is awake. Nothing waits under a lock.

use std::cmp::Reverse;
use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::cluster::note::Note;
use crate::hooks::{Hook, What};
use crate::ice::{IceServers, Issued};
use crate::outbox::SharedSeat;
use crate::protocol::{
    Body, Code, Frame, Grant, Join, JoinKey, Joined, LeftReason, Limits, Member, Metadata, NodeId, PeerId, Refusal,
    Resume, Resumed, RoomName, Ticket, Transport, WaitingRoom, notice,
};
use crate::room::{Delivery, Room};
use crate::seat::{Ending, Lease, Resumption, Seat};
use crate::timeline::{self, Event, Outcome, Timeline, Timelines};
use crate::traces::{Span, Traces};

mod carrying;
mod census;
mod cluster;
mod durable;
mod handover;
mod invitations;
mod moving;
mod operator;
mod poll;
mod recording;
mod session;
mod ties;
mod waiting;

use carrying::Carrying;
pub use carrying::{Asked, Errand, Wish};
pub use cluster::Entering;
use handover::Handovers;
use invitations::Invitations;
pub use operator::{MemberInfo, MemberState, RoomInfo, RoomSummary};
pub use poll::Poll;
pub use session::{History, Session, Speaker};
use ties::Ties;

/// Enough shards that two rooms seldom share one, few enough to cost nothing when empty.
const SHARDS: usize = 64;

/// What the hub is told once, at the start.
#[derive(Debug)]
pub struct Policy {
    /// Limits of sessions and rooms.
    pub limits: Limits,
    /// Rooms at once.
    pub rooms: usize,
    /// Told to clients in `joined`.
    pub heartbeat: Duration,
    /// How long a seat is kept without a transport.
    pub resume_window: Duration,
    /// STUN and TURN servers.
    pub ice_servers: IceServers,
    /// Who has to wait to be admitted.
    pub waiting: WaitingRoom,
    /// What is recorded of each room.
    pub timelines: timeline::Policy,
    /// Where the operator's application is told of rooms.
    pub hook: Option<Hook>,
    /// Records what becomes of descriptions from other nodes.
    pub traces: Traces,
}

/// All rooms of this server.
#[derive(Debug)]
pub struct Hub {
    policy: Policy,
    /// What a session has that shows no token, where none is asked for.
    open: Grant,
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<RoomName, Hall>>]>,
    rooms: AtomicUsize,
    invitations: Invitations,
    /// When which seat has to be looked at. Entries are never taken back, but a seat knows its next one and adds no later ones.
    looks: Mutex<BinaryHeap<Reverse<(Instant, RoomName, PeerId)>>>,
    look_added: Notify,
    /// A token for each session, and for each seat that waits for its next poll.
    served: TaskTracker,
    /// The other nodes, where there may be any.
    cluster: Option<Arc<Cluster>>,
    timelines: Arc<Timelines>,
    handovers: Handovers,
    carrying: Carrying,
}

/// A room and the seats of its members, and of those who wait to be.
#[derive(Debug)]
struct Hall {
    room: Room,
    seats: HashMap<PeerId, Arc<SharedSeat>>,
    keys: HashMap<JoinKey, PeerId>,
    /// What the room shares with other nodes, where there may be any.
    ties: Option<Box<Ties>>,
    /// What has happened in it, where that is recorded.
    timeline: Option<Box<Timeline>>,
    opened: SystemTime,
    /// The way to the application, where there is one, and whether it has heard of the room.
    hook: Option<Hook>,
    told: bool,
}

impl Hub {
    /// A hub without rooms.
    pub fn new(policy: Policy) -> Arc<Self> {
        Self::with(policy, None)
    }

    /// The same at a node of a cluster, whose events [`keep_cluster`](Self::keep_cluster) is to be given.
    pub fn clustered(policy: Policy, cluster: Arc<Cluster>) -> Arc<Self> {
        Self::with(policy, Some(cluster))
    }

    fn with(policy: Policy, cluster: Option<Arc<Cluster>>) -> Arc<Self> {
        let served = TaskTracker::new();
        served.close();
        Arc::new(Hub {
            open: Grant::open(Arc::new(policy.limits.clone())),
            timelines: Timelines::new(policy.timelines),
            policy,
            served,
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            rooms: AtomicUsize::new(0),
            invitations: Invitations::default(),
            looks: Mutex::default(),
            look_added: Notify::new(),
            cluster,
            handovers: Handovers::default(),
            carrying: Carrying::default(),
        })
    }

    /// Takes a seat in a room, which comes to be with its first one. Returns the session and the `joined` to begin with, or the
    /// `waiting` for one who has to be admitted. `grant` is what the client's token allows; `None` where no token is asked for.
    ///
    /// # Errors
    /// `forbidden` without the grant to join where nobody may wait, and for an invitation that is used up; `roomFull`,
    /// `roomLocked`, or why a join key is no longer good.
    pub fn join(
        self: &Arc<Self>,
        name: &RoomName,
        join: &Join<'_>,
        grant: Option<Grant>,
        transport: Transport,
    ) -> Result<(Session, Frame), Refusal> {
        let now = now();
        let grant = grant.unwrap_or_else(|| self.open.clone());
        let waits = self.policy.waiting.holds.include(grant.rights)?;
        grant.check_size(join)?;
        if waits && transport == Transport::LongPoll && join.key.is_none() {
            return Err(Refusal::bad_request("to wait for admission by polls, join with a \"key\""));
        }
        let mut shard = self.shard(name).lock();
        if let Some(again) = self.rejoin(&mut shard, name, join, &grant, transport, now) {
            return again;
        }
        let hall = self.open(&mut shard, name)?;
        // Minted under the shard's lock, so that ids grow in the order of joining.
        let peer = PeerId::new(Uuid::now_v7());
        let metadata = Metadata::vouched(&join.metadata, grant.metadata.as_deref());
        let member = Member { peer, user: grant.user.clone(), metadata };
        let mut out = Vec::new();
        let entered = self.invitations.redeem(&grant, now, || match waits {
            true => hall.room.knock(member, self.policy.waiting.peers, &mut out),
            false => hall.room.join(member, &grant.limits, &mut out),
        });
        if let Err(refusal) = entered {
            self.drop_if_empty(&mut shard, name);
            return Err(refusal);
        }
        let until = waits.then(|| now + self.policy.waiting.time);
        let seat = Seat::new(self.fresh_ticket(name, peer), transport, grant, now);
        let seat = SharedSeat::new(match until {
            Some(until) => seat.waiting(until, join.key.is_some()),
            None => seat,
        });
        hall.seats.insert(peer, Arc::clone(&seat));
        if let Some(key) = &join.key {
            hall.keys.insert(key.clone(), peer);
        }
        hall.carry_out(out);
        hall.announce_newcomer(peer);
        let by = Some(transport);
        hall.record_at(
            now,
            match waits {
                true => Event::Knocked { peer, transport: by },
                false => Event::Joined { peer, transport: by },
            },
        );
        let greeting = match until {
            Some(until) => self.waiting(until),
            None => self.joined(hall, &seat, None, transport),
        };
        hall.update_role(peer, &seat, false);
        self.tend(hall, peer);
        Ok((self.session(name, peer, seat), greeting))
    }

    /// Takes a seat up again. Returns the session and the `resumed`, or the `joined` if there is a gap. `renewal` takes the place
    /// of the session's token.
    ///
    /// # Errors
    /// `resumeExpired` for a ticket that is no good (any more, or in this room), `badRequest` for a `seq` never sent,
    /// `tokenExpired` if a new token is needed, `unauthorized` for one of somebody else's.
    pub fn resume(
        self: &Arc<Self>,
        name: &RoomName,
        resume: &Resume<'_>,
        renewal: Option<Grant>,
        transport: Transport,
    ) -> Result<(Session, Frame), Refusal> {
        let mut shard = self.shard(name).lock();
        let (session, resumption) = self.take_up(&mut shard, name, resume, renewal, transport)?;
        session.seat.quietly(|seat| seat.use_ticket(self.fresh_ticket(name, session.peer())));
        let hall = shard.get_mut(name).ok_or_else(resume_expired)?;
        let greeting = match resumption {
            Resumption::Whole { lost } => self.joined(hall, &session.seat, Some(lost), transport),
            Resumption::Replay => session.seat.quietly(|seat| resumed(seat, self.node())),
        };
        hall.update_role(session.peer(), &session.seat, matches!(resumption, Resumption::Whole { .. }));
        Ok((session, greeting))
    }

    /// Lets the holder of a ticket make requests for its seat, beside the transport that has it; the ticket is not used up.
    ///
    /// # Errors
    /// `unauthorized` for a ticket that is no good, `tokenExpired` if the session needs a new token.
    pub fn speaker(self: &Arc<Self>, name: &RoomName, ticket: Option<Ticket>) -> Result<Speaker, Refusal> {
        let refused = || Refusal::new(Code::Unauthorized, "Wigwag-Ticket must be the ticket of a seat in this room");
        let ticket = ticket.ok_or_else(refused)?;
        let shard = self.shard(name).lock();
        let (peer, seat) = Self::seat_of(&shard, name, Some(ticket)).map_err(|_| refused())?;
        if seat.quietly(|seat| seat.grant().is_expired(now())) {
            return Err(Refusal::new(Code::TokenExpired, "the session's token has expired; resume with a new one"));
        }
        let generation = seat.quietly(|seat| seat.show_ticket(ticket)).ok_or_else(refused)?;
        Ok(Speaker::new(Arc::clone(self), name.clone(), peer, seat, generation))
    }

    /// Lets time pass: frees seats whose resume window has ended, ends sessions whose token has, renews TURN credentials. Runs until it is dropped.
    pub async fn keep_time(&self) {
        loop {
            let next = self.looks.lock().peek().map(|Reverse((at, ..))| *at);
            match next {
                Some(at) if at <= now() => self.look_at_one(),
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at.into()) => {}
                        () = self.look_added.notified() => {}
                    }
                }
                None => self.look_added.notified().await,
            }
        }
    }

    /// Waits until no seat has a transport, nor waits for its next poll. Cancel safe.
    pub async fn deserted(&self) {
        self.served.wait().await;
    }

    /// Whether `resume` is the next poll of a seat that is polled, and not away.
    pub fn is_next_poll(&self, name: &RoomName, resume: &Resume) -> bool {
        let shard = self.shard(name).lock();
        let seat = Self::seat_of(&shard, name, resume.ticket);
        seat.is_ok_and(|(_, seat)| seat.quietly(|seat| seat.is_poll_expected()))
    }

    /// Rooms at the moment.
    pub fn room_count(&self) -> usize {
        self.rooms.load(Ordering::Relaxed)
    }

    /// The seat that a ticket proves.
    fn seat_of(
        shard: &HashMap<RoomName, Hall>,
        name: &RoomName,
        ticket: Option<Ticket>,
    ) -> Result<(PeerId, Arc<SharedSeat>), Refusal> {
        let ticket = ticket.ok_or_else(resume_expired)?;
        let seat = shard.get(name).and_then(|hall| hall.seats.get(&ticket.peer)).ok_or_else(resume_expired)?;
        if seat.quietly(|seat| seat.accepts(ticket)) {
            Ok((ticket.peer, Arc::clone(seat)))
        } else {
            Err(resume_expired())
        }
    }

    /// Gives a seat to a new transport, and tells the room if it had none.
    fn take_up(
        self: &Arc<Self>,
        shard: &mut HashMap<RoomName, Hall>,
        name: &RoomName,
        resume: &Resume<'_>,
        renewal: Option<Grant>,
        transport: Transport,
    ) -> Result<(Session, Resumption), Refusal> {
        let (peer, seat) = Self::seat_of(shard, name, resume.ticket)?;
        let ticket = resume.ticket.ok_or_else(resume_expired)?;
        let before = seat.quietly(|seat| seat.transport());
        let resumption = seat.with(|seat| seat.resume(ticket, resume.seq, renewal, transport, now()))?;
        if let Some(hall) = shard.get_mut(name) {
            if !hall.back(peer) && before != transport {
                hall.record(|| Event::Moved { peer, transport });
            }
            self.tend(hall, peer);
        }
        Ok((self.session(name, peer, seat), resumption))
    }

    /// A second `join` with the key of a seat that is there.
    fn rejoin(
        self: &Arc<Self>,
        shard: &mut HashMap<RoomName, Hall>,
        name: &RoomName,
        join: &Join<'_>,
        grant: &Grant,
        transport: Transport,
        now: Instant,
    ) -> Option<Result<(Session, Frame), Refusal>> {
        let hall = shard.get_mut(name)?;
        let peer = *hall.keys.get(join.key.as_ref()?)?;
        let seat = Arc::clone(hall.seats.get(&peer)?);
        let lost = match seat.with(|seat| seat.rejoin(grant.clone(), transport, now)) {
            Ok(lost) => lost,
            Err(refusal) => return Some(Err(refusal)),
        };
        self.spare_waiting(hall, peer, &seat);
        let greeting = match seat.quietly(|seat| seat.waits_until()) {
            Some(until) => self.waiting(until),
            None => {
                hall.back(peer);
                let joined = self.joined(hall, &seat, Some(lost), transport);
                seat.quietly(|seat| seat.forget_greeting());
                hall.update_role(peer, &seat, true);
                joined
            }
        };
        self.tend(hall, peer);
        Some(Ok((self.session(name, peer, seat), greeting)))
    }

    fn session(self: &Arc<Self>, name: &RoomName, peer: PeerId, seat: Arc<SharedSeat>) -> Session {
        Session::new(Arc::clone(self), name.clone(), peer, seat)
    }

    /// Which node of a cluster this is.
    fn node(&self) -> Option<NodeId> {
        self.cluster.as_ref().map(|cluster| cluster.id())
    }

    /// `joined`; `lost` is there for a session that is not new.
    fn joined(&self, hall: &Hall, seat: &SharedSeat, lost: Option<u64>, transport: Transport) -> Frame {
        let policy = &self.policy;
        let ice = self.issue_ice(seat);
        seat.quietly(|seat| {
            notice::joined(&Joined {
                replay_from: seat.replay_from(),
                last_id: lost.map(|_| seat.last_id()),
                lost,
                picture: hall.room.picture(seat.peer()).expect("a seat's peer is a member of its room"),
                ticket: seat.ticket().to_text(),
                resume_window_ms: policy.resume_window.as_millis() as u64,
                heartbeat_ms: policy.heartbeat.as_millis() as u64,
                ice_servers: &ice.servers,
                ice_servers_expire_ms: ice.lasts.map(|lasts| lasts.as_millis() as u64),
                limits: &seat.grant().limits,
                transport: transport.name(),
                milestones: true,
                node: self.node(),
            })
        })
    }

    /// A transport has ended. The seat waits for the next poll until `next_poll`, if there is to be one, and is away then.
    fn detach(&self, speaker: &Speaker, next_poll: Option<Instant>) {
        let mut shard = self.shard(&speaker.room).lock();
        let detached = match next_poll {
            Some(until) => self.pause(speaker, until),
            None => speaker.seat.quietly(|seat| seat.detach(speaker.generation, now(), self.policy.resume_window)),
        };
        if detached && let Some(hall) = shard.get_mut(&speaker.room) {
            self.tend(hall, speaker.peer);
            self.drop_if_empty(&mut shard, &speaker.room);
        }
    }

    fn pause(&self, speaker: &Speaker, until: Instant) -> bool {
        let paused = speaker.seat.quietly(|seat| seat.pause(speaker.generation, until));
        if paused {
            speaker.seat.expect_poll(Some(self.served.token()));
        }
        paused
    }

    /// Looks at one seat whose time has come.
    fn look_at_one(&self) {
        let Some(Reverse((at, name, peer))) = self.looks.lock().pop() else { return };
        let mut shard = self.shard(&name).lock();
        if let Some(hall) = shard.get_mut(&name) {
            if let Some(seat) = hall.seats.get(&peer) {
                seat.with(|seat| {
                    seat.looked(at);
                    seat.lapse(now(), self.policy.resume_window);
                    seat.stay(at.checked_sub(handover::GRACE).unwrap_or(at));
                });
            }
            self.tend(hall, peer);
            self.drop_if_empty(&mut shard, &name);
        }
    }

    /// Does what time has made due for a seat, tells the room what its lease has come to, and notes when to look again.
    fn tend(&self, hall: &mut Hall, peer: PeerId) {
        let Some(seat) = hall.seats.get(&peer).map(Arc::clone) else { return };
        let now = now();
        if seat.quietly(|seat| seat.waits_until()).is_some_and(|until| until <= now) {
            let why = "nobody has admitted this peer in time; join with another key to knock again";
            let _ = hall.turn_away(peer, LeftReason::Timeout, why);
        }
        match seat.quietly(|seat| seat.lease()) {
            Lease::Away { until } if until <= now => return hall.remove(peer, LeftReason::Timeout, None),
            Lease::Away { .. } => {
                seat.expect_poll(None);
                hall.away(peer);
            }
            Lease::Here | Lease::Between { .. } | Lease::Left => {}
        }
        if seat.quietly(|seat| seat.is_token_due(now)) {
            seat.with(|seat| seat.age_token(now));
        }
        if seat.quietly(|seat| seat.is_ice_due(now)) {
            hall.answer(peer, self.ice_servers(&seat));
        }
        if let Some(at) = seat.quietly(|seat| seat.next_look(now)) {
            self.looks.lock().push(Reverse((at, hall.room.name().clone(), peer)));
            self.look_added.notify_one();
        }
    }

    /// The STUN and TURN servers that clients are told.
    pub fn relays(&self) -> &IceServers {
        &self.policy.ice_servers
    }

    /// STUN and TURN servers for a seat, with fresh credentials, which will be renewed in time.
    fn issue_ice(&self, seat: &SharedSeat) -> Issued {
        let servers = &self.policy.ice_servers;
        let due = servers.renew_after().map(|after| now() + after);
        let peer = seat.quietly(|seat| {
            seat.expect_ice(due);
            seat.peer()
        });
        servers.issue(peer, SystemTime::now())
    }

    /// The same as a message.
    fn ice_servers(&self, seat: &SharedSeat) -> Body {
        let Issued { servers, lasts } = self.issue_ice(seat);
        Body::ice_servers(&servers, lasts.map(|lasts| lasts.as_millis() as u64))
    }

    /// The hall of a room, which is opened if it is not yet.
    fn open<'a>(&self, shard: &'a mut HashMap<RoomName, Hall>, name: &RoomName) -> Result<&'a mut Hall, Refusal> {
        match shard.entry(name.clone()) {
            Entry::Occupied(hall) => Ok(hall.into_mut()),
            Entry::Vacant(vacant) => {
                self.count_room()?;
                Ok(vacant.insert(self.new_hall(name)))
            }
        }
    }

    /// The same for a seat that has come from another node, however many rooms there are: who has sent it has it no more.
    fn open_for_seat<'a>(&self, shard: &'a mut HashMap<RoomName, Hall>, name: &RoomName) -> &'a mut Hall {
        shard.entry(name.clone()).or_insert_with(|| {
            self.rooms.fetch_add(1, Ordering::Relaxed);
            self.new_hall(name)
        })
    }

    fn new_hall(&self, name: &RoomName) -> Hall {
        let ties = self.cluster.as_ref().map(|cluster| Box::new(Ties::begin(cluster, name)));
        let timeline = self.timelines.open(name, now()).map(Box::new);
        let (seats, keys, opened) = (HashMap::new(), HashMap::new(), SystemTime::now());
        let (room, hook) = (Room::new(name.clone()), self.policy.hook.clone());
        Hall { room, seats, keys, ties, timeline, opened, hook, told: false }
    }

    fn fresh_ticket(&self, room: &RoomName, peer: PeerId) -> Ticket {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).expect("the operating system has random numbers");
        let ticket = Ticket::new(peer, secret);
        self.cluster.as_ref().map_or(ticket, |cluster| cluster.seal(ticket, room))
    }

    fn count_room(&self) -> Result<(), Refusal> {
        let limit = self.policy.rooms;
        let counted =
            self.rooms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |rooms| (rooms < limit).then_some(rooms + 1));
        counted.map(|_| ()).map_err(|_| Refusal::new(Code::RoomFull, "the server has as many rooms as it may have"))
    }

    fn drop_if_empty(&self, shard: &mut HashMap<RoomName, Hall>, name: &RoomName) {
        if !shard.get(name).is_some_and(Hall::is_idle) {
            return;
        }
        let Some(Hall { ties, timeline, hook, told, .. }) = shard.remove(name) else { return };
        if let Some(hook) = hook.filter(|_| told) {
            hook.tell(name, None, What::RoomEnded);
        }
        if let Some(ties) = ties {
            ties.part(name);
        }
        if let Some(timeline) = timeline {
            timeline.end(name, now());
        }
        self.rooms.fetch_sub(1, Ordering::Relaxed);
    }

    fn shard(&self, name: &RoomName) -> &Mutex<HashMap<RoomName, Hall>> {
        &self.shards[self.hasher.hash_one(name) as usize % SHARDS]
    }
}

impl Hall {
    /// Carries out what the room decided, in order. A receipt is answered at once, where the recipient is here. Returns what has
    /// become of what there was a receipt for.
    fn carry_out(&mut self, deliveries: Vec<Delivery>) -> Option<Outcome> {
        self.carry_out_in(&Span::NONE, deliveries)
    }

    /// The same as part of a trace, which goes along to other nodes.
    fn carry_out_in(&mut self, trace: &Span, deliveries: Vec<Delivery>) -> Option<Outcome> {
        let mut outcome = None;
        for Delivery { to, body, receipt } in deliveries {
            if let Some(receipt) = receipt
                && let Some(kept) = self.keep_here(to, &body, receipt)
            {
                outcome = outcome.or(Some(kept));
                continue;
            }
            let Some(seat) = self.seats.get(&to) else {
                outcome = outcome.or(self.carry_elsewhere(to, &body, receipt, trace));
                continue;
            };
            let (taken, is_away) = seat.with(|seat| {
                let taken = seat.push(body.clone());
                if !taken && receipt.is_none() {
                    seat.miss(&body);
                }
                (taken, matches!(seat.lease(), Lease::Away { .. }))
            });
            outcome = outcome.or(receipt.map(|_| match taken {
                true if is_away => Outcome::Kept,
                true => Outcome::Delivered,
                false => Outcome::QueueFull,
            }));
            let answer = match receipt {
                Some(receipt) if taken => receipt.accepted(),
                Some(receipt) => {
                    Some(receipt.refused(&Refusal::new(Code::QueueFull, "the peer's queue has no room for it")))
                }
                None => None,
            };
            if let Some(answer) = answer {
                self.answer(answer.to, answer.body);
            }
        }
        outcome
    }

    fn answer(&self, to: PeerId, body: Body) {
        if let Some(seat) = self.seats.get(&to) {
            seat.with(|seat| seat.push(body));
        }
    }

    fn away(&mut self, peer: PeerId) {
        let mut out = Vec::new();
        let news = self.room.away(peer, &mut out);
        self.carry_out(out);
        if news {
            self.announce(|room| Note::State { room, peer, away: true });
            let code = self.seats.get(&peer).and_then(|seat| seat.quietly(|seat| seat.log().last_close()));
            self.record(|| Event::Away { peer, code });
        }
    }

    /// Returns whether that is news.
    fn back(&mut self, peer: PeerId) -> bool {
        let mut out = Vec::new();
        let news = self.room.back(peer, &mut out);
        self.carry_out(out);
        if news {
            self.announce(|room| Note::State { room, peer, away: false });
            let transport = self.seats.get(&peer).map(|seat| seat.quietly(|seat| seat.transport()));
            self.record(|| Event::Back { peer, transport });
        }
        news
    }

    fn kick(&mut self, peer: PeerId, message: String) {
        let ending = Ending::Closed(Refusal::new(Code::Kicked, message));
        self.remove(peer, LeftReason::Kicked, Some(ending));
    }

    /// `by`: the moderator who does it, or nobody for the operator.
    fn lock(&mut self, locked: bool, by: Option<PeerId>) {
        let mut out = Vec::new();
        let news = self.room.lock(locked, &mut out);
        self.carry_out(out);
        if news {
            self.announce_lock(locked);
            self.record(|| Event::Locked { by, locked });
        }
    }

    /// Frees a seat; its transport, if there is one, ends as told.
    fn remove(&mut self, peer: PeerId, reason: LeftReason, ending: Option<Ending>) {
        let mut out = Vec::new();
        let news = self.room.leave(peer, reason, &mut out) || self.room.withdraw(peer, reason, &mut out);
        if news {
            // As long as the seat tells whose it was.
            self.record(|| Event::Left { peer, reason });
        }
        if let Some(seat) = self.seats.remove(&peer) {
            seat.with(|seat| seat.vacate(ending.unwrap_or(Ending::Left)));
            seat.expect_poll(None);
        }
        self.keys.retain(|_, holder| *holder != peer);
        if let Some(ties) = &mut self.ties {
            ties.moving.forget(peer);
        }
        self.end_journal(peer);
        self.carry_out(out);
        if news {
            self.announce(|room| Note::Left { room, peer, reason });
        }
    }
}

fn resume_expired() -> Refusal {
    Refusal::new(Code::ResumeExpired, "there is no seat for this ticket any more; join anew")
}

/// `resumed`, as things stand, at this node of a cluster.
fn resumed(seat: &Seat, node: Option<NodeId>) -> Frame {
    notice::resumed(&Resumed {
        last_id: seat.last_id(),
        ticket: seat.ticket().to_text(),
        replay_from: seat.replay_from(),
        transport: seat.transport().name(),
        milestones: true,
        node,
    })
}

/// The runtime's clock, which a simulation may hold still and move.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
