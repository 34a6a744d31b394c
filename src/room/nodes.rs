//! Members that are connected to other nodes of a cluster, as these tell of them.

use super::{Delivery, Room};
use crate::protocol::{Body, LeftReason, Member, NodeId, PeerId, PeerState};

impl Room {
    /// Another node has this member. What of it is news is told to the members here.
    ///
    /// Nobody is refused: the other node has let it in, and who tells of somebody that it does not have is not believed.
    pub fn join_elsewhere(&mut self, node: NodeId, member: Member, state: PeerState, out: &mut Vec<Delivery>) {
        let peer = member.peer;
        match self.members.get(&peer) {
            Some(seated) if seated.node != Some(node) => return,
            Some(seated) if seated.member.metadata != member.metadata => self.update(peer, member.metadata, out),
            Some(_) => {}
            None => {
                // Who was admitted waits no more.
                self.waiting.remove(&peer);
                self.seat(member, Some(node), out);
            }
        }
        match state {
            PeerState::Away => self.away(peer, out),
            PeerState::Here => self.back(peer, out),
        };
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

    /// All that another node has here, members and those who wait.
    pub fn peers_of(&self, node: NodeId) -> Vec<PeerId> {
        let members = self.members.iter().filter(|(_, seated)| seated.node == Some(node)).map(|(&peer, _)| peer);
        let waiting = self.waiting.iter().filter(|(_, knocker)| knocker.node == Some(node)).map(|(&peer, _)| peer);
        members.chain(waiting).collect()
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

    /// The members here, in the order of their ids, as other nodes are to hear of them.
    pub fn own_members(&self) -> impl Iterator<Item = (&Member, PeerState)> {
        self.members.values().filter(|seated| seated.node.is_none()).map(|seated| (&seated.member, seated.state))
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
        room.join_elsewhere(node(7), member(2), PeerState::Here, &mut out);
        room.join_elsewhere(node(7), member(3), PeerState::Away, &mut out);
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
        room.join_elsewhere(node(7), member(2), PeerState::Here, &mut out);
        out.clear();
        room.join_elsewhere(node(7), member(2), PeerState::Here, &mut out);
        assert!(out.is_empty());
        let renamed = Member { metadata: Metadata::new(r#"{"a":1}"#), ..member(2) };
        room.join_elsewhere(node(7), renamed, PeerState::Away, &mut out);
        let told = ["peerUpdated", "peerAway"].map(|kind| (peer(1), json!(kind), json!(peer(2))));
        assert_eq!(changes(&out), told);
    }

    #[test]
    fn a_node_speaks_for_its_own_members_alone() {
        let mut room = room_of(&[1]);
        let mut out = vec![];
        room.join_elsewhere(node(7), member(2), PeerState::Here, &mut out);
        out.clear();
        room.join_elsewhere(node(8), member(2), PeerState::Away, &mut out);
        room.join_elsewhere(node(8), member(1), PeerState::Away, &mut out);
        room.knock_elsewhere(node(8), member(2), &mut out);
        assert!(out.is_empty());
        assert_eq!((room.node_of(peer(2)), room.node_of(peer(1)), room.node_of(peer(9))), (Some(node(7)), None, None));
        assert_eq!((room.peers_of(node(7)), room.peers_of(node(8))), (vec![peer(2)], vec![]));
        assert_eq!(room.own_members().map(|(member, _)| member.peer).collect::<Vec<_>>(), [peer(1)]);
    }

    #[test]
    fn a_moderator_hears_who_knocks_elsewhere_and_then_of_the_member() {
        let mut room = room_of(&[1]);
        room.moderate(peer(1), true);
        let mut out = vec![];
        room.knock_elsewhere(node(7), member(2), &mut out);
        room.knock_elsewhere(node(7), member(2), &mut out);
        room.knock_elsewhere(node(7), member(3), &mut out);
        room.join_elsewhere(node(7), member(2), PeerState::Here, &mut out);
        room.leave_elsewhere(peer(3), LeftReason::Left, &mut out);
        let expected = [("knock", 2), ("knock", 3), ("peerJoined", 2), ("peerLeft", 3)];
        assert_eq!(changes(&out), expected.map(|(kind, who)| (peer(1), json!(kind), json!(peer(who)))));
        assert!(room.own_waiting().next().is_none());
    }

    #[test]
    fn a_room_is_full_wherever_its_members_are() {
        let mut room = room_of(&[1]);
        let mut out = vec![];
        room.join_elsewhere(node(7), member(2), PeerState::Here, &mut out);
        let full = Limits { peers: 2, ..Limits::default() };
        assert!(room.join(member(3), &full, &mut out).is_err());
    }
}
