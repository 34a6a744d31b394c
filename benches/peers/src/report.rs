//! What came out: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use wigwag::bench::report::{Latency, Line, Micros, aligned};

/// A whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// What was typed.
    pub(crate) command: String,
    /// The processor, and how many.
    pub(crate) machine: String,
    /// Rounds of each workload; figures are their medians.
    pub(crate) rounds: usize,
    /// Of each service, in the order of the table.
    pub(crate) services: Vec<Described>,
    /// What was measured, by workload, then service.
    pub(crate) results: Vec<Compared>,
}

/// A service in a report.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) version: String,
    /// The service that its figures are divided by.
    pub(crate) yardstick: String,
}

/// One workload on one service, and the yardstick.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Compared {
    #[serde(flatten)]
    pub(crate) line: Line,
    /// Its cost, divided by that of the yardstick, where that was measured too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
}

/// What a workload is about: memory of what is idle, processor time otherwise.
pub(crate) fn cost(line: &Line) -> f64 {
    line.memory_kib.unwrap_or(line.cpu_micros)
}

/// The same, with its unit.
pub(crate) fn shown_cost(line: &Line) -> String {
    line.memory_kib.map_or_else(|| Micros(line.cpu_micros).to_string(), |kib| format!("{kib:.1} KiB"))
}

impl Report {
    /// Puts the yardsticks beside the results.
    pub(crate) fn compare(services: &[Described], lines: Vec<Line>) -> Vec<Compared> {
        let costs: BTreeMap<(String, String), f64> =
            lines.iter().map(|line| ((line.workload.clone(), line.via.clone()), cost(line))).collect();
        let ratio = |line: &Line| {
            let service = services.iter().find(|service| service.name == line.via)?;
            let yardstick = costs.get(&(line.workload.clone(), service.yardstick.clone()))?;
            (*yardstick > 0.0).then(|| cost(line) / yardstick)
        };
        lines.into_iter().map(|line| Compared { ratio: ratio(&line), line }).collect()
    }

    pub(crate) fn result(&self, workload: &str, service: &str) -> Option<&Compared> {
        self.results.iter().find(|result| result.line.workload == workload && result.line.via == service)
    }

    /// Workloads in the order in which they were measured.
    pub(crate) fn workloads(&self) -> Vec<&Line> {
        let mut workloads: Vec<&Line> = Vec::new();
        for result in &self.results {
            if workloads.iter().all(|line| line.workload != result.line.workload) {
                workloads.push(&result.line);
            }
        }
        workloads
    }

    /// For people: costs, times and ratios, then versions.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for workload in self.workloads() {
            let what = if workload.memory_kib.is_some() { "memory" } else { "processor time of the server" };
            let _ = writeln!(text, "{}: {what} for one {}", workload.workload, workload.unit);
            let mut rows = vec![["", "cost", "of raw", "a second", "p50", "p99"].map(str::to_owned).to_vec()];
            let measured = self.services.iter().filter_map(|service| self.result(&workload.workload, &service.name));
            rows.extend(measured.map(row));
            aligned(&rows, 1).lines().for_each(|line| text.extend(["  ", line, "\n"]));
            text.push('\n');
        }
        let _ = writeln!(text, "{}; medians of {} rounds", self.machine, self.rounds);
        for service in &self.services {
            let _ = writeln!(text, "{}: {}", service.name, service.version);
        }
        text
    }
}

fn row(result: &Compared) -> Vec<String> {
    let Compared { line, ratio } = result;
    let none = || "–".to_owned();
    let latency =
        |pick: fn(Latency) -> f64| line.latency.map_or_else(none, |latency| Micros(pick(latency)).to_string());
    vec![
        line.via.clone(),
        shown_cost(line),
        ratio.map_or_else(none, |ratio| format!("{ratio:.2}×")),
        if line.memory_kib.is_some() { none() } else { format!("{:.0}", line.per_second) },
        latency(|latency| latency.p50),
        latency(|latency| latency.p99),
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One workload on services of these costs.
    pub(crate) fn report(costs: &[(&str, f64)]) -> Report {
        let line = |(service, cost): &(&str, f64)| Line {
            workload: "relay".to_owned(),
            via: (*service).to_owned(),
            unit: "message".to_owned(),
            units: 10,
            cpu_micros: *cost,
            shares: Vec::new(),
            per_second: 100.0,
            latency: None,
            memory_kib: None,
            left_kib: None,
        };
        let described = |(service, _): &(&str, f64)| Described {
            name: (*service).to_owned(),
            about: String::new(),
            version: "1".to_owned(),
            yardstick: "raw-tls".to_owned(),
        };
        let services: Vec<Described> = costs.iter().map(described).collect();
        let results = Report::compare(&services, costs.iter().map(line).collect());
        Report { command: "run".to_owned(), machine: "2 × processor".to_owned(), rounds: 5, services, results }
    }

    #[test]
    fn costs_stand_beside_the_yardstick_where_that_was_measured() {
        let measured = report(&[("raw-tls", 2.0), ("ws", 20.0)]);
        assert_eq!(measured.result("relay", "ws").and_then(|result| result.ratio), Some(10.0));
        assert_eq!(report(&[("ws", 20.0)]).results[0].ratio, None);
        let table = measured.table();
        let row: Vec<&str> = table.lines().nth(3).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["ws", "20.0", "µs", "10.00×", "100", "–", "–"]);
    }

    #[test]
    fn a_run_is_read_as_it_was_written() {
        let written = serde_json::to_string(&report(&[("raw-tls", 2.0)])).expect("JSON");
        let read: Report = serde_json::from_str(&written).expect("the same");
        assert_eq!(read.table(), report(&[("raw-tls", 2.0)]).table());
    }
}
