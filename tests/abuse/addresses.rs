//! Limits of one client address.

use std::time::{Duration, Instant};

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use wigwag::auth::Algorithm;
use wigwag::client::webtransport::client_config;
use wigwag::client::{Error, Http1, Http2, Http3, Via};

use super::{DISCOVERY, ask, behind_proxy, connect_from, is_counted, join, limited, quota, refused, say, talk};
use crate::http::Client;
use crate::limits::{Peer, close_code, next};
use crate::quic::half_open_from;
use crate::support::{TestServer, within};
use crate::tokens::Issuer;

const LASTING: [Via; 4] = [Via::WebTransport, Via::WebSocketH3, Via::WebSocketH2, Via::WebSocketH1];

fn join_line() -> Value {
    json!({"type": "join"})
}

fn is_rate_limited(refusal: &Value) {
    assert_eq!((&refusal["code"], &refusal["closeCode"]), (&json!("rateLimited"), &json!(4010)), "{refusal}");
    assert!(refusal["retryAfterMs"].as_u64().is_some_and(|wait| wait > 0), "{refusal}");
    assert!(refusal["status"].is_null() || refusal["status"] == 429, "{refusal}");
}

#[tokio::test]
async fn an_address_opens_so_many_sessions_and_others_come_in() {
    let server = TestServer::start_with(behind_proxy(|limits| limits.joins = quota(2))).await;
    for (number, via) in Via::ALL.into_iter().enumerate() {
        let room = format!("joins.{}", via.transport().name());
        let offender = format!("192.0.2.{number}");
        let mut first = join(&server, via, &room, &offender).await;
        let mut second = join(&server, via, &room, &offender).await;
        is_rate_limited(&refused(&server, via, &room, &offender, &join_line()).await);
        talk(&mut first, &mut second).await;
        let mut honest = join(&server, via, &room, &format!("198.51.100.{number}")).await;
        talk(&mut honest, &mut first).await;
    }
    assert!(is_counted(&server, "address-joins"));
}

/// What a refusal for asking too much takes at least.
const REFUSAL: Duration = Duration::from_millis(100);

/// Otherwise one connection could ask, and be refused, as often as the server can answer. It is open when the clock starts: a
/// handshake may take as long.
#[tokio::test]
async fn who_is_refused_for_asking_too_much_waits_for_the_answer() {
    let server = TestServer::start_with(behind_proxy(|limits| limits.joins = quota(1))).await;
    let (secure, path, headers) = (server.secure(), "/v1/rooms/demo", super::forwarded_for("192.0.2.1"));
    let _first = join(&server, Via::WebSocketH1, "demo", "192.0.2.1").await;
    let is_held_back = |asked: Instant, answer: Option<Error>| {
        let took = asked.elapsed();
        let Some(Error::Refused(response)) = answer else { panic!("{answer:?}") };
        assert_eq!(response.status(), 429);
        assert!(took >= REFUSAL, "after {took:?}");
    };
    let http1 = within(Http1::connect(&secure, &server.trust.tls)).await.expect("HTTP/1.1");
    let asked = Instant::now();
    is_held_back(asked, within(http1.websocket(path, &headers)).await.err());
    let http2 = within(Http2::connect(&secure, &server.trust.tls)).await.expect("HTTP/2");
    let asked = Instant::now();
    is_held_back(asked, within(http2.websocket(path, &headers)).await.err());
    let http3 = within(Http3::connect(&secure, &server.trust)).await.expect("HTTP/3");
    let asked = Instant::now();
    is_held_back(asked, within(http3.webtransport(path, &headers)).await.err());
}

#[tokio::test]
async fn who_is_refused_a_stream_or_a_poll_waits_for_the_answer() {
    let server = TestServer::start_with(behind_proxy(|limits| limits.joins = quota(1))).await;
    let _first = join(&server, Via::WebSocketH1, "demo", "192.0.2.1").await;
    let line = format!("{}\n", join_line());
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let fields = [
            (CONTENT_TYPE, "application/x-ndjson"),
            (ACCEPT, accept),
            (HeaderName::from_static("x-forwarded-for"), "192.0.2.1"),
        ];
        for mut client in Client::all(&server).await {
            let asked = Instant::now();
            let answer = client.ask(Method::POST, "/v1/rooms/demo", &fields, &line).await;
            let took = asked.elapsed();
            assert_eq!(answer.status(), 429, "{accept} over {}", client.name());
            assert!(took >= REFUSAL, "{accept} over {}: after {took:?}", client.name());
        }
    }
}

#[tokio::test]
async fn an_ipv6_client_is_its_64() {
    let server = TestServer::start_with(behind_proxy(|limits| limits.joins = quota(1))).await;
    let via = Via::WebSocketH1;
    let _first = join(&server, via, "demo", "2001:db8:1:2::1").await;
    is_rate_limited(&refused(&server, via, "demo", "2001:db8:1:2:ffff::2", &join_line()).await);
    let _neighbour = join(&server, via, "demo", "2001:db8:1:3::1").await;
}

#[tokio::test]
async fn an_address_has_so_many_sessions_at_once() {
    let server = TestServer::start_with(behind_proxy(|limits| limits.sessions = 2)).await;
    for (number, via) in LASTING.into_iter().enumerate() {
        let room = format!("sessions.{}", via.transport().name());
        let offender = format!("192.0.2.{number}");
        let mut first = join(&server, via, &room, &offender).await;
        let mut second = join(&server, via, &room, &offender).await;
        is_rate_limited(&refused(&server, via, &room, &offender, &join_line()).await);
        let _honest = join(&server, via, &room, &format!("198.51.100.{number}")).await;
        // Who has left makes room, as soon as its transport is closed on both sides.
        second.send(&json!({"type": "leave"})).await;
        close_code(&mut second.connection).await;
        first.hear("peerLeft").await;
    }
    assert!(is_counted(&server, "address-sessions"));
}

#[tokio::test]
async fn whoever_shows_too_many_bad_tickets_is_not_asked_for_more() {
    let server = TestServer::start_with(behind_proxy(|limits| limits.failures = quota(3))).await;
    let ticket = Peer::join(&server, Via::WebSocketH1, "elsewhere").await.ticket;
    let resume = json!({"type": "resume", "ticket": ticket, "seq": 0});
    for (number, via) in Via::ALL.into_iter().enumerate() {
        let offender = format!("192.0.2.{number}");
        for _ in 0..3 {
            let headers = super::forwarded_for(&offender);
            let mut connection = server.try_connect(via, "demo", &headers).await.expect("the transport opens");
            say(&mut connection, &resume).await;
            assert_eq!(next(&mut connection).await["code"], "resumeExpired", "{via:?}");
        }
        is_rate_limited(&refused(&server, via, "demo", &offender, &resume).await);
        let _honest = join(&server, via, "demo", &format!("198.51.100.{number}")).await;
    }
    let mut stream = connect_from("127.0.0.1", server.addresses.plain[0]).await;
    let post = "POST /v1/rooms/demo/messages HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 203.0.113.1\r\n\
                content-type: application/x-ndjson\r\nwigwag-ticket: nonsense\r\ncontent-length: 0\r\n\r\n";
    for status in [401, 401, 401, 429] {
        let answer = ask(&mut stream, post).await.expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert!(is_counted(&server, "address-failures"));
}

#[tokio::test]
async fn bad_tokens_count_wherever_they_are_shown() {
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let mut config = behind_proxy(|limits| limits.failures = quota(2));
    config.tokens = Some(issuer.policy());
    let server = TestServer::start_with(config).await;
    let with_token = |address: &str, token: &str| {
        let mut headers = super::forwarded_for(address);
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).expect("text"));
        headers
    };
    for status in [401, 401, 429] {
        let opened = server.try_connect(Via::WebSocketH2, "demo", &with_token("192.0.2.1", "nonsense")).await;
        let Err(Error::Refused(response)) = opened else { panic!("let in") };
        assert_eq!(response.status(), status);
    }
    let bad_join = json!({"type": "join", "token": "nonsense"});
    for _ in 0..2 {
        let opened = server.try_connect(Via::WebTransport, "demo", &super::forwarded_for("192.0.2.2")).await;
        let mut connection = opened.expect("the transport opens");
        say(&mut connection, &bad_join).await;
        assert_eq!(next(&mut connection).await["code"], "unauthorized");
    }
    is_rate_limited(&refused(&server, Via::WebTransport, "demo", "192.0.2.2", &bad_join).await);
    let good = issuer.token(&json!({}));
    let mut session = Peer::join_with(&server, Via::WebSocketH1, "demo", &with_token("192.0.2.3", &good)).await;
    for (id, code) in [(1, "unauthorized"), (2, "unauthorized"), (3, "rateLimited")] {
        session.send(&json!({"type": "token", "id": id, "token": "nonsense"})).await;
        assert_eq!(session.answer(id).await["code"], code);
    }
}

#[tokio::test]
async fn all_sessions_of_an_address_share_its_messages() {
    let server = TestServer::start_with(behind_proxy(|limits| limits.messages = quota(20))).await;
    for (number, via) in LASTING.into_iter().enumerate() {
        let room = format!("messages.{}", via.transport().name());
        let (offender, honest) = (format!("192.0.2.{number}"), format!("198.51.100.{number}"));
        let mut pair = (
            join(&server, Via::WebSocketH2, &room, &honest).await,
            join(&server, Via::WebSocketH1, &room, &honest).await,
        );
        let mut offenders = [join(&server, via, &room, &offender).await, join(&server, via, &room, &offender).await];
        for id in 1..=11 {
            for offender in &mut offenders {
                offender.send(&json!({"type": "metadata", "id": id, "metadata": {}})).await;
                let answer = offender.answer(id).await;
                assert_eq!(answer["type"], if id <= 10 { "ok" } else { "error" }, "{via:?}: {answer}");
                if id > 10 {
                    assert_eq!(answer["code"], "rateLimited");
                    assert!(answer["retryAfterMs"].as_u64().is_some_and(|wait| wait > 0), "{answer}");
                }
            }
        }
        talk(&mut pair.0, &mut pair.1).await;
        talk(&mut pair.1, &mut pair.0).await;
        let [mut one, _] = offenders;
        one.send(&json!({"type": "ping", "id": 99})).await;
        assert_eq!(one.hear("pong").await["id"], 99, "what is no message is answered");
    }
    assert!(is_counted(&server, "address-messages"));
}

#[tokio::test]
async fn whoever_goes_on_above_the_bytes_of_its_address_is_closed() {
    let mut config = behind_proxy(|limits| limits.bytes = quota(100_000));
    (config.limits.burst, config.limits.messages_per_second) = (20, 1);
    let server = TestServer::start_with(config).await;
    for (number, via) in LASTING.into_iter().enumerate() {
        let room = format!("bytes.{}", via.transport().name());
        let honest = format!("198.51.100.{number}");
        let mut pair = (
            join(&server, Via::WebSocketH2, &room, &honest).await,
            join(&server, Via::WebSocketH1, &room, &honest).await,
        );
        let mut offender = join(&server, via, &room, &format!("192.0.2.{number}")).await;
        let large = json!({"type": "message", "to": pair.0.id, "data": "x".repeat(60_000)});
        let closed = loop {
            // A client that is closed in the middle of it may find its transport gone.
            let _ = offender.connection.send(&large.to_string()).await;
            let _ = offender.connection.send(r#"{"type":"ping"}"#).await;
            let message = next(&mut offender.connection).await;
            if message["type"] == "closed" {
                break message;
            }
        };
        is_rate_limited(&closed);
        assert_eq!(close_code(&mut offender.connection).await, Some(4010), "{via:?}");
        talk(&mut pair.0, &mut pair.1).await;
    }
    assert!(is_counted(&server, "address-bytes"));
}

#[tokio::test]
async fn an_address_has_so_many_tcp_connections() {
    for change in [(|limits| limits.connections = quota(2)) as fn(&mut wigwag::clients::Limits), |limits| {
        limits.open_connections = 2
    }] {
        let server = TestServer::start_with(limited(change)).await;
        for (number, address) in [server.addresses.plain[0], server.addresses.secure[0]].into_iter().enumerate() {
            let offender = format!("127.0.0.{}", 2 + number);
            let mut kept = [connect_from(&offender, address).await, connect_from(&offender, address).await];
            let mut third = connect_from(&offender, address).await;
            assert_eq!(ask(&mut third, DISCOVERY).await, None, "closed unanswered");
            let mut honest = connect_from("127.0.0.1", address).await;
            for stream in kept.iter_mut().chain([&mut honest]) {
                assert!(ask(stream, DISCOVERY).await.is_some());
            }
            drop(kept);
        }
        server.stop().await;
    }
}

/// A QUIC endpoint at an address of this machine.
fn endpoint(server: &TestServer, from: &str) -> quinn::Endpoint {
    let mut endpoint = quinn::Endpoint::client(format!("{from}:0").parse().expect("an address")).expect("a socket");
    endpoint.set_default_client_config(client_config(&server.trust).expect("QUIC's cipher suites"));
    endpoint
}

#[tokio::test]
async fn an_address_opens_so_many_quic_connections_and_forged_ones_do_not_count() {
    let server = TestServer::start_with(limited(|limits| limits.connections = quota(2))).await;
    let address = server.addresses.secure[0];
    // First packets that seem to come from there, and no more than that.
    for _ in 0..5 {
        half_open_from(&server, "127.0.0.7").await;
    }
    let offender = endpoint(&server, "127.0.0.7");
    let mut kept = Vec::new();
    for _ in 0..2 {
        let connection = within(offender.connect(address, "localhost").expect("a name")).await.expect("a connection");
        let http3 = Http3::over(connection, "localhost".into()).await.expect("HTTP/3");
        kept.push(within(http3.webtransport("/v1/rooms/demo", &http::HeaderMap::new())).await.expect("a session"));
    }
    let refused = within(offender.connect(address, "localhost").expect("a name")).await;
    let Err(quinn::ConnectionError::ConnectionClosed(close)) = refused else { panic!("{refused:?}") };
    assert_eq!(close.error_code, quinn::TransportErrorCode::CONNECTION_REFUSED);
    let honest = endpoint(&server, "127.0.0.1");
    within(honest.connect(address, "localhost").expect("a name")).await.expect("a connection");
    assert!(is_counted(&server, "address-connections"));
}

#[tokio::test]
async fn two_thousand_clients_of_this_machine_are_not_limited() {
    let server = TestServer::start().await;
    let limits = &server.context.config.clients.limits;
    let client = server.context.client([127, 0, 0, 1].into(), &http::HeaderMap::new()).expect("no header");
    let places: Vec<_> = (0..=limits.sessions).map_while(|_| client.session().ok()).collect();
    assert_eq!(places.len(), limits.sessions as usize + 1);
    assert!((0..=limits.joins.amount).all(|_| client.join().is_ok()));
}
