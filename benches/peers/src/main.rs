//! `peers`: other servers under the load of `wigwag bench`, side by side in one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum as _};

mod clients;
mod kit;
mod measure;
mod plot;
mod report;
mod services;
mod workload;

use kit::Kit;
use measure::Plan;
use plot::Layout;
use report::{Described, Report};
use services::Service;
use workload::{Amount, Workload};

/// Measures what a message, a call, a join and an idle session cost servers of several kinds.
#[derive(Debug, Parser)]
#[command(name = "benches/peers/run", version = None)]
struct Arguments {
    /// What to do to each service; everything if none is named
    #[arg(value_enum, value_name = "WORKLOAD")]
    workloads: Vec<Workload>,
    /// Only these services, by name or what that begins with, as raw,wigwag
    #[arg(long, value_name = "SERVICE", value_delimiter = ',')]
    only: Vec<String>,
    /// Show services and workloads
    #[arg(long)]
    list: bool,
    /// One short round of each: shows that everything works, and little more
    #[arg(long)]
    quick: bool,
    /// Rounds of each; medians are shown [default: 5; quick: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Seconds that a round of messages or calls takes [default: 2; quick: 0.3]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Clients of storm and idle [default: 2000; quick: 400]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    clients: Option<u32>,
    /// Members of the room of fan-out
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
    members: u32,
    /// The wigwag to be measured
    #[arg(long, value_name = "FILE")]
    wigwag: Option<PathBuf>,
    /// Write the results here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the results here, and for narrow screens beside it, as NAME-narrow.svg
    #[arg(long, value_name = "NAME.svg")]
    svg: Option<PathBuf>,
    /// Measure nothing: show the results in this file, that --json has written
    #[arg(long, value_name = "FILE", conflicts_with_all = ["workloads", "only", "quick", "rounds", "seconds", "clients"])]
    from: Option<PathBuf>,
}

impl Arguments {
    fn amount(&self) -> Result<Amount> {
        let seconds = self.seconds.unwrap_or(if self.quick { 0.3 } else { 2.0 });
        ensure!((0.1..=600.0).contains(&seconds), "--seconds: from 0.1 to 600");
        let clients = self.clients.unwrap_or(if self.quick { 400 } else { 2000 });
        Ok(Amount { time: Duration::from_secs_f64(seconds), clients: clients as usize, members: self.members as usize })
    }

    fn rounds(&self) -> usize {
        self.rounds.map_or(if self.quick { 1 } else { 5 }, usize::from)
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        print!("{}", list());
        return Ok(());
    }
    let report = match &arguments.from {
        Some(path) => read(path)?,
        None => measure(arguments)?,
    };
    print!("{}", report.table());
    if let Some(path) = &arguments.json {
        write(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    if let Some(path) = &arguments.svg {
        write(path, &plot::draw(&report, Layout::WIDE))?;
        write(&narrow(path)?, &plot::draw(&report, Layout::NARROW))?;
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<Report> {
    raise_open_files();
    let wigwag = arguments.wigwag.clone().context("--wigwag is missing; benches/peers/run names it")?;
    let kit = Kit::new(wigwag, services::sources())?;
    let (services, described) = available(&kit, services::named(&arguments.only)?);
    ensure!(!services.is_empty(), "nothing is left to be measured");
    let workloads =
        if arguments.workloads.is_empty() { Workload::value_variants() } else { &arguments.workloads }.to_vec();
    let plan = Plan { services, workloads, rounds: arguments.rounds(), amount: arguments.amount()? };
    // One thread for all of the load: no wake-up between threads is part of a latency.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let lines = runtime.block_on(Box::pin(plan.run(&kit)));
    Ok(Report {
        command: command_line(),
        machine: machine(),
        rounds: plan.rounds,
        results: Report::compare(&described, lines),
        services: described,
    })
}

fn read(path: &Path) -> Result<Report> {
    let text = fs::read_to_string(path).with_context(|| format!("--from {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("--from {}: not the results of a run", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// `peers-narrow.svg` beside `peers.svg`.
fn narrow(path: &Path) -> Result<PathBuf> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).context("--svg: a file's name")?;
    Ok(path.with_file_name(format!("{stem}-narrow.svg")))
}

fn list() -> String {
    let services = Service::ALL.iter().map(|service| (service.name().to_owned(), service.about().to_owned()));
    let workloads = Workload::value_variants().iter().map(|workload| {
        let value = workload.to_possible_value();
        let about = value.as_ref().and_then(|value| value.get_help()).map(ToString::to_string);
        (workload.name(), about.unwrap_or_default())
    });
    let lines = |entries: &mut dyn Iterator<Item = (String, String)>| -> String {
        entries.map(|(name, about)| format!("  {name:<20} {about}\n")).collect()
    };
    format!("Services:\n{}\nWorkloads:\n{}", lines(&mut services.into_iter()), lines(&mut workloads.into_iter()))
}

/// The services that can be measured here, and what they are. Of the others it is said why not.
fn available(kit: &Kit, services: Vec<Service>) -> (Vec<Service>, Vec<Described>) {
    let describe = |service: Service| match service.version(kit) {
        Ok(version) => Some((
            service,
            Described {
                name: service.name().to_owned(),
                about: service.about().to_owned(),
                version,
                yardstick: service.yardstick().name().to_owned(),
            },
        )),
        Err(error) => {
            eprintln!("{} is left out: {error:#}", service.name());
            None
        }
    };
    services.into_iter().filter_map(describe).unzip()
}

/// Each session takes a file on either side; servers have the limit of who starts them.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_err() {
        eprintln!("the limit of open files stays at {:?}", limit.current);
    }
}

/// How this run can be repeated.
fn command_line() -> String {
    let words = std::env::args().skip(1).collect::<Vec<_>>();
    // The script that starts this program names the program to be measured.
    let mut own = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--wigwag" {
            words.next();
        } else {
            own.push(word);
        }
    }
    [&["benches/peers/run".to_owned()], profile().as_slice(), &own].concat().join(" ")
}

/// How the profile is asked for that the programs here were built with, unless it is the usual one. Cargo calls the directory by it.
fn profile() -> Vec<String> {
    let directory = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.file_name()?.to_owned()));
    match directory.as_ref().and_then(|name| name.to_str()) {
        Some("dist") | None => Vec::new(),
        Some(profile) => vec!["--profile".to_owned(), profile.to_owned()],
    }
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).and_then(|rest| rest.split(": ").nth(1));
    let count = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} × {}, Linux {}", count, model.unwrap_or("processor"), kernel.trim())
}
