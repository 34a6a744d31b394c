//! What one client address may ask of the server, who is believed about addresses, and what a connection may send that says
//! nothing: the offender is told or cut off, and the honest beside it notice nothing.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use wigwag::client::{Connection, Error, Via};
use wigwag::clients::{Limits, Quota};
use wigwag::config::Config;

use crate::limits::{Peer, next};
use crate::support::{TestServer, config, within};

mod addresses;
mod budgets;
#[cfg(unix)]
mod descriptors;
mod proxies;
mod retry;
mod untold;

/// So many, and no more for as long as a test could last.
fn quota(amount: u64) -> Quota {
    Quota { amount, per: Duration::from_secs(24 * 3600) }
}

/// Nobody is exempt.
fn limited(change: impl FnOnce(&mut Limits)) -> Config {
    let mut config = config();
    config.clients.exempt.clear();
    change(&mut config.clients.limits);
    config
}

/// The same behind a proxy at any loopback address, so that a test's clients may have any address by its header.
fn behind_proxy(change: impl FnOnce(&mut Limits)) -> Config {
    let mut config = limited(change);
    config.clients.trusted = vec!["127.0.0.0/8".parse().expect("a network")];
    config
}

/// What the proxy says of a client.
fn forwarded_for(address: &str) -> HeaderMap {
    let name = HeaderName::from_static("x-forwarded-for");
    HeaderMap::from_iter([(name, HeaderValue::from_str(address).expect("text"))])
}

/// The client at an address joins a room.
async fn join(server: &TestServer, via: Via, room: &str, address: &str) -> Peer {
    Peer::join_with(server, via, room, &forwarded_for(address)).await
}

/// How the client at an address is refused: by status before its transport opens, or as the answer to its POST.
async fn refused(server: &TestServer, via: Via, room: &str, address: &str, first: &Value) -> Value {
    match server.try_connect(via, room, &forwarded_for(address)).await {
        Err(Error::Refused(response)) => {
            let problem: Value = serde_json::from_slice(response.body()).expect("problem+json");
            assert_eq!(problem["status"], response.status().as_u16());
            // Of an answer over HTTP/3 without its library the client keeps no headers.
            let told = via == Via::WebSocketH3 || response.headers().contains_key("retry-after");
            assert!(told || problem["retryAfterMs"].is_null(), "{via:?}: {problem}");
            problem
        }
        Err(error) => panic!("{via:?}: {error}"),
        Ok(mut connection) => {
            assert!(via.is_event_stream() || via.is_long_poll(), "{via:?} was let in");
            say(&mut connection, first).await;
            let closed = next(&mut connection).await;
            assert_eq!(closed["type"], "closed", "{via:?}: {closed}");
            closed
        }
    }
}

async fn say(connection: &mut Connection, message: &Value) {
    connection.send(&message.to_string()).await.expect("open");
}

/// Two peers talk, whatever somebody else does.
async fn talk(one: &mut Peer, two: &mut Peer) {
    let number = fastrand::u32(..);
    one.send(&json!({"type": "message", "to": two.id, "data": number})).await;
    let heard = loop {
        let message = two.hear("message").await;
        if message["from"] == one.id {
            break message;
        }
    };
    assert_eq!(heard["data"], number);
}

/// A TCP connection from an address of this machine.
async fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(from.parse().expect("an address"), 0)).expect("a loopback address");
    within(socket.connect(to)).await.expect("it listens")
}

/// The answer to a request on a connection; `None` if it is closed instead.
async fn ask(stream: &mut TcpStream, request: &str) -> Option<String> {
    // A server that closes may do so before all is written.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    within(async {
        while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            match stream.read_buf(&mut answer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
        Some(String::from_utf8_lossy(&answer).into_owned())
    })
    .await
}

const DISCOVERY: &str = "GET /v1/discovery HTTP/1.1\r\nhost: localhost\r\n\r\n";

fn is_counted(server: &TestServer, reason: &str) -> bool {
    let metrics = server.context.metrics.encode().expect("text");
    metrics.lines().any(|line| line.starts_with(&format!("wigwag_refusals_total{{reason=\"{reason}\"}} ")))
}
