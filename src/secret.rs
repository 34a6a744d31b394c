//! Secrets that the operator shares with another program, and where they are: never on the command line, which everybody on
//! the machine can read.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::StartError;
use crate::files;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The first line of a file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
}

impl FromStr for SecretSource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("env:") {
            Some(variable) => Ok(SecretSource::Variable(variable.to_owned())),
            None if text.is_empty() => Err("name a file, or env:VARIABLE"),
            None => Ok(SecretSource::File(text.into())),
        }
    }
}

impl SecretSource {
    /// Reads the secret, whose option is `flag`; `what` it must be completes "it must be …".
    ///
    /// # Errors
    /// There is none, or every user of the machine can read it.
    pub fn read(&self, flag: &str, what: &str) -> Result<String, StartError> {
        let (place, text) = match self {
            SecretSource::File(path) => {
                let bytes = files::read_private(path, &format!("name the file with {flag}"))?;
                (path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned())
            }
            SecretSource::Variable(name) => (name.clone(), std::env::var(name).unwrap_or_default()),
        };
        match text.lines().next().map(str::trim) {
            Some(secret) if !secret.is_empty() => Ok(secret.to_owned()),
            _ => Err(StartError::new(format_args!("{place} holds no secret; it must be {what}"))),
        }
    }
}
