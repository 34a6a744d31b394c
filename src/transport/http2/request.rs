//! An ordinary request on one stream of an HTTP/2 connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::timeout;
use tower::ServiceExt as _;
use tracing::debug;

use crate::transport::Via;
use crate::transport::priority::Urgency;

mod push;

use push::Pushes;

/// Lets the router answer one request, and those that are pushed with it. `stall` is how long the client may leave a window
/// closed.
pub(super) async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    via: Via,
    router: Router,
    stall: Duration,
) {
    let pace = Pace { turn: Urgency::of(request.headers()).turn_bytes(), stall };
    let template = push::template(&request);
    let mut request = request.map(|recv| Body::new(RequestBody { recv }));
    request.extensions_mut().insert(via);
    let response = tokio::select! {
        response = router.clone().oneshot(request) => match response {
            Ok(response) => response,
            Err(never) => match never {},
        },
        // A client that no longer wants the answer is not served any further.
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    // Promised before the page that asks for them, so that the client does not ask as well (RFC 9113, 8.4).
    let pushes = response.extensions().get().and_then(|preload| Pushes::promise(preload, &template, &mut respond));
    if let Err(error) = send(response, |head, empty| respond.send_response(head, empty), pace).await {
        debug!(remote = %via.remote, %error, "response not sent to its end");
    }
    if let Some(pushes) = pushes {
        pushes.answer(via, router, pace).await;
    }
}

/// How an answer is sent.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// How many bytes are handed to HTTP/2 at a time. Window that is assigned to a stream is lost to all others, and what has
    /// been handed over goes before what comes later: an answer takes little of both, so that sessions need not wait for it.
    turn: usize,
    /// How long the client may take nothing.
    stall: Duration,
}

/// Sends the response by `begin`, which sends its head and tells whether there is nothing else.
async fn send(
    response: Response<Body>,
    begin: impl FnOnce(Response<()>, bool) -> Result<SendStream<Bytes>, h2::Error>,
    pace: Pace,
) -> io::Result<()> {
    let (mut head, body) = response.into_parts();
    remove_connection_fields(&mut head.headers);
    // Answers to HEAD and those with status 204 or 304 have no body, and end with their header section.
    let empty = body.is_end_stream();
    let mut stream = begin(Response::from_parts(head, ()), empty).map_err(io::Error::other)?;
    if empty {
        return Ok(());
    }
    let sent = send_body(&mut stream, body, pace).await;
    if sent.is_err() {
        stream.send_reset(Reason::INTERNAL_ERROR);
    }
    sent
}

/// Streams the body no faster than the client's windows open.
async fn send_body(stream: &mut SendStream<Bytes>, mut body: Body, pace: Pace) -> io::Result<()> {
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame.transpose().map_err(io::Error::other)?,
            reset = poll_fn(|cx| stream.poll_reset(cx)) => return Err(why(reset)),
        };
        let Some(frame) = frame else {
            return stream.send_data(Bytes::new(), true).map_err(io::Error::other);
        };
        match frame.into_data() {
            Ok(data) => {
                let last = body.is_end_stream();
                send_data(stream, data, last, pace).await?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers).map_err(io::Error::other);
                }
            }
        }
    }
}

async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes, last: bool, pace: Pace) -> io::Result<()> {
    if data.is_empty() {
        return if last { stream.send_data(data, true).map_err(io::Error::other) } else { Ok(()) };
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len().min(pace.turn));
        let capacity = match stream.capacity() {
            0 => {
                let capacity = poll_fn(|cx| stream.poll_capacity(cx));
                let capacity = timeout(pace.stall, capacity).await.map_err(|_| io::ErrorKind::TimedOut)?;
                capacity.ok_or(io::ErrorKind::BrokenPipe)?.map_err(io::Error::other)?
            }
            capacity => capacity,
        };
        let chunk = data.split_to(capacity.min(pace.turn).min(data.len()));
        stream.send_data(chunk, last && data.is_empty()).map_err(io::Error::other)?;
    }
    Ok(())
}

fn why(reset: Result<Reason, h2::Error>) -> io::Error {
    match reset {
        Ok(reason) => io::Error::new(io::ErrorKind::BrokenPipe, reason.description()),
        Err(error) => io::Error::other(error),
    }
}

/// HTTP/2 knows no fields that speak of the connection (RFC 9113, 8.2.2).
fn remove_connection_fields(headers: &mut HeaderMap) {
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

/// A request's body; the client's window opens again as its bytes are taken.
struct RequestBody {
    recv: RecvStream,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match ready!(self.recv.poll_data(cx)) {
            Some(Ok(data)) => {
                // Fails only when the stream is closed, which the next poll tells.
                let _ = self.recv.flow_control().release_capacity(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                let trailers = ready!(self.recv.poll_trailers(cx));
                Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.recv.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.recv.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}
