//! Lines of NDJSON out of chunks that end anywhere.

use bytes::{Bytes, BytesMut};

/// A line is longer than is allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Splits a stream into its lines. Keeps no more than one line, or one chunk.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    chunk: Bytes,
    /// The beginning of a line whose end has not come yet.
    begun: BytesMut,
}

impl Lines {
    /// Lines of at most `limit` bytes, not counting the line break.
    pub(crate) fn new(limit: usize) -> Self {
        Lines { limit, chunk: Bytes::new(), begun: BytesMut::new() }
    }

    /// Takes the next chunk in; [`next`](Self::next) must have returned `None` before.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "a chunk is still there");
        self.chunk = chunk;
    }

    /// The next line, without its `\n` or `\r\n`; empty ones are passed over. `None` when more has to come.
    ///
    /// # Errors
    /// The line is too long, be it complete or not.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        while let Some(end) = self.chunk.iter().position(|&byte| byte == b'\n') {
            let mut line = self.chunk.split_to(end + 1);
            line.truncate(end);
            if !self.begun.is_empty() {
                self.begun.extend_from_slice(&line);
                line = std::mem::take(&mut self.begun).freeze();
            }
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            if line.len() > self.limit {
                return Err(TooLong);
            }
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
        self.begun.extend_from_slice(&self.chunk);
        self.chunk = Bytes::new();
        // The last byte may be the `\r` of a line break.
        if self.begun.len() > self.limit + 1 { Err(TooLong) } else { Ok(None) }
    }

    /// Whether the stream may end here: not within a line.
    pub(crate) fn at_boundary(&self) -> bool {
        self.chunk.is_empty() && self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines in `text` when it comes in chunks of `size`, and whether it ends within one.
    fn split(text: &[u8], size: usize, limit: usize) -> Result<(Vec<Bytes>, bool), TooLong> {
        let mut lines = Lines::new(limit);
        let mut out = Vec::new();
        for chunk in text.chunks(size) {
            lines.push(Bytes::copy_from_slice(chunk));
            while let Some(line) = lines.next()? {
                out.push(line);
            }
        }
        Ok((out, lines.at_boundary()))
    }

    #[test]
    fn lines_are_the_same_wherever_chunks_end() {
        let text = b"{\"a\":1}\n\r\n\n{}\r\n \nlast\nbegun";
        for size in 1..=text.len() {
            let (lines, at_boundary) = split(text, size, 7).expect("no line is too long");
            assert_eq!(lines, [&b"{\"a\":1}"[..], b"{}", b" ", b"last"], "chunks of {size}");
            assert!(!at_boundary);
        }
        assert!(split(b"{}\n\r\n", 2, 2).expect("short").1);
    }

    #[test]
    fn a_line_too_long_is_refused_before_its_end() {
        for (text, fits) in [
            (&b"12345\n"[..], true),
            (b"12345\r\n", true),
            (b"123456\n", false),
            (b"1234567", false),
            (b"1234567\n", false),
        ] {
            for size in 1..=text.len() {
                assert_eq!(split(text, size, 5).is_ok(), fits, "{text:?} in chunks of {size}");
            }
        }
    }
}
