//! Content codings: which one a client wants, and the files in it.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// What is shorter fits a packet or two as it is.
const WORTHWHILE_BYTES: usize = 1024;

/// Brotli's quality, of 0 to 11. The last two take ten times as long for some percent; a first visitor waits for it.
const BROTLI_QUALITY: i32 = 9;
/// The logarithm of brotli's window; files are far below 4 MiB.
const BROTLI_WINDOW: i32 = 22;

/// How the bytes of a file are sent (RFC 9110, 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
    /// As they are.
    Identity,
}

impl Coding {
    /// The name in Content-Encoding; identity stands there never.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Coding::Brotli => Some("br"),
            Coding::Gzip => Some("gzip"),
            Coding::Identity => None,
        }
    }

    fn is_named(self, name: &str) -> bool {
        let names: &[&str] = match self {
            Coding::Brotli => &["br"],
            Coding::Gzip => &["gzip", "x-gzip"],
            Coding::Identity => &["identity"],
        };
        names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// Whether a file of that type and length is worth the work.
pub(super) fn is_worthwhile(content_type: &str, length: usize) -> bool {
    let text = content_type.starts_with("text/") || ["json", "svg+xml"].iter().any(|part| content_type.contains(part));
    text && length >= WORTHWHILE_BYTES
}

/// The coding to answer with (RFC 9110, 12.5.3): the one liked best, of equals the smallest; `None` if all are refused.
pub(super) fn negotiate(headers: &HeaderMap, compressible: bool) -> Option<Coding> {
    // Without the field everything would be allowed; who does not say so may still not understand it.
    if !headers.contains_key(ACCEPT_ENCODING) || !compressible && !refuses_identity(headers) {
        return Some(Coding::Identity);
    }
    let codings: &[Coding] =
        if compressible { &[Coding::Brotli, Coding::Gzip, Coding::Identity] } else { &[Coding::Identity] };
    let weighed = codings.iter().map(|&coding| (weight(headers, coding), coding));
    // Of equal weights the first wins: `max_by_key` would take the last.
    let (weight, coding) = weighed.rev().max_by_key(|(weight, _)| *weight)?;
    (weight > Weight::REFUSED).then_some(coding)
}

fn refuses_identity(headers: &HeaderMap) -> bool {
    weight(headers, Coding::Identity) == Weight::REFUSED
}

/// How much a coding is liked, in thousandths, above what is only allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Weight(u16);

impl Weight {
    const REFUSED: Weight = Weight(0);
    /// Of identity, where it is neither named nor refused: better than nothing, and after all that is named.
    const ALLOWED: Weight = Weight(1);

    /// `q=` in thousandths (RFC 9110, 12.4.2); what is none counts as refused.
    fn parse(q: &str) -> Weight {
        match q.parse::<f32>() {
            Ok(q) if q > 0.0 => Weight((q.min(1.0) * 1000.0) as u16 + 1),
            _ => Weight::REFUSED,
        }
    }
}

fn weight(headers: &HeaderMap, coding: Coding) -> Weight {
    let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut any = None;
    for item in lists.flat_map(|list| list.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let q = parts.find_map(|parameter| parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")));
        let weight = Weight::parse(q.unwrap_or("1"));
        if coding.is_named(name) {
            return weight;
        }
        if name == "*" {
            any = Some(weight);
        }
    }
    any.unwrap_or(if coding == Coding::Identity { Weight::ALLOWED } else { Weight::REFUSED })
}

type Hash = [u8; 32];
type Body = Arc<OnceCell<Bytes>>;

/// The compressed files, each made when it is first asked for: as many as there are files and codings.
#[derive(Debug, Default)]
pub(super) struct Coded(Mutex<BTreeMap<(String, Coding), (Hash, Body)>>);

impl Coded {
    /// The file at `path` in that coding; `sha256` is of `plain`, which may be another than the last time.
    ///
    /// # Errors
    /// Those of the compressor, or of a runtime that is shutting down.
    pub(super) async fn body(&self, path: &str, coding: Coding, sha256: Hash, plain: Bytes) -> io::Result<Bytes> {
        let cell = self.cell(path, coding, sha256);
        let made = cell.get_or_try_init(|| async {
            tokio::task::spawn_blocking(move || compress(coding, &plain)).await.map_err(io::Error::other)?
        });
        made.await.cloned()
    }

    fn cell(&self, path: &str, coding: Coding, sha256: Hash) -> Body {
        let mut coded = self.0.lock();
        let (of, cell) = coded.entry((path.to_owned(), coding)).or_default();
        if *of != sha256 {
            (*of, *cell) = (sha256, Body::default());
        }
        Arc::clone(cell)
    }
}

fn compress(coding: Coding, plain: &Bytes) -> io::Result<Bytes> {
    match coding {
        Coding::Identity => Ok(plain.clone()),
        Coding::Brotli => {
            let params = brotli::enc::BrotliEncoderParams {
                quality: BROTLI_QUALITY,
                lgwin: BROTLI_WINDOW,
                size_hint: plain.len(),
                ..Default::default()
            };
            let mut coded = Vec::new();
            brotli::BrotliCompress(&mut plain.as_ref(), &mut coded, &params)?;
            Ok(coded.into())
        }
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(plain)?;
            Ok(encoder.finish()?.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::io::Read as _;

    #[test]
    fn the_coding_liked_best_is_taken() {
        use Coding::{Brotli, Gzip, Identity};
        for (accepted, of_text, of_others) in [
            ("gzip, deflate, br, zstd", Some(Brotli), Some(Identity)),
            ("gzip", Some(Gzip), Some(Identity)),
            ("X-GZIP", Some(Gzip), Some(Identity)),
            ("deflate", Some(Identity), Some(Identity)),
            ("", Some(Identity), Some(Identity)),
            ("br;q=0.5, gzip;q=0.8", Some(Gzip), Some(Identity)),
            ("br;q=0.001", Some(Brotli), Some(Identity)),
            ("br;q=0, *", Some(Gzip), Some(Identity)),
            ("*", Some(Brotli), Some(Identity)),
            ("identity, br;q=0.9", Some(Identity), Some(Identity)),
            ("identity;q=0, gzip", Some(Gzip), None),
            ("identity;q=1, *;q=0", Some(Identity), Some(Identity)),
            ("*;q=0", None, None),
            ("br;q=none", Some(Identity), Some(Identity)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepted));
            assert_eq!(negotiate(&headers, true), of_text, "{accepted}");
            assert_eq!(negotiate(&headers, false), of_others, "{accepted}");
        }
        assert_eq!(negotiate(&HeaderMap::new(), true), Some(Identity));
    }

    #[test]
    fn only_text_of_some_length_is_worth_it() {
        assert!(is_worthwhile("text/javascript; charset=utf-8", 1024));
        assert!(is_worthwhile("image/svg+xml", 1024));
        assert!(!is_worthwhile("text/css; charset=utf-8", 1023));
        assert!(!is_worthwhile("image/png", 100_000));
    }

    #[tokio::test]
    async fn what_is_compressed_is_made_once_and_again_when_the_file_has_changed() {
        let coded = Coded::default();
        let text = |word: &str| Bytes::from(word.repeat(500));
        let first = coded.body("a.js", Coding::Gzip, [1; 32], text("one ")).await.expect("it compresses");
        let again = coded.body("a.js", Coding::Gzip, [1; 32], Bytes::new()).await.expect("it is there");
        assert_eq!(first.as_ptr(), again.as_ptr());
        let brotli = coded.body("a.js", Coding::Brotli, [1; 32], text("one ")).await.expect("it compresses");
        let changed = coded.body("a.js", Coding::Gzip, [2; 32], text("two ")).await.expect("it compresses");

        let mut plain = String::new();
        flate2::read::GzDecoder::new(&*first).read_to_string(&mut plain).expect("gzip");
        assert_eq!(plain, text("one "));
        plain.clear();
        flate2::read::GzDecoder::new(&*changed).read_to_string(&mut plain).expect("gzip");
        assert_eq!(plain, text("two "));
        plain.clear();
        brotli::Decompressor::new(&*brotli, 4096).read_to_string(&mut plain).expect("brotli");
        assert_eq!(plain, text("one "));
    }
}
