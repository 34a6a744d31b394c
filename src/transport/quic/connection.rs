//! One QUIC connection from its handshake to its end.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use h3::error::Code;
use h3::server::RequestResolver;
use quinn::Connecting;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::demux::{self, Options};
use super::paths::{Path, Paths};
use super::sessions::Sessions;
use super::settings::{self, Settings};
use super::stream::code;
use super::{HalfOpen, request, streams};
use crate::clients::Place;
use crate::context::Context;
use crate::metrics::{ConnectionKind, Open, Refused};
use crate::transport::{HttpVersion, Opened, Via};

/// For how long state is kept of a connection that has ended in its handshake: three probe timeouts (RFC 9000, 10.2), each three
/// times the first guess of a round trip, a third of a second (RFC 9002, 6.2).
const REMAINS: Duration = Duration::from_secs(3);

type H3 = h3::server::Connection<demux::Connection, Bytes>;
pub(super) type Resolver = RequestResolver<demux::Connection, Bytes>;

/// What the requests and sessions of a connection have in common.
pub(crate) struct Shared {
    /// The connection beneath, for its datagrams.
    pub(crate) quic: quinn::Connection,
    /// Its sessions.
    pub(crate) sessions: Arc<Sessions>,
    /// The client's SETTINGS, once they are there.
    pub(crate) settings: watch::Receiver<Option<Settings>>,
    /// Where it comes from.
    pub(crate) via: Via,
    /// Where its ordinary requests go.
    pub(crate) router: Router,
    /// The server.
    pub(crate) context: Arc<Context>,
}

/// Does the handshake; what it opens serves the connection until its end, which is also that of all its requests and sessions.
/// `None` if the handshake fails, or its client has connections enough.
///
/// `place` counts it for its client, unless the address is still to be proven. It ends when the client leaves, breaks the protocol, sends no request within `request_head`, has none in flight for `idle`,
/// or is not heard of for two heartbeats. Draining sends GOAWAY and lets what is in flight finish; stopping cuts it off.
pub(super) async fn open(
    connecting: Connecting,
    half_open: HalfOpen,
    place: Option<Place>,
    paths: Arc<Paths>,
    port: u16,
    router: Router,
    context: Arc<Context>,
) -> Option<Opened> {
    let remote = connecting.remote_address();
    let begun = Instant::now();
    let Some((quic, h3)) = handshake(connecting, &context).await else {
        context.metrics.handshake_failed(ConnectionKind::H3);
        // It counts as half open, and as a connection, for as long as QUIC's library keeps what is left of it.
        tokio::select! {
            () = sleep(REMAINS) => {}
            () = context.stop.raised() => {}
        }
        return None;
    };
    drop(half_open);
    // The handshake proves the address, where Retry has not.
    let place = match place.map_or_else(|| context.clients.connect(remote.ip()), Ok) {
        Ok(place) => place,
        Err(excess) => {
            context.refuse_connection(remote, excess);
            quic.close(code(Code::H3_EXCESSIVE_LOAD), excess.limit.describe().as_bytes());
            return None;
        }
    };
    context.metrics.handshaken(ConnectionKind::H3, begun.elapsed());
    let open = context.metrics.connection(ConnectionKind::H3);
    let path = paths.watch(quic.clone());
    let local = SocketAddr::new(quic.local_ip().unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), port);
    let via = Via { version: HttpVersion::H3, remote, local, encrypted: true };
    let demux = &h3.inner.conn;
    let (sessions, settings) = (Arc::clone(demux.sessions()), demux.settings());
    let shared = Arc::new(Shared { quic, sessions, settings, via, router, context });
    Some(Box::pin(Connection::new(h3, shared, (place, open, path)).run()))
}

/// Both handshakes, TLS's and HTTP/3's, side by side: our SETTINGS go out in the server's first flight, so that a client may
/// open a session with its second.
async fn handshake(connecting: Connecting, context: &Context) -> Option<(quinn::Connection, H3)> {
    let (remote, config) = (connecting.remote_address(), &context.config);
    // What is sent this early is not yet proven to reach the client that asked; SETTINGS are the same for everybody. It is
    // not early data: nothing is received before the handshake is complete.
    let Ok((quic, established)) = connecting.into_0rtt() else {
        debug!(%remote, "QUIC handshake cannot send early");
        return None;
    };
    let demux = demux::Connection::new(quic.clone(), options(context));
    let mut builder = h3::server::builder();
    builder.send_grease(false).max_field_section_size(request::decoded_limit(&config.connections));
    let both = async { tokio::join!(established, builder.build(demux)) };
    match timeout(config.connections.handshake, both).await {
        // The first says whether there was early data, and resolves when the handshake is over, well or not.
        Ok((_, Ok(h3))) if quic.close_reason().is_none() => Some((quic, h3)),
        Ok(_) => {
            debug!(%remote, reason = ?quic.close_reason(), "QUIC handshake failed");
            None
        }
        Err(_) => {
            debug!(%remote, "QUIC handshake not finished in time");
            quic.close(code(Code::H3_NO_ERROR), b"handshake not finished in time");
            None
        }
    }
}

fn options(context: &Context) -> Options {
    let config = &context.config;
    // A session takes two streams: its CONNECT and its own.
    let sessions = (streams(config) / 2).max(1);
    Options {
        control_head: settings::of_server(config.connections.header_bytes, sessions.into()),
        frame_limit: request::encoded_limit(&config.connections),
        sessions: sessions as usize,
        patience: config.connections.request_head,
        floods: context.metrics.tally(Refused::Flood),
    }
}

struct Connection {
    h3: H3,
    shared: Arc<Shared>,
    /// Requests and sessions.
    tasks: JoinSet<()>,
    /// When it ends for want of a request; counts while there is no task.
    idle_until: Instant,
    /// When it ends, finished or not.
    cut_off_at: Option<Instant>,
    draining: bool,
    /// It came while the server drains, for requests of the sessions that are open.
    late: bool,
    /// Counts it, for its client and in the metrics.
    _counted: (Place, Open, Arc<Path>),
}

impl Connection {
    fn new(h3: H3, shared: Arc<Shared>, counted: (Place, Open, Arc<Path>)) -> Self {
        let idle_until = Instant::now() + shared.context.config.connections.request_head;
        let late = shared.context.drain.is_raised();
        Connection {
            h3,
            shared,
            tasks: JoinSet::new(),
            idle_until,
            cut_off_at: None,
            draining: false,
            late,
            _counted: counted,
        }
    }

    async fn run(mut self) {
        let reason = self.serve().await;
        let Connection { h3, mut tasks, shared, _counted, .. } = self;
        // Closes the connection, if it is not, with H3_NO_ERROR; whatever still runs sees it.
        drop(h3);
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(shared.context.config.connections.close, ended).await.is_err() {
            debug!(remote = %shared.via.remote, "requests outlived their connection");
        }
        debug!(remote = %shared.via.remote, %reason, "QUIC connection ended");
    }

    /// Returns why it ended, for the log.
    async fn serve(&mut self) -> Cow<'static, str> {
        let context = Arc::clone(&self.shared.context);
        let limits = &context.config.connections;
        loop {
            if self.draining && self.tasks.is_empty() {
                return "drained".into();
            }
            tokio::select! {
                accepted = self.h3.accept() => match accepted {
                    Ok(Some(resolver)) => self.dispatch(resolver),
                    Ok(None) => return "client went away".into(),
                    Err(error) if error.is_h3_no_error() => return "closed".into(),
                    Err(error) => return error.to_string().into(),
                },
                Some(_) = self.tasks.join_next() => self.idle_until = Instant::now() + limits.idle,
                () = sleep_until(self.idle_until), if self.tasks.is_empty() => return "idle".into(),
                () = sleep_until(self.cut_off_at.unwrap_or(self.idle_until)), if self.cut_off_at.is_some() => {
                    return "cut off".into();
                }
                () = context.drain.raised(), if !self.draining && !self.late => Box::pin(self.drain(limits.close)).await,
                () = context.stop.raised(), if self.cut_off_at.is_none() => {
                    // Sessions take their leave within `close`; the connection has as long again for itself.
                    self.cut_off_at = Some(Instant::now() + 2 * limits.close);
                    if self.late {
                        Box::pin(self.drain(limits.close)).await;
                    }
                }
            }
        }
    }

    fn dispatch(&mut self, resolver: Resolver) {
        let Some(accepted) = self.h3.inner.conn.take_last_request() else {
            debug_assert!(false, "a request without a stream");
            return;
        };
        let shared = Arc::clone(&self.shared);
        let task = request::serve(resolver, accepted, shared);
        self.tasks.spawn(self.shared.context.tasks.track_future(task));
    }

    /// Says which requests are still answered: those that have come.
    async fn drain(&mut self, patience: Duration) {
        self.draining = true;
        let ahead = self.h3.inner.conn.close_behind_greatest();
        // One more, as the id in GOAWAY is the first that is not answered (RFC 9114, 5.2); h3 counts from the last.
        let sent = timeout(patience, self.h3.shutdown(ahead + 1)).await;
        if !matches!(sent, Ok(Ok(()))) {
            debug!(remote = %self.shared.via.remote, "GOAWAY could not be sent");
        }
    }
}
