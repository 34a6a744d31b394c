//! The memory of all timelines, and those of rooms that have ended.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::{Policy, Recording, Ring, Timeline};
use crate::protocol::RoomName;

/// What a timeline of a room that has ended takes beside its events: its entries in the two tables, and the room's name.
const KEPT_BYTES: usize = 256;

/// So many entries of the order may stand for rooms that were opened again, beside as many as there are rooms.
const STALE: usize = 64;

/// All timelines of this server.
#[derive(Debug)]
pub struct Timelines {
    policy: Policy,
    /// Bytes that are taken by timelines, those of open rooms included.
    used: AtomicUsize,
    ended: Mutex<Ended>,
}

/// Rooms that have ended, and when.
#[derive(Debug, Default)]
struct Ended {
    rooms: HashMap<RoomName, (Instant, Ring)>,
    /// In the order in which they ended. A room that was opened again since, and may have ended again, is there with its old time.
    order: VecDeque<(Instant, RoomName)>,
}

impl Timelines {
    /// Without any.
    pub fn new(policy: Policy) -> Arc<Self> {
        Arc::new(Timelines { policy, used: AtomicUsize::new(0), ended: Mutex::default() })
    }

    /// What was decided about them.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The timeline of a room that opens: the one from before, if it has not been forgotten. `None` where nothing is recorded.
    pub fn open(self: &Arc<Self>, room: &RoomName, now: Instant) -> Option<Timeline> {
        if self.policy.events == 0 {
            return None;
        }
        let before = {
            let mut ended = self.ended.lock();
            self.expire(&mut ended, now);
            ended.rooms.remove(room).map(|(_, ring)| ring)
        };
        if before.is_some() {
            self.give_back(KEPT_BYTES);
        }
        Some(Timeline { ring: before.unwrap_or_else(|| Ring::new(now)), all: Arc::clone(self) })
    }

    /// The timeline of a room that has ended, and when that was.
    pub fn of_ended(&self, room: &RoomName, now: Instant) -> Option<(Instant, Recording)> {
        let mut ended = self.ended.lock();
        self.expire(&mut ended, now);
        ended.rooms.get(room).map(|(at, ring)| (*at, ring.copy()))
    }

    /// Rooms that have ended and are still known, and when that was.
    pub fn ended(&self, now: Instant) -> Vec<(RoomName, Instant)> {
        let mut ended = self.ended.lock();
        self.expire(&mut ended, now);
        ended.rooms.iter().map(|(room, (at, _))| (room.clone(), *at)).collect()
    }

    /// How many those are; what is older is forgotten.
    pub fn count_ended(&self, now: Instant) -> usize {
        let mut ended = self.ended.lock();
        self.expire(&mut ended, now);
        ended.rooms.len()
    }

    /// Bytes that all timelines take.
    pub fn bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes so many bytes, at the expense of the rooms that ended first. False if there are not as many.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.policy.bytes);
        loop {
            if self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok() {
                return true;
            }
            if !self.forget_first(&mut self.ended.lock()) {
                return false;
            }
        }
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Keeps the events of a room that has ended, whose bytes are taken already.
    pub(super) fn keep(&self, room: RoomName, ring: Ring, now: Instant) {
        if !self.take(KEPT_BYTES) {
            return self.give_back(ring.bytes());
        }
        let mut ended = self.ended.lock();
        self.expire(&mut ended, now);
        ended.order.push_back((now, room.clone()));
        ended.rooms.insert(room, (now, ring));
        // Rooms that open and end all the time must not fill it.
        if ended.order.len() > 2 * ended.rooms.len() + STALE {
            let Ended { rooms, order } = &mut *ended;
            order.retain(|(at, room)| rooms.get(room).is_some_and(|(since, _)| since == at));
        }
    }

    fn expire(&self, ended: &mut Ended, now: Instant) {
        while ended.order.front().is_some_and(|(at, _)| *at + self.policy.keep <= now) {
            self.forget_first(ended);
        }
    }

    /// Takes the first entry from the order, and forgets its room unless that was opened again since. Returns whether there was one.
    fn forget_first(&self, ended: &mut Ended) -> bool {
        let Some((at, room)) = ended.order.pop_front() else { return false };
        if ended.rooms.get(&room).is_some_and(|(since, _)| *since == at)
            && let Some((_, ring)) = ended.rooms.remove(&room)
        {
            self.give_back(ring.bytes() + KEPT_BYTES);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{peer, room};
    use super::super::{Event, bytes_of};
    use super::*;

    fn end(all: &Arc<Timelines>, name: &str, now: Instant) {
        let mut timeline = all.open(&room(name), now).expect("it records");
        timeline.record(now, Event::Admitted { peer: peer(1) });
        timeline.end(&room(name), now);
    }

    #[test]
    fn a_room_that_has_ended_is_known_for_a_while_and_goes_on_if_it_opens_again() {
        let (all, now) = (Timelines::new(Policy::default()), Instant::now());
        end(&all, "a", now);
        let later = now + Duration::from_secs(60);
        assert_eq!(all.of_ended(&room("a"), later).expect("it is known").1.entries.len(), 2);
        let mut again = all.open(&room("a"), later).expect("it records");
        assert!(all.of_ended(&room("a"), later).is_none(), "it is open");
        again.record(later, Event::Admitted { peer: peer(2) });
        assert_eq!(again.copy().entries.len(), 3);
        again.end(&room("a"), later);
        let window = Policy::default().keep;
        assert!(all.of_ended(&room("a"), now + window).is_some(), "it ended later");
        assert!(all.of_ended(&room("a"), later + window).is_none());
        assert_eq!((all.bytes(), all.count_ended(later + window)), (0, 0));
    }

    #[test]
    fn what_ended_first_is_forgotten_where_there_is_no_room() {
        let one = bytes_of(8) + KEPT_BYTES;
        let all = Timelines::new(Policy { bytes: 3 * one, ..Policy::default() });
        let now = Instant::now();
        for (name, second) in ["a", "b", "c", "d"].into_iter().zip(0..) {
            end(&all, name, now + Duration::from_secs(second));
        }
        let mut known: Vec<_> = all.ended(now).into_iter().map(|(name, _)| name.as_str().to_owned()).collect();
        known.sort();
        assert_eq!(known, ["b", "c", "d"]);
        assert_eq!(all.bytes(), 3 * one);
    }

    #[test]
    fn open_rooms_forget_their_own_where_all_memory_is_taken() {
        let all = Timelines::new(Policy { bytes: bytes_of(8), ..Policy::default() });
        let now = Instant::now();
        let mut first = all.open(&room("a"), now).expect("it records");
        let mut second = all.open(&room("b"), now).expect("it records");
        for number in 0..20 {
            first.record(now, Event::Admitted { peer: peer(number) });
            second.record(now, Event::Admitted { peer: peer(number) });
        }
        assert_eq!((first.copy().entries.len(), first.copy().dropped), (8, 12));
        assert_eq!(second.copy().entries.len(), 0, "there is no room for any of its own");
        assert_eq!(all.bytes(), bytes_of(8));
    }

    #[test]
    fn a_room_that_opens_and_ends_all_the_time_takes_no_more_than_one() {
        let (all, now) = (Timelines::new(Policy { events: 8, ..Policy::default() }), Instant::now());
        for second in 0..1000 {
            end(&all, "a", now + Duration::from_millis(second));
        }
        assert!(all.ended.lock().order.len() <= 2 + STALE);
        assert_eq!(all.bytes(), bytes_of(8) + KEPT_BYTES);
    }

    #[test]
    fn an_empty_room_leaves_nothing() {
        let (all, now) = (Timelines::new(Policy::default()), Instant::now());
        all.open(&room("a"), now).expect("it records").end(&room("a"), now);
        assert_eq!((all.count_ended(now), all.bytes()), (0, 0));
    }
}
