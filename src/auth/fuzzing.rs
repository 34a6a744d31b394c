//! What must hold of tokens, whatever they are.

use std::sync::{LazyLock, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use super::*;

/// 32 bytes, here and in the JSON Web Key.
const SECRET: &[u8] = b"a secret that is known to a test";

fn verifier() -> &'static Verifier {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    VERIFIER.get_or_init(|| {
        crypto::install();
        let jwk = format!(r#"{{"kty":"oct","alg":"HS256","k":"{}"}}"#, URL_SAFE_NO_PAD.encode(SECRET));
        Verifier {
            policy: Policy { keys: KeySource::Variable(String::new()), issuer: None, audience: None, invite_key: None },
            limits: Arc::default(),
            keys: RwLock::new(Keys::parse(&jwk).expect("a key")),
            asked: Mutex::new(Instant::now()),
            told: Told::default(),
        }
    })
}

fn key() -> &'static hmac::Key {
    static KEY: LazyLock<hmac::Key> = LazyLock::new(|| hmac::Key::new(hmac::HMAC_SHA256, SECRET));
    &KEY
}

fn check(token: &str) -> Option<Grant> {
    let room = RoomName::parse("demo").expect("a room name");
    let grant = verifier().check(Some(&Token::new(token)), &room).ok()?;
    let (narrow, wide) = (&grant.limits, &verifier().limits);
    assert!(narrow.data_bytes <= wide.data_bytes && narrow.sdp_bytes <= wide.sdp_bytes && narrow.peers <= wide.peers);
    assert!(narrow.candidate_bytes <= wide.candidate_bytes && narrow.metadata_bytes <= wide.metadata_bytes);
    assert!((1..=wide.burst).contains(&narrow.burst));
    assert!((1..=wide.messages_per_second).contains(&narrow.messages_per_second));
    assert_eq!((narrow.frame_bytes, narrow.queue_bytes), (wide.frame_bytes, wide.queue_bytes));
    assert!(grant.user.as_ref().is_none_or(|user| user.len() <= 256 && !user.chars().any(char::is_control)));
    if let Some(metadata) = &grant.metadata {
        assert!(metadata.get().starts_with('{') && !metadata.get().contains(['\n', '\r']));
    }
    Some(grant)
}

/// Nothing passes that the key has not signed.
pub(crate) fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if check(text).is_some() {
        let (signed, signature) = text.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        assert!(hmac::verify(key(), signed.as_bytes(), &signature).is_ok());
    }
}

/// Whatever is signed, it narrows the server's limits and never widens them, and names nobody by what does not show.
pub(crate) fn claims(data: &[u8]) {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(data));
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(key(), signed.as_bytes()));
    let token = format!("{signed}.{signature}");
    if check(&token).is_some() {
        // Claims are a JSON object or nothing.
        assert!(data.trim_ascii_start().starts_with(b"{"));
        // A character of the signed text more, and the signature is none.
        assert!(check(&format!("{header}.A{}.{signature}", URL_SAFE_NO_PAD.encode(data))).is_none());
    }
}

/// A pattern fits a name if one way to stretch its stars does.
pub(crate) fn room_pattern(data: &[u8]) {
    let Some(text) = std::str::from_utf8(data).ok().filter(|text| text.len() <= 128) else { return };
    let Some((pattern, name)) = text.split_once('\n') else { return };
    assert_eq!(RoomPattern(pattern.to_owned()).matches(name), fits(pattern.as_bytes(), name.as_bytes()));
}

/// By all ways at once: which beginnings of the name each beginning of the pattern fits.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let mut row: Vec<bool> = (0..=name.len()).map(|end| end == 0).collect();
    for &byte in pattern {
        let mut next = vec![false; row.len()];
        for end in 0..row.len() {
            let before = end > 0;
            next[end] = match byte {
                b'*' => row[end] || before && next[end - 1],
                _ => before && row[end - 1] && name[end - 1] == byte,
            };
        }
        row = next;
    }
    row[name.len()]
}
