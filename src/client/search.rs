//! The way to a transport: wait, ask what the server offers, race.

use futures_util::future::BoxFuture;
use std::future::pending;
use tokio::time::{Instant, sleep_until, timeout};

use super::Error;
use super::discovery::{Offer, discover};
use super::race::{Outcome, Race};
use super::seat::{Member, Seat};
use super::session::Options;

/// What a transport is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// There is none.
    Connect,
    /// A better one than the present.
    Better,
    /// The present one is about to end; any other will do.
    Leave,
}

/// Where the search is. What is under way lives in here, so that no wait that is given up loses anything.
pub(super) enum Search {
    /// There is none.
    Idle,
    /// A pause between two tries; `asked` by the server, so that no hurry shortens it.
    Resting { until: Instant, asked: bool },
    /// The discovery is under way.
    Asking(BoxFuture<'static, Result<Vec<Offer>, Error>>),
    /// Transports are being opened.
    Racing(Box<Race>),
}

/// How a step of the search has ended.
pub(super) enum Found {
    /// The pause is over.
    Rested,
    /// What the server offers; an elapsed wait is [`Error::Io`] with `TimedOut`.
    Offers(Result<Vec<Offer>, Error>),
    /// The race is over.
    Raced(Outcome),
}

impl Search {
    /// Asks for the discovery; with something `known` from before, not for long.
    pub(super) fn ask(options: &Options, known: bool) -> Self {
        let (server, trust) = (options.server.clone(), options.trust.clone());
        let patience = if known { options.timing.rediscovery } else { options.timing.discovery };
        Search::Asking(Box::pin(async move {
            let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "the discovery had no answer in time");
            timeout(patience, discover(&server, &trust)).await.unwrap_or_else(|_| Err(late().into()))
        }))
    }

    /// Goes on until the next step is done. Cancel safe.
    pub(super) async fn next(&mut self, seat: &mut Seat, member: &Member) -> Found {
        match self {
            Search::Idle => pending().await,
            Search::Resting { until, .. } => {
                sleep_until(*until).await;
                Found::Rested
            }
            Search::Asking(offers) => Found::Offers(offers.await),
            Search::Racing(race) => Found::Raced(race.run(seat, member).await),
        }
    }

    /// Whether a greeting waits for its answer.
    pub(super) fn is_greeting(&self) -> bool {
        matches!(self, Search::Racing(race) if race.is_greeting())
    }

    /// Gives the search up. Returns whether a greeting was abandoned, which may yet be handled.
    pub(super) fn abort(&mut self, seat: &mut Seat) -> bool {
        match std::mem::replace(self, Search::Idle) {
            Search::Racing(race) => race.abort(seat),
            _ => false,
        }
    }
}
