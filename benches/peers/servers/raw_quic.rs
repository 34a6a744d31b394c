//! A relay over QUIC that knows nothing: one bidirectional stream a client, and what tokio and quinn cost by themselves.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use wigwag_peers::relay::Rooms;
use wigwag_peers::serving::{self, Arguments};

/// As wigwag's: with the usual 208 KiB a burst of handshakes loses packets.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// As wigwag's.
const STREAM_WINDOW: u32 = 64 * 1024;
const SEND_WINDOW: u64 = 256 * 1024;

fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    serving::run(serve(arguments))
}

async fn serve(arguments: Arguments) -> Result<()> {
    let endpoint = endpoint(&arguments)?;
    let rooms = Arc::new(Rooms::default());
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(relay(incoming, Arc::clone(&rooms)));
    }
    Ok(())
}

fn endpoint(arguments: &Arguments) -> Result<Endpoint> {
    // The load connects by QUIC as it does to wigwag, which speaks HTTP/3.
    let crypto = QuicServerConfig::try_from(arguments.tls(b"h3")?)?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(1u32.into())
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(STREAM_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None);
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&arguments.address().into())?;
    Endpoint::new(EndpointConfig::default(), Some(config), socket.into(), Arc::new(quinn::TokioRuntime))
        .context("cannot listen")
}

async fn relay(incoming: Incoming, rooms: Arc<Rooms>) -> Result<()> {
    let connection = Box::pin(async { incoming.await }).await?;
    let (send, recv) = connection.accept_bi().await?;
    rooms.serve(tokio::io::join(recv, send)).await?;
    // The last bytes are out when the client has them and goes.
    connection.closed().await;
    connection.close(VarInt::from_u32(0), b"");
    Ok(())
}
