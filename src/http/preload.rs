//! What a browser will ask for when it has the page: the modules that the page and its modules import.
//!
//! Found in the embedded files themselves, once, so that no list has to be kept.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use http::header::ACCEPT;
use http::{HeaderMap, Method, Uri};

use super::files;
use crate::transport::Preload;

/// The page.
const PAGE: &str = "index.html";

/// The most that is announced; more would be in the way of the page itself.
const MOST: usize = 64;

/// The paths of the page's modules, if the request is for the page and by somebody who will show it.
pub(super) fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Preload> {
    static MODULES: LazyLock<Arc<[String]>> = LazyLock::new(|| modules(files::text).into());
    let navigation = navigates(headers);
    let is_page = *method == Method::GET && (uri.path() == "/" || uri.path() == "/index.html" && navigation);
    is_page.then(|| Preload { paths: Arc::clone(&MODULES), navigation })
}

fn navigates(headers: &HeaderMap) -> bool {
    let says = |name, word| headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|v| v.contains(word));
    says(ACCEPT.as_str(), "text/html") || says("sec-fetch-mode", "navigate")
}

/// The module graph of the page, breadth first, so that what is needed first comes first.
fn modules(read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut known = BTreeSet::new();
    let mut found = Vec::new();
    let mut add = |from: &str, links: Vec<String>, found: &mut Vec<String>| {
        for path in links.iter().filter_map(|link| resolve(from, link)) {
            if found.len() < MOST && known.insert(path.clone()) {
                found.push(path);
            }
        }
    };
    add(PAGE, in_page(&read(PAGE).unwrap_or_default()), &mut found);
    let mut at = 0;
    while at < found.len() {
        let path = found[at].clone();
        match read(&path) {
            Some(text) => add(&path, in_module(&text), &mut found),
            // An import of something that is not here is the page's own fault.
            None => {
                found.remove(at);
                continue;
            }
        }
        at += 1;
    }
    found.into_iter().map(|path| format!("/{path}")).collect()
}

/// `<script type="module" src="…">` and `<link rel="modulepreload" href="…">`.
fn in_page(html: &str) -> Vec<String> {
    let tags = html.split('<').filter_map(|tag| tag.split('>').next());
    let links = tags.filter_map(|tag| match tag.split_whitespace().next()? {
        "script" if tag.contains(r#"type="module""#) => between(tag, "src=\"", '"'),
        "link" if tag.contains(r#"rel="modulepreload""#) => between(tag, "href=\"", '"'),
        _ => None,
    });
    links.collect()
}

/// `import … from '…'`, `import '…'`, `export … from '…'`, and `import('…')` where it stands by itself and so is always done.
fn in_module(text: &str) -> Vec<String> {
    let starts = |line: &&str| ["import", "export", "}"].iter().any(|word| line.starts_with(word));
    let statements = text.lines().filter(starts);
    statements
        .filter_map(|line| ["from '", "import '", "import('"].iter().find_map(|before| between(line, before, '\'')))
        .collect()
}

fn between(text: &str, before: &str, end: char) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(end)?.0.to_owned())
}

/// The path that `link` in `from` leads to; `None` for another origin's.
fn resolve(from: &str, link: &str) -> Option<String> {
    if link.contains(':') || link.starts_with('/') {
        return None;
    }
    let mut path: Vec<&str> = from.split('/').collect();
    path.pop();
    for part in link.split('/') {
        match part {
            "." => {}
            ".." => drop(path.pop()?),
            name => path.push(name),
        }
    }
    Some(path.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_is_followed_to_its_end_and_no_further() {
        let read = |path: &str| {
            let text = match path {
                "index.html" => {
                    "<script src=\"old.js\"></script>\n<link rel=\"modulepreload\" href=\"early.js\">\
                     <script type=\"module\" src=\"demo/main.js\"></script>\
                     <script type=\"module\" src=\"https://elsewhere.example/x.js\"></script>"
                }
                "early.js" => "export const a = 1;",
                "demo/main.js" => {
                    "import { a,\n  b\n} from './a.js';\nimport('./late.js').then(go);\n  import('./maybe.js');"
                }
                "demo/a.js" => "import '../b.js';\nexport { c } from './a.js';\n/** @type {import('./types.js').T} */",
                "b.js" => "import { main } from './demo/main.js';\nimport x from './missing.js';",
                "demo/late.js" => "",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(modules(read), ["/early.js", "/demo/main.js", "/demo/a.js", "/demo/late.js", "/b.js"]);
    }

    #[test]
    fn every_module_of_the_page_is_found() {
        let found = modules(files::text);
        for path in ["/demo/main.js", "/demo/app.js", "/wigwag.js", "/call.js", "/wigwag/session.js", "/call/peer.js"] {
            assert!(found.iter().any(|known| known == path), "{path} in {found:?}");
        }
        assert!(found.len() < MOST, "the page has grown beyond what is announced");
    }

    #[test]
    fn only_whoever_shows_the_page_is_told() {
        let asks = |method: Method, path: &'static str, accept: Option<&'static str>| {
            let headers = accept.map(|accept| (ACCEPT, http::HeaderValue::from_static(accept))).into_iter().collect();
            of(&method, &Uri::from_static(path), &headers).is_some()
        };
        assert!(asks(Method::GET, "/", None));
        assert!(asks(Method::GET, "/?room=a", None));
        assert!(asks(Method::GET, "/index.html", Some("text/html,*/*;q=0.8")));
        assert!(!asks(Method::GET, "/index.html", Some("*/*")));
        assert!(!asks(Method::HEAD, "/", Some("text/html")));
        assert!(!asks(Method::GET, "/wigwag.js", Some("text/html")));
    }
}
