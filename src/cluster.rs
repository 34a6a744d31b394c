//! Several servers as one: a room is one room wherever its members are connected.
//!
//! Each node alone says who its own members of a room are. It says so over a [`link`] to each other node, on which everything arrives
//! once and in order, or which goes down and begins anew with the whole picture. So a peer's `peerJoined` comes before what it
//! sends, and rosters cannot drift apart unseen. What carries the packets is a [`bus`], which may lose, double and overtake them.
//!
//! What the notes mean to rooms is decided by the [`hub`](crate::hub).

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::error::StartError;
use crate::protocol::{NodeId, PeerId, RoomName, Ticket};

pub mod bus;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod journal;
pub mod key;
pub mod link;
pub mod mesh;
pub mod moves;
pub mod nats;
pub mod note;
pub mod store;

use bus::{Bus, Incoming};
use key::Key;
use link::{Limits, NoLink};
pub use nats::{Address, Durable, Name, Policy};

use mesh::{Event, Mark, Mesh, Settings, Status, Weight};
use moves::Moves;
use note::Written;
use store::{Desk, Store};

/// Who waits for what another node will answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// A member here has made a request.
    Request {
        /// In which room.
        room: RoomName,
        /// Whom to tell.
        from: PeerId,
        /// How often its seat had been handed on. When it has gone since, and come back, whoever had it meanwhile may have answered.
        moves: u64,
        /// The id to answer; without one only a failure is told.
        id: Option<u64>,
    },
    /// It was asked whom it has in a room, as another node had said so of these, and how often their seats were handed on until then. What
    /// it said before it was asked does not hold for them.
    Whether {
        /// Which room.
        room: RoomName,
        /// Those that it may have.
        peers: Vec<(PeerId, u64)>,
    },
    /// Someone here wants to go on with something that only the other node can begin.
    Call {
        /// Which of this node's calls.
        number: u64,
    },
}

impl Pending {
    /// Whether it is a request of this peer's.
    fn is_from(&self, peer: PeerId) -> bool {
        matches!(self, Pending::Request { from, .. } if *from == peer)
    }
}

/// This node's part in the cluster. What is called for rooms waits for nothing: a lock that is held for the time of one note, and a
/// bus that loses what it has no room for.
#[derive(Debug)]
pub struct Cluster {
    id: NodeId,
    /// By which the nodes know one another's tickets; without it each knows its own alone.
    key: Option<Key>,
    mesh: Mutex<Mesh>,
    began: Instant,
    /// Bytes that may be on their way to one node.
    link_bytes: usize,
    /// Seats that were handed to other nodes.
    pub moves: Moves,
    /// Counts rooms that were opened here, so that none is taken for an earlier one of the same name.
    halls: AtomicU64,
    bus: Arc<dyn Bus>,
    /// The way to where seats outlive their node, if they are to.
    desk: Option<Arc<Desk>>,
    /// Something has happened that the task has to look at.
    wake: Notify,
}

/// Brings what the other nodes say. One task has it, which the cluster cannot do without.
#[derive(Debug)]
pub struct Events {
    cluster: Arc<Cluster>,
    incoming: mpsc::Receiver<Incoming>,
}

/// A fresh node's id.
pub fn fresh_id() -> NodeId {
    loop {
        let drawn = getrandom::u64().expect("the operating system has random numbers");
        if let Some(number) = NonZeroU64::new(drawn) {
            return NodeId::new(number);
        }
    }
}

impl Cluster {
    /// This node on NATS. `keep` is how long a lost node's members are kept.
    ///
    /// # Errors
    /// Credentials, a CA or a key that cannot be read. That a server cannot be reached is none.
    pub async fn connect(policy: &Policy, keep: Duration) -> Result<(Arc<Self>, Events), StartError> {
        let id = fresh_id();
        let limits = Limits { bytes: LINK_BYTES, timeout: policy.timeout };
        let key = policy.key.as_ref().map(Key::load).transpose()?;
        let nats::Connected { bus, incoming, store } = nats::Nats::connect(policy, id, keep).await?;
        info!(node = %id, servers = ?policy.servers, name = %policy.name, "this server is a node of a cluster");
        if key.is_none() {
            warn!("without --cluster-key a session can be resumed at the node alone at which it began");
        }
        Ok(Self::new(id, Settings { limits, keep }, key, (bus, incoming), store))
    }

    /// This node on a bus, and what comes in from the others. Seats outlive it in the store, if there is one.
    pub fn new(
        id: NodeId,
        settings: Settings,
        key: Option<Key>,
        (bus, incoming): (Arc<dyn Bus>, mpsc::Receiver<Incoming>),
        store: Option<Arc<dyn Store>>,
    ) -> (Arc<Self>, Events) {
        let mesh = Mutex::new(Mesh::new(id, settings, now()));
        let desk = store.map(|store| Arc::new(Desk::new(store)));
        let cluster = Arc::new(Cluster {
            id,
            key,
            mesh,
            began: now(),
            link_bytes: settings.limits.bytes,
            moves: Moves::default(),
            halls: AtomicU64::new(0),
            bus,
            desk,
            wake: Notify::new(),
        });
        let events = Events { cluster: Arc::clone(&cluster), incoming };
        (cluster, events)
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// A ticket as clients get it: of use at all nodes, where they share a key.
    pub fn seal(&self, ticket: Ticket, room: &RoomName) -> Ticket {
        self.key.as_ref().map_or(ticket, |key| key.seal(ticket, room, self.id))
    }

    /// Which node has written a ticket for a seat in this room; `None` if none has whose key this one knows.
    pub fn writer(&self, ticket: &Ticket, room: &RoomName) -> Option<NodeId> {
        self.key.as_ref().and_then(|key| key.opens(ticket, room))
    }

    /// Whether it has begun so lately that it may not have heard of all the others.
    pub fn is_young(&self) -> bool {
        now() < self.began + mesh::HEARD_OF_ALL
    }

    /// Whether the link to a node is up, in this life.
    pub fn is_up(&self, node: NodeId, life: u64) -> bool {
        self.mesh.lock().is_up(node, life)
    }

    /// Whether a node is silent, or has never been heard of.
    pub fn is_lost(&self, node: NodeId) -> bool {
        self.mesh.lock().is_lost(node)
    }

    /// Whether a node is heard of, or was before and is not given up yet: what becomes of it will be told.
    pub fn knows(&self, node: NodeId) -> bool {
        self.mesh.lock().knows(node)
    }

    /// Whether a node was there and is given up: its members have left.
    pub fn has_gone(&self, node: NodeId) -> bool {
        self.mesh.lock().has_gone(node)
    }

    /// The way to where seats outlive this node, if they are to.
    pub fn desk(&self) -> Option<&Arc<Desk>> {
        self.desk.as_ref()
    }

    /// Whether seats outlive their nodes at the moment.
    pub fn seats_outlive(&self) -> bool {
        self.desk.as_ref().is_some_and(|desk| desk.store().is_some())
    }

    /// A number for a room that is opened here, greater than all before.
    pub fn number_hall(&self) -> u64 {
        self.halls.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the bus is there.
    pub fn is_connected(&self) -> bool {
        self.bus.is_connected()
    }

    /// The nodes whose links are up.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.mesh.lock().nodes()
    }

    /// The life of the link to a node, if it is up.
    pub fn life(&self, node: NodeId) -> Option<u64> {
        self.mesh.lock().up(node)
    }

    /// The nodes that were not given up and are not silent, whether they can be talked to at the moment or not.
    pub fn living(&self) -> Vec<NodeId> {
        self.mesh.lock().living()
    }

    /// Bytes that are on their way to a node.
    pub fn bytes(&self, node: NodeId) -> usize {
        self.mesh.lock().bytes(node)
    }

    /// While so much is on its way to a node, it is not told of further rooms that it might share. All others tell it at once
    /// when the bus is there again: the more they are, the less each, or what is too much for it is lost and said again.
    pub fn catch_up_bytes(&self) -> usize {
        let links = self.mesh.lock().nodes().len();
        (CATCH_UP_BYTES / links.max(1)).max(LEAST_CATCH_UP_BYTES).min(self.link_bytes / 16)
    }

    /// Bytes that notes which are of no use without one another may have in all, to fit on a link.
    pub fn most_at_once(&self) -> usize {
        mesh::most_at_once(self.link_bytes)
    }

    /// Bytes that a note may have to fit on the bus.
    pub fn largest_note(&self) -> usize {
        mesh::note_bytes(self.bus.largest())
    }

    /// Sends a note as [`Mesh::send`] does.
    ///
    /// # Errors
    /// As there.
    pub fn send(&self, node: NodeId, life: Option<u64>, note: Written, weight: Weight) -> Result<u64, NoLink> {
        self.change(|mesh, now| mesh.send(node, life, note, weight, now))
    }

    /// Sends notes, all or none, as [`Mesh::send_all`] does.
    ///
    /// # Errors
    /// As there.
    pub fn send_all(&self, node: NodeId, life: u64, notes: Vec<Written>) -> Result<(), NoLink> {
        self.change(|mesh, now| mesh.send_all(node, life, notes, now))
    }

    /// Sends a note that the other node answers, as [`Mesh::ask`] does.
    ///
    /// # Errors
    /// As there.
    pub fn ask(
        &self,
        node: NodeId,
        life: Option<u64>,
        pending: Pending,
        weight: Weight,
        make: impl FnOnce(u64) -> Written,
    ) -> Result<(), NoLink> {
        self.change(|mesh, now| mesh.ask(node, life, pending, weight, make, now))
    }

    /// Who wanted to know what has become of what has this receipt.
    pub fn answered(&self, node: NodeId, receipt: u64) -> Option<Pending> {
        self.mesh.lock().answered(node, receipt)
    }

    /// Whether any node still owes this peer an answer.
    pub fn is_asked_by(&self, peer: PeerId) -> bool {
        self.mesh.lock().awaits(|pending| pending.is_from(peer))
    }

    /// How far has been sent to each node, as [`have_passed`](Self::have_passed) wants to know.
    pub fn marks(&self) -> Vec<Mark> {
        self.mesh.lock().marks()
    }

    /// Whether all that was sent up to these marks has arrived, or never will.
    pub fn have_passed(&self, marks: &[Mark]) -> bool {
        let mesh = self.mesh.lock();
        marks.iter().all(|mark| mesh.has_passed(mark))
    }

    /// Whether sessions can go on at any node.
    pub fn shares_key(&self) -> bool {
        self.key.is_some()
    }

    /// Says from now on that this node drains.
    pub fn drain(&self) {
        self.change(Mesh::drain);
        // The next beat is due.
        self.wake.notify_one();
    }

    /// The nodes that could take seats.
    pub fn staying(&self) -> Vec<NodeId> {
        self.mesh.lock().staying()
    }

    /// Says that this node stops, and that its members are gone, when all that it has said before has arrived; but does not wait
    /// long for that.
    pub async fn stop(&self) {
        let last_word = async {
            while self.status().bytes > 0 {
                sleep(LOOK).await;
            }
        };
        if timeout(LAST_WORD, last_word).await.is_err() {
            debug!("not all nodes have got in time what this one has said last");
        }
        self.change(|mesh, _| mesh.stop());
        if timeout(LAST_WORD, self.bus.flush()).await.is_err() {
            debug!("the cluster could not be told in time that this node stops");
        }
    }

    /// What it is at the moment.
    pub fn status(&self) -> Status {
        self.mesh.lock().status(now())
    }

    /// Changes the mesh, and puts on the bus what comes of it, in that order.
    fn change<T>(&self, change: impl FnOnce(&mut Mesh, Instant) -> T) -> T {
        let mut mesh = self.mesh.lock();
        let before = mesh.due();
        let result = change(&mut mesh, now());
        for (to, text) in mesh.take_out() {
            self.bus.publish(to, text);
        }
        if mesh.due() < before {
            self.wake.notify_one();
        }
        result
    }
}

impl Events {
    /// Waits for what happens next. Cancel safe.
    pub async fn next(&mut self) -> Event {
        loop {
            let due = {
                let mut mesh = self.cluster.mesh.lock();
                if let Some(event) = mesh.take_event() {
                    log(&event);
                    return event;
                }
                mesh.due()
            };
            tokio::select! {
                incoming = self.incoming.recv() => match incoming {
                    Some(incoming) => self.take_in(&incoming),
                    // The bus is closed, which it is only when the server stops.
                    None => std::future::pending().await,
                },
                () = self.cluster.wake.notified() => {}
                () = tokio::time::sleep_until(due.into()) => self.cluster.change(Mesh::tick),
            }
        }
    }

    fn take_in(&self, incoming: &Incoming) {
        match incoming {
            Incoming::Text(text) => {
                let understood = self.cluster.change(|mesh, now| mesh.receive(text, now));
                if let Err(error) = understood {
                    debug!(%error, bytes = text.len(), "what came from the cluster cannot be understood");
                }
            }
            Incoming::Connected => {
                info!(node = %self.cluster.id, "connected to the cluster");
                self.cluster.change(Mesh::connected);
            }
            Incoming::Disconnected => {
                warn!("the cluster cannot be reached: members at other nodes will count as away; rooms go on here");
            }
        }
    }
}

fn log(event: &Event) {
    match event {
        Event::Up { node, life } => info!(%node, life, "linked with another node"),
        Event::Down { node, pending, .. } => info!(%node, unanswered = pending.len(), "the link with a node is down"),
        Event::Lost(node) => warn!(%node, "a node is silent, or cannot be talked to: its members are away"),
        Event::Gone(node) => info!(%node, "a node is gone"),
        Event::Stranger { node, version } => {
            warn!(%node, version, own = note::VERSION, "a node speaks another version of the cluster's protocol");
        }
        Event::Note { .. } => {}
    }
}

/// The runtime's clock, which a simulation may hold still and move.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How long an unanswered note may be on its way, unless the operator says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether all has arrived.
const LOOK: Duration = Duration::from_millis(5);

/// How long the last word may take.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Bytes that may be on their way to one node.
pub const LINK_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of rosters and names that all other nodes together have on their way to one of them which has come back. The smallest
/// roster takes some 250, and [`bus::INCOMING`] texts may wait there.
const CATCH_UP_BYTES: usize = 1024 * 1024;

/// Bytes that one of them may have on its way however many they are: less than these few rosters would wait for each
/// acknowledgement.
const LEAST_CATCH_UP_BYTES: usize = 8 * 1024;
