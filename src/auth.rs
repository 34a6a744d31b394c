//! Tokens: who may come in, and what they may do there.
//!
//! A token is a JSON Web Token (RFC 7519) signed with one of the operator's keys. The key, never the token, decides on the
//! algorithm. Whatever is wrong with a token, its bearer hears the same: the log, at `debug`, tells the operator which it was.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use parking_lot::RwLock;
use tokio::sync::{Mutex, MutexGuard};
use tracing::{debug, info, warn};

mod claims;
mod crypto;
mod fetch;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod invite;
mod keys;
mod sign;

pub use claims::{Claims, Names, RoomPattern};
pub use fetch::Reach;
pub use invite::Inviter;
pub use keys::{Algorithm, KeySource};
pub use sign::{Signer, SigningKey};

use crate::error::StartError;
use crate::protocol::{Code, Grant, Limits, Refusal, RoomName, Token};
use keys::{Key, Keys};

/// The most that a token may have: many times what claims need, little enough to verify.
const MAX_TOKEN: usize = 8 * 1024;

/// Clocks differ: a token is good this long before its `nbf`. Its `exp` is exact.
const LEEWAY: Duration = Duration::from_secs(5);

/// Keys are read again after this time, and sooner for a token that names an unknown one, but not more often than that.
const REFRESH: Duration = Duration::from_secs(300);
const REFRESH_AT_MOST: Duration = Duration::from_secs(5);

/// What the operator has said about tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Where the keys are.
    pub keys: KeySource,
    /// Tokens must be of this issuer (`iss`).
    pub issuer: Option<String>,
    /// Tokens must be for this audience (`aud`).
    pub audience: Option<String>,
    /// The private key that signs invitations for moderators, if there are to be any.
    pub invite_key: Option<PathBuf>,
}

/// Verifies tokens by keys that may change while it is in use.
#[derive(Debug)]
pub struct Verifier {
    policy: Policy,
    limits: Arc<Limits>,
    keys: RwLock<Keys>,
    /// When keys were last asked for. Held while they are, so that one request is enough for all who wait.
    asked: Mutex<Instant>,
    told: Told,
}

/// Hears, each time that keys are read again, whether they could be.
struct Told(Box<dyn Fn(bool) + Send + Sync>);

/// Nobody.
impl Default for Told {
    fn default() -> Self {
        Told(Box::new(|_| {}))
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

impl Verifier {
    /// Reads the keys for the first time. `limits` are the server's, which a token may narrow.
    ///
    /// # Errors
    /// Keys that cannot be read or used, in one line that says what to do.
    pub async fn load(policy: Policy, limits: &Limits) -> Result<Self, StartError> {
        crypto::install();
        let keys = policy.keys.load().await?;
        info!(source = %policy.keys, keys = keys.len(), "tokens are asked for");
        let (limits, keys) = (Arc::new(limits.clone()), RwLock::new(keys));
        Ok(Verifier { policy, limits, keys, asked: Mutex::new(Instant::now()), told: Told::default() })
    }

    /// Has `told` hear how it went whenever keys are read again, for whatever reason.
    pub fn telling(self, told: impl Fn(bool) + Send + Sync + 'static) -> Self {
        Verifier { told: Told(Box::new(told)), ..self }
    }

    /// What a token allows in a room. Waits where keys have to be fetched for it; cancel safe.
    ///
    /// # Errors
    /// `unauthorized`, with the same text whatever is wrong.
    pub async fn verify(&self, token: Option<&Token<'_>>, room: &RoomName) -> Result<Grant, Refusal> {
        let mut verdict = self.check(token, room);
        if matches!(verdict, Err(Fault::UnknownKey)) && self.refresh(REFRESH_AT_MOST).await {
            verdict = self.check(token, room);
        }
        verdict.map_err(|fault| {
            debug!(%room, %fault, "token refused");
            Refusal::new(Code::Unauthorized, "a valid token for this room is needed")
        })
    }

    /// What is wrong with a token, in words for its maker; `None` if nothing is.
    pub fn explain(&self, token: &Token<'_>, room: &RoomName) -> Option<String> {
        self.check(Some(token), room).err().map(|fault| fault.to_string())
    }

    /// Reads the keys again from time to time. Runs until it is dropped.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(REFRESH).await;
            // Logged and told.
            let _ = self.read_again().await;
        }
    }

    /// Reads the keys again now; those in use stay where that fails.
    ///
    /// # Errors
    /// Why it failed, which is logged and told as well.
    pub async fn read_again(&self) -> Result<(), StartError> {
        let asked = self.asked.lock().await;
        self.read_holding(asked).await
    }

    async fn read_holding(&self, mut asked: MutexGuard<'_, Instant>) -> Result<(), StartError> {
        let loaded = self.policy.keys.load().await;
        *asked = Instant::now();
        (self.told.0)(loaded.is_ok());
        let keys = loaded.inspect_err(|error| {
            warn!(%error, "the token keys could not be read again; the present ones stay");
        })?;
        *self.keys.write() = keys;
        Ok(())
    }

    /// Reads the keys again, unless that was tried less than `at_most` ago. Keeps the present ones if it fails. Returns whether
    /// there may be new ones.
    async fn refresh(&self, at_most: Duration) -> bool {
        let waiting_since = Instant::now();
        let asked = self.asked.lock().await;
        if *asked > waiting_since {
            return true;
        }
        if asked.elapsed() < at_most {
            return false;
        }
        // Logged and told, and the token is then refused as it would have been.
        let _ = self.read_holding(asked).await;
        true
    }

    /// What makes invitations that it lets in; `None` where the operator wants none.
    ///
    /// # Errors
    /// As [`Inviter::load`].
    pub fn inviter(&self) -> Result<Option<Inviter>, StartError> {
        self.policy.invite_key.as_deref().map(|path| Inviter::load(path, self)).transpose()
    }

    fn check(&self, token: Option<&Token<'_>>, room: &RoomName) -> Result<Grant, Fault> {
        let token = token.ok_or(Fault::Missing)?.as_str();
        if token.len() > MAX_TOKEN {
            return Err(Fault::TooLarge);
        }
        let header = decode_header(token).map_err(|_| Fault::Malformed)?;
        if header.crit.as_ref().is_some_and(|crit| !crit.is_empty()) || header.cty.is_some() {
            return Err(Fault::Malformed);
        }
        let keys = self.keys.read();
        let mut fault = Fault::UnknownKey;
        for key in keys.for_token(header.kid.as_deref()) {
            match self.check_with(key, token) {
                Ok(claims) => return claims.grant(room, &self.limits),
                Err(why) => fault = why,
            }
        }
        Err(fault)
    }

    fn check_with(&self, key: &Key, token: &str) -> Result<Claims, Fault> {
        let mut validation = Validation::new(key.algorithm.into());
        // Without leeway for `exp`: the end of a session is announced by it.
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.required_spec_claims.clear();
        let mut required = vec!["exp"];
        validation.validate_aud = self.policy.audience.is_some();
        if let Some(audience) = &self.policy.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &self.policy.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        decode(token, &key.verifying, &validation).map(|data| data.claims).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => Fault::Expired,
            ErrorKind::ImmatureSignature => Fault::Early,
            ErrorKind::InvalidSignature => Fault::Signature,
            ErrorKind::InvalidAlgorithm => Fault::Algorithm,
            ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => Fault::Foreign,
            ErrorKind::MissingRequiredClaim(_) => Fault::Incomplete,
            _ => Fault::Malformed,
        })
    }
}

/// What is wrong with a token: for the log, never for its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("there is none")]
    Missing,
    #[error("it is longer than 8 KiB")]
    TooLarge,
    #[error("it is not a signed JSON Web Token with claims of the right types")]
    Malformed,
    #[error("no key has its kid")]
    UnknownKey,
    #[error("its algorithm is not its key's")]
    Algorithm,
    #[error("its signature is wrong")]
    Signature,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    Early,
    #[error("its issuer or audience is another one")]
    Foreign,
    #[error("it has no exp, or no iss or aud where one is asked for")]
    Incomplete,
    #[error("it has uses, which must be at least 1, without a jti of 1 to 128 bytes to count them by")]
    Uncountable,
    #[error("it is not for this room")]
    OtherRoom,
}
