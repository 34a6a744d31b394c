//! The load's side of every service: what its clients would say, no more.

mod directory;
pub(crate) mod matchbox;
pub(crate) mod nats;
pub(crate) mod peerjs;
pub(crate) mod raw;
pub(crate) mod relay;
pub(crate) mod socketio;
mod target;
mod websocket;

pub(crate) use target::{HOST, Target};
use websocket::WebSocket;
