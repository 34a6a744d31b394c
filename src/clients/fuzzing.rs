//! What must hold of the lists of addresses that proxies write, whatever stands in them.

use http::HeaderValue;
use http::header::FORWARDED;

use super::*;

/// Proxies, as the operator may have named them.
const TRUSTED: [&str; 2] = ["10.0.0.0/8", "2001:db8:ffff::/48"];
/// Two of them, and somebody else.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const NEXT_PROXY: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// What trusted proxies append decides, whatever stands before it; an address that nobody trusts ends the list, so that what
/// stands before that changes nothing; several lines are one list; the client is one that the list names, and the same when
/// it is written and read again. First which header, then a line of it each.
pub(crate) fn forwarded(data: &[u8]) {
    let Some((&kind, text)) = data.split_first() else { return };
    let header = if kind & 1 == 0 { ForwardedHeader::XForwardedFor } else { ForwardedHeader::Forwarded };
    let value = |line: &[u8]| HeaderValue::from_bytes(line).ok();
    let Some(lines) = text.split(|&byte| byte == b'\n').map(value).collect::<Option<Vec<_>>>() else { return };
    assert_eq!(client(header, STRANGER, &lines), Ok(STRANGER), "nobody trusts this peer");
    let told = client(header, PROXY, &lines);
    let behind = |address| [&lines[..], &[entry(header, address)]].concat();
    assert_eq!(client(header, PROXY, &behind(STRANGER)), Ok(STRANGER), "the proxy's own line decides");
    assert_eq!(client(header, NEXT_PROXY, &behind(PROXY)), told, "the proxy's proxy is none of the client's");
    if let Ok(address) = told {
        assert_eq!(client(header, PROXY, &[entry(header, address)]), Ok(address), "written and read again");
        assert!(address == PROXY || lines.iter().any(|line| names(line, address)), "{address} is not on the list");
    }
    if told.is_ok_and(|address| !contains(&trusted(), address)) {
        for first in ["6.6.6.6", "for=6.6.6.6", "for=\"6.6.6.6", "nonsense"] {
            let before = [&[HeaderValue::from_static(first)], &lines[..]].concat();
            assert_eq!(client(header, PROXY, &before), told, "{first} stands before the client");
        }
    }
    if lines.iter().all(|line| !line.as_bytes().contains(&b'"')) {
        let one = lines.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..]);
        assert_eq!(client(header, PROXY, &[value(&one).expect("as before")]), told, "several lines are one list");
    }
}

fn trusted() -> [IpNet; 2] {
    TRUSTED.map(|network| network.parse().expect("a network"))
}

fn client(header: ForwardedHeader, peer: IpAddr, lines: &[HeaderValue]) -> Result<IpAddr, Malformed> {
    let name = match header {
        ForwardedHeader::Forwarded => FORWARDED,
        ForwardedHeader::XForwardedFor => http::HeaderName::from_static("x-forwarded-for"),
    };
    let headers = lines.iter().map(|line| (name.clone(), line.clone())).collect();
    header.client(peer, &headers, &trusted())
}

/// What a proxy writes that heard from that address.
fn entry(header: ForwardedHeader, address: IpAddr) -> HeaderValue {
    let text = match (header, address) {
        (ForwardedHeader::XForwardedFor, address) => address.to_string(),
        (ForwardedHeader::Forwarded, IpAddr::V4(address)) => format!("for={address}"),
        (ForwardedHeader::Forwarded, IpAddr::V6(address)) => format!("for=\"[{address}]\""),
    };
    HeaderValue::try_from(text).expect("visible characters")
}

/// Whether an address is an entry of a line, with a port or without.
fn names(line: &HeaderValue, address: IpAddr) -> bool {
    let text = String::from_utf8_lossy(line.as_bytes());
    let is_port = |port: &str| port.strip_prefix('_').map_or(port.parse::<u16>().is_ok(), |name| !name.is_empty());
    text.split([',', ';', '=', '"', ' ', '\t']).any(|word| {
        let host = match word.rsplit_once(':') {
            Some((host, port)) if is_port(port) && (host.ends_with(']') || !host.contains(':')) => host,
            _ => word,
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let read = bare.map_or_else(|| host.parse().ok(), |bare| bare.parse().map(IpAddr::V6).ok());
        read.map(|read: IpAddr| read.to_canonical()) == Some(address)
    })
}
