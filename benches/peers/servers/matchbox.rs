//! matchbox_signaling with its full mesh, which has a room for each path.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::extract::connect_info::MockConnectInfo;
use matchbox_signaling::SignalingServer;
use wigwag_peers::serving::{self, Arguments};

fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    // Its own listener does no TLS; what it would serve there is served by ours.
    let mut router = None;
    SignalingServer::full_mesh_builder(arguments.address()).build_with(|whole| router.insert(whole).clone());
    // It logs the address that a client has.
    let client: SocketAddr = arguments.address();
    let router = router.context("no router was built")?.layer(MockConnectInfo(client));
    serving::run(serving::serve_http(&arguments, router))
}
