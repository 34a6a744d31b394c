//! The transports by their names on the wire.

use serde::{Deserialize, Serialize};

/// What a session runs over; `joined.transport`, `resumed.transport` and the metrics say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transport {
    /// WebTransport over HTTP/3.
    WebTransport,
    /// WebSocket over HTTP/3 (RFC 9220).
    WebSocketH3,
    /// WebSocket over HTTP/2 (RFC 8441).
    WebSocketH2,
    /// WebSocket over HTTP/1.1 (RFC 6455).
    WebSocketH1,
    /// `POST` answered by a stream of server-sent events.
    EventStream,
    /// `POST` answered by what waits, again and again.
    LongPoll,
}

impl Transport {
    /// All of them, in the order of their numbers.
    pub const ALL: [Transport; 6] = [
        Transport::WebTransport,
        Transport::WebSocketH3,
        Transport::WebSocketH2,
        Transport::WebSocketH1,
        Transport::EventStream,
        Transport::LongPoll,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Transport::WebTransport => "webtransport",
            Transport::WebSocketH3 => "websocket-h3",
            Transport::WebSocketH2 => "websocket-h2",
            Transport::WebSocketH1 => "websocket-h1",
            Transport::EventStream => "event-stream",
            Transport::LongPoll => "long-poll",
        }
    }

    /// Whether a message is a line there, rather than a frame.
    pub fn is_line_delimited(self) -> bool {
        matches!(self, Transport::WebTransport | Transport::EventStream | Transport::LongPoll)
    }
}
