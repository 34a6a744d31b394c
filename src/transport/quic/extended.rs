//! The `:protocol` of an extended CONNECT (RFC 9220), read before h3 reads it: h3 knows two protocols, WebSocket not among
//! them, and resets a request with any other before anybody could answer it.
//!
//! Our SETTINGS allow no dynamic table, so that a field section consists of references to QPACK's static table, which has no
//! `:protocol`, and of literals.

use bytes::{Bytes, BytesMut};

/// What an extended CONNECT asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// draft-ietf-webtrans-http3.
    WebTransport,
    /// RFC 9220.
    WebSocket,
    /// Something that nobody here understands.
    Other,
}

/// A text as a field section holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text<'a> {
    Plain(&'a [u8]),
    /// In the code of RFC 7541, appendix B. Each text has exactly one encoding, so that comparing needs no decoding.
    Huffman(&'a [u8]),
}

impl Text<'_> {
    fn is(self, plain: &[u8], huffman: &[u8]) -> bool {
        match self {
            Text::Plain(bytes) => bytes == plain,
            Text::Huffman(bytes) => bytes == huffman,
        }
    }

    fn is_protocol(self) -> bool {
        self.is(b":protocol", &[0xb9, 0x5d, 0x87, 0x49, 0xc8, 0x7a, 0x3f])
    }
}

impl From<Text<'_>> for Protocol {
    fn from(text: Text<'_>) -> Self {
        if text.is(b"websocket", &[0xf0, 0x58, 0xd0, 0x72, 0x75, 0x2a, 0x7f]) {
            Protocol::WebSocket
        } else if text.is(b"webtransport", &[0xf0, 0x58, 0xd3, 0x60, 0xea, 0x45, 0x67, 0xb1, 0x3f]) {
            Protocol::WebTransport
        } else {
            Protocol::Other
        }
    }
}

/// Takes the line with `:protocol` out of the encoded field section of a request. What is left is for h3, and so is the
/// judgement of a section that is broken or names two protocols: of these nothing is taken.
pub(super) fn take(section: &Bytes) -> Option<(Protocol, Bytes)> {
    let mut reader = Reader { bytes: section, at: 0 };
    reader.prefix()?;
    let mut found = None;
    while reader.at < section.len() {
        let begin = reader.at;
        match reader.line()? {
            Some((name, value)) if name.is_protocol() => {
                let line = (Protocol::from(value), begin..reader.at);
                if found.replace(line).is_some() {
                    return None;
                }
            }
            _ => {}
        }
    }
    let (protocol, line) = found?;
    let mut rest = BytesMut::with_capacity(section.len() - line.len());
    rest.extend_from_slice(&section[..line.start]);
    rest.extend_from_slice(&section[line.end..]);
    Some((protocol, rest.freeze()))
}

/// Reads an encoded field section (RFC 9204, 4.5); `None` where it is broken.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Required Insert Count and Base, which say nothing without a dynamic table.
    fn prefix(&mut self) -> Option<()> {
        self.integer(8)?;
        self.integer(7)?;
        Some(())
    }

    /// One line; its name and value if both are literals.
    fn line(&mut self) -> Option<Option<(Text<'a>, Text<'a>)>> {
        match self.bytes.get(self.at)? {
            // Indexed, from the static or the dynamic table.
            0x80.. => self.integer(6).map(|_| None),
            // A name from either table, and a literal value.
            0x40.. => self.integer(4).and_then(|_| self.text(7)).map(|_| None),
            0x20.. => Some(Some((self.text(3)?, self.text(7)?))),
            // Indexed, and a name with a value, from the dynamic table behind Base.
            0x10.. => self.integer(4).map(|_| None),
            _ => self.integer(3).and_then(|_| self.text(7)).map(|_| None),
        }
    }

    /// A length in the last `bits` of the next byte, the bit before which tells Huffman's code, and the text.
    fn text(&mut self, bits: u32) -> Option<Text<'a>> {
        let is_huffman = self.bytes.get(self.at)? >> bits & 1 == 1;
        let length = self.integer(bits)?;
        let end = self.at.checked_add(length)?;
        let text = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(if is_huffman { Text::Huffman(text) } else { Text::Plain(text) })
    }

    /// An integer that begins in the last `bits` of the next byte (RFC 7541, 5.1).
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let most = (1usize << bits) - 1;
        let mut value = usize::from(self.next()?) & most;
        if value < most {
            return Some(value);
        }
        // A length, or the index of a line: four bytes more are plenty.
        for shift in [0, 7, 14, 21] {
            let byte = self.next()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes of RFC 7541, appendix B, of the letters that are needed.
    const CODES: [(u8, u32, u32); 16] = [
        (b':', 0x5c, 7),
        (b'a', 0x3, 5),
        (b'b', 0x23, 6),
        (b'c', 0x4, 5),
        (b'e', 0x5, 5),
        (b'k', 0x75, 7),
        (b'l', 0x28, 6),
        (b'n', 0x2a, 6),
        (b'o', 0x7, 5),
        (b'p', 0x2b, 6),
        (b'r', 0x2c, 6),
        (b's', 0x8, 5),
        (b't', 0x9, 5),
        (b'w', 0x78, 7),
        (b'x', 0x79, 7),
        (b'y', 0x7a, 7),
    ];

    fn huffman(text: &str) -> Vec<u8> {
        let code = |letter| CODES.into_iter().find(|&(known, ..)| known == letter).expect("in the list");
        let bits =
            text.bytes().map(code).flat_map(|(_, code, length)| (0..length).rev().map(move |bit| code >> bit & 1));
        let mut bits: Vec<u8> = bits.map(|bit| bit as u8).collect();
        bits.resize(bits.len().next_multiple_of(8), 1);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
    }

    fn line(name: &str, value: &str, is_huffman: bool) -> Vec<u8> {
        let encode = |text: &str| if is_huffman { huffman(text) } else { text.as_bytes().to_vec() };
        let (name, value, flag) = (encode(name), encode(value), u8::from(is_huffman));
        // Names of seven bytes and more do not fit the prefix of their length.
        let length = match name.len() {
            short @ 0..7 => vec![0x20 | flag << 3 | short as u8],
            long => vec![0x20 | flag << 3 | 7, long as u8 - 7],
        };
        [length, name, vec![flag << 7 | value.len() as u8], value].concat()
    }

    /// Static: `:method CONNECT`, `:scheme https`; a name from the table, and one of the client's own.
    fn others() -> [Vec<u8>; 4] {
        let path = [&[0x51, 0x84][..], &[1, 2, 3, 4]].concat();
        [vec![0xc0 | 15], vec![0xc0 | 23], path, line("x", "y", false)]
    }

    fn section(lines: &[&[u8]]) -> Bytes {
        [&[&[0, 0][..]], lines].concat().concat().into()
    }

    #[test]
    fn the_protocol_is_found_wherever_it_stands_and_however_it_is_written() {
        let [method, scheme, path, own] = others();
        let without = section(&[&method, &scheme, &path, &own]);
        assert_eq!(take(&without), None);
        for (name, protocol) in [
            ("websocket", Protocol::WebSocket),
            ("webtransport", Protocol::WebTransport),
            ("websockets", Protocol::Other),
            ("", Protocol::Other),
        ] {
            for is_huffman in [false, true] {
                let line = line(":protocol", name, is_huffman);
                for with in [
                    section(&[&line, &method, &scheme, &path, &own]),
                    section(&[&method, &scheme, &line, &path, &own]),
                    section(&[&method, &scheme, &path, &own, &line]),
                ] {
                    assert_eq!(take(&with), Some((protocol, without.clone())), "{name}, Huffman: {is_huffman}");
                }
            }
        }
    }

    #[test]
    fn of_two_protocols_and_of_a_broken_section_nothing_is_taken() {
        let (websocket, other) = (line(":protocol", "websocket", false), line(":protocol", "webtransport", true));
        assert_eq!(take(&section(&[&websocket, &other])), None);
        assert_eq!(take(&section(&[&websocket, &websocket])), None);
        let whole = section(&[&others().concat(), &websocket]);
        assert!((0..whole.len()).all(|end| take(&whole.slice(..end)).is_none()), "cut off");
        let endless = [0xff; 6];
        assert_eq!(take(&section(&[&websocket, &endless])), None, "an integer without an end");
    }

    #[test]
    fn whatever_comes_is_read_to_its_end_or_left_alone() {
        let whole = section(&[&others().concat(), &line(":protocol", "websocket", true)]);
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes = whole.to_vec();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            let bytes = Bytes::from(bytes);
            if let Some((_, rest)) = take(&bytes) {
                assert!(rest.len() < bytes.len());
                assert_eq!(take(&rest), None, "what is taken is not left");
            }
        }
    }

    #[test]
    fn names_that_only_look_like_it_stay() {
        for name in [":protocols", "protocol", ":Protocol"] {
            assert_eq!(take(&section(&[&line(name, "websocket", false)])), None, "{name}");
        }
    }
}
