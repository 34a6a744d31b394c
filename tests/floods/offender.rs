//! The one who floods: from an address of its own, and back again whenever it is cut off.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wigwag::client::Trust;

/// Where the offender is; the honest are at another address.
pub(super) const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// How long one waits before coming back.
const PAUSE: Duration = Duration::from_millis(100);

/// Whoever is not let in by then has been refused.
const OPENS: Duration = Duration::from_secs(5);

/// Whom to flood.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) trust: Trust,
    /// One of the honest, to be addressed.
    pub(super) peer: Arc<str>,
    /// What has been sent so far.
    pub(super) bytes: Arc<AtomicU64>,
    /// How many requests were answered by a refusal, the connection staying open.
    pub(super) refused: Arc<AtomicU64>,
}

impl Target {
    pub(super) fn new(address: SocketAddr, trust: &Trust, peer: &str) -> Self {
        Target { address, trust: trust.clone(), peer: peer.into(), bytes: Arc::default(), refused: Arc::default() }
    }

    /// So many more have been sent.
    pub(super) fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A TCP connection.
    pub(super) async fn tcp(&self) -> Result<TcpStream, End> {
        let socket = TcpSocket::new_v4().map_err(|_| End::Refused)?;
        socket.bind(SocketAddr::new(FROM, 0)).map_err(|_| End::Refused)?;
        let stream = timeout(OPENS, socket.connect(self.address)).await;
        stream.map_err(|_| End::Refused)?.map_err(|_| End::Refused)
    }

    /// TLS over it, for one version of HTTP.
    pub(super) async fn tls(&self, alpn: &str) -> Result<TlsStream<TcpStream>, End> {
        let mut config = self.trust.tls.clone();
        config.alpn_protocols = vec![alpn.into()];
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = timeout(OPENS, TlsConnector::from(Arc::new(config)).connect(name, self.tcp().await?)).await;
        stream.map_err(|_| End::Refused)?.map_err(|_| End::Refused)
    }
}

/// How one connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was not let in.
    Refused,
    /// It was let in, and closed.
    Cut,
}

/// How all connections of a flood ended that did.
#[derive(Debug, Default)]
pub(super) struct Fates {
    ends: Mutex<Vec<(End, Duration)>>,
}

impl Fates {
    /// How often a connection was refused.
    pub(super) fn refused(&self) -> usize {
        self.ends.lock().iter().filter(|(end, _)| *end == End::Refused).count()
    }

    /// How often one was cut off, and how old it was, the median.
    pub(super) fn cut(&self) -> (usize, Duration) {
        let mut ages: Vec<Duration> =
            self.ends.lock().iter().filter(|(end, _)| *end == End::Cut).map(|(_, age)| *age).collect();
        ages.sort_unstable();
        (ages.len(), ages.get(ages.len() / 2).copied().unwrap_or_default())
    }
}

/// Attacks again and again.
pub(super) async fn offend<A, F>(target: Target, attack: Arc<A>, fates: Arc<Fates>)
where
    A: Fn(Target) -> F,
    F: Future<Output = End>,
{
    loop {
        let begun = Instant::now();
        let end = attack(target.clone()).await;
        fates.ends.lock().push((end, begun.elapsed()));
        sleep(PAUSE).await;
    }
}

/// Writes `start`, and then what `next` makes for as long as the other side takes it. Whatever it says is thrown away.
pub(super) async fn pour<S>(target: Target, stream: S, start: &[u8], mut next: impl FnMut() -> Vec<u8>) -> End
where
    S: AsyncRead + AsyncWrite,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = async {
        if write.write_all(start).await.is_err() {
            return;
        }
        loop {
            let bytes = next();
            if write.write_all(&bytes).await.is_err() {
                return;
            }
            target.count(bytes.len());
        }
    };
    tokio::select! {
        () = writing => {}
        () = hear_out(&mut read) => {}
    }
    End::Cut
}

/// Reads to the end.
pub(super) async fn hear_out(read: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = vec![0; 16 * 1024];
    while read.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
}
