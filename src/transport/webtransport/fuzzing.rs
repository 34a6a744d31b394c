//! What must hold of the bytes of a WebTransport session, whatever they are.

use bytes::Bytes;
use http::HeaderValue;

use super::capsule::{self, Broken, Closed, Decoder};
use super::handshake;
use super::lines::Lines;

/// The lines of `text` in chunks of `size`, and whether it ends between two; `None` instead when one is too long.
pub(crate) fn read_lines(text: &[u8], size: usize, limit: usize) -> (Vec<Bytes>, Option<bool>) {
    let mut lines = Lines::new(limit);
    let mut read = Vec::new();
    for chunk in text.chunks(size.max(1)) {
        lines.push(Bytes::copy_from_slice(chunk));
        loop {
            match lines.next() {
                Ok(Some(line)) => read.push(line),
                Ok(None) => break,
                Err(_) => return (read, None),
            }
        }
    }
    (read, Some(lines.at_boundary()))
}

/// Lines are those that splitting the whole text gives, wherever chunks end, and none is above the limit.
pub(crate) fn lines(data: &[u8]) {
    let Some((&[limit, size], text)) = data.split_first_chunk() else { return };
    let limit = usize::from(limit);
    let mut whole: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let begun = whole.pop().unwrap_or_default();
    let stripped = whole.iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let expected: Vec<&[u8]> =
        stripped.clone().take_while(|line| line.len() <= limit).filter(|line| !line.is_empty()).collect();
    let fits = stripped.clone().all(|line| line.len() <= limit) && begun.len() <= limit + 1;
    let (read, end) = read_lines(text, size.into(), limit);
    assert_eq!(read, expected);
    assert_eq!(end, fits.then_some(begun.is_empty()));
}

fn read_capsules(bytes: &[u8], size: usize) -> Result<Option<Closed>, Broken> {
    let mut decoder = Decoder::default();
    for chunk in bytes.chunks(size.max(1)) {
        if let Some(closed) = decoder.push(chunk)? {
            return Ok(Some(closed));
        }
    }
    Ok(None)
}

/// Capsules say the same wherever chunks end, and a close that was read, written and read again is the same.
pub(crate) fn capsules(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let whole = read_capsules(bytes, bytes.len());
    assert_eq!(read_capsules(bytes, size.into()), whole, "chunks of {size}");
    if let Ok(Some(closed)) = whole {
        assert!(closed.reason.len() <= 1024);
        let written = capsule::close(closed.code, &closed.reason);
        assert_eq!(read_capsules(&written, size.into()), Ok(Some(closed)));
    }
}

/// An offer of protocols that is understood, written out and read again, is the same.
pub(crate) fn protocols(data: &[u8]) {
    let headers = |value| http::HeaderMap::from_iter([(handshake::AVAILABLE, value)]);
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let Some(offered) = handshake::offered(&headers(value)) else { return };
    let quoted = |name: &String| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    let written: Vec<String> = offered.iter().map(quoted).collect();
    let written = HeaderValue::try_from(written.join(", ")).expect("visible characters and spaces");
    let again = headers(written);
    assert_eq!(handshake::offered(&again).as_ref(), Some(&offered));
    assert_eq!(handshake::accept(&again).is_ok(), offered.iter().any(|name| name == crate::protocol::PROTOCOL));
}
