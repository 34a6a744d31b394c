//! The operator's own page and files, from a directory (`--web`).

use std::path::{Component, Path, PathBuf};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use tower::ServiceExt as _;
use tower_http::services::ServeFile;
use tracing::warn;

use super::method_not_allowed;

/// Answers with what `root` has at the request's path; `None` where it has nothing. `root` must be free of links.
pub(super) async fn answer(root: &Path, method: &Method, uri: &Uri, request: Request) -> Option<Response> {
    let path = find(root, uri.path()).await?;
    if method != Method::GET && method != Method::HEAD {
        return Some(method_not_allowed("GET,HEAD"));
    }
    let path = match tokio::fs::metadata(&path).await.ok()? {
        file if file.is_file() => path,
        // Relative addresses in a page count from the last slash.
        directory if directory.is_dir() => return slash_added(uri),
        _ => return None,
    };
    match ServeFile::new(path).oneshot(request).await {
        // It went away in between.
        Ok(response) if response.status() == StatusCode::NOT_FOUND => None,
        Ok(response) => {
            let mut response = response.map(Body::new);
            // Asked again each time, and answered 304: an update reaches its readers at once.
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            Some(response)
        }
        Err(never) => match never {},
    }
}

/// Where the path leads, links resolved; a directory's is its `index.html`. `None` if that is nowhere, or out of `root`.
async fn find(root: &Path, path: &str) -> Option<PathBuf> {
    let mut relative = relative(path)?;
    if path.ends_with('/') {
        relative.push("index.html");
    }
    let found = tokio::fs::canonicalize(root.join(&relative)).await.ok()?;
    if found.starts_with(root) {
        Some(found)
    } else {
        warn!(file = %relative.display(), "not served: a link leads out of --web");
        None
    }
}

/// The file's path below the root. Neither `..` in any spelling nor hidden files are anybody's to ask for; RFC 8615 is.
fn relative(path: &str) -> Option<PathBuf> {
    let path = percent_decode_str(path.strip_prefix('/')?).decode_utf8().ok()?;
    let is_hidden = |name: &str| name.starts_with('.') && name != ".well-known";
    if path.contains(['\\', '\0']) || path.contains("//") || path.split('/').any(is_hidden) {
        return None;
    }
    let path = PathBuf::from(path.as_ref());
    path.components().all(|part| matches!(part, Component::Normal(_))).then_some(path)
}

fn slash_added(uri: &Uri) -> Option<Response> {
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, HeaderValue::try_from(format!("{}/{query}", uri.path())).ok()?);
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        for (path, wanted) in [
            ("/", Some("")),
            ("/a/b.html", Some("a/b.html")),
            ("/a%20b", Some("a b")),
            ("/.well-known/security.txt", Some(".well-known/security.txt")),
            ("/../a", None),
            ("/a/%2e%2e/b", None),
            ("/a/..%2fb", None),
            ("/%2fetc/passwd", None),
            ("//host/", None),
            ("/a\\b", None),
            ("/a%5cb", None),
            ("/a%00", None),
            ("/%ff", None),
            ("/.git/config", None),
            ("/a/.env", None),
        ] {
            assert_eq!(relative(path), wanted.map(PathBuf::from), "{path}");
        }
    }
}
