//! QUIC: handshakes that are never finished, and streams, datagrams and headers without end.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};
use wigwag::client::webtransport::client_config;

use super::offender::{End, FROM, Target};
use super::{flood, flood_within};
use crate::quic::{first_packets, h3, is_retry};

/// How long one who is ignored goes on before coming back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Datagrams and streams between two looks at what has been sent.
const BATCH: usize = 64;

/// A connection that has said it speaks HTTP/3, its control stream, and the endpoint that must live as long.
async fn connect(target: &Target) -> Result<(quinn::Endpoint, quinn::Connection, quinn::SendStream), End> {
    let endpoint = quinn::Endpoint::client(SocketAddr::new(FROM, 0)).expect("a socket");
    let config = client_config(&target.trust).expect("QUIC's cipher suites");
    let connecting = endpoint.connect_with(config, target.address, "localhost").expect("a name");
    let connection = timeout(PATIENCE, connecting).await.map_err(|_| End::Refused)?.map_err(|_| End::Refused)?;
    let mut control = connection.open_uni().await.map_err(|_| End::Cut)?;
    control.write_all(&h3::control_stream()).await.map_err(|_| End::Cut)?;
    Ok((endpoint, connection, control))
}

/// What keeps a session open; a half that is dropped would end it.
type Streams = (quinn::SendStream, [(quinn::SendStream, quinn::RecvStream); 2]);

/// A connection with a session that has joined; what it hears is left unread.
async fn session(target: &Target, room: &str) -> Result<(quinn::Endpoint, quinn::Connection, Streams), End> {
    let (endpoint, connection, control) = connect(target).await?;
    let mut request = connection.open_bi().await.map_err(|_| End::Cut)?;
    request.0.write_all(&h3::connect(room)).await.map_err(|_| End::Cut)?;
    let mut lines = connection.open_bi().await.map_err(|_| End::Cut)?;
    let join = [h3::session_stream(0), b"{\"type\":\"join\"}\n".to_vec()].concat();
    lines.0.write_all(&join).await.map_err(|_| End::Cut)?;
    Ok((endpoint, connection, (control, [request, lines])))
}

/// What has really been sent since the last time.
struct Sent<'a> {
    target: &'a Target,
    connection: &'a quinn::Connection,
    before: u64,
}

impl<'a> Sent<'a> {
    fn of(target: &'a Target, connection: &'a quinn::Connection) -> Self {
        Sent { target, connection, before: 0 }
    }

    fn count(&mut self) {
        let now = self.connection.stats().udp_tx.bytes;
        self.target.count(usize::try_from(now - self.before).expect("a difference"));
        self.before = now;
    }
}

/// Begins handshakes as fast as it can, and hands on the first `packets` of each to the target: nobody goes on with the answer.
async fn begin_handshakes(target: Target, packets: usize) -> End {
    let endpoint = quinn::Endpoint::client(SocketAddr::new(FROM, 0)).expect("a socket");
    let config = client_config(&target.trust).expect("QUIC's cipher suites");
    let mut answer = vec![0; 2000];
    let forward = UdpSocket::bind((FROM, 0)).await.expect("a socket");
    loop {
        for packet in first_packets(&endpoint, &config, packets).await {
            if forward.send_to(&packet, target.address).await.is_ok() {
                target.count(packet.len());
            }
        }
        while let Ok(length) = forward.try_recv(&mut answer) {
            if is_retry(&answer[..length]) {
                target.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
#[ignore = "run by scripts/floods"]
fn quic_handshakes() {
    flood("QUIC handshakes never finished", 1, |target: Target| begin_handshakes(target, 1));
}

/// As many failed handshakes as may be left at once, the default of `--retry-above`, at three times the 128 KiB that each takes.
const MEMORY_OF_FAILED: u64 = 256 * 3 * 128 * 1024;

#[test]
#[ignore = "run by scripts/floods"]
fn quic_handshakes_closed() {
    flood_within("QUIC handshakes closed at once", 1, Some(MEMORY_OF_FAILED), |target: Target| {
        begin_handshakes(target, 2)
    });
}

#[test]
#[ignore = "run by scripts/floods"]
fn datagrams() {
    flood("datagrams", 1, async |target: Target| {
        let (_endpoint, connection, _streams) = match session(&target, "datagrams").await {
            Ok(session) => session,
            Err(end) => return end,
        };
        let datagram = Bytes::from([h3::varint(0), br#"{"type":"message","data":1}"#.to_vec()].concat());
        let mut sent = Sent::of(&target, &connection);
        loop {
            for _ in 0..BATCH {
                if connection.send_datagram_wait(datagram.clone()).await.is_err() {
                    return End::Cut;
                }
            }
            sent.count();
        }
    });
}

#[test]
#[ignore = "run by scripts/floods"]
fn streams() {
    flood("streams opened and reset", 1, async |target: Target| {
        let (_endpoint, connection, _streams) = match session(&target, "streams").await {
            Ok(session) => session,
            Err(end) => return end,
        };
        let begin = h3::session_stream(0);
        let mut sent = Sent::of(&target, &connection);
        loop {
            for _ in 0..BATCH {
                let Ok((mut stream, _)) = connection.open_bi().await else { return End::Cut };
                if stream.write_all(&begin).await.is_ok() {
                    let _ = stream.reset(0u32.into());
                }
            }
            sent.count();
        }
    });
}

/// A head of which a gigabyte is announced, and which is sent for as long as anybody takes it.
#[test]
#[ignore = "run by scripts/floods"]
fn quic_header_bomb() {
    flood("HTTP/3 header bomb", 1, async |target: Target| {
        let (_endpoint, connection, _control) = match connect(&target).await {
            Ok(connected) => connected,
            Err(end) => return end,
        };
        let begin = [h3::varint(0x01), h3::varint(1 << 30), vec![0, 0]].concat();
        // RFC 9204, 4.5.6: a literal field, `a: b`.
        let fields = [0x21, b'a', 0x01, b'b'].repeat(1024);
        let mut sent = Sent::of(&target, &connection);
        loop {
            let Ok((mut stream, _recv)) = connection.open_bi().await else { return End::Cut };
            let mut open = stream.write_all(&begin).await.is_ok();
            while open {
                open = stream.write_all(&fields).await.is_ok();
                sent.count();
            }
            if connection.close_reason().is_some() {
                return End::Cut;
            }
            // The stream alone was refused: with another one it begins anew.
            sleep(Duration::from_millis(1)).await;
        }
    });
}
