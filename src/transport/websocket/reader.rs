//! A client's messages out of the bytes of its frames (RFC 6455, 5), without I/O: strict in all that the RFC says MUST.

use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::transport::flood::Flood;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A control frame carries no more (5.5).
const MOST_OF_CONTROL: u64 = 125;

/// What an empty buffer may keep of its memory: a session that says nothing should cost nothing here, and one that sends
/// candidates should not ask for memory each time.
const KEPT_CAPACITY: usize = 512;

/// What a frame, or several fragments, amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// UTF-8.
    Text(Bytes),
    /// Its content is of no use here.
    Binary,
    /// To be answered with the same payload.
    Ping(Bytes),
    Pong,
    /// With the client's code, where it gave one. Nothing follows.
    Close(Option<u16>),
}

/// Why the bytes cannot be read any further.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A message above the limit, known from its frames' heads.
    TooLarge,
    NotUtf8,
    /// Too many frames that are no whole messages.
    Flood,
    /// Whatever else RFC 6455 forbids.
    Framing(&'static str),
}

/// The head of a frame (5.2).
#[derive(Debug, Clone, Copy)]
struct Head {
    is_final: bool,
    opcode: u8,
    mask: [u8; 4],
    payload: usize,
}

/// Memory: one message, twice for a moment when it comes in fragments, and what was read behind it.
#[derive(Debug)]
pub(super) struct Reader {
    /// The most bytes of a message.
    most: usize,
    /// Read, and not understood yet.
    buffer: BytesMut,
    /// Of the frame whose payload is next in `buffer`.
    head: Option<Head>,
    /// Opcode and content so far of a message in fragments.
    fragments: Option<(u8, BytesMut)>,
    /// Since when there has been a message that is not whole.
    begun: Option<Instant>,
    flood: Flood,
}

impl Reader {
    /// Reads messages of at most `most` bytes; fragments and control frames count for `flood`.
    pub(super) fn new(most: usize, flood: Flood) -> Self {
        Reader { most, buffer: BytesMut::new(), head: None, fragments: None, begun: None, flood }
    }

    /// Where bytes go that were read.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// How many bytes the frame at hand is known to lack.
    pub(super) fn lacks(&self) -> usize {
        self.head.map_or(0, |head| head.payload.saturating_sub(self.buffer.len()))
    }

    /// When the message began that is not whole yet.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// The next message, or `None` when more has to be read first.
    ///
    /// # Errors
    /// For good: what follows has lost its meaning.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Fault> {
        while let Some(head) = self.head()? {
            if self.buffer.len() < head.payload {
                break;
            }
            self.head = None;
            let mut payload = self.buffer.split_to(head.payload);
            unmask(&mut payload, head.mask);
            if let Some(message) = self.take(head, payload)? {
                return Ok(Some(message));
            }
        }
        self.pause();
        Ok(None)
    }

    /// Nothing more can be made of what is there.
    fn pause(&mut self) {
        if !self.buffer.is_empty() || self.head.is_some() || self.fragments.is_some() {
            self.begun.get_or_insert_with(Instant::now);
        } else {
            self.begun = None;
            // Behind a message that was handed out, all of the memory is still there, and tells so once the message is gone.
            if self.buffer.try_reclaim(KEPT_CAPACITY + 1) {
                self.buffer = BytesMut::new();
            }
        }
    }

    /// The head of the frame at hand, as soon as it is whole.
    fn head(&mut self) -> Result<Option<Head>, Fault> {
        if self.head.is_none() {
            let Some((head, taken)) = parse(&self.buffer)? else { return Ok(None) };
            self.check(head)?;
            self.buffer.advance(taken);
            self.head = Some(head);
        }
        Ok(self.head)
    }

    /// Whether such a frame may come now.
    fn check(&mut self, head: Head) -> Result<(), Fault> {
        let is_whole = head.is_final && matches!(head.opcode, TEXT | BINARY);
        if !is_whole && self.flood.note() {
            return Err(Fault::Flood);
        }
        let before = match (&self.fragments, head.opcode) {
            (Some((_, content)), CONTINUATION) => content.len(),
            (None, CONTINUATION) => return Err(Fault::Framing("a continuation of no message")),
            (Some(_), TEXT | BINARY) => return Err(Fault::Framing("a message within another")),
            _ => 0,
        };
        if !is_control(head.opcode) && before.saturating_add(head.payload) > self.most {
            return Err(Fault::TooLarge);
        }
        Ok(())
    }

    /// What a whole frame amounts to; `None` for a fragment that is not the last.
    fn take(&mut self, head: Head, payload: BytesMut) -> Result<Option<Message>, Fault> {
        match head.opcode {
            PING => return Ok(Some(Message::Ping(payload.freeze()))),
            PONG => return Ok(Some(Message::Pong)),
            CLOSE => return close(&payload).map(Some),
            _ => {}
        }
        let (opcode, content) = match self.fragments.take() {
            None => (head.opcode, payload),
            Some((opcode, mut content)) => {
                content.extend_from_slice(&payload);
                (opcode, content)
            }
        };
        if !head.is_final {
            self.fragments = Some((opcode, content));
            return Ok(None);
        }
        self.begun = None;
        match opcode {
            BINARY => Ok(Some(Message::Binary)),
            _ if std::str::from_utf8(&content).is_err() => Err(Fault::NotUtf8),
            _ => Ok(Some(Message::Text(content.freeze()))),
        }
    }
}

fn is_control(opcode: u8) -> bool {
    opcode >= CLOSE
}

/// The head at the beginning of `bytes`, and its length; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Fault> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (is_final, opcode) = (first & FIN != 0, first & OPCODE);
    if first & RESERVED != 0 {
        return Err(Fault::Framing("a reserved bit is set, and no extension was agreed upon"));
    }
    if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
        return Err(Fault::Framing("a reserved opcode"));
    }
    if second & MASKED == 0 {
        return Err(Fault::Framing("a client's frames must be masked"));
    }
    let (payload, extended) = match (second & !MASKED, rest) {
        (126, [high, low, ..]) => (u64::from(u16::from_be_bytes([*high, *low])), 2),
        (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8),
        (126 | 127, _) => return Ok(None),
        (short, _) => (short.into(), 0),
    };
    if extended == 2 && payload < 126 || extended == 8 && payload < 1 << 16 || payload >> 63 != 0 {
        return Err(Fault::Framing("a length that is not written as short as can be"));
    }
    if is_control(opcode) && (!is_final || payload > MOST_OF_CONTROL) {
        return Err(Fault::Framing("a control frame in fragments, or of more than 125 bytes"));
    }
    let Some(&mask) = rest[extended..].first_chunk() else { return Ok(None) };
    let payload = usize::try_from(payload).map_err(|_| Fault::TooLarge)?;
    Ok(Some((Head { is_final, opcode, mask, payload }, 2 + extended + mask.len())))
}

/// Reads a Close frame's payload (5.5.1).
fn close(payload: &[u8]) -> Result<Message, Fault> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(Message::Close(None)) } else { Err(Fault::Framing("half a close code")) };
    };
    let code = u16::from_be_bytes(*code);
    // 7.4: the others are not for the wire, or not given out yet.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Fault::Framing("a close code that may not be sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Message::Close(Some(code))),
        Err(_) => Err(Fault::NotUtf8),
    }
}

/// Takes the mask off (5.3), eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(chunk.try_into().expect("eight bytes")) ^ wide;
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    chunks.into_remainder().iter_mut().zip(mask.into_iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Tally;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn reader() -> Reader {
        Reader::new(100_000, Flood::new(10, Tally::default()))
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(MASKED | len as u8),
            len @ 126..0x1_0000 => {
                frame.push(MASKED | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                frame.push(MASKED | 127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&MASK);
        frame.extend(payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|at| b'a' + (at % 26) as u8).collect()
    }

    fn read(reader: &mut Reader, bytes: &[u8]) -> Result<Vec<Message>, Fault> {
        reader.buffer().extend_from_slice(bytes);
        std::iter::from_fn(|| reader.next().transpose()).collect()
    }

    #[test]
    fn messages_are_the_same_wherever_reads_cut_them() {
        let mut expected = Vec::new();
        let mut stream = Vec::new();
        for len in [0, 1, 7, 8, 9, 125, 126, 65_535, 65_536] {
            stream.extend(frame(FIN | TEXT, &text(len)));
            expected.push(Message::Text(text(len).into()));
        }
        stream.extend([frame(TEXT, b"frag"), frame(FIN | PING, b"?"), frame(0, b""), frame(FIN, b"ments")].concat());
        expected.extend([Message::Ping(Bytes::from_static(b"?")), Message::Text(Bytes::from_static(b"fragments"))]);
        stream.extend(
            [frame(FIN | BINARY, b"\xff"), frame(FIN | PONG, b""), frame(FIN | CLOSE, b"\x0f\xa0why")].concat(),
        );
        expected.extend([Message::Binary, Message::Pong, Message::Close(Some(4000))]);
        for size in [1, 2, 3, 7, 1000, stream.len()] {
            let mut reader = reader();
            let messages = stream.chunks(size).flat_map(|chunk| read(&mut reader, chunk).expect("frames"));
            assert!(messages.eq(expected.iter().cloned()), "in reads of {size}");
            assert_eq!((reader.begun(), reader.lacks()), (None, 0));
        }
    }

    #[test]
    fn a_message_is_under_way_until_the_end_of_its_last_frame() {
        let mut reader = reader();
        let stream =
            [frame(TEXT, &text(10)), frame(FIN | PING, b"there"), frame(0, b""), frame(FIN, &text(300))].concat();
        let mut since = None;
        for (at, byte) in stream.iter().enumerate() {
            assert_eq!(reader.begun().is_some(), at > 0, "before byte {at}");
            assert!(since.is_none() || reader.begun() == since, "it began once");
            since = reader.begun();
            read(&mut reader, &[*byte]).expect("frames");
        }
        assert_eq!(reader.begun(), None);
    }

    #[test]
    fn a_frame_says_what_it_lacks_and_nothing_is_kept_for_one_who_is_silent() {
        let mut reader = reader();
        let frame = frame(FIN | TEXT, &text(50_000));
        read(&mut reader, &frame[..1000]).expect("a part");
        assert_eq!(reader.lacks(), frame.len() - 1000);
        assert_eq!(read(&mut reader, &frame[1000..]).map(|messages| messages.len()), Ok(1));
        assert_eq!(reader.next(), Ok(None), "the message is gone, and the reader is asked for more");
        assert!(!reader.buffer.try_reclaim(KEPT_CAPACITY + 1));
    }

    #[test]
    fn what_rfc_6455_forbids_is_a_fault_by_its_head_alone() {
        let long = |first: u8, len: u64| [&[first, MASKED | 127][..], &len.to_be_bytes(), &MASK].concat();
        for (bytes, fault) in [
            (long(FIN | TEXT, 100_001), Fault::TooLarge),
            ([frame(TEXT, &text(90_000)), long(FIN, 65_536)].concat(), Fault::TooLarge),
            (vec![0x91, MASKED], Fault::Framing("a reserved bit is set, and no extension was agreed upon")),
            (vec![0x83, MASKED], Fault::Framing("a reserved opcode")),
            (vec![0x81, 0], Fault::Framing("a client's frames must be masked")),
            (vec![0x81, MASKED | 126, 0, 125], Fault::Framing("a length that is not written as short as can be")),
            (long(0x81, 65_535), Fault::Framing("a length that is not written as short as can be")),
            (long(0x81, 1 << 63), Fault::Framing("a length that is not written as short as can be")),
            (vec![0x09, MASKED], Fault::Framing("a control frame in fragments, or of more than 125 bytes")),
            (
                vec![0x89, MASKED | 126, 0, 126],
                Fault::Framing("a control frame in fragments, or of more than 125 bytes"),
            ),
            (frame(FIN, b""), Fault::Framing("a continuation of no message")),
            ([frame(TEXT, b""), frame(FIN | TEXT, b"")].concat(), Fault::Framing("a message within another")),
            (frame(FIN | CLOSE, b"\x03"), Fault::Framing("half a close code")),
            (frame(FIN | CLOSE, b"\x03\xed"), Fault::Framing("a close code that may not be sent")),
            (frame(FIN | CLOSE, b"\x03\xe8\xff"), Fault::NotUtf8),
            (frame(FIN | TEXT, b"\xff"), Fault::NotUtf8),
            (frame(FIN | PING, b"").repeat(11), Fault::Flood),
        ] {
            assert_eq!(read(&mut reader(), &bytes), Err(fault), "{:x?}", &bytes[..bytes.len().min(20)]);
        }
    }
}
