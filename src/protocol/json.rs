//! Payloads stay the text that they were: a scanner checks what serde leaves unchecked and drops line breaks.

use std::borrow::Cow;

use memchr::memchr2;

/// How deep a payload may nest; beyond it parsers in browsers and elsewhere begin to differ, and to overflow.
pub(crate) const MAX_DEPTH: usize = 64;

/// Checks one syntactically valid JSON text (as `RawValue` guarantees it) for depth and lone surrogates, and removes the line
/// breaks between its tokens, so that no payload can forge a line on a line-delimited transport. Everything else stays to the
/// letter: key order, spelling of numbers, spaces, escapes. Borrows unless there was a break to remove.
///
/// # Errors
/// What is wrong, in words for the sender.
pub(crate) fn compact(json: &str) -> Result<Cow<'_, str>, &'static str> {
    let mut scanner = Scanner { bytes: json.as_bytes(), at: 0 };
    let mut depth = 0usize;
    let mut breaks = false;
    while let Some(byte) = scanner.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err("nested deeper than 64 levels");
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => scanner.string()?,
            b'\n' | b'\r' => breaks = true,
            _ => {}
        }
    }
    if !breaks {
        return Ok(Cow::Borrowed(json));
    }
    // A raw line break inside a string is not JSON, so each one found stands between tokens.
    Ok(Cow::Owned(json.chars().filter(|c| !matches!(c, '\n' | '\r')).collect()))
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte
    }

    /// Reads on behind the closing quote. `\uD800`–`\uDBFF` must be followed by `\uDC00`–`\uDFFF` and nothing else may be
    /// one of either: Unicode text has no lone surrogates, and not every parser survives them.
    fn string(&mut self) -> Result<(), &'static str> {
        let mut high = false;
        loop {
            if !high {
                // Most of a payload: nothing until the next of these can be wrong.
                let rest = self.bytes.get(self.at..).unwrap_or_default();
                self.at += memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            }
            let unit = match self.next() {
                Some(b'\\') => self.escape(),
                Some(b'"') if !high => return Ok(()),
                Some(b'"') | None => return Err(LONE_SURROGATE),
                Some(_) => None,
            };
            let low = matches!(unit, Some(0xDC00..=0xDFFF));
            if high != low {
                return Err(LONE_SURROGATE);
            }
            high = matches!(unit, Some(0xD800..=0xDBFF));
        }
    }

    /// Reads one escape behind its backslash; the code unit of a `\u` one.
    fn escape(&mut self) -> Option<u16> {
        if self.next() != Some(b'u') {
            return None;
        }
        let digits = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}

const LONE_SURROGATE: &str = "a lone surrogate in a string";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_stay_as_they_were_sent() {
        for same in [
            r#"{"b":1,"a":[1.0e+99999999,123456789012345678901234567890, -0.0]}"#,
            r#""\u00e4\/\n\\\"""#,
            r#""\ud83d\ude00""#,
            "null",
        ] {
            assert!(matches!(compact(same), Ok(Cow::Borrowed(text)) if text == same), "{same}");
        }
    }

    #[test]
    fn line_breaks_between_tokens_go_and_escaped_ones_stay() {
        let pretty = "{\r\n  \"a\": \"x\\ny\",\n  \"b\": [\n1,\r2]\n}";
        assert_eq!(compact(pretty).as_deref(), Ok("{  \"a\": \"x\\ny\",  \"b\": [1,2]}"));
    }

    #[test]
    fn depth_64_is_the_last_that_passes() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(compact(&nested(64)).is_ok());
        assert!(compact(&nested(65)).is_err());
        assert!(compact(&format!("\"{}\"", "[".repeat(99))).is_ok());
    }

    #[test]
    fn lone_surrogates_are_refused_wherever_they_stand() {
        for bad in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800x""#,
            r#""\ud800\n""#,
            r#""\ud800\ud800\udc00""#,
            r#"{"\udbff":1}"#,
            r#""\ud800\\udc00""#,
        ] {
            assert!(compact(bad).is_err(), "{bad}");
        }
        assert!(compact(r#""\\ud800""#).is_ok());
    }
}
