//! Event stream and long poll, seen from the client: sessions over plain requests, whatever the version of HTTP.
//!
//! One request brings what comes down, another what goes up. What is under way lives in here and not in the futures of the caller, so
//! that no wait that is given up loses anything.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use super::http::BODY_BYTES;
use super::requests::Requests;
use super::{Download, Error, Event};

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const TICKET: HeaderName = HeaderName::from_static("wigwag-ticket");

/// How long the server is asked to wait when nothing is there, in seconds.
const WAIT: u64 = 25;
/// An empty answer that comes at once must not make a tight loop.
const SHORTEST_POLL: Duration = Duration::from_millis(500);
/// For the head of an answer, beside the wait that was asked for.
const PATIENCE: Duration = Duration::from_secs(15);
/// What one request carries up at most.
const BATCH_LINES: usize = 64;
const BATCH_BYTES: usize = 128 * 1024;

/// One session over plain requests. The first message that is sent opens it; a refusal by HTTP status is told as the
/// `closed` that the other transports would bring.
pub(super) struct Polling {
    target: Arc<Target>,
    is_stream: bool,
    down: Down,
    /// What was received of an event stream and is no whole event yet.
    received: BytesMut,
    events: VecDeque<Received>,
    up: VecDeque<String>,
    posting: Option<Posting>,
    heard: Option<Instant>,
    ticket: Option<String>,
    /// Until there is one: the `join`, with which each request of one who waits to be admitted begins.
    join: Option<String>,
    /// `waiting` was told.
    waits: bool,
    /// The last number that the caller has taken.
    seq: u64,
    /// `leave` was sent: the end that follows is no fault.
    left: bool,
    /// Lines may have been lost on their way up. Nothing behind them may get there without them: the server would count them as handled.
    is_broken: bool,
}

/// Lines on their way up.
struct Posting {
    request: BoxFuture<'static, Result<(), Error>>,
    ticket: String,
    lines: Vec<String>,
}

/// What has come down.
struct Received {
    event: Event,
    /// The number that it counts as.
    seq: Option<u64>,
    /// The `resumed` of a poll that only continues the session: it brings the next ticket and no more.
    continues: bool,
}

/// Where the requests go.
struct Target {
    requests: Requests,
    path: String,
    headers: HeaderMap,
}

/// What comes down.
enum Down {
    /// Nothing yet: the first message opens it.
    Unopened,
    /// A request is under way.
    Asking { request: BoxFuture<'static, Result<Answer, Error>>, opens: bool },
    /// The open event stream.
    Stream(Download),
    /// Between two polls.
    Between,
    /// The session is over.
    Ended,
}

enum Answer {
    Stream(Download),
    Lines(Bytes),
    Refused(Response<Bytes>),
}

impl Target {
    /// Opens a session, or takes it up for one more poll.
    async fn ask(self: Arc<Self>, is_stream: bool, wait: u64, body: String) -> Result<Answer, Error> {
        let begun = Instant::now();
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, NDJSON);
        headers.insert(ACCEPT, if is_stream { EVENT_STREAM } else { NDJSON });
        let prefer = HeaderValue::try_from(format!("wait={wait}")).expect("a number");
        // The caller may want to wait for less, as long as anything is waited for.
        if wait == 0 || !headers.contains_key("prefer") {
            headers.insert(HeaderName::from_static("prefer"), prefer);
        }
        let patience = PATIENCE + Duration::from_secs(wait);
        let response = in_time(patience, self.requests.post(&self.path, &headers, body.into())).await?;
        if response.status() != StatusCode::OK {
            return Ok(Answer::Refused(in_time(PATIENCE, self.requests.read(response, BODY_BYTES)).await?));
        }
        if is_stream {
            return Ok(Answer::Stream(response.into_body()));
        }
        let whole = in_time(patience, self.requests.read(response, BODY_BYTES * 4)).await?.into_body();
        if whole.is_empty() && wait > 0 {
            sleep_until(begun + SHORTEST_POLL).await;
        }
        Ok(Answer::Lines(whole))
    }

    /// Sends lines beside what comes down.
    async fn tell(self: Arc<Self>, ticket: String, body: String) -> Result<(), Error> {
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, NDJSON);
        headers.insert(TICKET, HeaderValue::try_from(ticket).map_err(|error| Error::Url(error.to_string()))?);
        let path = format!("{}/messages", self.path);
        let response = in_time(PATIENCE, self.requests.post(&path, &headers, body.into())).await?;
        // An unread body would hold its connection.
        let answer = in_time(PATIENCE, self.requests.read(response, BODY_BYTES)).await?;
        if answer.status() == StatusCode::ACCEPTED { Ok(()) } else { Err(Error::Refused(Box::new(answer))) }
    }
}

impl Polling {
    pub(super) fn new(requests: Requests, path: String, is_stream: bool, headers: &HeaderMap) -> Self {
        let target = Target { requests, path, headers: headers.clone() };
        Polling {
            target: Arc::new(target),
            is_stream,
            down: Down::Unopened,
            received: BytesMut::new(),
            events: VecDeque::new(),
            up: VecDeque::new(),
            posting: None,
            heard: None,
            ticket: None,
            join: None,
            waits: false,
            seq: 0,
            left: false,
            is_broken: false,
        }
    }

    /// When something last came down.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// Queues one message: for the request that opens the session, or for one beside it.
    pub(super) fn feed(&mut self, message: &str) {
        if matches!(self.down, Down::Unopened) {
            // On a poller's seat it is answered when something waits; the first must show at once that it works.
            self.join = message.contains(r#""type":"join""#).then(|| message.to_owned());
            self.ask(0, message.to_owned(), true);
        } else if message.contains(r#""type":"leave""#) && matches!(self.down, Down::Between) {
            // With the next poll: a seat that was left between two polls has nobody to tell `ok`.
            self.left = true;
            self.poll(message);
        } else {
            self.left |= message.contains(r#""type":"leave""#);
            self.up.push_back(message.to_owned());
        }
    }

    /// Sends what was queued; ready when the server has it.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.is_broken {
            return Poll::Ready(Err(Error::Io(std::io::ErrorKind::BrokenPipe.into())));
        }
        if matches!(self.down, Down::Asking { opens: true, .. }) {
            ready!(self.poll_answer(cx))?;
        }
        loop {
            if let Some(posting) = &mut self.posting {
                let posted = ready!(posting.request.as_mut().poll(cx));
                let Posting { ticket, lines, .. } = self.posting.take().expect("it was there a moment ago");
                match posted {
                    Ok(()) => {}
                    // Polls have used up two tickets while the lines were on their way: nothing of them was taken.
                    Err(Error::Refused(refusal))
                        if refusal.status() == StatusCode::UNAUTHORIZED && self.ticket != Some(ticket) =>
                    {
                        lines.into_iter().rev().for_each(|line| self.up.push_front(line));
                    }
                    Err(error) => {
                        self.is_broken = true;
                        return Poll::Ready(Err(error));
                    }
                }
            }
            if self.waits && self.ticket.is_none() && !self.up.is_empty() {
                self.bring_along();
                ready!(self.poll_answer(cx))?;
                continue;
            }
            // Lines without a ticket have nowhere to go: the session is refused, which is told by what comes down.
            let Some(ticket) = self.ticket.clone().filter(|_| !self.up.is_empty()) else { return Poll::Ready(Ok(())) };
            let (target, lines) = (Arc::clone(&self.target), self.take_batch());
            let request = Box::pin(target.tell(ticket.clone(), lines.join("\n")));
            self.posting = Some(Posting { request, ticket, lines });
        }
    }

    fn take_batch(&mut self) -> Vec<String> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_LINES {
            let fits = |line: &mut String| bytes == 0 || bytes + line.len() < BATCH_BYTES;
            let Some(line) = self.up.pop_front_if(fits) else { break };
            bytes += line.len() + 1;
            batch.push(line);
        }
        batch
    }

    /// Waits for the next message; what `continues` a poll is told only if `all` are wanted.
    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>, all: bool) -> Poll<Result<Event, Error>> {
        loop {
            if let Some(Received { event, seq, continues }) = self.events.pop_front() {
                self.seq = self.seq.max(seq.unwrap_or(0));
                if all || !continues {
                    return Poll::Ready(Ok(event));
                }
                continue;
            }
            match &mut self.down {
                Down::Unopened => return Poll::Pending,
                Down::Asking { .. } => ready!(self.poll_answer(cx))?,
                Down::Stream(_) => ready!(self.poll_stream(cx))?,
                Down::Between if self.left => self.down = Down::Ended,
                Down::Between => self.poll(""),
                Down::Ended => {
                    let reason = if self.left { "left" } else { "" }.to_owned();
                    return Poll::Ready(Ok(Event::Closed { code: None, reason }));
                }
            }
        }
    }

    fn ask(&mut self, wait: u64, body: String, opens: bool) {
        let request = Arc::clone(&self.target).ask(self.is_stream, wait, body);
        self.down = Down::Asking { request: Box::pin(request), opens };
    }

    /// Who waits to be admitted has no ticket to send lines by: the `join` is said again and brings them along, and overtakes
    /// what is under way.
    fn bring_along(&mut self) {
        let lines = self.take_batch().join("\n");
        let join = self.join.as_deref().unwrap_or_default();
        self.ask(0, format!("{join}\n{lines}"), true);
    }

    /// One more poll, which may bring a line of its own.
    fn poll(&mut self, line: &str) {
        let greeting = match (&self.ticket, &self.join) {
            (None, Some(join)) => join.clone(),
            (ticket, _) => {
                json!({"type": "resume", "ticket": ticket.as_deref().unwrap_or_default(), "seq": self.seq}).to_string()
            }
        };
        self.ask(WAIT, format!("{greeting}\n{line}"), false);
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Down::Asking { request, opens } = &mut self.down else { return Poll::Ready(Ok(())) };
        let opens = *opens;
        let answer = ready!(request.as_mut().poll(cx));
        self.down = Down::Ended;
        self.heard = Some(Instant::now());
        match answer? {
            Answer::Stream(body) => self.down = Down::Stream(body),
            Answer::Lines(whole) => {
                self.down = Down::Between;
                for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    self.message(line, opens);
                }
            }
            Answer::Refused(refusal) if opens && !self.waits && refusal.status() == StatusCode::FORBIDDEN => {
                return Poll::Ready(Err(Error::Refused(Box::new(refusal))));
            }
            Answer::Refused(refusal) => self.message(closed(&refusal).to_string().as_bytes(), true),
        }
        Poll::Ready(Ok(()))
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Down::Stream(body) = &mut self.down else { return Poll::Ready(Ok(())) };
        let Some(part) = ready!(body.poll_chunk(cx))? else {
            self.down = Down::Ended;
            return Poll::Ready(Ok(()));
        };
        self.heard = Some(Instant::now());
        self.received.extend_from_slice(&part);
        while let Some(data) = take_event(&mut self.received) {
            if !data.is_empty() {
                self.message(&data, true);
            }
        }
        if self.received.len() > 4 * BODY_BYTES {
            return Poll::Ready(Err(Error::Body("an event of more than 4 MiB".into())));
        }
        Poll::Ready(Ok(()))
    }

    fn message(&mut self, text: &[u8], opened: bool) {
        let text = String::from_utf8_lossy(text).into_owned();
        let message: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut seq = message["seq"].as_u64();
        if let Some(ticket) = message["ticket"].as_str() {
            self.ticket = Some(ticket.to_owned());
            seq = message["replayFrom"].as_u64().map(|next| next.saturating_sub(1));
        }
        let waits = message["type"] == "waiting";
        let continues = !opened && message["type"] == "resumed" || waits && self.waits;
        self.waits |= waits;
        self.events.push_back(Received { event: Event::Message(text), seq, continues });
        if message["type"] == "closed" {
            let code = message["closeCode"].as_u64().and_then(|code| code.try_into().ok());
            let event = Event::Closed { code, reason: String::new() };
            self.events.push_back(Received { event, seq: None, continues: false });
            self.down = Down::Ended;
        }
    }
}

/// The data of the first whole event; `None` until one is there.
pub(super) fn take_event(received: &mut BytesMut) -> Option<Vec<u8>> {
    let end = received.windows(2).position(|pair| pair == b"\n\n")?;
    let event = received.split_to(end + 2);
    let data = event.as_ref().split(|byte: &u8| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data: "));
    Some(data.collect::<Vec<_>>().concat())
}

/// A refusal by status, told as other transports tell it.
pub(super) fn closed(refusal: &Response<Bytes>) -> Value {
    let mut problem: Value = serde_json::from_slice(refusal.body()).unwrap_or_default();
    let mut closed = json!({"type": "closed", "message": problem["detail"].take()});
    for member in ["code", "closeCode", "retryAfterMs"] {
        if !problem[member].is_null() {
            closed[member] = problem[member].take();
        }
    }
    closed
}

/// Waits for `answer`, but no longer than `patience`.
async fn in_time<T>(patience: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "the server did not answer in time");
    timeout(patience, answer).await.map_err(late)?
}
