//! The load's side of every service: what its clients would say, no more.

pub(crate) mod raw;
mod target;

pub(crate) use target::{HOST, Target};
