//! What a page will ask for next: pushed (RFC 9113, 8.4), or hinted at (RFC 8297) where the client takes no pushes.

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use h2::server::{SendPushedResponse, SendResponse};
use http::header::ACCEPT_ENCODING;
use http::{Method, Request, Uri, Version};
use tower::ServiceExt as _;
use tracing::debug;

use super::{Pace, send};
use crate::transport::{Preload, Via};

/// The longest `accept-encoding` that promises repeat; browsers send some 20 bytes.
const CODINGS_BYTES: usize = 128;

/// What requests for parts of a page take over from the request for the page: where it is, and which codings are understood.
pub(super) fn template<B>(page: &Request<B>) -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = page.uri().clone();
    *request.version_mut() = Version::HTTP_2;
    // It is repeated in each promise, and must not make them large.
    if let Some(codings) = page.headers().get(ACCEPT_ENCODING).filter(|codings| codings.len() <= CODINGS_BYTES) {
        request.headers_mut().insert(ACCEPT_ENCODING, codings.clone());
    }
    request
}

/// Promises that were made, and are still to be kept.
pub(super) struct Pushes(Vec<(Request<()>, SendPushedResponse<Bytes>)>);

impl Pushes {
    /// Promises everything in `preload`; to a client that takes no pushes, hints are sent instead.
    pub(super) fn promise(
        preload: &Preload,
        template: &Request<()>,
        respond: &mut SendResponse<Bytes>,
    ) -> Option<Self> {
        let mut promised = Vec::with_capacity(preload.paths.len());
        for request in preload.paths.iter().filter_map(|path| for_path(template, path)) {
            match respond.push_request(request.clone()) {
                Ok(pushed) => promised.push((request, pushed)),
                // It said so in its SETTINGS, as browsers do, or the connection ends.
                Err(_) => break,
            }
        }
        if promised.is_empty() {
            // They are an offer: whoever is gone meanwhile does not miss them.
            let _ = respond.send_informational(preload.early_hints());
            return None;
        }
        Some(Pushes(promised))
    }

    /// Lets the router answer the promised requests, one after the other in the order in which a page needs them.
    pub(super) async fn answer(self, via: Via, router: Router, pace: Pace) {
        for (request, mut pushed) in self.0 {
            let mut request = request.map(|()| Body::empty());
            request.extensions_mut().insert(via);
            let response = match router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if let Err(error) = send(response, |head, empty| pushed.send_response(head, empty), pace).await {
                // Most have it in their cache and said so by a reset.
                debug!(remote = %via.remote, %error, "pushed response not sent to its end");
            }
        }
    }
}

fn for_path(template: &Request<()>, path: &str) -> Option<Request<()>> {
    let mut parts = template.uri().clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    let mut request = template.clone();
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(request)
}
