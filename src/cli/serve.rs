//! `wigwag serve`.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{End, banner, log, print};
use crate::config::{Config, Settings, Sources};
use crate::server::Server;

/// What is still running when the server has ended (a look at the certificates on a slow disk) is not waited for longer.
const LEFTOVERS: Duration = Duration::from_secs(1);

pub(super) fn run(settings: &Settings, sources: &Sources) -> Result<(), End> {
    let config = settings.resolve(sources)?;
    log::start(settings, sources)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let ended = runtime.block_on(serve(config));
    runtime.shutdown_timeout(LEFTOVERS);
    ended
}

async fn serve(config: Config) -> Result<(), End> {
    // From here on a signal drains, also one that comes before the first connection.
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let window = config.drain;
    let server = Server::load(config)?;
    print(&banner(&server.running()))?;
    let drain = CancellationToken::new();
    let mut running = pin!(server.run(drain.clone().cancelled_owned()));
    tokio::select! {
        ended = &mut running => return Ok(ended?),
        signal = signals.next() => {
            info!(signal, seconds = window.as_secs_f32(), "draining: sessions are told to move; signal again to stop at once");
            drain.cancel();
        }
    }
    tokio::select! {
        ended = &mut running => Ok(ended?),
        signal = signals.next() => Err(anyhow!("stopped at once by a second {signal}, sessions were cut off").into()),
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals)
    }

    async fn next(&mut self) -> &'static str {
        // Without a console there is no Ctrl-C to wait for, and nothing to fall back to.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}
