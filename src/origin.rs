//! Which web origins may open a session (RFC 6454), and under which names the server knows itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::RwLock;

/// The server's own names and the origins it lets in. Clones share the listed ones.
#[derive(Debug, Clone)]
pub struct Origins {
    own: Vec<String>,
    listed: Arc<RwLock<Vec<String>>>,
    any_loopback: bool,
}

impl Origins {
    /// `own` are the server's own origins, `listed` those of the configuration (`null` must be listed to be allowed);
    /// `any_loopback` also lets in every page of this machine, for development.
    pub fn new(own: Vec<String>, listed: Vec<String>, any_loopback: bool) -> Self {
        Origins { own: lower(own), listed: Arc::new(RwLock::new(lower(listed))), any_loopback }
    }

    /// Lists others from now on; sessions that are open go on.
    pub fn list(&self, listed: Vec<String>) {
        *self.listed.write() = lower(listed);
    }

    /// Whether a request with this `Origin` may open a session. Without one the client is no browser, and is allowed.
    pub fn allow(&self, origin: Option<&[u8]>) -> bool {
        let Some(origin) = origin else { return true };
        let Ok(origin) = std::str::from_utf8(origin) else {
            return false;
        };
        let origin = origin.to_ascii_lowercase();
        self.own.contains(&origin)
            || self.listed.read().contains(&origin)
            || (self.any_loopback && is_loopback(&origin))
    }
}

fn lower(list: Vec<String>) -> Vec<String> {
    list.into_iter().map(|origin| origin.to_ascii_lowercase()).collect()
}

/// The origin of a name and port under a scheme, default ports left out as browsers do.
pub fn origin_of(scheme: &str, name: &str, port: u16) -> String {
    let host = match name.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => name.to_owned(),
    };
    match (scheme, port) {
        ("https" | "wss", 443) | ("http" | "ws", 80) => format!("{scheme}://{host}"),
        _ => format!("{scheme}://{host}:{port}"),
    }
}

fn is_loopback(origin: &str) -> bool {
    let Some(authority) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        return false;
    };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        None => host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_listed_and_absent_origins_are_let_in() {
        let origins = Origins::new(vec!["https://a.example".into()], vec!["https://App.example".into()], false);
        for good in ["https://a.example", "https://app.example", "HTTPS://a.example"] {
            assert!(origins.allow(Some(good.as_bytes())), "{good}");
        }
        assert!(origins.allow(None));
        for bad in
            ["null", "", "http://a.example", "https://a.example:444", "http://localhost:8080", "https://b.example"]
        {
            assert!(!origins.allow(Some(bad.as_bytes())), "{bad}");
        }
        assert!(!origins.allow(Some(b"https://\xff")));
        assert!(Origins::new(vec![], vec!["null".into()], false).allow(Some(b"null")));
        let clone = origins.clone();
        origins.list(vec!["https://B.example".into()]);
        for (origin, is_let_in) in
            [("https://a.example", true), ("https://b.example", true), ("https://app.example", false)]
        {
            assert_eq!(clone.allow(Some(origin.as_bytes())), is_let_in, "{origin}");
        }
    }

    #[test]
    fn in_development_every_loopback_origin_is_let_in_and_nothing_that_looks_like_one() {
        let origins = Origins::new(vec![], vec![], true);
        for good in [
            "http://localhost",
            "http://localhost:3000",
            "https://127.0.0.1:1",
            "http://[::1]:8080",
            "http://[::1]",
            "http://127.9.9.9",
        ] {
            assert!(origins.allow(Some(good.as_bytes())), "{good}");
        }
        for bad in [
            "http://localhost.evil.example",
            "http://evil.example:80",
            "file://localhost",
            "http://localhost:80.evil.example",
            "null",
            "http://10.0.0.1",
            "http://127.0.0.1.evil.example",
            "http://::1:8000",
            "http://localhost:",
        ] {
            assert!(!origins.allow(Some(bad.as_bytes())), "{bad}");
        }
    }

    #[test]
    fn default_ports_are_left_out_and_ipv6_is_bracketed() {
        assert_eq!(origin_of("https", "a.example", 443), "https://a.example");
        assert_eq!(origin_of("http", "localhost", 8080), "http://localhost:8080");
        assert_eq!(origin_of("wss", "::1", 4433), "wss://[::1]:4433");
    }
}
