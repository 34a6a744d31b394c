//! Opens transports side by side and finds the first that works.
//!
//! A transport works when `joined` or `resumed` has come on it, not when it has opened: some middleboxes let it open and kill it
//! at once. So the greeting goes out on one at a time, the first on which it can be said; the others wait, open, for it to fail. It
//! can be said as soon as the transport is asked for, but over HTTP/1.1.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until, timeout};

use super::closing::Closing;
use super::discovery::Rung;
use super::message::{Incoming, ServerMessage};
use super::seat::{LinkId, Member, Seat};
use super::session::{Options, Timing};
use super::{Connection, Error, Event, Trust, Via};

/// For a transport that is not used any more to be closed tidily.
const FAREWELL: Duration = Duration::from_secs(1);

/// The first transport that works, with the answer to its greeting.
pub(super) struct Won {
    pub connection: Connection,
    pub via: Via,
    pub link: LinkId,
    pub answer: Incoming,
}

/// How a race ends.
pub(super) enum Outcome {
    Won(Box<Won>),
    /// All failed, or the server has decided.
    Lost(Closing),
}

/// One race. What is under way lives in here, so that no wait that is given up loses anything.
pub(super) struct Race {
    options: Options,
    waiting: VecDeque<Rung>,
    next_start: Instant,
    runners: Vec<Runner>,
    failures: Vec<String>,
    /// A greeting was given up without an answer: it may yet be handled.
    abandoned: bool,
}

struct Runner {
    via: Via,
    state: State,
    deadline: Option<Instant>,
    /// Greeted long ago: any other that is open gets its turn.
    impatient: bool,
    /// A greeting that went with the request that was refused has had no effect, and never will.
    refused: bool,
}

enum State {
    Opening(BoxFuture<'static, Result<Connection, Error>>),
    Open(Connection),
    Greeted(Connection, LinkId),
}

enum Progress {
    Opened(Connection),
    Heard(Event),
    Failed(Error),
}

impl Race {
    pub(super) fn new(rungs: Vec<Rung>, options: Options) -> Self {
        Race {
            options,
            waiting: rungs.into(),
            next_start: Instant::now(),
            runners: Vec::new(),
            failures: Vec::new(),
            abandoned: false,
        }
    }

    /// Whether a greeting waits for its answer.
    pub(super) fn is_greeting(&self) -> bool {
        self.runners.iter().any(Runner::is_greeted)
    }

    /// Whether a greeting was given up without an answer; asked once.
    pub(super) fn take_abandoned(&mut self) -> bool {
        std::mem::take(&mut self.abandoned)
    }

    /// Ends the race without a result.
    pub(super) fn abort(mut self, seat: &mut Seat) -> bool {
        self.stop(seat);
        self.abandoned
    }

    /// Runs to the end. Cancel safe.
    pub(super) async fn run(&mut self, seat: &mut Seat, member: &Member) -> Outcome {
        loop {
            if let Some(outcome) = self.advance(seat, member) {
                return outcome;
            }
            let wake = self.next_deadline();
            let progress = tokio::select! {
                progress = poll_fn(|cx| self.poll(cx)) => progress,
                () = sleep_until(wake) => continue,
            };
            if let Some(outcome) = self.take(progress, seat) {
                return outcome;
            }
        }
    }

    /// Starts, greets and gives up what is due.
    fn advance(&mut self, seat: &mut Seat, member: &Member) -> Option<Outcome> {
        let now = Instant::now();
        while let Some(at) = self.runners.iter().position(|runner| runner.deadline.is_some_and(|due| due <= now)) {
            if let Some(outcome) = self.late(at, now, seat) {
                return Some(outcome);
            }
        }
        if self.runners.is_empty() || self.next_start <= now {
            self.start_next(now);
        }
        if self.runners.is_empty() {
            return Some(self.lost());
        }
        self.greet(seat, member, now)
    }

    fn start_next(&mut self, now: Instant) {
        if self.runners.is_empty() && self.waiting.front().is_some_and(|rung| rung.repeats) {
            // What it would be beside has failed already.
            self.waiting.clear();
        }
        let Some(Rung { offer, .. }) = self.waiting.pop_front() else { return };
        let Options { room, trust, headers, timing, .. } = &self.options;
        let hashes = if offer.hashes.is_empty() { trust.hashes.clone() } else { offer.hashes };
        let (room, headers) = (room.clone(), headers.clone());
        let (via, trust) = (offer.via, Trust { hashes, tls: trust.tls.clone() });
        let opening = async move { Connection::begin(&offer.endpoint, &room, via, &trust, &headers).await };
        let deadline = Some(now + timing.open);
        self.runners.push(Runner {
            via,
            state: State::Opening(Box::pin(opening)),
            deadline,
            impatient: false,
            refused: false,
        });
        self.next_start = now + self.waiting.front().map_or(timing.open, |next| next.wait);
    }

    /// The greeting goes out on the first that is open, unless it is out already.
    fn greet(&mut self, seat: &mut Seat, member: &Member, now: Instant) -> Option<Outcome> {
        while !self.is_greeting() {
            let at = self.runners.iter().position(|runner| matches!(runner.state, State::Open(_)))?;
            let Runner { via, state: State::Open(mut connection), .. } = self.runners.remove(at) else { return None };
            let (link, line) = seat.greet(member);
            let fed = connection.feed(&line);
            let deadline = Some(now + self.options.timing.patience);
            self.runners.push(Runner {
                via,
                state: State::Greeted(connection, link),
                deadline,
                impatient: false,
                refused: false,
            });
            if let Err(error) = fed
                && let Some(outcome) = self.fail(self.runners.len() - 1, Closing::of(&error), seat)
            {
                return Some(outcome);
            }
        }
        None
    }

    fn late(&mut self, at: usize, now: Instant, seat: &mut Seat) -> Option<Outcome> {
        let Timing { open, patience, answer, .. } = self.options.timing;
        let is_alone = !self.runners.iter().any(|runner| matches!(runner.state, State::Open(_)));
        let runner = &mut self.runners[at];
        if runner.is_greeted() && !runner.impatient && is_alone {
            runner.impatient = true;
            runner.deadline = Some(now + answer.saturating_sub(patience));
            return None;
        }
        let what = match (runner.is_greeted(), runner.impatient) {
            (false, _) => format!("did not open within {} ms", open.as_millis()),
            (true, false) => format!("did not answer within {} ms", patience.as_millis()),
            (true, true) => format!("did not answer within {} ms", answer.as_millis()),
        };
        self.fail(at, Closing::given_up(what), seat)
    }

    fn next_deadline(&self) -> Instant {
        let starts = (!self.waiting.is_empty()).then_some(self.next_start);
        let deadlines = self.runners.iter().filter_map(|runner| runner.deadline);
        // A runner always has a deadline but when it is open, and then another one is greeted and has.
        deadlines.chain(starts).min().unwrap_or_else(|| Instant::now() + self.options.timing.open)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Progress)> {
        for (at, runner) in self.runners.iter_mut().enumerate() {
            if let Poll::Ready(progress) = runner.poll(cx) {
                return Poll::Ready((at, progress));
            }
        }
        Poll::Pending
    }

    fn take(&mut self, (at, progress): (usize, Progress), seat: &mut Seat) -> Option<Outcome> {
        match progress {
            Progress::Opened(connection) => {
                self.runners[at].state = State::Open(connection);
                self.runners[at].deadline = None;
                let impatient = self.runners.iter().position(|runner| runner.impatient)?;
                self.fail(impatient, Closing::given_up("did not answer in time"), seat)
            }
            Progress::Heard(Event::Message(text) | Event::Datagram(text)) => self.hear(at, &text, seat),
            Progress::Heard(Event::Closed { code, reason }) => self.fail(at, Closing::with_code(code, reason), seat),
            Progress::Failed(error) => {
                self.runners[at].refused = matches!(error, Error::Refused(_));
                self.fail(at, Closing::of(&error), seat)
            }
        }
    }

    fn hear(&mut self, at: usize, text: &str, seat: &mut Seat) -> Option<Outcome> {
        let answer = match Incoming::parse(text) {
            Ok(Incoming { message: ServerMessage::Closed(closed), .. }) => {
                return self.fail(at, Closing::said(closed), seat);
            }
            Ok(incoming) => incoming,
            Err(_) => return self.fail(at, Closing::given_up("the server sent what is no message"), seat),
        };
        let answers = matches!(
            answer.message,
            ServerMessage::Joined(_) | ServerMessage::Resumed(_) | ServerMessage::Waiting { .. }
        );
        if !answers || !self.runners[at].is_greeted() {
            return None;
        }
        let Runner { via, state: State::Greeted(connection, link), .. } = self.runners.remove(at) else { return None };
        self.stop(seat);
        Some(Outcome::Won(Box::new(Won { connection, via, link, answer })))
    }

    fn fail(&mut self, at: usize, closing: Closing, seat: &mut Seat) -> Option<Outcome> {
        let runner = self.runners.remove(at);
        self.failures.push(format!("{}: {}", runner.via.transport().name(), closing.message));
        self.dismiss(runner, seat);
        if closing.is_decision() {
            self.stop(seat);
            return Some(Outcome::Lost(closing));
        }
        self.next_start = Instant::now();
        (self.runners.is_empty() && self.waiting.is_empty()).then(|| self.lost())
    }

    fn lost(&self) -> Outcome {
        Outcome::Lost(Closing::lost(self.failures.join("; ")))
    }

    fn stop(&mut self, seat: &mut Seat) {
        self.waiting.clear();
        for runner in std::mem::take(&mut self.runners) {
            self.dismiss(runner, seat);
        }
    }

    fn dismiss(&mut self, runner: Runner, seat: &mut Seat) {
        match runner.state {
            State::Opening(_) => {}
            State::Open(connection) => farewell(connection),
            State::Greeted(connection, link) => {
                seat.unlink(link);
                self.abandoned |= !runner.refused;
                farewell(connection);
            }
        }
    }
}

impl Runner {
    fn is_greeted(&self) -> bool {
        matches!(self.state, State::Greeted(..))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        let connection = match &mut self.state {
            State::Opening(opening) => {
                return opening.as_mut().poll(cx).map(|opened| opened.map_or_else(Progress::Failed, Progress::Opened));
            }
            State::Open(connection) | State::Greeted(connection, _) => connection,
        };
        connection.poll(cx, true).map(|heard| heard.map_or_else(Progress::Failed, Progress::Heard))
    }
}

/// Closes a transport that is not used any more, without anybody waiting for it.
pub(super) fn farewell(connection: Connection) {
    tokio::spawn(async move {
        // It is of no use any more, whether it hears that or not.
        let _ = timeout(FAREWELL, connection.close()).await;
    });
}
