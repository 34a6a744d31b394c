//! Clients of NATS over its WebSocket: a subject for the room, and one for each member.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use wigwag::bench::{Peer, Service};

use super::{Target, WebSocket};

/// NATS does not send back what one publishes, and does not confirm it.
const CONNECT: &str =
    r#"CONNECT {"verbose":false,"pedantic":false,"echo":false,"lang":"rust","version":"0","protocol":1}"#;

/// A NATS server.
#[derive(Debug, Clone)]
pub(crate) struct Nats(pub(crate) Target);

/// A client in a room.
pub(crate) struct Member {
    socket: WebSocket,
    room: String,
    id: String,
    incoming: Incoming,
}

/// What has come: operations, for which the limits of messages mean nothing.
#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
    taken: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Operation {
    Message(String),
    Ping,
    Pong,
    Info,
}

impl Incoming {
    /// The next operation, if it is all there.
    fn next(&mut self) -> Result<Option<Operation>> {
        let rest = &self.bytes[self.taken..];
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let line = str::from_utf8(&rest[..end])?;
        let mut length = end + 2;
        let operation = match line.split(' ').next().unwrap_or_default() {
            "MSG" => {
                let bytes: usize = line.rsplit(' ').next().context("a size")?.parse()?;
                let Some(payload) = rest.get(length..length + bytes) else { return Ok(None) };
                if rest.len() < length + bytes + 2 {
                    return Ok(None);
                }
                let message = Operation::Message(str::from_utf8(payload)?.to_owned());
                length += bytes + 2;
                message
            }
            "PING" => Operation::Ping,
            "PONG" => Operation::Pong,
            "INFO" => Operation::Info,
            _ => bail!("the server says: {line}"),
        };
        self.taken += length;
        Ok(Some(operation))
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }
}

impl Service for Nats {
    type Peer = Member;

    async fn join(&self, room: &str) -> Result<Member> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        let socket = WebSocket::open(&self.0, "/").await?;
        let mut member = Member { socket, room: room.to_owned(), id, incoming: Incoming::default() };
        let (all, own) = (member.subject(None), member.subject(Some(&member.id)));
        member.say(&format!("{CONNECT}\r\nSUB {all} 1\r\nSUB {own} 2\r\nPING\r\n"))?;
        // Answered when all before it is done.
        while member.next().await? != Operation::Pong {}
        Ok(member)
    }
}

impl Member {
    fn subject(&self, to: Option<&str>) -> String {
        format!("room.{}.{}", self.room, to.unwrap_or("all"))
    }

    fn say(&mut self, operations: &str) -> Result<()> {
        self.socket.feed_bytes(operations.as_bytes().to_vec())
    }

    async fn next(&mut self) -> Result<Operation> {
        // The answer to a ping of before.
        self.socket.flush().await?;
        loop {
            if let Some(operation) = self.incoming.next()? {
                if operation == Operation::Ping {
                    self.say("PONG\r\n")?;
                }
                return Ok(operation);
            }
            let message = self.socket.recv().await?;
            self.incoming.push(message.as_payload());
        }
    }
}

impl Peer for Member {
    fn feed(&mut self, to: Option<&str>, data: &str) -> Result<()> {
        let subject = self.subject(to);
        self.say(&format!("PUB {subject} {}\r\n{data}\r\n", data.len()))
    }

    async fn flush(&mut self) -> Result<()> {
        self.socket.flush().await
    }

    async fn recv(&mut self) -> Result<String> {
        loop {
            if let Operation::Message(data) = self.next().await? {
                return Ok(data);
            }
        }
    }

    fn id(&self) -> &str {
        &self.id
    }

    async fn leave(self) -> Result<()> {
        self.socket.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_wherever_messages_are_cut() {
        // A payload may have what ends operations.
        let said = b"INFO {\"a\":1}\r\nMSG room.a.all 1 7\r\none\r\nwo\r\nPING\r\n";
        for cut in 0..said.len() {
            let (mut incoming, mut operations) = (Incoming::default(), Vec::new());
            for part in [&said[..cut], &said[cut..]] {
                incoming.push(part);
                while let Some(operation) = incoming.next().expect("well-formed") {
                    operations.push(operation);
                }
            }
            assert_eq!(
                operations,
                [Operation::Info, Operation::Message("one\r\nwo".to_owned()), Operation::Ping],
                "{cut}"
            );
        }
    }
}
