//! What is kept of a seat beyond the life of its node, as JSON: records of its state and of payloads that were said to it alone, each
//! with the number under which its client gets it. Pure.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::store::Log;
use crate::protocol::{NodeId, PeerId};

/// So many payloads are remembered by their senders' ids, so that none comes twice.
const REMEMBERED: usize = 1024;

/// After so many records, or bytes, one takes the place of all.
const LONG: (usize, usize) = (64, 128 * 1024);

/// Who has said a payload, and its id there.
pub type Sender = (PeerId, u64);

/// The last record's number, if it is known; of whom payloads were stored; and of whom they may or may not have come.
pub type HandedOn = (Option<u64>, Vec<Sender>, Vec<Sender>);

/// A payload, and its number at the client.
pub type Mail = (u64, Box<RawValue>);

/// One record. Of several, the later ones hold.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Who has written it, and has the seat.
    pub owner: NodeId,
    /// How often the seat went from node to node. The greater count holds.
    pub moves: u64,
    /// All but the payloads, if that has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Box<RawValue>>,
    /// The owner has taken the seat up from a lost node, for a client that has handled everything up to this number: what it has not
    /// is numbered from there on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<u64>,
    /// Who has said what is in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<Sender>,
    /// Who has said what the client may or may not have got from an owner before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsure: Vec<Sender>,
    /// How many payloads up to which number are in no record any more though their client has not acknowledged them, for want of room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<(u64, u64)>,
    /// What was said. What was recorded before with one of these numbers, or a greater one, never got it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mails: Vec<Mail>,
}

impl Record {
    /// The record as text.
    pub fn write(&self) -> Bytes {
        serde_json::to_vec(self).expect("records have string keys and no failing parts").into()
    }
}

/// What a log comes to.
#[derive(Debug)]
pub struct Kept {
    /// Who had the seat last.
    pub owner: NodeId,
    /// How often it went from node to node until then.
    pub moves: u64,
    /// All but the payloads, as of the last time that it was written.
    pub state: Option<Box<RawValue>>,
    /// What was said to it, by its number.
    pub mails: BTreeMap<u64, Box<RawValue>>,
    /// How many payloads more were said up to which number.
    left: BTreeMap<u64, u64>,
    /// How many of these were not handled when the seat was taken up, and are lost.
    pub lost: u64,
    /// Who has said it, and what was said before.
    pub said: Vec<Sender>,
    /// Who has said what the client may or may not have got.
    pub unsure: Vec<Sender>,
    /// How many of what was said were in the last record, and from which number on its payloads were.
    latest: usize,
    latest_from: u64,
}

impl Kept {
    /// Reads a log; nothing if there is none.
    ///
    /// # Errors
    /// A record is none.
    pub fn read(log: &Log) -> Result<Option<Self>, serde_json::Error> {
        let mut kept: Option<Kept> = None;
        for record in &log.records {
            let record: Record = serde_json::from_slice(record)?;
            let (owner, moves) = (record.owner, record.moves);
            let (mails, left) = (BTreeMap::new(), BTreeMap::new());
            let (said, unsure) = (Vec::new(), Vec::new());
            let empty = || Kept {
                owner,
                moves,
                state: None,
                mails,
                left,
                lost: 0,
                said,
                unsure,
                latest: 0,
                latest_from: u64::MAX,
            };
            kept.get_or_insert_with(empty).add(record);
        }
        Ok(kept)
    }

    /// What one more record makes of it.
    pub fn add(&mut self, record: Record) {
        (self.owner, self.moves) = (record.owner, record.moves);
        self.state = record.state.or(self.state.take());
        if let Some(handled) = record.claim {
            let next = handled.saturating_add(1);
            // The owner may have died without knowing that the last record was stored. Then it has given its numbers to others.
            if self.mails.range(..next).next_back().is_some_and(|(number, _)| *number >= self.latest_from) {
                self.unsure.extend(self.said.split_off(self.said.len() - self.latest));
            }
            let unread = self.mails.split_off(&next).into_values();
            self.mails = unread.zip(next..).map(|(mail, number)| (number, mail)).collect();
            self.lost += self.left.split_off(&next).into_values().sum::<u64>();
            self.left.clear();
        }
        self.left.extend(record.left);
        if let Some((first, _)) = record.mails.first() {
            self.mails.split_off(first);
        }
        self.latest_from = record.mails.first().map_or(u64::MAX, |(first, _)| *first);
        self.mails.extend(record.mails);
        self.latest = record.said.len();
        self.said.extend(record.said);
        self.unsure.extend(record.unsure);
    }
}

/// Who waits for the answer to a payload that is being stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// A member here whose seat was handed on so often; without an id it is told of failures alone.
    Here((PeerId, u64), Option<u64>),
    /// Another node, over a link in this life, by this receipt.
    Node(NodeId, u64, u64),
}

/// One that is.
#[derive(Debug)]
pub struct Waiting {
    /// Whose it is, if it has an id.
    pub sender: Option<Sender>,
    /// Whom to answer.
    pub askers: Vec<Asker>,
    /// Its size.
    pub bytes: usize,
}

/// Whether a payload was said before.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// It was stored.
    Stored,
    /// It is being stored: who asks is answered then.
    Waiting,
    /// It was not, but something that was said after it: it comes too late.
    Late,
    /// An owner before may or may not have brought it.
    Unsure,
    /// It was not.
    New,
}

/// The owner's end of a seat's log.
#[derive(Debug)]
pub struct Journal {
    /// The last record's number; `None` if it is not known.
    last: Option<u64>,
    /// The greatest number that a record of this log, or of its owners' before, is known to have had.
    newest: u64,
    /// The state is to be written.
    is_due: bool,
    /// The next record has to take the place of all, as it is not known what there is, or it is not whole.
    anew: bool,
    /// How many of those that wait are being written, and whether anything is.
    in_flight: Option<usize>,
    waiting: VecDeque<Waiting>,
    /// Of whom payloads were stored, the latest last.
    said: VecDeque<Sender>,
    /// Of whom they may or may not have come.
    unsure: Vec<Sender>,
    records: usize,
    bytes: usize,
}

/// What there is to write.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// First it has to be known what there is.
    Look,
    /// A record after the one with this number, with the first so many of what waits.
    Write {
        /// The last record.
        last: u64,
        /// How many.
        mails: usize,
        /// With the state.
        state: bool,
        /// In the place of all others.
        all: bool,
    },
}

impl Journal {
    /// That of a seat that begins here.
    pub fn new() -> Self {
        Self::after((Some(0), Vec::new(), Vec::new()))
    }

    /// That of a seat that has come from another node, with what was written there.
    pub fn after((last, said, unsure): HandedOn) -> Self {
        let mut journal = Journal {
            last,
            newest: last.unwrap_or(0),
            is_due: true,
            anew: true,
            in_flight: None,
            waiting: VecDeque::new(),
            said: VecDeque::new(),
            unsure,
            records: 0,
            bytes: 0,
        };
        said.into_iter().for_each(|sender| journal.remember(sender));
        journal
    }

    /// The state has changed.
    pub fn touch(&mut self) {
        self.is_due = true;
    }

    /// All is to be written again: it was not written whole, or long ago.
    pub fn renew(&mut self) {
        (self.is_due, self.anew) = (true, true);
    }

    /// Whether anything is to be written.
    pub fn is_due(&self) -> bool {
        self.is_due || !self.waiting.is_empty()
    }

    /// Whether anything is being written, or waits for it.
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some() || !self.waiting.is_empty()
    }

    /// What the node that goes on with it has to know.
    pub fn hand_on(&self) -> HandedOn {
        (self.last, self.said.iter().copied().collect(), self.unsure.clone())
    }

    /// Of whom it is not known whether their payloads have come.
    pub fn unsure(&self) -> &[Sender] {
        &self.unsure
    }

    /// Up to which record the log is this owner's to remove.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether a payload was said before; whoever says it again while it is being stored is answered with the others.
    pub fn knows(&mut self, sender: Option<Sender>, asker: &Asker) -> Known {
        let Some(sender) = sender else { return Known::New };
        if self.said.contains(&sender) {
            return Known::Stored;
        }
        if self.unsure.contains(&sender) {
            return Known::Unsure;
        }
        let latest = self.latest_of(sender.0);
        match self.waiting.iter_mut().find(|waiting| waiting.sender == Some(sender)) {
            Some(waiting) => {
                waiting.askers.push(asker.clone());
                Known::Waiting
            }
            None if latest > Some(sender.1) => Known::Late,
            None => Known::New,
        }
    }

    /// The greatest id that somebody's payload had.
    fn latest_of(&self, peer: PeerId) -> Option<u64> {
        let waiting = self.waiting.iter().filter_map(|waiting| waiting.sender);
        self.said
            .iter()
            .chain(&self.unsure)
            .copied()
            .chain(waiting)
            .filter(|(from, _)| *from == peer)
            .map(|(_, id)| id)
            .max()
    }

    /// A payload waits to be stored.
    pub fn push(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// Begins what is to be done next. `most` are the bytes of payloads that a record takes; one goes in any case.
    pub fn begin(&mut self, most: usize) -> Step {
        if !self.is_due() {
            return Step::Rest;
        }
        let Some(last) = self.last else {
            self.in_flight = Some(0);
            return Step::Look;
        };
        let mut bytes = 0;
        let fits = |waiting: &&Waiting| {
            bytes += waiting.bytes;
            bytes <= most
        };
        let mails = self.waiting.iter().take_while(fits).count().max(1).min(self.waiting.len());
        let all = self.anew || self.records >= LONG.0 || self.bytes >= LONG.1;
        let state = all || self.is_due;
        // What changes from now on is for the next record.
        (self.in_flight, self.is_due, self.anew) = (Some(mails), false, false);
        if all {
            (self.records, self.bytes) = (0, 0);
        }
        Step::Write { last, mails, state, all }
    }

    /// Senders of the first so many that wait, and of what was said before if `all`.
    pub fn senders(&self, mails: usize, all: bool) -> Vec<Sender> {
        let before = self.said.iter().copied().filter(|_| all);
        before.chain(self.waiting.iter().take(mails).filter_map(|waiting| waiting.sender)).collect()
    }

    /// The record was stored, with this number. Returns what waited for it.
    pub fn stored(&mut self, last: u64, bytes: usize) -> Vec<Waiting> {
        let mails = self.in_flight.take().unwrap_or(0);
        (self.last, self.newest) = (Some(last), last);
        self.records += 1;
        self.bytes += bytes;
        let stored: Vec<Waiting> = self.waiting.drain(..mails).collect();
        stored.iter().filter_map(|waiting| waiting.sender).for_each(|sender| self.remember(sender));
        stored
    }

    /// It is known what there is: the last record has this number, and is to be replaced.
    pub fn found(&mut self, last: u64) {
        self.in_flight = None;
        (self.last, self.newest) = (Some(last), last);
        self.renew();
    }

    /// The record was not stored, or may not have been: what was in it, or all that waits if `all`, is given back.
    pub fn failed(&mut self, all: bool) -> Vec<Waiting> {
        let mails = self.in_flight.take().unwrap_or(0);
        self.last = None;
        self.renew();
        let most = if all { self.waiting.len() } else { mails };
        self.waiting.drain(..most).collect()
    }

    fn remember(&mut self, sender: Sender) {
        if self.said.len() >= REMEMBERED {
            self.said.pop_front();
        }
        self.said.push_back(sender);
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use uuid::Uuid;

    use super::*;

    fn peer(number: u128) -> PeerId {
        PeerId::new(Uuid::from_u128(number))
    }

    fn mail(number: u64, text: &str) -> Mail {
        (number, RawValue::from_string(text.to_owned()).expect("JSON"))
    }

    fn record(node: u64, claim: Option<u64>, mails: Vec<Mail>) -> Record {
        let owner = NodeId::new(NonZeroU64::new(node).expect("not zero"));
        Record {
            owner,
            moves: node,
            state: None,
            claim,
            said: vec![(peer(1), node)],
            unsure: vec![],
            left: vec![],
            mails,
        }
    }

    fn kept(records: &[Record]) -> Kept {
        let records: Vec<Bytes> = records.iter().map(Record::write).collect();
        Kept::read(&Log { last: records.len() as u64, records }).expect("records").expect("one or more")
    }

    fn mails(kept: &Kept) -> Vec<(u64, &str)> {
        kept.mails.iter().map(|(&number, mail)| (number, mail.get())).collect()
    }

    #[test]
    fn who_takes_a_seat_up_numbers_what_its_client_has_not_handled() {
        let log = [record(1, None, vec![mail(2, "2"), mail(5, "5")]), record(1, None, vec![mail(9, "9")])];
        assert_eq!(mails(&kept(&log)), [(2, "2"), (5, "5"), (9, "9")]);
        let [first, second] = log;
        let log = [first, second, record(2, Some(4), vec![]), record(2, None, vec![mail(8, "8")])];
        let kept = kept(&log);
        assert_eq!(mails(&kept), [(5, "5"), (6, "9"), (8, "8")]);
        assert_eq!((kept.moves, kept.said.len(), kept.unsure.len()), (2, 4, 0));
    }

    #[test]
    fn what_the_last_record_gave_a_number_that_the_client_has_may_or_may_not_have_come() {
        let log = |handled| {
            [record(1, None, vec![mail(2, "2")]), record(2, None, vec![mail(5, "5")]), record(3, Some(handled), vec![])]
        };
        let told = |handled| {
            let kept = kept(&log(handled));
            (kept.said, kept.unsure)
        };
        let [first, second, third] = [1, 2, 3].map(|id| (peer(1), id));
        assert_eq!(told(4), (vec![first, second, third], vec![]), "it is brought yet");
        assert_eq!(told(5), (vec![first, third], vec![second]));
        let mut journal = Journal::after((Some(3), vec![first], vec![second]));
        assert_eq!([1, 2, 3].map(|id| waits(&mut journal, id)), [Known::Stored, Known::Unsure, Known::New]);
        assert_eq!(journal.hand_on(), (Some(3), vec![first], vec![second]));
    }

    #[test]
    fn what_had_no_room_is_lost_if_its_client_has_not_handled_it() {
        let all = Record { left: vec![(3, 2), (5, 1)], ..record(1, None, vec![mail(9, "9")]) };
        let lost = |handled| {
            let kept = kept(&[
                Record { left: all.left.clone(), ..record(1, None, vec![mail(9, "9")]) },
                record(2, Some(handled), vec![]),
            ]);
            (kept.lost, kept.mails.len())
        };
        assert_eq!([lost(2), lost(3), lost(5), lost(9)], [(3, 1), (1, 1), (0, 1), (0, 0)]);
        let twice = kept(&[all, record(2, Some(4), vec![]), record(3, Some(4), vec![])]);
        assert_eq!((twice.lost, mails(&twice)), (1, vec![(5, "9")]));
    }

    #[test]
    fn what_was_recorded_without_an_answer_gives_its_numbers_to_what_follows() {
        let log = [record(1, None, vec![mail(2, "20"), mail(3, "30")]), record(1, None, vec![mail(3, "31")])];
        assert_eq!(mails(&kept(&log)), [(2, "20"), (3, "31")]);
        assert!(Kept::read(&Log::default()).expect("nothing").is_none());
        assert!(Kept::read(&Log { records: vec![Bytes::from_static(b"{}")], last: 1 }).is_err());
    }

    fn waits(journal: &mut Journal, id: u64) -> Known {
        let asker = Asker::Here((peer(1), 0), Some(id));
        let known = journal.knows(Some((peer(1), id)), &asker);
        if known == Known::New {
            journal.push(Waiting { sender: Some((peer(1), id)), askers: vec![asker], bytes: 10 });
        }
        known
    }

    #[test]
    fn one_record_is_written_at_a_time_and_the_next_takes_what_has_come_meanwhile() {
        let mut journal = Journal::new();
        let first = Step::Write { last: 0, mails: 0, state: true, all: true };
        assert_eq!(journal.begin(100), first);
        assert!(journal.stored(7, 10).is_empty());
        assert_eq!(journal.begin(100), Step::Rest);
        assert_eq!([1, 2, 3].map(|id| waits(&mut journal, id)), [Known::New, Known::New, Known::New]);
        assert_eq!(journal.begin(25), Step::Write { last: 7, mails: 2, state: false, all: false });
        assert_eq!(journal.senders(2, false), [(peer(1), 1), (peer(1), 2)]);
        journal.touch();
        assert_eq!(waits(&mut journal, 2), Known::Waiting);
        let stored = journal.stored(9, 10);
        assert_eq!(stored.iter().map(|waiting| waiting.askers.len()).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(waits(&mut journal, 2), Known::Stored);
        assert_eq!(journal.begin(5), Step::Write { last: 9, mails: 1, state: true, all: false });
        assert_eq!(journal.failed(false).len(), 1);
        assert_eq!(waits(&mut journal, 4), Known::New);
        assert_eq!(waits(&mut journal, 3), Known::Late);
        assert_eq!(journal.begin(5), Step::Look);
        journal.found(12);
        assert_eq!(journal.begin(5), Step::Write { last: 12, mails: 1, state: true, all: true });
        assert_eq!(journal.senders(1, true).len(), 3);
    }

    #[test]
    fn a_long_log_is_replaced_and_few_senders_are_remembered() {
        let mut journal = Journal::new();
        let mut replaced = 0;
        for id in 1..=2 * REMEMBERED as u64 {
            assert_eq!(waits(&mut journal, id), Known::New);
            let Step::Write { all, .. } = journal.begin(100) else { panic!("there is something to write") };
            replaced += usize::from(all);
            journal.stored(id, 100);
        }
        assert_eq!(replaced, 2 * REMEMBERED / LONG.0);
        assert_eq!(journal.hand_on().1.len(), REMEMBERED);
    }
}
