//! A WebSocket seen from the client, over whatever its opening went through.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink as _, SinkExt as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, BufWriter};
use tokio_websockets::{ClientBuilder, CloseCode, Limits, Message, WebSocketStream};

use super::Error;

/// The most that a server's message may have: the whole picture of a large room is larger than any client's message.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// What can carry a WebSocket.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {
    /// Waits for the server to accept it, where that is not yet known: it may be written to before.
    fn poll_opened(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}

/// What is gathered before it is written; most messages fit.
const GATHERED_BYTES: usize = 4 * 1024;

/// A carrier that makes a frame of its own of each write (RFC 9113, 6.1; RFC 9114, 7.2.1) gets messages whole, and several at once:
/// a WebSocket writes a frame's header apart from its payload.
pub(super) fn gathered<C: Carrier>(carrier: C) -> BufWriter<C> {
    BufWriter::with_capacity(GATHERED_BYTES, carrier)
}

impl<C: Carrier> Carrier for BufWriter<C> {
    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.get_mut().poll_opened(cx)
    }
}

/// What the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// One message.
    Message(Bytes),
    /// The server closed the WebSocket; the code is 1005 where it gave none.
    Closed {
        /// The close code (RFC 6455, 7.4).
        code: u16,
        /// What a developer may want to read.
        reason: String,
    },
}

/// One WebSocket with subprotocol `wigwag.v1`.
pub struct WebSocket {
    stream: WebSocketStream<Box<dyn Carrier>>,
    /// The server is known to have accepted it.
    opened: bool,
    /// What the server's Close frame said, until the answer to it is out.
    closed: Option<Incoming>,
}

impl WebSocket {
    /// Takes over a stream on which the opening handshake is done, or at least said.
    pub(super) fn new(stream: impl Carrier + 'static) -> Self {
        let limits = Limits::default().max_payload_len(Some(MESSAGE_BYTES));
        let stream = ClientBuilder::new().limits(limits).take_over(Box::new(stream) as Box<dyn Carrier>);
        WebSocket { stream, opened: false, closed: None }
    }

    /// Waits until the server has accepted it.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's answer if it has not.
    pub(super) async fn opened(mut self) -> Result<Self, Error> {
        poll_fn(|cx| self.poll_opened(cx)).await?;
        Ok(self)
    }

    pub(super) fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.opened {
            ready!(self.stream.get_mut().poll_opened(cx))?;
            self.opened = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the server's next message. Cancel safe. Pings are answered by the way.
    ///
    /// # Errors
    /// If the connection ends without a Close frame, or the server breaks RFC 6455.
    pub async fn recv(&mut self) -> io::Result<Incoming> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Incoming>> {
        loop {
            let next = ready!(Pin::new(&mut self.stream).poll_next(cx));
            if let Some(closed) = self.closed.take() {
                // The answer to the Close frame has gone out with this poll; nothing else is to be read.
                return Poll::Ready(Ok(closed));
            }
            let message = match next {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            };
            if let Some((code, reason)) = message.as_close() {
                self.closed = Some(Incoming::Closed { code: code.into(), reason: reason.to_owned() });
            } else if message.is_text() {
                return Poll::Ready(Ok(Incoming::Message(message.into_payload().into())));
            }
        }
    }

    /// Sends one message, waiting while the connection takes no more.
    ///
    /// # Errors
    /// If the connection or the WebSocket is closed.
    pub async fn send(&mut self, text: impl Into<String>) -> io::Result<()> {
        self.stream.send(Message::text(text.into())).await.map_err(into_io)
    }

    /// Queues one message; [`flush`](Self::flush) sends all that are queued in as few writes as possible.
    ///
    /// # Errors
    /// If the WebSocket is closed.
    pub fn feed(&mut self, text: impl Into<String>) -> io::Result<()> {
        Pin::new(&mut self.stream).start_send(Message::text(text.into())).map_err(into_io)
    }

    /// Sends what was queued.
    ///
    /// # Errors
    /// If the connection is closed.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(into_io)
    }

    /// Closes with 1000 and waits for the server to do the same, dropping what it still sends.
    ///
    /// # Errors
    /// If the connection ends before.
    pub async fn close(mut self) -> io::Result<()> {
        self.stream.send(Message::close(Some(CloseCode::NORMAL_CLOSURE), "")).await.map_err(into_io)?;
        self.stream.close().await.map_err(into_io)
    }
}

fn into_io(error: tokio_websockets::Error) -> io::Error {
    match error {
        tokio_websockets::Error::Io(error) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}
