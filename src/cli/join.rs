//! `wigwag join`: a peer in the terminal, for trying a server out and for scripts.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use http::{HeaderMap, Method, Uri};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::time::timeout;

use super::End;
use crate::client::{Connection, Endpoint, Event, Http1, Trust, Via, certificate_hashes};
use crate::error::StartError;
use crate::protocol::{ROOMS_PATH, RoomName};

/// A transport that has not brought `joined` within this time is given up for the next.
const PATIENCE: Duration = Duration::from_secs(5);

/// After `leave`, how long its `ok` is waited for.
const FAREWELL: Duration = Duration::from_secs(2);

/// What `wigwag join` is told.
#[derive(Debug, Args)]
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
    /// Trust the certificate authority in this PEM file
    #[arg(long, value_name = "FILE", default_value = "certs/ca.pem")]
    ca: PathBuf,
    /// Print each message as the JSON that it is
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ViaName {
    Webtransport,
    WebsocketH3,
    WebsocketH2,
    WebsocketH1,
    EventStream,
    LongPoll,
}

impl ViaName {
    fn via(self) -> Via {
        match self {
            ViaName::Webtransport => Via::WebTransport,
            ViaName::WebsocketH3 => Via::WebSocketH3,
            ViaName::WebsocketH2 => Via::WebSocketH2,
            ViaName::WebsocketH1 => Via::WebSocketH1,
            ViaName::EventStream => Via::EventStream,
            ViaName::LongPoll => Via::LongPoll,
        }
    }
}

pub(super) fn run(args: &JoinArgs) -> Result<(), End> {
    let room = RoomName::parse(&args.room).map_err(|error| StartError::new(format_args!("{}: {error}", args.room)))?;
    let server: Uri = args.server.parse().map_err(|error| StartError::new(format_args!("--server: {error}")))?;
    let endpoint = Endpoint::of(&server).map_err(|error| StartError::new(format_args!("--server: {error}")))?;
    let roots = roots(&args.ca)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(Box::pin(join(args, &room, &endpoint, roots)))
}

/// The authorities of the file; none if the default one is not there, since a plaintext server's hashes are enough.
fn roots(ca: &Path) -> Result<RootCertStore, StartError> {
    let mut roots = RootCertStore::empty();
    if ca.exists() || ca != Path::new("certs/ca.pem") {
        let unusable = |error: &dyn std::fmt::Display| StartError::new(format_args!("--ca {}: {error}", ca.display()));
        let certificate = CertificateDer::from_pem_file(ca).map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    Ok(roots)
}

async fn join(args: &JoinArgs, room: &RoomName, endpoint: &Endpoint, roots: RootCertStore) -> Result<(), End> {
    let trust = Trust::new(roots, Vec::new()).context("cannot do TLS")?;
    let discovery = discover(endpoint, &trust).await.with_context(|| format!("cannot reach {}", args.server))?;
    let trust = Trust { hashes: certificate_hashes(&discovery), ..trust };
    let (mut connection, joined) = first_that_joins(args, room, &discovery, &trust).await?;
    print(args, &joined)?;
    let mut typed = BufReader::new(tokio::io::stdin()).lines();
    talk(args, &mut connection, &mut typed).await
}

async fn discover(endpoint: &Endpoint, trust: &Trust) -> anyhow::Result<Value> {
    let mut connection = timeout(PATIENCE, Http1::connect(endpoint, &trust.tls)).await??;
    let answer = timeout(PATIENCE, connection.request(Method::GET, "/v1/discovery", &HeaderMap::new())).await??;
    Ok(serde_json::from_slice(answer.body())?)
}

/// Where each transport is served, best first. WebSocket over HTTP/3 is where WebTransport is.
fn offers(discovery: &Value) -> Vec<(Via, Endpoint)> {
    let mut offers = Vec::new();
    for transport in discovery["transports"].as_array().into_iter().flatten() {
        let url = transport["url"].as_str().and_then(|url| url.split(ROOMS_PATH).next()?.parse::<Uri>().ok());
        let Some(endpoint) = url.and_then(|url| Endpoint::of(&url).ok()) else { continue };
        let vias: &[Via] = match transport["type"].as_str() {
            Some("webtransport") => &[Via::WebTransport, Via::WebSocketH3],
            Some("websocket") if endpoint.encrypted => &[Via::WebSocketH2, Via::WebSocketH1],
            Some("websocket") => &[Via::WebSocketH1],
            Some("event-stream") => &[Via::EventStream],
            Some("long-poll") => &[Via::LongPoll],
            _ => &[],
        };
        offers.extend(vias.iter().map(|&via| (via, endpoint.clone())));
    }
    offers
}

async fn first_that_joins(
    args: &JoinArgs,
    room: &RoomName,
    discovery: &Value,
    trust: &Trust,
) -> Result<(Connection, String), End> {
    let mut offers = offers(discovery);
    if args.via.is_none() {
        // Where WebTransport does not get through, another way over QUIC would not either.
        offers.retain(|(via, _)| *via != Via::WebSocketH3);
    }
    if let Some(name) = args.via {
        offers.retain(|(via, _)| *via == name.via());
        if offers.is_empty() && name == ViaName::WebsocketH2 {
            return Err(
                StartError::new("that server names no TLS address; give --server https://localhost:4433").into()
            );
        }
    }
    let mut failures = String::new();
    for (via, endpoint) in offers {
        match timeout(PATIENCE, try_join(args, room, via, &endpoint, trust)).await {
            Ok(Ok(joined)) => return Ok(joined),
            Ok(Err(error)) => failures += &format!("; {}: {error:#}", via.transport().name()),
            Err(_) => failures += &format!("; {}: no answer in time", via.transport().name()),
        }
    }
    Err(anyhow!("cannot join {room}{failures}").into())
}

async fn try_join(
    args: &JoinArgs,
    room: &RoomName,
    via: Via,
    endpoint: &Endpoint,
    trust: &Trust,
) -> anyhow::Result<(Connection, String)> {
    let mut connection = Connection::open(endpoint, room, via, trust, &HeaderMap::new()).await?;
    let join = json!({"type": "join", "metadata": {"name": args.name}});
    connection.send(&join.to_string()).await?;
    match connection.recv().await? {
        Event::Message(message) if message.contains(r#""type":"joined""#) => Ok((connection, message)),
        Event::Message(message) => Err(anyhow!("{message}")),
        other => Err(anyhow!("{other:?}")),
    }
}

/// Prints what comes and sends what is typed, until the server closes, the input ends, or Ctrl-C.
async fn talk(args: &JoinArgs, connection: &mut Connection, typed: &mut Lines<BufReader<Stdin>>) -> Result<(), End> {
    let mut reading = true;
    loop {
        tokio::select! {
            event = connection.recv() => match event.context("the connection is lost")? {
                Event::Message(message) | Event::Datagram(message) => {
                    print(args, &message)?;
                    acknowledge(connection, &message).await?;
                }
                Event::Closed { code, reason } => {
                    let code = code.map_or_else(String::new, |code| format!(" with {code}"));
                    return Err(anyhow!("the server closed the session{code} {reason}").into());
                }
            },
            line = typed.next_line(), if reading => match line.context("cannot read the input")? {
                Some(line) if line.is_empty() => {}
                // A line that is an object is a message of the protocol's; anything else is said to the whole room.
                Some(line) if line.starts_with('{') => connection.send(&line).await.context("cannot send")?,
                Some(line) => {
                    let message = json!({"type": "message", "data": line});
                    connection.send(&message.to_string()).await.context("cannot send")?;
                }
                None => reading = false,
            },
            _ = tokio::signal::ctrl_c() => return leave(connection).await,
        }
        if !reading {
            return leave(connection).await;
        }
    }
}

async fn acknowledge(connection: &mut Connection, message: &str) -> Result<(), End> {
    let message: Value = serde_json::from_str(message).unwrap_or_default();
    if let Some(seq) = message["seq"].as_u64().filter(|seq| seq.is_multiple_of(16)) {
        connection.send(&json!({"type": "ack", "seq": seq}).to_string()).await.context("cannot send")?;
    }
    Ok(())
}

async fn leave(connection: &mut Connection) -> Result<(), End> {
    connection.send(r#"{"type":"leave","id":9007199254740991}"#).await.context("cannot leave")?;
    let gone =
        timeout(FAREWELL, async { while !matches!(connection.recv().await, Err(_) | Ok(Event::Closed { .. })) {} });
    gone.await.map_err(|_| anyhow!("the server did not answer the farewell").into())
}

fn print(args: &JoinArgs, message: &str) -> Result<(), End> {
    let line = if args.json { message.to_owned() } else { plainly(message) };
    if line.is_empty() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot print")?)
}

/// One message for a person to read; empty for what only the protocol cares about.
fn plainly(message: &str) -> String {
    let message: Value = serde_json::from_str(message).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let who = |peer: &Value| text(peer).chars().rev().take(6).collect::<Vec<_>>().into_iter().rev().collect::<String>();
    let named = |member: &Value| format!("{} ({})", text(&member["metadata"]["name"]), who(&member["peer"]));
    match message["type"].as_str().unwrap_or_default() {
        "joined" => {
            let others: Vec<String> = message["peers"].as_array().into_iter().flatten().map(named).collect();
            let others = if others.is_empty() { "nobody else is here".into() } else { others.join(", ") };
            let transport = text(&message["transport"]);
            format!(
                "joined {} over {transport} as {}: {others}",
                text(&message["room"]["name"]),
                named(&message["self"])
            )
        }
        "peerJoined" => format!("{} joined", named(&message)),
        "peerUpdated" => format!("{} has new metadata", named(&message)),
        "peerAway" => format!("{} is away", who(&message["peer"])),
        "peerBack" => format!("{} is back", who(&message["peer"])),
        "peerLeft" => format!("{} left ({})", who(&message["peer"]), text(&message["reason"])),
        "message" => match &message["data"] {
            Value::String(said) => format!("{}: {said}", who(&message["from"])),
            data => format!("{}: {data}", who(&message["from"])),
        },
        "description" => format!("{} sends an {}", who(&message["from"]), text(&message["description"]["type"])),
        "candidate" => format!("{} sends a candidate", who(&message["from"])),
        "error" | "closed" => format!("{}: {}", text(&message["code"]), text(&message["message"])),
        "goAway" => format!("the server shuts down within {} ms", message["afterMs"]),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_tried_in_the_order_of_the_discovery() {
        let discovery = json!({"transports": [
            {"type": "webtransport", "url": "https://localhost:4433/v1/rooms/{room}"},
            {"type": "websocket", "url": "wss://localhost:4433/v1/rooms/{room}"},
            {"type": "carrier-pigeon", "url": "https://localhost:4433/v1/rooms/{room}"},
            {"type": "websocket", "url": "ws://[::1]:8080/v1/rooms/{room}"},
        ]});
        let offers: Vec<_> = offers(&discovery).into_iter().map(|(via, to)| (via, to.host, to.port)).collect();
        let local = |via| (via, "localhost".to_owned(), 4433);
        assert_eq!(
            offers,
            [
                local(Via::WebTransport),
                local(Via::WebSocketH3),
                local(Via::WebSocketH2),
                local(Via::WebSocketH1),
                (Via::WebSocketH1, "::1".to_owned(), 8080),
            ]
        );
    }

    #[test]
    fn messages_are_told_in_words() {
        for (message, told) in [
            (r#"{"type":"message","from":"0197-abcdef","data":"hello"}"#, "abcdef: hello"),
            (r#"{"type":"peerLeft","peer":"0197-abcdef","reason":"timeout"}"#, "abcdef left (timeout)"),
            (r#"{"type":"ok","id":1}"#, ""),
        ] {
            assert_eq!(plainly(message), told);
        }
    }
}
