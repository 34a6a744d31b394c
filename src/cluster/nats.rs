//! The bus over NATS (core, without JetStream): two subjects, of which nothing is asked but that most of what is published arrives.
//! Beside it, where the operator wants that, the store of seats in JetStream.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use percent_encoding::percent_decode_str;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::bus::{Bus, Flushed, INCOMING, Incoming, To};
use super::store::Store;
use crate::error::StartError;
use crate::files;
use crate::protocol::NodeId;
use crate::secret::SecretSource;

mod jetstream;

pub use jetstream::Durable;
use jetstream::JetStream;

/// Texts that may wait to be written. What comes beyond is lost, and sent again.
const OUTGOING: usize = 4096;

/// How often a connection that says nothing is asked for a sign of life.
const PING: Duration = Duration::from_secs(5);

/// The longest wait between two attempts to connect.
const RECONNECT: Duration = Duration::from_secs(1);

/// What a server takes in one message unless it says otherwise.
const PAYLOAD: usize = 1024 * 1024;

/// A NATS server's address. A password in it shows nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

/// Where and as whom to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The servers, of which any will do.
    pub servers: Vec<Address>,
    /// What all subjects begin with; nodes of one cluster have the same.
    pub name: Name,
    /// A file with a user's JWT and seed, as `nsc` makes it.
    pub credentials: Option<PathBuf>,
    /// A CA to trust beside the system's, PEM.
    pub ca: Option<PathBuf>,
    /// How long an unanswered note may be on its way.
    pub timeout: Duration,
    /// Where the key is that all nodes share.
    pub key: Option<SecretSource>,
    /// How seats are kept beyond the life of their node, if they are.
    pub durable: Option<Durable>,
}

/// What comes of a connection.
pub(super) struct Connected {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) incoming: mpsc::Receiver<Incoming>,
    pub(super) store: Option<Arc<dyn Store>>,
}

/// A cluster's name: 1 to 64 of `A-Z a-z 0-9 - _`, so that it is one token of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Default for Name {
    fn default() -> Self {
        Name("wigwag".to_owned())
    }
}

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(Name(text.to_owned()));
        }
        Err("write 1 to 64 of A-Z a-z 0-9 - _")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write it as nats://HOST:4222, or tls://HOST:4222 for an encrypted connection";
        let address: ServerAddr = text.parse().map_err(|_| wrong)?;
        let plain = ["", "/"].contains(&address.clone().into_inner().path());
        let known = text.starts_with("nats://") || text.starts_with("tls://");
        if known && plain && !address.host().is_empty() { Ok(Address(text.to_owned())) } else { Err(wrong) }
    }
}

impl Address {
    /// The user and the password in it, if there are any.
    fn login(&self) -> Option<(String, String)> {
        let (_, rest) = self.0.split_once("://")?;
        let (login, _) = rest.rsplit_once('@')?;
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Some((decode(user), decode(password)))
    }
}

/// Without user and password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("nats", &self.0));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        write!(f, "{scheme}://{host}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node's end of the bus.
#[derive(Debug)]
pub struct Nats {
    is_connected: Arc<AtomicBool>,
    client: Client,
    outgoing: mpsc::Sender<Outgoing>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

enum Outgoing {
    Text(To, Bytes),
    Flush(oneshot::Sender<()>),
}

/// The subjects of a cluster.
#[derive(Debug, Clone)]
struct Subjects(Name);

impl Subjects {
    fn of(&self, to: To) -> String {
        match to {
            To::All => format!("{}.nodes", self.0),
            To::Node(node) => format!("{}.node.{node}", self.0),
        }
    }
}

impl Nats {
    /// Connects, and again whenever the connection is lost. That a server cannot be reached is no error: it may come. `keep` is
    /// how long a seat without a transport is kept.
    ///
    /// # Errors
    /// Credentials or a CA that cannot be read.
    pub(super) async fn connect(policy: &Policy, node: NodeId, keep: Duration) -> Result<Connected, StartError> {
        let (sender, incoming) = mpsc::channel(INCOMING);
        let is_connected = Arc::new(AtomicBool::new(false));
        let state =
            Arc::new(State { sender: sender.clone(), is_connected: Arc::clone(&is_connected), warned: false.into() });
        let options = options(policy)?.event_callback(move |event| told(event, Arc::clone(&state)));
        let servers = policy.servers.iter().map(|address| address.0.parse::<ServerAddr>());
        let servers = servers.collect::<io::Result<Vec<_>>>().map_err(|error| refused(&error))?;
        let client = options.connect(servers).await.map_err(|error| refused(&error))?;
        let subjects = Subjects(policy.name.clone());
        let own = client.subscribe(subjects.of(To::Node(node))).await.map_err(|error| refused(&error))?;
        let all = client.subscribe(subjects.of(To::All)).await.map_err(|error| refused(&error))?;
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let writing = tokio::spawn(write(client.clone(), Arc::clone(&is_connected), subjects, queue));
        let reading = tokio::spawn(read([own, all], sender));
        let mut tasks = vec![AbortOnDropHandle::new(writing), AbortOnDropHandle::new(reading)];
        let store = policy.durable.map(|durable| {
            let store = Arc::new(JetStream::new(client.clone(), &policy.name, durable, keep));
            tasks.push(AbortOnDropHandle::new(tokio::spawn(Arc::clone(&store).watch())));
            store as Arc<dyn Store>
        });
        Ok(Connected { bus: Arc::new(Nats { is_connected, client, outgoing, _tasks: tasks }), incoming, store })
    }
}

impl Bus for Nats {
    fn publish(&self, to: To, text: Bytes) {
        if self.outgoing.try_send(Outgoing::Text(to, text)).is_err() {
            debug!("more is to be said to the cluster than it takes; it will be said again");
        }
    }

    fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    fn largest(&self) -> usize {
        // Not known before the first connection.
        match self.client.max_payload() {
            0 => PAYLOAD,
            most => most,
        }
    }

    fn flush(&self) -> Flushed<'_> {
        Box::pin(async {
            let (done, flushed) = oneshot::channel();
            if self.outgoing.send(Outgoing::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        })
    }
}

fn options(policy: &Policy) -> Result<ConnectOptions, StartError> {
    let mut options = match &policy.credentials {
        None => ConnectOptions::new(),
        Some(path) => {
            let text = files::read_private(path, "check --cluster-credentials")?;
            let text = String::from_utf8_lossy(&text);
            ConnectOptions::with_credentials(&text).map_err(|error| {
                let why = "it must hold a user's JWT and seed, as 'nsc generate creds' writes them";
                StartError::new(format_args!("cannot use {}: {error}; {why}", path.display()))
            })?
        }
    };
    if let Some((user, password)) = policy.servers.iter().find_map(Address::login) {
        options = options.user_and_password(user, password);
    }
    if let Some(ca) = &policy.ca {
        files::read(ca).map_err(|error| StartError::file("read", ca, &error, "check --cluster-ca"))?;
        options = options.add_root_certificates(ca.clone());
    }
    Ok(options
        .name("wigwag")
        .no_echo()
        .retry_on_initial_connect()
        .ping_interval(PING)
        .subscription_capacity(INCOMING)
        .reconnect_delay_callback(|attempts| (Duration::from_millis(50) * attempts.min(20) as u32).min(RECONNECT)))
}

fn refused(error: &dyn std::error::Error) -> StartError {
    StartError::new(format_args!("cannot connect to the cluster: {error}; check --cluster"))
}

/// What the connection is, for whoever is told of it.
struct State {
    sender: mpsc::Sender<Incoming>,
    is_connected: Arc<AtomicBool>,
    /// The log has been told why there is no connection.
    warned: AtomicBool,
}

async fn told(event: Event, state: Arc<State>) {
    let is_connected = match event {
        Event::Connected => true,
        Event::Disconnected => false,
        Event::ClientError(_) | Event::ServerError(_) => {
            // Each attempt fails with it; the first is enough.
            if !state.is_connected.load(Ordering::Relaxed) && !state.warned.swap(true, Ordering::Relaxed) {
                warn!(error = %event, "NATS cannot be reached; trying again until it can");
            }
            return debug!(%event, "NATS");
        }
        event => return debug!(%event, "NATS"),
    };
    state.is_connected.store(is_connected, Ordering::Relaxed);
    state.warned.store(!is_connected, Ordering::Relaxed);
    let news = if is_connected { Incoming::Connected } else { Incoming::Disconnected };
    // Only the end of the server closes the channel.
    let _ = state.sender.send(news).await;
}

/// Hands over what there is to say. While there is no connection it is dropped: by the time there is one it would be stale.
async fn write(client: Client, is_connected: Arc<AtomicBool>, subjects: Subjects, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(outgoing) = queue.recv().await {
        match outgoing {
            Outgoing::Text(..) if !is_connected.load(Ordering::Relaxed) => {}
            Outgoing::Text(to, text) => {
                if let Err(error) = client.publish(subjects.of(to), text).await {
                    debug!(%error, "NATS does not take a text");
                }
            }
            Outgoing::Flush(done) => {
                if is_connected.load(Ordering::Relaxed)
                    && let Err(error) = client.flush().await
                {
                    debug!(%error, "NATS could not be flushed");
                }
                let _ = done.send(());
            }
        }
    }
}

/// Takes in what has come, and waits while there is no room: what NATS has to drop then is sent again.
async fn read(subscribers: [Subscriber; 2], sender: mpsc::Sender<Incoming>) {
    let mut messages = futures_util::stream::select_all(subscribers);
    while let Some(message) = messages.next().await {
        if sender.send(Incoming::Text(message.payload)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_those_of_nats() {
        for good in ["nats://127.0.0.1:4222", "tls://nats.example.org", "nats://[::1]:4222", "nats://u:p@host:1"] {
            assert!(good.parse::<Address>().is_ok(), "{good}");
        }
        for bad in ["", "host", "host:4222", "nats://", "http://host", "ws://host", "nats://host:x", "nats://host/a"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        let secret: Address = "tls://user:p%40ss@host:4222".parse().expect("an address");
        assert_eq!(secret.login(), Some(("user".to_owned(), "p@ss".to_owned())));
        assert_eq!(format!("{secret} {secret:?}"), "tls://host:4222 tls://host:4222");
        assert!("my-cluster_2".parse::<Name>().is_ok());
        for bad in ["", "a.b", "a b", "*", ">", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
