//! `GET /v1/rooms/{room}/log`: what has happened at one's own seat, as a file to look at or to send with a report. Transports,
//! times and counts; nothing of what was said, and nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::context::Context;
use crate::hub::{History, Speaker};
use crate::problem::problem;
use crate::protocol::{Code, Transport};
use crate::seat::Event;
use crate::transport::{Via, poll};

/// The first line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    at: String,
    event: &'static str,
    room: &'a str,
    peer: String,
    /// What the client has asked for.
    requests: u64,
    /// What it has been sent.
    messages: u64,
    /// What it was told went wrong, by code.
    errors: BTreeMap<&'static str, u64>,
    /// Earlier events that are not kept.
    dropped_events: u64,
}

/// Each line behind it.
#[derive(Debug, Serialize)]
struct Line {
    at: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// Answers with the log of the seat that the ticket proves.
pub(super) async fn answer(
    State(context): State<Arc<Context>>,
    Extension(via): Extension<Via>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let found = async {
        let client = context.client(via.remote.ip(), &parts.headers)?;
        poll::speaker(&parts, &client, &context).await
    };
    match found.await {
        Ok(speaker) => attachment(&speaker, OffsetDateTime::now_utc()),
        Err(refusal) => problem(&refusal),
    }
}

fn attachment(speaker: &Speaker, now: OffsetDateTime) -> Response {
    let (room, peer) = (speaker.room().as_str(), speaker.peer().to_string());
    // A room's name has no character that a quoted string or a file system would mind (RFC 6266, 4.3).
    let disposition = format!("attachment; filename=\"wigwag-{room}-{}.ndjson\"", now.date());
    let fields = [
        (CONTENT_TYPE, "application/x-ndjson".to_owned()),
        (CONTENT_DISPOSITION, disposition),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    (fields, Body::from(render(room, peer, &speaker.history(), now))).into_response()
}

fn render(room: &str, peer: String, history: &History, now: OffsetDateTime) -> String {
    let log = &history.log;
    let summary = Summary {
        at: text(now),
        event: "log",
        room,
        peer,
        requests: log.requests(),
        messages: history.sent,
        errors: log.errors().iter().map(|(code, times)| (code.name(), *times)).collect(),
        dropped_events: log.dropped(),
    };
    let mut lines = vec![serde_json::to_string(&summary).expect("numbers and texts are JSON")];
    lines.extend(log.events().map(|(at, event)| {
        let (event, transport, code) = describe(event);
        let at = text(now - history.until.saturating_duration_since(at));
        let line = Line { at, event, transport: transport.map(Transport::name), code: code.map(Code::name) };
        serde_json::to_string(&line).expect("texts are JSON")
    }));
    lines.join("\n") + "\n"
}

fn describe(event: Event) -> (&'static str, Option<Transport>, Option<Code>) {
    match event {
        Event::Joined(transport) => ("joined", Some(transport), None),
        Event::Resumed(transport) => ("resumed", Some(transport), None),
        Event::Away(transport) => ("away", Some(transport), None),
        Event::Closed(transport, code) => ("closed", Some(transport), Some(code)),
        Event::Lapsed => ("away", Some(Transport::LongPoll), None),
    }
}

/// RFC 3339, in milliseconds.
fn text(at: OffsetDateTime) -> String {
    at.truncate_to_millisecond().format(&Rfc3339).expect("a year of four digits")
}
