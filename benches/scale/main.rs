//! What a cluster costs its nodes, by simulation: `cargo bench --bench scale -- NODES SESSIONS [MEMBERS [SPREAD [CHURN]]]`.
//!
//! NODES nodes have SESSIONS sessions in rooms of MEMBERS (4), which are at SPREAD nodes each (all at different ones); CHURN of them leave
//! in a second, and as many come (a six-hundredth of all: a call takes ten minutes). [`world`] tells what is real and what is not.
//! `docs/scale.md` has what comes out. The test `scale` runs it small.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

mod wire;
mod world;

use world::{Phase, Plan, run};

/// How long members leave and come.
const SECONDS: usize = 10;

fn main() -> Result<()> {
    // Cargo adds this one by itself.
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let numbers = arguments.map(|number| number.parse().with_context(|| format!("{number} is no number")));
    let numbers: Vec<usize> = numbers.collect::<Result<_>>()?;
    let (&nodes, &sessions) = match numbers.as_slice() {
        [nodes, sessions, ..] if numbers.len() <= 5 => (nodes, sessions),
        _ => bail!("usage: cargo bench --bench scale -- NODES SESSIONS [MEMBERS [SPREAD [CHURN]]]"),
    };
    let given = |at: usize, usual: usize| numbers.get(at).copied().unwrap_or(usual);
    let members = given(2, 4);
    let spread = given(3, members.min(nodes));
    let plan = Plan { nodes, sessions, members, spread, churn: given(4, sessions / 600), seconds: SECONDS };
    println!(
        "{nodes} nodes, {sessions} sessions in rooms of {members} at {spread} nodes, {} leave and come in a second",
        plan.churn
    );
    println!(
        "| | lasted | rosters agree after | CPU of a node | texts to a node | bytes to a node | dropped | sent again | memory |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let begun = Instant::now();
    let phases = run(plan, |phase| println!("{}", row(phase, plan.nodes)))?;
    println!();
    for phase in phases.iter().filter(|phase| !phase.notes.is_empty()) {
        let notes = phase.notes.iter().map(|(kind, count)| format!("{count} {kind}"));
        println!("{}: {}", phase.name, notes.collect::<Vec<_>>().join(", "));
    }
    println!("{:.0} s in all", begun.elapsed().as_secs_f64());
    Ok(())
}

fn row(phase: &Phase, nodes: usize) -> String {
    let each = |count: u64| count / nodes as u64;
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let cells = [
        phase.name.to_owned(),
        seconds(phase.took),
        phase.agreed.map_or("–".to_owned(), seconds),
        format!("{:.1} ms", phase.cpu.as_secs_f64() * 1e3 / nodes as f64),
        each(phase.bus.delivered).to_string(),
        each(phase.bus.bytes).to_string(),
        each(phase.bus.dropped).to_string(),
        each(phase.again).to_string(),
        format!("{} MiB", phase.memory / 1024 / 1024),
    ];
    format!("| {} |", cells.join(" | "))
}
