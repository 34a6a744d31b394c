//! What must hold of a client's words, whatever they are.

use super::json::compact;
use super::media::{Candidate, Checks, check_sdp};
use super::*;

/// Limits that short inputs reach.
fn limits() -> Limits {
    Limits { data_bytes: 96, sdp_bytes: 256, candidate_bytes: 192, metadata_bytes: 64, ..Limits::default() }
}

/// A request that is understood, written out and read again, is the same; its payload is JSON on one line and within its limit.
/// Returns the payload for others to carry on.
pub(crate) fn request(data: &[u8]) -> Option<Outbound<'_>> {
    let limits = limits();
    let parsed = Request::parse(data, &limits);
    let is_message =
        matches!(&parsed, Ok(Request { command: Command::Send(out), .. }) if out.kind == PayloadKind::Message);
    let datagram = Request::parse_datagram(data, &limits);
    assert_eq!(datagram.is_ok(), is_message, "a datagram is a message and nothing else");
    assert!(datagram.is_ok_and(|outbound| outbound.ephemeral) == is_message);
    let request = parsed.ok()?;
    let text = write(&request, &limits);
    let again = Request::parse(text.as_bytes(), &limits).unwrap_or_else(|invalid| panic!("{text}: {invalid:?}"));
    assert_eq!(write(&again, &limits), text);
    match request.command {
        Command::Send(outbound) => Some(outbound),
        _ => None,
    }
}

/// The request as a client would write it. Of a recipient that nobody is, and of a ticket that no server wrote, no more is
/// known than that.
fn write(request: &Request<'_>, limits: &Limits) -> String {
    let string = |text: &str| serde_json::Value::from(text).to_string();
    let to = |recipient: &Recipient| match recipient {
        Recipient::Peer(peer) => string(&peer.to_string()),
        Recipient::Nobody => string("nobody"),
    };
    let mut members = vec![format!(r#""type":"{}""#, request.command.name())];
    let mut put = |name: &str, value: String| members.push(format!(r#""{name}":{value}"#));
    if let Some(id) = request.id {
        put("id", id.to_string());
    }
    match &request.command {
        Command::Join(join) => {
            put("metadata", payload(&join.metadata, limits.metadata_bytes));
            join.key.iter().for_each(|key| put("key", string(key.as_str())));
            join.token.iter().for_each(|token| put("token", string(token.as_str())));
        }
        Command::Resume(resume) => {
            put("ticket", string(&resume.ticket.map_or_else(String::new, Ticket::to_text)));
            put("seq", resume.seq.to_string());
            resume.token.iter().for_each(|token| put("token", string(token.as_str())));
        }
        Command::Send(outbound) => {
            let most = match outbound.kind {
                PayloadKind::Description => limits.frame_bytes,
                PayloadKind::Candidate => limits.candidate_bytes,
                PayloadKind::Message => limits.data_bytes,
            };
            outbound.to.iter().for_each(|recipient| put("to", to(recipient)));
            put(outbound.kind.field(), payload(&outbound.payload, most));
            if outbound.ephemeral {
                put("ephemeral", "true".into());
            }
        }
        Command::Metadata(metadata) => put("metadata", payload(metadata, limits.metadata_bytes)),
        Command::Moderate(Moderate::Kick(peer, reason)) => {
            put("peer", to(peer));
            reason.iter().for_each(|reason| put("reason", string(reason)));
        }
        Command::Moderate(Moderate::Admit(peer) | Moderate::Refuse(peer)) => put("peer", to(peer)),
        Command::Moderate(Moderate::Lock(locked)) => put("locked", locked.to_string()),
        Command::Invite(invite) => {
            put("expiresInMs", invite.lasts.as_millis().to_string());
            put("uses", invite.uses.to_string());
            put("grants", serde_json::Value::from_iter(invite.rights.names()).to_string());
        }
        Command::Token(token) => put("token", string(token.as_str())),
        Command::Milestone(told) => {
            put("peer", to(&told.peer));
            put("milestone", string(told.reached.name()));
            told.candidate.iter().for_each(|kind| put("candidateType", string(kind.name())));
            put("afterMs", told.after_ms.to_string());
        }
        Command::Ack(seq) => put("seq", seq.to_string()),
        Command::IceServers | Command::Ping | Command::Leave => {}
    }
    format!("{{{}}}", members.join(","))
}

/// A payload that was let through, held to what lets it through.
fn payload(text: &str, most: usize) -> String {
    assert!(text.len() <= most, "{} bytes of at most {most}", text.len());
    assert!(!text.contains(['\n', '\r']), "a line break in {text:?}");
    assert!(serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok(), "not JSON: {text:?}");
    assert_eq!(compact(text).as_deref(), Ok(text));
    text.to_owned()
}

/// An SDP that passes does so with other line ends, and with a line more or less.
pub(crate) fn sdp(data: &[u8]) {
    let Ok(sdp) = std::str::from_utf8(data) else { return };
    if check_sdp(sdp).is_err() {
        return;
    }
    assert!(sdp.starts_with("v=0") && !sdp.contains('\0'));
    let mut lines: Vec<&str> = sdp.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    // Behind the last line's end.
    lines.pop_if(|line| line.is_empty());
    for end in ["\n", "\r\n"] {
        assert_eq!(check_sdp(&lines.join(end)), Ok(()));
        assert_eq!(check_sdp(&(lines.join(end) + end + "a=mid:0" + end)), Ok(()));
        assert_eq!(check_sdp(&lines[..lines.len().div_ceil(2)].join(end)), Ok(()));
    }
    assert!(check_sdp(&(lines.join("\n") + "\nm=audio")).is_err(), "a media line must be whole");
}

/// A candidate that passes does so as an attribute, too, and with an extension; no policy, nothing left out.
pub(crate) fn candidate(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(candidate) = Candidate::parse(text) else { return };
    let is_dropped = |checks| candidate.is_dropped(checks);
    let none = Checks::default();
    assert!(!is_dropped(none));
    let (private, mdns) =
        (is_dropped(Checks { drop_private: true, ..none }), is_dropped(Checks { drop_mdns: true, ..none }));
    assert!(!(private && mdns), "an address is no name");
    assert!(!mdns || text.contains(".local"));
    if !text.starts_with("a=") {
        assert_eq!(Candidate::parse(&format!("a={text}")), Ok(candidate));
    }
    assert!(Candidate::parse(&format!("{text} generation 0")).is_ok());
    assert!(Candidate::parse(&format!("{text} generation")).is_err(), "names and values come in pairs");
}

/// Names and proofs are what their text says, and have no other.
pub(crate) fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(room) = RoomName::parse(text) {
        assert_eq!(room.as_str(), text);
        assert!(text.len() <= 128 && !text.contains(['/', '%', '\\', '?', '#']) && text != "..");
    }
    if let Some(peer) = PeerId::parse(text) {
        assert_eq!(peer.to_string(), text.to_ascii_lowercase());
    }
    if let Some(ticket) = Ticket::parse(text) {
        assert_eq!(ticket.to_text(), text);
        assert!(!format!("{ticket:?}").contains(text));
    }
    if let Some(key) = JoinKey::parse(text) {
        assert_eq!(key.as_str(), text);
        assert!(text.len() <= 4 * 128);
    }
}
