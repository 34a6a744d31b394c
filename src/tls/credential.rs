//! A certificate chain and its private key, read from PEM and known to belong together.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};

use super::facts::Facts;

/// A certificate chain and its private key.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) facts: Facts,
}

/// Why PEM texts are no credential; each text completes "the file …".
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("holds no certificate; it must be PEM, the server's own certificate first, then its issuers'")]
    NoCertificate,
    #[error("does not begin with an X.509 certificate")]
    BadCertificate,
    #[error(
        "holds no private key; it must be PEM with PKCS#8 (PRIVATE KEY), SEC1 (EC PRIVATE KEY) or PKCS#1 (RSA PRIVATE KEY)"
    )]
    NoKey,
    #[error("is encrypted; decrypt it with 'openssl pkey -in FILE -out FILE'")]
    EncryptedKey,
    #[error("holds a key that cannot be used: {0}; take ECDSA P-256, P-384, Ed25519 or RSA from 2048 bits")]
    BadKey(TlsError),
    #[error("holds a key that does not belong to the certificate")]
    Mismatch,
}

impl Unfit {
    /// Whether the certificate's file is at fault, and not the key's.
    pub(super) fn blames_certificate(&self) -> bool {
        matches!(self, Unfit::NoCertificate | Unfit::BadCertificate)
    }
}

impl Credential {
    /// Reads a chain, leaf first, and a private key.
    pub(super) fn from_pem(chain: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Credential, Unfit> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|_| Unfit::NoCertificate)?;
        let leaf = chain.first().ok_or(Unfit::NoCertificate)?;
        let facts = Facts::read(leaf).ok_or(Unfit::BadCertificate)?;
        let encrypted = key.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED);
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| if encrypted { Unfit::EncryptedKey } else { Unfit::NoKey })?;
        match CertifiedKey::from_der(chain, key, provider) {
            Ok(certified) => Ok(Credential { certified: Arc::new(certified), facts }),
            Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(Unfit::Mismatch),
            Err(TlsError::InvalidCertificate(_)) => Err(Unfit::BadCertificate),
            Err(error) => Err(Unfit::BadKey(error)),
        }
    }

    /// The server's own certificate.
    pub(super) fn leaf(&self) -> &CertificateDer<'static> {
        &self.certified.cert[0]
    }
}

const ENCRYPTED: &[u8] = b"ENCRYPTED";

/// SHA-256 of a DER certificate: what browsers compare in `serverCertificateHashes`.
pub(super) fn sha256(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, certificate).as_ref());
    hash
}
