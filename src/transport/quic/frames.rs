//! HTTP/3 frames on their way to h3, which keeps a frame in memory until it is whole, however long it says it will be, and
//! reads ahead of the frame that it works on. Here each frame is measured first: unknown ones are dropped, those too long are
//! refused, and what is handed on never crosses the end of a frame. The head of a request is looked into on the way, for the
//! `:protocol` that h3 must not see.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::extended::{self, Protocol};
use super::settings::{SETTINGS_FRAME, Settings};
use super::varint;
use crate::metrics::Tally;
use crate::transport::flood::{FRAMES_A_SECOND, Flood};

const DATA: u64 = 0x00;
const HEADERS: u64 = 0x01;
/// Types with a meaning for h3, be it an error: CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID, WebTransport's
/// stream header in a wrong place, and those of HTTP/2 that must not be used (RFC 9114, 11.2.1).
const KNOWN: [u64; 11] = [HEADERS, 0x02, 0x03, SETTINGS_FRAME, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0d, WEBTRANSPORT_STREAM];
/// Not a frame but the header of a stream, without a length.
const WEBTRANSPORT_STREAM: u64 = 0x41;

/// A frame, other than DATA, is longer than is allowed, or there are too many that say nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Excess;

/// One stream's frames.
#[derive(Debug)]
pub(super) struct Frames {
    position: Position,
    /// The most bytes of a frame that h3 has to see whole.
    limit: u64,
    /// Where the first SETTINGS go, beside h3.
    settings: Option<(watch::Sender<Option<Settings>>, BytesMut)>,
    /// Of frames that are dropped, and of DATA without any.
    flood: Flood,
    /// What has come of the first HEADERS, and where its `:protocol` goes, instead of to h3.
    head: Option<Head>,
}

#[derive(Debug)]
struct Head {
    protocol: Arc<OnceLock<Protocol>>,
    /// The frame's header.
    header: Bytes,
    section: BytesMut,
}

#[derive(Debug)]
enum Position {
    /// In a frame's type and length, `seen[..length]` of which are there.
    Header { seen: [u8; 2 * varint::MAX_BYTES], length: usize },
    /// In a frame's payload, with so many bytes to go.
    Payload { left: u64, kind: Kind },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pass,
    Settings,
    Head,
    Drop,
}

const HEADER: Position = Position::Header { seen: [0; 2 * varint::MAX_BYTES], length: 0 };

impl Frames {
    /// Frames of a request's stream; `protocol` is told what an extended CONNECT asks for, before h3 sees the request.
    pub(super) fn of_request(limit: u64, floods: Tally, protocol: Arc<OnceLock<Protocol>>) -> Self {
        let head = Head { protocol, header: Bytes::new(), section: BytesMut::new() };
        Frames { position: HEADER, limit, settings: None, head: Some(head), flood: Flood::new(FRAMES_A_SECOND, floods) }
    }

    /// Frames of the control stream, behind its type; `settings` is told what they say.
    pub(super) fn of_control(limit: u64, floods: Tally, settings: watch::Sender<Option<Settings>>) -> Self {
        let (settings, flood) = (Some((settings, BytesMut::new())), Flood::new(FRAMES_A_SECOND, floods));
        Frames { position: HEADER, limit, settings, head: None, flood }
    }

    /// What was held back when the stream ended: the beginning of a frame's header or of a request's head, for h3 to complain
    /// of.
    pub(super) fn take_begun(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.position, HEADER) {
            Position::Header { seen, length: length @ 1.. } => Some(Bytes::copy_from_slice(&seen[..length])),
            Position::Payload { kind: Kind::Head, .. } => {
                self.head.take().map(|head| joined(&head.header, &head.section))
            }
            _ => None,
        }
    }

    /// Takes the next piece for h3 from `input`; `None` when there is nothing for it in what is left, which is then nothing.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, Excess> {
        while !input.is_empty() {
            match &mut self.position {
                Position::Header { seen, length } => {
                    seen[*length] = input.split_to(1)[0];
                    *length += 1;
                    let header = &seen[..*length];
                    if let Some((kind, size)) = read_header(header) {
                        let header = Bytes::copy_from_slice(header);
                        match self.begin(kind, size)? {
                            Kind::Drop => {}
                            Kind::Head => self.head.iter_mut().for_each(|head| head.header = header.clone()),
                            Kind::Pass | Kind::Settings => return Ok(Some(header)),
                        }
                    }
                }
                Position::Payload { left, kind } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    let piece = input.split_to(taken);
                    *left -= taken as u64;
                    let (kind, whole) = (*kind, *left == 0);
                    if whole {
                        self.position = HEADER;
                    }
                    match kind {
                        Kind::Drop => {}
                        Kind::Pass => return Ok(Some(piece)),
                        Kind::Settings => {
                            self.settings(&piece, whole);
                            return Ok(Some(piece));
                        }
                        Kind::Head => {
                            if let Some(frame) = self.head(&piece, whole) {
                                return Ok(Some(frame));
                            }
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    fn begin(&mut self, frame: u64, size: u64) -> Result<Kind, Excess> {
        let kind = match frame {
            DATA => Kind::Pass,
            _ if !KNOWN.contains(&frame) => Kind::Drop,
            WEBTRANSPORT_STREAM => {
                self.position = HEADER;
                return Ok(Kind::Pass);
            }
            _ if size > self.limit => return Err(Excess),
            SETTINGS_FRAME if self.settings.is_some() => Kind::Settings,
            HEADERS if self.head.is_some() && size > 0 => Kind::Head,
            _ => Kind::Pass,
        };
        if (kind == Kind::Drop || frame == DATA && size == 0) && self.flood.note() {
            return Err(Excess);
        }
        self.position = if size == 0 { HEADER } else { Position::Payload { left: size, kind } };
        if size == 0 && kind == Kind::Settings {
            self.settings(&[], true);
        }
        Ok(kind)
    }

    fn settings(&mut self, piece: &[u8], whole: bool) {
        let Some((told, payload)) = &mut self.settings else { return };
        payload.extend_from_slice(piece);
        if whole {
            told.send_replace(Some(Settings::read(payload)));
            self.settings = None;
        }
    }

    /// The whole frame for h3, once it is there.
    fn head(&mut self, piece: &[u8], whole: bool) -> Option<Bytes> {
        self.head.as_mut()?.section.extend_from_slice(piece);
        let Head { protocol, header, section } = self.head.take_if(|_| whole)?;
        let section = section.freeze();
        let Some((asked, rest)) = extended::take(&section) else {
            return Some(joined(&header, &section));
        };
        // A stream has one head.
        let _ = protocol.set(asked);
        let mut header = Vec::with_capacity(2 * varint::MAX_BYTES);
        varint::put(&mut header, HEADERS);
        varint::put(&mut header, rest.len() as u64);
        Some(joined(&header, &rest))
    }
}

fn joined(header: &[u8], payload: &[u8]) -> Bytes {
    [header, payload].concat().into()
}

/// Type and length, once both are there.
fn read_header(bytes: &[u8]) -> Option<(u64, u64)> {
    let (frame, taken) = varint::get(bytes)?;
    let (size, _) = varint::get(&bytes[taken..])?;
    Some((frame, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        varint::put(&mut bytes, kind);
        varint::put(&mut bytes, payload.len() as u64);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn of_request(limit: u64) -> Frames {
        Frames::of_request(limit, Tally::default(), Arc::default())
    }

    /// Everything that comes out when `bytes` come in as chunks of `size`.
    fn through(frames: &mut Frames, bytes: &[u8], size: usize) -> Result<Vec<Bytes>, Excess> {
        let mut out = Vec::new();
        for chunk in bytes.chunks(size) {
            let mut chunk = Bytes::copy_from_slice(chunk);
            while let Some(piece) = frames.next(&mut chunk)? {
                out.push(piece);
            }
            assert!(chunk.is_empty());
        }
        Ok(out)
    }

    #[test]
    fn unknown_frames_are_dropped_wherever_chunks_end() {
        let unknown = frame(0x21 + 0x1f * 1000, &[7; 300]);
        let (headers, data) = (frame(HEADERS, b"head"), frame(DATA, &[1; 200]));
        let all = [&unknown[..], &headers, &unknown, &data, &unknown].concat();
        for size in 1..all.len() {
            let mut frames = of_request(100);
            let out = through(&mut frames, &all, size).expect("nothing is too long");
            assert_eq!(out.concat(), [&headers[..], &data].concat(), "chunks of {size}");
            assert_eq!(frames.take_begun(), None);
        }
    }

    #[test]
    fn a_header_cut_off_is_not_hidden() {
        let mut frames = of_request(100);
        assert_eq!(through(&mut frames, &[0x01], 1), Ok(vec![]));
        assert_eq!(frames.take_begun(), Some(Bytes::from_static(&[0x01])));
        assert_eq!(frames.take_begun(), None);
    }

    #[test]
    fn a_head_comes_whole_and_without_its_protocol() {
        let protocol = [&[0x27, 2][..], b":protocol", &[9], b"websocket"].concat();
        let all = [frame(HEADERS, &[&[0, 0, 0xd1][..], &protocol].concat()), frame(HEADERS, b"trailers")].concat();
        for size in 1..all.len() {
            let told = Arc::default();
            let mut frames = Frames::of_request(100, Tally::default(), Arc::clone(&told));
            let out = through(&mut frames, &all, size).expect("nothing is too long");
            assert_eq!(out[0], frame(HEADERS, &[0, 0, 0xd1]));
            assert_eq!(out[1..].concat(), frame(HEADERS, b"trailers"));
            assert_eq!(told.get(), Some(&Protocol::WebSocket));
        }
        for end in 1..24 {
            let mut frames = of_request(100);
            assert_eq!(through(&mut frames, &all[..end], 5), Ok(vec![]));
            assert_eq!(frames.take_begun().as_deref(), Some(&all[..end]), "h3 complains of all that came");
        }
    }

    #[test]
    fn no_piece_crosses_the_end_of_a_frame() {
        let all = [frame(DATA, b"ab"), frame(DATA, b"c"), frame(DATA, b"")].concat();
        let out = through(&mut of_request(0), &all, all.len()).expect("nothing is too long");
        assert_eq!(out, [&[0, 2][..], b"ab", &[0, 1], b"c", &[0, 0]]);
    }

    #[test]
    fn a_long_frame_is_refused_by_its_header_alone() {
        for kind in KNOWN.into_iter().filter(|&kind| kind != WEBTRANSPORT_STREAM) {
            let mut header = Vec::new();
            varint::put(&mut header, kind);
            varint::put(&mut header, 101);
            assert_eq!(through(&mut of_request(100), &header, 1), Err(Excess), "{kind:#x}");
        }
    }

    #[test]
    fn frames_that_say_nothing_are_limited_and_those_that_do_are_not() {
        let most = FRAMES_A_SECOND as usize;
        for nothing in [frame(0x21, b""), frame(0x21, b"ab"), frame(DATA, b"")] {
            let all = nothing.repeat(most);
            assert!(through(&mut of_request(100), &all, all.len()).is_ok());
            let all = nothing.repeat(most + 1);
            assert_eq!(through(&mut of_request(100), &all, all.len()), Err(Excess));
        }
        let all = frame(DATA, b"a").repeat(2 * most);
        assert!(through(&mut of_request(100), &all, all.len()).is_ok());
    }

    #[test]
    fn settings_are_told_and_passed_on() {
        for size in 1..10 {
            let (tell, told) = watch::channel(None);
            let bytes = [frame(SETTINGS_FRAME, &[0x33, 1, 0x08, 1]), frame(0x07, &[0])].concat();
            let mut frames = Frames::of_control(100, Tally::default(), tell);
            let out = through(&mut frames, &bytes, size).expect("nothing is too long");
            assert_eq!(out.concat(), bytes);
            let expected = Settings { datagrams: true };
            assert_eq!(*told.borrow(), Some(expected));
        }
        let (tell, told) = watch::channel(None);
        through(&mut Frames::of_control(100, Tally::default(), tell), &[4, 0], 2).expect("nothing is too long");
        assert_eq!(*told.borrow(), Some(Settings::default()));
    }
}
