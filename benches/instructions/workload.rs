//! What is counted: everything in one thread, so that it happens in the same order each time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use http::{HeaderMap, Request};
use serde_json::Value;
use tokio::task::{JoinHandle, yield_now};
use wigwag::bench::{Peer, Service, Wigwag, candidate};
use wigwag::client::{Endpoint, Trust, Via as ClientVia};
use wigwag::config::{CertificateSource, Config};
use wigwag::context::Context;
use wigwag::server::Server;
use wigwag::transport::{HttpVersion, Opening, Transport, Via, drive};

use crate::memory::{Client, pipe};

/// Members of the room that is spoken to as a whole.
const CROWD: u64 = 16;
/// Two peers relay in each of so many rooms, one after the other. Hash tables have seeds, good ones and bad ones; this is their mean.
const ROOMS: u64 = 16;
/// A client acknowledges so many messages at once, as the protocol asks.
const ACK_EVERY: u64 = 32;

/// One workload; its figure is instructions for one of what it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// A candidate from one peer to another and the answer to its sender, one in flight, on wires that are queues in memory.
    Relay,
    /// The same, 32 in flight.
    Burst,
    /// One delivery of a message to a whole room.
    FanOut,
    /// A peer that joins a room of two, and leaves.
    Join,
    /// A candidate between two native clients on WebSockets over HTTP/1.1 in plain text: both ends of both connections.
    WebSocketH1,
    /// The same over HTTP/2 and TLS.
    WebSocketH2,
    /// The same over WebTransport.
    WebTransport,
}

impl Workload {
    pub(crate) const ALL: [Workload; 7] = [
        Workload::Relay,
        Workload::Burst,
        Workload::FanOut,
        Workload::Join,
        Workload::WebSocketH1,
        Workload::WebSocketH2,
        Workload::WebTransport,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::Relay => "relay",
            Workload::Burst => "burst",
            Workload::FanOut => "fan-out",
            Workload::Join => "join-and-leave",
            Workload::WebSocketH1 => "websocket-h1",
            Workload::WebSocketH2 => "websocket-h2",
            Workload::WebTransport => "webtransport",
        }
    }

    /// Rounds of the longer run; the shorter one has an eighth.
    pub(crate) fn rounds(self) -> u64 {
        match self {
            Workload::Relay => 4096,
            Workload::Burst => 256,
            Workload::FanOut | Workload::Join => 1024,
            Workload::WebSocketH1 | Workload::WebSocketH2 | Workload::WebTransport => 2048,
        }
    }

    /// How much of what is counted happens in one round.
    pub(crate) fn units(self) -> u64 {
        match self {
            Workload::Burst => ACK_EVERY,
            Workload::FanOut => CROWD - 1,
            _ => 1,
        }
    }

    /// Does so many rounds.
    pub(crate) fn run(self, rounds: u64) -> Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let dir = tempfile::tempdir()?;
            let server = Server::load(config(dir.path().to_owned())).await?;
            match self {
                Workload::Relay => relay(server.context(), rounds, 1).await,
                Workload::Burst => relay(server.context(), rounds, ACK_EVERY).await,
                Workload::FanOut => fan_out(server.context(), rounds).await,
                Workload::Join => join(server.context(), rounds).await,
                Workload::WebSocketH1 => over(server, ClientVia::WebSocketH1, rounds).await,
                Workload::WebSocketH2 => over(server, ClientVia::WebSocketH2, rounds).await,
                Workload::WebTransport => over(server, ClientVia::WebTransport, rounds).await,
            }
        })
    }
}

/// No limits that a machine could run into by being slow or quick, and nothing that happens by itself.
fn config(dir: std::path::PathBuf) -> Config {
    let any = "127.0.0.1:0".parse().expect("an address");
    let mut config = Config { listen: vec![any], plain: vec![any], admin: None, ..Config::default() };
    config.certificate = CertificateSource::Development { dir, names: vec![] };
    config.heartbeat = Duration::from_secs(3600);
    config.limits.messages_per_second = 1_000_000_000;
    config.limits.burst = 1_000_000_000;
    config.limits.first_message_ms = 3_600_000;
    config.connections.sessions_per_second = 1_000_000_000;
    config
}

/// A peer on a wire in memory.
struct Member {
    client: Client,
    session: JoinHandle<()>,
    peer: String,
    /// Frames that have been waited for.
    heard: usize,
    next_id: u64,
    acknowledged: u64,
}

impl Member {
    async fn join(context: &Arc<Context>, room: u64) -> Result<Self> {
        let (head, ()) = Request::get(format!("/v1/rooms/{room}")).body(())?.into_parts();
        let address = "127.0.0.1:1".parse()?;
        let via = Via { version: HttpVersion::H1, remote: address, local: address, encrypted: false };
        let opening = Opening::admit(&head, Transport::WebSocketH1, via, context).await;
        let opening = opening.map_err(|refusal| anyhow::anyhow!("{}", refusal.message))?;
        let (wire, client) = pipe();
        let session = tokio::spawn(drive(wire, opening, Arc::clone(context)));
        let mut member = Member { client, session, peer: String::new(), heard: 0, next_id: 1, acknowledged: 0 };
        member.client.say(r#"{"type":"join"}"#.to_owned());
        member.hears(1).await;
        let joined: Value = serde_json::from_slice(&member.client.last())?;
        ensure!(joined["type"] == "joined", "not let in: {joined}");
        joined["self"]["peer"].as_str().unwrap_or_default().clone_into(&mut member.peer);
        Ok(member)
    }

    /// Waits for so many frames more.
    async fn hears(&mut self, frames: usize) {
        self.heard += frames;
        while self.client.heard() < self.heard {
            yield_now().await;
        }
        if self.client.seq() >= self.acknowledged + ACK_EVERY {
            self.acknowledged = self.client.seq();
            self.client.say(format!(r#"{{"type":"ack","seq":{}}}"#, self.acknowledged));
        }
    }

    fn request(&mut self, request: &str) {
        self.client.say(format!(r#"{{"id":{},{request}}}"#, self.next_id));
        self.next_id += 1;
    }

    fn last_is(&self, kind: &str) -> bool {
        String::from_utf8_lossy(&self.client.last()).contains(&format!(r#""type":"{kind}""#))
    }
}

async fn relay(context: &Arc<Context>, rounds: u64, in_flight: u64) -> Result<()> {
    for room in 0..ROOMS {
        relay_in(context, room, rounds / ROOMS, in_flight).await?;
    }
    Ok(())
}

async fn relay_in(context: &Arc<Context>, room: u64, rounds: u64, in_flight: u64) -> Result<()> {
    let (mut alice, mut bob) = (Member::join(context, room).await?, Member::join(context, room).await?);
    alice.hears(1).await;
    let request = format!(r#""type":"candidate","to":"{}","candidate":{}"#, bob.peer, candidate());
    for _ in 0..rounds {
        for _ in 0..in_flight {
            alice.request(&request);
        }
        bob.hears(in_flight as usize).await;
        alice.hears(in_flight as usize).await;
    }
    ensure!(bob.last_is("candidate") && alice.last_is("ok"), "a candidate and its answer came");
    Ok(())
}

async fn fan_out(context: &Arc<Context>, rounds: u64) -> Result<()> {
    let mut members: Vec<Member> = Vec::new();
    for _ in 0..CROWD {
        let member = Member::join(context, 0).await?;
        for other in &mut members {
            other.hears(1).await;
        }
        members.push(member);
    }
    for _ in 0..rounds {
        members[0].request(r#""type":"message","data":"hello, all of you""#);
        for member in &mut members {
            member.hears(1).await;
        }
    }
    ensure!(members[0].last_is("ok") && members[1..].iter().all(|member| member.last_is("message")), "all heard it");
    Ok(())
}

async fn join(context: &Arc<Context>, rounds: u64) -> Result<()> {
    let mut stays = Member::join(context, 0).await?;
    for _ in 0..rounds {
        let mut visitor = Member::join(context, 0).await?;
        visitor.request(r#""type":"leave""#);
        visitor.hears(1).await;
        ensure!(visitor.last_is("ok"), "it has left");
        visitor.session.await?;
        stays.hears(2).await;
    }
    ensure!(stays.last_is("peerLeft"), "others hear of it");
    Ok(())
}

/// The server and both clients, over the loopback interface.
async fn over(server: Server, via: ClientVia, rounds: u64) -> Result<()> {
    let addresses = server.addresses().clone();
    let mut roots = rustls::RootCertStore::empty();
    if let Some(ca) = server.certificates().ca_path() {
        use rustls::pki_types::pem::PemObject as _;
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(ca)?)?;
    }
    let hashes = server.certificates().hashes().borrow().clone();
    tokio::spawn(server.run(std::future::pending(), std::future::pending()));
    let encrypted = via != ClientVia::WebSocketH1;
    let address = if encrypted { addresses.secure[0] } else { addresses.plain[0] };
    let endpoint = Endpoint { encrypted, host: address.ip().to_string(), port: address.port() };
    let service = Wigwag { endpoint, trust: Trust::new(roots, hashes)?, via, headers: HeaderMap::new() };
    let (mut alice, mut bob) = (service.join("count").await?, service.join("count").await?);
    let to = bob.id().to_owned();
    for _ in 0..rounds {
        alice.feed_candidate(&to, candidate())?;
        alice.flush().await?;
        ensure!(bob.recv().await? == candidate(), "it came as it went");
    }
    Ok(())
}
