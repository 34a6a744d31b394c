//! A seat on its way to another node: all that its client was promised, as JSON. Times are counted from the moment of packing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Lease, Seat, Standing, Tickets, buffer, log, rate};
use crate::protocol::{Checks, Grant, Invitation, Limits, PeerId, Rights, Ticket, Transport};

/// A member's seat without a transport.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Packed {
    peer: PeerId,
    keyed: bool,
    lease: PackedLease,
    transport: Transport,
    tickets: PackedTickets,
    last_id: u64,
    buffer: buffer::Packed,
    rate: rate::Packed,
    grant: PackedGrant,
    /// Milliseconds.
    warn_in: Option<u64>,
    ice_due_in: Option<u64>,
    payloads: u32,
    log: log::Packed,
}

/// What was packed cannot be unpacked: it breaks what holds of every seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the seat contradicts itself")]
pub struct Broken;

/// For so many milliseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum PackedLease {
    Between(u64),
    Away(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PackedTickets {
    newest: String,
    previous: Option<String>,
    newest_in_use: bool,
    shown: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PackedGrant {
    user: Option<Arc<str>>,
    rights: Rights,
    metadata: Option<Box<RawValue>>,
    limits: Limits,
    expires_in: Option<u64>,
    invitation: Option<Invitation>,
}

impl Seat {
    /// The seat as another node can go on with it; `None` if its peer is no member, or a transport has it.
    pub fn pack(&self, now: Instant) -> Option<Packed> {
        let lease = match self.lease {
            Lease::Between { until } => PackedLease::Between(millis(until, now)),
            Lease::Away { until } => PackedLease::Away(millis(until, now)),
            Lease::Here | Lease::Left => return None,
        };
        let grant = &self.grant;
        (self.standing == Standing::Member).then(|| Packed {
            peer: self.peer,
            keyed: self.keyed,
            lease,
            transport: self.transport,
            tickets: PackedTickets {
                newest: self.tickets.newest.to_text(),
                previous: self.tickets.previous.map(Ticket::to_text),
                newest_in_use: self.tickets.newest_in_use,
                shown: self.tickets.shown,
            },
            last_id: self.last_id,
            buffer: self.buffer.pack(),
            rate: self.rate.pack(now),
            grant: PackedGrant {
                user: grant.user.clone(),
                rights: grant.rights,
                metadata: grant.metadata.clone(),
                limits: Limits::clone(&grant.limits),
                expires_in: grant.expires.map(|at| millis(at, now)),
                invitation: grant.invitation.clone(),
            },
            warn_in: self.warn_at.map(|at| millis(at, now)),
            ice_due_in: self.ice_due.map(|at| millis(at, now)),
            payloads: self.payloads,
            log: self.log.pack(now),
        })
    }

    /// Goes on with a seat that another node has packed, and checks payloads as this one does.
    ///
    /// # Errors
    /// What holds of every seat does not hold of it.
    pub fn unpack(packed: Packed, checks: Checks, now: Instant) -> Result<Self, Broken> {
        let at = |millis: u64| now.checked_add(Duration::from_millis(millis)).ok_or(Broken);
        let at_some = |millis: Option<u64>| millis.map(at).transpose();
        let ticket = |text: &String| Ticket::parse(text).filter(|ticket| ticket.peer == packed.peer).ok_or(Broken);
        let PackedGrant { user, rights, metadata, limits, expires_in, invitation } = packed.grant;
        let limits = Limits { checks, ..limits };
        let buffer = buffer::Buffer::unpack(packed.buffer, limits.queue_bytes, limits.queue_messages)?;
        let rate = rate::Rate::unpack(packed.rate, limits.messages_per_second, limits.burst, now)?;
        let expires = at_some(expires_in)?;
        Ok(Seat {
            peer: packed.peer,
            standing: Standing::Member,
            keyed: packed.keyed,
            lease: match packed.lease {
                PackedLease::Between(millis) => Lease::Between { until: at(millis)? },
                PackedLease::Away(millis) => Lease::Away { until: at(millis)? },
            },
            transport: packed.transport,
            generation: 1,
            ending: None,
            tickets: Tickets {
                newest: ticket(&packed.tickets.newest)?,
                previous: packed.tickets.previous.as_ref().map(ticket).transpose()?,
                newest_in_use: packed.tickets.newest_in_use,
                shown: packed.tickets.shown,
            },
            last_id: packed.last_id,
            buffer,
            rate,
            grant: Grant { user, rights, metadata, limits: Arc::new(limits), expires, invitation },
            warn_at: at_some(packed.warn_in)?,
            ice_due: at_some(packed.ice_due_in)?,
            look: None,
            // Known when it is resumed.
            address: None,
            greeting: None,
            incomplete: false,
            go_away_told: false,
            payloads: packed.payloads,
            asked: Vec::new(),
            log: log::Log::unpack(packed.log, now),
        })
    }
}

/// Milliseconds until then; none if it is over.
fn millis(at: Instant, now: Instant) -> u64 {
    at.saturating_duration_since(now).as_millis() as u64
}
