//! Frames and messages of a WebSocket.

use super::flood;
use super::offender::{End, Target, pour};
use super::pair::ROOM;
use crate::tcp::{masked, upgrade_request};

/// Frames written at once.
const BATCH: usize = 256;

/// A masked text frame of some size (RFC 6455, 5.2).
pub(super) fn text(payload: &str) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short");
    if length < 126 {
        return masked(0x81, payload.as_bytes());
    }
    [&[0x81, 0xfe][..], &length.to_be_bytes(), &[0; 4], payload.as_bytes()].concat()
}

/// A member of `room` that sends `frames` over and over. It need not wait until it is one.
async fn member(target: Target, room: &str, frames: Vec<u8>) -> End {
    let stream = match target.tls("http/1.1").await {
        Ok(stream) => stream,
        Err(end) => return end,
    };
    let start = [upgrade_request(room), text(r#"{"type":"join"}"#)].concat();
    pour(target, stream, &start, || frames.clone()).await
}

#[test]
#[ignore = "run by scripts/floods"]
fn websocket_fragments() {
    flood("WebSocket fragments", 1, async |target: Target| {
        let stream = match target.tls("http/1.1").await {
            Ok(stream) => stream,
            Err(end) => return end,
        };
        let start = [upgrade_request("fragments"), text(r#"{"type":"join"}"#), masked(0x01, b"{")].concat();
        let fragments = [masked(0x00, b""), masked(0x00, b" ")].concat().repeat(BATCH);
        pour(target, stream, &start, || fragments.clone()).await
    });
}

#[test]
#[ignore = "run by scripts/floods"]
fn websocket_pings() {
    flood("WebSocket PING", 1, async |target: Target| member(target, "pings", masked(0x89, b"x").repeat(BATCH)).await);
}

/// In the honest pair's own room, and sent to one of them.
#[test]
#[ignore = "run by scripts/floods"]
fn candidates() {
    flood("candidates", 1, async |target: Target| {
        let candidate = serde_json::json!({
            "type": "candidate",
            "to": &*target.peer,
            "candidate": {
                "candidate": "candidate:1 1 udp 2122260223 192.0.2.1 54321 typ host",
                "sdpMid": "0",
                "sdpMLineIndex": 0,
                "usernameFragment": "abcd",
            },
        });
        let frames = text(&candidate.to_string()).repeat(BATCH);
        member(target, ROOM, frames).await
    });
}
