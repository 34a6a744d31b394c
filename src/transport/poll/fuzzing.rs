//! What must hold of the requests of pollers, whatever they are.

use http::Request;

use super::*;

/// The lines of a whole body.
pub(crate) fn body_lines(body: &[u8], limit: usize) -> Option<Vec<Bytes>> {
    split_lines(&Bytes::copy_from_slice(body), limit).ok()
}

/// A wait is never longer than the longest, and only lines are taken for lines.
pub(crate) fn headers(headers: &HeaderMap) {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.headers.clone_from(headers);
    assert!(wait(&parts) <= MAX_WAIT);
    if let Ok(transport) = negotiate(headers) {
        assert!(matches!(transport, Transport::EventStream | Transport::LongPoll));
        assert!(is_ndjson(headers) && headers.contains_key(ACCEPT));
    }
    if let Some(proof) = ticket(headers) {
        assert_eq!(headers[TICKET], proof.to_text());
    }
    takes_trailers(&parts);
}
