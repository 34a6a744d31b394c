//! What the operator's application is to hear of rooms, on its way from them to who tells it ([`webhook`](crate::webhook)).
//!
//! It is put into a queue under the lock of its room, which costs a moment and never waits; what finds it full is left out and
//! counted.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::metrics::{Metrics, Told};
use crate::protocol::{LeftReason, PeerId, RoomName};
use crate::timeline::Event;

/// How many wait to be told.
const QUEUE: usize = 10_000;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum What {
    /// The server has started: nobody is at this node.
    ServerStarted,
    /// It ends: whoever was at this node and has not gone on at another one is gone.
    ServerStopped,
    /// A room has its first peer, at this node.
    RoomOpened,
    /// It has none any more, at this node.
    RoomEnded,
    /// A member took its seat.
    PeerJoined {
        /// Who.
        peer: PeerId,
        /// By what.
        transport: &'static str,
    },
    /// Somebody waits to be admitted.
    PeerWaiting {
        /// Who.
        peer: PeerId,
        /// By what.
        transport: &'static str,
    },
    /// One who waited is a member.
    PeerAdmitted {
        /// Who.
        peer: PeerId,
    },
    /// A member lost its transport.
    PeerAway {
        /// Who.
        peer: PeerId,
    },
    /// It has one again.
    PeerBack {
        /// Who.
        peer: PeerId,
    },
    /// A member, or one who waited, is gone.
    PeerLeft {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: LeftReason,
    },
}

impl What {
    /// What an event of a timeline is to the application; `None` where it need not hear of it.
    pub fn of(event: &Event) -> Option<What> {
        Some(match *event {
            Event::Joined { peer, transport: Some(transport) } => {
                What::PeerJoined { peer, transport: transport.name() }
            }
            Event::Knocked { peer, transport: Some(transport) } => {
                What::PeerWaiting { peer, transport: transport.name() }
            }
            Event::Admitted { peer } => What::PeerAdmitted { peer },
            Event::Away { peer, .. } => What::PeerAway { peer },
            Event::Back { peer, .. } => What::PeerBack { peer },
            Event::Left { peer, reason } => What::PeerLeft { peer, reason },
            _ => return None,
        })
    }
}

/// What has happened, where and when.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Happening {
    at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<RoomName>,
    /// From the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Arc<str>>,
    #[serde(flatten)]
    what: What,
}

impl Happening {
    /// Of a room, or of the server, now.
    pub fn now(room: Option<RoomName>, user: Option<Arc<str>>, what: What) -> Self {
        Happening { at_ms: now_ms(), room, user, what }
    }
}

/// The beginning of the way to the application. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hook {
    queue: mpsc::Sender<Happening>,
    dropped: Told,
}

impl Hook {
    /// Has the application told of it. Never waits.
    pub fn tell(&self, room: &RoomName, user: Option<Arc<str>>, what: What) {
        if self.queue.try_send(Happening::now(Some(room.clone()), user, what)).is_err() {
            self.dropped.count(1);
        }
    }
}

/// Both ends of the way.
pub fn open(metrics: &Metrics) -> (Hook, mpsc::Receiver<Happening>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Hook { queue: sender, dropped: metrics.told("dropped") }, receiver)
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn events_are_flat_objects_and_what_finds_no_room_is_counted() {
        let metrics = Metrics::default();
        let (hook, mut queue) = open(&metrics);
        let (room, peer) = (RoomName::parse("demo").unwrap(), PeerId::new(Uuid::from_u128(1)));
        for _ in 0..QUEUE + 3 {
            hook.tell(&room, Some("alice".into()), What::PeerLeft { peer, reason: LeftReason::Timeout });
        }
        let mut told = serde_json::to_value(queue.try_recv().unwrap()).unwrap();
        assert!(told["atMs"].take().as_u64().unwrap() > 1_700_000_000_000);
        let id = "00000000-0000-0000-0000-000000000001";
        let expected = serde_json::json!({
            "atMs": null, "room": "demo", "user": "alice", "event": "peerLeft", "peer": id, "reason": "timeout",
        });
        assert_eq!(told, expected);
        let line = "wigwag_webhook_events_total{outcome=\"dropped\"} 3";
        assert!(metrics.encode().unwrap().lines().any(|known| known == line));
    }
}
