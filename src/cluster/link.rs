//! A reliable, ordered way for notes to one other node, over a bus that loses, doubles and overtakes. Pure: time comes in.
//!
//! Each end counts its *lives*. A link is up between one life of one end and one of the other; what belongs to any other pair is
//! ignored. While it is up, every note arrives once and in order; when it cannot be so it goes down, which is the end of both lives,
//! and comes up as a new one. Nothing is carried over: whoever uses it begins with a whole picture.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// How long an acknowledgement waits for a note to go with.
const ACK_DELAY: Duration = Duration::from_millis(20);

/// Notes that are acknowledged at once when so many have come.
const ACK_EVERY: u64 = 64;

/// How long the other end has to acknowledge before what it lacks is sent again, and between two greetings.
const RETRY: Duration = Duration::from_millis(250);

/// Sent again at once; more follows when this has arrived.
const AGAIN_BYTES: usize = 64 * 1024;

/// One message between the ends of a link.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// The sender's life.
    pub life: u64,
    /// What the sender takes for the other's; 0 while it knows of none.
    pub peer: u64,
    /// The sender does not know that the link is up, and wants to be told.
    pub hello: bool,
    /// Everything up to this note has arrived.
    pub ack: u64,
    /// A note and its number, from 1.
    pub note: Option<(u64, Bytes)>,
}

/// A note may carry a payload, which must not show in a log.
impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packet { life, peer, hello, ack, note } = self;
        let note = note.as_ref().map(|(number, note)| (number, note.len()));
        write!(f, "Packet({life} to {peer}, hello {hello}, ack {ack}, note {note:?})")
    }
}

/// What has become of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is up, in this life of this end.
    Up(u64),
    /// It is down. These notes may or may not have arrived.
    Down(Vec<Bytes>),
}

/// The link is down, or has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoLink;

/// Limits of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of notes that may be on their way without having been acknowledged.
    pub bytes: usize,
    /// How long a note may be on its way.
    pub timeout: Duration,
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    limits: Limits,
    life: u64,
    /// The greatest life of the other end that was heard of.
    peer: u64,
    is_up: bool,
    next_hello: Instant,
    out: Outgoing,
    incoming: Incoming,
    /// How many notes were sent again.
    again: u64,
}

/// What was sent and not acknowledged.
#[derive(Debug, Default)]
struct Outgoing {
    held: VecDeque<Held>,
    bytes: usize,
    /// The number of the last note that was acknowledged; the first held one has the next.
    acked: u64,
    /// While what was lost is sent again: the last note that may be among it.
    recover: u64,
}

struct Held {
    note: Bytes,
    first: Instant,
    last: Instant,
}

/// A note may carry a payload or a ticket, which must not show in a log.
impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({} bytes)", self.note.len())
    }
}

/// What has arrived.
#[derive(Debug, Default)]
struct Incoming {
    /// The last note of those without a gap.
    received: u64,
    /// What came before its turn.
    early: BTreeMap<u64, Bytes>,
    early_bytes: usize,
    /// The number that was acknowledged last.
    acked: u64,
    ack_due: Option<Instant>,
}

impl Link {
    /// A link that is not up yet. No `life` may come again between the same two nodes.
    pub fn new(limits: Limits, life: u64, now: Instant) -> Self {
        let (out, incoming) = Default::default();
        Link { limits, life, peer: 0, is_up: false, next_hello: now, out, incoming, again: 0 }
    }

    /// The present life of this end, or the next one.
    pub fn last_life(&self) -> u64 {
        self.life
    }

    /// The life in which it is up.
    pub fn life(&self) -> Option<u64> {
        self.is_up.then_some(self.life)
    }

    /// The number of the last note that was sent in this life, and of the last one that has arrived.
    pub fn sent_and_arrived(&self) -> (u64, u64) {
        (self.out.acked + self.out.held.len() as u64, self.out.acked)
    }

    /// Bytes of notes that have not been acknowledged.
    pub fn bytes(&self) -> usize {
        self.out.bytes
    }

    /// How many notes were sent again since it was made.
    pub fn again(&self) -> u64 {
        self.again
    }

    /// Sends a note. The packet is to be put on the bus; if it gets lost there it is made again.
    ///
    /// # Errors
    /// Nothing was sent: the link is not up, or has no room for so much.
    pub fn send(&mut self, note: Bytes, now: Instant) -> Result<Packet, NoLink> {
        if !self.is_up || self.out.bytes + note.len() > self.limits.bytes {
            return Err(NoLink);
        }
        self.out.bytes += note.len();
        self.out.held.push_back(Held { note: note.clone(), first: now, last: now });
        let number = self.out.acked + self.out.held.len() as u64;
        Ok(self.packet(Some((number, note))))
    }

    /// Takes in a packet. What has arrived in order is appended to `notes`, what is to be put on the bus to `packets`.
    pub fn receive(
        &mut self,
        packet: Packet,
        now: Instant,
        notes: &mut Vec<Bytes>,
        packets: &mut Vec<Packet>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        if packet.life == 0 || packet.life < self.peer {
            return changes;
        }
        if packet.life > self.peer {
            changes.extend(self.fail(now));
            self.peer = packet.life;
        }
        if packet.peer == self.life && !self.is_up {
            self.is_up = true;
            changes.push(Change::Up(self.life));
        }
        if packet.hello {
            packets.push(self.packet(None));
        }
        if self.is_up && packet.peer == self.life {
            self.acknowledged(packet.ack, now, packets);
            if let Some((number, note)) = packet.note {
                self.arrived(number, note, now, notes, packets);
            }
        }
        changes
    }

    /// Does what time has made due.
    pub fn tick(&mut self, now: Instant, packets: &mut Vec<Packet>) -> Option<Change> {
        if !self.is_up {
            if self.next_hello <= now {
                self.next_hello = now + RETRY;
                packets.push(self.packet(None));
            }
            return None;
        }
        if self.out.held.front().is_some_and(|held| held.first + self.limits.timeout <= now) {
            return self.fail(now);
        }
        if self.out.held.front().is_some_and(|held| held.last + RETRY <= now) {
            self.out.recover = self.out.acked + self.out.held.len() as u64;
            self.send_again(now, packets);
        }
        if self.incoming.ack_due.is_some_and(|due| due <= now) {
            packets.push(self.packet(None));
        }
        None
    }

    /// When [`tick`](Self::tick) has something to do, unless something is sent or received before.
    pub fn due(&self) -> Option<Instant> {
        if !self.is_up {
            return Some(self.next_hello);
        }
        let again = self.out.held.front().map(|held| held.last + RETRY);
        [again, self.incoming.ack_due].into_iter().flatten().min()
    }

    /// Ends this life, if the link is up. It comes up anew by itself.
    pub fn fail(&mut self, now: Instant) -> Option<Change> {
        if !self.is_up {
            return None;
        }
        self.is_up = false;
        self.life += 1;
        self.next_hello = now;
        let (out, _) = (std::mem::take(&mut self.out), std::mem::take(&mut self.incoming));
        Some(Change::Down(out.held.into_iter().map(|held| held.note).collect()))
    }

    fn packet(&mut self, note: Option<(u64, Bytes)>) -> Packet {
        self.incoming.ack_due = None;
        self.incoming.acked = self.incoming.received;
        Packet { life: self.life, peer: self.peer, hello: !self.is_up, ack: self.incoming.received, note }
    }

    fn acknowledged(&mut self, ack: u64, now: Instant, packets: &mut Vec<Packet>) {
        let news = ack.saturating_sub(self.out.acked);
        if news == 0 || news > self.out.held.len() as u64 {
            return;
        }
        for held in self.out.held.drain(..news as usize) {
            self.out.bytes -= held.note.len();
        }
        self.out.acked = ack;
        if ack < self.out.recover {
            self.send_again(now, packets);
        }
    }

    /// What is on its way longest goes again, and not all of it at once: it may be lost because it was too much.
    fn send_again(&mut self, now: Instant, packets: &mut Vec<Packet>) {
        let mut bytes = 0;
        let most = self.out.recover.saturating_sub(self.out.acked) as usize;
        for at in 0..most.min(self.out.held.len()) {
            let held = &mut self.out.held[at];
            if bytes > 0 && bytes + held.note.len() > AGAIN_BYTES {
                break;
            }
            bytes += held.note.len();
            held.last = now;
            let note = held.note.clone();
            self.again += 1;
            packets.push(self.packet(Some((self.out.acked + 1 + at as u64, note))));
        }
    }

    fn arrived(&mut self, number: u64, note: Bytes, now: Instant, notes: &mut Vec<Bytes>, packets: &mut Vec<Packet>) {
        let incoming = &mut self.incoming;
        incoming.ack_due.get_or_insert(now + ACK_DELAY);
        if number > incoming.received + 1 {
            // The other end does not send more than it may, so that the limit bounds what comes early as well.
            if incoming.early_bytes + note.len() <= self.limits.bytes && !incoming.early.contains_key(&number) {
                incoming.early_bytes += note.len();
                incoming.early.insert(number, note);
            }
            return;
        }
        if number == incoming.received + 1 {
            incoming.received = number;
            notes.push(note);
            while let Some(next) = incoming.early.remove(&(incoming.received + 1)) {
                incoming.received += 1;
                incoming.early_bytes -= next.len();
                notes.push(next);
            }
        }
        if self.incoming.received - self.incoming.acked >= ACK_EVERY {
            packets.push(self.packet(None));
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const LIMITS: Limits = Limits { bytes: 2000, timeout: Duration::from_secs(5) };

    /// A bus as bad as a seed makes it, between two ends.
    struct World {
        rng: Rng,
        now: Instant,
        ends: [Link; 2],
        /// When, to whom, what.
        air: Vec<(Instant, usize, Packet)>,
        loss: f64,
        /// What each end has sent in its present life, and what the other has received of it.
        sent: [Vec<Bytes>; 2],
        received: [Vec<Bytes>; 2],
        downs: usize,
    }

    impl World {
        fn new(seed: u64) -> Self {
            let now = Instant::now();
            World {
                rng: Rng::with_seed(seed),
                now,
                ends: [Link::new(LIMITS, 1, now), Link::new(LIMITS, 1, now)],
                air: vec![],
                loss: 0.0,
                sent: Default::default(),
                received: Default::default(),
                downs: 0,
            }
        }

        fn publish(&mut self, from: usize, packets: Vec<Packet>) {
            for packet in packets {
                while self.rng.f64() >= self.loss {
                    let delay = Duration::from_millis(self.rng.u64(0..60));
                    self.air.push((self.now + delay, 1 - from, packet.clone()));
                    if self.rng.u8(0..10) > 0 {
                        break;
                    }
                }
            }
        }

        fn changed(&mut self, end: usize, changes: impl IntoIterator<Item = Change>) {
            for change in changes {
                match change {
                    Change::Up(life) => assert_eq!(self.ends[end].life(), Some(life)),
                    Change::Down(_) => {
                        self.downs += 1;
                        self.sent[end].clear();
                        self.received[1 - end].clear();
                    }
                }
            }
        }

        fn say(&mut self, from: usize) {
            let note = Bytes::from(vec![b'x'; self.rng.usize(1..300)]);
            if let Ok(packet) = self.ends[from].send(note.clone(), self.now) {
                self.sent[from].push(note);
                self.publish(from, vec![packet]);
            }
            assert!(self.ends[from].bytes() <= LIMITS.bytes);
        }

        fn step(&mut self) {
            self.now += Duration::from_millis(5);
            let (due, later) = std::mem::take(&mut self.air).into_iter().partition(|(at, ..)| *at <= self.now);
            self.air = later;
            for (_, to, packet) in due {
                let (mut notes, mut packets) = (vec![], vec![]);
                let changes = self.ends[to].receive(packet, self.now, &mut notes, &mut packets);
                self.changed(to, changes);
                self.received[1 - to].extend(notes);
                self.publish(to, packets);
            }
            for end in 0..2 {
                let mut packets = vec![];
                let changed = self.ends[end].tick(self.now, &mut packets);
                self.changed(end, changed);
                self.publish(end, packets);
            }
            for from in 0..2 {
                // An end that went down has forgotten what it sent; the other may still have received more of it.
                if self.is_whole() {
                    let (sent, received) = (&self.sent[from], &self.received[from]);
                    assert!(sent.starts_with(received), "out of order, or double");
                }
            }
        }

        /// Whether both are up with one another.
        fn is_whole(&self) -> bool {
            let [a, b] = &self.ends;
            a.is_up && b.is_up && a.peer == b.life && b.peer == a.life
        }

        fn settle(&mut self, steps: usize) {
            (0..steps).for_each(|_| self.step());
        }
    }

    #[test]
    fn whatever_the_bus_does_notes_arrive_once_and_in_order_while_a_link_is_up() {
        for seed in 0..300 {
            let mut world = World::new(seed);
            world.loss = world.rng.f64() * 0.4;
            for _ in 0..600 {
                world.step();
                let from = world.rng.usize(0..2);
                if world.rng.bool() {
                    world.say(from);
                }
                if world.rng.u8(0..200) == 0 {
                    let down = world.ends[from].fail(world.now);
                    world.changed(from, down);
                }
            }
            world.loss = 0.0;
            world.settle(1000);
            assert!(world.is_whole(), "seed {seed}: not up though nothing is in the way");
            assert_eq!(world.sent, world.received, "seed {seed}: something is lost");
            assert!(world.ends.iter().all(|end| end.bytes() == 0), "seed {seed}: not acknowledged");
        }
    }

    #[test]
    fn what_is_not_acknowledged_in_time_ends_both_lives_and_the_next_one_works() {
        let mut world = World::new(7);
        world.settle(50);
        assert!(world.is_whole());
        world.loss = 1.0;
        world.say(0);
        world.settle(1002);
        assert_eq!((world.downs, world.ends[0].life()), (1, None));
        world.loss = 0.0;
        world.settle(200);
        assert!(world.is_whole() && world.downs == 2, "the other end began anew as well");
        world.say(0);
        world.settle(100);
        assert_eq!((world.received[0].len(), world.ends[0].bytes()), (1, 0));
    }

    #[test]
    fn no_more_is_on_its_way_than_the_limit_and_what_is_idle_says_nothing() {
        let mut world = World::new(8);
        world.settle(50);
        world.loss = 1.0;
        (0..50).for_each(|_| world.say(0));
        assert!(world.ends[0].send(Bytes::from(vec![0; 2000]), world.now).is_err());
        world.loss = 0.0;
        world.settle(400);
        assert_eq!(world.sent, world.received);
        assert!(world.air.is_empty() && world.ends.iter().all(|end| end.due().is_none()), "it is silent when idle");
    }
}
