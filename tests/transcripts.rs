//! The conformance suite: conversations written down in `tests/transcripts/*.txt`, held over every transport.
//!
//! One line is one step, `#` begins a comment, each conversation has a room of its own:
//! - `alice > TEXT` sends the text as one message, which must be good by the JSON Schema that the server gives out; the first
//!   one opens the transport.
//! - `alice ! TEXT` sends what must be bad by it.
//! - `alice < PATTERN` waits for the next message (pings aside) and compares. A pattern is JSON; `"$name"` stands for any value
//!   the first time and for that same value afterwards, `"$_"` always for any value; `"...":0` in an object lets further
//!   members be there. `$name` in a sent text is replaced by the value. Whatever comes must be as the JSON Schema has it,
//!   without anything more.
//! - `alice hears nothing`: a ping is answered by the very next message.
//! - `$token.guest` and `$token.moderator` in a sent text are tokens, in conversations with a server that asks for them.
//! - `alice disconnects`: the connection is gone without a word.
//! - `alice ends`, `alice ends with 4500`: the server closes, tidily or with that close code.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use wigwag::auth::Algorithm;
use wigwag::client::{Connection, Event, Via};

use crate::schema::Messages;
use crate::support::{TestServer, within};
use crate::tokens::Issuer;

/// Conversations that anybody may hold.
pub(crate) const TRANSCRIPTS: [(&str, &str); 6] = [
    ("call", include_str!("transcripts/call.txt")),
    ("messages", include_str!("transcripts/messages.txt")),
    ("bad-messages", include_str!("transcripts/bad-messages.txt")),
    ("refused-first-messages", include_str!("transcripts/refused-first-messages.txt")),
    ("resume", include_str!("transcripts/resume.txt")),
    ("join-key", include_str!("transcripts/join-key.txt")),
];

/// Conversations at a server that asks for tokens.
pub(crate) const WAITING: [(&str, &str); 2] = [
    ("waiting-room", include_str!("transcripts/waiting-room.txt")),
    ("waiting-again", include_str!("transcripts/waiting-again.txt")),
];

/// Messages that no conversation here can bring about: they need keys, time, or a server that drains.
const ELSEWHERE: [&str; 4] = ["roomUpdated", "tokenExpiring", "goAway", "ping"];

struct Stage<'a> {
    /// The servers of the speakers, in the order of their entrance, taken in turn. Who shows a ticket or key comes to the one that
    /// has its seat.
    servers: &'a [&'a TestServer],
    /// Which of them has which ticket or key.
    places: HashMap<String, usize>,
    /// At which of them each speaker is.
    stand: HashMap<String, usize>,
    room: String,
    /// The transports of the speakers, in the order of their entrance, taken in turn.
    cast: &'a [Via],
    speakers: HashMap<String, Option<Connection>>,
    entered: usize,
    bound: HashMap<String, Value>,
    /// The types of all messages so far.
    met: &'a mut BTreeSet<String>,
}

impl Stage<'_> {
    async fn perform(&mut self, line: &str) -> Result<(), String> {
        let (who, action) = line.split_once(' ').ok_or("a step is `who action`")?;
        if let Some(text) = action.strip_prefix("> ").or(action.strip_prefix("! ")) {
            let text = self.fill_in(text);
            self.check_sent(&text, action.starts_with('>'))?;
            let connection = self.enter(who, &text).await;
            return connection.send(&text).await.map_err(|error| format!("cannot send: {error}"));
        }
        if let Some(pattern) = action.strip_prefix("< ") {
            let mut pattern: Value = serde_json::from_str(pattern).map_err(|error| format!("the pattern: {error}"))?;
            if self.servers.len() > 1 {
                forget_revisions(&mut pattern);
            }
            let message = self.hear(who).await?;
            return matches(&pattern, &message, &mut self.bound).map_err(|why| format!("{why}\n  got {message}"));
        }
        match action {
            "hears nothing" => {
                self.speaker(who)?.send(r#"{"type":"ping","id":999999}"#).await.map_err(|error| error.to_string())?;
                let message = self.hear(who).await?;
                let silent = message == json!({"type": "pong", "id": 999999});
                if silent { Ok(()) } else { Err(format!("heard {message}")) }
            }
            "disconnects" => {
                self.speakers.insert(who.to_owned(), None);
                Ok(())
            }
            _ => self.ends(who, action).await,
        }
    }

    fn check_sent(&mut self, text: &str, should_be_good: bool) -> Result<(), String> {
        let message = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"));
        match message.and_then(|message: Value| Messages::get().check_client(&message).map(|()| message)) {
            Ok(message) if should_be_good => {
                self.meet(&message);
                Ok(())
            }
            Ok(_) => Err("is good by the schema: write >".to_owned()),
            Err(why) if should_be_good => Err(format!("write ! for what is {why}")),
            Err(_) => Ok(()),
        }
    }

    fn meet(&mut self, message: &Value) {
        self.met.extend(message["type"].as_str().map(str::to_owned));
    }

    async fn ends(&mut self, who: &str, action: &str) -> Result<(), String> {
        let expected = match action.strip_prefix("ends").ok_or_else(|| format!("unknown step: {action}"))? {
            "" => None,
            code => {
                Some(code.trim_start_matches(" with ").parse::<u32>().map_err(|error| format!("the code: {error}"))?)
            }
        };
        match within(self.speaker(who)?.recv()).await {
            Ok(Event::Closed { code, .. }) => {
                // Without a reason to tell, WebSocket says 1000 (normal closure) and WebTransport 0.
                let tidy = expected.is_none() && matches!(code, None | Some(0 | 1000));
                if tidy || (code.is_some() && code == expected) { Ok(()) } else { Err(format!("closed with {code:?}")) }
            }
            other => Err(format!("not closed: {other:?}")),
        }
    }

    async fn enter(&mut self, who: &str, text: &str) -> &mut Connection {
        if !self.speakers.contains_key(who) {
            let via = self.cast[self.entered % self.cast.len()];
            let speaker = who.split('-').next().unwrap_or(who);
            let shown = self.places.iter().find(|(proof, _)| text.contains(proof.as_str()));
            let place = shown.map_or(self.entered, |(_, place)| *place) % self.servers.len();
            if let Ok(Value::String(key)) = serde_json::from_str(text).map(|first: Value| first["key"].clone()) {
                self.places.insert(key, place);
            }
            let connection = self.servers[place].connect(via, &self.room).await;
            self.bound.entry(format!("{speaker}.transport")).or_insert_with(|| json!(via.transport().name()));
            self.speakers.insert(who.to_owned(), Some(connection));
            self.stand.insert(who.to_owned(), place);
            self.entered += 1;
        }
        self.speakers.get_mut(who).and_then(Option::as_mut).expect("who has disconnected speaks under another name")
    }

    fn speaker(&mut self, who: &str) -> Result<&mut Connection, String> {
        self.speakers.get_mut(who).and_then(Option::as_mut).ok_or_else(|| format!("{who} is not connected"))
    }

    async fn hear(&mut self, who: &str) -> Result<Value, String> {
        loop {
            let message = match within(self.speaker(who)?.recv()).await {
                Ok(Event::Message(text) | Event::Datagram(text)) => text,
                other => return Err(format!("no message but {other:?}")),
            };
            let message: Value = serde_json::from_str(&message).map_err(|error| format!("not JSON: {error}"))?;
            Messages::get().check_server(&message).map_err(|why| format!("{why}\n  got {message}"))?;
            self.meet(&message);
            if let Some(ticket) = message["ticket"].as_str() {
                self.places.insert(ticket.to_owned(), self.stand[who]);
            }
            if message["type"] != "ping" {
                return Ok(message);
            }
        }
    }

    fn fill_in(&self, text: &str) -> String {
        let mut names: Vec<_> = self.bound.iter().filter_map(|(name, value)| Some((name, value.as_str()?))).collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
    }
}

/// Each node counts what it has heard of a room, so that one who comes later to another node finds another number.
fn forget_revisions(pattern: &mut Value) {
    for place in ["/revision", "/room/revision"] {
        if let Some(revision) = pattern.pointer_mut(place) {
            *revision = json!("$_");
        }
    }
}

/// Compares a message with a pattern; binds the names that it has not met before.
fn matches(pattern: &Value, value: &Value, bound: &mut HashMap<String, Value>) -> Result<(), String> {
    match (pattern, value) {
        (Value::String(name), _) if name == "$_" => Ok(()),
        (Value::String(name), _) if name.starts_with('$') => {
            let known = bound.entry(name[1..].to_owned()).or_insert_with(|| value.clone());
            if known == value { Ok(()) } else { Err(format!("{name} is {known}, not {value}")) }
        }
        (Value::Object(pattern), Value::Object(value)) => matches_object(pattern, value, bound),
        (Value::Array(pattern), Value::Array(value)) if pattern.len() == value.len() => {
            pattern.iter().zip(value).try_for_each(|(pattern, value)| matches(pattern, value, bound))
        }
        _ if pattern == value => Ok(()),
        _ => Err(format!("expected {pattern}, got {value}")),
    }
}

fn matches_object(
    pattern: &Map<String, Value>,
    value: &Map<String, Value>,
    bound: &mut HashMap<String, Value>,
) -> Result<(), String> {
    for (name, pattern) in pattern.iter().filter(|(name, _)| *name != "...") {
        let value = value.get(name).ok_or_else(|| format!("\"{name}\" is missing"))?;
        matches(pattern, value, bound).map_err(|why| format!("{name}: {why}"))?;
    }
    match value.keys().find(|name| !pattern.contains_key(*name)) {
        Some(name) if !pattern.contains_key("...") => Err(format!("unexpected \"{name}\"")),
        _ => Ok(()),
    }
}

/// Holds a conversation at `servers`, which are one or the nodes of a cluster.
pub(crate) async fn hold(
    servers: &[&TestServer],
    tokens: &[(&str, String)],
    met: &mut BTreeSet<String>,
    (title, text): (&str, &str),
    cast: &[Via],
) {
    let casting = cast.iter().map(|via| via.name()).collect::<Vec<_>>().join("+");
    let room = format!("{title}.{}.{}", cast.len(), cast[0].name());
    let mut bound = HashMap::from([("room".to_owned(), json!(room))]);
    bound.extend(tokens.iter().map(|(name, token)| (format!("token.{name}"), json!(token))));
    let (speakers, places, stand) = Default::default();
    let mut stage = Stage { servers, places, stand, room, cast, speakers, entered: 0, bound, met };
    let mut said = String::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Err(why) = stage.perform(line).await {
            panic!("{title} over {casting}, line {}: {why}\n{said}{line}", number + 1);
        }
        let _ = writeln!(said, "  {line}");
    }
}

/// The tokens that conversations name.
pub(crate) fn tokens(issuer: &Issuer) -> [(&'static str, String); 2] {
    [
        ("guest", issuer.token(&json!({"sub": "gina", "grants": ["message"]}))),
        ("moderator", issuer.token(&json!({"sub": "mo", "grants": ["join", "message", "moderate"]}))),
    ]
}

/// Every conversation with all speakers on one transport, and with the transports mixed in each order.
#[tokio::test]
async fn conversations_are_the_same_over_every_transport() {
    let server = TestServer::start().await;
    let issuer = Issuer::generate(Algorithm::EdDsa);
    let guarded = issuer.server().await;
    let tokens = tokens(&issuer);
    let mut met = BTreeSet::new();
    let mut casts: Vec<Vec<Via>> = Via::ALL.iter().map(|&via| vec![via]).collect();
    let lasting: Vec<Via> = Via::ALL.into_iter().filter(|&via| !via.is_long_poll()).collect();
    casts.push(lasting);
    for first in 0..Via::ALL.len() {
        let mut mixed = Via::ALL.to_vec();
        mixed.rotate_left(first);
        casts.push(mixed);
    }
    for (title, text) in TRANSCRIPTS {
        for cast in &casts {
            // Between two polls there is no transport to lose or to be replaced.
            if matches!(title, "resume" | "join-key") && cast.iter().any(|via| via.is_long_poll()) {
                continue;
            }
            hold(&[&server], &[], &mut met, (title, text), cast).await;
        }
    }
    for (title, text) in WAITING {
        for cast in &casts {
            if title == "waiting-again" && cast.iter().any(|via| via.is_long_poll()) {
                continue;
            }
            hold(&[&guarded], &tokens, &mut met, (title, text), cast).await;
        }
    }
    let known = Messages::get().client_types().into_iter().chain(Messages::get().server_types());
    let missing: Vec<&str> = known.filter(|name| !met.contains(*name) && !ELSEWHERE.contains(name)).collect();
    assert!(missing.is_empty(), "no conversation has {missing:?}");
    server.stop().await;
    guarded.stop().await;
}
