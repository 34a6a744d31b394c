//! What of the development certificates must be made anew: dates and names in, a decision out.
//!
//! The WebTransport certificate is the delicate one. Browsers are told its hash before they connect and refuse a
//! validity over 14 days, so the hash of the next certificate must be out long before it is served. The next one is
//! therefore made at the moment its predecessor takes over, waits for [`WEBTRANSPORT_PERIOD`], and is then served for as
//! long again:
//!
//! ```text
//! day       0        6        12       18
//! first     |served--|
//! second    |waits---|served--|
//! third              |waits---|served--|
//! ```

use std::collections::BTreeSet;

use time::{Duration, OffsetDateTime};

use super::facts::Facts;

/// Validity begins this long before a certificate is made, for clients whose clock is behind.
pub(super) const BACKDATE: Duration = Duration::HOUR;
/// A CA is trusted by hand, so it lasts.
pub(super) const CA_VALIDITY: Duration = Duration::days(3650);
/// Browsers refuse TLS certificates that are valid for more than 398 days.
pub(super) const LEAF_VALIDITY: Duration = Duration::days(397);
/// Browsers refuse certificates known by hash that are valid for more than 14 days.
pub(super) const WEBTRANSPORT_VALIDITY: Duration = Duration::days(13);
/// How long a WebTransport certificate is announced before it is served, and then served.
pub(super) const WEBTRANSPORT_PERIOD: Duration = Duration::days(6);

/// The CA and the TLS leaf are renewed this long before they expire.
const RENEW_BEFORE: Duration = Duration::days(30);
/// A WebTransport certificate is not served in the last hours of its validity, for clients whose clock is ahead.
const WEBTRANSPORT_RESERVE: Duration = Duration::hours(12);

/// What there is.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Inventory<'a> {
    pub(super) ca: Option<&'a Facts>,
    /// Whether the CA can sign.
    pub(super) ca_key: bool,
    pub(super) leaf: Option<&'a Facts>,
    pub(super) present: Option<&'a Facts>,
    pub(super) next: Option<&'a Facts>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) make_ca: bool,
    pub(super) make_leaf: bool,
    pub(super) webtransport: Rotation,
}

/// What to do about the WebTransport certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rotation {
    /// Nothing.
    Keep,
    /// Only the next one is missing.
    MakeNext,
    /// The next one takes over, and a new next one is made.
    Promote,
    /// Neither can be served.
    MakeBoth,
}

impl Plan {
    pub(super) fn is_idle(self) -> bool {
        !self.make_ca && !self.make_leaf && self.webtransport == Rotation::Keep
    }
}

/// Decides at the moment `now` what must be made so that `names` can be served.
pub(super) fn plan(now: OffsetDateTime, names: &BTreeSet<String>, held: Inventory<'_>) -> Plan {
    let ca = held.ca.filter(|ca| is_good(ca, now, RENEW_BEFORE) && names.iter().all(|name| ca.permits(name)));
    let leaf = held.leaf.filter(|leaf| {
        is_good(leaf, now, RENEW_BEFORE)
            && names.is_subset(&leaf.names)
            && ca.is_some_and(|ca| ca.key_id.is_some() && ca.key_id == leaf.issuer_key_id)
    });
    Plan {
        // A CA without its key serves as long as its leaf does.
        make_ca: ca.is_none() || (leaf.is_none() && !held.ca_key),
        make_leaf: leaf.is_none(),
        webtransport: rotation(now, held.present, held.next),
    }
}

/// Names play no part here: who connects by hash does not look at them, and a hash that changes for their sake would lock
/// out whoever has been told the earlier one.
fn rotation(now: OffsetDateTime, present: Option<&Facts>, next: Option<&Facts>) -> Rotation {
    let good = |facts: &&Facts| is_good(facts, now, WEBTRANSPORT_RESERVE);
    match (present.filter(good), next.filter(good)) {
        (Some(_), Some(next)) if now < next.not_before + BACKDATE + WEBTRANSPORT_PERIOD => Rotation::Keep,
        (_, Some(_)) => Rotation::Promote,
        (Some(_), None) => Rotation::MakeNext,
        (None, None) => Rotation::MakeBoth,
    }
}

fn is_good(facts: &Facts, now: OffsetDateTime, reserve: Duration) -> bool {
    facts.not_before <= now && now + reserve < facts.not_after
}
