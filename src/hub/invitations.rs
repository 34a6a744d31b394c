//! How many seats were taken with which invitation.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::protocol::{Code, Grant, Refusal};

/// Invitations that are counted at once. Only who can sign tokens can make more.
const MOST: usize = 65_536;

/// What to wait where that many are counted: some of them will have ended.
const FULL: Duration = Duration::from_secs(60);

/// Counts of the invitations that have not ended. They do not outlive the server.
#[derive(Debug, Default)]
pub(super) struct Invitations {
    used: Mutex<HashMap<Arc<str>, Used>>,
}

#[derive(Debug)]
struct Used {
    seats: u64,
    /// When the token ends, and the count with it; `None` for never.
    until: Option<Instant>,
}

impl Invitations {
    /// Takes a seat by `enter`, which counts if it succeeds and `grant` is an invitation's. The lock is held meanwhile, so that
    /// two cannot take the last one.
    ///
    /// # Errors
    /// Those of `enter`; `forbidden` for an invitation that is used up; `rateLimited` if there are too many to count.
    pub(super) fn redeem<T>(
        &self,
        grant: &Grant,
        now: Instant,
        enter: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let Some(invitation) = &grant.invitation else { return enter() };
        let mut used = self.used.lock();
        let before = used.get(&invitation.id).map_or(0, |used| used.seats);
        if before >= invitation.uses {
            return Err(Refusal::new(Code::Forbidden, "this invitation has been used as often as it may be"));
        }
        if before == 0 && used.len() >= MOST {
            used.retain(|_, used| used.until.is_none_or(|until| until > now));
            if used.len() >= MOST {
                let refusal =
                    Refusal::new(Code::RateLimited, "too many invitations are in use; come back a little later");
                return Err(refusal.retry_after(FULL));
            }
        }
        let entered = enter()?;
        used.entry(Arc::clone(&invitation.id)).or_insert(Used { seats: 0, until: grant.expires }).seats += 1;
        Ok(entered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Invitation;

    fn invited(id: &str, uses: u64, expires: Option<Instant>) -> Grant {
        Grant { invitation: Some(Invitation { id: id.into(), uses }), expires, ..Grant::open(Arc::default()) }
    }

    #[test]
    fn an_invitation_is_good_for_as_many_seats_as_it_says_and_a_refused_join_is_none() {
        let (invitations, now) = (Invitations::default(), Instant::now());
        let grant = invited("a", 2, None);
        let full = || Err::<(), _>(Refusal::new(Code::RoomFull, "full"));
        let code = |result: Result<(), Refusal>| result.map_err(|refusal| refusal.code);
        assert_eq!(code(invitations.redeem(&grant, now, full)), Err(Code::RoomFull));
        for _ in 0..2 {
            assert_eq!(code(invitations.redeem(&grant, now, || Ok(()))), Ok(()));
        }
        assert_eq!(code(invitations.redeem(&grant, now, || Ok(()))), Err(Code::Forbidden));
        assert_eq!(code(invitations.redeem(&invited("b", 1, None), now, || Ok(()))), Ok(()));
        assert_eq!(code(invitations.redeem(&Grant::open(Arc::default()), now, || Ok(()))), Ok(()));
    }

    #[test]
    fn counts_are_bounded_and_forgotten_when_their_tokens_have_ended() {
        let (invitations, now) = (Invitations::default(), Instant::now());
        let soon = now + Duration::from_secs(1);
        for number in 0..MOST {
            let grant = invited(&number.to_string(), 1, Some(soon));
            assert!(invitations.redeem(&grant, now, || Ok(())).is_ok());
        }
        let one_more = invited("one more", 1, None);
        let refused = invitations.redeem(&one_more, now, || Ok(())).map_err(|refusal| refusal.code);
        assert_eq!(refused, Err(Code::RateLimited));
        assert!(invitations.redeem(&one_more, soon, || Ok(())).is_ok());
        assert_eq!(invitations.used.lock().len(), 1);
    }
}
