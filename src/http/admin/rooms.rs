//! Rooms as JSON, and what the operator may do to them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::Admin;
use crate::hub::{MemberInfo, MemberState, RoomInfo, RoomSummary};
use crate::problem::problem;
use crate::protocol::{PeerId, Refusal, RoomName};
use crate::timeline::{Recording, Report, Told, diagnose};

/// Rooms in one answer, where nothing is said and at the most.
const PAGE: usize = 100;
const MOST: usize = 500;

/// Which rooms, and which part of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// What a name must contain.
    #[serde(default)]
    filter: String,
    #[serde(default)]
    order: Order,
    #[serde(default)]
    offset: u32,
    limit: Option<usize>,
    /// For live views: also what happens in this room.
    pub(super) room: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    #[default]
    Name,
    /// The largest first.
    Members,
    /// The youngest first.
    Newest,
    /// Those first for whose members most bytes wait.
    Queue,
}

impl Wanted {
    /// # Errors
    /// `badRequest` for a part that is too large.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        match self.limit {
            Some(limit) if limit == 0 || limit > MOST => {
                Err(Refusal::bad_request(format!("\"limit\" must be from 1 to {MOST}")))
            }
            _ => Ok(()),
        }
    }

    fn part<T>(&self, all: Vec<T>) -> impl Iterator<Item = T> {
        all.into_iter().skip(self.offset as usize).take(self.limit.unwrap_or(PAGE))
    }
}

/// A query that cannot be understood, in the words of the others.
pub(super) fn wanted(query: Result<Query<Wanted>, QueryRejection>) -> Result<Wanted, Refusal> {
    let Query(wanted) = query.map_err(|_| {
        Refusal::bad_request("the query may have filter, order (name, members, newest, queue), offset, limit and room")
    })?;
    wanted.check().map(|()| wanted)
}

type Asked = Result<Query<Wanted>, QueryRejection>;

/// `GET /api/rooms`.
pub(super) async fn list(State(admin): State<Arc<Admin>>, query: Asked) -> Response {
    wanted(query).map_or_else(|refusal| problem(&refusal), |wanted| Json(listing(&admin, &wanted)).into_response())
}

/// The rooms that are open, in parts.
pub(super) fn listing(admin: &Admin, wanted: &Wanted) -> Value {
    let hub = &admin.context.hub;
    let mut rooms = hub.rooms(|name| name.as_str().contains(&wanted.filter));
    match wanted.order {
        Order::Name => {}
        Order::Members => rooms.sort_by_key(|room| std::cmp::Reverse(room.here + room.away)),
        Order::Newest => rooms.sort_by_key(|room| std::cmp::Reverse(room.opened)),
        Order::Queue => rooms.sort_by_key(|room| std::cmp::Reverse(room.queued_bytes)),
    }
    let matching = rooms.len();
    let rooms: Vec<Value> = wanted.part(rooms).map(|room| summary(admin, &room)).collect();
    json!({ "total": hub.room_count(), "matching": matching, "offset": wanted.offset, "rooms": rooms })
}

fn summary(admin: &Admin, room: &RoomSummary) -> Value {
    let recording = admin.context.hub.recording(&room.name).and_then(|(_, recording)| recording);
    let state = recording.and_then(|told| diagnose(&told.entries, told.dropped).state);
    json!({
        "room": room.name,
        "openedMs": ms(room.opened),
        "here": room.here,
        "away": room.away,
        "waiting": room.waiting,
        "locked": room.locked,
        "queuedMessages": room.queued_messages,
        "queuedBytes": room.queued_bytes,
        "negotiation": state.map(|state| state.name()),
    })
}

/// `GET /api/ended`.
pub(super) async fn ended(State(admin): State<Arc<Admin>>, query: Asked) -> Response {
    let wanted = match wanted(query) {
        Ok(wanted) => wanted,
        Err(refusal) => return problem(&refusal),
    };
    let rooms = admin.context.hub.ended_rooms();
    let total = rooms.len();
    let rooms: Vec<_> = rooms.into_iter().filter(|(name, _)| name.as_str().contains(&wanted.filter)).collect();
    let matching = rooms.len();
    let told = |(room, ago): (RoomName, u64)| json!({ "room": room, "endedSecondsAgo": ago });
    let rooms: Vec<Value> = wanted.part(rooms).map(told).collect();
    Json(json!({ "total": total, "matching": matching, "offset": wanted.offset, "rooms": rooms })).into_response()
}

/// `GET /api/rooms/{room}`.
pub(super) async fn show(State(admin): State<Arc<Admin>>, Path(room): Path<String>) -> Response {
    let found = named(&room).and_then(|name| details(&admin, &name).ok_or_else(|| unknown("room is open")));
    found.map_or_else(|refusal| problem(&refusal), |room| Json(room).into_response())
}

fn details(admin: &Admin, name: &RoomName) -> Option<Value> {
    let RoomInfo { summary: about, members } = admin.context.hub.room(name)?;
    let whole = admin.context.config.admin_addresses;
    let mut room = summary(admin, &about);
    room["members"] = members.iter().map(|info| member(info, whole)).collect();
    Some(room)
}

fn member(info: &MemberInfo, whole_address: bool) -> Value {
    let state = match info.state {
        MemberState::Here => "here",
        MemberState::Away => "away",
        MemberState::Waiting => "waiting",
    };
    json!({
        "peer": info.peer,
        "user": info.user,
        "state": state,
        "joinedMs": info.peer.minted().map(ms),
        "node": info.node,
        "moderates": info.moderates,
        "transport": info.transport.map(|transport| transport.name()),
        "addressKind": info.address.map(kind),
        "address": info.address.filter(|_| whole_address),
        "queuedMessages": info.queued_messages,
        "queuedBytes": info.queued_bytes,
    })
}

/// What an address tells of where its owner is, and nothing of who it is.
fn kind(address: IpAddr) -> &'static str {
    let address = address.to_canonical();
    match address {
        _ if address.is_loopback() => "loopback",
        IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => "private IPv4",
        // Shared address space behind a provider's NAT (RFC 6598).
        IpAddr::V4(v4) if v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1]) => "private IPv4",
        IpAddr::V4(_) => "public IPv4",
        IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => "private IPv6",
        IpAddr::V6(_) => "public IPv6",
    }
}

/// `GET /api/rooms/{room}/timeline`.
pub(super) async fn timeline(State(admin): State<Arc<Admin>>, Path(room): Path<String>) -> Response {
    let found = named(&room).and_then(|name| {
        history(&admin, &name).ok_or_else(|| unknown("room is known: it never was, or has been forgotten"))
    });
    found.map_or_else(|refusal| problem(&refusal), |timeline| Json(timeline).into_response())
}

fn history(admin: &Admin, name: &RoomName) -> Option<Report> {
    let (ended, recording) = admin.context.hub.recording(name)?;
    let now = Now::read();
    let recorded = recording.is_some();
    let Recording { begun, entries, dropped } =
        recording.unwrap_or_else(|| Recording { begun: now.instant, entries: Vec::new(), dropped: 0 });
    let begun = now.of(begun);
    Some(Report {
        room: name.clone(),
        open: ended.is_none(),
        ended_ms: ended.map(|at| now.of(at)),
        recorded,
        dropped,
        events: entries.iter().map(|entry| Told::of(entry, begun)).collect(),
        diagnosis: diagnose(&entries, dropped).into(),
    })
}

/// Both clocks at one moment, to tell times of the one in those of the other.
struct Now {
    instant: Instant,
    system: SystemTime,
}

impl Now {
    fn read() -> Self {
        Now { instant: tokio::time::Instant::now().into_std(), system: SystemTime::now() }
    }

    fn of(&self, at: Instant) -> u64 {
        ms(self.system - self.instant.saturating_duration_since(at))
    }
}

/// What a live view shows of one room: who is in it, if it is open, and its timeline, if it is known.
pub(super) fn view(admin: &Admin, name: &str) -> Value {
    let name = RoomName::parse(name).ok();
    let room = name.as_ref().and_then(|name| details(admin, name));
    let timeline = name.as_ref().and_then(|name| history(admin, name));
    json!({ "room": room, "timeline": timeline })
}

/// What an action may be told.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Because {
    reason: Option<String>,
}

/// Bytes of a reason: a sentence, as for moderators.
const MAX_REASON: usize = 512;

fn because(body: &Bytes) -> Result<Because, Refusal> {
    if body.is_empty() {
        return Ok(Because::default());
    }
    let because: Because = serde_json::from_slice(body)
        .map_err(|_| Refusal::bad_request("the body may be empty, or JSON: {\"reason\": \"…\"}"))?;
    match &because.reason {
        Some(reason) if reason.len() > MAX_REASON => {
            Err(Refusal::bad_request(format!("\"reason\" may have {MAX_REASON} bytes")))
        }
        _ => Ok(because),
    }
}

/// `POST /api/rooms/{room}/peers/{peer}/remove`.
pub(super) async fn remove(
    State(admin): State<Arc<Admin>>,
    Path((room, peer)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let removed = named(&room).and_then(|room| {
        let peer = PeerId::parse(&peer).ok_or_else(|| Refusal::bad_request("a peer's id is a UUID"))?;
        admin.context.hub.remove_peer(&room, peer, because(&body)?.reason.as_deref())?;
        info!(%room, %peer, "the operator removed a peer");
        Ok(())
    });
    done(removed)
}

/// `POST /api/rooms/{room}/lock`.
pub(super) async fn lock(State(admin): State<Arc<Admin>>, Path(room): Path<String>) -> Response {
    set_lock(&admin, &room, true)
}

/// `POST /api/rooms/{room}/unlock`.
pub(super) async fn unlock(State(admin): State<Arc<Admin>>, Path(room): Path<String>) -> Response {
    set_lock(&admin, &room, false)
}

fn set_lock(admin: &Admin, room: &str, locked: bool) -> Response {
    done(named(room).and_then(|room| {
        admin.context.hub.lock_room(&room, locked)?;
        info!(%room, locked, "the operator locked a room, or unlocked it");
        Ok(())
    }))
}

/// `POST /api/rooms/{room}/close`.
pub(super) async fn close(State(admin): State<Arc<Admin>>, Path(room): Path<String>, body: Bytes) -> Response {
    let closed = named(&room).and_then(|room| {
        let peers = admin.context.hub.close_room(&room, because(&body)?.reason.as_deref())?;
        info!(%room, peers, "the operator closed a room");
        Ok(peers)
    });
    closed.map_or_else(|refusal| problem(&refusal), |peers| Json(json!({ "removed": peers })).into_response())
}

fn done(result: Result<(), Refusal>) -> Response {
    result.map_or_else(|refusal| problem(&refusal), |()| StatusCode::NO_CONTENT.into_response())
}

fn named(room: &str) -> Result<RoomName, Refusal> {
    RoomName::parse(room).map_err(|invalid| Refusal::bad_request(invalid.to_string()))
}

fn unknown(what: &str) -> Refusal {
    Refusal::new(crate::protocol::Code::NotFound, format!("no such {what}"))
}

/// Milliseconds since 1970.
pub(super) fn ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_by_its_kind() {
        for (address, expected) in [
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("10.1.2.3", "private IPv4"),
            ("::ffff:192.168.0.1", "private IPv4"),
            ("100.64.0.1", "private IPv4"),
            ("169.254.0.1", "private IPv4"),
            ("100.128.0.1", "public IPv4"),
            ("93.184.216.34", "public IPv4"),
            ("fd00::1", "private IPv6"),
            ("fe80::1", "private IPv6"),
            ("2606:2800::1", "public IPv6"),
        ] {
            assert_eq!(kind(address.parse().unwrap()), expected, "{address}");
        }
    }
}
