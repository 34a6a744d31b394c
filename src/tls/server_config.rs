//! TLS as the two listeners speak it.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ProducesTickets, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};

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
}

impl ConfigMaker {
    pub(super) fn new(protocols: Protocols) -> Result<Self, StartError> {
        let tickets = || {
            ring::Ticketer::new().map_err(|error| StartError::new(format_args!("cannot make TLS ticket keys: {error}")))
        };
        Ok(ConfigMaker {
            provider: Arc::new(ring::default_provider()),
            tcp_tickets: tickets()?,
            quic_tickets: tickets()?,
            protocols,
        })
    }

    /// For TCP: TLS 1.3, with 1.2 beside it where that is asked for; HTTP/2 unless it is switched off, and HTTP/1.1.
    pub(super) fn tcp(&self, certified: Arc<CertifiedKey>) -> Arc<ServerConfig> {
        let versions: &[_] = if self.protocols.tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
        let mut config = self.config(versions, certified);
        config.ticketer = self.tcp_tickets.clone();
        config.alpn_protocols = match self.protocols.h2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        // HTTP/2 SETTINGS may go with the server's first flight: no client certificate is asked for that could still fail.
        config.send_half_rtt_data = true;
        Arc::new(config)
    }

    /// For QUIC, which knows TLS 1.3 only (RFC 9001).
    pub(super) fn quic(&self, certified: Arc<CertifiedKey>) -> Arc<ServerConfig> {
        let mut config = self.config(&[&TLS13], certified);
        config.ticketer = self.quic_tickets.clone();
        config.alpn_protocols = vec![b"h3".to_vec()];
        Arc::new(config)
    }

    fn config(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        certified: Arc<CertifiedKey>,
    ) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions)
            .expect("the ring provider has cipher suites for TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        // Early data could be replayed by anyone who saw it (RFC 8446, 8), a `join` included.
        config.max_early_data_size = 0;
        config
    }
}
