//! What a certificate says of itself (RFC 5280), as far as serving, renewing and showing it depend on that.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree, ParsedExtension};
use x509_parser::prelude::FromDer;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The subject's distinguished name.
    pub subject: String,
    /// DNS names (lower case, wildcards included) and IP addresses of the subjectAltName.
    pub names: BTreeSet<String>,
    /// First second of its validity.
    pub not_before: OffsetDateTime,
    /// Last second of its validity.
    pub not_after: OffsetDateTime,
    /// Identifier of its key.
    pub(super) key_id: Option<Vec<u8>>,
    /// Identifier of its issuer's key.
    pub(super) issuer_key_id: Option<Vec<u8>>,
    /// The key itself, as it stands in the certificate.
    pub(super) public_key: Vec<u8>,
    /// Names for which a CA may sign; `None` is all.
    pub(super) permitted: Option<Vec<Subtree>>,
}

/// A part of the name space (RFC 5280, 4.2.1.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subtree {
    /// A domain and all below it.
    Dns(String),
    /// A network: address, then mask.
    Ip(Vec<u8>),
}

impl Facts {
    /// Reads a DER certificate; `None` if it is none.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Option<Facts> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = match parsed.subject_alternative_name().ok()? {
            Some(extension) => extension.value.general_names.iter().filter_map(name).collect(),
            None => BTreeSet::new(),
        };
        let permitted = match parsed.name_constraints().ok()? {
            Some(extension) => {
                extension.value.permitted_subtrees.as_ref().map(|list| list.iter().filter_map(subtree).collect())
            }
            None => None,
        };
        let identifier = |pick: fn(&ParsedExtension<'_>) -> Option<Vec<u8>>| {
            parsed.extensions().iter().find_map(|extension| pick(extension.parsed_extension()))
        };
        Some(Facts {
            subject: parsed.subject().to_string(),
            names,
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            key_id: identifier(|extension| match extension {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            }),
            issuer_key_id: identifier(|extension| match extension {
                ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
                _ => None,
            }),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
            permitted,
        })
    }

    /// Whether a CA may sign for this name.
    pub(super) fn permits(&self, name: &str) -> bool {
        self.permitted.as_ref().is_none_or(|list| list.iter().any(|subtree| subtree.contains(name)))
    }
}

impl Subtree {
    fn contains(&self, name: &str) -> bool {
        match (self, name.parse::<IpAddr>()) {
            (Subtree::Dns(domain), Err(_)) => {
                name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Subtree::Ip(network), Ok(IpAddr::V4(address))) => in_network(&address.octets(), network),
            (Subtree::Ip(network), Ok(IpAddr::V6(address))) => in_network(&address.octets(), network),
            _ => false,
        }
    }
}

fn in_network(address: &[u8], network: &[u8]) -> bool {
    let (base, mask) = network.split_at(network.len() / 2);
    base.len() == address.len() && address.iter().zip(mask).zip(base).all(|((a, m), b)| a & m == b & m)
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn subtree(subtree: &GeneralSubtree<'_>) -> Option<Subtree> {
    match &subtree.base {
        GeneralName::DNSName(name) => Some(Subtree::Dns(name.to_ascii_lowercase())),
        GeneralName::IPAddress(bytes) => Some(Subtree::Ip(bytes.to_vec())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtree_holds_its_own_names_and_no_look_alike() {
        let test = Subtree::Dns("test".into());
        assert!(test.contains("test") && test.contains("a.b.test"));
        assert!(!test.contains("contest") && !test.contains("test.example"));
        let lan = Subtree::Ip(vec![192, 168, 0, 0, 255, 255, 0, 0]);
        assert!(lan.contains("192.168.7.9"));
        assert!(!lan.contains("192.169.0.1") && !lan.contains("::1") && !lan.contains("192.168.example"));
    }
}
