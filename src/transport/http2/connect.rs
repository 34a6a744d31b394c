//! Extended CONNECT: a WebSocket on one stream of an HTTP/2 connection (RFC 8441).

use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use h2::ext::Protocol;
use h2::server::SendResponse;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use tracing::debug;

use super::stream::Http2Stream;
use crate::context::Context;
use crate::metrics::Refused;
use crate::problem::{problem, problem_with_status};
use crate::protocol::Refusal;
use crate::transport::websocket::{WebSocketWire, handshake};
use crate::transport::{Opened, Opening, Transport, Via, drive, run_opened};

/// Answers one CONNECT and, where it opens a session, runs it to its end.
pub(super) fn answer(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    via: Via,
    context: Arc<Context>,
) -> impl Future<Output = ()> + Send {
    run_opened(open(request, respond, via, context))
}

async fn open(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    via: Via,
    context: Arc<Context>,
) -> Option<Opened> {
    let (parts, recv) = request.into_parts();
    if parts.extensions.get::<Protocol>().is_none_or(|protocol| protocol.as_str() != "websocket") {
        let refusal = Refusal::bad_request("CONNECT is understood with :protocol websocket only");
        refuse(respond, problem_with_status(StatusCode::NOT_IMPLEMENTED, &refusal), via);
        return None;
    }
    let (opening, headers) = match check(&parts, via, &context).await {
        Ok(accepted) => accepted,
        Err(refusal) => {
            refuse(respond, problem(&refusal), via);
            return None;
        }
    };
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    match respond.send_response(response, false) {
        Ok(send) => {
            let (frame_bytes, floods) = (context.config.limits.frame_bytes, context.metrics.tally(Refused::Flood));
            let wire = WebSocketWire::new(Http2Stream::new(recv, send), frame_bytes, floods);
            Some(Box::pin(drive(wire, opening, context)))
        }
        Err(error) => {
            debug!(remote = %via.remote, %error, "CONNECT could not be answered");
            None
        }
    }
}

async fn check(parts: &Parts, via: Via, context: &Context) -> Result<(Opening, HeaderMap), Refusal> {
    let opening = Opening::admit(parts, Transport::WebSocketH2, via, context).await?;
    Ok((opening, handshake::accept(&parts.headers)?))
}

fn refuse(mut respond: SendResponse<Bytes>, refusal: Response<String>, via: Via) {
    debug!(remote = %via.remote, status = %refusal.status(), "CONNECT refused");
    let (head, body) = refusal.into_parts();
    // It waits in the stream's buffer if need be; should the connection be gone, nobody misses it.
    if let Ok(mut send) = respond.send_response(Response::from_parts(head, ()), false) {
        let _ = send.send_data(Bytes::from(body), true);
    }
}
