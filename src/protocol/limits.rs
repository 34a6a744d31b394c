//! What a session may ask of the server; told to each client in `joined.limits`.

use serde::{Deserialize, Serialize};

/// The limits of one session and of the room it is in. All of them are configurable.
///
/// A client reads them, too; what a server does not tell is taken for the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Bytes of one line or frame from the client.
    pub frame_bytes: usize,
    /// Bytes of a `message`'s `data`, as JSON text.
    pub data_bytes: usize,
    /// Bytes of a description's `sdp`, as UTF-8.
    pub sdp_bytes: usize,
    /// Bytes of a `candidate`, as JSON text.
    pub candidate_bytes: usize,
    /// Bytes of `metadata`, as JSON text.
    pub metadata_bytes: usize,
    /// Lines a second that a session may send for long.
    pub messages_per_second: u32,
    /// Lines that it may send at once.
    pub burst: u32,
    /// Members of a room.
    pub peers: usize,
    /// Bytes waiting for a client that does not read.
    pub queue_bytes: usize,
    /// Messages waiting for a client that does not read.
    pub queue_messages: usize,
    /// Milliseconds from the opening of a transport to its first message.
    pub first_message_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            frame_bytes: 160 * 1024,
            data_bytes: 64 * 1024,
            sdp_bytes: 128 * 1024,
            candidate_bytes: 4 * 1024,
            metadata_bytes: 4 * 1024,
            messages_per_second: 200,
            burst: 1000,
            peers: 64,
            queue_bytes: 1024 * 1024,
            queue_messages: 2048,
            first_message_ms: 5000,
        }
    }
}
