//! The keys that tokens are verified by, and where they come from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::Uri;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm as Jose, DecodingKey};
use serde::Deserialize;

use super::fetch::{self, Reach};
use crate::error::StartError;
use crate::files;

/// A document with keys that is fetched is smaller than this.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// A token without `kid` is tried with each key of its algorithm.
const MAX_KEYS: usize = 32;

/// RFC 7518, 3.2: a secret must be as long as the hash.
const MIN_SECRET: usize = 32;

/// How tokens may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    #[value(name = "EdDSA")]
    EdDsa,
    /// ECDSA with P-256 and SHA-256.
    #[value(name = "ES256")]
    Es256,
    /// RSA, PKCS #1 v1.5, with SHA-256.
    #[value(name = "RS256")]
    Rs256,
    /// HMAC with SHA-256: whoever can verify can sign.
    #[value(name = "HS256")]
    Hs256,
}

impl From<Algorithm> for Jose {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::EdDsa => Jose::EdDSA,
            Algorithm::Es256 => Jose::ES256,
            Algorithm::Rs256 => Jose::RS256,
            Algorithm::Hs256 => Jose::HS256,
        }
    }
}

/// Where keys are read from, and read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A JSON Web Key (set) or a public key in PEM.
    File(PathBuf),
    /// The same in a variable of the environment.
    Variable(String),
    /// A JSON Web Key set at an `https` URL.
    Url {
        /// Where.
        url: Uri,
        /// How far the server may go for it.
        reach: Reach,
    },
}

impl FromStr for KeySource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(variable) = text.strip_prefix("env:") {
            return Ok(KeySource::Variable(variable.to_owned()));
        }
        if text.contains("://") {
            let url: Uri = text.parse().map_err(|_| "write a URL like https://id.example.org/jwks.json")?;
            let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
            return match url.scheme_str() {
                Some("https") if plain => Ok(KeySource::Url { url, reach: Reach::default() }),
                _ => Err("keys are fetched by https only, from a URL without a user in it"),
            };
        }
        if text.is_empty() {
            Err("name a file, env:VARIABLE, or an https URL")
        } else {
            Ok(KeySource::File(text.into()))
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::File(path) => path.display().fmt(f),
            KeySource::Variable(name) => write!(f, "env:{name}"),
            KeySource::Url { url, .. } => url.fmt(f),
        }
    }
}

impl KeySource {
    /// Reads the keys.
    ///
    /// # Errors
    /// What is wrong with them or with the way to them.
    pub(super) async fn load(&self) -> Result<Keys, StartError> {
        let text = match self {
            KeySource::File(path) => read(path)?,
            KeySource::Variable(name) => std::env::var(name).map_err(|_| {
                StartError::new(format_args!("the variable {name} is not set; it must hold the token keys"))
            })?,
            KeySource::Url { url, reach } => {
                let failed = |error: anyhow::Error| {
                    StartError::new(format_args!("cannot fetch the token keys from {url}: {error:#}"))
                };
                let trust = reach.trust().map_err(failed)?;
                fetch::get(url, trust, reach.private).await.map_err(|error| failed(error).passing())?
            }
        };
        let keys = Keys::parse(&text).map_err(|why| {
            let error = StartError::new(format_args!("the token keys in {self} cannot be used: {why}"));
            // What is at a URL is somebody else's doing, and may be put right there.
            if matches!(self, KeySource::Url { .. }) { error.passing() } else { error }
        })?;
        if let KeySource::File(path) = self
            && keys.has_secret()
        {
            // Whoever can read it can sign.
            files::read_private(path, "name a file with keys")?;
        }
        if matches!(self, KeySource::Url { .. }) && keys.has_secret() {
            return Err(StartError::new(format_args!(
                "the token keys at {self} have a secret (kty oct) among them, which \
                everybody who reaches that URL could sign with; take it out"
            ))
            .passing());
        }
        Ok(keys)
    }
}

fn read(path: &Path) -> Result<String, StartError> {
    let failed = |error| StartError::file("read", path, &error, "name a file with keys, see wigwag keys --help");
    let text = files::read(path).map_err(failed)?;
    String::from_utf8(text).map_err(|_| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not text")))
}

/// One key, and the one algorithm that it is for.
#[derive(Debug)]
pub(super) struct Key {
    kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) verifying: DecodingKey,
}

/// All keys at the moment.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// A JSON Web Key, a set of them (RFC 7517), or a public key in PEM (RFC 7468).
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let keys = match text.trim_start().as_bytes().first() {
            Some(b'{') => from_jwks(text)?,
            Some(b'-') => vec![from_pem(text)?],
            _ => return Err("write a JSON Web Key, a set of them, or a public key in PEM".into()),
        };
        match keys.len() {
            0 => Err("there is none that signs by EdDSA, ES256, RS256 or HS256".into()),
            1..=MAX_KEYS => Ok(Keys(keys)),
            more => Err(format!("there are {more}; {MAX_KEYS} are the most")),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn has_secret(&self) -> bool {
        self.0.iter().any(|key| key.algorithm == Algorithm::Hs256)
    }

    /// The keys that a token may be verified by: those of its `kid`, and those that have no name of their own.
    pub(super) fn for_token(&self, kid: Option<&str>) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| kid.is_none() || key.kid.is_none() || key.kid.as_deref() == kid)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrSet {
    Set { keys: Vec<serde_json::Value> },
    One(Box<Jwk>),
}

/// Keys for other uses, and of kinds that are not known here, may stand in a set beside those for tokens.
fn from_jwks(text: &str) -> Result<Vec<Key>, String> {
    let parsed: OneOrSet = serde_json::from_str(text).map_err(|_| "this is not a JSON Web Key or a set of them")?;
    let jwks = match parsed {
        OneOrSet::One(jwk) => vec![*jwk],
        OneOrSet::Set { keys } => keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect(),
    };
    jwks.iter().filter_map(|jwk| from_jwk(jwk).transpose()).collect()
}

fn from_jwk(jwk: &Jwk) -> Result<Option<Key>, String> {
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return Ok(None);
    }
    let Some(algorithm) = algorithm_of(jwk) else { return Ok(None) };
    if let AlgorithmParameters::OctetKey(secret) = &jwk.algorithm
        && secret.value.len() * 3 / 4 < MIN_SECRET
    {
        return Err(format!("a secret (kty oct) needs at least {MIN_SECRET} bytes"));
    }
    let verifying = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string())?;
    Ok(Some(Key { kid: jwk.common.key_id.clone(), algorithm, verifying }))
}

/// The algorithm that a key says, or the one for its type; `None` for any other.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    use jsonwebtoken::jwk::EllipticCurve;
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::Rs256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::Es256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDsa, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::OctetKey(_) => (Algorithm::Hs256, KeyAlgorithm::HS256),
        _ => return None,
    };
    jwk.common.key_algorithm.is_none_or(|said| said == name).then_some(algorithm)
}

/// A public key in PEM has no name and says by its type what it is for.
fn from_pem(text: &str) -> Result<Key, String> {
    if text.contains("PRIVATE KEY") {
        return Err("this is a private key, which only whoever signs tokens needs; give the public one \
                    (wigwag keys --from FILE makes it)"
            .into());
    }
    let pem = text.as_bytes();
    let kinds = [
        (Algorithm::EdDsa, DecodingKey::from_ed_pem(pem)),
        (Algorithm::Es256, DecodingKey::from_ec_pem(pem)),
        (Algorithm::Rs256, DecodingKey::from_rsa_pem(pem)),
    ];
    let found = kinds.into_iter().find_map(|(algorithm, key)| Some((algorithm, key.ok()?)));
    let (algorithm, verifying) = found.ok_or("this is no public key of Ed25519, P-256 or RSA in PEM")?;
    Ok(Key { kid: None, algorithm, verifying })
}

/// A set of one, as it is published.
pub(super) fn set_of(jwk: Jwk) -> String {
    let set = JwkSet { keys: vec![jwk] };
    serde_json::to_string_pretty(&set).expect("keys are JSON") + "\n"
}
