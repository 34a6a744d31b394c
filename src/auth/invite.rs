//! Invitations: tokens that the server itself signs, when a moderator asks for one.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use tracing::warn;

use super::{Claims, Names, RoomPattern, Signer, Verifier};
use crate::error::StartError;
use crate::files;
use crate::protocol::{Code, Invite, Refusal, Rights, RoomName, Token};

/// Signs invitations.
pub struct Inviter {
    signer: Signer,
    issuer: Option<String>,
    audience: Option<String>,
}

/// The key stays out of every log.
impl fmt::Debug for Inviter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inviter")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// Claims, and those beside them that the server asks for.
#[derive(Serialize)]
struct Signed<'a> {
    #[serde(flatten)]
    claims: &'a Claims,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

impl Inviter {
    /// Reads the private key, and makes sure that `verifier` lets in who shows what it has signed.
    ///
    /// # Errors
    /// A key that cannot be read or used, or whose public half is not among the keys that tokens are verified by.
    pub fn load(path: &Path, verifier: &Verifier) -> Result<Self, StartError> {
        let unusable = |why: &dyn fmt::Display| StartError::new(format_args!("--invite-key {}: {why}", path.display()));
        let bytes = files::read_private(path, "name a private key with --invite-key; wigwag keys makes one")?;
        let text = String::from_utf8(bytes).map_err(|_| unusable(&"it is not text"))?;
        let signer = Signer::parse(&text).map_err(|error| unusable(&error))?;
        let (issuer, audience) = (verifier.policy.issuer.clone(), verifier.policy.audience.clone());
        let inviter = Inviter { signer, issuer, audience };
        let room = RoomName::parse("probe").map_err(|error| unusable(&error))?;
        let probe = Invite { lasts: std::time::Duration::from_secs(60), uses: 1, rights: Rights::MEMBER };
        let token = inviter.sign(&room, &probe).map_err(|error| unusable(&error))?;
        match verifier.explain(&Token::new(token.as_str()), &room) {
            None => Ok(inviter),
            Some(fault) => Err(unusable(&format_args!(
                "--token-keys do not verify what it signs ({fault}); its public half must be among them"
            ))),
        }
    }

    /// A token for that room. Its id is random, so that its uses can be counted.
    ///
    /// # Errors
    /// `internal`, if the key does not sign after all.
    pub fn invite(&self, room: &RoomName, invite: &Invite) -> Result<String, Refusal> {
        self.sign(room, invite).map_err(|error| {
            warn!(%error, "an invitation could not be made");
            Refusal::new(Code::Internal, "the invitation could not be made")
        })
    }

    fn sign(&self, room: &RoomName, invite: &Invite) -> Result<String, StartError> {
        let room = Names::One(RoomPattern(room.as_str().to_owned()));
        let claims = Claims {
            grants: Some(invite.rights.names().map(str::to_owned).collect()),
            ..Claims::lasting(invite.lasts, room).for_seats(invite.uses)?
        };
        let (iss, aud) = (self.issuer.as_deref(), self.audience.as_deref());
        self.signer.sign(&Signed { claims: &claims, iss, aud })
    }
}

impl Claims {
    /// The same as an invitation with which so many seats can be taken: it has an id of its own.
    ///
    /// # Errors
    /// If the operating system has no random numbers.
    pub fn for_seats(self, uses: u64) -> Result<Self, StartError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| StartError::new(format_args!("no random numbers: {error}")))?;
        Ok(Claims { jti: Some(URL_SAFE_NO_PAD.encode(id)), uses: Some(uses), ..self })
    }
}
