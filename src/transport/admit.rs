//! The checks that a request must pass before a transport accepts it: what path and headers show to be wrong is refused by
//! an HTTP status, the same on every transport.

use http::HeaderMap;
use http::header::{AUTHORIZATION, ORIGIN};
use http::request::Parts;

use super::{Transport, Via, room_of_path};
use crate::context::Context;
use crate::protocol::{Code, Refusal, RoomName};

/// A request that may open a session.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The room in the path.
    pub room: RoomName,
    /// What the session runs over.
    pub transport: Transport,
    /// The connection beneath.
    pub via: Via,
}

impl Opening {
    /// Checks path, `Origin` and load.
    ///
    /// # Errors
    /// The refusal to answer with as [`problem`](crate::problem::problem); the transport must not accept the request.
    pub fn admit(parts: &Parts, transport: Transport, via: Via, context: &Context) -> Result<Self, Refusal> {
        let room = room_of_path(parts.uri.path())
            .ok_or_else(|| Refusal::new(Code::NotFound, "sessions open at /v1/rooms/{room}"))??;
        check_origin(&parts.headers, context)?;
        if parts.headers.get_all(AUTHORIZATION).iter().any(|value| !value.as_bytes().starts_with(b"Bearer ")) {
            return Err(Refusal::new(Code::Unauthorized, "Authorization must be of the scheme Bearer"));
        }
        // A poll may belong to a session that is open; its first line tells.
        if transport != Transport::LongPoll {
            context.let_in()?;
        }
        Ok(Opening { room, transport, via })
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
