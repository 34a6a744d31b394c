//! The operator's page, embedded in the binary; debug builds read it from `web/`.

use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderMap, StatusCode};
use rust_embed::RustEmbed;

use crate::problem::problem;
use crate::protocol::{Code, Refusal};

#[derive(RustEmbed)]
#[folder = "web/"]
#[include = "admin/*"]
#[include = "demo/dom.js"]
struct Page;

/// It loads and asks nothing but what stands beside it, and is shown in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// `GET /admin`.
pub(super) async fn page(headers: HeaderMap) -> Response {
    file("admin/index.html", &headers)
}

/// `GET /admin/{file}`.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    file(&format!("admin/{name}"), &headers)
}

/// `GET /demo/dom.js`: what it shares with the demo page.
pub(super) async fn shared(headers: HeaderMap) -> Response {
    file("demo/dom.js", &headers)
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = Page::get(name) else {
        return problem(&Refusal::new(Code::NotFound, "no such file; the page is at /admin"));
    };
    let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&file.metadata.sha256_hash()[..16]));
    let known = headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes());
    let mime = mime_guess::from_path(name).first_or_octet_stream();
    let fields = [
        (CONTENT_TYPE, if mime.type_() == "text" { format!("{mime}; charset=utf-8") } else { mime.to_string() }),
        (CACHE_CONTROL, "no-cache".to_owned()),
        (ETAG, etag),
        (CONTENT_SECURITY_POLICY, POLICY.to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (X_FRAME_OPTIONS, "DENY".to_owned()),
        (REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    match known {
        true => (StatusCode::NOT_MODIFIED, fields).into_response(),
        false => (fields, Body::from(file.data.into_owned())).into_response(),
    }
}
