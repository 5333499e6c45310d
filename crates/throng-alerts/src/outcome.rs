//! Decisions before and after a try to deliver an event. Pure.

use std::time::Duration;

use throng_model::{Backoff, Timestamp};
use throng_spec::WebhookSettings;
use throng_store::{AlertEvent, DeliveryResult, DeliveryState, Receiver};

/// The maximum number of pending events of one receiver. Beyond it the oldest events expire.
pub(crate) const MAX_PENDING: u64 = 10_000;
/// Tries of an event that the receiver rejects as invalid: the receiver may be faulty temporarily.
const MAX_REFUSED_TRIES: u32 = 5;

/// The response to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WebhookResponse {
    /// A response with this status.
    Status(u16),
    /// No response; the reason, without the URL.
    NoResponse(String),
}

/// The decision about the next event of a receiver before a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BeforeSend {
    /// Send it.
    Send,
    /// It is not for this receiver.
    Skip,
    /// It is too old.
    Expire(DeliveryResult),
}

/// The decision after a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AfterSend {
    /// The delivery has ended.
    Ended(DeliveryResult),
    /// Retry after this delay.
    Retry { why: String, delay: Duration },
}

/// Decides about an event before it is sent.
pub(crate) fn decide_before_send(
    settings: &WebhookSettings,
    receiver: &Receiver,
    event: &AlertEvent,
    now: Timestamp,
) -> BeforeSend {
    let is_urgent = event.alert.kind.severity() >= settings.min_severity;
    // The alert was resolved before the receiver was configured.
    let is_over = event.alert.resolved_at.is_some_and(|at| at < receiver.since);
    if !is_urgent || is_over {
        return BeforeSend::Skip;
    }
    let why = if now.since(event.at) > max_age(settings) {
        let last = receiver.last_error.as_deref().unwrap_or("there was none");
        format!("not accepted within {} hours; the last try: {last}", settings.retry_hours)
    } else if receiver.pending > MAX_PENDING {
        format!("more than {MAX_PENDING} events were pending")
    } else {
        return BeforeSend::Send;
    };
    BeforeSend::Expire(DeliveryResult {
        state: DeliveryState::Expired,
        http_status: None,
        why: Some(why),
    })
}

/// How long an event is retried.
pub(crate) fn max_age(settings: &WebhookSettings) -> Duration {
    Duration::from_secs(u64::from(settings.retry_hours) * 3_600)
}

/// Decides after a request. `failures` counts the earlier failed tries of this event.
pub(crate) fn decide_after_send(response: &WebhookResponse, failures: u32, seed: u64) -> AfterSend {
    let tries = failures.saturating_add(1);
    let delay = Backoff::WORK.delay(tries, seed);
    match response {
        WebhookResponse::Status(status @ 200..=299) => AfterSend::Ended(DeliveryResult {
            state: DeliveryState::Delivered,
            http_status: Some(*status),
            why: None,
        }),
        // The event itself is invalid: later events should not wait for it until it expires. Statuses about the
        // sender, the rate or the URL are not about this event, so they are retried.
        WebhookResponse::Status(status @ (400 | 405..=407 | 409..=424 | 426..=428 | 431..=499))
            if tries >= MAX_REFUSED_TRIES =>
        {
            AfterSend::Ended(DeliveryResult {
                state: DeliveryState::Refused,
                http_status: Some(*status),
                why: Some(format!("the receiver answered {status} to {tries} tries")),
            })
        }
        WebhookResponse::Status(status @ 300..=399) => AfterSend::Retry {
            why: format!(
                "the receiver answered {status}: redirects are not followed, write the final URL"
            ),
            delay,
        },
        WebhookResponse::Status(status) => {
            AfterSend::Retry { why: format!("the receiver answered {status}"), delay }
        }
        WebhookResponse::NoResponse(why) => AfterSend::Retry { why: why.clone(), delay },
    }
}

#[cfg(test)]
mod tests {
    use throng_spec::SecretRef;
    use throng_store::{Alert, AlertEventKind, AlertKind};

    use throng_model::Severity;

    use super::*;

    fn settings(min_severity: Severity) -> WebhookSettings {
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
    fn an_event_that_is_not_for_a_receiver_is_skipped() {
        let now = Timestamp(200);
        let (all, critical) = (settings(Severity::Warning), settings(Severity::Critical));
        let held = event(AlertKind::RunHeld, 150, None);
        assert_eq!(decide_before_send(&all, &receiver(1), &held, now), BeforeSend::Send);
        assert_eq!(decide_before_send(&critical, &receiver(1), &held, now), BeforeSend::Skip);
        let failed = event(AlertKind::TaskFailed, 150, Some(160));
        assert_eq!(decide_before_send(&critical, &receiver(1), &failed, now), BeforeSend::Send);
        let over = event(AlertKind::TaskFailed, 50, Some(60));
        assert_eq!(decide_before_send(&critical, &receiver(1), &over, now), BeforeSend::Skip);
        // A receiver that gets the end of an alert also gets its beginning.
        for resolved_at in [None, Some(160)] {
            let seen = event(AlertKind::TaskFailed, 50, resolved_at);
            assert_eq!(decide_before_send(&critical, &receiver(1), &seen, now), BeforeSend::Send);
        }
    }

    #[test]
    fn an_event_that_is_too_old_or_one_too_many_expires_with_its_reason() {
        let all = settings(Severity::Warning);
        let raised = event(AlertKind::TaskFailed, 150, None);
        let why = |pending, now| match decide_before_send(&all, &receiver(pending), &raised, now) {
            BeforeSend::Expire(DeliveryResult { state: DeliveryState::Expired, why, .. }) => why,
            _ => None,
        };
        let day = Duration::from_secs(86_400);
        assert_eq!(why(1, Timestamp(150).plus(day)), None);
        let expired = why(1, Timestamp(151).plus(day)).unwrap();
        assert!(expired.contains("24 hours") && expired.contains("HTTP 503"), "{expired}");
        assert_eq!(why(MAX_PENDING, Timestamp(200)), None);
        assert!(why(MAX_PENDING + 1, Timestamp(200)).unwrap().contains("10000"));
    }

    #[test]
    fn only_a_success_ends_a_delivery_and_invalid_events_do_not_block_others() {
        for status in [200, 202, 204] {
            let AfterSend::Ended(result) =
                decide_after_send(&WebhookResponse::Status(status), 0, 1)
            else {
                panic!()
            };
            assert_eq!(
                (result.state, result.http_status),
                (DeliveryState::Delivered, Some(status))
            );
        }
        for status in [100, 301, 307, 401, 403, 404, 408, 425, 429, 500, 503] {
            let response = decide_after_send(&WebhookResponse::Status(status), 1_000, 1);
            assert!(matches!(response, AfterSend::Retry { .. }), "{status}");
        }
        for status in [400, 410, 413, 422] {
            assert!(
                matches!(
                    decide_after_send(&WebhookResponse::Status(status), 3, 1),
                    AfterSend::Retry { .. }
                ),
                "{status}"
            );
            let AfterSend::Ended(result) =
                decide_after_send(&WebhookResponse::Status(status), 4, 1)
            else {
                panic!()
            };
            assert_eq!(result.state, DeliveryState::Refused);
        }
        let no_response = WebhookResponse::NoResponse("no connection".to_owned());
        let pauses: Vec<Duration> = (0..20)
            .map(|failures| match decide_after_send(&no_response, failures, 7) {
                AfterSend::Retry { delay, .. } => delay,
                AfterSend::Ended(_) => Duration::ZERO,
            })
            .collect();
        assert!(pauses[0] >= Duration::from_secs(4) && pauses[0] <= Duration::from_secs(6));
        assert!(pauses[1] > pauses[0] && pauses[19] <= Duration::from_secs(720));
    }
}
