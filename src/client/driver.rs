//! The task of a [`Session`](super::Session): the parts without I/O decide, connections carry, this joins them.
//!
//! At any time there is at most one link in use, and at most one search for another. While a live session moves, the link in use
//! stays until the new one has its answer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::{pending, poll_fn};
use std::io;
use std::time::Duration;

use base64::Engine as _;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::backoff::{backoff, polite, random};
use super::closing::{Closing, ComeBack};
use super::discovery::{Offer, Preference, Rung, above, ladder};
use super::event::{Closed, Event};
use super::message::{Incoming, Refused, ServerMessage};
use super::race::{Outcome, Race, Won, farewell};
use super::renewal::Renewed;
use super::request::Request;
use super::search::{Found, Purpose, Search};
use super::seat::{Ack, LinkId, Member, NotTaken, Seat, Token, Told};
use super::session::{Asked, Options};
use super::{Connection, Error, Via};
use crate::protocol::Code;

/// With so many events unread nothing more is read from the server.
const UNREAD: usize = 256;
/// Pings without an answer; more are not sent.
const PINGS: usize = 64;
/// A server is taken to ping as often until `joined` tells.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A long poll says nothing for so long beside the heartbeats.
const POLL_WAIT: Duration = Duration::from_secs(25);
/// For the last transport to be closed tidily.
const FAREWELL: Duration = Duration::from_secs(1);

/// What an application asks of the task itself.
#[derive(Debug)]
pub(super) enum Control {
    /// Leave the room; told when that is done.
    Leave(oneshot::Sender<()>),
    /// Connect now, or see whether the connection lives.
    Reconnect,
    /// Measure the round trip.
    Ping(oneshot::Sender<Duration>),
}

/// The link in use.
struct Link {
    id: LinkId,
    via: Via,
    connection: Connection,
    since: Instant,
    heard: Instant,
    /// When silence means death, as something waits for an answer.
    probe: Option<Instant>,
    pings: HashMap<u64, (Instant, Option<oneshot::Sender<Duration>>)>,
}

/// The farewell under way.
struct Leaving {
    /// Its request; `None` if it could not even be queued.
    id: Option<u64>,
    until: Instant,
    done: oneshot::Sender<()>,
}

/// What happens next.
enum Turn {
    /// The application has taken an event.
    Delivered,
    /// The application is gone.
    Dropped,
    Heard(Result<super::Event, Error>),
    Found(Found),
    Asked(Asked),
    Control(Control),
    Renewed(Renewed),
    Timer,
}

pub(super) struct Driver {
    // Static after construction, but for what the application changes of itself.
    options: Options,
    member: Member,
    token: Option<Token>,
    /// The application has given a new token, which no link has carried yet: the next `resume` does.
    renews: bool,
    /// The next token is on its way.
    renewing: Option<BoxFuture<'static, Renewed>>,
    /// Without it no greeting would be of use.
    lacks_token: bool,

    // To and from the application.
    events: mpsc::Sender<Event>,
    requests: mpsc::Receiver<Asked>,
    controls: mpsc::Receiver<Control>,
    unread: VecDeque<Event>,
    answers: HashMap<u64, oneshot::Sender<Result<(), Refused>>>,

    // The session.
    seat: Seat,
    heartbeat: Duration,
    /// The transport as it was told last.
    transport: Option<String>,
    /// Whether the application takes the session for connected.
    is_open: bool,
    /// Until one is in for the first time: when to give up.
    patience: Option<Instant>,
    leaving: Option<Leaving>,
    over: Option<Closed>,

    // The link in use and the search for another.
    link: Option<Link>,
    search: Search,
    purpose: Purpose,
    offers: Vec<Offer>,
    winner: Option<Via>,
    demoted: HashMap<Via, Instant>,
    /// Tries that have failed in a row.
    failures: u32,
    /// Tries for a better transport.
    moves: u32,
    /// When a greeting of one's own was last left unanswered: it may yet take the seat from its successor.
    abandoned: Option<Instant>,
    ack_at: Option<Instant>,
    move_at: Option<(Instant, Purpose)>,
}

impl Driver {
    pub(super) fn new(
        options: Options,
        events: mpsc::Sender<Event>,
        requests: mpsc::Receiver<Asked>,
        controls: mpsc::Receiver<Control>,
    ) -> Self {
        let now = Instant::now();
        Driver {
            member: Member { metadata: options.metadata.clone(), token: None },
            token: options.token.clone(),
            renews: false,
            renewing: None,
            lacks_token: false,
            events,
            requests,
            controls,
            unread: VecDeque::new(),
            answers: HashMap::new(),
            seat: Seat::new(fresh_key()),
            heartbeat: HEARTBEAT,
            transport: None,
            is_open: false,
            patience: Some(now + options.patience),
            leaving: None,
            over: None,
            link: None,
            search: Search::ask(&options, false),
            purpose: Purpose::Connect,
            offers: Vec::new(),
            winner: None,
            demoted: HashMap::new(),
            failures: 0,
            moves: 0,
            abandoned: None,
            ack_at: None,
            move_at: None,
            options,
        }
    }

    /// Runs until the session is over, or nobody wants it any more.
    pub(super) async fn run(mut self) {
        if self.token.is_none() {
            self.begin_renewal(true);
        }
        while self.over.is_none() {
            match self.turn().await {
                Turn::Delivered => {}
                Turn::Dropped => {
                    if let Some(link) = self.link.take() {
                        farewell(link.connection);
                    }
                    return;
                }
                Turn::Heard(heard) => self.heard(heard),
                Turn::Found(found) => self.found(found),
                Turn::Asked((request, reply)) => self.request(&request, reply),
                Turn::Control(control) => self.control(control),
                Turn::Renewed(renewed) => self.renewed(renewed),
                Turn::Timer => self.timer(),
            }
        }
        self.end().await;
    }

    /// Waits for what happens next. Cancel safe.
    async fn turn(&mut self) -> Turn {
        let (reads, wake) = (self.reads(), self.next_timer());
        let takes = self.leaving.is_none() && self.seat.has_room();
        // A session keeps the token that it has; to show it again could only fail.
        self.member.token = self.token.clone().filter(|_| self.renews || !self.seat.has_ticket());
        let greets = !self.lacks_token;
        let Driver { link, search, seat, member, events, unread, requests, controls, renewing, .. } = self;
        let has_unread = !unread.is_empty();
        tokio::select! {
            permit = events.reserve(), if has_unread => match (permit, unread.pop_front()) {
                (Ok(permit), Some(event)) => {
                    permit.send(event);
                    Turn::Delivered
                }
                _ => Turn::Dropped,
            },
            () = events.closed() => Turn::Dropped,
            heard = async {
                match link {
                    Some(link) => poll_fn(|cx| link.connection.poll(cx, reads)).await,
                    None => pending().await,
                }
            } => Turn::Heard(heard),
            found = search.next(seat, member), if greets => Turn::Found(found),
            renewed = async {
                match renewing {
                    Some(renewing) => renewing.await,
                    None => pending().await,
                }
            } => Turn::Renewed(renewed),
            Some(asked) = requests.recv(), if takes => Turn::Asked(asked),
            Some(control) = controls.recv() => Turn::Control(control),
            () = sleep_until(wake) => Turn::Timer,
        }
    }

    /// Whether the link in use is read from: not while too much is unread; nor between a greeting and its answer if it is a poll,
    /// as the next poll would make the greeting's ticket invalid.
    fn reads(&self) -> bool {
        let polls = self.link.as_ref().is_some_and(|link| link.via.is_long_poll());
        self.unread.len() < UNREAD && !(polls && self.search.is_greeting())
    }

    // What the link brings.

    fn heard(&mut self, heard: Result<super::Event, Error>) {
        match heard {
            Ok(super::Event::Message(text) | super::Event::Datagram(text)) => match Incoming::parse(&text) {
                Ok(incoming) => self.incoming(incoming),
                Err(_) => self.lose(Closing::given_up("the server sent what is no message")),
            },
            Ok(super::Event::Closed { code, reason }) => self.lose(Closing::with_code(code, reason)),
            // Lines that were refused by a status say nothing of the seat: to resume shows what becomes of it.
            Err(error) => self.lose(Closing { close_code: None, ..Closing::of(&error) }),
        }
    }

    fn incoming(&mut self, incoming: Incoming) {
        let Some(link) = &mut self.link else { return };
        let now = Instant::now();
        link.heard = now;
        match incoming.message {
            ServerMessage::Closed(closed) => self.lose(Closing::said(closed)),
            ServerMessage::GoAway { after_ms } => self.go_away(Duration::from_millis(after_ms)),
            ServerMessage::Pong { id } => {
                if let Some((sent, Some(reply))) = id.and_then(|id| link.pings.remove(&id)) {
                    // Whoever asked may have gone.
                    let _ = reply.send(now - sent);
                }
            }
            _ => match self.seat.receive(link.id, incoming) {
                Ok(outcome) => self.take(outcome.told, &outcome.lines),
                Err(gap) => self.lose(Closing::given_up(gap.to_string())),
            },
        }
        if let Some(link) = &mut self.link {
            let is_in_use = self.seat.link() == Some(link.id);
            let waits = is_in_use && self.seat.pending() > 0 || !link.pings.is_empty();
            link.probe = waits.then(|| now + self.options.timing.probe);
        }
    }

    /// Passes on what a message has brought, and sends what it asks for.
    fn take(&mut self, told: Vec<Told>, lines: &[String]) {
        for line in lines {
            self.feed(line);
        }
        for told in told {
            self.tell(told);
        }
        self.acknowledge();
    }

    fn tell(&mut self, told: Told) {
        let event = match told {
            Told::Joined(joined) => {
                self.heartbeat = joined.heartbeat_ms.map_or(HEARTBEAT, Duration::from_millis);
                let transport = joined.transport.clone();
                self.patience = None;
                self.unread.push_back(Event::Joined(joined));
                return self.opened(transport, true);
            }
            Told::Resumed(resumed) => return self.opened(resumed.transport, false),
            Told::Answered { id, answer } => return self.answered(id, answer),
            Told::Room(change) => change.into(),
            Told::Description { from, description } => Event::Description { from, description },
            Told::Candidate { from, candidate } => Event::Candidate { from, candidate },
            Told::Message { from, data } => Event::Message { from, data },
            Told::Error(refused) => Event::Refused(refused),
            Told::Waiting { heartbeat_ms } => {
                self.heartbeat = heartbeat_ms.map_or(HEARTBEAT, Duration::from_millis);
                self.patience = None;
                self.renews = false;
                Event::Waiting
            }
            Told::Invitation { token, expire_ms } => {
                Event::Invitation { token, expires_in: Duration::from_millis(expire_ms) }
            }
            Told::TokenExpiring { expire_ms } => {
                self.begin_renewal(false);
                Event::TokenExpiring { expires_in: Duration::from_millis(expire_ms) }
            }
            Told::IceServers(ice_servers) => Event::IceServers(ice_servers),
        };
        self.unread.push_back(event);
    }

    /// The session runs over the present link. A `resumed` need not name the transport; the kind is known in any case.
    fn opened(&mut self, transport: Option<String>, joined: bool) {
        let Some(link) = &self.link else { return };
        let transport = transport.unwrap_or_else(|| link.via.transport().name().to_owned());
        self.renews = false;
        let was_open = std::mem::replace(&mut self.is_open, true);
        if !was_open && !joined {
            self.unread.push_back(Event::Resumed { transport: transport.clone() });
        }
        if let Some(from) = self.transport.replace(transport.clone()).filter(|from| *from != transport) {
            self.unread.push_back(Event::TransportChanged { from, to: transport });
        }
        self.plan_move();
    }

    fn answered(&mut self, id: u64, answer: Result<(), Refused>) {
        let refused = match self.answers.remove(&id) {
            Some(reply) => reply.send(answer).err().and_then(Result::err),
            None => answer.err(),
        };
        self.unread.extend(refused.map(Event::Refused));
        if self.leaving.as_ref().is_some_and(|leaving| leaving.id == Some(id)) {
            self.over = Some(Closed::left());
        }
    }

    fn acknowledge(&mut self) {
        // A poll says in its `resume` how far it has got; in a `join` it cannot.
        let is_silent = |link: &Link| link.via.is_long_poll() && !self.seat.is_waiting(link.id);
        if self.link.as_ref().is_none_or(is_silent) {
            return;
        }
        match self.seat.ack() {
            Ack::None => self.ack_at = None,
            Ack::Soon => {
                self.ack_at.get_or_insert_with(|| Instant::now() + self.options.timing.ack);
            }
            Ack::Now => {
                self.ack_at = None;
                let ack = self.seat.take_ack();
                self.feed(&ack);
            }
        }
    }

    /// Queues a line on the link in use, where there is one.
    fn feed(&mut self, line: &str) {
        let Some(link) = &mut self.link else { return };
        if let Err(error) = link.connection.feed(line) {
            self.lose(Closing::of(&error));
        }
    }

    // Losing the link, and what comes then.

    fn lose(&mut self, closing: Closing) {
        let Some(link) = self.link.take() else { return };
        self.seat.unlink(link.id);
        (self.ack_at, self.move_at) = (None, None);
        let lived = link.since.elapsed() >= self.options.timing.young;
        if lived {
            self.failures = 0;
        } else if !closing.local && closing.close_code.is_none() {
            // A proxy that lets a transport open and kills it soon after would do so for ever.
            self.demoted.insert(link.via, Instant::now());
        }
        farewell(link.connection);
        if self.leaving.is_some() {
            self.over = Some(Closed::left());
        } else if self.search.is_greeting() && closing.come_back() != ComeBack::Join && !self.is_final(&closing) {
            // The session is moving, and the greeting on its way tells what becomes of it.
            self.purpose = Purpose::Connect;
        } else {
            self.abort_search();
            self.come_back(closing, lived);
        }
    }

    fn abort_search(&mut self) {
        if self.search.abort(&mut self.seat) {
            self.abandoned = Some(Instant::now());
        }
    }

    /// Whether `closing` is the end. A `replaced` by a greeting of one's own is none, nor an expired token whose successor is here.
    fn is_final(&self, closing: &Closing) -> bool {
        let own = self.search.is_greeting()
            || self.abandoned.is_some_and(|since| since.elapsed() < self.options.timing.own_replaced);
        let renews = self.renews || self.options.renewal.is_some();
        let excused = own && closing.is(Code::Replaced) || renews && closing.is(Code::TokenExpired);
        closing.come_back() == ComeBack::Never && !excused
    }

    /// Without a link: tries again, unless that is of no use. A link that `lived` and was given up by this side is as good as
    /// replaced: another network may be there at once.
    fn come_back(&mut self, closing: Closing, lived: bool) {
        let has_patience = self.patience.is_none_or(|until| Instant::now() < until);
        if self.is_final(&closing) || !has_patience {
            self.over = Some(closing.into());
            return;
        }
        if closing.is(Code::Replaced) {
            self.abandoned = None;
        }
        if closing.come_back() == ComeBack::Join {
            self.seat.forget(fresh_key());
        }
        if closing.come_back() == ComeBack::Join || closing.is(Code::TokenExpired) && !self.renews {
            self.begin_renewal(true);
        }
        let timing = &self.options.timing;
        let retry_in = match closing.retry_after {
            Some(asked) => polite(asked, random()),
            None if closing.local && lived => Duration::ZERO,
            None => backoff(self.failures, timing.backoff_base, timing.backoff_cap, random()),
        };
        self.failures = self.failures.saturating_add(1);
        self.is_open = false;
        self.purpose = Purpose::Connect;
        self.search = Search::Resting { until: Instant::now() + retry_in, asked: closing.retry_after.is_some() };
        // Of many tries that nobody reads about the last one will do.
        self.unread.pop_back_if(|event| matches!(event, Event::Reconnecting { .. }));
        self.unread.push_back(Event::Reconnecting { why: closing.message, retry_in });
    }

    // The search.

    fn found(&mut self, found: Found) {
        match found {
            Found::Rested => self.search = Search::ask(&self.options, !self.offers.is_empty()),
            Found::Offers(Ok(offers)) => {
                self.offers = offers;
                self.race();
            }
            // What it said last must do where it is slow to come again: transports open connections of their own.
            Found::Offers(Err(Error::Io(error)))
                if error.kind() == io::ErrorKind::TimedOut && !self.offers.is_empty() =>
            {
                self.race();
            }
            Found::Offers(Err(error)) => self.not_found(Closing::of(&error)),
            Found::Raced(outcome) => {
                if let Search::Racing(race) = &mut self.search
                    && race.take_abandoned()
                {
                    self.abandoned = Some(Instant::now());
                }
                match outcome {
                    Outcome::Won(won) => self.won(*won),
                    Outcome::Lost(closing) => self.not_found(closing),
                }
            }
        }
    }

    fn race(&mut self) {
        let rungs = self.rungs();
        if !rungs.is_empty() {
            self.search = Search::Racing(Box::new(Race::new(rungs, self.options.clone())));
            return;
        }
        if self.purpose != Purpose::Connect {
            return self.not_found(Closing::lost("there is nothing better"));
        }
        let offered: Vec<_> = self.offers.iter().map(|offer| offer.via.transport().name()).collect();
        let message = format!("no transport is left to try: the server offers {}", offered.join(", "));
        self.over = Some(Closed { code: "unsupported".into(), close_code: None, message, retry_after: None });
    }

    /// What is worth trying, in its order.
    fn rungs(&self) -> Vec<Rung> {
        let fresh = |since: &Instant| since.elapsed() < self.options.timing.demoted;
        let demoted: HashSet<Via> =
            self.demoted.iter().filter(|(_, since)| fresh(since)).map(|(via, _)| *via).collect();
        let winner = self.winner.filter(|_| self.purpose == Purpose::Connect);
        let preference = Preference { order: &self.options.transports, winner, demoted: demoted.clone() };
        let rungs = ladder(&self.offers, &preference, self.options.timing.head_start);
        match (&self.link, self.purpose) {
            (Some(link), Purpose::Better) => above(rungs, link.via, &demoted),
            _ => rungs,
        }
    }

    fn not_found(&mut self, closing: Closing) {
        self.search = Search::Idle;
        if self.link.is_some() {
            self.plan_move();
        } else {
            self.come_back(closing, false);
        }
    }

    fn won(&mut self, Won { connection, via, link, answer }: Won) {
        if let Some(former) = self.link.take() {
            self.seat.unlink(former.id);
            farewell(former.connection);
        }
        let now = Instant::now();
        self.search = Search::Idle;
        self.winner = Some(via);
        (self.ack_at, self.move_at) = (None, None);
        self.link =
            Some(Link { id: link, via, connection, since: now, heard: now, probe: None, pings: HashMap::new() });
        self.incoming(answer);
    }

    /// Plans a try for a better transport than the present one, if the server has offered one.
    fn plan_move(&mut self) {
        let Some(link) = &self.link else { return };
        if matches!(self.move_at, Some((_, Purpose::Leave))) {
            return;
        }
        let timing = &self.options.timing;
        let preference = Preference { order: &self.options.transports, ..Preference::default() };
        // What is demoted now need not be so for ever.
        let is_worth_it =
            !above(ladder(&self.offers, &preference, timing.head_start), link.via, &HashSet::new()).is_empty();
        let wait = timing.better_cap.min(timing.better.saturating_mul(1 << self.moves.min(16)));
        self.move_at = is_worth_it.then(|| (Instant::now() + wait, Purpose::Better));
    }

    /// The server has spread `after` over its clients; a little earlier leaves time for the move itself.
    fn go_away(&mut self, after: Duration) {
        self.unread.push_back(Event::GoAway { after });
        self.move_at = Some((Instant::now() + after.mul_f64(0.5 + 0.4 * random()), Purpose::Leave));
    }

    // The next token.

    /// Asks the application for a token, if it can be asked; with `lacks` nothing is said to the server before.
    fn begin_renewal(&mut self, lacks: bool) {
        if let Some(renewal) = &self.options.renewal {
            self.renewing.get_or_insert_with(|| renewal.begin());
            self.lacks_token |= lacks;
        }
    }

    fn renewed(&mut self, renewed: Renewed) {
        self.renewing = None;
        let lacked = std::mem::take(&mut self.lacks_token);
        match renewed {
            Ok(token) if self.link.is_some() => {
                // Nobody waits for the answer: a refusal comes as an event.
                let (reply, _) = oneshot::channel();
                let request = Request::token(&token).expect("a string can be JSON");
                self.request(&request, reply);
            }
            Ok(token) => {
                self.token = Some(Token(token));
                self.renews = true;
            }
            Err(why) => {
                let (code, message) = (Code::TokenExpired.name().to_owned(), format!("there is no new token: {why}"));
                if lacked {
                    self.over = Some(Closed { code, close_code: None, message, retry_after: None });
                } else {
                    self.unread.push_back(Event::Refused(Refused { code, message, retry_after_ms: None }));
                }
            }
        }
    }

    // What the application asks.

    fn request(&mut self, request: &Request, reply: oneshot::Sender<Result<(), Refused>>) {
        if request.is_ephemeral() {
            if let Some(Err(error)) = self.link.as_mut().map(|link| link.connection.feed_ephemeral(&request.line(None)))
            {
                self.lose(Closing::of(&error));
            }
            // Whoever asked may have gone.
            let _ = reply.send(Ok(()));
            return;
        }
        match self.seat.request(request) {
            Ok((id, line)) => {
                self.remember(request);
                self.answers.insert(id, reply);
                self.send(&line);
                if request.kind() == "token" {
                    self.say_waiting(request);
                }
            }
            Err(why) => {
                let code = if why == NotTaken::QueueFull { Code::QueueFull } else { Code::TooLarge };
                let refused = Refused { code: code.name().into(), message: why.to_string(), retry_after_ms: None };
                let _ = reply.send(Err(refused));
            }
        }
    }

    /// A new seat is to begin with what was last said of oneself.
    fn remember(&mut self, request: &Request) {
        match request.kind() {
            "metadata" => self.member.metadata = request.field("metadata").cloned(),
            "token" => {
                self.token = request.field("token").and_then(|token| token.read().ok()).map(Token);
                self.renews = true;
            }
            _ => {}
        }
    }

    /// Sends a line that wants an answer on the link in use. Without one, or before its greeting is answered, it waits.
    fn send(&mut self, line: &str) {
        if self.link.as_ref().is_some_and(|link| self.seat.link() == Some(link.id)) {
            self.feed(line);
            self.expect_answer();
        }
    }

    /// Sends what one may say who waits to be admitted. Without an id: those of requests that wait for `joined` are lower.
    fn say_waiting(&mut self, request: &Request) {
        if self.link.as_ref().is_some_and(|link| self.seat.is_waiting(link.id)) {
            self.feed(&request.line(None));
        }
    }

    fn expect_answer(&mut self) {
        let probe = self.options.timing.probe;
        if let Some(link) = &mut self.link {
            link.probe.get_or_insert_with(|| Instant::now() + probe);
        }
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Leave(done) => self.leave(done),
            Control::Ping(reply) => self.ping(Some(reply)),
            Control::Reconnect => {
                self.moves = 0;
                if self.link.is_some() {
                    self.ping(None);
                    self.plan_move();
                } else if matches!(self.search, Search::Resting { asked: false, .. }) {
                    self.search = Search::ask(&self.options, !self.offers.is_empty());
                }
            }
        }
    }

    fn ping(&mut self, reply: Option<oneshot::Sender<Duration>>) {
        let (id, line) = self.seat.ping();
        if let Some(link) = self.link.as_mut().filter(|link| link.pings.len() < PINGS) {
            link.pings.insert(id, (Instant::now(), reply));
            self.feed(&line);
            self.expect_answer();
        }
    }

    fn leave(&mut self, done: oneshot::Sender<()>) {
        let asked = self.seat.request(&Request::leave()).ok();
        let until = Instant::now() + self.options.timing.leave;
        self.leaving = Some(Leaving { id: asked.as_ref().map(|(id, _)| *id), until, done });
        match asked {
            Some((_, line)) if self.patience.is_none() => {
                self.send(&line);
                self.say_waiting(&Request::leave());
            }
            // Nothing to leave yet, or no way to say it: the seat is freed when its window ends.
            _ => self.over = Some(Closed::left()),
        }
    }

    // Time.

    fn next_timer(&self) -> Instant {
        let link = self.link.iter().flat_map(|link| [Some(self.silent_at(link)), link.probe]);
        let moves = self.move_at.filter(|_| matches!(self.search, Search::Idle)).map(|(at, _)| at);
        let others = [self.ack_at, moves, self.leaving.as_ref().map(|leaving| leaving.until)];
        let far = Instant::now() + Duration::from_secs(3600);
        link.chain(others).flatten().min().unwrap_or(far)
    }

    /// When a silent link counts as dead.
    fn silent_at(&self, link: &Link) -> Instant {
        let quiet = if link.via.is_long_poll() { POLL_WAIT } else { Duration::ZERO };
        link.heard.max(link.connection.heard().unwrap_or(link.heard)) + 2 * self.heartbeat + quiet
    }

    fn timer(&mut self) {
        let now = Instant::now();
        if self.leaving.as_ref().is_some_and(|leaving| leaving.until <= now) {
            self.over = Some(Closed::left());
            return;
        }
        self.watch(now);
        if self.ack_at.is_some_and(|at| at <= now) {
            self.ack_at = None;
            let ack = self.seat.take_ack();
            self.feed(&ack);
        }
        if let Some((_, purpose)) = self.move_at.filter(|(at, _)| *at <= now && matches!(self.search, Search::Idle)) {
            self.move_at = None;
            self.moves += 1;
            self.purpose = purpose;
            self.search = Search::ask(&self.options, !self.offers.is_empty());
        }
    }

    /// Notices a link that has died without a word.
    fn watch(&mut self, now: Instant) {
        let reads = self.reads();
        let Some(link) = &mut self.link else { return };
        if !reads {
            // That nothing is heard is this side's doing.
            link.heard = now;
            link.probe = link.probe.map(|_| now + self.options.timing.probe);
        } else if link.probe.is_some_and(|at| at <= now) {
            self.lose(Closing::given_up("the server did not answer in time"));
        } else if self.link.as_ref().is_some_and(|link| self.silent_at(link) <= now) {
            self.lose(Closing::given_up("nothing was heard from the server"));
        }
    }

    // The end.

    async fn end(mut self) {
        self.abort_search();
        if let Some(link) = self.link.take() {
            // The server knows already, or finds out by itself.
            let _ = timeout(FAREWELL, link.connection.close()).await;
        }
        let Some(closed) = self.over.take() else { return };
        let refused = Refused { code: closed.code.clone(), message: closed.message.clone(), retry_after_ms: None };
        for (_, reply) in self.answers.drain() {
            let _ = reply.send(Err(refused.clone()));
        }
        if let Some(leaving) = self.leaving.take() {
            let _ = leaving.done.send(());
        }
        // Who waits for the task rather than for events must not wait for who should read them.
        drop((self.requests, self.controls));
        self.unread.push_back(Event::Closed(closed));
        for event in self.unread {
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// 128 random bits as text.
fn fresh_key() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has a source of chance");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
