//! The web client and its demonstration page, embedded in the binary; debug builds read them from `web/`.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, ETAG, VARY,
};
use http::response::Builder;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::{Nothing, READABLE, method_not_allowed, not_found, options};
use crate::problem::problem_with_status;
use crate::protocol::Refusal;

mod coding;
mod conditional;

use coding::{Coded, Coding};
use conditional::{Precondition, Range};

#[derive(RustEmbed)]
#[folder = "web/"]
#[exclude = "admin/*"]
#[exclude = "test/*"]
#[exclude = "node_modules/*"]
#[exclude = "package*.json"]
#[exclude = "tsconfig*.json"]
#[exclude = "*.md"]
struct Web;

/// The files, and what has been made of them so far.
#[derive(Debug, Default)]
pub(super) struct Files {
    coded: Coded,
}

impl Files {
    /// Answers with the file of that path; a directory's is its `index.html`.
    pub(super) async fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
        let path = uri.path().trim_start_matches('/');
        let path = if path.is_empty() || path.ends_with('/') { format!("{path}index.html") } else { path.to_owned() };
        let Some(file) = Web::get(&path) else {
            return not_found();
        };
        match *method {
            Method::GET | Method::HEAD => self.read(method, &path, file, headers).await,
            Method::OPTIONS => options(READABLE),
            _ => method_not_allowed(READABLE),
        }
    }

    async fn read(&self, method: &Method, path: &str, file: EmbeddedFile, headers: &HeaderMap) -> Response {
        let content_type = content_type(path);
        let compressible = coding::is_worthwhile(&content_type, file.data.len());
        let Some(coding) = coding::negotiate(headers, compressible) else {
            return not_acceptable(compressible);
        };
        let etag = etag(&file, coding);
        let response = || {
            let mut response = Response::builder()
                // Asked again each time, and answered 304: a server's update reaches its pages at once.
                .header(CACHE_CONTROL, "no-cache")
                .header(ETAG, &etag);
            if compressible {
                response = response.header(VARY, ACCEPT_ENCODING.as_str());
            }
            if is_library(path) {
                // Pages elsewhere may import it; whether they may open sessions is decided when they do.
                response = response.header(ACCESS_CONTROL_ALLOW_ORIGIN, "*");
            }
            response
        };
        match conditional::precondition(headers, &etag) {
            Precondition::Holds => {}
            Precondition::NotModified => {
                return finish(response().status(StatusCode::NOT_MODIFIED), Body::new(Nothing));
            }
            Precondition::Failed => return precondition_failed(),
        }
        let range = if *method == Method::GET && coding == Coding::Identity {
            conditional::range(headers, &etag, file.data.len())
        } else {
            // Of another method, and of a coding made as a whole, there are no parts (RFC 9110, 14.2).
            Range::Whole
        };
        let response = response().header(CONTENT_TYPE, content_type);
        let response = match coding.name() {
            Some(name) => response.header(CONTENT_ENCODING, name),
            None => response.header(ACCEPT_RANGES, "bytes"),
        };
        match range {
            Range::Unsatisfiable => range_not_satisfiable(file.data.len()),
            Range::Part(part) => {
                let span = format!("bytes {}-{}/{}", part.start, part.end - 1, file.data.len());
                let response = response.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, span);
                whole(response, bytes(file.data).slice(part))
            }
            Range::Whole if coding == Coding::Identity => whole(response, bytes(file.data)),
            Range::Whole => {
                let sha256 = file.metadata.sha256_hash();
                match self.coded.body(path, coding, sha256, bytes(file.data)).await {
                    Ok(body) => whole(response, body),
                    Err(error) => {
                        tracing::error!(path, %error, "file could not be compressed");
                        super::internal()
                    }
                }
            }
        }
    }
}

/// A file's text.
pub(super) fn text(path: &str) -> Option<String> {
    String::from_utf8(Web::get(path)?.data.into_owned()).ok()
}

/// A response with all of `body`. For HEAD the router takes it away again, and leaves its length.
fn whole(response: Builder, body: Bytes) -> Response {
    finish(response.header(CONTENT_LENGTH, HeaderValue::from(body.len())), Body::from(body))
}

fn finish(response: Builder, body: Body) -> Response {
    response.body(body).expect("constant names and checked values make a response")
}

fn bytes(data: Cow<'static, [u8]>) -> Bytes {
    match data {
        Cow::Borrowed(data) => Bytes::from_static(data),
        Cow::Owned(data) => Bytes::from(data),
    }
}

/// Strong: the same only for the same bytes, so that each coding has its own (RFC 9110, 8.8.3).
fn etag(file: &EmbeddedFile, coding: Coding) -> String {
    let hash = URL_SAFE_NO_PAD.encode(&file.metadata.sha256_hash()[..16]);
    match coding.name() {
        Some(name) => format!("\"{hash}-{name}\""),
        None => format!("\"{hash}\""),
    }
}

/// The modules without the demonstration page.
fn is_library(path: &str) -> bool {
    let module = path.strip_suffix(".js");
    module.is_some_and(|name| matches!(name.split('/').next(), Some("wigwag" | "call")))
}

fn content_type(path: &str) -> String {
    let mime = mime_guess::from_path(path).first_or_octet_stream();
    let text = mime.type_() == "text" || matches!(mime.subtype().as_str(), "javascript" | "json" | "manifest+json");
    if text { format!("{mime}; charset=utf-8") } else { mime.to_string() }
}

fn not_acceptable(compressible: bool) -> Response {
    let codings = if compressible { "br, gzip and identity" } else { "identity" };
    let refusal = Refusal::bad_request(format!("this file is there in the codings {codings}; allow one of them"));
    problem_with_status(StatusCode::NOT_ACCEPTABLE, &refusal)
}

fn precondition_failed() -> Response {
    let refusal = Refusal::bad_request("the file has another ETag than If-Match names");
    problem_with_status(StatusCode::PRECONDITION_FAILED, &refusal)
}

fn range_not_satisfiable(length: usize) -> Response {
    let refusal = Refusal::bad_request(format!("the file has {length} bytes, none of them in that range"));
    let mut response: Response = problem_with_status(StatusCode::RANGE_NOT_SATISFIABLE, &refusal);
    let length = HeaderValue::try_from(format!("bytes */{length}")).expect("digits are a header value");
    response.headers_mut().insert(CONTENT_RANGE, length);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_that_browsers_insist_on() {
        assert_eq!(content_type("wigwag.js"), "text/javascript; charset=utf-8");
        assert_eq!(content_type("demo/index.html"), "text/html; charset=utf-8");
        assert_eq!(content_type("a.css"), "text/css; charset=utf-8");
        assert_eq!(content_type("a.svg"), "image/svg+xml");
        assert_eq!(content_type("unknown"), "application/octet-stream");
    }

    #[test]
    fn the_library_is_its_modules() {
        for path in ["wigwag.js", "call.js", "wigwag/session.js", "call/peer.js"] {
            assert!(is_library(path), "{path}");
        }
        for path in ["index.html", "demo/main.js", "favicon.svg", "wigwagger.js", "wigwag/readme"] {
            assert!(!is_library(path), "{path}");
        }
    }
}
