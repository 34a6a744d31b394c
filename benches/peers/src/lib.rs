//! What the server programs in `servers/` share.

pub mod relay;
pub mod serving;
