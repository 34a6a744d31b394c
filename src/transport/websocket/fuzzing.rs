//! What must hold of a WebSocket's bytes, whatever they are.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Received, WebSocketWire, Wire as _, WireError, handshake};
use crate::metrics::Tally;
use crate::protocol::Code;

/// The most of one message; short inputs reach it.
const FRAME_BYTES: usize = 200;

/// A stream that brings `bytes` in chunks of `size`, then ends, and takes all that is written.
struct Script {
    bytes: Bytes,
    size: usize,
    written: usize,
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let taken = self.size.min(self.bytes.len()).min(buffer.remaining());
        buffer.put_slice(&self.bytes.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How a wire ended.
#[derive(Debug, PartialEq)]
enum End {
    Closed,
    Lost,
    Broken(Code),
}

/// The text messages, `None` for a binary one.
type Messages = Vec<Option<Bytes>>;

fn read(bytes: &[u8], size: usize) -> (Messages, End) {
    let stream = Script { bytes: Bytes::copy_from_slice(bytes), size: size.max(1), written: 0 };
    let mut wire = WebSocketWire::new(stream, FRAME_BYTES, Tally::default());
    let mut cx = Context::from_waker(Waker::noop());
    let mut messages = Messages::new();
    let end = loop {
        match wire.poll_recv(&mut cx) {
            // Other work gets its turn after so many control frames.
            Poll::Pending => {}
            Poll::Ready(Ok(Some(Received::Message(message)))) => messages.push(Some(message)),
            Poll::Ready(Ok(Some(Received::Unusable(_)))) => messages.push(None),
            Poll::Ready(Ok(Some(Received::Datagram(_)))) => panic!("a WebSocket has no datagrams"),
            Poll::Ready(Ok(None)) => break End::Closed,
            Poll::Ready(Err(WireError::Lost(_))) => break End::Lost,
            Poll::Ready(Err(WireError::Broken(refusal))) => break End::Broken(refusal.code),
        }
    };
    let written = wire.stream.written + wire.out.len();
    assert!(written <= bytes.len(), "{written} bytes are written for {} read", bytes.len());
    (messages, end)
}

/// Messages are the same wherever chunks end, UTF-8, and within the limit; no client has more written than it sent.
pub(crate) fn websocket(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let (messages, end) = read(bytes, bytes.len());
    assert_eq!(read(bytes, size.into()), (messages.clone(), end), "chunks of {size}");
    for message in messages.into_iter().flatten() {
        assert!(message.len() <= FRAME_BYTES && std::str::from_utf8(&message).is_ok());
    }
}

/// What is accepted has offered our protocol, and is told so; a key is answered.
pub(crate) fn opening(headers: &HeaderMap) {
    let Ok(answer) = handshake::accept(headers) else { return };
    assert!(handshake::has_token(headers, &SEC_WEBSOCKET_PROTOCOL, |token| token == crate::protocol::PROTOCOL));
    assert_eq!(answer[SEC_WEBSOCKET_PROTOCOL], crate::protocol::PROTOCOL);
    assert_eq!(answer.contains_key(SEC_WEBSOCKET_ACCEPT), headers.contains_key(SEC_WEBSOCKET_KEY));
    assert!(answer.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| accept.len() == 28));
}
