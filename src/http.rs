//! Ordinary HTTP requests: one router for all three HTTP versions and the plaintext listener, and one for the operator.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{ALLOW, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use http_body::Frame;
use tower_http::cors::{Any, CorsLayer};

use crate::context;
use crate::problem::{problem, problem_with_status};
use crate::protocol::{Code, ROOMS_PATH, Refusal};
use crate::transport::{poll, room_of_path};

mod admin;
pub mod api;
pub mod discovery;
mod files;
mod headers;
mod log;
mod preload;
mod site;

pub use admin::admin;
pub use discovery::Advertised;
use files::Files;

/// What may be asked of the documents and files, of a room, and of its messages.
const READABLE: &str = "GET,HEAD,OPTIONS";
const ROOM: &str = "GET,HEAD,POST,OPTIONS";
const MESSAGES: &str = "POST,OPTIONS";

/// What answers every request that is not the opening of a session.
///
/// Each request must carry its connection as a [`Via`](crate::transport::Via) extension.
pub fn router(advertised: Advertised, context: Arc<context::Context>) -> Router {
    let advertised = Arc::new(advertised);
    let files = Arc::new(Files::default());
    let readable = Router::new()
        .route("/v1/discovery", get(discovery::answer).fallback(only_readable))
        .route("/v1/openapi.json", get(api::openapi).fallback(only_readable))
        .route("/v1/messages.schema.json", get(api::messages).fallback(only_readable))
        .layer(CorsLayer::new().allow_origin(Any).allow_methods([Method::GET]).allow_headers(Any))
        .layer(from_fn_with_state(READABLE, allow))
        .with_state(Arc::clone(&advertised));
    let cors = poll::cors(&context);
    let rooms = post(poll::open).get(room).fallback(room).layer(cors.clone());
    let messages = post(poll::messages).fallback(|| async { method_not_allowed(MESSAGES) }).layer(cors.clone());
    let log = get(log::answer).fallback(only_readable).layer(cors);
    let sessions = Router::new()
        .route("/v1/rooms/{room}", rooms.layer(from_fn_with_state(ROOM, allow)))
        .route("/v1/rooms/{room}/messages", messages.layer(from_fn_with_state(MESSAGES, allow)))
        .route("/v1/rooms/{room}/log", log.layer(from_fn_with_state(READABLE, allow)))
        .with_state(Arc::clone(&context));
    readable
        .merge(sessions)
        .fallback(move |request| otherwise(Arc::clone(&files), Arc::clone(&context), request))
        .layer(from_fn_with_state(headers::Headers::new(advertised), headers::add))
}

/// Files, and what looks like a room but is none.
async fn otherwise(files: Arc<Files>, context: Arc<context::Context>, request: Request) -> Response {
    let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
    if method == Method::OPTIONS && uri.path() == "*" {
        // The server as a whole (RFC 9110, 9.3.7).
        return options(ROOM);
    }
    if uri.path().starts_with(ROOMS_PATH) {
        return room(method, request.version(), uri).await;
    }
    match &context.config.web {
        Some(root) => match site::answer(root, &method, &uri, request).await {
            Some(response) => response,
            None if is_library(uri.path()) => files.answer(&method, &uri, &headers).await,
            None => not_found(),
        },
        None => embedded(&files, &method, &uri, &headers).await,
    }
}

/// What pages of every kind import; `--web` may replace it but need not have it.
fn is_library(path: &str) -> bool {
    matches!(path, "/wigwag.js" | "/call.js") || path.starts_with("/wigwag/") || path.starts_with("/call/")
}

/// A file of our own; the page says what will be asked for next.
async fn embedded(files: &Files, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    let mut response = files.answer(method, uri, headers).await;
    // Whoever is told that nothing changed has the modules as well.
    if let Some(preload) = preload::of(method, uri, headers).filter(|_| response.status() == StatusCode::OK) {
        response.extensions_mut().insert(preload);
    }
    response
}

/// A room's path is for sessions; whoever asks for it in another way is told how.
async fn room(method: Method, version: Version, uri: Uri) -> Response {
    match room_of_path(uri.path()) {
        None => not_found(),
        Some(Err(refusal)) => problem(&refusal),
        Some(Ok(_)) if method != Method::GET && method != Method::HEAD => method_not_allowed(ROOM),
        Some(Ok(_)) => {
            let refusal = Refusal::bad_request(
                "a room is entered by WebTransport, by WebSocket (subprotocol wigwag.v1), or by POST",
            );
            let mut response: Response = problem_with_status(StatusCode::UPGRADE_REQUIRED, &refusal);
            // HTTP/2 and HTTP/3 have no such field (RFC 9113, 8.2.2); there one opens by extended CONNECT.
            if version <= Version::HTTP_11 {
                response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
                response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
            }
            response
        }
    }
}

fn not_found() -> Response {
    problem(&Refusal::new(
        Code::NotFound,
        "nothing here; GET /v1/discovery tells where sessions open, GET /v1/openapi.json what else there is",
    ))
}

/// For what can only be asked for, by pages of every origin.
async fn only_readable() -> Response {
    method_not_allowed(READABLE)
}

/// CORS answers OPTIONS by itself; beside what pages elsewhere may ask stands what may be asked at all.
async fn allow(State(allowed): State<&'static str>, request: Request, next: Next) -> Response {
    let is_options = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    if is_options {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    }
    response
}

/// What may be asked of a path (RFC 9110, 9.3.7).
fn options(allowed: &'static str) -> Response {
    let mut response = Response::new(Body::new(Nothing));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The body of an answer that has none. Of an empty one the router would tell the length, which 204 must not have, and which 304
/// has of the answer that it stands for (RFC 9110, 8.6).
struct Nothing;

impl http_body::Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// The server's own fault; the log tells which.
fn internal() -> Response {
    problem(&Refusal::new(Code::Internal, "the server failed at this request"))
}

fn method_not_allowed(allowed: &'static str) -> Response {
    let refusal = Refusal::bad_request(format!("this path understands {allowed}"));
    let mut response: Response = problem_with_status(StatusCode::METHOD_NOT_ALLOWED, &refusal);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
