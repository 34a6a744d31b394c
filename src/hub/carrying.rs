//! Requests that have come to another node than the one that has their session: carried there over the link, answered there, and the
//! answer carried back. The session stays where it is, and nobody hears of it.
//!
//! What an errand asks for is proven by its ticket alone, which the node that has the seat looks at as at any: who carries it proves
//! nothing. What was sent is not sent again, as it may have been carried out; who has asked is told so, and goes on as after any lost
//! answer.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use super::handover::{AGAIN, Place, Trail, out_of_reach, parts};
use super::{Hub, now};
use crate::cluster::Cluster;
use crate::cluster::mesh::Weight;
use crate::cluster::note::{Kept, Note, Refused};
use crate::protocol::{Code, NodeId, Refusal, RoomName, Ticket};

/// How long the node that has the seat has to answer, beside the time that the request itself wants to wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of errands that this node has under way at others at once, and as many of theirs that it carries out.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// What an errand counts as beside its text: waiting takes something, too.
const ERRAND_BYTES: usize = 4096;

/// When a client is to come again whose errand could not be run.
const COME_BACK: Duration = Duration::from_millis(500);

/// A request of a client for a session that another node has.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Errand {
    /// In which room.
    pub room: RoomName,
    /// The ticket's text.
    ticket: String,
    /// Where the client is.
    pub client: IpAddr,
    /// What it wants.
    pub wish: Wish,
    /// The request's body, which need not be text, as base64.
    body: String,
}

/// What a client wants of a session.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wish {
    /// To have the body's lines carried out.
    Speak,
    /// One poll, whose first line is the `resume`.
    #[serde(rename_all = "camelCase")]
    Poll {
        /// How many milliseconds it waits.
        wait_ms: u64,
        /// The token of the request's head.
        token: Option<String>,
    },
}

/// It has a ticket, a token and payloads, which must not show in a log.
impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errand({}, {} bytes)", self.room, self.body.len())
    }
}

impl Errand {
    /// Of a request's parts.
    pub fn new(room: RoomName, ticket: Ticket, client: IpAddr, wish: Wish, body: &Bytes) -> Self {
        Errand { room, ticket: ticket.to_text(), client, wish, body: STANDARD.encode(body) }
    }

    /// Whose seat it is for.
    pub fn ticket(&self) -> Option<Ticket> {
        Ticket::parse(&self.ticket)
    }

    /// The request's body.
    ///
    /// # Errors
    /// `internal` if the node that has sent it has made a mistake.
    pub fn body(&self) -> Result<Bytes, Refusal> {
        let garbled = |_| Refusal::new(Code::Internal, "the request came garbled from another node");
        STANDARD.decode(&self.body).map(Bytes::from).map_err(garbled)
    }

    fn wait(&self) -> Duration {
        match self.wish {
            Wish::Speak => Duration::ZERO,
            Wish::Poll { wait_ms, .. } => Duration::from_millis(wait_ms),
        }
    }
}

/// What has become of an errand.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    /// It was carried out: the answer's text.
    Done(String),
    /// It was refused.
    Refused(Refused),
    /// The node that was asked does not have the seat; nothing was done.
    Elsewhere(Kept),
}

/// It may have payloads and tickets, which must not show in a log.
impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done(text) => write!(f, "Done({} bytes)", text.len()),
            Outcome::Refused(refused) => f.debug_tuple("Refused").field(refused).finish(),
            Outcome::Elsewhere(why) => f.debug_tuple("Elsewhere").field(why).finish(),
        }
    }
}

/// Where an errand comes from: the node, the life of the link, and its number there.
type Origin = (NodeId, u64, u64);

/// Errands under way.
#[derive(Debug)]
pub(super) struct Carrying {
    /// Those that other nodes have.
    sent: Mutex<Sent>,
    /// Those of other nodes that are carried out here, with the life in which they came. Dropped, they are given up.
    running: Mutex<HashMap<(NodeId, u64), (u64, DropGuard)>>,
    /// Those that nobody has begun with.
    queue: Mutex<VecDeque<Waiting>>,
    queued: Notify,
    room_for_sent: Arc<Semaphore>,
    room_for_running: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Sent {
    last: u64,
    open: HashMap<u64, Open>,
}

/// One that another node has, in that life of the link.
#[derive(Debug)]
struct Open {
    node: NodeId,
    life: u64,
    answer: oneshot::Sender<Outcome>,
}

/// One that has come and that nobody has begun with.
#[derive(Debug)]
struct Waiting {
    errand: Errand,
    origin: Origin,
    given_up: CancellationToken,
    room: OwnedSemaphorePermit,
}

impl Default for Carrying {
    fn default() -> Self {
        Carrying {
            sent: Mutex::default(),
            running: Mutex::default(),
            queue: Mutex::default(),
            queued: Notify::new(),
            room_for_sent: Arc::new(Semaphore::new(MOST_BYTES)),
            room_for_running: Arc::new(Semaphore::new(MOST_BYTES)),
        }
    }
}

/// Room for an errand of so many bytes until the permit drops.
fn take_room(semaphore: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    let bytes = u32::try_from(bytes + ERRAND_BYTES).unwrap_or(u32::MAX);
    Arc::clone(semaphore).try_acquire_many_owned(bytes).map_err(|_| {
        let why = "too many requests for sessions of other nodes are under way; come again a little later";
        Refusal::new(Code::GoingAway, why).retry_after(COME_BACK)
    })
}

/// What has become of an attempt to have another node run an errand.
enum Attempt {
    /// It was not sent.
    Unsent,
    /// It was sent, and the node, or the link, does not answer.
    Silent,
    Answered(Outcome),
}

impl Hub {
    /// Whether another node may have the seat for which a ticket was written, so that a request for it is to be [carried](Self::carry).
    pub fn is_carried(&self, room: &RoomName, ticket: Option<Ticket>) -> bool {
        self.is_elsewhere(room, ticket).is_some()
    }

    /// The same for a poll, which brings the seat along instead if its node is about to stop or cannot be reached.
    pub fn is_poll_carried(&self, room: &RoomName, ticket: Option<Ticket>) -> bool {
        let (Some((ticket, writer)), Some(cluster)) = (self.is_elsewhere(room, ticket), &self.cluster) else {
            return false;
        };
        let place = self.place_of(room, ticket.peer, None, writer);
        matches!(place, Place::Between) || matches!(place, Place::At(node) if cluster.staying().contains(&node))
    }

    /// Has a request answered by the node that has its seat. `None` if the seat has come here meanwhile, or nobody has it: it is to be
    /// answered here. When it is dropped, the other node is told to give up.
    ///
    /// # Errors
    /// The refusal of that node. `goingAway` if it cannot be reached, does not answer in time, or too many are under way: what was
    /// asked for may have been done then, unless the message says otherwise. `tooLarge` for what no link takes.
    pub async fn carry(&self, errand: &Errand) -> Result<Option<String>, Refusal> {
        let (Some((ticket, writer)), Some(cluster)) = (self.is_elsewhere(&errand.room, errand.ticket()), &self.cluster)
        else {
            return Ok(None);
        };
        let text = serde_json::to_string(errand).expect("an errand has string keys and no failing parts");
        let _room = take_room(&self.carrying.room_for_sent, text.len())?;
        let until = now() + PATIENCE;
        let (mut trail, mut entering) = (Trail::default(), None);
        while now() < until {
            let place = match trail.take() {
                Some(node) if node != cluster.id() => Place::At(node),
                _ => self.place_of(&errand.room, ticket.peer, None, writer),
            };
            let node = match place {
                Place::Here => return Ok(None),
                Place::At(node) if !cluster.is_lost(node) => node,
                // It is taken up by its client's next poll or `resume`.
                Place::At(node) if self.may_claim_from(cluster, node) => return Err(out_of_reach()),
                Place::Between => {
                    sleep(AGAIN).await;
                    continue;
                }
                Place::At(_) | Place::Nowhere if entering.is_some() => {
                    return self.nobody_has_it(cluster, &errand.room);
                }
                Place::At(_) | Place::Nowhere => {
                    // The other nodes' rosters tell where it is.
                    entering = Some(self.enter_for_seat(&errand.room).await);
                    continue;
                }
            };
            match self.send_errand(cluster, node, &text, until + errand.wait()).await? {
                Attempt::Answered(Outcome::Done(answer)) => return Ok(Some(answer)),
                Attempt::Answered(Outcome::Refused(refused)) => return Err(refused.into()),
                Attempt::Answered(Outcome::Elsewhere(Kept::Moved(to))) => trail.follow(to).await,
                Attempt::Answered(Outcome::Elsewhere(Kept::Refused(_))) if entering.is_some() => return Ok(None),
                Attempt::Answered(Outcome::Elsewhere(Kept::Refused(_))) => {
                    entering = Some(self.enter_for_seat(&errand.room).await);
                }
                Attempt::Answered(Outcome::Elsewhere(Kept::Busy)) | Attempt::Unsent => sleep(AGAIN).await,
                Attempt::Silent => return Err(unanswered()),
            }
        }
        Err(out_of_reach())
    }

    /// The request is to be answered here, unless a node could not be asked that may have the seat.
    fn nobody_has_it(&self, cluster: &Cluster, room: &RoomName) -> Result<Option<String>, Refusal> {
        if self.is_answered(cluster, room) { Ok(None) } else { Err(out_of_reach()) }
    }

    async fn send_errand(
        &self,
        cluster: &Cluster,
        node: NodeId,
        text: &str,
        until: Instant,
    ) -> Result<Attempt, Refusal> {
        let Some(life) = cluster.life(node) else { return Ok(Attempt::Unsent) };
        // Not even written while there is no room for it; one that never fits is told so below.
        if cluster.bytes(node) > 0 && cluster.bytes(node) + text.len() > cluster.most_at_once() {
            return Ok(Attempt::Unsent);
        }
        let (number, answer) = self.carrying.begin(node, life);
        let mut sent = SentErrand { hub: self, number, is_sent: false };
        let notes = parts(text, cluster, |part, last| Note::Carry { number, part, last });
        let bytes: usize = notes.iter().map(|note| note.text.0.len()).sum();
        if bytes > cluster.most_at_once() {
            let why = "a request for a session of another node may not be so large; send fewer lines at once";
            return Err(Refusal::new(Code::TooLarge, why));
        }
        if cluster.send_all(node, life, notes).is_err() {
            return Ok(Attempt::Unsent);
        }
        sent.is_sent = true;
        let answered = timeout(until.saturating_duration_since(now()), answer).await;
        Ok(answered.ok().and_then(Result::ok).map_or(Attempt::Silent, Attempt::Answered))
    }

    /// An errand was answered.
    pub(super) fn errand_is_done(&self, node: NodeId, number: u64, text: &str) {
        let Some(open) = self.carrying.sent.lock().open.remove(&number) else {
            return debug!(%node, number, "nobody waits for this answer");
        };
        match serde_json::from_str(text) {
            Ok(outcome) => drop(open.answer.send(outcome)),
            Err(error) => warn!(%node, %error, "the answer to a request that was carried cannot be understood"),
        }
    }

    /// The link of a node is down: what was asked over it will not be answered by it, on either side.
    pub(super) fn give_up_errands(&self, node: NodeId) {
        let Some(cluster) = &self.cluster else { return };
        self.carrying.sent.lock().open.retain(|_, open| open.node != node || cluster.is_up(node, open.life));
        self.carrying.running.lock().retain(|(of, _), (life, _)| *of != node || cluster.is_up(node, *life));
    }

    /// An errand has come from another node. Where the seat is here it waits for [`next_errand`](Self::next_errand).
    ///
    /// # Errors
    /// What to answer at once.
    pub(super) fn errand_has_come(&self, origin: Origin, text: &str) -> Result<(), Outcome> {
        let refused = |refusal: &Refusal| Outcome::Refused(Refused::from(refusal));
        let errand: Errand = serde_json::from_str(text).map_err(|error| {
            warn!(node = %origin.0, %error, "a request that was carried here cannot be understood");
            refused(&Refusal::new(Code::Internal, "the session's node does not understand the request"))
        })?;
        let ticket = errand.ticket().ok_or_else(|| refused(&Refusal::bad_request("the ticket is none")))?;
        let elsewhere = {
            let shard = self.shard(&errand.room).lock();
            let hall = shard.get(&errand.room);
            let is_here = hall.is_some_and(|hall| hall.seats.contains_key(&ticket.peer));
            (!is_here).then(|| self.gone_to(&errand.room, ticket.peer, hall))
        };
        if let Some(kept) = elsewhere {
            return Err(Outcome::Elsewhere(kept));
        }
        let room = take_room(&self.carrying.room_for_running, text.len()).map_err(|refusal| refused(&refusal))?;
        self.carrying.queue(errand, origin, room);
        Ok(())
    }

    /// Nobody waits for what another node has asked for.
    pub(super) fn recall(&self, node: NodeId, number: u64) {
        self.carrying.running.lock().remove(&(node, number));
    }

    /// Waits for the next request that another node has sent. Cancel safe.
    pub async fn next_errand(self: &Arc<Self>) -> Asked {
        loop {
            let next = self.carrying.queue.lock().pop_front();
            if let Some(Waiting { errand, origin, given_up, room }) = next {
                return Asked { hub: Arc::clone(self), errand, origin, given_up, _room: room };
            }
            self.carrying.queued.notified().await;
        }
    }

    /// Sends what has become of an errand to the node that has carried it here; whether its link had room for that.
    pub(super) fn carry_back(&self, (node, life, number): Origin, outcome: &Outcome) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        let text = serde_json::to_string(outcome).expect("an outcome has string keys and no failing parts");
        let notes = parts(&text, cluster, |part, last| Note::Carried { number, part, last });
        cluster.send_all(node, life, notes).is_ok()
    }
}

impl Carrying {
    fn begin(&self, node: NodeId, life: u64) -> (u64, oneshot::Receiver<Outcome>) {
        let (answer, answered) = oneshot::channel();
        let mut sent = self.sent.lock();
        sent.last += 1;
        let number = sent.last;
        sent.open.insert(number, Open { node, life, answer });
        (number, answered)
    }

    /// Takes all room for requests that are sent but so much.
    #[cfg(test)]
    pub(super) fn leave_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        take_room(&self.room_for_sent, MOST_BYTES - ERRAND_BYTES - bytes).ok()
    }

    fn queue(&self, errand: Errand, origin: Origin, room: OwnedSemaphorePermit) {
        let (node, life, number) = origin;
        let given_up = CancellationToken::new();
        self.running.lock().insert((node, number), (life, given_up.clone().drop_guard()));
        self.queue.lock().push_back(Waiting { errand, origin, given_up, room });
        self.queued.notify_one();
    }
}

/// An errand that another node has; given up there when this drops before the answer has come.
struct SentErrand<'a> {
    hub: &'a Hub,
    number: u64,
    is_sent: bool,
}

impl Drop for SentErrand<'_> {
    fn drop(&mut self) {
        let open = self.hub.carrying.sent.lock().open.remove(&self.number);
        if let (Some(Open { node, life, .. }), Some(cluster), true) = (open, &self.hub.cluster, self.is_sent) {
            let recall = Note::Recall { number: self.number }.write();
            // Without it the other node goes on until it has an answer.
            let _ = cluster.send(node, Some(life), recall, Weight::Payload);
        }
    }
}

/// A request that another node has sent here, to be carried out and [answered](Self::answer).
#[derive(Debug)]
pub struct Asked {
    hub: Arc<Hub>,
    errand: Errand,
    origin: Origin,
    given_up: CancellationToken,
    _room: OwnedSemaphorePermit,
}

impl Asked {
    /// What is asked for.
    pub fn errand(&self) -> &Errand {
        &self.errand
    }

    /// Completes when nobody waits for the answer any more: the client has gone, or the other node.
    pub async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    /// Answers, as soon as the link has room for it, unless it is given up before.
    pub async fn answer(&self, result: Result<String, Refusal>) {
        let outcome = match result {
            Ok(text) => Outcome::Done(text),
            Err(refusal) => Outcome::Refused(Refused::from(&refusal)),
        };
        while !self.given_up.is_cancelled() && !self.hub.carry_back(self.origin, &outcome) {
            sleep(AGAIN).await;
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let (node, _, number) = self.origin;
        self.hub.recall(node, number);
    }
}

fn unanswered() -> Refusal {
    let why = "the session's node has not answered in time, and may or may not have done what was asked for; resume, and send again what has no answer";
    Refusal::new(Code::GoingAway, why).retry_after(COME_BACK)
}
