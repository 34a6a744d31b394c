//! Every third packet lost, for minutes, on all transports at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use wigwag::client::Via;

use super::client::{Client, Event};
use super::conversation::{Direction, quantile};
use super::network::{self, Link};
use super::process::ServerProcess;
use super::report;

/// Of all packets, in each direction.
const PERCENT: u32 = 30;
/// Twice the default: a client that may use one transport only can need more than one try, and a handshake over TCP in which every
/// other packet or its acknowledgement is lost takes seconds, if it comes to an end.
const WINDOW: &str = "60s";
/// Pairs of sessions over each transport.
const PAIRS: usize = 4;
/// How often each session says something to its partner.
const RATE: Duration = Duration::from_millis(250);
/// What was sent at the very end must have come after this time, the loss going on.
const AFTERWARDS: Duration = Duration::from_secs(120);
/// How often the progress is told.
const PROGRESS: Duration = Duration::from_secs(10);

/// What has happened on one transport.
#[derive(Default)]
struct Count {
    sent: AtomicUsize,
    heard: AtomicUsize,
    resumed: AtomicUsize,
    /// The longest that a session was without a transport, in milliseconds.
    longest: AtomicU64,
    /// Why transports were given up.
    reasons: Mutex<BTreeMap<String, usize>>,
}

/// One session of a pair.
struct Side {
    client: Client,
    count: Arc<Count>,
    /// Since when it has been without a transport.
    lost: Option<Instant>,
}

impl Side {
    /// Takes in what it is told, `incoming` being what its partner says.
    fn take(&mut self, event: Event, incoming: &mut Direction) {
        let counter = match event {
            Event::Message { data, .. } => {
                incoming.hear(data.read().expect("a number"));
                &self.count.heard
            }
            Event::Reconnecting { why, .. } => {
                self.lost.get_or_insert_with(Instant::now);
                *self.count.reasons.lock().entry(why).or_default() += 1;
                return;
            }
            Event::Resumed { .. } => {
                let without = self.lost.take().map_or(0, |since| since.elapsed().as_millis());
                self.count.longest.fetch_max(without as u64, Ordering::Relaxed);
                &self.count.resumed
            }
            Event::PeerJoined(_) | Event::PeerAway { .. } | Event::PeerBack { .. } => return,
            other => panic!("a session that survives hears no {other:?} ({:?})", self.client.joined.transport),
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    async fn say(&self, to: &Side, outgoing: &mut Direction) {
        self.client.tell(to.client.peer(), outgoing.send()).await;
        self.count.sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Has two talk until `until`, and then listen until both have heard everything. How long each message took.
async fn converse(mut one: Side, mut other: Side, until: Instant) -> Vec<Duration> {
    let (mut to_one, mut to_other) = (Direction::default(), Direction::default());
    let mut ticks = interval(RATE);
    while Instant::now() < until || !(to_one.is_complete() && to_other.is_complete()) {
        tokio::select! {
            _ = ticks.tick(), if Instant::now() < until => {
                one.say(&other, &mut to_other).await;
                other.say(&one, &mut to_one).await;
            }
            event = one.client.next() => one.take(event, &mut to_one),
            event = other.client.next() => other.take(event, &mut to_other),
        }
    }
    [to_one.latencies(), to_other.latencies()].concat()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs network namespaces: scripts/hostile"]
async fn no_session_is_lost_and_no_message_lost_doubled_or_reordered() {
    let seconds = network::seconds();
    report::scenario(format_args!(
        "{PERCENT} % of all packets are lost in each direction, for {seconds} s (resume window {WINDOW})"
    ));
    network::reset().await;
    let server = ServerProcess::start(&["--resume-window", WINDOW]).await;
    let counts: Vec<Arc<Count>> = Via::ALL.iter().map(|_| Arc::default()).collect();
    let mut pairs = Vec::new();
    for (via, count) in Via::ALL.into_iter().zip(&counts) {
        for number in 0..PAIRS {
            let room = format!("{}-{number}", via.name());
            let join = async || Side {
                client: Client::join(&server, Link::Hostile, via, &room).await,
                count: Arc::clone(count),
                lost: None,
            };
            pairs.push((via, join().await, join().await));
        }
    }
    report::progress(format_args!("{} sessions have joined; now packets are lost", 2 * pairs.len()));
    network::lose(PERCENT).await;
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let mut talks = JoinSet::new();
    for (via, one, other) in pairs {
        talks.spawn(async move { (via, converse(one, other, until).await) });
    }
    let watching = tokio::spawn(tell_progress(begun, counts.clone()));
    let all = async {
        let mut latencies = Vec::new();
        while let Some(talk) = talks.join_next().await {
            latencies.push(talk.expect("a session that survives"));
        }
        latencies
    };
    let latencies = timeout(Duration::from_secs(seconds) + AFTERWARDS, all).await;
    watching.abort();
    tell_progress_once(begun, &counts);
    let packets = network::calm_down().await;
    let latencies = latencies.expect("everything is heard in the end");

    report::line(format_args!("{} of {} packets dropped", packets.dropped, packets.arrived));
    report::line(format_args!(
        "{:<14} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>16}",
        "transport", "sessions", "messages", "p50 (ms)", "p99 (ms)", "max (ms)", "resumes", "longest gap (ms)"
    ));
    for (via, count) in Via::ALL.into_iter().zip(&counts) {
        let mut sorted: Vec<Duration> =
            latencies.iter().filter(|(of, _)| *of == via).flat_map(|(_, latencies)| latencies).copied().collect();
        sorted.sort();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| quantile(&sorted, part).as_millis());
        let (resumed, gap) = (count.resumed.load(Ordering::Relaxed), count.longest.load(Ordering::Relaxed));
        report::line(format_args!(
            "{:<14} {:>8} {:>8} {p50:>9} {p99:>9} {max:>9} {resumed:>9} {gap:>16}",
            via.name(),
            2 * PAIRS,
            sorted.len(),
        ));
    }
    for (via, count) in Via::ALL.into_iter().zip(&counts) {
        for (why, times) in &*count.reasons.lock() {
            report::line(format_args!("{:<14} {times} times: {why}", via.name()));
        }
    }
    report::passed();
}

async fn tell_progress(begun: Instant, counts: Vec<Arc<Count>>) {
    let mut ticks = interval(PROGRESS);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        tell_progress_once(begun, &counts);
    }
}

fn tell_progress_once(begun: Instant, counts: &[Arc<Count>]) {
    let parts = Via::ALL.iter().zip(counts).map(|(via, count)| {
        let [sent, heard, resumed] =
            [&count.sent, &count.heard, &count.resumed].map(|count| count.load(Ordering::Relaxed));
        format!("{} {heard}/{sent} heard, {resumed} resumed", via.name())
    });
    report::progress(format_args!("{:>4} s  {}", begun.elapsed().as_secs(), parts.collect::<Vec<_>>().join("; ")));
}
