//! What follows from an attempt to deliver an event. Pure.

use std::time::Duration;

use throng_model::{Backoff, Timestamp};
use throng_spec::{AlertSeverity, WebhookSettings};
use throng_store::{AlertEvent, DeliveryResult, DeliveryState, Receiver, Severity};

/// Between two tries of an event.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(600) };
/// Events that wait for one receiver, at most. Of more, the oldest are given up.
pub(super) const MOST_PENDING: u64 = 10_000;
/// Tries of an event that the receiver calls wrong: it may be the receiver that is wrong, for a while.
const TRIES_OF_REFUSED: u32 = 5;

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// There was an answer.
    Status(u16),
    /// There was none; why, without the URL.
    Nothing(String),
}

/// What to do about the next event of a receiver before any request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Before {
    /// Send it.
    Send,
    /// It is not for this receiver.
    PassOver,
    /// It is too old.
    GiveUp(DeliveryResult),
}

/// What to do after a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum After {
    /// The delivery has ended.
    Ended(DeliveryResult),
    /// Try again after so long.
    Again { why: String, pause: Duration },
}

/// Decides about an event that has not been sent.
pub(super) fn before(
    settings: &WebhookSettings,
    receiver: &Receiver,
    event: &AlertEvent,
    now: Timestamp,
) -> Before {
    let severity = match event.alert.kind.severity() {
        Severity::Warning => AlertSeverity::Warning,
        Severity::Critical => AlertSeverity::Critical,
    };
    let urgent =
        settings.min_severity == AlertSeverity::Warning || severity == AlertSeverity::Critical;
    // It ended before the receiver was named.
    let over = event.alert.resolved_at.is_some_and(|at| at < receiver.since);
    if !urgent || over {
        return Before::PassOver;
    }
    let why = if now.since(event.at) > horizon(settings) {
        let last = receiver.last_error.as_deref().unwrap_or("no node tried it");
        format!("not accepted within {} hours; the last try: {last}", settings.retry_hours)
    } else if receiver.pending > MOST_PENDING {
        format!("more than {MOST_PENDING} events waited")
    } else {
        return Before::Send;
    };
    Before::GiveUp(DeliveryResult {
        state: DeliveryState::Expired,
        http_status: None,
        why: Some(why),
    })
}

/// For how long an event is tried.
pub(super) fn horizon(settings: &WebhookSettings) -> Duration {
    Duration::from_secs(u64::from(settings.retry_hours) * 3_600)
}

/// Decides after an answer, or none. `failures` counts the failed tries of this event before.
pub(super) fn after(answer: &Answer, failures: u32, seed: u64) -> After {
    let tries = failures.saturating_add(1);
    let pause = BACKOFF.delay(tries, seed);
    match answer {
        Answer::Status(status @ 200..=299) => After::Ended(DeliveryResult {
            state: DeliveryState::Delivered,
            http_status: Some(*status),
            why: None,
        }),
        // Wrong in itself: the events behind it should not wait for a day. What concerns who sends,
        // how often or where to is not about this event.
        Answer::Status(status @ (400 | 405..=407 | 409..=424 | 426..=428 | 431..=499))
            if tries >= TRIES_OF_REFUSED =>
        {
            After::Ended(DeliveryResult {
                state: DeliveryState::Refused,
                http_status: Some(*status),
                why: Some(format!("the receiver answered {status} to {tries} tries")),
            })
        }
        Answer::Status(status @ 300..=399) => After::Again {
            why: format!(
                "the receiver answered {status}: redirects are not followed, write the final URL"
            ),
            pause,
        },
        Answer::Status(status) => {
            After::Again { why: format!("the receiver answered {status}"), pause }
        }
        Answer::Nothing(why) => After::Again { why: why.clone(), pause },
    }
}

#[cfg(test)]
mod tests {
    use throng_spec::SecretRef;
    use throng_store::{Alert, AlertEventKind, AlertKind};

    use super::*;

    fn settings(min_severity: AlertSeverity) -> WebhookSettings {
        WebhookSettings {
            name: "pager".to_owned(),
            url: "https://hooks.example.com/".to_owned(),
            secret: SecretRef::Env("A".to_owned()),
            min_severity,
            retry_hours: 24,
        }
    }

    fn receiver(pending: u64) -> Receiver {
        Receiver {
            name: "pager".to_owned(),
            since: Timestamp(100),
            last_event: 0,
            failures: 0,
            next_try_at: None,
            last_error: Some("HTTP 503".to_owned()),
            last_ok_at: None,
            pending,
        }
    }

    fn event(kind: AlertKind, at: i64, resolved_at: Option<i64>) -> AlertEvent {
        let alert = Alert {
            id: 1,
            kind,
            subject: "buyers".to_owned(),
            message: "x".to_owned(),
            count: 1,
            raised_at: Timestamp(at),
            last_at: Timestamp(at),
            resolved_at: resolved_at.map(Timestamp),
        };
        let event = AlertEventKind::Raised;
        AlertEvent { id: 1, event_id: "a".to_owned(), event, at: Timestamp(at), alert }
    }

    #[test]
    fn what_is_not_for_a_receiver_is_passed_over() {
        let now = Timestamp(200);
        let (all, critical) = (settings(AlertSeverity::Warning), settings(AlertSeverity::Critical));
        let held = event(AlertKind::RunHeld, 150, None);
        assert_eq!(before(&all, &receiver(1), &held, now), Before::Send);
        assert_eq!(before(&critical, &receiver(1), &held, now), Before::PassOver);
        let failed = event(AlertKind::TaskFailed, 150, Some(160));
        assert_eq!(before(&critical, &receiver(1), &failed, now), Before::Send);
        let over = event(AlertKind::TaskFailed, 50, Some(60));
        assert_eq!(before(&critical, &receiver(1), &over, now), Before::PassOver);
        // Whoever hears of its end has heard of its beginning.
        for resolved_at in [None, Some(160)] {
            let seen = event(AlertKind::TaskFailed, 50, resolved_at);
            assert_eq!(before(&critical, &receiver(1), &seen, now), Before::Send);
        }
    }

    #[test]
    fn what_is_too_old_or_too_much_is_given_up_with_its_reason() {
        let all = settings(AlertSeverity::Warning);
        let raised = event(AlertKind::TaskFailed, 150, None);
        let why = |pending, now| match before(&all, &receiver(pending), &raised, now) {
            Before::GiveUp(DeliveryResult { state: DeliveryState::Expired, why, .. }) => why,
            _ => None,
        };
        let day = Duration::from_secs(86_400);
        assert_eq!(why(1, Timestamp(150).plus(day)), None);
        let late = why(1, Timestamp(151).plus(day)).unwrap();
        assert!(late.contains("24 hours") && late.contains("HTTP 503"), "{late}");
        assert_eq!(why(MOST_PENDING, Timestamp(200)), None);
        assert!(why(MOST_PENDING + 1, Timestamp(200)).unwrap().contains("10000"));
    }

    #[test]
    fn only_a_success_ends_a_delivery_and_wrong_events_do_not_block_others() {
        for status in [200, 202, 204] {
            let After::Ended(result) = after(&Answer::Status(status), 0, 1) else { panic!() };
            assert_eq!(
                (result.state, result.http_status),
                (DeliveryState::Delivered, Some(status))
            );
        }
        for status in [100, 301, 307, 401, 403, 404, 408, 425, 429, 500, 503] {
            let answer = after(&Answer::Status(status), 1_000, 1);
            assert!(matches!(answer, After::Again { .. }), "{status}");
        }
        for status in [400, 410, 413, 422] {
            assert!(
                matches!(after(&Answer::Status(status), 3, 1), After::Again { .. }),
                "{status}"
            );
            let After::Ended(result) = after(&Answer::Status(status), 4, 1) else { panic!() };
            assert_eq!(result.state, DeliveryState::Refused);
        }
        let nothing = Answer::Nothing("no connection".to_owned());
        let pauses: Vec<Duration> = (0..20)
            .map(|failures| match after(&nothing, failures, 7) {
                After::Again { pause, .. } => pause,
                After::Ended(_) => Duration::ZERO,
            })
            .collect();
        assert!(pauses[0] >= Duration::from_secs(4) && pauses[0] <= Duration::from_secs(6));
        assert!(pauses[1] > pauses[0] && pauses[19] <= Duration::from_secs(720));
    }
}
