//! What stands in the place of [`traces`](super) in a program that was built without them.
#![allow(clippy::unused_self, reason = "as in a program that has them")]

use std::time::Instant;

use http::request::Parts;

use crate::protocol::{Outbound, PeerId, RoomName, Transport};

/// Begins no spans.
#[derive(Debug, Clone)]
pub struct Traces;

/// A span that is not recorded.
#[derive(Debug, Clone, Default)]
pub struct Span;

/// A description that is not recorded.
#[derive(Debug)]
pub struct Description;

impl Traces {
    /// The only one.
    pub const NONE: Traces = Traces;

    /// Nothing.
    pub fn opening(&self, _: &Parts, _: Transport, _: Instant) -> Span {
        Span
    }

    /// Nothing.
    pub fn request(&self, _: &Parts) -> Span {
        Span
    }

    /// Nothing.
    pub fn arrival(&self, _: Option<&str>, _: &RoomName, _: PeerId) -> Span {
        Span
    }

    /// Nothing.
    pub fn read(&self, _: &Span, _: Transport) -> Description {
        Description
    }
}

impl Span {
    /// Nothing.
    pub const NONE: Span = Span;

    /// Nothing.
    #[must_use]
    pub fn step(&self, _: &'static str) -> Span {
        Span
    }

    /// Nothing.
    pub fn traceparent(&self) -> Option<String> {
        None
    }

    /// Nothing.
    pub fn is_in(&self, _: &RoomName) {}

    /// Nothing.
    pub fn is_of(&self, _: PeerId) {}

    /// Nothing.
    pub fn is_by(&self, _: &'static str) {}

    /// Nothing.
    pub fn done(self) {}

    /// Nothing.
    pub fn end(&self, _: &'static str) {}

    /// Nothing.
    pub fn fail(&self, _: &'static str) {}
}

impl Description {
    /// Nothing.
    #[must_use]
    pub fn span(self, _: &RoomName, _: PeerId, _: &Outbound<'_>) -> Span {
        Span
    }

    /// Nothing.
    pub fn fail(self, _: &RoomName, _: PeerId, _: &'static str) {}
}
