//! The one buffer of a seat: what waits to be written, and what was written but not yet acknowledged.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::packed::Broken;
use crate::protocol::{Body, Frame, Kind};

/// As many requests as a client may have without an answer: each could have been refused.
const MOST_ERRORS: usize = 1024;

/// What a number takes beside its payload, in JSON.
const NUMBER_BYTES: usize = 24;

/// So many payloads that are left out are told apart by their numbers.
const MOST_LEFT: usize = 1024;

/// Messages in the order in which the client gets them, bounded in bytes and in number.
///
/// Only waiting messages count as queue: written ones are kept for a replay as long as there is room, and the oldest of them
/// are pushed out first. Worst-case memory is the byte limit, plus answers, plus `MOST_ERRORS` errors, plus 56 bytes a message.
#[derive(Debug)]
pub(super) struct Buffer {
    max_bytes: usize,
    max_messages: usize,
    /// Written to the present transport, or to one before, and not acknowledged. Numbered, without a gap.
    written: VecDeque<Entry>,
    /// Not yet written to the present transport.
    waiting: VecDeque<Entry>,
    /// Numbers of those that are being stored. Neither they nor what is behind them is written before that is done.
    held: VecDeque<u64>,
    written_bytes: usize,
    waiting_bytes: usize,
    /// The number that the next message gets.
    next_seq: u64,
    /// The greatest number that was ever written.
    sent: u64,
    /// Everything up to here is gone: acknowledged, or pushed out.
    gone: u64,
    /// Numbers of the payloads that were pushed out and not acknowledged, the latest `max_messages` of them.
    pushed_out: VecDeque<u64>,
    /// How many there were before those.
    pushed_out_before: u64,
    /// Errors that were pushed out and not acknowledged, the latest `MOST_ERRORS` of them; said again after a gap.
    errors: VecDeque<Entry>,
    /// What never got a number since the client was last told of losses, and what it was told of last.
    missed: Missed,
    told: Missed,
}

#[derive(Debug)]
struct Entry {
    /// `None` for what is never replayed.
    seq: Option<u64>,
    body: Body,
}

/// What did not fit: payloads, and whether presence was among it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Missed {
    payloads: u64,
    presence: bool,
}

impl Missed {
    fn and(self, other: Missed) -> Missed {
        Missed { payloads: self.payloads.saturating_add(other.payloads), presence: self.presence | other.presence }
    }
}

/// A buffer on its way to another node. What was written and what waits is written to the next transport alike.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Packed {
    written: Vec<PackedEntry>,
    waiting: Vec<PackedEntry>,
    next_seq: u64,
    sent: u64,
    gone: u64,
    pushed_out: VecDeque<u64>,
    pushed_out_before: u64,
    errors: Vec<PackedEntry>,
    missed: Missed,
    told: Missed,
}

impl Packed {
    /// That of a client which has handled everything up to `seq`, is told these payloads next, and has to be given a whole picture and
    /// to be told that so many more are lost.
    pub(super) fn after(seq: u64, payloads: Vec<Box<RawValue>>, lost: u64) -> Self {
        let next_seq = seq + 1 + payloads.len() as u64;
        let waiting = payloads.into_iter().zip(seq + 1..);
        Packed {
            written: Vec::new(),
            waiting: waiting.map(|(text, seq)| PackedEntry(Some(seq), Kind::Payload, text)).collect(),
            next_seq,
            sent: seq,
            gone: seq,
            pushed_out: VecDeque::new(),
            pushed_out_before: 0,
            errors: Vec::new(),
            missed: Missed { payloads: lost, presence: true },
            told: Missed::default(),
        }
    }

    /// How many payloads are lost of which its client has still to be told.
    pub(super) fn lost(&self) -> u64 {
        self.missed.payloads
    }
}

#[derive(Serialize, Deserialize)]
struct PackedEntry(Option<u64>, Kind, Box<RawValue>);

impl Entry {
    fn seq(&self) -> Option<u64> {
        self.seq
    }

    fn pack(&self) -> PackedEntry {
        let text = RawValue::from_string(self.body.text().to_owned());
        PackedEntry(self.seq, self.body.kind, text.expect("a message is JSON"))
    }

    fn unpack(PackedEntry(seq, kind, text): PackedEntry) -> Result<Self, Broken> {
        let body = Body::kept(Bytes::from(String::from(Box::<str>::from(text))), kind).ok_or(Broken)?;
        if seq.is_some() == kind.is_numbered() { Ok(Entry { seq, body }) } else { Err(Broken) }
    }
}

/// Payloads that a client has not acknowledged.
#[derive(Debug)]
pub struct Unacknowledged<'a> {
    /// How many up to which number are left out.
    pub left: Vec<(u64, u64)>,
    /// The others, with their numbers.
    pub kept: Vec<(u64, &'a Body)>,
}

/// The client cannot be told everything.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// How many payloads are lost.
    pub(super) lost: u64,
}

impl Buffer {
    pub(super) fn new(max_bytes: usize, max_messages: usize) -> Self {
        Buffer {
            max_bytes,
            max_messages,
            written: VecDeque::new(),
            waiting: VecDeque::new(),
            held: VecDeque::new(),
            written_bytes: 0,
            waiting_bytes: 0,
            next_seq: 1,
            sent: 0,
            gone: 0,
            pushed_out: VecDeque::new(),
            pushed_out_before: 0,
            errors: VecDeque::new(),
            missed: Missed::default(),
            told: Missed::default(),
        }
    }

    pub(super) fn pack(&self) -> Packed {
        Packed {
            written: self.written.iter().map(Entry::pack).collect(),
            waiting: self.waiting.iter().map(Entry::pack).collect(),
            next_seq: self.next_seq,
            sent: self.sent,
            gone: self.gone,
            pushed_out: self.pushed_out.clone(),
            pushed_out_before: self.pushed_out_before,
            errors: self.errors.iter().map(Entry::pack).collect(),
            missed: self.missed,
            told: self.told,
        }
    }

    /// Whether numbers have no gap is looked at, as everything stands on that.
    pub(super) fn unpack(packed: Packed, max_bytes: usize, max_messages: usize) -> Result<Self, Broken> {
        let entries =
            |packed: Vec<PackedEntry>| packed.into_iter().map(Entry::unpack).collect::<Result<VecDeque<_>, _>>();
        let size = |entries: &VecDeque<Entry>| entries.iter().map(|entry| entry.body.len()).sum();
        let (written, waiting) = (entries(packed.written)?, entries(packed.waiting)?);
        let mut buffer = Buffer::new(max_bytes, max_messages);
        let mut numbers = written.iter().chain(&waiting).filter_map(|entry| entry.seq);
        let first = numbers.next().unwrap_or(packed.next_seq);
        let last = numbers.try_fold(first, |last, next| (next == last + 1).then_some(next));
        let none = written.is_empty() && waiting.iter().all(|entry| entry.seq.is_none());
        let is_whole = none || last.and_then(|last| last.checked_add(1)) == Some(packed.next_seq);
        if !is_whole || first == 0 || packed.sent >= packed.next_seq {
            return Err(Broken);
        }
        (buffer.written_bytes, buffer.waiting_bytes) = (size(&written), size(&waiting));
        (buffer.written, buffer.waiting, buffer.errors) = (written, waiting, entries(packed.errors)?);
        (buffer.next_seq, buffer.sent, buffer.gone) = (packed.next_seq, packed.sent, packed.gone);
        (buffer.pushed_out, buffer.pushed_out_before) = (packed.pushed_out, packed.pushed_out_before);
        (buffer.missed, buffer.told) = (packed.missed, packed.told);
        Ok(buffer)
    }

    /// Takes a message in, or says that it does not fit. Answers always fit; what is ephemeral makes way for the rest.
    pub(super) fn push(&mut self, body: Body) -> bool {
        let size = body.len();
        if !self.fits(size) && body.kind.is_numbered() {
            self.drop_ephemeral();
        }
        if !self.fits(size) && !body.kind.is_answer() {
            return false;
        }
        while self.written_bytes + self.waiting_bytes + size > self.max_bytes
            || self.written.len() + self.waiting.len() >= self.max_messages
        {
            if !self.push_out() {
                break;
            }
        }
        let seq = body.kind.is_numbered().then(|| {
            self.next_seq += 1;
            self.next_seq - 1
        });
        self.waiting_bytes += size;
        self.waiting.push_back(Entry { seq, body });
        true
    }

    fn fits(&self, size: usize) -> bool {
        self.waiting_bytes + size <= self.max_bytes && self.waiting.len() < self.max_messages
    }

    /// Whether answers have made the queue longer than it may be.
    pub(super) fn is_over(&self) -> bool {
        self.waiting_bytes > self.max_bytes || self.waiting.len() > self.max_messages
    }

    /// Notes that a message did not fit and that its sender will not be told. Ephemeral ones may get lost.
    pub(super) fn miss(&mut self, kind: Kind) {
        match kind {
            Kind::Payload => self.miss_payloads(1),
            Kind::Presence => self.missed.presence = true,
            Kind::Ephemeral | Kind::Notice | Kind::Answer | Kind::Error(_) => {}
        }
    }

    /// The same for so many payloads.
    pub(super) fn miss_payloads(&mut self, payloads: u64) {
        self.missed.payloads = self.missed.payloads.saturating_add(payloads);
    }

    /// The next message to write; counts as written from now on.
    pub(super) fn next(&mut self) -> Option<Frame> {
        if self.is_held() {
            return None;
        }
        let entry = self.waiting.pop_front()?;
        let size = entry.body.len();
        self.waiting_bytes -= size;
        let frame = entry.body.frame(entry.seq);
        if let Some(seq) = entry.seq {
            self.sent = self.sent.max(seq);
            self.written_bytes += size;
            self.written.push_back(entry);
        }
        Some(frame)
    }

    /// Whether anything waits.
    pub(super) fn has_next(&self) -> bool {
        !self.waiting.is_empty() && !self.is_held()
    }

    /// Whether the next one is being stored.
    fn is_held(&self) -> bool {
        !self.held.is_empty() && self.waiting.front().is_some_and(|entry| entry.seq == self.held.front().copied())
    }

    /// Takes a payload in as [`push`](Self::push) does, which is being stored: it has its place and its number, but is not written.
    pub(super) fn push_held(&mut self, body: Body) -> bool {
        let pushed = self.push(body);
        if pushed {
            self.held.push_back(self.next_seq - 1);
        }
        pushed
    }

    /// The first so many of those that were being stored are.
    pub(super) fn release(&mut self, count: usize) {
        self.held.drain(..count.min(self.held.len()));
    }

    /// The first so many of those that were being stored are not, and were never there: what is behind them, which nobody has been told
    /// yet, closes up.
    pub(super) fn retract(&mut self, count: usize) {
        let gone: Vec<u64> = self.held.drain(..count.min(self.held.len())).collect();
        self.waiting.retain(|entry| entry.seq.is_none_or(|seq| gone.binary_search(&seq).is_err()));
        let before = |seq: u64| gone.partition_point(|lost| *lost < seq) as u64;
        self.waiting.iter_mut().filter_map(|entry| entry.seq.as_mut()).for_each(|seq| *seq -= before(*seq));
        self.held.iter_mut().for_each(|seq| *seq -= before(*seq));
        self.next_seq -= gone.len() as u64;
        self.waiting_bytes = self.waiting.iter().map(|entry| entry.body.len()).sum();
    }

    /// The first so many payloads that are being stored, with their numbers.
    pub(super) fn held(&self, count: usize) -> Vec<(u64, &Body)> {
        let held = |entry: &&Entry| entry.seq.is_some_and(|seq| self.held.binary_search(&seq).is_ok());
        let entries = self.waiting.iter().filter(held).take(count);
        entries.filter_map(|entry| Some((entry.seq?, &entry.body))).collect()
    }

    /// All payloads that were not acknowledged, with their numbers; of those that are being stored the first so many. As many of the
    /// earliest that were written are left out as it takes to have no more bytes than that; `None` if it takes more.
    pub(super) fn payloads(&self, held: usize, most: usize) -> Option<Unacknowledged<'_>> {
        let until = self.held.get(held).copied().unwrap_or(u64::MAX);
        let payload = |entry: &&Entry| entry.body.kind == Kind::Payload && entry.seq < Some(until);
        let numbered = |entry| -> Option<(u64, &Body)> { Some((Entry::seq(entry)?, &entry.body)) };
        let waiting: Vec<_> = self.waiting.iter().filter(payload).filter_map(numbered).collect();
        let mut all: Vec<_> = self.written.iter().filter(payload).filter_map(numbered).collect();
        let size = |(_, body): &(u64, &Body)| body.len() + NUMBER_BYTES;
        let may_be_left = (self.pushed_out.len() + all.len()).min(MOST_LEFT);
        let mut bytes = may_be_left * NUMBER_BYTES + waiting.iter().map(size).sum::<usize>();
        if bytes > most {
            return None;
        }
        let fits = |one: &&(u64, &Body)| {
            bytes += size(one);
            bytes <= most
        };
        let kept = all.iter().rev().take_while(fits).count();
        let left = self.left(all.drain(..all.len() - kept).map(|(number, _)| number));
        all.extend(waiting);
        Some(Unacknowledged { left, kept: all })
    }

    /// How many payloads up to which number were pushed out, or are these, and not acknowledged. The earliest are counted as one.
    fn left(&self, more: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
        let numbers: Vec<u64> = self.pushed_out.iter().copied().chain(more).collect();
        let first = numbers.len().saturating_sub(MOST_LEFT);
        let mut left: Vec<(u64, u64)> = numbers[first..].iter().map(|&number| (number, 1)).collect();
        if let Some((_, count)) = left.first_mut() {
            *count += first as u64 + self.pushed_out_before;
        }
        left
    }

    /// How many payloads are lost beside those, of which the client may not have been told yet.
    pub(super) fn untold(&self) -> u64 {
        self.told.and(self.missed).payloads
    }

    /// How many messages wait, and their bytes.
    pub(super) fn queued(&self) -> (usize, usize) {
        (self.waiting.len(), self.waiting_bytes)
    }

    /// The number that was given last; 0 before the first.
    pub(super) fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// The greatest number that was ever written.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// The number of the next message to be written, which a client that has just been attached sees first.
    pub(super) fn replay_from(&self) -> u64 {
        self.waiting.iter().find_map(|entry| entry.seq).unwrap_or(self.next_seq)
    }

    /// Forgets everything up to `seq`.
    pub(super) fn ack(&mut self, seq: u64) {
        while self.written.front().is_some_and(|entry| entry.seq <= Some(seq)) {
            self.pop_written();
        }
        // What was written to an earlier transport may be acknowledged before it was written to this one.
        while let Some(entry) = self.waiting.pop_front_if(|entry| entry.seq.is_some_and(|own| own <= seq)) {
            self.waiting_bytes -= entry.body.len();
        }
        self.gone = self.gone.max(seq);
        if seq >= self.pushed_out.front().copied().unwrap_or(u64::MAX) {
            self.pushed_out_before = 0;
        }
        while self.pushed_out.front().is_some_and(|&lost| lost <= seq) {
            self.pushed_out.pop_front();
        }
        while self.errors.front().is_some_and(|entry| entry.seq <= Some(seq)) {
            self.errors.pop_front();
        }
    }

    /// Prepares everything after `seq` to be written again. A gap before what is left is returned: then the client needs a
    /// whole new picture.
    ///
    /// `retry` says that the answer will name the same ticket as one before. Whoever uses that ticket may have read either,
    /// so that only what the first of them told counts as told.
    pub(super) fn rewind(&mut self, seq: u64, retry: bool) -> Option<Gap> {
        let gap = seq < self.gone;
        let lost_before = if gap { self.lost_after(seq) } else { 0 };
        self.ack(seq);
        while let Some(entry) = self.written.pop_back() {
            self.waiting.push_front(entry);
        }
        self.waiting_bytes += std::mem::take(&mut self.written_bytes);
        self.restore_errors();
        let unheard = self.told.and(self.missed);
        if !retry {
            self.told = unheard;
            self.missed = Missed::default();
        }
        (gap || unheard != Missed::default()).then_some(Gap { lost: lost_before.saturating_add(unheard.payloads) })
    }

    /// The client has read the last answer, and with it what was lost.
    pub(super) fn losses_told(&mut self) {
        self.told = Missed::default();
    }

    /// Drops what is never replayed.
    pub(super) fn drop_ephemeral(&mut self) {
        self.waiting.retain(|entry| entry.seq.is_some());
        self.waiting_bytes = self.waiting.iter().map(|entry| entry.body.len()).sum();
    }

    /// Puts errors that were pushed out in front of the replay, under the last numbers of the gap, which has at least as many as
    /// there were errors in it. A repeated id is answered `ok`: without its error before that, what was refused would look
    /// accepted.
    fn restore_errors(&mut self) {
        while let Some(Entry { body, .. }) = self.errors.pop_back() {
            self.waiting_bytes += body.len();
            self.waiting.push_front(Entry { seq: Some(self.gone), body });
            self.gone -= 1;
        }
    }

    fn lost_after(&self, seq: u64) -> u64 {
        let kept_track_of = self.pushed_out.iter().filter(|&&lost| lost > seq).count() as u64;
        let all_after = self.pushed_out.front().is_some_and(|&first| first > seq);
        kept_track_of + if all_after { self.pushed_out_before } else { 0 }
    }

    fn push_out(&mut self) -> bool {
        let Some(entry) = self.pop_written() else { return false };
        let seq = entry.seq.unwrap_or(0);
        self.gone = self.gone.max(seq);
        if matches!(entry.body.kind, Kind::Error(_)) {
            if self.errors.len() >= MOST_ERRORS {
                self.errors.pop_front();
            }
            self.errors.push_back(entry);
        } else if entry.body.kind == Kind::Payload {
            if self.pushed_out.len() >= self.max_messages {
                self.pushed_out.pop_front();
                self.pushed_out_before += 1;
            }
            self.pushed_out.push_back(seq);
        }
        true
    }

    fn pop_written(&mut self) -> Option<Entry> {
        let entry = self.written.pop_front()?;
        self.written_bytes -= entry.body.len();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Metadata, Outbound, PayloadKind, PeerId, Presence};
    use uuid::Uuid;

    fn payload(length: usize) -> Body {
        let outbound = |payload: String| Outbound {
            kind: PayloadKind::Message,
            to: None,
            payload: payload.into(),
            ephemeral: false,
            dropped: false,
            step: None,
        };
        let from = PeerId::new(Uuid::from_u128(1));
        let frame = Body::relay(from, &outbound(String::new())).len();
        Body::relay(from, &outbound("x".repeat(length - frame)))
    }

    fn ephemeral() -> Body {
        let outbound = Outbound {
            kind: PayloadKind::Message,
            to: None,
            payload: "1".into(),
            ephemeral: true,
            dropped: false,
            step: None,
        };
        Body::relay(PeerId::new(Uuid::from_u128(1)), &outbound)
    }

    fn written(buffer: &mut Buffer) -> Vec<u64> {
        std::iter::from_fn(|| buffer.next())
            .filter_map(|frame| {
                let value: serde_json::Value = serde_json::from_slice(&frame.text()).ok()?;
                value["seq"].as_u64()
            })
            .collect()
    }

    /// Payloads must be JSON for `written` to read them back.
    fn small() -> Body {
        let outbound = Outbound {
            kind: PayloadKind::Message,
            to: None,
            payload: "0".into(),
            ephemeral: false,
            dropped: false,
            step: None,
        };
        Body::relay(PeerId::new(Uuid::from_u128(1)), &outbound)
    }

    #[test]
    fn what_is_being_stored_keeps_its_place_and_what_is_not_leaves_no_hole() {
        let mut buffer = Buffer::new(1_000_000, 100);
        buffer.push(small());
        assert!(buffer.push_held(small()));
        buffer.push(ephemeral());
        buffer.push(small());
        for _ in 0..2 {
            assert!(buffer.push_held(small()));
        }
        assert_eq!(written(&mut buffer), [1]);
        assert!(!buffer.has_next());
        assert_eq!(buffer.held(2).iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [2, 4]);
        let all = |buffer: &Buffer, held| -> Vec<u64> {
            let Unacknowledged { left, kept } = buffer.payloads(held, 10_000).expect("they fit");
            assert!(left.is_empty());
            kept.iter().map(|(seq, _)| *seq).collect()
        };
        assert_eq!((all(&buffer, 1), all(&buffer, 3)), (vec![1, 2, 3], vec![1, 2, 3, 4, 5]));
        buffer.retract(2);
        assert_eq!((all(&buffer, 0), buffer.last_seq()), (vec![1, 2], 3));
        assert_eq!(written(&mut buffer), [2]);
        assert!(buffer.push_held(small()));
        buffer.release(1);
        assert_eq!(written(&mut buffer), [3]);
        buffer.release(1);
        assert_eq!(written(&mut buffer), [4]);
        let size = small().len() + NUMBER_BYTES;
        let Unacknowledged { left, kept } =
            buffer.payloads(0, 4 * NUMBER_BYTES + 2 * size).expect("what was written is left out");
        assert_eq!((left, kept.iter().map(|(seq, _)| *seq).collect()), (vec![(1, 1), (2, 1)], vec![3, 4]));
        buffer.push(small());
        buffer.push(small());
        assert!(buffer.payloads(0, 4 * NUMBER_BYTES + size).is_none());
    }

    #[test]
    fn what_was_pushed_out_and_not_acknowledged_is_counted_where_it_is_left_out() {
        let mut buffer = Buffer::new(1_000_000, 2);
        for _ in 0..5 {
            assert!(buffer.push(small()));
            written(&mut buffer);
        }
        let left = |buffer: &Buffer| buffer.payloads(0, 10_000).expect("they fit").left;
        assert_eq!(left(&buffer), [(2, 2), (3, 1)], "of as many as fit the numbers are known");
        buffer.ack(2);
        assert_eq!(left(&buffer), [(3, 1)]);
        let numbers: Vec<(u64, u64)> = buffer.left(100..100 + MOST_LEFT as u64);
        assert_eq!((numbers.len(), numbers[0], numbers[1]), (MOST_LEFT, (100, 2), (101, 1)));
    }

    #[test]
    fn numbers_have_no_gap_and_ephemeral_ones_have_none() {
        let mut buffer = Buffer::new(10_000, 10);
        for body in [small(), ephemeral(), small()] {
            assert!(buffer.push(body));
        }
        assert_eq!(written(&mut buffer), [1, 2]);
        assert_eq!(buffer.rewind(0, false), None);
        assert_eq!(written(&mut buffer), [1, 2]);
        buffer.ack(1);
        assert_eq!(buffer.rewind(1, false), None);
        assert_eq!((buffer.replay_from(), written(&mut buffer)), (2, vec![2]));
    }

    #[test]
    fn only_what_waits_counts_as_queue_and_written_ones_are_pushed_out() {
        let mut buffer = Buffer::new(1000, 100);
        assert!(buffer.push(payload(600)));
        assert!(!buffer.push(payload(600)));
        assert!(buffer.next().is_some());
        assert!(buffer.push(payload(600)));
        assert_eq!(buffer.rewind(0, false), Some(Gap { lost: 1 }));
        assert_eq!(buffer.replay_from(), 2);
    }

    #[test]
    fn a_missed_broadcast_is_told_until_the_client_has_heard_of_it() {
        let mut buffer = Buffer::new(1000, 100);
        buffer.miss(Kind::Payload);
        assert_eq!(buffer.rewind(0, false), Some(Gap { lost: 1 }));
        assert_eq!(buffer.rewind(0, false), Some(Gap { lost: 1 }), "the answer may have been lost");
        buffer.miss(Kind::Presence);
        buffer.losses_told();
        assert_eq!(buffer.rewind(0, false), Some(Gap { lost: 0 }), "presence alone asks for a picture");
        buffer.losses_told();
        assert_eq!(buffer.rewind(0, false), None);
    }

    #[test]
    fn only_the_first_answer_under_a_ticket_counts_as_read_by_who_shows_it() {
        let mut buffer = Buffer::new(1000, 100);
        buffer.miss(Kind::Payload);
        assert_eq!(buffer.rewind(0, false), Some(Gap { lost: 1 }));
        buffer.miss(Kind::Payload);
        assert_eq!(buffer.rewind(0, true), Some(Gap { lost: 2 }), "a retry is told all");
        buffer.losses_told();
        assert_eq!(buffer.rewind(0, false), Some(Gap { lost: 1 }), "it may have read the first answer alone");
        buffer.losses_told();
        assert_eq!(buffer.rewind(0, false), None);
    }

    #[test]
    fn presence_is_not_counted_as_lost_payload() {
        let mut buffer = Buffer::new(10_000, 2);
        let member = crate::protocol::Member {
            peer: PeerId::new(Uuid::from_u128(2)),
            user: None,
            metadata: Metadata::new("{}"),
        };
        assert!(buffer.push(Body::peer(Presence::Joined, &member, true, 1)) && buffer.push(small()));
        assert_eq!(written(&mut buffer), [1, 2]);
        assert!(buffer.push(small()) && buffer.push(small()));
        assert_eq!(buffer.rewind(0, false), Some(Gap { lost: 1 }));
    }

    #[test]
    fn answers_always_fit_and_what_is_ephemeral_makes_way() {
        let mut buffer = Buffer::new(10_000, 1);
        assert!(buffer.push(ephemeral()));
        assert!(buffer.push(small()));
        assert!(!buffer.push(small()));
        assert!(buffer.push(Body::ok(Some(1))) && buffer.is_over());
        assert_eq!(written(&mut buffer), [1, 2]);
    }

    #[test]
    fn a_pushed_out_error_comes_before_what_was_kept_and_leaves_no_hole() {
        let refusal = crate::protocol::Refusal::bad_request("no");
        let mut buffer = Buffer::new(10_000, 2);
        assert!(buffer.push(small()) && buffer.push(Body::error(Some(1), &refusal)));
        assert_eq!(written(&mut buffer), [1, 2]);
        assert!(buffer.push(small()) && buffer.push(Body::ok(Some(1))));
        assert_eq!(written(&mut buffer), [3, 4]);
        assert_eq!(buffer.rewind(0, false), Some(Gap { lost: 1 }));
        assert_eq!(buffer.replay_from(), 2);
        let first = buffer.next().expect("the error");
        assert!(first.seq == Some(2) && first.text().windows(5).any(|text| text == b"error"));
        assert_eq!(written(&mut buffer), [3, 4]);
        assert_eq!(buffer.rewind(2, false), None, "the error counts as kept");
    }

    #[test]
    fn an_acknowledgement_from_an_earlier_transport_spares_the_replay() {
        let mut buffer = Buffer::new(10_000, 10);
        assert!((0..3).all(|_| buffer.push(small())));
        assert_eq!(written(&mut buffer), [1, 2, 3]);
        buffer.rewind(0, false);
        buffer.ack(2);
        assert_eq!(written(&mut buffer), [3]);
    }
}
