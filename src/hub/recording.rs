//! What is noted in a room's timeline, and how the timelines are looked at.

use std::time::Instant;

use super::{Hall, Hub, now};
use crate::hooks::What;
use crate::protocol::{Code, Milestone, Outbound, PeerId, Recipient, Refusal, RoomName, Step};
use crate::timeline::{Event, Outcome, Recording};
use crate::traces::Span;

impl Hub {
    /// Notes that somebody was refused a room, if the room is open: who asks for others leaves nothing behind.
    pub fn note_refusal(&self, room: &RoomName, code: Code) {
        // What ends a member's poll is noted as its leaving, or its going to another transport.
        if matches!(code, Code::Replaced | Code::Kicked) {
            return;
        }
        if let Some(hall) = self.shard(room).lock().get_mut(room) {
            hall.record(|| Event::Refused { peer: None, code });
        }
    }

    /// What has happened in a room, and when it ended, if it has. `None` for one that never was or has been forgotten; nothing of one
    /// that is open where nothing is recorded.
    pub fn recording(&self, room: &RoomName) -> Option<(Option<Instant>, Option<Recording>)> {
        // One lock after the other, the open rooms first: a room that ends meanwhile is found among those that have ended.
        let open = self.shard(room).lock().get(room).map(|hall| hall.timeline.as_ref().map(|timeline| timeline.copy()));
        match open {
            Some(recording) => Some((None, recording)),
            None => self.timelines.of_ended(room, now()).map(|(ended, recording)| (Some(ended), Some(recording))),
        }
    }
}

/// Ends the span of a description with what has become of it.
pub(super) fn end(trace: &Span, outcome: Outcome) {
    match outcome.arrives() {
        true => trace.end(outcome.name()),
        false => trace.fail(outcome.name()),
    }
}

impl Hall {
    /// Notes what has happened to a peer of this node, or to the room, and has the application told.
    pub(super) fn record(&mut self, event: impl FnOnce() -> Event) {
        if self.timeline.is_some() || self.hook.is_some() {
            self.record_at(now(), event());
        }
    }

    /// The same for who has looked at the clock.
    pub(super) fn record_at(&mut self, now: Instant, event: Event) {
        self.tell(&event);
        if let Some(timeline) = &mut self.timeline {
            timeline.record(now, event);
        }
    }

    /// Notes what another node tells of its own. The application hears of it there.
    pub(super) fn record_elsewhere(&mut self, event: impl FnOnce() -> Event) {
        if let Some(timeline) = &mut self.timeline {
            timeline.record(now(), event());
        }
    }

    fn tell(&mut self, event: &Event) {
        let Some((hook, what)) = self.hook.as_ref().zip(What::of(event)) else { return };
        let (What::PeerJoined { peer, .. }
        | What::PeerWaiting { peer, .. }
        | What::PeerAdmitted { peer }
        | What::PeerAway { peer }
        | What::PeerBack { peer }
        | What::PeerLeft { peer, .. }) = what
        else {
            return;
        };
        let room = self.room.name();
        if !std::mem::replace(&mut self.told, true) {
            hook.tell(room, None, What::RoomOpened);
        }
        let user = self.seats.get(&peer).and_then(|seat| seat.quietly(|seat| seat.grant().user.clone()));
        hook.tell(room, user, what);
    }

    /// A member's request was refused.
    pub(super) fn record_refusal(&mut self, peer: PeerId, code: Code) {
        self.record(|| Event::Refused { peer: Some(peer), code });
    }

    /// A member here tells how far its connection with another one has come.
    ///
    /// # Errors
    /// `peerGone` if there is no such member, `badRequest` if it is the same.
    pub(super) fn note_milestone(&mut self, peer: PeerId, told: &Milestone, now: Instant) -> Result<(), Refusal> {
        let with = match told.peer {
            Recipient::Peer(with) if with == peer => {
                return Err(Refusal::bad_request("\"peer\" is oneself, with whom there is no connection"));
            }
            Recipient::Peer(with) if self.room.has(with) => with,
            _ => return Err(Refusal::new(Code::PeerGone, "no such peer in the room")),
        };
        let &Milestone { reached, candidate, after_ms, .. } = told;
        self.record_at(now, Event::Reached { peer, with, reached, candidate, after_ms });
        Ok(())
    }

    /// A step of a negotiation came from a member here.
    pub(super) fn record_step(
        &mut self,
        from: PeerId,
        outbound: &Outbound<'_>,
        step: Step,
        outcome: Outcome,
        now: Instant,
    ) {
        let Some(timeline) = &mut self.timeline else { return };
        let event = match outbound.to {
            Some(Recipient::Peer(to)) if to != from => {
                let bytes = u32::try_from(outbound.payload.len()).unwrap_or(u32::MAX);
                Event::Relayed { from, to, step, bytes, outcome }
            }
            _ => Event::Refused { peer: Some(from), code: Code::PeerGone },
        };
        timeline.record(now, event);
    }
}
