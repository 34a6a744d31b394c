use super::super::tests::peer;
use super::*;
use crate::protocol::{CandidateType, Reached, Transport};

const A: u128 = 1;
const B: u128 = 2;

/// What happened, a line each at a hundred milliseconds' distance.
#[derive(Default)]
struct Story(Vec<Entry>);

impl Story {
    fn of_two() -> Self {
        Story::default().join(A).join(B)
    }

    fn note(mut self, event: Event) -> Self {
        let at = self.0.len() as u32 * 100;
        self.0.push(Entry { at, until: at, count: 1, event });
        self
    }

    fn join(self, who: u128) -> Self {
        self.note(Event::Joined { peer: peer(who), transport: Some(Transport::WebTransport) })
    }

    fn send(self, from: u128, step: Step, to: u128) -> Self {
        self.send_for(from, step, to, Outcome::Delivered)
    }

    fn send_for(self, from: u128, step: Step, to: u128, outcome: Outcome) -> Self {
        self.note(Event::Relayed { from: peer(from), to: peer(to), step, bytes: 100, outcome })
    }

    fn away(self, who: u128) -> Self {
        self.note(Event::Away { peer: peer(who), code: None })
    }

    fn left(self, who: u128, reason: LeftReason) -> Self {
        self.note(Event::Left { peer: peer(who), reason })
    }

    /// Offer and answer, B's being the first.
    fn agreed() -> Self {
        Story::of_two().send(B, Step::Offer, A).send(A, Step::Answer, B)
    }

    /// All that signaling has to do.
    fn complete() -> Self {
        Story::agreed().send(A, Step::Candidate, B).send(B, Step::Candidate, A)
    }

    fn tell(self, peer: u128, with: u128, reached: Reached, after_ms: u32, candidate: Option<CandidateType>) -> Self {
        self.note(Event::Reached { peer: self::peer(peer), with: self::peer(with), reached, candidate, after_ms })
    }

    fn diagnose(&self) -> Diagnosis {
        diagnose(&self.0, 0)
    }

    /// That it comes to this state, in a text with these words.
    fn is(&self, state: State, words: &[&str]) {
        let found = self.diagnose();
        assert_eq!(found.state, Some(state), "{}", found.text);
        for word in words {
            assert!(found.text.contains(word), "{word}: {}", found.text);
        }
    }
}

#[test]
fn an_offer_was_never_sent() {
    Story::of_two().is(State::NoOffer, &["neither sent an offer", "due from …000002"]);
    let refused = Event::Refused { peer: Some(peer(B)), code: Code::InvalidDescription };
    Story::of_two().note(refused).is(State::NoOffer, &["refused …000002 1 of its requests", "invalidDescription"]);
}

#[test]
fn an_offer_did_not_arrive() {
    Story::of_two().send_for(B, Step::Offer, A, Outcome::QueueFull).is(State::OfferLost, &["no room in its queue"]);
    Story::default().join(B).send_for(B, Step::Offer, A, Outcome::PeerGone).is(State::OfferLost, &["not in the room"]);
    let again = Story::of_two().send_for(B, Step::Offer, A, Outcome::QueueFull).send(B, Step::Offer, A);
    again.is(State::NoAnswer, &[]);
}

#[test]
fn an_offer_was_not_answered_by_one_who_is_there_or_away() {
    Story::of_two().send(B, Step::Offer, A).is(State::NoAnswer, &["…000001 is connected and has it"]);
    let before = Story::of_two().away(A).send_for(B, Step::Offer, A, Outcome::Kept);
    before.is(State::NoAnswer, &["…000001 had lost its transport 100 ms before", "waits for it"]);
    Story::of_two().send(B, Step::Offer, A).away(A).is(State::NoAnswer, &["100 ms after the offer"]);
    let back = Story::of_two().send(B, Step::Offer, A).away(A);
    back.note(Event::Back { peer: peer(A), transport: None }).is(State::NoAnswer, &["is connected"]);
}

#[test]
fn a_provisional_answer_is_none() {
    Story::of_two().send(B, Step::Offer, A).send(A, Step::Pranswer, B).is(State::NoAnswer, &[]);
}

#[test]
fn an_answer_did_not_arrive() {
    let lost = Story::of_two().send(B, Step::Offer, A).send_for(A, Step::Answer, B, Outcome::QueueFull);
    lost.is(State::AnswerLost, &["…000001 answered", "…000002 had no room"]);
}

#[test]
fn candidates_are_missing_on_both_sides_or_on_one() {
    Story::agreed().is(State::NoCandidates, &["no candidates either way"]);
    let one = Story::agreed().send(A, Step::Candidate, B);
    one.is(State::OneSidedCandidates, &["…000002 sent …000001 no candidates"]);
    let other = Story::agreed().send(B, Step::Candidate, A).send_for(A, Step::Candidate, B, Outcome::Filtered);
    other.is(State::OneSidedCandidates, &["…000001 sent …000002 no candidates", "1 of …000001 were left out"]);
    let end = Story::agreed().send(B, Step::Candidate, A).send(A, Step::EndOfCandidates, B);
    end.is(State::OneSidedCandidates, &["…000001 sent …000002 no candidates"]);
}

#[test]
fn all_was_exchanged_so_that_the_trouble_lies_elsewhere() {
    let complete = Story::complete();
    complete.is(State::Complete, &["1 and 1 candidates", "not at signaling"]);
    complete.left(A, LeftReason::Left).is(State::Complete, &[]);
}

#[test]
fn both_offered_and_nobody_gave_way() {
    let glare = Story::of_two().send(A, Step::Offer, B).send(B, Step::Offer, A);
    glare.is(State::Glare, &["…000002 is polite"]);
}

#[test]
fn glare_that_was_resolved_is_none() {
    let resolved = Story::of_two().send(A, Step::Offer, B).send(B, Step::Offer, A).send(B, Step::Answer, A);
    resolved.send(A, Step::Candidate, B).send(B, Step::Candidate, A).is(State::Complete, &[]);
}

#[test]
fn an_offer_was_taken_back_and_no_other_came() {
    let taken = Story::of_two().send(B, Step::Offer, A).send(B, Step::Rollback, A);
    taken.is(State::RolledBack, &["…000002 took its offer to …000001 back"]);
    let taken = Story::of_two().send(A, Step::Offer, B).send(A, Step::Rollback, B);
    taken.is(State::RolledBack, &["…000001 took its offer to …000002 back"]);
}

#[test]
fn a_peer_left_during_the_negotiation() {
    let timeout = Story::of_two().send(B, Step::Offer, A).away(A).left(A, LeftReason::Timeout);
    timeout.is(State::LeftDuring, &["…000001 did not come back in time before the offer was answered"]);
    let kicked = Story::of_two().send(B, Step::Offer, A).left(B, LeftReason::Kicked).left(A, LeftReason::Left);
    kicked.is(State::LeftDuring, &["…000002 was removed"]);
}

#[test]
fn a_later_offer_is_not_answered_though_the_first_was() {
    let again = Story::complete().send(A, Step::Offer, B);
    again.is(State::NoAnswer, &["a later offer"]);
}

#[test]
fn nobody_met() {
    let alone = Story::default().join(A).diagnose();
    assert_eq!((alone.state, alone.pairs.len()), (None, 0));
    assert!(alone.text.contains("nobody else came"), "{}", alone.text);
    let missed = Story::default().join(A).left(A, LeftReason::Left).join(B).diagnose();
    assert!(missed.text.contains("at the same time"), "{}", missed.text);
    let shut = Story::default().join(A).note(Event::Refused { peer: None, code: Code::RoomLocked }).diagnose();
    assert!(shut.text.contains("Refused the room: 1, the last as roomLocked"), "{}", shut.text);
    let knocked = Story::default().join(A).note(Event::Knocked { peer: peer(B), transport: None });
    assert!(knocked.diagnose().text.contains("Waiting to be admitted: 1"));
    knocked.note(Event::Admitted { peer: peer(B) }).is(State::NoOffer, &[]);
}

#[test]
fn the_worst_pair_that_is_still_there_explains_the_room() {
    let story = Story::complete().join(3).send(3, Step::Offer, A);
    let found = story.diagnose();
    let states: Vec<_> = found.pairs.iter().map(|pair| (pair.impolite, pair.polite, pair.state)).collect();
    let expected = [(B, 3, State::NoOffer), (A, 3, State::NoAnswer), (A, B, State::Complete)];
    assert_eq!(states, expected.map(|(one, other, state)| (peer(one), peer(other), state)));
    let after = story.left(3, LeftReason::Left).diagnose();
    assert_eq!(after.state, Some(State::Complete), "who has left comes last");
}

#[test]
fn only_the_rooms_last_life_counts() {
    let before = Story::of_two().left(A, LeftReason::Left).left(B, LeftReason::Left).note(Event::Ended);
    assert_eq!(before.diagnose().state, Some(State::NoOffer));
    assert_eq!(before.join(3).diagnose().state, None);
}

#[test]
fn of_a_large_room_those_are_told_of_who_talk() {
    let mut story = Story::default();
    for who in 1..=60 {
        story = story.join(who);
    }
    assert!(story.diagnose().pairs.len() <= MESH * MESH);
    let talking = story.send(60, Step::Offer, 59).diagnose();
    assert!(talking.pairs.iter().any(|pair| pair.state == State::NoAnswer));
}

#[test]
fn what_was_forgotten_is_said() {
    assert!(diagnose(&Story::of_two().0, 7).text.contains("forgotten (7)"));
}

#[test]
fn one_who_is_heard_of_again_is_not_gone() {
    let lost = Story::of_two().send(B, Step::Offer, A).left(A, LeftReason::NodeLost);
    lost.is(State::LeftDuring, &["was lost with its server"]);
    let back = Story::of_two().send(B, Step::Offer, A).left(A, LeftReason::NodeLost).join(A).send(A, Step::Answer, B);
    back.is(State::NoCandidates, &[]);
    assert!(!back.diagnose().pairs[0].is_over);
}

#[test]
fn an_offer_that_its_node_could_not_be_sent_has_not_arrived() {
    let story = Story::of_two().send_for(B, Step::Offer, A, Outcome::Unreachable);
    story.is(State::OfferLost, &["at a node that could not be reached"]);
}

#[test]
fn where_nothing_could_be_recorded_nobody_is_said_to_have_been_there() {
    let found = diagnose(&[], 3);
    assert!(found.text.contains("--timeline-memory") && !found.text.contains("Nobody"), "{}", found.text);
}

#[test]
fn media_that_arrive_are_told_with_their_time_and_way() {
    use {CandidateType::*, Reached::*};
    let one = Story::complete().tell(A, B, Connected, 400, Some(Relay)).tell(A, B, Media, 812, Some(Relay));
    one.is(State::Media, &["Media from …000002 have arrived at …000001 after 812 ms by relay."]);
    assert!(!one.diagnose().text.contains("Does"), "of one who tells nothing there is nothing to say");
    let silent = one.tell(B, A, Connected, 1_530, Some(Host));
    silent.is(State::Media, &["ICE connected at …000002 after 1.5 s by host", "Does …000001 send any?"]);
    let both = silent.tell(B, A, Media, 1_700, Some(Host));
    both.is(State::Media, &["both ways", "at …000001 after 812 ms by relay", "at …000002 after 1.7 s by host"]);
}

#[test]
fn ice_connected_and_media_never_came() {
    let story = Story::complete().tell(B, A, Reached::Connected, 420, Some(CandidateType::Relay));
    story.is(State::Connected, &["(at …000002 after 420 ms by relay)", "media have not arrived"]);
    let carried = Story::of_two().tell(B, A, Reached::Connected, 420, None);
    carried.is(State::Connected, &["at …000002 after 420 ms)"]);
}

#[test]
fn ice_failed_and_which_candidates_there_were_says_where_to_look() {
    let failed = |candidate| Story::complete().tell(A, B, Reached::Failed, 15_240, candidate);
    let told = ["Signaling was complete", "ICE failed on …000001's side, 15.2 s after"];
    failed(None).is(State::IceFailed, &[told[0], told[1], "does not say"]);
    failed(Some(CandidateType::Host)).is(State::IceFailed, &["host candidates alone"]);
    failed(Some(CandidateType::Srflx)).is(State::IceFailed, &["no relay candidate: is TURN configured"]);
    failed(Some(CandidateType::Relay)).is(State::IceFailed, &["had a relay candidate"]);
    let one_way = Story::agreed().send(A, Step::Candidate, B).tell(B, A, Reached::Failed, 15_000, None);
    one_way.is(State::IceFailed, &["…000002 sent …000001 no candidates", "…000002's side"]);
    let none = Story::agreed().tell(B, A, Reached::Failed, 15_000, None);
    none.is(State::IceFailed, &["no candidates either way"]);
    let unseen = Story::of_two().tell(B, A, Reached::Failed, 15_000, None);
    unseen.is(State::IceFailed, &["not seen here"]);
}

#[test]
fn a_connection_that_failed_and_came_back_has_not_failed() {
    use {CandidateType::*, Reached::*};
    let worked = Story::complete().tell(A, B, Connected, 400, Some(Srflx)).tell(A, B, Media, 600, Some(Srflx));
    let lost = worked.tell(A, B, Failed, 63_000, Some(Relay));
    lost.is(State::IceFailed, &["ICE connected at …000001 after 400 ms by srflx", "failed 63.0 s after its beginning"]);
    lost.tell(A, B, Connected, 70_000, Some(Relay)).is(State::Media, &["after 600 ms by srflx"]);
}

#[test]
fn a_later_offer_without_an_answer_is_told_though_media_flow() {
    let story = Story::complete().tell(A, B, Reached::Media, 600, None).send(A, Step::Offer, B);
    story.is(State::NoAnswer, &["a later offer"]);
}
