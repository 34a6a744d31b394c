//! Clients of PeerJS's server. It has no rooms: what is for all is sent to each.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;
use wigwag::bench::{Peer, Service};

use super::directory::{Directory, Place};
use super::{Target, WebSocket};

/// PeerJS's server.
#[derive(Debug, Clone)]
pub(crate) struct PeerJs {
    target: Target,
    directory: Directory,
}

impl PeerJs {
    pub(crate) fn new(target: Target) -> Self {
        PeerJs { target, directory: Directory::default() }
    }
}

/// A client.
pub(crate) struct Member {
    socket: WebSocket,
    place: Place,
}

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl Service for PeerJs {
    type Peer = Member;

    async fn join(&self, room: &str) -> Result<Member> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = format!("peer-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let path = format!("/peerjs?key=peerjs&id={id}&token={id}-token");
        let mut socket = WebSocket::open(&self.target, &path).await?;
        let answer = socket.recv_text().await?;
        ensure!(answer == r#"{"type":"OPEN"}"#, "the server says: {answer}");
        Ok(Member { socket, place: self.directory.enter(room, id) })
    }
}

impl Member {
    fn feed_as(&mut self, kind: &str, to: Option<&str>, payload: &str) -> Result<()> {
        for to in self.place.recipients(to) {
            self.socket.feed(format!(r#"{{"type":"{kind}","payload":{payload},"dst":"{to}"}}"#))?;
        }
        Ok(())
    }
}

impl Peer for Member {
    /// There is no type for other data; candidates may be anything.
    fn feed(&mut self, to: Option<&str>, data: &str) -> Result<()> {
        self.feed_as("CANDIDATE", to, data)
    }

    fn feed_description(&mut self, to: &str, description: &str) -> Result<()> {
        self.feed_as("OFFER", Some(to), description)
    }

    async fn flush(&mut self) -> Result<()> {
        self.socket.flush().await
    }

    async fn recv(&mut self) -> Result<String> {
        loop {
            let text = self.socket.recv_text().await?;
            let incoming: Incoming<'_> = serde_json::from_str(&text)?;
            match (incoming.kind, incoming.payload) {
                ("CANDIDATE" | "OFFER", Some(payload)) => return Ok(payload.get().to_owned()),
                // The other has left before what was sent to it came.
                ("LEAVE", _) => {}
                _ => anyhow::bail!("the server says: {text}"),
            }
        }
    }

    fn id(&self) -> &str {
        &self.place.id
    }

    async fn leave(self) -> Result<()> {
        self.socket.close().await
    }
}
