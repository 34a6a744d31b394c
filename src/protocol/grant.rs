//! What a token allows the session that shows it.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Code, Command, Invite, Join, Limits, Outbound, PayloadKind, Refusal};

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
    /// Says which invitation the token is, where only so many seats may be taken with it.
    pub invitation: Option<Invitation>,
}

/// What a client shows beside the ticket of a seat that it takes up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The number of the last message that it has handled.
    pub seq: u64,
    /// Its token.
    pub token: Shown,
}

/// The token of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Shown {
    /// None: the seat's own goes on.
    Nothing,
    /// A verified one with this subject takes its place.
    Newer(Option<Arc<str>>),
}

impl Claim {
    /// What is shown by a client that has handled so much, and by its new token, if it has one.
    pub fn new(seq: u64, renewal: Option<&Grant>) -> Self {
        Claim { seq, token: renewal.map_or(Shown::Nothing, |renewal| Shown::Newer(renewal.user.clone())) }
    }
}

/// A token with which a number of seats may be taken, by whoever has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The token's own id (`jti`).
    pub id: Arc<str>,
    /// How many seats, from 1.
    pub uses: u64,
}

/// What a token's `grants` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

    /// The rights of these names; `None` if one of them is no right's.
    pub fn named(names: &[String]) -> Option<Rights> {
        let mut rights = Rights::WAITING;
        for name in names {
            *match name.as_str() {
                "join" => &mut rights.join,
                "publish" => &mut rights.publish,
                "message" => &mut rights.message,
                "moderate" => &mut rights.moderate,
                _ => return None,
            } = true;
        }
        Some(rights)
    }

    /// Their names, as `grants` has them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all =
            [(self.join, "join"), (self.publish, "publish"), (self.message, "message"), (self.moderate, "moderate")];
        all.into_iter().filter(|(has, _)| *has).map(|(_, name)| name)
    }

    /// What there is for who waits to be admitted.
    pub const WAITING: Rights = Rights { join: false, publish: false, message: false, moderate: false };

    /// Whether they allow a request. Without the right to join, which a member always has, they are of one who waits.
    ///
    /// # Errors
    /// `forbidden`, naming the grant that is missing.
    pub fn allow(self, command: &Command<'_>) -> Result<(), Refusal> {
        match command {
            Command::Token(_) | Command::Ack(_) | Command::Ping | Command::Leave => Ok(()),
            Command::Send(outbound) => self.allow_to_send(outbound),
            Command::Invite(invite) => self.allow_to_invite(invite),
            Command::Moderate(_) => self.is_member().and_then(|()| require(self.moderate, "moderate")),
            _ => self.is_member(),
        }
    }

    /// Whether they allow to invite somebody so: a moderator gives no more than it has.
    ///
    /// # Errors
    /// As [`allow`](Self::allow).
    pub fn allow_to_invite(self, invite: &Invite) -> Result<(), Refusal> {
        self.is_member()?;
        require(self.moderate, "moderate")?;
        invite.rights.names().try_for_each(|name| require(self.names().any(|own| own == name), name))
    }

    /// The same for a payload.
    ///
    /// # Errors
    /// As [`allow`](Self::allow).
    pub fn allow_to_send(self, outbound: &Outbound<'_>) -> Result<(), Refusal> {
        self.is_member()?;
        match outbound.kind {
            PayloadKind::Message => require(self.message, "message"),
            PayloadKind::Description | PayloadKind::Candidate => require(self.publish, "publish"),
        }
    }

    fn is_member(self) -> Result<(), Refusal> {
        if self.join {
            return Ok(());
        }
        Err(Refusal::new(Code::Forbidden, "this peer waits to be admitted; until then there is token, ping and leave"))
    }
}

impl Grant {
    /// What everybody has where there are no keys: all but moderating, under the server's own limits, for ever.
    pub fn open(limits: Arc<Limits>) -> Self {
        Grant { user: None, rights: Rights::MEMBER, metadata: None, limits, expires: None, invitation: None }
    }

    /// Whether what somebody says of itself who joins is within its limits.
    ///
    /// # Errors
    /// `tooLarge` for metadata above its limit.
    pub fn check_size(&self, join: &Join<'_>) -> Result<(), Refusal> {
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
