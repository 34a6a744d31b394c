//! What a browser says in a call: an offer and an answer for sound and picture as Chromium writes them, and candidates.

use std::sync::LazyLock;

use serde_json::json;

/// Sessions' fields are the same in each call: what they say does not matter, how long they are does.
static OFFER: LazyLock<String> = LazyLock::new(|| description("offer", include_str!("offer.sdp")));
static ANSWER: LazyLock<String> = LazyLock::new(|| description("answer", include_str!("answer.sdp")));
static CANDIDATE: LazyLock<String> = LazyLock::new(|| {
    json!({
        "candidate": "candidate:577705110 1 udp 2113937151 192.0.2.17 36606 typ host generation 0 ufrag vXF2 network-cost 999",
        "sdpMid": "0",
        "sdpMLineIndex": 0,
        "usernameFragment": "vXF2",
    })
    .to_string()
});

/// An RTCSessionDescriptionInit of 5 KB.
pub fn offer() -> &'static str {
    &OFFER
}

/// Its answer, of nearly 5 KB.
pub fn answer() -> &'static str {
    &ANSWER
}

/// An RTCIceCandidateInit.
pub fn candidate() -> &'static str {
    &CANDIDATE
}

fn description(kind: &str, lines: &str) -> String {
    json!({ "type": kind, "sdp": lines.replace('\n', "\r\n") }).to_string()
}
