//! What follows from a failed try.

use std::time::Duration;

use throng_model::Backoff;

use crate::SendClass;

/// What is known when a try has failed.
#[derive(Debug, Clone, Copy)]
pub struct FailureFacts {
    /// What the destination says is to be done.
    pub class: SendClass,
    /// Failures in a row before this one.
    pub failures_before: u32,
    /// For the jitter: the task's number.
    pub seed: u64,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Try again after this; `None`: the task has failed.
    pub retry_after: Option<Duration>,
    /// Count it as a failure in a row.
    pub counts: bool,
    /// Tell a person.
    pub alert: bool,
    /// Start no work of this account for this long.
    pub pause_account: Option<Duration>,
}

/// Failures in a row after which a person is told. The task goes on trying.
const ALERT_AFTER: u32 = 3;
/// Failures in a row after which the task has failed.
const GIVE_UP_AFTER: u32 = 8;
/// Failures 1 to 7 are followed by pauses of 5 s to 10 min, 21 min in all.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(600) };
/// With a bad token, every task of the account that is tried is lost. So one is tried, then none
/// for this long.
const PAUSE_AFTER_STOP: Duration = Duration::from_secs(300);

/// Decides. Pure.
pub fn decide_after_failure(facts: FailureFacts) -> Decision {
    let failures = facts.failures_before.saturating_add(1);
    match facts.class {
        SendClass::Retry | SendClass::Restart => Decision {
            retry_after: (failures < GIVE_UP_AFTER).then(|| BACKOFF.delay(failures, facts.seed)),
            counts: true,
            alert: failures >= ALERT_AFTER,
            pause_account: None,
        },
        // It ends by itself, so the task does not give up; but a person hears of it.
        SendClass::Later(wait) => Decision {
            retry_after: Some(wait),
            counts: true,
            alert: failures >= ALERT_AFTER,
            pause_account: None,
        },
        SendClass::Wait(wait) => Decision {
            retry_after: Some(wait),
            counts: false,
            alert: false,
            pause_account: Some(wait),
        },
        SendClass::Stop | SendClass::Fix | SendClass::StopAccount => Decision {
            retry_after: None,
            counts: true,
            alert: true,
            pause_account: (facts.class == SendClass::StopAccount).then_some(PAUSE_AFTER_STOP),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(class: SendClass, failures_before: u32) -> Decision {
        decide_after_failure(FailureFacts { class, failures_before, seed: 1 })
    }

    #[test]
    fn the_third_failure_alerts_and_the_eighth_ends() {
        for (before, alert, again) in
            [(0, false, true), (1, false, true), (2, true, true), (6, true, true), (7, true, false)]
        {
            let decision = decide(SendClass::Retry, before);
            assert_eq!(
                (decision.alert, decision.retry_after.is_some()),
                (alert, again),
                "{before}"
            );
            assert!(decision.counts && decision.pause_account.is_none());
        }
    }

    #[test]
    fn a_throttle_pauses_the_account_and_does_not_count() {
        let wait = Duration::from_secs(77);
        assert_eq!(
            decide(SendClass::Wait(wait), 100),
            Decision {
                retry_after: Some(wait),
                counts: false,
                alert: false,
                pause_account: Some(wait)
            }
        );
    }

    #[test]
    fn a_busy_audience_is_waited_for_without_end_and_not_in_silence() {
        let decision = decide(SendClass::Later(Duration::from_secs(300)), 50);
        assert_eq!(decision.retry_after, Some(Duration::from_secs(300)));
        assert!(decision.alert && decision.pause_account.is_none());
    }

    #[test]
    fn what_only_a_person_can_mend_fails_at_once() {
        for class in [SendClass::Stop, SendClass::StopAccount, SendClass::Fix] {
            let decision = decide(class, 0);
            assert!(decision.retry_after.is_none() && decision.alert);
            assert_eq!(decision.pause_account.is_some(), class == SendClass::StopAccount);
        }
    }
}
