//! Making keys and tokens: for the command line and for tests. The server only verifies.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde::Serialize;
use serde_json::Value;

use super::keys::{Algorithm, set_of};
use super::{Claims, crypto};
use crate::error::StartError;

/// What signs tokens, in the form in which it is kept: PEM, or for HS256 a JSON Web Key set that verifies them as well.
#[derive(Debug)]
pub struct SigningKey {
    /// The private half; its owner's alone.
    pub private: String,
    /// What goes to the server: a JSON Web Key set. For HS256 the same as the private half.
    pub public: String,
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// For RS256, whose keys are made elsewhere.
    pub fn generate(algorithm: Algorithm) -> Result<Self, StartError> {
        let made = |made: Result<KeyPair, rcgen::Error>| {
            made.map(|pair| pair.serialize_pem())
                .map_err(|error| StartError::new(format_args!("cannot make a key: {error}")))
        };
        let private = match algorithm {
            Algorithm::EdDsa => made(KeyPair::generate_for(&PKCS_ED25519))?,
            Algorithm::Es256 => made(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256))?,
            Algorithm::Hs256 => secret()?,
            Algorithm::Rs256 => {
                return Err(StartError::new(
                    "RSA keys are made elsewhere: openssl genrsa -out token.pem 3072, then wigwag keys --from token.pem",
                ));
            }
        };
        let public = Signer::parse(&private)?.public;
        Ok(SigningKey { private, public })
    }
}

fn secret() -> Result<String, StartError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| StartError::new(format_args!("no random numbers: {error}")))?;
    let key = serde_json::json!({"kty": "oct", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(bytes)});
    Ok(format!("{key:#}\n"))
}

/// Signs tokens.
pub struct Signer {
    key: EncodingKey,
    header: Header,
    /// The JSON Web Key set that verifies them.
    pub public: String,
}

impl Signer {
    /// Takes a private key in PEM, or a JSON Web Key (set) with one secret.
    ///
    /// # Errors
    /// What it is instead.
    pub fn parse(text: &str) -> Result<Self, StartError> {
        crypto::install();
        let unusable = || {
            StartError::new(
                "this key cannot sign tokens; it must be a private key in PEM (PKCS #8) of Ed25519, P-256 or RSA, or a \
                             JSON Web Key with a secret",
            )
        };
        let kinds = if text.trim_start().starts_with('{') {
            vec![(Algorithm::Hs256, secret_of(text).ok_or_else(unusable)?)]
        } else {
            let pem = text.as_bytes();
            [
                (Algorithm::EdDsa, EncodingKey::from_ed_pem(pem)),
                (Algorithm::Es256, EncodingKey::from_ec_pem(pem)),
                (Algorithm::Rs256, EncodingKey::from_rsa_pem(pem)),
            ]
            .into_iter()
            .filter_map(|(algorithm, key)| Some((algorithm, key.ok()?)))
            .collect()
        };
        let named = kinds.into_iter().find_map(|(algorithm, key)| Some((algorithm, name(algorithm, &key)?, key)));
        let (algorithm, jwk, key) = named.ok_or_else(unusable)?;
        let header = Header { kid: jwk.common.key_id.clone(), ..Header::new(algorithm.into()) };
        Ok(Signer { key, header, public: set_of(jwk) })
    }

    /// A token with these claims: [`Claims`], or an object with others beside them.
    ///
    /// # Errors
    /// If the key does not sign after all.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, StartError> {
        encode(&self.header, claims, &self.key)
            .map_err(|error| StartError::new(format_args!("cannot sign the token: {error}")))
    }
}

impl Claims {
    /// Claims that end `lifetime` from now.
    pub fn lasting(lifetime: Duration, room: super::Names<super::RoomPattern>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let exp = now.saturating_add(lifetime).as_secs();
        Claims { sub: None, nbf: None, exp, jti: None, uses: None, room, grants: None, metadata: None, limits: None }
    }
}

/// The public half as a JSON Web Key, named by its thumbprint (RFC 7638).
fn name(algorithm: Algorithm, key: &EncodingKey) -> Option<Jwk> {
    let public = crypto::public_half(algorithm.into(), key).ok()?;
    let mut jwk = Jwk::from_decoding_key(&public, Some(algorithm.into())).ok()?;
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).ok()?);
    Some(jwk)
}

fn secret_of(text: &str) -> Option<EncodingKey> {
    let value: Value = serde_json::from_str(text).ok()?;
    let key = value["keys"].get(0).unwrap_or(&value);
    let secret = key["k"].as_str().filter(|_| key["kty"] == "oct")?;
    Some(EncodingKey::from_secret(&URL_SAFE_NO_PAD.decode(secret).ok()?))
}
