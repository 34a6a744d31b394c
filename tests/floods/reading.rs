//! A port that speaks TLS over TCP, and QUIC, and only reads: what any server has to do for whoever floods it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::offender::hear_out;

/// Starts it on a thread of its own, with the server's own certificates; it ends with the process.
pub(super) fn start(certificates: PathBuf) -> SocketAddr {
    let (told, address) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (tcp, quic) = bind(certificates).await;
            told.send(tcp.0.local_addr().expect("bound")).expect("whoever started this waits");
            tokio::join!(read_tcp(tcp.0, tcp.1), read_quic(quic));
        });
    });
    address.recv().expect("it listens")
}

async fn bind(certificates: PathBuf) -> ((TcpListener, TlsAcceptor), quinn::Endpoint) {
    let config = |file: &str, alpn: &[&str]| {
        let file = certificates.join(file);
        let chain = CertificateDer::pem_file_iter(&file).expect("a file").map(|one| one.expect("a certificate"));
        let key = PrivateKeyDer::from_pem_file(&file).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("TLS 1.3").with_no_client_auth().with_single_cert(chain.collect(), key);
        let mut config = config.expect("a pair");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    };
    let tls = TlsAcceptor::from(Arc::new(config("localhost.pem", &["h2", "http/1.1"])));
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config("webtransport.pem", &["h3"]));
    let quic = quinn::ServerConfig::with_crypto(Arc::new(crypto.expect("QUIC's cipher suites")));
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        // Only the number that TCP got will do.
        if let Ok(endpoint) = quinn::Endpoint::server(quic.clone(), tcp.local_addr().expect("bound")) {
            return ((tcp, tls), endpoint);
        }
    }
}

async fn read_tcp(listener: TcpListener, tls: TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        let accepting = tls.accept(stream);
        tokio::spawn(async move {
            if let Ok(mut stream) = accepting.await {
                hear_out(&mut stream).await;
            }
        });
    }
}

async fn read_quic(endpoint: quinn::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let datagrams = async { while connection.read_datagram().await.is_ok() {} };
            let both = async {
                while let Ok((_send, mut recv)) = connection.accept_bi().await {
                    tokio::spawn(async move { hear_out(&mut recv).await });
                }
            };
            let one = async {
                while let Ok(mut recv) = connection.accept_uni().await {
                    tokio::spawn(async move { hear_out(&mut recv).await });
                }
            };
            tokio::join!(datagrams, both, one);
        });
    }
}
