//! How many instructions a message, a delivery and a join take, counted by valgrind: figures that are the same on a busy machine, so
//! that a regression of a few percent shows.
//!
//! `cargo bench --bench instructions` counts and compares with `baseline.json`; it fails where something has grown by more than
//! [`MARGIN`]. `-- --update` writes the baseline anew: to be committed together with what changed the figures. `-- --spread N` counts N
//! times and prints the least and the most.
//!
//! Each workload runs in a process of its own under callgrind, once with a few rounds and once with many: what the second took more is
//! that of the rounds alone, without start-up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

mod memory;
mod workload;

use workload::Workload;

/// By how much a figure may grow, in percent. What varies from run to run are the seeds of hash tables, keys, and moments at which timers
/// are set: less than one percent in ten runs.
const MARGIN: f64 = 3.0;
/// By how much it must shrink to be worth a new baseline: what is not written down can be lost again unseen.
const SHRUNK: f64 = 5.0;

/// What was counted, and with what.
#[derive(Debug, Serialize, Deserialize)]
struct Baseline {
    /// The compiler, whose doing the figures are, too.
    rustc: String,
    /// Instructions for one of each.
    instructions: BTreeMap<String, u64>,
}

fn main() -> Result<ExitCode> {
    // Cargo adds this one by itself.
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => compare(),
        ["--update"] => update(),
        ["--spread", times] => spread(times.parse()?),
        ["--run", name, rounds] => {
            let workload =
                Workload::ALL.into_iter().find(|workload| workload.name() == name).context("no such workload")?;
            workload.run(rounds.parse()?)?;
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("usage: cargo bench --bench instructions [-- --update | --spread TIMES]"),
    }
}

fn compare() -> Result<ExitCode> {
    let path = baseline_path();
    let baseline = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let baseline: Baseline = serde_json::from_str(&baseline)?;
    let now = count_all()?;
    let mut grown = Vec::new();
    let mut shrunk = Vec::new();
    println!("{:16} {:>12} {:>12}", "instructions", "baseline", "now");
    for workload in Workload::ALL {
        let name = workload.name();
        let Some(&before) = baseline.instructions.get(name) else { bail!("{name} is not in the baseline; {HOW}") };
        let after = now.instructions[name];
        let change = 100.0 * (after as f64 / before as f64 - 1.0);
        println!("{name:16} {before:>12} {after:>12} {change:>+7.2} %");
        if change > MARGIN {
            grown.push(name);
        } else if change < -SHRUNK {
            shrunk.push(name);
        }
    }
    if baseline.rustc != now.rustc {
        // What another compiler makes of the same code is not to be blamed on who changed something else.
        println!("Not judged: the baseline was counted with {}, this with {}; {HOW}", baseline.rustc, now.rustc);
        return Ok(ExitCode::SUCCESS);
    }
    if !shrunk.is_empty() {
        println!("Well done: {} shrank by more than {SHRUNK} %. So that it stays, {HOW}", shrunk.join(", "));
    }
    if grown.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} grew by more than {MARGIN} %. If that is what it is worth, {HOW}", grown.join(", "));
    Ok(ExitCode::FAILURE)
}

const HOW: &str = "commit what `cargo bench --bench instructions -- --update` writes.";

fn update() -> Result<ExitCode> {
    let path = baseline_path();
    let mut text = serde_json::to_string_pretty(&count_all()?)?;
    text.push('\n');
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn spread(times: usize) -> Result<ExitCode> {
    for workload in Workload::ALL {
        let counts = (0..times).map(|_| count(workload)).collect::<Result<Vec<_>>>()?;
        let (least, most) =
            (counts.iter().min().context("once at least")?, counts.iter().max().context("once at least")?);
        let percent = 100.0 * (*most as f64 / *least as f64 - 1.0);
        println!("{:16} {least:>12} to {most:>12}: {percent:.3} %", workload.name());
    }
    Ok(ExitCode::SUCCESS)
}

fn baseline_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/baseline.json")
}

fn count_all() -> Result<Baseline> {
    let version = Command::new("rustc").arg("-vV").output().context("cannot ask rustc for its version")?;
    let version = String::from_utf8(version.stdout)?;
    let told = |key: &str| version.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().to_owned();
    let rustc = format!("{} for {}", told("release: "), told("host: "));
    let counted = Workload::ALL.into_iter().map(|workload| Ok((workload.name().to_owned(), count(workload)?)));
    Ok(Baseline { rustc, instructions: counted.collect::<Result<_>>()? })
}

/// Instructions for one of what the workload counts.
fn count(workload: Workload) -> Result<u64> {
    let rounds = workload.rounds();
    // Side by side: what one process does is no business of the other's.
    let (few, all) = (start(workload, rounds / 8)?, start(workload, rounds)?);
    let (few, all) = (collected(few)?, collected(all)?);
    let more = all.checked_sub(few).context("more rounds took less")?;
    Ok(more / ((rounds - rounds / 8) * workload.units()))
}

fn start(workload: Workload, rounds: u64) -> Result<std::process::Child> {
    Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--"])
        .arg(std::env::current_exe()?)
        .args(["--run", workload.name(), &rounds.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("valgrind cannot be started; on Debian: apt-get install valgrind")
}

fn collected(process: std::process::Child) -> Result<u64> {
    let output = process.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the workload failed: {said}");
    let figure = said.lines().find_map(|line| line.split_once("Collected : ")).context("callgrind says no figure")?.1;
    Ok(figure.trim().parse()?)
}
