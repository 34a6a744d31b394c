//! A WebSocket over HTTP/2 (RFC 8441) as a byte stream that can be written to before the server has answered.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Error;
use super::http::read;
use super::websocket::Carrier;
use crate::transport::Http2Stream;

/// The stream of a CONNECT. What is written goes along with it: a server that refuses does not take it for anything else, as it
/// could over HTTP/1.1, since it belongs to this stream alone (RFC 9113, 8.5).
pub(super) struct Asked {
    stream: Http2Stream,
    /// Until it is there.
    answer: Option<BoxFuture<'static, Result<RecvStream, Error>>>,
}

impl Asked {
    pub(super) fn new(response: ResponseFuture, send: SendStream<bytes::Bytes>) -> Self {
        let answer = async move {
            let response = response.await?;
            if response.status() != StatusCode::OK {
                return Err(Error::Refused(Box::new(read(response).await?)));
            }
            Ok(response.into_body())
        };
        Asked { stream: Http2Stream::asked(send), answer: Some(Box::pin(answer)) }
    }
}

impl Carrier for Asked {
    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(answer) = &mut self.answer {
            let answer = ready!(answer.as_mut().poll(cx));
            self.answer = None;
            self.stream.accepted(answer?);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Asked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_opened(cx)).map_err(io::Error::other)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Asked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
