//! **wigwag** carries offers, answers and ICE candidates between WebRTC peers, over every transport that a network lets
//! through, behind one room core.
//!
//! A pure [`room`] decides; everything else carries. The [`hub`] keeps rooms and [`seat`]s under sharded locks and is their only
//! caller. A [`transport`] turns some wire into whole messages and back and knows nothing of rooms.
//!
//! One message's way, Alice on WebTransport to Bob on a WebSocket over HTTP/2: Alice's stream yields a line; her session's
//! task parses the envelope and leaves the payload as text; the hub locks the room's shard, the room says who gets it, the
//! body is encoded once and pushed into Bob's seat; unlock. Bob's task wakes and writes a text frame. One lock, one queue, one
//! wake-up.
//!
//! Imports point one way: `protocol ← cluster, room, seat, outbox ← hub ← transport ← server ← cli`. `auth`, `config`, `ice`, `clients`, `origin`,
//! `pace`, `problem` and `metrics` hang on `protocol` and names alone, `tls` on `config` and `metrics`; `http` and [`client`] are used by
//! `server` and `cli`. `fuzzing`, which no ordinary build has, reaches into all that decodes.
//! `docs/architecture.md` tells where to find any behaviour.
#![warn(missing_docs)]

pub mod acme;
pub mod auth;
#[cfg(target_os = "linux")]
pub mod bench;
pub mod cli;
pub mod client;
pub mod clients;
pub mod cluster;
pub mod config;
pub mod context;
pub mod error;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hooks;
pub mod http;
pub mod hub;
pub mod ice;
pub mod metrics;
pub mod origin;
#[cfg(feature = "otlp")]
pub mod otlp;
#[cfg(not(feature = "otlp"))]
#[path = "otlp/absent.rs"]
pub mod otlp;
pub mod outbox;
pub mod pace;
pub mod post;
pub mod problem;
pub mod protocol;
pub mod room;
pub mod running;
pub mod seat;
pub mod secret;
pub mod server;
pub mod signal;
pub mod timeline;
pub mod tls;
pub mod traces;
pub mod transport;
pub mod webhook;
