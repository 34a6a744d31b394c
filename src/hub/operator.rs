//! Rooms as the operator sees them, and what the operator does to them: for the admin listener.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Hall, Hub};
use crate::protocol::{Code, Member, NodeId, PeerId, PeerState, Refusal, RoomName, Transport};

/// A room in the list of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSummary {
    /// Its name.
    pub name: RoomName,
    /// Since when there has been somebody in it, at this node.
    pub opened: SystemTime,
    /// Members that are connected, of other nodes, too.
    pub here: usize,
    /// Members that have lost their transport.
    pub away: usize,
    /// Who waits to be admitted.
    pub waiting: usize,
    /// Whether newcomers are refused.
    pub locked: bool,
    /// Messages that wait for members of this node.
    pub queued_messages: usize,
    /// Bytes of them.
    pub queued_bytes: usize,
}

/// A room and who is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomInfo {
    /// As in the list.
    pub summary: RoomSummary,
    /// Members and those who wait, in the order of their ids.
    pub members: Vec<MemberInfo>,
}

/// What a member is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It has a transport, or is between two polls.
    Here,
    /// It has lost its transport.
    Away,
    /// It waits to be admitted.
    Waiting,
}

/// A member, or one who waits to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its id.
    pub peer: PeerId,
    /// The user's name or id, from the token.
    pub user: Option<Arc<str>>,
    /// What it is doing.
    pub state: MemberState,
    /// The other node that it is connected to.
    pub node: Option<NodeId>,
    /// Whether its token lets it moderate; known of this node's.
    pub moderates: bool,
    /// What serves it, or did last; known of this node's.
    pub transport: Option<Transport>,
    /// Where its client is; known of this node's.
    pub address: Option<IpAddr>,
    /// Messages that wait for it.
    pub queued_messages: usize,
    /// Bytes of them.
    pub queued_bytes: usize,
}

impl Hub {
    /// All rooms of which `wanted` holds, in the order of their names; shard by shard, so that no message waits longer than for one.
    pub fn rooms(&self, wanted: impl Fn(&RoomName) -> bool) -> Vec<RoomSummary> {
        let mut rooms = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            rooms.extend(
                shard.iter().filter(|(name, hall)| wanted(name) && !hall.is_empty()).map(|(_, hall)| hall.summary()),
            );
        }
        rooms.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        rooms
    }

    /// One room and who is in it; `None` if it is not open.
    pub fn room(&self, name: &RoomName) -> Option<RoomInfo> {
        let shard = self.shard(name).lock();
        let hall = shard.get(name).filter(|hall| !hall.is_empty())?;
        Some(RoomInfo { summary: hall.summary(), members: hall.members() })
    }

    /// Rooms that have ended and can still be asked about, and for how many seconds they have.
    pub fn ended_rooms(&self) -> BTreeMap<RoomName, u64> {
        let now = super::now();
        let ended = self.timelines.ended(now).into_iter();
        ended.map(|(name, at)| (name, now.saturating_duration_since(at).as_secs())).collect()
    }

    /// Removes a peer for the operator, whether it is a member or waits.
    ///
    /// # Errors
    /// `notFound` if the room or the peer is not there, `badRequest` if the peer is connected to another node, which is to be asked.
    pub fn remove_peer(&self, name: &RoomName, peer: PeerId, reason: Option<&str>) -> Result<(), Refusal> {
        let mut shard = self.shard(name).lock();
        let hall = shard.get_mut(name).ok_or_else(no_such_room)?;
        if let Some(node) = hall.room.node_of(peer) {
            return Err(Refusal::bad_request(format!("the peer is connected to node {node}; ask that one")));
        }
        if !hall.seats.contains_key(&peer) {
            return Err(Refusal::new(Code::NotFound, "no such peer in the room"));
        }
        hall.kick(peer, by_operator("the operator removed this peer", reason));
        self.drop_if_empty(&mut shard, name);
        Ok(())
    }

    /// Locks or unlocks a room for the operator; in a cluster for all nodes.
    ///
    /// # Errors
    /// `notFound` if the room is not there.
    pub fn lock_room(&self, name: &RoomName, locked: bool) -> Result<(), Refusal> {
        let mut shard = self.shard(name).lock();
        shard.get_mut(name).filter(|hall| !hall.is_empty()).ok_or_else(no_such_room)?.lock(locked, None);
        Ok(())
    }

    /// Removes everybody of this node from a room for the operator. Returns how many those were.
    ///
    /// # Errors
    /// `notFound` if the room is not there.
    pub fn close_room(&self, name: &RoomName, reason: Option<&str>) -> Result<usize, Refusal> {
        let mut shard = self.shard(name).lock();
        let hall = shard.get_mut(name).filter(|hall| !hall.is_empty()).ok_or_else(no_such_room)?;
        let peers: Vec<PeerId> = hall.seats.keys().copied().collect();
        let message = by_operator("the operator closed the room", reason);
        for &peer in &peers {
            hall.kick(peer, message.clone());
        }
        self.drop_if_empty(&mut shard, name);
        Ok(peers.len())
    }
}

impl Hall {
    /// Whether it is only being opened.
    fn is_empty(&self) -> bool {
        self.seats.is_empty() && self.room.is_empty()
    }

    fn summary(&self) -> RoomSummary {
        let (here, away, waiting) = self.room.count();
        let queued = self.seats.values().map(|seat| seat.quietly(|seat| seat.queued()));
        let (queued_messages, queued_bytes) = queued.fold((0, 0), |sum, queued| (sum.0 + queued.0, sum.1 + queued.1));
        RoomSummary {
            name: self.room.name().clone(),
            opened: self.opened,
            here,
            away,
            waiting,
            locked: self.room.is_locked(),
            queued_messages,
            queued_bytes,
        }
    }

    fn members(&self) -> Vec<MemberInfo> {
        let state = |state| if state == PeerState::Here { MemberState::Here } else { MemberState::Away };
        let members = self.room.all_members().map(|(member, now)| self.member(member, state(now)));
        let waiting = self.room.all_waiting().map(|member| self.member(member, MemberState::Waiting));
        let mut all: Vec<MemberInfo> = members.chain(waiting).collect();
        all.sort_unstable_by_key(|member| member.peer);
        all
    }

    fn member(&self, member: &Member, state: MemberState) -> MemberInfo {
        let known = MemberInfo {
            peer: member.peer,
            user: member.user.clone(),
            state,
            node: self.room.node_of(member.peer),
            moderates: false,
            transport: None,
            address: None,
            queued_messages: 0,
            queued_bytes: 0,
        };
        let Some(seat) = self.seats.get(&member.peer) else { return known };
        seat.quietly(|seat| {
            let (queued_messages, queued_bytes) = seat.queued();
            MemberInfo {
                moderates: seat.grant().rights.moderate,
                transport: Some(seat.transport()),
                address: seat.address(),
                queued_messages,
                queued_bytes,
                ..known
            }
        })
    }
}

/// What those are told whom the operator removes, in one line whatever was typed.
fn by_operator(what: &str, reason: Option<&str>) -> String {
    let reason = reason.map(|reason| format!(": {}", reason.replace(char::is_control, " ")));
    format!("{what}{}", reason.unwrap_or_default())
}

fn no_such_room() -> Refusal {
    Refusal::new(Code::NotFound, "no such room is open at this node")
}
