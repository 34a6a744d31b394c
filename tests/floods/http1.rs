//! Requests of HTTP/1.1: heads without end, and more newcomers than any room has.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::flood;
use super::offender::{End, Target, pour};

#[test]
#[ignore = "run by scripts/floods"]
fn http1_header_bomb() {
    flood("HTTP/1.1 header bomb", 1, async |target: Target| {
        let stream = match target.tls("http/1.1").await {
            Ok(stream) => stream,
            Err(end) => return end,
        };
        let fields = b"a: b\r\n".repeat(256);
        pour(target, stream, b"GET / HTTP/1.1\r\nhost: localhost\r\n", || fields.clone()).await
    });
}

/// Reads answers to the end, and counts those that refuse.
async fn hear_refusals(target: &Target, read: &mut (impl AsyncRead + Unpin)) {
    const STATUS: &[u8] = b"HTTP/1.1 429 ";
    let mut heard = Vec::new();
    while read.read_buf(&mut heard).await.is_ok_and(|length| length > 0) {
        let refused = heard.windows(STATUS.len()).filter(|window| *window == STATUS).count();
        target.refused.fetch_add(refused as u64, Ordering::Relaxed);
        // The next one may have begun.
        heard.drain(..heard.len().saturating_sub(STATUS.len() - 1));
    }
}

#[test]
#[ignore = "run by scripts/floods"]
fn joins() {
    flood("joins", 4, async |target: Target| {
        let (mut read, mut write) = match target.tls("http/1.1").await {
            Ok(stream) => tokio::io::split(stream),
            Err(end) => return end,
        };
        let joining = async {
            for number in 0u64.. {
                let join = format!(
                    "POST /v1/rooms/flood-{number} HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\n\
                     prefer: wait=0\r\ncontent-type: application/x-ndjson\r\ncontent-length: 16\r\n\r\n{{\"type\":\"join\"}}\n"
                );
                if write.write_all(join.as_bytes()).await.is_err() {
                    return;
                }
                target.count(join.len());
            }
        };
        tokio::select! {
            () = joining => {}
            () = hear_refusals(&target, &mut read) => {}
        }
        End::Cut
    });
}
