//! How much a session may send: a token bucket, and a second one for patience.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::packed::Broken;

/// A token bucket for requests, and another of the same size for the refused ones: whoever empties both has been told often
/// enough.
#[derive(Debug)]
pub(super) struct Rate {
    requests: Bucket,
    patience: Bucket,
}

/// What is left in both buckets, on the way to another node.
#[derive(Serialize, Deserialize)]
pub(super) struct Packed {
    requests: f64,
    patience: f64,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Within the rate.
    Pass,
    /// Above it; one more is allowed after this time.
    Wait(Duration),
    /// Far above it, and for long.
    Abuse(Duration),
}

impl Rate {
    pub(super) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let full =
            Bucket { per_second: per_second.max(1), size: burst.max(1), tokens: f64::from(burst.max(1)), filled: now };
        Rate { requests: full, patience: full }
    }

    pub(super) fn pack(&self, now: Instant) -> Packed {
        Packed { requests: self.requests.tokens_at(now), patience: self.patience.tokens_at(now) }
    }

    pub(super) fn unpack(packed: Packed, per_second: u32, burst: u32, now: Instant) -> Result<Self, Broken> {
        let mut rate = Rate::new(per_second, burst, now);
        for (bucket, tokens) in [(&mut rate.requests, packed.requests), (&mut rate.patience, packed.patience)] {
            if !(0.0..=f64::from(bucket.size)).contains(&tokens) {
                return Err(Broken);
            }
            bucket.tokens = tokens;
        }
        Ok(rate)
    }

    pub(super) fn take(&mut self, now: Instant) -> Verdict {
        match self.requests.take(now) {
            Ok(()) => Verdict::Pass,
            Err(wait) if self.patience.take(now).is_ok() => Verdict::Wait(wait),
            // Both buckets must fill again before coming back makes sense.
            Err(_) => Verdict::Abuse(self.requests.time_to_fill()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    per_second: u32,
    size: u32,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let rate = f64::from(self.per_second);
        self.tokens = self.tokens_at(now);
        self.filled = self.filled.max(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // At least a millisecond, or a client that rounds down would try again at once.
        Err(Duration::from_secs_f64((1.0 - self.tokens) / rate).max(Duration::from_millis(1)))
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        (self.tokens + elapsed * f64::from(self.per_second)).min(f64::from(self.size))
    }

    fn time_to_fill(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.size) / f64::from(self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_then_patience_ends() {
        let start = Instant::now();
        let mut rate = Rate::new(10, 3, start);
        assert!((0..3).all(|_| rate.take(start) == Verdict::Pass));
        assert_eq!(rate.take(start), Verdict::Wait(Duration::from_millis(100)));
        assert_eq!(rate.take(start + Duration::from_millis(100)), Verdict::Pass);
        let later = start + Duration::from_millis(100);
        assert!((0..3).all(|_| matches!(rate.take(later), Verdict::Wait(_))));
        assert_eq!(rate.take(later), Verdict::Abuse(Duration::from_millis(300)));
        assert_eq!(rate.take(later + Duration::from_secs(60)), Verdict::Pass);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let start = Instant::now() + Duration::from_secs(9);
        let mut rate = Rate::new(1, 1, start);
        assert_eq!(rate.take(start), Verdict::Pass);
        assert_ne!(rate.take(start - Duration::from_secs(5)), Verdict::Pass);
        assert_ne!(rate.take(start), Verdict::Pass);
    }
}
