//! How long to wait before the next try: full jitter, so that clients who were cut off together do not come back together.

use std::time::Duration;

/// After 2^16 times the first span every cap is reached.
const MAX_DOUBLINGS: u32 = 16;

/// Evenly spread from nothing to `base` doubled with each of `attempt` failures, but at most `cap`. `random` is from 0 to 1.
pub(super) fn backoff(attempt: u32, base: Duration, cap: Duration, random: f64) -> Duration {
    cap.min(base.saturating_mul(1 << attempt.min(MAX_DOUBLINGS))).mul_f64(random)
}

/// The wait that a server has asked for: never shorter, and spread a little, as it may have told many the same.
pub(super) fn polite(retry_after: Duration, random: f64) -> Duration {
    retry_after.mul_f64(1.0 + random / 4.0)
}

/// From 0 to 1, as evenly as jitter needs it.
pub(super) fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without a source of chance nobody joins anyway: a key needs it.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_cap_and_are_spread_from_nothing() {
        let (base, cap) = (Duration::from_millis(500), Duration::from_secs(15));
        assert_eq!(backoff(0, base, cap, 1.0), base);
        assert_eq!(backoff(3, base, cap, 0.5), Duration::from_secs(2));
        assert_eq!(backoff(u32::MAX, base, cap, 1.0), cap);
        assert_eq!(backoff(7, base, cap, 0.0), Duration::ZERO);
        assert_eq!(polite(Duration::from_secs(4), 0.0), Duration::from_secs(4));
        assert_eq!(polite(Duration::from_secs(4), 1.0), Duration::from_secs(5));
        assert!((0.0..=1.0).contains(&random()));
    }
}
