//! What must hold of the bytes of QUIC's streams and datagrams, whatever they are.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::watch;

use super::demux::{First, HEAD_BYTES};
use super::extended::{self, Protocol};
use super::frames::Frames;
use super::sessions::Sessions;
use super::settings::Settings;
use super::varint;
use crate::metrics::Tally;

/// An integer is the same however many bytes it was given, and none before its last byte is there.
pub(crate) fn varint(data: &[u8]) {
    let Some((value, taken)) = varint::get(data) else { return };
    assert!(taken <= varint::MAX_BYTES && value < 1 << 62);
    assert!((0..taken).all(|end| varint::get(&data[..end]).is_none()));
    let mut shortest = Vec::new();
    varint::put(&mut shortest, value);
    assert!(shortest.len() <= taken);
    assert_eq!(varint::get(&shortest), Some((value, shortest.len())));
}

/// One line is taken from a field section, or nothing: the rest stays to the byte, and holds no second one.
pub(crate) fn field_section(data: &[u8]) {
    let section = Bytes::copy_from_slice(data);
    let Some((_, rest)) = extended::take(&section) else { return };
    assert!(rest.len() < section.len());
    let same = section.iter().zip(&rest).take_while(|(a, b)| a == b).count();
    assert!(section.ends_with(&rest[same..]), "more is gone than one line");
    assert_eq!(extended::take(&rest), None);
}

/// What comes of a stream's bytes.
#[derive(Debug, PartialEq)]
struct Passed {
    /// All that h3 is given, and at the end what was held back.
    bytes: Vec<u8>,
    too_long: bool,
    protocol: Option<Protocol>,
    settings: Option<Settings>,
}

fn through(data: &[u8], size: usize, limit: u64, is_control: bool) -> Passed {
    let (tell, told) = watch::channel(None);
    let protocol = Arc::<OnceLock<Protocol>>::default();
    let mut frames = match is_control {
        true => Frames::of_control(limit, Tally::default(), tell),
        false => Frames::of_request(limit, Tally::default(), Arc::clone(&protocol)),
    };
    let (mut bytes, mut too_long) = (Vec::new(), false);
    'all: for chunk in data.chunks(size) {
        let mut chunk = Bytes::copy_from_slice(chunk);
        loop {
            match frames.next(&mut chunk) {
                Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                Ok(None) => break,
                Err(_) => {
                    too_long = true;
                    break 'all;
                }
            }
        }
        assert!(chunk.is_empty(), "bytes are left where nothing more comes");
    }
    if !too_long {
        bytes.extend_from_slice(&frames.take_begun().unwrap_or_default());
        assert_eq!(frames.take_begun(), None);
    }
    let settings = *told.borrow();
    Passed { bytes, too_long, protocol: protocol.get().copied(), settings }
}

/// Frames come out the same wherever chunks end, are never more than what came in, and pass a second time unchanged.
pub(crate) fn frames(data: &[u8]) {
    let Some((&[limit, size], stream)) = data.split_first_chunk() else { return };
    let (is_control, size) = (size & 0x80 != 0, usize::from(size & 0x7f) + 1);
    let whole = through(stream, stream.len().max(1), limit.into(), is_control);
    assert_eq!(whole, through(stream, size, limit.into(), is_control), "chunks of {size}");
    assert!(whole.bytes.len() <= stream.len());
    if !whole.too_long {
        let again = through(&whole.bytes, size, limit.into(), is_control);
        assert_eq!((&again.bytes, again.too_long, again.settings), (&whole.bytes, false, whole.settings));
        assert_eq!(again.protocol, None, "h3 is shown no :protocol");
    }
}

/// What a stream is is clear as soon as it can be, within its first bytes, and does not change by what follows.
pub(crate) fn stream_head(data: &[u8]) {
    for is_bidi in [false, true] {
        let head = &data[..data.len().min(HEAD_BYTES)];
        let firsts: Vec<_> = (0..=head.len()).map(|end| First::read(&head[..end], is_bidi)).collect();
        let told = firsts.iter().position(Option::is_some).unwrap_or(firsts.len());
        assert!(firsts[told..].iter().all(|first| *first == firsts[told]));
        assert!(told <= head.len() || head.len() < HEAD_BYTES, "a whole head tells nothing");
        if let Some(Some(First { session: Some((_, taken)), .. })) = firsts.get(told) {
            assert!(is_bidi && *taken == told);
        }
    }
}

/// A datagram reaches the session that it names, whole, and no other; what a session sends it would understand itself.
pub(crate) fn datagram(data: &[u8]) {
    let Some((&quarter_id, datagram)) = data.split_first() else { return };
    let sessions = Sessions::new(1);
    let session = sessions.open(4 * u64::from(quarter_id)).expect("there is room for one");
    let mut cx = Context::from_waker(Waker::noop());
    sessions.datagram(Bytes::copy_from_slice(datagram));
    let expected = match varint::get(datagram) {
        Some((id, taken)) if id == u64::from(quarter_id) => Poll::Ready(Bytes::copy_from_slice(&datagram[taken..])),
        _ => Poll::Pending,
    };
    assert_eq!(session.poll_datagram(&mut cx), expected);
    sessions.datagram(session.datagram(datagram));
    assert_eq!(session.poll_datagram(&mut cx), Poll::Ready(Bytes::copy_from_slice(datagram)));
}
