//! `wigwag join`: a peer in the terminal, for trying a server out and for scripts.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use http::Uri;
use rustls::RootCertStore;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

use super::{End, told_to_stop};
use crate::client::seat::Token;
use crate::client::session::{Closed, Event, Joined, Options, Refused, Session};
use crate::client::{Endpoint, Payload, Request, Trust, Via, authorities};
use crate::config::Span;
use crate::error::StartError;
use crate::files;
use crate::protocol::RoomName;

/// Lines that were sent and have no answer yet; more of the input is read when there are fewer.
const UNANSWERED: usize = 32;

/// The server has refused or ended the session.
const REFUSED: u8 = 3;
/// The room was left in order, but the server had refused a line.
const LINE_REFUSED: u8 = 4;

/// What `wigwag join` is told.
#[derive(Args)]
pub struct JoinArgs {
    /// Name of the room
    room: String,
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://localhost:8080", env = "WIGWAG_SERVER")]
    server: String,
    /// Use this transport only; otherwise all that the server names are tried, best first
    #[arg(long, value_enum, value_name = "TRANSPORT")]
    via: Option<ViaName>,
    /// The name that others see
    #[arg(long, default_value = "terminal")]
    name: String,
    /// Show this token, where the server asks for one
    #[arg(long, value_name = "TOKEN", env = "WIGWAG_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Show the token in this file; it is read again when that one is about to end
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Trust the certificate authority in this PEM file, beside the system's
    #[arg(long, value_name = "FILE", default_value = "certs/ca.pem")]
    ca: PathBuf,
    /// If the server cannot be reached, go on trying to join for so long, as 10s
    #[arg(long, value_name = "TIME", default_value = "0s")]
    wait: Span,
    /// Print each event as JSON, one a line
    #[arg(long)]
    json: bool,
}

/// The token must not show in a log.
impl fmt::Debug for JoinArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinArgs({} at {})", self.room, self.server)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ViaName {
    Webtransport,
    WebsocketH3,
    WebsocketH2,
    WebsocketH1,
    EventStreamH3,
    EventStreamH2,
    #[value(alias = "event-stream")]
    EventStreamH1,
    LongPollH3,
    LongPollH2,
    #[value(alias = "long-poll")]
    LongPollH1,
}

impl ViaName {
    pub(super) fn via(self) -> Via {
        match self {
            ViaName::Webtransport => Via::WebTransport,
            ViaName::WebsocketH3 => Via::WebSocketH3,
            ViaName::WebsocketH2 => Via::WebSocketH2,
            ViaName::WebsocketH1 => Via::WebSocketH1,
            ViaName::EventStreamH3 => Via::EventStreamH3,
            ViaName::EventStreamH2 => Via::EventStreamH2,
            ViaName::EventStreamH1 => Via::EventStreamH1,
            ViaName::LongPollH3 => Via::LongPollH3,
            ViaName::LongPollH2 => Via::LongPollH2,
            ViaName::LongPollH1 => Via::LongPollH1,
        }
    }
}

pub(super) fn run(args: &JoinArgs) -> Result<(), End> {
    let options = options(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let end = runtime.block_on(Box::pin(join(args, options)));
    // A read of the terminal cannot be given up, and nobody may type another line.
    runtime.shutdown_background();
    end
}

fn options(args: &JoinArgs) -> Result<Options, End> {
    let room = RoomName::parse(&args.room).map_err(|error| StartError::new(format_args!("{}: {error}", args.room)))?;
    let server: Uri = args.server.parse().map_err(|error| StartError::new(format_args!("--server: {error}")))?;
    let endpoint = Endpoint::of(&server).map_err(|error| StartError::new(format_args!("--server: {error}")))?;
    let trust = Trust::new(roots(&args.ca)?, Vec::new()).context("cannot do TLS")?;
    let options = Options::at(endpoint, room, trust).patience(args.wait.0);
    let options = options.metadata(&json!({"name": args.name})).context("cannot say the name")?;
    let options = match (&args.token_file, &args.token) {
        (Some(path), _) => {
            let token = token_of(path).map_err(|error| StartError::new(format_args!("--token-file {error}")))?;
            let path = path.clone();
            options.token(token).renew_token(move || std::future::ready(token_of(&path)))
        }
        (None, token) => Options { token: token.clone().map(Token), ..options },
    };
    Ok(options.transports(args.via.map(ViaName::via).into_iter().collect::<Vec<_>>()))
}

/// The token in a file.
fn token_of(path: &Path) -> Result<String, String> {
    let bytes = files::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is not text", path.display()))?;
    match text.trim() {
        "" => Err(format!("{} is empty; it must hold a token", path.display())),
        token => Ok(token.to_owned()),
    }
}

/// The system's authorities, and those of the file; the default one need not be there.
pub(super) fn roots(ca: &Path) -> Result<RootCertStore, StartError> {
    let ca = Some(ca).filter(|ca| ca.exists() || *ca != Path::new("certs/ca.pem"));
    authorities(ca).map_err(|error| StartError::new(format_args!("--ca {error}")))
}

async fn join(args: &JoinArgs, options: Options) -> Result<(), End> {
    let session = tokio::select! {
        session = Session::connect(options) => session.map_err(|why| not_joined(args, why))?,
        () = told_to_stop() => return Ok(()),
    };
    let typed = BufReader::new(tokio::io::stdin()).lines();
    Terminal { args, session, waits: false, typed, said: 0, answers: FuturesUnordered::new(), refused: 0 }.talk().await
}

/// Why there is no session, in the terms of who wanted one.
fn not_joined(args: &JoinArgs, why: Closed) -> End {
    match (why.code.as_str(), args.via) {
        ("unsupported", Some(ViaName::WebsocketH2)) if args.server.starts_with("http:") => {
            StartError::new("that server names no TLS address; give --server https://localhost:4433").into()
        }
        ("unsupported", _) => StartError::new(why.message).into(),
        ("unreachable", _) => anyhow!("cannot join {} at {}: {}", args.room, args.server, why.message).into(),
        _ => End::Told(format!("the server refuses: {why}"), REFUSED),
    }
}

/// A session between a room and a terminal.
struct Terminal<'a> {
    args: &'a JoinArgs,
    session: Session,
    /// Until a moderator has let one in: what is typed would only wait, and the end of the input is none of one's stay.
    waits: bool,
    typed: Lines<BufReader<Stdin>>,
    /// Lines read.
    said: usize,
    /// What they are still to be answered, by their numbers.
    answers: FuturesUnordered<BoxFuture<'static, (usize, Result<(), Refused>)>>,
    refused: usize,
}

impl Terminal<'_> {
    /// Prints what comes and sends what is typed, until the session is over, the input ends, or one is told to stop.
    async fn talk(mut self) -> Result<(), End> {
        let mut stop = Box::pin(told_to_stop());
        let mut reading = true;
        while reading || self.waits || !self.answers.is_empty() {
            let may_read = reading && !self.waits && self.answers.len() < UNANSWERED;
            tokio::select! {
                event = self.session.next() => self.happened(event)?,
                line = self.typed.next_line(), if may_read => match line.context("cannot read the input")? {
                    Some(line) => self.say(&line).await?,
                    None => reading = false,
                },
                Some((line, answer)) = self.answers.next() => self.answered(line, answer),
                () = &mut stop => break,
            }
        }
        self.leave().await
    }

    fn happened(&mut self, event: Option<Event>) -> Result<(), End> {
        let Some(event) = event else { return Err(anyhow!("the session is over").into()) };
        self.print(&event)?;
        match event {
            Event::Waiting => self.waits = true,
            Event::Joined(_) => self.waits = false,
            Event::Closed(why) => return Err(End::Told(format!("the server ended the session: {why}"), REFUSED)),
            _ => {}
        }
        Ok(())
    }

    /// Sends a line: an object is a message of the protocol's, anything else is said to the whole room.
    async fn say(&mut self, line: &str) -> Result<(), End> {
        self.said += 1;
        let number = self.said;
        if line.is_empty() {
            return Ok(());
        }
        let request = if line.starts_with('{') { Request::from_json(line) } else { Request::broadcast(line) };
        match request {
            Ok(request) => {
                let answer = self.session.send(request).await.context("cannot send")?;
                self.answers.push(answer.map(move |answer| (number, answer)).boxed());
            }
            Err(error) => self.complain(number, &error),
        }
        Ok(())
    }

    fn answered(&mut self, line: usize, answer: Result<(), Refused>) {
        if let Err(why) = answer {
            self.complain(line, &why);
        }
    }

    fn complain(&mut self, line: usize, why: &dyn std::fmt::Display) {
        self.refused += 1;
        eprintln!("wigwag: line {line} was refused: {why}");
    }

    async fn leave(mut self) -> Result<(), End> {
        self.session.leave().await;
        while let Some(event) = self.session.next().await {
            match event {
                Event::Closed(why) if why.code != "left" => return self.happened(Some(Event::Closed(why))),
                event => self.print(&event)?,
            }
        }
        match self.refused {
            0 => Ok(()),
            1 => Err(End::Told("a line was refused".into(), LINE_REFUSED)),
            count => Err(End::Told(format!("{count} lines were refused"), LINE_REFUSED)),
        }
    }

    fn print(&self, event: &Event) -> Result<(), End> {
        let line = if self.args.json { serde_json::to_string(event).context("cannot print")? } else { harmless(event) };
        if line.is_empty() {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        Ok(writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot print")?)
    }
}

/// The same without control characters: what others say must not drive the terminal.
fn harmless(event: &Event) -> String {
    plainly(event).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// One event for a person to read; empty for what only a program cares about.
fn plainly(event: &Event) -> String {
    match event {
        Event::Joined(joined) => welcome(joined),
        Event::Resumed { transport } => format!("connected again over {transport}; nothing was lost"),
        Event::TransportChanged { from, to } => format!("moved from {from} to {to}"),
        Event::Reconnecting { why, retry_in } if retry_in.is_zero() => format!("connection lost ({why}); reconnecting"),
        Event::Reconnecting { why, retry_in } => {
            format!("no connection ({why}); trying again in {:.1} s", retry_in.as_secs_f32())
        }
        Event::PeerJoined(peer) => format!("{} joined", named(&peer.metadata, &peer.peer)),
        Event::PeerUpdated(peer) => format!("{} has new metadata", named(&peer.metadata, &peer.peer)),
        Event::PeerAway { peer } => format!("{} is away", short(peer)),
        Event::PeerBack { peer } => format!("{} is back", short(peer)),
        Event::PeerLeft { peer, reason } => format!("{} left ({reason})", short(peer)),
        Event::RoomUpdated { locked: true } => "the room is locked".into(),
        Event::RoomUpdated { locked: false } => "the room is open".into(),
        Event::Message { from, data } => match data.read() {
            Ok(Value::String(said)) => format!("{}: {said}", short(from)),
            _ => format!("{}: {}", short(from), data.json()),
        },
        Event::Description { from, description } => {
            let kind = description.read::<Value>().unwrap_or_default();
            format!("{} sends a description ({})", short(from), kind["type"].as_str().unwrap_or_default())
        }
        Event::Candidate { from, .. } => format!("{} sends a candidate", short(from)),
        Event::Waiting => "waiting to be admitted".into(),
        Event::Knock(peer) => {
            let (name, id) = (named(&peer.metadata, &peer.peer), &peer.peer);
            format!(r#"{name} waits to be admitted: {{"type":"admit","peer":"{id}"}}, or "refuse""#)
        }
        Event::Invitation { token, expires_in } => {
            format!("an invitation, good for {:.0} s: {}", expires_in.as_secs_f32(), token.0)
        }
        Event::TokenExpiring { expires_in } => format!("the token expires in {:.0} s", expires_in.as_secs_f32()),
        Event::Refused(why) => why.to_string(),
        Event::GoAway { after } => format!("the server shuts down within {:.1} s", after.as_secs_f32()),
        Event::Closed(why) if why.code == "left" => "left".into(),
        Event::Closed(_) | Event::IceServers(_) => String::new(),
    }
}

fn welcome(joined: &Joined) -> String {
    let others: Vec<String> = joined.peers.iter().map(|peer| named(&peer.metadata, &peer.peer)).collect();
    let others = if others.is_empty() { "nobody else is here".to_owned() } else { others.join(", ") };
    let own = named(&joined.own.metadata, &joined.own.peer);
    let over = joined.transport.as_ref().map_or_else(String::new, |transport| format!(" over {transport}"));
    let lost = match joined.lost {
        None | Some(0) => String::new(),
        Some(lost) => format!("; {lost} messages were lost"),
    };
    format!("joined {}{over} as {own}: {others}{lost}", joined.room.name)
}

/// A peer by its name and as much of its id as tells it from others.
fn named(metadata: &Payload, peer: &str) -> String {
    let metadata = metadata.read::<Value>().unwrap_or_default();
    format!("{} ({})", metadata["name"].as_str().unwrap_or_default(), short(peer)).trim_start().to_owned()
}

/// The end of an id, which is where it differs from others.
fn short(peer: &str) -> &str {
    let start = peer.char_indices().rev().nth(5).map_or(0, |(at, _)| at);
    &peer[start..]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn events_are_told_in_words() {
        let said = |json: &str| Payload::from_json(json).expect("JSON");
        let from = || "0197-abcdef".to_owned();
        for (event, told) in [
            (Event::Message { from: from(), data: said(r#""hello""#) }, "abcdef: hello"),
            (Event::Message { from: from(), data: said(r#"{"n":1e400}"#) }, r#"abcdef: {"n":1e400}"#),
            (Event::PeerLeft { peer: from(), reason: "timeout".into() }, "abcdef left (timeout)"),
            (Event::PeerBack { peer: "ab".into() }, "ab is back"),
            (
                Event::TransportChanged { from: "websocket-h2".into(), to: "webtransport".into() },
                "moved from websocket-h2 to webtransport",
            ),
            (
                Event::Reconnecting { why: "it broke".into(), retry_in: Duration::from_millis(1500) },
                "no connection (it broke); trying again in 1.5 s",
            ),
        ] {
            assert_eq!(harmless(&event), told);
        }
        let escape = Event::Message { from: from(), data: said(r#""\u001b[2J\nbye""#) };
        assert_eq!(harmless(&escape), "abcdef: \u{fffd}[2J\u{fffd}bye");
    }
}
