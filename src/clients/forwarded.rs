//! What trusted proxies say of the client behind them: `Forwarded` (RFC 7239) or `X-Forwarded-For`.
//!
//! A header is only as good as who wrote it. Every proxy appends the address that it heard from, so that the list is read from
//! its end: each entry is vouched for by the one behind it, the last by the connection's peer. The first address that is not a
//! trusted proxy's is the client; what stands before it, the client may have written itself.

use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// The header that the trusted proxies write. Only this one is read: a proxy that appends to one of them passes the other on
/// as the client has written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Forwarded-For`: what most proxies write.
    #[default]
    XForwardedFor,
}

/// A header of a trusted proxy that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proxy's {0} header is not a list of addresses")]
pub struct Malformed(pub &'static str);

/// One entry of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Address(IpAddr),
    /// `unknown`, or a name that hides the address (RFC 7239, 6.2 and 6.3).
    Hidden,
}

impl ForwardedHeader {
    /// The header's name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            ForwardedHeader::Forwarded => "forwarded",
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
        }
    }

    /// The client of a request that came from `peer`. A hidden client counts as the proxy that hides it.
    ///
    /// # Errors
    /// A trusted proxy sent what is no list of addresses.
    pub(super) fn client(self, peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Result<IpAddr, Malformed> {
        let mut client = peer.to_canonical();
        if !contains(trusted, client) {
            return Ok(client);
        }
        let malformed = || Malformed(self.name());
        let name = match self {
            ForwardedHeader::Forwarded => FORWARDED,
            ForwardedHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
        };
        // Several lines are one list (RFC 9110, 5.3).
        for line in headers.get_all(name).iter().rev() {
            let elements = split(line.as_bytes(), b',').ok_or_else(malformed)?;
            for element in elements.into_iter().rev().filter(|element| !element.is_empty()) {
                let element = str::from_utf8(element).map_err(|_| malformed())?;
                let node = match self {
                    ForwardedHeader::Forwarded => forwarded_for(element),
                    ForwardedHeader::XForwardedFor => address(element).map(Node::Address),
                };
                match node.ok_or_else(malformed)? {
                    Node::Address(address) => client = address,
                    Node::Hidden => return Ok(client),
                }
                if !contains(trusted, client) {
                    return Ok(client);
                }
            }
        }
        Ok(client)
    }
}

/// Whether one of the networks has the address.
pub(super) fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The `for` of one element (RFC 7239, 4), which has one at most; without one it hides the client.
fn forwarded_for(element: &str) -> Option<Node> {
    let mut node = None;
    for pair in split(element.as_bytes(), b';')?.into_iter().filter(|pair| !pair.is_empty()) {
        let (name, value) = str::from_utf8(pair).ok()?.split_once('=')?;
        let value = match value.strip_prefix('"') {
            // An escaped character (RFC 9110, 5.6.4) has no place in an address, a host or a scheme.
            Some(quoted) => quoted.strip_suffix('"').filter(|value| !value.contains(['"', '\\']))?,
            None => value,
        };
        if !name.eq_ignore_ascii_case("for") {
            continue;
        }
        let told = if value.eq_ignore_ascii_case("unknown") || value.starts_with('_') {
            Node::Hidden
        } else {
            Node::Address(address(value)?)
        };
        if node.replace(told).is_some() {
            return None;
        }
    }
    Some(node.unwrap_or(Node::Hidden))
}

/// An address, with or without port (RFC 7239, 6). An IPv6 one has brackets, or no port.
fn address(text: &str) -> Option<IpAddr> {
    let (address, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']')?;
        (IpAddr::V6(address.parse().ok()?), rest)
    } else if let Ok(address) = text.parse() {
        (address, "")
    } else {
        let (address, port) = text.split_at(text.find(':')?);
        (IpAddr::V4(address.parse().ok()?), port)
    };
    (port.is_empty() || is_port(port.strip_prefix(':')?)).then(|| address.to_canonical())
}

/// A number, or a name that hides it (RFC 7239, 6.3).
fn is_port(text: &str) -> bool {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match text.strip_prefix('_') {
        Some(name) => !name.is_empty() && name.bytes().all(named),
        None => text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok(),
    }
}

/// Splits at a separator outside quoted strings, and trims. `None` if the last string does not end: the client may have begun it,
/// to have what the proxy appends taken for its rest.
fn split(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(text[begin..at].trim_ascii());
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[begin..].trim_ascii());
    (!quoted).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(header: ForwardedHeader, peer: &str, lines: &[&str]) -> Option<String> {
        let trusted = ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|text| text.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            let line = http::HeaderValue::from_bytes(line.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(header.name()), line);
        }
        let client = header.client(peer.parse().unwrap(), &headers, &trusted);
        client.ok().map(|address| address.to_string())
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxys() {
        let of = |peer, lines: &[&str]| client(ForwardedHeader::XForwardedFor, peer, lines).unwrap();
        assert_eq!(of("10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(of("10.0.0.1", &["192.0.2.1:_hidden"]), "192.0.2.1");
        assert_eq!(of("10.0.0.1", &["6.6.6.6, 192.0.2.1"]), "192.0.2.1", "the client wrote the first itself");
        assert_eq!(of("10.0.0.1", &["6.6.6.6", "192.0.2.1, 10.0.0.9"]), "192.0.2.1", "two proxies, two lines");
        for own in ["nonsense", "n\u{f6}nsense"] {
            let line = format!("{own}, 192.0.2.1");
            assert_eq!(of("10.0.0.1", &[&line]), "192.0.2.1", "what the client wrote is not read");
        }
        assert_eq!(of("192.0.2.7", &["192.0.2.1"]), "192.0.2.7", "nobody trusts this peer");
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &["10.0.0.2, 10.0.0.3"]), "10.0.0.2", "proxies all the way");
        assert_eq!(of("::ffff:10.0.0.1", &["192.0.2.1:5678"]), "192.0.2.1", "with a port");
        for text in ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:443", "2001:db8::7,2001:db8:ffff::1"] {
            assert_eq!(of("10.0.0.1", &[text]), "2001:db8::7");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        let of = |line| client(ForwardedHeader::Forwarded, "10.0.0.1", &[line]).unwrap();
        assert_eq!(of("for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60");
        assert_eq!(of("For=\"[2001:db8:cafe::17]:4711\""), "2001:db8:cafe::17");
        assert_eq!(of("for=192.0.2.43, for=198.51.100.17"), "198.51.100.17");
        assert_eq!(of("for=192.0.2.43, for=\"10.0.0.2:_a\";host=\"a,b;for=6.6.6.6\""), "192.0.2.43");
        assert_eq!(of("for=6.6.6.6, for=unknown"), "10.0.0.1", "a hidden client counts as the proxy that hides it");
        assert_eq!(of("for=6.6.6.6, for=_hidden, for=10.0.0.2"), "10.0.0.2");
        assert_eq!(of("for=6.6.6.6, proto=https"), "10.0.0.1");
    }

    #[test]
    fn what_a_trusted_proxy_should_not_send_is_malformed() {
        let lists = ["192.0.2.1, x", "192.0.2.256", "unknown", "[192.0.2.1]", "[::1", "a\"b", "[fe80::1%1]:443"];
        let ports = ["99999", "+80", "_", "_a b", "80:_a", "_a:_b", ""].map(|port| format!("192.0.2.1:{port}"));
        for line in lists.into_iter().chain(ports.iter().map(String::as_str)).chain(["2001:db8::7:_a", "[::1]443"]) {
            assert_eq!(client(ForwardedHeader::XForwardedFor, "10.0.0.1", &[line]), None, "{line}");
        }
        for line in [
            "for",
            "for=",
            "192.0.2.1",
            "for=\"192.0.2.1",
            "for=192.0.2.1;for=6.6.6.6",
            "for=2001:db8::g",
            "for=\"192.0.2.\\1\"",
        ] {
            assert_eq!(client(ForwardedHeader::Forwarded, "10.0.0.1", &[line]), None, "{line}");
        }
    }

    #[test]
    fn a_quote_that_the_client_leaves_open_does_not_swallow_what_the_proxy_says() {
        for own in ["for=6.6.6.6;x=\"", "x=\"\\", "for=6.6.6.6, x=\"\\\"", "for=\"6.6.6.6"] {
            for appended in ["for=192.0.2.1", "for=\"[2001:db8::7]\""] {
                let line = format!("{own}, {appended}");
                assert_eq!(client(ForwardedHeader::Forwarded, "10.0.0.1", &[&line]), None, "{line}");
            }
        }
    }
}
