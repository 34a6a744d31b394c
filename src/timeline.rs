//! What has happened in each room, so that a call that failed can be explained afterwards: who came and went, and which offers,
//! answers and candidates went from whom to whom. Times, sizes and outcomes; never what was said.
//!
//! A room's [`Timeline`] is recorded under the lock that is held anyway, takes nothing from the heap for a candidate, and forgets
//! its oldest events when it is full. [`Timelines`] bounds the memory of all of them, and keeps those of rooms that have ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::protocol::{CandidateType, Code, LeftReason, PeerId, Reached, RoomName, Step, Transport};

mod diagnosis;
mod ended;
mod told;

pub use diagnosis::{Diagnosis, Pair, State, diagnose};
pub use ended::Timelines;
pub use told::{PairVerdict, Report, Told, Unreadable, Verdict};

/// How many events a timeline has room for at first.
const FIRST_EVENTS: usize = 8;

/// A candidate is added to the bundle of its pair if that is among so many last events, all of them bundles.
const BUNDLES: usize = 4;

/// How much is recorded and for how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Events of a room; 0 records nothing.
    pub events: usize,
    /// Bytes of all timelines together.
    pub bytes: usize,
    /// How long that of a room is kept that has ended.
    pub keep: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { events: 512, bytes: 64 * 1024 * 1024, keep: Duration::from_secs(15 * 60) }
    }
}

/// What became of an offer, an answer or a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the queue of a peer that is connected.
    Delivered,
    /// It waits for a peer that has lost its transport.
    Kept,
    /// It was handed to the node of its peer, which answers for it.
    Elsewhere,
    /// The recipient's node could not be sent it.
    Unreachable,
    /// The peer's queue had no room for it.
    QueueFull,
    /// There was no such peer in the room.
    PeerGone,
    /// The server's settings leave it out.
    Filtered,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 7] = [
        Outcome::Delivered,
        Outcome::Kept,
        Outcome::Elsewhere,
        Outcome::Unreachable,
        Outcome::QueueFull,
        Outcome::PeerGone,
        Outcome::Filtered,
    ];

    /// Its name in the admin API.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Delivered => "delivered",
            Outcome::Kept => "kept",
            Outcome::Elsewhere => "elsewhere",
            Outcome::Unreachable => "unreachable",
            Outcome::QueueFull => "queueFull",
            Outcome::PeerGone => "peerGone",
            Outcome::Filtered => "filtered",
        }
    }

    /// Whether the peer has it, or will have it when it comes back.
    pub fn arrives(self) -> bool {
        matches!(self, Outcome::Delivered | Outcome::Kept | Outcome::Elsewhere)
    }
}

/// One thing that happened in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A member took its seat; `transport` is known of those of this node.
    Joined {
        /// Who.
        peer: PeerId,
        /// By what.
        transport: Option<Transport>,
    },
    /// Somebody waits to be admitted.
    Knocked {
        /// Who.
        peer: PeerId,
        /// By what.
        transport: Option<Transport>,
    },
    /// One who waited is a member now.
    Admitted {
        /// Who.
        peer: PeerId,
    },
    /// A member lost its transport.
    Away {
        /// Who.
        peer: PeerId,
        /// Why the server closed it, if it was the server.
        code: Option<Code>,
    },
    /// It has one again.
    Back {
        /// Who.
        peer: PeerId,
        /// Which.
        transport: Option<Transport>,
    },
    /// It went from one transport to another without being away.
    Moved {
        /// Who.
        peer: PeerId,
        /// Where to.
        transport: Transport,
    },
    /// It is in the room no more, or waits no more.
    Left {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: LeftReason,
    },
    /// A step of a negotiation came to the server for another peer.
    Relayed {
        /// From whom.
        from: PeerId,
        /// For whom.
        to: PeerId,
        /// What it was.
        step: Step,
        /// Bytes of its payload; of a bundle all of them.
        bytes: u32,
        /// What became of it.
        outcome: Outcome,
    },
    /// A member tells of its connection with another one.
    Reached {
        /// Who.
        peer: PeerId,
        /// With whom.
        with: PeerId,
        /// What.
        reached: Reached,
        /// By which candidates of its own, if it says so.
        candidate: Option<CandidateType>,
        /// Milliseconds since it began the connection.
        after_ms: u32,
    },
    /// Somebody was refused something: a member a request, or one who is none the room.
    Refused {
        /// The member.
        peer: Option<PeerId>,
        /// Why.
        code: Code,
    },
    /// The room was locked or unlocked.
    Locked {
        /// By which member; `None` for the operator, or somebody at another node.
        by: Option<PeerId>,
        /// Whether it is locked now.
        locked: bool,
    },
    /// The last member has gone.
    Ended,
}

impl Event {
    /// Whether many of the same may follow one another, which are then told as one.
    fn is_bundled(&self) -> bool {
        match self {
            Event::Relayed { step, .. } => step.is_candidate(),
            Event::Refused { .. } => true,
            _ => false,
        }
    }

    /// Whether both are told as one; only the sizes may differ.
    fn is_like(&self, other: &Event) -> bool {
        match (self, other) {
            (
                Event::Relayed { from, to, step, outcome, .. },
                Event::Relayed { from: from2, to: to2, step: step2, outcome: outcome2, .. },
            ) => (from, to, step, outcome) == (from2, to2, step2, outcome2),
            _ => self == other,
        }
    }
}

/// An event, or a bundle of like ones, with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Milliseconds since the timeline began.
    pub at: u32,
    /// The same for the last of a bundle.
    pub until: u32,
    /// How many.
    pub count: u32,
    /// What.
    pub event: Event,
}

/// The last events of one room.
#[derive(Debug)]
struct Ring {
    begun: Instant,
    entries: VecDeque<Entry>,
    /// For how many there is room.
    room: usize,
    /// Earlier ones that were forgotten.
    dropped: u64,
}

impl Ring {
    fn new(begun: Instant) -> Self {
        Ring { begun, entries: VecDeque::new(), room: 0, dropped: 0 }
    }

    fn bytes(&self) -> usize {
        bytes_of(self.room)
    }

    /// Milliseconds since it began, which is moved to where they fit: a room may be open for longer than they reach, 49 days.
    fn time(&mut self, now: Instant) -> u32 {
        loop {
            if let Ok(at) = u32::try_from(now.saturating_duration_since(self.begun).as_millis()) {
                return at;
            }
            match self.entries.front().map(|first| first.at) {
                None => self.begun = now,
                Some(0) => {
                    self.entries.pop_front();
                    self.dropped += 1;
                }
                Some(first) => self.begin_later(first),
            }
        }
    }

    fn begin_later(&mut self, ms: u32) {
        self.begun += Duration::from_millis(u64::from(ms));
        for entry in &mut self.entries {
            entry.at -= ms;
            entry.until -= ms;
        }
    }

    fn copy(&self) -> Recording {
        let entries = self.entries.iter().copied().collect();
        Recording { begun: self.begun, entries, dropped: self.dropped }
    }
}

fn bytes_of(events: usize) -> usize {
    events * size_of::<Entry>()
}

/// A timeline as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// What [`Entry::at`] counts from.
    pub begun: Instant,
    /// The earliest first.
    pub entries: Vec<Entry>,
    /// How many earlier ones were forgotten.
    pub dropped: u64,
}

/// The events of a room that is open.
#[derive(Debug)]
pub struct Timeline {
    ring: Ring,
    all: Arc<Timelines>,
}

impl Timeline {
    /// Notes that something has happened now.
    pub fn record(&mut self, now: Instant, event: Event) {
        let at = self.ring.time(now);
        if event.is_bundled() && self.bundle(at, &event) {
            return;
        }
        if self.ring.entries.len() == self.ring.room && !self.grow() {
            self.ring.dropped += 1;
            if self.ring.entries.pop_front().is_none() {
                return;
            }
        }
        self.ring.entries.push_back(Entry { at, until: at, count: 1, event });
    }

    /// Adds it to a bundle, if there is one.
    fn bundle(&mut self, at: u32, event: &Event) -> bool {
        let mut last = self.ring.entries.iter_mut().rev().take(BUNDLES).take_while(|entry| entry.event.is_bundled());
        let Some(entry) = last.find(|entry| entry.event.is_like(event)) else { return false };
        entry.count = entry.count.saturating_add(1);
        entry.until = at;
        if let (Event::Relayed { bytes, .. }, Event::Relayed { bytes: more, .. }) = (&mut entry.event, event) {
            *bytes = bytes.saturating_add(*more);
        }
        true
    }

    /// Makes room for more events, if there may be more.
    #[cold]
    fn grow(&mut self) -> bool {
        let room = (self.ring.room * 4).max(FIRST_EVENTS).min(self.all.policy().events);
        let more = room.saturating_sub(self.ring.room);
        if more == 0 || !self.all.take(bytes_of(more)) {
            return false;
        }
        self.ring.entries.reserve_exact(room - self.ring.entries.len());
        self.ring.room = room;
        true
    }

    /// All of it, to be looked at without the lock.
    pub fn copy(&self) -> Recording {
        self.ring.copy()
    }

    /// The room has ended.
    pub fn end(mut self, room: &RoomName, now: Instant) {
        if self.ring.entries.is_empty() {
            return;
        }
        self.record(now, Event::Ended);
        let ring = std::mem::replace(&mut self.ring, Ring::new(now));
        self.all.keep(room.clone(), ring, now);
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.all.give_back(self.ring.bytes());
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    pub(super) fn peer(number: u128) -> PeerId {
        PeerId::new(Uuid::from_u128(number))
    }

    pub(super) fn room(name: &str) -> RoomName {
        RoomName::parse(name).expect("a name")
    }

    fn candidate(from: u128, to: u128) -> Event {
        let (from, to) = (peer(from), peer(to));
        Event::Relayed { from, to, step: Step::Candidate, bytes: 100, outcome: Outcome::Delivered }
    }

    #[test]
    fn times_go_on_after_fifty_days() {
        let (_, mut timeline, begun) = opened(Policy::default());
        let day = Duration::from_secs(24 * 3600);
        for days in [0, 30, 60, 90] {
            timeline.record(begun + days * day, candidate(days.into(), 200));
        }
        let Recording { begun: later, entries, dropped } = timeline.copy();
        let days =
            entries.iter().map(|entry| later + Duration::from_millis(entry.at.into()) - begun).collect::<Vec<_>>();
        assert_eq!((days, dropped), (vec![60 * day, 90 * day], 2));
    }

    fn opened(policy: Policy) -> (Arc<Timelines>, Timeline, Instant) {
        let (all, now) = (Timelines::new(policy), Instant::now());
        let timeline = all.open(&room("a"), now).expect("it records");
        (all, timeline, now)
    }

    #[test]
    fn candidates_of_both_ways_are_bundled_and_take_no_more_room() {
        let (_, mut timeline, now) = opened(Policy::default());
        for step in 0..10 {
            let at = now + Duration::from_millis(step);
            timeline.record(at, candidate(1, 2));
            timeline.record(at, candidate(2, 1));
        }
        let recording = timeline.copy();
        let told: Vec<_> = recording.entries.iter().map(|entry| (entry.at, entry.until, entry.count)).collect();
        assert_eq!(told, [(0, 9, 10), (0, 9, 10)]);
        let Event::Relayed { bytes, .. } = recording.entries[0].event else { panic!("a candidate") };
        assert_eq!(bytes, 1000);
    }

    #[test]
    fn what_lies_between_two_candidates_keeps_its_place() {
        let (_, mut timeline, now) = opened(Policy::default());
        timeline.record(now, candidate(1, 2));
        timeline.record(now, Event::Away { peer: peer(2), code: None });
        timeline.record(now, candidate(1, 2));
        assert_eq!(timeline.copy().entries.len(), 3);
    }

    #[test]
    fn the_last_events_are_kept_and_the_others_counted() {
        let (all, mut timeline, now) = opened(Policy { events: 20, ..Policy::default() });
        for number in 0..50 {
            timeline.record(now, Event::Admitted { peer: peer(number) });
        }
        let recording = timeline.copy();
        assert_eq!((recording.entries.len(), recording.dropped), (20, 30));
        assert_eq!(recording.entries[0].event, Event::Admitted { peer: peer(30) });
        assert_eq!(all.bytes(), bytes_of(20));
        drop(timeline);
        assert_eq!(all.bytes(), 0);
    }

    #[test]
    fn nothing_is_recorded_where_that_is_switched_off() {
        let off = Timelines::new(Policy { events: 0, ..Policy::default() });
        assert!(off.open(&room("a"), Instant::now()).is_none());
    }

    #[test]
    fn an_event_is_small() {
        assert!(size_of::<Entry>() <= 52, "{}", size_of::<Entry>());
    }
}
