//! What QUIC's connections know of their paths, told to the metrics from time to time: connections last for hours, and nobody
//! should have to wait for their end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::metrics::Metrics;

/// How often each path is looked at.
const EVERY: Duration = Duration::from_secs(10);

/// How many are looked at in a row before others have their turn.
const AT_ONCE: usize = 64;

/// The paths of an endpoint's connections.
#[derive(Debug)]
pub(super) struct Paths {
    metrics: Metrics,
    open: Mutex<HashMap<u64, Weak<Path>>>,
    next: AtomicU64,
}

impl Paths {
    pub(super) fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Paths { metrics, open: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// Looks at this connection's path from now on, and a last time when what is returned drops.
    pub(super) fn watch(self: &Arc<Self>, quic: quinn::Connection) -> Arc<Path> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let path = Arc::new(Path { id, quic, told: Mutex::default(), paths: Arc::clone(self) });
        self.open.lock().insert(id, Arc::downgrade(&path));
        path
    }

    /// Looks at all of them, again and again: drop the future to end it.
    pub(super) async fn keep_looking(&self) {
        loop {
            sleep(EVERY).await;
            let open: Vec<Weak<Path>> = self.open.lock().values().cloned().collect();
            for some in open.chunks(AT_ONCE) {
                some.iter().filter_map(Weak::upgrade).for_each(|path| path.tell());
                yield_now().await;
            }
        }
    }
}

/// One connection's path.
#[derive(Debug)]
pub(super) struct Path {
    id: u64,
    quic: quinn::Connection,
    told: Mutex<Told>,
    paths: Arc<Paths>,
}

/// Packets that were told of already.
#[derive(Debug, Default)]
struct Told {
    sent: u64,
    lost: u64,
}

impl Path {
    fn tell(&self) {
        let path = self.quic.stats().path;
        let mut told = self.told.lock();
        let (sent, lost) = (path.sent_packets.saturating_sub(told.sent), path.lost_packets.saturating_sub(told.lost));
        *told = Told { sent: path.sent_packets, lost: path.lost_packets };
        self.paths.metrics.quic_path(path.rtt, sent, lost);
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.tell();
        self.paths.open.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use quinn::crypto::rustls::QuicClientConfig;
    use quinn::{ClientConfig, Endpoint, ServerConfig};
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::RootCertStore;
    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    /// Both ends of a connection, and their endpoints, without which it would be lost.
    async fn connected() -> ([Endpoint; 2], [quinn::Connection; 2]) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into())
            .unwrap();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let local = "127.0.0.1:0".parse().unwrap();
        let server = Endpoint::server(ServerConfig::with_crypto(Arc::new(tls)), local).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let client = Endpoint::client(local).unwrap();
        let connecting = client.connect_with(config, server.local_addr().unwrap(), "localhost").unwrap();
        let (ours, theirs) = tokio::join!(async { server.accept().await.unwrap().await.unwrap() }, connecting);
        ([server, client], [ours, theirs.unwrap()])
    }

    fn sample(metrics: &Metrics, name: &str) -> u64 {
        let text = metrics.encode().unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
    }

    #[tokio::test]
    async fn a_path_is_looked_at_while_it_lasts_and_at_its_end() {
        let (_endpoints, [ours, theirs]) = connected().await;
        let metrics = Metrics::default();
        let paths = Paths::new(metrics.clone());
        let path = paths.watch(ours);
        let looks = || sample(&metrics, "wigwag_quic_rtt_seconds_count");
        assert_eq!(looks(), 0);
        tokio::time::pause();
        tokio::select! {
            () = paths.keep_looking() => {}
            () = sleep(EVERY * 5 / 2) => {}
        }
        assert_eq!(looks(), 2);
        let sent = sample(&metrics, "wigwag_quic_sent_packets_total");
        assert!(sent > 0 && sent < 100, "{sent}: each packet is told of once");
        drop(path);
        assert_eq!((looks(), paths.open.lock().len()), (3, 0));
        drop(theirs);
    }
}
