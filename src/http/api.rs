//! What the server tells tools about itself: its requests in OpenAPI 3.1, its messages in JSON Schema 2020-12. The tests hold
//! the server to these documents, and the documents to the server.

use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

/// The requests of the public listeners.
pub const OPENAPI: &str = include_str!("api/openapi.json");
/// The messages of the protocol.
pub const MESSAGES: &str = include_str!("api/messages.schema.json");
/// The requests of the admin listener.
pub const ADMIN_OPENAPI: &str = include_str!("api/admin.openapi.json");

/// How a response refers to [`OPENAPI`] (RFC 8631, 4).
pub(super) const SERVICE_DESCRIPTION: &str = "</v1/openapi.json>; rel=\"service-desc\"";

pub(super) async fn openapi() -> Response {
    document("application/json", OPENAPI)
}

pub(super) async fn messages() -> Response {
    document("application/schema+json", MESSAGES)
}

pub(super) async fn admin_openapi() -> Response {
    document("application/json", ADMIN_OPENAPI)
}

fn document(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-cache")], text).into_response()
}
