//! Conditional requests and ranges (RFC 9110, 13 and 14). There are no dates to compare: files are known by their ETag.

use http::header::{AsHeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};

/// What a request makes its answer depend on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    Holds,
    /// The client has the file: 304.
    NotModified,
    /// The client wants another one: 412.
    Failed,
}

/// Looks at `If-Match`, compared strongly, then at `If-None-Match`, compared weakly (RFC 9110, 13.2.2).
pub(super) fn precondition(headers: &HeaderMap, etag: &str) -> Precondition {
    if headers.contains_key(IF_MATCH) && !names(headers, IF_MATCH, |tag| tag == etag) {
        Precondition::Failed
    } else if names(headers, IF_NONE_MATCH, |tag| tag.strip_prefix("W/").unwrap_or(tag) == etag) {
        Precondition::NotModified
    } else {
        Precondition::Holds
    }
}

/// Whether a list of tags is `*` or has one that is meant. A comma within a tag, which ours have not, cuts it into what equals none.
fn names(headers: &HeaderMap, name: impl AsHeaderName, is_meant: impl Fn(&str) -> bool) -> bool {
    let lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).any(|tag| tag == "*" || is_meant(tag))
}

/// What of a file is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// All: no range is asked for, one that is not understood, or several at once (RFC 9110, 14.2).
    Whole,
    /// These bytes, which are there.
    Part(std::ops::Range<usize>),
    /// Bytes that are not there: 416.
    Unsatisfiable,
}

/// Looks at `Range`, and at `If-Range`, which must be the very tag: weak ones and dates prove nothing (RFC 9110, 13.1.5).
pub(super) fn range(headers: &HeaderMap, etag: &str, length: usize) -> Range {
    let text = |value: &HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
    let mut ranges = headers.get_all(RANGE).iter();
    match (ranges.next(), ranges.next(), headers.get(IF_RANGE)) {
        (Some(_), None, Some(tag)) if tag.as_bytes() != etag.as_bytes() => Range::Whole,
        (Some(range), None, _) => parse(&text(range), length).unwrap_or(Range::Whole),
        _ => Range::Whole,
    }
}

/// One range of bytes; `None` is what this is not.
fn parse(text: &str, length: usize) -> Option<Range> {
    let (unit, range) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let part = match (first, last) {
        ("", suffix) => length.saturating_sub(number(suffix)?)..length,
        (first, "") => number(first)?..length,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            first..last.saturating_add(1).min(length)
        }
    };
    Some(if part.start < part.end { Range::Part(part) } else { Range::Unsatisfiable })
}

/// Digits alone. What is greater than any file is as good as the greatest number.
fn number(digits: &str) -> Option<usize> {
    let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn headers(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn if_none_match_is_a_list_compared_weakly() {
        for (list, matches) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("\"b,a\"", false),
            ("a", false),
            ("", false),
        ] {
            let expected = if matches { Precondition::NotModified } else { Precondition::Holds };
            assert_eq!(precondition(&headers(&[(IF_NONE_MATCH, list)]), "\"a\""), expected, "{list}");
        }
    }

    #[test]
    fn if_match_is_a_list_compared_strongly_and_comes_first() {
        for (list, holds) in
            [("\"a\"", true), ("\"b\", \"a\"", true), ("*", true), ("W/\"a\"", false), ("\"b\"", false)]
        {
            let expected = if holds { Precondition::Holds } else { Precondition::Failed };
            assert_eq!(precondition(&headers(&[(IF_MATCH, list)]), "\"a\""), expected, "{list}");
        }
        let both = headers(&[(IF_MATCH, "\"b\""), (IF_NONE_MATCH, "\"a\"")]);
        assert_eq!(precondition(&both, "\"a\""), Precondition::Failed);
    }

    #[test]
    fn one_range_that_is_there_is_a_part() {
        for (value, expected) in [
            ("bytes=0-0", Range::Part(0..1)),
            ("bytes=2-", Range::Part(2..10)),
            ("bytes=-3", Range::Part(7..10)),
            ("bytes=-99", Range::Part(0..10)),
            ("bytes=5-99", Range::Part(5..10)),
            ("bytes=5-99999999999999999999999999", Range::Part(5..10)),
            ("BYTES=1-2", Range::Part(1..3)),
            ("bytes=10-", Range::Unsatisfiable),
            ("bytes=99999999999999999999999999-", Range::Unsatisfiable),
            ("bytes=-0", Range::Unsatisfiable),
            ("bytes=2-1", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("bytes=+1-2", Range::Whole),
            ("bytes=-", Range::Whole),
            ("bytes", Range::Whole),
            ("lines=1-2", Range::Whole),
        ] {
            assert_eq!(range(&headers(&[(RANGE, value)]), "\"a\"", 10), expected, "{value}");
        }
    }

    #[test]
    fn a_part_is_of_the_file_that_the_client_knows() {
        for (tag, expected) in [
            ("\"a\"", Range::Part(0..1)),
            ("\"b\"", Range::Whole),
            ("W/\"a\"", Range::Whole),
            ("Sat, 21 Nov 2026 08:00:00 GMT", Range::Whole),
        ] {
            assert_eq!(range(&headers(&[(RANGE, "bytes=0-0"), (IF_RANGE, tag)]), "\"a\"", 10), expected, "{tag}");
        }
    }
}
