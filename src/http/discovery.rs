//! `GET /v1/discovery`: where and how sessions open.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CACHE_CONTROL, HOST, LINK};
use http::uri::Authority;
use http::{HeaderMap, Uri};
use serde::Serialize;
use tokio::sync::watch;

use super::api::SERVICE_DESCRIPTION;
use crate::origin::origin_of;
use crate::protocol::{PROTOCOL, ROOMS_PATH};
use crate::transport::Via;

/// What the server tells about itself, assembled once from its configuration and certificates.
#[derive(Debug, Clone)]
pub struct Advertised {
    /// The server's own names and addresses, the best first: those of its certificate. `*.` stands for one label.
    pub names: Vec<String>,
    /// The port of QUIC and TLS.
    pub port: u16,
    /// Whether QUIC is served.
    pub quic: bool,
    /// SHA-256 of the certificates that QUIC may use; empty with the operator's own.
    pub hashes: watch::Receiver<Vec<[u8; 32]>>,
    /// Whether QUIC's certificate is one that clients can verify, hash or not: HTTP/3 is offered to browsers then.
    pub verifiable: watch::Receiver<bool>,
    /// The port of the plaintext listener, if there is one.
    pub plain_port: Option<u16>,
}

impl Advertised {
    /// The name to use in URLs: the one that the client used, if it is one of ours. A name of the client's choosing would let
    /// whoever can poison a cache send others elsewhere.
    fn name<'a>(&'a self, asked: Option<&'a str>) -> &'a str {
        let asked = asked.map(|host| host.trim_start_matches('[').trim_end_matches(']'));
        let own = asked.filter(|host| self.names.iter().any(|name| covers(name, host)));
        own.or_else(|| self.names.iter().map(String::as_str).find(|name| !name.starts_with("*.")))
            .unwrap_or("localhost")
    }

    /// Best first. Over the plaintext listener, its own URLs stand beside the WebTransport one.
    fn transports(&self, name: &str, via: Via) -> Vec<Transport> {
        let url = |scheme, port| format!("{}{ROOMS_PATH}{{room}}", origin_of(scheme, name, port));
        let mut transports = Vec::with_capacity(4);
        if self.quic {
            let hashes = self.hashes.borrow().iter().map(Hash::new).collect();
            let url = url("https", self.port);
            transports.push(Transport { r#type: "webtransport", url, certificate_hashes: hashes });
        }
        let plain = |scheme| url(scheme, self.plain_port.unwrap_or_else(|| via.local.port()));
        let secure = |scheme| url(scheme, self.port);
        let url = if via.encrypted { secure("wss") } else { plain("ws") };
        transports.push(Transport { r#type: "websocket", url, certificate_hashes: Vec::new() });
        let url = if via.encrypted { secure("https") } else { plain("http") };
        for r#type in ["event-stream", "long-poll"] {
            transports.push(Transport { r#type, url: url.clone(), certificate_hashes: Vec::new() });
        }
        transports
    }
}

/// Whether `name` of a certificate stands for `host` (RFC 6125, 6.4): a wildcard is the whole leftmost label.
fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => name.eq_ignore_ascii_case(host),
    }
}

#[derive(Debug, Serialize)]
struct Document {
    protocol: &'static str,
    transports: Vec<Transport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Transport {
    r#type: &'static str,
    url: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    certificate_hashes: Vec<Hash>,
}

/// As `serverCertificateHashes` of the browsers' WebTransport takes it, but for the encoding.
#[derive(Debug, Serialize)]
struct Hash {
    algorithm: &'static str,
    value: String,
}

impl Hash {
    fn new(sha256: &[u8; 32]) -> Self {
        Hash { algorithm: "sha-256", value: STANDARD.encode(sha256) }
    }
}

/// Answers with the document for the listener that was asked.
pub(super) async fn answer(
    State(advertised): State<Arc<Advertised>>,
    Extension(via): Extension<Via>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let asked = uri.authority().or(host.as_ref()).map(Authority::host);
    let transports = advertised.transports(advertised.name(asked), via);
    // Certificates are renewed, and clients ask again at each reconnect.
    ([(CACHE_CONTROL, "no-store"), (LINK, SERVICE_DESCRIPTION)], Json(Document { protocol: PROTOCOL, transports }))
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::HttpVersion;

    fn advertised(names: &[&str], hashes: Vec<[u8; 32]>) -> Advertised {
        let names = names.iter().map(|&name| name.into()).collect();
        let (hashes, verifiable) = (watch::channel(hashes).1, watch::channel(true).1);
        Advertised { names, port: 4433, quic: true, hashes, verifiable, plain_port: Some(8080) }
    }

    fn via(encrypted: bool) -> Via {
        let address = ([127, 0, 0, 1], 8080).into();
        Via { version: HttpVersion::H1, remote: address, local: address, encrypted }
    }

    fn document(advertised: &Advertised, asked: &str, encrypted: bool) -> serde_json::Value {
        let transports = advertised.transports(advertised.name(Some(asked)), via(encrypted));
        serde_json::to_value(Document { protocol: PROTOCOL, transports }).unwrap()
    }

    #[test]
    fn over_tls_all_urls_are_encrypted_and_hashes_are_told_while_there_are_some() {
        let document = document(&advertised(&["localhost"], vec![[0; 32]]), "localhost", true);
        let expected = serde_json::json!({
            "protocol": "wigwag.v1",
            "transports": [
                {
                    "type": "webtransport",
                    "url": "https://localhost:4433/v1/rooms/{room}",
                    "certificateHashes": [
                        {"algorithm": "sha-256", "value": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
                    ],
                },
                {"type": "websocket", "url": "wss://localhost:4433/v1/rooms/{room}"},
                {"type": "event-stream", "url": "https://localhost:4433/v1/rooms/{room}"},
                {"type": "long-poll", "url": "https://localhost:4433/v1/rooms/{room}"},
            ],
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn over_plaintext_its_own_url_stands_beside_webtransport() {
        let document = document(&advertised(&["localhost", "::1"], vec![]), "[::1]", false);
        let urls: Vec<_> = document["transports"].as_array().unwrap().iter().map(|t| t["url"].clone()).collect();
        let plain = "http://[::1]:8080/v1/rooms/{room}";
        assert_eq!(urls, ["https://[::1]:4433/v1/rooms/{room}", "ws://[::1]:8080/v1/rooms/{room}", plain, plain]);
        assert!(document["transports"][0].get("certificateHashes").is_none());
    }

    #[test]
    fn a_host_that_is_not_ours_is_never_repeated() {
        let advertised = advertised(&["*.example.org", "example.org"], vec![]);
        for (asked, name) in [
            ("EXAMPLE.org", "EXAMPLE.org"),
            ("a.example.org", "a.example.org"),
            ("a.b.example.org", "example.org"),
            ("evil.test", "example.org"),
        ] {
            assert_eq!(advertised.name(Some(asked)), name);
        }
        assert_eq!(advertised.name(None), "example.org");
    }
}
