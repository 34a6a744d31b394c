//! The server's first frames, ahead of their time: sent with the TLS handshake's first flight, so that a client, which must have
//! read SETTINGS before it asks for a WebSocket (RFC 8441, 3), has them a round trip earlier.

use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::settings;
use crate::config::ConnectionLimits;

/// What h2 says to every client before it has heard from it: its SETTINGS.
///
/// It is the same for everybody and says nothing that is not public, so that it may be sent to a client that has not proven yet
/// that it took part in the handshake (RFC 8446, 4.4.4).
pub(crate) fn preface(limits: &ConnectionLimits) -> Bytes {
    let mut said = Vec::new();
    {
        let handshake = pin!(settings(limits).handshake::<_, Bytes>(Silence { said: &mut said }));
        // h2 says what it has to say, and waits for a client that never speaks.
        let waits = handshake.poll(&mut Context::from_waker(Waker::noop())).is_pending();
        debug_assert!(waits, "a server waits for its client's preface");
    }
    said.into()
}

/// A client that listens, and says nothing.
struct Silence<'a> {
    said: &'a mut Vec<u8>,
}

impl AsyncRead for Silence<'_> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Silence<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().said.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A connection on which the server has said something already: what h2 says again is left out.
#[derive(Debug)]
pub(super) struct Ahead<S> {
    io: S,
    said: Bytes,
}

impl<S> Ahead<S> {
    pub(super) fn new(io: S, said: Bytes) -> Self {
        Ahead { io, said }
    }

    /// How many of `bytes` have been said; an error if it was something else.
    fn skip(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let known = self.said.len().min(bytes.len());
        if self.said[..known] != bytes[..known] {
            return Err(io::Error::other("the server's preface is not the one that was sent ahead"));
        }
        self.said.advance(known);
        Ok(known)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.said.is_empty() {
            return Poll::Ready(self.skip(bytes));
        }
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.said.is_empty() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return Poll::Ready(self.skip(first));
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn the_preface_is_one_settings_frame_that_allows_extended_connect() {
        let preface = preface(&ConnectionLimits::default());
        let length = u32::from_be_bytes([0, preface[0], preface[1], preface[2]]) as usize;
        // RFC 9113, 4.1 and 6.5: type 4, no flags, stream 0; and nothing behind it.
        assert_eq!(preface[3..9], [4, 0, 0, 0, 0, 0]);
        assert_eq!(preface.len(), 9 + length);
        assert!(preface[9..].chunks(6).any(|setting| setting == [0, 8, 0, 0, 0, 1]), "{preface:x?}");
    }

    #[tokio::test]
    async fn what_was_said_is_not_said_again_wherever_writes_cut_it() {
        for size in 1..8 {
            let mut ahead = Ahead::new(Vec::new(), Bytes::from_static(b"known"));
            for part in b"known, and more".chunks(size) {
                ahead.write_all(part).await.expect("the same");
            }
            assert_eq!(ahead.io, b", and more");
        }
        let mut ahead = Ahead::new(Vec::new(), Bytes::from_static(b"known"));
        assert!(ahead.write_all(b"knows").await.is_err(), "something else was said");
    }
}
