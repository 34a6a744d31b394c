//! How the server programs are started: arguments, TLS, runtime, listener.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What every server program is told, in this order.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// Where to listen, on loopback.
    pub port: u16,
    /// Certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

impl Arguments {
    /// Reads the command line.
    ///
    /// # Errors
    /// If it is not `PORT CERT KEY`.
    pub fn read() -> Result<Self> {
        let mut words = std::env::args_os().skip(1);
        let mut next = || words.next().context("usage: PORT CERT KEY");
        let port = next()?.to_str().and_then(|port| port.parse().ok()).context("the first argument is a port")?;
        Ok(Arguments { port, cert: next()?.into(), key: next()?.into() })
    }

    /// Where to listen.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// TLS as wigwag does it: ring, TLS 1.3 alone, stateless tickets.
    ///
    /// # Errors
    /// If certificate or key cannot be read.
    pub fn tls(&self, alpn: &[u8]) -> Result<Arc<ServerConfig>> {
        let chain = CertificateDer::pem_file_iter(&self.cert)?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        let mut config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.ticketer = ring::Ticketer::new()?;
        Ok(Arc::new(config))
    }
}

/// Runs a server on the runtime that wigwag has: tokio's with several threads, which on one processor is one.
///
/// # Errors
/// Whatever ended it.
pub fn run(server: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(server)
}

/// Accepts TLS connections and has each served in a task of its own.
///
/// # Errors
/// If it cannot listen any more.
pub async fn serve_tls<F: Future<Output = ()> + Send>(
    arguments: &Arguments,
    alpn: &[u8],
    serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + 'static,
) -> Result<()> {
    let acceptor = TlsAcceptor::from(arguments.tls(alpn)?);
    let listener = TcpListener::bind(arguments.address()).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            // Boxed, as a task keeps the largest of its futures for as long as it lives. A client that fails knows why.
            if let Ok(stream) = Box::pin(acceptor.accept(stream)).await {
                serve(stream).await;
            }
        });
    }
}

/// Serves HTTP/1.1, and what it is upgraded to, over TLS.
///
/// # Errors
/// If it cannot listen any more.
pub async fn serve_http(arguments: &Arguments, router: Router) -> Result<()> {
    serve_tls(arguments, b"http/1.1", move |stream| {
        let service = TowerToHyperService::new(router.clone());
        async move {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A client that fails knows why.
            let _ = connection.with_upgrades().await;
        }
    })
    .await
}
