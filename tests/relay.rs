//! A network that the test has in its hands: between clients and a server, over TCP and UDP, in this process.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wigwag::client::{Endpoint, Via};

use crate::support::TestServer;

/// What happens to what is on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It arrives.
    Open,
    /// It disappears without a word.
    Swallow,
    /// New connections are reset at once. Of UDP the same as `Swallow`.
    Refuse,
}

/// Both ways to one server, and a discovery that names them.
pub(crate) struct Network {
    /// Where the discovery is asked.
    pub(crate) discovery: Endpoint,
    /// Where UDP goes in.
    pub(crate) quic: Endpoint,
    tcp: watch::Sender<Mode>,
    udp: watch::Sender<Mode>,
    /// Counts cuts: connections of an earlier count end.
    cuts: watch::Sender<u64>,
    /// What servers have said over TCP, for those who speak in plain text.
    overheard: Arc<Mutex<Vec<u8>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Network {
    /// To the encrypted listener.
    pub(crate) async fn to(server: &TestServer) -> Self {
        Self::between(server, &server.secure()).await
    }

    /// To the plaintext listener, where TCP can be overheard.
    pub(crate) async fn in_plain_text(server: &TestServer) -> Self {
        Self::between(server, &server.plain()).await
    }

    async fn between(server: &TestServer, tcp_target: &Endpoint) -> Self {
        let (tcp, tcp_mode) = watch::channel(Mode::Open);
        let (udp, udp_mode) = watch::channel(Mode::Open);
        let (cuts, cut) = watch::channel(0);
        let overheard = Arc::new(Mutex::new(Vec::new()));
        let tcp_listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let udp_socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let document = document(server, tcp_target, &tcp_listener, &udp_socket);
        let (discovery, answers) = discovery(document).await;
        let port = udp_socket.local_addr().expect("bound").port();
        let quic = Endpoint { encrypted: true, host: "127.0.0.1".into(), port };
        let target = SocketAddr::from(([127, 0, 0, 1], tcp_target.port));
        let tasks = vec![
            answers,
            tokio::spawn(relay_udp(Arc::new(udp_socket), server.addresses.secure[0], udp_mode)),
            tokio::spawn(relay_tcp(tcp_listener, target, tcp_mode, cut, Arc::clone(&overheard))),
        ];
        Network { discovery, quic, tcp, udp, cuts, overheard, tasks }
    }

    pub(crate) fn tcp(&self, mode: Mode) {
        self.tcp.send_replace(mode);
    }

    pub(crate) fn udp(&self, mode: Mode) {
        self.udp.send_replace(mode);
    }

    /// Ends every TCP connection that is there.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Everything that the server has said over TCP.
    pub(crate) fn overheard(&self) -> String {
        String::from_utf8_lossy(&self.overheard.lock()).into_owned()
    }

    /// Takes away what that transport stands on, the way it fails in the wild: TCP by an end, UDP by silence.
    pub(crate) fn kill(&self, via: Via) {
        if matches!(via, Via::WebTransport | Via::WebSocketH3 | Via::EventStreamH3 | Via::LongPollH3) {
            self.udp(Mode::Swallow);
        } else {
            self.tcp(Mode::Refuse);
            self.cut();
        }
    }

    /// Everything arrives again.
    pub(crate) fn heal(&self) {
        self.tcp(Mode::Open);
        self.udp(Mode::Open);
    }
}

/// A place where that discovery is answered, for as long as the task runs.
pub(crate) async fn discovery(document: Value) -> (Endpoint, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let endpoint = Endpoint { encrypted: false, host: "127.0.0.1".into(), port };
    (endpoint, tokio::spawn(answer_discoveries(listener, document)))
}

fn document(server: &TestServer, tcp_target: &Endpoint, tcp: &TcpListener, udp: &UdpSocket) -> Value {
    use base64::Engine as _;
    let tcp = tcp.local_addr().expect("bound");
    let udp = udp.local_addr().expect("bound");
    let (http, ws) = if tcp_target.encrypted { ("https", "wss") } else { ("http", "ws") };
    let hashes = server.trust.hashes.iter().map(|hash| base64::engine::general_purpose::STANDARD.encode(hash));
    let hashes: Vec<_> = hashes.map(|value| json!({"algorithm": "sha-256", "value": value})).collect();
    json!({"protocol": "wigwag.v1", "transports": [
        {"type": "webtransport", "url": format!("https://{udp}/v1/rooms/{{room}}"), "certificateHashes": hashes},
        {"type": "websocket", "url": format!("{ws}://{tcp}/v1/rooms/{{room}}")},
        {"type": "event-stream", "url": format!("{http}://{tcp}/v1/rooms/{{room}}")},
        {"type": "long-poll", "url": format!("{http}://{tcp}/v1/rooms/{{room}}")},
    ]})
}

async fn answer_discoveries(listener: TcpListener, document: Value) {
    let body = document.to_string();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    while let Ok((mut client, _)) = listener.accept().await {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && client.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
        // A client that is gone asks again.
        let _ = client.write_all(answer.as_bytes()).await;
        let _ = client.shutdown().await;
    }
}

async fn relay_tcp(
    listener: TcpListener,
    target: SocketAddr,
    mode: watch::Receiver<Mode>,
    cut: watch::Receiver<u64>,
    overheard: Arc<Mutex<Vec<u8>>>,
) {
    while let Ok((client, _)) = listener.accept().await {
        if *mode.borrow() == Mode::Refuse {
            continue;
        }
        let Ok(server) = TcpStream::connect(target).await else { continue };
        let (client_reads, client_writes) = client.into_split();
        let (server_reads, server_writes) = server.into_split();
        let (mut cut, up, down) = (cut.clone(), mode.clone(), mode.clone());
        cut.mark_unchanged();
        let overheard = Arc::clone(&overheard);
        tokio::spawn(async move {
            // Whichever ends first ends the other: its halves are dropped with it.
            tokio::select! {
                () = copy(client_reads, server_writes, up, |_| {}) => {}
                () = copy(server_reads, client_writes, down, |bytes| overheard.lock().extend_from_slice(bytes)) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mode: watch::Receiver<Mode>,
    mut note: impl FnMut(&[u8]),
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        note(&buffer[..read]);
        let swallow = *mode.borrow() == Mode::Swallow;
        if !swallow && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn relay_udp(socket: Arc<UdpSocket>, target: SocketAddr, mode: watch::Receiver<Mode>) {
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok((read, client)) = socket.recv_from(&mut buffer).await else { continue };
        if *mode.borrow() != Mode::Open {
            continue;
        }
        let server = match clients.get(&client) {
            Some(server) => Arc::clone(server),
            None => {
                let server = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
                server.connect(target).await.expect("an address");
                tokio::spawn(relay_back(Arc::clone(&server), Arc::clone(&socket), client, mode.clone()));
                clients.insert(client, Arc::clone(&server));
                server
            }
        };
        let _ = server.send(&buffer[..read]).await;
    }
}

async fn relay_back(server: Arc<UdpSocket>, socket: Arc<UdpSocket>, client: SocketAddr, mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = server.recv(&mut buffer).await {
        if *mode.borrow() == Mode::Open {
            let _ = socket.send_to(&buffer[..read], client).await;
        }
        // The test is over when the network is gone.
        if mode.has_changed().is_err() {
            return;
        }
    }
}
