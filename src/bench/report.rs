//! What was measured, for people and for programs.

use std::fmt::{self, Write as _};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::workload::{Memory, Round};

/// One workload over one transport: the median of its rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// What was done, as `relay`.
    pub workload: String,
    /// Over which transport.
    pub via: String,
    /// What is counted, as `message`.
    pub unit: String,
    /// How many of them a round had.
    pub units: u64,
    /// Processor time of the server for one, in microseconds; of idle sessions for one in a second.
    pub cpu_micros: f64,
    /// What of it each process took, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// How many there were in a second.
    pub per_second: f64,
    /// How long they took, of all rounds together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Resident memory of the server for one, in KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_kib: Option<f64>,
    /// The same when all have left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_kib: Option<f64>,
}

/// What one of several processes took.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Which one.
    pub process: String,
    /// Its processor time for one, in microseconds.
    pub cpu_micros: f64,
}

/// Percentiles, in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Half took no longer.
    pub p50: f64,
    /// One of a hundred took longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    fn of(nanos: &Histogram<u64>) -> Option<Self> {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        (!nanos.is_empty()).then(|| Latency {
            p50: micros(nanos.value_at_quantile(0.5)),
            p99: micros(nanos.value_at_quantile(0.99)),
            max: micros(nanos.max()),
        })
    }
}

impl Line {
    /// Sums up the rounds of one workload over one transport. Nothing is left of no rounds.
    pub fn of(workload: &str, unit: &str, via: &str, rounds: &[Round]) -> Option<Self> {
        let mut latency = rounds.first()?.latency.clone();
        for round in &rounds[1..] {
            latency.add(&round.latency).ok()?;
        }
        let keeping = rounds[0].memory.is_some();
        let cpu = |round: &Round| {
            let seconds = if keeping { round.elapsed.as_secs_f64() } else { 1.0 };
            round.cpu.as_secs_f64() * 1e6 / round.units as f64 / seconds
        };
        let kib = |pick: fn(Memory) -> u64| {
            let each = |round: &Round| Some(pick(round.memory?) as f64 / 1024.0 / round.units as f64);
            keeping.then(|| median(rounds.iter().filter_map(each)))
        };
        Some(Line {
            workload: workload.to_owned(),
            via: via.to_owned(),
            unit: unit.to_owned(),
            units: median(rounds.iter().map(|round| round.units as f64)) as u64,
            cpu_micros: median(rounds.iter().map(cpu)),
            shares: shares(rounds),
            per_second: median(rounds.iter().map(|round| round.units as f64 / round.elapsed.as_secs_f64())),
            latency: Latency::of(&latency),
            memory_kib: kib(|memory| memory.held),
            left_kib: kib(|memory| memory.left),
        })
    }
}

/// What each of several processes took for one; nothing where there is one alone.
fn shares(rounds: &[Round]) -> Vec<Share> {
    let several = rounds.iter().all(|round| round.shares.len() > 1);
    let names = rounds.first().filter(|_| several).into_iter().flat_map(|round| &round.shares).enumerate();
    let share = |round: &Round, at: usize| round.shares[at].1.as_secs_f64() * 1e6 / round.units as f64;
    let median = |at| median(rounds.iter().map(|round| share(round, at)));
    names.map(|(at, (name, _))| Share { process: (*name).to_owned(), cpu_micros: median(at) }).collect()
}

/// The middle one, or what is between the two in the middle; zero of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// A whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Of the program that measured.
    pub version: String,
    /// Processors of the machine.
    pub processors: usize,
    /// Rounds of each workload.
    pub rounds: usize,
    /// What came out.
    pub results: Vec<Line>,
}

impl Report {
    /// The table for people; with an earlier run, how much of its processor time each line took.
    pub fn table(&self, earlier: Option<&Report>) -> String {
        let mut rows = vec![Row::head(earlier.is_some())];
        rows.extend(self.results.iter().map(|line| Row::of(line, earlier.map(|earlier| earlier.same(line)))));
        aligned(&rows.into_iter().map(|row| row.0).collect::<Vec<_>>(), 2) + &self.shares()
    }

    /// A line for each result that several processes have part in.
    fn shares(&self) -> String {
        let shared = self.results.iter().filter(|line| !line.shares.is_empty());
        shared.fold(String::new(), |mut text, Line { workload, via, shares, .. }| {
            let shares = shares.iter().map(|share| format!("{} {}", share.process, Micros(share.cpu_micros)));
            let _ = writeln!(text, "{workload} over {via}: {}", shares.collect::<Vec<_>>().join(", "));
            text
        })
    }

    fn same(&self, line: &Line) -> Option<&Line> {
        self.results.iter().find(|other| other.workload == line.workload && other.via == line.via)
    }
}

/// Cells of the table; the first two are words, the others numbers.
struct Row(Vec<String>);

impl Row {
    fn head(compares: bool) -> Self {
        let mut cells = vec!["workload", "over", "server CPU", "a second", "p50", "p99", "max", "memory", "after"];
        cells.extend(compares.then_some("of earlier CPU"));
        Row(cells.into_iter().map(str::to_owned).collect())
    }

    fn of(line: &Line, earlier: Option<Option<&Line>>) -> Self {
        let none = || "–".to_owned();
        let kib = |kib: Option<f64>| kib.map_or_else(none, |kib| format!("{kib:.1} KiB"));
        let latency =
            |pick: fn(Latency) -> f64| line.latency.map_or_else(none, |latency| Micros(pick(latency)).to_string());
        let mut cells = vec![
            line.workload.clone(),
            line.via.clone(),
            format!("{} a {}", Micros(line.cpu_micros), line.unit),
            if line.memory_kib.is_some() { none() } else { format!("{:.0}", line.per_second) },
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
            latency(|latency| latency.max),
            kib(line.memory_kib),
            kib(line.left_kib),
        ];
        cells.extend(earlier.map(|earlier| {
            earlier.map_or_else(none, |earlier| format!("{:.0} %", 100.0 * line.cpu_micros / earlier.cpu_micros))
        }));
        Row(cells)
    }
}

/// Rows of a table as lines. The first so many columns are words, the others numbers; every row has as many cells.
pub fn aligned(rows: &[Vec<String>], words: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths = (0..columns).map(|column| rows.iter().map(|row| row[column].chars().count()).max());
    let widths: Vec<usize> = widths.map(Option::unwrap_or_default).collect();
    rows.iter().fold(String::new(), |mut text, row| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells
            .map(|(at, (cell, &width))| if at < words { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        text
    })
}

/// A time in microseconds, shown with three digits that matter.
#[derive(Debug, Clone, Copy)]
pub struct Micros(pub f64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            micros if micros < 1e3 => (micros, "µs"),
            micros if micros < 1e6 => (micros / 1e3, "ms"),
            micros => (micros / 1e6, "s"),
        };
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        write!(f, "{value:.digits$} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn round(cpu: u64, took: u64) -> Round {
        let mut latency = Histogram::new(3).expect("three digits");
        latency.record(took).expect("in range");
        let (cpu, elapsed) = (Duration::from_micros(cpu), Duration::from_secs(1));
        Round { units: 10, cpu, shares: vec![], elapsed, latency, memory: None }
    }

    #[test]
    fn the_median_round_counts_and_the_slowest_message_of_all() {
        let line =
            Line::of("relay", "message", "websocket-h1", &[round(90, 1000), round(1000, 2000), round(100, 9000)]);
        let line = line.expect("three rounds");
        assert_eq!((line.cpu_micros, line.units), (10.0, 10));
        let latency = line.latency.expect("recorded");
        assert!((latency.max - 9.0).abs() < 0.01 && (latency.p50 - 2.0).abs() < 0.01, "{latency:?}");
    }

    #[test]
    fn memory_is_told_for_one_while_it_is_there_and_when_all_have_left() {
        let memory = Some(Memory { held: 200 * 1024, left: 15 * 1024 });
        let line = Line::of("idle", "session-second", "websocket-h1", &[Round { memory, ..round(40, 1) }]);
        let line = line.expect("a round");
        assert_eq!((line.memory_kib, line.left_kib, line.cpu_micros), (Some(20.0), Some(1.5), 4.0));
        let report = Report { version: String::new(), processors: 2, rounds: 1, results: vec![line] };
        assert!(report.table(None).lines().nth(1).expect("a row").ends_with("20.0 KiB  1.5 KiB"));
    }

    #[test]
    fn what_each_of_several_processes_took_stands_below_the_table() {
        let of = |one, other| Round {
            shares: vec![("node", Duration::from_micros(one)), ("NATS", Duration::from_micros(other))],
            ..round(one + other, 1000)
        };
        let line = Line::of("two-nodes", "message", "websocket-h1", &[of(10, 50), of(20, 40), of(90, 30)]);
        let report = Report { version: String::new(), processors: 2, rounds: 3, results: line.into_iter().collect() };
        let table = report.table(None);
        assert_eq!(table.lines().last(), Some("two-nodes over websocket-h1: node 2.00 µs, NATS 4.00 µs"), "{table}");
    }

    #[test]
    fn a_run_is_compared_line_by_line() {
        let line = |cpu| Line::of("relay", "message", "websocket-h1", &[round(cpu, 1_500_000)]).expect("a round");
        let report = |line| Report { version: String::new(), processors: 2, rounds: 1, results: vec![line] };
        let table = report(line(50)).table(Some(&report(line(100))));
        let cells: Vec<&str> =
            table.lines().nth(1).expect("a row").split("  ").filter(|cell| !cell.is_empty()).collect();
        let cells: Vec<&str> = cells.iter().map(|cell| cell.trim()).collect();
        assert_eq!(
            cells,
            ["relay", "websocket-h1", "5.00 µs a message", "10", "1.50 ms", "1.50 ms", "1.50 ms", "–", "–", "50 %"]
        );
    }
}
