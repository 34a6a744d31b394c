//! The checks that a request must pass before a transport accepts it: what path and headers show to be wrong is refused by
//! an HTTP status, the same on every transport.

use http::HeaderMap;
use http::header::{AUTHORIZATION, ORIGIN};
use http::request::Parts;

use super::{Transport, Via, room_of_path};
use crate::context::Context;
use crate::protocol::{Code, Grant, Refusal, RoomName, Token};

/// A request that may open a session.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The room in the path.
    pub room: RoomName,
    /// What the session runs over.
    pub transport: Transport,
    /// The connection beneath.
    pub via: Via,
    /// What the token in the request's head allows, where there is one.
    pub grant: Option<Grant>,
}

impl Opening {
    /// Checks path, `Origin`, load and the token in `Authorization` (RFC 6750).
    ///
    /// # Errors
    /// The refusal to answer with as [`problem`](crate::problem::problem); the transport must not accept the request.
    pub async fn admit(parts: &Parts, transport: Transport, via: Via, context: &Context) -> Result<Self, Refusal> {
        let room = room_of_path(parts.uri.path())
            .ok_or_else(|| Refusal::new(Code::NotFound, "sessions open at /v1/rooms/{room}"))??;
        check_origin(&parts.headers, context)?;
        if context.drain.is_cancelled() {
            return Err(Refusal::new(Code::GoingAway, "the server is shutting down").retry_after(context.config.drain));
        }
        let grant = match (bearer(&parts.headers)?, &context.auth) {
            (Some(token), Some(auth)) => Some(auth.verify(Some(&token), &room).await?),
            _ => None,
        };
        Ok(Opening { room, transport, via, grant })
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<Token<'_>>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
    match (token, values.next()) {
        (Some(token), None) => Ok(Some(Token::new(token.trim()))),
        _ => Err(Refusal::new(Code::Unauthorized, "Authorization must be one, of the scheme Bearer")),
    }
}

/// Lets in requests without an `Origin` and with one that is allowed.
///
/// # Errors
/// `forbidden` for any other, and for more than one.
pub(super) fn check_origin(headers: &HeaderMap, context: &Context) -> Result<(), Refusal> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let origin = origins.next();
    if origins.next().is_none() && context.origins.allow(origin.map(|value| value.as_bytes())) {
        return Ok(());
    }
    Err(Refusal::new(Code::Forbidden, "this Origin is not allowed; the server's --origin lists those that are"))
}
