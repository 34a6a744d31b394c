//! A session over WebSocket (RFC 6455), whatever carries its bytes: an upgraded HTTP/1.1 connection or an HTTP/2 stream.
//!
//! Frames are read and written here, and not by a library: those at hand end a broken connection with a close code of their own
//! before the client could be told in the protocol's terms (`closed` and a code from 4000 on), queue an answer to each ping of
//! a client that does not read, say nothing of fragments, and keep a read buffer of 8 KiB for a client that is silent.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::flood::{FRAMES_A_SECOND, Flood};
use super::{Close, Received, Wire, WireError};
use crate::metrics::Tally;
use crate::protocol::{Code, Frame, Refusal};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod handshake;
mod reader;

use reader::{Fault, Message, Reader};

/// Control frames that are answered in one poll; their sender must not keep the task from its other work.
const CONTROL_FRAMES_A_POLL: usize = 32;

/// What is read at once where no long frame is under way; on the stack, so that who is silent has no buffer.
const READ_BYTES: usize = 8 * 1024;

/// A message that is not whole within this time is no sign of life any more, however many bytes of it come: the largest one takes as
/// long at 64 kbit/s.
const WHOLE_WITHIN: Duration = Duration::from_secs(20);

/// Closes without a fault on either side (RFC 6455, 7.4.1).
const NORMAL_CLOSURE: u16 = 1000;

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
/// Memory: what [`Reader`] has of a message being received, what was fed since the last flush, and one pong.
#[derive(Debug)]
pub(crate) struct WebSocketWire<S> {
    stream: S,
    reader: Reader,
    /// When bytes came in last of what is no endless message; before the first, when the stream was opened.
    heard: Instant,
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
        WebSocketWire {
            stream,
            reader: Reader::new(frame_bytes, Flood::new(FRAMES_A_SECOND, floods)),
            heard: Instant::now(),
            frame_bytes,
            out: BytesMut::new(),
            pong: None,
            reading: Reading::Open,
            close_sent: false,
        }
    }

    /// Appends one unmasked frame (RFC 6455, 5.2).
    fn put_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.put_header(opcode, payload.len());
        self.out.put_slice(payload);
    }

    /// Appends the beginning of an unmasked frame, and makes room for what belongs to it.
    fn put_header(&mut self, opcode: u8, payload_bytes: usize) {
        self.out.reserve(payload_bytes + 10);
        self.out.put_u8(opcode);
        match payload_bytes {
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

    /// Reads what there is, or waits for it; false at the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let stream = Pin::new(&mut self.stream);
        let lacks = self.reader.lacks();
        let read = if lacks <= READ_BYTES {
            let mut scratch = [const { MaybeUninit::uninit() }; READ_BYTES];
            let mut scratch = ReadBuf::uninit(&mut scratch);
            ready!(stream.poll_read(cx, &mut scratch))?;
            self.reader.buffer().extend_from_slice(scratch.filled());
            scratch.filled().len()
        } else {
            self.reader.buffer().reserve(lacks);
            ready!(poll_read_buf(stream, cx, self.reader.buffer()))?
        };
        Poll::Ready(Ok(read > 0))
    }

    /// What the session is told of a message; `None` for a control frame that was dealt with here.
    fn received(&mut self, message: Message) -> Option<Option<Received>> {
        match message {
            Message::Text(text) => Some(Some(Received::Message(text))),
            Message::Binary => {
                let refusal = Refusal::bad_request("send each message as a text frame, not a binary one");
                Some(Some(Received::Unusable(refusal)))
            }
            Message::Ping(payload) => {
                if !self.close_sent {
                    // A copy, because the payload would keep the whole read buffer alive.
                    self.pong = Some(Bytes::copy_from_slice(&payload));
                }
                None
            }
            Message::Pong => None,
            Message::Close(code) => {
                self.reading = Reading::Closed;
                // An echo of the client's own code completes the closing handshake (RFC 6455, 5.5.1).
                self.put_close(code, "");
                Some(None)
            }
        }
    }

    fn broken(&mut self, fault: Fault) -> WireError {
        self.reading = Reading::Broken;
        WireError::Broken(match fault {
            Fault::TooLarge => {
                Refusal::new(Code::TooLarge, format!("a message has at most {} bytes", self.frame_bytes))
            }
            Fault::NotUtf8 => Refusal::bad_request("text frames and close reasons must be UTF-8"),
            Fault::Flood => {
                let text = format!("more than {FRAMES_A_SECOND} fragments, pings and pongs in a second");
                Refusal::new(Code::RateLimited, text)
            }
            Fault::Framing(what) => Refusal::bad_request(format!("not a WebSocket frame by RFC 6455: {what}")),
        })
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
            let mut came = false;
            let message = loop {
                let next = self.reader.next().map_err(|fault| self.broken(fault))?;
                // Judged by what they amount to: the bytes that end a message are a sign of life, however long it took.
                if came && self.reader.begun().is_none_or(|begun| begun.elapsed() < WHOLE_WITHIN) {
                    self.heard = Instant::now();
                }
                match next {
                    Some(message) => break message,
                    None if ready!(self.poll_read(cx)).map_err(|error| lost(&error))? => came = true,
                    None => return Poll::Ready(Err(WireError::Lost("the stream ended without a Close frame".into()))),
                }
            };
            let received = self.received(message);
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
        self.put_header(TEXT, frame.len());
        frame.put(&mut self.out);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        loop {
            while !self.out.is_empty() {
                let stream = Pin::new(&mut self.stream);
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
        Pin::new(&mut self.stream).poll_flush(cx).map_err(|error| lost(&error))
    }

    fn probe(&mut self) -> Result<(), WireError> {
        if !self.close_sent {
            self.put_frame(PING, b"");
        }
        Ok(())
    }

    fn last_heard(&self) -> Option<Instant> {
        Some(self.heard)
    }

    async fn close(mut self, close: Close) {
        self.put_close(Some(close.code.map_or(NORMAL_CLOSURE, Code::close_code)), &close.reason);
        if std::future::poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
            return;
        }
        std::future::poll_fn(|cx| self.poll_close_received(cx)).await;
        let stream = &mut self.stream;
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

fn lost(error: &io::Error) -> WireError {
    WireError::Lost(error.to_string().into())
}

/// At most `max` bytes of `text`, cut between characters.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests;
