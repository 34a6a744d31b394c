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
use crate::transport::{Opening, Transport, drive};

/// Answers a CONNECT with `:protocol` websocket and, where it opens a session, runs it to its end.
pub(super) async fn serve(request: Request<()>, mut stream: Stream, stopped: Stopped, shared: Arc<Shared>) {
    let (parts, ()) = request.into_parts();
    let (opening, headers) = match check(&parts, &shared).await {
        Ok(accepted) => accepted,
        Err(refusal) => return request::refuse(stream, stopped, problem(&refusal), &shared).await,
    };
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    if let Err(error) = stream.send_response(response).await {
        return debug!(remote = %shared.via.remote, %error, "CONNECT could not be answered");
    }
    // Whoever is interested in the end of the stream reads it.
    drop(stopped);
    let context = Arc::clone(&shared.context);
    drop(shared);
    let (frame_bytes, floods) = (context.config.limits.frame_bytes, context.metrics.tally(Refused::Flood));
    let wire = WebSocketWire::new(Tunnel::new(stream), frame_bytes, floods);
    drive(wire, opening, context).await;
}

async fn check(parts: &Parts, shared: &Shared) -> Result<(Opening, HeaderMap), Refusal> {
    let opening = Opening::admit(parts, Transport::WebSocketH3, shared.via, &shared.context).await?;
    Ok((opening, handshake::accept(&parts.headers)?))
}
