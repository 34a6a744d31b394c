//! What an idle session costs: server memory for sessions that have joined and say nothing, one connection each.
//!
//! `cargo bench --bench idle` starts the release server in a process of its own, joins 2,000 sessions over one transport after the
//! other, and reads the server's resident memory before and after. `-- --sessions N` asks for another number.

use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use http::{HeaderMap, Method};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use wigwag::client::{Connection, Endpoint, Event, Http1, Trust, Via};
use wigwag::protocol::RoomName;

/// Members of each room; what a session is told of the others is part of its cost.
const PEERS_A_ROOM: usize = 4;

/// Joins under way at once.
const AT_ONCE: usize = 50;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The server under measurement; ends with its guard.
struct Server {
    process: Child,
    dir: PathBuf,
    secure: Endpoint,
}

impl Server {
    fn start() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("wigwag-idle-{}", std::process::id()));
        let port = free_port()?;
        let process = Command::new(env!("CARGO_BIN_EXE_wigwag"))
            .args(["serve", "--plain", "off", "--admin", "off", "--log", "warn"])
            .args(["--listen", &format!("127.0.0.1:{port}"), "--certs-dir"])
            .arg(&dir)
            .stdout(Stdio::null())
            .spawn()?;
        let secure = Endpoint { encrypted: true, host: "127.0.0.1".into(), port };
        Ok(Server { process, dir, secure })
    }

    /// What to trust, once the server answers.
    async fn trust(&self) -> Result<Trust> {
        let mut hashes = Vec::new();
        loop {
            let mut roots = RootCertStore::empty();
            if let Ok(ca) = CertificateDer::from_pem_file(self.dir.join("ca.pem")) {
                roots.add(ca)?;
            }
            let trust = Trust::new(roots, std::mem::take(&mut hashes))?;
            if let Ok(mut connection) = Http1::connect(&self.secure, &trust.tls).await {
                let discovery = connection.request(Method::GET, "/v1/discovery", &HeaderMap::new()).await?;
                let document = serde_json::from_slice(discovery.body())?;
                return Ok(Trust { hashes: wigwag::client::certificate_hashes(&document), ..trust });
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Resident memory in KiB.
    fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

async fn join(secure: Endpoint, trust: Trust, via: Via, number: usize) -> Result<Connection> {
    let room = RoomName::parse(&format!("idle-{}", number / PEERS_A_ROOM))?;
    let mut connection = Connection::open(&secure, &room, via, &trust, &HeaderMap::new()).await?;
    connection.send(r#"{"type":"join","metadata":{"name":"idle"}}"#).await?;
    match connection.recv().await? {
        Event::Message(message) if message.contains(r#""type":"joined""#) => Ok(connection),
        other => Err(format!("not joined: {other:?}").into()),
    }
}

async fn measure(via: Via, sessions: usize) -> Result<f64> {
    let server = Server::start()?;
    let trust = server.trust().await?;
    // One of each kind first: what is allocated once must not count.
    drop(join(server.secure.clone(), trust.clone(), via, 0).await?);
    let before = server.memory()?;
    let mut open = Vec::with_capacity(sessions);
    for first in (0..sessions).step_by(AT_ONCE) {
        let batch = first..(first + AT_ONCE).min(sessions);
        let joining = batch.map(|number| tokio::spawn(join(server.secure.clone(), trust.clone(), via, number)));
        for joined in joining.collect::<Vec<_>>() {
            open.push(joined.await??);
        }
    }
    let after = server.memory()?;
    drop(open);
    Ok((after - before) as f64 / sessions as f64)
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut sessions = 2_000;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--sessions" => sessions = arguments.next().ok_or("--sessions needs a number")?.parse()?,
            "--bench" => {}
            other => {
                return Err(
                    format!("unknown argument {other}; usage: cargo bench --bench idle -- [--sessions N]").into()
                );
            }
        }
    }
    println!("server memory of an idle session, {sessions} sessions with a connection each, {PEERS_A_ROOM} to a room");
    for via in Via::ALL {
        let kib = measure(via, sessions).await?;
        println!("  {:<14} {kib:6.1} KiB", via.transport().name());
    }
    Ok(())
}
