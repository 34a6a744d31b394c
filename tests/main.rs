//! All integration tests in one binary: linking the server once is what takes the time.

mod abuse;
#[cfg(target_os = "linux")]
mod acme;
mod api;
mod architecture;
mod cli;
mod cluster;
#[cfg(target_os = "linux")]
mod docs;
mod draining;
#[cfg(target_os = "linux")]
mod floods;
mod hostile;
mod http;
mod http_features;
mod ice;
mod limits;
mod metrics;
mod native;
mod operator;
#[cfg(feature = "otlp")]
mod otlp;
mod quic;
mod recordings;
mod relay;
mod reload;
#[cfg(target_os = "linux")]
mod scale;
mod schema;
mod scripted;
#[cfg(unix)]
mod secrets;
mod sessions;
mod simulation;
mod smash;
mod support;
mod tcp;
mod tickets;
mod tokens;
mod transcripts;
mod trips;
mod waiting;
mod webhook;
