//! The decoders of all that comes from the wire, each with what must hold of it: `fuzz/` looks for bytes for which it does
//! not, and the tests run all that was found. Not in an ordinary build.
//!
//! Where an input begins with a length of chunks or with a limit, so that these vary as well, the function says so.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::origin::Origins;
use crate::protocol::{Body, PeerId};
use crate::{client, protocol, transport};

/// A target's name, and its function.
pub type Target = (&'static str, fn(&[u8]));

macro_rules! targets {
    ($($name:ident: $function:path,)*) => {
        /// All of them: each has a program in `fuzz/fuzz_targets/` and a corpus in `fuzz/corpus/`.
        pub const TARGETS: &[Target] = &[$((stringify!($name), $function)),*];

        /// Each by its name, so that a program has no code but what its own target reaches.
        pub mod target {
            $(
                /// Panics if what must hold does not.
                pub fn $name(data: &[u8]) {
                    $function(data);
                }
            )*
        }
    };
}

targets! {
    candidate: crate::protocol::fuzzing::candidate,
    capsules: crate::transport::webtransport::fuzzing::capsules,
    claims: crate::auth::fuzzing::claims,
    datagram: crate::transport::quic::fuzzing::datagram,
    discovery: crate::client::fuzzing::discovery,
    event_stream: crate::client::fuzzing::event_stream,
    field_section: crate::transport::quic::fuzzing::field_section,
    forwarded: crate::clients::fuzzing::forwarded,
    frames: crate::transport::quic::fuzzing::frames,
    lines: crate::transport::webtransport::fuzzing::lines,
    names: crate::protocol::fuzzing::names,
    notes: crate::cluster::fuzzing::notes,
    opening: crate::fuzzing::opening,
    origin: crate::fuzzing::origin,
    poll_body: crate::fuzzing::poll_body,
    protocols: crate::transport::webtransport::fuzzing::protocols,
    proxy_protocol: crate::transport::proxy::fuzzing::proxy_protocol,
    request: crate::fuzzing::request,
    room_pattern: crate::auth::fuzzing::room_pattern,
    sdp: crate::protocol::fuzzing::sdp,
    server_message: crate::client::fuzzing::server_message,
    stream_head: crate::transport::quic::fuzzing::stream_head,
    token: crate::auth::fuzzing::token,
    varint: crate::transport::quic::fuzzing::varint,
    websocket: crate::transport::websocket::fuzzing::websocket,
}

/// What a client sends, understood, relayed and read by the other client, is the same payload from the right peer.
fn request(data: &[u8]) {
    let Some(outbound) = protocol::fuzzing::request(data) else { return };
    let from = "01977a3e-0000-7000-8000-000000000001";
    let peer = PeerId::parse(from).expect("a peer id");
    let frame = Body::relay(peer, &outbound).frame(Some(7));
    let text = frame.text();
    let text = std::str::from_utf8(&text).expect("UTF-8");
    assert!(!text.contains(['\n', '\r']), "a line break in a line");
    client::fuzzing::is_read_as(text, from, &outbound.payload);
}

/// A body has the lines that the same bytes have on a stream. First the limit.
fn poll_body(data: &[u8]) {
    let Some((&limit, body)) = data.split_first() else { return };
    let limit = usize::from(limit);
    let lines = transport::poll::fuzzing::body_lines(body, limit);
    let streamed = transport::webtransport::fuzzing::read_lines(&[body, b"\n"].concat(), 7, limit);
    match lines {
        Some(lines) => assert_eq!(streamed, (lines, Some(true))),
        None => assert_eq!(streamed.1, None, "a line is too long for one of them only"),
    }
}

/// Headers of a request that opens a session, one `name: value` a line.
fn opening(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n').take(32) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    transport::websocket::fuzzing::opening(&headers);
    transport::poll::fuzzing::headers(&headers);
    transport::priority::is_in_range(&headers);
}

/// What passes for an origin of this machine is a URL of this machine and nothing besides.
fn origin(data: &[u8]) {
    let listed = vec!["https://app.example".to_owned()];
    let strict = Origins::new(vec![], listed.clone(), false);
    let development = Origins::new(vec![], listed.clone(), true);
    let is_listed = data.eq_ignore_ascii_case(listed[0].as_bytes());
    assert_eq!(strict.allow(Some(data)), is_listed);
    if is_listed || !development.allow(Some(data)) {
        return;
    }
    let text = std::str::from_utf8(data).expect("UTF-8");
    let uri: http::Uri = text.parse().unwrap_or_else(|error| panic!("{text:?} is no URL: {error}"));
    assert!(matches!(uri.scheme_str(), Some("http" | "https")), "{text:?}");
    assert!(matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.contains('@'), "{text:?}");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    assert!(is_loopback || host.eq_ignore_ascii_case("localhost"), "{text:?}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn entries(directory: &str) -> Vec<PathBuf> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(directory);
        let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
        paths.sort();
        paths
    }

    fn stems(directory: &str) -> BTreeSet<String> {
        entries(directory).iter().map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn whatever_fuzzing_found_still_holds() {
        for (name, target) in TARGETS {
            let inputs = entries(&format!("corpus/{name}"));
            assert!(!inputs.is_empty(), "fuzz/corpus/{name} is empty");
            for path in inputs {
                let data = fs::read(&path).expect("readable");
                let ran = std::panic::catch_unwind(|| target(&data));
                assert!(ran.is_ok(), "{name} does not hold for {}", path.display());
            }
        }
    }

    #[test]
    fn every_target_has_its_program_and_its_corpus() {
        let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(stems("fuzz_targets"), names);
        assert_eq!(stems("corpus"), names);
        let manifest =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).expect("there");
        for name in names {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not built");
        }
    }
}
