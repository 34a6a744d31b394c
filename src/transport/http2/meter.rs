//! A limit on frames that cost the server work and the client nothing, which h2 does not have.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client sends before its first frame (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

/// A frame's head (RFC 9113, 4.1): three bytes of length, type, flags, stream.
const HEAD_BYTES: usize = 9;

/// PING, SETTINGS and their like that a client may send in a second. Clients that measure the path by PING send a few dozen.
const FRAMES_A_SECOND: u32 = 1000;

/// Follows the heads of a client's frames and fails when there is a flood (CVE-2019-9512, CVE-2019-9515).
///
/// DATA, HEADERS, RST_STREAM and CONTINUATION are not counted: h2 has limits of its own for them, and WINDOW_UPDATE belongs to
/// the work it does.
#[derive(Debug)]
pub(super) struct Metered<S> {
    io: S,
    /// Bytes until the next head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// How much of `head` is there.
    filled: usize,
    second: Instant,
    frames: u32,
}

impl<S> Metered<S> {
    pub(super) fn new(io: S) -> Self {
        Metered { io, skip: PREFACE_BYTES, head: [0; HEAD_BYTES], filled: 0, second: Instant::now(), frames: 0 }
    }

    fn is_flooded(&self) -> bool {
        self.frames > FRAMES_A_SECOND
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
                    self.count();
                }
            }
        }
    }

    fn count(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.second) >= Duration::from_secs(1) && !self.is_flooded() {
            self.second = now;
            self.frames = 0;
        }
        self.frames = self.frames.saturating_add(1);
    }
}

fn is_counted(r#type: u8) -> bool {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const WINDOW_UPDATE: u8 = 8;
    const CONTINUATION: u8 = 9;
    !matches!(r#type, DATA | HEADERS | RST_STREAM | WINDOW_UPDATE | CONTINUATION)
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_flooded() {
            return Poll::Ready(Err(io::Error::other("a flood of PING or SETTINGS")));
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
        let stream = [vec![b'x'; PREFACE_BYTES], frame(4, 36), frame(0, 1000), frame(6, 8), frame(1, 20), frame(6, 8)];
        let stream = stream.concat();
        for size in [1, 7, 9, 100, stream.len()] {
            let mut meter = Metered::new(());
            stream.chunks(size).for_each(|chunk| meter.follow(chunk));
            assert_eq!(meter.frames, 3, "in reads of {size}");
        }
    }

    #[test]
    fn a_flood_is_one_for_good() {
        let mut meter = Metered::new(());
        meter.skip = 0;
        let ping = frame(6, 8);
        (0..FRAMES_A_SECOND).for_each(|_| meter.follow(&ping));
        assert!(!meter.is_flooded());
        meter.follow(&ping);
        assert!(meter.is_flooded());
        meter.second -= Duration::from_secs(2);
        meter.follow(&ping);
        assert!(meter.is_flooded());
    }
}
