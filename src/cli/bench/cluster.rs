//! The workload `cluster`: a message between members of one node and of two, and a bare request over the NATS between them.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use http::{HeaderMap, Method};
use indicatif::ProgressBar;
use tempfile::NamedTempFile;
use tokio::time::timeout;

use super::{BenchArgs, Measured, START};
use crate::bench::Wigwag;
use crate::bench::nats::{NATS, Nats};
use crate::bench::process::free_port;
use crate::bench::report::Line;
use crate::bench::workload;
use crate::client::{Endpoint, Http1, Trust, Via};

/// Two nodes of a cluster of their own, and what is between them. Nodes end before NATS.
struct Place {
    nodes: [Measured; 2],
    nats: Nats,
}

/// Rounds of each of the three take turns, so that what else the machine does meets all of them.
pub(super) async fn measure(args: &BenchArgs, via: Via, progress: &ProgressBar) -> Result<Vec<Line>> {
    let nats = match &args.nats {
        Some(url) => Nats::running(url).await?,
        None => Nats::start().await?,
    };
    let place = Place::start(nats).await?;
    let [one, other] = place.nodes.each_ref().map(|node| Wigwag { via, ..node.service.clone() });
    let [first, second] = place.nodes.each_ref().map(|node| &node.process);
    let mut servers = vec![("sender's node", first), ("recipient's node", second)];
    servers.extend(place.nats.process.iter().map(|process| (NATS, process)));
    let (mut bare, mut at_one, mut between) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=args.rounds {
        progress.set_message(format!("cluster over {}, round {number} of {}", via.name(), args.rounds));
        let round = async {
            bare.push(place.nats.requests(args.time.0).await?);
            at_one.push(workload::relay(&one, first, args.time.0).await?);
            between.push(workload::relay_between([&one, &other], &servers, args.time.0).await?);
            anyhow::Ok(())
        };
        // A node refuses what it cannot bring to another one, and then nothing comes.
        let most = 3 * args.time.0 + START;
        timeout(most, round).await.map_err(|_| anyhow!("not done within {most:?}: a message has not come"))??;
        progress.inc(1);
    }
    let lines = [
        Line::of("nats-request", "request", "nats", &bare),
        Line::of("one-node", "message", via.name(), &at_one),
        Line::of("two-nodes", "message", via.name(), &between),
    ];
    Ok(lines.into_iter().flatten().collect())
}

impl Place {
    async fn start(nats: Nats) -> Result<Self> {
        let admins = [free_port()?, free_port()?];
        // A cluster name of its own: there may be others at a NATS that runs already.
        let name = format!("wigwag-bench-{}", std::process::id());
        let key = key()?;
        let key = key.path().to_str().context("a path that is not UTF-8")?;
        let start = async |admin: u16| {
            let admin = format!("127.0.0.1:{admin}");
            let cluster = ["--cluster", &nats.url, "--cluster-name", &name, "--cluster-key", key];
            Measured::started(&[&["--admin", &admin], &cluster[..]].concat()).await
        };
        let nodes = [start(admins[0]).await?, start(admins[1]).await?];
        for (node, admin) in nodes.iter().zip(admins) {
            let linked = linked(&node.service.trust, admin);
            let linked = timeout(START, linked).await;
            linked.map_err(|_| anyhow!("the nodes do not find each other over {}", nats.url))??;
        }
        Ok(Place { nodes, nats })
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

/// Waits until a node has a link with the other one.
async fn linked(trust: &Trust, admin: u16) -> Result<()> {
    let endpoint = Endpoint { encrypted: false, host: "127.0.0.1".into(), port: admin };
    let mut connection = Http1::connect(&endpoint, &trust.tls).await.context("the node's admin listener")?;
    loop {
        let metrics = connection.request(Method::GET, "/metrics", &HeaderMap::new()).await?;
        if String::from_utf8_lossy(metrics.body()).contains("\nwigwag_cluster_links 1\n") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
