//! The room: who is in it, who hears what, in which role. A state machine without I/O, clock or randomness: each method is an
//! event, and what follows from it is appended to a list of [`Delivery`]s that the [`hub`](crate::hub) carries out in order.
//!
//! Members may be connected to other nodes of a cluster. They are told nothing from here: what they do and become is told by
//! their own node, and to them by it.
//!
//! The invariant: every member has been told of every other member exactly as often as it changed, in the one order in which
//! [`revision`](Room::revision) counts, either by the [`Picture`] it was given when it came or by the deliveries since.

use std::collections::BTreeMap;

use crate::protocol::{
    Body, Code, LeftReason, Limits, Member, Metadata, NodeId, Outbound, PeerId, PeerInfo, PeerState, Picture, Presence,
    Recipient, Refusal, RoomInfo, RoomName,
};

mod nodes;
mod view;
mod waiting;

pub use view::{Known, View};

/// One message for one member.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Who gets it; a member of the room.
    pub to: PeerId,
    /// What.
    pub body: Body,
    /// Who wants to know whether the recipient's queue took it.
    pub receipt: Option<Receipt>,
}

/// A sender to be answered once the recipient's queue has, or has not, taken a message. The recipient may live on another
/// node, so the answer may come after the call that caused it has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The sender.
    pub from: PeerId,
    /// The id to answer; without one only a failure is told.
    pub id: Option<u64>,
}

impl Receipt {
    /// `ok`, if anybody waits for it.
    pub fn accepted(self) -> Option<Delivery> {
        self.id.map(|_| self.answer(Body::ok(self.id)))
    }

    /// `error`.
    pub fn refused(self, refusal: &Refusal) -> Delivery {
        self.answer(Body::error(self.id, refusal))
    }

    fn answer(self, body: Body) -> Delivery {
        Delivery { to: self.from, body, receipt: None }
    }
}

/// One room's members, ordered by id, and how often they changed.
#[derive(Debug)]
pub struct Room {
    name: RoomName,
    members: BTreeMap<PeerId, Seated>,
    /// Who has knocked, and is to be admitted or refused.
    waiting: BTreeMap<PeerId, Knocker>,
    locked: bool,
    revision: u64,
}

#[derive(Debug)]
struct Seated {
    member: Member,
    state: PeerState,
    moderates: bool,
    /// The other node that it is connected to; `None` for this one.
    node: Option<NodeId>,
    /// How often its seat was handed from node to node: of two nodes that say to have it, the later is right.
    moves: u64,
    /// That node has not said yet that it has it, or has said that it has not, and another one may.
    in_transit: bool,
}

#[derive(Debug)]
struct Knocker {
    member: Member,
    /// As for a member.
    node: Option<NodeId>,
}

impl Room {
    /// An empty room.
    pub fn new(name: RoomName) -> Self {
        Room { name, members: BTreeMap::new(), waiting: BTreeMap::new(), locked: false, revision: 0 }
    }

    /// Its name.
    pub fn name(&self) -> &RoomName {
        &self.name
    }

    /// Takes a newcomer in and tells the others.
    ///
    /// # Errors
    /// `roomFull` or `roomLocked`; nothing has changed then.
    pub fn join(&mut self, member: Member, limits: &Limits, out: &mut Vec<Delivery>) -> Result<(), Refusal> {
        self.refuse_if_locked()?;
        self.refuse_if_full(limits)?;
        self.seat(member, None, out);
        Ok(())
    }

    /// Frees a member's place and tells the others. Returns whether it was one.
    pub fn leave(&mut self, peer: PeerId, reason: LeftReason, out: &mut Vec<Delivery>) -> bool {
        let left = self.members.remove(&peer).is_some();
        if left {
            self.revision += 1;
            // Who waits keeps the room, but not what those wanted of it who have gone.
            self.locked &= !self.members.is_empty();
            self.tell_others(peer, &Body::peer_left(peer, reason, self.revision), out);
        }
        left
    }

    /// A member lost its transport; its place is kept. Returns whether that is news.
    pub fn away(&mut self, peer: PeerId, out: &mut Vec<Delivery>) -> bool {
        self.change_state(peer, PeerState::Away, Presence::Away, out)
    }

    /// A member has a transport again. Returns whether that is news.
    pub fn back(&mut self, peer: PeerId, out: &mut Vec<Delivery>) -> bool {
        self.change_state(peer, PeerState::Here, Presence::Back, out)
    }

    /// A member replaces its metadata.
    pub fn update(&mut self, peer: PeerId, metadata: Metadata, out: &mut Vec<Delivery>) {
        if let Some(seated) = self.members.get_mut(&peer) {
            seated.member.metadata = metadata;
            self.tell_of(Presence::Updated, peer, out);
        }
    }

    /// Locks or unlocks the room: newcomers are refused while it is locked. Everybody is told, the moderator too. Returns whether
    /// that is news.
    pub fn lock(&mut self, locked: bool, out: &mut Vec<Delivery>) -> bool {
        let changes = self.locked != locked;
        if changes {
            self.locked = locked;
            self.revision += 1;
            let body = Body::room_updated(locked, self.revision);
            out.extend(self.here().map(|to| Delivery { to, body: body.clone(), receipt: None }));
        }
        changes
    }

    /// Whether newcomers are refused.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Carries a member's payload to one other or to all others. The sender is answered by `ok` or `error`: here, or, for a
    /// directed one, as the delivery's receipt says.
    pub fn relay(&self, from: PeerId, id: Option<u64>, outbound: &Outbound<'_>, out: &mut Vec<Delivery>) {
        let receipt = Receipt { from, id };
        match outbound.to {
            Some(Recipient::Peer(to)) if to == from => {
                out.push(receipt.refused(&Refusal::bad_request("\"to\" is the sender itself")));
            }
            Some(Recipient::Peer(to)) if outbound.dropped && self.members.contains_key(&to) => {
                out.extend(receipt.accepted());
            }
            Some(Recipient::Peer(to)) if self.members.contains_key(&to) => {
                out.push(Delivery { to, body: Body::relay(from, outbound), receipt: Some(receipt) });
            }
            Some(_) => out.push(receipt.refused(&Refusal::new(Code::PeerGone, "no such peer in the room"))),
            None => {
                self.tell_others(from, &Body::relay(from, outbound), out);
                out.extend(receipt.accepted());
            }
        }
    }

    /// The whole room as `peer` sees it; `None` for a stranger.
    pub fn picture(&self, peer: PeerId) -> Option<Picture> {
        let own = self.members.get(&peer)?.member.clone();
        let others = self.members.values().filter(|seated| seated.member.peer != peer);
        let peers = others.map(|seated| PeerInfo {
            member: seated.member.clone(),
            polite: is_polite(peer, seated.member.peer),
            state: seated.state,
        });
        let room = RoomInfo { name: self.name.as_str().to_owned(), locked: self.locked, revision: self.revision };
        Some(Picture { own, room, peers: peers.collect() })
    }

    /// How many members there are, away ones included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether `peer` is a member; who waits is none.
    pub fn has(&self, peer: PeerId) -> bool {
        self.members.contains_key(&peer)
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Counts the changes that members are told of.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn refuse_if_locked(&self) -> Result<(), Refusal> {
        if self.locked { Err(Refusal::new(Code::RoomLocked, "the room is locked")) } else { Ok(()) }
    }

    fn refuse_if_full(&self, limits: &Limits) -> Result<(), Refusal> {
        if self.members.len() < limits.peers {
            return Ok(());
        }
        Err(Refusal::new(Code::RoomFull, format!("the room has {} peers already", self.members.len())))
    }

    fn seat(&mut self, member: Member, node: Option<NodeId>, out: &mut Vec<Delivery>) {
        let peer = member.peer;
        let (state, moderates, moves, in_transit) = (PeerState::Here, false, 0, false);
        self.members.insert(peer, Seated { member, state, moderates, node, moves, in_transit });
        self.tell_of(Presence::Joined, peer, out);
    }

    fn change_state(&mut self, peer: PeerId, state: PeerState, presence: Presence, out: &mut Vec<Delivery>) -> bool {
        let Some(seated) = self.members.get_mut(&peer).filter(|seated| seated.state != state) else { return false };
        seated.state = state;
        self.revision += 1;
        self.tell_others(peer, &Body::peer_state(presence, peer, self.revision), out);
        true
    }

    /// The members that are connected to this node.
    fn here(&self) -> impl Iterator<Item = PeerId> {
        self.members.iter().filter(|(_, seated)| seated.node.is_none()).map(|(&peer, _)| peer)
    }

    /// Tells all others of a member. `polite` depends on the recipient, so there are up to two bodies, each encoded once.
    fn tell_of(&mut self, presence: Presence, peer: PeerId, out: &mut Vec<Delivery>) {
        self.revision += 1;
        let Some(seated) = self.members.get(&peer) else { return };
        let body = |polite| Body::peer(presence, &seated.member, polite, self.revision);
        let (mut impolite, mut polite) = (None, None);
        for to in self.here().filter(|&to| to != peer) {
            let role = is_polite(to, peer);
            let slot = if role { &mut polite } else { &mut impolite };
            let body = slot.get_or_insert_with(|| body(role)).clone();
            out.push(Delivery { to, body, receipt: None });
        }
    }

    fn tell_others(&self, peer: PeerId, body: &Body, out: &mut Vec<Delivery>) {
        let others = self.here().filter(|&to| to != peer);
        out.extend(others.map(|to| Delivery { to, body: body.clone(), receipt: None }));
    }
}

/// Whether `own` is the polite one of the pair ("perfect negotiation", W3C WebRTC 10.7): the greater id is, which is the
/// newcomer on one node and needs no agreement between several.
pub fn is_polite(own: PeerId, other: PeerId) -> bool {
    own > other
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::protocol::PayloadKind;

    pub(super) fn peer(number: u128) -> PeerId {
        PeerId::new(Uuid::from_u128(number))
    }

    pub(super) fn member(number: u128) -> Member {
        Member { peer: peer(number), user: None, metadata: Metadata::new("{}") }
    }

    pub(super) fn room_of(numbers: &[u128]) -> Room {
        let mut room = Room::new(RoomName::parse("r").expect("a name"));
        for &number in numbers {
            room.join(member(number), &Limits::default(), &mut vec![]).expect("there is room");
        }
        room
    }

    pub(super) fn told(out: &[Delivery]) -> Vec<(PeerId, Value)> {
        let read = |body: &Body| serde_json::from_slice(&body.frame(None).text()).expect("JSON");
        out.iter().map(|delivery| (delivery.to, read(&delivery.body))).collect()
    }

    fn message(to: Option<Recipient>) -> Outbound<'static> {
        Outbound { kind: PayloadKind::Message, to, payload: "1".into(), ephemeral: false, dropped: false, step: None }
    }

    #[test]
    fn of_two_peers_the_one_with_the_greater_id_is_polite_whoever_came_first() {
        let mut room = room_of(&[5, 9]);
        let mut out = vec![];
        room.join(member(7), &Limits::default(), &mut out).expect("there is room");
        let roles: Vec<_> = told(&out).into_iter().map(|(to, message)| (to, message["polite"].clone())).collect();
        assert_eq!(roles, [(peer(5), json!(false)), (peer(9), json!(true))]);
        let picture = room.picture(peer(7)).expect("a member");
        let roles: Vec<_> = picture.peers.iter().map(|other| (other.member.peer, other.polite)).collect();
        assert_eq!(roles, [(peer(5), true), (peer(9), false)]);
    }

    #[test]
    fn every_change_has_a_revision_and_none_is_told_to_its_cause() {
        let mut room = room_of(&[1, 2]);
        let mut out = vec![];
        room.away(peer(2), &mut out);
        room.away(peer(2), &mut out);
        room.back(peer(2), &mut out);
        room.update(peer(2), Metadata::new(r#"{"a":1}"#), &mut out);
        room.leave(peer(2), LeftReason::Timeout, &mut out);
        room.leave(peer(2), LeftReason::Timeout, &mut out);
        let changes: Vec<_> =
            told(&out).into_iter().map(|(to, told)| (to, told["type"].clone(), told["revision"].clone())).collect();
        let expected = ["peerAway", "peerBack", "peerUpdated", "peerLeft"].into_iter().zip(3..);
        assert_eq!(
            changes,
            expected.map(|(name, revision)| (peer(1), json!(name), json!(revision))).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_full_room_refuses_and_stays_as_it_was() {
        let mut room = room_of(&[1, 2]);
        let mut out = vec![];
        let limits = Limits { peers: 2, ..Limits::default() };
        assert_eq!(room.join(member(3), &limits, &mut out).map_err(|refusal| refusal.code), Err(Code::RoomFull));
        assert!(out.is_empty() && room.len() == 2 && room.revision() == 2);
        room.leave(peer(1), LeftReason::Left, &mut out);
        assert!(room.join(member(3), &limits, &mut out).is_ok());
    }

    #[test]
    fn a_locked_room_refuses_newcomers_and_all_members_hear_of_it_once() {
        let mut room = room_of(&[1, 2]);
        let mut out = vec![];
        room.lock(true, &mut out);
        room.lock(true, &mut out);
        let update = json!({"type": "roomUpdated", "locked": true, "revision": 3});
        assert_eq!(told(&out), [(peer(1), update.clone()), (peer(2), update)]);
        let refused = room.join(member(3), &Limits::default(), &mut out).map_err(|refusal| refusal.code);
        assert_eq!(refused, Err(Code::RoomLocked));
        room.lock(false, &mut out);
        assert!(room.join(member(3), &Limits::default(), &mut out).is_ok());
    }

    #[test]
    fn a_directed_message_carries_its_receipt_and_a_broadcast_is_answered_at_once() {
        let room = room_of(&[1, 2, 3]);
        let mut out = vec![];
        room.relay(peer(1), Some(4), &message(Some(Recipient::Peer(peer(3)))), &mut out);
        assert_eq!(
            out.iter().map(|d| (d.to, d.receipt)).collect::<Vec<_>>(),
            [(peer(3), Some(Receipt { from: peer(1), id: Some(4) }))]
        );
        out.clear();
        room.relay(peer(1), Some(5), &message(None), &mut out);
        assert_eq!(told(&out).last(), Some(&(peer(1), json!({"type": "ok", "id": 5}))));
        assert_eq!(out.iter().map(|d| d.to).collect::<Vec<_>>(), [peer(2), peer(3), peer(1)]);
    }

    #[test]
    fn strangers_and_oneself_are_no_recipients() {
        let room = room_of(&[1]);
        for (to, code) in [
            (Recipient::Peer(peer(1)), "badRequest"),
            (Recipient::Peer(peer(9)), "peerGone"),
            (Recipient::Nobody, "peerGone"),
        ] {
            let mut out = vec![];
            room.relay(peer(1), None, &message(Some(to)), &mut out);
            assert_eq!(told(&out).first().map(|(to, told)| (*to, told["code"].clone())), Some((peer(1), json!(code))));
        }
    }
}
