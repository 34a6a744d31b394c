//! Who is believed about a client's address.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wigwag::client::Via;
use wigwag::clients::ForwardedHeader;
use wigwag::config::Config;

use super::{DISCOVERY, ask, behind_proxy, connect_from, is_counted, join, limited, quota, refused};
use crate::limits::Peer;
use crate::support::{TestServer, within};

#[tokio::test]
async fn nobody_is_believed_who_is_not_trusted() {
    let server = TestServer::start_with(limited(|limits| limits.joins = quota(1))).await;
    for via in [Via::WebSocketH1, Via::WebTransport] {
        let _ = server.try_connect(via, "demo", &super::forwarded_for("192.0.2.1")).await;
        let refusal = refused(&server, via, "demo", "192.0.2.2", &json!({})).await;
        assert_eq!(refusal["code"], "rateLimited", "both come from this machine");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_a_client_writes_itself_into_the_headers_changes_nothing() {
    for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
        let mut config = behind_proxy(|limits| limits.joins = quota(1));
        config.clients.header = header;
        let server = TestServer::start_with(config).await;
        let fields = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            let field = |(name, value): &(&'static str, &str)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).expect("text"))
            };
            pairs.iter().map(field).collect()
        };
        // The proxy appends to one header, and passes the other on.
        let (own, told) = match header {
            ForwardedHeader::XForwardedFor => ("6.6.6.6, 192.0.2.1", ("forwarded", "for=6.6.6.7")),
            ForwardedHeader::Forwarded => ("for=6.6.6.6, for=192.0.2.1", ("x-forwarded-for", "6.6.6.7")),
        };
        let _first = Peer::join_with(&server, Via::WebSocketH2, "demo", &fields(&[(header.name(), own), told])).await;
        let again = own.replace("6.6.6.6", "6.6.6.8");
        let again = fields(&[(header.name(), &again), (told.0, &told.1.replace('7', "9"))]);
        assert!(server.try_connect(Via::WebSocketH2, "demo", &again).await.is_err(), "the same client");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_header_that_is_no_address_is_refused() {
    let server = TestServer::start_with(behind_proxy(|_| {})).await;
    for via in Via::ALL {
        let refusal = refused(&server, via, "demo", "192.0.2.1, nonsense", &json!({"type": "join"})).await;
        assert_eq!(refusal["code"], "badRequest", "{via:?}: {refusal}");
    }
    assert!(is_counted(&server, "proxy-header"));
    let _honest = join(&server, Via::WebTransport, "demo", "192.0.2.1").await;
    server.stop().await;
}

/// A proxy that passes TCP on, at 127.0.0.9.
fn proxied() -> Config {
    let mut config = limited(|limits| limits.joins = quota(1));
    config.clients.trusted = vec!["127.0.0.9/32".parse().expect("a network")];
    config.clients.proxy_protocol = true;
    config.connections.handshake = Duration::from_millis(500);
    config
}

fn version_2(client: [u8; 4]) -> Vec<u8> {
    let addresses = [&client[..], &[127, 0, 0, 1], &[0x16, 0x2e], &[1, 187]].concat();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x21, 0x11, 0, 12][..], &addresses].concat()
}

fn post_join() -> String {
    let join = r#"{"type":"join"}"#;
    format!(
        "POST /v1/rooms/demo HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
         accept: application/x-ndjson\r\nprefer: wait=0\r\ncontent-length: {}\r\n\r\n{join}",
        join.len()
    )
}

#[tokio::test]
async fn the_proxy_protocol_tells_whose_connection_it_is() {
    let server = TestServer::start_with(proxied()).await;
    let plain = server.addresses.plain[0];
    let headers = [
        version_2([192, 0, 2, 1]),
        b"PROXY TCP4 192.0.2.1 127.0.0.1 5678 443\r\n".to_vec(),
        version_2([192, 0, 2, 2]),
        b"PROXY TCP6 2001:db8::7 ::1 5678 443\r\n".to_vec(),
    ];
    for (header, status) in headers.into_iter().zip([200, 429, 200, 200]) {
        let mut stream = connect_from("127.0.0.9", plain).await;
        stream.write_all(&header).await.expect("open");
        let answer = ask(&mut stream, &post_join()).await.expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    // TLS begins behind it.
    let mut stream = connect_from("127.0.0.9", server.addresses.secure[0]).await;
    stream.write_all(&version_2([192, 0, 2, 3])).await.expect("open");
    let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(server.trust.tls.clone()));
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let mut stream = within(tls.connect(name, stream)).await.expect("a handshake");
    stream.write_all(DISCOVERY.as_bytes()).await.expect("open");
    let mut answer = [0; 12];
    within(stream.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    server.stop().await;
}

#[tokio::test]
async fn connections_without_a_trusted_proxys_header_are_closed() {
    let server = TestServer::start_with(proxied()).await;
    for address in [server.addresses.plain[0], server.addresses.secure[0]] {
        for (from, header) in [
            ("127.0.0.1", version_2([192, 0, 2, 1])),
            ("127.0.0.9", Vec::new()),
            ("127.0.0.9", b"PROXY TCP4 192.0.2.1\r\n".to_vec()),
            ("127.0.0.9", [b"\r\n\r\n\0\r\nQUIT\n", &[0x21, 0x11, 0xff, 0xff][..]].concat()),
        ] {
            let mut stream = connect_from(from, address).await;
            let _ = stream.write_all(&header).await;
            assert_eq!(ask(&mut stream, DISCOVERY).await, None, "{from}: {header:?}");
        }
        // Half a header has its deadline.
        let mut stream = connect_from("127.0.0.9", address).await;
        stream.write_all(&version_2([192, 0, 2, 1])[..20]).await.expect("open");
        let ended = within(stream.read_u8()).await;
        assert!(ended.is_err(), "{ended:?}");
    }
    assert!(is_counted(&server, "proxy-header"));
    server.stop().await;
}
