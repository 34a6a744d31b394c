//! Bodies of any length, read as they come.

use std::future::poll_fn;

use bytes::{Buf as _, Bytes};

use super::Error;

/// A stream from which an answer is read.
pub(super) type Http3Response = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// The body of a response. What is not read stays with the server, but for one stream's window.
pub struct Download(Body);

/// One for each version that carries several streams.
enum Body {
    Http2(h2::RecvStream),
    Http3(Box<Http3Response>),
}

impl Download {
    pub(super) fn http2(body: h2::RecvStream) -> Self {
        Download(Body::Http2(body))
    }

    pub(super) fn http3(body: Http3Response) -> Self {
        Download(Body::Http3(Box::new(body)))
    }

    /// Waits for the next part; `None` is the end.
    ///
    /// # Errors
    /// If the body breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        match &mut self.0 {
            Body::Http2(body) => {
                let Some(data) = poll_fn(|cx| body.poll_data(cx)).await.transpose()? else { return Ok(None) };
                body.flow_control().release_capacity(data.len())?;
                Ok(Some(data))
            }
            Body::Http3(body) => {
                let data = body.recv_data().await.map_err(|error| Error::Http3(error.to_string()))?;
                Ok(data.map(|mut data| data.copy_to_bytes(data.remaining())))
            }
        }
    }
}
