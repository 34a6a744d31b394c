//! The PROXY protocol: what a proxy that passes TCP on as it is says first of the client behind it (HAProxy's proxy-protocol.txt,
//! versions 1 and 2).

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

/// The longest header of version 1, its line end included (section 2.1).
const V1_BYTES: usize = 107;

/// The most bytes that may follow the head of a version 2 header: addresses and what the proxy knows of its TLS. Client
/// certificates are not sent whole, so that this is several times what proxies have to say.
const V2_BYTES: usize = 2048;

/// What a version 2 header begins with before it tells its length.
const V2_HEAD: usize = 16;

/// What is read before the version is clear: no header is shorter (`PROXY UNKNOWN\r\n`).
const FIRST_BYTES: usize = v2::PROTOCOL_PREFIX.len();

/// Reads a header, and not a byte more. `None` if the proxy speaks for itself (a health check) or does not say for whom.
///
/// # Errors
/// The stream's, and `InvalidData` for what is no header.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; FIRST_BYTES];
    stream.read_exact(&mut header).await?;
    if header == v2::PROTOCOL_PREFIX {
        read_v2(stream, header).await
    } else if header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        read_v1(stream, header).await
    } else {
        Err(invalid("it begins with something else"))
    }
}

async fn read_v1<S: AsyncRead + Unpin>(stream: &mut S, mut header: Vec<u8>) -> io::Result<Option<SocketAddr>> {
    // What follows the line end is the client's, so that it is looked for byte by byte.
    while !header.ends_with(b"\r\n") {
        if header.len() == V1_BYTES {
            return Err(invalid("a line of more than 107 bytes"));
        }
        header.push(stream.read_u8().await?);
    }
    let line = v1::Header::try_from(&header[..]).map_err(invalid)?;
    // The library takes a sign before a port.
    if header.contains(&b'+') && line.addresses != v1::Addresses::Unknown {
        return Err(invalid("a port is digits alone"));
    }
    Ok(match line.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(pair) => Some((pair.source_address, pair.source_port).into()),
        v1::Addresses::Tcp6(pair) => Some(canonical(pair.source_address, pair.source_port)),
    })
}

async fn read_v2<S: AsyncRead + Unpin>(stream: &mut S, mut header: Vec<u8>) -> io::Result<Option<SocketAddr>> {
    header.resize(V2_HEAD, 0);
    stream.read_exact(&mut header[FIRST_BYTES..]).await?;
    let length = usize::from(u16::from_be_bytes([header[V2_HEAD - 2], header[V2_HEAD - 1]]));
    if length > V2_BYTES {
        return Err(invalid("a header of more than 2064 bytes"));
    }
    header.resize(V2_HEAD + length, 0);
    stream.read_exact(&mut header[V2_HEAD..]).await?;
    let header = v2::Header::try_from(&header[..]).map_err(invalid)?;
    Ok(match (header.command, header.addresses) {
        (v2::Command::Local, _) | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        (_, v2::Addresses::IPv4(pair)) => Some((pair.source_address, pair.source_port).into()),
        (_, v2::Addresses::IPv6(pair)) => Some(canonical(pair.source_address, pair.source_port)),
    })
}

fn canonical(address: std::net::Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(address).to_canonical(), port)
}

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no PROXY protocol header: {}", why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length.to_be_bytes(), body].concat()
    }

    async fn told(bytes: &[u8]) -> io::Result<Option<String>> {
        let all = [bytes, b"GET /"].concat();
        let mut rest = &all[..];
        let client = read(&mut rest).await?;
        assert_eq!(rest, b"GET /", "what follows is the client's");
        Ok(client.map(|address| address.to_string()))
    }

    #[tokio::test]
    async fn both_versions_tell_the_client() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x16, 0x2e, 1, 187];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 7;
        v6[32..34].copy_from_slice(&[0x16, 0x2e]);
        let with_tlv = [&v4[..], &[0x04, 0, 3, 0, 0, 0]].concat();
        for (bytes, client) in [
            (v2(1, 0x11, &v4), Some("192.0.2.1:5678")),
            (v2(1, 0x11, &with_tlv), Some("192.0.2.1:5678")),
            (v2(1, 0x21, &v6), Some("[2001:db8::7]:5678")),
            (v2(0, 0x00, &[]), None),
            (v2(0, 0x11, &v4), None),
            (v2(1, 0x31, &[0; 216]), None),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 5678 443\r\n".to_vec(), Some("192.0.2.1:5678")),
            (b"PROXY TCP6 2001:db8::7 ::1 5678 443\r\n".to_vec(), Some("[2001:db8::7]:5678")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
        ] {
            assert_eq!(told(&bytes).await.unwrap().as_deref(), client, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_or_too_long_is_an_error() {
        let long_line = format!("PROXY TCP4 {}\r\n", "1".repeat(100)).into_bytes();
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 +1 2\r\n".to_vec(),
            long_line,
            v2(1, 0x11, &[0; 4]),
            v2(1, 0x11, &[0; 3000]),
            v2(7, 0x11, &[0; 12]),
            v2(1, 0x11, &[0; 12])[..20].to_vec(),
        ] {
            assert!(read(&mut &bytes[..]).await.is_err(), "{bytes:?}");
        }
    }
}
