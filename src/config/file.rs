//! A file of settings as it is written: what stands in it, on which line, and everything that is wrong with it.

use std::collections::BTreeMap;
use std::ops::Range;

use clap::Args as _;
use toml::Table;
use toml::de::DeTable;

use super::Settings;
use crate::error::StartError;

/// A key that is this much like a known one was meant to be it.
const ALIKE: f64 = 0.75;

/// What a file sets, all of it known and well formed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct File {
    pub(super) table: Table,
    /// The line of each key, from 1.
    pub(super) lines: BTreeMap<String, usize>,
}

impl File {
    /// Reads the text of the file that is called `name` in errors. Returns all that is wrong as well, with its lines and in their
    /// order; where TOML itself is, nothing else is known.
    pub(super) fn parse(name: &str, text: &str) -> (File, Vec<(usize, StartError)>) {
        let refuse = |at: usize, why: &dyn std::fmt::Display| {
            let line = line_of(text, at);
            (line, StartError::new(format_args!("{name}:{line}: {why}")))
        };
        let (mut file, mut wrong) = (File::default(), Vec::new());
        let spans = match spans(text) {
            Ok(spans) => spans,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                return (file, vec![refuse(at, &error.message().replace('\n', ", "))]);
            }
        };
        for (key, span) in spans {
            match entry(&key, text.get(span.clone()).unwrap_or_default()) {
                Ok(entry) => file.table.extend(entry),
                Err((within, why)) => wrong.push(refuse(span.start + within, &why)),
            }
            file.lines.insert(key, line_of(text, span.start));
        }
        (file, wrong)
    }
}

/// Where each key and its value stand, in the order of the file.
fn spans(text: &str) -> Result<Vec<(String, Range<usize>)>, toml::de::Error> {
    let parsed = DeTable::parse(text)?;
    let entries = parsed.get_ref().iter();
    let mut spans: Vec<_> =
        entries.map(|(key, value)| (key.get_ref().to_string(), key.span().start..value.span().end)).collect();
    spans.sort_by_key(|(_, span)| span.start);
    Ok(spans)
}

/// The line, from 1, of the byte at `at`.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// One setting by itself, or where in its text it is wrong, and how.
fn entry(key: &str, text: &str) -> Result<Table, (usize, String)> {
    let known = keys();
    if !known.iter().any(|known| known == key) {
        return Err((0, unknown(key, &known)));
    }
    let told = |error: toml::de::Error| {
        (error.span().map_or(0, |span| span.start), format!("{key}: {}", plainly(error.message())))
    };
    toml::from_str::<Settings>(text).map_err(told)?;
    text.parse().map_err(told)
}

/// The names of all settings.
pub(super) fn keys() -> Vec<String> {
    let settings = Settings::augment_args(clap::Command::new("settings"));
    settings.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

fn unknown(key: &str, known: &[String]) -> String {
    let likeness = |known: &&String| strsim::jaro_winkler(key, known);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|nearest| likeness(nearest) >= ALIKE) {
        Some(nearest) => format!("unknown key `{key}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{key}`; the keys are the long options of 'wigwag serve --help'"),
    }
}

/// What the deserializer expects, in the words of whoever writes the file.
fn plainly(message: &str) -> String {
    let (said, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let right = match expected {
        "a boolean" => "true or false, without quotes",
        "u64" => "a whole number, without quotes",
        "text" => "text in quotes",
        "a string" | "path string" => "text in quotes",
        "text or a list of texts" => "text in quotes, or a list of them: [\"a\", \"b\"]",
        "" => return said.to_owned(),
        other => other,
    };
    format!("{said}; write {right}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Vec<String> {
        File::parse("w.toml", text).1.iter().map(|(_, error)| error.to_string()).collect()
    }

    #[test]
    fn everything_wrong_is_told_with_its_line_and_what_would_be_right() {
        let text = "# a comment\nheartbeat = 'soon'\n\nmax-pers = 3\nno-h3 = 'yes'\nlisten = [\n  '127.0.0.1:1',\n  'here',\n]\n\
                    max-peers = 'many'\nlog-format = 'xml'\norigin = 7\nzzz = 1\nmax-queue = 4096\nadmin = { at = 1 }\n";
        assert_eq!(
            wrong(text),
            [
                "w.toml:2: heartbeat: invalid value 'soon': write a whole number and a unit, like 500ms, 10s, 2m or 1h",
                "w.toml:4: unknown key `max-pers`; did you mean `max-peers`?",
                "w.toml:5: no-h3: invalid type: string \"yes\"; write true or false, without quotes",
                "w.toml:6: listen: invalid value 'here': write an IP address and a port, like 127.0.0.1:4433 or [::1]:4433",
                "w.toml:10: max-peers: invalid type: string \"many\"; write a whole number, without quotes",
                "w.toml:11: log-format: unknown variant `xml`; write `text` or `json`",
                "w.toml:12: origin: invalid type: integer `7`; write text in quotes, or a list of them: [\"a\", \"b\"]",
                "w.toml:13: unknown key `zzz`; the keys are the long options of 'wigwag serve --help'",
                "w.toml:15: admin: invalid type: map; write text in quotes",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        for (text, line) in [("open = true\nheartbeat = ", 2), ("open = true\n\nopen = true", 3), ("[listen", 1)] {
            let [told] = &wrong(text)[..] else { panic!("one fault") };
            assert!(told.starts_with(&format!("w.toml:{line}: ")) && !told.contains('\n'), "{told}");
        }
        assert!(wrong("[sessions]\nmax-peers = 3")[0].contains("w.toml:1: unknown key `sessions`"));
    }

    #[test]
    fn every_key_has_its_line() {
        let (file, wrong) = File::parse("w.toml", "open = true\n\nmax-peers = 3\n");
        assert_eq!(file.lines, BTreeMap::from([("open".to_owned(), 1), ("max-peers".to_owned(), 3)]));
        assert_eq!((file.table.len(), wrong.len()), (2, 0));
    }
}
