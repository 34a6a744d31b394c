//! Ordinary HTTP requests: one router for all three HTTP versions and the plaintext listener, and one for the operator.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::header::{ALLOW, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use tower_http::cors::{Any, CorsLayer};

use crate::context::Context;
use crate::problem::{problem, problem_with_status};
use crate::protocol::{Code, ROOMS_PATH, Refusal};
use crate::transport::{poll, room_of_path};

mod admin;
pub mod api;
pub mod discovery;
mod files;
mod headers;
mod preload;
mod site;

pub use admin::admin;
pub use discovery::Advertised;

/// What answers every request that is not the opening of a session.
///
/// Each request must carry its connection as a [`Via`](crate::transport::Via) extension.
pub fn router(advertised: Advertised, context: Arc<Context>) -> Router {
    let advertised = Arc::new(advertised);
    let readable = Router::new()
        .route("/v1/discovery", get(discovery::answer).fallback(only_readable))
        .route("/v1/openapi.json", get(api::openapi).fallback(only_readable))
        .route("/v1/messages.schema.json", get(api::messages).fallback(only_readable))
        .layer(CorsLayer::new().allow_origin(Any).allow_methods([Method::GET]).allow_headers(Any))
        .with_state(Arc::clone(&advertised));
    let sessions = Router::new()
        .route("/v1/rooms/{room}", post(poll::open).get(room).fallback(room))
        .route(
            "/v1/rooms/{room}/messages",
            post(poll::messages).fallback(|| async { method_not_allowed("POST,OPTIONS") }),
        )
        .layer(poll::cors(&context))
        .with_state(Arc::clone(&context));
    readable
        .merge(sessions)
        .fallback(otherwise)
        .with_state(context)
        .layer(axum::middleware::from_fn_with_state(headers::Headers::new(advertised), headers::add))
}

/// Files, and what looks like a room but is none.
async fn otherwise(State(context): State<Arc<Context>>, request: Request) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    if uri.path().starts_with(ROOMS_PATH) {
        return room(method, request.version(), uri).await;
    }
    let headers = request.headers().clone();
    match &context.config.web {
        Some(root) => match site::answer(root, &method, &uri, request).await {
            Some(response) => response,
            None if is_library(uri.path()) => files::answer(&method, &uri, &headers),
            None => not_found(),
        },
        None => embedded(&method, &uri, &headers),
    }
}

/// What pages of every kind import; `--web` may replace it but need not have it.
fn is_library(path: &str) -> bool {
    matches!(path, "/wigwag.js" | "/call.js") || path.starts_with("/wigwag/") || path.starts_with("/call/")
}

/// A file of our own; the page says what will be asked for next.
fn embedded(method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    let mut response = files::answer(method, uri, headers);
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
        Some(Ok(_)) if method != Method::GET && method != Method::HEAD => method_not_allowed("GET,HEAD,POST,OPTIONS"),
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
    method_not_allowed("GET,HEAD,OPTIONS")
}

fn method_not_allowed(allowed: &'static str) -> Response {
    let refusal = Refusal::bad_request(format!("this path understands {allowed}"));
    let mut response: Response = problem_with_status(StatusCode::METHOD_NOT_ALLOWED, &refusal);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
