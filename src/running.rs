//! What a started server says of itself, for whoever started it.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Protocols;
use crate::server::Server;

/// What a started server says of itself. Addresses are those really bound, port 0 resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// TLS over TCP, and QUIC unless it is switched off.
    pub listen: Vec<SocketAddr>,
    /// Unencrypted HTTP/1.1.
    pub plain: Vec<SocketAddr>,
    /// Health and metrics.
    pub admin: Option<SocketAddr>,
    /// What is served.
    pub protocols: Protocols,
    /// The server's own names, the one to be used first.
    pub names: Vec<String>,
    /// The development CA's certificate; `None` where there is nothing to be trusted by hand.
    pub ca: Option<PathBuf>,
    /// Whether there is a certificate to show already, which ACME has to order first.
    pub has_certificate: bool,
}

impl From<&Server> for Running {
    fn from(server: &Server) -> Self {
        let (addresses, certificates) = (server.addresses().clone(), server.certificates());
        Running {
            listen: addresses.secure,
            plain: addresses.plain,
            admin: addresses.admin,
            protocols: server.config().protocols,
            names: certificates.names().to_vec(),
            ca: certificates.ca_path().map(Into::into),
            has_certificate: server.context().has_certificate(),
        }
    }
}
