//! A token bucket of one number: when it will be full again (the generic cell rate algorithm).

use std::time::Duration;

/// So much in so much time, at once or spread: a bucket of `amount` that fills from empty within `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// What the full bucket holds. Not zero.
    pub amount: u64,
    /// How long it takes to fill. At most a day.
    pub per: Duration,
}

/// A bucket, by when it will be full, in nanoseconds of a clock of the caller's. Zero is a full one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    full_at: u64,
}

impl Bucket {
    /// Takes `amount` out, or all that the bucket can hold if that is less; `now` on the same clock as always.
    ///
    /// # Errors
    /// How long until there will be enough. Nothing is taken.
    pub(super) fn take(&mut self, quota: Quota, amount: u64, now: u64) -> Result<(), Duration> {
        let full_at = self.after(quota, amount, now)?;
        self.full_at = full_at;
        Ok(())
    }

    /// Whether `amount` could be taken.
    ///
    /// # Errors
    /// How long until it could.
    pub(super) fn look(&self, quota: Quota, amount: u64, now: u64) -> Result<(), Duration> {
        self.after(quota, amount, now).map(drop)
    }

    pub(super) fn full_at(&self) -> u64 {
        self.full_at
    }

    fn after(&self, quota: Quota, amount: u64, now: u64) -> Result<u64, Duration> {
        let per = nanoseconds(quota.per);
        let cost = u128::from(per) * u128::from(amount.min(quota.amount)) / u128::from(quota.amount.max(1));
        let full_at = self.full_at.max(now).saturating_add(u64::try_from(cost).unwrap_or(u64::MAX));
        match full_at.saturating_sub(now.saturating_add(per)) {
            0 => Ok(full_at),
            missing => Err(Duration::from_nanos(missing)),
        }
    }
}

pub(super) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_IN_A_SECOND: Quota = Quota { amount: 10, per: Duration::from_secs(1) };
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_is_the_amount_and_the_rest_comes_at_the_rate() {
        let mut bucket = Bucket::default();
        assert!((0..10).all(|_| bucket.take(TEN_IN_A_SECOND, 1, SECOND).is_ok()));
        assert_eq!(bucket.take(TEN_IN_A_SECOND, 1, SECOND), Err(Duration::from_millis(100)));
        assert_eq!(bucket.look(TEN_IN_A_SECOND, 5, SECOND), Err(Duration::from_millis(500)));
        let later = SECOND + SECOND / 10;
        assert_eq!(bucket.take(TEN_IN_A_SECOND, 1, later), Ok(()));
        assert_eq!(bucket.take(TEN_IN_A_SECOND, 1, later), Err(Duration::from_millis(100)));
        assert!((0..10).all(|_| bucket.take(TEN_IN_A_SECOND, 1, 9 * SECOND).is_ok()), "a rest fills it, and no more");
        assert!(bucket.take(TEN_IN_A_SECOND, 1, 9 * SECOND).is_err());
    }

    #[test]
    fn more_than_it_holds_takes_all() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(TEN_IN_A_SECOND, 1000, 0), Ok(()));
        assert_eq!(bucket.take(TEN_IN_A_SECOND, 1000, 0), Err(Duration::from_secs(1)));
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(TEN_IN_A_SECOND, 10, 5 * SECOND), Ok(()));
        assert!(bucket.take(TEN_IN_A_SECOND, 1, SECOND).is_err());
    }
}
