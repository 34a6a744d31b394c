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

/// A payload, and its number at the client.
pub type Mail = (u64, Box<RawValue>);

/// One record. Of several, the later ones hold.
#[derive(Serialize, Deserialize)]
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
pub struct Kept {
    /// Who had the seat last.
    pub owner: NodeId,
    /// How often it went from node to node until then.
    pub moves: u64,
    /// All but the payloads, as of the last time that it was written.
    pub state: Option<Box<RawValue>>,
    /// What was said to it, by its number.
    pub mails: BTreeMap<u64, Box<RawValue>>,
    /// Who has said it, and what was said before.
    pub said: Vec<Sender>,
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
            let empty = || Kept { owner, moves, state: None, mails: BTreeMap::new(), said: Vec::new() };
            kept.get_or_insert_with(empty).add(record);
        }
        Ok(kept)
    }

    /// What one more record makes of it.
    pub fn add(&mut self, record: Record) {
        (self.owner, self.moves) = (record.owner, record.moves);
        self.state = record.state.or(self.state.take());
        if let Some(handled) = record.claim {
            let left = self.mails.split_off(&handled.saturating_add(1));
            self.mails = left.into_values().zip(handled + 1..).map(|(mail, number)| (number, mail)).collect();
        }
        if let Some((first, _)) = record.mails.first() {
            self.mails.split_off(first);
        }
        self.mails.extend(record.mails);
        self.said.extend(record.said);
    }
}

/// Who waits for the answer to a payload that is being stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// A member here; without an id it is told of failures alone.
    Here(PeerId, Option<u64>),
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
    /// It was not.
    New,
}

/// The owner's end of a seat's log.
#[derive(Debug)]
pub struct Journal {
    /// The last record's number; `None` if it is not known.
    last: Option<u64>,
    /// The state is to be written.
    is_due: bool,
    /// The next record has to take the place of all, as it is not known what there is, or it is not whole.
    anew: bool,
    /// How many of those that wait are being written, and whether anything is.
    in_flight: Option<usize>,
    waiting: VecDeque<Waiting>,
    said: VecDeque<Sender>,
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
        Self::after(Some(0), Vec::new())
    }

    /// That of a seat that has come from another node, with what was written there.
    pub fn after(last: Option<u64>, said: Vec<Sender>) -> Self {
        let mut journal = Journal {
            last,
            is_due: true,
            anew: true,
            in_flight: None,
            waiting: VecDeque::new(),
            said: VecDeque::new(),
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

    /// The last record's number, and who has said what, for the node that goes on with it.
    pub fn hand_on(&self) -> (Option<u64>, Vec<Sender>) {
        (self.last, self.said.iter().copied().collect())
    }

    /// Whether a payload was said before; whoever says it again while it is being stored is answered with the others.
    pub fn knows(&mut self, sender: Option<Sender>, asker: &Asker) -> Known {
        let Some(sender) = sender else { return Known::New };
        if self.said.contains(&sender) {
            return Known::Stored;
        }
        match self.waiting.iter_mut().find(|waiting| waiting.sender == Some(sender)) {
            Some(waiting) => {
                waiting.askers.push(asker.clone());
                Known::Waiting
            }
            None => Known::New,
        }
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
        self.last = Some(last);
        self.records += 1;
        self.bytes += bytes;
        let stored: Vec<Waiting> = self.waiting.drain(..mails).collect();
        stored.iter().filter_map(|waiting| waiting.sender).for_each(|sender| self.remember(sender));
        stored
    }

    /// It is known what there is: the last record has this number, and is to be replaced.
    pub fn found(&mut self, last: u64) {
        self.in_flight = None;
        self.last = Some(last);
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
