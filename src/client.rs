//! A native client: the same protocol seen from the other side, for the command line, the bench and the tests.

pub mod http;
pub mod websocket;
