//! What clients tell of their connections with one another: where ICE has found a path, where media arrive, where it failed.

use super::{State, seconds, short};
use crate::protocol::{CandidateType, PeerId, Reached};

/// What one of a pair tells of its connection with the other, the last of each.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Told {
    connected: Option<Milestone>,
    media: Option<Milestone>,
    /// Not connected again since.
    failed: Option<Milestone>,
}

/// When it was reached, since the beginning of the connection, and by which candidates.
#[derive(Debug, Clone, Copy)]
struct Milestone {
    after_ms: u32,
    candidate: Option<CandidateType>,
}

impl Milestone {
    /// As in "after 0.4 s by relay".
    fn told(self) -> String {
        let way = self.candidate.map_or_else(String::new, |candidate| format!(" by {}", candidate.name()));
        format!("after {}{way}", seconds(self.after_ms))
    }
}

impl Told {
    pub(super) fn note(&mut self, reached: Reached, candidate: Option<CandidateType>, after_ms: u32) {
        let milestone = Some(Milestone { after_ms, candidate });
        match reached {
            Reached::Connected => (self.connected, self.failed) = (milestone, None),
            Reached::Media => self.media = milestone,
            Reached::Failed => self.failed = milestone,
        }
    }
}

/// Where a connection has come to, as one of the pair or both of them tell; `None` where neither tells. `signaled`: how far
/// signaling had come, and that in words.
pub(super) fn verdict(ids: [PeerId; 2], told: [Told; 2], signaled: (State, &str)) -> Option<(State, String)> {
    for way in [0, 1] {
        if let Some(failed) = told[way].failed {
            let text = match told[way].connected {
                Some(before) => lost(ids, way, failed, before),
                None => failure(ids, way, failed, signaled),
            };
            return Some((State::IceFailed, text));
        }
    }
    match told.map(|told| told.media) {
        [Some(one), Some(other)] => Some((State::Media, both_ways(ids, one, other))),
        [Some(media), None] => Some((State::Media, one_way(ids, 0, media, told[1].connected))),
        [None, Some(media)] => Some((State::Media, one_way(ids, 1, media, told[0].connected))),
        [None, None] => no_media(ids, told.map(|told| told.connected)).map(|text| (State::Connected, text)),
    }
}

fn both_ways(ids: [PeerId; 2], one: Milestone, other: Milestone) -> String {
    let [first, second] = ids.map(short);
    format!("Media have arrived both ways: at {first} {}, at {second} {}.", one.told(), other.told())
}

/// Media have arrived at the peer at `way`; the other tells of none.
fn one_way(ids: [PeerId; 2], way: usize, media: Milestone, connected: Option<Milestone>) -> String {
    let (to, from) = (short(ids[way]), short(ids[1 - way]));
    let mut text = format!("Media from {from} have arrived at {to} {}.", media.told());
    if let Some(connected) = connected {
        let told = connected.told();
        text += &format!(" ICE connected at {from} {told}, but no media have arrived there. Does {to} send any?");
    }
    text
}

/// `None` where neither is connected.
fn no_media(ids: [PeerId; 2], connected: [Option<Milestone>; 2]) -> Option<String> {
    let told: Vec<_> = ids
        .into_iter()
        .zip(connected)
        .filter_map(|(peer, connected)| connected.map(|connected| format!("at {} {}", short(peer), connected.told())))
        .collect();
    let [impolite, polite] = ids.map(short);
    (!told.is_empty()).then(|| {
        format!(
            "ICE connected between {impolite} and {polite} ({}), but media have not arrived. If there are to be any, look at whether \
             tracks are sent (chrome://webrtc-internals, about:webrtc); a connection for data alone has none.",
            told.join(", ")
        )
    })
}

/// The connection that the peer at `way` had failed there.
fn lost(ids: [PeerId; 2], way: usize, failed: Milestone, before: Milestone) -> String {
    let (peer, other) = (short(ids[way]), short(ids[1 - way]));
    format!(
        "ICE connected at {peer} {}, but the connection with {other} failed {} after its beginning, and has not come back: \
         look at the network of both.",
        before.told(),
        seconds(failed.after_ms)
    )
}

/// The peer at `way` had no connection yet.
fn failure(ids: [PeerId; 2], way: usize, failed: Milestone, (state, text): (State, &str)) -> String {
    let signaling = match state {
        State::Complete => "Signaling was complete.",
        State::OneSidedCandidates | State::NoCandidates => text,
        _ => "Offer and answer were not seen here.",
    };
    let advice = match failed.candidate {
        None => "It does not say which candidates it had.",
        Some(CandidateType::Host) => {
            "It had host candidates alone: no STUN and no TURN server has answered it. Are any configured?"
        }
        Some(CandidateType::Srflx | CandidateType::Prflx) => {
            "It had no relay candidate: is TURN configured, and can it be reached?"
        }
        Some(CandidateType::Relay) => {
            "It had a relay candidate: had the other one, and does the TURN server let both through?"
        }
    };
    let (peer, other) = (short(ids[way]), short(ids[1 - way]));
    let after = seconds(failed.after_ms);
    format!("{signaling} ICE failed on {peer}'s side, {after} after it began to connect with {other}. {advice}")
}
