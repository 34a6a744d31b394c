//! The whole server: [`Server::load`] assembles everything in the order in which it can fail, [`Server::run`] serves until it is
//! told to stop, and stops in order.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{Id, JoinSet};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::acme::Orders;
use crate::auth::Verifier;
use crate::clients::Clients;
use crate::cluster::{Cluster, Events};
use crate::config::{CertificateSource, Config};
use crate::context::Context;
use crate::error::StartError;
use crate::http::{self, Advertised};
use crate::hub::{Hub, Policy};
use crate::ice::IceServers;
use crate::metrics::{Metrics, Reloaded};
use crate::origin::{Origins, origin_of};
use crate::otlp::{self, Export};
use crate::pace::{Pace, Seldom};
use crate::signal::Signal;
use crate::tls::{Certificates, Renewal};
use crate::traces::Traces;
use crate::transport::{carry, quic, tcp};
use crate::webhook::{self, Delivery};

/// How often a port of the system's choosing is tried for TCP and UDP alike before giving up.
const FREE_PORT_TRIES: usize = 16;

/// How long a node that stops waits for others to take its seats.
const GIVE_AWAY: Duration = Duration::from_secs(10);

/// How often the log is told that there are too many connections.
const TELL_FULL_EVERY: Duration = Duration::from_secs(10);

/// What the admin token must be.
const ADMIN_TOKEN: &str = "what Prometheus shows (authorization: credentials_file), long and random";

/// A server that listens, but does not serve yet.
#[derive(Debug)]
pub struct Server {
    context: Arc<Context>,
    router: Router,
    renewal: Renewal,
    /// What orders certificates by ACME.
    orders: Option<Orders>,
    secure: Vec<Secure>,
    plain: Vec<TcpListener>,
    admin: Option<(TcpListener, Router)>,
    addresses: Addresses,
    /// What the other nodes of a cluster say.
    events: Option<Events>,
    /// What tells the operator's application of rooms.
    delivery: Option<Delivery>,
    /// What sends traces to a collector.
    export: Option<Export>,
}

/// TLS over TCP, and QUIC over UDP, on one address.
#[derive(Debug)]
struct Secure {
    tcp: TcpListener,
    quic: Option<quinn::Endpoint>,
}

/// What a server listens on; ports of the system's choosing are filled in.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// TLS (TCP) and QUIC (UDP).
    pub secure: Vec<SocketAddr>,
    /// Plaintext HTTP/1.1.
    pub plain: Vec<SocketAddr>,
    /// Health and metrics.
    pub admin: Option<SocketAddr>,
}

impl Server {
    /// Reads or makes certificates, then binds all listeners.
    ///
    /// # Errors
    /// One line that says what to do; nothing is left listening.
    pub async fn load(mut config: Config) -> Result<Server, StartError> {
        if let Some(dir) = &mut config.web {
            *dir = directory(dir).await?;
        }
        let auth = match &config.tokens {
            Some(policy) => Some(Verifier::load(policy.clone(), &config.limits).await?),
            None => None,
        };
        let inviter = auth.as_ref().map(Verifier::inviter).transpose()?.flatten();
        let (certificates, renewal) = Certificates::load(&config.certificate, config.protocols)?;
        let orders = match &config.certificate {
            CertificateSource::Acme(policy) => Some(Orders::new(policy, &certificates)?),
            _ => None,
        };
        let secure = bind_secure(&config, &certificates).await?;
        let mut plain = Vec::with_capacity(config.plain.len());
        for &address in &config.plain {
            let address = same_port(address, plain.first());
            plain.push(listen(address, "--plain").await?);
        }
        let admin = match config.admin {
            Some(address) => Some(listen(address, "--admin").await?),
            None => None,
        };
        let addresses = Addresses {
            secure: secure.iter().filter_map(|both| both.tcp.local_addr().ok()).collect(),
            plain: plain.iter().filter_map(|listener| listener.local_addr().ok()).collect(),
            admin: admin.as_ref().and_then(|listener| listener.local_addr().ok()),
        };
        let admin_token =
            config.admin_token.as_ref().map(|source| source.read("--admin-token", ADMIN_TOKEN)).transpose()?;
        let advertised = advertise(&config, &certificates, &addresses);
        let (cluster, events) = match &config.cluster {
            Some(cluster) => Cluster::connect(cluster, config.resume_window).await.map(|(c, e)| (Some(c), Some(e)))?,
            None => (None, None),
        };
        let metrics = Metrics::with(cluster.clone());
        let node = cluster.as_ref().map_or_else(|| Uuid::now_v7().to_string(), |cluster| cluster.id().to_string());
        let (traces, export) = match &config.otlp {
            Some(otlp) => otlp::open(otlp, node.clone(), &metrics).map(|(traces, export)| (traces, Some(export)))?,
            None => (Traces::NONE, None),
        };
        let (hook, delivery) = match &config.webhook {
            Some(webhook) => {
                webhook::open(webhook, node, &metrics).map(|(hook, delivery)| (Some(hook), Some(delivery)))?
            }
            None => (None, None),
        };
        let policy = Policy {
            limits: config.limits.clone(),
            rooms: config.rooms,
            heartbeat: config.heartbeat,
            resume_window: config.resume_window,
            ice_servers: IceServers::load(&config.ice)?,
            waiting: config.waiting,
            timelines: config.timelines,
            hook,
            traces: traces.clone(),
        };
        let counted = metrics.clone();
        let auth = auth.map(|auth| auth.telling(move |done| counted.reloaded(Reloaded::TokenKeys, done)));
        let context = Arc::new(Context {
            hub: match &cluster {
                Some(cluster) => Hub::clustered(policy, Arc::clone(cluster)),
                None => Hub::new(policy),
            },
            metrics,
            traces,
            cluster,
            auth,
            inviter,
            origins: origins(&config, &certificates, &advertised),
            certificates,
            connections: Arc::new(Semaphore::new(config.connections.connections)),
            tcp_connections: Arc::new(Semaphore::new(config.connections.tcp_connections)),
            clients: Clients::new(config.clients.clone()),
            handshakes: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
            full_told: Seldom::new(TELL_FULL_EVERY),
            pace: Pace::new(config.connections.sessions_per_second),
            ask_to_drain: Signal::default(),
            drain: Signal::default(),
            drained_by: OnceLock::new(),
            stop: Signal::default(),
            tasks: TaskTracker::new(),
            config,
        });
        let router = http::router(advertised, Arc::clone(&context));
        let admin = admin.map(|listener| (listener, http::admin(Arc::clone(&context), admin_token)));
        Ok(Server { context, router, renewal, orders, secure, plain, admin, addresses, events, delivery, export })
    }

    /// What it listens on.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The certificates in use.
    pub fn certificates(&self) -> &Certificates {
        &self.context.certificates
    }

    /// The checked configuration.
    pub fn config(&self) -> &Config {
        &self.context.config
    }

    /// Rooms and seats, counters and all else that connections share.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// What has it read its files again while it runs.
    pub fn reloader(&self) -> Reloader {
        Reloader { context: Arc::clone(&self.context), hurry: self.orders.as_ref().map(Orders::hurry) }
    }

    /// Serves until `drain` completes, then shuts down in order: no new sessions, GOAWAY and `goAway` for those that are open,
    /// whose requests are served until they have gone, or the drain time is over, or `hurry` completes; then `goingAway` for
    /// whoever is still there.
    ///
    /// # Errors
    /// What the server cannot live without came to an end; it has shut down in order all the same.
    pub async fn run(
        self,
        drain: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<(), EssentialTaskEnded> {
        let Server { context, router, renewal, orders, secure, plain, admin, events, delivery, export, .. } = self;
        let mut essential = Essential::default();
        essential.spawn("certificate renewal", renewal.run(context.metrics.clone()));
        if let Some(orders) = orders {
            essential.spawn("certificate orders", orders.run(context.metrics.clone()));
        }
        let hub = Arc::clone(&context.hub);
        essential.spawn("passing of time", async move { hub.keep_time().await });
        if let Some(events) = events {
            let hub = Arc::clone(&context.hub);
            essential.spawn("cluster", async move { hub.keep_cluster(events).await });
            essential.spawn("requests of other nodes", carry::serve(Arc::clone(&context)));
        }
        if context.auth.is_some() {
            let shared = Arc::clone(&context);
            essential.spawn("token keys", async move {
                if let Some(auth) = &shared.auth {
                    auth.keep_fresh().await;
                }
            });
        }
        for Secure { tcp, quic } in secure {
            let tls = Some(context.certificates.tcp());
            essential.spawn("TLS listener", tcp::serve_tcp(tcp, tls, router.clone(), Arc::clone(&context)));
            if let Some(endpoint) = quic {
                let serve = quic::serve(endpoint, context.certificates.quic(), router.clone(), Arc::clone(&context));
                essential.spawn("QUIC endpoint", context.tasks.track_future(serve));
            }
        }
        for listener in plain {
            let serve = tcp::serve_tcp(listener, None, router.clone(), Arc::clone(&context));
            essential.spawn("plaintext listener", serve);
        }
        if let Some((listener, router)) = admin {
            essential.spawn("admin listener", tcp::serve_admin(listener, router, Arc::clone(&context)));
        }
        // Nothing happens in rooms any more.
        let over = Arc::new(Signal::default());
        let telling = delivery.map(|delivery| AbortOnDropHandle::new(tokio::spawn(delivery.run(Arc::clone(&over)))));
        let sending = export.map(|export| AbortOnDropHandle::new(tokio::spawn(export.run(Arc::clone(&over)))));
        context.tasks.close();
        let ended = tokio::select! {
            biased;
            () = drain => None,
            () = context.ask_to_drain.raised() => None,
            () = context.stop.raised() => None,
            ended = essential.ended() => Some(ended),
        };
        shut_down(&context, hurry).await;
        if let Some(cluster) = &context.cluster {
            context.hub.give_away(GIVE_AWAY).await;
            cluster.stop().await;
        }
        over.raise();
        for last in telling.into_iter().chain(sending) {
            // Each has a deadline of its own; a panic of one is nobody else's matter.
            let _ = last.await;
        }
        info!("stopped");
        ended.map_or(Ok(()), Err)
    }
}

/// Has a running server read its files again.
#[derive(Debug, Clone)]
pub struct Reloader {
    context: Arc<Context>,
    hurry: Option<Arc<Notify>>,
}

impl Reloader {
    /// Reads certificates, token keys and the secret of TURN servers again, and has a certificate that could not be had ordered once
    /// more; whatever cannot be used stays as it is, and the log and the metrics tell.
    pub async fn read_files(&self) {
        // The renewal logs and counts by itself.
        let _ = self.context.certificates.read_again().await;
        if let Some(hurry) = &self.hurry {
            // Who does not wait to try again need not hurry.
            hurry.notify_waiters();
        }
        if let Some(auth) = &self.context.auth {
            // So does the verifier.
            let _ = auth.read_again().await;
        }
        self.read_turn_secret();
    }

    /// Blocks for the time of reading a small file.
    fn read_turn_secret(&self) {
        let Context { hub, config, metrics, .. } = &*self.context;
        match hub.relays().read_again(&config.ice) {
            Ok(false) => {}
            Ok(true) => metrics.reloaded(Reloaded::TurnSecret, true),
            Err(error) => {
                warn!(%error, "the TURN secret could not be read again; the one in use stays");
                metrics.reloaded(Reloaded::TurnSecret, false);
            }
        }
    }

    /// Takes over what may change while the server runs, [`RELOADED`](crate::config::RELOADED). Sessions that are open go on.
    pub fn apply(&self, config: &Config) {
        self.context.origins.list(config.origins.clone());
        self.context.pace.change(config.connections.sessions_per_second);
        self.context.clients.change(config.clients.clone());
    }

    /// Counts what has become of the settings.
    pub fn note_settings(&self, succeeded: bool) {
        self.context.metrics.reloaded(Reloaded::Settings, succeeded);
    }
}

/// A task without which the server is of no use, by its name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's task \"{0}\" has ended, which is a fault of its own")]
pub struct EssentialTaskEnded(&'static str);

/// Tasks that live as long as the server. Aborted when this is dropped.
#[derive(Default)]
struct Essential {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Essential {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until one has ended, by itself or by a panic. Neither should be.
    async fn ended(&mut self) -> EssentialTaskEnded {
        let Some(ended) = self.tasks.join_next_with_id().await else { return std::future::pending().await };
        let (id, panic) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        let name = self.names.get(&id).copied().unwrap_or_default();
        error!(
            task = name,
            panic = panic.map(tracing::field::display),
            "a task has ended that must not; shutting down"
        );
        EssentialTaskEnded(name)
    }
}

async fn shut_down(context: &Context, hurry: impl Future<Output = ()>) {
    let (drain, last_words) = (context.config.drain, context.config.connections.close);
    info!(
        drain_ms = drain.as_millis() as u64,
        "shutting down: no new sessions, those that are open are asked to go elsewhere"
    );
    let _ = context.drained_by.set(Instant::now() + drain);
    context.drain.raise();
    if let Some(cluster) = &context.cluster {
        cluster.drain();
    }
    tokio::select! {
        () = context.hub.deserted() => info!("every session has gone"),
        () = tokio::time::sleep(drain) => {}
        () = hurry => {}
    }
    context.stop.raise();
    // Each connection has its own deadline for its last words; this one is for those that miss theirs.
    if tokio::time::timeout(last_words + Duration::from_secs(1), context.tasks.wait()).await.is_err() {
        warn!(tasks = context.tasks.len(), "some connections did not end in time");
    }
}

/// The directory of `--web`, with all links resolved, so that no file's path can lead out of it unseen.
async fn directory(dir: &Path) -> Result<PathBuf, StartError> {
    let advice = "check --web";
    let read = |error| StartError::file("open the directory", dir, &error, advice);
    let path = tokio::fs::canonicalize(dir).await.map_err(read)?;
    tokio::fs::read_dir(&path).await.map(drop).map_err(read)?;
    Ok(path)
}

async fn bind_secure(config: &Config, certificates: &Certificates) -> Result<Vec<Secure>, StartError> {
    let mut bound: Vec<Secure> = Vec::with_capacity(config.listen.len());
    for &wanted in &config.listen {
        let address = same_port(wanted, bound.first().map(|both| &both.tcp));
        // A port that the system chose for TCP may be taken for UDP; another one is as good then.
        let tries = if address.port() == 0 { FREE_PORT_TRIES } else { 1 };
        let mut result = bind_both(address, config, certificates).await;
        for _ in 1..tries {
            if result.is_ok() {
                break;
            }
            result = bind_both(address, config, certificates).await;
        }
        bound.push(result?);
    }
    Ok(bound)
}

async fn bind_both(address: SocketAddr, config: &Config, certificates: &Certificates) -> Result<Secure, StartError> {
    let tcp = listen(address, "--listen").await?;
    let address = tcp.local_addr().map_err(|error| StartError::listen("TCP", address, "--listen", &error))?;
    let quic = if config.protocols.h3 {
        let tls = Arc::clone(&certificates.quic().borrow());
        let endpoint = quic::bind(address, &tls, config);
        Some(endpoint.map_err(|error| StartError::listen("UDP", address, "--listen", &error))?)
    } else {
        None
    };
    Ok(Secure { tcp, quic })
}

async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::listen("TCP", address, flag, &error))
}

/// All addresses of a listener share one port, or no one URL would do; port 0 becomes the one that the first was given.
fn same_port(address: SocketAddr, first: Option<&TcpListener>) -> SocketAddr {
    let port = first.and_then(|listener| listener.local_addr().ok()).map(|address| address.port());
    SocketAddr::new(address.ip(), if address.port() == 0 { port.unwrap_or(0) } else { address.port() })
}

fn advertise(config: &Config, certificates: &Certificates, addresses: &Addresses) -> Advertised {
    Advertised {
        names: certificates.names().to_vec(),
        port: addresses.secure.first().map_or(443, SocketAddr::port),
        quic: config.protocols.h3,
        hashes: certificates.hashes(),
        verifiable: certificates.verifiable(),
        plain_port: addresses.plain.first().map(SocketAddr::port),
    }
}

/// The server's own origins are those of its certificate's names, and on the plaintext listener those of its addresses.
fn origins(config: &Config, certificates: &Certificates, advertised: &Advertised) -> Origins {
    let secure = advertised.names.iter().map(|name| origin_of("https", name, advertised.port));
    let local =
        |name: &&String| *name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let plain = advertised
        .plain_port
        .map(|port| advertised.names.iter().filter(local).map(move |name| origin_of("http", name, port)));
    let own = secure.chain(plain.into_iter().flatten()).collect();
    Origins::new(own, config.origins.clone(), certificates.is_development())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_noticed_by_its_name() {
        let mut essential = Essential::default();
        essential.spawn("lasting", std::future::pending());
        essential.spawn("panicking", async { panic!("a fault") });
        assert_eq!(essential.ended().await, EssentialTaskEnded("panicking"));
        essential.spawn("ending", async {});
        assert_eq!(essential.ended().await, EssentialTaskEnded("ending"));
    }
}
