//! The server in numbers, for the operator's page: one JSON object, whose counters the page turns into rates.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::{Admin, rooms};
use crate::protocol::Transport;

/// `GET /api/overview`.
pub(super) async fn answer(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(overview(&admin))
}

pub(super) fn overview(admin: &Admin) -> Value {
    let context = &admin.context;
    let found = context.hub.census();
    let counted = context.metrics.traffic();
    let sessions: Map<String, Value> = Transport::ALL
        .iter()
        .zip(found.sessions)
        .map(|(transport, sessions)| (transport.name().into(), json!(sessions)))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "atMs": rooms::ms(SystemTime::now()),
        "startedMs": rooms::ms(admin.started),
        "node": context.cluster.as_ref().map(|cluster| cluster.id()),
        "clusterConnected": context.cluster.as_ref().map(|cluster| cluster.is_connected()),
        "draining": context.drain.is_raised(),
        "recorded": context.config.timelines.events > 0,
        "rooms": found.rooms,
        "endedRooms": found.ended_rooms,
        "seats": { "here": found.here, "away": found.away, "waiting": found.waiting },
        "sessions": sessions,
        "messages": counted.messages,
        "relayed": { "count": counted.relayed.last().map_or(0, |(_, count)| *count), "buckets": counted.relayed },
        "queuedMessages": found.queued_messages,
        "queuedBytes": found.queued_bytes,
        "timelineBytes": found.timeline_bytes,
    })
}
