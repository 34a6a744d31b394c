//! What operators and their tools ask: metrics, liveness, readiness.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method};
use subtle::ConstantTimeEq as _;

use super::{READABLE, api, internal, method_not_allowed, options};
use crate::context::Context;
use crate::problem::problem;
use crate::protocol::{Code, Refusal};

/// The content types of [`Metrics::encode`](crate::metrics::Metrics::encode) and of
/// [`encode_classic`](crate::metrics::Metrics::encode_classic).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the operator's side knows.
struct Admin {
    context: Arc<Context>,
    /// What who asks for metrics must show.
    token: Option<String>,
}

/// The router of the admin listener, which must be reachable for the operator only, or tell metrics only to who shows `token`.
pub fn admin(context: Arc<Context>, token: Option<String>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/openapi.json", get(api::admin_openapi))
        .method_not_allowed_fallback(|method: Method| async move {
            if method == Method::OPTIONS { options(READABLE) } else { method_not_allowed(READABLE) }
        })
        .fallback(|| async {
            problem::<axum::body::Body>(&Refusal::new(Code::NotFound, "GET /openapi.json tells what is here"))
        })
        .with_state(Arc::new(Admin { context, token }))
}

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    if admin.token.as_ref().is_some_and(|token| !shows(&headers, token)) {
        return problem(&Refusal::new(
            Code::Unauthorized,
            "show the token of --admin-token: Authorization: Bearer TOKEN",
        ));
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

/// Whether new sessions should be sent here: not while the server drains. Without its cluster a node serves its rooms on: were all
/// nodes unready when NATS is away, nobody could go anywhere.
async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    if admin.context.drain.is_raised() {
        return problem(&Refusal::new(Code::GoingAway, "the server is draining"));
    }
    match &admin.context.cluster {
        Some(cluster) if cluster.is_connected() => "ready\ncluster: connected\n".into_response(),
        Some(_) => "ready\ncluster: not connected\n".into_response(),
        None => "ready\n".into_response(),
    }
}
