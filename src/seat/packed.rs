//! A seat on its way to another node, or kept for one: all that its client was promised, as JSON. Times are counted from the moment of
//! packing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Lease, Seat, Standing, Tickets, buffer, log, rate};
use crate::protocol::{Checks, Grant, Invitation, Limits, PeerId, Rights, Ticket, Transport};

/// A member's seat, without its transport.
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
    /// The seat as another node can go on with it, as if its transport, if it has one, had gone now; it is then away for `window`.
    /// `None` if its peer is no member.
    pub fn pack(&self, now: Instant, window: Duration) -> Option<Packed> {
        let mut log = self.log.clone();
        let lease = match self.lease {
            Lease::Between { until } => PackedLease::Between(millis(until, now)),
            Lease::Away { until } => PackedLease::Away(millis(until, now)),
            Lease::Here => {
                log.note(now, self.departure());
                PackedLease::Away(window.as_millis() as u64)
            }
            Lease::Left => return None,
        };
        (self.standing == Standing::Member).then(|| self.pack_as(lease, self.last_id, self.buffer.pack(), &log, now))
    }

    /// The seat without what waits for its client, for a node that takes it up when this one is lost; `None` if its peer is no member.
    ///
    /// No id counts as handled: which ones are by then nobody will know, and what was not would be answered `ok`.
    pub fn outline(&self, now: Instant) -> Option<Packed> {
        let empty = buffer::Packed::after(0, Vec::new(), self.buffer.untold());
        (self.standing == Standing::Member).then(|| self.pack_as(PackedLease::Away(0), 0, empty, &self.log, now))
    }

    fn pack_as(
        &self,
        lease: PackedLease,
        last_id: u64,
        buffer: buffer::Packed,
        log: &log::Log,
        now: Instant,
    ) -> Packed {
        let grant = &self.grant;
        Packed {
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
            last_id,
            buffer,
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
            log: log.pack(now),
        }
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
            parting: None,
            log: log::Log::unpack(packed.log, now),
        })
    }
}

impl Packed {
    /// Whether a ticket was its client's when it was packed.
    pub fn accepts(&self, ticket: Ticket) -> bool {
        let PackedTickets { newest, previous, .. } = &self.tickets;
        [Some(newest), previous.as_ref()].into_iter().flatten().any(|text| Ticket::parse(text) == Some(ticket))
    }

    /// An outline after some time, for a client that has shown this ticket, and has a while to take its seat up.
    pub fn taken_up(mut self, ticket: Ticket, passed: Duration, window: Duration) -> Self {
        let passed = passed.as_millis() as u64;
        let passes = |left: &mut Option<u64>| *left = left.map(|left| left.saturating_sub(passed));
        [&mut self.grant.expires_in, &mut self.warn_in, &mut self.ice_due_in].into_iter().for_each(passes);
        let newest = ticket.to_text();
        self.tickets = PackedTickets { newest, previous: None, newest_in_use: false, shown: true };
        self.lease = PackedLease::Away(window.as_millis() as u64);
        self
    }

    /// With what its client, which has handled everything up to `seq`, is to be told next, and that so many more payloads are lost.
    pub fn with_payloads(self, seq: u64, payloads: Vec<Box<RawValue>>, lost: u64) -> Self {
        let lost = self.buffer.lost().saturating_add(lost);
        Packed { buffer: buffer::Packed::after(seq, payloads, lost), ..self }
    }
}

/// Milliseconds until then; none if it is over.
fn millis(at: Instant, now: Instant) -> u64 {
    at.saturating_duration_since(now).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::protocol::{Body, Outbound, PayloadKind, Refusal};
    use crate::seat::{Admission, Next, Resumption};

    const WINDOW: Duration = Duration::from_secs(30);

    fn ticket(secret: u8) -> Ticket {
        Ticket::new(PeerId::new(Uuid::from_u128(1)), [secret; 16])
    }

    fn message(data: &str) -> Body {
        let payload = data.to_owned().into();
        let outbound =
            Outbound { kind: PayloadKind::Message, to: None, payload, ephemeral: false, dropped: false, step: None };
        Body::relay(PeerId::new(Uuid::from_u128(2)), &outbound)
    }

    /// A seat that has lived: something pushed out, something written, something that waits, and the transport lost.
    fn seat(now: Instant) -> Seat {
        let limits = Limits { queue_messages: 4, burst: 10, ..Limits::default() };
        let grant = Grant { user: Some("u".into()), ..Grant::open(limits.into()) };
        let mut seat =
            Seat::new(ticket(1), Transport::EventStream, Grant { expires: Some(now + WINDOW), ..grant }, now);
        assert!(matches!(seat.admit(1, Some(7), now), Admission::Execute(_)));
        seat.push(Body::error(Some(7), &Refusal::bad_request("no")));
        for data in ["1", "\"a\\n\"", "{\"b\" :2}", "4"] {
            while let Next::Frame(_) = seat.next(1, true) {}
            assert!(seat.push(message(data)));
        }
        seat.detach(1, now, WINDOW);
        seat
    }

    fn sent(seat: &Seat, now: Instant) -> String {
        serde_json::to_string(&seat.pack(now, WINDOW).expect("it is a member's")).expect("JSON")
    }

    #[test]
    fn a_seat_goes_on_as_what_it_was() {
        let now = Instant::now();
        let mut before = seat(now);
        let text = sent(&before, now);
        let unpack = |text: &str| Seat::unpack(serde_json::from_str(text).expect("JSON"), Checks::default(), now);
        let mut after = unpack(&text).expect("a seat");
        assert_eq!(sent(&after, now), text);
        for seat in [&mut before, &mut after] {
            let resumed = seat.resume(ticket(1), 0, None, Transport::WebTransport, now);
            assert_eq!(resumed, Ok(Resumption::Whole { lost: 0 }), "the error is said again");
        }
        let read = |seat: &mut Seat| {
            let generation = seat.generation();
            let frames = std::iter::from_fn(|| match seat.next(generation, true) {
                Next::Frame(frame) => Some(frame.text()),
                _ => None,
            });
            frames.collect::<Vec<_>>()
        };
        assert_eq!(read(&mut before), read(&mut after));
        assert_eq!((after.last_id(), after.next_look(now)), (7, before.next_look(now)));
        assert_eq!(after.admit(after.generation(), Some(7), now), Admission::Repeat);
        let text = sent(&before, now);
        before.detach(before.generation(), now, WINDOW);
        assert_eq!(sent(&before, now), text, "its transport was left out of it");
    }

    #[test]
    fn what_contradicts_itself_is_no_seat() {
        let now = Instant::now();
        let text = sent(&seat(now), now);
        for (right, wrong) in [
            (r#""sent":4"#, r#""sent":9"#),
            (r#""nextSeq":6"#, r#""nextSeq":5"#),
            (r#"[5,"payload""#, r#"[7,"payload""#),
            (r#"[5,"payload""#, r#"[null,"payload""#),
            (r#""requests":9.0"#, r#""requests":11.0"#),
            (r#""peer":"00000000-0000-0000-0000-000000000001""#, r#""peer":"00000000-0000-0000-0000-000000000003""#),
        ] {
            let changed = text.replace(right, wrong);
            assert_ne!(changed, text, "{right} is not in {text}");
            let packed = serde_json::from_str(&changed).expect("JSON");
            assert_eq!(Seat::unpack(packed, Checks::default(), now).map(drop).err(), Some(Broken), "{wrong}");
        }
    }
}
