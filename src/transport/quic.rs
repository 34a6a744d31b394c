//! QUIC.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::config::Config;
use crate::context::Context;

/// Serves QUIC connections until draining begins.
pub async fn serve(
    endpoint: quinn::Endpoint,
    tls: watch::Receiver<Arc<ServerConfig>>,
    router: Router,
    context: Arc<Context>,
) {
    context.drain.cancelled().await;
    drop((endpoint, tls, router));
}

/// Binds a UDP socket.
pub fn bind(_address: SocketAddr, _tls: &Arc<ServerConfig>, _config: &Config) -> io::Result<quinn::Endpoint> {
    Err(io::ErrorKind::Unsupported.into())
}
