//! What a member has been told of a room, for the node to which its seat is handed: it tells the member what is different there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Room, is_polite};
use crate::protocol::{Body, LeftReason, Member, NodeId, PeerId, PeerState, Presence};

/// The room as its members at one node have been told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    revision: u64,
    locked: bool,
    peers: Vec<Known>,
    /// Those who wait to be admitted, where the member moderates.
    waiting: Option<BTreeSet<PeerId>>,
}

/// One of those members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// Who it is.
    pub member: Member,
    /// Whether it has no transport.
    pub away: bool,
    /// Which node has it; `None` for the one that tells so.
    pub node: Option<NodeId>,
    /// How often its seat was handed on until then.
    pub moves: u64,
    /// That node has not said yet that it has it.
    pub in_transit: bool,
}

impl Room {
    /// What a member here has been told.
    pub fn view(&self, peer: PeerId) -> View {
        let others = self.members.values().filter(|seated| seated.member.peer != peer);
        let known = others.map(|seated| Known {
            member: seated.member.clone(),
            away: seated.state == PeerState::Away,
            node: seated.node,
            moves: seated.moves,
            in_transit: seated.in_transit,
        });
        let moderates = self.members.get(&peer).is_some_and(|seated| seated.moderates);
        let waiting = moderates.then(|| self.waiting.keys().copied().collect());
        View { revision: self.revision, locked: self.locked, peers: known.collect(), waiting }
    }

    /// Those that a member knows who are no members as far as this room knows: they have left, or it does not know of them yet.
    pub fn strangers_in<'a>(&self, view: &'a View) -> Vec<&'a Known> {
        view.peers.iter().filter(|known| !self.has(known.member.peer)).collect()
    }

    /// What a member has to be told here that knows so much; who was at a node that has gone is lost with it. From now on this room counts
    /// its changes from where the other node's count was, as the member compares the two.
    pub fn catch_up(&mut self, peer: PeerId, view: &View, has_gone: impl Fn(NodeId) -> bool) -> Vec<Body> {
        self.revision = self.revision.max(view.revision);
        let mut known: BTreeMap<PeerId, &Known> = view.peers.iter().map(|known| (known.member.peer, known)).collect();
        let mut news = Vec::new();
        let mut count = self.revision;
        let mut tell = |body: &dyn Fn(u64) -> Body| {
            count += 1;
            news.push(body(count));
        };
        for seated in self.members.values().filter(|seated| seated.member.peer != peer) {
            let Member { peer: other, metadata, .. } = &seated.member;
            let is_away = seated.state == PeerState::Away;
            let presence = |presence| move |revision| Body::peer_state(presence, *other, revision);
            let whole =
                |presence| move |revision| Body::peer(presence, &seated.member, is_polite(peer, *other), revision);
            let was_away = match known.remove(other) {
                None => {
                    tell(&whole(Presence::Joined));
                    false
                }
                Some(known) => {
                    if known.member.metadata != *metadata {
                        tell(&whole(Presence::Updated));
                    }
                    known.away
                }
            };
            match (was_away, is_away) {
                (false, true) => tell(&presence(Presence::Away)),
                (true, false) => tell(&presence(Presence::Back)),
                _ => {}
            }
        }
        for (gone, known) in known {
            let reason = if known.node.is_some_and(&has_gone) { LeftReason::NodeLost } else { LeftReason::Left };
            tell(&|revision| Body::peer_left(gone, reason, revision));
        }
        if self.locked != view.locked {
            tell(&|revision| Body::room_updated(self.locked, revision));
        }
        for knocker in view.waiting.iter().flatten().filter(|waits| !self.waiting.contains_key(waits)) {
            // Who was admitted is told of above.
            if !self.members.contains_key(knocker) {
                tell(&|revision| Body::peer_left(*knocker, LeftReason::Left, revision));
            }
        }
        let known = view.waiting.as_ref();
        let new = |waits: &PeerId| known.is_some_and(|known| !known.contains(waits));
        for knocker in self.waiting.values().filter(|knocker| new(&knocker.member.peer)) {
            tell(&|revision| Body::knock(&knocker.member, revision));
        }
        self.revision = count;
        news
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{member, peer, room_of};
    use super::*;
    use crate::protocol::Metadata;

    fn told(bodies: &[Body]) -> Vec<(Value, Value)> {
        let read = |body: &Body| serde_json::from_str::<Value>(body.text()).expect("JSON");
        bodies.iter().map(read).map(|body| (body["type"].clone(), body["peer"].clone())).collect()
    }

    #[test]
    fn of_another_picture_of_the_room_a_member_is_told_the_difference_in_one_count() {
        let mut before = room_of(&[1, 2, 3, 4]);
        before.away(peer(3), &mut vec![]);
        before.knock(member(8), 9, &mut vec![]).expect("there is room to wait");
        before.moderate(peer(1), true);
        let view = before.view(peer(1));
        let sent = serde_json::to_string(&view).expect("JSON");
        assert_eq!(serde_json::from_str::<View>(&sent).expect("a view"), view);
        let mut here = room_of(&[1, 3, 4, 5]);
        here.knock(member(9), 9, &mut vec![]).expect("there is room to wait");
        here.update(peer(4), Metadata::new(r#"{"a":1}"#), &mut vec![]);
        here.lock(true, &mut vec![]);
        let count = here.revision().max(before.revision());
        let news = here.catch_up(peer(1), &view, |_| false);
        let kinds = ["peerBack", "peerUpdated", "peerJoined", "peerLeft", "roomUpdated", "peerLeft", "knock"];
        let whom = [Some(3), Some(4), Some(5), Some(2), None, Some(8), Some(9)];
        let expected: Vec<_> = kinds.iter().zip(whom).map(|(kind, who)| (json!(kind), json!(who.map(peer)))).collect();
        assert_eq!(told(&news), expected);
        let last: Value = serde_json::from_str(news[6].text()).expect("JSON");
        assert_eq!((&last["revision"], here.revision()), (&json!(count + 7), count + 7));
        let now = here.view(peer(1));
        assert!(here.catch_up(peer(1), &View { waiting: view.waiting, ..now }, |_| false).len() == 2, "knocks alone");
    }
}
