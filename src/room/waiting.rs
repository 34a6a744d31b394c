//! The waiting room: who has knocked, and which members hear of it.
//!
//! Who waits hears nothing of the room. Of who waits, only moderators hear: by `knock`, then by `peerJoined` as all members do
//! when one is admitted, or by `peerLeft` when one has gone.

use super::{Delivery, Knocker, Room};
use crate::protocol::{Body, Code, LeftReason, Limits, Member, NodeId, PeerId, Refusal};

impl Room {
    /// Lets somebody wait, of whom there may be `most`, and tells the moderators.
    ///
    /// # Errors
    /// `roomLocked`, or `roomFull` where too many wait; nothing has changed then.
    pub fn knock(&mut self, member: Member, most: usize, out: &mut Vec<Delivery>) -> Result<(), Refusal> {
        self.refuse_if_locked()?;
        if self.waiting.len() >= most {
            return Err(Refusal::new(Code::RoomFull, format!("{} peers wait already", self.waiting.len())));
        }
        self.wait(member, None, out);
        Ok(())
    }

    pub(super) fn wait(&mut self, member: Member, node: Option<NodeId>, out: &mut Vec<Delivery>) {
        self.revision += 1;
        self.tell_moderators(&Body::knock(&member, self.revision), out);
        self.waiting.insert(member.peer, Knocker { member, node });
    }

    /// Makes a member of one who waits, although the room may be locked, and tells the others.
    ///
    /// # Errors
    /// `peerGone` if nobody of that id waits, `roomFull` if there is no place, for which it goes on waiting.
    pub fn admit(&mut self, peer: PeerId, limits: &Limits, out: &mut Vec<Delivery>) -> Result<(), Refusal> {
        if !self.waiting.contains_key(&peer) {
            return Err(Refusal::new(Code::PeerGone, "no such peer waits to be admitted"));
        }
        self.refuse_if_full(limits)?;
        if let Some(Knocker { member, node }) = self.waiting.remove(&peer) {
            self.seat(member, node, out);
        }
        Ok(())
    }

    /// One who waited has gone, for the reason that the moderators are told. Returns whether it had waited.
    pub fn withdraw(&mut self, peer: PeerId, reason: LeftReason, out: &mut Vec<Delivery>) -> bool {
        let waited = self.waiting.remove(&peer).is_some();
        if waited {
            self.revision += 1;
            self.tell_moderators(&Body::peer_left(peer, reason, self.revision), out);
        }
        waited
    }

    /// Says whether a member moderates. Returns whether it does and did not before.
    pub fn moderate(&mut self, peer: PeerId, moderates: bool) -> bool {
        let Some(seated) = self.members.get_mut(&peer) else { return false };
        let begins = moderates && !seated.moderates;
        seated.moderates = moderates;
        begins
    }

    /// What a moderator is told of all who wait: those whom a picture, which has members alone, leaves out.
    pub fn tell_of_waiting(&mut self, peer: PeerId) -> Vec<Body> {
        if !self.members.get(&peer).is_some_and(|seated| seated.moderates) {
            return Vec::new();
        }
        let revisions = self.revision + 1..;
        self.revision += self.waiting.len() as u64;
        self.waiting.values().zip(revisions).map(|(knocker, revision)| Body::knock(&knocker.member, revision)).collect()
    }

    fn tell_moderators(&self, body: &Body, out: &mut Vec<Delivery>) {
        let moderators = self.members.iter().filter(|(_, seated)| seated.moderates);
        out.extend(moderators.map(|(&to, _)| Delivery { to, body: body.clone(), receipt: None }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{member, peer, room_of, told};
    use super::*;
    use serde_json::{Value, json};

    fn knock(room: &mut Room, number: u128) -> Vec<(PeerId, Value)> {
        let mut out = vec![];
        room.knock(member(number), 2, &mut out).expect("there is room to wait");
        told(&out)
    }

    fn moderated() -> Room {
        let mut room = room_of(&[1, 2]);
        room.moderate(peer(1), true);
        room
    }

    #[test]
    fn moderators_alone_hear_who_knocks_and_who_has_gone() {
        let mut room = moderated();
        let knocked = json!({"type": "knock", "peer": peer(3), "metadata": {}, "revision": 3});
        assert_eq!(knock(&mut room, 3), [(peer(1), knocked)]);
        let mut out = vec![];
        assert!(room.withdraw(peer(3), LeftReason::Left, &mut out));
        assert!(!room.withdraw(peer(3), LeftReason::Left, &mut out));
        let left = json!({"type": "peerLeft", "peer": peer(3), "reason": "left", "revision": 4});
        assert_eq!(told(&out), [(peer(1), left)]);
    }

    #[test]
    fn who_moderates_is_told_of_all_who_wait() {
        let mut room = moderated();
        knock(&mut room, 3);
        knock(&mut room, 4);
        assert!(room.moderate(peer(2), true));
        assert!(!room.moderate(peer(2), true), "it did before");
        let before = room.revision;
        let knocks = room.tell_of_waiting(peer(2)).into_iter();
        let out: Vec<_> = knocks.map(|body| Delivery { to: peer(2), body, receipt: None }).collect();
        let heard: Vec<_> =
            told(&out).into_iter().map(|(_, knock)| (knock["peer"].clone(), knock["revision"].clone())).collect();
        assert_eq!(heard, [(json!(peer(3)), json!(before + 1)), (json!(peer(4)), json!(before + 2))]);
        assert_eq!(room.revision, before + 2);
        room.moderate(peer(2), false);
        assert!(room.tell_of_waiting(peer(2)).is_empty(), "it moderates no more");
    }

    #[test]
    fn who_waits_is_neither_seen_nor_reached_and_is_a_member_once_admitted() {
        let mut room = moderated();
        knock(&mut room, 3);
        assert!(room.picture(peer(3)).is_none());
        assert_eq!(room.picture(peer(2)).map(|picture| picture.peers.len()), Some(1));
        let mut out = vec![];
        room.admit(peer(3), &Limits::default(), &mut out).expect("it waits");
        let heard: Vec<_> = told(&out).into_iter().map(|(to, told)| (to, told["type"].clone())).collect();
        assert_eq!(heard, [(peer(1), json!("peerJoined")), (peer(2), json!("peerJoined"))]);
        let again = room.admit(peer(3), &Limits::default(), &mut out).map_err(|refusal| refusal.code);
        assert_eq!(again, Err(Code::PeerGone));
    }

    #[test]
    fn a_full_room_admits_nobody_and_a_locked_one_hears_no_knock() {
        let mut room = moderated();
        knock(&mut room, 3);
        let full = Limits { peers: 2, ..Limits::default() };
        let refused = room.admit(peer(3), &full, &mut vec![]).map_err(|refusal| refusal.code);
        assert_eq!(refused, Err(Code::RoomFull));
        room.lock(true, &mut vec![]);
        let locked = room.knock(member(4), 2, &mut vec![]).map_err(|refusal| refusal.code);
        assert_eq!(locked, Err(Code::RoomLocked));
        assert!(room.admit(peer(3), &Limits::default(), &mut vec![]).is_ok(), "the moderator has decided");
    }

    #[test]
    fn a_room_that_its_last_member_has_left_is_open_again_though_somebody_waits() {
        let mut room = moderated();
        knock(&mut room, 3);
        room.lock(true, &mut vec![]);
        room.leave(peer(1), LeftReason::Left, &mut vec![]);
        assert_eq!(room.knock(member(4), 2, &mut vec![]).map_err(|refusal| refusal.code), Err(Code::RoomLocked));
        room.leave(peer(2), LeftReason::Left, &mut vec![]);
        assert!(room.knock(member(4), 2, &mut vec![]).is_ok());
    }

    #[test]
    fn so_many_may_wait_and_no_more() {
        let mut room = moderated();
        knock(&mut room, 3);
        knock(&mut room, 4);
        let refused = room.knock(member(5), 2, &mut vec![]).map_err(|refusal| refusal.code);
        assert_eq!(refused, Err(Code::RoomFull));
        room.withdraw(peer(3), LeftReason::Timeout, &mut vec![]);
        assert!(room.knock(member(5), 2, &mut vec![]).is_ok());
    }
}
