//! The server in a process and on a processor of its own, the port that only reads, and what is seen of them.

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use wigwag::bench::Process;
use wigwag::client::{Endpoint, Http1, Trust, certificate_hashes};

use super::offender::{End, Fates, Target, offend};
use super::pair::Pair;
use super::reading;
use super::verdict::{Act, MEMORY_KEPT};
use crate::support::{authority, within};

/// How long memory has to come back; seats without a transport are kept for a while.
const RETURN: Duration = Duration::from_secs(20);
const WATCH: Duration = Duration::from_millis(100);

/// Memory that has not fallen for so long has settled; some of it may be let go of for no longer than this.
const SETTLED: Duration = Duration::from_secs(2);
const SETTLING: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(500);

/// A flood that fills the allocator: as long as half-open connections and what remains of them may last.
pub(super) const FIRST: Duration = Duration::from_secs(10);

/// Everything but the flood. Fields end in this order.
pub(super) struct Scene {
    pair: Pair,
    pub(super) server: Process,
    _child: Killed,
    secure: SocketAddr,
    trust: Trust,
    reading: SocketAddr,
    runtime: Runtime,
    _certificates: TempDir,
}

impl Scene {
    /// Starts the server, and has the pair talk.
    pub(super) fn set() -> Self {
        let (first, others) = processors();
        let dir = TempDir::new().expect("a directory");
        // Children and threads have the processors of whoever starts them.
        sched_setaffinity(None, &first).expect("a processor of ours");
        let (child, secure) = start_server(&dir);
        let reading = reading::start(dir.path().join("certs"));
        sched_setaffinity(None, &others).expect("a processor of ours");
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        let trust = runtime.block_on(trust(secure, &dir));
        let server = Process::running(child.id()).expect("it runs");
        let pair = Pair::start(endpoint(secure), trust.clone());
        Scene { pair, server, _child: Killed(child), secure, trust, reading, runtime, _certificates: dir }
    }

    /// The server, as an offender finds it.
    pub(super) fn target(&self) -> Target {
        Target::new(self.secure, &self.trust, self.pair.peer())
    }

    /// The port that only reads.
    pub(super) fn reading(&self) -> Target {
        Target::new(self.reading, &self.trust, self.pair.peer())
    }

    /// Floods `target` for some time and returns what was seen meanwhile.
    pub(super) fn act<A, F>(&mut self, target: Target, connections: usize, attack: &Arc<A>, time: Duration) -> Act
    where
        A: Fn(Target) -> F + Send + Sync + 'static,
        F: Future<Output = End> + Send + 'static,
    {
        let cpu = self.server.cpu().expect("it runs");
        let begun = Instant::now();
        self.pair.begin();
        let fates = Arc::new(Fates::default());
        let peak = AtomicU64::new(0);
        let (bytes, refused) = (target.bytes.clone(), target.refused.clone());
        let (server, watched) = (&self.server, &fates);
        self.runtime.block_on(async {
            let flood = (0..connections).map(|_| tokio::spawn(offend(target.clone(), attack.clone(), watched.clone())));
            let flood: Vec<_> = flood.collect();
            let watch = async {
                loop {
                    peak.fetch_max(server.memory().expect("it runs"), Ordering::Relaxed);
                    tokio::time::sleep(WATCH).await;
                }
            };
            let _ = tokio::time::timeout(time, watch).await;
            flood.iter().for_each(tokio::task::JoinHandle::abort);
        });
        let lasted = begun.elapsed();
        Act {
            cpu: (self.server.cpu().expect("it runs") - cpu).div_f64(lasted.as_secs_f64()).as_secs_f64(),
            pair: self.pair.end(),
            fates,
            refused: refused.load(Ordering::Relaxed),
            bytes_a_second: bytes.load(Ordering::Relaxed) as f64 / lasted.as_secs_f64(),
            peak: peak.into_inner(),
        }
    }

    /// Waits until what a flood has left is let go of, which is when memory does not fall any more; returns what it is then.
    pub(super) fn memory_settles(&self) -> u64 {
        let memory = || self.server.memory().expect("it runs");
        let (begun, mut fallen, mut least) = (Instant::now(), Instant::now(), memory());
        while fallen.elapsed() < SETTLED && begun.elapsed() < SETTLING {
            std::thread::sleep(LOOK);
            let now = memory();
            if now < least {
                (fallen, least) = (Instant::now(), now);
            }
        }
        least
    }

    /// Waits until memory is about as it was, or gives up; returns what it is then.
    pub(super) fn memory_returns(&self, before: u64) -> u64 {
        let deadline = Instant::now() + RETURN;
        loop {
            let now = self.server.memory().expect("it runs");
            if now <= before + MEMORY_KEPT || Instant::now() > deadline {
                return now;
            }
            std::thread::sleep(WATCH);
        }
    }
}

/// A child that is killed with this.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long each flood lasts.
pub(super) fn seconds() -> Duration {
    let told = std::env::var("WIGWAG_FLOODS_SECONDS").expect("scripts/floods runs this");
    Duration::from_secs(told.parse().expect("seconds"))
}

/// The processor of whoever is flooded, and those of everybody else; one that there is alone is shared.
fn processors() -> (CpuSet, CpuSet) {
    let all = sched_getaffinity(None).expect("processors");
    let mut first = CpuSet::new();
    first.set((0..CpuSet::MAX_CPU).find(|number| all.is_set(*number)).expect("a processor"));
    let mut others = all;
    (0..CpuSet::MAX_CPU).filter(|number| first.is_set(*number)).for_each(|number| others.unset(number));
    if others.count() == 0 { (first, first) } else { (first, others) }
}

/// The server as operators have it, but for short leases, so that memory need not be waited for, and but for the address of
/// the offender, which is no exempt one.
fn start_server(dir: &TempDir) -> (Child, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wigwag"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--plain", "off", "--admin", "off", "--log", "warn"]);
    command.args(["--heartbeat", "2s", "--resume-window", "2s", "--exempt-address", "127.0.0.1/32"]);
    command.args(["--idle-timeout", "5s"]).current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut said = lines.map(|line| line.expect("UTF-8"));
    let listening = said.find(|line| line.contains("listening")).expect("it becomes ready");
    let address = listening.rsplit(' ').next().expect("an address");
    (child, address.parse().expect("an address"))
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { encrypted: true, host: address.ip().to_string(), port: address.port() }
}

async fn trust(secure: SocketAddr, dir: &TempDir) -> Trust {
    let trust = Trust::new(authority(&dir.path().join("certs/ca.pem")), vec![]).expect("TLS 1.3");
    let mut connection = within(Http1::connect(&endpoint(secure), &trust.tls)).await.expect("a connection");
    let discovery = within(connection.request(Method::GET, "/v1/discovery", &HeaderMap::new())).await;
    let discovery = serde_json::from_slice(discovery.expect("a response").body()).expect("JSON");
    Trust { hashes: certificate_hashes(&discovery), ..trust }
}
