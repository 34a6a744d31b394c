//! NATS for a load, and what a request over it takes without a signaling server.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use async_nats::Client;
use futures_util::StreamExt as _;
use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;

use super::Process;
use super::process::free_port;
use super::workload::{Round, one_by_one};

/// What the process is called among those that serve.
pub const NATS: &str = "NATS";

/// NATS must accept connections within this time.
const START: Duration = Duration::from_secs(5);
/// As long as a candidate of 200 bytes is with all that nodes put around it.
const PAYLOAD: [u8; 512] = [b'x'; 512];
const SUBJECT: &str = "wigwag-bench.echo";

/// A NATS server.
#[derive(Debug)]
pub struct Nats {
    /// Where it is.
    pub url: String,
    /// Where it was started for this; it ends with this.
    pub process: Option<Process>,
    /// Where it keeps what JetStream stores.
    _dir: Option<TempDir>,
}

impl Nats {
    /// One that runs already.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn running(url: &str) -> Result<Self> {
        connect(url).await?;
        Ok(Nats { url: url.to_owned(), process: None, _dir: None })
    }

    /// Starts `nats-server` with JetStream on loopback, on the processor that servers under measurement have.
    ///
    /// # Errors
    /// If it is not installed, or does not serve.
    pub async fn start() -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new("nats-server");
        let dir = tempfile::Builder::new().prefix("wigwag-bench-").tempdir()?;
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--log", "/dev/null"]);
        command.arg("--jetstream").arg("--store_dir").arg(dir.path());
        // Debian keeps it where only root looks for programs.
        command.env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin");
        let mut process = Process::start(&mut command).map_err(explain)?;
        let url = format!("nats://127.0.0.1:{port}");
        let accepts = async {
            while connect(&url).await.is_err() {
                process.check().context("nats-server does not serve")?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(START, accepts).await.map_err(|_| anyhow!("nats-server does not answer"))??;
        Ok(Nats { url, process: Some(process), _dir: Some(dir) })
    }

    /// Requests to one who sends back what has come, one in flight: two messages each.
    ///
    /// # Errors
    /// If the connection is lost, or what comes back is something else.
    pub async fn requests(&self, time: Duration) -> Result<Round> {
        let (asking, answering) = (connect(&self.url).await?, connect(&self.url).await?);
        let _echo = echo(answering).await?;
        let servers: Vec<_> = self.process.iter().map(|process| (NATS, process)).collect();
        let round = one_by_one(&servers, time, async |_| {
            let sent = Instant::now();
            let answer = asking.request(SUBJECT, PAYLOAD.as_slice().into()).await?;
            ensure!(answer.payload == PAYLOAD.as_slice(), "NATS brings another answer");
            Ok(sent.elapsed())
        });
        round.await
    }
}

async fn connect(url: &str) -> Result<Client> {
    let connecting = tokio::time::timeout(START, async_nats::connect(url)).await;
    let connected = connecting.map_err(anyhow::Error::from).and_then(|connected| Ok(connected?));
    connected.with_context(|| format!("cannot connect to {url}"))
}

/// Answers requests by what they carry, until it is dropped. Done when it has subscribed.
async fn echo(client: Client) -> Result<AbortOnDropHandle<()>> {
    let mut requests = client.subscribe(SUBJECT).await?;
    // NATS does what a connection asks in order: who hears itself has subscribed.
    client.publish(SUBJECT, PAYLOAD.as_slice().into()).await?;
    requests.next().await.context("NATS has closed the connection")?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply {
                // Where the connection is lost, who asked is told by its own.
                let _ = client.publish(reply, request.payload).await;
            }
        }
    })))
}

fn explain(error: anyhow::Error) -> anyhow::Error {
    let is_missing = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
    let how = "nats-server is not installed: install it (on Debian the package nats-server), or name one that runs by --nats URL";
    if is_missing { anyhow!(how) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lacks_nats_is_told_what_to_do() {
        let missing = Process::start(&mut Command::new("no-such-program")).expect_err("there is none");
        assert!(explain(missing).to_string().contains("install it"));
        assert_eq!(explain(anyhow!("another")).to_string(), "another");
    }
}
