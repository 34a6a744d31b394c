//! Who has to be admitted by a moderator, and what that costs the server.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Code, Refusal, Rights};

/// What the operator says of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingRoom {
    /// Who has to.
    pub holds: Newcomers,
    /// How many may at once, for each room.
    pub peers: usize,
    /// How long one waits before it is turned away.
    pub time: Duration,
}

impl Default for WaitingRoom {
    fn default() -> Self {
        WaitingRoom { holds: Newcomers::Guests, peers: 32, time: Duration::from_secs(600) }
    }
}

/// Those among newcomers who have to wait until a moderator admits them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newcomers {
    /// Nobody: a token without the `join` grant opens nothing.
    Off,
    /// Guests, whose token is good but without the `join` grant.
    Guests,
    /// Everybody without the `moderate` grant.
    Everyone,
}

impl Newcomers {
    /// Whether one with these rights has to wait.
    ///
    /// # Errors
    /// `forbidden` for one who may neither join nor wait.
    pub fn include(self, rights: Rights) -> Result<bool, Refusal> {
        match self {
            Newcomers::Off if !rights.join => Err(Refusal::new(Code::Forbidden, "this needs the \"join\" grant")),
            Newcomers::Off => Ok(false),
            Newcomers::Guests => Ok(!rights.join),
            Newcomers::Everyone => Ok(!(rights.join && rights.moderate)),
        }
    }
}

impl FromStr for Newcomers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Newcomers::Off),
            "guests" => Ok(Newcomers::Guests),
            "everyone" => Ok(Newcomers::Everyone),
            _ => Err("write off, guests or everyone"),
        }
    }
}

impl fmt::Display for Newcomers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Newcomers::Off => "off",
            Newcomers::Guests => "guests",
            Newcomers::Everyone => "everyone",
        })
    }
}
