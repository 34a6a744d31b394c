//! The room as a client knows it. Pure: messages in, changes out.

use std::collections::BTreeMap;

use super::message::{Change, Joined, Own, Peer, PeerState, Room};

/// Who is in the room, oneself aside, and how.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    own: Option<Own>,
    room: Option<Room>,
    peers: BTreeMap<String, Peer>,
    waiting: BTreeMap<String, Peer>,
}

impl Roster {
    /// Oneself; `None` before the first `joined`.
    pub fn own(&self) -> Option<&Own> {
        self.own.as_ref()
    }

    /// The room; `None` before the first `joined`.
    pub fn room(&self) -> Option<&Room> {
        self.room.as_ref()
    }

    /// The others by their ids.
    pub fn peers(&self) -> &BTreeMap<String, Peer> {
        &self.peers
    }

    /// Who waits to be admitted, by their ids; only moderators know.
    pub fn waiting(&self) -> &BTreeMap<String, Peer> {
        &self.waiting
    }

    /// Takes a whole picture, after which moderators are told anew who waits; tells how it differs from the picture before, and nothing for the first.
    ///
    /// Under another id of one's own every pair is a new pair, with new roles: the old ones are over.
    pub(super) fn replace(&mut self, joined: &Joined) -> Vec<Change> {
        let is_first = self.own.is_none();
        let is_same = self.own.as_ref().is_some_and(|own| own.peer == joined.own.peer);
        let was_locked = self.room.as_ref().is_some_and(|room| room.locked);
        let before = std::mem::take(&mut self.peers);
        let waited = std::mem::take(&mut self.waiting);
        self.own = Some(joined.own.clone());
        self.room = Some(joined.room.clone());
        self.peers = joined.peers.iter().map(|peer| (peer.peer.clone(), peer.clone())).collect();
        if is_first {
            return Vec::new();
        }
        let stays = |id: &String| is_same && self.peers.contains_key(id);
        let admitted = |id: &String| self.peers.contains_key(id);
        let gone = before.keys().filter(|id| !stays(id)).chain(waited.keys().filter(|id| !admitted(id)));
        let mut changes: Vec<Change> =
            gone.map(|id| Change::PeerLeft { peer: id.clone(), reason: "timeout".into() }).collect();
        for peer in self.peers.values() {
            changes.extend(differences(before.get(&peer.peer).filter(|_| is_same), peer));
        }
        if was_locked != joined.room.locked {
            changes.push(Change::RoomUpdated { locked: joined.room.locked });
        }
        changes
    }

    /// Takes one change. Returns it with all that is known of the peer, or `None` where the picture has it already.
    pub(super) fn apply(&mut self, revision: Option<u64>, change: Change) -> Option<Change> {
        let room = self.room.as_mut()?;
        if revision.is_some_and(|revision| revision <= room.revision) {
            return None;
        }
        room.revision = revision.unwrap_or(room.revision);
        match change {
            Change::Knock(peer) => {
                self.waiting.insert(peer.peer.clone(), peer.clone());
                Some(Change::Knock(peer))
            }
            Change::PeerJoined(peer) => {
                self.waiting.remove(&peer.peer);
                self.peers.insert(peer.peer.clone(), peer.clone());
                Some(Change::PeerJoined(peer))
            }
            Change::PeerUpdated(Peer { peer, user, metadata, .. }) => {
                let known = self.peers.get_mut(&peer)?;
                (known.user, known.metadata) = (user, metadata);
                Some(Change::PeerUpdated(known.clone()))
            }
            Change::PeerAway { peer } => {
                self.peers.get_mut(&peer)?.state = PeerState::Away;
                Some(Change::PeerAway { peer })
            }
            Change::PeerBack { peer } => {
                self.peers.get_mut(&peer)?.state = PeerState::Here;
                Some(Change::PeerBack { peer })
            }
            Change::PeerLeft { peer, reason } => {
                let gone = self.peers.remove(&peer).or_else(|| self.waiting.remove(&peer));
                gone.map(|Peer { peer, .. }| Change::PeerLeft { peer, reason })
            }
            Change::RoomUpdated { locked } => {
                room.locked = locked;
                Some(Change::RoomUpdated { locked })
            }
        }
    }
}

/// What happened to a peer between two pictures.
fn differences(before: Option<&Peer>, now: &Peer) -> Vec<Change> {
    let Some(before) = before else { return vec![Change::PeerJoined(now.clone())] };
    let mut changes = Vec::new();
    if before.user != now.user || before.metadata != now.metadata {
        changes.push(Change::PeerUpdated(now.clone()));
    }
    let peer = now.peer.clone();
    match (before.state, now.state) {
        (PeerState::Here, PeerState::Away) => changes.push(Change::PeerAway { peer }),
        (PeerState::Away, PeerState::Here) => changes.push(Change::PeerBack { peer }),
        _ => {}
    }
    changes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::message::{Incoming, ServerMessage};
    use super::*;

    fn joined(own: &str, revision: u64, peers: &Value) -> Joined {
        let text = json!({"type": "joined", "replayFrom": 1, "self": {"peer": own}, "ticket": "t", "peers": peers,
            "room": {"name": "r", "locked": false, "revision": revision}});
        serde_json::from_value(text).expect("well-formed")
    }

    fn change(message: &Value) -> (Option<u64>, Change) {
        match Incoming::parse(&message.to_string()).expect("well-formed").message {
            ServerMessage::Room { revision, change } => (revision, change),
            other => panic!("not a change: {other:?}"),
        }
    }

    #[test]
    fn a_change_that_the_picture_has_already_is_not_told_again() {
        let mut roster = Roster::default();
        assert_eq!(roster.replace(&joined("me", 5, &json!([{"peer": "a", "polite": true}]))), []);
        let (revision, older) = change(&json!({"type": "peerJoined", "peer": "a", "polite": true, "revision": 5}));
        assert_eq!(roster.apply(revision, older), None);
        let (revision, left) = change(&json!({"type": "peerLeft", "peer": "a", "reason": "left", "revision": 6}));
        assert_eq!(roster.apply(revision, left.clone()), Some(left));
        assert!(roster.peers().is_empty());
        let (revision, stranger) = change(&json!({"type": "peerAway", "peer": "b", "revision": 7}));
        assert_eq!(roster.apply(revision, stranger), None);
    }

    #[test]
    fn an_update_keeps_role_and_state() {
        let mut roster = Roster::default();
        roster.replace(&joined("me", 1, &json!([{"peer": "a", "polite": true, "state": "away"}])));
        let (revision, update) =
            change(&json!({"type": "peerUpdated", "peer": "a", "metadata": {"n": 1}, "polite": false, "revision": 2}));
        let Some(Change::PeerUpdated(peer)) = roster.apply(revision, update) else { panic!("told") };
        assert_eq!((peer.polite, peer.state, peer.metadata.json()), (true, PeerState::Away, r#"{"n":1}"#));
    }

    #[test]
    fn a_new_picture_is_told_as_what_has_changed() {
        let mut roster = Roster::default();
        roster.replace(&joined("me", 1, &json!([{"peer": "a"}, {"peer": "b"}, {"peer": "c"}])));
        let picture = joined("me", 9, &json!([{"peer": "b", "state": "away"}, {"peer": "c"}, {"peer": "d"}]));
        let told = roster.replace(&picture);
        assert!(matches!(&told[..], [
            Change::PeerLeft { peer: a, .. },
            Change::PeerAway { peer: b },
            Change::PeerJoined(d),
        ] if a == "a" && b == "b" && d.peer == "d"));
        // Under a new id of one's own all pairs begin anew.
        let told = roster.replace(&joined("me again", 12, &json!([{"peer": "c"}])));
        let left = told.iter().filter(|change| matches!(change, Change::PeerLeft { .. })).count();
        assert_eq!((left, told.len()), (3, 4));
    }

    #[test]
    fn who_waits_is_told_to_have_gone_and_is_told_anew_after_a_picture() {
        let peer = |id: &str| serde_json::from_value::<Peer>(json!({"peer": id})).expect("well-formed");
        let mut roster = Roster::default();
        roster.replace(&joined("me", 1, &json!([])));
        for (revision, id) in [(2, "a"), (3, "b"), (4, "c")] {
            assert!(roster.apply(Some(revision), Change::Knock(peer(id))).is_some());
        }
        assert!(roster.apply(Some(5), Change::PeerLeft { peer: "a".into(), reason: "kicked".into() }).is_some());
        let changes = roster.replace(&joined("me", 9, &json!([{"peer": "c"}])));
        let left = Change::PeerLeft { peer: "b".into(), reason: "timeout".into() };
        assert_eq!(changes, [left, Change::PeerJoined(peer("c"))]);
        assert!(roster.apply(Some(3), Change::Knock(peer("b"))).is_none(), "older than the picture");
        assert!(roster.apply(Some(10), Change::Knock(peer("b"))).is_some());
        assert_eq!(roster.waiting().keys().collect::<Vec<_>>(), ["b"]);
        assert!(roster.apply(Some(11), Change::PeerJoined(peer("b"))).is_some() && roster.waiting().is_empty());
    }
}
