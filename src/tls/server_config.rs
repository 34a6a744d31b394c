//! TLS as the two listeners speak it.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use super::challenge::{self, ACME_TLS, Challenges};
use crate::config::Protocols;
use crate::error::StartError;

/// Makes the configurations of both listeners for one certificate after another. Ticket keys outlive the certificates, so
/// that clients can resume after a renewal.
#[derive(Debug)]
pub(super) struct ConfigMaker {
    pub(super) provider: Arc<CryptoProvider>,
    tcp_tickets: Arc<dyn ProducesTickets>,
    quic_tickets: Arc<dyn ProducesTickets>,
    protocols: Protocols,
    /// Where certificates are ordered by ACME.
    pub(super) challenges: Option<Challenges>,
}

/// What a connection is shown.
#[derive(Debug)]
struct Shown {
    /// Before the first is issued there is none, and handshakes fail.
    certified: Option<Arc<CertifiedKey>>,
    challenges: Option<Challenges>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match &self.challenges {
            Some(challenges) if challenge::is_asked(&hello) => challenges.find(&hello),
            _ => self.certified.clone(),
        }
    }
}

impl ConfigMaker {
    /// `orders` says whether certificates are ordered by ACME, so that its challenges have to be answered.
    pub(super) fn new(protocols: Protocols, orders: bool) -> Result<Self, StartError> {
        let tickets = || {
            ring::Ticketer::new().map_err(|error| StartError::new(format_args!("cannot make TLS ticket keys: {error}")))
        };
        let provider = Arc::new(ring::default_provider());
        Ok(ConfigMaker {
            challenges: orders.then(|| Challenges::new(Arc::clone(&provider))),
            provider,
            tcp_tickets: tickets()?,
            quic_tickets: tickets()?,
            protocols,
        })
    }

    /// For TCP: TLS 1.3, with 1.2 beside it where that is asked for; HTTP/2 unless it is switched off, and HTTP/1.1.
    pub(super) fn tcp(&self, certified: Option<Arc<CertifiedKey>>) -> Arc<ServerConfig> {
        let versions: &[_] = if self.protocols.tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
        let mut config = self.config(versions, Shown { certified, challenges: self.challenges.clone() });
        config.ticketer = self.tcp_tickets.clone();
        config.alpn_protocols = match self.protocols.h2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        if self.challenges.is_some() {
            config.alpn_protocols.push(ACME_TLS.to_vec());
        }
        // HTTP/2 SETTINGS may go with the server's first flight: no client certificate is asked for that could still fail.
        config.send_half_rtt_data = true;
        Arc::new(config)
    }

    /// For QUIC, which knows TLS 1.3 only (RFC 9001).
    pub(super) fn quic(&self, certified: Option<Arc<CertifiedKey>>) -> Arc<ServerConfig> {
        let mut config = self.config(&[&TLS13], Shown { certified, challenges: None });
        config.ticketer = self.quic_tickets.clone();
        config.alpn_protocols = vec![b"h3".to_vec()];
        Arc::new(config)
    }

    fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion], shown: Shown) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions)
            .expect("the ring provider has cipher suites for TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        // Early data could be replayed by anyone who saw it (RFC 8446, 8), a `join` included.
        config.max_early_data_size = 0;
        config
    }
}
