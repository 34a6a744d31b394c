//! Rooms and seats.

/// Rooms and seats.
#[derive(Debug)]
pub struct Hub;
