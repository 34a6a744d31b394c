//! Members whose seats are on their way from node to node, as far as a room has to know: what was said to all meanwhile, so that
//! nothing is lost and nothing comes twice. Pure.

use std::collections::BTreeMap;

use crate::cluster::mesh::Mark;
use crate::cluster::note::Said;
use crate::protocol::{Body, NodeId, PeerId};

/// Bytes that are kept for one member while its seat is on its way.
const HELD_BYTES: usize = 1024 * 1024;

/// And messages.
const HELD_MESSAGES: usize = 1024;

/// What each node has said to all in a room.
pub(super) type Heard = BTreeMap<NodeId, Said>;

/// Those of one room.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// Members whose seats were asked for.
    coming: BTreeMap<PeerId, Coming>,
    /// Members whose seats another node wants.
    going: BTreeMap<PeerId, Going>,
    /// How far members that have come had heard each node by then, which may be further than this one has; until that node says more.
    known: BTreeMap<PeerId, Heard>,
}

#[derive(Debug)]
struct Coming {
    /// How many ask for it.
    calls: usize,
    /// What was said to all when it was begun to ask.
    heard: Heard,
    /// What was said since, as far as it is kept.
    since: Vec<(NodeId, Said, Body)>,
    bytes: usize,
    /// What was lost and has no number.
    lost: u64,
}

/// What its client has said so far, and how far that has to arrive before the seat may go.
#[derive(Debug)]
pub(super) struct Going {
    pub(super) requests: u64,
    pub(super) marks: Vec<Mark>,
}

/// What a member is given that has come.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// Payloads for all that only this node has heard.
    pub(super) bodies: Vec<Body>,
    /// How many there were that are no longer here.
    pub(super) lost: u64,
}

impl Moving {
    /// Begins to keep what is said to all for a member whose seat is asked for. Returns what was heard until then.
    pub(super) fn expect(&mut self, peer: PeerId, heard: Heard) -> Heard {
        let (since, bytes, lost) = Default::default();
        let coming = self.coming.entry(peer).or_insert(Coming { calls: 0, heard, since, bytes, lost });
        coming.calls += 1;
        coming.heard.clone()
    }

    /// One who has asked for it does so no more.
    pub(super) fn give_up(&mut self, peer: PeerId) {
        if let Some(coming) = self.coming.get_mut(&peer) {
            coming.calls -= 1;
            if coming.calls == 0 {
                self.coming.remove(&peer);
            }
        }
    }

    /// Whether a member's seat is asked for.
    pub(super) fn expects(&self, peer: PeerId) -> bool {
        self.coming.contains_key(&peer)
    }

    /// Something was said to all, by a member of that node. Returns how much before it those have missed who have come from elsewhere.
    pub(super) fn note(&mut self, node: NodeId, said: Said, body: &Body) -> BTreeMap<PeerId, u64> {
        for coming in self.coming.values_mut() {
            coming.bytes += body.len();
            if coming.bytes <= HELD_BYTES && coming.since.len() < HELD_MESSAGES {
                coming.since.push((node, said, body.clone()));
            }
        }
        let mut missed = BTreeMap::new();
        self.known.retain(|&peer, heard| {
            // What that node says next it has not heard before.
            if let Some(until) = heard.get(&node).copied().filter(|until| *until <= said) {
                heard.remove(&node);
                missed.insert(peer, said.since(until).saturating_sub(1));
            }
            !heard.is_empty()
        });
        missed.retain(|_, missed| *missed > 0);
        missed
    }

    /// A node has said so much to all until now: what of it has not come will not, and neither will some that was said elsewhere and
    /// `brought` there. Returns how much those have missed who have come from elsewhere, and may have heard more there.
    pub(super) fn miss(&mut self, node: NodeId, said: Said, brought: u64) -> BTreeMap<PeerId, u64> {
        self.coming.values_mut().for_each(|coming| coming.lost += brought);
        let mut missed = BTreeMap::new();
        self.known.retain(|&peer, heard| {
            if let Some(until) = heard.get(&node).copied() {
                missed.insert(peer, said.since(until) + brought);
                if until <= said {
                    heard.remove(&node);
                }
            }
            !heard.is_empty()
        });
        missed
    }

    /// How far a member had heard each node when it came.
    pub(super) fn known_to(&self, peer: PeerId) -> impl Iterator<Item = (NodeId, Said)> {
        self.known.get(&peer).into_iter().flatten().map(|(&node, &said)| (node, said))
    }

    /// Whether a member has heard that already where it was before.
    pub(super) fn knows(&self, peer: PeerId, node: NodeId, said: Said) -> bool {
        self.known.get(&peer).and_then(|heard| heard.get(&node)).is_some_and(|until| said <= *until)
    }

    /// Whether any member may know anything.
    pub(super) fn is_known_to_some(&self) -> bool {
        !self.known.is_empty()
    }

    /// A member's seat has come, which had heard so much. `now` is what this node has.
    pub(super) fn arrive(&mut self, peer: PeerId, theirs: &Heard, own: NodeId, now: &Heard) -> Missed {
        let (mut heard, mut missed) = (theirs.clone(), Missed::default());
        if let Some(coming) = self.coming.remove(&peer) {
            missed.lost = coming.lost;
            for (node, said, body) in coming.since {
                // Of a node that was not heard of there, all that it has said may be missing.
                let until = heard.entry(node).or_default();
                if said > *until {
                    missed.lost += said.since(*until) - 1;
                    missed.bodies.push(body);
                    *until = said;
                }
            }
        }
        for (&node, &ours) in now {
            let until = heard.entry(node).or_default();
            missed.lost += ours.since(*until);
            *until = ours.max(*until);
        }
        // That node may not know that it is here, and not say that it has missed something.
        heard.remove(&own);
        if !heard.is_empty() {
            self.known.insert(peer, heard);
        }
        missed
    }

    /// What a member's client has said that wants to go, as of the last time that this was looked at.
    pub(super) fn going(&mut self, peer: PeerId) -> Option<&Going> {
        self.going.get(&peer)
    }

    /// Looks at it again.
    pub(super) fn set_going(&mut self, peer: PeerId, going: Going) {
        self.going.insert(peer, going);
    }

    /// A node does not share the room any more: nothing of it is waited for.
    pub(super) fn forget_node(&mut self, node: NodeId) {
        for heard in self.known.values_mut() {
            heard.remove(&node);
        }
    }

    /// The member is no longer here.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.going.remove(&peer);
        self.known.remove(&peer);
    }
}
