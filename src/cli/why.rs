//! `wigwag why`: what a server says of a call that has not come about, or of any other room.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde_json::Value;
use time::OffsetDateTime;

use super::{End, join, print};
use crate::client::{Endpoint, Http1, Trust};
use crate::error::StartError;
use crate::protocol::{PeerId, RoomName};
use crate::secret::SecretSource;
use crate::timeline::{PairVerdict, Report, Told};

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
    #[arg(required_unless_present = "recording")]
    room: Option<String>,
    /// Explain what --json has printed before, which is in this file, and ask no server
    #[arg(long, value_name = "FILE", conflicts_with = "room")]
    recording: Option<PathBuf>,
    /// The server's admin listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9433", env = "WIGWAG_ADMIN_URL")]
    admin: String,
    /// Show this token, where the server has --admin-token
    #[arg(long, env = "WIGWAG_ADMIN_TOKEN", value_name = "FILE|env:VARIABLE", hide_env_values = true)]
    admin_token: Option<String>,
    /// Trust the certificate authority in this PEM file, beside the system's, where a proxy serves it by https
    #[arg(long, value_name = "FILE", default_value = "certs/ca.pem")]
    ca: PathBuf,
    /// How many of the last events are printed
    #[arg(long, value_name = "N", default_value_t = 20)]
    events: usize,
    /// Print what the server answers, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &WhyArgs) -> Result<(), End> {
    match (&args.recording, &args.room) {
        (Some(path), _) => recorded(path, args),
        (None, Some(room)) => asked(room, args),
        (None, None) => Err(StartError::new("give the name of a room, or --recording FILE").into()),
    }
}

/// What a server says of the room.
fn asked(room: &str, args: &WhyArgs) -> Result<(), End> {
    let room = RoomName::parse(room).map_err(|error| StartError::new(format_args!("{room}: {error}")))?;
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
    let report =
        serde_json::from_slice(body).context("the server's answer is no timeline; is it of another version?")?;
    say(&report, String::from_utf8_lossy(body).into_owned(), args)
}

/// What a recording that was saved comes to, without a server.
fn recorded(path: &Path, args: &WhyArgs) -> Result<(), End> {
    let refuse = |why: &dyn std::fmt::Display| StartError::new(format_args!("--recording {}: {why}", path.display()));
    let text = std::fs::read(path).map_err(|error| refuse(&error))?;
    let report = Report::read(&text).map_err(|error| refuse(&error))?;
    say(&report, serde_json::to_string(&report).context("a report is JSON")?, args)
}

fn say(report: &Report, json: String, args: &WhyArgs) -> Result<(), End> {
    let text = if args.json { json + "\n" } else { tell(report, args.events) };
    print(&text)?;
    match code(report) {
        0 => Ok(()),
        code => Err(End::Quiet(code)),
    }
}

/// 0 where nothing is known to be missing.
fn code(report: &Report) -> u8 {
    match report.diagnosis.state.as_deref() {
        Some("complete" | "connected" | "media") => 0,
        Some(_) => INCOMPLETE,
        None => ALONE,
    }
}

/// For people: the verdict first, what it comes from below.
fn tell(report: &Report, most: usize) -> String {
    let mut text = String::new();
    let mut line = |told: std::fmt::Arguments<'_>| {
        // What a server says must not move the terminal's cursor.
        let told = told.to_string().replace(|c: char| c.is_control(), "\u{fffd}");
        writeln!(text, "{told}").expect("a String takes everything");
    };
    let state = if report.open { "open" } else { "ended" };
    line(format_args!("{} ({state}): {}", report.room, report.diagnosis.text));
    if !report.recorded {
        line(format_args!("Nothing is recorded there: --timeline-events is 0."));
    }
    if report.diagnosis.pairs.len() > 1 {
        line(format_args!(""));
        for PairVerdict { state, text, over, .. } in &report.diagnosis.pairs {
            line(format_args!("  {state}{}: {text}", if *over { ", over" } else { "" }));
        }
        if report.diagnosis.more_pairs > 0 {
            line(format_args!("  and {} pairs more", report.diagnosis.more_pairs));
        }
    }
    let left_out = report.events.len().saturating_sub(most);
    if most > 0 && !report.events.is_empty() {
        line(format_args!(""));
    }
    if most > 0 && (left_out > 0 || report.dropped > 0) {
        line(format_args!("  {left_out} events left out (--events), {} forgotten", report.dropped));
    }
    for event in &report.events[left_out..] {
        line(format_args!("  {}", Line(event)));
    }
    text
}

/// An event in one line.
struct Line<'a>(&'a Told);

impl std::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told = self.0;
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(told.at_ms) * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        write!(f, "{:02}:{:02}:{:02}.{:03}Z  {}", at.hour(), at.minute(), at.second(), at.millisecond(), told.event)?;
        if let Some(count) = told.count {
            write!(f, " ×{count}")?;
        }
        match (told.peer, told.to) {
            (Some(peer), Some(to)) => write!(f, "  {} → {}", short(peer), short(to))?,
            (Some(peer), None) => write!(f, "  {}", short(peer))?,
            (None, _) => {}
        }
        let facts = [&told.transport, &told.outcome, &told.code, &told.reason, &told.candidate_type];
        for fact in facts.into_iter().flatten().filter(|fact| *fact != "delivered") {
            write!(f, "  {fact}")?;
        }
        if let Some(bytes) = told.bytes {
            write!(f, "  {bytes} bytes")?;
        }
        if let Some(after) = told.after_ms {
            write!(f, "  after {after} ms")?;
        }
        if let Some(until) = told.until_ms {
            write!(f, "  in {} ms", until.saturating_sub(told.at_ms))?;
        }
        Ok(())
    }
}

/// As the server's texts call a peer.
fn short(peer: PeerId) -> String {
    let text = peer.to_string();
    format!("…{}", &text[text.len() - 6..])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn timeline(state: Option<&str>) -> Report {
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
            tell(&timeline(Some("complete")), 2),
            "demo (open): All is \u{fffd}[2J said.\n\n  1 events left out (--events), 3 forgotten\n  \
             01:02:03.005Z  candidate ×4  …000002 → …000001  kept  400 bytes  in 40 ms\n  \
             01:02:03.050Z  answer  …000002 → …000001  9 bytes\n"
        );
    }

    #[test]
    fn without_events_there_is_the_verdict_alone() {
        assert_eq!(tell(&timeline(None), 0).lines().count(), 1);
    }

    #[test]
    fn scripts_can_tell_verdicts_apart() {
        let codes = [Some("complete"), Some("media"), Some("noAnswer"), None].map(|state| code(&timeline(state)));
        assert_eq!(codes, [0, 0, INCOMPLETE, ALONE]);
    }
}
