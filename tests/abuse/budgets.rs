//! What one connection may send that costs the server work and says nothing.

use http::HeaderMap;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wigwag::client::Via;
use wigwag::client::webtransport::Incoming;

use super::{is_counted, talk};
use crate::limits::{Peer, close_code, next};
use crate::quic::{connection_code, h3, open, open_uni, read_until};
use crate::support::{TestServer, config, within};
use crate::tcp::{ended, frames, masked, raw_connect, to_the_end, upgrade_request};

const H3_EXCESSIVE_LOAD: u64 = 0x107;
const JOIN: &[u8] = br#"{"type":"join"}"#;

/// Two who talk beside the offender.
async fn pair(server: &TestServer, room: &str) -> (Peer, Peer) {
    let first = Peer::join(server, Via::WebSocketH2, room).await;
    (first, Peer::join(server, Via::WebTransport, room).await)
}

async fn notice_nothing((one, two): &mut (Peer, Peer)) {
    talk(one, two).await;
    talk(two, one).await;
}

#[tokio::test]
async fn websocket_frames_that_are_no_messages_close_it_when_there_are_too_many() {
    let server = TestServer::start().await;
    for (room, flood) in [
        ("pings", masked(0x89, b"x").repeat(3000)),
        ("pongs", masked(0x8a, b"").repeat(3000)),
        ("fragments", [masked(0x01, b"{"), masked(0x00, b"").repeat(3000)].concat()),
    ] {
        let mut pair = pair(&server, room).await;
        let bytes = [masked(0x81, JOIN), flood].concat();
        // A client's library may take exception to so many answers.
        let over_http2 = if room == "pings" {
            None
        } else {
            let (mut send, recv) = raw_connect(&server, room).await;
            send.send_data(bytes.clone().into(), false).expect("open");
            Some(to_the_end(recv).await)
        };
        let mut stream = server.raw().await;
        stream.write_all(&[upgrade_request(room), bytes].concat()).await.expect("open");
        let mut over_http1 = Vec::new();
        within(stream.read_to_end(&mut over_http1)).await.expect("its end");
        let head = over_http1.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a response head") + 4;
        for frames in over_http2.iter().map(|bytes| frames(bytes)).chain([frames(&over_http1[head..])]) {
            let [.., (0x81, text), (0x88, close)] = &frames[..] else { panic!("{room}: {frames:?}") };
            let closed: Value = serde_json::from_slice(text).expect("JSON");
            assert_eq!((&closed["type"], &closed["code"]), (&json!("closed"), &json!("rateLimited")), "{room}");
            assert_eq!(close[..2], 4010u16.to_be_bytes(), "{room}");
        }
        notice_nothing(&mut pair).await;
    }
    assert!(is_counted(&server, "flood"));
    server.stop().await;
}

#[tokio::test]
async fn a_message_in_hundreds_of_fragments_is_a_message() {
    let server = TestServer::start().await;
    let (mut send, mut recv) = raw_connect(&server, "fragments").await;
    send.send_data(masked(0x81, JOIN).into(), false).expect("open");
    let fragments: Vec<u8> = (0..300).flat_map(|_| masked(0x00, b" ")).collect();
    let message = [masked(0x01, br#"{"type":"ping","#), fragments, masked(0x80, br#""id":7}"#)].concat();
    send.send_data(message.into(), false).expect("open");
    let mut text = String::new();
    while !text.contains(r#""type":"pong""#) {
        let data = within(recv.data()).await.expect("an open stream").expect("no reset");
        text.push_str(&String::from_utf8_lossy(&data));
    }
    server.stop().await;
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn http2(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn http2_frames_that_ask_for_nothing_end_the_connection() {
    let (data, headers, rst_stream, settings, continuation) = (0, 1, 3, 4, 9);
    let (end_stream, end_headers) = (1, 4);
    let mut config = config();
    // So that it is not the missing request that ends it.
    config.connections.request_head = std::time::Duration::from_secs(600);
    let server = TestServer::start_with(config).await;
    let mut pair = pair(&server, "frames").await;
    // GET, https, /, and an authority in a literal.
    let head = [&[0x82, 0x87, 0x84, 0x01, 9][..], b"localhost"].concat();
    let post = [&[0x83][..], &head[1..]].concat();
    let streams = (0..5000).map(|number| 2 * number + 1);
    let reset = |id| {
        let request = http2(headers, end_stream | end_headers, id, &head);
        [request, http2(rst_stream, 0, id, &8u32.to_be_bytes())].concat()
    };
    let floods = [
        ("SETTINGS", http2(settings, 0, 0, &[]).repeat(5000)),
        ("RST_STREAM", streams.flat_map(reset).collect()),
        ("CONTINUATION", [http2(headers, end_stream, 1, &head), http2(continuation, 0, 1, &[]).repeat(5000)].concat()),
        ("empty DATA", [http2(headers, end_headers, 1, &post), http2(data, 0, 1, &[]).repeat(5000)].concat()),
        ("unknown frames", http2(0xee, 0, 0, &[]).repeat(5000)),
    ];
    for (name, flood) in floods {
        let mut stream = server.raw_tls(&[b"h2"]).await;
        let start = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), http2(settings, 0, 0, &[])].concat();
        let flood_bytes = flood.len();
        // The server need not take it all.
        let _ = stream.write_all(&[start, flood].concat()).await;
        assert!(ended(stream).await.len() < flood_bytes, "{name}");
        notice_nothing(&mut pair).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn capsules_that_mean_nothing_end_their_session_and_not_the_one_beside_it() {
    let server = TestServer::start().await;
    let quic = server.raw_quic().await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    let (honest, _answer) = open(&quic, &h3::connect("capsules")).await;
    let (mut lines, mut messages) = open(&quic, &h3::session_stream(honest.id().into())).await;
    lines.write_all(b"{\"type\":\"join\"}\n").await.expect("sent");
    read_until(&mut messages, "\"joined\"").await;

    let (mut connect, mut answer) = open(&quic, &h3::connect("capsules")).await;
    let (mut offender, mut told) = open(&quic, &h3::session_stream(connect.id().into())).await;
    offender.write_all(b"{\"type\":\"join\"}\n").await.expect("sent");
    read_until(&mut told, "\"joined\"").await;
    connect.write_all(&h3::frame(0x00, &h3::frame(0x17, &[]).repeat(3000))).await.expect("sent");
    read_until(&mut told, "\"rateLimited\"").await;
    let answer = within(answer.read_to_end(64 * 1024)).await.expect("it ends");
    let close = [&h3::varint(0x2843)[..], &[]].concat();
    let at = answer.windows(2).position(|pair| pair == close).expect("a close");
    let begin = at + 2 + (1 << (answer[at + 2] >> 6));
    assert_eq!(answer[begin..begin + 4], 4010u32.to_be_bytes());

    lines.write_all(b"{\"type\":\"ping\",\"id\":7}\n").await.expect("sent");
    read_until(&mut messages, "\"pong\"").await;
    assert!(is_counted(&server, "flood"));
    server.stop().await;
}

#[tokio::test]
async fn frames_of_http3_that_mean_nothing_end_their_stream() {
    let server = TestServer::start().await;
    let quic = server.raw_quic().await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    let (send, _recv) = open(&quic, &h3::frame(0x21, &[]).repeat(3000)).await;
    let stopped = within(send.stopped()).await.expect("connected").expect("stopped");
    assert_eq!(stopped.into_inner(), H3_EXCESSIVE_LOAD);
    let (mut get, mut response) = open(&quic, &h3::get("/v1/discovery")).await;
    get.finish().expect("open");
    within(response.read_to_end(64 * 1024)).await.expect("a response beside it");
    server.stop().await;
}

#[tokio::test]
async fn datagrams_for_no_session_end_the_connection() {
    let server = TestServer::start().await;
    let mut pair = pair(&server, "stray").await;
    let quic = server.raw_quic().await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    let sending = async {
        // Beyond what may wait to be sent, the oldest are dropped.
        while quic.send_datagram_wait(h3::varint(7).into()).await.is_ok() {}
    };
    within(sending).await;
    assert_eq!(connection_code(&quic).await, H3_EXCESSIVE_LOAD);
    notice_nothing(&mut pair).await;
    assert!(is_counted(&server, "flood"));
    server.stop().await;
}

#[tokio::test]
async fn streams_without_end_end_the_connection() {
    let server = TestServer::start().await;
    let mut pair = pair(&server, "streams").await;
    let quic = server.raw_quic().await;
    let _control = open_uni(&quic, &h3::control_stream()).await;
    let opening = async {
        while let Ok(mut stream) = quic.open_uni().await {
            // Fails where the connection has ended.
            let _ = stream.reset(0u32.into());
        }
    };
    within(opening).await;
    assert_eq!(connection_code(&quic).await, H3_EXCESSIVE_LOAD);
    notice_nothing(&mut pair).await;
    server.stop().await;
}

#[tokio::test]
async fn datagrams_of_a_session_count_as_its_messages() {
    let mut config = config();
    (config.limits.burst, config.limits.messages_per_second) = (20, 1);
    let server = TestServer::start_with(config).await;
    let mut pair = pair(&server, "datagrams").await;
    let endpoint = server.secure();
    let http3 = within(wigwag::client::Http3::connect(&endpoint, &server.trust)).await.expect("a connection");
    let mut offender = within(http3.webtransport("/v1/rooms/datagrams", &HeaderMap::new())).await.expect("a session");
    offender.send(r#"{"type":"join"}"#).await.expect("sent");
    let closed = within(async {
        loop {
            // No more than may wait for the session; its answer to the last is an error.
            for _ in 0..10 {
                let _ = offender.send_datagram(r#"{"type":"message","data":1}"#);
            }
            let _ = offender.send(r#"{"type":"ping"}"#).await;
            if let Incoming::Closed { code, .. } = offender.recv().await.expect("a message or a close") {
                break code;
            }
        }
    });
    assert_eq!(closed.await, 4010);
    notice_nothing(&mut pair).await;
    server.stop().await;
}

#[tokio::test]
async fn a_whole_connection_of_offenders_costs_nobody_else_anything() {
    let mut config = config();
    (config.limits.burst, config.limits.messages_per_second) = (20, 1);
    let server = TestServer::start_with(config).await;
    let mut pair = pair(&server, "all").await;
    for via in [Via::WebTransport, Via::WebSocketH3, Via::WebSocketH2, Via::WebSocketH1] {
        let mut offender = Peer::join(&server, via, "all").await;
        for id in 1..=41u64 {
            // One that is closed in the middle of it may find its transport gone.
            let _ = offender.connection.send(&json!({"type": "metadata", "id": id, "metadata": {}}).to_string()).await;
        }
        while next(&mut offender.connection).await["type"] != "closed" {}
        assert_eq!(close_code(&mut offender.connection).await, Some(4010), "{via:?}");
    }
    notice_nothing(&mut pair).await;
    server.stop().await;
}
