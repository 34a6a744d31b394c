//! **wigwag** carries offers, answers and ICE candidates between WebRTC peers, over every transport that a network lets
//! through, behind one room core.
#![warn(missing_docs)]

pub mod config;
pub mod context;
pub mod error;
pub mod hub;
pub mod metrics;
pub mod origin;
pub mod outbox;
pub mod problem;
pub mod protocol;
pub mod room;
pub mod seat;
pub mod tls;
pub mod transport;
