//! What the operator's application is to hear of rooms, on its way from them to who tells it ([`webhook`](crate::webhook)).
//!
//! It is put into a queue under the lock of its room, which costs a moment and never waits; what finds it full is left out and
//! counted, for the operator and for the application.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::metrics::{Metrics, Told};
use crate::protocol::{LeftReason, PeerId, RoomName};
use crate::timeline::Event;

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
    missed: Missed,
}

/// How many events the application will not hear of, and does not know that yet. Cheap to clone: all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Missed(Arc<AtomicU64>);

impl Missed {
    /// So many more.
    pub fn add(&self, events: u64) {
        self.0.fetch_add(events, Ordering::Relaxed);
    }

    /// How many they are.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The application knows of so many.
    pub fn told(&self, events: u64) {
        self.0.fetch_sub(events, Ordering::Relaxed);
    }
}

impl Hook {
    /// Has the application told of it. Never waits.
    pub fn tell(&self, room: &RoomName, user: Option<Arc<str>>, what: What) {
        if self.queue.try_send(Happening::now(Some(room.clone()), user, what)).is_err() {
            self.dropped.count(1);
            self.missed.add(1);
        }
    }
}

/// Both ends of the way, on which so many wait, and the count of what did not come through.
pub fn open(queue: usize, metrics: &Metrics) -> (Hook, mpsc::Receiver<Happening>, Missed) {
    let (sender, receiver) = mpsc::channel(queue);
    let missed = Missed::default();
    (Hook { queue: sender, dropped: metrics.told("dropped"), missed: missed.clone() }, receiver, missed)
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
        let (hook, mut queue, missed) = open(5, &metrics);
        let (room, peer) = (RoomName::parse("demo").unwrap(), PeerId::new(Uuid::from_u128(1)));
        for _ in 0..5 + 3 {
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
        assert_eq!(missed.count(), 3);
    }
}
