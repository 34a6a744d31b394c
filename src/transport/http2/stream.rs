//! One HTTP/2 stream as a byte stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The DATA frames of an accepted CONNECT (RFC 9113, 8.5), both ways.
///
/// Shutting it down sends END_STREAM behind all that was written; dropping it before resets the stream with CANCEL, which
/// frees at once what the other side has not taken.
#[derive(Debug)]
pub(crate) struct Http2Stream {
    /// `None` until the CONNECT is answered, which is for a client to wait for.
    recv: Option<RecvStream>,
    send: SendStream<Bytes>,
    /// Received and not yet read; still counted against the flow-control window.
    rest: Bytes,
    ended: bool,
}

impl Http2Stream {
    pub(crate) fn new(recv: RecvStream, send: SendStream<Bytes>) -> Self {
        Http2Stream { recv: Some(recv), send, rest: Bytes::new(), ended: false }
    }

    /// The stream of a CONNECT that is not answered yet: it takes what is said, and has nothing to read.
    pub(crate) fn asked(send: SendStream<Bytes>) -> Self {
        Http2Stream { recv: None, send, rest: Bytes::new(), ended: false }
    }

    /// The CONNECT was accepted: what is read comes from `recv`.
    pub(crate) fn accepted(&mut self, recv: RecvStream) {
        self.recv = Some(recv);
    }

    /// Why the stream takes no more: the other side's reset, or the loss of the connection.
    fn poll_why_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Ready(match ready!(self.send.poll_reset(cx)) {
            Ok(Reason::NO_ERROR | Reason::CANCEL | Reason::STREAM_CLOSED) => io::ErrorKind::BrokenPipe.into(),
            Ok(reason) => into_io(reason.into()),
            Err(error) => into_io(error),
        })
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { recv, rest, .. } = &mut *self;
        let Some(recv) = recv else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        while rest.is_empty() {
            match ready!(recv.poll_data(cx)) {
                Some(Ok(data)) => *rest = data,
                Some(Err(error)) => {
                    return Poll::Ready(match error.reason() {
                        // A reset without an error is an end without a Close frame.
                        Some(Reason::NO_ERROR | Reason::CANCEL) => Ok(()),
                        _ => Err(into_io(error)),
                    });
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..taken]);
        rest.advance(taken);
        // Fails only when the stream is closed, which the next read tells.
        let _ = recv.flow_control().release_capacity(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(bytes.len());
        // Assigned capacity is announced by poll_capacity only once; what is left of it is asked for first.
        let capacity = match self.send.capacity() {
            0 => match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(capacity)) => capacity,
                Some(Err(_)) | None => return self.poll_why_closed(cx).map(Err),
            },
            capacity => capacity,
        };
        let taken = capacity.min(bytes.len());
        if self.send.send_data(Bytes::copy_from_slice(&bytes[..taken]), false).is_err() {
            return self.poll_why_closed(cx).map(Err);
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task writes what it was given as soon as it can.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            if self.send.send_data(Bytes::new(), true).is_err() {
                return self.poll_why_closed(cx).map(Err);
            }
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        if !self.ended {
            self.send.send_reset(Reason::CANCEL);
        }
    }
}

fn into_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
    } else {
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }
}
