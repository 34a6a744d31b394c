//! A limit on what costs the server work and says nothing: frames of control, fragments, streams that are reset.

use std::time::{Duration, Instant};

use crate::metrics::Tally;

/// What of that a connection or stream may send in a second. Clients that measure the path send a few dozen pings, and browsers
/// that leave a page reset as many streams as were open.
pub(crate) const FRAMES_A_SECOND: u32 = 1000;

/// Counts by the second, and remembers a flood for good.
#[derive(Debug)]
pub(crate) struct Flood {
    most: u32,
    seen: u32,
    second: Instant,
    tally: Tally,
}

impl Flood {
    /// Up to `most` in a second is none; `tally` counts this one if it comes to be one.
    pub(crate) fn new(most: u32, tally: Tally) -> Self {
        Flood { most, seen: 0, second: Instant::now(), tally }
    }

    /// One more has come. Returns whether that is too much.
    pub(crate) fn note(&mut self) -> bool {
        if self.is_on() {
            return true;
        }
        let now = Instant::now();
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.seen = 0;
        }
        self.seen += 1;
        if self.is_on() {
            self.tally.count();
        }
        self.is_on()
    }

    /// Whether there was too much once.
    pub(crate) fn is_on(&self) -> bool {
        self.seen > self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_for_good() {
        let mut flood = Flood::new(10, Tally::default());
        assert!((0..10).all(|_| !flood.note()));
        assert!(flood.note());
        flood.second -= Duration::from_secs(2);
        assert!(flood.note() && flood.is_on());
    }

    #[test]
    fn what_is_spread_is_none() {
        let mut flood = Flood::new(10, Tally::default());
        for _ in 0..5 {
            assert!((0..10).all(|_| !flood.note()));
            flood.second -= Duration::from_secs(1);
        }
    }
}
