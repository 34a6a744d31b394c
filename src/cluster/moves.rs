//! Where seats have gone that were at this node, for what still comes for them, and for who has not heard of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::protocol::{NodeId, PeerId, RoomName};

/// Seats that are remembered at once; earlier ones are forgotten then.
const MOST: usize = 65_536;

/// How long one is remembered: a note that is on its way for longer ends its link.
const KEPT: Duration = Duration::from_secs(120);

/// The seats that were handed to other nodes of late.
#[derive(Debug, Default)]
pub struct Moves(Mutex<Remembered>);

/// Where a seat has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// To which node.
    pub to: NodeId,
    /// How often it was handed on until then.
    pub moves: u64,
}

#[derive(Debug, Default)]
struct Remembered {
    rooms: HashMap<RoomName, BTreeMap<PeerId, Move>>,
    /// In the order in which they went; one that has gone again stands there twice.
    order: VecDeque<(Instant, RoomName, PeerId, Move)>,
}

impl Remembered {
    /// Forgets what is old, and the first as long as there are so many.
    fn expire(&mut self, most: usize, now: Instant) {
        while self.order.front().is_some_and(|(at, ..)| *at + KEPT <= now) || self.order.len() > most {
            let Some((_, room, peer, gone)) = self.order.pop_front() else { break };
            self.forget(&room, peer, |known| *known == gone);
        }
    }

    fn forget(&mut self, room: &RoomName, peer: PeerId, is: impl FnOnce(&Move) -> bool) {
        let Some(peers) = self.rooms.get_mut(room) else { return };
        if peers.get(&peer).is_some_and(is) {
            peers.remove(&peer);
        }
        if peers.is_empty() {
            self.rooms.remove(room);
        }
    }
}

/// How often a seat counts as handed on that is taken up from what is kept of it. Its lost node, and any that had it since that was
/// written, may have handed it on and told others than the node that takes it up: it has to count for more than they know of.
pub fn taken_up(moves: u64) -> u64 {
    (moves | u64::from(u32::MAX)).saturating_add(1)
}

impl Moves {
    /// A seat has gone.
    pub fn remember(&self, room: RoomName, peer: PeerId, gone: Move, now: Instant) {
        let mut moves = self.0.lock();
        moves.expire(MOST - 1, now);
        moves.order.push_back((now, room.clone(), peer, gone));
        moves.rooms.entry(room).or_default().insert(peer, gone);
    }

    /// It is here again.
    pub fn forget(&self, room: &RoomName, peer: PeerId) {
        self.0.lock().forget(room, peer, |_| true);
    }

    /// Where it has gone.
    pub fn last(&self, room: &RoomName, peer: PeerId, now: Instant) -> Option<Move> {
        let mut moves = self.0.lock();
        moves.expire(MOST, now);
        moves.rooms.get(room)?.get(&peer).copied()
    }

    /// All that have gone from a room.
    pub fn of(&self, room: &RoomName, now: Instant) -> Vec<(PeerId, Move)> {
        let mut moves = self.0.lock();
        moves.expire(MOST, now);
        moves.rooms.get(room).into_iter().flatten().map(|(&peer, &gone)| (peer, gone)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn so_many_are_remembered_and_for_so_long() {
        let (moves, begun) = (Moves::default(), Instant::now());
        let room = RoomName::parse("r").expect("a name");
        let peer = |number: usize| PeerId::new(Uuid::from_u128(number as u128));
        let node = |number| NodeId::new(NonZeroU64::new(number).expect("not zero"));
        let gone = |to, moves| Move { to: node(to), moves };
        for number in 0..=MOST {
            moves.remember(room.clone(), peer(number), gone(1, 1), begun);
        }
        assert_eq!((moves.last(&room, peer(0), begun), moves.last(&room, peer(1), begun)), (None, Some(gone(1, 1))));
        moves.remember(room.clone(), peer(1), gone(2, 3), begun + KEPT / 2);
        moves.remember(room.clone(), peer(0), gone(1, 1), begun + KEPT);
        assert_eq!(moves.of(&room, begun + KEPT), [(peer(0), gone(1, 1)), (peer(1), gone(2, 3))]);
        moves.forget(&room, peer(1));
        let late = begun + 2 * KEPT;
        assert!(moves.last(&room, peer(0), late).is_none(), "though none has gone since");
        assert!(moves.last(&room, peer(1), late).is_none() && moves.0.lock().rooms.is_empty());
    }
}
