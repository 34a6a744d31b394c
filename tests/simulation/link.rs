//! What joins a client to the hub: transports that last, event streams with requests beside them, long polls. Whatever is on
//! the way can be late, lost, doubled or overtaken; lines of one transport keep their order.

use std::collections::VecDeque;

use serde_json::Value;
use tokio::time::Instant;
use wigwag::client::seat::{LinkId, Seat};
use wigwag::hub::{Poll, Session};
use wigwag::protocol::Transport;

/// One transport, from the client's first attempt to whenever both sides have forgotten it.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) number: u64,
    pub(super) transport: Transport,
    /// The first message, with which one who waits polls again.
    pub(super) greeting: String,
    /// Lasting transports: on the way to the server, the first message first. Others: to go with the next request.
    pub(super) up: VecDeque<String>,
    /// On the way to the client.
    pub(super) down: VecDeque<Value>,
    pub(super) server: Server,
    /// The request whose answer the client waits for, beside the poll, and what it carried.
    pub(super) posting: Option<(u64, Vec<String>)>,
    /// The poll whose answer the client waits for, and the further lines that went along.
    pub(super) polling: Option<(u64, Vec<String>)>,
    /// The client no longer listens, and the server does not know yet.
    pub(super) deserted: bool,
    /// Nothing more fits into what is between the two.
    pub(super) stalled: bool,
}

/// The server's side of a link.
pub(super) enum Server {
    /// The first message has not come; with polls it stays so.
    Idle,
    /// It serves a session, held under a number.
    Serving(u64, Session),
    /// It has ended.
    Over,
}

impl Link {
    pub(super) fn new(id: LinkId, number: u64, transport: Transport, greeting: String) -> Self {
        let is_polled = transport == Transport::LongPoll;
        Link {
            id,
            number,
            transport,
            up: if is_polled { VecDeque::new() } else { VecDeque::from([greeting.clone()]) },
            greeting,
            down: VecDeque::new(),
            server: Server::Idle,
            posting: None,
            polling: None,
            deserted: false,
            stalled: false,
        }
    }

    pub(super) fn session(&self) -> Option<&Session> {
        match &self.server {
            Server::Serving(_, session) => Some(session),
            Server::Idle | Server::Over => None,
        }
    }

    /// Whether a line sent by the client arrives by itself.
    pub(super) fn is_lasting(&self) -> bool {
        !matches!(self.transport, Transport::EventStream | Transport::LongPoll)
    }

    pub(super) fn is_polled(&self) -> bool {
        self.transport == Transport::LongPoll
    }

    /// Whether the answer to its greeting is the one that counts.
    pub(super) fn is_opening(&self, seat: &Seat) -> bool {
        seat.greeting() == Some(self.id)
    }

    /// Whether the client waits for the answer to that request.
    pub(super) fn awaits(&self, number: u64) -> bool {
        let both = [&self.polling, &self.posting];
        both.into_iter().flatten().any(|(own, _)| *own == number)
    }

    /// Whether there are lines to post. They are in one request at a time, or they could overtake one another.
    pub(super) fn may_post(&self) -> bool {
        let along = self.polling.as_ref().is_some_and(|(_, lines)| !lines.is_empty());
        self.posting.is_none() && !along && !self.up.is_empty()
    }

    /// The client no longer listens.
    pub(super) fn desert(&mut self) {
        self.deserted = true;
        self.posting = None;
        self.polling = None;
    }

    /// Lines whose request came to nothing are to be sent again, before all others.
    pub(super) fn take_back(&mut self, lines: Vec<String>) {
        lines.into_iter().rev().for_each(|line| self.up.push_front(line));
    }
}

/// One HTTP request and its answer.
pub(super) struct Exchange {
    pub(super) number: u64,
    pub(super) link: u64,
    pub(super) kind: Kind,
    pub(super) stage: Stage,
}

/// What a request is for.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Lines on `/messages`.
    Post { ticket: String, lines: Vec<String> },
    /// A poll: first line, further lines, and how long it waits in seconds.
    Poll { first: String, rest: Vec<String>, wait: u64 },
}

/// Where a request is.
pub(super) enum Stage {
    /// On the way to the server.
    Going,
    /// With the server, which has something to wait for; under a number.
    Held { holder: u64, poll: Poll, until: Instant, next_poll: Instant },
    /// On the way back.
    Coming(Answer),
}

/// How a request is answered.
pub(super) enum Answer {
    /// 202.
    Accepted,
    /// 200.
    Messages(Vec<Value>),
    /// Anything else.
    Refused,
}
