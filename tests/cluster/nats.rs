//! A NATS server of the test's own.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use wigwag::cluster::{Address, Name, Policy, TIMEOUT};

use crate::support::within;

/// A `nats-server` on loopback; killed when it is dropped.
pub(crate) struct Nats {
    child: Child,
    pub(crate) port: u16,
    /// Where other servers of its cluster find it, if it has one.
    pub(crate) cluster: Option<u16>,
}

impl Nats {
    /// One on a port of the system's choosing, with more arguments.
    pub(crate) async fn start(args: &[&str]) -> Self {
        // -1 is the system's choice.
        Self::start_at(-1, args).await
    }

    /// One on this port.
    pub(crate) async fn start_at(port: i32, args: &[&str]) -> Self {
        let mut command = Command::new("nats-server");
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]).args(args);
        // Debian keeps it where only root looks for programs.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin"));
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("nats-server is installed; scripts/test installs it");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let (mut port, mut cluster, mut is_ready) = (None, None, false);
        let port_of = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let mut said = String::new();
        while let Some(line) = within(log.next_line()).await.expect("UTF-8") {
            if let Some((_, address)) = line.split_once("Listening for client connections on ") {
                port = port_of(address);
            }
            if let Some((_, address)) = line.split_once("Listening for route connections on ") {
                cluster = port_of(address);
            }
            is_ready |= line.contains("Server is ready");
            // It listens for routes after it is ready.
            if is_ready && (cluster.is_some() || !args.contains(&"--cluster")) {
                // It must not stop because nobody reads what it says.
                tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
                return Nats { child, port: port.expect("it tells its port"), cluster };
            }
            said += &line;
            said.push('\n');
        }
        panic!("nats-server ended before it was ready:\n{said}");
    }

    /// Kills it, and starts it again when asked to.
    pub(crate) async fn kill(mut self) -> i32 {
        within(self.child.kill()).await.expect("a child of ours");
        self.port.into()
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// How a node connects to it.
    pub(crate) fn policy(&self) -> Policy {
        policy(&self.url())
    }
}

/// How a node connects to a server at `url`.
pub(crate) fn policy(url: &str) -> Policy {
    let servers = vec![url.parse::<Address>().expect("an address")];
    Policy { servers, name: Name::default(), credentials: None, ca: None, timeout: TIMEOUT, key: None, durable: None }
}
