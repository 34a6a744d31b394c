//! This server as a [`Service`].

use anyhow::{Context as _, Result, bail};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Peer, Service};
use crate::client::{Connection, Endpoint, Event, Trust, Via};
use crate::protocol::RoomName;

/// A client acknowledges this many messages at once, as the protocol asks.
const ACK_EVERY: u64 = 32;

/// A wigwag server over one transport.
#[derive(Debug, Clone)]
pub struct Wigwag {
    /// Where it is.
    pub endpoint: Endpoint,
    /// What is trusted there.
    pub trust: Trust,
    /// The transport.
    pub via: Via,
    /// Headers of every connection, such as `Authorization`.
    pub headers: HeaderMap,
}

impl Wigwag {
    async fn open(&self, room: &RoomName) -> Result<Connection> {
        Ok(Connection::open(&self.endpoint, room, self.via, &self.trust, &self.headers).await?)
    }

    /// Takes a seat up again over a new connection.
    ///
    /// # Errors
    /// If the seat is not there any more, or the server cannot be reached.
    pub async fn resume(&self, lost: Lost) -> Result<Member> {
        let connection = self.open(&lost.room).await?;
        let greeting = format!(r#"{{"type":"resume","ticket":"{}","seq":{}}}"#, lost.ticket, lost.seq);
        Member::enter(connection, &greeting, lost).await
    }
}

impl Service for Wigwag {
    type Peer = Member;

    async fn join(&self, room: &str) -> Result<Member> {
        let room = RoomName::parse(room)?;
        let connection = self.open(&room).await?;
        Member::enter(connection, r#"{"type":"join"}"#, Lost { room, id: String::new(), ticket: String::new(), seq: 0 })
            .await
    }
}

/// What is left of a member whose connection is gone: its place.
#[derive(Clone)]
pub struct Lost {
    room: RoomName,
    id: String,
    ticket: String,
    /// The last message that came.
    seq: u64,
}

/// A member of a room.
pub struct Member {
    connection: Connection,
    place: Lost,
    /// The last message that was acknowledged.
    acknowledged: u64,
    /// The last request that asked for an answer.
    asked: u64,
}

/// What a workload looks at in a message; the payload is left as it is.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    seq: Option<u64>,
    id: Option<u64>,
    ticket: Option<&'a str>,
    #[serde(borrow, rename = "self")]
    own: Option<Own<'a>>,
    #[serde(borrow, alias = "description", alias = "candidate")]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Own<'a> {
    peer: &'a str,
}

impl Member {
    async fn enter(mut connection: Connection, greeting: &str, mut place: Lost) -> Result<Self> {
        connection.send(greeting).await?;
        let text = message(&mut connection).await?;
        let first: Incoming<'_> = serde_json::from_str(&text)?;
        if !matches!(first.kind, "joined" | "resumed") {
            bail!("not let in: {text}");
        }
        first.ticket.context("no ticket")?.clone_into(&mut place.ticket);
        if let Some(own) = first.own {
            own.peer.clone_into(&mut place.id);
        }
        Ok(Member { connection, acknowledged: place.seq, place, asked: 0 })
    }

    /// Drops the connection without a word, as a network does.
    pub fn lose(self) -> Lost {
        self.place
    }

    /// Sends `data`, a JSON text, to one other, and waits until the server has accepted it.
    ///
    /// # Errors
    /// If it refuses it, or the connection is lost.
    pub async fn ask(&mut self, to: &str, data: &str) -> Result<()> {
        self.asked += 1;
        let message = format!(r#"{{"type":"message","id":{},"to":"{to}","data":{data}}}"#, self.asked);
        self.connection.send(&message).await?;
        while !matches!(self.next().await?, Told::Answer(id) if id == self.asked) {}
        Ok(())
    }

    /// The next message: another peer's payload, the id of an answered request, or neither.
    async fn next(&mut self) -> Result<Told> {
        // Acknowledgements of the call before: after the message, giving up this wait would lose it.
        self.connection.flush().await?;
        let text = message(&mut self.connection).await?;
        let incoming: Incoming<'_> = serde_json::from_str(&text)?;
        self.place.seq = incoming.seq.unwrap_or(self.place.seq);
        let told = match (incoming.kind, incoming.data) {
            ("message" | "description" | "candidate", Some(data)) => Told::Payload(data.get().to_owned()),
            ("ok", _) => Told::Answer(incoming.id.unwrap_or_default()),
            ("error" | "closed", _) => bail!("the server says: {text}"),
            _ => Told::Nothing,
        };
        if self.place.seq >= self.acknowledged + ACK_EVERY {
            self.connection.feed(&format!(r#"{{"type":"ack","seq":{}}}"#, self.place.seq))?;
            self.acknowledged = self.place.seq;
        }
        Ok(told)
    }
}

enum Told {
    Payload(String),
    Answer(u64),
    Nothing,
}

async fn message(connection: &mut Connection) -> Result<String> {
    match connection.recv().await? {
        Event::Message(text) | Event::Datagram(text) => Ok(text),
        Event::Closed { code, reason } => bail!("the server has closed the connection: {code:?} {reason}"),
    }
}

impl Peer for Member {
    fn feed(&mut self, to: Option<&str>, data: &str) -> Result<()> {
        let message = match to {
            Some(to) => format!(r#"{{"type":"message","to":"{to}","data":{data}}}"#),
            None => format!(r#"{{"type":"message","data":{data}}}"#),
        };
        Ok(self.connection.feed(&message)?)
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(self.connection.flush().await?)
    }

    async fn recv(&mut self) -> Result<String> {
        loop {
            if let Told::Payload(payload) = self.next().await? {
                return Ok(payload);
            }
        }
    }

    fn feed_description(&mut self, to: &str, description: &str) -> Result<()> {
        let message = format!(r#"{{"type":"description","to":"{to}","description":{description}}}"#);
        Ok(self.connection.feed(&message)?)
    }

    fn feed_candidate(&mut self, to: &str, candidate: &str) -> Result<()> {
        Ok(self.connection.feed(&format!(r#"{{"type":"candidate","to":"{to}","candidate":{candidate}}}"#))?)
    }

    fn id(&self) -> &str {
        &self.place.id
    }

    async fn leave(mut self) -> Result<()> {
        // Nothing is acknowledged by a seat that is not there any more.
        self.acknowledged = u64::MAX - ACK_EVERY;
        self.connection.send(&format!(r#"{{"type":"leave","id":{}}}"#, self.asked + 1)).await?;
        // Where a poll was answered before, there is no other that could bring the answer.
        while matches!(self.next().await, Ok(Told::Payload(_) | Told::Nothing | Told::Answer(0))) {}
        Ok(())
    }
}
