//! `wigwag serve`.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::reload::Reload;
use super::{End, banner, descriptors, log, print, supervisor};
use crate::config::{Config, Settings, Sources};
use crate::running::Running;
use crate::server::Server;

/// What is still running when the server has ended (a look at the certificates on a slow disk) is not waited for longer.
const LEFTOVERS: Duration = Duration::from_secs(1);

pub(super) fn run(settings: &Settings, sources: &Sources) -> Result<(), End> {
    let mut config = settings.resolve(sources)?;
    let log = log::start(settings, sources)?;
    leave_out_missing_ipv6(settings, &mut config);
    descriptors::provide(&mut config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let ended = runtime.block_on(Box::pin(serve(config, Reload::new(settings, sources, log))));
    runtime.shutdown_timeout(LEFTOVERS);
    ended
}

/// On a machine without IPv6 nobody misses the `[::1]` of the defaults; who typed it is told that it is not there.
fn leave_out_missing_ipv6(settings: &Settings, config: &mut Config) {
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        return;
    }
    if settings.listen.is_none() {
        config.listen.retain(SocketAddr::is_ipv4);
    }
    if settings.plain.is_none() {
        config.plain.retain(SocketAddr::is_ipv4);
    }
}

async fn serve(config: Config, mut reload: Reload) -> Result<(), End> {
    // From here on a signal drains, also one that comes before the first connection.
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let mut hangups = Hangups::new().context("cannot listen for signals")?;
    let server = Server::load(config).await?;
    let (reloader, context) = (server.reloader(), Arc::clone(server.context()));
    print(&banner(&Running::from(&server)))?;
    supervisor::tell("READY=1");
    let (drain, hurry) = (CancellationToken::new(), CancellationToken::new());
    let heard = async {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = context.ask_to_drain.raised() => "admin listener",
        };
        info!(signal, "draining; signal again to stop at once");
        supervisor::tell("STOPPING=1");
        drain.cancel();
        let signal = signals.next().await;
        info!(signal, "stopping at once");
        hurry.cancel();
        std::future::pending::<()>().await;
    };
    let reloads = async {
        loop {
            hangups.next().await;
            info!("SIGHUP: reading certificates, keys, secrets and settings again");
            reload.settings(&reloader);
            reloader.read_files().await;
        }
    };
    tokio::select! {
        ended = server.run(drain.cancelled(), hurry.cancelled()) => Ok(ended.context("the server stopped by itself")?),
        () = heard => Ok(()),
        () = reloads => Ok(()),
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

/// SIGHUP. One that comes while the last is dealt with is not lost.
#[cfg(unix)]
struct Hangups(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Hangups {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Hangups(signal(SignalKind::hangup())?))
    }

    async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// There are none.
#[cfg(not(unix))]
struct Hangups;

#[cfg(not(unix))]
impl Hangups {
    fn new() -> std::io::Result<Self> {
        Ok(Hangups)
    }

    async fn next(&mut self) {
        std::future::pending().await
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
