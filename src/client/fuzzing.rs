//! What must hold of a server's words, whatever they are.

use bytes::BytesMut;

use super::message::{Incoming, Payload, ServerMessage};
use super::{discovery, poll};

/// Payloads are handed on as they stand in the message.
pub(crate) fn server_message(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(incoming) = Incoming::parse(text) else { return };
    if let Some(payload) = payload(&incoming.message) {
        assert!(text.contains(payload.json()) || payload.json() == "null");
    }
}

fn payload(message: &ServerMessage) -> Option<&Payload> {
    match message {
        ServerMessage::Description { description: payload, .. }
        | ServerMessage::Candidate { candidate: payload, .. }
        | ServerMessage::Message { data: payload, .. } => Some(payload),
        _ => None,
    }
}

/// What the server relayed is what the client reads.
pub(crate) fn is_read_as(text: &str, from: &str, payload: &str) {
    let incoming = Incoming::parse(text).expect("the server's own message");
    assert_eq!(self::payload(&incoming.message).map(Payload::json), Some(payload));
    let (ServerMessage::Description { from: said, .. }
    | ServerMessage::Candidate { from: said, .. }
    | ServerMessage::Message { from: said, .. }) = incoming.message
    else {
        panic!("another kind of message")
    };
    assert_eq!(said, from);
}

/// Events are the same wherever chunks end, and nothing of them is left behind.
pub(crate) fn event_stream(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else { return };
    let read = |size: usize| {
        let (mut received, mut events) = (BytesMut::new(), Vec::new());
        // What has come of an event is looked through again with each chunk: not too many of a long one.
        for chunk in stream.chunks(size.max(stream.len() / 64).max(1)) {
            received.extend_from_slice(chunk);
            events.extend(std::iter::from_fn(|| poll::take_event(&mut received)));
        }
        (events, received)
    };
    let (events, rest) = read(stream.len());
    assert!(events.iter().map(Vec::len).sum::<usize>() + rest.len() <= stream.len());
    assert_eq!(read(size.into()), (events, rest), "chunks of {size}");
}

/// Whatever is offered can be asked.
pub(crate) fn discovery(data: &[u8]) {
    for offer in discovery::read(data).into_iter().flatten() {
        assert!(!offer.endpoint.host.is_empty());
        assert!(format!("https://{}/", offer.endpoint.authority()).parse::<http::Uri>().is_ok());
    }
}
