//! Orders the server's certificate from an authority by ACME (RFC 8555), and orders the next one in time.
//!
//! The authority asks the server itself, on its TLS port, whether it has the names (TLS-ALPN-01, RFC 8737). What it issues is kept and
//! served by [`tls`](crate::tls); while nothing can be had, what is in use stays.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use instant_acme::{AuthorizationStatus, ChallengeType, Error, Identifier, NewOrder, Order, OrderStatus, RetryPolicy};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

mod account;
mod http;
mod schedule;

use account::Accounts;
use http::Http;

use crate::config::Acme;
use crate::error::StartError;
use crate::metrics::{Metrics, Reloaded};
use crate::pace::jitter;
use crate::tls::{Answering, Certificates};

/// For one order, from the account to the certificate. Authorities that have much to do take minutes.
const PATIENCE: Duration = Duration::from_secs(300);

/// How an order is looked after: so long for each of its two waits.
const POLLING: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));

/// How often the date is looked at. The system's clock is read each time: a sleep of weeks would not notice that the machine was
/// suspended or its clock set.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Orders certificates.
pub struct Orders {
    policy: Acme,
    accounts: Accounts,
    certificates: Certificates,
    hurry: Arc<Notify>,
}

impl std::fmt::Debug for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orders").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Orders {
    /// Orders what `policy` says, for `certificates` that were loaded by the same.
    ///
    /// # Errors
    /// A CA that cannot be read.
    pub fn new(policy: &Acme, certificates: &Certificates) -> Result<Self, StartError> {
        let accounts = Accounts::new(policy, Http::new(policy.ca.as_deref())?);
        Ok(Orders {
            policy: policy.clone(),
            accounts,
            certificates: certificates.clone(),
            hurry: Arc::new(Notify::new()),
        })
    }

    /// Has an order that has failed tried again at once.
    pub fn hurry(&self) -> Arc<Notify> {
        Arc::clone(&self.hurry)
    }

    /// Orders certificates whenever one is due, for ever: drop the future to end it. What goes wrong is logged and counted, and tried
    /// again after a while.
    pub async fn run(self, metrics: Metrics) {
        let mut failures = 0;
        loop {
            self.until_due().await;
            let ordered = timeout(PATIENCE, Box::pin(self.order())).await;
            let Err(error) = ordered.unwrap_or_else(|_| Err(anyhow::anyhow!("it took over five minutes"))) else {
                metrics.reloaded(Reloaded::Acme, true);
                failures = 0;
                continue;
            };
            metrics.reloaded(Reloaded::Acme, false);
            let pause = schedule::pause(failures);
            let pause = pause / 2 + jitter(pause / 2);
            failures += 1;
            self.tell(&error, pause);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.hurry.notified() => {}
            }
        }
    }

    fn tell(&self, error: &anyhow::Error, pause: Duration) {
        // The authority's words are among them: one line, whatever they hold.
        let error = StartError::new(format_args!("{error:#}"));
        let authority = self.policy.directory.host().unwrap_or_default();
        let stays = if self.is_waiting() { "TLS is refused until there is one" } else { "the one in use stays" };
        warn!(%error, authority, retry_s = pause.as_secs(), "no certificate could be had; {stays}");
    }

    fn is_waiting(&self) -> bool {
        self.certificates.shown().borrow().is_none()
    }

    /// Waits until another certificate is wanted.
    async fn until_due(&self) {
        loop {
            let now = OffsetDateTime::now_utc();
            let due = schedule::due(self.certificates.shown().borrow().as_ref(), &self.policy.domains);
            // Less than nothing is no duration.
            let Some(wait) = due.and_then(|due| Duration::try_from(due - now).ok()).filter(|wait| !wait.is_zero())
            else {
                return;
            };
            sleep(wait.min(LOOK_EVERY)).await;
        }
    }

    async fn order(&self) -> anyhow::Result<()> {
        let authority = self.policy.directory.host().unwrap_or_default();
        info!(authority, names = self.policy.domains.join(","), "ordering a certificate");
        let mut order = self.begin().await?;
        let answering = self.prove(&mut order).await?;
        match order.poll_ready(&POLLING).await {
            Ok(OrderStatus::Ready) => {}
            // What became of each name says more.
            Ok(_) | Err(Error::Api(_)) => bail!(why(&mut order).await),
            Err(error) => return Err(error).context("waiting for the authority to ask"),
        }
        drop(answering);
        let key = order.finalize().await.context("asking for the certificate")?;
        let chain = order.poll_certificate(&POLLING).await.context("waiting for the certificate")?;
        self.certificates.install(format!("{chain}\n{key}")).await?;
        let due = schedule::due(self.certificates.shown().borrow().as_ref(), &self.policy.domains);
        // It would be replaced at once, and the next one, too.
        if due.is_none_or(|due| due <= OffsetDateTime::now_utc()) {
            bail!(
                "the certificate that was issued is to be renewed already, by the clock of this machine; set it right"
            );
        }
        Ok(())
    }

    /// Begins an order. An account that the authority has forgotten is made anew.
    async fn begin(&self) -> anyhow::Result<Order> {
        let names: Vec<_> = self.policy.domains.iter().cloned().map(Identifier::Dns).collect();
        let wanted = NewOrder::new(&names);
        let begun = match self.accounts.open().await?.new_order(&wanted).await {
            Err(Error::Api(problem)) if account::is_unknown(&problem) => {
                self.accounts.register().await?.new_order(&wanted).await
            }
            begun => begun,
        };
        begun.context("beginning an order")
    }

    /// Has the authority ask for each name that it does not know to be ours. It is answered for as long as what is returned lives.
    async fn prove(&self, order: &mut Order) -> anyhow::Result<Vec<Answering>> {
        let challenges = self.certificates.challenges().context("nothing is ordered by ACME")?;
        let mut answering = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.context("reading what the authority wants to know")?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => bail!("the authority's question is {status:?} already"),
            }
            let name = authorization.identifier().to_string();
            let mut challenge = authorization.challenge(ChallengeType::TlsAlpn01).with_context(|| {
                format!("the authority does not ask {name} by TLS-ALPN-01, and no other way is known")
            })?;
            answering.push(challenges.answer(&name, challenge.key_authorization().digest().as_ref())?);
            challenge.set_ready().await.with_context(|| format!("having the authority ask {name}"))?;
        }
        Ok(answering)
    }
}

/// What the authority has found out of the names of an order that it refuses.
async fn why(order: &mut Order) -> String {
    let mut found = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        for problem in authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
            found.push(format!("{}: {}", authorization.identifier(), problem.detail.as_deref().unwrap_or("no reason")));
        }
    }
    if found.is_empty() {
        let detail = order.state().error.as_ref().and_then(|problem| problem.detail.as_deref());
        return format!("the authority refuses the order: {}", detail.unwrap_or("no reason"));
    }
    found.join("; ")
}
