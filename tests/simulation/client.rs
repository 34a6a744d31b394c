//! A client: the native client's own half of the session, and an application that notes what it is told.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};
use wigwag::client::message::{Change, Incoming, Peer, PeerState};
use wigwag::client::seat::{Ack, LinkId, Member, Seat, Token, Told};
use wigwag::client::{Payload, Request};

/// What a client's token says that it is, where tokens are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Guest,
    Member,
    Moderator,
}

impl Role {
    pub(super) fn token(self) -> &'static str {
        match self {
            Role::Guest => "guest",
            Role::Member => "member",
            Role::Moderator => "moderator",
        }
    }

    pub(super) fn of(token: &str) -> Self {
        let all = [Role::Guest, Role::Member, Role::Moderator];
        all.into_iter().find(|role| role.token() == token).expect("a role's token")
    }
}

/// One client with one seat, for as long as that lives.
pub(super) struct Client {
    pub(super) name: usize,
    pub(super) key: String,
    pub(super) role: Role,
    /// Its role is not the one that it began with.
    pub(super) renewed: bool,
    /// The seat that its key has, which it does not know itself before it is in the room.
    pub(super) knocked: Option<String>,
    pub(super) seat: Seat,
    /// Left, or its seat was given up.
    pub(super) gone: bool,
    pub(super) app: Application,
}

/// What the application has been told.
#[derive(Default)]
pub(super) struct Application {
    /// Its own id, once it has been in the room.
    pub(super) peer: String,
    /// The others: the version of their metadata, and whether they are here.
    pub(super) roster: BTreeMap<String, (i64, bool)>,
    pub(super) version: i64,
    pub(super) lost: u64,
    /// Who waits to be admitted, as a moderator has heard.
    pub(super) knocks: BTreeSet<String>,
    /// Answers to knocks: whether it is to be admitted, who, and what the server said.
    pub(super) decisions: HashMap<u64, (bool, String, Option<bool>)>,
    /// Messages in order: sender and number.
    pub(super) got: Vec<(String, u64)>,
    /// Datagrams, which keep no order.
    datagrams: HashSet<(String, u64)>,
    next_number: u64,
    /// What became of each message that may not get lost: recipients, number, and the answer.
    pub(super) sent: HashMap<u64, (Vec<String>, u64, Option<bool>)>,
    /// The request to leave, and whether it was answered.
    pub(super) leaving: Option<u64>,
    pub(super) left: bool,
}

impl Client {
    pub(super) fn new(name: usize, seed: u64, role: Role) -> Self {
        let key = format!("key-{seed:020}-{name}");
        let seat = Seat::new(key.clone());
        Client { name, key, role, renewed: false, knocked: None, seat, gone: false, app: Application::default() }
    }

    /// Whether it is in the room, as far as it knows.
    pub(super) fn is_present(&self) -> bool {
        !self.gone && !self.app.peer.is_empty()
    }

    /// The ticket that it would show now.
    pub(super) fn ticket(&self) -> Option<String> {
        let resume: Value = serde_json::from_str(&self.seat.poll()?).expect("JSON");
        Some(resume["ticket"].as_str().expect("a text").to_owned())
    }

    /// Begins a transport.
    pub(super) fn greet(&mut self) -> (LinkId, String) {
        let metadata = Payload::of(&json!({"version": self.app.version})).expect("JSON");
        self.seat.greet(&Member { metadata: Some(metadata), token: Some(Token(self.role.token().to_owned())) })
    }

    /// Enters a request; the line is to be sent on the link in use, if there is one.
    pub(super) fn request(&mut self, message: &Value) -> Option<(u64, String)> {
        let request = Request::from_json(&message.to_string()).expect("a request");
        let (id, line) = self.seat.request(&request).ok()?;
        if message["type"] == "leave" {
            self.app.leaving = Some(id);
        }
        Some((id, line))
    }

    /// A numbered message of the application's.
    pub(super) fn numbered(&mut self, to: Option<&str>, ephemeral: bool) -> (u64, Value) {
        self.app.next_number += 1;
        let number = self.app.next_number;
        let data = json!({"from": self.app.peer, "number": number});
        let mut message = json!({"type": "message", "data": data, "ephemeral": ephemeral});
        if let Some(to) = to {
            message["to"] = json!(to);
        }
        (number, message)
    }

    /// An acknowledgement, if one is due or `eager` sends it before.
    pub(super) fn ack(&mut self, eager: bool) -> Option<String> {
        match self.seat.ack() {
            Ack::None => None,
            Ack::Soon if !eager => None,
            Ack::Soon | Ack::Now => Some(self.seat.take_ack()),
        }
    }

    /// A message arrives; returns the lines to send on its link.
    pub(super) fn receive(&mut self, link: LinkId, message: &Value) -> Vec<String> {
        let incoming = Incoming::parse(&message.to_string()).expect("a message of the protocol's");
        let outcome = match self.seat.receive(link, incoming) {
            Ok(outcome) => outcome,
            Err(gap) => panic!("client {}: {gap}, at {message}", self.name),
        };
        outcome.told.into_iter().for_each(|told| self.app.hear(told));
        outcome.lines
    }
}

impl Application {
    fn hear(&mut self, told: Told) {
        match told {
            Told::Joined(joined) => {
                self.lost += joined.lost.unwrap_or(0);
                if self.peer.is_empty() {
                    self.peer.clone_from(&joined.own.peer);
                    self.roster = joined.peers.iter().map(entry).collect();
                }
                assert_eq!(self.peer, joined.own.peer, "another seat than before");
            }
            Told::Room(change) => self.change(change),
            Told::Message { from, data } => self.message(from, &data.read().expect("JSON")),
            Told::Answered { id, answer } => {
                self.left |= self.leaving == Some(id);
                if let Some((.., known)) = self.sent.get_mut(&id) {
                    assert_eq!(*known, None, "request {id} was answered twice");
                    *known = Some(answer.is_ok());
                }
                if let Some((.., known)) = self.decisions.get_mut(&id) {
                    *known = Some(answer.is_ok());
                }
            }
            // A datagram, and what one says who waits, have no id to be answered under.
            Told::Error(refused) => assert!(matches!(&refused.code[..], "peerGone" | "forbidden"), "{refused:?}"),
            Told::Resumed(_) | Told::Waiting { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }

    fn message(&mut self, from: String, data: &Value) {
        assert_eq!(data["from"], from, "a stranger's message");
        let entry = (from, data["number"].as_u64().expect("a number"));
        if data["datagram"] == true {
            assert!(self.datagrams.insert(entry), "a datagram came twice: {data}");
        } else {
            self.got.push(entry);
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::PeerJoined(peer) => {
                let (peer, state) = entry(&peer);
                self.knocks.remove(&peer);
                assert!(self.roster.insert(peer, state).is_none(), "joined twice");
            }
            Change::PeerUpdated(peer) => self.known(&peer.peer).0 = version(&peer),
            Change::PeerAway { peer } => {
                assert!(std::mem::replace(&mut self.known(&peer).1, false), "away twice");
            }
            Change::PeerBack { peer } => {
                assert!(!std::mem::replace(&mut self.known(&peer).1, true), "back twice");
            }
            Change::PeerLeft { peer, .. } => {
                assert!(self.roster.remove(&peer).is_some() || self.knocks.remove(&peer), "an unknown peer left");
            }
            Change::RoomUpdated { .. } => panic!("nobody has locked the room"),
            Change::Knock(peer) => _ = self.knocks.insert(peer.peer),
        }
    }

    fn known(&mut self, peer: &str) -> &mut (i64, bool) {
        self.roster.get_mut(peer).expect("a known peer")
    }
}

pub(super) fn entry(peer: &Peer) -> (String, (i64, bool)) {
    (peer.peer.clone(), (version(peer), peer.state == PeerState::Here))
}

fn version(peer: &Peer) -> i64 {
    peer.metadata.read::<Value>().expect("JSON")["version"].as_i64().expect("its version")
}
