//! TCP listeners: accepting, socket options, TLS, and the choice between HTTP/2 and HTTP/1.1.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use bytes::Bytes;
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello, ServerConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::{HttpVersion, Via, http1, http2, proxy};
use crate::clients::Place;
use crate::context::Context;
use crate::metrics::{ConnectionKind, Refused};
use crate::problem::problem;
use crate::protocol::Refusal;
use crate::signal::Signal;

/// The TLS configuration that new connections use; a new value (a renewed certificate) leaves those that are open alone.
pub type TlsConfig = watch::Receiver<Arc<ServerConfig>>;

/// How connections of a listener are encrypted.
#[derive(Clone)]
struct Encryption {
    config: TlsConfig,
    /// What HTTP/2 begins with.
    preface: Bytes,
}

/// The first byte of every TLS connection: a handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// How much of a plain HTTP request is read that came to a TLS port.
const MISTAKEN_BYTES: u64 = 64 * 1024;

/// How much the kernel takes of a connection beyond what it has sent. What is in there goes first, whatever is more urgent:
/// without a limit of ours, that may be as much of a download as the socket's buffer has grown to hold.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_BYTES: u32 = 32 * 1024;

/// Connections of the operator's tools at once.
const ADMIN_CONNECTIONS: usize = 64;

/// How long accepting pauses after an error, from the first to any further one in a row.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(10)..Duration::from_secs(1);

/// Accepts connections with sessions until the server stops. While it drains they serve the sessions that are open: requests beside
/// an event stream, and polls, may each need a connection. `tls` is `None` on the plaintext listener.
///
/// Each connection is a task of `context.tasks` and takes one of `context.connections` and of `context.tcp_connections`; one above
/// that number, or above what its client's address may have, is closed unanswered, as is one without a PROXY header where that is
/// asked for. `tls` must offer `h2` and `http/1.1` by ALPN (without ALPN a client gets HTTP/1.1).
pub async fn serve_tcp(listener: TcpListener, tls: Option<TlsConfig>, router: Router, context: Arc<Context>) {
    let until = Arc::clone(&context);
    let tls = tls.map(|config| Encryption { config, preface: http2::preface(&context.config.connections) });
    accept(listener, &until.stop, |stream, remote| {
        let Some(permit) = context.take_tcp_connection(remote) else { return };
        let place = match context.clients.connect(remote.ip()) {
            Ok(place) => place,
            Err(excess) => return context.refuse_connection(remote, excess),
        };
        let (tls, router, context) = (tls.clone(), router.clone(), Arc::clone(&context));
        let tasks = context.tasks.clone();
        tasks.spawn(connection(stream, remote, tls, router, context, (permit, place)));
    })
    .await;
}

/// Accepts connections for the operator's tools (plain HTTP/1.1, no sessions) until the server stops. They have a limit of
/// their own, so that a full server can still be looked at.
pub async fn serve_admin(listener: TcpListener, router: Router, context: Arc<Context>) {
    let until = Arc::clone(&context);
    let permits = Arc::new(Semaphore::new(ADMIN_CONNECTIONS));
    accept(listener, &until.stop, |stream, remote| {
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { return };
        let (router, context) = (router.clone(), Arc::clone(&context));
        let tasks = context.tasks.clone();
        tasks.spawn(async move {
            let _permit = permit;
            match prepare(&stream, remote, context.config.heartbeat) {
                Ok(via) => http1::serve_admin(stream, via, router, context).await,
                Err(error) => debug!(%remote, %error, "connection lost at once"),
            }
        });
    })
    .await;
}

async fn accept(listener: TcpListener, until: &Signal, mut serve: impl FnMut(TcpStream, SocketAddr)) {
    let mut pause = PAUSE.start;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = until.raised() => return,
        };
        match accepted {
            Ok((stream, remote)) => {
                pause = PAUSE.start;
                serve(stream, remote);
            }
            // The client was gone before its turn; says nothing about the next one.
            Err(error) if is_of_one_connection(&error) => debug!(%error, "connection lost before it was accepted"),
            Err(error) => {
                // Out of file descriptors or memory: the connection stays in the backlog until there are some again.
                warn!(%error, pause_ms = pause.as_millis() as u64, "cannot accept connections");
                tokio::select! {
                    () = sleep(pause) => pause = (2 * pause).min(PAUSE.end),
                    () = until.raised() => return,
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}

/// Sets the socket's options.
fn prepare(stream: &TcpStream, remote: SocketAddr, heartbeat: Duration) -> io::Result<Via> {
    // Messages are small and somebody waits for each.
    stream.set_nodelay(true)?;
    // Together with the heartbeat after which we say something, a peer that died is noticed within two.
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(heartbeat))?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    let local = stream.local_addr()?;
    Ok(Via { version: HttpVersion::H1, remote, local, encrypted: false })
}

async fn connection(
    mut stream: TcpStream,
    remote: SocketAddr,
    tls: Option<Encryption>,
    router: Router,
    context: Arc<Context>,
    _places: ([OwnedSemaphorePermit; 2], Place),
) {
    let mut via = match prepare(&stream, remote, context.config.heartbeat) {
        Ok(via) => via,
        Err(error) => return debug!(%remote, %error, "connection lost at once"),
    };
    let mut _place_of_client = None;
    if context.config.clients.proxy_protocol {
        let Some((client, place)) = behind_proxy(&mut stream, remote, &context).await else { return };
        via.remote = client;
        _place_of_client = Some(place);
    }
    match tls {
        Some(tls) => encrypted(stream, via, tls, router, context).await,
        None => {
            let _open = context.metrics.connection(ConnectionKind::Plain);
            Box::pin(http1::serve(stream, via, router, Arc::clone(&context))).await;
        }
    }
}

/// Reads the PROXY header of a connection, and counts it for the client that it names. `None` if it is to be closed.
async fn behind_proxy(stream: &mut TcpStream, remote: SocketAddr, context: &Context) -> Option<(SocketAddr, Place)> {
    let refuse = |why: &dyn std::fmt::Display| {
        context.metrics.refused(Refused::ProxyHeader);
        debug!(%remote, %why, "connection refused");
        None
    };
    if !context.clients.trusts(remote.ip()) {
        return refuse(&"only trusted proxies may connect here");
    }
    let header = tokio::select! {
        header = timeout(context.config.connections.handshake, proxy::read(stream)) => header,
        () = context.stop.raised() => return None,
    };
    let client = match header {
        Ok(Ok(client)) => client.unwrap_or(remote),
        Ok(Err(error)) => return refuse(&error),
        Err(_) => return refuse(&"no PROXY protocol header in time"),
    };
    match context.clients.connect(client.ip()) {
        Ok(place) => Some((client, place)),
        Err(excess) => {
            context.refuse_connection(client, excess);
            None
        }
    }
}

async fn encrypted(stream: TcpStream, via: Via, tls: Encryption, router: Router, context: Arc<Context>) {
    let begun = Instant::now();
    // Boxed, as is what follows: a task keeps the largest of its futures for as long as it lives.
    let handshake =
        timeout(context.config.connections.handshake, Box::pin(handshake(stream, tls, &context.handshakes)));
    let (stream, said) = tokio::select! {
        established = handshake => match established {
            Ok(Ok(established)) => established,
            Ok(Err(error)) => {
                context.metrics.handshake_failed(ConnectionKind::Tls);
                return debug!(remote = %via.remote, %error, "TLS handshake failed");
            }
            Err(_) => {
                context.metrics.handshake_failed(ConnectionKind::Tls);
                return debug!(remote = %via.remote, "TLS handshake not finished in time");
            }
        },
        () = context.stop.raised() => return,
    };
    context.metrics.handshaken(ConnectionKind::Tls, begun.elapsed());
    let alpn = stream.get_ref().1.alpn_protocol();
    if alpn == Some(b"acme-tls/1") {
        // The handshake was the answer; nothing is said on such a connection (RFC 8737, 3).
        return debug!(remote = %via.remote, "an authority has asked for a name");
    }
    if alpn == Some(b"h2") {
        let _open = context.metrics.connection(ConnectionKind::H2);
        let via = Via { version: HttpVersion::H2, encrypted: true, ..via };
        Box::pin(http2::serve(stream, said, via, router, Arc::clone(&context))).await;
    } else {
        let _open = context.metrics.connection(ConnectionKind::H1);
        let via = Via { encrypted: true, ..via };
        Box::pin(http1::serve(stream, via, router, Arc::clone(&context))).await;
    }
}

/// A TLS stream, and the part of HTTP/2's preface that the client has been sent with the handshake. The stream is boxed, as it is
/// large and handed on from future to future, each of which has room for it.
type Established = (Box<TlsStream<TcpStream>>, Bytes);

async fn handshake(mut stream: TcpStream, tls: Encryption, turns: &Semaphore) -> io::Result<Established> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() && first[0] != TLS_HANDSHAKE {
        // Somebody typed http:// where https:// belongs; a TLS alert would tell nobody.
        stream.write_all(plain_http_refused().as_bytes()).await?;
        stream.shutdown().await?;
        // A socket closed with bytes unread is reset, and the answer with it.
        tokio::io::copy(&mut stream.take(MISTAKEN_BYTES), &mut tokio::io::sink()).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "plain HTTP instead of TLS"));
    }
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let config = Arc::clone(&tls.config.borrow());
    let said = if chooses_http2(&start.client_hello(), &config) { tls.preface } else { Bytes::new() };
    // Goes out behind the server's Finished, in the same flight: half-RTT data (RFC 8446, 4.4.4), which is read by whom it was
    // encrypted for, but not known to be. So it is SETTINGS and nothing else. Nothing at all is read before the client's Finished,
    // and 0-RTT is off, so that a ClientHello that somebody recorded makes the server say this and do nothing.
    let say = |connection: &mut ServerConnection| {
        connection.writer().write_all(&said).expect("rustls keeps what may not be sent yet");
    };
    let turn = turns.acquire().await.map_err(io::Error::other)?;
    // Keys are agreed upon and signed for here and now.
    let accepting = start.into_stream_with(config, say);
    // What has come for others meanwhile goes before the next handshake.
    yield_now().await;
    drop(turn);
    Ok((Box::new(accepting.await?), said))
}

/// Whether the handshake will end with ALPN h2: the server's order decides (RFC 7301, 3.2), and h2 is first in it.
fn chooses_http2(hello: &ClientHello<'_>, config: &ServerConfig) -> bool {
    let ours = config.alpn_protocols.first().is_some_and(|first| first == b"h2");
    ours && hello.alpn().is_some_and(|mut offered| offered.any(|name| name == b"h2"))
}

/// The answer to a request without TLS, whatever it asks for.
fn plain_http_refused() -> String {
    let refusal = Refusal::bad_request("this port speaks TLS: use https:// or wss://");
    let response = problem::<String>(&refusal);
    let body = response.body();
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len(),
    )
}
