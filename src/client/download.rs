//! Bodies of any length, read as they come.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::Response;
use http_body::Body as _;

use super::webtransport::http3;
use super::{Error, Http1, Http3};

/// A stream from which an answer is read.
pub(super) type Http3Response = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// The body of a response. What is not read stays with the server, but for what a window lets through.
pub struct Download(Body);

/// One for each version.
enum Body {
    /// With the connection, which nothing else can use until the body has ended.
    Http1(hyper::body::Incoming, Http1),
    Http2(h2::RecvStream),
    /// With the connection, which h3 closes when nobody has it any more.
    Http3(Box<Http3Response>, #[expect(dead_code, reason = "held for the stream")] Http3),
}

impl Download {
    pub(super) fn http1(body: hyper::body::Incoming, connection: Http1) -> Self {
        Download(Body::Http1(body, connection))
    }

    pub(super) fn http2(body: h2::RecvStream) -> Self {
        Download(Body::Http2(body))
    }

    pub(super) fn http3(body: Http3Response, connection: Http3) -> Self {
        Download(Body::Http3(Box::new(body), connection))
    }

    /// Waits for the next part; `None` is the end. Cancel safe.
    ///
    /// # Errors
    /// If the body breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        match &mut self.0 {
            Body::Http1(body, _) => loop {
                let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose()? else {
                    return Poll::Ready(Ok(None));
                };
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Ok(Some(data)));
                }
            },
            Body::Http2(body) => {
                let Some(data) = ready!(body.poll_data(cx)).transpose()? else { return Poll::Ready(Ok(None)) };
                body.flow_control().release_capacity(data.len())?;
                Poll::Ready(Ok(Some(data)))
            }
            Body::Http3(body, _) => {
                let data = ready!(body.poll_recv_data(cx)).map_err(http3)?;
                Poll::Ready(Ok(data.map(|mut data| data.copy_to_bytes(data.remaining()))))
            }
        }
    }

    /// The connection that is free for another request now that the body has ended, where others could not share it.
    pub(super) fn into_connection(self) -> Option<Http1> {
        match self.0 {
            Body::Http1(_, connection) => Some(connection),
            Body::Http2(_) | Body::Http3(..) => None,
        }
    }
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// [`Error::Body`] if it is longer, or whatever broke it off.
pub(super) async fn whole(
    response: Response<Download>,
    limit: usize,
) -> Result<(Response<Bytes>, Option<Http1>), Error> {
    let (head, mut download) = response.into_parts();
    let mut body = BytesMut::new();
    while let Some(part) = download.chunk().await? {
        if body.len() + part.len() > limit {
            return Err(Error::Body(format!("more than {limit} bytes").into()));
        }
        body.extend_from_slice(&part);
    }
    Ok((Response::from_parts(head, body.freeze()), download.into_connection()))
}
