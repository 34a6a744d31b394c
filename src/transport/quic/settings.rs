//! What the two ends of an HTTP/3 connection tell each other first (RFC 9114, 7.2.4).
//!
//! WebTransport was announced by other identifiers in nearly every draft of draft-ietf-webtrans-http3, and each browser looks
//! for those of the draft that it was written from. Sending them all does no harm: unknown ones are ignored.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::varint;

/// Type of the control stream (RFC 9114, 6.2.1).
pub(super) const CONTROL_STREAM: u64 = 0x00;
/// Type of the SETTINGS frame.
pub(super) const SETTINGS_FRAME: u64 = 0x04;

const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
/// RFC 9220, 5.
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
/// RFC 9297, 2.1.1.
const H3_DATAGRAM: u64 = 0x33;
/// Draft 02 to 06; Chromium and Firefox look for it.
const ENABLE_WEBTRANSPORT: u64 = 0x2b60_3742;
/// Draft 07 to 12.
const WEBTRANSPORT_MAX_SESSIONS: u64 = 0xc671_706a;
/// Draft 13 and 14; Safari 26.4 looks for it, and for the three limits below beside it.
const WT_MAX_SESSIONS: u64 = 0x14e9_cd29;
const WT_INITIAL_MAX_DATA: u64 = 0x2b61;
const WT_INITIAL_MAX_STREAMS_UNI: u64 = 0x2b64;
const WT_INITIAL_MAX_STREAMS_BIDI: u64 = 0x2b65;

/// QUIC's own flow control is the one that counts; what a session may send beside it is as good as unlimited.
const NO_LIMIT: u64 = 1 << 60;

/// What the client said, as far as anybody here wants to know: of WebTransport it need not say anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// It takes HTTP datagrams, which must not be sent to it otherwise.
    pub(crate) datagrams: bool,
}

impl Settings {
    /// Reads the payload of a SETTINGS frame. Its form is h3's to judge; what is broken here is not there.
    pub(super) fn read(mut payload: &[u8]) -> Self {
        let mut pairs = std::iter::from_fn(|| next_pair(&mut payload));
        Settings { datagrams: pairs.any(|pair| pair == (H3_DATAGRAM, 1)) }
    }
}

fn next_pair(payload: &mut &[u8]) -> Option<(u64, u64)> {
    let (id, id_bytes) = varint::get(payload)?;
    let (value, value_bytes) = varint::get(&payload[id_bytes..])?;
    *payload = &payload[id_bytes + value_bytes..];
    Some((id, value))
}

/// The head of a server's control stream: its type and SETTINGS, offering up to `sessions` WebTransport sessions.
pub(super) fn of_server(header_bytes: u32, sessions: u64) -> Bytes {
    control_stream(&[
        (MAX_FIELD_SECTION_SIZE, header_bytes.into()),
        (ENABLE_CONNECT_PROTOCOL, 1),
        (H3_DATAGRAM, 1),
        (ENABLE_WEBTRANSPORT, 1),
        (WEBTRANSPORT_MAX_SESSIONS, sessions),
        (WT_MAX_SESSIONS, sessions),
        (WT_INITIAL_MAX_DATA, NO_LIMIT),
        (WT_INITIAL_MAX_STREAMS_UNI, NO_LIMIT),
        (WT_INITIAL_MAX_STREAMS_BIDI, NO_LIMIT),
    ])
}

fn control_stream(pairs: &[(u64, u64)]) -> Bytes {
    let mut payload = BytesMut::new();
    for &(id, value) in pairs {
        varint::put(&mut payload, id);
        varint::put(&mut payload, value);
    }
    let mut head = BytesMut::new();
    varint::put(&mut head, CONTROL_STREAM);
    varint::put(&mut head, SETTINGS_FRAME);
    varint::put(&mut head, payload.len() as u64);
    head.put(payload);
    head.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_offers_all_that_a_session_needs_in_every_dialect() {
        let head = of_server(16 * 1024, 16);
        assert_eq!(head[..2], [CONTROL_STREAM as u8, SETTINGS_FRAME as u8]);
        let (length, taken) = varint::get(&head[2..]).expect("an integer");
        let mut payload = &head[2 + taken..];
        assert_eq!(length, payload.len() as u64);
        assert_eq!(Settings::read(payload), Settings { datagrams: true });
        let pairs: Vec<_> = std::iter::from_fn(|| next_pair(&mut payload)).collect();
        assert!(pairs.contains(&(ENABLE_CONNECT_PROTOCOL, 1)));
        for id in [ENABLE_WEBTRANSPORT, WEBTRANSPORT_MAX_SESSIONS, WT_MAX_SESSIONS] {
            assert!(pairs.iter().any(|&(said, value)| said == id && value > 0), "{id:#x}");
        }
    }

    #[test]
    fn a_client_takes_datagrams_only_if_it_says_so() {
        for (payload, datagrams) in [(&[0x08, 1, 0x33, 1][..], true), (&[0x33, 0], false), (&[0x08, 1], false)] {
            assert_eq!(Settings::read(payload), Settings { datagrams }, "{payload:?}");
        }
    }

    #[test]
    fn a_broken_end_is_ignored() {
        assert_eq!(Settings::read(&[0x33]), Settings::default());
        assert_eq!(Settings::read(&[0xff]), Settings::default());
    }
}
