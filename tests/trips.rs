//! How often a client waits for the server until it has `joined`: in round trips, which neither noise nor a slow machine changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue, StatusCode};
use wigwag::client::{Connection, Endpoint, Error, Event, Http2, Http3, Trust, Via};
use wigwag::protocol::RoomName;

use crate::support::{TestServer, authority, within};
use network::{Network, Way};
use verifier::Counting;

mod network;
mod verifier;

const PATH: &str = "/v1/rooms/trips";
const JOIN: &str = r#"{"type":"join"}"#;

/// A server behind a [`Network`].
struct Far {
    server: TestServer,
    network: Network,
    trust: Trust,
    /// Certificates that the client has verified.
    verified: Arc<AtomicUsize>,
}

impl Far {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let network = Network::to(server.addresses.secure[0]).await;
        let mut trust = Trust::new(authority(&server.ca), vec![]).expect("TLS 1.3");
        let verified = Arc::new(AtomicUsize::new(0));
        trust.tls.dangerous().set_certificate_verifier(Counting::new(authority(&server.ca), &verified));
        Far { server, network, trust, verified }
    }

    fn endpoint(&self, via: Via) -> Endpoint {
        let address = if is_quic(via) { self.network.udp } else { self.network.tcp };
        Endpoint { encrypted: true, host: "127.0.0.1".into(), port: address.port() }
    }

    /// Ways since there were `before`; two make a round trip.
    fn since(&self, before: usize) -> Took {
        let ways = self.network.ways().split_off(before);
        Took { ways, verified: self.verified.load(Ordering::Relaxed) }
    }

    async fn silence(&self) -> usize {
        within(self.network.silence()).await;
        self.network.ways().len()
    }

    async fn stop(self) {
        drop(self.network);
        self.server.stop().await;
    }
}

fn is_quic(via: Via) -> bool {
    matches!(via, Via::WebTransport | Via::WebSocketH3 | Via::EventStreamH3 | Via::LongPollH3)
}

/// What has happened on the network.
#[derive(Debug)]
struct Took {
    ways: Vec<Way>,
    /// Certificates that the client has ever verified.
    verified: usize,
}

impl Took {
    fn trips(&self) -> usize {
        assert!(self.ways.len().is_multiple_of(2), "what was waited for came down: {:?}", self.ways);
        self.ways.len() / 2
    }

    fn down(&self) -> usize {
        self.ways.iter().map(|way| way.down).sum()
    }

    /// The bytes that came down; QUIC's are padding for the most part (RFC 9000, 14.1).
    fn text(&self, via: Via) -> String {
        if is_quic(via) { self.trips().to_string() } else { format!("{} ({} B)", self.trips(), self.down()) }
    }
}

/// Opens a transport and joins.
async fn join(far: &Far, via: Via, waits: bool) -> Took {
    let before = far.silence().await;
    let room = RoomName::parse("trips").expect("a name");
    let (endpoint, headers) = (far.endpoint(via), HeaderMap::new());
    let mut connection = within(async {
        if waits {
            Connection::open(&endpoint, &room, via, &far.trust, &headers).await
        } else {
            Connection::begin(&endpoint, &room, via, &far.trust, &headers).await
        }
    })
    .await
    .expect("the transport opens");
    within(connection.send(JOIN)).await.expect("it takes a message");
    let event = within(connection.recv()).await.expect("an answer");
    let took = far.since(before);
    assert!(matches!(&event, Event::Message(text) if text.contains(r#""type":"joined""#)), "{event:?}");
    took
}

/// A client that comes for the first time; one that `waits` for the answer to its CONNECT before it says anything is what browsers
/// are.
async fn cold(via: Via, waits: bool) -> Took {
    let far = Far::start().await;
    let took = join(&far, via, waits).await;
    far.stop().await;
    took
}

/// One that has been there before and has a ticket of TLS.
async fn resumed(via: Via) -> Took {
    let far = Far::start().await;
    join(&far, via, false).await;
    let took = join(&far, via, false).await;
    assert_eq!(took.verified, 1, "the certificate and its signature came once ({})", via.name());
    far.stop().await;
    took
}

/// One that has a connection open already.
async fn open(via: Via) -> Took {
    let far = Far::start().await;
    let endpoint = far.endpoint(via);
    let took = match via {
        Via::WebTransport => {
            let http3 = within(Http3::connect(&endpoint, &far.trust)).await.expect("a connection");
            let before = far.silence().await;
            let mut session = within(http3.begin_webtransport(PATH, &HeaderMap::new())).await.expect("a session");
            within(session.send(JOIN)).await.expect("it takes a message");
            within(session.recv()).await.expect("an answer");
            far.since(before)
        }
        _ => {
            let http2 = within(Http2::connect(&endpoint, &far.trust.tls)).await.expect("a connection");
            let before = far.silence().await;
            let mut socket = within(http2.begin_websocket(PATH, &HeaderMap::new())).await.expect("a WebSocket");
            within(socket.send(JOIN)).await.expect("it takes a message");
            within(socket.recv()).await.expect("an answer");
            far.since(before)
        }
    };
    far.stop().await;
    took
}

/// Round trips from nothing to `joined`: cold, with a ticket of TLS, cold for a client that waits for the answer to its request before
/// it says `join`, and on a connection that is open.
type Trips = [Option<usize>; 4];

const EXPECTED: [(Via, Trips); 10] = [
    (Via::WebTransport, [Some(2), Some(2), Some(3), Some(1)]),
    (Via::WebSocketH3, [Some(2), Some(2), Some(3), None]),
    (Via::WebSocketH2, [Some(3), Some(3), Some(4), Some(1)]),
    (Via::WebSocketH1, [Some(4), Some(4), Some(4), None]),
    (Via::EventStreamH3, [Some(2), Some(2), None, None]),
    (Via::EventStreamH2, [Some(3), Some(3), None, None]),
    (Via::EventStreamH1, [Some(3), Some(3), None, None]),
    (Via::LongPollH3, [Some(2), Some(2), None, None]),
    (Via::LongPollH2, [Some(3), Some(3), None, None]),
    (Via::LongPollH1, [Some(3), Some(3), None, None]),
];

/// What was measured of a transport, side by side: each has a server and a network of its own.
async fn row(via: Via, waits: bool, is_open: bool) -> (Via, [Option<Took>; 4]) {
    let (first, again) = (tokio::spawn(cold(via, false)), tokio::spawn(resumed(via)));
    let waits = waits.then(|| tokio::spawn(cold(via, true)));
    let is_open = is_open.then(|| tokio::spawn(open(via)));
    let mut cells = [const { None }; 4];
    for (cell, measuring) in cells.iter_mut().zip([Some(first), Some(again), waits, is_open]) {
        if let Some(measuring) = measuring {
            *cell = Some(measuring.await.expect("no panic"));
        }
    }
    (via, cells)
}

/// With `--nocapture` it prints the table of docs/performance.md.
#[tokio::test]
async fn every_transport_joins_in_as_few_round_trips_as_it_can() {
    let rows = EXPECTED.map(|(via, [_, _, waits, is_open])| row(via, waits.is_some(), is_open.is_some()));
    let rows = futures_util::future::join_all(rows).await;
    println!("| transport | first time (bytes down) | TLS resumed | waits for the answer | on an open connection |");
    println!("|---|---|---|---|---|");
    let mut measured = Vec::new();
    for (via, cells) in &rows {
        let text = |cell: &Option<Took>| cell.as_ref().map_or_else(|| "–".to_owned(), |took| took.text(*via));
        let [cold, resumed, waits, open] = cells.each_ref().map(text);
        println!("| `{}` | {cold} | {resumed} | {waits} | {open} |", via.name());
        measured.push((*via, cells.each_ref().map(|took| took.as_ref().map(Took::trips))));
    }
    assert_eq!(measured, EXPECTED, "{rows:#?}");
}

#[tokio::test]
async fn what_is_said_with_a_request_that_is_refused_has_no_effect() {
    let server = TestServer::start().await;
    let room = RoomName::parse("closed").expect("a name");
    let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("https://elsewhere.example"))]);
    for via in [Via::WebTransport, Via::WebSocketH3, Via::WebSocketH2] {
        let endpoint = server.secure();
        let begin = Connection::begin(&endpoint, &room, via, &server.trust, &headers);
        let mut connection = within(begin).await.expect("it can be asked for");
        within(connection.send(JOIN)).await.expect("it takes a message");
        match within(connection.recv()).await {
            Err(Error::Refused(answer)) => assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{via:?}"),
            other => panic!("{via:?}: {other:?}"),
        }
    }
    assert_eq!(server.context.hub.room_count(), 0, "nobody has joined");
    // Nor has it done any harm to the connection.
    let http2 = within(Http2::connect(&server.secure(), &server.trust.tls)).await.expect("a connection");
    let mut refused = within(http2.begin_websocket(PATH, &headers)).await.expect("it can be asked for");
    within(refused.send(JOIN)).await.expect("it takes a message");
    assert!(within(refused.recv()).await.is_err());
    let mut socket = within(http2.websocket(PATH, &HeaderMap::new())).await.expect("another one opens");
    within(socket.send(JOIN)).await.expect("it takes a message");
    assert!(within(socket.recv()).await.is_ok());
    server.stop().await;
}
