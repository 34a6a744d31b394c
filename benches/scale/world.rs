//! A cluster in one process: the server's own hubs, links and meshes, on a bus in memory and a clock that moves when nothing else
//! does. So times are those that the protocol takes, as if processors took none; processor time is counted beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use fastrand::Rng;
use futures_util::future::try_join_all;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use wigwag::cluster::link::Limits as LinkLimits;
use wigwag::cluster::mesh::Settings;
use wigwag::cluster::{Cluster, LINK_BYTES, TIMEOUT, fresh_id};
use wigwag::hub::{Hub, MemberState, Policy, Session};
use wigwag::ice::IceServers;
use wigwag::protocol::{Command, Limits, PeerId, Request, RoomName, Transport, WaitingRoom};
use wigwag::traces::{Span, Traces};

use super::wire::{Counts, Wire};

/// How long seats are kept, and so the members of a node that is lost.
const WINDOW: Duration = Duration::from_secs(30);
/// A look at the cluster, and what happens between two.
const STEP: Duration = Duration::from_millis(10);
/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long nobody does anything.
const QUIET: Duration = Duration::from_secs(10);

/// What is to be simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) sessions: usize,
    /// Members of each room.
    pub(crate) members: usize,
    /// At how many nodes they are.
    pub(crate) spread: usize,
    /// Members that leave in a second, and as many that come.
    pub(crate) churn: usize,
    /// For how many seconds.
    pub(crate) seconds: usize,
}

/// One phase, all nodes together.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    /// How long it was by the nodes' clock.
    pub(crate) took: Duration,
    /// From when nobody did anything more until all rosters were equal.
    pub(crate) agreed: Option<Duration>,
    /// Processor time of all nodes.
    pub(crate) cpu: Duration,
    pub(crate) bus: Counts,
    /// Notes by kind.
    pub(crate) notes: BTreeMap<&'static str, u64>,
    /// Notes that were sent again.
    pub(crate) again: u64,
    /// Resident memory at its end, in bytes.
    pub(crate) memory: u64,
}

/// What has been counted up to a moment.
struct Tally {
    at: Instant,
    cpu: Duration,
    bus: Counts,
    notes: BTreeMap<&'static str, u64>,
    again: u64,
}

struct Node {
    hub: Arc<Hub>,
    cluster: Arc<Cluster>,
    task: JoinHandle<()>,
}

struct World {
    plan: Plan,
    wire: Wire,
    carrier: JoinHandle<()>,
    nodes: Vec<Node>,
    /// Whether each is on the bus.
    plugged: Vec<bool>,
    /// For each room at which nodes it has members; they take turns.
    homes: Vec<Vec<usize>>,
    /// Members, room by room.
    seats: Vec<Session>,
    rng: Rng,
}

/// Runs the plan, and tells what each phase has cost.
///
/// # Errors
/// If a member is not let in, or rosters do not come to be equal.
pub(crate) fn run(plan: Plan, mut done: impl FnMut(&Phase)) -> Result<Vec<Phase>> {
    let sane = plan.nodes > 0 && (1..=plan.members.min(plan.nodes)).contains(&plan.spread);
    ensure!(
        sane && plan.sessions.is_multiple_of(plan.members),
        "rooms must be full, and not at more nodes than there are"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let mut world = World::new(plan);
        let mut phases = Vec::new();
        let mut tell = |phase: Phase| {
            done(&phase);
            phases.push(phase);
        };
        tell(world.phase("seated without a bus", async |world| world.fill().await).await?);
        tell(world.phase("the bus comes", async |world| world.connect().await).await?);
        tell(
            world
                .phase("nobody does anything", async |_| {
                    sleep(QUIET).await;
                    Ok(())
                })
                .await?,
        );
        tell(world.phase("members leave and come", async |world| world.churn().await).await?);
        if plan.nodes > 1 {
            tell(world.phase("a node is lost", async |world| world.lose_one().await).await?);
        }
        Ok(phases)
    })
}

impl Node {
    fn start(wire: &Wire, rooms: usize) -> Self {
        let id = fresh_id();
        let (plug, incoming) = wire.plug(id);
        let settings = Settings { limits: LinkLimits { bytes: LINK_BYTES, timeout: TIMEOUT }, keep: WINDOW };
        let (cluster, events) = Cluster::new(id, settings, None, (plug, incoming), None);
        let policy = Policy {
            limits: Limits::default(),
            rooms,
            heartbeat: Duration::from_secs(10),
            resume_window: WINDOW,
            ice_servers: IceServers::load(&wigwag::ice::Policy::default()).expect("there are none"),
            waiting: WaitingRoom::default(),
            // They have a limit of their own for each node, which would be the larger part of the memory here.
            timelines: wigwag::timeline::Policy { events: 0, ..wigwag::timeline::Policy::default() },
            hook: None,
            traces: Traces::NONE,
        };
        let hub = Hub::clustered(policy, Arc::clone(&cluster));
        let task = tokio::spawn({
            let hub = Arc::clone(&hub);
            async move {
                tokio::join!(hub.keep_cluster(events), hub.keep_time());
            }
        });
        Node { hub, cluster, task }
    }

    async fn seat(&self, room: &RoomName) -> Result<Session> {
        let line = br#"{"type":"join","metadata":{"name":"Ada Lovelace"}}"#;
        let request = Request::parse(line, &Limits::default()).map_err(|_| anyhow!("not a request"))?;
        let Command::Join(join) = request.command else { return Err(anyhow!("not a join")) };
        let refused = |refusal: wigwag::protocol::Refusal| anyhow!("{}", refusal.message);
        let _entering = self.hub.enter(room).await.map_err(refused)?;
        let (session, _) = self.hub.join(room, &join, None, Transport::WebSocketH1).map_err(refused)?;
        Ok(session)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl World {
    fn new(plan: Plan) -> Self {
        let wire = Wire::default();
        let rooms = plan.sessions / plan.members;
        let mut rng = Rng::with_seed(7);
        let mut homes = || rng.choose_multiple(0..plan.nodes, plan.spread);
        World {
            plan,
            carrier: tokio::spawn(wire.clone().carry()),
            nodes: (0..plan.nodes).map(|_| Node::start(&wire, rooms)).collect(),
            plugged: vec![true; plan.nodes],
            homes: (0..rooms).map(|_| homes()).collect(),
            seats: Vec::with_capacity(plan.sessions),
            wire,
            rng,
        }
    }

    /// Counts what `act` costs all nodes, and how long rosters take to be equal after it.
    async fn phase(&mut self, name: &'static str, act: impl AsyncFnOnce(&mut World) -> Result<()>) -> Result<Phase> {
        let before = self.tally();
        act(self).await.with_context(|| format!("{name}: failed"))?;
        let (acted, has_bus) = (Instant::now(), self.wire.counts().published > 0);
        let agreed = match has_bus {
            true => Some(self.agree().await.with_context(|| format!("{name}: rosters differ"))?),
            false => None,
        };
        let (agreed, looking) = agreed.unzip();
        let after = self.tally();
        let mut notes = after.notes;
        notes.iter_mut().for_each(|(kind, count)| *count -= before.notes.get(kind).unwrap_or(&0));
        notes.retain(|_, count| *count > 0);
        // What members have been told is read, so that no queue grows; it is not the cluster's doing.
        self.seats.iter().for_each(|seat| while seat.try_next().is_some() {});
        Ok(Phase {
            name,
            took: acted - before.at,
            agreed,
            cpu: (after.cpu - before.cpu).saturating_sub(looking.unwrap_or_default()),
            bus: Counts {
                published: after.bus.published - before.bus.published,
                delivered: after.bus.delivered - before.bus.delivered,
                bytes: after.bus.bytes - before.bus.bytes,
                dropped: after.bus.dropped - before.bus.dropped,
            },
            notes,
            again: after.again - before.again,
            memory: resident()?,
        })
    }

    fn tally(&self) -> Tally {
        let mut notes = BTreeMap::new();
        let mut again = 0;
        for status in self.nodes.iter().map(|node| node.cluster.status()) {
            status.sent.iter().for_each(|(kind, count)| *notes.entry(*kind).or_default() += count);
            again += status.again;
        }
        Tally { at: Instant::now(), cpu: cpu(), bus: self.wire.counts(), notes, again }
    }

    fn node_of(&self, seat: usize) -> usize {
        let homes = &self.homes[seat / self.plan.members];
        homes[seat % self.plan.members % homes.len()]
    }

    fn room_of(&self, seat: usize) -> RoomName {
        room_name(seat / self.plan.members)
    }

    async fn fill(&mut self) -> Result<()> {
        for seat in 0..self.plan.sessions {
            let session = self.nodes[self.node_of(seat)].seat(&self.room_of(seat)).await?;
            self.seats.push(session);
        }
        Ok(())
    }

    /// Until all links are up.
    async fn connect(&mut self) -> Result<()> {
        self.wire.connect();
        let links = self.plan.nodes - 1;
        until("links", || self.nodes.iter().all(|node| node.cluster.nodes().len() == links)).await
    }

    /// In each step some leave, and others come in their places.
    async fn churn(&mut self) -> Result<()> {
        let steps = self.plan.seconds * (Duration::from_secs(1).as_millis() / STEP.as_millis()) as usize;
        let total = self.plan.churn * self.plan.seconds;
        let leave = Request::parse(br#"{"type":"leave"}"#, &Limits::default()).map_err(|_| anyhow!("no request"))?;
        ensure!(matches!(leave.command, Command::Leave), "not a leave");
        for step in 0..steps {
            let count = total * (step + 1) / steps - total * step / steps;
            let seats: BTreeSet<usize> = (0..count).map(|_| self.rng.usize(0..self.seats.len())).collect();
            for &seat in &seats {
                let leave = Request { id: None, command: Command::Leave };
                ensure!(self.seats[seat].handle(leave, &Span::NONE), "a member cannot leave");
            }
            let world = &*self;
            let come = seats.iter().map(|&seat| async move {
                let session = world.nodes[world.node_of(seat)].seat(&world.room_of(seat)).await?;
                anyhow::Ok((seat, session))
            });
            let come = try_join_all(come).await?;
            for (seat, session) in come {
                self.seats[seat] = session;
            }
            for &seat in &seats {
                let room = seat / self.plan.members * self.plan.members;
                self.seats[room..room + self.plan.members].iter().for_each(|seat| while seat.try_next().is_some() {});
            }
            sleep(STEP).await;
        }
        Ok(())
    }

    /// The first node is cut off; its members are given up by the others.
    async fn lose_one(&mut self) -> Result<()> {
        let lost = self.nodes[0].cluster.id();
        self.wire.unplug(lost);
        self.plugged[0] = false;
        let others = || self.nodes[1..].iter();
        until("silence", || others().all(|node| node.cluster.is_lost(lost))).await
    }

    /// Waits until each node knows of each room that it has who is in it. Returns how long that took, and the processor time of looking,
    /// which is not the nodes'.
    async fn agree(&self) -> Result<(Duration, Duration)> {
        let begun = Instant::now();
        let (mut room, mut looking) = (0, Duration::ZERO);
        while room < self.homes.len() {
            let before = cpu();
            // What has come to be equal stays so while nobody does anything.
            while room < self.homes.len() && self.agrees(room) {
                room += 1;
            }
            looking += cpu() - before;
            ensure!(begun.elapsed() < PATIENCE, "room {room} of {}", self.homes.len());
            if room < self.homes.len() {
                sleep(STEP).await;
            }
        }
        Ok((begun.elapsed(), looking))
    }

    fn agrees(&self, room: usize) -> bool {
        let seats = room * self.plan.members..(room + 1) * self.plan.members;
        let there = |seat: &usize| self.plugged[self.node_of(*seat)];
        let expected: BTreeSet<PeerId> = seats.filter(there).map(|seat| self.seats[seat].peer()).collect();
        let name = room_name(room);
        let knows = |node: &usize| {
            let known = self.nodes[*node].hub.room(&name).map(|info| info.members).unwrap_or_default();
            known.len() == expected.len()
                && known.iter().all(|member| member.state == MemberState::Here && expected.contains(&member.peer))
        };
        self.homes[room].iter().filter(|node| self.plugged[**node]).all(knows)
    }
}

fn room_name(number: usize) -> RoomName {
    RoomName::parse(&format!("room-{number}")).expect("a name")
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !holds() {
        ensure!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(STEP).await;
    }
    Ok(())
}

/// Processor time of this thread, which does everything.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Resident memory of this process, in bytes.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(kib.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
