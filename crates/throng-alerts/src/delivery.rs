//! Delivery of alerts: the leader turns raised and resolved alerts into events (rows of the ledger, so that a
//! crash loses none), and sends each event to every receiver of `node.alerts`, ordered by time, until it is accepted
//! or too old. Each receiver with pending events has a task of its own, so that a receiver that does not respond
//! does not delay the others.

use std::collections::HashSet;
use std::time::Duration;

use throng_model::{Entropy as _, POLL_INTERVAL, RETRY_DELAY, SystemEntropy, Timestamp};
use throng_spec::WebhookSettings;
use throng_store::{LedgerError, Receiver};
use throng_telemetry::metrics;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::deps::AlertsDeps;
use crate::outcome::{AfterSend, BeforeSend, WebhookResponse};
use crate::webhook::WebhookClient;
use crate::{event, outcome};

/// How long events and their deliveries are kept after their last delivery has ended.
const KEEP_EVENTS: Duration = Duration::from_secs(30 * 86_400);
/// The interval in which old events are removed.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(3_600);
/// Alerts that were resolved longer ago than this, before the first receiver was configured, are not sent.
const MAX_AGE: Duration = Duration::from_secs(86_400);

/// Delivers alerts until `shutdown`, while this process is the leader. The next leader sends an event that is being
/// sent at that time again, with the same id.
pub async fn deliver(deps: AlertsDeps, shutdown: CancellationToken) {
    let client = match WebhookClient::new() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to create HTTP client for alerts"
            );
            return shutdown.cancelled().await;
        }
    };
    let mut notifier = Notifier {
        deps,
        client,
        sending: JoinSet::new(),
        busy: HashSet::new(),
        cleanup_at: Timestamp(i64::MIN),
    };
    loop {
        let pause = match notifier.round().await {
            Ok(()) => POLL_INTERVAL,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "failed to read alerts");
                RETRY_DELAY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(ended) = notifier.sending.join_next(), if !notifier.sending.is_empty() => {
                notifier.handle_ended(ended);
            }
            () = tokio::time::sleep(notifier.deps.poll_delay(pause)) => {}
        }
    }
}

struct Notifier {
    deps: AlertsDeps,
    client: WebhookClient,
    /// One task for each receiver with pending events.
    sending: JoinSet<(String, Result<(), LedgerError>)>,
    /// The receivers of these tasks.
    busy: HashSet<String>,
    cleanup_at: Timestamp,
}

impl Notifier {
    async fn round(&mut self) -> Result<(), LedgerError> {
        while let Some(ended) = self.sending.try_join_next() {
            self.handle_ended(ended);
        }
        let settings = self.deps.spec.load().node.alerts.clone();
        if settings.is_empty() || !self.deps.ledger.acquire_leadership().await? {
            return Ok(());
        }
        let now = self.deps.clock.now();
        let ledger = &self.deps.ledger;
        while ledger.record_alert_events(SystemEntropy.next_u64(), now.minus(MAX_AGE)).await? > 0 {}
        let mut known = ledger.receivers().await?;
        let is_new =
            |receiver: &&WebhookSettings| known.iter().all(|row| row.name != receiver.name);
        let new: Vec<_> = settings.iter().filter(is_new).collect();
        if !new.is_empty() {
            for receiver in new {
                ledger.add_receiver(&receiver.name, now).await?;
            }
            known = ledger.receivers().await?;
        }
        if now >= self.cleanup_at {
            let names: Vec<String> =
                settings.iter().map(|receiver| receiver.name.clone()).collect();
            ledger.delete_alert_events(now.minus(KEEP_EVENTS), &names).await?;
            self.cleanup_at = now.plus(CLEANUP_INTERVAL);
        }
        for receiver in settings {
            let Some(row) = known.iter().find(|row| row.name == receiver.name) else { continue };
            let due = row.pending > 0 && row.next_try_at.is_none_or(|at| at <= now);
            if due && self.busy.insert(receiver.name.clone()) {
                let (deps, client) = (self.deps.clone(), self.client.clone());
                self.sending.spawn(async move {
                    let sent = send_all(&deps, &client, &receiver).await;
                    (receiver.name, sent)
                });
            }
        }
        Ok(())
    }

    fn handle_ended(
        &mut self,
        ended: Result<(String, Result<(), LedgerError>), tokio::task::JoinError>,
    ) {
        match ended {
            Ok((name, result)) => {
                self.busy.remove(&name);
                if let Err(error) = result {
                    tracing::error!(
                        receiver = name,
                        error = &error as &dyn std::error::Error,
                        "failed to send alerts"
                    );
                }
            }
            Err(error) => {
                // The error does not name the receiver. If a task of another receiver still runs, its events may
                // be sent twice, which receivers detect by the event id.
                tracing::error!(%error, "sending of alerts panicked");
                self.busy.clear();
            }
        }
    }
}

/// Sends the pending events of a receiver, in order, until none is left or a try fails.
async fn send_all(
    deps: &AlertsDeps,
    client: &WebhookClient,
    settings: &WebhookSettings,
) -> Result<(), LedgerError> {
    loop {
        let row = deps.ledger.receivers().await?.into_iter().find(|row| row.name == settings.name);
        let (Some(row), true) = (row, deps.ledger.acquire_leadership().await?) else {
            return Ok(());
        };
        if row.pending == 0 || !send_next(deps, client, settings, &row).await? {
            return Ok(());
        }
        deps.host.deliveries_changed();
    }
}

/// Ends the delivery of the next event, or records a failed try (`false`).
async fn send_next(
    deps: &AlertsDeps,
    client: &WebhookClient,
    settings: &WebhookSettings,
    row: &Receiver,
) -> Result<bool, LedgerError> {
    let ledger = &deps.ledger;
    let name = &settings.name;
    let Some(event) = ledger.next_alert_event(name).await? else { return Ok(false) };
    let now = deps.clock.now();
    match outcome::decide_before_send(settings, row, &event, now) {
        BeforeSend::Skip => {
            ledger.skip_alert_event(name, event.id).await?;
            return Ok(true);
        }
        BeforeSend::Expire(result) => {
            tracing::error!(
                receiver = name,
                alert = event.alert.id,
                why = result.why,
                "alert not delivered"
            );
            count(name, "expired");
            ledger.record_delivery_result(name, event.id, &result, now).await?;
            return Ok(true);
        }
        BeforeSend::Send => {}
    }
    let response = match settings.secret.resolve(&*deps.env) {
        Ok(secret) => client.send(settings, &secret, &event::payload(&event), now).await.0,
        Err(error) => WebhookResponse::NoResponse(throng_model::with_causes(&error)),
    };
    // Again: the request may have taken as long as its timeout.
    let now = deps.clock.now();
    match outcome::decide_after_send(&response, row.failures, event.id.unsigned_abs()) {
        AfterSend::Ended(result) => {
            let outcome = match result.state {
                throng_store::DeliveryState::Delivered => "delivered",
                _ => "refused",
            };
            if let Some(why) = &result.why {
                tracing::error!(receiver = name, alert = event.alert.id, why, "alert refused");
            }
            count(name, outcome);
            ledger.record_delivery_result(name, event.id, &result, now).await?;
            Ok(true)
        }
        AfterSend::Retry { why, delay } => {
            tracing::warn!(
                receiver = name,
                alert = event.alert.id,
                failures = row.failures + 1,
                why,
                "alert not accepted, retrying"
            );
            metrics::counter!(metrics::ALERT_DELIVERY_FAILURES_TOTAL, "receiver" => name.clone())
                .increment(1);
            ledger.record_delivery_failure(name, &why, now.plus(delay)).await?;
            // Later events wait: a receiver gets them in the order in which they happened.
            Ok(false)
        }
    }
}

fn count(receiver: &str, outcome: &'static str) {
    let labels = [("receiver", receiver.to_owned()), ("outcome", outcome.to_owned())];
    metrics::counter!(metrics::ALERT_DELIVERIES_TOTAL, &labels).increment(1);
}
