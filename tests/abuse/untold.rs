//! Whoever may not enter a room does not learn whether there is one.

use std::collections::BTreeSet;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wigwag::auth::Algorithm;
use wigwag::client::{Connection, Error, Event, Via};

use super::{connect_from, say};
use crate::limits::{Peer, next};
use crate::support::{TestServer, within};
use crate::tokens::Issuer;

/// Rooms that there are, in every state, and one that there is not. All of them have names of one length.
const ROOMS: [&str; 4] = ["q-open", "q-full", "q-lock", "q-none"];

fn bearer(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).expect("text"))])
}

/// Members of all rooms but the last.
async fn fill(issuer: &Issuer, server: &TestServer) -> Vec<Peer> {
    let token = issuer.token(&json!({"grants": ["join", "message", "moderate"], "limits": {"peers": 2}}));
    let mut members = Vec::new();
    for room in ["q-open", "q-full", "q-full", "q-lock"] {
        members.push(Peer::join_with(server, Via::WebSocketH1, room, &bearer(&token)).await);
    }
    let locked = &mut members[3];
    locked.send(&json!({"type": "lock", "id": 1, "locked": true})).await;
    assert_eq!(locked.answer(1).await["type"], "ok");
    // Whoever may enter is told.
    for (room, code) in [("q-full", "roomFull"), ("q-lock", "roomLocked")] {
        let mut connection = server.try_connect(Via::WebSocketH1, room, &bearer(&token)).await.expect("it opens");
        say(&mut connection, &json!({"type": "join"})).await;
        assert_eq!(next(&mut connection).await["code"], code);
    }
    members
}

/// All that a client hears until the end.
async fn heard(connection: &mut Connection) -> String {
    let mut all = String::new();
    loop {
        match within(connection.recv()).await {
            Ok(Event::Message(text) | Event::Datagram(text)) => all += &text,
            Ok(Event::Closed { code, reason }) => return format!("{all} {code:?} {reason}"),
            Err(error) => return format!("{all} {error}"),
        }
    }
}

#[tokio::test]
async fn first_messages_that_prove_nothing_are_answered_alike_in_every_room() {
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let server = issuer.server().await;
    let members = fill(&issuer, &server).await;
    let elsewhere = issuer.token(&json!({"room": ["other"]}));
    let stranger = Issuer::generate(Algorithm::EdDsa).token(&json!({}));
    // The ticket of a member, shown in another room: it must not tell that its own is another.
    let ticket = members[0].ticket.clone();
    let forged = format!("{}{}", &ticket[..ticket.len() - 8], "AAAAAAAA");
    let firsts = [
        json!({"type": "join"}),
        json!({"type": "join", "token": "nonsense"}),
        json!({"type": "join", "token": elsewhere}),
        json!({"type": "join", "token": stranger}),
        json!({"type": "resume", "ticket": forged, "seq": 0}),
        json!({"type": "resume", "ticket": forged, "seq": 0, "token": elsewhere}),
        json!({"type": "resume", "ticket": "nonsense", "seq": 0}),
        json!({"type": "message", "data": 1}),
    ];
    for via in Via::ALL {
        for first in &firsts {
            let mut answers = BTreeSet::new();
            for room in ROOMS {
                let mut connection = server.connect(via, room).await;
                let answer = match connection.send(&first.to_string()).await {
                    Ok(()) => heard(&mut connection).await,
                    Err(Error::Refused(response)) => String::from_utf8_lossy(response.body()).into_owned(),
                    Err(error) => panic!("{via:?}: {error}"),
                };
                answers.insert(answer.replace(room, "room"));
            }
            assert_eq!(answers.len(), 1, "{via:?}, {}: {answers:#?}", first["type"]);
            let answer = answers.first().expect("one");
            assert!(!answer.contains("roomFull") && !answer.contains("roomLocked"), "{answer}");
        }
    }
}

#[tokio::test]
async fn requests_that_prove_nothing_are_answered_alike_in_every_room() {
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let server = issuer.server().await;
    let members = fill(&issuer, &server).await;
    let ticket = &members[0].ticket;
    let forged = format!("{}{}", &ticket[..ticket.len() - 8], "AAAAAAAA");
    let bodies = "content-type: application/x-ndjson\r\naccept: application/x-ndjson\r\nprefer: wait=0\r\n";
    for (request, fields, body) in [
        ("GET /v1/rooms/{room}", String::new(), ""),
        ("HEAD /v1/rooms/{room}", String::new(), ""),
        ("DELETE /v1/rooms/{room}", String::new(), ""),
        ("GET /v1/rooms/{room}/", String::new(), ""),
        ("GET /v1/rooms/{room}/log", String::new(), ""),
        ("GET /v1/rooms/{room}/log", format!("wigwag-ticket: {forged}\r\n"), ""),
        ("POST /v1/rooms/{room}/messages", bodies.to_owned(), "{}"),
        ("POST /v1/rooms/{room}/messages", format!("{bodies}wigwag-ticket: {forged}\r\n"), "{}"),
        ("POST /v1/rooms/{room}", bodies.to_owned(), r#"{"type":"join"}"#),
        ("POST /v1/rooms/{room}", format!("{bodies}authorization: Bearer nonsense\r\n"), r#"{"type":"join"}"#),
        ("POST /v1/rooms/{room}", bodies.to_owned(), ""),
    ] {
        let mut answers = BTreeSet::new();
        for room in ROOMS {
            let path = request.replace("{room}", room);
            let length = body.len();
            let common = format!("host: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n");
            let text = format!("{path} HTTP/1.1\r\n{common}{fields}\r\n{body}");
            let mut stream = connect_from("127.0.0.1", server.addresses.plain[0]).await;
            stream.write_all(text.as_bytes()).await.expect("open");
            let mut answer = String::new();
            within(stream.read_to_string(&mut answer)).await.expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
            let lines = answer.lines().filter(|line| !line.starts_with("date:") && !line.starts_with("server-timing:"));
            answers.insert(lines.collect::<Vec<_>>().join("\n").replace(room, "room"));
        }
        assert_eq!(answers.len(), 1, "{request}: {answers:#?}");
    }
}

#[tokio::test]
async fn openings_that_prove_nothing_are_refused_alike_in_every_room() {
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let server = issuer.server().await;
    let _members = fill(&issuer, &server).await;
    let elsewhere = issuer.token(&json!({"room": ["other"]}));
    for via in [Via::WebTransport, Via::WebSocketH3, Via::WebSocketH2, Via::WebSocketH1] {
        for headers in [bearer("nonsense"), bearer(&elsewhere), origin("https://evil.example")] {
            let mut answers = BTreeSet::new();
            for room in ROOMS {
                let Err(Error::Refused(response)) = server.try_connect(via, room, &headers).await else {
                    panic!("{via:?} was let in");
                };
                let problem: Value = serde_json::from_slice(response.body()).expect("problem+json");
                answers.insert(format!("{} {problem}", response.status()));
            }
            assert_eq!(answers.len(), 1, "{via:?}: {answers:#?}");
        }
    }
}

fn origin(origin: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("origin"), HeaderValue::from_static(origin))])
}
