//! What a download costs the signaling that shares its connection.
//!
//! `cargo bench --bench download` starts the release server in a process of its own with `--web` on a directory that holds a file,
//! and joins one session whose connection carries the download too. A peer on another connection sends it numbered messages. On
//! the way to the session lies a relay that lets through 100 Mbit/s and holds 256 KiB, as a router would: over loopback alone
//! there is no bottleneck in which anything could wait.

use std::collections::VecDeque;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as Port};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use wigwag::client::websocket::{self, WebSocket};
use wigwag::client::webtransport::{self, WebTransport};
use wigwag::client::{Connection, Download, Endpoint, Event, Http1, Http2, Http3, Trust, Via};
use wigwag::protocol::RoomName;

/// The file.
const FILE_BYTES: usize = 50 * 1024 * 1024;
/// Between two messages: 200 a second.
const EVERY: Duration = Duration::from_millis(5);
/// How many are sent without a download.
const MESSAGES: usize = 1000;
/// What the relay lets through in a second: 100 Mbit.
const BYTES_A_SECOND: f64 = 12_500_000.0;
/// What the relay holds; more TCP keeps to itself, and of QUIC it is lost.
const RELAY_BYTES: usize = 256 * 1024;

/// How much of its time a relay that woke late may make good.
const SLACK: Duration = Duration::from_millis(5);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The server under measurement; ends with its guard.
struct Server {
    process: Child,
    dir: PathBuf,
    port: u16,
}

impl Server {
    fn start() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("wigwag-download-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("web"))?;
        std::fs::write(dir.join("web/large"), vec![7; FILE_BYTES])?;
        let port = Port::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let process = Command::new(env!("CARGO_BIN_EXE_wigwag"))
            .args(["serve", "--plain", "off", "--admin", "off", "--log", "warn"])
            .args(["--listen", &format!("127.0.0.1:{port}"), "--rate", "1000", "--certs-dir"])
            .arg(dir.join("certs"))
            .arg("--web")
            .arg(dir.join("web"))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Server { process, dir, port })
    }

    fn at(port: u16) -> Endpoint {
        Endpoint { encrypted: true, host: "127.0.0.1".into(), port }
    }

    /// What to trust, once the server answers.
    async fn trust(&self) -> Result<Trust> {
        loop {
            let mut roots = RootCertStore::empty();
            if let Ok(ca) = CertificateDer::from_pem_file(self.dir.join("certs/ca.pem")) {
                roots.add(ca)?;
            }
            let trust = Trust::new(roots, Vec::new())?;
            if let Ok(mut connection) = Http1::connect(&Self::at(self.port), &trust.tls).await {
                let discovery = connection.request(Method::GET, "/v1/discovery", &HeaderMap::new()).await?;
                let document = serde_json::from_slice(discovery.body())?;
                return Ok(Trust { hashes: wigwag::client::certificate_hashes(&document), ..trust });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// When the line is free again after each thing that was put on it.
struct Line(Mutex<Instant>);

impl Line {
    fn new() -> Arc<Self> {
        Arc::new(Line(Mutex::new(Instant::now())))
    }

    /// The moment at which so many bytes are through.
    async fn through(&self, bytes: usize) -> Instant {
        let mut free = self.0.lock().await;
        // A timer wakes late; what it missed is made good.
        let earliest = Instant::now() - SLACK;
        *free = (*free).max(earliest) + Duration::from_secs_f64(bytes as f64 / BYTES_A_SECOND);
        *free
    }
}

/// Relays one TCP connection to `to`; towards the client at the line's speed. Returns its port.
async fn relay_tcp(to: u16) -> Result<(u16, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let relay = async move {
        let (mut client, _) = listener.accept().await?;
        let socket = tokio::net::TcpSocket::new_v4()?;
        // The kernel doubles it.
        socket.set_recv_buffer_size((RELAY_BYTES / 2) as u32)?;
        let mut server = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, to))).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let down = async {
            let (line, mut buffer) = (Line::new(), vec![0; 4096]);
            loop {
                let read = from_server.read(&mut buffer).await?;
                if read == 0 {
                    return std::io::Result::Ok(());
                }
                sleep_until(line.through(read).await.into()).await;
                to_client.write_all(&buffer[..read]).await?;
            }
        };
        tokio::select! {
            end = down => end,
            end = tokio::io::copy(&mut from_client, &mut to_server) => end.map(drop),
        }
    };
    Ok((port, tokio::spawn(async move { drop(relay.await) })))
}

/// Relays the packets of one client to `to`; back to it at the line's speed, and what does not fit the buffer is lost.
async fn relay_udp(to: u16) -> Result<(u16, JoinHandle<()>)> {
    let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    far.connect((Ipv4Addr::LOCALHOST, to)).await?;
    let port = near.local_addr()?.port();
    let relay = async move {
        let line = Line::new();
        let mut queue: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        let (mut client, mut held) = (None, 0);
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            let due = queue.front().map(|(at, _)| *at);
            tokio::select! {
                read = near.recv_from(&mut up) => {
                    let (length, from) = read?;
                    client = Some(from);
                    // Lost where the server is gone.
                    let _ = far.send(&up[..length]).await;
                }
                read = far.recv(&mut down) => {
                    let length = read?;
                    if held + length <= RELAY_BYTES {
                        held += length;
                        queue.push_back((line.through(length).await, down[..length].to_vec()));
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    while queue.front().is_some_and(|(at, _)| *at <= Instant::now()) {
                        let (_, packet) = queue.pop_front().expect("looked at");
                        held -= packet.len();
                        if let Some(client) = client {
                            near.send_to(&packet, client).await?;
                        }
                    }
                }
            }
        }
        #[allow(unreachable_code, reason = "tells the type of the error")]
        std::io::Result::Ok(())
    };
    Ok((port, tokio::spawn(async move { drop(relay.await) })))
}

/// The session under measurement, and the connection that it shares.
enum Client {
    Http2(Http2, Box<WebSocket>),
    Http3(Http3, Box<WebTransport>),
}

impl Client {
    async fn join(&mut self) -> Result<()> {
        let join = r#"{"type":"join"}"#;
        match self {
            Client::Http2(_, socket) => socket.send(join).await?,
            Client::Http3(_, session) => session.send(join).await?,
        }
        self.recv().await.map(drop)
    }

    async fn recv(&mut self) -> Result<String> {
        let text = match self {
            Client::Http2(_, socket) => match socket.recv().await? {
                websocket::Incoming::Message(text) => text,
                closed => return Err(format!("{closed:?}").into()),
            },
            Client::Http3(_, session) => match session.recv().await? {
                webtransport::Incoming::Message(text) => text,
                other => return Err(format!("{other:?}").into()),
            },
        };
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    async fn download(&self) -> Result<Download> {
        let none = HeaderMap::new();
        Ok(match self {
            Client::Http2(connection, _) => connection.download("/large", &none).await?.into_body(),
            Client::Http3(connection, _) => connection.download("/large", &none).await?.into_body(),
        })
    }
}

/// Sends numbered messages until it is stopped; each says when it was sent.
fn send_messages(mut peer: Connection, begin: Instant) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for id in 1u64.. {
            loop {
                tokio::select! {
                    _ = ticks.tick() => break,
                    heard = peer.recv() => match heard {
                        Ok(Event::Message(text)) if text.contains(r#""type":"error""#) => return eprintln!("refused: {text}"),
                        Ok(Event::Message(_)) => {}
                        _ => return,
                    },
                }
            }
            let sent = begin.elapsed().as_micros();
            let message = format!(r#"{{"type":"message","id":{id},"data":{{"sent":{sent}}}}}"#);
            if peer.send(&message).await.is_err() {
                return;
            }
        }
    })
}

/// The time of a message on its way, if it is one of ours.
fn latency(text: &str, begin: Instant) -> Option<Duration> {
    let message: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(begin.elapsed().saturating_sub(Duration::from_micros(message["data"]["sent"].as_u64()?)))
}

fn report(label: &str, mut latencies: Vec<Duration>, took: Option<Duration>) {
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let took = took.map_or(String::new(), |took| format!("{:8.2} s", took.as_secs_f64()));
    println!("  {label:<34} {:>6} {:8.2} ms {:8.2} ms {:8.2} ms {took}", latencies.len(), at(0.5), at(0.99), at(1.0));
}

async fn measure(server: &Server, trust: &Trust, name: &str, is_http3: bool) -> Result<()> {
    let room = RoomName::parse("download")?;
    let path = "/v1/rooms/download";
    let none = HeaderMap::new();
    let (port, relay) = if is_http3 { relay_udp(server.port).await? } else { relay_tcp(server.port).await? };
    let mut client = if is_http3 {
        let connection = Http3::connect(&Server::at(port), trust).await?;
        let session = connection.webtransport(path, &none).await?;
        Client::Http3(connection, Box::new(session))
    } else {
        let connection = Http2::connect(&Server::at(port), &trust.tls).await?;
        let socket = connection.websocket(path, &none).await?;
        Client::Http2(connection, Box::new(socket))
    };
    client.join().await?;
    let mut peer = Connection::open(&Server::at(server.port), &room, Via::WebSocketH1, trust, &none).await?;
    peer.send(r#"{"type":"join"}"#).await?;
    peer.recv().await?;

    let begin = Instant::now();
    let sending = send_messages(peer, begin);
    let mut alone = Vec::new();
    while alone.len() < MESSAGES {
        alone.extend(latency(&client.recv().await?, begin));
    }
    report(&format!("{name}, alone"), alone, None);

    let started = Instant::now();
    let mut download = client.download().await?;
    let reading = tokio::spawn(async move {
        let mut bytes = 0;
        while let Some(part) = download.chunk().await? {
            bytes += part.len();
        }
        Result::Ok((bytes, started.elapsed()))
    });
    let mut beside = Vec::new();
    while !reading.is_finished() {
        beside.extend(latency(&client.recv().await?, begin));
    }
    let (bytes, took) = reading.await??;
    if bytes != FILE_BYTES {
        return Err(format!("{bytes} bytes came instead of {FILE_BYTES}").into());
    }
    report(&format!("{name}, beside the download"), beside, Some(took));
    sending.abort();
    relay.abort();
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = Server::start()?;
    let trust = server.trust().await?;
    println!(
        "time of messages, 200 a second, over 100 Mbit/s, without and with a download of 50 MiB on the same connection"
    );
    println!("  {:<34} {:>6} {:>11} {:>11} {:>11} {:>10}", "", "", "median", "p99", "max", "download");
    measure(&server, &trust, "HTTP/2, WebSocket", false).await?;
    measure(&server, &trust, "HTTP/3, WebTransport", true).await
}
