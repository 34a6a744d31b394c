//! The web client and its demonstration page, embedded in the binary; debug builds read them from `web/`.

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::{method_not_allowed, not_found};

#[derive(RustEmbed)]
#[folder = "web/"]
#[exclude = "test/*"]
#[exclude = "node_modules/*"]
#[exclude = "package*.json"]
#[exclude = "tsconfig*.json"]
#[exclude = "*.md"]
struct Web;

/// Answers with the file of that path; a directory's is its `index.html`.
pub(super) fn answer(method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    let path = if path.is_empty() || path.ends_with('/') { format!("{path}index.html") } else { path.to_owned() };
    let Some(file) = Web::get(&path) else {
        return not_found();
    };
    if method != Method::GET && method != Method::HEAD {
        return method_not_allowed("GET,HEAD");
    }
    let etag = etag(&file);
    let known = headers.get_all(IF_NONE_MATCH).iter().any(|list| names(list, &etag));
    let response = Response::builder()
        // Asked again each time, and answered 304: a server's update reaches its pages at once.
        .header(CACHE_CONTROL, "no-cache")
        .header(ETAG, &etag);
    let response = if known {
        response.status(StatusCode::NOT_MODIFIED).body(Body::empty())
    } else {
        let response = response
            .header(CONTENT_TYPE, content_type(&path))
            .header(CONTENT_LENGTH, HeaderValue::from(file.data.len()));
        response.body(if method == Method::HEAD { Body::empty() } else { Body::from(file.data) })
    };
    response.expect("constant names and checked values make a response")
}

/// A file's text.
pub(super) fn text(path: &str) -> Option<String> {
    String::from_utf8(Web::get(path)?.data.into_owned()).ok()
}

/// Strong: the same only for the same bytes (RFC 9110, 8.8.3).
fn etag(file: &EmbeddedFile) -> String {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&file.metadata.sha256_hash()[..16]))
}

/// Whether an `If-None-Match` names `etag`; compared weakly (RFC 9110, 13.1.2).
fn names(list: &HeaderValue, etag: &str) -> bool {
    let Ok(list) = list.to_str() else { return false };
    list.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn content_type(path: &str) -> String {
    let mime = mime_guess::from_path(path).first_or_octet_stream();
    let text = mime.type_() == "text" || matches!(mime.subtype().as_str(), "javascript" | "json" | "manifest+json");
    if text { format!("{mime}; charset=utf-8") } else { mime.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_is_a_list_compared_weakly() {
        for (list, matches) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ] {
            assert_eq!(names(&HeaderValue::from_static(list), "\"a\""), matches, "{list}");
        }
    }

    #[test]
    fn types_are_those_that_browsers_insist_on() {
        assert_eq!(content_type("wigwag.js"), "text/javascript; charset=utf-8");
        assert_eq!(content_type("demo/index.html"), "text/html; charset=utf-8");
        assert_eq!(content_type("a.css"), "text/css; charset=utf-8");
        assert_eq!(content_type("a.svg"), "image/svg+xml");
        assert_eq!(content_type("unknown"), "application/octet-stream");
    }
}
