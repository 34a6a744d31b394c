//! Values as people write them: addresses, time spans, sizes, and `off`.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::clients::{ForwardedHeader, Quota};

/// An IP address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

/// An IP address and a port, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Do not listen.
    Off,
    /// Listen here.
    At(SocketAddr),
}

/// Candidates that may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateKind {
    /// With an address of a private network.
    Private,
    /// With a multicast DNS name.
    Mdns,
}

/// A network, or the one of a single address: `192.0.2.0/24`, `2001:db8::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

/// A header that tells a client's address, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderName(pub ForwardedHeader);

/// So much in so much time: `100/10s`, `1MiB/1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub Quota);

/// A span of time: `500ms`, `10s`, `2m`, `1h`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes: `4096`, `160KiB`, `1MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SPANS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 4] = [("", 1), ("KiB", 1024), ("MiB", 1024 * 1024), ("GiB", 1024 * 1024 * 1024)];

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Address).map_err(|_| "write an IP address and a port, like 127.0.0.1:4433 or [::1]:4433")
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Listen::Off);
        }
        let address = text.parse().map(Listen::At);
        address.map_err(|_| "write an IP address and a port, like 127.0.0.1:8080 or [::1]:8080, or off")
    }
}

impl FromStr for CandidateKind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "private" => Ok(CandidateKind::Private),
            "mdns" => Ok(CandidateKind::Mdns),
            _ => Err("write private or mdns"),
        }
    }
}

impl fmt::Display for CandidateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CandidateKind::Private => "private",
            CandidateKind::Mdns => "mdns",
        })
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let single = || text.parse::<IpAddr>().map(IpNet::from);
        let network = text.parse().or_else(|_| single());
        network
            .map(|network| Network(network.trunc()))
            .map_err(|_| "write a network or an address, like 10.0.0.0/8 or ::1")
    }
}

impl FromStr for HeaderName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [ForwardedHeader::Forwarded, ForwardedHeader::XForwardedFor];
        let named = known.into_iter().find(|header| text.eq_ignore_ascii_case(header.name()));
        named.map(HeaderName).ok_or("write forwarded or x-forwarded-for")
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/').map(|(amount, per)| (measure(amount, &SIZES), per.parse::<Span>()));
        match parts {
            Some((Some(amount), Ok(Span(per)))) => Ok(Rate(Quota { amount, per })),
            _ => Err("write how many in how long, like 100/10s or 1MiB/1m"),
        }
    }
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let millis = measure(text, &SPANS).ok_or("write a whole number and a unit, like 500ms, 10s, 2m or 1h")?;
        Ok(Span(Duration::from_millis(millis)))
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        measure(text, &SIZES).map(Size).ok_or("write a whole number of bytes, KiB or MiB, like 4096, 160KiB or 1MiB")
    }
}

fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim_start()))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Writes a number in the greatest unit that divides it.
fn write_measure(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)]) -> fmt::Result {
    let (name, factor) = units.iter().rev().find(|(_, factor)| number.is_multiple_of(*factor)).unwrap_or(&units[0]);
    match number {
        0 => write!(f, "0{}", units[0].0),
        _ => write!(f, "{}{name}", number / factor),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Off => f.write_str("off"),
            Listen::At(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.amount, Span(self.0.per))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_measure(f, self.0.as_millis() as u64, &SPANS)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_measure(f, self.0, &SIZES)
    }
}

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(OneVisitor(PhantomData))
            }
        }
    )*};
}

as_text!(Address, CandidateKind, HeaderName, Listen, Network, Rate, Span, Size);

/// Reads a value from text, or from a number that stands for its text.
struct OneVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for OneVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|why| E::custom(format_args!("invalid value '{text}': {why}")))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// Reads a list, or a single value for a list of one.
pub(super) fn one_or_many<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    deserializer.deserialize_any(ManyVisitor(PhantomData)).map(Some)
}

struct ManyVisitor<T>(PhantomData<T>);

impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for ManyVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
        Ok(vec![OneVisitor(PhantomData).visit_str(text)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            values.push(OneVisitor(PhantomData).visit_str(&text)?);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_read_as_they_are_written() {
        for (text, millis) in [("500ms", 500), ("10s", 10_000), ("2 m", 120_000), ("1h", 3_600_000), ("0ms", 0)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0, Duration::from_millis(millis));
            assert_eq!(span.to_string(), text.replace(' ', ""));
        }
        for (text, bytes, written) in
            [("4096", 4096, "4KiB"), ("160kib", 163_840, "160KiB"), ("1MiB", 1_048_576, "1MiB"), ("1000", 1000, "1000")]
        {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, written));
        }
    }

    #[test]
    fn rates_and_networks_are_read_as_they_are_written() {
        for (text, amount, seconds) in [("100/10s", 100, 10), ("2000/1m", 2000, 60), ("1MiB/1h", 1_048_576, 3600)] {
            let Rate(quota) = text.parse().unwrap();
            assert_eq!(quota, Quota { amount, per: Duration::from_secs(seconds) });
            assert_eq!(Rate(quota).to_string().parse(), Ok(Rate(quota)));
        }
        for (text, written) in [("10.1.2.3/8", "10.0.0.0/8"), ("::1", "::1/128"), ("192.0.2.7", "192.0.2.7/32")] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), written);
        }
        assert_eq!("X-Forwarded-For".parse(), Ok(HeaderName(ForwardedHeader::XForwardedFor)));
    }

    #[test]
    fn what_is_no_span_size_or_address_is_refused() {
        for text in ["", "10", "s", "-1s", "1.5s", "10 years", "99999999999999999999s", "18446744073709551615d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["", "KiB", "1KB", "-1", "1e3", "99999999999GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        for text in ["", "4433", "localhost:4433", "::1:4433", "127.0.0.1", "off"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        for text in ["", "10", "10s", "/10s", "10/", "10/10", "-1/10s", "1.5/s", "10/10s/10s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "localhost", "::1/129", "10.0.0.1:80"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert_eq!("off".parse(), Ok(Listen::Off));
        assert!("OFF".parse::<Listen>().is_err());
    }
}
