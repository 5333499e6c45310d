//! The calls of one account on a platform, counted where they are made: a destination reserves each call before it is
//! made, and notes the usage that the response reports.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use throng_activation::{SendClass, SendError, Usage};
use throng_model::Clock;

use crate::pacing::{CallAdmission, CallKind, CallLimits, CallPacer, CallStart};

/// The calls of one account. All destinations of a process that call the account share it.
#[derive(Debug)]
pub struct AccountCalls {
    clock: Arc<dyn Clock>,
    pacer: Mutex<CallPacer>,
}

/// Whether a call may be made. See [`CallAdmission`].
#[derive(Debug)]
pub enum Permission {
    /// It may be made.
    Go(CallPermit),
    /// It may be tried again after this.
    Wait(Duration),
    /// With this permit a read has to be made first, whose response shows the account's usage.
    ReadMeter(CallPermit),
}

impl AccountCalls {
    /// No calls yet.
    pub fn new(limits: CallLimits, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, pacer: Mutex::new(CallPacer::new(limits)) })
    }

    /// Reserves a call, if the account's quota allows it now. Does not wait.
    pub fn reserve(self: &Arc<Self>, kind: CallKind) -> Permission {
        let turn = {
            let mut pacer = self.pacer.lock();
            pacer.reserve(kind, self.clock.now())
        };
        let permit = |start| CallPermit { reserved: Some((Arc::clone(self), start)) };
        match turn {
            CallAdmission::Go(start) => Permission::Go(permit(start)),
            CallAdmission::ReadMeter(start) => Permission::ReadMeter(permit(start)),
            CallAdmission::Wait(wait) => Permission::Wait(wait),
        }
    }

    /// Reserves a call that continues others, which would have to be made again without it: waits for it, for `most` at
    /// most.
    pub async fn reserve_within(self: &Arc<Self>, kind: CallKind, most: Duration) -> Permission {
        let mut left = most;
        loop {
            match self.reserve(kind) {
                Permission::Wait(wait) if wait <= left => {
                    left -= wait;
                    tokio::time::sleep(self.clock.wall_duration(wait)).await;
                }
                other => return other,
            }
        }
    }
}

/// The right to make one call. Keep it until the call has ended: it counts as running until this is dropped.
#[derive(Debug)]
pub struct CallPermit {
    reserved: Option<(Arc<AccountCalls>, CallStart)>,
}

impl CallPermit {
    /// For an account without a quota.
    pub fn unlimited() -> Self {
        Self { reserved: None }
    }

    /// Notes the usage of the call's response.
    pub fn observe(&mut self, usage: Usage) {
        if let Some((calls, start)) = &mut self.reserved {
            let mut pacer = calls.pacer.lock();
            let now = calls.clock.now();
            pacer.observe(start, usage, now);
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if let Some((calls, start)) = self.reserved.take() {
            let mut pacer = calls.pacer.lock();
            let now = calls.clock.now();
            pacer.end(start, now);
        }
    }
}

/// The error of a call that was not made, because the account's quota is used for `wait`.
pub(crate) fn paced(wait: Duration) -> SendError {
    let message = format!(
        "the account's quota of calls per hour is used; the next call can be made in {} s",
        wait.as_secs()
    );
    SendError::local(SendClass::Paced(wait), message)
}

#[cfg(test)]
mod tests {
    use throng_model::{ManualClock, Timestamp};

    use super::*;

    #[test]
    fn a_permit_counts_until_it_is_dropped_and_an_hour_longer() {
        let clock = Arc::new(ManualClock::new(Timestamp(1_000_000_000_000)));
        let limits = CallLimits { lowest: 5_000, assumed: 5_000 };
        let calls = AccountCalls::new(limits, Arc::<ManualClock>::clone(&clock));
        let reserve = || match calls.reserve(CallKind::Upload) {
            Permission::Go(permit) => Some(permit),
            Permission::ReadMeter(_) | Permission::Wait(_) => None,
        };
        let own = || calls.pacer.lock().own();
        let permit = reserve().unwrap();
        clock.advance(Duration::from_secs(4_000));
        assert!(reserve().is_some(), "and ends at once");
        assert_eq!(own(), 2);
        drop(permit);
        clock.advance(Duration::from_secs(3_500));
        assert!(reserve().is_some());
        assert_eq!(own(), 3);
        clock.advance(Duration::from_secs(200));
        assert!(reserve().is_some());
        assert_eq!(own(), 2);
    }

    /// A clock on which each wait is over at once.
    #[derive(Debug)]
    struct WaitingClock(ManualClock);

    impl Clock for WaitingClock {
        fn now(&self) -> Timestamp {
            self.0.now()
        }

        fn wall_duration(&self, duration: Duration) -> Duration {
            self.0.advance(duration);
            Duration::ZERO
        }
    }

    #[tokio::test]
    async fn a_call_that_continues_others_waits_for_the_quota() {
        let clock = Arc::new(WaitingClock(ManualClock::new(Timestamp(1_000_000_000_000))));
        let limits = CallLimits { lowest: 1_000, assumed: 1_000 };
        let calls = AccountCalls::new(limits, Arc::<WaitingClock>::clone(&clock));
        while let Permission::Go(permit) = calls.reserve(CallKind::Read) {
            drop(permit);
        }
        assert_eq!(calls.pacer.lock().own(), 990);
        let within = async |secs| {
            let most = Duration::from_secs(secs);
            matches!(calls.reserve_within(CallKind::Read, most).await, Permission::Go(_))
        };
        clock.0.advance(Duration::from_secs(3_550));
        assert!(!within(50).await, "the first call leaves the hour in 51 seconds");
        assert!(within(51).await);
    }
}
