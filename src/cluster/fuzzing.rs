//! What must hold of what comes from other nodes.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::note::{self, Note, Text};

/// A packet is sealed again as what it was; its note, or the whole as one, reads the same after it was written, and a payload in it
/// is one line.
pub(crate) fn notes(data: &[u8]) {
    let text = Bytes::copy_from_slice(data);
    let mut inner = text.clone();
    if let Ok((from, packet)) = note::open(&text) {
        let again = note::open(&note::seal(from, &packet)).expect("it was sealed");
        assert_eq!(again, (from, packet.clone()));
        inner = packet.note.map(|(_, note)| note).unwrap_or_default();
    }
    let Ok(read) = Note::parse(&inner) else { return };
    let payload = match &read {
        Note::Relay { body, ephemeral, .. } => note::body(&inner, body, *ephemeral),
        Note::Broadcast { body, said, .. } => note::body(&inner, body, said.is_none()),
        _ => None,
    };
    if let Some(body) = payload {
        let line = body.frame(Some(1)).text();
        assert!(line.starts_with(br#"{"seq":1,""#) && !line.contains(&b'\n') && !line.contains(&b'\r'));
        serde_json::from_slice::<&RawValue>(&line).expect("JSON");
    }
    let Text(written) = read.write().text;
    let again = Note::parse(&written).expect("it was written");
    assert_eq!(again.write().text, Text(written.clone()));
}
