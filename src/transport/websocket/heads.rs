//! Follows a client's WebSocket frames (RFC 6455, 5.2) beside the library that reads them, which assembles fragments and passes
//! over pings without telling how many there were.

use std::time::Instant;

/// Two bytes, eight of length, four of mask.
const MOST_BYTES: usize = 14;

const FIN: u8 = 0x80;
const CONTROL: u8 = 0x08;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;

/// Where the stream is.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Bytes until the next head.
    skip: u64,
    head: [u8; MOST_BYTES],
    /// How much of it is there.
    filled: usize,
    /// When the message began of which the end has not come yet.
    begun: Option<Instant>,
    /// Whether it ends with the frame at hand.
    is_last: bool,
}

impl Heads {
    /// When the message began that is not whole yet.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// Takes in what was read; calls `beside` for each frame that is no whole message: pings and their like, and fragments.
    pub(super) fn follow(&mut self, mut bytes: &[u8], mut beside: impl FnMut()) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                self.skip -= skipped as u64;
                bytes = &bytes[skipped..];
                self.look_for_end();
                continue;
            }
            self.head[self.filled] = bytes[0];
            self.filled += 1;
            bytes = &bytes[1..];
            if let Some(payload) = payload(&self.head[..self.filled]) {
                self.skip = payload;
                self.filled = 0;
                let first = self.head[0];
                if !is_message(first) {
                    beside();
                }
                let is_data = first & CONTROL == 0;
                self.is_last = is_data && first & FIN != 0;
                if is_data && first & OPCODE != 0 {
                    self.begun = Some(Instant::now());
                }
                self.look_for_end();
            }
        }
    }

    fn look_for_end(&mut self) {
        if self.is_last && self.skip == 0 {
            self.begun = None;
        }
    }
}

fn is_message(first: u8) -> bool {
    first & FIN != 0 && first & CONTROL == 0 && first & OPCODE != 0
}

/// The length of a frame's payload, once its head is whole.
fn payload(head: &[u8]) -> Option<u64> {
    let [_, second, rest @ ..] = head else { return None };
    let (extended, mask) = (u64::from(second & !MASKED), if second & MASKED == 0 { 0 } else { 4 });
    let (length, taken) = match extended {
        126 => (u16::from_be_bytes(*rest.first_chunk()?).into(), 2),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
        short => (short, 0),
    };
    (rest.len() == taken + mask).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match len {
            0..126 => frame.push(MASKED | len as u8),
            126..0x1_0000 => {
                frame.push(MASKED | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                frame.push(MASKED | 127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        // A payload full of what would be pings if it were read as such.
        frame.resize(frame.len() + len, 0x89);
        frame
    }

    #[test]
    fn fragments_and_control_frames_are_told_wherever_reads_cut_them() {
        const PING: u8 = 0x89;
        let messages = [frame(0x81, 0), frame(0x81, 125), frame(0x82, 126), frame(0x81, 70_000)];
        let fragments = [frame(0x01, 10), frame(PING, 125), frame(0x00, 0), frame(0x80, 300)];
        let stream = [messages.concat(), fragments.concat(), frame(0x81, 3), frame(PING, 0)].concat();
        for size in [1, 2, 3, 7, 1000, stream.len()] {
            let (mut heads, mut beside) = (Heads::default(), 0);
            stream.chunks(size).for_each(|chunk| heads.follow(chunk, || beside += 1));
            assert_eq!(beside, 5, "in reads of {size}");
        }
    }

    #[test]
    fn a_message_is_under_way_until_the_end_of_its_last_frame() {
        let mut heads = Heads::default();
        let stream = [frame(0x01, 10), frame(0x89, 5), frame(0x00, 0), frame(0x80, 300)].concat();
        for (at, byte) in stream.iter().enumerate() {
            // From the end of the first head on.
            assert_eq!(heads.begun().is_some(), at >= 6, "before byte {at}");
            heads.follow(&[*byte], || ());
        }
        assert_eq!(heads.begun(), None);
    }
}
