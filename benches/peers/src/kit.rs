//! What every server under measurement gets: certificates, a port, and the programs themselves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use tempfile::TempDir;
use wigwag::bench::process::temporary_dir;

use crate::clients::HOST;

/// Files of a run, and where programs are found.
#[derive(Debug)]
pub(crate) struct Kit {
    dir: TempDir,
    roots: RootCertStore,
    /// The program that is measured.
    pub(crate) wigwag: PathBuf,
    /// Where the server programs in Rust are, and others that were built.
    pub(crate) built: PathBuf,
    /// `benches/peers`.
    pub(crate) sources: PathBuf,
}

impl Kit {
    /// Makes a certificate authority and one certificate for all servers: P-256, as wigwag's own.
    pub(crate) fn new(wigwag: PathBuf, sources: PathBuf) -> Result<Self> {
        let built = std::env::current_exe()?.parent().context("a program lies in a directory")?.to_owned();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([HOST.to_owned()])?.signed_by(&key, &authority)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        let dir = temporary_dir()?;
        let kit = Kit { dir, roots, wigwag, built, sources };
        fs::write(kit.cert(), certificate.pem())?;
        fs::write(kit.key(), key.serialize_pem())?;
        fs::set_permissions(kit.key(), fs::Permissions::from_mode(0o600))?;
        Ok(kit)
    }

    pub(crate) fn cert(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    /// For what one server needs beside.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        self.roots.clone()
    }
}
