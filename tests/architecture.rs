//! Keeps true what docs/architecture.md says of imports, and SECURITY.md of tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may import of this crate, beside itself. Whoever adds a line here adds an arrow to the house.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("room", &["protocol"]),
    ("seat", &["protocol"]),
    ("outbox", &["protocol", "seat"]),
    ("secret", &["error", "files"]),
    ("cluster", &["protocol", "error", "files", "secret"]),
    ("acme", &["client", "config", "error", "files", "metrics", "pace", "tls"]),
    ("ice", &["protocol", "error", "secret"]),
    ("timeline", &["protocol"]),
    ("hub", &["cluster", "protocol", "room", "seat", "outbox", "ice", "metrics", "timeline", "hooks", "traces"]),
    ("hooks", &["metrics", "protocol", "timeline"]),
    ("post", &["client", "error", "signal"]),
    ("webhook", &["config", "error", "hooks", "metrics", "post", "signal"]),
    ("traces", &["metrics", "protocol"]),
    ("otlp", &["config", "error", "metrics", "post", "signal", "traces"]),
    ("clients", &[]),
    ("origin", &[]),
    ("pace", &[]),
    ("signal", &[]),
    ("problem", &["protocol"]),
    ("error", &[]),
    ("files", &["error"]),
    ("auth", &["protocol", "error", "files"]),
    ("config", &["protocol", "error", "origin", "auth", "ice", "clients", "cluster", "secret", "timeline"]),
    ("tls", &["config", "error", "files", "metrics"]),
    ("metrics", &["protocol", "clients", "cluster"]),
    (
        "context",
        &[
            "auth", "clients", "cluster", "config", "hub", "metrics", "origin", "pace", "protocol", "signal", "tls",
            "traces",
        ],
    ),
    (
        "transport",
        &[
            "protocol", "outbox", "hub", "seat", "clients", "config", "context", "metrics", "pace", "problem",
            "signal", "traces",
        ],
    ),
    ("http", &["protocol", "origin", "problem", "transport", "context", "metrics", "hub", "seat", "timeline"]),
    ("client", &["protocol", "transport"]),
    ("bench", &["client", "protocol"]),
    (
        "server",
        &[
            "acme",
            "auth",
            "clients",
            "cluster",
            "config",
            "context",
            "error",
            "http",
            "hub",
            "ice",
            "metrics",
            "origin",
            "otlp",
            "pace",
            "signal",
            "tls",
            "traces",
            "transport",
            "webhook",
        ],
    ),
    ("running", &["config", "server", "tls"]),
    ("fuzzing", &["auth", "client", "clients", "cluster", "origin", "protocol", "transport"]),
    (
        "cli",
        &[
            "auth", "bench", "client", "config", "error", "files", "origin", "protocol", "running", "secret", "server",
            "timeline", "tls",
        ],
    ),
    ("main", &["cli"]),
];

/// Crates of the wire, and where they may appear.
const WIRE_CRATES: &[&str] = &["quinn", "h3", "h3_quinn", "h2", "hyper"];
/// `auth` fetches keys by HTTP/1.1.
const WIRE_PLACES: &[&str] = &["transport", "client", "server", "tls", "auth"];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.clone(), fs::read_to_string(path).expect("readable")));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

/// The module at the top that a file belongs to: `transport` for src/transport.rs and all below src/transport/.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("a source");
    let first = below.components().next().expect("not empty").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The file without comments, and without its tests, which may look anywhere.
fn code(text: &str) -> String {
    let production = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = production.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn words_after<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = String> + 'a {
    let ends = |c: char| !c.is_alphanumeric() && c != '_';
    text.match_indices(prefix)
        .filter(move |(at, _)| text[..*at].chars().next_back().is_none_or(ends))
        .map(move |(at, _)| text[at + prefix.len()..].chars().take_while(|c| !ends(*c)).collect())
}

#[test]
fn imports_point_one_way() {
    for (path, text) in sources() {
        let module = module(&path);
        if module == "lib" {
            continue;
        }
        let (_, allowed) =
            MAY_IMPORT.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("{module} is not on the map"));
        let code = code(&text);
        let mut imported: BTreeSet<String> =
            words_after(&code, "crate::").chain(words_after(&code, "wigwag::")).collect();
        imported.remove(&module);
        for name in imported.iter().filter(|name| !name.is_empty()) {
            assert!(allowed.contains(&name.as_str()), "{} imports {name}, which {module} must not", path.display());
        }
    }
}

#[test]
fn wires_are_known_to_transports_alone() {
    for (path, text) in sources() {
        let code = code(&text);
        for krate in WIRE_CRATES {
            let used = code.match_indices(&format!("{krate}::")).any(|(at, _)| {
                code[..at]
                    .chars()
                    .next_back()
                    .is_none_or(|before| !before.is_alphanumeric() && before != '_' && before != ':')
            });
            assert!(!used || WIRE_PLACES.contains(&module(&path).as_str()), "{} uses {krate}", path.display());
        }
    }
}

#[test]
fn nats_is_known_to_one_place_and_its_measure() {
    for (path, text) in sources() {
        let may =
            ["cluster/nats.rs", "cluster/nats/jetstream.rs", "bench/nats.rs"].iter().any(|end| path.ends_with(end));
        assert!(may || !code(&text).contains("async_nats::"), "{} uses it", path.display());
    }
}

#[test]
fn transports_import_neither_each_other_nor_the_room() {
    // Files of one transport; what they share stands in transport.rs and in websocket/, which two of them carry.
    let transports = ["http1", "http2", "quic", "webtransport", "poll"];
    for (path, text) in sources() {
        let code = code(&text);
        if module(&path) != "transport" {
            continue;
        }
        assert!(!code.contains("crate::room"), "{} imports the room", path.display());
        let own = path.components().map(|part| part.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned());
        let own: Vec<String> = own.collect();
        let Some(own) = transports.iter().find(|name| own.contains(&(**name).to_owned())) else { continue };
        for other in transports.iter().filter(|other| *other != own) {
            // QUIC carries WebTransport and so knows it.
            let carries = *own == "quic" && *other == "webtransport" || *own == "webtransport" && *other == "quic";
            let imported =
                code.contains(&format!("transport::{other}::")) || code.contains(&format!("super::{other}::"));
            assert!(carries || !imported, "{} imports {other}", path.display());
        }
    }
}

/// The names of tests in SECURITY.md: file and function.
fn tests_of_threats() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("SECURITY.md")).expect("readable");
    let quoted = text.split('`').skip(1).step_by(2);
    let names = quoted.filter_map(|quoted| quoted.split_once("::"));
    names.map(|(file, test)| (file.to_owned(), test.to_owned())).collect()
}

#[test]
fn tests_that_stand_for_threats_are_there() {
    let named = tests_of_threats();
    assert!(named.len() > 50, "only {} are named", named.len());
    for (file, test) in named {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("SECURITY.md names {file}: {error}"));
        let at = text
            .find(&format!("fn {test}()"))
            .unwrap_or_else(|| panic!("{file} has no {test}, which SECURITY.md names"));
        let attributes = text[..at].rsplit("\n\n").next().unwrap_or_default();
        let is_test = attributes.contains("#[test]") || attributes.contains("#[tokio::test");
        assert!(is_test, "{file}::{test}, which SECURITY.md names, is no test");
    }
}
