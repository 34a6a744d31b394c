//! The development certificates of one directory: read, planned, made and kept, by any number of servers at once.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tracing::{debug, warn};

use super::credential::Credential;
use super::facts::Facts;
use super::make::{self, Made};
use super::plan::{Inventory, Plan, Rotation, plan};
use crate::error::StartError;
use crate::files;

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const LEAF: &str = "localhost.pem";
const PRESENT: &str = "webtransport.pem";
const NEXT: &str = "webtransport-next.pem";
const LOCK: &str = ".lock";

/// Making certificates takes milliseconds; who holds the lock longer is stuck.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// A directory of development certificates.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    path: PathBuf,
    names: Vec<String>,
    /// The same, to compare.
    wanted: BTreeSet<String>,
}

type Ca = (CertificateDer<'static>, Facts);

/// What is in the directory and good to use.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) ca: CertificateDer<'static>,
    pub(super) ca_facts: Facts,
    pub(super) leaf: Credential,
    pub(super) present: Credential,
    pub(super) next: Credential,
    ca_key: bool,
}

/// What is in the directory, good or not.
#[derive(Default)]
struct Found {
    ca: Option<Ca>,
    ca_key: Option<KeyPair>,
    leaf: Option<Credential>,
    present: Option<Credential>,
    next: Option<Credential>,
}

impl Directory {
    pub(super) fn new(path: PathBuf, names: Vec<String>) -> Self {
        Directory { path, wanted: names.iter().cloned().collect(), names }
    }

    /// What the TLS leaf must be good for.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Where the CA's certificate is, for those who want to trust it.
    pub(super) fn ca_path(&self) -> PathBuf {
        self.path.join(CA)
    }

    /// The files in use, in the order CA, leaf, present and next WebTransport certificate.
    pub(super) fn paths(&self) -> [PathBuf; 4] {
        [CA, LEAF, PRESENT, NEXT].map(|name| self.path.join(name))
    }

    /// Whether `held` will do at the moment `now`.
    pub(super) fn is_due(&self, held: &Held, now: OffsetDateTime) -> bool {
        !plan(now, &self.wanted, held.inventory()).is_idle()
    }

    /// Reads what there is and makes what is missing, expired or due. Servers that do so at once take turns, and all come
    /// to hold the same.
    pub(super) fn bring_up_to_date(&self, now: OffsetDateTime, provider: &CryptoProvider) -> Result<Held, StartError> {
        // Without the lock first: a directory that needs nothing may be read-only. What looks wrong may only be half done.
        if let Ok(held) = self.read(provider).and_then(|found| self.held(found, now)) {
            return Ok(held);
        }
        files::create_dir(&self.path).map_err(|error| {
            StartError::file("make the directory", &self.path, &error, "choose another with --certs-dir")
        })?;
        let _lock = self.lock()?;
        let found = self.read(provider)?;
        self.make(plan(now, &self.wanted, found.inventory()), found, now)?;
        self.held(self.read(provider)?, now)
    }

    /// What was found, if nothing has to be made.
    fn held(&self, found: Found, now: OffsetDateTime) -> Result<Held, StartError> {
        let idle = plan(now, &self.wanted, found.inventory()).is_idle();
        match found {
            Found { ca: Some((ca, ca_facts)), ca_key, leaf: Some(leaf), present: Some(present), next: Some(next) }
                if idle =>
            {
                Ok(Held { ca, ca_facts, leaf, present, next, ca_key: ca_key.is_some() })
            }
            _ => Err(StartError::new(format_args!(
                "the certificates in {} do not stay as they are written; choose another directory with --certs-dir",
                self.path.display()
            ))),
        }
    }

    fn lock(&self) -> Result<File, StartError> {
        let path = self.path.join(LOCK);
        let failed = |error| StartError::file("write", &path, &error, "choose another directory with --certs-dir");
        let lock = files::open_lock(&path).map_err(failed)?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => {
                    return Err(StartError::new(format_args!(
                        "another process has held {} for {} seconds; end it, or choose another directory with --certs-dir",
                        path.display(),
                        LOCK_PATIENCE.as_secs()
                    )));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    fn read(&self, provider: &CryptoProvider) -> Result<Found, StartError> {
        let (ca, ca_key) = self.read_ca()?;
        Ok(Found {
            ca,
            ca_key,
            leaf: self.read_credential(LEAF, provider)?,
            present: self.read_credential(PRESENT, provider)?,
            next: self.read_credential(NEXT, provider)?,
        })
    }

    /// A CA that cannot be read is not replaced: somebody may have trusted it, and would have to trust another.
    fn read_ca(&self) -> Result<(Option<Ca>, Option<KeyPair>), StartError> {
        let (path, key_path) = (self.path.join(CA), self.path.join(CA_KEY));
        let remedy = "put it right, or delete ca.pem and ca-key.pem to have a new CA made, which must be trusted again";
        let spoilt = |path: &Path, what: &str| StartError::new(format_args!("{} {what}; {remedy}", path.display()));
        let pem = match files::read(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, None)),
            Err(error) => return Err(StartError::file("read", &path, &error, remedy)),
        };
        let ca = CertificateDer::from_pem_slice(&pem).map_err(|_| spoilt(&path, "is no PEM certificate"))?;
        let facts = Facts::read(&ca).ok_or_else(|| spoilt(&path, "is no X.509 certificate"))?;
        if !key_path.exists() {
            return Ok((Some((ca, facts)), None));
        }
        let pem = files::read_private(&key_path, remedy)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&pem)
            .ok()
            .and_then(|der| KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).ok())
            .ok_or_else(|| spoilt(&key_path, "is no PEM private key for ECDSA P-256"))?;
        if key.public_key_raw() != facts.public_key {
            return Err(spoilt(&key_path, "does not belong to ca.pem"));
        }
        Ok((Some((ca, facts)), Some(key)))
    }

    /// Nobody has put trust in the other certificates themselves: one that is spoilt is as good as missing.
    fn read_credential(&self, name: &str, provider: &CryptoProvider) -> Result<Option<Credential>, StartError> {
        let path = self.path.join(name);
        if !path.exists() {
            return Ok(None);
        }
        let pem = files::read_private(&path, "delete it to have a new one made")?;
        match Credential::from_pem(&pem, &pem, provider) {
            Ok(credential) => Ok(Some(credential)),
            Err(unfit) => {
                warn!(path = %path.display(), "the file {unfit}: making a new one");
                Ok(None)
            }
        }
    }

    fn make(&self, plan: Plan, mut found: Found, now: OffsetDateTime) -> Result<(), StartError> {
        // Names are never taken away while servers with different ones share the directory: they would remake each
        // other's certificates for ever.
        let mut names = self.wanted.clone();
        let earlier = found.leaf.take().into_iter().flat_map(|leaf| leaf.facts.names);
        let signable = |name: &String| plan.make_ca || found.ca.as_ref().is_some_and(|(_, ca)| ca.permits(name));
        names.extend(earlier.filter(signable));
        if plan.make_ca {
            self.make_ca(now, &names)?;
        }
        if plan.make_leaf {
            self.make_leaf(now, &names)?;
        }
        match plan.webtransport {
            Rotation::Keep => Ok(()),
            Rotation::MakeNext => self.make_webtransport(NEXT, now, &names),
            Rotation::Promote => {
                let (next, present) = (self.path.join(NEXT), self.path.join(PRESENT));
                std::fs::rename(&next, &present)
                    .map_err(|error| StartError::file("replace", &present, &error, WRITABLE))?;
                self.make_webtransport(NEXT, now, &names)
            }
            Rotation::MakeBoth => {
                self.make_webtransport(PRESENT, now, &names)?;
                self.make_webtransport(NEXT, now, &names)
            }
        }
    }

    /// The key comes first: a key alone is nothing, and is made anew with its certificate.
    fn make_ca(&self, now: OffsetDateTime, names: &BTreeSet<String>) -> Result<(), StartError> {
        let renewed = self.ca_path().exists();
        let made = make::ca(now, names).map_err(|error| self.failed(CA, &error))?;
        if renewed {
            // Never a new key beside the old certificate, whatever happens between the two.
            std::fs::remove_file(self.ca_path())
                .map_err(|error| StartError::file("replace", &self.ca_path(), &error, WRITABLE))?;
        }
        self.write(CA_KEY, &made.key, true)?;
        self.write(CA, &made.certificate, false)?;
        if renewed {
            warn!(path = %self.ca_path().display(), "made a new development CA in place of the old one: trust it anew");
        }
        Ok(())
    }

    fn make_leaf(&self, now: OffsetDateTime, names: &BTreeSet<String>) -> Result<(), StartError> {
        let (ca, key) = self.read_ca()?;
        let (Some((ca, facts)), Some(key)) = (ca, key) else {
            return Err(self.failed(LEAF, &"the CA has gone again"));
        };
        let made = make::leaf(now, names, (&ca, facts.not_after), &key).map_err(|error| self.failed(LEAF, &error))?;
        self.write_credential(LEAF, &made)
    }

    fn make_webtransport(&self, name: &str, now: OffsetDateTime, names: &BTreeSet<String>) -> Result<(), StartError> {
        let (ca, key) = self.read_ca()?;
        let ca = ca.as_ref().zip(key.as_ref()).map(|((ca, facts), key)| (ca, facts.not_after, key));
        let made = make::webtransport(now, names, ca).map_err(|error| self.failed(name, &error))?;
        self.write_credential(name, &made)
    }

    /// Certificate and key in one file, so that the two cannot come apart.
    fn write_credential(&self, name: &str, made: &Made) -> Result<(), StartError> {
        self.write(name, &format!("{}{}", made.certificate, made.key), true)
    }

    fn write(&self, name: &str, content: &str, private: bool) -> Result<(), StartError> {
        let path = self.path.join(name);
        files::write(&path, content.as_bytes(), private)
            .map_err(|error| StartError::file("write", &path, &error, WRITABLE))?;
        debug!(path = %path.display(), "made");
        Ok(())
    }

    fn failed(&self, name: &str, error: &dyn std::fmt::Display) -> StartError {
        StartError::new(format_args!("cannot make {}: {error}", self.path.join(name).display()))
    }
}

const WRITABLE: &str = "make it writable, or choose another directory with --certs-dir";

impl Held {
    fn inventory(&self) -> Inventory<'_> {
        Inventory {
            ca: Some(&self.ca_facts),
            ca_key: self.ca_key,
            leaf: Some(&self.leaf.facts),
            present: Some(&self.present.facts),
            next: Some(&self.next.facts),
        }
    }
}

impl Found {
    fn inventory(&self) -> Inventory<'_> {
        Inventory {
            ca: self.ca.as_ref().map(|(_, facts)| facts),
            ca_key: self.ca_key.is_some(),
            leaf: self.leaf.as_ref().map(|credential| &credential.facts),
            present: self.present.as_ref().map(|credential| &credential.facts),
            next: self.next.as_ref().map(|credential| &credential.facts),
        }
    }
}
