//! What only a client knows of its connection with a peer: whether ICE has found a path, whether media arrive.

use std::ops::RangeInclusive;

use super::Recipient;

/// Milliseconds that a milestone may have taken: nobody waits for longer than a day.
pub(super) const AFTER_MS: RangeInclusive<u64> = 0..=24 * 3600 * 1000;

/// A milestone of the connection with a peer, as the client tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Milestone {
    /// With whom.
    pub peer: Recipient,
    /// Which.
    pub reached: Reached,
    /// By which kind of local candidate; of a connection that failed the one that reaches farthest.
    pub candidate: Option<CandidateType>,
    /// Milliseconds since the client began the connection.
    pub after_ms: u32,
}

/// Where a connection has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// ICE and DTLS are connected.
    Connected,
    /// The first of the peer's media have arrived.
    Media,
    /// ICE or DTLS has failed, or found nothing for long.
    Failed,
}

impl Reached {
    /// All of them.
    pub const ALL: [Reached; 3] = [Reached::Connected, Reached::Media, Reached::Failed];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Reached::Connected => "connected",
            Reached::Media => "media",
            Reached::Failed => "failed",
        }
    }
}

/// The type of an ICE candidate (RFC 8839, 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateType {
    /// An address of the client's own.
    Host,
    /// What a STUN server has seen.
    Srflx,
    /// What the peer has seen.
    Prflx,
    /// An address of a TURN server's.
    Relay,
}

impl CandidateType {
    /// All of them.
    pub const ALL: [CandidateType; 4] =
        [CandidateType::Host, CandidateType::Srflx, CandidateType::Prflx, CandidateType::Relay];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            CandidateType::Host => "host",
            CandidateType::Srflx => "srflx",
            CandidateType::Prflx => "prflx",
            CandidateType::Relay => "relay",
        }
    }
}
