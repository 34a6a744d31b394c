//! What operators and their tools ask: metrics, liveness, readiness.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::Method;
use http::header::CONTENT_TYPE;

use super::{READABLE, api, internal, method_not_allowed, options};
use crate::context::Context;
use crate::problem::problem;
use crate::protocol::{Code, Refusal};

/// The content type of [`Metrics::encode`](crate::metrics::Metrics::encode).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The router of the admin listener, which must be reachable for the operator only.
pub fn admin(context: Arc<Context>) -> Router {
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
        .with_state(context)
}

async fn metrics(State(context): State<Arc<Context>>) -> Response {
    match context.metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be encoded");
            internal()
        }
    }
}

/// Whether new sessions should be sent here: not while the server drains.
async fn ready(State(context): State<Arc<Context>>) -> Response {
    if context.drain.is_raised() {
        return problem(&Refusal::new(Code::GoingAway, "the server is draining"));
    }
    "ready\n".into_response()
}
