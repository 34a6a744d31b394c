//! QUIC addresses that are not proven: a token is good for its address alone, and a forged address gets little.

use std::time::Duration;

use tokio::net::UdpSocket;
use wigwag::client::webtransport::client_config;

use crate::quic::{first_packet, is_retry};
use crate::support::{TestServer, config, within};

async fn socket(address: &str) -> UdpSocket {
    UdpSocket::bind((address, 0)).await.expect("a socket")
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, std::net::SocketAddr) {
    let mut packet = vec![0; 2000];
    let (length, from) = within(socket.recv_from(&mut packet)).await.expect("a packet");
    packet.truncate(length);
    (packet, from)
}

/// How a client ends whose first packet reaches the server from one address, and its second, with the token, from another.
async fn second_from(server: &TestServer, first: &UdpSocket, second: &UdpSocket) -> Option<quinn::ConnectionError> {
    let address = server.addresses.secure[0];
    let front = socket("127.0.0.1").await;
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let config = client_config(&server.trust).expect("QUIC's cipher suites");
    let connecting = endpoint.connect_with(config, front.local_addr().expect("bound"), "localhost").expect("a name");
    let relay = async {
        let (initial, client) = receive(&front).await;
        first.send_to(&initial, address).await.expect("sent");
        let (retry, _) = receive(first).await;
        assert!(is_retry(&retry), "the server asks for a proof");
        front.send_to(&retry, client).await.expect("sent");
        let (initial, _) = receive(&front).await;
        second.send_to(&initial, address).await.expect("sent");
        loop {
            tokio::select! {
                (packet, _) = receive(second) => front.send_to(&packet, client).await.expect("sent"),
                (packet, _) = receive(&front) => second.send_to(&packet, address).await.expect("sent"),
            };
        }
    };
    tokio::select! {
        connected = within(connecting) => connected.err(),
        () = relay => None,
    }
}

#[tokio::test]
async fn a_token_from_another_address_is_refused() {
    let mut config = config();
    config.connections.retry_above = 0;
    let server = TestServer::start_with(config).await;
    let own = socket("127.0.0.2").await;
    assert_eq!(second_from(&server, &own, &own).await, None, "from its own address it is good");
    let (own, others) = (socket("127.0.0.2").await, socket("127.0.0.3").await);
    let refused = second_from(&server, &own, &others).await;
    let Some(quinn::ConnectionError::ConnectionClosed(close)) = refused else { panic!("{refused:?}") };
    assert_eq!(close.error_code, quinn::TransportErrorCode::INVALID_TOKEN);
    server.stop().await;
}

/// Bytes that have come on a socket.
fn received(socket: &UdpSocket) -> (usize, usize) {
    let mut packet = [0; 2000];
    let lengths: Vec<usize> = std::iter::from_fn(|| socket.try_recv(&mut packet).ok()).collect();
    (lengths.len(), lengths.iter().sum())
}

#[tokio::test]
async fn an_address_not_proven_gets_three_times_what_it_sent_and_a_last_packet_at_most() {
    // Where a byte of the three times (RFC 9000, 8.1) is left, QUIC's library sends a whole packet.
    const LAST: usize = 1200;
    let mut config = config();
    // Long enough for the server to repeat what is not acknowledged.
    config.connections.handshake = Duration::from_secs(4);
    config.connections.connections = 1;
    let server = TestServer::start_with(config).await;
    let victim = socket("127.0.0.1").await;
    victim.connect(server.addresses.secure[0]).await.expect("an address");
    let initial = first_packet(&server.trust).await;
    victim.send(&initial).await.expect("sent");
    within(victim.readable()).await.expect("a socket");
    // Given back when the handshake is given up.
    drop(within(server.context.connections.acquire()).await.expect("a place"));
    server.stop().await;
    let (packets, bytes) = received(&victim);
    assert!(packets > 1, "it answers, and repeats");
    assert!(bytes < 3 * initial.len() + LAST, "{bytes} bytes for {}", initial.len());
}

#[tokio::test]
async fn what_belongs_to_no_connection_is_answered_by_no_more_than_it_was() {
    let server = TestServer::start().await;
    for length in [1, 20, 21, 50, 600, 1200, 1472] {
        for (kind, head) in [
            ("a short header", vec![0x40, 7, 7, 7, 7, 7, 7, 7, 7]),
            ("an unknown version", vec![0xc0, 0xa, 0xb, 0xc, 0xd, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0]),
            ("a first packet that is none", vec![0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0x00]),
        ] {
            let stranger = socket("127.0.0.1").await;
            stranger.connect(server.addresses.secure[0]).await.expect("an address");
            let mut packet = head;
            packet.resize(length, 7);
            stranger.send(&packet).await.expect("sent");
            // Packets are worked on in order; when this one is answered, the other has been.
            let other = socket("127.0.0.1").await;
            other.send_to(&first_packet(&server.trust).await, server.addresses.secure[0]).await.expect("sent");
            receive(&other).await;
            let (_, bytes) = received(&stranger);
            assert!(bytes <= length, "{kind}: {bytes} bytes for {length}");
        }
    }
    server.stop().await;
}
