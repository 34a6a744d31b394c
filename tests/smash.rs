//! One running server, six honest pairs, one over each transport, and beside them connections that are valid up to some point
//! and then are not: TLS records, heads of HTTP/1.1, frames of HTTP/2, HTTP/3 and WebSocket, QUIC packets, streams, capsules
//! and datagrams of WebTransport, messages and bodies. All chance comes from one seed, which a failure prints;
//! `WIGWAG_SMASH_SEED` repeats it, as far as the network's timing does.
//!
//! What must hold: no honest message is lost or late by more than a test may take, no task of the server panics, and of the
//! others nothing is left: no connection, no session, no seat, no room.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use wigwag::client::Via;
use wigwag::client::webtransport::client_config;

use crate::hostile::process::gauges;
use crate::limits::Peer;
use crate::quic::h3;
use crate::support::{TestServer, config, within};

/// Connections of each kind, in as many rounds; an honest message goes both ways in each pair and round.
const ROUNDS: usize = 30;

/// Datagrams of each round that should be QUIC.
const PACKETS: usize = 20;

/// Bytes that do not make the server say anything for so long may well be the beginning of something; its end then comes.
const SILENCE: Duration = Duration::from_millis(100);

/// Chance, and valid bytes to begin with.
struct Smasher {
    random: fastrand::Rng,
    requests: Vec<Vec<u8>>,
    frames: Vec<Vec<u8>>,
    client_hello: Vec<u8>,
    initial: Vec<u8>,
}

/// All that fuzzing found for one decoder.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(directory).expect("a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

impl Smasher {
    async fn new(server: &TestServer, seed: u64) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut hello = rustls::ClientConnection::new(Arc::new(server.trust.tls.clone()), name).expect("TLS");
        let mut client_hello = Vec::new();
        hello.write_tls(&mut client_hello).expect("memory takes all");
        // The first byte of these says how to cut the rest.
        let frames = corpus("websocket").iter().filter_map(|input| Some(input.split_first()?.1.to_vec())).collect();
        Smasher {
            random: fastrand::Rng::with_seed(seed),
            requests: corpus("request"),
            frames,
            client_hello,
            initial: initial(server).await,
        }
    }

    fn one_of(&mut self, seeds: fn(&Self) -> &[Vec<u8>]) -> Vec<u8> {
        let at = self.random.usize(..seeds(self).len());
        seeds(self)[at].clone()
    }

    /// A few changes, each of a kind that decoders trip over. Now and then none.
    fn spoil(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let random = &mut self.random;
        for _ in 0..random.usize(..5) {
            let at = random.usize(..=bytes.len());
            let end = random.usize(at..=bytes.len().min(at + 16));
            match random.u8(..6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
                1 if at < bytes.len() => bytes[at] = *random.choice(&[0, 0x7f, 0x80, 0xff]).expect("one of them"),
                2 => drop(bytes.drain(at..end)),
                3 => bytes.splice(at..at, bytes[at..end].to_vec()).for_each(drop),
                4 => bytes.splice(at..at, (0..random.usize(..16)).map(|_| random.u8(..))).for_each(drop),
                5 => bytes.truncate(at),
                _ => {}
            }
        }
        bytes
    }

    /// One message as a WebSocket frame, spoiled before it was framed or afterwards.
    fn message(&mut self) -> Vec<u8> {
        let request = self.one_of(|smasher| &smasher.requests);
        match self.random.bool() {
            true => masked(&self.spoil(request)),
            false => self.spoil(masked(&request)),
        }
    }

    /// HTTP/1.1, from the head to frames behind it.
    fn http1(&mut self) -> Vec<u8> {
        let upgrade = "GET /v1/rooms/smash HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-protocol: wigwag.v1\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let join = masked(br#"{"type":"join"}"#);
        let [frame, message] = [self.one_of(|smasher| &smasher.frames), self.message()];
        match self.random.u8(..3) {
            0 => self.spoil([upgrade.as_bytes(), &join].concat()),
            1 => [upgrade.as_bytes(), &join, &self.spoil(frame)].concat(),
            _ => [upgrade.as_bytes(), &join, &message, &self.message()].concat(),
        }
    }

    /// A POST whose body has the length that it says, or not.
    fn post(&mut self) -> Vec<u8> {
        let lines = [br#"{"type":"join"}"#.to_vec(), self.one_of(|smasher| &smasher.requests)];
        let body = self.spoil(lines.join(&b'\n'));
        let length = body.len() + usize::from(self.random.u8(..8) == 0);
        let accept = *self.random.choice(&["text/event-stream", "application/x-ndjson"]).expect("one of them");
        let head = format!(
            "POST /v1/rooms/smash HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\naccept: {accept}\r\n\
             prefer: wait=0\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        [head.into_bytes(), body].concat()
    }

    /// HTTP/2 from its preface on: SETTINGS, an extended CONNECT, a WebSocket on it.
    fn http2(&mut self) -> Vec<u8> {
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", "/v1/rooms/smash"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "wigwag.v1"),
        ];
        // Literal fields that are never indexed (RFC 7541, 6.2.3), of names and values below 127 bytes.
        let text = |text: &str| [vec![text.len() as u8], text.as_bytes().to_vec()].concat();
        let head: Vec<u8> =
            fields.iter().flat_map(|(name, value)| [vec![0x10], text(name), text(value)].concat()).collect();
        let data = [masked(br#"{"type":"join"}"#), self.message()].concat();
        let frames = [http2_frame(4, 0, 0, &[]), http2_frame(1, 4, 1, &head), http2_frame(0, 0, 1, &data)];
        let [settings, headers, data] = frames;
        let ping = http2_frame(6, 0, 0, &[7; 8]);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        match self.random.bool() {
            true => self.spoil([preface, settings, headers, data, ping].concat()),
            false => {
                let data = self.spoil(data);
                [preface, settings, headers, data, ping].concat()
            }
        }
    }

    /// What a QUIC connection opens: the control stream, requests, streams of sessions, and datagrams.
    fn http3(&mut self) -> Http3 {
        let request = self.one_of(|smasher| &smasher.requests);
        let capsule = [h3::varint(0x2843), h3::varint(7), b"\0\0\0\0bye".to_vec()].concat();
        let capsule = if self.random.bool() { self.spoil(capsule) } else { Vec::new() };
        let connect = [h3::connect("smash"), h3::frame(0, &capsule)].concat();
        let stream =
            [h3::session_stream(0), b"{\"type\":\"join\"}\n".to_vec(), request.clone(), b"\n".to_vec()].concat();
        let control = h3::control_stream();
        let spoiled = self.random.u8(..5);
        let mut spoil = |which: u8, bytes: Vec<u8>| if which == spoiled { self.spoil(bytes) } else { bytes };
        Http3 {
            control: spoil(0, control),
            bidi: vec![spoil(1, connect), spoil(2, stream), spoil(3, h3::get("/v1/discovery"))],
            datagram: spoil(4, [h3::varint(0), request].concat()),
        }
    }
}

struct Http3 {
    control: Vec<u8>,
    bidi: Vec<Vec<u8>>,
    datagram: Vec<u8>,
}

/// A client's text frame, masked with zeros (RFC 6455, 5.2).
fn masked(payload: &[u8]) -> Vec<u8> {
    let length = match u8::try_from(payload.len()) {
        Ok(short @ 0..=125) => vec![0x80 | short],
        _ => [&[0x80 | 126][..], &(payload.len() as u16).to_be_bytes()].concat(),
    };
    [&[0x81][..], &length, &[0; 4], payload].concat()
}

/// RFC 9113, 4.1.
fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The first datagram of a QUIC client.
async fn initial(server: &TestServer) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let config = client_config(&server.trust).expect("QUIC's cipher suites");
    let address = socket.local_addr().expect("bound");
    let connecting = endpoint.connect_with(config, address, "localhost").expect("a name");
    let mut datagram = vec![0; 2048];
    let (length, _) = within(socket.recv_from(&mut datagram)).await.expect("a datagram");
    drop(connecting);
    datagram.truncate(length);
    datagram
}

/// Says all of it, and listens until the server has said its last. What it says is its own affair, but for a session that has
/// begun: the end of the stream comes behind that, or when the server keeps silent.
async fn say(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) {
    let mut heard = Vec::new();
    if stream.write_all(bytes).await.is_ok() {
        while !heard.windows(8).any(|part| part == b"\"joined\"") {
            match timeout(SILENCE, stream.read_buf(&mut heard)).await {
                Ok(Ok(1..)) => {}
                _ => break,
            }
        }
        if stream.shutdown().await.is_ok() {
            let _ = within(stream.read_to_end(&mut heard)).await;
        }
    }
}

async fn smash_tcp(server: &TestServer, is_secure: bool, bytes: &[u8]) {
    let address = if is_secure { server.addresses.secure[0] } else { server.addresses.plain[0] };
    say(&mut within(TcpStream::connect(address)).await.expect("a connection"), bytes).await;
}

async fn smash_tls(server: &TestServer, alpn: &[u8], bytes: &[u8]) {
    let mut config = server.trust.tls.clone();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = within(TcpStream::connect(server.addresses.secure[0])).await.expect("a connection");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    say(&mut within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await.expect("TLS"), bytes).await;
}

/// Opens all streams at once and waits until each has its answer, or the connection its end.
async fn smash_quic(server: &TestServer, bytes: Http3) {
    let quic = server.raw_quic().await;
    let Ok(mut control) = quic.open_uni().await else { return };
    let _ = control.write_all(&bytes.control).await;
    let mut answers = Vec::new();
    for stream in &bytes.bidi {
        let Ok((mut send, recv)) = quic.open_bi().await else { return };
        let _ = send.write_all(stream).await;
        answers.push((send, recv));
    }
    let _ = quic.send_datagram(bytes.datagram.into());
    // The last is a plain request, and is answered or refused, however the others go.
    if let Some((send, recv)) = answers.last_mut() {
        let _ = send.finish();
        let _ = within(recv.read_to_end(64 * 1024)).await;
    }
    quic.close(0u8.into(), b"");
    quic.closed().await;
}

/// Two peers who talk throughout.
struct Pair(Peer, Peer);

impl Pair {
    async fn meet(server: &TestServer, via: Via) -> Self {
        let room = format!("honest.{}", via.transport().name());
        let first = Peer::join(server, via, &room).await;
        Pair(first, Peer::join(server, via, &room).await)
    }

    /// A numbered message there and back.
    async fn talk(&mut self, round: usize) {
        let Pair(one, two) = self;
        Self::tell(one, two, round).await;
        Self::tell(two, one, round).await;
    }

    async fn tell(from: &mut Peer, to: &mut Peer, round: usize) {
        from.send(&json!({"type": "message", "to": to.id, "data": round})).await;
        assert_eq!(to.hear("message").await["data"], round, "each message once and in order");
    }
}

/// Panics of this thread, on which the server runs.
fn count_panics() -> Arc<AtomicUsize> {
    let (counted, thread) = (Arc::new(AtomicUsize::new(0)), std::thread::current().id());
    let (count, earlier) = (Arc::clone(&counted), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() == thread {
            count.fetch_add(1, Ordering::Relaxed);
        }
        earlier(panic);
    }));
    counted
}

/// What is open, but for connections that a poller makes as it needs them.
fn open(server: &TestServer) -> (BTreeMap<String, f64>, usize) {
    let mut gauges = gauges(&server.context.metrics.encode().expect("text"));
    gauges.retain(|series, _| !series.contains("protocol=\"http/1.1\"") && !series.contains("long-poll"));
    (gauges, server.context.hub.room_count())
}

/// That others than the honest pair came as far as a session: bytes that are refused at the door test nothing behind it.
fn assert_deep(server: &TestServer) {
    let metrics = server.context.metrics.encode().expect("text");
    for via in [Via::WebTransport, Via::WebSocketH2, Via::WebSocketH1, Via::EventStreamH2, Via::LongPollH1] {
        let series = format!("wigwag_sessions_total{{transport=\"{}\"}} ", via.transport().name());
        let sessions = metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u32>().ok());
        assert!(sessions.is_some_and(|sessions| sessions > 2), "{series}{sessions:?}");
    }
}

#[tokio::test]
async fn whatever_is_thrown_at_it_the_server_serves_those_who_are_honest() {
    let seed = std::env::var("WIGWAG_SMASH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("WIGWAG_SMASH_SEED={seed}");
    let panics = count_panics();
    let mut config = config();
    // What is half said is given up soon, and seats of those who are gone.
    config.resume_window = Duration::from_millis(200);
    config.connections.handshake = Duration::from_millis(500);
    config.connections.request_head = Duration::from_millis(500);
    config.connections.close = Duration::from_millis(200);
    config.limits.first_message_ms = 500;
    // A poller is expected for two of these.
    config.heartbeat = Duration::from_secs(3);
    // The honest talk until all others are gone, as fast as they can.
    config.limits.messages_per_second = 100_000;
    config.limits.burst = 100_000;
    let server = TestServer::start_with(config).await;
    let mut smasher = Smasher::new(&server, seed).await;
    let mut pairs = join_all(Via::ALL.map(|via| Pair::meet(&server, via))).await;
    let before = open(&server);
    let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    for round in 0..ROUNDS {
        let [hello, http1, post, http2] =
            [smasher.spoil(smasher.client_hello.clone()), smasher.http1(), smasher.post(), smasher.http2()];
        let (secure_http1, http3) = (smasher.http1(), smasher.http3());
        for _ in 0..PACKETS {
            let packet = smasher.spoil(smasher.initial.clone());
            let _ = udp.send_to(&packet, server.addresses.secure[0]).await;
        }
        tokio::join!(
            smash_tcp(&server, true, &hello),
            smash_tcp(&server, false, &http1),
            smash_tcp(&server, false, &post),
            smash_tls(&server, b"h2", &http2),
            smash_tls(&server, b"http/1.1", &secure_http1),
            smash_quic(&server, http3),
            join_all(pairs.iter_mut().map(|pair| pair.talk(round))),
        );
    }
    assert_deep(&server);
    let gone = async {
        let mut round = ROUNDS;
        while open(&server) != before {
            join_all(pairs.iter_mut().map(|pair| pair.talk(round))).await;
            round += 1;
        }
    };
    let gone = timeout(Duration::from_secs(30), gone).await;
    assert!(gone.is_ok(), "left behind: {:?}, and there was {before:?}", open(&server));
    assert_eq!(panics.load(Ordering::Relaxed), 0, "a task of the server panicked");
    server.stop().await;
}
