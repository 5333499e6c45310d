//! Alerts leave the deployment: whoever leads turns alerts that were raised or resolved into events
//! (rows of the ledger, so that a crash loses none), and sends each to every receiver of
//! `node.alerts`, in order of time, until it is accepted or too old. Each receiver has a task of its
//! own while it has work: one that does not answer holds up nobody else.

mod event;
mod outcome;
pub(crate) mod problems;
mod webhook;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use throng_model::{Entropy as _, SystemEntropy, Timestamp};
use throng_spec::WebhookSettings;
use throng_store::{LedgerError, Receiver};
use throng_telemetry::metrics;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::NodeContext;
use outcome::{After, Answer, Before};
use webhook::{TestAnswer, Webhooks};

/// How often alerts are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// After the ledger has failed.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// How long events and their deliveries are kept once nobody waits for them.
const KEEP_EVENTS: Duration = Duration::from_secs(30 * 86_400);
/// How often old ones are removed.
const FORGET_INTERVAL: Duration = Duration::from_secs(3_600);
/// What ended longer ago than this, before any receiver was named, is not sent.
const OLDEST: Duration = Duration::from_secs(86_400);

/// Runs until `shutdown`. An event that is being sent then is sent again by whoever leads next, with
/// the same id.
pub(crate) async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let webhooks = match Webhooks::new() {
        Ok(webhooks) => webhooks,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "alerts cannot be sent");
            return shutdown.cancelled().await;
        }
    };
    let mut notifier = Notifier {
        ctx,
        webhooks,
        sending: JoinSet::new(),
        busy: HashSet::new(),
        forget_at: Timestamp(i64::MIN),
    };
    loop {
        let pause = match notifier.round().await {
            Ok(()) => POLL_INTERVAL,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the ledger failed while alerts were to be sent"
                );
                RETRY_DELAY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(ended) = notifier.sending.join_next(), if !notifier.sending.is_empty() => {
                notifier.ended(ended);
            }
            () = tokio::time::sleep(notifier.ctx.pause(pause)) => {}
        }
    }
}

struct Notifier {
    ctx: Arc<NodeContext>,
    webhooks: Webhooks,
    /// One task for each receiver that has work.
    sending: JoinSet<(String, Result<(), LedgerError>)>,
    /// Their names.
    busy: HashSet<String>,
    forget_at: Timestamp,
}

impl Notifier {
    async fn round(&mut self) -> Result<(), LedgerError> {
        while let Some(ended) = self.sending.try_join_next() {
            self.ended(ended);
        }
        let settings = self.ctx.spec.load().node.alerts.clone();
        if settings.is_empty() || !self.ctx.ledger.lead().await? {
            return Ok(());
        }
        let now = self.ctx.clock.now();
        let ledger = &self.ctx.ledger;
        while ledger.record_alert_events(SystemEntropy.next_u64(), now.minus(OLDEST)).await? > 0 {}
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
        if now >= self.forget_at {
            let names: Vec<String> =
                settings.iter().map(|receiver| receiver.name.clone()).collect();
            ledger.forget_alert_events(now.minus(KEEP_EVENTS), &names).await?;
            self.forget_at = now.plus(FORGET_INTERVAL);
        }
        for receiver in settings {
            let Some(row) = known.iter().find(|row| row.name == receiver.name) else { continue };
            let due = row.pending > 0 && row.next_try_at.is_none_or(|at| at <= now);
            if due && self.busy.insert(receiver.name.clone()) {
                let (ctx, webhooks) = (Arc::clone(&self.ctx), self.webhooks.clone());
                self.sending.spawn(async move {
                    let sent = send_all(&ctx, &webhooks, &receiver).await;
                    (receiver.name, sent)
                });
            }
        }
        Ok(())
    }

    fn ended(&mut self, ended: Result<(String, Result<(), LedgerError>), tokio::task::JoinError>) {
        match ended {
            Ok((name, result)) => {
                self.busy.remove(&name);
                if let Err(error) = result {
                    tracing::error!(
                        receiver = name,
                        error = &error as &dyn std::error::Error,
                        "the ledger failed while alerts were sent"
                    );
                }
            }
            Err(error) => {
                // Which one is not said; whoever still runs holds its place by the ledger's row.
                tracing::error!(%error, "the sending of alerts panicked");
                self.busy.clear();
            }
        }
    }
}

/// Sends what waits for a receiver, in order, until nothing does or a try fails.
async fn send_all(
    ctx: &NodeContext,
    webhooks: &Webhooks,
    settings: &WebhookSettings,
) -> Result<(), LedgerError> {
    loop {
        let row = ctx.ledger.receivers().await?.into_iter().find(|row| row.name == settings.name);
        let (Some(row), true) = (row, ctx.ledger.lead().await?) else { return Ok(()) };
        if row.pending == 0 || !send_next(ctx, webhooks, settings, &row).await? {
            return Ok(());
        }
        ctx.changed(crate::Change::Activation);
    }
}

/// Ends the delivery of the next event, or notes a failed try (`false`).
async fn send_next(
    ctx: &NodeContext,
    webhooks: &Webhooks,
    settings: &WebhookSettings,
    row: &Receiver,
) -> Result<bool, LedgerError> {
    let ledger = &ctx.ledger;
    let name = &settings.name;
    let Some(event) = ledger.next_alert_event(name).await? else { return Ok(false) };
    let now = ctx.clock.now();
    match outcome::before(settings, row, &event, now) {
        Before::PassOver => {
            ledger.pass_over_event(name, event.id).await?;
            return Ok(true);
        }
        Before::GiveUp(result) => {
            tracing::error!(
                receiver = name,
                alert = event.alert.id,
                why = result.why,
                "an alert was not delivered"
            );
            count(name, "expired");
            ledger.delivery_ended(name, event.id, &result, now).await?;
            return Ok(true);
        }
        Before::Send => {}
    }
    let answer = match settings.secret.resolve(&*ctx.env) {
        Ok(secret) => webhooks.send(settings, &secret, &event::payload(&event), now).await.0,
        Err(error) => Answer::Nothing(throng_model::with_causes(&error)),
    };
    let now = ctx.clock.now();
    match outcome::after(&answer, row.failures, event.id.unsigned_abs()) {
        After::Ended(result) => {
            let outcome = match result.state {
                throng_store::DeliveryState::Delivered => "delivered",
                _ => "refused",
            };
            if let Some(why) = &result.why {
                tracing::error!(
                    receiver = name,
                    alert = event.alert.id,
                    why,
                    "an alert was refused"
                );
            }
            count(name, outcome);
            ledger.delivery_ended(name, event.id, &result, now).await?;
            Ok(true)
        }
        After::Again { why, pause } => {
            tracing::warn!(
                receiver = name,
                alert = event.alert.id,
                failures = row.failures + 1,
                why,
                "an alert was not accepted; it is sent again"
            );
            metrics::counter!(metrics::ALERT_DELIVERY_FAILURES_TOTAL, "receiver" => name.clone())
                .increment(1);
            ledger.delivery_failed(name, &why, now.plus(pause)).await?;
            Ok(false)
        }
    }
}

fn count(receiver: &str, outcome: &'static str) {
    let labels = [("receiver", receiver.to_owned()), ("outcome", outcome.to_owned())];
    metrics::counter!(metrics::ALERT_DELIVERIES_TOTAL, &labels).increment(1);
}

/// Sends a test to every receiver, or to the one of this name, once, and says what each answered.
/// Nothing of it is in the ledger.
pub(crate) async fn send_test(
    ctx: &NodeContext,
    only: Option<&str>,
) -> Result<Vec<TestAnswer>, reqwest::Error> {
    let webhooks = Webhooks::new()?;
    let settings = ctx.spec.load().node.alerts.clone();
    let wanted = settings.iter().filter(|one| only.is_none_or(|name| name == one.name));
    let tests = wanted.map(|receiver| test(ctx, &webhooks, receiver));
    Ok(futures::future::join_all(tests).await)
}

async fn test(ctx: &NodeContext, webhooks: &Webhooks, settings: &WebhookSettings) -> TestAnswer {
    let now = ctx.clock.now();
    let payload = event::test_payload(SystemEntropy.next_u64(), now);
    let (answer, text) = match settings.secret.resolve(&*ctx.env) {
        Ok(secret) => webhooks.send(settings, &secret, &payload, now).await,
        Err(error) => (Answer::Nothing(throng_model::with_causes(&error)), String::new()),
    };
    let (status, error) = match answer {
        Answer::Status(status) => (Some(status), None),
        Answer::Nothing(why) => (None, Some(why)),
    };
    TestAnswer {
        receiver: settings.name.clone(),
        accepted: status.is_some_and(|status| (200..300).contains(&status)),
        status,
        answer: text,
        error,
    }
}
