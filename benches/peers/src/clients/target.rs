//! Where a service is, and what is trusted there.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Result;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wigwag::client::{Endpoint, Trust};

/// The name in the certificate.
pub(crate) const HOST: &str = "127.0.0.1";

/// A server on loopback.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) port: u16,
    pub(crate) trust: Trust,
    tls: Arc<ClientConfig>,
}

impl Target {
    /// Every connection is a client's first: TLS sessions are not resumed, whether the server could or not.
    pub(crate) fn new(port: u16, roots: RootCertStore) -> Result<Self> {
        let mut trust = Trust::new(roots, Vec::new())?;
        trust.tls.resumption = Resumption::disabled();
        let tls = Arc::new(trust.tls.clone());
        Ok(Target { port, trust, tls })
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint { encrypted: true, host: HOST.to_owned(), port: self.port }
    }

    /// TCP and TLS, without ALPN.
    pub(crate) async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        Ok(connector.connect(ServerName::try_from(HOST)?, stream).await?)
    }
}
