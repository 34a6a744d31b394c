//! HTTP/1.1 (RFC 9112): ordinary requests for the router, and WebSockets by Upgrade (RFC 6455).

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::body::Body;
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tokio_util::io::InspectReader;
use tower::ServiceExt as _;
use tracing::debug;

use super::websocket::{WebSocketWire, handshake};
use super::{Opening, Transport, Via, drive, room_of_path};
use crate::context::Context;
use crate::metrics::Refused;
use crate::problem::problem;
use crate::protocol::Refusal;
use crate::signal::Signal;

mod phase;

use phase::Clock;

/// Header fields that are accepted in one request; browsers send about twenty.
const MAX_HEADERS: usize = 100;

/// The least read buffer that hyper allows; a configuration that asks for less gets this.
const MIN_BUFFER: usize = 8 * 1024;

/// Serves one connection with sessions until its end, the session's included where it becomes one.
///
/// It ends when the client leaves, breaks the protocol, does not finish a request's head within `request_head` of its first
/// byte (the first one: of the connection's beginning), or sends none for `idle`. When draining begins, the request in flight is the last.
pub(crate) async fn serve<S>(io: S, via: Via, router: Router, context: Arc<Context>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = Arc::new(Service { via, router, sessions: true, context, upgrade: Mutex::new(None) });
    let Context { drain, stop, .. } = &*service.context;
    // A connection that came while the server drains is there for requests of the sessions that are open.
    let ending = if drain.is_raised() { stop } else { drain };
    run(io, Arc::clone(&service), ending).await;
    let upgrade = service.upgrade.lock().take();
    if let Some((upgrade, opening)) = upgrade {
        match upgrade.await {
            Ok(stream) => {
                let Context { config, metrics, .. } = &*service.context;
                let (frame_bytes, floods) = (config.limits.frame_bytes, metrics.tally(Refused::Flood));
                let wire = WebSocketWire::new(TokioIo::new(stream), frame_bytes, floods);
                drive(wire, opening, Arc::clone(&service.context)).await;
            }
            Err(error) => debug!(remote = %via.remote, %error, "the connection ended before it was upgraded"),
        }
    }
}

/// Serves one connection to an operator's tools: no sessions, and open until the server stops, so that they see it drain.
pub(crate) async fn serve_admin<S>(io: S, via: Via, router: Router, context: Arc<Context>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = Arc::new(Service { via, router, sessions: false, context, upgrade: Mutex::new(None) });
    run(io, Arc::clone(&service), &service.context.stop).await;
}

/// Runs the HTTP part of a connection until it is closed or upgraded; `ending` closes it after the request in flight.
async fn run<S>(io: S, service: Arc<Service>, ending: &Signal)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let limits = &service.context.config.connections;
    let stop = &service.context.stop;
    let clock = Clock::new(limits);
    let heard = clock.clone();
    let io = TokioIo::new(InspectReader::new(io, move |bytes: &[u8]| {
        if !bytes.is_empty() {
            heard.bytes_arrived();
        }
    }));
    let answer = service_fn(|request| {
        let (service, clock) = (Arc::clone(&service), clock.clone());
        async move {
            clock.request_begins();
            let response = service.answer(request).await;
            Ok::<_, Infallible>(response.map(|body| clock.until_sent(body)))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_buf_size(MIN_BUFFER.max(limits.header_bytes as usize))
            // The clock knows an idle connection from an unfinished head; hyper's one timeout does not.
            .header_read_timeout(None)
            .serve_connection(io, answer)
            .with_upgrades()
    );
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut ended = false;
    // When a connection that was asked to end is closed all the same.
    let mut cut_off_at = None;
    loop {
        let step = poll_fn(|cx| {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(Step::Ended(result));
            }
            // Only polling the connection moves the clock, so that its deadline is looked at afterwards.
            let Some(deadline) = cut_off_at.or_else(|| clock.deadline()) else { return Poll::Pending };
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            timer.as_mut().poll(cx).map(|()| Step::Late)
        });
        tokio::select! {
            step = step => match step {
                Step::Ended(Ok(())) => return,
                Step::Ended(Err(error)) => return debug!(remote = %service.via.remote, %error, "HTTP/1.1 connection failed"),
                Step::Late if cut_off_at.is_some() => return debug!(remote = %service.via.remote, "cut off"),
                Step::Late => {
                    debug!(remote = %service.via.remote, "no complete request in time");
                    connection.as_mut().graceful_shutdown();
                    cut_off_at = Some(Instant::now() + limits.close);
                }
            },
            () = ending.raised(), if !ended => {
                ended = true;
                connection.as_mut().graceful_shutdown();
            }
            () = stop.raised(), if cut_off_at.is_none() => cut_off_at = Some(Instant::now() + limits.close),
        }
    }
}

/// What happened to a connection.
enum Step {
    Ended(hyper::Result<()>),
    /// A deadline has passed.
    Late,
}

/// Answers the requests of one connection.
struct Service {
    via: Via,
    router: Router,
    sessions: bool,
    context: Arc<Context>,
    /// Set when a request has been answered with 101; the connection is the session's from then on.
    upgrade: Mutex<Option<(OnUpgrade, Opening)>>,
}

impl Service {
    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        if request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1 {
            // RFC 9112, 3.2.
            return problem(&Refusal::bad_request("a request needs exactly one Host header"));
        }
        if self.sessions && wants_websocket(request.headers()) && room_of_path(request.uri().path()).is_some() {
            let upgrade = hyper::upgrade::on(&mut request);
            return self.open(&request.into_parts().0, upgrade).await;
        }
        request.extensions_mut().insert(self.via);
        match self.router.clone().oneshot(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Answers a request for a WebSocket, and remembers its session where it is accepted.
    async fn open(&self, parts: &Parts, upgrade: OnUpgrade) -> Response<Body> {
        match check(parts, self.via, &self.context).await {
            Ok((opening, headers)) => {
                *self.upgrade.lock() = Some((upgrade, opening));
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                *response.headers_mut() = headers;
                response
            }
            Err(refusal) => {
                debug!(remote = %self.via.remote, code = refusal.code.name(), "upgrade refused");
                problem(&refusal)
            }
        }
    }
}

/// Checks an opening request (RFC 6455, 4.2.1) and returns the headers of the answer.
async fn check(parts: &Parts, via: Via, context: &Context) -> Result<(Opening, HeaderMap), Refusal> {
    let opening = Opening::admit(parts, Transport::WebSocketH1, via, context).await?;
    if parts.method != Method::GET || parts.version != Version::HTTP_11 {
        return Err(Refusal::bad_request("a WebSocket is opened by GET in HTTP/1.1"));
    }
    if !parts.headers.contains_key(SEC_WEBSOCKET_KEY) {
        return Err(Refusal::bad_request("Sec-WebSocket-Key is missing"));
    }
    let mut headers = handshake::accept(&parts.headers)?;
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    Ok((opening, headers))
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    handshake::has_token(headers, &CONNECTION, |token| token.eq_ignore_ascii_case("upgrade"))
        && handshake::has_token(headers, &UPGRADE, |token| token.eq_ignore_ascii_case("websocket"))
}
