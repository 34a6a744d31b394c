//! Members that are connected to other nodes of a cluster, as these tell of them.

use super::{Delivery, Known, Room, Seated};
use crate::protocol::{Body, LeftReason, Member, NodeId, PeerId, PeerState};

impl Room {
    /// Another node has this member, whose seat was handed on `moves` times until it came there. What of it is news is told to the
    /// members here.
    ///
    /// Nobody is refused: the other node has let it in. Who tells of somebody that another one has, or this one, without having been
    /// handed the seat after it, is not believed.
    pub fn join_elsewhere(
        &mut self,
        node: NodeId,
        member: Member,
        (state, moves): (PeerState, u64),
        out: &mut Vec<Delivery>,
    ) {
        let peer = member.peer;
        match self.members.get_mut(&peer) {
            Some(seated) if seated.node.is_none() => return,
            Some(seated) if seated.node != Some(node) && moves <= seated.moves => return,
            Some(seated) => {
                (seated.node, seated.moves, seated.in_transit) = (Some(node), moves, false);
                if seated.member.metadata != member.metadata {
                    self.update(peer, member.metadata, out);
                }
            }
            None if self.waiting.get(&peer).is_some_and(|knocker| knocker.node != Some(node)) => return,
            None => {
                // Who was admitted waits no more.
                self.waiting.remove(&peer);
                self.seat(member, Some(node), out);
                self.members.entry(peer).and_modify(|seated| seated.moves = moves);
            }
        }
        match state {
            PeerState::Away => self.away(peer, out),
            PeerState::Here => self.back(peer, out),
        };
    }

    /// A third node says that another one has this member, which has not said so here, and has its word still to give if it is
    /// `in_transit`. One that is out of reach has its members away.
    pub fn join_by_hearsay(
        &mut self,
        known: &Known,
        node: NodeId,
        (in_transit, is_out_of_reach): (bool, bool),
        out: &mut Vec<Delivery>,
    ) {
        let Known { member, moves, .. } = known;
        if self.has(member.peer) {
            return;
        }
        let state = if known.away || is_out_of_reach { PeerState::Away } else { PeerState::Here };
        self.join_elsewhere(node, member.clone(), (state, *moves), out);
        self.members.entry(member.peer).and_modify(|seated| seated.in_transit = in_transit);
    }

    /// The node that has had a member, or this one, has handed its seat to another one, which has not said so yet. Returns whether
    /// that is news.
    pub fn hand_on(&mut self, peer: PeerId, from: Option<NodeId>, to: NodeId, moves: u64) -> bool {
        let Some(seated) = self.members.get_mut(&peer) else { return false };
        if seated.node != from || moves <= seated.moves {
            return false;
        }
        (seated.node, seated.moves, seated.in_transit) = (Some(to), moves, true);
        seated.moderates = false;
        true
    }

    /// A member whose seat was handed to this node. Whoever did not know it hears of it.
    pub fn adopt(&mut self, member: Member, (state, moves): (PeerState, u64), out: &mut Vec<Delivery>) {
        let peer = member.peer;
        match self.members.get_mut(&peer) {
            None => self.seat(member, None, out),
            Some(seated) if seated.member.metadata != member.metadata => self.update(peer, member.metadata, out),
            Some(_) => {}
        }
        if let Some(seated) = self.members.get_mut(&peer) {
            (seated.node, seated.moves, seated.in_transit) = (None, moves, false);
        }
        match state {
            PeerState::Away => self.away(peer, out),
            PeerState::Here => self.back(peer, out),
        };
    }

    /// How often a member's seat was handed on.
    pub fn moves_of(&self, peer: PeerId) -> u64 {
        self.members.get(&peer).map_or(0, |seated| seated.moves)
    }

    /// Whether a member's seat was handed on to a node that has not said yet that it has it.
    pub fn is_in_transit(&self, peer: PeerId) -> bool {
        self.members.get(&peer).is_some_and(|seated| seated.in_transit)
    }

    /// The node that has had a member has it no longer, and did not say why. It had left; but if it was away, it may be that a third node
    /// has taken its seat up. Returns how often the seat was handed on until then, if that is so.
    pub fn doubt(&mut self, peer: PeerId) -> Option<u64> {
        let seated = self.members.get_mut(&peer).filter(|seated| seated.state == PeerState::Away)?;
        seated.in_transit = true;
        Some(seated.moves)
    }

    /// Why a member has left whose node does not say so.
    pub fn likely_reason(&self, peer: PeerId) -> LeftReason {
        let is_away = self.members.get(&peer).is_some_and(|seated| seated.state == PeerState::Away);
        if is_away { LeftReason::Timeout } else { LeftReason::Left }
    }

    /// That node counts as having said so.
    pub fn end_transit(&mut self, peer: PeerId) {
        self.members.entry(peer).and_modify(|seated| seated.in_transit = false);
    }

    /// Another node has this peer wait.
    pub fn knock_elsewhere(&mut self, node: NodeId, member: Member, out: &mut Vec<Delivery>) {
        if !self.waiting.contains_key(&member.peer) && !self.members.contains_key(&member.peer) {
            self.wait(member, Some(node), out);
        }
    }

    /// The other node that a member is connected to, or one who waits; `None` for those here, and for nobody.
    pub fn node_of(&self, peer: PeerId) -> Option<NodeId> {
        let member = self.members.get(&peer).map(|seated| seated.node);
        member.or_else(|| self.waiting.get(&peer).map(|knocker| knocker.node)).flatten()
    }

    /// All that another node has said to have here, members and those who wait.
    pub fn peers_of(&self, node: NodeId) -> Vec<PeerId> {
        let has = |seated: &Seated| seated.node == Some(node) && !seated.in_transit;
        let members = self.members.iter().filter(|(_, seated)| has(seated)).map(|(&peer, _)| peer);
        let waiting = self.waiting.iter().filter(|(_, knocker)| knocker.node == Some(node)).map(|(&peer, _)| peer);
        members.chain(waiting).collect()
    }

    /// Whether another node has a member, or is about to.
    pub fn concerns(&self, node: NodeId) -> bool {
        self.members.values().any(|seated| seated.node == Some(node))
    }

    /// One of another node's is gone, member or not.
    pub fn leave_elsewhere(&mut self, peer: PeerId, reason: LeftReason, out: &mut Vec<Delivery>) {
        if !self.leave(peer, reason, out) {
            self.withdraw(peer, reason, out);
        }
    }

    /// All members, those of other nodes included, in the order of their ids.
    pub fn all_members(&self) -> impl Iterator<Item = (&Member, PeerState)> {
        self.members.values().map(|seated| (&seated.member, seated.state))
    }

    /// All who wait, those at other nodes included.
    pub fn all_waiting(&self) -> impl Iterator<Item = &Member> {
        self.waiting.values().map(|knocker| &knocker.member)
    }

    /// How many members are here, how many away, and how many wait to be members.
    pub fn count(&self) -> (usize, usize, usize) {
        let away = self.members.values().filter(|seated| seated.state == PeerState::Away).count();
        (self.members.len() - away, away, self.waiting.len())
    }

    /// The members here, in the order of their ids, as other nodes are to hear of them: with their states, and how often their seats were
    /// handed on.
    pub fn own_members(&self) -> impl Iterator<Item = (&Member, PeerState, u64)> {
        let own = self.members.values().filter(|seated| seated.node.is_none());
        own.map(|seated| (&seated.member, seated.state, seated.moves))
    }

    /// A member here.
    pub fn own_member(&self, peer: PeerId) -> Option<(&Member, PeerState)> {
        let seated = self.members.get(&peer).filter(|seated| seated.node.is_none())?;
        Some((&seated.member, seated.state))
    }

    /// Those who wait here.
    pub fn own_waiting(&self) -> impl Iterator<Item = &Member> {
        self.waiting.values().filter(|knocker| knocker.node.is_none()).map(|knocker| &knocker.member)
    }

    /// Something for all members here, from one who is not.
    pub fn tell_here(&self, body: &Body, out: &mut Vec<Delivery>) {
        out.extend(self.here().map(|to| Delivery { to, body: body.clone(), receipt: None }));
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use serde_json::{Value, json};

    use super::super::tests::{member, peer, room_of, told};
    use super::*;
    use crate::protocol::{Limits, Metadata, Outbound, PayloadKind};

    fn node(number: u64) -> NodeId {
        NodeId::new(NonZeroU64::new(number).expect("not zero"))
    }

    fn changes(out: &[Delivery]) -> Vec<(PeerId, Value, Value)> {
        told(out).into_iter().map(|(to, told)| (to, told["type"].clone(), told["peer"].clone())).collect()
    }

    #[test]
    fn members_here_hear_of_those_elsewhere_and_those_elsewhere_hear_nothing_from_here() {
        let mut room = room_of(&[1]);
        let mut out = vec![];
        room.join_elsewhere(node(7), member(2), (PeerState::Here, 0), &mut out);
        room.join_elsewhere(node(7), member(3), (PeerState::Away, 0), &mut out);
        room.join(member(4), &Limits::default(), &mut out).expect("there is room");
        room.lock(true, &mut out);
        let message = Outbound {
            kind: PayloadKind::Message,
            to: None,
            payload: "1".into(),
            ephemeral: false,
            dropped: false,
            step: None,
        };
        room.relay(peer(1), None, &message, &mut out);
        assert!(out.iter().all(|delivery| [peer(1), peer(4)].contains(&delivery.to)));
        let heard: Vec<_> = changes(&out).into_iter().filter(|(to, ..)| *to == peer(1)).collect();
        let kinds = ["peerJoined", "peerJoined", "peerAway", "peerJoined", "roomUpdated"];
        assert_eq!(heard.iter().map(|(_, kind, _)| kind.clone()).collect::<Vec<_>>(), kinds.map(|kind| json!(kind)));
        let picture = room.picture(peer(4)).expect("a member");
        assert_eq!(
            picture.peers.iter().map(|info| info.state).collect::<Vec<_>>(),
            [PeerState::Here, PeerState::Here, PeerState::Away]
        );
    }

    #[test]
    fn of_a_whole_roster_only_the_news_is_told() {
        let mut room = room_of(&[1]);
        let mut out = vec![];
        room.join_elsewhere(node(7), member(2), (PeerState::Here, 0), &mut out);
        out.clear();
        room.join_elsewhere(node(7), member(2), (PeerState::Here, 0), &mut out);
        assert!(out.is_empty());
        let renamed = Member { metadata: Metadata::new(r#"{"a":1}"#), ..member(2) };
        room.join_elsewhere(node(7), renamed, (PeerState::Away, 0), &mut out);
        let told = ["peerUpdated", "peerAway"].map(|kind| (peer(1), json!(kind), json!(peer(2))));
        assert_eq!(changes(&out), told);
    }

    #[test]
    fn a_node_speaks_for_its_own_members_alone() {
        let mut room = room_of(&[1]);
        let mut out = vec![];
        room.join_elsewhere(node(7), member(2), (PeerState::Here, 0), &mut out);
        out.clear();
        room.join_elsewhere(node(8), member(2), (PeerState::Away, 0), &mut out);
        room.join_elsewhere(node(8), member(1), (PeerState::Away, 0), &mut out);
        room.knock_elsewhere(node(8), member(2), &mut out);
        assert!(out.is_empty());
        assert_eq!((room.node_of(peer(2)), room.node_of(peer(1)), room.node_of(peer(9))), (Some(node(7)), None, None));
        assert_eq!((room.peers_of(node(7)), room.peers_of(node(8))), (vec![peer(2)], vec![]));
        assert_eq!(room.own_members().map(|(member, ..)| member.peer).collect::<Vec<_>>(), [peer(1)]);
    }

    #[test]
    fn who_waits_is_let_in_by_its_own_node_alone() {
        let mut room = room_of(&[1]);
        let mut out = vec![];
        room.knock(member(2), 9, &mut out).expect("there is room to wait");
        room.knock_elsewhere(node(7), member(3), &mut out);
        for peer in [2, 3] {
            room.join_elsewhere(node(8), member(peer), (PeerState::Here, 0), &mut out);
        }
        assert!(out.is_empty() && !room.has(peer(2)) && !room.has(peer(3)));
        assert_eq!(room.own_waiting().map(|member| member.peer).collect::<Vec<_>>(), [peer(2)]);
    }

    #[test]
    fn a_moderator_hears_who_knocks_elsewhere_and_then_of_the_member() {
        let mut room = room_of(&[1]);
        room.moderate(peer(1), true);
        let mut out = vec![];
        room.knock_elsewhere(node(7), member(2), &mut out);
        room.knock_elsewhere(node(7), member(2), &mut out);
        room.knock_elsewhere(node(7), member(3), &mut out);
        room.join_elsewhere(node(7), member(2), (PeerState::Here, 0), &mut out);
        room.leave_elsewhere(peer(3), LeftReason::Left, &mut out);
        let expected = [("knock", 2), ("knock", 3), ("peerJoined", 2), ("peerLeft", 3)];
        assert_eq!(changes(&out), expected.map(|(kind, who)| (peer(1), json!(kind), json!(peer(who)))));
        assert!(room.own_waiting().next().is_none());
    }

    #[test]
    fn a_room_is_full_wherever_its_members_are() {
        let mut room = room_of(&[1]);
        let mut out = vec![];
        room.join_elsewhere(node(7), member(2), (PeerState::Here, 0), &mut out);
        let full = Limits { peers: 2, ..Limits::default() };
        assert!(room.join(member(3), &full, &mut out).is_err());
    }

    #[test]
    fn a_member_that_moves_is_told_as_nothing_whoever_tells_of_it_first() {
        for new_one_first in [false, true] {
            let mut room = room_of(&[1]);
            let mut out = vec![];
            room.join_elsewhere(node(7), member(2), (PeerState::Here, 0), &mut out);
            out.clear();
            if new_one_first {
                room.join_elsewhere(node(8), member(2), (PeerState::Here, 1), &mut out);
                assert!(!room.hand_on(peer(2), Some(node(7)), node(8), 1), "that is known");
            } else {
                assert!(room.hand_on(peer(2), Some(node(7)), node(8), 1));
                assert!(room.is_in_transit(peer(2)) && room.peers_of(node(8)).is_empty());
                room.join_elsewhere(node(8), member(2), (PeerState::Here, 1), &mut out);
            }
            // An old roster.
            room.join_elsewhere(node(7), member(2), (PeerState::Away, 0), &mut out);
            assert_eq!((room.node_of(peer(2)), room.peers_of(node(7))), (Some(node(8)), vec![]));
            assert!(!room.is_in_transit(peer(2)));
            assert!(out.is_empty() && room.has(peer(2)));
        }
    }

    #[test]
    fn a_seat_that_comes_here_makes_its_member_one_of_this_node() {
        let mut room = room_of(&[1]);
        let mut out = vec![];
        room.join_elsewhere(node(7), member(2), (PeerState::Away, 0), &mut out);
        out.clear();
        room.adopt(member(2), (PeerState::Away, 1), &mut out);
        assert!(out.is_empty());
        room.join_elsewhere(node(7), member(2), (PeerState::Here, 0), &mut out);
        assert_eq!((room.node_of(peer(2)), room.moves_of(peer(2))), (None, 1));
        assert!(room.hand_on(peer(2), None, node(8), 2) && room.is_in_transit(peer(2)));
        room.adopt(member(3), (PeerState::Here, 4), &mut out);
        assert_eq!(changes(&out), [(peer(1), json!("peerJoined"), json!(peer(3)))], "nobody had told of it");
    }
}
