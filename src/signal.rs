//! What comes once in the server's life, and every task waits for at each of its steps.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use tokio_util::sync::CancellationToken;

/// Raised once, for everybody.
///
/// A [`CancellationToken`] that is cheap to wait for beside other things: a token takes a lock that all who wait share whenever it is
/// polled, and a session polls for each message.
#[derive(Debug, Default)]
pub struct Signal {
    raised: AtomicBool,
    token: CancellationToken,
}

impl Signal {
    /// Raises it, and wakes whoever waits for it.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Whether it has been raised.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Waits until it has been raised. Cancel safe.
    pub async fn raised(&self) {
        let mut token = pin!(self.token.cancelled());
        // Whom the token will wake.
        let mut told: Option<Waker> = None;
        poll_fn(|cx| {
            if self.is_raised() {
                return Poll::Ready(());
            }
            if told.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            told = Some(cx.waker().clone());
            token.as_mut().poll(cx)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_wakes_whoever_polled_last() {
        let signal = Signal::default();
        let mut raised = pin!(signal.raised());
        let (first, last) = (Arc::<Woken>::default(), Arc::<Woken>::default());
        for woken in [&first, &first, &last, &last] {
            let waker = Arc::clone(woken).into();
            assert!(raised.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        signal.raise();
        assert!(last.0.load(Ordering::Relaxed));
        assert!(!first.0.load(Ordering::Relaxed));
        assert!(raised.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[tokio::test]
    async fn whoever_comes_late_does_not_wait() {
        let signal = Signal::default();
        assert!(!signal.is_raised());
        signal.raise();
        signal.raise();
        signal.raised().await;
        assert!(signal.is_raised());
    }
}
