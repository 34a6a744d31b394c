//! Who and what is there at the moment, for the operator.

use super::{Hub, now};
use crate::metrics::Population;
use crate::protocol::{Resume, RoomName};
use crate::seat::Lease;

impl Hub {
    /// Counts rooms, seats and what waits for them, shard by shard: no message waits longer than for one of them.
    pub fn census(&self) -> Population {
        let mut found = Population::default();
        for shard in &self.shards {
            let shard = shard.lock();
            found.rooms += shard.len() as u64;
            for seat in shard.values().flat_map(|hall| hall.seats.values()) {
                let (state, messages, bytes) = seat.quietly(|seat| {
                    if seat.is_served() {
                        found.sessions[seat.transport() as usize] += 1;
                    }
                    let state = match (seat.waits_until(), seat.lease()) {
                        (Some(_), _) => &mut found.waiting,
                        (None, Lease::Here | Lease::Between { .. }) => &mut found.here,
                        (None, Lease::Away { .. } | Lease::Left) => &mut found.away,
                    };
                    let (messages, bytes) = seat.queued();
                    (state, messages, bytes)
                });
                *state += 1;
                found.queued_messages += messages as u64;
                found.queued_bytes += bytes as u64;
            }
        }
        found.ended_rooms = self.timelines.count_ended(now()) as u64;
        found.timeline_bytes = self.timelines.bytes() as u64;
        found
    }

    /// Whether a transport, or the next poll of one, has the seat that `resume` asks for.
    pub fn is_served(&self, name: &RoomName, resume: &Resume<'_>) -> bool {
        let shard = self.shard(name).lock();
        let seat = Self::seat_of(&shard, name, resume.ticket);
        seat.is_ok_and(|(_, seat)| seat.quietly(|seat| seat.is_served()))
    }
}
