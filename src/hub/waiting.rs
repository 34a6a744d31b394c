//! Seats of those who wait to be admitted, beside the members'.

use std::sync::Arc;
use std::time::Instant;

use super::{Hall, Hub, now};
use crate::cluster::note::Note;
use crate::outbox::SharedSeat;
use crate::protocol::{Code, Frame, LeftReason, PeerId, Refusal, notice};
use crate::timeline::Event;

impl Hub {
    /// `waiting`, for one who waits until then.
    pub(super) fn waiting(&self, until: Instant) -> Frame {
        notice::waiting(self.policy.heartbeat, until.saturating_duration_since(now()))
    }

    /// Makes a member of one who waits: the others hear of it, and it gets its `joined` as after any other join.
    ///
    /// # Errors
    /// `peerGone` if nobody of that id waits, `roomFull` if it has to go on waiting.
    pub(super) fn let_in(&self, hall: &mut Hall, peer: PeerId) -> Result<(), Refusal> {
        let gone = || Refusal::new(Code::PeerGone, "no such peer waits to be admitted");
        let seat = hall.seats.get(&peer).map(Arc::clone).ok_or_else(gone)?;
        let limits = seat.quietly(|seat| Arc::clone(&seat.grant().limits));
        let mut out = Vec::new();
        hall.room.admit(peer, &limits, &mut out)?;
        hall.carry_out(out);
        hall.announce_newcomer(peer);
        hall.record(|| Event::Admitted { peer });
        let joined = self.joined(hall, &seat, None, seat.quietly(|seat| seat.transport()));
        seat.with(|seat| {
            seat.let_in();
            seat.greet(joined);
        });
        hall.update_role(peer, &seat, false);
        self.tend(hall, peer);
        Ok(())
    }

    /// Lets one in who waits, if its newer token spares it the waiting and there is a place. Else it waits on.
    pub(super) fn spare_waiting(&self, hall: &mut Hall, peer: PeerId, seat: &SharedSeat) {
        let rights = seat.quietly(|seat| seat.waits_until().map(|_| seat.grant().rights));
        if rights.is_some_and(|rights| self.policy.waiting.holds.include(rights) == Ok(false)) {
            let _ = self.let_in(hall, peer);
        }
    }
}

impl Hall {
    /// Turns one away who waits.
    ///
    /// # Errors
    /// `peerGone` if nobody of that id waits.
    pub(super) fn turn_away(&mut self, peer: PeerId, reason: LeftReason, why: &'static str) -> Result<(), Refusal> {
        let mut out = Vec::new();
        if !self.room.withdraw(peer, reason, &mut out) {
            return Err(Refusal::new(Code::PeerGone, "no such peer waits to be admitted"));
        }
        if let Some(seat) = self.seats.get(&peer) {
            seat.with(|seat| seat.turn_away(Refusal::new(Code::Forbidden, why)));
        }
        self.carry_out(out);
        self.announce(|room| Note::Left { room, peer, reason });
        self.record(|| Event::Left { peer, reason });
        Ok(())
    }

    /// The room learns whether a member's token lets it moderate. One that begins to, or that moderates and is given a whole new
    /// picture, is told who waits.
    pub(super) fn update_role(&mut self, peer: PeerId, seat: &SharedSeat, is_whole: bool) {
        let moderates = seat.quietly(|seat| seat.grant().rights.moderate);
        if self.room.moderate(peer, moderates) || is_whole {
            let knocks = self.room.tell_of_waiting(peer);
            seat.with(|seat| knocks.into_iter().for_each(|knock| seat.complete(knock)));
        }
    }
}
