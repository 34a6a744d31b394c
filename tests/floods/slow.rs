//! Hundreds of connections that begin something and never end it, a byte a second (slowloris).

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::sleep;

use super::flood;
use super::offender::{End, Target, hear_out};
use crate::tcp::{masked, upgrade_request};

/// Connections at once.
const MANY: usize = 400;

const PACE: Duration = Duration::from_secs(1);

/// Writes `start`, and then a byte a second until the other side ends it.
async fn drip(target: Target, stream: impl AsyncRead + AsyncWrite, start: &[u8]) -> End {
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = async {
        let mut bytes = start;
        while write.write_all(bytes).await.is_ok() && write.flush().await.is_ok() {
            target.count(bytes.len());
            bytes = b" ";
            sleep(PACE).await;
        }
    };
    tokio::select! {
        () = writing => {}
        () = hear_out(&mut read) => {}
    }
    End::Cut
}

#[test]
#[ignore = "run by scripts/floods"]
fn slow_tls() {
    flood("slow TLS handshakes", MANY, async |target: Target| match target.tcp().await {
        // A handshake record of 512 bytes (RFC 8446, 5.1) with a ClientHello that never comes.
        Ok(stream) => drip(target, stream, &[22, 3, 1, 2, 0, 1]).await,
        Err(end) => end,
    });
}

#[test]
#[ignore = "run by scripts/floods"]
fn slow_headers() {
    flood("slow request heads", MANY, async |target: Target| match target.tls("http/1.1").await {
        Ok(stream) => drip(target, stream, b"GET / HTTP/1.1\r\nhost:").await,
        Err(end) => end,
    });
}

#[test]
#[ignore = "run by scripts/floods"]
fn slow_websocket_frames() {
    flood("slow WebSocket frames", MANY, async |target: Target| match target.tls("http/1.1").await {
        Ok(stream) => {
            let join = masked(0x81, br#"{"type":"join"}"#);
            // The head of a frame of 125 bytes.
            // Each in a room of its own: a full one would let the others in as far as its door.
            let room = format!("slow-{}", fastrand::u64(..));
            let start = [upgrade_request(&room), join, vec![0x81, 0x80 | 125, 0, 0, 0, 0]].concat();
            drip(target, stream, &start).await
        }
        Err(end) => end,
    });
}
