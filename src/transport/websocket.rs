//! A session over WebSocket (RFC 6455), whatever carries its bytes: an upgraded HTTP/1.1 connection or an HTTP/2 stream.
//!
//! Reading is left to tokio-websockets, which refuses all that RFC 6455 forbids. Writing is done here: the library would end
//! a broken connection with a close code of its own before the client could be told in the protocol's terms (`closed` and a
//! code from 4000 on), and would queue an answer to each ping of a client that does not read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::Stream as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_websockets::proto::ProtocolError;
use tokio_websockets::{CloseCode, Error, Limits, Message, ServerBuilder, WebSocketStream};

use super::flood::{FRAMES_A_SECOND, Flood};
use super::{Close, Received, Wire, WireError};
use crate::metrics::Tally;
use crate::protocol::{Code, Frame, Refusal};

pub(crate) mod handshake;
mod heads;
mod incoming;

use incoming::Incoming;

/// Control frames that are answered in one poll; their sender must not keep the task from its other work.
const CONTROL_FRAMES_A_POLL: usize = 32;

/// What an empty write buffer may keep of its memory; most messages fit.
const KEPT_CAPACITY: usize = 4 * 1024;

/// A control frame carries at most 125 bytes (RFC 6455, 5.5), two of which are a Close's code.
const MAX_REASON: usize = 123;

/// Opcodes with the FIN bit set (RFC 6455, 5.2): nothing is sent in fragments.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// One client's WebSocket, seen from the server.
///
/// Memory: one message being received (twice `frame_bytes` for a moment, when it comes in fragments), what was fed since the
/// last flush, and one pong.
#[derive(Debug)]
pub(crate) struct WebSocketWire<S> {
    reader: WebSocketStream<Incoming<S>>,
    frame_bytes: usize,
    /// Frames on their way to the stream below.
    out: BytesMut,
    /// The latest ping's payload, until there is room to answer it; earlier ones need no answer (RFC 6455, 5.5.3).
    pong: Option<Bytes>,
    reading: Reading,
    close_sent: bool,
}

/// What can still be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Frames.
    Open,
    /// The client's Close has been read; nothing follows.
    Closed,
    /// Bytes whose meaning is lost.
    Broken,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> WebSocketWire<S> {
    /// Takes over a stream on which the opening handshake is done. `frame_bytes` is the most that one message may have;
    /// `floods` counts the flood for which it may end.
    pub(crate) fn new(stream: S, frame_bytes: usize, floods: Tally) -> Self {
        let limits = Limits::default().max_payload_len(Some(frame_bytes));
        let incoming = Incoming::new(stream, Flood::new(FRAMES_A_SECOND, floods));
        WebSocketWire {
            reader: ServerBuilder::new().limits(limits).serve(incoming),
            frame_bytes,
            out: BytesMut::new(),
            pong: None,
            reading: Reading::Open,
            close_sent: false,
        }
    }

    /// Appends one unmasked frame (RFC 6455, 5.2).
    fn put_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.out.reserve(payload.len() + 10);
        self.out.put_u8(opcode);
        match payload.len() {
            len @ 0..=125 => self.out.put_u8(len as u8),
            len @ 126..=0xffff => {
                self.out.put_u8(126);
                self.out.put_u16(len as u16);
            }
            len => {
                self.out.put_u8(127);
                self.out.put_u64(len as u64);
            }
        }
        self.out.put_slice(payload);
    }

    /// Appends the one Close frame that may be sent.
    fn put_close(&mut self, code: Option<u16>, reason: &str) {
        if self.close_sent {
            return;
        }
        self.close_sent = true;
        self.pong = None;
        let mut payload = Vec::with_capacity(2 + MAX_REASON);
        if let Some(code) = code {
            payload.extend_from_slice(&code.to_be_bytes());
            payload.extend_from_slice(cut(reason, MAX_REASON).as_bytes());
        }
        self.put_frame(CLOSE, &payload);
    }

    /// Turns what the library made of the client's bytes into what the session is told; `None` for a control frame that
    /// was dealt with here.
    fn received(&mut self, message: Message) -> Option<Option<Received>> {
        if let Some((code, _)) = message.as_close() {
            self.reading = Reading::Closed;
            // An echo of the client's own code completes the closing handshake (RFC 6455, 5.5.1).
            self.put_close((code != CloseCode::NO_STATUS_RECEIVED).then(|| code.into()), "");
            return Some(None);
        }
        if message.is_ping() && !self.close_sent {
            // A copy, because the payload would keep the whole read buffer alive.
            self.pong = Some(Bytes::copy_from_slice(message.as_payload()));
        }
        if message.is_ping() || message.is_pong() {
            return None;
        }
        if message.is_binary() {
            let refusal = Refusal::bad_request("send each message as a text frame, not a binary one");
            return Some(Some(Received::Unusable(refusal)));
        }
        Some(Some(Received::Message(message.into_payload().into())))
    }

    fn failed(&mut self, error: Error) -> WireError {
        self.reading = Reading::Broken;
        if self.reader.get_ref().is_flooded() {
            let text = format!("more than {FRAMES_A_SECOND} fragments, pings and pongs in a second");
            return WireError::Broken(Refusal::new(Code::RateLimited, text));
        }
        match error {
            Error::PayloadTooLong { .. } => WireError::Broken(Refusal::new(
                Code::TooLarge,
                format!("a message has at most {} bytes", self.frame_bytes),
            )),
            Error::Protocol(ProtocolError::InvalidUtf8) => {
                WireError::Broken(Refusal::bad_request("text frames and close reasons must be UTF-8"))
            }
            Error::Protocol(error) => {
                WireError::Broken(Refusal::bad_request(format!("not a WebSocket frame by RFC 6455: {error}")))
            }
            Error::Io(error) => lost(&error),
            error => WireError::Lost(error.to_string().into()),
        }
    }

    /// Reads on until the client's Close or the end of the stream, whatever comes before it.
    fn poll_close_received(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.reading == Reading::Open {
            match ready!(self.poll_recv(cx)) {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Wire for WebSocketWire<S> {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Received>, WireError>> {
        for _ in 0..CONTROL_FRAMES_A_POLL {
            match self.reading {
                Reading::Open => {}
                Reading::Closed => return Poll::Ready(Ok(None)),
                Reading::Broken => return Poll::Ready(Err(WireError::Lost("broken framing".into()))),
            }
            let received = match ready!(Pin::new(&mut self.reader).poll_next(cx)) {
                Some(Ok(message)) => self.received(message),
                Some(Err(error)) => return Poll::Ready(Err(self.failed(error))),
                None => return Poll::Ready(Err(WireError::Lost("the stream ended without a Close frame".into()))),
            };
            if self.pong.is_some() || self.reading == Reading::Closed {
                // Goes out now if it can; if not, the task is woken when there is room, and comes by again.
                let _ = self.poll_flush(cx)?;
            }
            if let Some(received) = received {
                return Poll::Ready(Ok(received));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn feed(&mut self, frame: Frame) -> Result<(), WireError> {
        if self.close_sent {
            return Err(WireError::Lost("already closed".into()));
        }
        self.put_frame(TEXT, &frame.text);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        loop {
            while !self.out.is_empty() {
                let stream = Pin::new(self.reader.get_mut().stream());
                let written = ready!(stream.poll_write(cx, &self.out)).map_err(|error| lost(&error))?;
                if written == 0 {
                    return Poll::Ready(Err(WireError::Lost("the stream takes nothing more".into())));
                }
                self.out.advance(written);
            }
            match self.pong.take() {
                Some(payload) => self.put_frame(PONG, &payload),
                None => break,
            }
        }
        if self.out.capacity() > KEPT_CAPACITY {
            self.out = BytesMut::new();
        }
        Pin::new(self.reader.get_mut().stream()).poll_flush(cx).map_err(|error| lost(&error))
    }

    fn probe(&mut self) -> Result<(), WireError> {
        if !self.close_sent {
            self.put_frame(PING, b"");
        }
        Ok(())
    }

    fn last_heard(&self) -> Option<Instant> {
        Some(self.reader.get_ref().heard())
    }

    async fn close(mut self, close: Close) {
        self.put_close(Some(close.code.map_or(CloseCode::NORMAL_CLOSURE.into(), Code::close_code)), &close.reason);
        if std::future::poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
            return;
        }
        std::future::poll_fn(|cx| self.poll_close_received(cx)).await;
        let stream = self.reader.get_mut().stream();
        if std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_shutdown(cx)).await.is_err() {
            return;
        }
        // A socket closed with bytes unread is reset, which may cost the client our last words.
        std::future::poll_fn(|cx| poll_discard(stream, cx)).await;
    }
}

/// Reads until the end of the stream.
fn poll_discard<S: AsyncRead + Unpin>(stream: &mut S, cx: &mut Context<'_>) -> Poll<()> {
    let mut scrap = [0; 1024];
    loop {
        let mut buffer = ReadBuf::new(&mut scrap);
        match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => {}
            Ok(()) | Err(_) => return Poll::Ready(()),
        }
    }
}

fn lost(error: &std::io::Error) -> WireError {
    WireError::Lost(error.to_string().into())
}

/// At most `max` bytes of `text`, cut between characters.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests;
