//! The workloads: what peers do, and what is counted.
//!
//! Each function is one round. It sets its peers up first, then measures: processor time of the server, time that went by, and how long
//! each message or opening took. Load and measuring run on one thread, so that no wake-up between threads is part of a latency.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::member::Member;
use super::{Peer, Process, Service, Wigwag, answer, candidate, offer};

/// Messages before the measured ones.
const WARM_UP: usize = 200;
/// How long one message may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Candidates that each side of a call sends.
const CANDIDATES: usize = 10;
/// Openings under way at once.
const AT_ONCE: usize = 100;
/// What goes by until a server that is left alone has done what is to be done.
const SETTLING: Duration = Duration::from_millis(500);
/// Memory that has not fallen for this time will not fall any more. QUIC keeps a closed connection for three timeouts of its
/// retransmission (RFC 9000, 10.2), an allocator its free pages for some seconds.
const CLEARING: Duration = Duration::from_secs(5);

/// What was measured in one round.
#[derive(Debug, Clone)]
pub struct Round {
    /// Messages, deliveries, calls, joins, sessions: whatever the workload counts.
    pub units: u64,
    /// Processor time that the server took for all of them; where several processes serve, all together.
    pub cpu: Duration,
    /// What each process took of it, by its name.
    pub shares: Vec<(&'static str, Duration)>,
    /// Time that went by.
    pub elapsed: Duration,
    /// How long each took, in nanoseconds. Empty where nothing was waited for.
    pub latency: Histogram<u64>,
    /// Where the workload is about memory.
    pub memory: Option<Memory>,
}

/// Resident memory that a server has more than before, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// While its clients are there.
    pub held: u64,
    /// When they have gone.
    pub left: u64,
}

/// The only process that serves.
const SERVER: &str = "server";

/// Measures from now on.
struct Meter<'a> {
    /// The processes that serve, and the processor time that each had taken before.
    servers: Vec<(&'static str, &'a Process, Duration)>,
    begun: Instant,
    units: u64,
    latency: Histogram<u64>,
}

impl<'a> Meter<'a> {
    fn start(server: &'a Process) -> Result<Self> {
        Self::start_all(&[(SERVER, server)])
    }

    fn start_all(servers: &[(&'static str, &'a Process)]) -> Result<Self> {
        let latency = Histogram::new(3)?;
        let servers = servers.iter().map(|&(name, server)| Ok((name, server, server.cpu()?)));
        Ok(Meter { servers: servers.collect::<Result<_>>()?, begun: Instant::now(), units: 0, latency })
    }

    fn goes_on(&self, time: Duration) -> bool {
        self.begun.elapsed() < time
    }

    fn record(&mut self, took: Duration) {
        // The histogram grows as it needs to; what is beyond centuries is not measured.
        let _ = self.latency.record(took.as_nanos().try_into().unwrap_or(u64::MAX));
    }

    fn stop(self) -> Result<Round> {
        let elapsed = self.begun.elapsed();
        let share = |(name, server, before): &(_, &Process, _)| Ok((*name, server.cpu()?.saturating_sub(*before)));
        let shares = self.servers.iter().map(share).collect::<Result<Vec<_>>>()?;
        let cpu = shares.iter().map(|(_, cpu)| *cpu).sum();
        Ok(Round { units: self.units, cpu, shares, elapsed, latency: self.latency, memory: None })
    }
}

/// Data as long as a candidate, with a number in front.
fn numbered(number: u64) -> String {
    format!(r#"{{"n":{number},"text":"{:192}"}}"#, "")
}

fn number(data: &str) -> Result<u64> {
    let digits = data.strip_prefix(r#"{"n":"#).and_then(|rest| rest.split(',').next());
    digits.context("a message that nobody has sent")?.parse().context("a message without its number")
}

async fn pair<S: Service>(service: &S, room: &str) -> Result<(S::Peer, S::Peer)> {
    Ok((service.join(room).await?, service.join(room).await?))
}

/// Two peers, one message in flight: what a message costs when the server sleeps between any two.
///
/// # Errors
/// If a connection is lost, or a message is another than the one that was sent.
pub async fn relay<S: Service>(service: &S, server: &Process, time: Duration) -> Result<Round> {
    let (from, to) = pair(service, "bench-relay").await?;
    one_in_flight(from, to, &[(SERVER, server)], time).await
}

/// The same where each of the two is at a node of its own; `servers` are all processes that have part in it.
///
/// # Errors
/// As there.
pub async fn relay_between(nodes: [&Wigwag; 2], servers: &[(&'static str, &Process)], time: Duration) -> Result<Round> {
    let (from, to) = apart(nodes).await?;
    one_in_flight(from, to, servers, time).await
}

/// The same, but what is measured is when the sender knows that the message was accepted.
///
/// # Errors
/// As there.
pub async fn accepted_between(
    nodes: [&Wigwag; 2],
    servers: &[(&'static str, &Process)],
    time: Duration,
) -> Result<Round> {
    let (mut from, mut to) = apart(nodes).await?;
    let recipient = to.id().to_owned();
    let round = one_by_one(servers, time, async |at| {
        let sent = Instant::now();
        from.ask(&recipient, &numbered(at)).await?;
        let took = sent.elapsed();
        to.recv().await?;
        Ok(took)
    });
    let round = round.await?;
    leave([from, to]).await?;
    Ok(round)
}

/// Two at nodes of their own who know each other.
async fn apart([one, other]: [&Wigwag; 2]) -> Result<(Member, Member)> {
    const ROOM: &str = "bench-between";
    let (mut from, mut to) = (one.join(ROOM).await?, other.join(ROOM).await?);
    // A node that has not heard of the recipient yet refuses what is for it. Nodes say things in order: from then on it has.
    to.feed(Some(from.id()), &numbered(0))?;
    to.flush().await?;
    promptly(from.recv()).await?;
    Ok((from, to))
}

/// Gives up what a server does not do: it may have told the sender that it refuses, who does not listen.
async fn promptly<T>(doing: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(PATIENCE, doing).await;
    done.map_err(|_| anyhow!("nothing has come for {PATIENCE:?}; are the server's limits above the load? see its log"))?
}

/// One after the other: `once` does the one of a number, and tells how long it took.
pub(super) async fn one_by_one(
    servers: &[(&'static str, &Process)],
    time: Duration,
    mut once: impl AsyncFnMut(u64) -> Result<Duration>,
) -> Result<Round> {
    for at in 0..WARM_UP as u64 {
        promptly(once(at)).await?;
    }
    let mut meter = Meter::start_all(servers)?;
    while meter.goes_on(time) {
        let took = promptly(once(meter.units)).await?;
        meter.record(took);
        meter.units += 1;
    }
    meter.stop()
}

async fn one_in_flight<P: Peer>(
    mut from: P,
    mut to: P,
    servers: &[(&'static str, &Process)],
    time: Duration,
) -> Result<Round> {
    let recipient = to.id().to_owned();
    let round = one_by_one(servers, time, async |at| {
        let sent = Instant::now();
        from.feed(Some(&recipient), &numbered(at))?;
        from.flush().await?;
        let came = number(&to.recv().await?)?;
        if came == at { Ok(sent.elapsed()) } else { bail!("message {came} came instead of {at}") }
    });
    let round = round.await?;
    leave([from, to]).await?;
    Ok(round)
}

/// Pairs that send at fixed times, whatever the server does: `rate` messages a second in all. A message's latency counts from when it
/// was due, so that a server that stalls cannot hide what waited meanwhile.
///
/// # Errors
/// If a connection is lost.
pub async fn paced<S: Service>(service: &S, server: &Process, time: Duration, pairs: u32, rate: u32) -> Result<Round> {
    let mut joined = Vec::new();
    for number in 0..pairs {
        joined.push(pair(service, &format!("bench-paced-{number}")).await?);
    }
    let mut meter = Meter::start(server)?;
    let step = Duration::from_secs(1) / rate;
    let each = (time.as_secs_f64() * f64::from(rate) / f64::from(pairs)) as u32;
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for (number, (from, to)) in (0..).zip(joined) {
        running.spawn(send_on_time(from, to, begun, move |at| step * (at * pairs + number), each));
    }
    let mut peers = Vec::new();
    while let Some(done) = running.join_next().await {
        let (latency, pair) = done??;
        meter.units += latency.len();
        meter.latency.add(latency)?;
        peers.extend(pair);
    }
    let round = meter.stop()?;
    leave(peers).await?;
    Ok(round)
}

/// Sends `count` messages at their times and receives them.
async fn send_on_time<P: Peer>(
    mut from: P,
    mut to: P,
    begun: Instant,
    due: impl Fn(u32) -> Duration,
    count: u32,
) -> Result<(Histogram<u64>, [P; 2])> {
    let recipient = to.id().to_owned();
    let mut latency = Histogram::new(3)?;
    let sending = async {
        for at in 0..count {
            tokio::time::sleep_until((begun + due(at)).into()).await;
            from.feed(Some(&recipient), &numbered(due(at).as_nanos() as u64))?;
            from.flush().await?;
        }
        anyhow::Ok(())
    };
    let receiving = async {
        for _ in 0..count {
            let due = Duration::from_nanos(number(&to.recv().await?)?);
            latency.record(begun.elapsed().saturating_sub(due).as_nanos() as u64)?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(sending, receiving)?;
    Ok((latency, [from, to]))
}

/// Two peers, `window` messages in flight: what a message costs when there is always a next one.
///
/// # Errors
/// If a connection is lost.
pub async fn pipelined<S: Service>(service: &S, server: &Process, time: Duration, window: usize) -> Result<Round> {
    let (mut from, mut to) = pair(service, "bench-pipelined").await?;
    let recipient = to.id().to_owned();
    let data = numbered(0);
    let mut send = async |count| -> Result<()> {
        for _ in 0..count {
            from.feed(Some(&recipient), &data)?;
        }
        from.flush().await
    };
    send(window).await?;
    let mut meter = Meter::start(server)?;
    while meter.goes_on(time) {
        for _ in 0..window / 2 {
            to.recv().await?;
        }
        meter.units += window as u64 / 2;
        send(window / 2).await?;
    }
    let round = meter.stop()?;
    for _ in 0..window {
        to.recv().await?;
    }
    leave([from, to]).await?;
    Ok(round)
}

/// One message to a room of `members`, again and again: what a delivery costs.
///
/// # Errors
/// If a connection is lost.
pub async fn fan_out<S: Service>(service: &S, server: &Process, time: Duration, members: usize) -> Result<Round> {
    let mut peers = Vec::with_capacity(members);
    for _ in 0..members {
        peers.push(service.join("bench-fan-out").await?);
    }
    let (from, others) = peers.split_first_mut().context("a room without members")?;
    let mut meter = Meter::start(server)?;
    while meter.goes_on(time) {
        let sent = Instant::now();
        from.feed(None, &numbered(meter.units))?;
        from.flush().await?;
        for other in &mut *others {
            other.recv().await?;
        }
        meter.record(sent.elapsed());
        meter.units += others.len() as u64;
    }
    let round = meter.stop()?;
    leave(peers).await?;
    Ok(round)
}

/// Calls, one after the other: two peers connect and join, then offer, answer and ten candidates each way, then both leave.
///
/// # Errors
/// If a connection is lost.
pub async fn setup<S: Service>(service: &S, server: &Process, time: Duration) -> Result<Round> {
    call(service, "bench-setup-0").await?;
    let mut meter = Meter::start(server)?;
    while meter.goes_on(time) {
        let begun = Instant::now();
        call(service, &format!("bench-setup-{}", meter.units + 1)).await?;
        meter.record(begun.elapsed());
        meter.units += 1;
    }
    meter.stop()
}

async fn call<S: Service>(service: &S, room: &str) -> Result<()> {
    let (mut callee, mut caller) = pair(service, room).await?;
    let (to_callee, to_caller) = (callee.id().to_owned(), caller.id().to_owned());
    caller.feed_description(&to_callee, offer())?;
    caller.flush().await?;
    callee.recv().await?;
    callee.feed_description(&to_caller, answer())?;
    callee.flush().await?;
    caller.recv().await?;
    tokio::try_join!(trickle(&mut caller, &to_callee), trickle(&mut callee, &to_caller))?;
    leave([callee, caller]).await
}

/// Candidates as a browser finds them: one by one, while the other's come.
async fn trickle<P: Peer>(peer: &mut P, to: &str) -> Result<()> {
    for _ in 0..CANDIDATES {
        peer.feed_candidate(to, candidate())?;
        peer.flush().await?;
        peer.recv().await?;
    }
    Ok(())
}

/// `clients` that come at once, into rooms of four.
///
/// # Errors
/// If one is not let in.
pub async fn storm<S: Service>(service: &S, server: &Process, clients: usize) -> Result<Round> {
    let mut meter = Meter::start(server)?;
    let peers = crowd(service, "bench-storm", clients, |took| meter.record(took)).await?;
    meter.units = peers.len() as u64;
    let round = meter.stop()?;
    leave(peers).await?;
    Ok(round)
}

/// The room of the peer of this number.
fn room_of_four(room: &str, number: usize) -> String {
    format!("{room}-{}", number / 4)
}

/// Many peers, in rooms of four, that come by a hundred at once.
async fn crowd<S: Service>(
    service: &S,
    room: &str,
    clients: usize,
    mut took: impl FnMut(Duration),
) -> Result<Vec<S::Peer>> {
    let join = |number: usize| async move {
        let begun = Instant::now();
        let peer = service.join(&room_of_four(room, number)).await?;
        anyhow::Ok((peer, begun.elapsed()))
    };
    let mut joining = futures_util::stream::iter((0..clients).map(join)).buffer_unordered(AT_ONCE);
    let mut peers = Vec::with_capacity(clients);
    while let Some(joined) = joining.next().await {
        let (peer, time) = joined?;
        took(time);
        peers.push(peer);
    }
    Ok(peers)
}

/// `clients` that have joined and say nothing: memory of each, then and when they have left, and the processor time
/// that it takes to keep them for `time`.
///
/// # Errors
/// If one is not let in, or lost.
pub async fn idle<S: Service>(service: &S, server: &Process, time: Duration, clients: usize) -> Result<Round> {
    // What is allocated once must not count.
    leave([service.join("bench-idle").await?]).await?;
    let before = server.memory()?;
    let mut kept = Kept::new();
    let join = |number| async move { service.join(&room_of_four("bench-idle", number)).await };
    let mut joining = futures_util::stream::iter((0..clients).map(join)).buffer_unordered(AT_ONCE);
    while let Some(joined) = kept.beside(joining.next()).await? {
        kept.add(joined?);
    }
    kept.beside(tokio::time::sleep(SETTLING)).await?;
    let held = server.memory()?.saturating_sub(before);
    let mut meter = Meter::start(server)?;
    meter.units = clients as u64;
    kept.beside(tokio::time::sleep(time)).await?;
    let round = meter.stop()?;
    leave(kept.end().await?).await?;
    let left = cleared(server).await?.saturating_sub(before);
    Ok(Round { memory: Some(Memory { held, left }), ..round })
}

/// The server's memory when it gives no more of it back.
async fn cleared(server: &Process) -> Result<u64> {
    let (mut least, mut since) = (server.memory()?, Instant::now());
    while since.elapsed() < CLEARING {
        tokio::time::sleep(CLEARING / 10).await;
        let now = server.memory()?;
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
    Ok(least)
}

/// Peers that answer the server's signs of life from when they have joined, however long it takes until all have.
struct Kept<P> {
    peers: FuturesUnordered<BoxFuture<'static, Result<P>>>,
    over: CancellationToken,
}

impl<P: Peer> Kept<P> {
    fn new() -> Self {
        Kept { peers: FuturesUnordered::new(), over: CancellationToken::new() }
    }

    fn add(&self, mut peer: P) {
        let over = self.over.clone();
        self.peers.push(Box::pin(async move {
            tokio::select! {
                said = peer.recv() => match said {
                    Ok(_) => bail!("somebody speaks in a room where nobody should"),
                    Err(lost) => return Err(lost.context("an idle session was lost")),
                },
                () = over.cancelled() => {}
            }
            Ok(peer)
        }));
    }

    /// Keeps them until `other` is ready; any word, or the loss of one, is an error.
    async fn beside<T>(&mut self, other: impl Future<Output = T>) -> Result<T> {
        let mut other = std::pin::pin!(other);
        loop {
            tokio::select! {
                ready = &mut other => return Ok(ready),
                Some(ended) = self.peers.next() => drop(ended?),
            }
        }
    }

    async fn end(self) -> Result<Vec<P>> {
        self.over.cancel();
        self.peers.collect::<Vec<_>>().await.into_iter().collect()
    }
}

/// `clients` whose connections are all lost at once, and that resume.
///
/// # Errors
/// If one is not let in again.
pub async fn resume(service: &Wigwag, server: &Process, clients: usize) -> Result<Round> {
    let mut lost = Vec::with_capacity(clients);
    for peer in crowd(service, "bench-resume", clients, |_| ()).await? {
        lost.push(peer.lose());
    }
    tokio::time::sleep(SETTLING).await;
    let mut meter = Meter::start(server)?;
    let resume = |lost| async move {
        let begun = Instant::now();
        let peer = service.resume(lost).await?;
        anyhow::Ok((peer, begun.elapsed()))
    };
    let mut resuming = futures_util::stream::iter(lost.into_iter().map(resume)).buffer_unordered(AT_ONCE);
    let mut peers = Vec::with_capacity(clients);
    while let Some(resumed) = resuming.next().await {
        let (peer, took) = resumed?;
        meter.record(took);
        peers.push(peer);
    }
    meter.units = peers.len() as u64;
    let round = meter.stop()?;
    leave(peers).await?;
    Ok(round)
}

/// All leave, side by side.
async fn leave<P: Peer>(peers: impl IntoIterator<Item = P>) -> Result<()> {
    let mut leaving: FuturesUnordered<_> = peers.into_iter().map(Peer::leave).collect();
    while let Some(left) = leaving.next().await {
        left?;
    }
    Ok(())
}
