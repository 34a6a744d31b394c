//! The life of one session on one transport: first message, seat, then both directions until one of them ends.

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use tokio::time::{sleep_until, timeout};
use tracing::{Instrument as _, debug, info, info_span};

use super::admit::{may_try, note_failure};
use super::{Close, Opening, Received, Transport, Wire, WireError};
use crate::clients::Client;
use crate::context::Context;
use crate::hub::{Session, Speaker};
use crate::metrics::{Ended, Entry};
use crate::outbox::Output;
use crate::pace::jitter;
use crate::protocol::{Code, Command, Frame, Grant, Refusal, Request, RoomName, Token, notice};
use crate::seat::Ending;
use crate::traces::Span;

/// Fed to a wire before it is flushed; coalesces what waits without keeping more than this beside the queue.
const BATCH_BYTES: usize = 64 * 1024;

/// Messages of one session that are dealt with in a row.
const MESSAGES_AT_ONCE: usize = 32;

/// Runs a session on `wire` from its first message to its last. Completes when the transport is closed; the seat may live on.
pub fn drive<W: Wire>(wire: W, opening: Opening, context: Arc<Context>) -> impl Future<Output = ()> + Send {
    let span =
        info_span!("session", room = %opening.room, transport = opening.transport.name(), peer = tracing::field::Empty);
    let mut driver = Driver { wire, opening, context };
    async move {
        let begun = Instant::now();
        let end = driver.run().await;
        Box::pin(driver.say_goodbye(end, begun.elapsed())).await;
    }
    .instrument(span)
}

/// The same for a transport whose first message has been dealt with, and the seat taken, before it was a wire.
pub(super) fn carry_on<W: Wire>(
    wire: W,
    opening: Opening,
    session: Session,
    greeting: Frame,
    context: Arc<Context>,
) -> impl Future<Output = ()> + Send {
    let transport = opening.transport.name();
    let span = info_span!("session", room = %opening.room, transport, peer = %session.peer());
    let mut driver = Driver { wire, opening, context };
    async move {
        let begun = Instant::now();
        let end = driver.serve(session, greeting).await;
        Box::pin(driver.say_goodbye(end, begun.elapsed())).await;
    }
    .instrument(span)
}

/// Takes the seat that a first message asks for; returns the answer to begin with.
///
/// # Errors
/// The hub's, `goingAway` while the server drains, `unauthorized` without a valid token where one is asked for, or `badRequest`
/// if it is neither `join` nor `resume`.
pub(super) async fn take_seat(
    opening: &Opening,
    first: Request<'_>,
    context: &Context,
) -> Result<(Session, Frame), Refusal> {
    may_begin(context)?;
    let taken = admit(opening, first, context).await;
    taken.inspect_err(|refusal| context.hub.note_refusal(&opening.room, refusal.code))
}

async fn admit(opening: &Opening, first: Request<'_>, context: &Context) -> Result<(Session, Frame), Refusal> {
    let (room, transport, trace) = (&opening.room, opening.transport, &opening.trace);
    let step = trace.step("authorize");
    let grant = authorize(room, &opening.client, opening.grant.as_ref(), &first.command, context).await?;
    step.done();
    let _step = trace.step("enter");
    let (how, taken) = match first.command {
        Command::Join(join) => {
            let _entering = context.hub.enter(room).await?;
            may_begin(context)?;
            (Entry::Join, context.hub.join(room, &join, grant, transport))
        }
        Command::Resume(resume) => {
            note_failure(&opening.client, context.hub.fetch(room, &resume, grant.as_ref()).await)?;
            may_begin(context)?;
            let how = if context.hub.is_served(room, &resume) { Entry::Move } else { Entry::Resume };
            (how, context.hub.resume(room, &resume, grant, transport))
        }
        _ => return Err(Refusal::bad_request("the first message must be join or resume")),
    };
    let taken = note_failure(&opening.client, taken)?;
    taken.0.is_at(opening.client.address());
    trace.is_of(taken.0.peer());
    trace.is_by(how.name());
    context.metrics.entered(transport, how, opening.begun.elapsed());
    Ok(taken)
}

/// No session begins while the server drains; looked at again after each wait.
fn may_begin(context: &Context) -> Result<(), Refusal> {
    if context.drain.is_raised() { Err(context.going_away()) } else { Ok(()) }
}

/// What the token of a first message allows, or else that of its request's head. A `join` must have one where there are keys;
/// the seat of a `resume` has its own.
pub(super) async fn authorize(
    room: &RoomName,
    client: &Client,
    head: Option<&Grant>,
    first: &Command<'_>,
    context: &Context,
) -> Result<Option<Grant>, Refusal> {
    let Some(auth) = &context.auth else { return Ok(None) };
    let (token, needed) = match first {
        Command::Join(join) => (&join.token, true),
        Command::Resume(resume) => (&resume.token, false),
        _ => return Ok(None),
    };
    match (token, head) {
        (None, Some(grant)) => Ok(Some(grant.clone())),
        (None, None) if !needed => Ok(None),
        (token, _) => note_failure(client, auth.verify(token.as_ref(), room).await).map(Some),
    }
}

/// Carries out one line of a session, which may be part of a request that is traced. A bad one costs one `error`, as does each while
/// its client's address sends too much. False if the seat is no longer the speaker's.
pub(super) async fn carry_out(
    speaker: &Speaker,
    line: &[u8],
    transport: Transport,
    client: &Client,
    trace: &Span,
    context: &Context,
) -> bool {
    let description = context.traces.read(trace, transport);
    let request = match Request::parse(line, speaker.limits()) {
        Ok(request) => request,
        Err(invalid) => {
            if invalid.refusal.code == Code::InvalidDescription {
                description.fail(speaker.room(), speaker.peer(), invalid.refusal.code.name());
            }
            context.metrics.message(transport, "invalid");
            let refusal = too_much(client, line, true, context).unwrap_or(invalid.refusal);
            return speaker.refuse(invalid.id, &refusal);
        }
    };
    context.metrics.message(transport, request.command.name());
    let trace = match &request.command {
        Command::Send(outbound) => description.span(speaker.room(), speaker.peer(), outbound),
        _ => Span::NONE,
    };
    let counts = !matches!(request.command, Command::Ack(_) | Command::Ping);
    if let Some(refusal) = too_much(client, line, counts, context) {
        trace.fail(refusal.code.name());
        return speaker.refuse(request.id, &refusal);
    }
    match (&request.command, &context.inviter) {
        // Rare, and large: it may have to fetch keys.
        (Command::Token(token), _) if context.auth.is_some() => {
            Box::pin(renew(speaker, request.id, token, client, context)).await
        }
        (Command::Invite(invite), Some(inviter)) => {
            speaker.invite(request.id, invite, || inviter.invite(speaker.room(), invite))
        }
        _ => speaker.handle_noting(request, &trace, |told| context.metrics.reached(transport, told)),
    }
}

/// Why a line or datagram is not carried out whatever it says.
fn too_much(client: &Client, line: &[u8], counts: bool, context: &Context) -> Option<Refusal> {
    client.message(line.len(), counts).err().map(|excess| context.too_much(excess))
}

async fn renew(speaker: &Speaker, id: Option<u64>, token: &Token<'_>, client: &Client, context: &Context) -> bool {
    let Some(auth) = &context.auth else { return true };
    let newer = match may_try(client, context) {
        Ok(()) => note_failure(client, auth.verify(Some(token), speaker.room()).await),
        Err(refusal) => Err(refusal),
    };
    speaker.renew(id, newer)
}

/// How a transport comes to its end, seen from the server.
enum End {
    /// There is nobody left to tell.
    Lost(String),
    /// The client closed it tidily.
    ByClient,
    /// The client said `leave`.
    Left,
    /// The server closes it, and says why.
    Closed(Refusal),
}

impl End {
    fn counted(&self) -> Ended {
        match self {
            End::Lost(_) => Ended::Lost,
            End::ByClient => Ended::ByClient,
            End::Left => Ended::Left,
            End::Closed(refusal) => Ended::Closed(refusal.code),
        }
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Lost(why) => End::Lost(why.into_owned()),
            WireError::Broken(refusal) => End::Closed(refusal),
        }
    }
}

/// A transport and what it was opened for. An idle session is little more than this and what it waits with, so its futures
/// borrow it, and the rare large ones are boxed.
struct Driver<W> {
    wire: W,
    opening: Opening,
    context: Arc<Context>,
}

impl<W: Wire> Driver<W> {
    async fn run(&mut self) -> End {
        match Box::pin(self.first_message()).await {
            Ok((session, greeting)) => {
                tracing::Span::current().record("peer", tracing::field::display(session.peer()));
                self.serve(session, greeting).await
            }
            Err(end) => {
                mem::take(&mut self.opening.trace).fail(end.counted().name());
                end
            }
        }
    }

    /// Runs the session that has begun. It is dropped, and others told, before the goodbye, which a dead client could drag out.
    async fn serve(&mut self, session: Session, greeting: Frame) -> End {
        info!(client = %self.opening.client.address(), remote = %self.opening.via.remote, "session begins");
        self.context.metrics.began(self.opening.transport);
        let trace = mem::take(&mut self.opening.trace);
        let mut pump = Pump::new(self, session, greeting);
        trace.end("begun");
        trace.done();
        pump.run().await
    }

    /// Waits for `join` or `resume` and takes the seat.
    async fn first_message(&mut self) -> Result<(Session, Frame), End> {
        let limits = &self.context.config.limits;
        let step = self.opening.trace.step("first message");
        let wait = Duration::from_millis(limits.first_message_ms);
        let received = tokio::select! {
            received = timeout(wait, poll_fn(|cx| self.wire.poll_recv(cx))) => received,
            () = self.context.stop.raised() => return Err(End::Closed(self.context.going_away())),
        };
        let line = match received {
            Err(_) => return Err(End::Closed(Refusal::new(Code::Timeout, "no first message in time"))),
            Ok(received) => match received? {
                Some(Received::Message(line)) => line,
                Some(Received::Unusable(refusal)) => return Err(End::Closed(refusal)),
                Some(Received::Datagram(_)) => {
                    return Err(End::Closed(Refusal::bad_request(
                        "the first message must be join or resume, not a datagram",
                    )));
                }
                None => return Err(End::ByClient),
            },
        };
        step.done();
        let request = Request::parse(&line, limits).map_err(|invalid| End::Closed(invalid.refusal))?;
        self.context.metrics.message(self.opening.transport, request.command.name());
        take_seat(&self.opening, request, &self.context).await.map_err(End::Closed)
    }

    /// The last word, and time for the client to read it.
    async fn say_goodbye(mut self, end: End, lasted: Duration) {
        let lasted_ms = lasted.as_millis() as u64;
        self.context.metrics.ended(self.opening.transport, end.counted());
        let close = match end {
            End::Lost(why) => {
                info!(lasted_ms, why, "transport lost");
                return;
            }
            End::ByClient => {
                info!(lasted_ms, "transport closed by the client");
                Close { code: None, reason: "".into() }
            }
            End::Left => {
                info!(lasted_ms, "peer left");
                Close { code: None, reason: "left".into() }
            }
            End::Closed(refusal) => {
                // A moderator's reason is for the peer that it removed.
                let reason = if refusal.code == Code::Kicked { "" } else { &*refusal.message };
                info!(lasted_ms, code = refusal.code.name(), reason, "transport closed");
                if let Err(error) = self.wire.feed(notice::closed(&refusal)) {
                    debug!(%error, "the last message could not be sent");
                }
                Close { code: Some(refusal.code), reason: refusal.message }
            }
        };
        let wait = self.context.config.connections.close;
        if timeout(wait, self.wire.close(close)).await.is_err() {
            debug!("the client did not take its leave in time");
        }
    }
}

/// Both directions of a session that has a seat.
struct Pump<'a, W> {
    wire: &'a mut W,
    transport: Transport,
    client: &'a Client,
    context: Arc<Context>,
    session: Session,
    /// Bytes fed to the wire since it was last flushed to the end.
    unflushed: usize,
    last_sent: Instant,
    /// When the wire was asked for a sign of life that has not come yet.
    probed: Option<Instant>,
    drain_told: bool,
}

/// What a session's task is woken for, most of the time.
enum Io {
    Received(Option<Received>),
    Output(Output),
}

impl<'a, W: Wire> Pump<'a, W> {
    fn new(driver: &'a mut Driver<W>, session: Session, greeting: Frame) -> Self {
        let context = Arc::clone(&driver.context);
        let mut pump = Pump {
            wire: &mut driver.wire,
            transport: driver.opening.transport,
            client: &driver.opening.client,
            context,
            session,
            unflushed: 0,
            last_sent: Instant::now(),
            probed: None,
            drain_told: false,
        };
        // A wire that cannot take it says so again at the first flush.
        let _ = pump.feed(greeting);
        pump
    }

    /// Runs until one side ends. Reading goes on while writing waits, or two that both wait to write would wait for ever.
    async fn run(&mut self) -> End {
        // Kept from step to step: each of them is registered somewhere when it is first polled, and every session does so.
        let context = Arc::clone(&self.context);
        let (mut stop, mut drain) = (pin!(context.stop.raised()), pin!(context.drain.raised()));
        // Whatever is said or heard only moves the next look away, so that the timer may be early.
        let mut timer = pin!(sleep_until(self.next_look().into()));
        loop {
            let step = tokio::select! {
                // What is rare comes first, so that no flood of messages can keep it waiting; a look at it costs little.
                biased;
                () = &mut stop => Err(self.stop()),
                () = &mut drain, if !self.drain_told => self.tell_drain(),
                () = &mut timer => {
                    let looked = self.look(Instant::now());
                    timer.as_mut().reset(self.next_look().into());
                    looked
                }
                io = poll_fn(|cx| self.poll_io(cx)) => match io {
                    Ok(Io::Received(received)) => self.received_all(received).await,
                    Ok(Io::Output(output)) => self.send(output),
                    Err(error) => Err(error.into()),
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// What is written goes before what is read, and that before what is to be written next: [`received_all`](Self::received_all)
    /// lets that have its turn.
    fn poll_io(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Io, WireError>> {
        if self.unflushed > 0 && self.wire.poll_flush(cx)?.is_ready() {
            self.unflushed = 0;
        }
        if let Poll::Ready(received) = Self::poll_recv(self.wire, self.unflushed, cx) {
            return Poll::Ready(received.map(Io::Received));
        }
        self.session.poll_next(self.unflushed == 0, cx).map(|output| Ok(Io::Output(output)))
    }

    fn poll_recv(
        wire: &mut W,
        unflushed: usize,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<Option<Received>, WireError>> {
        // Whoever asks for answers without reading them (pings) is not read from either.
        if unflushed > BATCH_BYTES {
            return Poll::Pending;
        }
        wire.poll_recv(cx)
    }

    /// Deals with what was received, and with what is there already behind it, a few of them in a row. Their answers, which the
    /// queue has room for, go out before more is read, or an honest client's burst could fill the queue with them.
    async fn received_all(&mut self, first: Option<Received>) -> Result<(), End> {
        self.received(first).await?;
        for _ in 1..MESSAGES_AT_ONCE.min(self.context.config.limits.queue_messages / 2) {
            let next = poll_fn(|cx| Poll::Ready(Self::poll_recv(&mut *self.wire, self.unflushed, cx)));
            match next.await {
                Poll::Ready(received) => self.received(received?).await?,
                Poll::Pending => break,
            }
        }
        if self.unflushed == 0
            && let Some(output) = self.session.try_next()
        {
            self.send(output)?;
        }
        Ok(())
    }

    async fn received(&mut self, received: Option<Received>) -> Result<(), End> {
        match received {
            Some(Received::Message(line)) => {
                carry_out(&self.session, &line, self.transport, self.client, &Span::NONE, &self.context).await;
                self.finish_leave()?;
            }
            Some(Received::Datagram(line)) => match Request::parse_datagram(&line, self.session.limits()) {
                Ok(outbound) => {
                    self.context.metrics.message(self.transport, "datagram");
                    match too_much(self.client, &line, true, &self.context) {
                        Some(refusal) => drop(self.session.refuse(None, &refusal)),
                        None => self.session.handle_datagram(&outbound),
                    }
                }
                Err(refusal) => {
                    self.session.refuse(None, &refusal);
                }
            },
            Some(Received::Unusable(refusal)) => {
                self.session.refuse(None, &refusal);
            }
            None => return Err(End::ByClient),
        }
        Ok(())
    }

    /// After `leave`, the `ok` and all else that waits goes out before the client is read again: its close, which may have come
    /// in the same burst, would be the end.
    fn finish_leave(&mut self) -> Result<(), End> {
        while self.session.has_left()
            && let Some(output) = self.session.try_next()
        {
            self.send(output)?;
        }
        Ok(())
    }

    /// Feeds a frame and what waits behind it, up to a batch.
    fn send(&mut self, output: Output) -> Result<(), End> {
        let mut next = Some(output);
        while let Some(output) = next {
            match output {
                Output::Frame(frame) => self.feed(frame)?,
                Output::End(Ending::Left) => return Err(End::Left),
                Output::End(Ending::Closed(refusal)) => return Err(End::Closed(refusal)),
            }
            next = if self.unflushed < BATCH_BYTES { self.session.try_next() } else { None };
        }
        Ok(())
    }

    fn feed(&mut self, frame: Frame) -> Result<(), End> {
        self.unflushed += frame.len();
        self.last_sent = Instant::now();
        if let Some(micros) = frame.waited {
            self.context.metrics.relayed(self.transport, Duration::from_micros(micros.get().into()));
        }
        self.wire.feed(frame)?;
        Ok(())
    }

    /// When silence has to be looked at again: ours, to send a ping, or the client's.
    fn next_look(&self) -> Instant {
        let heartbeat = self.context.config.heartbeat;
        let ours = self.last_sent + heartbeat;
        match (self.wire.last_heard(), self.probed) {
            (None, _) => ours,
            (Some(heard), Some(probed)) if heard <= probed => ours.min(heard + 2 * heartbeat),
            (Some(heard), _) => ours.min(heard + heartbeat),
        }
    }

    /// Pings after a heartbeat without a word of ours, asks for a sign of life after one without the client's, and gives the
    /// client up after two.
    fn look(&mut self, now: Instant) -> Result<(), End> {
        let heartbeat = self.context.config.heartbeat;
        if let Some(heard) = self.wire.last_heard() {
            if now >= heard + 2 * heartbeat {
                return Err(End::Closed(Refusal::new(Code::Timeout, "no sign of life for two heartbeats")));
            }
            if now >= heard + heartbeat && self.probed.is_none_or(|probed| heard > probed) {
                self.wire.probe()?;
                self.probed = Some(now);
                self.unflushed = self.unflushed.max(1);
            }
        }
        if now >= self.last_sent + heartbeat {
            self.feed(notice::ping())?;
        }
        Ok(())
    }

    /// The server stops: nobody will replay what waits, so that it goes out before the last word.
    fn stop(&mut self) -> End {
        while let Some(Output::Frame(frame)) = self.session.try_next() {
            if let Err(end) = self.feed(frame) {
                return end;
            }
        }
        End::Closed(self.context.going_away())
    }

    fn tell_drain(&mut self) -> Result<(), End> {
        self.drain_told = true;
        // Spread over the first half of the drain time, so that whoever resumes elsewhere has the second half for it.
        self.feed(notice::go_away(jitter(self.context.config.drain / 2)))
    }
}
