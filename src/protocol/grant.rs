//! What a token allows the session that shows it.

use std::sync::Arc;
use std::time::Instant;

use serde_json::value::RawValue;

use super::{Code, Command, Join, Limits, PayloadKind, Refusal};

/// What one session may do, and until when. Without keys there are no tokens, and every session has [`Grant::open`].
#[derive(Debug, Clone)]
pub struct Grant {
    /// The token's subject, told to others as `user`.
    pub user: Option<Arc<str>>,
    /// What the session may do.
    pub rights: Rights,
    /// Metadata that the token vouches for: members of a JSON object, which win over the client's own.
    pub metadata: Option<Box<RawValue>>,
    /// The server's limits, or narrower ones. Those of the token with which a session began stay with it.
    pub limits: Arc<Limits>,
    /// When it ends; `None` for never.
    pub expires: Option<Instant>,
}

/// What a token's `grants` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Take a seat in the room.
    pub join: bool,
    /// Send descriptions and candidates.
    pub publish: bool,
    /// Send messages.
    pub message: bool,
    /// Remove others and lock the room.
    pub moderate: bool,
}

impl Rights {
    /// What everybody has who needs no token, and who shows one without `grants`.
    pub const MEMBER: Rights = Rights { join: true, publish: true, message: true, moderate: false };

    /// Whether they allow a request.
    ///
    /// # Errors
    /// `forbidden`, naming the grant that is missing.
    pub fn allow(self, command: &Command<'_>) -> Result<(), Refusal> {
        match command {
            Command::Send(outbound) if outbound.kind == PayloadKind::Message => require(self.message, "message"),
            Command::Send(_) => require(self.publish, "publish"),
            Command::Moderate(_) => require(self.moderate, "moderate"),
            _ => Ok(()),
        }
    }
}

impl Grant {
    /// What everybody has where there are no keys: all but moderating, under the server's own limits, for ever.
    pub fn open(limits: Arc<Limits>) -> Self {
        Grant { user: None, rights: Rights::MEMBER, metadata: None, limits, expires: None }
    }

    /// Whether it lets somebody in who joins so.
    ///
    /// # Errors
    /// `forbidden` without the right to join, `tooLarge` for metadata above its limit.
    pub fn admits(&self, join: &Join<'_>) -> Result<(), Refusal> {
        require(self.rights.join, "join")?;
        match self.limits.metadata_bytes {
            most if join.metadata.len() > most => {
                Err(Refusal::new(Code::TooLarge, format!("\"metadata\" may have {most} bytes")))
            }
            _ => Ok(()),
        }
    }

    /// Whether it has ended.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

fn require(has: bool, right: &str) -> Result<(), Refusal> {
    if has { Ok(()) } else { Err(Refusal::new(Code::Forbidden, format!("this needs the \"{right}\" grant"))) }
}
