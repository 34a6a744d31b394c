//! All integration tests in one binary: linking the server once is what takes the time.

mod api;
mod architecture;
mod cli;
mod http_features;
mod ice;
mod limits;
mod quic;
mod schema;
mod simulation;
mod support;
mod tcp;
mod tokens;
mod transcripts;
