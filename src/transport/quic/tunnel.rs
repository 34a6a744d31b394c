//! One HTTP/3 stream as a byte stream.

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h3::error::StreamError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::ReusableBoxFuture;

use super::request::{Receiving, Sending, Stream};

/// The most that one DATA frame carries; what is copied for QUIC at a time.
const FRAME_BYTES: usize = 16 * 1024;

/// The DATA frames of an accepted CONNECT (RFC 9114, 4.4), both ways.
///
/// Shutting it down ends the stream behind all that was written; dropping it before resets it, which frees at once what the
/// other side has not taken.
pub(super) struct Tunnel {
    recv: Receiving,
    /// Received and not yet read.
    rest: Bytes,
    /// `None` while `busy` has it.
    send: Option<Sending>,
    /// h3 sends in futures only. This one is kept from poll to poll, in one place for the life of the stream.
    busy: ReusableBoxFuture<'static, (Sending, Result<(), StreamError>)>,
    ended: bool,
}

impl Tunnel {
    pub(super) fn new(stream: Stream) -> Self {
        let (send, recv) = stream.split();
        Tunnel { recv, rest: Bytes::new(), send: Some(send), busy: ReusableBoxFuture::new(pending()), ended: false }
    }

    /// Begins to send; nothing else may be on its way.
    fn begin<F>(&mut self, sending: impl FnOnce(Sending) -> F)
    where
        F: Future<Output = (Sending, Result<(), StreamError>)> + Send + 'static,
    {
        if let Some(send) = self.send.take() {
            self.busy.set(sending(send));
        }
    }

    /// Waits until QUIC has taken what is on its way.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.send.is_some() {
            return Poll::Ready(Ok(()));
        }
        let (send, sent) = ready!(self.busy.poll(cx));
        self.send = Some(send);
        Poll::Ready(sent.map_err(into_io))
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.recv.poll_recv_data(cx)).map_err(into_io)? {
                Some(mut data) => self.rest = data.copy_to_bytes(data.remaining()),
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..taken]);
        self.rest.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(cx))?;
        let taken = bytes.len().min(FRAME_BYTES);
        if taken > 0 {
            let data = Bytes::copy_from_slice(&bytes[..taken]);
            self.begin(|mut send| async move {
                let sent = send.send_data(data).await;
                (send, sent)
            });
            // Whatever QUIC does not take at once is waited for by the next call.
            if let Poll::Ready(sent) = self.poll_sent(cx) {
                sent?;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(cx))?;
        if !self.ended {
            self.ended = true;
            self.begin(|mut send| async move {
                let sent = send.finish().await;
                (send, sent)
            });
        }
        self.poll_sent(cx)
    }
}

fn into_io(error: StreamError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error.to_string())
}
