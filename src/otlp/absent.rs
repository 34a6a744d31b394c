//! What stands in the place of [`otlp`](self) in a program that was built without it: nothing is sent.

use std::convert::Infallible;
use std::sync::Arc;

use crate::config::{NO_TRACES, Otlp};
use crate::error::StartError;
use crate::metrics::Metrics;
use crate::signal::Signal;
use crate::traces::Traces;

/// There is none.
#[derive(Debug)]
pub struct Export(Infallible);

/// Refuses.
///
/// # Errors
/// Always.
pub fn open(_: &Otlp, _: String, _: &Metrics) -> Result<(Traces, Export), StartError> {
    Err(StartError::new(format_args!("--otlp-endpoint: {NO_TRACES}")))
}

impl Export {
    /// Cannot be.
    #[allow(clippy::unused_async, reason = "as in a program that sends them")]
    pub async fn run(self, _: Arc<Signal>) {
        match self.0 {}
    }
}
