//! The stream as the WebSocket library sees it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::heads::Heads;
use crate::transport::flood::Flood;

/// A message that is not whole within this time is no sign of life any more, however many bytes of it come: the largest one takes as
/// long at 64 kbit/s.
const WHOLE_WITHIN: Duration = Duration::from_secs(20);

/// Reads from the stream below, and notes when, and whether it is a flood of fragments or control frames; what the library writes on its own account (pongs, Close frames) goes
/// nowhere, because the wire writes its own.
#[derive(Debug)]
pub(super) struct Incoming<S> {
    stream: S,
    heard: Instant,
    heads: Heads,
    flood: Flood,
}

impl<S> Incoming<S> {
    pub(super) fn new(stream: S, flood: Flood) -> Self {
        Incoming { stream, heard: Instant::now(), heads: Heads::default(), flood }
    }

    /// Whether the client was cut off for a flood.
    pub(super) fn is_flooded(&self) -> bool {
        self.flood.is_on()
    }

    /// The stream itself, for the wire's own writes.
    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// When the last byte came in of what is no endless message; before the first, when the stream was opened.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Incoming<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.flood.is_on() {
            return Poll::Ready(Err(io::Error::other("a flood of fragments or control frames")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            this.heads.follow(&buffer.filled()[before..], || {
                this.flood.note();
            });
            if this.heads.begun().is_none_or(|begun| begun.elapsed() < WHOLE_WITHIN) {
                this.heard = Instant::now();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Unpin> AsyncWrite for Incoming<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
