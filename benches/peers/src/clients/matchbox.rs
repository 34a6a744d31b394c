//! Clients of matchbox_signaling's full mesh. It relays from one to one: what is for all is sent to each.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::value::RawValue;
use wigwag::bench::{Peer, Service};

use super::directory::{Directory, Place};
use super::{Target, WebSocket};

/// A matchbox server.
#[derive(Debug, Clone)]
pub(crate) struct Matchbox {
    target: Target,
    directory: Directory,
}

impl Matchbox {
    pub(crate) fn new(target: Target) -> Self {
        Matchbox { target, directory: Directory::default() }
    }
}

/// A client in a room.
pub(crate) struct Member {
    socket: WebSocket,
    place: Place,
}

/// Of what the server says, the only member is the event's name; of those that come and go nothing is kept.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event<'a> {
    #[serde(borrow)]
    signal: Option<Signal<'a>>,
    id_assigned: Option<String>,
}

#[derive(Deserialize)]
struct Signal<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Service for Matchbox {
    type Peer = Member;

    async fn join(&self, room: &str) -> Result<Member> {
        let mut socket = WebSocket::open(&self.target, &format!("/{room}")).await?;
        let text = socket.recv_text().await?;
        let event: Event<'_> = serde_json::from_str(&text)?;
        let id = event.id_assigned.with_context(|| format!("the server says: {text}"))?;
        Ok(Member { socket, place: self.directory.enter(room, id) })
    }
}

impl Peer for Member {
    fn feed(&mut self, to: Option<&str>, data: &str) -> Result<()> {
        for to in self.place.recipients(to) {
            self.socket.feed(format!(r#"{{"Signal":{{"receiver":"{to}","data":{data}}}}}"#))?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.socket.flush().await
    }

    async fn recv(&mut self) -> Result<String> {
        loop {
            let text = self.socket.recv_text().await?;
            let event: Event<'_> = serde_json::from_str(&text)?;
            if let Some(signal) = event.signal {
                return Ok(signal.data.get().to_owned());
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
