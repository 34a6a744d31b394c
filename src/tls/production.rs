//! The operator's own certificate: two PEM files, read again whenever they change.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use time::{Duration, OffsetDateTime};
use tracing::warn;

use super::credential::Credential;
use crate::error::StartError;
use crate::files;

/// Who renews by a machine does so well before this; who renews by hand should hear of it. Of a short-lived certificate it is less.
const WARN_BEFORE: Duration = Duration::days(14);

/// The files of a certificate chain and its key.
#[derive(Debug, Clone)]
pub(super) struct KeyPairFiles {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    /// Names beyond those that the certificate spells out; it must cover them.
    pub(super) names: Vec<String>,
}

/// Tells one state of the files from another: modification time and length of both. Links are followed, so that the
/// swapped links of a mounted secret count as a change.
pub(super) type Stamp = [Option<(SystemTime, u64)>; 2];

impl KeyPairFiles {
    pub(super) fn stamp(&self) -> Stamp {
        [&self.cert, &self.key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    /// Reads both files and checks that they fit each other and the names.
    pub(super) fn load(&self, provider: &CryptoProvider) -> Result<Credential, StartError> {
        let chain = files::read(&self.cert)
            .map_err(|error| StartError::file("read the certificate", &self.cert, &error, "check --cert"))?;
        let key = files::read_private(&self.key, "check --key")?;
        let credential = Credential::from_pem(&chain, &key, provider).map_err(|unfit| {
            let (flag, path) = if unfit.blames_certificate() { ("--cert", &self.cert) } else { ("--key", &self.key) };
            StartError::new(format_args!("{flag} {} {unfit}", path.display()))
        })?;
        self.check_names(&credential)?;
        Ok(credential)
    }

    fn check_names(&self, credential: &Credential) -> Result<(), StartError> {
        if credential.facts.names.is_empty() {
            return Err(StartError::new(format_args!(
                "--cert {} names no host (it has no subjectAltName), so no client would accept it; have it issued with one",
                self.cert.display()
            )));
        }
        let parsed = ParsedCertificate::try_from(credential.leaf())
            .map_err(|error| StartError::new(format_args!("--cert {}: {error}", self.cert.display())))?;
        for name in &self.names {
            let covered =
                ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok());
            if !covered {
                let names: Vec<_> = credential.facts.names.iter().map(String::as_str).collect();
                return Err(StartError::new(format_args!(
                    "--name {name} is not covered by --cert {}, which is for {}",
                    self.cert.display(),
                    names.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// The names under which the server knows itself, those asked for first; a wildcard is none.
    pub(super) fn own_names(&self, credential: &Credential) -> Vec<String> {
        let mut names = self.names.clone();
        names.extend(
            credential.facts.names.iter().filter(|name| !name.contains('*') && !self.names.contains(name)).cloned(),
        );
        names
    }
}

/// Logs what clients will complain about.
pub(super) fn warn_of_dates(path: &Path, credential: &Credential, now: OffsetDateTime) {
    let facts = &credential.facts;
    let path = path.display();
    if now > facts.not_after {
        warn!(%path, expired = %facts.not_after, "the certificate has expired: clients refuse it");
    } else if now + WARN_BEFORE.min((facts.not_after - facts.not_before) / 4) > facts.not_after {
        warn!(%path, expires = %facts.not_after, "the certificate expires soon");
    }
    if now < facts.not_before {
        warn!(%path, begins = %facts.not_before, "the certificate is not valid yet: clients refuse it");
    }
}
