//! The wire against a client that is written out byte by byte.

use std::future::poll_fn;

use futures_util::Stream as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const FRAME_BYTES: usize = 1000;

/// A wire, and the client's end of the stream with so much room in it.
fn open(room: usize) -> (WebSocketWire<DuplexStream>, DuplexStream) {
    let (server, client) = duplex(room);
    (WebSocketWire::new(server, FRAME_BYTES, Tally::default()), client)
}

/// A client's frame of up to 65,535 bytes, masked with zeros, which leave the payload as it is.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(len @ 0..=125) => frame.push(0x80 | len),
        _ => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

async fn recv<S>(wire: &mut WebSocketWire<S>) -> Result<Option<Received>, WireError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    poll_fn(|cx| wire.poll_recv(cx)).await
}

/// Reads one short frame of the server's.
async fn frame(client: &mut DuplexStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    client.read_exact(&mut head).await.unwrap();
    assert!(head[1] <= 125, "a server's frame is not masked, and this one should be short");
    let mut payload = vec![0; head[1].into()];
    client.read_exact(&mut payload).await.unwrap();
    (head[0], payload)
}

fn text(text: &'static str) -> Frame {
    Frame::unnumbered(Bytes::from_static(text.as_bytes()))
}

/// Feeds `bytes`, expects the framing to be called broken with `code`, and the client to be told so with a text frame and a
/// Close.
async fn breaks_with(bytes: &[u8], code: Code) {
    let (mut wire, mut client) = open(64 * 1024);
    client.write_all(bytes).await.unwrap();
    let Err(WireError::Broken(refusal)) = recv(&mut wire).await else { panic!("{bytes:?} should break the framing") };
    assert_eq!(refusal.code, code);
    wire.feed(text("closed")).unwrap();
    let closing = tokio::spawn(wire.close(Close { code: Some(code), reason: "why".into() }));
    assert_eq!(frame(&mut client).await, (TEXT, b"closed".to_vec()));
    let mut expected = code.close_code().to_be_bytes().to_vec();
    expected.extend_from_slice(b"why");
    assert_eq!(frame(&mut client).await, (CLOSE, expected));
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "nothing may follow a Close");
    drop(client);
    closing.await.unwrap();
}

#[tokio::test]
async fn whatever_breaks_the_framing_is_told_in_the_protocols_own_terms() {
    breaks_with(&masked(TEXT, b"\xff"), Code::BadRequest).await;
    breaks_with(&[masked(0x01, b"cut off: \xe3\xa4"), masked(0x80, b"")].concat(), Code::BadRequest).await;
    breaks_with(&masked(TEXT, &[b'x'; FRAME_BYTES + 1]), Code::TooLarge).await;
    breaks_with(&[TEXT, 1, b'x'], Code::BadRequest).await;
    breaks_with(&masked(TEXT | 0x40, b"x"), Code::BadRequest).await;
    breaks_with(&masked(0x83, b"x"), Code::BadRequest).await;
    breaks_with(&masked(0x80, b"no beginning"), Code::BadRequest).await;
    breaks_with(&masked(PING, &[0; 126]), Code::BadRequest).await;
    breaks_with(&masked(CLOSE, &999u16.to_be_bytes()), Code::BadRequest).await;
    breaks_with(&masked(CLOSE, b"\x03\xe8\xff"), Code::BadRequest).await;
}

#[tokio::test]
async fn fragments_together_are_held_to_the_limit_of_one_message() {
    let fragment = |first, len| masked(first, &vec![b'x'; len]);
    let whole = [fragment(0x01, 500), fragment(0x80, 500)].concat();
    let (mut wire, mut client) = open(64 * 1024);
    client.write_all(&whole).await.unwrap();
    assert!(matches!(recv(&mut wire).await, Ok(Some(Received::Message(message))) if message.len() == FRAME_BYTES));
    breaks_with(&[fragment(0x01, 500), fragment(0x00, 500), fragment(0x80, 1)].concat(), Code::TooLarge).await;
}

#[tokio::test]
async fn a_binary_frame_is_unusable_and_what_follows_it_is_not() {
    let (mut wire, mut client) = open(1024);
    client.write_all(&[masked(0x82, b"{}"), masked(TEXT, b"{}")].concat()).await.unwrap();
    assert!(matches!(recv(&mut wire).await, Ok(Some(Received::Unusable(refusal))) if refusal.code == Code::BadRequest));
    assert!(matches!(recv(&mut wire).await, Ok(Some(Received::Message(message))) if &message[..] == b"{}"));
}

#[tokio::test]
async fn a_ping_is_answered_between_the_fragments_of_a_message() {
    let (mut wire, mut client) = open(1024);
    let bytes = [masked(0x01, b"{"), masked(PING, b"there?"), masked(0x80, b"}")].concat();
    client.write_all(&bytes).await.unwrap();
    assert!(matches!(recv(&mut wire).await, Ok(Some(Received::Message(message))) if &message[..] == b"{}"));
    assert_eq!(frame(&mut client).await, (PONG, b"there?".to_vec()));
}

#[tokio::test]
async fn a_client_that_pings_without_reading_costs_no_more_than_one_answer() {
    // Room for less than one pong each way but the pings', so that the server's side is always stuck.
    let (server, mut client) = duplex(64);
    let mut wire = WebSocketWire::new(server, FRAME_BYTES, Tally::default());
    let pings = tokio::spawn(async move {
        for _ in 0..1000 {
            client.write_all(&masked(PING, &[7; 100])).await.unwrap();
        }
        client.write_all(&masked(TEXT, b"{}")).await.unwrap();
        client
    });
    assert!(matches!(recv(&mut wire).await, Ok(Some(Received::Message(_)))));
    assert!(wire.out.len() <= 102, "{} bytes wait", wire.out.len());
    drop(pings.await.unwrap());
}

#[tokio::test]
async fn the_clients_close_is_echoed_and_ends_the_reading() {
    for (payload, echo) in [(&b"\x03\xe8bye"[..], &b"\x03\xe8"[..]), (b"", b"")] {
        let (mut wire, mut client) = open(1024);
        client.write_all(&masked(CLOSE, payload)).await.unwrap();
        assert!(matches!(recv(&mut wire).await, Ok(None)));
        assert!(matches!(recv(&mut wire).await, Ok(None)), "and stays ended");
        assert_eq!(frame(&mut client).await, (CLOSE, echo.to_vec()));
        assert!(wire.feed(text("late")).is_err());
    }
}

#[tokio::test]
async fn closing_waits_for_the_clients_own_close_and_cuts_the_reason() {
    let (wire, mut client) = open(1024);
    let reason = format!("{}é and more", "x".repeat(MAX_REASON - 1));
    let mut closing = tokio::spawn(wire.close(Close { code: None, reason: reason.into() }));
    let (opcode, payload) = frame(&mut client).await;
    assert_eq!((opcode, &payload[..2]), (CLOSE, &1000u16.to_be_bytes()[..]));
    assert_eq!(payload[2..], [b'x'; MAX_REASON - 1], "cut before the character that does not fit");
    client.write_all(&masked(TEXT, b"on its way already")).await.unwrap();
    tokio::select! {
        biased;
        _ = &mut closing => panic!("the client has not closed yet"),
        () = tokio::task::yield_now() => {}
    }
    client.write_all(&masked(CLOSE, &1000u16.to_be_bytes())).await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    drop(client);
    closing.await.unwrap();
}

#[tokio::test]
async fn an_end_without_a_close_is_a_loss() {
    let (mut wire, mut client) = open(1024);
    client.write_all(&masked(TEXT, b"{}")[..3]).await.unwrap();
    drop(client);
    assert!(matches!(recv(&mut wire).await, Err(WireError::Lost(_))));
}

#[tokio::test]
async fn every_length_is_written_as_rfc_6455_says() {
    for len in [0, 125, 126, 65_535, 65_536] {
        let (mut wire, client) = open(128 * 1024);
        wire.feed(Frame::unnumbered(vec![b'x'; len].into())).unwrap();
        poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
        let mut reader = tokio_websockets::ClientBuilder::new().take_over(client);
        let message = poll_fn(|cx| Pin::new(&mut reader).poll_next(cx)).await.unwrap().unwrap();
        assert_eq!(message.as_payload().len(), len);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_flush_back() {
    let (mut wire, client) = open(100);
    wire.feed(Frame::unnumbered(vec![b'x'; 500].into())).unwrap();
    let flushed = poll_fn(|cx| Poll::Ready(wire.poll_flush(cx).is_ready())).await;
    assert!(!flushed);
    drop(client);
    assert!(matches!(poll_fn(|cx| wire.poll_flush(cx)).await, Err(WireError::Lost(_))));
}

#[tokio::test]
async fn a_probe_is_a_ping_and_any_byte_is_a_sign_of_life() {
    let (mut wire, mut client) = open(1024);
    let opened = wire.last_heard().unwrap();
    wire.probe().unwrap();
    poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
    assert_eq!(frame(&mut client).await, (PING, vec![]));
    client.write_all(&masked(PONG, b"")).await.unwrap();
    let pending = poll_fn(|cx| Poll::Ready(wire.poll_recv(cx).is_pending())).await;
    assert!(pending, "a pong is no message");
    assert!(wire.last_heard().unwrap() > opened);
}
