//! Requests to one server over one version of HTTP, on connections that are kept from one to the next.

use bytes::Bytes;
use http::{HeaderMap, Response};
use parking_lot::Mutex;

use super::download::whole;
use super::{Download, Endpoint, Error, Http1, Http2, Http3, Trust};

/// The kept connections, and how to open another.
pub(super) struct Requests {
    endpoint: Endpoint,
    trust: Trust,
    kept: Kept,
}

enum Kept {
    /// Each carries one request at a time (RFC 9112, 9.3.2); these wait for the next one.
    Http1(Mutex<Vec<Http1>>),
    /// One carries them all. Who finds none opens it, and the others wait meanwhile.
    Http2(tokio::sync::Mutex<Option<Http2>>),
    Http3(tokio::sync::Mutex<Option<Http3>>),
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
    Http3,
}

impl Requests {
    pub(super) fn new(endpoint: &Endpoint, trust: &Trust, version: Version) -> Self {
        let kept = match version {
            Version::Http1 => Kept::Http1(Mutex::default()),
            Version::Http2 => Kept::Http2(tokio::sync::Mutex::default()),
            Version::Http3 => Kept::Http3(tokio::sync::Mutex::default()),
        };
        Requests { endpoint: endpoint.clone(), trust: trust.clone(), kept }
    }

    /// Posts on a kept connection, or on a new one where the server has closed that. It may do so while the request is on its
    /// way (RFC 9112, 9.3.1; RFC 9113, 6.8); sending it again changes nothing, as ids are handled once and tickets have one
    /// successor.
    pub(super) async fn post(&self, path: &str, headers: &HeaderMap, body: Bytes) -> Result<Response<Download>, Error> {
        match self.post_once(path, headers, body.clone(), true).await {
            Err(error) if is_stale(&error) => self.post_once(path, headers, body, false).await,
            answer => answer,
        }
    }

    /// Reads the rest of an answer of at most `limit` bytes and keeps the connection.
    pub(super) async fn read(&self, response: Response<Download>, limit: usize) -> Result<Response<Bytes>, Error> {
        let (response, free) = whole(response, limit).await?;
        if let (Kept::Http1(kept), Some(connection)) = (&self.kept, free) {
            kept.lock().push(connection);
        }
        Ok(response)
    }

    async fn post_once(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
        may_be_kept: bool,
    ) -> Result<Response<Download>, Error> {
        match &self.kept {
            Kept::Http1(kept) => {
                let free = kept.lock().pop().filter(|connection| may_be_kept && connection.is_open());
                let mut connection = match free {
                    Some(connection) => connection,
                    None => Http1::connect(&self.endpoint, &self.trust.tls).await?,
                };
                let response = connection.send(http::Method::POST, path, headers.clone(), body).await?;
                Ok(response.map(|body| Download::http1(body, connection)))
            }
            Kept::Http2(kept) => {
                let mut kept = kept.lock().await;
                let connection = match kept.take().filter(|_| may_be_kept) {
                    Some(connection) => connection,
                    None => Http2::connect(&self.endpoint, &self.trust.tls).await?,
                };
                let connection = kept.insert(connection).clone();
                drop(kept);
                connection.post(path, headers, body).await
            }
            Kept::Http3(kept) => {
                let mut kept = kept.lock().await;
                let connection = match kept.take().filter(|_| may_be_kept) {
                    Some(connection) => connection,
                    None => Http3::connect(&self.endpoint, &self.trust).await?,
                };
                let connection = kept.insert(connection).clone();
                drop(kept);
                connection.post(path, headers, body).await
            }
        }
    }
}

/// Whether an error is what a connection brings that the server has closed.
fn is_stale(error: &Error) -> bool {
    match error {
        Error::Http1(error) => error.is_incomplete_message() || error.is_canceled() || error.is_closed(),
        Error::Http2(error) => {
            error.is_go_away() || error.is_io() || error.reason() == Some(h2::Reason::REFUSED_STREAM)
        }
        Error::Http3(_) => true,
        _ => false,
    }
}
