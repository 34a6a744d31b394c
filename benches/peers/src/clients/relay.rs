//! Clients of relays over WebSocket that do not look at what they relay: `ws.mjs` and `uwebsockets.c`.

use anyhow::{Result, ensure};
use wigwag::bench::{Peer, Service};

use super::{Target, WebSocket};

/// A relay; the path names the room.
#[derive(Debug, Clone)]
pub(crate) struct Relay(pub(crate) Target);

/// A client in a room.
pub(crate) struct Member(WebSocket);

impl Service for Relay {
    type Peer = Member;

    async fn join(&self, room: &str) -> Result<Member> {
        let mut socket = WebSocket::open(&self.0, &format!("/{room}")).await?;
        let answer = socket.recv_text().await?;
        ensure!(answer == "joined", "the relay says: {answer}");
        Ok(Member(socket))
    }
}

impl Peer for Member {
    fn feed(&mut self, _to: Option<&str>, data: &str) -> Result<()> {
        self.0.feed(data.to_owned())
    }

    async fn flush(&mut self) -> Result<()> {
        self.0.flush().await
    }

    async fn recv(&mut self) -> Result<String> {
        self.0.recv_text().await
    }

    /// Nobody has a name.
    fn id(&self) -> &str {
        ""
    }

    async fn leave(self) -> Result<()> {
        self.0.close().await
    }
}
