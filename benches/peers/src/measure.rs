//! A run: every workload on every service, the services in turn within each round.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use wigwag::bench::report::Line;
use wigwag::bench::workload::Round;

use crate::kit::Kit;
use crate::services::{Running, Service};
use crate::workload::{Amount, Workload};

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) services: Vec<Service>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) rounds: usize,
    pub(crate) amount: Amount,
}

impl Plan {
    /// Results in the order of workloads and services. A service that fails a workload is left out there, and said so.
    pub(crate) async fn run(&self, kit: &Kit) -> Vec<Line> {
        let progress = Progress::new(self.workloads.len() * self.services.len() * self.rounds);
        let mut lines = Vec::new();
        for workload in &self.workloads {
            let mut rounds = Rounds::default();
            if workload.wants_fresh_server() {
                self.with_fresh_servers(kit, *workload, &progress, &mut rounds).await;
            } else {
                self.with_lasting_servers(kit, *workload, &progress, &mut rounds).await;
            }
            for service in &self.services {
                let of = rounds.of.remove(service.name()).unwrap_or_default();
                lines.extend(Line::of(&workload.name(), workload.unit(), service.name(), &of));
            }
        }
        progress.0.finish_and_clear();
        lines
    }

    /// All servers run for the time of all rounds; those that wait for their turn have nothing to do. A short round before the others is not
    /// counted: compilers at run time, caches and allocators have done their first work then.
    async fn with_lasting_servers(&self, kit: &Kit, workload: Workload, progress: &Progress, rounds: &mut Rounds) {
        let warm_up = Amount { time: self.amount.time / 2, clients: self.amount.clients / 4, ..self.amount };
        let mut running = Vec::new();
        for service in &self.services {
            progress.say(format!("{}: starting {}", workload.name(), service.name()));
            match service.start(kit).await {
                Ok(server) => running.push((*service, server)),
                Err(error) => {
                    rounds.fail(*service, workload, progress, &error.context("it does not start"));
                    progress.0.inc(self.rounds as u64);
                }
            }
        }
        for (service, server) in &running {
            progress.say(format!("{}: warming up {}", workload.name(), service.name()));
            rounds.warm_up(*service, workload, warm_up, server, progress).await;
        }
        for number in 1..=self.rounds {
            for (service, server) in &running {
                if !rounds.failed.contains(service) {
                    progress.round(workload, *service, number, self.rounds);
                    rounds.take(*service, workload, self.amount, server, progress).await;
                }
                progress.0.inc(1);
            }
        }
    }

    async fn with_fresh_servers(&self, kit: &Kit, workload: Workload, progress: &Progress, rounds: &mut Rounds) {
        for number in 1..=self.rounds {
            for service in &self.services {
                if !rounds.failed.contains(service) {
                    progress.round(workload, *service, number, self.rounds);
                    match service.start(kit).await {
                        Ok(server) => rounds.take(*service, workload, self.amount, &server, progress).await,
                        Err(error) => rounds.fail(*service, workload, progress, &error.context("it does not start")),
                    }
                }
                progress.0.inc(1);
            }
        }
    }
}

/// Rounds of one workload.
#[derive(Default)]
struct Rounds {
    of: HashMap<&'static str, Vec<Round>>,
    failed: Vec<Service>,
}

impl Rounds {
    async fn take(
        &mut self,
        service: Service,
        workload: Workload,
        amount: Amount,
        server: &Running,
        progress: &Progress,
    ) {
        match in_time(workload, amount, server).await {
            Ok(round) => self.of.entry(service.name()).or_default().push(round),
            Err(error) => self.fail(service, workload, progress, &error),
        }
    }

    async fn warm_up(
        &mut self,
        service: Service,
        workload: Workload,
        amount: Amount,
        server: &Running,
        progress: &Progress,
    ) {
        if let Err(error) = in_time(workload, amount, server).await {
            self.fail(service, workload, progress, &error);
        }
    }

    fn fail(&mut self, service: Service, workload: Workload, progress: &Progress, error: &anyhow::Error) {
        progress.0.suspend(|| eprintln!("{} over {} is left out: {error:#}", workload.name(), service.name()));
        self.of.remove(service.name());
        self.failed.push(service);
    }
}

async fn in_time(workload: Workload, amount: Amount, server: &Running) -> Result<Round> {
    tokio::time::timeout(amount.patience(), server.round(workload, amount)).await.context("not done in time")?
}

/// A bar on the terminal, lines elsewhere.
struct Progress(ProgressBar);

impl Progress {
    fn new(rounds: usize) -> Self {
        let shown = std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(rounds as u64), target);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {elapsed}");
        Progress(if let Ok(style) = style { bar.with_style(style) } else { bar })
    }

    fn say(&self, what: String) {
        self.0.set_message(what);
    }

    fn round(&self, workload: Workload, service: Service, number: usize, of: usize) {
        let what = format!("{} over {}, round {number} of {of}", workload.name(), service.name());
        if self.0.is_hidden() {
            eprintln!("{}/{} {what}", self.0.position() + 1, self.0.length().unwrap_or_default());
        }
        self.say(what);
    }
}
