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
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::outbox::{Outbox, Output, SharedSeat};
use crate::protocol::{
    Body, Code, Command, Frame, Join, JoinKey, Joined, LeftReason, Limits, Member, Metadata, Outbound, PeerId, Refusal,
    Request, Resume, Resumed, RoomName, Ticket, notice,
};
use crate::room::{Delivery, Room};
use crate::seat::{Admission, Ending, Resumption, Seat};

/// Enough shards that two rooms seldom share one, few enough to cost nothing when empty.
const SHARDS: usize = 64;

/// What the hub is told once, at the start.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Limits of sessions and rooms.
    pub limits: Limits,
    /// Rooms at once.
    pub rooms: usize,
    /// Told to clients in `joined`.
    pub heartbeat: Duration,
    /// How long a seat is kept without a transport.
    pub resume_window: Duration,
    /// STUN and TURN servers as RTCIceServer dictionaries.
    pub ice_servers: Vec<serde_json::Value>,
}

/// All rooms of this server.
#[derive(Debug)]
pub struct Hub {
    policy: Policy,
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<RoomName, Hall>>]>,
    rooms: AtomicUsize,
    /// When which seat has to be looked at. Entries are never taken back: a seat that returned is found to be here.
    leases: Mutex<BinaryHeap<Reverse<(Instant, RoomName, PeerId)>>>,
    lease_added: Notify,
}

/// A room and the seats of its members.
#[derive(Debug)]
struct Hall {
    room: Room,
    seats: HashMap<PeerId, Arc<SharedSeat>>,
    keys: HashMap<JoinKey, PeerId>,
}

impl Hub {
    /// A hub without rooms.
    pub fn new(policy: Policy) -> Arc<Self> {
        Arc::new(Hub {
            policy,
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            rooms: AtomicUsize::new(0),
            leases: Mutex::default(),
            lease_added: Notify::new(),
        })
    }

    /// Takes a seat in a room, which comes to be with its first member. Returns the session and the `joined` to begin with.
    ///
    /// # Errors
    /// `roomFull`, `roomLocked`, or why a join key is no longer good.
    pub fn join(
        self: &Arc<Self>,
        name: &RoomName,
        join: &Join<'_>,
        transport: &'static str,
    ) -> Result<(Session, Frame), Refusal> {
        let now = now();
        let mut shard = self.shard(name).lock();
        if let Some(again) = self.rejoin(&mut shard, name, join, transport, now) {
            return again;
        }
        let hall = match shard.entry(name.clone()) {
            Entry::Occupied(hall) => hall.into_mut(),
            Entry::Vacant(vacant) => {
                self.count_room()?;
                vacant.insert(Hall { room: Room::new(name.clone()), seats: HashMap::new(), keys: HashMap::new() })
            }
        };
        // Minted under the shard's lock, so that ids grow in the order of joining.
        let peer = PeerId::new(Uuid::now_v7());
        let member = Member { peer, user: None, metadata: Metadata::new(&join.metadata) };
        let mut out = Vec::new();
        if let Err(refusal) = hall.room.join(member, &self.policy.limits, &mut out) {
            self.drop_if_empty(&mut shard, name);
            return Err(refusal);
        }
        let seat = SharedSeat::new(Seat::new(fresh_ticket(peer), &self.policy.limits, now));
        hall.seats.insert(peer, Arc::clone(&seat));
        if let Some(key) = &join.key {
            hall.keys.insert(key.clone(), peer);
        }
        hall.carry_out(out);
        let joined = self.joined(hall, &seat, None, transport);
        Ok((self.session(name, peer, seat), joined))
    }

    /// Takes a seat up again. Returns the session and the `resumed`, or the `joined` if there is a gap.
    ///
    /// # Errors
    /// `resumeExpired` for a ticket that is no good (any more, or in this room), `badRequest` for a `seq` never sent.
    pub fn resume(
        self: &Arc<Self>,
        name: &RoomName,
        resume: &Resume,
        transport: &'static str,
    ) -> Result<(Session, Frame), Refusal> {
        let expired = || Refusal::new(Code::ResumeExpired, "there is no seat for this ticket any more; join anew");
        let ticket = resume.ticket.ok_or_else(expired)?;
        let now = now();
        let mut shard = self.shard(name).lock();
        let hall = shard.get_mut(name).ok_or_else(expired)?;
        let seat = Arc::clone(hall.seats.get(&ticket.peer).ok_or_else(expired)?);
        let resumption = seat.with(|seat| seat.resume(ticket, resume.seq, fresh_ticket(ticket.peer), now))?;
        hall.back(ticket.peer);
        let greeting = match resumption {
            Resumption::Whole { lost } => self.joined(hall, &seat, Some(lost), transport),
            Resumption::Replay => seat.quietly(|seat| {
                notice::resumed(&Resumed {
                    last_id: seat.last_id(),
                    ticket: seat.ticket().to_text(),
                    replay_from: seat.replay_from(),
                    transport,
                })
            }),
        };
        Ok((self.session(name, ticket.peer, seat), greeting))
    }

    /// Lets time pass: frees seats whose resume window has ended. Runs until it is dropped.
    pub async fn keep_time(&self) {
        loop {
            let next = self.leases.lock().peek().map(|Reverse((at, ..))| *at);
            match next {
                Some(at) if at <= now() => self.expire_one(),
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at.into()) => {}
                        () = self.lease_added.notified() => {}
                    }
                }
                None => self.lease_added.notified().await,
            }
        }
    }

    /// Rooms at the moment.
    pub fn room_count(&self) -> usize {
        self.rooms.load(Ordering::Relaxed)
    }

    /// A second `join` with the key of a seat that is there.
    fn rejoin(
        self: &Arc<Self>,
        shard: &mut HashMap<RoomName, Hall>,
        name: &RoomName,
        join: &Join<'_>,
        transport: &'static str,
        now: Instant,
    ) -> Option<Result<(Session, Frame), Refusal>> {
        let hall = shard.get_mut(name)?;
        let peer = *hall.keys.get(join.key.as_ref()?)?;
        let seat = Arc::clone(hall.seats.get(&peer)?);
        if let Err(refusal) = seat.with(|seat| seat.rejoin(now)) {
            return Some(Err(refusal));
        }
        hall.back(peer);
        let joined = self.joined(hall, &seat, Some(0), transport);
        Some(Ok((self.session(name, peer, seat), joined)))
    }

    fn session(self: &Arc<Self>, name: &RoomName, peer: PeerId, seat: Arc<SharedSeat>) -> Session {
        Session { hub: Arc::clone(self), room: name.clone(), peer, outbox: Outbox::new(seat) }
    }

    /// `joined`; `lost` is there for a session that is not new.
    fn joined(&self, hall: &Hall, seat: &SharedSeat, lost: Option<u64>, transport: &'static str) -> Frame {
        let policy = &self.policy;
        seat.quietly(|seat| {
            notice::joined(&Joined {
                replay_from: seat.replay_from(),
                last_id: lost.map(|_| seat.last_id()),
                lost,
                picture: hall.room.picture(seat.peer()).expect("a seat's peer is a member of its room"),
                ticket: seat.ticket().to_text(),
                resume_window_ms: policy.resume_window.as_millis() as u64,
                heartbeat_ms: policy.heartbeat.as_millis() as u64,
                ice_servers: &policy.ice_servers,
                ice_servers_expire_ms: None,
                limits: &policy.limits,
                transport,
            })
        })
    }

    fn detach(&self, session: &Session) {
        let until = now() + self.policy.resume_window;
        let mut shard = self.shard(&session.room).lock();
        if !session.outbox.detach(until) {
            return;
        }
        let Some(hall) = shard.get_mut(&session.room) else { return };
        if self.policy.resume_window.is_zero() {
            hall.remove(session.peer, LeftReason::Timeout, None);
            self.drop_if_empty(&mut shard, &session.room);
            return;
        }
        hall.away(session.peer);
        drop(shard);
        self.leases.lock().push(Reverse((until, session.room.clone(), session.peer)));
        self.lease_added.notify_one();
    }

    fn expire_one(&self) {
        let Some(Reverse((_, name, peer))) = self.leases.lock().pop() else { return };
        let mut shard = self.shard(&name).lock();
        let Some(hall) = shard.get_mut(&name) else { return };
        let now = now();
        if hall.seats.get(&peer).is_some_and(|seat| seat.quietly(|seat| seat.is_expired(now))) {
            hall.remove(peer, LeftReason::Timeout, None);
            self.drop_if_empty(&mut shard, &name);
        }
    }

    fn count_room(&self) -> Result<(), Refusal> {
        let limit = self.policy.rooms;
        let counted =
            self.rooms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |rooms| (rooms < limit).then_some(rooms + 1));
        counted.map(|_| ()).map_err(|_| Refusal::new(Code::RoomFull, "the server has as many rooms as it may have"))
    }

    fn drop_if_empty(&self, shard: &mut HashMap<RoomName, Hall>, name: &RoomName) {
        if shard.get(name).is_some_and(|hall| hall.room.is_empty()) {
            shard.remove(name);
            self.rooms.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn shard(&self, name: &RoomName) -> &Mutex<HashMap<RoomName, Hall>> {
        &self.shards[self.hasher.hash_one(name) as usize % SHARDS]
    }
}

impl Hall {
    /// Carries out what the room decided, in order. A receipt is answered at once, because every recipient is here.
    fn carry_out(&self, deliveries: Vec<Delivery>) {
        for Delivery { to, body, receipt } in deliveries {
            let Some(seat) = self.seats.get(&to) else { continue };
            let taken = seat.with(|seat| {
                let taken = seat.push(body.clone());
                if !taken && receipt.is_none() {
                    seat.miss(&body);
                }
                taken
            });
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
    }

    fn answer(&self, to: PeerId, body: Body) {
        if let Some(seat) = self.seats.get(&to) {
            seat.with(|seat| seat.push(body));
        }
    }

    fn away(&mut self, peer: PeerId) {
        let mut out = Vec::new();
        self.room.away(peer, &mut out);
        self.carry_out(out);
    }

    fn back(&mut self, peer: PeerId) {
        let mut out = Vec::new();
        self.room.back(peer, &mut out);
        self.carry_out(out);
    }

    /// Frees a seat; its transport, if there is one, ends as told.
    fn remove(&mut self, peer: PeerId, reason: LeftReason, ending: Option<Ending>) {
        let mut out = Vec::new();
        self.room.leave(peer, reason, &mut out);
        if let Some(seat) = self.seats.remove(&peer) {
            seat.with(|seat| seat.vacate(ending.unwrap_or(Ending::Left)));
        }
        self.keys.retain(|_, holder| *holder != peer);
        self.carry_out(out);
    }
}

/// A seat with the transport that has it. Dropping it is losing the transport: the seat goes away, whatever ended the task.
#[derive(Debug)]
pub struct Session {
    hub: Arc<Hub>,
    room: RoomName,
    peer: PeerId,
    outbox: Outbox,
}

impl Session {
    /// Whose session it is.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Waits for something to write, or the end; with `wants_frames` false for the end alone. Cancel safe.
    pub async fn next(&self, wants_frames: bool) -> Output {
        self.outbox.next(wants_frames).await
    }

    /// The same without waiting.
    pub fn try_next(&self) -> Option<Output> {
        self.outbox.try_next(true)
    }

    /// Carries out one request. What there is to answer goes through the seat's queue, but for `pong`, which is returned.
    pub fn handle(&self, request: Request<'_>) -> Option<Frame> {
        match request.command {
            Command::Ping => return Some(notice::pong(request.id)),
            Command::Ack(seq) => self.ack(request.id, seq),
            command => self.execute(request.id, command),
        }
        None
    }

    /// Answers a message that could not be understood. It counts against the rate and its id is handled, as if it had been.
    pub fn refuse(&self, id: Option<u64>, refusal: &Refusal) {
        let seat = self.outbox.seat();
        let _order = self.hub.shard(&self.room).lock();
        if self.admit(id) {
            seat.with(|seat| seat.push(Body::error(id, refusal)));
        }
    }

    /// Carries out a datagram. There is no id to answer, and nothing but a failure to be told.
    pub fn handle_datagram(&self, outbound: &Outbound<'_>) {
        let shard = self.hub.shard(&self.room).lock();
        if let Some(hall) = shard.get(&self.room)
            && self.admit(None)
        {
            self.relay(hall, None, outbound);
        }
    }

    fn ack(&self, id: Option<u64>, seq: u64) {
        let generation = self.outbox.generation();
        let answer =
            self.outbox.seat().quietly(|seat| if seat.generation() != generation { Ok(()) } else { seat.ack(seq) });
        match answer {
            Err(refusal) => self.refuse(id, &refusal),
            // An `ack` is told that it was heard only if it asks.
            Ok(()) if id.is_some() => {
                self.outbox.seat().with(|seat| seat.push(Body::ok(id)));
            }
            Ok(()) => {}
        }
    }

    fn execute(&self, id: Option<u64>, command: Command<'_>) {
        let mut shard = self.hub.shard(&self.room).lock();
        let Some(hall) = shard.get_mut(&self.room) else { return };
        if !self.admit(id) {
            return;
        }
        let answer = match command {
            Command::Send(outbound) => return self.relay(hall, id, &outbound),
            Command::Leave => {
                hall.answer(self.peer, Body::ok(id));
                hall.remove(self.peer, LeftReason::Left, Some(Ending::Left));
                return self.hub.drop_if_empty(&mut shard, &self.room);
            }
            Command::Metadata(metadata) => {
                let mut out = Vec::new();
                hall.room.update(self.peer, Metadata::new(&metadata), &mut out);
                hall.carry_out(out);
                Ok(())
            }
            Command::IceServers => {
                hall.answer(self.peer, Body::ice_servers(&self.hub.policy.ice_servers, None));
                Ok(())
            }
            Command::Moderate(_) => Err(Refusal::new(Code::Forbidden, "this needs the \"moderate\" grant")),
            Command::Join(_) | Command::Resume(_) => {
                Err(Refusal::bad_request("\"join\" and \"resume\" are first messages; this session has begun"))
            }
            // Without keys there is nothing that a token could change.
            Command::Token | Command::Ack(_) | Command::Ping => Ok(()),
        };
        match answer {
            Ok(()) if id.is_some() => hall.answer(self.peer, Body::ok(id)),
            Ok(()) => {}
            Err(refusal) => hall.answer(self.peer, Body::error(id, &refusal)),
        }
    }

    fn relay(&self, hall: &Hall, id: Option<u64>, outbound: &Outbound<'_>) {
        let mut out = Vec::new();
        hall.room.relay(self.peer, id, outbound, &mut out);
        hall.carry_out(out);
    }

    /// Whether a request is to be carried out; if not, it has been answered. Called under the shard's lock, so that what one
    /// transport had admitted is done before a later one takes the seat.
    fn admit(&self, id: Option<u64>) -> bool {
        let generation = self.outbox.generation();
        // Quietly: the task that would be woken is the one that runs this, and it looks again before it sleeps.
        self.outbox.seat().quietly(|seat| {
            let answer = match seat.admit(generation, id, now()) {
                Admission::Execute => return true,
                Admission::Repeat => Body::ok(id),
                Admission::Refused(refusal) => Body::error(id, &refusal),
                Admission::Stale => return false,
            };
            seat.push(answer);
            false
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hub.detach(self);
    }
}

/// The runtime's clock, which a simulation may hold still and move.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn fresh_ticket(peer: PeerId) -> Ticket {
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).expect("the operating system has random numbers");
    Ticket::new(peer, secret)
}
