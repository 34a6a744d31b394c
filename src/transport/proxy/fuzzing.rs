//! What must hold of the first bytes of a connection, whatever they are.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use tokio::io::ReadBuf;

use super::*;

/// The longest header of either version.
const LONGEST: usize = V2_HEAD + V2_BYTES;

/// A connection whose bytes come so many at a time.
struct Chunks<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncRead for Chunks<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.rest.split_at(self.size.min(buf.remaining()).min(self.rest.len()));
        buf.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

/// What a header says, or what kind of error it is, and how many bytes were taken for it.
fn told(bytes: &[u8], size: usize) -> (Result<Option<SocketAddr>, io::ErrorKind>, usize) {
    let mut stream = Chunks { rest: bytes, size };
    let client = read(&mut stream).now_or_never().expect("all that there is has come");
    (client.map_err(|error| error.kind()), bytes.len() - stream.rest.len())
}

/// A header says the same wherever chunks end, and what is behind it stays to the byte; what it says is what stands there, and
/// the same when it is written and read again; it means nothing before its end. First the length of chunks.
pub(crate) fn proxy_protocol(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let (client, taken) = told(bytes, LONGEST);
    assert_eq!(told(bytes, usize::from(size).max(1)), (client, taken), "chunks of {size}");
    assert!(taken <= LONGEST, "{taken} bytes were waited for");
    let Ok(client) = client else { return };
    let (expected, length) = if bytes.starts_with(v2::PROTOCOL_PREFIX) { binary(bytes) } else { text(bytes) };
    assert_eq!((client, taken), (expected, length));
    let (early, _) = told(&bytes[..taken - 1], LONGEST);
    assert_eq!(early, Err(io::ErrorKind::UnexpectedEof), "it was not yet all there");
    for written in client.iter().flat_map(|client| [write_v1(*client), write_v2(*client)]) {
        assert_eq!(told(&written, LONGEST), (Ok(client), written.len()));
    }
}

/// The client of a version 2 header that is one, and the header's length, by section 2.2.
fn binary(bytes: &[u8]) -> (Option<SocketAddr>, usize) {
    let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let length = 16 + usize::from(number(14));
    let body = &bytes[16..length];
    let client = match (bytes[12], bytes[13] >> 4) {
        (0x21, 1) => Some((<[u8; 4]>::try_from(&body[..4]).expect("four").into(), number(16 + 8))),
        (0x21, 2) => {
            let address: [u8; 16] = body[..16].try_into().expect("sixteen");
            Some((IpAddr::from(address).to_canonical(), number(16 + 32)))
        }
        (0x20, _) | (0x21, 0 | 3) => None,
        other => panic!("{other:x?} is neither a command nor a family"),
    };
    (client.map(SocketAddr::from), length)
}

/// The same of version 1, by section 2.1.
fn text(bytes: &[u8]) -> (Option<SocketAddr>, usize) {
    let length = 2 + bytes.windows(2).position(|pair| pair == b"\r\n").expect("a line");
    assert!(length <= 107, "{length} bytes");
    if matches!(bytes.strip_prefix(b"PROXY UNKNOWN"), Some([b' ' | b'\r', ..])) {
        // Whatever stands before the line end does not count.
        return (None, length);
    }
    let line = std::str::from_utf8(&bytes[..length - 2]).expect("text");
    let words: Vec<&str> = line.split(' ').collect();
    let ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] = words[..] else {
        panic!("{line:?} was taken for a header")
    };
    let read = |address: &str, port: &str| {
        let (address, number): (IpAddr, u16) = (address.parse().expect("an address"), port.parse().expect("a port"));
        assert_eq!(address.is_ipv4(), family == "TCP4", "{line}");
        assert_eq!(number.to_string(), port, "{line}");
        SocketAddr::new(address.to_canonical(), number)
    };
    read(destination, destination_port);
    (Some(read(source, source_port)), length)
}

fn write_v1(client: SocketAddr) -> Vec<u8> {
    let (family, own) = if client.is_ipv4() { ("TCP4", "10.0.0.1") } else { ("TCP6", "::1") };
    format!("PROXY {family} {} {own} {} 443\r\n", client.ip(), client.port()).into_bytes()
}

fn write_v2(client: SocketAddr) -> Vec<u8> {
    let mut header = [v2::PROTOCOL_PREFIX, &[0x21]].concat();
    match client.ip() {
        IpAddr::V4(address) => header.extend([&[0x11, 0, 12][..], &address.octets(), &[10, 0, 0, 1]].concat()),
        IpAddr::V6(address) => header.extend([&[0x21, 0, 36][..], &address.octets(), &[0; 16]].concat()),
    }
    header.extend([client.port().to_be_bytes(), 443_u16.to_be_bytes()].concat());
    header
}
