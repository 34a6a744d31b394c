//! HTTP/2 (RFC 9113): ordinary requests for the router and WebSockets by extended CONNECT (RFC 8441), side by side on one
//! connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use futures_util::Stream as _;
use h2::server::{Builder, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::Via;
use crate::config::{Config, ConnectionLimits};
use crate::context::Context;
use crate::metrics::Refused;

mod connect;
mod meter;
mod preface;
mod request;
mod stream;

use meter::Metered;
use preface::Ahead;
pub(crate) use preface::preface;
pub(crate) use stream::Http2Stream;

/// What all streams of a connection together may send without having been read.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What one stream may send without having been read; bounds the memory that an unread one costs.
const STREAM_WINDOW: u32 = 64 * 1024;

/// What h2 keeps for a stream whose client does not read.
const STREAM_SEND_BUFFER: usize = 32 * 1024;

/// The largest frame that is accepted (the least that RFC 9113, 6.5.2 permits).
const FRAME_BYTES: u32 = 16 * 1024;

/// How much overhead of small, unread DATA frames a connection may run up: h2 charges 256 bytes less the payload for each.
/// Signaling is small messages in bursts, so several thousand of them are ordinary.
const SMALL_FRAME_BUDGET: usize = 2 * 1024 * 1024;

/// Serves one connection until its end.
///
/// It ends when the client leaves, breaks the protocol, sends no request within `request_head`, has none in flight for `idle`,
/// or does not answer a PING within a heartbeat. Draining sends GOAWAY and lets what is in flight finish; stopping cuts it off.
///
/// `said` is the part of [`preface()`] that the client has been sent already.
pub(crate) async fn serve<S>(io: S, said: Bytes, via: Via, router: Router, context: Arc<Context>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let limits = &context.config.connections;
    let begun = Instant::now();
    let io = Metered::new(Ahead::new(io, said), context.metrics.tally(Refused::Flood));
    // Boxed, as it is over long before the connection is.
    let handshake = Box::pin(settings(limits).handshake(io));
    let h2 = match timeout(limits.request_head, handshake).await {
        Ok(Ok(h2)) => h2,
        Ok(Err(error)) => return debug!(remote = %via.remote, %error, "no HTTP/2 connection preface"),
        Err(_) => return debug!(remote = %via.remote, "no HTTP/2 connection preface in time"),
    };
    let reason = Connection::new(h2, begun, via, router, context).run().await;
    debug!(remote = %via.remote, reason, "HTTP/2 connection ended");
}

fn settings(limits: &ConnectionLimits) -> Builder {
    let mut settings = Builder::new();
    settings
        .enable_connect_protocol()
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_window_size(STREAM_WINDOW)
        .max_send_buffer_size(STREAM_SEND_BUFFER)
        .max_frame_size(FRAME_BYTES)
        .data_frame_budget(SMALL_FRAME_BUDGET)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes);
    settings
}

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

struct Connection<S> {
    h2: h2::server::Connection<Metered<Ahead<S>>, Bytes>,
    pings: PingPong,
    via: Via,
    router: Router,
    context: Arc<Context>,
    /// `None` as soon as a request has come.
    first_request_by: Option<Instant>,
    /// When to look at the connection again.
    look_at: Instant,
    last_ping: Instant,
    ping_unanswered: bool,
    /// Since when it has been seen without a stream.
    idle_since: Option<Instant>,
    /// When it ends, finished or not.
    cut_off_at: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection<S> {
    fn new(
        mut h2: h2::server::Connection<Metered<Ahead<S>>, Bytes>,
        begun: Instant,
        via: Via,
        router: Router,
        context: Arc<Context>,
    ) -> Self {
        let pings = h2.ping_pong().expect("taken once");
        let first_request_by = Some(begun + context.config.connections.request_head);
        Connection {
            h2,
            pings,
            via,
            router,
            first_request_by,
            look_at: begun + look_every(&context.config),
            context,
            last_ping: begun,
            ping_unanswered: false,
            idle_since: None,
            cut_off_at: None,
        }
    }

    /// Returns why it ended, for the log.
    async fn run(&mut self) -> &'static str {
        let context = Arc::clone(&self.context);
        let Context { drain, stop, .. } = &*context;
        // A connection that came while the server drains is there for requests of the sessions that are open.
        let late = drain.is_raised();
        let (mut draining, mut stopping) = (false, false);
        loop {
            let timer = sleep_until(self.next_deadline());
            tokio::select! {
                request = poll_fn(|cx| self.poll_request(cx)) => match request {
                    Some(Ok(request)) => self.dispatch(request),
                    Some(Err(error)) => {
                        if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                            self.context.metrics.refused(Refused::Flood);
                        }
                        debug!(remote = %self.via.remote, %error, "HTTP/2 connection failed");
                        return "error";
                    }
                    None => return "closed",
                },
                () = timer => if let Some(reason) = self.look(Instant::now()) { return reason },
                () = drain.raised(), if !draining && !late => {
                    draining = true;
                    self.h2.graceful_shutdown();
                }
                () = stop.raised(), if !stopping => {
                    stopping = true;
                    if late {
                        self.h2.graceful_shutdown();
                    }
                    // Sessions take their leave within this time, and ordinary answers had theirs while draining.
                    self.cut_off_in(self.context.config.connections.close);
                }
            }
        }
    }

    /// Drives all streams and waits for the next request.
    fn poll_request(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Result<Accepted, h2::Error>>> {
        if self.ping_unanswered && self.pings.poll_pong(cx).is_ready() {
            self.ping_unanswered = false;
        }
        Pin::new(&mut self.h2).poll_next(cx)
    }

    fn dispatch(&mut self, (request, respond): Accepted) {
        self.first_request_by = None;
        let (via, context) = (self.via, Arc::clone(&self.context));
        if request.method() == Method::CONNECT {
            self.context.tasks.spawn(connect::answer(request, respond, via, context));
        } else {
            let stall = context.config.connections.idle;
            self.context.tasks.spawn(request::answer(request, respond, via, self.router.clone(), stall));
        }
    }

    fn next_deadline(&self) -> Instant {
        match (self.cut_off_at, self.first_request_by) {
            (Some(end), _) => end,
            (None, Some(first)) => first.min(self.look_at),
            (None, None) => self.look_at,
        }
    }

    /// Looks after the connection when a deadline has come; returns why it must end at once.
    fn look(&mut self, now: Instant) -> Option<&'static str> {
        if let Some(end) = self.cut_off_at {
            return (now >= end).then_some("cut off");
        }
        if self.first_request_by.is_some_and(|by| now >= by) {
            self.leave();
        } else if now >= self.look_at {
            self.look_at = now + look_every(&self.context.config);
            if self.h2.has_streams() {
                self.idle_since = None;
                return self.check_alive(now);
            }
            let idle_since = *self.idle_since.get_or_insert(now);
            if now >= idle_since + self.context.config.connections.idle {
                self.leave();
            }
        }
        None
    }

    /// Sends a PING each heartbeat; a client that leaves one unanswered for another heartbeat is gone.
    fn check_alive(&mut self, now: Instant) -> Option<&'static str> {
        if now >= self.last_ping + self.context.config.heartbeat {
            if self.ping_unanswered {
                return Some("no answer to PING");
            }
            self.last_ping = now;
            // Fails only when the connection is closed already, which it will tell by itself.
            self.ping_unanswered = self.pings.send_ping(Ping::opaque()).is_ok();
        }
        None
    }

    /// Says GOAWAY and gives the client a moment to read it. Nothing is in flight that could be lost.
    fn leave(&mut self) {
        self.h2.abrupt_shutdown(Reason::NO_ERROR);
        self.cut_off_in(self.context.config.connections.close);
    }

    fn cut_off_in(&mut self, wait: Duration) {
        let end = Instant::now() + wait;
        self.cut_off_at = Some(self.cut_off_at.map_or(end, |at| at.min(end)));
    }
}

fn look_every(config: &Config) -> Duration {
    config.heartbeat.min(config.connections.idle)
}
