//! What the server says.

use bytes::Bytes;

/// One message on its way to a client's wire.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The whole JSON object, without a line break anywhere.
    pub text: Bytes,
    /// May be dropped, and rides a datagram where there is one and it fits.
    pub ephemeral: bool,
}
