//! What `wigwag serve` prints when it is ready.

use std::fmt::Write;
use std::net::SocketAddr;

use super::certs::quoted;
use crate::origin::origin_of;
use crate::running::Running;

/// A few lines for whoever started the server: where the page is, what is served, what to trust, how to go on.
pub fn banner(running: &Running) -> String {
    let mut text = format!("wigwag {} is ready\n", env!("CARGO_PKG_VERSION"));
    let mut line = |label: &str, value: String| {
        writeln!(text, "  {label:<13}{value}").expect("a String takes everything");
    };
    line("page", page(running));
    line("listening", format!("{} on {}", transports(running), list(&running.listen)));
    if !running.plain.is_empty() {
        line("", format!("HTTP/1.1 unencrypted on {}", list(&running.plain)));
    }
    if let Some(admin) = running.admin {
        line("admin", format!("http://{admin}/"));
    }
    if !running.has_certificate {
        line("certificates", "the first is ordered by ACME; until it is there TLS is refused".to_owned());
    }
    if let Some(ca) = &running.ca {
        // Wherever the command is typed: this server may have been started elsewhere.
        let ca = std::path::absolute(ca).unwrap_or_else(|_| ca.clone());
        let dir = quoted(ca.parent().unwrap_or(&ca));
        line("certificates", format!("made for development; to trust them, run: wigwag certs --certs-dir {dir}"));
        if running.listen.iter().all(|address| address.ip().is_loopback()) {
            line(
                "for a phone",
                "wigwag --listen 0.0.0.0:4433 --name <this machine's address> --open --dev-certs".to_owned(),
            );
        }
    }
    text
}

/// The address to open: in development the unencrypted one on this machine, which needs no trust and is a secure context.
fn page(running: &Running) -> String {
    let local = running.plain.iter().find(|address| address.ip().is_loopback());
    if let (Some(_), Some(plain)) = (&running.ca, local) {
        return format!("{}/", origin_of("http", "localhost", plain.port()));
    }
    let name = running.names.first().map_or("localhost", String::as_str);
    match (running.listen.first(), running.plain.first()) {
        (Some(address), _) => format!("{}/", origin_of("https", name, address.port())),
        (None, Some(address)) => format!("{}/", origin_of("http", name, address.port())),
        (None, None) => "none".to_owned(),
    }
}

fn transports(running: &Running) -> String {
    let mut served = Vec::new();
    if running.protocols.h3 {
        served.push("HTTP/3 with WebTransport");
    }
    if running.protocols.h2 {
        served.push("HTTP/2");
    }
    served.push("HTTP/1.1");
    served.join(", ")
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}
