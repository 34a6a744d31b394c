//! `wigwag why`: what a server says of a call that has not come about, or of any other room.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::{End, join, print};
use crate::client::{Endpoint, Http1, Trust};
use crate::error::StartError;
use crate::protocol::RoomName;
use crate::secret::SecretSource;

/// What is missing, or has failed, stands in what is printed.
const INCOMPLETE: u8 = 3;
/// The room never was, or has been forgotten.
const UNKNOWN: u8 = 4;
/// There never were two who could have called one another.
const ALONE: u8 = 5;

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `wigwag why` is told.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Name of the room
    room: String,
    /// The server's admin listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9433", env = "WIGWAG_ADMIN_URL")]
    admin: String,
    /// Show this token, where the server has --admin-token
    #[arg(long, env = "WIGWAG_ADMIN_TOKEN", value_name = "FILE|env:VARIABLE", hide_env_values = true)]
    admin_token: Option<String>,
    /// Trust the certificate authority in this PEM file, beside the system's, where a proxy serves it by https
    #[arg(long, value_name = "FILE", default_value = "certs/ca.pem")]
    ca: std::path::PathBuf,
    /// How many of the last events are printed
    #[arg(long, value_name = "N", default_value_t = 20)]
    events: usize,
    /// Print what the server answers, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &WhyArgs) -> Result<(), End> {
    let room = RoomName::parse(&args.room).map_err(|error| StartError::new(format_args!("{}: {error}", args.room)))?;
    let admin: Uri = args.admin.parse().map_err(|error| StartError::new(format_args!("--admin: {error}")))?;
    if admin.path() != "/" {
        return Err(StartError::new(format_args!("--admin {admin}: give the listener alone, without a path")).into());
    }
    let endpoint = Endpoint::of(&admin).map_err(|error| StartError::new(format_args!("--admin: {error}")))?;
    let headers = headers(args)?;
    let trust = trust(&endpoint, &args.ca)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let path = format!("/api/rooms/{room}/timeline");
    let asked =
        runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(&endpoint, &trust, &path, &headers)).await });
    let answer = asked.unwrap_or_else(|_| Err(anyhow!("no answer in {} s", PATIENCE.as_secs())));
    let (status, body) = answer.with_context(|| format!("cannot ask {}", args.admin))?;
    match status {
        StatusCode::OK => told(&body, args),
        StatusCode::NOT_FOUND if detail(&body).starts_with("no such room") => {
            let why = "the server knows no such room: it never was there, has been forgotten (--timeline-keep), or is at another node";
            Err(End::Told(format!("{room}: {why}"), UNKNOWN))
        }
        StatusCode::UNAUTHORIZED => Err(StartError::new("the server asks for its token: give --admin-token").into()),
        other => Err(anyhow!("{} answered {other}: {}", args.admin, detail(&body)).into()),
    }
}

fn headers(args: &WhyArgs) -> Result<HeaderMap, End> {
    let mut headers = HeaderMap::new();
    if let Some(text) = &args.admin_token {
        let source: SecretSource =
            text.parse().map_err(|why| StartError::new(format_args!("--admin-token is {text}: {why}")))?;
        let token = source.read("--admin-token", "what the server's --admin-token is")?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| StartError::new("the token has characters that no header may have"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn trust(endpoint: &Endpoint, ca: &Path) -> Result<Trust, End> {
    let roots = if endpoint.encrypted { join::roots(ca)? } else { rustls::RootCertStore::empty() };
    Ok(Trust::new(roots, Vec::new()).context("cannot do TLS")?)
}

async fn ask(
    endpoint: &Endpoint,
    trust: &Trust,
    path: &str,
    headers: &HeaderMap,
) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let mut connection = Http1::connect(endpoint, &trust.tls).await?;
    let response = connection.request(Method::GET, path, headers).await?;
    Ok((response.status(), response.into_body().to_vec()))
}

/// What a refusal says of itself.
fn detail(body: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    problem["detail"].as_str().unwrap_or("it does not say why; is this an admin listener?").to_owned()
}

fn told(body: &[u8], args: &WhyArgs) -> Result<(), End> {
    let timeline: Timeline =
        serde_json::from_slice(body).context("the server's answer is no timeline; is it of another version?")?;
    let text = match args.json {
        true => format!("{}\n", String::from_utf8_lossy(body)),
        false => timeline.tell(args.events),
    };
    print(&text)?;
    match timeline.code() {
        0 => Ok(()),
        code => Err(End::Quiet(code)),
    }
}

/// What the server tells of a room. Whatever else it tells is not needed here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timeline {
    room: String,
    open: bool,
    recorded: bool,
    dropped: u64,
    events: Vec<Event>,
    diagnosis: Diagnosis,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Diagnosis {
    state: Option<String>,
    text: String,
    pairs: Vec<Pair>,
    more_pairs: usize,
}

#[derive(Debug, Deserialize)]
struct Pair {
    state: String,
    text: String,
    over: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Event {
    at_ms: i64,
    until_ms: Option<i64>,
    count: Option<u32>,
    event: String,
    peer: Option<String>,
    to: Option<String>,
    transport: Option<String>,
    bytes: Option<u64>,
    outcome: Option<String>,
    code: Option<String>,
    reason: Option<String>,
    candidate_type: Option<String>,
    after_ms: Option<u64>,
}

impl Timeline {
    /// 0 where nothing is known to be missing.
    fn code(&self) -> u8 {
        match self.diagnosis.state.as_deref() {
            Some("complete" | "connected" | "media") => 0,
            Some(_) => INCOMPLETE,
            None => ALONE,
        }
    }

    /// For people: the verdict first, what it comes from below.
    fn tell(&self, most: usize) -> String {
        let mut text = String::new();
        let mut line = |told: std::fmt::Arguments<'_>| {
            // What a server says must not move the terminal's cursor.
            let told = told.to_string().replace(|c: char| c.is_control(), "\u{fffd}");
            writeln!(text, "{told}").expect("a String takes everything");
        };
        let state = if self.open { "open" } else { "ended" };
        line(format_args!("{} ({state}): {}", self.room, self.diagnosis.text));
        if !self.recorded {
            line(format_args!("Nothing is recorded there: --timeline-events is 0."));
        }
        if self.diagnosis.pairs.len() > 1 {
            line(format_args!(""));
            for Pair { state, text, over } in &self.diagnosis.pairs {
                line(format_args!("  {state}{}: {text}", if *over { ", over" } else { "" }));
            }
            if self.diagnosis.more_pairs > 0 {
                line(format_args!("  and {} pairs more", self.diagnosis.more_pairs));
            }
        }
        let left_out = self.events.len().saturating_sub(most);
        if most > 0 && !self.events.is_empty() {
            line(format_args!(""));
        }
        if most > 0 && (left_out > 0 || self.dropped > 0) {
            line(format_args!("  {left_out} events left out (--events), {} forgotten", self.dropped));
        }
        for event in &self.events[left_out..] {
            line(format_args!("  {event}"));
        }
        text
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.at_ms) * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        write!(f, "{:02}:{:02}:{:02}.{:03}Z  {}", at.hour(), at.minute(), at.second(), at.millisecond(), self.event)?;
        if let Some(count) = self.count {
            write!(f, " ×{count}")?;
        }
        match (&self.peer, &self.to) {
            (Some(peer), Some(to)) => write!(f, "  {} → {}", short(peer), short(to))?,
            (Some(peer), None) => write!(f, "  {}", short(peer))?,
            (None, _) => {}
        }
        let facts =
            [&self.transport, &self.outcome, &self.code, &self.reason, &self.candidate_type].into_iter().flatten();
        for fact in facts.filter(|fact| *fact != "delivered") {
            write!(f, "  {fact}")?;
        }
        if let Some(bytes) = self.bytes {
            write!(f, "  {bytes} bytes")?;
        }
        if let Some(after) = self.after_ms {
            write!(f, "  after {after} ms")?;
        }
        if let Some(until) = self.until_ms {
            write!(f, "  in {} ms", until - self.at_ms)?;
        }
        Ok(())
    }
}

/// As the server's texts call a peer.
fn short(peer: &str) -> String {
    let skip = peer.chars().count().saturating_sub(6);
    format!("…{}", peer.chars().skip(skip).collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn timeline(state: Option<&str>) -> Timeline {
        let peers = ["0197a000-0000-7000-8000-000000000001", "0197a000-0000-7000-8000-000000000002"];
        serde_json::from_value(json!({
            "room": "demo", "open": true, "endedMs": null, "recorded": true, "dropped": 3,
            "events": [
                {"atMs": 3_723_004, "event": "joined", "peer": peers[0], "transport": "webtransport"},
                {"atMs": 3_723_005, "untilMs": 3_723_045, "count": 4, "event": "candidate", "peer": peers[1], "to": peers[0], "bytes": 400, "outcome": "kept"},
                {"atMs": 3_723_050, "event": "answer", "peer": peers[1], "to": peers[0], "bytes": 9, "outcome": "delivered"},
            ],
            "diagnosis": {"state": state, "text": "All is \u{1b}[2J said.", "pairs": [], "morePairs": 0},
        }))
        .expect("as the server has it")
    }

    #[test]
    fn the_verdict_comes_first_and_events_as_they_were() {
        assert_eq!(
            timeline(Some("complete")).tell(2),
            "demo (open): All is \u{fffd}[2J said.\n\n  1 events left out (--events), 3 forgotten\n  \
             01:02:03.005Z  candidate ×4  …000002 → …000001  kept  400 bytes  in 40 ms\n  \
             01:02:03.050Z  answer  …000002 → …000001  9 bytes\n"
        );
    }

    #[test]
    fn without_events_there_is_the_verdict_alone() {
        assert_eq!(timeline(None).tell(0).lines().count(), 1);
    }

    #[test]
    fn scripts_can_tell_verdicts_apart() {
        let codes = [Some("complete"), Some("noAnswer"), None].map(|state| timeline(state).code());
        assert_eq!(codes, [0, INCOMPLETE, ALONE]);
    }
}
