//! `GET /api/live`: the overview, the wanted part of the list of rooms, and one room, each second as far as they have changed, as
//! server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Admin;
use super::overview::overview;
use super::rooms::{self, Wanted};
use crate::problem::{problem, problem_with_status};
use crate::protocol::{Code, Refusal};

/// How often a view is brought up to date.
const EVERY: Duration = Duration::from_secs(1);

/// Views at once; each costs a look at all rooms a second.
pub(super) const VIEWS: usize = 16;

/// One view and what it was told.
struct View {
    admin: Arc<Admin>,
    wanted: Wanted,
    ticks: Interval,
    rooms: String,
    room: String,
    _place: OwnedSemaphorePermit,
}

/// Answers with a view that goes on until its reader, or the server, ends it.
pub(super) async fn answer(
    State(admin): State<Arc<Admin>>,
    query: Result<axum::extract::Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let wanted = match rooms::wanted(query) {
        Ok(wanted) => wanted,
        Err(refusal) => return problem(&refusal),
    };
    let Ok(place) = Arc::clone(&admin.views).try_acquire_owned() else {
        let refusal = Refusal::new(Code::RateLimited, format!("{VIEWS} live views are open; close one"));
        return problem_with_status(StatusCode::TOO_MANY_REQUESTS, &refusal.retry_after(EVERY * 5));
    };
    let mut ticks = interval(EVERY);
    // A reader that was slow gets what is there now, once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let view = View { admin, wanted, ticks, rooms: String::new(), room: String::new(), _place: place };
    let events = stream::unfold(view, |mut view| async move {
        let text = view.next().await?;
        Some((Ok::<_, Infallible>(text), view))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl View {
    /// The events of the next second; `None` when the server stops.
    async fn next(&mut self) -> Option<Bytes> {
        tokio::select! {
            _ = self.ticks.tick() => {}
            () = self.admin.context.stop.raised() => return None,
        }
        let mut text = event("overview", &overview(&self.admin).to_string());
        text += &changed("rooms", &rooms::listing(&self.admin, &self.wanted), &mut self.rooms);
        if let Some(name) = &self.wanted.room {
            text += &changed("room", &rooms::view(&self.admin, name), &mut self.room);
        }
        Some(text.into())
    }
}

/// The event, if it tells something else than the last.
fn changed(name: &str, value: &Value, last: &mut String) -> String {
    let now = value.to_string();
    if now == *last {
        return String::new();
    }
    let text = event(name, &now);
    *last = now;
    text
}

/// JSON of ours has no line breaks, so that one `data` is enough (HTML, 9.2.6).
fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}
