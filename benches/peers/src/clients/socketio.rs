//! Clients of Socket.IO, protocol 5 over Engine.IO 4, WebSocket from the start: `socketio.mjs` and `socketioxide.rs`.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use wigwag::bench::{Peer, Service};

use super::{Target, WebSocket};

/// A signaling server on Socket.IO.
#[derive(Debug, Clone)]
pub(crate) struct SocketIo(pub(crate) Target);

/// A client in a room.
pub(crate) struct Member {
    socket: WebSocket,
    id: String,
}

#[derive(Deserialize)]
struct Connected {
    sid: String,
}

/// `["message", from, data]`.
#[derive(Deserialize)]
struct Event<'a>(
    &'a str,
    #[allow(dead_code, reason = "who sent it says nothing here")] IgnoredAny,
    #[serde(borrow)] &'a RawValue,
);

impl Service for SocketIo {
    type Peer = Member;

    async fn join(&self, room: &str) -> Result<Member> {
        let mut socket = WebSocket::open(&self.0, "/socket.io/?EIO=4&transport=websocket").await?;
        // Engine.IO's handshake, then Socket.IO's, then what the server says when it has let us in.
        expect(&mut socket, "0{").await?;
        socket.send(format!(r#"40{{"room":"{room}"}}"#)).await?;
        let connected = expect(&mut socket, "40").await?;
        let Connected { sid: id } = serde_json::from_str(&connected)?;
        expect(&mut socket, r#"42["joined""#).await?;
        Ok(Member { socket, id })
    }
}

/// The rest of the next message, which begins with `start`.
async fn expect(socket: &mut WebSocket, start: &str) -> Result<String> {
    let text = next(socket).await?;
    Ok(text.strip_prefix(start).with_context(|| format!("{start} was to come, not {text}"))?.to_owned())
}

/// The next message that is no ping. Cancel safe.
async fn next(socket: &mut WebSocket) -> Result<String> {
    loop {
        // The answer to a ping of before: after the message, giving up this wait would lose it.
        socket.flush().await?;
        let text = socket.recv_text().await?;
        if text != "2" {
            return Ok(text);
        }
        socket.feed("3".to_owned())?;
    }
}

impl Peer for Member {
    fn feed(&mut self, to: Option<&str>, data: &str) -> Result<()> {
        self.socket.feed(match to {
            Some(to) => format!(r#"42["message","{to}",{data}]"#),
            None => format!(r#"42["message",null,{data}]"#),
        })
    }

    async fn flush(&mut self) -> Result<()> {
        self.socket.flush().await
    }

    async fn recv(&mut self) -> Result<String> {
        let text = next(&mut self.socket).await?;
        let event = text.strip_prefix("42").with_context(|| format!("no event: {text}"))?;
        let Event(name, _, data) = serde_json::from_str(event)?;
        ensure!(name == "message", "another event: {name}");
        Ok(data.get().to_owned())
    }

    fn id(&self) -> &str {
        &self.id
    }

    async fn leave(mut self) -> Result<()> {
        self.socket.feed("41".to_owned())?;
        self.socket.close().await
    }
}
