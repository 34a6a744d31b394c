//! The workload `cluster`: a message between members of one node and of two, and a bare request over the NATS between them.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use http::{HeaderMap, Method};
use indicatif::ProgressBar;
use tempfile::NamedTempFile;
use tokio::time::timeout;

use super::{BenchArgs, Measured, START};
use crate::bench::nats::{NATS, Nats};
use crate::bench::process::free_port;
use crate::bench::report::Line;
use crate::bench::workload;
use crate::bench::{Process, Wigwag};
use crate::client::{Endpoint, Http1, Trust, Via};

/// Two nodes of a cluster of their own.
struct Pair([Measured; 2]);

/// Rounds of each line take turns, so that what else the machine does meets all of them.
pub(super) async fn measure(args: &BenchArgs, via: Via, progress: &ProgressBar) -> Result<Vec<Line>> {
    let nats = match &args.nats {
        Some(url) => Nats::running(url).await?,
        None => Nats::start().await?,
    };
    let plain = Pair::start(&nats.url, "plain", &[], "wigwag_cluster_links 1").await;
    let plain = plain.with_context(|| format!("the nodes do not find each other over {}", nats.url))?;
    let durable = Pair::start(&nats.url, "durable", &["--cluster-durable"], "wigwag_cluster_durable 1").await;
    let durable = durable.with_context(|| format!("there is no JetStream at {}", nats.url))?;
    let (time, mut rounds) = (args.time.0, [const { Vec::new() }; 5]);
    for number in 1..=args.rounds {
        progress.set_message(format!("cluster over {}, round {number} of {}", via.name(), args.rounds));
        let [one, _] = plain.services(via);
        let round = [
            nats.requests(time).await?,
            workload::relay(&one, &plain.0[0].process, time).await?,
            workload::relay_between(plain.services(via).each_ref(), &plain.servers(&nats), time).await?,
            workload::accepted_between(plain.services(via).each_ref(), &plain.servers(&nats), time).await?,
            workload::accepted_between(durable.services(via).each_ref(), &durable.servers(&nats), time).await?,
        ];
        rounds.iter_mut().zip(round).for_each(|(of_line, round)| of_line.push(round));
        progress.inc(1);
    }
    let [bare, one, two, accepted, durable] = rounds;
    let lines = [
        Line::of("nats-request", "request", "nats", &bare),
        Line::of("one-node", "message", via.name(), &one),
        Line::of("two-nodes", "message", via.name(), &two),
        Line::of("two-nodes-ok", "message", via.name(), &accepted),
        Line::of("durable-ok", "message", via.name(), &durable),
    ];
    Ok(lines.into_iter().flatten().collect())
}

impl Pair {
    /// Starts both, and waits until the metrics of each have this line.
    async fn start(nats: &str, name: &str, more: &[&str], ready: &str) -> Result<Self> {
        // A cluster name of its own: there may be others at a NATS that runs already.
        let name = format!("wigwag-bench-{}-{name}", std::process::id());
        let key = key()?;
        let key = key.path().to_str().context("a path that is not UTF-8")?;
        let admins = [free_port()?, free_port()?];
        let start = async |admin: u16| {
            let admin = format!("127.0.0.1:{admin}");
            let cluster = ["--admin", &admin, "--cluster", nats, "--cluster-name", &name, "--cluster-key", key];
            Measured::started(&[&cluster, more].concat()).await
        };
        let nodes = [start(admins[0]).await?, start(admins[1]).await?];
        for (node, admin) in nodes.iter().zip(admins) {
            let told = told(&node.service.trust, admin, ready);
            timeout(START, told).await.map_err(|_| anyhow!("a node has not said {ready} within {START:?}"))??;
        }
        Ok(Pair(nodes))
    }

    fn services(&self, via: Via) -> [Wigwag; 2] {
        self.0.each_ref().map(|node| Wigwag { via, ..node.service.clone() })
    }

    /// All processes that have part in what they say to each other.
    fn servers<'a>(&'a self, nats: &'a Nats) -> Vec<(&'static str, &'a Process)> {
        let [one, other] = &self.0;
        let nodes = [("sender's node", &one.process), ("recipient's node", &other.process)];
        nodes.into_iter().chain(nats.process.iter().map(|process| (NATS, process))).collect()
    }
}

/// A key for nodes that live as long as this measurement, as operators give one; read when they start.
fn key() -> Result<NamedTempFile> {
    let mut file = NamedTempFile::with_prefix("wigwag-bench-")?;
    for _ in 0..4 {
        write!(file, "{:016x}", getrandom::u64()?)?;
    }
    Ok(file)
}

/// Waits until a node's metrics have a line.
async fn told(trust: &Trust, admin: u16, line: &str) -> Result<()> {
    let endpoint = Endpoint { encrypted: false, host: "127.0.0.1".into(), port: admin };
    let mut connection = Http1::connect(&endpoint, &trust.tls).await.context("the node's admin listener")?;
    loop {
        let metrics = connection.request(Method::GET, "/metrics", &HeaderMap::new()).await?;
        if String::from_utf8_lossy(metrics.body()).lines().any(|told| told == line) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
