//! A client as the protocol describes it: its half of the session, and an application that notes what it gets.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

/// One client with one seat, for as long as that lives.
#[derive(Default)]
pub(super) struct Client {
    pub(super) name: usize,
    pub(super) key: String,
    pub(super) peer: String,
    pub(super) ticket: Option<String>,
    /// Counts the transports that it has tried; the last may still be waiting for its greeting.
    pub(super) attempts: u64,
    /// The one that its session runs over: greeted, and not overtaken by a later one.
    pub(super) current: Option<u64>,
    handled: u64,
    unacked: u64,
    next_id: u64,
    /// Requests without an answer, in order.
    pub(super) pending: BTreeMap<u64, Value>,
    /// Left, or its seat was given up.
    pub(super) gone: bool,
    pub(super) app: Application,
}

/// What the application has seen.
#[derive(Default)]
pub(super) struct Application {
    /// The others: the version of their metadata, and whether they are here.
    pub(super) roster: BTreeMap<String, (i64, bool)>,
    revision: u64,
    pub(super) version: i64,
    pub(super) lost: u64,
    /// Messages in order: sender and number.
    pub(super) got: Vec<(String, u64)>,
    /// Datagrams, which keep no order.
    pub(super) datagrams: HashSet<(String, u64)>,
    next_number: u64,
    /// What became of each directed message: recipient, number, and the answer.
    pub(super) sent: HashMap<u64, (String, u64, Option<bool>)>,
}

/// What a message means for the transport that it came on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    Goes,
    /// The session runs over it from now on, beginning with these lines.
    Greeted(Vec<String>),
    /// It is over.
    Over,
}

impl Client {
    pub(super) fn new(name: usize, seed: u64) -> Self {
        Client { name, key: format!("key-{seed:020}-{name}"), ..Client::default() }
    }

    /// Whether it is in the room, as far as it knows.
    pub(super) fn is_present(&self) -> bool {
        !self.gone && !self.peer.is_empty()
    }

    /// The first line of a transport, and of each poll.
    pub(super) fn greeting(&self) -> String {
        match &self.ticket {
            None => json!({"type": "join", "key": self.key, "metadata": {"version": self.app.version}}),
            Some(ticket) => json!({"type": "resume", "ticket": ticket, "seq": self.handled}),
        }
        .to_string()
    }

    /// Enters a request under a new id; it is sent again after each resume until it is answered.
    pub(super) fn request(&mut self, mut message: Value) -> (u64, String) {
        self.next_id += 1;
        message["id"] = json!(self.next_id);
        let line = message.to_string();
        self.pending.insert(self.next_id, message);
        (self.next_id, line)
    }

    /// A numbered message of the application's.
    pub(super) fn numbered(&mut self, to: Option<&str>, ephemeral: bool) -> (u64, Value) {
        self.app.next_number += 1;
        let number = self.app.next_number;
        let data = json!({"from": self.peer, "number": number, "ephemeral": ephemeral});
        let mut message = json!({"type": "message", "data": data, "ephemeral": ephemeral});
        if let Some(to) = to {
            message["to"] = json!(to);
        }
        (number, message)
    }

    /// Whether an acknowledgement must not wait any longer; what is named in it counts as acknowledged from now on.
    pub(super) fn ack(&mut self, eager: bool) -> Option<String> {
        if self.unacked == 0 || (!eager && self.unacked < 32) {
            return None;
        }
        self.unacked = 0;
        Some(json!({"type": "ack", "seq": self.handled}).to_string())
    }

    /// A message arrives. Who tries again has given the earlier attempt up, but not the transport that its session runs over:
    /// that one goes on until another has been greeted.
    pub(super) fn receive(&mut self, link: u64, message: &Value) -> Turn {
        let kind = message["type"].as_str().expect("every message has a type");
        match kind {
            "joined" | "resumed" if link == self.attempts || self.current == Some(link) => {
                return self.greeted(link, kind, message);
            }
            "closed" => return Turn::Over,
            _ if self.current != Some(link) => return Turn::Goes,
            _ => {}
        }
        let ephemeral = message["data"]["ephemeral"] == true;
        assert_eq!(message["seq"].is_null(), ephemeral, "only what is ephemeral has no number: {message}");
        if let Some(seq) = message["seq"].as_u64() {
            if seq <= self.handled {
                return Turn::Goes;
            }
            assert_eq!(seq, self.handled + 1, "client {}: a hole before {message}", self.name);
            self.handled = seq;
            self.unacked += 1;
        }
        if matches!(kind, "ok" | "error") {
            self.answered(kind == "ok", message);
        } else {
            self.app.receive(kind, message);
        }
        Turn::Goes
    }

    fn greeted(&mut self, link: u64, kind: &str, message: &Value) -> Turn {
        let first = self.current != Some(link);
        self.current = Some(link);
        self.ticket = message["ticket"].as_str().map(str::to_owned);
        let replay_from = message["replayFrom"].as_u64().expect("a number");
        let mut handled_there = 0;
        if kind == "joined" {
            self.peer = message["self"]["peer"].as_str().expect("an id").to_owned();
            self.handled = self.handled.max(replay_from - 1);
            self.app.see(message);
        } else {
            assert!(replay_from <= self.handled + 1, "client {}: a hole at {message}", self.name);
            handled_there = message["lastId"].as_u64().expect("a number");
            if !first {
                // A poll's answer; nothing but the ticket has changed.
                return Turn::Goes;
            }
        }
        // Answers to the rest come by replay; after a gap they may be among what is lost.
        let unhandled = self.pending.range(handled_there + 1..);
        Turn::Greeted(unhandled.map(|(_, request)| request.to_string()).collect())
    }

    fn answered(&mut self, accepted: bool, message: &Value) {
        let Some(id) = message["id"].as_u64() else {
            // A datagram has no id.
            return assert_eq!(message["code"], "peerGone", "nothing else can be wrong: {message}");
        };
        if let Some(request) = self.pending.remove(&id)
            && request["type"] == "leave"
        {
            self.gone = true;
        }
        // The first answer counts.
        if let Some((.., answer @ None)) = self.app.sent.get_mut(&id) {
            *answer = Some(accepted);
        }
    }
}

impl Application {
    /// A whole picture of the room.
    fn see(&mut self, joined: &Value) {
        self.revision = joined["room"]["revision"].as_u64().expect("a number");
        self.lost += joined["lost"].as_u64().unwrap_or(0);
        self.roster = joined["peers"].as_array().expect("a list").iter().map(entry).collect();
    }

    fn receive(&mut self, kind: &str, message: &Value) {
        if kind != "message" {
            return self.presence(kind, message);
        }
        let from = message["from"].as_str().expect("set by the server");
        assert_eq!(message["data"]["from"], *from, "a stranger's message");
        let entry = (from.to_owned(), message["data"]["number"].as_u64().expect("a number"));
        if message["data"]["datagram"] == true {
            assert!(self.datagrams.insert(entry), "a datagram came twice: {message}");
        } else {
            self.got.push(entry);
        }
    }

    fn presence(&mut self, kind: &str, message: &Value) {
        let revision = message["revision"].as_u64().expect("presence has a revision");
        // What is older than the picture is in it already.
        if revision <= self.revision {
            return;
        }
        self.revision = revision;
        let peer = message["peer"].as_str().expect("an id").to_owned();
        if kind == "peerJoined" {
            assert!(self.roster.insert(peer, entry(message).1).is_none(), "joined twice");
        } else if kind == "peerLeft" {
            assert!(self.roster.remove(&peer).is_some(), "an unknown peer left");
        } else {
            let (version, here) = self.roster.get_mut(&peer).expect("a known peer");
            match kind {
                "peerUpdated" => *version = entry(message).1.0,
                "peerAway" => {
                    assert!(*here, "away twice");
                    *here = false;
                }
                "peerBack" => {
                    assert!(!*here, "back twice");
                    *here = true;
                }
                other => panic!("unexpected {other}"),
            }
        }
    }
}

fn entry(member: &Value) -> (String, (i64, bool)) {
    let peer = member["peer"].as_str().expect("an id").to_owned();
    let version = member["metadata"]["version"].as_i64().expect("its version");
    (peer, (version, member["state"] != "away"))
}
