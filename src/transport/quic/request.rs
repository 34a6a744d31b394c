//! One request on one stream of an HTTP/3 connection (RFC 9114, 4).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use h3::error::StreamError;
use h3::server::RequestStream;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::time::timeout;
use tower::ServiceExt as _;
use tracing::debug;

use super::connect;
use super::connection::{Resolver, Shared};
use super::demux::{Accepted, Stopped};
use super::extended::Protocol;
use super::stream::{BidiStream, RecvStream, SendStream};
use crate::config::ConnectionLimits;
use crate::problem::{problem, problem_with_status};
use crate::protocol::{Code, Refusal};
use crate::transport::priority::Urgency;
use crate::transport::{Opened, Preload, run_opened, webtransport};

/// A request's stream, both halves.
pub(crate) type Stream = RequestStream<BidiStream, Bytes>;
pub(super) type Sending = RequestStream<SendStream, Bytes>;
pub(super) type Receiving = RequestStream<RecvStream, Bytes>;

/// What is read of a request's body behind its answer, so that the client hears the answer before it is told to stop.
const DRAINED_BYTES: usize = 64 * 1024;

/// The most bytes of a header section as it is encoded. Twice what is allowed, for an answer that says so; what is longer is
/// reset.
pub(super) fn encoded_limit(limits: &ConnectionLimits) -> u64 {
    2 * u64::from(limits.header_bytes)
}

/// The most that a header section may grow to when it is decoded (RFC 9114, 4.2.2).
pub(super) fn decoded_limit(limits: &ConnectionLimits) -> u64 {
    4 * u64::from(limits.header_bytes)
}

/// Has a request answered, and runs the session that it opens.
pub(super) fn serve(resolver: Resolver, accepted: Accepted, shared: Arc<Shared>) -> impl Future<Output = ()> + Send {
    run_opened(begin(resolver, accepted, shared))
}

/// Reads the head of a request, and has it answered: a session's by its transport, every other by the router.
async fn begin(resolver: Resolver, accepted: Accepted, shared: Arc<Shared>) -> Option<Opened> {
    let Accepted { id, stopped, priority, protocol } = accepted;
    let limits = &shared.context.config.connections;
    let remote = shared.via.remote;
    let (request, stream) = match timeout(limits.request_head, resolver.resolve_request()).await {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => {
            debug!(%remote, %error, "not a request");
            return None;
        }
        Err(_) => {
            debug!(%remote, "no request head in time");
            return None;
        }
    };
    if header_list_size(request.headers()) > limits.header_bytes as usize {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let text = format!("the header fields may have {} bytes", limits.header_bytes);
        refuse(stream, stopped, problem_with_status(status, &Refusal::new(Code::TooLarge, text)), &shared).await;
        return None;
    }
    let protocol = protocol.get().copied();
    let refusal = match (request.method() == Method::CONNECT, protocol) {
        (false, None) => {
            // Sessions go first.
            priority.store(Urgency::of(request.headers()).quic(), Ordering::Relaxed);
            answer(request, stream, stopped, &shared).await;
            return None;
        }
        (true, Some(Protocol::WebTransport)) => return webtransport::open(request, stream, id, stopped, shared).await,
        (true, Some(Protocol::WebSocket)) => return connect::open(request, stream, stopped, shared).await,
        (true, _) => {
            let refusal = Refusal::bad_request("CONNECT is understood with :protocol webtransport or websocket only");
            problem_with_status(StatusCode::NOT_IMPLEMENTED, &refusal)
        }
        (false, Some(_)) => problem(&Refusal::bad_request(":protocol belongs to CONNECT only")),
    };
    refuse(stream, stopped, refusal, &shared).await;
    None
}

/// The size of a header section as RFC 9114, 4.2.2 counts it, pseudo-header fields aside.
fn header_list_size(headers: &HeaderMap) -> usize {
    const PER_FIELD: usize = 32;
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + PER_FIELD).sum()
}

/// Lets the router answer.
async fn answer(request: Request<()>, stream: Stream, mut stopped: Stopped, shared: &Shared) {
    let wants_body = request.method() != Method::HEAD;
    let (sending, receiving) = stream.split();
    let body = RequestBody::new(request.headers(), receiving);
    let rest = Arc::clone(&body.0);
    let mut request = request.map(|()| Body::new(body));
    request.extensions_mut().insert(shared.via);
    let response = tokio::select! {
        response = shared.router.clone().oneshot(request) => match response {
            Ok(response) => response,
            Err(never) => match never {},
        },
        // A client that no longer wants the answer is not served any further.
        () = &mut stopped => return,
    };
    finish(response, wants_body, sending, &rest, stopped, shared).await;
}

/// Answers with a refusal.
pub(crate) async fn refuse(stream: Stream, stopped: Stopped, refusal: Response<String>, shared: &Shared) {
    debug!(remote = %shared.via.remote, status = %refusal.status(), "request refused");
    let (sending, receiving) = stream.split();
    let rest = RequestBody::new(&HeaderMap::new(), receiving).0;
    finish(refusal.map(Body::from), true, sending, &rest, stopped, shared).await;
}

/// Sends the response, reads what is left of the request and waits until the client has everything.
async fn finish(
    response: Response<Body>,
    wants_body: bool,
    mut sending: Sending,
    rest: &Mutex<Unread>,
    mut stopped: Stopped,
    shared: &Shared,
) {
    let limits = &shared.context.config.connections;
    let sent = tokio::select! {
        sent = send(response, wants_body, &mut sending, limits.idle) => sent,
        () = &mut stopped => return,
    };
    if let Err(error) = sent {
        return debug!(remote = %shared.via.remote, %error, "response not sent to its end");
    }
    let taken = async { tokio::join!(drain(rest), stopped) };
    if timeout(limits.close, taken).await.is_err() {
        debug!(remote = %shared.via.remote, "response not acknowledged in time");
    }
}

/// Streams the response no faster than the client takes it; `stall` is how long it may take nothing.
async fn send(response: Response<Body>, wants_body: bool, sending: &mut Sending, stall: Duration) -> io::Result<()> {
    let (mut head, mut body) = response.into_parts();
    if let Some(preload) = head.extensions.get::<Preload>().filter(|preload| preload.navigation) {
        within(stall, sending.send_response(preload.early_hints())).await?;
    }
    remove_connection_fields(&mut head.headers);
    within(stall, sending.send_response(Response::from_parts(head, ()))).await?;
    while wants_body && !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        match frame.map_err(io::Error::other)?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => within(stall, sending.send_data(data)).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    within(stall, sending.send_trailers(trailers)).await?;
                }
            }
        }
    }
    within(stall, sending.finish()).await
}

async fn within(stall: Duration, sent: impl Future<Output = Result<(), StreamError>>) -> io::Result<()> {
    timeout(stall, sent).await.map_err(|_| io::ErrorKind::TimedOut)?.map_err(io::Error::other)
}

/// HTTP/3 knows no fields that speak of the connection (RFC 9114, 4.2).
fn remove_connection_fields(headers: &mut HeaderMap) {
    for name in [CONNECTION, HeaderName::from_static("keep-alive"), TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

async fn drain(rest: &Mutex<Unread>) {
    let mut drained = 0;
    while drained < DRAINED_BYTES {
        match std::future::poll_fn(|cx| rest.lock().poll_data(cx)).await {
            Ok(Some(data)) => drained += data.len(),
            Ok(None) | Err(_) => return,
        }
    }
}

/// What has not been read of a request.
struct Unread {
    stream: Receiving,
    /// What is still to come according to Content-Length.
    declared: Option<u64>,
    ended: bool,
}

impl Unread {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let data = match ready!(self.stream.poll_recv_data(cx)) {
            Ok(data) => data.map(|mut data| data.copy_to_bytes(data.remaining())),
            Err(error) => {
                self.ended = true;
                return Poll::Ready(Err(io::Error::other(error)));
            }
        };
        self.ended = data.is_none();
        Poll::Ready(self.count(data.as_ref()).map(|()| data))
    }

    /// A body of another length than was declared is malformed (RFC 9114, 4.1.2).
    fn count(&mut self, data: Option<&Bytes>) -> io::Result<()> {
        let Some(declared) = &mut self.declared else { return Ok(()) };
        let left = match data {
            Some(data) => declared.checked_sub(data.len() as u64),
            None => (*declared == 0).then_some(0),
        };
        *declared = left.ok_or_else(|| {
            self.ended = true;
            io::Error::new(io::ErrorKind::InvalidData, "the body is not as long as Content-Length says")
        })?;
        Ok(())
    }
}

/// A request's body; the client's window opens again as its bytes are taken. What the handler leaves is read later.
struct RequestBody(Arc<Mutex<Unread>>);

impl RequestBody {
    fn new(headers: &HeaderMap, stream: Receiving) -> Self {
        let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        RequestBody(Arc::new(Mutex::new(Unread { stream, declared, ended: false })))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let data = ready!(self.0.lock().poll_data(cx));
        Poll::Ready(data.map(|data| data.map(Frame::data)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().ended
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().declared.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
