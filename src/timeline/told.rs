//! A timeline as JSON: what the admin API answers, what `wigwag why` reads, and what is saved of a room to be looked at later.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Diagnosis, Entry, Event, Outcome, diagnose};
use crate::protocol::{CandidateType, Code, LeftReason, PeerId, Reached, RoomName, Step, Transport};

/// One of the names that the protocol and the timeline have for things. Whoever reads may meet names of a later version.
type Name = Cow<'static, str>;

/// All that is told of a room.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Its name.
    pub room: RoomName,
    /// Whether somebody is in it.
    pub open: bool,
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: Option<u64>,
    /// Whether timelines are recorded.
    pub recorded: bool,
    /// How many earlier events were forgotten.
    pub dropped: u64,
    /// What has happened, the earliest first.
    pub events: Vec<Told>,
    /// What is to be said of it.
    pub diagnosis: Verdict,
}

/// An event, or a bundle of like ones. What does not apply is left out.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Told {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The same for the last of a bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// How many, if more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// What.
    pub event: Name,
    /// Who did it, or to whom it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerId>,
    /// For whom it was, or with whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<PeerId>,
    /// By which transport.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Name>,
    /// Bytes of the payload, of a bundle all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Name>,
    /// Why the server refused or closed something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Name>,
    /// Why somebody left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Name>,
    /// Of the local candidate, as the client tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate_type: Option<Name>,
    /// Milliseconds since the client began the connection, as it tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u32>,
}

/// What is to be said of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The worst state of a pair.
    pub state: Option<Name>,
    /// For people.
    pub text: String,
    /// The worst first.
    pub pairs: Vec<PairVerdict>,
    /// How many are left out.
    pub more_pairs: usize,
}

/// What is to be said of two peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairVerdict {
    /// The one with the smaller id.
    pub impolite: PeerId,
    /// The other.
    pub polite: PeerId,
    /// How far they have come.
    pub state: Name,
    /// For people.
    pub text: String,
    /// Whether one of them has left.
    pub over: bool,
}

impl From<Diagnosis> for Verdict {
    fn from(Diagnosis { state, text, pairs, more }: Diagnosis) -> Self {
        let pair = |pair: super::Pair| PairVerdict {
            impolite: pair.impolite,
            polite: pair.polite,
            state: pair.state.name().into(),
            text: pair.text,
            over: pair.is_over,
        };
        let pairs = pairs.into_iter().map(pair).collect();
        Verdict { state: state.map(|state| state.name().into()), text, pairs, more_pairs: more }
    }
}

/// A report that was saved. Its verdict is not read: it is given anew.
#[derive(Debug, Deserialize)]
struct Saved {
    room: RoomName,
    #[serde(default)]
    dropped: u64,
    events: Vec<Told>,
}

/// Why a text is no recording.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not what the admin API answers.
    #[error("not a room's timeline as JSON, which has at least room and events: {0}")]
    Json(#[from] serde_json::Error),
    /// An event is none.
    #[error("event {number}, \"{event}\", {why}")]
    Event {
        /// Which, from 1.
        number: usize,
        /// What it is called.
        event: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Report {
    /// Reads a report that was saved, and says anew what is to be said of it.
    ///
    /// # Errors
    /// [`Unreadable`], naming the event that is none.
    pub fn read(text: &[u8]) -> Result<Self, Unreadable> {
        let Saved { room, dropped, events } = serde_json::from_slice(text)?;
        let begun_ms = events.iter().map(|told| told.at_ms).min().unwrap_or(0);
        let entry = |(at, told): (usize, &Told)| {
            let unreadable = |why| Unreadable::Event { number: at + 1, event: told.event.to_string(), why };
            told.entry(begun_ms).map_err(unreadable)
        };
        let entries = events.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>()?;
        let diagnosis = diagnose(&entries, dropped).into();
        let ended_ms = events.last().filter(|last| last.event == "ended").map(|last| last.at_ms);
        Ok(Report { room, open: ended_ms.is_none(), ended_ms, recorded: true, dropped, events, diagnosis })
    }
}

impl Told {
    /// An entry of a timeline that began at `begun_ms`, in milliseconds since 1970.
    pub fn of(entry: &Entry, begun_ms: u64) -> Self {
        let is_bundle = entry.count > 1;
        Told {
            at_ms: begun_ms + u64::from(entry.at),
            until_ms: is_bundle.then(|| begun_ms + u64::from(entry.until)),
            count: is_bundle.then_some(entry.count),
            ..Told::what(entry.event)
        }
    }

    fn what(event: Event) -> Self {
        let named = |event: &'static str, peer| Told { event: event.into(), peer: Some(peer), ..Told::default() };
        let way = |transport: Option<Transport>| transport.map(|transport| transport.name().into());
        match event {
            Event::Joined { peer, transport } => Told { transport: way(transport), ..named("joined", peer) },
            Event::Knocked { peer, transport } => Told { transport: way(transport), ..named("knocked", peer) },
            Event::Admitted { peer } => named("admitted", peer),
            Event::Away { peer, code } => Told { code: code.map(|code| code.name().into()), ..named("away", peer) },
            Event::Back { peer, transport } => Told { transport: way(transport), ..named("back", peer) },
            Event::Moved { peer, transport } => Told { transport: way(Some(transport)), ..named("moved", peer) },
            Event::Left { peer, reason } => Told { reason: Some(reason.name().into()), ..named("left", peer) },
            Event::Relayed { from, to, step, bytes, outcome } => Told {
                to: Some(to),
                bytes: Some(bytes),
                outcome: Some(outcome.name().into()),
                ..named(step.name(), from)
            },
            Event::Reached { peer, with, reached, candidate, after_ms } => Told {
                to: Some(with),
                candidate_type: candidate.map(|candidate| candidate.name().into()),
                after_ms: Some(after_ms),
                ..named(reached.name(), peer)
            },
            Event::Refused { peer, code } => {
                Told { event: "refused".into(), peer, code: Some(code.name().into()), ..Told::default() }
            }
            Event::Locked { by, locked } => {
                Told { event: if locked { "locked" } else { "unlocked" }.into(), peer: by, ..Told::default() }
            }
            Event::Ended => Told { event: "ended".into(), ..Told::default() },
        }
    }

    /// The entry that it tells of, in a timeline that began at `begun_ms`.
    ///
    /// # Errors
    /// What it lacks.
    fn entry(&self, begun_ms: u64) -> Result<Entry, &'static str> {
        let time = |ms: u64| u32::try_from(ms - begun_ms).map_err(|_| "is later than fifty days after the first");
        let until_ms = self.until_ms.unwrap_or(self.at_ms);
        if until_ms < self.at_ms {
            return Err("ends before it begins");
        }
        let (at, until) = (time(self.at_ms)?, time(until_ms)?);
        Ok(Entry { at, until, count: self.count.unwrap_or(1), event: self.read()? })
    }

    fn read(&self) -> Result<Event, &'static str> {
        let peer = || self.peer.ok_or("has no peer");
        let transport = || known(&Transport::ALL, Transport::name, &self.transport, "has an unknown transport");
        let code = || known(&Code::ALL, Code::name, &self.code, "has an unknown code");
        Ok(match &*self.event {
            "joined" => Event::Joined { peer: peer()?, transport: transport()? },
            "knocked" => Event::Knocked { peer: peer()?, transport: transport()? },
            "admitted" => Event::Admitted { peer: peer()? },
            "away" => Event::Away { peer: peer()?, code: code()? },
            "back" => Event::Back { peer: peer()?, transport: transport()? },
            "moved" => Event::Moved { peer: peer()?, transport: transport()?.ok_or("has no transport")? },
            "left" => {
                let reason = known(&LeftReason::ALL, LeftReason::name, &self.reason, "has an unknown reason")?;
                Event::Left { peer: peer()?, reason: reason.ok_or("has no reason")? }
            }
            "refused" => Event::Refused { peer: self.peer, code: code()?.ok_or("has no code")? },
            "locked" | "unlocked" => Event::Locked { by: self.peer, locked: self.event == "locked" },
            "ended" => Event::Ended,
            _ => self.read_of_two(peer()?)?,
        })
    }

    /// What has to do with another peer as well.
    fn read_of_two(&self, peer: PeerId) -> Result<Event, &'static str> {
        let to = || self.to.ok_or("has no to");
        let name = Some(self.event.clone());
        if let Ok(Some(reached)) = known(&Reached::ALL, Reached::name, &name, "") {
            let unknown = "has an unknown candidateType";
            let candidate = known(&CandidateType::ALL, CandidateType::name, &self.candidate_type, unknown)?;
            let after_ms = self.after_ms.ok_or("has no afterMs")?;
            return Ok(Event::Reached { peer, with: to()?, reached, candidate, after_ms });
        }
        let step = known(&Step::ALL, Step::name, &name, "is no event of a timeline")?.ok_or("has no name")?;
        let outcome = known(&Outcome::ALL, Outcome::name, &self.outcome, "has an unknown outcome")?;
        let outcome = outcome.ok_or("has no outcome")?;
        Ok(Event::Relayed { from: peer, to: to()?, step, bytes: self.bytes.unwrap_or(0), outcome })
    }
}

/// What has this name, if there is one.
fn known<T: Copy>(
    all: &[T],
    name: fn(T) -> &'static str,
    given: &Option<Name>,
    unknown: &'static str,
) -> Result<Option<T>, &'static str> {
    let Some(given) = given else { return Ok(None) };
    all.iter().copied().find(|one| name(*one) == given).map(Some).ok_or(unknown)
}

#[cfg(test)]
mod tests {
    use super::super::tests::peer;
    use super::*;

    fn entry(at: u32, event: Event) -> Entry {
        Entry { at, until: at, count: 1, event }
    }

    /// One of each kind, with all that it may have.
    fn all() -> Vec<Entry> {
        let (peer, to) = (peer(1), peer(2));
        let transport = Some(Transport::LongPoll);
        let events = [
            Event::Joined { peer, transport },
            Event::Joined { peer: to, transport: None },
            Event::Knocked { peer, transport },
            Event::Admitted { peer },
            Event::Away { peer, code: Some(Code::SlowConsumer) },
            Event::Back { peer, transport },
            Event::Moved { peer, transport: Transport::WebTransport },
            Event::Refused { peer: None, code: Code::RoomFull },
            Event::Locked { by: Some(peer), locked: true },
            Event::Locked { by: None, locked: false },
        ];
        let steps = Step::ALL.into_iter().zip(Outcome::ALL.into_iter().cycle());
        let steps = steps.map(|(step, outcome)| Event::Relayed { from: peer, to, step, bytes: 7, outcome });
        let candidates = CandidateType::ALL.map(Some).into_iter().chain([None]);
        let reached = Reached::ALL.into_iter().flat_map(|reached| candidates.clone().map(move |kind| (reached, kind)));
        let reached =
            reached.map(|(reached, candidate)| Event::Reached { peer, with: to, reached, candidate, after_ms: 9 });
        let left = LeftReason::ALL.into_iter().map(|reason| Event::Left { peer, reason });
        let all = events.into_iter().chain(steps).chain(reached).chain(left).chain([Event::Ended]);
        all.zip(0..).map(|(event, at)| entry(at, event)).collect()
    }

    fn report(events: &[Told]) -> Result<Report, Unreadable> {
        Report::read(serde_json::json!({ "room": "demo", "events": events }).to_string().as_bytes())
    }

    #[test]
    fn what_was_told_is_read_as_it_was() {
        let bundle = Event::Relayed {
            from: peer(1),
            to: peer(2),
            step: Step::Candidate,
            bytes: 400,
            outcome: Outcome::Delivered,
        };
        let mut entries = all();
        entries.push(Entry { at: 100, until: 180, count: 4, event: bundle });
        let told: Vec<Told> = entries.iter().map(|entry| Told::of(entry, 1_000_000)).collect();
        let json = serde_json::to_string(&told).expect("JSON");
        let again: Vec<Told> = serde_json::from_str(&json).expect("the same");
        assert_eq!(again, told);
        let read: Vec<Entry> = again.iter().map(|told| told.entry(1_000_000).expect("readable")).collect();
        assert_eq!(read, entries);
    }

    #[test]
    fn the_verdict_of_what_was_saved_is_given_anew() {
        let (a, b) = (peer(1), peer(2));
        let offer = Event::Relayed { from: b, to: a, step: Step::Offer, bytes: 1, outcome: Outcome::Delivered };
        let events = [Event::Joined { peer: a, transport: None }, Event::Joined { peer: b, transport: None }, offer];
        let told: Vec<Told> = events.map(|event| Told::of(&entry(5, event), 1_000)).to_vec();
        let report = report(&told).expect("readable");
        assert_eq!(report.diagnosis.state.as_deref(), Some("noAnswer"));
        assert!(report.open && report.recorded);
    }

    #[test]
    fn what_is_no_event_is_named() {
        let good = Told::of(&entry(0, Event::Admitted { peer: peer(1) }), 1_000);
        let with = |name: &'static str, change: fn(&mut Told)| {
            let mut told = Told { event: name.into(), to: Some(peer(2)), ..good.clone() };
            change(&mut told);
            report(&[good.clone(), told]).expect_err(name).to_string()
        };
        assert_eq!(with("married", |_| {}), "event 2, \"married\", is no event of a timeline");
        assert_eq!(with("joined", |told| told.peer = None), "event 2, \"joined\", has no peer");
        assert_eq!(
            with("joined", |told| told.transport = Some("pigeon".into())),
            "event 2, \"joined\", has an unknown transport"
        );
        assert_eq!(with("offer", |_| {}), "event 2, \"offer\", has no outcome");
        assert_eq!(with("media", |_| {}), "event 2, \"media\", has no afterMs");
        assert_eq!(with("admitted", |told| told.until_ms = Some(0)), "event 2, \"admitted\", ends before it begins");
        assert!(Report::read(b"[]").expect_err("an array").to_string().contains("at least room and events"));
    }
}
