//! WebTransport over HTTP/3 (draft-ietf-webtrans-http3): a session is a CONNECT stream, the one bidirectional stream that the
//! client opens in it, and datagrams.
//!
//! The stream carries one JSON object a line, both ways; a datagram carries one ephemeral message. The CONNECT stream says how
//! it ends, in a capsule.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h3::error::StreamError;
use http::{Request, Response};
use tokio::task::coop;
use tokio::time::timeout;
use tracing::debug;

use super::quic::connection::Shared;
use super::quic::demux::Stopped;
use super::quic::request::{self, Stream};
use super::quic::sessions::{SESSION_GONE, Session, SessionStream};
use super::quic::stream::poll_chunk;
use super::{Close, Opened, Opening, Received, Transport, Wire, WireError, drive};
use crate::context;
use crate::metrics;
use crate::problem::problem;
use crate::protocol::{Code, Frame, Refusal};

pub(crate) mod capsule;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handshake;
pub(crate) mod lines;

use lines::Lines;

/// Answers a CONNECT with `:protocol` webtransport on stream `id`, which may open a session.
pub(super) async fn open(
    request: Request<()>,
    stream: Stream,
    id: u64,
    stopped: Stopped,
    shared: Arc<Shared>,
) -> Option<Opened> {
    let (connect, session, opening) = match accept(request, stream, id, &shared).await {
        Ok(accepted) => accepted,
        Err(Refused::Told(stream, refusal)) => {
            shared.sessions.refuse(id);
            request::refuse(*stream, stopped, problem(&refusal), &shared).await;
            return None;
        }
        Err(Refused::Lost(error)) => {
            shared.sessions.refuse(id);
            debug!(remote = %shared.via.remote, %error, "CONNECT could not be answered");
            return None;
        }
    };
    // Whoever is interested in the end of the CONNECT stream reads it.
    drop(stopped);
    let context = Arc::clone(&shared.context);
    let takes_datagrams = shared.settings.borrow().is_some_and(|settings| settings.datagrams);
    let datagrams = takes_datagrams.then(|| shared.quic.clone());
    let wire = WebTransport::new(connect, session, datagrams, &context);
    Some(Box::pin(drive(wire, opening, context)))
}

enum Refused {
    Told(Box<Stream>, Refusal),
    Lost(StreamError),
}

async fn accept(
    request: Request<()>,
    mut stream: Stream,
    id: u64,
    shared: &Shared,
) -> Result<(Stream, Session, Opening), Refused> {
    let (parts, ()) = request.into_parts();
    let checked = async {
        settings(shared).await?;
        let opening = Opening::admit(&parts, Transport::WebTransport, shared.via, &shared.context).await?;
        let headers = handshake::accept(&parts.headers)?;
        let session = shared.sessions.open(id).ok_or_else(|| {
            Refusal::new(Code::RateLimited, "too many sessions on this connection; open another connection")
        })?;
        Ok((opening, headers, session))
    };
    let (opening, headers, session) = match checked.await {
        Ok(checked) => checked,
        Err(refusal) => return Err(Refused::Told(Box::new(stream), refusal)),
    };
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    match stream.send_response(response).await {
        Ok(()) => Ok((stream, session, opening)),
        Err(error) => Err(Refused::Lost(error)),
    }
}

/// Waits for the client's SETTINGS, before which a session must not be answered (draft-ietf-webtrans-http3, 3.1).
async fn settings(shared: &Shared) -> Result<(), Refusal> {
    let mut settings = shared.settings.clone();
    let wait = settings.wait_for(Option::is_some);
    match timeout(shared.context.config.connections.request_head, wait).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Refusal::bad_request("HTTP/3 SETTINGS must come before a WebTransport session is opened")),
    }
}

/// One session.
struct WebTransport {
    connect: Stream,
    capsules: capsule::Decoder,
    session: Session,
    /// Where datagrams are sent; `None` if the client takes none (RFC 9297, 2.1.1).
    datagrams: Option<quinn::Connection>,
    /// `None` until the client has opened it.
    stream: Option<SessionStream>,
    lines: Lines,
    /// Fed and not yet flushed.
    fed: BytesMut,
    flushing: Bytes,
    /// The client has ended the session, and reads nothing any more.
    closed_by_client: bool,
    /// How long saying goodbye may take.
    patience: Duration,
}

impl WebTransport {
    fn new(connect: Stream, session: Session, datagrams: Option<quinn::Connection>, server: &context::Context) -> Self {
        let config = &server.config;
        WebTransport {
            connect,
            capsules: capsule::Decoder::new(server.metrics.tally(metrics::Refused::Flood)),
            session,
            datagrams,
            stream: None,
            lines: Lines::new(config.limits.frame_bytes),
            fed: BytesMut::new(),
            flushing: Bytes::new(),
            closed_by_client: false,
            patience: config.connections.close,
        }
    }

    /// Waits for the next line, or the end of the stream.
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, WireError>> {
        if self.stream.is_none() {
            let mut stream = ready!(self.session.poll_stream(cx));
            self.lines.push(std::mem::take(&mut stream.head));
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else { return Poll::Pending };
        loop {
            // A line too long, or none for a long time: other tasks get their turn either way.
            let progress = ready!(coop::poll_proceed(cx));
            match self.lines.next() {
                Ok(Some(line)) => {
                    progress.made_progress();
                    return Poll::Ready(Ok(Some(line)));
                }
                Ok(None) => {}
                Err(lines::TooLong) => return Poll::Ready(Err(WireError::Broken(too_long()))),
            }
            let chunk = ready!(poll_chunk(&mut stream.recv, usize::MAX, cx));
            progress.made_progress();
            match chunk {
                Ok(Some(chunk)) => self.lines.push(chunk),
                Ok(None) if self.lines.at_boundary() => return Poll::Ready(Ok(None)),
                Ok(None) => return Poll::Ready(Err(WireError::Lost("the stream ends within a line".into()))),
                // A browser that closes a session resets its streams; the CONNECT stream has the reason.
                Err(quinn::ReadError::Reset(code)) if code == SESSION_GONE.into() => return Poll::Ready(Ok(None)),
                Err(error) => return Poll::Ready(Err(WireError::Lost(error.to_string().into()))),
            }
        }
    }

    /// Waits for the end of the session on the CONNECT stream; an error is that of a client that broke it.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        loop {
            let mut data = match ready!(self.connect.poll_recv_data(cx)) {
                Ok(Some(data)) => data,
                Ok(None) => {
                    debug!("session ended by the client");
                    break;
                }
                Err(error) => return Poll::Ready(Err(WireError::Lost(error.to_string().into()))),
            };
            match self.capsules.push(&data.copy_to_bytes(data.remaining())) {
                Ok(None) => {}
                Ok(Some(closed)) => {
                    debug!(code = closed.code, "session closed by the client");
                    break;
                }
                Err(broken) => {
                    let code = if broken == capsule::Broken::Flood { Code::RateLimited } else { Code::BadRequest };
                    let refusal = Refusal::new(code, format!("the CONNECT stream carries {broken}"));
                    return Poll::Ready(Err(WireError::Broken(refusal)));
                }
            }
        }
        self.closed_by_client = true;
        Poll::Ready(Ok(()))
    }

    fn send_datagram(&self, text: &[u8]) -> bool {
        let Some(quic) = &self.datagrams else { return false };
        let datagram = self.session.datagram(text);
        quic.max_datagram_size().is_some_and(|most| datagram.len() <= most) && quic.send_datagram(datagram).is_ok()
    }

    /// Sees everything that was fed to the client, and ends the stream.
    async fn deliver(&mut self) {
        if poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
            return;
        }
        if let Some(stream) = &mut self.stream
            && stream.send.finish().is_ok()
        {
            // The capsule is on another stream, and would overtake the last words on this one.
            let _ = stream.send.stopped().await;
        }
    }

    /// Ends what is left of the stream.
    fn abandon_stream(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            // Both fail only where it has ended by itself.
            let _ = stream.send.reset(SESSION_GONE.into());
            let _ = stream.recv.stop(SESSION_GONE.into());
        }
    }

    async fn say_closed(&mut self, close: &Close) -> Result<(), StreamError> {
        if !self.closed_by_client {
            let code = close.code.map_or(0, |code| code.close_code().into());
            self.connect.send_data(capsule::close(code, &close.reason)).await?;
        }
        self.connect.finish().await
    }

    /// Waits until the client has ended its side, or is gone, as browsers are once they know. One that is told to stop
    /// sending may take that for the end, and lose the code.
    async fn until_client_ends(&mut self) {
        while !self.closed_by_client {
            self.closed_by_client = !matches!(self.connect.recv_data().await, Ok(Some(_)));
        }
    }
}

fn too_long() -> Refusal {
    Refusal::new(Code::TooLarge, "a line may have limits.frameBytes bytes")
}

impl Wire for WebTransport {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Received>, WireError>> {
        if self.closed_by_client {
            return Poll::Ready(Ok(None));
        }
        if let Poll::Ready(line) = self.poll_line(cx) {
            return Poll::Ready(line.map(|line| line.map(Received::Message)));
        }
        if let Poll::Ready(datagram) = self.session.poll_datagram(cx) {
            return Poll::Ready(Ok(Some(Received::Datagram(datagram))));
        }
        self.poll_closed(cx).map_ok(|()| None)
    }

    fn feed(&mut self, frame: Frame) -> Result<(), WireError> {
        if !frame.ephemeral || !self.send_datagram(&frame.text()) {
            frame.put(&mut self.fed);
            self.fed.put_u8(b'\n');
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        let Some(stream) = &mut self.stream else {
            // Nothing to flush to; what was fed may find its way later.
            return Poll::Ready(Ok(()));
        };
        loop {
            if self.flushing.is_empty() {
                if self.fed.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                // Taken, not split off: an idle session keeps no buffer.
                self.flushing = std::mem::take(&mut self.fed).freeze();
            }
            let written = pin!(stream.send.write_chunks(std::slice::from_mut(&mut self.flushing))).poll(cx);
            if let Err(error) = ready!(written) {
                return Poll::Ready(Err(WireError::Lost(error.to_string().into())));
            }
        }
    }

    /// Nothing to do: QUIC's keep-alives are acknowledged below any page.
    fn probe(&mut self) -> Result<(), WireError> {
        Ok(())
    }

    /// QUIC reports a lost connection by itself.
    fn last_heard(&self) -> Option<Instant> {
        None
    }

    async fn close(mut self, close: Close) {
        // A client that does not read its stream shall still learn why it was closed.
        if self.closed_by_client || timeout(self.patience / 2, self.deliver()).await.is_err() {
            self.abandon_stream();
        }
        match self.say_closed(&close).await {
            Ok(()) => self.until_client_ends().await,
            Err(error) => debug!(%error, "the client could not be told why its session ended"),
        }
    }
}

impl Drop for WebTransport {
    fn drop(&mut self) {
        self.abandon_stream();
    }
}
