//! A client that changes its network: another address, another port, both at once. QUIC carries the session along (RFC 9000, 9).

use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};
use tokio::time::interval;
use wigwag::client::webtransport::{Incoming, WebTransport, client_config};
use wigwag::client::{Http3, Via};

use super::conversation::Direction;
use super::network::{self, Link, PORT};
use super::process::ServerProcess;
use super::report;
use super::watcher::Watcher;
use crate::support::within;

/// How often each of the two says something.
const RATE: Duration = Duration::from_millis(50);
/// Messages between two changes.
const BETWEEN: usize = 20;

/// What changes, after the address that the link begins with.
#[derive(Debug, Clone, Copy)]
enum Change {
    Address(&'static str),
    Port,
    Both(&'static str),
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Change::Address(address) => write!(f, "address becomes {address}"),
            Change::Port => write!(f, "another port"),
            Change::Both(address) => write!(f, "{address} and another port"),
        }
    }
}

const CHANGES: [Change; 6] = [
    Change::Address("192.0.2.3"),
    Change::Port,
    Change::Both("192.0.2.4"),
    Change::Address("192.0.2.5"),
    Change::Address("192.0.2.6"),
    Change::Both("192.0.2.2"),
];

/// The one that moves: a WebTransport session whose socket can be changed, bound to no address.
struct Traveller {
    endpoint: quinn::Endpoint,
    session: WebTransport,
}

impl Traveller {
    async fn connect(server: &ServerProcess) -> Self {
        let mut endpoint = quinn::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()).expect("a socket");
        endpoint.set_default_client_config(client_config(&server.trust).expect("QUIC's cipher suites"));
        let address = format!("{}:{PORT}", Link::Hostile.server()).parse().expect("an address");
        let quic =
            within(endpoint.connect(address, Link::Hostile.server()).expect("a name")).await.expect("a connection");
        let http3 = Http3::over(quic, address.to_string()).await.expect("HTTP/3");
        let session = within(http3.webtransport("/v1/rooms/demo", &HeaderMap::new())).await.expect("a session");
        Traveller { endpoint, session }
    }

    async fn next(&mut self) -> Value {
        match within(self.session.recv()).await.expect("the session holds") {
            Incoming::Message(text) | Incoming::Datagram(text) => serde_json::from_slice(&text).expect("JSON"),
            closed => panic!("no message but {closed:?}"),
        }
    }

    async fn change(&self, change: Change) {
        if let Change::Address(address) | Change::Both(address) = change {
            network::change_address(address).await;
        }
        if let Change::Port | Change::Both(_) = change {
            let before = self.endpoint.local_addr().expect("bound").port();
            self.endpoint.rebind(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket")).expect("rebound");
            assert_ne!(self.endpoint.local_addr().expect("bound").port(), before);
        }
    }
}

/// The longest that a message took which was sent after `phase` changes and before the next.
fn longest(direction: &Direction, phase: usize) -> f64 {
    let of_phase = direction.latencies().iter().skip(phase * BETWEEN).take(BETWEEN);
    of_phase.max().expect("there are some").as_secs_f64() * 1e3
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs network namespaces: scripts/hostile"]
async fn a_webtransport_session_goes_on_when_its_client_changes_address_and_port() {
    report::scenario("A WebTransport client changes its address, its port, and both, without a resume");
    network::reset().await;
    let server = ServerProcess::start(&[]).await;
    let mut watcher = Watcher::join(server.connect(Link::Calm, Via::WebSocketH2, "demo").await, Via::WebSocketH2).await;
    let mut traveller = Traveller::connect(&server).await;
    traveller.session.send(r#"{"type":"join"}"#).await.expect("sent");
    assert_eq!(traveller.next().await["type"], "joined");
    assert_eq!(watcher.next().await.1["type"], "peerJoined");

    let (mut out, mut back) = (Direction::default(), Direction::default());
    let all = (CHANGES.len() + 1) * BETWEEN;
    let mut ticks = interval(RATE);
    while out.latencies().len() < all || back.latencies().len() < all {
        tokio::select! {
            _ = ticks.tick(), if out.sent() < all => {
                if out.sent() > 0 && out.sent().is_multiple_of(BETWEEN) {
                    let change = CHANGES[out.sent() / BETWEEN - 1];
                    report::progress(change);
                    traveller.change(change).await;
                }
                let message = |number: usize| json!({"type": "message", "id": number + 1, "data": number});
                let to_watcher = message(out.send()).to_string();
                within(traveller.session.send(&to_watcher)).await.expect("sent");
                watcher.say(message(back.send())).await;
            }
            message = traveller.next() => about(&message, &mut back),
            (_, message) = watcher.next() => about(&message, &mut out),
        }
    }

    // One connection, and one session that was joined and never resumed.
    let metrics = server.metrics().await;
    for counted in
        [r#"wigwag_connections_total{protocol="h3"} 1"#, r#"wigwag_sessions_total{transport="webtransport"} 1"#]
    {
        assert!(metrics.lines().any(|line| line == counted), "{counted} is not in: {metrics}");
    }
    report::line(format_args!("{:<30} {:>26} {:>26}", "", "longest to the other (ms)", "longest from the other (ms)"));
    for (phase, change) in std::iter::once(None).chain(CHANGES.iter().map(Some)).enumerate() {
        let what = change.map_or("before".to_owned(), Change::to_string);
        let (out, back) = (longest(&out, phase), longest(&back, phase));
        report::line(format_args!("{what:<30} {out:>26.1} {back:>26.1}"));
    }
    report::passed();
}

/// Takes in what one of the two hears; nothing may tell it of a transport that changed.
fn about(message: &Value, direction: &mut Direction) {
    match message["type"].as_str() {
        Some("message") => direction.hear(message["data"].as_u64().expect("a number") as usize),
        Some("ok" | "ping") => {}
        _ => panic!("nothing but messages is to be heard: {message}"),
    }
}
