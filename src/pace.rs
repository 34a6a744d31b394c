//! Paced entry: how many sessions may open at once, and when the others are to come back, so that those who lost their server
//! together do not all return together.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Whoever is refused is told to come back within this time, however long the line.
const LONGEST: Duration = Duration::from_secs(60);

/// Lets so many in a second, after a first burst of as many; whoever comes above that is given a turn of its own.
#[derive(Debug)]
pub struct Pace {
    turns: Mutex<Turns>,
}

#[derive(Debug)]
struct Turns {
    /// One after another, at the rate.
    interval: Duration,
    /// When the next one could enter, had all before entered one after another: at most a second behind, or ahead, of now.
    entry: Instant,
    /// The last turn that was given to somebody who was refused.
    last_given: Instant,
}

impl Pace {
    /// `per_second` must not be zero.
    pub fn new(per_second: u32) -> Self {
        let now = Instant::now();
        Pace { turns: Mutex::new(Turns { interval: interval(per_second), entry: now, last_given: now }) }
    }

    /// Lets so many in a second from now on.
    pub fn change(&self, per_second: u32) {
        self.turns.lock().interval = interval(per_second);
    }

    /// Lets one more in.
    ///
    /// # Errors
    /// After how long to try again: turn by turn, each later than the one before.
    pub fn enter(&self, now: Instant) -> Result<(), Duration> {
        let mut turns = self.turns.lock();
        let burst = Duration::from_secs(1);
        let entry = turns.entry.max(now);
        if entry < now + burst {
            turns.entry = entry + turns.interval;
            return Ok(());
        }
        // Those before in the line come back at the rate, and must find room.
        turns.last_given = (turns.last_given + turns.interval).clamp(now + burst, now + LONGEST);
        Err(turns.last_given - now)
    }
}

fn interval(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

/// Says yes once in a while, for log lines that somebody else could cause without end.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    /// Yes at most once in this time.
    pub fn new(every: Duration) -> Self {
        Seldom { every, last: Mutex::new(None) }
    }

    /// Whether it is time again.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut last = self.last.lock();
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= self.every);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// A random part of `span`, so that many clients do not come back at once.
pub fn jitter(span: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    span.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_enters_and_the_rest_is_given_turns_at_the_rate() {
        let pace = Pace::new(100);
        let now = Instant::now();
        let refused: Vec<Duration> = (0..300).filter_map(|_| pace.enter(now).err()).collect();
        assert!((199..=201).contains(&refused.len()), "{} of 300 refused, a burst is 100", refused.len());
        assert!(refused.is_sorted() && refused[0] >= Duration::from_secs(1));
        assert!(refused[199 - 1] >= Duration::from_millis(2900), "{:?}", refused[198]);
        // Those who come when they were told to are let in.
        assert!(refused.iter().all(|wait| pace.enter(now + *wait).is_ok()));
    }

    #[test]
    fn another_rate_holds_from_then_on() {
        let (pace, now) = (Pace::new(1), Instant::now());
        assert!(pace.enter(now).is_ok() && pace.enter(now).is_err());
        pace.change(100);
        let later = now + Duration::from_secs(2);
        assert_eq!((0..200).filter(|_| pace.enter(later).is_ok()).count(), 100);
    }

    #[test]
    fn seldom_is_once_in_its_time() {
        let seldom = Seldom::new(Duration::from_secs(10));
        let now = Instant::now();
        assert!(seldom.is_due(now));
        assert!((0..10).all(|seconds| !seldom.is_due(now + Duration::from_secs(seconds))));
        assert!(seldom.is_due(now + Duration::from_secs(10)));
        assert!(!seldom.is_due(now + Duration::from_secs(19)));
    }

    #[test]
    fn nobody_waits_longer_than_a_minute() {
        let pace = Pace::new(1);
        let now = Instant::now();
        let waits = (0..1000).filter_map(|_| pace.enter(now).err());
        assert_eq!(waits.max(), Some(LONGEST));
    }
}
