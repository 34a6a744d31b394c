//! Capsules (RFC 9297, 3.2) in the body of a WebTransport CONNECT.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::metrics::Tally;
use crate::transport::flood::{FRAMES_A_SECOND, Flood};
use crate::transport::quic::varint;

/// CLOSE_WEBTRANSPORT_SESSION.
const CLOSE: u64 = 0x2843;
/// The most bytes of a close's reason.
const REASON_BYTES: usize = 1024;
const CODE_BYTES: usize = 4;

/// The most bytes of a capsule that means nothing here; some are sent only to see that they are skipped.
const SKIPPED_BYTES: u64 = 64 * 1024;

/// The session's last word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The application's error code; 0 when nothing is wrong.
    pub(crate) code: u32,
    /// For a developer's eyes.
    pub(crate) reason: String,
}

/// What comes in is not capsules, or longer than capsules should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// A capsule is too long.
    #[error("a capsule of {0} bytes")]
    TooLong(u64),
    /// A CLOSE_WEBTRANSPORT_SESSION has no code, or its reason is not UTF-8.
    #[error("a CLOSE_WEBTRANSPORT_SESSION without a code, or with a reason that is not UTF-8")]
    NotAClose,
    /// There are too many that mean nothing.
    #[error("more than {FRAMES_A_SECOND} capsules in a second")]
    Flood,
}

/// A CLOSE_WEBTRANSPORT_SESSION capsule; a reason longer than may be is cut.
pub(crate) fn close(code: u32, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES)];
    let mut capsule = BytesMut::new();
    varint::put(&mut capsule, CLOSE);
    varint::put(&mut capsule, (CODE_BYTES + reason.len()) as u64);
    capsule.put_u32(code);
    capsule.put_slice(reason.as_bytes());
    capsule.freeze()
}

/// Reads capsules from chunks that end anywhere.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The capsule's head and, of a close, its payload, as far as they are there.
    begun: Vec<u8>,
    /// Bytes still to skip.
    skip: u64,
    flood: Flood,
}

impl Default for Decoder {
    /// One whose floods nobody counts: a client's.
    fn default() -> Self {
        Decoder::new(Tally::default())
    }
}

impl Decoder {
    /// `floods` counts the flood for which it may fail.
    pub(crate) fn new(floods: Tally) -> Self {
        Decoder { begun: Vec::new(), skip: 0, flood: Flood::new(FRAMES_A_SECOND, floods) }
    }

    /// Takes a chunk in; the session is over once it has yielded a close, whatever comes behind.
    ///
    /// # Errors
    /// The session cannot go on.
    pub(crate) fn push(&mut self, mut chunk: &[u8]) -> Result<Option<Closed>, Broken> {
        while !chunk.is_empty() {
            if self.skip > 0 {
                let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
                self.skip -= skipped as u64;
                chunk = &chunk[skipped..];
                continue;
            }
            self.begun.push(chunk[0]);
            chunk = &chunk[1..];
            if let Some(closed) = self.advance()? {
                return Ok(Some(closed));
            }
        }
        Ok(None)
    }

    /// Looks whether what has begun is complete.
    fn advance(&mut self) -> Result<Option<Closed>, Broken> {
        let Some((kind, length, payload)) = head(&self.begun) else { return Ok(None) };
        if kind != CLOSE {
            if length > SKIPPED_BYTES {
                return Err(Broken::TooLong(length));
            }
            self.skip = length;
            self.begun = Vec::new();
            return if self.flood.note() { Err(Broken::Flood) } else { Ok(None) };
        }
        if length > (CODE_BYTES + REASON_BYTES) as u64 {
            return Err(Broken::TooLong(length));
        }
        if (payload.len() as u64) < length {
            return Ok(None);
        }
        let (code, reason) = payload.split_first_chunk::<CODE_BYTES>().ok_or(Broken::NotAClose)?;
        let reason = std::str::from_utf8(reason).map_err(|_| Broken::NotAClose)?;
        Ok(Some(Closed { code: u32::from_be_bytes(*code), reason: reason.to_owned() }))
    }
}

/// Type, length and what there is of the payload.
fn head(bytes: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (kind, taken) = varint::get(bytes)?;
    let (length, more) = varint::get(&bytes[taken..])?;
    Some((kind, length, &bytes[taken + more..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capsule(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        varint::put(&mut bytes, kind);
        varint::put(&mut bytes, payload.len() as u64);
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn a_close_is_read_behind_unknown_capsules_wherever_chunks_end() {
        let bytes =
            [capsule(0x17 + 41 * 1000, &[9; 300]), capsule(0x78ae, b""), close(4511, "kickèd").to_vec()].concat();
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut closes = bytes.chunks(size).filter_map(|chunk| decoder.push(chunk).expect("capsules"));
            assert_eq!(closes.next(), Some(Closed { code: 4511, reason: "kickèd".into() }), "chunks of {size}");
        }
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let closed = Decoder::default().push(&close(0, &"è".repeat(600))).expect("a capsule").expect("a close");
        assert_eq!(closed.reason, "è".repeat(512));
        let closed = Decoder::default().push(&close(0, &format!("x{}", "è".repeat(600)))).expect("a capsule");
        assert_eq!(closed.expect("a close").reason.len(), 1023);
    }

    #[test]
    fn broken_capsules_are_refused() {
        let push = |bytes: &[u8]| Decoder::default().push(bytes);
        assert_eq!(push(&capsule(CLOSE, b"abc")), Err(Broken::NotAClose));
        assert_eq!(push(&capsule(CLOSE, b"\0\0\0\0\xff")), Err(Broken::NotAClose));
        assert_eq!(push(&capsule(CLOSE, &[b'x'; 1029])), Err(Broken::TooLong(1029)));
        assert_eq!(push(&[0x00, 0x80, 0x01, 0x00, 0x01]), Err(Broken::TooLong(65_537)));
        assert_eq!(push(&capsule(0, &[0; 65_536])), Ok(None));
        assert_eq!(push(&capsule(0, &[]).repeat(FRAMES_A_SECOND as usize)), Ok(None));
        assert_eq!(push(&capsule(0, &[]).repeat(FRAMES_A_SECOND as usize + 1)), Err(Broken::Flood));
    }
}
