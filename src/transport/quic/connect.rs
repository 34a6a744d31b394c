//! Extended CONNECT: a WebSocket on one stream of an HTTP/3 connection (RFC 9220).

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Request, Response};
use tracing::debug;

use super::connection::Shared;
use super::demux::Stopped;
use super::request::{self, Stream};
use super::tunnel::Tunnel;
use crate::metrics::Refused;
use crate::problem::problem;
use crate::protocol::Refusal;
use crate::transport::websocket::{WebSocketWire, handshake};
use crate::transport::{Opened, Opening, Transport, drive};

/// Answers a CONNECT with `:protocol` websocket, which may open a session.
pub(super) async fn open(
    request: Request<()>,
    mut stream: Stream,
    stopped: Stopped,
    shared: Arc<Shared>,
) -> Option<Opened> {
    let (parts, ()) = request.into_parts();
    let (opening, headers) = match check(&parts, &shared).await {
        Ok(accepted) => accepted,
        Err(refusal) => {
            request::refuse(stream, stopped, problem(&refusal), &shared).await;
            return None;
        }
    };
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    if let Err(error) = stream.send_response(response).await {
        debug!(remote = %shared.via.remote, %error, "CONNECT could not be answered");
        return None;
    }
    // Whoever is interested in the end of the stream reads it.
    drop(stopped);
    let context = Arc::clone(&shared.context);
    let (frame_bytes, floods) = (context.config.limits.frame_bytes, context.metrics.tally(Refused::Flood));
    let wire = WebSocketWire::new(Tunnel::new(stream), frame_bytes, floods);
    Some(Box::pin(drive(wire, opening, context)))
}

async fn check(parts: &Parts, shared: &Shared) -> Result<(Opening, HeaderMap), Refusal> {
    let opening = Opening::admit(parts, Transport::WebSocketH3, shared.via, &shared.context).await?;
    Ok((opening, handshake::accept(&parts.headers)?))
}
