//! Fetches a document by https as a server may: no redirects, no addresses of its own network, nothing large, nothing slow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::header::{ACCEPT, HOST};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::keys::MAX_BYTES;

/// For the whole of it, name lookup included.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far the server may go for a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// A CA that is trusted for it beside the system's.
    pub ca: Option<PathBuf>,
    /// Whether it may be at an address of a private network, or of this machine.
    pub private: bool,
}

impl Reach {
    /// Reads the authorities that a server with the document may be known by: the system's, and the one of these settings.
    ///
    /// # Errors
    /// A file that is no CA certificate.
    pub(super) fn trust(&self) -> anyhow::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        // Certificates of the system's that cannot be read are as good as not there.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(ca) = &self.ca {
            let certificate =
                CertificateDer::from_pem_file(ca).with_context(|| format!("cannot read {}", ca.display()))?;
            roots.add(certificate).with_context(|| format!("{} is no CA certificate", ca.display()))?;
        }
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The document at `url`, from a server that `trust` vouches for; `private` as in [`Reach`].
pub(super) async fn get(url: &Uri, trust: ClientConfig, private: bool) -> anyhow::Result<String> {
    tokio::time::timeout(PATIENCE, fetch(url, trust, private)).await.context("no answer within 5 s")?
}

async fn fetch(url: &Uri, trust: ClientConfig, private: bool) -> anyhow::Result<String> {
    let host = url.host().context("the URL names no host")?.trim_matches(['[', ']']).to_owned();
    let stream = connect(&host, url.port_u16().unwrap_or(443), private).await?;
    let name = ServerName::try_from(host).context("the URL's host is no name")?;
    let stream = TlsConnector::from(Arc::new(trust)).connect(name, stream).await.context("TLS failed")?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with `requests`.
    let connection = tokio::spawn(connection);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().context("the URL names no host")?.as_str();
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .body(Empty::<bytes::Bytes>::new())?;
    let response = requests.send_request(request).await.context("no answer")?;
    if response.status() != StatusCode::OK {
        bail!("the answer is {}; redirects are not followed", response.status());
    }
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
    let body = body.map_err(|_| anyhow::anyhow!("the answer broke off or is over 256 KiB"))?.to_bytes();
    connection.abort();
    String::from_utf8(body.into()).context("the answer is not text")
}

/// Connects to one of the name's addresses, all of which must be allowed: what was checked is what is connected to.
async fn connect(host: &str, port: u16, private: bool) -> anyhow::Result<TcpStream> {
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((host, port)).await.context("the name is not known")?.collect();
    if !private && let Some(address) = addresses.iter().find(|address| !is_public(address.ip())) {
        bail!("its address {} is not a public one; --token-keys-private allows that", address.ip());
    }
    TcpStream::connect(&addresses[..]).await.context("cannot connect")
}

/// Whether an address belongs to the public internet. The standard library's own answer (`is_global`) is not stable.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_public_v4(v4),
            None => is_public_v6(v6),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    // 0/8, carrier-grade NAT, IETF protocol assignments, benchmarking, reserved (RFC 6890).
    let special = a == 0
        || a == 100 && (64..128).contains(&b)
        || (a, b, c) == (192, 0, 0)
        || a == 198 && b & 0xfe == 18
        || a >= 240;
    !(special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || address.is_broadcast())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Global unicast is 2000::/3 (RFC 4291), of which documentation, Teredo and 6to4 lead elsewhere.
    let [a, b, ..] = address.segments();
    a & 0xe000 == 0x2000 && a != 0x2002 && !(a == 0x2001 && (b == 0x0db8 || b == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for public in ["1.1.1.1", "193.0.14.129", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for other in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
        ] {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
    }
}
