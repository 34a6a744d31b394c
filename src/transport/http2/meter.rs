//! A limit on frames that cost the server work and the client nothing, which h2 does not have.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::metrics::Tally;
use crate::transport::flood::{FRAMES_A_SECOND, Flood};

/// What a client sends before its first frame (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

/// A frame's head (RFC 9113, 4.1): three bytes of length, type, flags, stream.
const HEAD_BYTES: usize = 9;

/// Follows the heads of a client's frames and fails when there is a flood of PING, SETTINGS, RST_STREAM and their like
/// (CVE-2019-9512, CVE-2019-9515, CVE-2023-44487).
///
/// DATA, HEADERS and CONTINUATION are not counted: h2 has limits of its own for them, and WINDOW_UPDATE belongs to the work it
/// does.
#[derive(Debug)]
pub(super) struct Metered<S> {
    io: S,
    /// Bytes until the next head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// How much of `head` is there.
    filled: usize,
    flood: Flood,
}

impl<S> Metered<S> {
    /// `tally` counts a flood.
    pub(super) fn new(io: S, tally: Tally) -> Self {
        let flood = Flood::new(FRAMES_A_SECOND, tally);
        Metered { io, skip: PREFACE_BYTES, head: [0; HEAD_BYTES], filled: 0, flood }
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let step = if self.skip > 0 {
                let step = self.skip.min(bytes.len());
                self.skip -= step;
                step
            } else {
                let step = (HEAD_BYTES - self.filled).min(bytes.len());
                self.head[self.filled..self.filled + step].copy_from_slice(&bytes[..step]);
                self.filled += step;
                step
            };
            bytes = &bytes[step..];
            if self.filled == HEAD_BYTES {
                self.filled = 0;
                let [high, middle, low, r#type, ..] = self.head;
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                if is_counted(r#type) {
                    self.flood.note();
                }
            }
        }
    }
}

fn is_counted(r#type: u8) -> bool {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const WINDOW_UPDATE: u8 = 8;
    const CONTINUATION: u8 = 9;
    !matches!(r#type, DATA | HEADERS | WINDOW_UPDATE | CONTINUATION)
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.flood.is_on() {
            return Poll::Ready(Err(io::Error::other("a flood of PING, SETTINGS or RST_STREAM")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        self.follow(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
    use super::*;

    fn frame(r#type: u8, len: usize) -> Vec<u8> {
        let [_, high, middle, low] = (len as u32).to_be_bytes();
        let mut frame = vec![high, middle, low, r#type, 0, 0, 0, 0, 0];
        // A payload full of what would be PING heads if it were read as such.
        frame.resize(HEAD_BYTES + len, 6);
        frame
    }

    #[test]
    fn only_heads_are_counted_wherever_reads_cut_them() {
        let uncounted = [frame(0, 1000), frame(1, 20), frame(8, 4)].concat();
        let stream = [vec![b'x'; PREFACE_BYTES], frame(4, 36), uncounted, frame(6, 8), frame(3, 4)];
        let stream = stream.concat();
        for (size, most) in [1, 7, 9, 100, stream.len()].into_iter().flat_map(|size| [(size, 2), (size, 3)]) {
            let mut meter = Metered::new((), Tally::default());
            meter.flood = Flood::new(most, Tally::default());
            stream.chunks(size).for_each(|chunk| meter.follow(chunk));
            assert_eq!(meter.flood.is_on(), most < 3, "three are counted in reads of {size}");
        }
    }
}
