//! Clients of the raw relays: lines on a stream.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;

use anyhow::{Context as _, Result, ensure};
use quinn::VarInt;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use wigwag::bench::{Peer, Service};
use wigwag::client::webtransport::client_config;

use super::{HOST, Target};

/// The relay over TLS.
#[derive(Debug, Clone)]
pub(crate) struct RawTls(pub(crate) Target);

impl Service for RawTls {
    type Peer = Lines<TlsStream<TcpStream>>;

    async fn join(&self, room: &str) -> Result<Self::Peer> {
        Lines::enter(self.0.connect().await?, None, room).await
    }
}

/// The relay over QUIC.
#[derive(Debug, Clone)]
pub(crate) struct RawQuic(pub(crate) Target);

impl Service for RawQuic {
    type Peer = Lines<tokio::io::Join<quinn::RecvStream, quinn::SendStream>>;

    async fn join(&self, room: &str) -> Result<Self::Peer> {
        // As the clients of wigwag: a socket each.
        let endpoint = quinn::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.0.port));
        let connection = endpoint.connect_with(client_config(&self.0.trust)?, address, HOST)?.await?;
        let (send, recv) = connection.open_bi().await?;
        Lines::enter(tokio::io::join(recv, send), Some(connection), room).await
    }
}

/// A client of a relay.
pub(crate) struct Lines<S> {
    /// `None` once it has ended.
    stream: S,
    /// What the stream is on, where that has to be ended too.
    connection: Option<quinn::Connection>,
    incoming: Incoming,
    outgoing: Vec<u8>,
    sent: usize,
}

/// What has been read.
#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
    taken: usize,
}

impl Incoming {
    fn line(&mut self) -> Option<&[u8]> {
        let rest = &self.bytes[self.taken..];
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let line = self.taken..self.taken + length;
        self.taken += length + 1;
        Some(&self.bytes[line])
    }

    /// Makes room behind what is not taken yet.
    fn space(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        &mut self.bytes
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Lines<S> {
    async fn enter(stream: S, connection: Option<quinn::Connection>, room: &str) -> Result<Self> {
        let outgoing = format!("{room}\n").into_bytes();
        let mut lines = Lines { stream, connection, incoming: Incoming::default(), outgoing, sent: 0 };
        lines.flush().await?;
        let answer = lines.recv().await?;
        ensure!(answer.is_empty(), "the relay says: {answer}");
        Ok(lines)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Peer for Lines<S> {
    fn feed(&mut self, _to: Option<&str>, data: &str) -> Result<()> {
        self.outgoing.extend_from_slice(data.as_bytes());
        self.outgoing.push(b'\n');
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        while self.sent < self.outgoing.len() {
            self.sent += self.stream.write(&self.outgoing[self.sent..]).await?;
        }
        self.outgoing.clear();
        self.sent = 0;
        Ok(self.stream.flush().await?)
    }

    async fn recv(&mut self) -> Result<String> {
        loop {
            if let Some(line) = self.incoming.line() {
                return Ok(str::from_utf8(line)?.to_owned());
            }
            let came = self.stream.read_buf(self.incoming.space()).await?;
            ensure!(came > 0, "the relay has ended the connection");
        }
    }

    /// Nobody has a name.
    fn id(&self) -> &str {
        ""
    }

    async fn leave(mut self) -> Result<()> {
        Pin::new(&mut self.stream).shutdown().await?;
        // Until the relay has ended its side too.
        while self.stream.read_buf(self.incoming.space()).await.context("the relay does not end in order")? > 0 {}
        if let Some(connection) = self.connection {
            connection.close(VarInt::from_u32(0), b"");
        }
        Ok(())
    }
}
