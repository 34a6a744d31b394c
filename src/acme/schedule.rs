//! When a certificate is ordered, and when again after a failure.

use std::time::Duration;

use time::OffsetDateTime;

use crate::tls::Facts;

/// After the first failure, and at most. Let's Encrypt lets a name fail five times an hour, so that there is one left for the
/// operator who has found the reason.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// When to order the next certificate: two thirds into the lifetime of the one in use. `None` is at once, as there is none or it lacks
/// one of the names.
pub(super) fn due(shown: Option<&Facts>, names: &[String]) -> Option<OffsetDateTime> {
    let facts = shown?;
    let has_all = names.iter().all(|name| facts.names.contains(name));
    has_all.then(|| facts.not_before + (facts.not_after - facts.not_before) * 2 / 3)
}

/// How long to wait after the failure that follows `failures` others, at most; half of it at least.
pub(super) fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour() {
        let minutes: Vec<_> = [0, 1, 5, 6, 7, u32::MAX].map(|failures| pause(failures).as_secs() / 60).into();
        assert_eq!(minutes, [1, 2, 32, 60, 60, 60]);
    }
}
