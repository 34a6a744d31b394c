//! Answers to an authority that asks over TLS whether this is the server of a name (TLS-ALPN-01, RFC 8737).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

use super::make;
use crate::error::StartError;

/// The application protocol of a connection that only asks (RFC 8737, 6.2).
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";

/// What to answer for which name, at the moment. Clones share it.
#[derive(Debug, Clone)]
pub struct Challenges {
    provider: Arc<CryptoProvider>,
    answers: Arc<Mutex<HashMap<String, Arc<CertifiedKey>>>>,
}

/// A name is answered for until this is dropped.
#[derive(Debug)]
pub struct Answering {
    challenges: Challenges,
    name: String,
}

impl Challenges {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Challenges { provider, answers: Arc::default() }
    }

    /// Answers for `name`, in lower case, from now on. `digest` is SHA-256 of the challenge's key authorization.
    ///
    /// # Errors
    /// The name is none, or the digest has another length than SHA-256's.
    pub fn answer(&self, name: &str, digest: &[u8]) -> Result<Answering, StartError> {
        let cannot = |error: &dyn std::fmt::Display| {
            StartError::new(format_args!("cannot make an answer to the authority for {name}: {error}"))
        };
        if digest.len() != ring::digest::SHA256_OUTPUT_LEN {
            return Err(cannot(&"its challenge is no SHA-256"));
        }
        let (certificate, key) = make::challenge(name, digest).map_err(|error| cannot(&error))?;
        let key = self.provider.key_provider.load_private_key(key).map_err(|error| cannot(&error))?;
        // Not looked at closer: what makes it an answer is an extension that everybody else has to refuse it for.
        let certified = CertifiedKey::new(vec![certificate], key);
        self.answers.lock().insert(name.to_owned(), Arc::new(certified));
        Ok(Answering { challenges: self.clone(), name: name.to_owned() })
    }

    /// The certificate that answers this connection, if there is one.
    pub(super) fn find(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.answers.lock().get(hello.server_name()?).cloned()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.challenges.answers.lock().remove(&self.name);
    }
}

/// Whether a connection is there to ask, and for nothing else: who offers more protocols is a client (RFC 8737, 3).
pub(super) fn is_asked(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|offered| offered.eq([ACME_TLS]))
}
