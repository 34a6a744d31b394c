//! STUN and TURN servers as peers are told of them. TURN credentials are made here and checked by the TURN server, which knows
//! the same secret ("TURN REST API", coturn's `use-auth-secret`): the user name says when they end, the password proves it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::RwLock;
use ring::hmac;
use serde_json::{Value, json};

use crate::error::StartError;
use crate::protocol::PeerId;
use crate::secret::SecretSource;

/// The URL of a STUN or TURN server (RFC 7064, RFC 7065).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceUrl(String);

impl IceUrl {
    /// Whether it is a TURN server's.
    pub fn needs_credentials(&self) -> bool {
        self.0.starts_with("turn")
    }
}

impl FromStr for IceUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write stun:HOST:PORT, turn:HOST:PORT?transport=udp or turns:HOST:PORT";
        let (scheme, rest) = text.split_once(':').ok_or(wrong)?;
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        let has_place = place.parse::<http::uri::Authority>().is_ok_and(|place| !place.as_str().contains('@'));
        match (scheme, query) {
            ("stun" | "stuns" | "turn" | "turns", None) if has_place => Ok(IceUrl(text.to_owned())),
            ("turn" | "turns", Some("transport=udp" | "transport=tcp")) if has_place => Ok(IceUrl(text.to_owned())),
            _ => Err(wrong),
        }
    }
}

impl fmt::Display for IceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the operator has said about ICE servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// All of them, in the order in which clients are told.
    pub urls: Vec<IceUrl>,
    /// Needed where there is a TURN server among them.
    pub secret: Option<SecretSource>,
    /// How long credentials are good.
    pub lifetime: Duration,
}

/// The servers, and how to make credentials for them.
#[derive(Debug, Default)]
pub struct IceServers {
    plain: Vec<String>,
    relays: Vec<String>,
    /// Some for as long as it lives, or never.
    secret: RwLock<Option<hmac::Key>>,
    lifetime: Duration,
}

/// What one peer is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Issued {
    /// RTCIceServer dictionaries.
    pub servers: Vec<Value>,
    /// How long their credentials are good; `None` if they have none.
    pub lasts: Option<Duration>,
}

impl IceServers {
    /// Reads the secret.
    ///
    /// # Errors
    /// Where there is none to be had although a TURN server needs it.
    pub fn load(policy: &Policy) -> Result<Self, StartError> {
        let of = |relays: bool| policy.urls.iter().filter(move |url| url.needs_credentials() == relays);
        let (plain, relays): (Vec<_>, Vec<_>) =
            (of(false).map(ToString::to_string).collect(), of(true).map(ToString::to_string).collect());
        let secret = match &policy.secret {
            Some(source) if !relays.is_empty() => Some(read(source)?),
            _ => None,
        };
        Ok(IceServers { plain, relays, secret: RwLock::new(secret), lifetime: policy.lifetime })
    }

    /// Reads the secret again, for the credentials that are made from now on; the one in use stays if it cannot be read. Returns
    /// whether there is one.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn read_again(&self, policy: &Policy) -> Result<bool, StartError> {
        let Some(source) = policy.secret.as_ref().filter(|_| !self.relays.is_empty()) else { return Ok(false) };
        let secret = read(source)?;
        *self.secret.write() = Some(secret);
        Ok(true)
    }

    /// The servers for a peer, with credentials that begin to count at `now`.
    pub fn issue(&self, peer: PeerId, now: SystemTime) -> Issued {
        let mut servers = Vec::new();
        if !self.plain.is_empty() {
            servers.push(json!({ "urls": self.plain }));
        }
        let secret = self.secret.read();
        let Some(secret) = &*secret else { return Issued { servers, lasts: None } };
        let ends = now.duration_since(UNIX_EPOCH).unwrap_or_default() + self.lifetime;
        let username = format!("{}:{peer}", ends.as_secs());
        let credential = STANDARD.encode(hmac::sign(secret, username.as_bytes()));
        servers.push(json!({ "urls": self.relays, "username": username, "credential": credential }));
        Issued { servers, lasts: Some(self.lifetime) }
    }

    /// When fresh credentials are pushed to whoever got some: well before the old ones end. `None` if there are none.
    pub fn renew_after(&self) -> Option<Duration> {
        self.secret.read().as_ref().map(|_| self.lifetime * 3 / 4)
    }
}

/// coturn computes by the legacy hash, and so must we.
fn read(source: &SecretSource) -> Result<hmac::Key, StartError> {
    let secret = source.read("--turn-secret", "the static-auth-secret of the TURN server")?;
    Ok(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn servers(urls: &[&str], secret: &str) -> IceServers {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), secret).unwrap();
        let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
        let secret = Some(SecretSource::File(file.path().to_owned()));
        IceServers::load(&Policy { urls, secret, lifetime: Duration::from_secs(600) }).unwrap()
    }

    #[test]
    fn credentials_are_those_that_coturn_computes() {
        let servers =
            servers(&["stun:a.example:3478", "turn:a.example:3478?transport=udp", "turns:a.example"], "north\n");
        let peer = PeerId::new(Uuid::from_u128(7));
        let issued = servers.issue(peer, UNIX_EPOCH + Duration::from_secs(1_000_000));
        // printf '1000600:00000000-0000-0000-0000-000000000007' | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(
            issued.servers,
            [
                json!({"urls": ["stun:a.example:3478"]}),
                json!({
                    "urls": ["turn:a.example:3478?transport=udp", "turns:a.example"],
                    "username": "1000600:00000000-0000-0000-0000-000000000007",
                    "credential": "o8hPkK5NLLGFr1WgPK5z5pdlFHg=",
                }),
            ]
        );
        assert_eq!(
            (issued.lasts, servers.renew_after()),
            (Some(Duration::from_secs(600)), Some(Duration::from_secs(450)))
        );
    }

    #[test]
    fn without_relays_nothing_expires() {
        let issued = servers(&["stun:a.example"], "north").issue(PeerId::new(Uuid::nil()), SystemTime::now());
        assert_eq!(issued, Issued { servers: vec![json!({"urls": ["stun:a.example"]})], lasts: None });
    }

    #[test]
    fn urls_are_those_of_rfc_7064_and_7065() {
        for good in ["stun:a", "stuns:a.example:5349", "turn:[2001:db8::1]:3478?transport=tcp", "turns:192.0.2.1"] {
            assert!(good.parse::<IceUrl>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "a.example",
            "http://a",
            "turn://a",
            "turn:",
            "stun:a?transport=udp",
            "turn:a?transport=sctp",
            "turn:u@a",
        ] {
            assert!(bad.parse::<IceUrl>().is_err(), "{bad}");
        }
    }
}
