//! What has happened at a seat, for its client to look at when something went wrong: transports and times, never what was said.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::protocol::{Code, Transport};

/// How many events are kept; earlier ones give way.
const EVENTS: usize = 32;

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// The peer came into the room.
    Joined(Transport),
    /// A transport took the seat up again, or took it over from another one.
    Resumed(Transport),
    /// The transport was lost.
    Away(Transport),
    /// The server closed the transport.
    Closed(Transport, Code),
    /// A poll was due and has not come.
    Lapsed,
}

/// A log on its way to another node: events with how many milliseconds ago they were.
#[derive(Serialize, Deserialize)]
pub(super) struct Packed {
    events: Vec<(u64, Event)>,
    dropped: u64,
    requests: u64,
    errors: Vec<(Code, u64)>,
}

/// The last events, and counts of what went both ways since the beginning.
#[derive(Debug, Clone, Default)]
pub struct Log {
    events: VecDeque<(Instant, Event)>,
    dropped: u64,
    requests: u64,
    /// Few: there are not many codes.
    errors: Vec<(Code, u64)>,
}

impl Log {
    /// What is left of the events, the earliest first, with their times.
    pub fn events(&self) -> impl Iterator<Item = (Instant, Event)> {
        self.events.iter().copied()
    }

    /// Why the server closed the last transport, if it did.
    pub fn last_close(&self) -> Option<Code> {
        match self.events.back() {
            Some((_, Event::Closed(_, code))) => Some(*code),
            _ => None,
        }
    }

    /// How many earlier events are not kept.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Requests that the client has made, refused ones included, without `ping` and `ack`.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// How often the client was told an error, by its code.
    pub fn errors(&self) -> &[(Code, u64)] {
        &self.errors
    }

    pub(super) fn pack(&self, now: Instant) -> Packed {
        let ago = |at: Instant| now.saturating_duration_since(at).as_millis() as u64;
        Packed {
            events: self.events.iter().map(|(at, event)| (ago(*at), *event)).collect(),
            dropped: self.dropped,
            requests: self.requests,
            errors: self.errors.clone(),
        }
    }

    pub(super) fn unpack(packed: Packed, now: Instant) -> Self {
        // A clock that began to count later than the event has no time for it.
        let at = |ago: u64| now.checked_sub(Duration::from_millis(ago)).unwrap_or(now);
        let events = packed.events.into_iter().take(EVENTS).map(|(ago, event)| (at(ago), event));
        let errors = packed.errors.into_iter().take(Code::ALL.len());
        Log { events: events.collect(), dropped: packed.dropped, requests: packed.requests, errors: errors.collect() }
    }

    pub(super) fn note(&mut self, now: Instant, event: Event) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back((now, event));
    }

    pub(super) fn count_request(&mut self) {
        self.requests += 1;
    }

    pub(super) fn count_error(&mut self, code: Code) {
        match self.errors.iter_mut().find(|(known, _)| *known == code) {
            Some((_, times)) => *times += 1,
            None => self.errors.push((code, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_last_events_are_kept_and_the_others_counted() {
        let (mut log, begun) = (Log::default(), Instant::now());
        for second in 0..40 {
            log.note(begun + Duration::from_secs(second), Event::Away(Transport::WebTransport));
        }
        assert_eq!((log.events().count(), log.dropped()), (EVENTS, 40 - EVENTS as u64));
        let first = log.events().next().expect("an event").0;
        assert_eq!(first - begun, Duration::from_secs(8));
    }

    #[test]
    fn errors_are_counted_by_code() {
        let mut log = Log::default();
        for code in [Code::PeerGone, Code::RateLimited, Code::PeerGone] {
            log.count_error(code);
        }
        assert_eq!(log.errors(), [(Code::PeerGone, 2), (Code::RateLimited, 1)]);
    }
}
