use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, ServerConnection, SupportedProtocolVersion,
};
use tempfile::TempDir;
use time::macros::datetime;

use super::*;
use crate::files;

const BOTH: Protocols = Protocols { h3: true, h2: true, tls12: false };

fn development(dir: &TempDir, names: &[&str]) -> CertificateSource {
    CertificateSource::Development {
        dir: dir.path().join("certs"),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn held(renewal: &Renewal) -> &Held {
    match &renewal.source {
        Source::Development { held, .. } => held,
        _ => panic!("these are development certificates"),
    }
}

fn start(dir: &TempDir, names: &[&str], now: OffsetDateTime) -> (Certificates, Renewal) {
    Certificates::load_at(&development(dir, names), BOTH, now).unwrap()
}

/// A handshake in memory: the client's view of it, or its error.
fn handshake(server: &Arc<ServerConfig>, ca: &Path, name: &str, alpn: &[&str]) -> Result<ClientConnection, String> {
    handshake_with(server, ca, name, alpn, rustls::DEFAULT_VERSIONS)
}

fn handshake_with(
    server: &Arc<ServerConfig>,
    ca: &Path,
    name: &str,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConnection, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    handshake_of(client, server, name, alpn)
}

fn handshake_of(
    mut client: ClientConfig,
    server: &Arc<ServerConfig>,
    name: &str,
    alpn: &[&str],
) -> Result<ClientConnection, String> {
    client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        let refused = server.process_new_packets().err();
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        if let Some(error) = refused {
            return Err(error.to_string());
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().map_err(|error| error.to_string())?;
    }
    client.writer().write_all(b"x").unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut wire.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    let mut byte = [0];
    server.reader().read_exact(&mut byte).unwrap();
    Ok(client)
}

#[test]
fn clients_that_trust_the_ca_accept_every_name_and_no_other() {
    let dir = TempDir::new().unwrap();
    let (certificates, _) = start(&dir, &["desk.test", "192.168.1.7", "dev.example.org"], OffsetDateTime::now_utc());
    let tcp = certificates.tcp().borrow().clone();
    let ca = certificates.ca_path().unwrap();
    for name in ["localhost", "127.0.0.1", "::1", "desk.test", "192.168.1.7", "dev.example.org"] {
        let client = handshake(&tcp, ca, name, &["h2", "http/1.1"]).unwrap();
        assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]), "{name}");
    }
    assert!(handshake(&tcp, ca, "other.example.org", &["h2"]).is_err());
    assert_eq!(
        certificates.names(),
        ["desk.test", "192.168.1.7", "dev.example.org", "localhost", "127.0.0.1", "::1"],
        "those asked for come first"
    );
}

#[test]
fn http2_is_not_offered_when_it_is_switched_off() {
    let dir = TempDir::new().unwrap();
    let protocols = Protocols { h3: true, h2: false, tls12: false };
    let (certificates, _) = Certificates::load(&development(&dir, &[]), protocols).unwrap();
    let tcp = certificates.tcp().borrow().clone();
    let client = handshake(&tcp, certificates.ca_path().unwrap(), "localhost", &["h2", "http/1.1"]).unwrap();
    assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn tls_1_2_is_refused_unless_it_is_asked_for_and_never_preferred() {
    for (tls12, expected) in [(false, None), (true, Some(ProtocolVersion::TLSv1_2))] {
        let dir = TempDir::new().unwrap();
        let (certificates, _) =
            Certificates::load(&development(&dir, &[]), Protocols { h3: true, h2: true, tls12 }).unwrap();
        let (tcp, ca) = (certificates.tcp().borrow().clone(), certificates.ca_path().unwrap());
        let old = handshake_with(&tcp, ca, "localhost", &["h2"], &[&rustls::version::TLS12]);
        assert_eq!(old.ok().and_then(|client| client.protocol_version()), expected);
        let new = handshake(&tcp, ca, "localhost", &["h2"]).unwrap();
        assert_eq!(new.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    }
}

#[test]
fn quic_gets_the_hashed_certificate_over_tls_1_3_without_early_data() {
    let dir = TempDir::new().unwrap();
    let (certificates, renewal) = start(&dir, &[], OffsetDateTime::now_utc());
    let quic = certificates.quic().borrow().clone();
    assert_eq!(quic.max_early_data_size, 0);
    assert_eq!(quic.alpn_protocols, [b"h3"]);
    assert!(quic.ticketer.enabled());
    assert_eq!(certificates.hashes().borrow()[0], sha256(held(&renewal).present.leaf()));
    assert_ne!(certificates.hashes().borrow()[0], certificates.hashes().borrow()[1]);
    assert!(!Arc::ptr_eq(&quic, &certificates.tcp().borrow()));
    assert!(*certificates.verifiable().borrow());
    handshake(&quic, certificates.ca_path().unwrap(), "localhost", &["h3"]).expect("it is signed by the CA, too");
}

/// Two years of minutes would take too long: the looks come at hours, and the server is restarted now and then.
#[test]
fn for_two_years_every_served_hash_was_announced_days_before_and_browsers_accept_the_dates() {
    const OFF: time::Duration = time::Duration::hours(36);
    // While the server is off, the certificate served grows old and the one after it is not made yet.
    const NOTICE: time::Duration = time::Duration::days(6).saturating_sub(OFF);
    let dir = TempDir::new().unwrap();
    let began = datetime!(2026-11-20 12:00 UTC);
    let mut now = began;
    let (mut certificates, mut renewal) = start(&dir, &[], now);
    let ca = fs::read(certificates.ca_path().unwrap()).unwrap();
    let mut announced: BTreeMap<[u8; 32], OffsetDateTime> = BTreeMap::new();
    let mut leaves = std::collections::BTreeSet::new();
    for hour in 1..(2 * 365 * 24) {
        for hash in certificates.hashes().borrow().iter() {
            announced.entry(*hash).or_insert(now);
        }
        let served = certificates.hashes().borrow()[0];
        let notice = now - announced[&served];
        assert!(announced[&served] == began || notice >= NOTICE, "at {now}, notice was {notice}");

        let facts = &held(&renewal).present.facts;
        assert!(facts.not_after - facts.not_before <= time::Duration::days(14));
        assert!(facts.not_before < now && now + time::Duration::hours(12) < facts.not_after, "at {now}: {facts:?}");
        let facts = &held(&renewal).leaf.facts;
        assert!(facts.not_after - facts.not_before <= time::Duration::days(398));
        assert!(facts.not_before < now && now + time::Duration::days(29) < facts.not_after);
        leaves.insert(sha256(held(&renewal).leaf.leaf()));

        now += time::Duration::HOUR;
        match hour % 1000 {
            0 => {
                now += OFF;
                (certificates, renewal) = start(&dir, &[], now);
            }
            500 => (certificates, renewal) = start(&dir, &[], now),
            _ => drop(renewal.look(Look::Due, now).unwrap()),
        }
    }
    let periods = (now - began).whole_days() / 6;
    assert!(
        (periods - 5..=periods + 2).contains(&(announced.len() as i64)),
        "{} in {periods} periods",
        announced.len()
    );
    assert_eq!(leaves.len(), 3, "the TLS leaf is renewed once a year");
    assert_eq!(fs::read(certificates.ca_path().unwrap()).unwrap(), ca, "the CA is kept");
}

#[test]
fn after_weeks_of_rest_everything_that_ran_out_is_made_anew() {
    let dir = TempDir::new().unwrap();
    let now = datetime!(2026-11-20 12:00 UTC);
    let (before, _) = start(&dir, &[], now);
    let announced_next = before.hashes().borrow()[1];
    let (after, _) = start(&dir, &[], now + time::Duration::days(8));
    assert_eq!(after.hashes().borrow()[0], announced_next, "the next one has not run out in eight days");
    let earlier = after.hashes().borrow().clone();
    let (after, renewal) = start(&dir, &[], now + time::Duration::days(60));
    assert!(after.hashes().borrow().iter().all(|hash| !earlier.contains(hash)));
    assert!(held(&renewal).present.facts.not_after > now + time::Duration::days(60));
}

#[test]
fn a_clock_set_back_leads_to_certificates_that_are_valid_then() {
    let dir = TempDir::new().unwrap();
    let now = datetime!(2026-11-20 12:00 UTC);
    start(&dir, &[], now);
    let (_, renewal) = start(&dir, &[], now - time::Duration::days(400));
    for facts in [&held(&renewal).ca_facts, &held(&renewal).leaf.facts, &held(&renewal).present.facts] {
        assert!(facts.not_before <= now - time::Duration::days(400));
    }
}

#[test]
fn a_private_name_more_changes_the_leaf_alone_and_a_public_one_the_ca_too() {
    let dir = TempDir::new().unwrap();
    let now = OffsetDateTime::now_utc();
    let files = |certificates: &Certificates| -> Vec<_> {
        certificates.entries().iter().map(|entry| fs::read(&entry.path).unwrap()).collect()
    };
    let (certificates, _) = start(&dir, &[], now);
    let plain = files(&certificates);
    let (certificates, _) = start(&dir, &["desk.test"], now);
    let private = files(&certificates);
    let changed = |a: &[Vec<u8>], b: &[Vec<u8>]| a.iter().zip(b).map(|(a, b)| a != b).collect::<Vec<_>>();
    assert_eq!(changed(&plain, &private), [false, true, false, false]);

    let (certificates, _) = start(&dir, &[], now);
    assert_eq!(files(&certificates), private, "names are not taken away");

    let (certificates, _) = start(&dir, &["dev.example.org"], now);
    assert_eq!(changed(&private, &files(&certificates)), [true, true, false, false]);
    let tcp = certificates.tcp().borrow().clone();
    for name in ["desk.test", "dev.example.org", "localhost"] {
        handshake(&tcp, certificates.ca_path().unwrap(), name, &["h2"]).unwrap();
    }
}

#[test]
fn a_ca_without_its_key_serves_on_until_something_has_to_be_signed() {
    let dir = TempDir::new().unwrap();
    let now = OffsetDateTime::now_utc();
    let (certificates, _) = start(&dir, &[], now);
    let ca = fs::read(certificates.ca_path().unwrap()).unwrap();
    fs::remove_file(dir.path().join("certs/ca-key.pem")).unwrap();
    let (_, mut renewal) = start(&dir, &[], now);
    assert_eq!(fs::read(certificates.ca_path().unwrap()).unwrap(), ca);
    let verifiable = renewal.verifiable.subscribe();
    for (days, signed) in [(6, true), (12, false)] {
        renewal.look(Look::Due, now + time::Duration::days(days)).unwrap();
        assert_eq!(*verifiable.borrow(), signed, "after {days} days");
    }
    let (certificates, _) = start(&dir, &["desk.test"], now);
    assert_ne!(fs::read(certificates.ca_path().unwrap()).unwrap(), ca);
    handshake(&certificates.tcp().borrow(), certificates.ca_path().unwrap(), "desk.test", &[]).unwrap();
}

#[test]
fn servers_that_start_at_once_on_an_empty_directory_hold_the_same() {
    let dir = TempDir::new().unwrap();
    let now = OffsetDateTime::now_utc();
    let started = std::thread::scope(|scope| {
        let servers: Vec<_> = (0..8).map(|_| scope.spawn(|| start(&dir, &[], now).0)).collect();
        servers.into_iter().map(|server| server.join().unwrap()).collect::<Vec<_>>()
    });
    for other in &started[1..] {
        assert_eq!(*other.hashes().borrow(), *started[0].hashes().borrow());
        handshake(&other.tcp().borrow(), started[0].ca_path().unwrap(), "localhost", &[]).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn keys_are_their_owners_alone_and_a_key_open_to_all_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let now = OffsetDateTime::now_utc();
    start(&dir, &[], now);
    let certs = dir.path().join("certs");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&certs), 0o700);
    for name in ["ca-key.pem", "localhost.pem", "webtransport.pem", "webtransport-next.pem"] {
        assert_eq!(mode(&certs.join(name)), 0o600, "{name}");
    }
    let left: Vec<_> = fs::read_dir(&certs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 6, "five files and the lock: {left:?}");

    for name in ["ca-key.pem", "localhost.pem", "webtransport.pem"] {
        fs::set_permissions(certs.join(name), fs::Permissions::from_mode(0o644)).unwrap();
        let error = Certificates::load_at(&development(&dir, &[]), BOTH, now).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("chmod 600"), "{error}");
        fs::set_permissions(certs.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn spoilt_files_are_made_anew_but_never_the_ca() {
    let dir = TempDir::new().unwrap();
    let now = OffsetDateTime::now_utc();
    let (certificates, _) = start(&dir, &[], now);
    let certs = dir.path().join("certs");
    let next = certificates.hashes().borrow()[1];
    for (name, spoilt) in [("localhost.pem", ""), ("webtransport.pem", "-----BEGIN CERTIFICATE-----\nAAAA")] {
        fs::write(certs.join(name), spoilt).unwrap();
    }
    let (certificates, _) = start(&dir, &[], now);
    assert_eq!(certificates.hashes().borrow()[0], next, "the next one was announced already");
    handshake(&certificates.tcp().borrow(), certificates.ca_path().unwrap(), "localhost", &[]).unwrap();

    for (name, spoilt) in [("ca.pem", "no PEM"), ("ca-key.pem", "no PEM")] {
        let good = fs::read(certs.join(name)).unwrap();
        fs::write(certs.join(name), spoilt).unwrap();
        let error = Certificates::load_at(&development(&dir, &[]), BOTH, now).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("trusted again"), "{error}");
        fs::write(certs.join(name), good).unwrap();
    }
    let other = TempDir::new().unwrap();
    start(&other, &[], now);
    fs::copy(other.path().join("certs/ca-key.pem"), certs.join("ca-key.pem")).unwrap();
    let error = Certificates::load_at(&development(&dir, &[]), BOTH, now).unwrap_err().to_string();
    assert!(error.contains("does not belong to ca.pem"), "{error}");
}

#[test]
fn who_asks_has_what_is_missing_made_anew() {
    let dir = TempDir::new().unwrap();
    let now = OffsetDateTime::now_utc();
    let (certificates, mut renewal) = start(&dir, &[], now);
    let leaf = dir.path().join("certs/localhost.pem");
    let (tcp, before) = (certificates.tcp(), renewal.source.served());
    assert!(renewal.look(Look::Asked, now).unwrap(), "they are read whatever they look like");
    assert_eq!(renewal.source.served(), before);
    fs::remove_file(&leaf).unwrap();
    assert!(!renewal.look(Look::Due, now).unwrap(), "what is in use will do");
    assert!(renewal.look(Look::Asked, now).unwrap());
    assert!(leaf.exists() && renewal.source.served()[0] != before[0]);
    handshake(&tcp.borrow(), certificates.ca_path().unwrap(), "localhost", &[]).unwrap();
}

mod production {
    use super::*;

    /// An operator's pair of files, made from what `wigwag` made for itself elsewhere.
    fn operator(dir: &TempDir, names: &[&str]) -> (PathBuf, PathBuf) {
        let made_in = TempDir::new().unwrap();
        start(&made_in, names, OffsetDateTime::now_utc());
        let (cert, key) = (dir.path().join("fullchain.pem"), dir.path().join("privkey.pem"));
        // Chain and key in one file are fine for both.
        files::write(&cert, &fs::read(made_in.path().join("certs/localhost.pem")).unwrap(), true).unwrap();
        fs::rename(&cert, &key).unwrap();
        fs::copy(&key, &cert).unwrap();
        (cert, key)
    }

    fn source(files: &(PathBuf, PathBuf), names: &[&str]) -> CertificateSource {
        CertificateSource::Files {
            cert: files.0.clone(),
            key: files.1.clone(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn one_pair_serves_tcp_and_quic_and_announces_no_hash() {
        let dir = TempDir::new().unwrap();
        let files = operator(&dir, &["a.example.org"]);
        let (certificates, _) = Certificates::load(&source(&files, &["a.example.org"]), BOTH).unwrap();
        assert!(!certificates.is_development());
        assert_eq!(certificates.ca_path(), None);
        assert!(certificates.hashes().borrow().is_empty());
        assert_eq!(certificates.names(), ["a.example.org", "127.0.0.1", "::1", "localhost"]);
        assert_eq!(certificates.entries()[0].role, Role::Server);
    }

    #[test]
    fn a_changed_file_is_served_without_a_restart_and_a_broken_one_is_not() {
        let dir = TempDir::new().unwrap();
        let files = operator(&dir, &[]);
        let (certificates, mut renewal) = Certificates::load(&source(&files, &[]), BOTH).unwrap();
        let mut tcp = certificates.tcp();
        let first = tcp.borrow_and_update().clone();
        let now = OffsetDateTime::now_utc();
        assert!(!renewal.look(Look::Due, now).unwrap());
        assert!(!tcp.has_changed().unwrap());

        fs::write(&files.0, "half a cert").unwrap();
        for look in [Look::Due, Look::Asked] {
            let error = renewal.look(look, now).unwrap_err().to_string();
            assert!(error.contains("holds no certificate"), "{error}");
        }
        assert!(!tcp.has_changed().unwrap());

        operator(&dir, &["b.test", "c.test"]);
        assert!(renewal.look(Look::Due, now).unwrap());
        assert!(tcp.has_changed().unwrap());
        assert!(!Arc::ptr_eq(&first, &tcp.borrow()));
        assert!(!renewal.look(Look::Due, now).unwrap());
        assert!(renewal.look(Look::Asked, now).unwrap(), "who asks has them read whatever they look like");
    }

    #[test]
    fn every_mistake_is_one_line_that_names_the_file_and_the_flag() {
        let dir = TempDir::new().unwrap();
        let (cert, key) = operator(&dir, &[]);
        let other_dir = TempDir::new().unwrap();
        let (_, other_key) = operator(&other_dir, &[]);
        let missing = dir.path().join("missing.pem");
        let empty = dir.path().join("empty.pem");
        files::write(&empty, b"nothing", true).unwrap();
        let encrypted = dir.path().join("encrypted.pem");
        files::write(
            &encrypted,
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            true,
        )
        .unwrap();
        let big = dir.path().join("big.pem");
        files::write(&big, &vec![b'x'; 2 * 1024 * 1024], true).unwrap();
        let directory = dir.path().to_owned();
        for (pair, expected) in [
            ((&missing, &key), "no such file or directory; check --cert"),
            ((&cert, &missing), "no such file or directory; check --key"),
            ((&empty, &key), "holds no certificate"),
            ((&cert, &empty), "holds no private key"),
            ((&cert, &encrypted), "is encrypted"),
            ((&cert, &other_key), "does not belong to the certificate"),
            ((&directory, &key), "is a directory"),
            ((&big, &key), "over 1 MiB"),
        ] {
            let source = source(&(pair.0.clone(), pair.1.clone()), &[]);
            let error = Certificates::load(&source, BOTH).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("--") && !error.contains('\n'), "{error}");
        }
        let error = Certificates::load(&source(&(cert, key), &["x.test"]), BOTH).unwrap_err().to_string();
        assert!(error.contains("--name x.test is not covered"), "{error}");
    }
}

mod issued {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::UnixTime;
    use rustls::{DigitallySignedStruct, SignatureScheme};

    use super::*;
    use crate::config::Acme;

    /// RFC 8737, 6.1: critical, an OCTET STRING of the digest.
    const IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

    fn acme(dir: &TempDir) -> CertificateSource {
        CertificateSource::Acme(Acme {
            domains: vec!["a.test".into()],
            directory: http::Uri::from_static("https://authority.test/dir"),
            contact: vec![],
            ca: None,
            dir: dir.path().join("acme"),
        })
    }

    /// What an authority would issue: chain and key, and the CA to trust.
    fn issued(names: &[&str]) -> (TempDir, String) {
        let made_in = TempDir::new().unwrap();
        start(&made_in, names, OffsetDateTime::now_utc());
        let pem = fs::read_to_string(made_in.path().join("certs/localhost.pem")).unwrap();
        (made_in, pem)
    }

    /// Looks at what it is shown as an authority does, which trusts nobody.
    #[derive(Debug)]
    struct Curious;

    impl ServerCertVerifier for Curious {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            name: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            let facts = Facts::read(end_entity).expect("a certificate");
            assert_eq!(facts.names.iter().collect::<Vec<_>>(), [&name.to_str()]);
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            unreachable!("TLS 1.3 is spoken")
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }

    fn ask(server: &Arc<ServerConfig>, name: &str, alpn: &[&str]) -> Result<ClientConnection, String> {
        let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(rustls::DEFAULT_VERSIONS)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Curious))
            .with_no_client_auth();
        handshake_of(client, server, name, alpn)
    }

    #[test]
    fn an_authority_is_answered_for_as_long_as_it_asks_and_nobody_else_is() {
        let dir = TempDir::new().unwrap();
        let (certificates, mut renewal) = Certificates::load(&acme(&dir), BOTH).unwrap();
        let (tcp, quic) = (certificates.tcp().borrow().clone(), certificates.quic().borrow().clone());
        let challenges = certificates.challenges().unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, b"token.thumbprint");
        assert!(challenges.answer("a.test", b"short").is_err());
        ask(&tcp, "a.test", &["acme-tls/1"]).unwrap_err();
        let answering = challenges.answer("a.test", digest.as_ref()).unwrap();
        let asked = ask(&tcp, "a.test", &["acme-tls/1"]).unwrap();
        assert_eq!(asked.alpn_protocol(), Some(&b"acme-tls/1"[..]));
        let shown = &asked.peer_certificates().unwrap()[0];
        let (_, shown) = x509_parser::parse_x509_certificate(shown).unwrap();
        let extension = shown.extensions().iter().find(|extension| extension.oid.to_id_string() == IDENTIFIER).unwrap();
        assert!(extension.critical);
        assert_eq!(extension.value, [&[4, 32], digest.as_ref()].concat());

        ask(&tcp, "b.test", &["acme-tls/1"]).unwrap_err();
        ask(&quic, "a.test", &["acme-tls/1"]).unwrap_err();
        ask(&tcp, "a.test", &["h2"]).unwrap_err();
        let (made_in, pem) = issued(&["a.test"]);
        renewal.look(Look::Issued(pem), OffsetDateTime::now_utc()).unwrap();
        let client = handshake(
            &certificates.tcp().borrow(),
            &made_in.path().join("certs/ca.pem"),
            "a.test",
            &["h2", "acme-tls/1"],
        );
        assert_eq!(client.unwrap().alpn_protocol(), Some(&b"h2"[..]), "who offers more than that does not ask");
        ask(&certificates.tcp().borrow(), "a.test", &["acme-tls/1"]).unwrap();
        drop(answering);
        ask(&tcp, "a.test", &["acme-tls/1"]).unwrap_err();
    }

    #[test]
    fn what_is_issued_is_served_and_kept_and_what_does_not_fit_is_neither() {
        let dir = TempDir::new().unwrap();
        let now = OffsetDateTime::now_utc();
        let (certificates, mut renewal) = Certificates::load(&acme(&dir), BOTH).unwrap();
        assert!(certificates.shown().borrow().is_none() && certificates.entries().is_empty());
        assert_eq!(certificates.names(), ["a.test"]);
        assert!(!renewal.look(Look::Due, now).unwrap() && !renewal.look(Look::Asked, now).unwrap());
        let (_, other) = issued(&["b.test"]);
        let (ca, good) = issued(&["a.test"]);
        let crossed = [other.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap(), &good].concat();
        for (pem, why) in [(other.as_str(), "is not for a.test"), (&crossed, "does not belong"), ("", "no certificate")]
        {
            let error = renewal.look(Look::Issued(pem.into()), now).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(certificates.shown().borrow().is_none());
        assert!(renewal.look(Look::Issued(good), now).unwrap());
        let ca = ca.path().join("certs/ca.pem");
        for config in [certificates.tcp(), certificates.quic()] {
            handshake(&config.borrow(), &ca, "a.test", &[]).unwrap();
        }
        let (again, _) = Certificates::load(&acme(&dir), BOTH).unwrap();
        assert_eq!(*again.shown().borrow(), *certificates.shown().borrow());
        handshake(&again.tcp().borrow(), &ca, "a.test", &[]).unwrap();

        let file = dir.path().join("acme/authority.test_dir/certificate.pem");
        fs::write(&file, "half a cert").unwrap();
        let error = Certificates::load(&acme(&dir), BOTH).unwrap_err().to_string();
        assert!(error.contains("certificate.pem") && error.contains("remove it"), "{error}");
    }
}
