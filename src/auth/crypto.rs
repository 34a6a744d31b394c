//! The four algorithms that tokens may be signed with, computed by ring, which rustls uses as well: no second library of
//! cryptography, and an algorithm that stands not here does not exist.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::jwk::ThumbprintHash;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use ring::{digest, hmac};
use signature::{Error, Signer, Verifier};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // Of what jsonwebtoken can do with keys, only naming them is used; `public_half` does the rest.
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ec_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ed_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        compute_digest: thumbprint,
    },
};

/// Makes jsonwebtoken use ring. May be called any number of times.
pub(super) fn install() {
    // An error means that it is installed already: nothing else in this program installs one.
    let _ = PROVIDER.install_default();
}

struct Keyed<K> {
    algorithm: Algorithm,
    key: K,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    check(*algorithm, key.family())?;
    Ok(Box::new(Keyed { algorithm: *algorithm, key: key.clone() }))
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    check(*algorithm, key.family())?;
    Ok(Box::new(Keyed { algorithm: *algorithm, key: key.clone() }))
}

/// A key of another family would turn a public key into an HMAC secret.
fn check(algorithm: Algorithm, family: AlgorithmFamily) -> Result<()> {
    use Algorithm::{ES256, EdDSA, HS256, RS256};
    match algorithm {
        HS256 | RS256 | ES256 | EdDSA if algorithm.family() == family => Ok(()),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

impl JwtVerifier for Keyed<DecodingKey> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Keyed<DecodingKey> {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let verified = match (self.algorithm, self.key.kind()) {
            (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret)) => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), message, signature)
            }
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                PublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            (Algorithm::RS256, DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(message, signature)
            }
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature)
            }
            (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
            }
            _ => return Err(Error::new()),
        };
        verified.map_err(|_| Error::new())
    }
}

impl JwtSigner for Keyed<EncodingKey> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Signer<Vec<u8>> for Keyed<EncodingKey> {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        let (key, random) = (self.key.as_bytes(), SystemRandom::new());
        match self.algorithm {
            Algorithm::HS256 => Ok(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()),
            Algorithm::RS256 => {
                let key = rsa(key).map_err(Error::from_source)?;
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(|_| Error::new())?;
                Ok(signature)
            }
            Algorithm::ES256 => {
                let key = ec(key).map_err(Error::from_source)?;
                Ok(key.sign(&random, message).map_err(|_| Error::new())?.as_ref().to_vec())
            }
            Algorithm::EdDSA => Ok(ed(key).map_err(Error::from_source)?.sign(message).as_ref().to_vec()),
            _ => Err(Error::new()),
        }
    }
}

/// PKCS#8, or the bare key that PEM of the older form holds.
fn rsa(der: &[u8]) -> Result<RsaKeyPair> {
    let key = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
    key.map_err(|rejected| ErrorKind::InvalidRsaKey(rejected.to_string()).into())
}

fn ec(der: &[u8]) -> Result<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new())
        .map_err(|_| ErrorKind::InvalidEcdsaKey.into())
}

fn ed(der: &[u8]) -> Result<Ed25519KeyPair> {
    // Keys without their public half (RFC 8410, version 1) are what OpenSSL writes.
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| ErrorKind::InvalidEddsaKey.into())
}

/// The public half of a private key, as [`Jwk::from_decoding_key`](jsonwebtoken::jwk::Jwk::from_decoding_key) takes it.
pub(super) fn public_half(algorithm: Algorithm, key: &EncodingKey) -> Result<DecodingKey> {
    let der = key.as_bytes();
    match algorithm {
        Algorithm::HS256 => Ok(DecodingKey::from_secret(der)),
        Algorithm::RS256 => {
            let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(rsa(der)?.public());
            Ok(DecodingKey::from_rsa_raw_components(&n, &e))
        }
        Algorithm::ES256 => Ok(DecodingKey::from_ec_der(ec(der)?.public_key().as_ref())),
        Algorithm::EdDSA => Ok(DecodingKey::from_ed_der(ed(der)?.public_key().as_ref())),
        _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
    }
}

/// RFC 7638 names keys by their SHA-256.
fn thumbprint(data: &[u8], hash: ThumbprintHash) -> Result<Vec<u8>> {
    match hash {
        ThumbprintHash::SHA256 => Ok(digest::digest(&digest::SHA256, data).as_ref().to_vec()),
        _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
    }
}
