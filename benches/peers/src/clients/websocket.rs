//! A WebSocket as every service's client has it.

use std::pin::Pin;

use anyhow::{Context as _, Result, bail};
use futures_util::{Sink as _, SinkExt as _, StreamExt as _};
use http::Uri;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_websockets::{ClientBuilder, CloseCode, Message, WebSocketStream};

use super::{HOST, Target};

/// An open WebSocket over TLS.
pub(crate) struct WebSocket(WebSocketStream<TlsStream<TcpStream>>);

impl WebSocket {
    pub(crate) async fn open(target: &Target, path: &str) -> Result<Self> {
        let uri: Uri = format!("wss://{HOST}:{}{path}", target.port).parse()?;
        let (stream, _) = ClientBuilder::from_uri(uri).connect_on(target.connect().await?).await?;
        Ok(WebSocket(stream))
    }

    /// Queues a message.
    pub(crate) fn feed(&mut self, text: String) -> Result<()> {
        self.queue(Message::text(text))
    }

    /// Queues a message of bytes.
    pub(crate) fn feed_bytes(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.queue(Message::binary(bytes))
    }

    fn queue(&mut self, message: Message) -> Result<()> {
        Ok(Pin::new(&mut self.0).start_send(message)?)
    }

    /// Sends what is queued. Cancel safe.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        Ok(self.0.flush().await?)
    }

    pub(crate) async fn send(&mut self, text: String) -> Result<()> {
        self.feed(text)?;
        self.flush().await
    }

    /// The next message. Cancel safe.
    pub(crate) async fn recv(&mut self) -> Result<Message> {
        let message = self.0.next().await.context("the server has ended the connection")??;
        if let Some((code, reason)) = message.as_close() {
            bail!("the server has closed the connection: {} {reason}", u16::from(code));
        }
        Ok(message)
    }

    pub(crate) async fn recv_text(&mut self) -> Result<String> {
        let message = self.recv().await?;
        Ok(message.as_text().context("bytes where a text was to come")?.to_owned())
    }

    /// Closes it, and waits until the server has done so too.
    pub(crate) async fn close(mut self) -> Result<()> {
        self.0.send(Message::close(Some(CloseCode::NORMAL_CLOSURE), "")).await?;
        // What had been on its way still comes; how TCP ends is no matter.
        while let Some(Ok(_)) = self.0.next().await {}
        Ok(())
    }
}
