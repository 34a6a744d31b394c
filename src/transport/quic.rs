//! QUIC (RFC 9000): one UDP endpoint that carries HTTP/3 (RFC 9114), and WebTransport and WebSockets over it.
//!
//! A connection is one task. It owns the tasks of its requests and sessions, and the `demux` that tells whose each incoming
//! stream is; HTTP/3 itself is h3's.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use h3::error::Code;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, Incoming, TransportConfig};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::context::Context;
use crate::transport::run_opened;
use paths::Paths;

mod connect;
pub(crate) mod connection;
pub(crate) mod demux;
mod extended;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod paths;
pub(crate) mod request;
pub(crate) mod sessions;
pub(crate) mod settings;
pub(crate) mod stream;
mod tunnel;
pub(crate) mod varint;

/// What the kernel should keep for us while we are busy: with the usual 208 KiB a burst of handshakes loses thousands of packets.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Requests and session streams at once on one connection, whatever the configuration allows: RFC 9114, 6.1 wants no fewer
/// than 100, and each one that could be costs memory though it never is.
const MOST_STREAMS: u32 = 100;
/// Unidirectional streams at once: HTTP/3's own three, and some for greasing.
const UNI_STREAMS: u32 = 8;

/// What one stream may send without having been read.
const STREAM_WINDOW: u32 = 64 * 1024;
/// What all streams of a connection together may send without having been read.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// What a connection keeps of its own until the client has acknowledged it.
const SEND_WINDOW: u64 = 256 * 1024;
/// Datagrams not read yet, and not sent yet.
const DATAGRAM_BUFFER: usize = 64 * 1024;

/// Handshakes that have begun and that nobody has looked at yet, and what they may send meanwhile, each and together.
const MOST_INCOMING: usize = 4096;
const INCOMING_BUFFER: u64 = 16 * 1024;
const INCOMING_BUFFERS: u64 = 8 * 1024 * 1024;

/// Opens the UDP socket on `address` and an endpoint on it that accepts connections with the certificate and cipher suites of
/// `tls`.
///
/// An IPv6 socket takes IPv6 only, so that `0.0.0.0` and `[::]` can be listened on side by side. Must be called inside a
/// tokio runtime.
///
/// # Errors
/// The address cannot be bound, or `tls` does not offer what QUIC needs.
pub fn bind(address: SocketAddr, tls: &Arc<rustls::ServerConfig>, config: &Config) -> io::Result<Endpoint> {
    let server = server_config(tls, config).map_err(io::Error::other)?;
    Endpoint::new(EndpointConfig::default(), Some(server), socket(address)?, Arc::new(quinn::TokioRuntime))
}

fn socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The system may grant less, or refuse; the server works with what it gets.
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    socket.bind(&SockAddr::from(address))?;
    // Linux counts its own overhead in, and tells twice what was asked for.
    let granted = socket.recv_buffer_size()?;
    if granted < SOCKET_BUFFER {
        info!(%address, bytes = granted, "small UDP receive buffer: many clients connecting at once may lose packets; \
              raise it with sysctl net.core.rmem_max={SOCKET_BUFFER}");
    }
    Ok(socket.into())
}

/// How connections are accepted.
///
/// # Errors
/// `tls` does not offer TLS 1.3 with AES-128-GCM, which QUIC's first packets need (RFC 9001, 5).
fn server_config(
    tls: &Arc<rustls::ServerConfig>,
    config: &Config,
) -> Result<quinn::ServerConfig, NoInitialCipherSuite> {
    let crypto = QuicServerConfig::try_from(Arc::clone(tls))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(Arc::new(transport_config(config)))
        .migration(true)
        .max_incoming(MOST_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFERS);
    Ok(server)
}

/// Streams that a client may have open at once on a connection.
fn streams(config: &Config) -> u32 {
    config.connections.streams.clamp(1, MOST_STREAMS)
}

fn transport_config(config: &Config) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let (idle, keep_alive) = timers(config.heartbeat);
    transport
        .max_concurrent_bidi_streams(streams(config).into())
        .max_concurrent_uni_streams(UNI_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .max_idle_timeout(idle.try_into().ok())
        .keep_alive_interval(Some(keep_alive));
    transport
}

/// Idle timeout and keep-alive interval: a client that died right after it was heard of is given up when both have passed,
/// which must be within two heartbeats, and one lost packet of three must not look like death.
fn timers(heartbeat: Duration) -> (Duration, Duration) {
    (heartbeat * 3 / 2, heartbeat / 2)
}

/// Accepts connections on `endpoint` until the server stops.
///
/// A new value of `tls` (a renewed certificate) serves new connections and leaves those that are open alone. When the server
/// begins to drain, the connections that are open get a GOAWAY, and their requests and sessions go on; later ones serve the
/// sessions that are open. When it stops, sessions take their leave, and everything is closed.
pub async fn serve(
    endpoint: Endpoint,
    mut tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    router: Router,
    context: Arc<Context>,
) {
    let paths = Paths::new(context.metrics.clone());
    let listener =
        Listener { half_open: Arc::default(), paths: Arc::clone(&paths), port: local_port(&endpoint), router, context };
    let mut looking = pin!(paths.keep_looking());
    let Context { stop, config, .. } = &*listener.context;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => {
                    listener.accept(incoming, &mut connections);
                    // The handshake's first step was made in there, and it was not short. What has come for others goes first.
                    yield_now().await;
                }
                None => break,
            },
            // Only to forget it.
            Some(_) = connections.join_next() => {}
            () = &mut looking => {}
            Ok(()) = tls.changed() => match server_config(&tls.borrow_and_update(), config) {
                Ok(server) => endpoint.set_server_config(Some(server)),
                Err(error) => warn!(%error, "QUIC keeps its certificate"),
            },
            () = stop.raised() => break,
        }
    }
    endpoint.set_server_config(None);
    // Each sees for itself that it ends in time.
    while connections.join_next().await.is_some() {}
    endpoint.close(stream::code(Code::H3_NO_ERROR), b"");
    if timeout(config.connections.close, endpoint.wait_idle()).await.is_err() {
        debug!("some clients did not acknowledge the end of their connections");
    }
}

fn local_port(endpoint: &Endpoint) -> u16 {
    endpoint.local_addr().map_or(0, |address| address.port())
}

struct Listener {
    /// Handshakes that have begun and not ended.
    half_open: Arc<AtomicUsize>,
    paths: Arc<Paths>,
    port: u16,
    router: Router,
    context: Arc<Context>,
}

impl Listener {
    fn accept(&self, incoming: Incoming, connections: &mut JoinSet<()>) {
        let Context { tasks, config, .. } = &*self.context;
        let remote = incoming.remote_address();
        let under_load = self.half_open.load(Ordering::Relaxed) >= config.connections.retry_above;
        let validated = incoming.remote_address_validated();
        if !validated && (under_load || self.context.clients.may_connect(remote.ip()).is_err()) {
            // A forged address costs a packet now, and no memory; and it is not its owner who is told that it asks too much.
            if incoming.retry().is_err() {
                debug!(%remote, "address not validated although it could not be asked again");
            }
            return;
        }
        // One not validated yet is counted when its handshake is complete: anybody could use up what its owner may ask for.
        let place = match validated.then(|| self.context.clients.connect(remote.ip())).transpose() {
            Ok(place) => place,
            Err(excess) => {
                self.context.refuse_connection(remote, excess);
                return incoming.refuse();
            }
        };
        let Some(permit) = self.context.take_connection(remote) else { return incoming.refuse() };
        let connecting = match incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => return debug!(%remote, %error, "connection lost before it was accepted"),
        };
        let half_open = HalfOpen::new(&self.half_open);
        let (port, router, context) = (self.port, self.router.clone(), Arc::clone(&self.context));
        let paths = Arc::clone(&self.paths);
        connections.spawn(tasks.track_future(async move {
            run_opened(connection::open(connecting, half_open, place, paths, port, router, context)).await;
            drop(permit);
        }));
    }
}

/// Counts a handshake for as long as it lasts.
struct HalfOpen(Arc<AtomicUsize>);

impl HalfOpen {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        HalfOpen(Arc::clone(count))
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_client_is_given_up_within_two_heartbeats() {
        let heartbeat = Duration::from_secs(10);
        let (idle, keep_alive) = timers(heartbeat);
        assert!(idle + keep_alive <= 2 * heartbeat);
        assert!(keep_alive * 2 < idle, "one lost packet is forgiven");
    }
}
