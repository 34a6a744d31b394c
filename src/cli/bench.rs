//! `wigwag bench`: what a server costs under load.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, ValueEnum};
use http::{HeaderMap, Method, Uri};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tempfile::TempDir;

use super::join::{ViaName, roots};
use super::{End, descriptors, print, told_to_stop};
use crate::bench::process::{free_port, temporary_dir};
use crate::bench::report::{Line, Report};
use crate::bench::workload::{self, Round};
use crate::bench::{ABOVE_LIMITS, Process, Wigwag};
use crate::client::{Endpoint, Http1, Trust, Via, certificate_hashes};
use crate::config::Span;
use crate::error::StartError;

mod cluster;

/// A server of our own must answer within this time.
const START: Duration = Duration::from_secs(20);

/// What the server says of itself. Its limits are above what files allow, too, which is not worth a word for each server.
const LOG: &str = "warn,wigwag::cli::descriptors=error";

/// Messages in flight, where there are many.
const WINDOW: usize = 128;

/// Polling costs much the same over each version of HTTP.
const USUAL: &str = "webtransport,websocket-h3,websocket-h2,websocket-h1,event-stream-h2,long-poll-h2";

/// What `wigwag bench` is told.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to do to the server; everything but cluster if none is named
    #[arg(value_enum, value_name = "WORKLOAD")]
    workloads: Vec<Workload>,
    /// Over which transports
    #[arg(long, value_enum, value_name = "TRANSPORT", value_delimiter = ',', default_value = USUAL)]
    via: Vec<ViaName>,
    /// Rounds of each; medians are shown
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long a round of messages or calls takes, and how long idle sessions are kept
    #[arg(long, value_name = "TIME", default_value = "2s")]
    time: Span,
    /// Peers of storm, idle and resume
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Members of the room of fan-out
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
    members: u32,
    /// Messages a second that paced sends, by a hundred pairs
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Have the nodes of cluster meet at this NATS server, nats://HOST:4222, instead of one that is started for it
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Put the load on this server, on this machine and with limits that allow it, instead of one that is started for it
    #[arg(long, value_name = "URL", requires = "process")]
    server: Option<String>,
    /// The id of that server's process
    #[arg(long, value_name = "PID", requires = "server")]
    process: Option<u32>,
    /// Trust the certificate authority in this PEM file, beside the system's
    #[arg(long, value_name = "FILE", default_value = "certs/ca.pem", requires = "server")]
    ca: PathBuf,
    /// Write the results here as JSON; - is standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare with the results in this file
    #[arg(long, value_name = "FILE")]
    vs: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Messages between two peers, one in flight
    Relay,
    /// Messages between a hundred pairs, each at its time
    Paced,
    /// Messages between two peers, many in flight
    Pipelined,
    /// Messages to a whole room
    FanOut,
    /// Calls: two peers connect, join, exchange offer, answer and 20 candidates, and leave
    Setup,
    /// Many peers that join at once
    Storm,
    /// Many peers that say nothing
    Idle,
    /// Many peers whose connections break, and that resume at once
    Resume,
    /// Messages between two peers at one node and at two, until they come and until they are accepted, with durable sessions and
    /// without, and bare requests over NATS, one in flight; needs nats-server
    Cluster,
}

impl Workload {
    /// What is done if nothing is named: what needs no other program.
    fn usual() -> impl Iterator<Item = Workload> {
        Workload::value_variants().iter().copied().filter(|workload| *workload != Workload::Cluster)
    }

    /// What is counted.
    fn unit(self) -> &'static str {
        match self {
            Workload::Relay | Workload::Paced | Workload::Pipelined | Workload::Cluster => "message",
            Workload::FanOut => "delivery",
            Workload::Setup => "call",
            Workload::Storm => "join",
            Workload::Idle => "session-second",
            Workload::Resume => "resume",
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    async fn round(self, args: &BenchArgs, service: &Wigwag, server: &Process) -> Result<Round> {
        let (time, clients) = (args.time.0, args.clients as usize);
        match self {
            Workload::Relay => workload::relay(service, server, time).await,
            Workload::Paced => workload::paced(service, server, time, 100, args.rate).await,
            Workload::Pipelined => workload::pipelined(service, server, time, WINDOW).await,
            Workload::FanOut => workload::fan_out(service, server, time, args.members as usize).await,
            Workload::Setup => workload::setup(service, server, time).await,
            Workload::Storm => workload::storm(service, server, clients).await,
            Workload::Idle => workload::idle(service, server, time, clients).await,
            Workload::Resume => workload::resume(service, server, clients).await,
            Workload::Cluster => Err(anyhow!("a cluster is more than one server")),
        }
    }
}

pub(super) fn run(args: &BenchArgs) -> Result<(), End> {
    let earlier = args.vs.as_deref().map(read).transpose()?;
    // Each session takes one on either side; the server that is started has the same limit.
    descriptors::raise();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let report = runtime.block_on(Box::pin(async {
        tokio::select! {
            // First, so that it listens before there is a server and a key that must not stay behind.
            biased;
            () = told_to_stop() => Err(anyhow!("ended before all was measured").into()),
            report = measure(args) => report,
        }
    }))?;
    show(args, &report, earlier.as_ref())
}

fn read(path: &Path) -> Result<Report, StartError> {
    let unusable = |error: &dyn std::fmt::Display| StartError::new(format_args!("--vs {}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| unusable(&error))?;
    serde_json::from_str(&text).map_err(|error| unusable(&format_args!("not the results of a run: {error}")))
}

fn show(args: &BenchArgs, report: &Report, earlier: Option<&Report>) -> Result<(), End> {
    let json = serde_json::to_string_pretty(report).context("cannot write JSON")?;
    match args.json.as_deref() {
        Some(path) if path == Path::new("-") => return print(&(json + "\n")),
        Some(path) => fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?,
        None => {}
    }
    print(&report.table(earlier))
}

async fn measure(args: &BenchArgs) -> Result<Report, End> {
    let vias: Vec<Via> = args.via.iter().map(|via| via.via()).collect();
    let workloads = if args.workloads.is_empty() { Workload::usual().collect() } else { args.workloads.clone() };
    if args.server.is_some() && workloads.contains(&Workload::Cluster) {
        return Err(
            StartError::new("cluster starts servers of its own; leave --server out, or do cluster alone").into()
        );
    }
    let progress = progress(workloads.len() * vias.len() * usize::from(args.rounds));
    let mut results = Vec::new();
    for workload in workloads {
        for &via in &vias {
            results.extend(match workload {
                Workload::Cluster => cluster::measure(args, via, &progress).await?,
                _ => at_one_server(args, workload, via, &progress).await?.into_iter().collect(),
            });
        }
    }
    progress.finish_and_clear();
    Ok(Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        rounds: args.rounds.into(),
        results,
    })
}

async fn at_one_server(
    args: &BenchArgs,
    workload: Workload,
    via: Via,
    progress: &ProgressBar,
) -> Result<Option<Line>, End> {
    let mut server = Measured::reach(args).await?;
    let (name, over) = (workload.name(), via.name());
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        progress.set_message(format!("{name} over {over}, round {number} of {}", args.rounds));
        if number > 1 && workload == Workload::Idle {
            // What this one has freed it would not take from the system again. Ends before the next begins.
            drop(server);
            server = Measured::reach(args).await?;
        }
        let service = Wigwag { via, ..server.service.clone() };
        let round = workload.round(args, &service, &server.process).await;
        let mut round = round.with_context(|| format!("{name} over {over} failed"))?;
        if number > 1 && !server.is_fresh() {
            round.memory = None;
        }
        rounds.push(round);
        progress.inc(1);
    }
    Ok(Line::of(&name, workload.unit(), over, &rounds))
}

/// A bar on the terminal; where there is none, a line for each round would be noise.
fn progress(rounds: usize) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {elapsed}");
    let bar = ProgressBar::with_draw_target(Some(rounds as u64), target);
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

/// A server under load, and how to reach it.
struct Measured {
    process: Process,
    service: Wigwag,
    /// Of one that was started for this; gone with it.
    dir: Option<TempDir>,
}

impl Measured {
    async fn reach(args: &BenchArgs) -> Result<Self, End> {
        match (&args.server, args.process) {
            (Some(url), Some(process)) => Measured::running(url, process, &args.ca).await,
            _ => Ok(Measured::started(&["--admin", "off"]).await?),
        }
    }

    /// Whether it was started for this, so that its memory is what this has taken.
    fn is_fresh(&self) -> bool {
        self.dir.is_some()
    }

    async fn running(url: &str, process: u32, ca: &Path) -> Result<Self, End> {
        let url: Uri = url.parse().map_err(|error| StartError::new(format_args!("--server: {error}")))?;
        let endpoint = Endpoint::of(&url).map_err(|error| StartError::new(format_args!("--server: {error}")))?;
        let process =
            Process::running(process).map_err(|error| StartError::new(format_args!("--process: {error:#}")))?;
        let trust = Trust::new(roots(ca)?, Vec::new()).context("cannot do TLS")?;
        let service = discover(endpoint, trust).await.with_context(|| format!("cannot reach {url}"))?;
        Ok(Measured { process, service, dir: None })
    }

    /// Starts this program as a server without the limits that the load is above.
    async fn started(args: &[&str]) -> Result<Self> {
        let dir = temporary_dir()?;
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--plain", "off", "--log", LOG]).args(args);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--certs-dir"]).arg(dir.path());
        command.args(ABOVE_LIMITS);
        let mut process = Process::start(&mut command)?;
        let endpoint = Endpoint { encrypted: true, host: "127.0.0.1".into(), port };
        let answers = async {
            loop {
                if let Ok(roots) = roots(&dir.path().join("ca.pem"))
                    && let Ok(service) = discover(endpoint.clone(), Trust::new(roots, Vec::new())?).await
                {
                    return anyhow::Ok(service);
                }
                process.check()?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let service =
            tokio::time::timeout(START, answers).await.map_err(|_| anyhow!("the server does not answer"))??;
        Ok(Measured { process, service, dir: Some(dir) })
    }
}

/// Learns which certificates the server shows by QUIC.
async fn discover(endpoint: Endpoint, trust: Trust) -> Result<Wigwag> {
    let mut connection = Http1::connect(&endpoint, &trust.tls).await?;
    let discovery = connection.request(Method::GET, "/v1/discovery", &HeaderMap::new()).await?;
    let hashes = certificate_hashes(&serde_json::from_slice(discovery.body())?);
    Ok(Wigwag { endpoint, trust: Trust { hashes, ..trust }, via: Via::WebSocketH1, headers: HeaderMap::new() })
}
