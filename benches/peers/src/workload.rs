//! The workloads of `wigwag bench` that any service can take.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use wigwag::bench::workload::{self, Round};
use wigwag::bench::{Process, Service};

/// What is done to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Messages between two clients, one in flight
    Relay,
    /// Messages between a hundred pairs, each at its time, 4,000 a second in all
    Paced,
    /// Messages between two clients, 32 in flight
    Pipelined,
    /// Messages to a whole room
    FanOut,
    /// Calls: two clients connect, join, exchange offer, answer and ten candidates each way, and leave
    Setup,
    /// Many clients that join at once, into rooms of four
    Storm,
    /// Many clients that say nothing
    Idle,
}

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    /// How long a round takes, where it is time that ends it.
    pub(crate) time: Duration,
    /// Of storm and idle.
    pub(crate) clients: usize,
    /// Of the room of fan-out.
    pub(crate) members: usize,
}

impl Amount {
    /// A round that takes longer will not end: its time, and what it takes until all are in.
    pub(crate) fn patience(self) -> Duration {
        const EACH: Duration = Duration::from_millis(5);
        let everybody = u32::try_from(self.clients + self.members).unwrap_or(u32::MAX);
        self.time * 2 + Duration::from_secs(30) + EACH * everybody
    }
}

/// Messages in flight, where there are many.
pub(crate) const WINDOW: usize = 32;
/// Pairs of paced.
pub(crate) const PAIRS: u32 = 100;
/// Messages a second, of all pairs together.
pub(crate) const RATE: u32 = 4000;

impl Workload {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What is counted.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Workload::Relay | Workload::Paced | Workload::Pipelined => "message",
            Workload::FanOut => "delivery",
            Workload::Setup => "call",
            Workload::Storm => "join",
            Workload::Idle => "session",
        }
    }

    /// Whether every round wants a server that has done nothing yet: what was freed before would not be taken from the system again.
    pub(crate) fn wants_fresh_server(self) -> bool {
        self == Workload::Idle
    }

    pub(crate) async fn round<S: Service>(self, amount: Amount, service: &S, server: &Process) -> Result<Round> {
        let Amount { time, clients, members } = amount;
        match self {
            Workload::Relay => workload::relay(service, server, time).await,
            Workload::Paced => workload::paced(service, server, time, PAIRS, RATE).await,
            Workload::Pipelined => workload::pipelined(service, server, time, WINDOW).await,
            Workload::FanOut => workload::fan_out(service, server, time, members).await,
            Workload::Setup => workload::setup(service, server, time).await,
            Workload::Storm => workload::storm(service, server, clients).await,
            Workload::Idle => workload::idle(service, server, time, clients).await,
        }
    }
}
