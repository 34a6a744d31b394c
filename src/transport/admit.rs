//! The checks that a request must pass before a transport accepts it: what path and headers show to be wrong is refused by
//! an HTTP status, the same on every transport.

use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::{AUTHORIZATION, ORIGIN};
use http::request::Parts;
use tokio::time::sleep;

use super::{Transport, Via, room_of_path};
use crate::clients::{Client, Place};
use crate::context::Context;
use crate::protocol::{Code, Grant, Refusal, RoomName, Token};
use crate::traces::Span;

/// How long a refusal takes for having asked too much: whoever asks again as soon as it is there has as many answers a second as
/// requests at once, and not as many as the server can make.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);

/// A request that may open a session.
#[derive(Debug)]
pub struct Opening {
    /// The room in the path.
    pub room: RoomName,
    /// What the session runs over.
    pub transport: Transport,
    /// The connection beneath.
    pub via: Via,
    /// What the token in the request's head allows, where there is one.
    pub grant: Option<Grant>,
    /// Who opens it.
    pub client: Client,
    /// Counts it among the client's sessions for as long as it lasts.
    pub place: Place,
    /// When the request had come.
    pub begun: Instant,
    /// How it comes about; ended when the session has begun, or has not. Of a poll it begins with what is polled for.
    pub trace: Span,
}

impl Opening {
    /// Checks path, `Origin`, what the client's address may ask for, load, and the token in `Authorization` (RFC 6750).
    ///
    /// # Errors
    /// The refusal to answer with as [`problem`](crate::problem::problem); the transport must not accept the request.
    pub async fn admit(parts: &Parts, transport: Transport, via: Via, context: &Context) -> Result<Self, Refusal> {
        let begun = Instant::now();
        let trace = match transport {
            Transport::LongPoll => Span::NONE,
            _ => context.traces.opening(parts, transport, begun),
        };
        let step = trace.step("admit");
        let admitted = hold_back(Opening::check(parts, transport, via, (begun, &trace), context).await).await;
        step.done();
        admitted.inspect_err(|refusal| {
            trace.fail(refusal.code.name());
            context.metrics.refused_opening(transport, refusal.code);
        })
    }

    async fn check(
        parts: &Parts,
        transport: Transport,
        via: Via,
        (begun, trace): (Instant, &Span),
        context: &Context,
    ) -> Result<Self, Refusal> {
        let room = room_of_path(parts.uri.path())
            .ok_or_else(|| Refusal::new(Code::NotFound, "sessions open at /v1/rooms/{room}"))??;
        trace.is_in(&room);
        check_origin(&parts.headers, context)?;
        let client = context.client(via.remote.ip(), &parts.headers)?;
        may_try(&client, context)?;
        let place = client.session().map_err(|excess| context.too_much(excess))?;
        // A poll may belong to a session that is open; its first line tells.
        if transport != Transport::LongPoll {
            context.let_in(&client)?;
        }
        let grant = head_grant(bearer(&parts.headers)?, &room, &client, context).await?;
        Ok(Opening { room, transport, via, grant, client, place, begun, trace: trace.clone() })
    }
}

/// Makes a refusal of one who asks for too much wait a moment; see [`REFUSAL_PAUSE`].
pub(super) async fn hold_back<T>(result: Result<T, Refusal>) -> Result<T, Refusal> {
    if matches!(&result, Err(refusal) if refusal.code == Code::RateLimited) {
        sleep(REFUSAL_PAUSE).await;
    }
    result
}

/// Whether the client may show a token or a ticket.
///
/// # Errors
/// `rateLimited` after too many bad ones.
pub(super) fn may_try(client: &Client, context: &Context) -> Result<(), Refusal> {
    client.may_try().map_err(|excess| context.too_much(excess))
}

/// Counts a bad token or ticket against its client.
pub(super) fn note_failure<T>(client: &Client, result: Result<T, Refusal>) -> Result<T, Refusal> {
    if let Err(Refusal { code: Code::Unauthorized | Code::TokenExpired | Code::ResumeExpired, .. }) = &result {
        client.failed();
    }
    result
}

/// What the token of a request's head allows, where there is one.
///
/// # Errors
/// Those of [`Verifier::verify`](crate::auth::Verifier::verify).
pub(super) async fn head_grant(
    token: Option<Token<'_>>,
    room: &RoomName,
    client: &Client,
    context: &Context,
) -> Result<Option<Grant>, Refusal> {
    match (token, &context.auth) {
        (Some(token), Some(auth)) => note_failure(client, auth.verify(Some(&token), room).await).map(Some),
        _ => Ok(None),
    }
}

/// The token in `Authorization`.
///
/// # Errors
/// `unauthorized` for more than one, and for another scheme.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<Token<'_>>, Refusal> {
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
