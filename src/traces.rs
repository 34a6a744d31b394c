//! Traces: how a session came about, step by step, and what became of each description, as spans of OpenTelemetry.
//!
//! They are recorded only where the program was built with the feature `otlp` and told where to send them
//! ([`otlp`](crate::otlp)). Else all in here is empty, and costs nothing. Spans hold what logs may hold: names of rooms, ids of peers,
//! sizes and codes; never a token, a ticket, a payload or what a peer says of itself.

#[cfg(feature = "otlp")]
mod parent;
#[cfg(feature = "otlp")]
mod recorded;
#[cfg(not(feature = "otlp"))]
mod unrecorded;

#[cfg(feature = "otlp")]
pub use recorded::{Description, Queue, Span, Traces};
#[cfg(not(feature = "otlp"))]
pub use unrecorded::{Description, Span, Traces};
