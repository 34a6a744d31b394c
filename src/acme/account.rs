//! The account at the authority, kept from one start to the next.

use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use instant_acme::{Account, AccountBuilder, AccountCredentials, NewAccount, Problem};
use serde::{Deserialize, Serialize};

use super::http::Http;
use crate::config::Acme;
use crate::files;

/// Its name in the authority's directory.
const FILE: &str = "account.json";

/// Opens the account, and makes it where there is none.
pub(super) struct Accounts {
    http: Http,
    directory: String,
    contact: Vec<String>,
    path: PathBuf,
}

/// What is kept of an account. Its private key is in it.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// What the authority was told last.
    contact: Vec<String>,
    credentials: AccountCredentials,
}

/// Whether the authority does not know the account (RFC 8555, 6.7).
pub(super) fn is_unknown(problem: &Problem) -> bool {
    problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist")
}

impl Accounts {
    pub(super) fn new(policy: &Acme, http: Http) -> Self {
        Accounts {
            http,
            directory: policy.directory.to_string(),
            contact: policy.contact.clone(),
            path: policy.authority_dir().join(FILE),
        }
    }

    /// The account of an earlier start, or else a new one.
    pub(super) async fn open(&self) -> anyhow::Result<Account> {
        let Some(mut kept) = self.read().await? else { return self.register().await };
        let known = kept.contact == self.contact;
        // The credentials cannot be copied.
        let text = (!known).then(|| serde_json::to_string(&kept.credentials)).transpose()?;
        let account =
            self.builder().from_credentials(kept.credentials).await.context("reading the authority's directory")?;
        if let Some(text) = text {
            match account.update_contacts(&self.contacts()).await {
                // Whoever asks for more with this account hears the same, and makes another.
                Err(instant_acme::Error::Api(problem)) if is_unknown(&problem) => return Ok(account),
                updated => updated.context("telling the authority of --acme-contact")?,
            }
            kept = Kept { contact: self.contact.clone(), credentials: serde_json::from_str(&text)? };
            self.write(&kept).await?;
        }
        Ok(account)
    }

    /// A new account, in the place of the last.
    pub(super) async fn register(&self) -> anyhow::Result<Account> {
        let contact = self.contacts();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let made = self.builder().create(&new, self.directory.clone(), None).await;
        let (account, credentials) = made.context("making an account")?;
        self.write(&Kept { contact: self.contact.clone(), credentials }).await?;
        Ok(account)
    }

    fn builder(&self) -> AccountBuilder {
        Account::builder_with_http(Box::new(self.http.clone()))
    }

    fn contacts(&self) -> Vec<&str> {
        self.contact.iter().map(String::as_str).collect()
    }

    async fn read(&self) -> anyhow::Result<Option<Kept>> {
        let path = self.path.clone();
        let read = move || match path.try_exists() {
            Ok(false) => Ok(None),
            _ => files::read_private(&path, "check --acme-dir").map(Some),
        };
        let Some(text) = tokio::task::spawn_blocking(read).await?? else { return Ok(None) };
        let kept = serde_json::from_slice(&text);
        kept.map(Some).with_context(|| format!("{} is no account; remove it, and another is made", self.path.display()))
    }

    async fn write(&self, kept: &Kept) -> anyhow::Result<()> {
        let (path, text) = (self.path.clone(), serde_json::to_vec(kept)?);
        let written: io::Result<()> = tokio::task::spawn_blocking(move || files::write(&path, &text, true)).await?;
        written.with_context(|| format!("cannot write {}; check --acme-dir", self.path.display()))
    }
}
