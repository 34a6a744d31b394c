//! Where a session gets its next token from.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::time::timeout;

/// How long a new token may take; whoever waits for longer would lose its seat.
const PATIENCE: Duration = Duration::from_secs(20);

/// A new token, or why there is none.
pub(super) type Renewed = Result<String, String>;

/// The application's way to a new token.
#[derive(Clone)]
pub struct Renewal(Arc<dyn Fn() -> BoxFuture<'static, Renewed> + Send + Sync>);

impl Renewal {
    /// By a function of the application's.
    pub(super) fn by<F, R, E>(renew: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        Renewal(Arc::new(move || {
            let renewed = timeout(PATIENCE, renew());
            async move {
                match renewed.await {
                    Ok(renewed) => renewed.map_err(|why| why.to_string()),
                    Err(_) => Err(format!("it took more than {} s", PATIENCE.as_secs())),
                }
            }
            .boxed()
        }))
    }

    /// Begins to get one.
    pub(super) fn begin(&self) -> BoxFuture<'static, Renewed> {
        (self.0)()
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal(…)")
    }
}
