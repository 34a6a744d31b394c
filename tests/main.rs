//! All integration tests in one binary: linking the server once is what takes the time.

mod architecture;
mod cli;
mod hostile;
mod limits;
mod quic;
mod simulation;
mod support;
mod tcp;
mod transcripts;
