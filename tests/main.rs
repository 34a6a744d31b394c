//! All integration tests in one binary: linking the server once is what takes the time.

mod architecture;
mod cli;
mod draining;
mod hostile;
mod limits;
mod native;
mod quic;
mod relay;
mod scripted;
mod sessions;
mod simulation;
mod support;
mod tcp;
mod tickets;
mod transcripts;
