//! What a WebSocket's opening request must say, over HTTP/1.1 (RFC 6455, 4.2) and HTTP/2 (RFC 8441, 5) alike.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha1_smol::Sha1;

use crate::protocol::{PROTOCOL, Refusal};

/// Appended to the key before hashing (RFC 6455, 1.3).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Checks version and subprotocol, and returns the headers with which to accept.
///
/// The key is optional, as HTTP/2 has none; where a client sends one all the same, it wants it answered.
///
/// # Errors
/// `badRequest`, to be answered with status 400.
pub(crate) fn accept(headers: &HeaderMap) -> Result<HeaderMap, Refusal> {
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refusal::bad_request("Sec-WebSocket-Version must be 13"));
    }
    if !has_token(headers, &SEC_WEBSOCKET_PROTOCOL, |token| token == PROTOCOL) {
        return Err(Refusal::bad_request("Sec-WebSocket-Protocol must offer wigwag.v1"));
    }
    let mut answer = HeaderMap::with_capacity(2);
    answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    if let Some(key) = headers.get(SEC_WEBSOCKET_KEY) {
        answer.insert(SEC_WEBSOCKET_ACCEPT, answer_to(key)?);
    }
    Ok(answer)
}

/// `Sec-WebSocket-Accept` for `key`.
fn answer_to(key: &HeaderValue) -> Result<HeaderValue, Refusal> {
    if STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        let mut hash = Sha1::from(key.as_bytes());
        hash.update(KEY_SUFFIX);
        let text = STANDARD.encode(hash.digest().bytes());
        return Ok(HeaderValue::try_from(text).expect("base64 is a header value"));
    }
    Err(Refusal::bad_request("Sec-WebSocket-Key must be 16 bytes in base64"))
}

/// Whether one of the comma-separated tokens of header `name` satisfies `wanted`.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: impl Fn(&str) -> bool) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| wanted(token.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter().map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        fields.fold(HeaderMap::new(), |mut headers, (name, value): (HeaderName, _)| {
            headers.append(name, value);
            headers
        })
    }

    #[test]
    fn the_key_of_rfc_6455_gets_its_answer() {
        let answer = accept(&headers(&[
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat, wigwag.v1"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]));
        let answer = answer.unwrap();
        assert_eq!(answer["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer["sec-websocket-protocol"], "wigwag.v1");
    }

    #[test]
    fn without_a_key_there_is_no_answer_to_it() {
        let answer = accept(&headers(&[
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
            ("sec-websocket-protocol", "wigwag.v1"),
        ]));
        assert!(!answer.unwrap().contains_key("sec-websocket-accept"));
    }

    #[test]
    fn a_wrong_version_subprotocol_or_key_is_refused() {
        let version = ("sec-websocket-version", "13");
        let protocol = ("sec-websocket-protocol", "wigwag.v1");
        let cases: [&[_]; 7] = [
            &[protocol],
            &[("sec-websocket-version", "12"), protocol],
            &[version],
            &[version, ("sec-websocket-protocol", "wigwag.v2")],
            &[version, ("sec-websocket-protocol", "wigwag.v1x, wigwag")],
            &[version, protocol, ("sec-websocket-key", "short")],
            &[version, protocol, ("sec-websocket-key", "")],
        ];
        for case in cases {
            assert!(accept(&headers(case)).is_err(), "{case:?}");
        }
    }
}
