//! Rooms that were recorded, played again: `tests/recordings/*.json` is what `wigwag why ROOM --json` has printed of a room somewhere.
//!
//! Members of a real server come, go and say what is recorded, in its order, with placeholders for what was said. It must come to
//! the same events and the same verdict. Other are times, ids and sizes, why the server closed a transport, and who locked the room;
//! and what went to another node of a cluster is delivered here. A recording that one server with clients that behave cannot bring
//! about is refused in words.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use wigwag::auth::Algorithm;
use wigwag::client::{Connection, Event, Via};
use wigwag::config::Config;
use wigwag::protocol::{PeerId, RoomName};
use wigwag::timeline::{Report, Told};

use crate::cli::{Shell, contains};
use crate::metrics::{Operator, observed};
use crate::support::{TestServer, within};
use crate::tokens::Issuer;

/// The resume window where somebody did not come back in time; all others do at once.
const SHORT: Duration = Duration::from_secs(1);

/// Somebody of a recording, as it is here.
struct Member {
    connection: Option<Connection>,
    peer: PeerId,
    ticket: String,
    /// The last message that it has heard.
    seq: u64,
    /// The last id that it has given.
    said: u64,
}

impl Member {
    /// The next message on its transport.
    async fn next(&mut self) -> Value {
        let connection = self.connection.as_mut().expect("it has a transport");
        loop {
            let Event::Message(text) = within(connection.recv()).await.expect("the session goes on") else { continue };
            let message: Value = serde_json::from_str(&text).expect("JSON");
            self.seq = message["seq"].as_u64().unwrap_or(self.seq);
            if let Some(ticket) = message["ticket"].as_str() {
                ticket.clone_into(&mut self.ticket);
            }
            return message;
        }
    }

    async fn hear(&mut self, kinds: &[&str]) -> Value {
        loop {
            let message = self.next().await;
            if kinds.iter().any(|kind| message["type"] == *kind) {
                return message;
            }
        }
    }

    /// Asks for it, and hears the answer, whichever it is.
    async fn ask(&mut self, mut request: Value) {
        self.said += 1;
        request["id"] = json!(self.said);
        let connection = self.connection.as_mut().expect("it has a transport");
        connection.send(&request.to_string()).await.expect("open");
        while self.next().await["id"] != self.said {}
    }
}

/// A recording that is being played.
struct Stage {
    recording: Report,
    issuer: Issuer,
    server: TestServer,
    operator: Operator,
    /// By their ids in the recording.
    members: HashMap<PeerId, Member>,
}

impl Stage {
    async fn of(recording: Report) -> Self {
        let issuer = Issuer::generate(Algorithm::EdDsa);
        let mut settings = Config { tokens: Some(issuer.policy()), ..observed() };
        // What is recorded as left out is sent with such an address.
        settings.limits.checks.drop_private = true;
        if recording.events.iter().any(|told| told.reason.as_deref() == Some("timeout")) {
            settings.resume_window = SHORT;
        }
        let server = TestServer::start_with(settings).await;
        let operator = Operator::of(&server).await;
        Stage { recording, issuer, server, operator, members: HashMap::new() }
    }

    /// Plays all of it; returns what is told of the room then.
    async fn play(&mut self) -> Result<Report, String> {
        if self.recording.dropped > 0 {
            return Err(format!("its first {} events were forgotten", self.recording.dropped));
        }
        let mut happened = 0;
        for (number, told) in self.recording.events.clone().into_iter().enumerate() {
            let name = format!("event {}, \"{}\"", number + 1, told.event);
            self.act(&told).await.map_err(|why| format!("{name}: {why}"))?;
            happened += u64::from(told.count.unwrap_or(1));
            // The next one may depend on what comes of this one by itself.
            let comes = async { while self.report().await.is_none_or(|report| count(&report) < happened) {} };
            tokio::time::timeout(Duration::from_secs(25), comes)
                .await
                .map_err(|_| format!("{name} does not happen"))?;
        }
        self.report().await.ok_or_else(|| "nothing is known of the room".to_owned())
    }

    /// What is told of the room; `None` as long as there is nothing.
    async fn report(&mut self) -> Option<Report> {
        let path = format!("/api/rooms/{}/timeline", self.recording.room);
        let (status, _, text) = self.operator.get(&path, &HeaderMap::new()).await;
        (status == StatusCode::OK).then(|| serde_json::from_str(&text).expect("a report"))
    }

    /// Brings one event about.
    async fn act(&mut self, told: &Told) -> Result<(), String> {
        match &*told.event {
            "joined" => self.enter(told, &["join", "publish", "message", "moderate"], "joined").await,
            "knocked" => self.enter(told, &["publish", "message"], "waiting").await,
            "admitted" => {
                let knocking = self.member(told.peer)?.peer;
                let is_inside = |member: &&mut Member| member.connection.is_some() && member.peer != knocking;
                let host = self.members.values_mut().find(is_inside).ok_or("there is nobody who could admit it")?;
                host.ask(json!({"type": "admit", "peer": knocking})).await;
                self.member(told.peer)?.hear(&["joined"]).await;
                Ok(())
            }
            "away" => {
                self.member(told.peer)?.connection = None;
                Ok(())
            }
            "back" | "moved" => self.resume(told).await,
            "left" => self.leave(told).await,
            "locked" | "unlocked" => {
                let locked = told.event == "locked";
                self.server.context.hub.lock_room(&self.room(), locked).map_err(|refusal| refusal.message.into_owned())
            }
            "refused" => self.be_refused(told).await,
            // It comes by itself when the last one has left.
            "ended" => Ok(()),
            _ => self.say(told).await,
        }
    }

    fn room(&self) -> RoomName {
        self.recording.room.clone()
    }

    fn member(&mut self, peer: Option<PeerId>) -> Result<&mut Member, String> {
        peer.and_then(|peer| self.members.get_mut(&peer)).ok_or_else(|| "by somebody who has not come".to_owned())
    }

    /// The id here of a peer of the recording. One who never came has the same, which nobody has here.
    fn id(&self, recorded: PeerId) -> PeerId {
        self.members.get(&recorded).map_or(recorded, |member| member.peer)
    }

    async fn connect(&self, told: &Told) -> Connection {
        let is_named = |via: &Via| Some(via.transport().name()) == told.transport.as_deref();
        // That of another node's member is not recorded.
        let via = Via::ALL.into_iter().find(is_named).unwrap_or(Via::WebSocketH2);
        self.server.connect(via, self.recording.room.as_str()).await
    }

    async fn enter(&mut self, told: &Told, grants: &[&str], answer: &str) -> Result<(), String> {
        let mut connection = self.connect(told).await;
        let token = self.issuer.token(&json!({"grants": grants}));
        let join = json!({"type": "join", "token": token, "key": told.peer});
        connection.send(&join.to_string()).await.map_err(|error| error.to_string())?;
        // Of one who knocks, only the moderators are told the id.
        let nobody = told.peer.ok_or("nobody came")?;
        let mut member = Member { connection: Some(connection), peer: nobody, ticket: String::new(), seq: 0, said: 0 };
        let heard = member.hear(&[answer, "closed"]).await;
        if heard["type"] != answer {
            return Err(heard.to_string());
        }
        let id = match answer {
            "joined" => heard["self"]["peer"].clone(),
            _ => self.knocking().await?,
        };
        member.peer = serde_json::from_value(id).map_err(|error| error.to_string())?;
        self.members.insert(nobody, member);
        Ok(())
    }

    /// Who knocked last, as the members hear.
    async fn knocking(&mut self) -> Result<Value, String> {
        let host = self.members.values_mut().find(|member| member.connection.is_some());
        Ok(host.ok_or("there is nobody who could hear it")?.hear(&["knock"]).await["peer"].clone())
    }

    async fn resume(&mut self, told: &Told) -> Result<(), String> {
        let mut connection = self.connect(told).await;
        let member = self.member(told.peer)?;
        let resume = json!({"type": "resume", "ticket": member.ticket, "seq": member.seq});
        connection.send(&resume.to_string()).await.map_err(|error| error.to_string())?;
        member.connection = Some(connection);
        let heard = member.hear(&["resumed", "joined", "closed"]).await;
        if heard["type"] == "closed" { Err(heard.to_string()) } else { Ok(()) }
    }

    async fn leave(&mut self, told: &Told) -> Result<(), String> {
        let room = self.room();
        let peer = self.member(told.peer)?.peer;
        match told.reason.as_deref() {
            Some("left") => self.member(told.peer)?.ask(json!({"type": "leave"})).await,
            Some("kicked") => {
                let removed = self.server.context.hub.remove_peer(&room, peer, None);
                removed.map_err(|refusal| refusal.message.into_owned())?;
            }
            // It lapses by itself.
            Some("timeout") => {}
            other => return Err(format!("there is no way here to leave by {other:?}")),
        }
        Ok(())
    }

    /// Asks for what is refused by this code.
    async fn be_refused(&mut self, told: &Told) -> Result<(), String> {
        let code = told.code.as_deref().unwrap_or_default();
        for _ in 0..told.count.unwrap_or(1) {
            if told.peer.is_none() {
                let stranger = Told { peer: Some(PeerId::new(Default::default())), ..told.clone() };
                match (code, self.enter(&stranger, &["join"], "joined").await) {
                    ("roomLocked", Err(closed)) if closed.contains(code) => continue,
                    _ => return Err(format!("there is no way here to be refused the room by {code}")),
                }
            }
            let to = self.id(told.peer.expect("looked at above"));
            let request = match code {
                "badRequest" => json!({"type": "message"}),
                "invalidDescription" => {
                    json!({"type": "description", "to": to, "description": {"type": "offer", "sdp": "none"}})
                }
                "invalidCandidate" => json!({"type": "candidate", "to": to, "candidate": {"candidate": "none"}}),
                "peerGone" => json!({"type": "kick", "peer": "nobody"}),
                "tooLarge" => json!({"type": "metadata", "metadata": {"name": "x".repeat(5000)}}),
                _ => return Err(format!("there is no way here to be refused by {code}")),
            };
            self.member(told.peer)?.ask(request).await;
        }
        Ok(())
    }

    /// A step of a negotiation, or a milestone.
    async fn say(&mut self, told: &Told) -> Result<(), String> {
        let to = self.id(told.to.ok_or("for nobody")?);
        let address = match told.outcome.as_deref() {
            Some("filtered") => "10.0.0.1",
            Some("queueFull" | "unreachable") => {
                return Err("there is no way here to fill a queue or lose a node".to_owned());
            }
            _ => "192.0.2.1",
        };
        let candidate = format!("candidate:1 1 udp 1 {address} 9 typ host");
        let request = match &*told.event {
            "candidate" => json!({"type": "candidate", "to": to, "candidate": {"candidate": candidate}}),
            "endOfCandidates" => json!({"type": "candidate", "to": to, "candidate": null}),
            milestone @ ("connected" | "media" | "failed") => {
                let mut request =
                    json!({"type": "milestone", "peer": to, "milestone": milestone, "afterMs": told.after_ms});
                if let Some(candidate) = &told.candidate_type {
                    request["candidateType"] = json!(candidate);
                }
                request
            }
            step => json!({"type": "description", "to": to, "description": {"type": step, "sdp": "v=0\r\n"}}),
        };
        for _ in 0..told.count.unwrap_or(1) {
            self.member(told.peer)?.ask(request.clone()).await;
        }
        Ok(())
    }

    /// What is to be the same of a report, here or in the recording: the events, the verdict, and that of each pair.
    fn plain(&self, report: &Report) -> (Vec<String>, Option<String>, Vec<String>) {
        let name = |peer: PeerId| self.name(peer);
        let events = report.events.iter().map(|told| plain(told, name)).collect();
        let mut pairs: Vec<_> = report
            .diagnosis
            .pairs
            .iter()
            .map(|pair| {
                let mut names = [name(pair.impolite), name(pair.polite)];
                names.sort();
                format!("{} {} {} {}", names[0], names[1], pair.state, pair.over)
            })
            .collect();
        pairs.sort();
        (events, report.diagnosis.state.as_ref().map(ToString::to_string), pairs)
    }

    /// A peer by its id in the recording, whether that is given or the one here.
    fn name(&self, peer: PeerId) -> String {
        let here = self.members.iter().find(|(_, member)| member.peer == peer);
        here.map_or(peer, |(recorded, _)| *recorded).to_string()
    }
}

/// How many events it tells of.
fn count(report: &Report) -> u64 {
    report.dropped + report.events.iter().map(|told| u64::from(told.count.unwrap_or(1))).sum::<u64>()
}

/// What is to be the same of an event.
fn plain(told: &Told, name: impl Fn(PeerId) -> String) -> String {
    let is_lock = ["locked", "unlocked"].contains(&&*told.event);
    let peers = [told.peer.filter(|_| !is_lock), told.to].into_iter().flatten().map(name);
    let code = told.code.clone().filter(|_| told.event == "refused");
    let outcome = told.outcome.clone().map(|outcome| if outcome == "elsewhere" { "delivered".into() } else { outcome });
    let facts = [outcome, code, told.reason.clone(), told.candidate_type.clone()].into_iter().flatten();
    let numbers = [told.count, told.after_ms].into_iter().flatten().map(|number| number.to_string());
    let words =
        [told.event.to_string()].into_iter().chain(peers).chain(facts.map(|fact| fact.to_string())).chain(numbers);
    words.collect::<Vec<_>>().join(" ")
}

/// All that are kept, by their names.
fn recordings() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let files = fs::read_dir(folder).expect("readable").map(|file| file.expect("readable").path());
    let mut found: Vec<_> = files.map(|path| (path.clone(), fs::read_to_string(path).expect("readable"))).collect();
    found.sort();
    found
}

#[tokio::test]
async fn what_was_recorded_happens_again_and_comes_to_the_same_verdict() {
    let found = recordings();
    assert!(found.len() >= 4, "{found:?}");
    for (path, text) in found {
        let file = path.display();
        let recording = Report::read(text.as_bytes()).unwrap_or_else(|why| panic!("{file}: {why}"));
        let mut stage = Stage::of(recording.clone()).await;
        let report = stage.play().await.unwrap_or_else(|why| panic!("{file}: {why}"));
        assert_eq!(stage.plain(&report), stage.plain(&recording), "{file}");
        stage.members.clear();
        stage.server.stop().await;
    }
}

/// What is kept here, everybody can read.
#[test]
fn a_recording_holds_nothing_but_what_a_timeline_tells() {
    for (path, text) in recordings() {
        let recorded: Value = serde_json::from_str(&text).expect("JSON");
        let report = Report::read(text.as_bytes()).expect("a recording");
        assert_eq!(json!(report.events), recorded["events"], "{}", path.display());
        let known = json!(report);
        let unknown = recorded.as_object().expect("an object").keys().find(|name| known.get(name).is_none());
        assert_eq!(unknown, None, "{}", path.display());
    }
}

#[tokio::test]
async fn wigwag_why_explains_a_recording_without_a_server() {
    let shell = Shell::new();
    for (path, text) in recordings() {
        let file = path.to_str().expect("UTF-8");
        let report = Report::read(text.as_bytes()).expect("a recording");
        let output = shell.run(&["why", "--recording", file]).await;
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        contains(&said, &[&report.diagnosis.text]);
        let expected = match report.diagnosis.state.as_deref() {
            Some("media" | "complete" | "connected") => 0,
            Some(_) => 3,
            None => 5,
        };
        assert_eq!(output.status.code(), Some(expected), "{file}: {said}");
        let output = shell.run(&["why", "--recording", file, "--json"]).await;
        assert_eq!(Report::read(&output.stdout).expect("a recording").diagnosis, report.diagnosis, "{file}");
    }
    let nothing = shell.write("nothing.json", r#"{"room": "demo", "events": [{"event": "married"}]}"#);
    contains(
        &shell.refused(&["why", "--recording", &nothing]).await,
        &["nothing.json", "event 1, \"married\", has no peer"],
    );
    contains(&shell.refused(&["why", "--recording", "nowhere.json"]).await, &["nowhere.json"]);
}
