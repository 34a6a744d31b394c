//! The life of one session on one transport.

use std::sync::Arc;

use super::{Opening, Wire};
use crate::context::Context;

/// Runs a session on `wire` from its first message to its last.
pub async fn drive<W: Wire>(wire: W, opening: Opening, context: Arc<Context>) {
    let _ = (wire, opening, context);
}
