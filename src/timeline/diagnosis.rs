//! Why a call has not come about: a pure function of what was recorded.
//!
//! Each pair of peers is followed through offer, answer and candidates (RFC 8829, 3.2), and what its clients tell of the
//! connection, to where it has come to. The first pair that is not complete explains the room.

use std::collections::BTreeMap;

use super::{Entry, Event, Outcome};
use crate::protocol::{Code, LeftReason, PeerId, Step};
use reached::Told;

mod reached;

/// Pairs that are told of; of a large room those that are in trouble come first.
const PAIRS: usize = 256;

/// In a room of more members a pair is told of only if one of them has sent the other something: each has few partners then.
const MESH: usize = 8;

/// Where a pair has come to. Ordered by how bad that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Media have arrived, at one of them at least.
    Media,
    /// Offer, answer and candidates have gone both ways, and neither client tells more: what is wrong is ICE, TURN or the media.
    Complete,
    /// ICE has found a path, and no media have arrived.
    Connected,
    /// One of them sends no candidates.
    OneSidedCandidates,
    /// Neither does.
    NoCandidates,
    /// ICE has found no path, or lost it.
    IceFailed,
    /// Both have offered, and neither offer was answered or taken back.
    Glare,
    /// An offer was taken back, and no other came.
    RolledBack,
    /// The answer did not reach its peer.
    AnswerLost,
    /// An offer was not answered.
    NoAnswer,
    /// A peer left before the answer had come.
    LeftDuring,
    /// The offer did not reach its peer.
    OfferLost,
    /// Neither has offered.
    NoOffer,
}

impl State {
    /// Its name in the admin API.
    pub fn name(self) -> &'static str {
        match self {
            State::Media => "media",
            State::Complete => "complete",
            State::Connected => "connected",
            State::OneSidedCandidates => "oneSidedCandidates",
            State::NoCandidates => "noCandidates",
            State::IceFailed => "iceFailed",
            State::Glare => "glare",
            State::RolledBack => "rolledBack",
            State::AnswerLost => "answerLost",
            State::NoAnswer => "noAnswer",
            State::LeftDuring => "leftDuring",
            State::OfferLost => "offerLost",
            State::NoOffer => "noOffer",
        }
    }
}

/// A pair of peers and what is known of its negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The one with the smaller id, who is impolite.
    pub impolite: PeerId,
    /// The other, who makes the first offer.
    pub polite: PeerId,
    /// How far they have come.
    pub state: State,
    /// The same in a sentence, in which peers are called by the beginnings of their ids.
    pub text: String,
    /// Whether one of them has left since.
    pub is_over: bool,
}

/// What is to be said of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The worst state of a pair; `None` where there never were two.
    pub state: Option<State>,
    /// What to tell whoever asks, in some sentences.
    pub text: String,
    /// Pair by pair, the worst first.
    pub pairs: Vec<Pair>,
    /// How many pairs are left out.
    pub more: usize,
}

/// What `entries` tell, of which the last are those of the room as it is or was last. `dropped`: earlier ones are not there.
pub fn diagnose(entries: &[Entry], dropped: u64) -> Diagnosis {
    let last = last_life(entries);
    let mut followed = Followed::default();
    last.iter().for_each(|entry| followed.follow(entry));
    let mut pairs = followed.judge();
    // Those who are still there before those who have left.
    pairs.sort_by_key(|pair| (pair.is_over, std::cmp::Reverse(pair.state), pair.impolite, pair.polite));
    let more = pairs.len().saturating_sub(PAIRS);
    pairs.truncate(PAIRS);
    let mut text = match pairs.first() {
        Some(worst) => summary(&pairs, worst),
        None => followed.alone(dropped),
    };
    if dropped > 0 && !entries.is_empty() && last.len() == entries.len() {
        text += &format!(" Earlier events were forgotten ({dropped}), and may be what is missing.");
    }
    Diagnosis { state: pairs.first().map(|pair| pair.state), text, pairs, more }
}

/// The events since the room was opened last.
fn last_life(entries: &[Entry]) -> &[Entry] {
    let before = entries.len().saturating_sub(1);
    let begin = entries[..before].iter().rposition(|entry| entry.event == Event::Ended).map_or(0, |at| at + 1);
    &entries[begin..]
}

fn summary(pairs: &[Pair], worst: &Pair) -> String {
    let alike = pairs.iter().filter(|pair| pair.state == worst.state && pair.is_over == worst.is_over).count();
    match alike {
        1 => worst.text.clone(),
        many => format!("{} The same holds for {} more of {} pairs.", worst.text, many - 1, pairs.len()),
    }
}

/// What is known of a peer.
#[derive(Debug, Default)]
struct Peer {
    /// Since when it has no transport.
    away: Option<u32>,
    left: Option<(u32, LeftReason)>,
    /// What it was refused last, and how often something was.
    refused: Option<(Code, u32)>,
    waits: bool,
}

/// What went from one of a pair to the other.
#[derive(Debug, Default, Clone, Copy)]
struct Way {
    /// The offer that is not answered, and what became of it.
    offer: Option<(u32, Outcome)>,
    /// The last answer that did not arrive.
    answer_lost: Option<Outcome>,
    offers: u32,
    rollbacks: u32,
    candidates: u32,
    filtered: u32,
    ended: bool,
    /// What the one tells of its connection with the other.
    told: Told,
}

#[derive(Debug, Default)]
struct Talk {
    /// From the smaller id to the greater, and back.
    ways: [Way; 2],
    answers: u32,
    /// An offer was open when one of them left.
    broken: Option<PeerId>,
}

#[derive(Debug, Default)]
struct Followed {
    peers: BTreeMap<PeerId, Peer>,
    talks: BTreeMap<(PeerId, PeerId), Talk>,
    /// Who was refused the room.
    shut_out: Option<(Code, u32)>,
}

impl Followed {
    fn follow(&mut self, entry: &Entry) {
        match entry.event {
            Event::Joined { peer, .. } | Event::Admitted { peer } => {
                self.come(peer);
                self.meet(peer);
            }
            Event::Knocked { peer, .. } => self.peer(peer).waits = true,
            Event::Away { peer, .. } => self.peer(peer).away = Some(entry.at),
            Event::Back { peer, .. } | Event::Moved { peer, .. } => self.peer(peer).away = None,
            Event::Left { peer, reason } => self.leave(peer, entry.at, reason),
            Event::Relayed { from, to, step, outcome, .. } => self.relay(from, to, step, outcome, entry),
            Event::Reached { peer, with, reached, candidate, after_ms } => {
                let way = usize::from(peer > with);
                self.talk(peer, with).ways[way].told.note(reached, candidate, after_ms);
            }
            Event::Refused { peer, code } => {
                let refused = match peer {
                    Some(peer) => &mut self.peer(peer).refused,
                    None => &mut self.shut_out,
                };
                *refused = Some((code, refused.map_or(0, |(_, times)| times) + entry.count));
            }
            Event::Locked { .. } | Event::Ended => {}
        }
    }

    fn peer(&mut self, peer: PeerId) -> &mut Peer {
        self.peers.entry(peer).or_default()
    }

    /// Also one who was lost with its node, and is heard of again.
    fn come(&mut self, peer: PeerId) {
        let known = self.peer(peer);
        (known.waits, known.away, known.left) = (false, None, None);
        for talk in self.talks.values_mut().filter(|talk| talk.broken == Some(peer)) {
            talk.broken = None;
        }
    }

    /// A newcomer makes a pair with each who is there, while there are few.
    fn meet(&mut self, newcomer: PeerId) {
        let there =
            |(id, peer): (&PeerId, &Peer)| (*id != newcomer && peer.left.is_none() && !peer.waits).then_some(*id);
        let others: Vec<PeerId> = self.peers.iter().filter_map(there).take(MESH).collect();
        if others.len() < MESH {
            for other in others {
                self.talk(newcomer, other);
            }
        }
    }

    fn talk(&mut self, one: PeerId, other: PeerId) -> &mut Talk {
        self.talks.entry((one.min(other), one.max(other))).or_default()
    }

    fn leave(&mut self, peer: PeerId, at: u32, reason: LeftReason) {
        self.peer(peer).left = Some((at, reason));
        for ((one, other), talk) in &mut self.talks {
            let is_open = talk.ways.iter().any(|way| way.offer.is_some());
            if (*one == peer || *other == peer) && is_open && talk.broken.is_none() {
                talk.broken = Some(peer);
            }
        }
    }

    fn relay(&mut self, from: PeerId, to: PeerId, step: Step, outcome: Outcome, entry: &Entry) {
        self.peer(from);
        let talk = self.talk(from, to);
        let [own, back] = match from < to {
            true => [0, 1],
            false => [1, 0],
        };
        match step {
            Step::Offer => {
                talk.ways[own].offer = Some((entry.at, outcome));
                talk.ways[own].offers += 1;
            }
            Step::Answer => {
                talk.ways[own].answer_lost = (!outcome.arrives()).then_some(outcome);
                if outcome.arrives() {
                    talk.answers += 1;
                    talk.ways[back].offer = None;
                    // Whoever answers has taken its own offer back (JSEP, 4.1.10.2).
                    talk.ways[own].offer = None;
                }
            }
            Step::Rollback => {
                talk.ways[own].offer = None;
                talk.ways[own].rollbacks += 1;
            }
            Step::Candidate if outcome.arrives() => talk.ways[own].candidates += entry.count,
            Step::Candidate if outcome == Outcome::Filtered => talk.ways[own].filtered += entry.count,
            Step::EndOfCandidates => talk.ways[own].ended = true,
            Step::Candidate | Step::Pranswer => {}
        }
    }

    fn judge(&self) -> Vec<Pair> {
        let judge = |(&(impolite, polite), talk): (&(PeerId, PeerId), &Talk)| {
            let left = |peer| self.peers.get(&peer).is_some_and(|peer| peer.left.is_some());
            let is_over = left(impolite) || left(polite);
            let (state, text) = self.verdict(impolite, polite, talk);
            Pair { impolite, polite, state, text, is_over }
        };
        self.talks.iter().map(judge).collect()
    }

    fn verdict(&self, impolite: PeerId, polite: PeerId, talk: &Talk) -> (State, String) {
        let ids = [impolite, polite];
        if let Some(gone) = talk.broken {
            return (State::LeftDuring, self.left_during(gone, other(ids, gone), talk.answers));
        }
        let offers = [0, 1].map(|way| talk.ways[way].offer.map(|(at, outcome)| (way, at, outcome)));
        match offers {
            [Some(_), Some(_)] => return (State::Glare, glare(ids)),
            [Some((way, at, outcome)), None] | [None, Some((way, at, outcome))] => {
                let (from, to) = (ids[way], ids[1 - way]);
                if !outcome.arrives() {
                    return (State::OfferLost, offer_lost(from, to, outcome));
                }
                if let Some(lost) = talk.ways[1 - way].answer_lost {
                    return (State::AnswerLost, answer_lost(to, from, lost));
                }
                return (State::NoAnswer, self.no_answer(from, to, at, talk.answers));
            }
            [None, None] => {}
        }
        let (state, text) = match (talk.answers, talk.ways.iter().map(|way| way.offers).sum()) {
            (0, 0u32) => (State::NoOffer, self.no_offer(impolite, polite)),
            (0, _) => (State::RolledBack, rolled_back(ids, talk)),
            _ => candidates(ids, &talk.ways),
        };
        // What the clients know is more than what passed here.
        reached::verdict(ids, talk.ways.map(|way| way.told), (state, &text)).unwrap_or((state, text))
    }

    fn no_offer(&self, impolite: PeerId, polite: PeerId) -> String {
        let mut text = format!(
            "{} and {} were both in the room, but neither sent an offer. The first is due from {}, who is polite in this pair. \
             Look at its log; offers that an application carries in a message of its own are not seen here.",
            short(impolite),
            short(polite),
            short(polite),
        );
        text += &self.refusal(polite);
        text += &self.refusal(impolite);
        text += &self.absence(polite);
        text
    }

    fn no_answer(&self, from: PeerId, to: PeerId, at: u32, answers: u32) -> String {
        let which = if answers > 0 { "a later offer" } else { "an offer" };
        let mut text = format!("{} sent {} {which}, which it did not answer.", short(from), short(to));
        let peer = self.peers.get(&to);
        match peer.and_then(|peer| peer.away) {
            Some(away) if away <= at => {
                text += &format!(
                    " {} had lost its transport {} before; the offer waits for it to come back.",
                    short(to),
                    seconds(at - away)
                );
            }
            Some(away) => {
                text += &format!(
                    " {} lost its transport {} after the offer and has not come back.",
                    short(to),
                    seconds(away - at)
                );
            }
            None => {
                text += &format!(
                    " {} is connected and has it: its page may be waiting for somebody to accept, or failed at setRemoteDescription.",
                    short(to)
                );
            }
        }
        text + &self.refusal(to)
    }

    fn left_during(&self, gone: PeerId, other: PeerId, answers: u32) -> String {
        let reason = match self.peers.get(&gone).and_then(|peer| peer.left) {
            Some((_, LeftReason::Timeout)) => "did not come back in time",
            Some((_, LeftReason::Kicked)) => "was removed",
            Some((_, LeftReason::NodeLost)) => "was lost with its server",
            Some((_, LeftReason::Left)) | None => "left",
        };
        let when = if answers > 0 { "while a later offer was" } else { "before the offer was" };
        format!("{} {reason} {when} answered between it and {}.", short(gone), short(other))
    }

    /// What a peer was refused, if anything.
    fn refusal(&self, peer: PeerId) -> String {
        let refused = self.peers.get(&peer).and_then(|known| known.refused);
        refused.map_or_else(String::new, |(code, times)| {
            format!(" The server refused {} {} of its requests, the last as {}.", short(peer), times, code.name())
        })
    }

    fn absence(&self, peer: PeerId) -> String {
        let away = self.peers.get(&peer).and_then(|known| known.away);
        away.map_or_else(String::new, |_| format!(" {} has lost its transport.", short(peer)))
    }

    /// What there is to say where there was no pair.
    fn alone(&self, dropped: u64) -> String {
        let waiting = self.peers.values().filter(|peer| peer.waits && peer.left.is_none()).count();
        let mut text = match self.peers.len() {
            0 if dropped > 0 => {
                "Nothing of the room was recorded: --timeline-memory was used up, or --timeline-events is 0.".to_owned()
            }
            0 => "Nobody has been in the room.".to_owned(),
            1 => "One peer was in the room, and nobody else came.".to_owned(),
            _ => "No two peers have been in the room at the same time.".to_owned(),
        };
        if waiting > 0 {
            text += &format!(" Waiting to be admitted: {waiting}.");
        }
        if let Some((code, times)) = self.shut_out {
            text += &format!(" Refused the room: {times}, the last as {}.", code.name());
        }
        text
    }
}

fn other([one, two]: [PeerId; 2], peer: PeerId) -> PeerId {
    if one == peer { two } else { one }
}

fn glare([impolite, polite]: [PeerId; 2]) -> String {
    format!(
        "{} and {} both sent an offer, and neither was answered (glare). {} is polite and had to take its own offer back and answer \
         the other's; its client does not follow perfect negotiation.",
        short(impolite),
        short(polite),
        short(polite)
    )
}

fn offer_lost(from: PeerId, to: PeerId, outcome: Outcome) -> String {
    let why = match outcome {
        Outcome::PeerGone => "was not in the room",
        Outcome::Unreachable => "is at a node that could not be reached",
        _ => "had no room in its queue",
    };
    format!("{} sent {} an offer that did not arrive, as {} {why}.", short(from), short(to), short(to))
}

fn answer_lost(from: PeerId, to: PeerId, outcome: Outcome) -> String {
    let why = match outcome {
        Outcome::PeerGone => "was not in the room any more",
        Outcome::Unreachable => "is at a node that could not be reached",
        _ => "had no room in its queue",
    };
    format!("{} answered, but the answer did not arrive, as {} {why}.", short(from), short(to))
}

fn rolled_back(ids: [PeerId; 2], talk: &Talk) -> String {
    let way = usize::from(talk.ways[1].rollbacks > 0);
    format!("{} took its offer to {} back, and no other came.", short(ids[way]), short(ids[1 - way]))
}

fn candidates(ids: [PeerId; 2], ways: &[Way; 2]) -> (State, String) {
    let silent = |way: usize| ways[way].candidates == 0;
    let filtered = |way: usize| match ways[way].filtered {
        0 => String::new(),
        many => format!(" {many} of {} were left out by --drop-candidates.", short(ids[way])),
    };
    match (silent(0), silent(1)) {
        (true, true) => (
            State::NoCandidates,
            format!(
                "Offer and answer were exchanged between {} and {}, but no candidates either way. Unless all of them stand in \
                 the descriptions, ICE has nothing to try.{}{}",
                short(ids[0]),
                short(ids[1]),
                filtered(0),
                filtered(1)
            ),
        ),
        (false, false) => (
            State::Complete,
            format!(
                "Between {} and {} all was exchanged: offer, answer, and {} and {} candidates. If there is no picture or sound, look at \
                 ICE and TURN (chrome://webrtc-internals, about:webrtc), not at signaling.",
                short(ids[0]),
                short(ids[1]),
                ways[0].candidates,
                ways[1].candidates
            ),
        ),
        (first, _) => {
            let way = usize::from(!first);
            let text = format!(
                "Offer and answer were exchanged, but {} sent {} no candidates. Unless they stand in its description, \
                 the connection depends on what the other side can reach.{}",
                short(ids[way]),
                short(ids[1 - way]),
                filtered(way)
            );
            (State::OneSidedCandidates, text)
        }
    }
}

/// The part of an id that differs between peers who come at the same time.
fn short(peer: PeerId) -> String {
    let text = peer.to_string();
    format!("…{}", &text[text.len() - 6..])
}

fn seconds(ms: u32) -> String {
    if ms < 1000 {
        return format!("{ms} ms");
    }
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests;
