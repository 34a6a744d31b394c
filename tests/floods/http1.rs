//! Requests of HTTP/1.1: heads without end, and more newcomers than any room has.

use super::flood;
use super::offender::{Target, pour};

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

#[test]
#[ignore = "run by scripts/floods"]
fn joins() {
    flood("joins", 4, async |target: Target| {
        let stream = match target.tls("http/1.1").await {
            Ok(stream) => stream,
            Err(end) => return end,
        };
        let mut number = 0u64;
        let next = || {
            number += 1;
            format!(
                "POST /v1/rooms/flood-{number} HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\nprefer: wait=0\r\n\
                 content-type: application/x-ndjson\r\ncontent-length: 16\r\n\r\n{{\"type\":\"join\"}}\n"
            )
            .into_bytes()
        };
        pour(target, stream, b"", next).await
    });
}
