//! Decides how to continue after a failed try of a task.

use std::time::Duration;

use throng_model::Backoff;

use crate::SendClass;

/// The facts about a failed try.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailureFacts {
    /// The class that the destination gave the failure.
    pub(crate) class: SendClass,
    /// Consecutive failures before this one.
    pub(crate) failures_before: u32,
    /// Seeds the jitter: the task's number.
    pub(crate) seed: u64,
}

/// How to continue after a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FailureDecision {
    /// Retry after this; `None`: the task has failed.
    pub(crate) retry_after: Option<Duration>,
    /// Count it as a consecutive failure.
    pub(crate) counts: bool,
    /// Raise an alert.
    pub(crate) alert: bool,
    /// Start no task of this account for this long.
    pub(crate) pause_account: Option<Duration>,
}

/// Consecutive failures after which an alert is raised. The task is still retried.
const ALERT_AFTER: u32 = 3;
/// Consecutive failures after which the task has failed.
const MAX_FAILURES: u32 = 8;
/// Failures 1 to 7 are followed by delays of 5 s to 10 min, 21 min in total.
const BACKOFF: Backoff = Backoff::WORK;
/// With an invalid token, every task of the account that is tried fails. So after one failure no task of
/// the account is tried for this long.
const ACCOUNT_PAUSE: Duration = Duration::from_secs(300);

/// Decides how to continue after a failed try. Pure.
pub(crate) fn decide_after_failure(facts: FailureFacts) -> FailureDecision {
    let failures = facts.failures_before.saturating_add(1);
    match facts.class {
        SendClass::Retry | SendClass::Restart => FailureDecision {
            retry_after: (failures < MAX_FAILURES).then(|| BACKOFF.delay(failures, facts.seed)),
            counts: true,
            alert: failures >= ALERT_AFTER,
            pause_account: None,
        },
        // The cause ends by itself, so the task never fails for it; but an alert is raised.
        SendClass::RetryLater(wait) => FailureDecision {
            retry_after: Some(wait),
            counts: true,
            alert: failures >= ALERT_AFTER,
            pause_account: None,
        },
        SendClass::Throttled(wait) | SendClass::Paced(wait) => FailureDecision {
            retry_after: Some(wait),
            counts: false,
            alert: false,
            pause_account: matches!(facts.class, SendClass::Throttled(_)).then_some(wait),
        },
        SendClass::Stop | SendClass::InvalidRows | SendClass::StopAccount => FailureDecision {
            retry_after: None,
            counts: true,
            alert: true,
            pause_account: (facts.class == SendClass::StopAccount).then_some(ACCOUNT_PAUSE),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(class: SendClass, failures_before: u32) -> FailureDecision {
        decide_after_failure(FailureFacts { class, failures_before, seed: 1 })
    }

    #[test]
    fn the_third_failure_raises_an_alert_and_the_eighth_fails_the_task() {
        for (before, alert, retried) in
            [(0, false, true), (1, false, true), (2, true, true), (6, true, true), (7, true, false)]
        {
            let decision = decide(SendClass::Retry, before);
            assert_eq!(
                (decision.alert, decision.retry_after.is_some()),
                (alert, retried),
                "{before}"
            );
            assert!(decision.counts && decision.pause_account.is_none());
        }
    }

    #[test]
    fn a_throttle_pauses_the_account_and_does_not_count() {
        let wait = Duration::from_secs(77);
        assert_eq!(
            decide(SendClass::Throttled(wait), 100),
            FailureDecision {
                retry_after: Some(wait),
                counts: false,
                alert: false,
                pause_account: Some(wait)
            }
        );
    }

    #[test]
    fn a_busy_audience_is_retried_without_limit_and_raises_an_alert() {
        let decision = decide(SendClass::RetryLater(Duration::from_secs(300)), 50);
        assert_eq!(decision.retry_after, Some(Duration::from_secs(300)));
        assert!(decision.alert && decision.pause_account.is_none());
    }

    #[test]
    fn what_only_a_person_can_fix_fails_at_once() {
        for class in [SendClass::Stop, SendClass::StopAccount, SendClass::InvalidRows] {
            let decision = decide(class, 0);
            assert!(decision.retry_after.is_none() && decision.alert);
            assert_eq!(decision.pause_account.is_some(), class == SendClass::StopAccount);
        }
    }
}
