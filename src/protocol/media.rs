//! Whether session descriptions and ICE candidates are what they are said to be. Nothing is changed in them: a browser may say
//! more than any scanner knows, so what is checked is the grammar that all of it has in common.

use std::net::{IpAddr, Ipv4Addr};

/// What is looked at in relayed descriptions and candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Whether SDP and candidates must parse.
    pub grammar: bool,
    /// Whether candidates with addresses of private networks are left out.
    pub drop_private: bool,
    /// Whether candidates whose address is a multicast DNS name are left out.
    pub drop_mdns: bool,
}

impl Default for Checks {
    fn default() -> Self {
        Checks { grammar: true, drop_private: false, drop_mdns: false }
    }
}

/// Checks the lines of an SDP (RFC 8866, 5): each a letter, `=` and a value, the first of them `v=0`, and media lines whole.
///
/// # Errors
/// What is wrong, in words for the sender.
pub(super) fn check_sdp(sdp: &str) -> Result<(), &'static str> {
    let mut lines = sdp.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).peekable();
    if !lines.peek().is_some_and(|line| line.starts_with("v=0")) {
        return Err("\"sdp\" must begin with the line v=0");
    }
    while let Some(line) = lines.next() {
        let is_last = lines.peek().is_none();
        match line.as_bytes() {
            [] if is_last => {}
            [b'a'..=b'z', b'=', value @ ..] if !value.iter().any(|byte| matches!(byte, 0 | b'\r')) => {
                if line.starts_with("m=") && !is_media(&line[2..]) {
                    return Err("\"sdp\" has an m= line without media, port, protocol and format");
                }
            }
            _ => return Err("each line of \"sdp\" must be a lower-case letter, = and a value"),
        }
    }
    Ok(())
}

/// `media port["/"count] proto fmt …` (RFC 8866, 5.14).
fn is_media(value: &str) -> bool {
    let mut words = value.split(' ');
    let (media, port, protocol, format) = (words.next(), words.next(), words.next(), words.next());
    let port = port.map(|port| port.split_once('/').unwrap_or((port, "1")));
    media.is_some_and(is_token)
        && port.is_some_and(|(port, count)| port.parse::<u16>().is_ok() && count.parse::<u16>().is_ok())
        && protocol.is_some_and(|protocol| protocol.split('/').all(is_token))
        && format.is_some_and(|format| !format.is_empty())
}

/// A candidate as the server looks at it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidate<'a> {
    address: &'a str,
}

impl<'a> Candidate<'a> {
    /// Parses a candidate-attribute (RFC 8839, 5.1). The empty string, the end of candidates, is none.
    ///
    /// # Errors
    /// What is wrong, in words for the sender.
    pub(super) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let wrong = "\"candidate\" must be a candidate-attribute: candidate:FOUNDATION COMPONENT TRANSPORT PRIORITY ADDRESS PORT typ TYPE …";
        let text = text.strip_prefix("a=").unwrap_or(text);
        let text = text.strip_prefix("candidate:").ok_or(wrong)?;
        let mut words = text.split(' ');
        let mut word = || words.next().filter(|word| !word.is_empty());
        let well_formed = (|| {
            let ice_char = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
            word().filter(|foundation| foundation.len() <= 32 && foundation.bytes().all(ice_char))?;
            word()?.parse::<u16>().ok().filter(|component| (1..=256).contains(component))?;
            word().filter(|transport| is_token(transport))?;
            word()?.parse::<u32>().ok()?;
            let address = word().filter(|address| is_address(address))?;
            word()?.parse::<u16>().ok()?;
            word().filter(|typ| *typ == "typ")?;
            word().filter(|kind| is_token(kind))?;
            Some(address)
        })();
        // What follows are pairs of names and values.
        let rest = words.count();
        match well_formed {
            Some(address) if rest.is_multiple_of(2) => Ok(Candidate { address }),
            _ => Err(wrong),
        }
    }

    /// Whether policy leaves it out.
    pub(super) fn is_dropped(&self, checks: Checks) -> bool {
        match self.address.parse::<IpAddr>() {
            Ok(address) => checks.drop_private && is_private(address),
            Err(_) => checks.drop_mdns && self.address.ends_with(".local"),
        }
    }
}

/// An IP address or a name (RFC 8839: FQDN; RFC 8828: `….local`).
fn is_address(text: &str) -> bool {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    text.len() <= 255 && (text.bytes().all(named) || text.parse::<IpAddr>().is_ok())
}

/// Addresses that tell of the network behind a router (RFC 1918, RFC 4193, link-local, shared).
fn is_private(address: IpAddr) -> bool {
    let private_v4 = |v4: Ipv4Addr| {
        let [a, b, ..] = v4.octets();
        v4.is_private() || v4.is_link_local() || v4.is_loopback() || a == 100 && (64..128).contains(&b)
    };
    match address {
        IpAddr::V4(v4) => private_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => private_v4(v4),
            None => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
        },
    }
}

/// A token (RFC 8866, 9).
fn is_token(word: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte);
    !word.is_empty() && word.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_write_is_sdp_and_what_is_not_is_refused() {
        let chromium = "v=0\r\no=- 46117317 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=msid-semantic: WMS\r\n\
                        m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:/Xf+\r\n\
                        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000\r\n";
        for good in ["v=0", "v=0\n", "v=0\r\n", "v=0\ns=\n", "v=0\nm=video 9/2 RTP/AVP 31\n", chromium] {
            assert_eq!(check_sdp(good), Ok(()), "{good:?}");
        }
        for bad in [
            "",
            "sdp",
            "v=1\r\n",
            " v=0",
            "v=0\r\n\r\n",
            "v=0\r\nA=x\r\n",
            "v=0\r\n=x\r\n",
            "v=0\r\nax\r\n",
            "v=0\r\na=\0\r\n",
            "v=0\r\na=x\ry\r\n",
            "v=0\nm=\n",
            "v=0\nm=audio\n",
            "v=0\nm=audio x RTP/AVP 0\n",
            "v=0\nm=audio 9 RTP//AVP 0\n",
            "v=0\nm=audio 9 RTP/AVP \n",
            "v=0\nm=audio 70000 RTP/AVP 0\n",
        ] {
            assert!(check_sdp(bad).is_err(), "{bad:?}");
        }
    }

    const PUBLIC: &str =
        "candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 10.0.1.1 rport 46154 generation 0";

    #[test]
    fn what_browsers_write_are_candidates_and_what_is_not_is_refused() {
        for good in [
            PUBLIC,
            "a=candidate:1 1 udp 2122260223 192.168.1.2 54400 typ host",
            "candidate:0 1 UDP 2122252543 6a1b2c3d-0000-4000-8000-000000000000.local 50000 typ host",
            "candidate:1 256 TCP 1 2001:db8::1 9 typ host tcptype active",
            "candidate:x/+9 2 ssltcp 4294967295 example.org 65535 typ relay",
        ] {
            assert!(Candidate::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "c",
            "candidate:",
            "candidate:1",
            "candidate:1 0 udp 1 192.0.2.1 9 typ host",
            "candidate:1 257 udp 1 192.0.2.1 9 typ host",
            "candidate:ä 1 udp 1 192.0.2.1 9 typ host",
            "candidate:1 1 udp -1 192.0.2.1 9 typ host",
            "candidate:1 1 udp 1 192.0.2.1/24 9 typ host",
            "candidate:1 1 udp 1 192.0.2.1 99999 typ host",
            "candidate:1 1 udp 1 192.0.2.1 9 type host",
            "candidate:1 1 udp 1 192.0.2.1 9 typ",
            "candidate:1  1 udp 1 192.0.2.1 9 typ host",
            "candidate:1 1 udp 1 192.0.2.1 9 typ host tcptype",
            "candidate:1 1 u(p 1 192.0.2.1 9 typ host",
        ] {
            assert!(Candidate::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn policy_leaves_out_what_tells_of_the_network_behind() {
        let checks = |drop_private, drop_mdns| Checks { drop_private, drop_mdns, ..Checks::default() };
        let dropped = |address: &str, checks| {
            let text = format!("candidate:1 1 udp 1 {address} 9 typ host");
            Candidate::parse(&text).expect("a candidate").is_dropped(checks)
        };
        for private in [
            "10.1.2.3",
            "192.168.0.1",
            "169.254.1.1",
            "100.64.1.1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "127.0.0.1",
        ] {
            assert!(dropped(private, checks(true, false)) && !dropped(private, checks(false, true)), "{private}");
        }
        assert!(dropped("a-b.local", checks(false, true)) && !dropped("a-b.local", checks(true, false)));
        for public in ["203.0.113.7", "2606:4700::1", "example.org"] {
            assert!(!dropped(public, checks(true, true)), "{public}");
        }
    }
}
