//! A certificate that an authority has issued: one file of our own, which is not there before the first.

use std::io;
use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;

use super::credential::Credential;
use crate::config::Acme;
use crate::error::StartError;
use crate::files;

/// Its name in the authority's directory.
const FILE: &str = "certificate.pem";

/// The chain and the key in one file, so that no crash can leave a chain beside another one's key.
#[derive(Debug)]
pub(super) struct Issued {
    path: PathBuf,
    domains: Vec<String>,
    credential: Option<Box<Credential>>,
}

impl Issued {
    /// Makes the directory, and reads what an earlier start has left in it.
    pub(super) fn load(acme: &Acme, provider: &CryptoProvider) -> Result<Issued, StartError> {
        let dir = acme.authority_dir();
        files::create_dir(&dir).map_err(|error| StartError::file("make", &dir, &error, "check --acme-dir"))?;
        let mut issued = Issued { path: dir.join(FILE), domains: acme.domains.clone(), credential: None };
        issued.read(provider)?;
        Ok(issued)
    }

    /// Reads the file again; says whether there is one.
    pub(super) fn read(&mut self, provider: &CryptoProvider) -> Result<bool, StartError> {
        match self.path.try_exists() {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(error) => return Err(self.cannot("read", &error)),
        }
        let pem = files::read_private(&self.path, "check --acme-dir")?;
        let credential = Credential::from_pem(&pem, &pem, provider).map_err(|unfit| {
            StartError::new(format_args!("{} {unfit}; remove it, and another is ordered", self.path.display()))
        })?;
        self.credential = Some(Box::new(credential));
        Ok(true)
    }

    /// Takes a chain and its key into use, and keeps them.
    pub(super) fn install(&mut self, pem: &[u8], provider: &CryptoProvider) -> Result<(), StartError> {
        let credential = Credential::from_pem(pem, pem, provider)
            .map_err(|unfit| StartError::new(format_args!("what the authority issued {unfit}")))?;
        if let Some(name) = self.domains.iter().find(|name| !credential.facts.names.contains(*name)) {
            return Err(StartError::new(format_args!("what the authority issued is not for {name}")));
        }
        files::write(&self.path, pem, true).map_err(|error| self.cannot("write", &error))?;
        self.credential = Some(Box::new(credential));
        Ok(())
    }

    fn cannot(&self, doing: &str, error: &io::Error) -> StartError {
        StartError::file(doing, &self.path, error, "check --acme-dir")
    }

    pub(super) fn credential(&self) -> Option<&Credential> {
        self.credential.as_deref()
    }

    pub(super) fn domains(&self) -> &[String] {
        &self.domains
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
