//! Event stream and long poll: sessions over plain requests, for networks that let nothing else through.
//!
//! `POST` on a room brings lines, the first of which is `join` or `resume`, and is answered by messages: by a stream of
//! server-sent events that does not end, or by what waits at the moment. A long poll is a `resume` whose answer is short, and
//! so both are the same request with another `Accept`. What comes later goes by `POST` on `…/messages` with the ticket.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, RETRY_AFTER, TE, TRAILER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use http_body_util::{BodyExt as _, LengthLimitError, Limited, StreamBody};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::{DropGuard, PollSender, WaitForCancellationFutureOwned};
use tower_http::cors::{AllowOrigin, CorsLayer};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

use super::admit::{self, Opening};
use super::carry;
use super::{Close, Received, Transport, Via, Wire, WireError, drive};
use crate::clients::Client;
use crate::context::Context;
use crate::hub::Speaker;
use crate::metrics::Entry;
use crate::pace::jitter;
use crate::problem::{problem, problem_with_status};
use crate::protocol::{Code, Command, Frame, Grant, ROOMS_PATH, Refusal, Request as Message, RoomName, Ticket, notice};
use crate::traces::Span;

const NDJSON: &str = "application/x-ndjson";
const EVENT_STREAM: &str = "text/event-stream";
const TICKET: HeaderName = HeaderName::from_static("wigwag-ticket");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const PREFER: HeaderName = HeaderName::from_static("prefer");
/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// How long a poll waits that does not say so, and at the most (RFC 7240, 4.3).
const WAIT: Duration = Duration::from_secs(25);
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What one poll's answer may have; the rest is the next one's.
const ANSWER_BYTES: usize = 1024 * 1024;

/// CORS for the origins that may open sessions.
pub fn cors(context: &Context) -> CorsLayer {
    let origins = context.origins.clone();
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| origins.allow(Some(origin.as_bytes()))))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([CONTENT_TYPE, PREFER, AUTHORIZATION, TICKET, TRACEPARENT, TRACESTATE])
        .expose_headers([CONTENT_DISPOSITION, RETRY_AFTER])
        .max_age(Duration::from_secs(3600))
}

/// `POST` on a room: opens a session, or takes one up again.
pub async fn open(State(context): State<Arc<Context>>, Extension(via): Extension<Via>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let transport = match negotiate(&parts.headers) {
        Ok(transport) => transport,
        Err((status, refusal)) => return problem_with_status(status, &refusal),
    };
    // Counts by itself what it refuses.
    let opening = match Opening::admit(&parts, transport, via, &context).await {
        Ok(opening) => opening,
        Err(refusal) => return problem(&refusal),
    };
    let opened = async {
        let whole = read_body(body, &context).await?;
        let lines = split_lines(&whole, context.config.limits.frame_bytes)?;
        let (first, rest) = lines.split_first().ok_or_else(no_first_message)?;
        let message = Message::parse(first, &context.config.limits).map_err(|invalid| invalid.refusal)?;
        context.metrics.message(transport, message.command.name());
        if transport == Transport::EventStream {
            let mut response = event_stream(opening, message, rest, &context).await?;
            if takes_trailers(&parts) {
                response.headers_mut().insert(TRAILER, HeaderValue::from_static("Server-Timing"));
            }
            Ok(response)
        } else {
            let Opening { room, client, grant, begun, place: _place, .. } = opening;
            let mut poll = Poll { room, client, grant, begun, wait: wait(&parts), trace: Span::NONE };
            let token = admit::bearer(&parts.headers)?;
            let carried = carry::poll(&poll, &message.command, token, &whole, &context).await;
            let answered = match carried.transpose() {
                Some(answered) => answered,
                None => {
                    poll.trace = trace_of(&poll, &message.command, &parts, &context);
                    let answered = long_poll(&poll, message, rest, &context).await;
                    answered.inspect_err(|refusal| poll.trace.fail(refusal.code.name()))
                }
            };
            let body = answered.inspect_err(|refusal| context.hub.note_refusal(&poll.room, refusal.code))?;
            Ok(answer(StatusCode::OK, NDJSON, Body::from(body)))
        }
    };
    opened.await.unwrap_or_else(|refusal: Refusal| {
        context.metrics.refused_opening(transport, refusal.code);
        problem(&refusal)
    })
}

/// `POST` on a room's messages: lines for the session that the ticket proves.
pub async fn messages(
    State(context): State<Arc<Context>>,
    Extension(via): Extension<Via>,
    request: Request,
) -> Response {
    let (parts, mut body) = request.into_parts();
    if !is_ndjson(&parts.headers) {
        let (status, refusal) = unsupported();
        return problem_with_status(status, &refusal);
    }
    let accepted = async {
        let client = context.client(via.remote.ip(), &parts.headers)?;
        let (room, ticket) = shown(&parts, &client, &context).await?;
        if context.hub.is_carried(&room, ticket) {
            let whole = read_body(body, &context).await?;
            split_lines(&whole, context.config.limits.frame_bytes)?;
            if carry::lines(&room, ticket, &client, &whole, &context).await?.is_some() {
                return Ok(());
            }
            body = Body::from(whole);
        }
        let speaker = admit::note_failure(&client, context.hub.speaker(&room, ticket))?;
        let whole = read_body(body, &context).await?;
        speak(speaker, &whole, &client, &context.traces.request(&parts), &context).await
    };
    match accepted.await {
        Ok(()) => answer(StatusCode::ACCEPTED, NDJSON, Body::empty()),
        Err(refusal) => problem(&refusal),
    }
}

/// Carries out the lines of a body.
///
/// # Errors
/// `tooLarge` for a line, before any is carried out; why the seat is no longer the speaker's.
pub(super) async fn speak(
    mut speaker: Speaker,
    whole: &Bytes,
    client: &Client,
    trace: &Span,
    context: &Context,
) -> Result<(), Refusal> {
    let transport = speaker.transport();
    for line in split_lines(whole, context.config.limits.frame_bytes)? {
        while !drive::carry_out(&speaker, &line, transport, client, trace, context).await {
            // Polls follow one another while lines are on their way.
            let next = if transport == Transport::LongPoll { speaker.after_poll() } else { None };
            speaker = next.ok_or_else(|| speaker.staleness())?;
        }
    }
    Ok(())
}

/// Begins a session whose messages are server-sent events until one side ends it.
async fn event_stream(
    opening: Opening,
    message: Message<'_>,
    rest: &[Bytes],
    context: &Arc<Context>,
) -> Result<Response, Refusal> {
    let taken = drive::take_seat(&opening, message, context).await;
    let (session, greeting) = taken.inspect_err(|refusal| opening.trace.fail(refusal.code.name()))?;
    for line in rest {
        drive::carry_out(&session, line, Transport::EventStream, &opening.client, &opening.trace, context).await;
    }
    let (wire, body) = EventStream::new();
    context.tasks.spawn(drive::carry_on(wire, opening, session, greeting, Arc::clone(context)));
    Ok(answer(StatusCode::OK, EVENT_STREAM, body))
}

/// A long poll, from whichever node it has come.
pub(super) struct Poll {
    pub(super) room: RoomName,
    pub(super) client: Client,
    /// What the token in its head allows, where there is one.
    pub(super) grant: Option<Grant>,
    pub(super) begun: Instant,
    /// How long it waits when there is nothing.
    pub(super) wait: Duration,
    /// How the session comes about that it opens, if it does.
    pub(super) trace: Span,
}

/// The trace of a poll that opens a session, or moves one; there is none of the next poll of a session, of which there are many.
fn trace_of(poll: &Poll, first: &Command<'_>, parts: &Parts, context: &Context) -> Span {
    let opens = match first {
        Command::Resume(resume) => !context.hub.is_next_poll(&poll.room, resume),
        _ => true,
    };
    if !opens {
        return Span::NONE;
    }
    let trace = context.traces.opening(parts, Transport::LongPoll, poll.begun);
    trace.is_in(&poll.room);
    trace
}

/// Answers a poll by its whole body.
///
/// # Errors
/// As for one that has come here.
pub(super) async fn poll_by(poll: &Poll, whole: &Bytes, context: &Context) -> Result<Bytes, Refusal> {
    let lines = split_lines(whole, context.config.limits.frame_bytes)?;
    let (first, rest) = lines.split_first().ok_or_else(no_first_message)?;
    let message = Message::parse(first, &context.config.limits).map_err(|invalid| invalid.refusal)?;
    long_poll(poll, message, rest, context).await
}

/// Answers with what waits for the seat, as soon as there is something.
async fn long_poll(asked: &Poll, message: Message<'_>, rest: &[Bytes], context: &Context) -> Result<Bytes, Refusal> {
    let (hub, room, wait, trace) = (&context.hub, &asked.room, asked.wait, &asked.trace);
    let until = Instant::now() + wait;
    let next_poll = until + 2 * context.config.heartbeat;
    let (how, poll) = match &message.command {
        Command::Join(join) => {
            if !hub.is_waiting_poll(room, join) {
                admit::hold_back(context.let_in(&asked.client)).await?;
            }
            let grant = authorize(asked, &message.command, context).await?;
            let _step = trace.step("enter");
            let _entering = hub.enter(room).await?;
            (Entry::Join, hub.join_by_poll(room, join, grant, next_poll)?)
        }
        Command::Resume(resume) => {
            if !hub.is_next_poll(room, resume) {
                admit::hold_back(context.let_in(&asked.client)).await?;
            }
            let renewal = authorize(asked, &message.command, context).await?;
            let _step = trace.step("enter");
            admit::note_failure(&asked.client, hub.fetch(room, resume, renewal.as_ref()).await)?;
            let how = if hub.is_served(room, resume) { Entry::Move } else { Entry::Resume };
            (how, admit::note_failure(&asked.client, hub.poll(room, resume, renewal, next_poll))?)
        }
        _ => return Err(no_first_message()),
    };
    poll.speaker().is_at(asked.client.address());
    trace.is_of(poll.speaker().peer());
    trace.is_by(how.name());
    trace.end("begun");
    if poll.moved() || how == Entry::Resume {
        context.metrics.entered(Transport::LongPoll, how, asked.begun.elapsed());
    }
    if poll.moved() {
        context.metrics.began(Transport::LongPoll);
    }
    for line in rest {
        let carried_out =
            drive::carry_out(poll.speaker(), line, Transport::LongPoll, &asked.client, trace, context).await;
        if !carried_out && !poll.speaker().has_left() {
            // With an answer the client would go on with later lines, and these would count as handled.
            return Err(poll.speaker().staleness());
        }
    }
    let draining = || context.drain.is_raised();
    let mut leaves = draining() && poll.tell_go_away();
    let mut due = leaves || poll.is_due();
    if !due {
        tokio::select! {
            () = poll.ready() => due = true,
            () = sleep_until(until.into()) => due = wait.is_zero(),
            () = context.drain.raised(), if !draining() => leaves = poll.tell_go_away(),
            // What waits is of more use than a last word: nobody will replay it.
            () = context.stop.raised() => due = poll.is_due(),
        }
    }
    if !due && !leaves && context.stop.is_raised() {
        return Err(context.going_away());
    }
    let go_away = leaves.then(|| notice::go_away(jitter(context.config.drain / 2)));
    let mut body = BytesMut::new();
    for frame in poll.answer(due || leaves, go_away, ANSWER_BYTES)? {
        put_line(&mut body, &frame);
    }
    Ok(body.freeze())
}

async fn authorize(poll: &Poll, first: &Command<'_>, context: &Context) -> Result<Option<Grant>, Refusal> {
    let _step = poll.trace.step("authorize");
    drive::authorize(&poll.room, &poll.client, poll.grant.as_ref(), first, context).await
}

/// Reads a body to its end. It may have the bytes that a seat's queue may have, so that a client
/// can send again all that was not answered.
async fn read_body(body: Body, context: &Context) -> Result<Bytes, Refusal> {
    let limits = &context.config.limits;
    let most = limits.queue_bytes.max(limits.frame_bytes);
    let read = timeout(Duration::from_millis(limits.first_message_ms), Limited::new(body, most).collect()).await;
    match read {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Refusal::new(Code::TooLarge, format!("a body may have {most} bytes")))
        }
        Ok(Err(_)) => Err(Refusal::bad_request("the body broke off")),
        Err(_) => Err(Refusal::new(Code::Timeout, "the body was not there in time")),
    }
}

/// The lines of a whole body, of at most `limit` bytes each; empty ones are left out.
fn split_lines(whole: &Bytes, limit: usize) -> Result<Vec<Bytes>, Refusal> {
    let mut lines = Vec::new();
    for line in whole.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > limit {
            return Err(Refusal::new(Code::TooLarge, format!("a line may have {limit} bytes")));
        }
        if !line.is_empty() {
            lines.push(whole.slice_ref(line));
        }
    }
    Ok(lines)
}

fn no_first_message() -> Refusal {
    Refusal::bad_request("the first line must be join or resume")
}

/// Whose seat the ticket of a request beneath a room's path proves.
///
/// # Errors
/// `badRequest` for the room's name, `forbidden` for the `Origin`, `rateLimited` after too many bad tickets, and those of
/// [`Hub::speaker`](crate::hub::Hub::speaker).
pub(crate) async fn speaker(parts: &Parts, client: &Client, context: &Context) -> Result<Speaker, Refusal> {
    let (room, ticket) = shown(parts, client, context).await?;
    admit::note_failure(client, context.hub.speaker(&room, ticket))
}

/// The room and the ticket of such a request, which is still to be looked at.
async fn shown(parts: &Parts, client: &Client, context: &Context) -> Result<(RoomName, Option<Ticket>), Refusal> {
    admit::check_origin(&parts.headers, context)?;
    admit::hold_back(admit::may_try(client, context)).await?;
    Ok((room_of(parts)?, ticket(&parts.headers)))
}

fn room_of(parts: &Parts) -> Result<RoomName, Refusal> {
    let name = parts.uri.path().strip_prefix(ROOMS_PATH).and_then(|rest| rest.split('/').next());
    RoomName::parse(name.unwrap_or_default()).map_err(|invalid| Refusal::bad_request(invalid.to_string()))
}

fn ticket(headers: &HeaderMap) -> Option<Ticket> {
    Ticket::parse(headers.get(TICKET)?.to_str().ok()?)
}

/// Which of the two transports is asked for, or how to refuse what is neither.
fn negotiate(headers: &HeaderMap) -> Result<Transport, (StatusCode, Refusal)> {
    if !is_ndjson(headers) {
        return Err(unsupported());
    }
    let accepted =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    for media_type in accepted.map(essence) {
        match media_type {
            EVENT_STREAM => return Ok(Transport::EventStream),
            NDJSON => return Ok(Transport::LongPoll),
            _ => {}
        }
    }
    let refusal = Refusal::bad_request("Accept must be text/event-stream or application/x-ndjson");
    Err((StatusCode::NOT_ACCEPTABLE, refusal))
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(essence) == Some(NDJSON)
}

fn unsupported() -> (StatusCode, Refusal) {
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, Refusal::bad_request("Content-Type must be application/x-ndjson"))
}

/// A media type without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// `Prefer: wait=N` (RFC 7240, 4.3).
fn wait(parts: &Parts) -> Duration {
    let preferences = parts.headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut waits =
        preferences.flat_map(|list| list.split([',', ';'])).filter_map(|one| one.trim().strip_prefix("wait="));
    let seconds = waits.next().and_then(|seconds| seconds.trim_matches('"').parse().ok());
    seconds.map_or(WAIT, |seconds| Duration::from_secs(seconds).min(MAX_WAIT))
}

/// HTTP/1.1 drops trailers that the client has not asked for (RFC 9110, 6.5.1); the later versions frame them.
fn takes_trailers(parts: &Parts) -> bool {
    let asked = parts.headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    parts.version > Version::HTTP_11 || asked.flat_map(|list| list.split(',')).map(essence).any(|te| te == "trailers")
}

fn put_line(body: &mut BytesMut, frame: &Frame) {
    body.reserve(frame.len() + 1);
    frame.put(body);
    body.put_u8(b'\n');
}

fn answer(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that honour it (nginx) pass each event on as it comes.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// One event stream, seen from the server: nothing comes in on it.
struct EventStream {
    /// To the response's body, which takes the next part when HTTP's flow control has taken the last.
    body: PollSender<http_body::Frame<Bytes>>,
    /// Events on their way to it.
    pending: BytesMut,
    begun: Instant,
    /// How many events there were.
    events: u64,
    /// Completes when the body is dropped: the client, or its connection, is gone.
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl EventStream {
    fn new() -> (Self, Body) {
        let (sender, mut receiver) = mpsc::channel(1);
        let gone = tokio_util::sync::CancellationToken::new();
        let wire = EventStream {
            body: PollSender::new(sender),
            pending: BytesMut::new(),
            begun: Instant::now(),
            events: 0,
            gone: Box::pin(gone.clone().cancelled_owned()),
        };
        let guard: DropGuard = gone.drop_guard();
        let parts = futures_util::stream::poll_fn(move |cx| {
            let _held = &guard;
            receiver.poll_recv(cx).map(|part| part.map(Ok::<_, std::convert::Infallible>))
        });
        (wire, Body::new(StreamBody::new(parts)))
    }

    /// What is known only at the end: how long the stream was open, in milliseconds, and how many events it had.
    fn trailers(&self) -> HeaderMap {
        let (lasted, events) = (self.begun.elapsed().as_millis(), self.events);
        let timing = format!("session;dur={lasted}, messages;desc=\"{events}\"");
        let timing = HeaderValue::try_from(timing).expect("digits are a header value");
        HeaderMap::from_iter([(SERVER_TIMING, timing)])
    }

    fn poll_send(
        &mut self,
        cx: &mut task::Context<'_>,
        part: impl FnOnce(&mut Self) -> http_body::Frame<Bytes>,
    ) -> task::Poll<Result<(), WireError>> {
        let lost = |_| WireError::Lost("the event stream was closed".into());
        ready!(self.body.poll_reserve(cx)).map_err(lost)?;
        let part = part(self);
        task::Poll::Ready(self.body.send_item(part).map_err(lost))
    }
}

impl Wire for EventStream {
    fn poll_recv(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<Option<Received>, WireError>> {
        ready!(self.gone.as_mut().poll(cx));
        task::Poll::Ready(Err(WireError::Lost("the event stream was closed".into())))
    }

    fn feed(&mut self, frame: Frame) -> Result<(), WireError> {
        // Nothing in `text` can break a line (HTML, 9.2.6), so one `data:` is enough.
        if let Some(seq) = frame.seq {
            self.pending.extend_from_slice(format!("id: {seq}\n").as_bytes());
        }
        self.pending.extend_from_slice(b"data: ");
        frame.put(&mut self.pending);
        self.pending.extend_from_slice(b"\n\n");
        self.events += 1;
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), WireError>> {
        if self.pending.is_empty() {
            return task::Poll::Ready(Ok(()));
        }
        self.poll_send(cx, |stream| http_body::Frame::data(stream.pending.split().freeze()))
    }

    fn probe(&mut self) -> Result<(), WireError> {
        Ok(())
    }

    /// The connection below reports its loss: TCP_USER_TIMEOUT, HTTP/2 PING, QUIC.
    fn last_heard(&self) -> Option<Instant> {
        None
    }

    async fn close(mut self, _: Close) {
        // An event stream has no close code: `closed` was its last event, and the body's end is the end.
        if poll_fn(|cx| self.poll_flush(cx)).await.is_ok() {
            let _ = poll_fn(|cx| self.poll_send(cx, |stream| http_body::Frame::trailers(stream.trailers()))).await;
        }
    }
}
