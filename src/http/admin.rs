//! What operators and their tools ask: metrics, liveness, readiness; rooms and what has happened in them, and what is to be done
//! about them; and the page that shows all this.
//!
//! Whoever may ask is decided in one place, [`guard`]: by the token, if there is one. Without one the listener itself is the
//! boundary, and what a browser could be made to do by somebody else's page has to be kept off it: requests by a name that
//! could be anybody's (DNS rebinding), and changes without a header that only our own page can set.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use tracing::info;

use super::{READABLE, api, internal, method_not_allowed, options};
use crate::context::Context;
use crate::problem::problem;
use crate::protocol::{Code, Refusal};

mod live;
mod overview;
mod page;
mod rooms;

/// The content types of [`Metrics::encode`](crate::metrics::Metrics::encode) and of
/// [`encode_classic`](crate::metrics::Metrics::encode_classic).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What paths understand that change something.
const CHANGES: &str = "POST,OPTIONS";

/// Shows that a request comes from our own page or from a program: pages of other origins cannot set it without being asked back
/// (Fetch, 4.8), and are not answered then.
const OWN: HeaderName = HeaderName::from_static("wigwag-admin");

/// Bytes of the body of a request that changes something.
const BODY_BYTES: usize = 4096;

/// What the operator's side knows.
struct Admin {
    context: Arc<Context>,
    /// What must be shown by who asks for more than health.
    token: Option<String>,
    started: SystemTime,
    /// A permit for each live view.
    views: Arc<Semaphore>,
}

/// The router of the admin listener, which must be reachable for the operator only, or tell more than health only to who shows `token`.
pub fn admin(context: Arc<Context>, token: Option<String>) -> Router {
    let views = Arc::new(Semaphore::new(live::VIEWS));
    let admin = Arc::new(Admin { context, token, started: SystemTime::now(), views });
    let only_post = || async { method_not_allowed(CHANGES) };
    let api = Router::new()
        .route("/api/overview", get(overview::answer))
        .route("/api/live", get(live::answer))
        .route("/api/rooms", get(rooms::list))
        .route("/api/ended", get(rooms::ended))
        .route("/api/rooms/{room}", get(rooms::show))
        .route("/api/rooms/{room}/timeline", get(rooms::timeline))
        .route("/api/rooms/{room}/lock", post(rooms::lock).fallback(only_post))
        .route("/api/rooms/{room}/unlock", post(rooms::unlock).fallback(only_post))
        .route("/api/rooms/{room}/close", post(rooms::close).fallback(only_post))
        .route("/api/rooms/{room}/peers/{peer}/remove", post(rooms::remove).fallback(only_post))
        .route("/api/drain", post(drain).fallback(only_post))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(Arc::clone(&admin), guard));
    Router::new()
        .route("/", get(|| async { Redirect::to("/admin") }))
        .route("/admin", get(page::page))
        .route("/admin/{file}", get(page::asset))
        .route("/demo/dom.js", get(page::shared))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/openapi.json", get(api::admin_openapi))
        .merge(api)
        .method_not_allowed_fallback(|method: Method| async move {
            if method == Method::OPTIONS { options(READABLE) } else { method_not_allowed(READABLE) }
        })
        .fallback(|| async {
            problem::<axum::body::Body>(&Refusal::new(Code::NotFound, "GET /openapi.json tells what is here"))
        })
        .with_state(admin)
}

/// Lets through what may be asked of rooms, and changed.
async fn guard(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    if let Err(refusal) = admin.allow(request.method(), request.headers()) {
        return problem(&refusal);
    }
    let mut response = next.run(request).await;
    // Who is in which room is for no cache.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Admin {
    fn allow(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            if !is_own_name(headers) {
                return Err(Refusal::new(
                    Code::Forbidden,
                    "ask by the address, or as localhost; to be asked by a name the server needs --admin-token",
                ));
            }
            if *method == Method::POST && !headers.contains_key(OWN) {
                return Err(Refusal::new(Code::Forbidden, "what changes something needs the header Wigwag-Admin: 1"));
            }
            return Ok(());
        };
        if shows(headers, token) { Ok(()) } else { Err(no_token()) }
    }
}

fn no_token() -> Refusal {
    Refusal::new(Code::Unauthorized, "show the token of --admin-token: Authorization: Bearer TOKEN")
}

/// Whether the request names an address, or this machine. A name could lead a browser here from a page of its owner, which would
/// then be of the same origin as ours.
fn is_own_name(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(host) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let host = host.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}

/// `POST /api/drain`: as SIGTERM, and as final.
async fn drain(State(admin): State<Arc<Admin>>) -> Response {
    info!("the operator has the server drain");
    admin.context.ask_to_drain.raise();
    (StatusCode::ACCEPTED, axum::Json(json!({ "drainMs": admin.context.config.drain.as_millis() as u64 })))
        .into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    if let Err(refusal) = admin.allow(&Method::GET, &headers) {
        return problem(&refusal);
    }
    let Context { hub, metrics, drain, .. } = &*admin.context;
    metrics.population(&hub.census());
    metrics.draining(drain.is_raised());
    let (content_type, text) = match takes_open_metrics(&headers) {
        true => (OPEN_METRICS, metrics.encode()),
        false => (CLASSIC, metrics.encode_classic()),
    };
    match text {
        Ok(text) => ([(CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be encoded");
            internal()
        }
    }
}

/// Whether the request carries this token (RFC 6750, 2.1). How much of it was right, the time it takes does not tell.
fn shows(headers: &HeaderMap, token: &str) -> bool {
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    shown.is_some_and(|shown| shown.ct_eq(token.as_bytes()).into())
}

/// Prometheus names what it takes, the best first; others name nothing, and read the older format.
fn takes_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|list| list.split(',')).any(|one| one.trim_start().starts_with("application/openmetrics-text"))
}

/// Whether new sessions should be sent here: not while the server drains, nor before it has a certificate to show. Without its cluster a node serves its rooms on: were all
/// nodes unready when NATS is away, nobody could go anywhere.
async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    if admin.context.drain.is_raised() {
        return problem(&Refusal::new(Code::GoingAway, "the server is draining"));
    }
    if !admin.context.has_certificate() {
        return problem(&Refusal::new(Code::GoingAway, "the server has no certificate yet; it is ordered by ACME"));
    }
    match &admin.context.cluster {
        Some(cluster) if cluster.is_connected() => "ready\ncluster: connected\n".into_response(),
        Some(_) => "ready\ncluster: not connected\n".into_response(),
        None => "ready\n".into_response(),
    }
}
