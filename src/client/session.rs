//! One peer's place in one room, kept through the loss and the change of transports.
//!
//! A [`Session`] finds the best transport that works, comes back by itself when it is lost, moves to a better one when there is
//! one, and to another when the present one falls silent; the application sees one ordered stream of [`Event`]s and gets one
//! answer to each [`Request`].
//!
//! One task drives a session; it ends with the session, or when the [`Session`] is dropped.
//!
//! ```no_run
//! use wigwag::client::session::{Event, Options, Session};
//! use wigwag::client::{Request, Trust};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let server = "https://signal.example".parse()?;
//! let options = Options::new(&server, "demo", Trust::new(rustls::RootCertStore::empty(), vec![])?)?
//!     .metadata(&serde_json::json!({"name": "camera 7"}))?;
//! let mut session = Session::connect(options).await?;
//!
//! // Everybody in the room gets it, once and in order, whatever becomes of the connection.
//! let answer = session.send(Request::broadcast("hello")?).await?;
//! answer.await?;
//!
//! while let Some(event) = session.next().await {
//!     match event {
//!         Event::Message { from, data } => println!("{from}: {}", data.json()),
//!         Event::TransportChanged { from, to } => println!("{from} -> {to}"),
//!         Event::Reconnecting { why, .. } => println!("away: {why}"),
//!         Event::Closed(why) => println!("over: {why}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{HeaderMap, Uri};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

pub use super::event::{Closed, Event};
pub use super::message::{IceServers, Joined, Own, Peer, PeerState, Refused, Room};

use super::driver::{Control, Driver};
use super::message::Payload;
pub use super::renewal::Renewal;
use super::request::Request;
use super::roster::Roster;
use super::seat::Token;
use super::{Endpoint, Error, Trust, Via};
use crate::protocol::RoomName;

/// Requests on their way from the application to the session's task.
const REQUESTS: usize = 64;
/// Events on their way to the application.
const EVENTS: usize = 64;

/// Where to go, as whom, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to ask for the discovery; the transports may be elsewhere.
    pub server: Endpoint,
    /// The room.
    pub room: RoomName,
    /// What is trusted. Certificates' hashes in the discovery come on top, so that a self-made certificate will do for QUIC where
    /// the discovery itself can be trusted.
    pub trust: Trust,
    /// What the others are told: a JSON object.
    pub metadata: Option<Payload>,
    /// Proves who one is, where the server asks for that.
    pub token: Option<Token>,
    /// Where the next one comes from.
    pub renewal: Option<Renewal>,
    /// Headers for every opening (`Origin`, `Authorization`).
    pub headers: HeaderMap,
    /// The transports to use and the order to try them in; empty: all that the server offers, in its order.
    pub transports: Vec<Via>,
    /// How long [`Session::connect`] goes on trying. Nothing: one try of every transport.
    pub patience: Duration,
    /// How long everything may take.
    pub timing: Timing,
}

impl Options {
    /// To `room` at `server`, an `http` or `https` URL.
    ///
    /// # Errors
    /// [`Error::Url`] if the URL cannot be used, or the room's name is none.
    pub fn new(server: &Uri, room: &str, trust: Trust) -> Result<Self, Error> {
        let room = RoomName::parse(room).map_err(|error| Error::Url(format!("{room}: {error}")))?;
        Ok(Options::at(Endpoint::of(server)?, room, trust))
    }

    /// The same with what has been read before.
    pub fn at(server: Endpoint, room: RoomName, trust: Trust) -> Self {
        Options {
            server,
            room,
            trust,
            metadata: None,
            token: None,
            renewal: None,
            headers: HeaderMap::new(),
            transports: Vec::new(),
            patience: Duration::ZERO,
            timing: Timing::default(),
        }
    }

    /// Tells the others something of oneself, as a JSON object.
    ///
    /// # Errors
    /// If it cannot be JSON.
    pub fn metadata(self, metadata: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        Ok(Options { metadata: Some(Payload::of(metadata)?), ..self })
    }

    /// Shows a token.
    pub fn token(self, token: impl Into<String>) -> Self {
        Options { token: Some(Token(token.into())), ..self }
    }

    /// Gets a new token by `renew` when the present one is about to end, when it has ended, and before a new seat is asked for; and
    /// the first one, if there is no [`token`](Self::token). An error, or an answer that takes too long, is
    /// [`Event::Refused`], or [`Event::Closed`] where nothing goes on without a token.
    pub fn renew_token<F, R, E>(self, renew: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, E>> + Send + 'static,
        E: std::fmt::Display,
    {
        Options { renewal: Some(Renewal::by(renew)), ..self }
    }

    /// Uses these transports and no others.
    pub fn transports(self, transports: impl Into<Vec<Via>>) -> Self {
        Options { transports: transports.into(), ..self }
    }

    /// Lets [`Session::connect`] try again for so long.
    pub fn patience(self, patience: Duration) -> Self {
        Options { patience, ..self }
    }
}

/// Every wait of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// A transport's head start over the next one; before the last resorts six and twelve times as long.
    pub head_start: Duration,
    /// For the discovery's answer.
    pub discovery: Duration,
    /// For the same when an earlier answer can take its place.
    pub rediscovery: Duration,
    /// For a transport to get so far that the greeting may be sent: over HTTP/2 and HTTP/3 it goes with the request that opens the
    /// transport, over HTTP/1.1 behind its answer.
    pub open: Duration,
    /// For the answer to `join` or `resume`, and to what it went with, while another transport that got so far waits for its turn …
    pub patience: Duration,
    /// … and when none does.
    pub answer: Duration,
    /// The first span of full-jitter backoff.
    pub backoff_base: Duration,
    /// The longest. Half the default resume window.
    pub backoff_cap: Duration,
    /// A transport that dies younger than this has not worked: the backoff goes on growing, and the transport goes to the end.
    pub young: Duration,
    /// How long a transport that died young stays at the end.
    pub demoted: Duration,
    /// An acknowledgement waits this long for company.
    pub ack: Duration,
    /// While a request or a ping is not answered, the longest silence of a transport that lives.
    pub probe: Duration,
    /// The first wait before a better transport is tried; it doubles each time …
    pub better: Duration,
    /// … up to this.
    pub better_cap: Duration,
    /// For the answer to `leave`.
    pub leave: Duration,
    /// After a greeting of one's own was given up, a `replaced` may be its doing, late on its way.
    pub own_replaced: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            head_start: Duration::from_millis(250),
            discovery: Duration::from_secs(5),
            rediscovery: Duration::from_secs(2),
            open: Duration::from_secs(8),
            patience: Duration::from_secs(3),
            answer: Duration::from_secs(10),
            backoff_base: Duration::from_millis(500),
            backoff_cap: Duration::from_secs(15),
            young: Duration::from_secs(5),
            demoted: Duration::from_secs(600),
            ack: Duration::from_millis(500),
            probe: Duration::from_secs(3),
            better: Duration::from_secs(30),
            better_cap: Duration::from_secs(600),
            leave: Duration::from_secs(2),
            own_replaced: Duration::from_secs(30),
        }
    }
}

/// A request on its way to the session's task, and where its answer goes.
pub(super) type Asked = (Request, oneshot::Sender<Result<(), Refused>>);

/// One peer's place in one room. Dropping it gives the connection up without leaving: the seat is kept for the resume window, as
/// if the network had failed; [`leave`](Session::leave) says good-bye.
#[derive(Debug)]
pub struct Session {
    sender: Sender,
    events: mpsc::Receiver<Event>,
    /// What came before `connect` was through.
    early: VecDeque<Event>,
    roster: Roster,
}

impl Session {
    /// Joins the room. Resolves when one is in, or waits to be admitted; the first event is [`Event::Joined`] or
    /// [`Event::Waiting`]. Later failures do not end the session but are [`Event::Reconnecting`].
    ///
    /// Cancel safe: dropping the future gives the join up.
    ///
    /// # Errors
    /// [`Closed`] if the server refuses, or no transport works within [`Options::patience`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn connect(options: Options) -> Result<Self, Closed> {
        let (events_in, events) = mpsc::channel(EVENTS);
        let (requests, requests_out) = mpsc::channel(REQUESTS);
        let (controls, controls_out) = mpsc::channel(1);
        tokio::spawn(Driver::new(options, events_in, requests_out, controls_out).run());
        let sender = Sender { requests, controls };
        let mut session = Session { sender, events, early: VecDeque::new(), roster: Roster::default() };
        while let Some(event) = session.events.recv().await {
            match event {
                Event::Joined(_) | Event::Waiting => {
                    session.early.push_back(event);
                    return Ok(session);
                }
                Event::Closed(why) => return Err(why),
                _ => {}
            }
        }
        Err(Closed::left())
    }

    /// Waits for the next event; `None` after [`Event::Closed`]. Cancel safe.
    ///
    /// Events must be taken: with a few hundred of them waiting, the session stops reading, and the server closes whoever does
    /// not read.
    pub async fn next(&mut self) -> Option<Event> {
        let event = match self.early.pop_front() {
            Some(event) => event,
            None => self.events.recv().await?,
        };
        if let Event::Joined(joined) = &event {
            self.roster.replace(joined);
        } else if let Some(change) = event.change() {
            self.roster.apply(None, change);
        }
        Some(event)
    }

    /// The room as the events taken so far show it.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// A sender that other tasks can have.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Sends a request: see [`Sender::send`].
    ///
    /// # Errors
    /// [`Over`] if the session is closed.
    pub async fn send(&self, request: Request) -> Result<Answer, Over> {
        self.sender.send(request).await
    }

    /// Measures the round trip to the server: see [`Sender::ping`].
    ///
    /// # Errors
    /// [`Over`] if there is no connection to measure, or it is lost before the answer.
    pub async fn ping(&self) -> Result<Duration, Over> {
        self.sender.ping().await
    }

    /// Tries to connect now; where there is a connection, checks that it lives: for when the network is known to have changed.
    pub async fn reconnect(&self) {
        // Without a task there is nothing to connect.
        let _ = self.sender.controls.send(Control::Reconnect).await;
    }

    /// Leaves the room. Resolves when the server knows it, or after [`Timing::leave`]. Events go on until [`Event::Closed`] with
    /// code `left`. Requests that have no answer yet may be given up: wait for their answers before.
    ///
    /// Cancel safe: once begun, it goes on by itself.
    pub async fn leave(&self) {
        let (done, is_done) = oneshot::channel();
        // An error means that the session was over before.
        if self.sender.controls.send(Control::Leave(done)).await.is_ok() {
            let _ = is_done.await;
        }
    }
}

/// Makes requests of a session. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender {
    requests: mpsc::Sender<Asked>,
    controls: mpsc::Sender<Control>,
}

impl Sender {
    /// Sends a request, now or when there is a connection again; it is carried out once, and requests arrive in the order in
    /// which they were sent. Waits while more than 1,024 requests or nearly 1 MiB of them have no answer yet.
    ///
    /// Cancel safe: dropped before it resolves, nothing is sent.
    ///
    /// # Errors
    /// [`Over`] if the session is closed.
    pub async fn send(&self, request: Request) -> Result<Answer, Over> {
        let (reply, answer) = oneshot::channel();
        self.requests.send((request, reply)).await.map_err(|_| Over)?;
        Ok(Answer(answer))
    }

    /// Measures the round trip to the server.
    ///
    /// # Errors
    /// [`Over`] if there is no connection to measure, or it is lost before the answer.
    pub async fn ping(&self) -> Result<Duration, Over> {
        let (reply, pong) = oneshot::channel();
        self.controls.send(Control::Ping(reply)).await.map_err(|_| Over)?;
        pong.await.map_err(|_| Over)
    }
}

/// The server's answer to a request, when it comes. May be dropped: then a refusal comes as [`Event::Refused`].
///
/// Of an ephemeral message there is no answer; this resolves at once.
#[derive(Debug)]
#[must_use = "a refusal is told here"]
pub struct Answer(oneshot::Receiver<Result<(), Refused>>);

impl Future for Answer {
    type Output = Result<(), Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let over = || Refused { code: "left".into(), message: Over.to_string(), retry_after_ms: None };
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or_else(|_| Err(over())))
    }
}

/// There is no session, or no connection, any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session is closed or has no connection")]
pub struct Over;
