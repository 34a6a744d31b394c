//! Makes certificates: ECDSA P-256, which every browser takes, and which WebTransport's certificate hashes require. All are for
//! development, but the one that answers an authority.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use super::LOCAL_NAMES;
use super::plan::{BACKDATE, CA_VALIDITY, LEAF_VALIDITY, WEBTRANSPORT_VALIDITY};

/// Domains that no public host can have, and for which the CA may therefore always sign.
const PRIVATE_DOMAINS: [&str; 6] = ["localhost", "local", "test", "internal", "home.arpa", "lan"];
/// Networks of this machine and its neighbourhood (RFC 1122, 1918, 3927, 4193, 4291).
const PRIVATE_NETWORKS: [(&str, u8); 8] = [
    ("127.0.0.0", 8),
    ("10.0.0.0", 8),
    ("172.16.0.0", 12),
    ("192.168.0.0", 16),
    ("169.254.0.0", 16),
    ("::1", 128),
    ("fc00::", 7),
    ("fe80::", 10),
];

/// A certificate and its private key, both PEM.
pub(super) struct Made {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A CA that can sign for private names and for `names`, and for nothing else: whoever steals its key cannot pose as a
/// public site to those who trust it.
pub(super) fn ca(now: OffsetDateTime, names: &BTreeSet<String>) -> Result<Made, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(now, CA_VALIDITY, &format!("wigwag development CA of {}", now.date()), &BTreeSet::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = Vec::new();
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: permitted(names), excluded_subtrees: Vec::new() });
    Ok(Made { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// A TLS certificate for `names`, signed by the CA, which it does not outlive.
pub(super) fn leaf(
    now: OffsetDateTime,
    names: &BTreeSet<String>,
    (ca, ca_expires): (&CertificateDer<'_>, OffsetDateTime),
    ca_key: &KeyPair,
) -> Result<Made, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_der(ca, ca_key)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(now, LEAF_VALIDITY, "wigwag development server", names)?;
    params.not_after = params.not_after.min(ca_expires);
    params.use_authority_key_identifier_extension = true;
    Ok(Made { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

/// A certificate for QUIC that WebTransport accepts by its hash, whoever has signed it. Signed by the CA, where it can, it also
/// serves those who trust the CA for HTTP/3 itself, where no hash counts.
pub(super) fn webtransport(
    now: OffsetDateTime,
    names: &BTreeSet<String>,
    ca: Option<(&CertificateDer<'_>, OffsetDateTime, &KeyPair)>,
) -> Result<Made, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(now, WEBTRANSPORT_VALIDITY, "wigwag development WebTransport", names)?;
    let certificate = match ca {
        Some((ca, ca_expires, ca_key)) => {
            params.not_after = params.not_after.min(ca_expires);
            params.use_authority_key_identifier_extension = true;
            params.signed_by(&key, &Issuer::from_ca_cert_der(ca, ca_key)?)?
        }
        None => params.self_signed(&key)?,
    };
    Ok(Made { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn params(
    now: OffsetDateTime,
    validity: Duration,
    common_name: &str,
    names: &BTreeSet<String>,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.not_before = now.truncate_to_second() - BACKDATE;
    params.not_after = params.not_before + validity;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// Answers an authority that asks for `name` (RFC 8737, 3). `digest` must be a SHA-256.
pub(super) fn challenge(
    name: &str,
    digest: &[u8],
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    Ok((params.self_signed(&key)?.into(), PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

fn permitted(names: &BTreeSet<String>) -> Vec<GeneralSubtree> {
    let network = |address: IpAddr, prefix| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, prefix));
    let domains = PRIVATE_DOMAINS.iter().map(|domain| GeneralSubtree::DnsName((*domain).to_owned()));
    let networks = PRIVATE_NETWORKS
        .iter()
        .map(|(address, prefix)| network(address.parse().expect("a constant address parses"), *prefix));
    let asked =
        names.iter().filter(|name| !LOCAL_NAMES.contains(&name.as_str())).map(|name| match name.parse::<IpAddr>() {
            Ok(address) => network(address, if address.is_ipv4() { 32 } else { 128 }),
            Err(_) => GeneralSubtree::DnsName(name.clone()),
        });
    domains.chain(networks).chain(asked).collect()
}
