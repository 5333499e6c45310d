//! The workers of a process: they claim refreshes, process them, and record how they end.
//! Crash-safe at every step: parts are idempotent, their outputs appear whole or not at all, and
//! one ledger update publishes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use throng_model::{Backoff, POLL_INTERVAL, RETRY_DELAY, RefreshId, Retry, Timestamp};
use throng_spec::{Audience, Spec, WarehouseSource};
use throng_store::{ClaimFilter, HistoryEvent, LedgerError, Refresh, RefreshTrigger, Snapshot};
use throng_telemetry::{metrics, spans};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::builders::BuilderKind;
use super::error::RefreshError;
use super::follow_up::{Recorded, follow_up};
use super::identifier_inputs::IdentifierInputs;
use super::publish::{self, Publication};
use super::siblings::{self, Claimed};
use super::{
    HEARTBEAT_INTERVAL, LEASE, alerts, cleanup, declared, execute, history, model_of, unchanged,
};
use crate::RefreshContext;

/// How often halting a refresh is tried at shutdown, and the delay between two tries: together well
/// within the time that a process has to end.
const MAX_HALT_TRIES: u32 = 5;
const HALT_RETRY_DELAY: Duration = Duration::from_millis(500);
/// Tries of a refresh before it fails for good.
const MAX_TRIES: u32 = 3;
/// The same, while its warehouse is not available: with the delays of [`BACKOFF`] about 15 minutes.
const MAX_OUTAGE_TRIES: u32 = 9;
const BACKOFF: Backoff = Backoff { longest: Duration::from_secs(300), ..Backoff::WORK };

/// Runs until `shutdown`. A refresh that is being processed is halted then, and resumes after the
/// parts that are done.
pub async fn run(ctx: Arc<RefreshContext>, shutdown: CancellationToken) {
    let mut workers = tokio::task::JoinSet::new();
    let spec = ctx.spec.load_full();
    for (kind, name) in [(BuilderKind::Lake, "build"), (BuilderKind::Warehouse, "warehouse")] {
        for number in 0..kind.count(&spec.node) {
            let worker = Worker {
                ctx: Arc::clone(&ctx),
                kind,
                // A lease belongs to its holder, and two workers must not share one: each has a name.
                holder: format!("{}/{name}-{number}", ctx.holder),
                shutdown: shutdown.clone(),
            };
            workers.spawn(async move { worker.run().await });
        }
    }
    drop(spec);
    while workers.join_next().await.is_some() {}
}

/// How a refresh was completed.
pub(super) enum Outcome {
    /// A snapshot is published or held.
    Recorded(Box<publish::PublishOutcome>),
    /// The served version is that of the present model and files.
    Unchanged(Box<Snapshot>),
}

/// A task that processes one refresh, or one part, at a time.
pub(super) struct Worker {
    pub(super) ctx: Arc<RefreshContext>,
    pub(super) kind: BuilderKind,
    pub(super) holder: String,
    pub(super) shutdown: CancellationToken,
}

impl Worker {
    async fn run(&self) {
        while !self.shutdown.is_cancelled() {
            let pause = match self.work_once().await {
                Ok(true) => continue,
                Ok(false) => POLL_INTERVAL,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "failed to claim or process a refresh"
                    );
                    RETRY_DELAY
                }
            };
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = self.ctx.wake.notified() => {}
                () = tokio::time::sleep(self.ctx.poll_delay(pause)) => {}
            }
        }
    }

    /// Claims a refresh of its kind that is due and processes it; if none is due, runs a part of one
    /// that another process leads. `false` if there is nothing to do.
    async fn work_once(&self) -> Result<bool, LedgerError> {
        let ctx = &self.ctx;
        let of_warehouses = ctx.builders.of_warehouses(ctx.spec.load_full());
        let Some(filter) = self.kind.filter(&of_warehouses) else { return Ok(false) };
        let claimed = {
            let _claiming = ctx.builders.claiming().await;
            let (now, holder) = (ctx.clock.now(), &self.holder);
            let until = now.plus(LEASE);
            match ctx.ledger.claim_filtered_refresh(filter, holder, now, until).await? {
                // The spec has changed since the filter was made: a builder of the other kind claims it.
                Some(refresh)
                    if self.kind != BuilderKind::of(&ctx.spec.load(), &refresh.audience) =>
                {
                    return self.halt(&[refresh.id]).await.map(|()| true);
                }
                Some(refresh) => Some(siblings::claim(ctx, holder, refresh).await),
                None => None,
            }
        };
        match claimed {
            Some(claimed) => self.process_claimed(claimed).await.map(|()| true),
            None => self.help_once(filter).await,
        }
    }

    /// Processes what this worker has claimed, and records how it ended.
    pub(super) async fn process_claimed(&self, claimed: Claimed) -> Result<(), LedgerError> {
        match claimed {
            Claimed::One(refresh) => {
                let span = spans::refresh(refresh.id, &refresh.audience);
                self.process(refresh).instrument(span).await
            }
            Claimed::Several(members) => self.process_group(members).await,
        }
    }

    /// Runs a part of a refresh that another process leads. `false` if there is none, it failed, or it is the leader's.
    ///
    /// A part that fails is released and its error is only logged: the leader claims the part
    /// itself, gets the same error, and records it with the refresh. Were it recorded here as well,
    /// one cause would count as two failures.
    async fn help_once(&self, filter: ClaimFilter<'_>) -> Result<bool, LedgerError> {
        let ctx = &self.ctx;
        if !ctx.helps_others {
            return Ok(false);
        }
        let now = ctx.clock.now();
        let claim = execute::new_claim(&self.holder);
        let until = now.plus(LEASE);
        let claimed = ctx.ledger.claim_filtered_part(filter, &claim, now, until).await?;
        let Some((refresh, part)) = claimed else { return Ok(false) };
        let helping = AssertUnwindSafe(execute::help(ctx, refresh, &part)).catch_unwind();
        let helped = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            helped = helping => Some(helped.unwrap_or(Err(RefreshError::Panicked))),
            never = execute::renew_part_lease(ctx, &claim) => match never {},
        };
        if let Some(Ok(true)) = helped {
            metrics::counter!(metrics::REFRESH_PARTS_HELPED_TOTAL).increment(1);
            return Ok(true);
        }
        if let Some(Err(error)) = helped {
            tracing::debug!(
                %refresh,
                part = part.number,
                error = &error as &dyn std::error::Error,
                "failed to run a part, releasing it"
            );
        }
        // At once: nobody else could claim it until the lease expires, and the refresh would wait.
        ctx.ledger.release_part(refresh, part.number, &claim).await?;
        Ok(false)
    }

    /// Processes a refresh by itself.
    async fn process(&self, refresh: Refresh) -> Result<(), LedgerError> {
        let ctx = &self.ctx;
        let now = ctx.clock.now();
        ctx.observer.audiences_changed();
        let audience = declared(&ctx.spec.load(), &refresh.audience).cloned();
        let Some(audience) = audience else {
            let error = RefreshError::NotDeclared(refresh.audience.clone());
            return self.failed(&refresh, None, &error).await;
        };
        // A refresh that ends its process, by its memory for example, would do so in every process
        // that claims it.
        if refresh.crashes >= MAX_TRIES {
            let error = RefreshError::Crashed(refresh.crashes);
            return self.failed(&refresh, Some(&audience), &error).await;
        }
        let built = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {
                return self.halt(&[refresh.id]).await;
            }
            // A panic is a failure of this refresh: as a panic of the worker it would leave the
            // process with one worker less.
            built = AssertUnwindSafe(self.build(&audience, &refresh)).catch_unwind() => {
                built.unwrap_or(Err(RefreshError::Panicked))
            }
        };
        self.record(&audience, &refresh, built, now).await
    }

    /// Records how a refresh ended that began at `started`.
    pub(super) async fn record(
        &self,
        audience: &Audience,
        refresh: &Refresh,
        built: Result<Outcome, RefreshError>,
        started: Timestamp,
    ) -> Result<(), LedgerError> {
        let ctx = &self.ctx;
        let took = ctx.clock.now().since(started);
        let outcome = match built {
            Ok(Outcome::Unchanged(served)) => {
                unchanged::follow_up(ctx, &[(refresh, &served)]).await?;
                "unchanged"
            }
            Ok(Outcome::Recorded(outcome)) => {
                follow_up(ctx, &[Recorded { audience, refresh, outcome: &outcome }], true).await;
                outcome.name()
            }
            // Nothing is recorded: whoever holds the refresh now records how it ends.
            Err(error) if error.lease_lost() => "lost",
            Err(error @ RefreshError::Superseded) => {
                self.failed(refresh, Some(audience), &error).await?;
                "superseded"
            }
            Err(error) => {
                self.failed(refresh, Some(audience), &error).await?;
                "failed"
            }
        };
        count(outcome, took);
        Ok(())
    }

    /// Releases refreshes, so that the next builder resumes them at once. Without it they would wait
    /// until their leases expire. The process is about to end, so a call that fails is repeated here.
    /// Those that have ended, or that another builder holds, stay as they are.
    pub(super) async fn halt(&self, ids: &[RefreshId]) -> Result<(), LedgerError> {
        let ctx = &self.ctx;
        let mut tries = 1;
        loop {
            match ctx.ledger.halt_refreshes(ids, &self.holder, ctx.clock.now()).await {
                Ok(()) => return Ok(()),
                Err(error) if tries == MAX_HALT_TRIES => return Err(error),
                Err(error) => tracing::warn!(
                    refreshes = ids.len(),
                    error = &error as &dyn std::error::Error,
                    "failed to halt refreshes"
                ),
            }
            tries += 1;
            tokio::time::sleep(HALT_RETRY_DELAY).await;
        }
    }

    async fn build(&self, audience: &Audience, refresh: &Refresh) -> Result<Outcome, RefreshError> {
        let ctx = &self.ctx;
        let progress = execute::Progress::default();
        let reading = async { Ok(IdentifierInputs::read(ctx, &[audience]).await) };
        let identifiers = self.within_limits(audience, refresh, &progress, reading).await?;
        let finding = unchanged::find(ctx, audience, refresh, &identifiers);
        if let Some(served) = self.within_limits(audience, refresh, &progress, finding).await? {
            let now = ctx.clock.now();
            let (id, version) = (refresh.id, served.version);
            if ctx.ledger.confirm_unchanged(id, &self.holder, version, now).await? {
                return Ok(Outcome::Unchanged(Box::new(served)));
            }
            // A person has forced it meanwhile, or has made another version current.
        }
        let running = execute::run(ctx, audience, refresh, &self.holder, &progress);
        let mut output = self.within_limits(audience, refresh, &progress, running).await?;
        output.inputs = output.inputs.map(|inputs| identifiers.add_to(&audience.name, inputs));
        metrics::counter!(metrics::REFRESH_ROWS_TOTAL).increment(output.rows_read);
        // Outside of the time limit: if it ended between the ledger's update and its answer, the
        // snapshot would be published without a reload, an entry in the history or retention.
        let new = Publication { audience, refresh, output };
        let publishing = publish::publish(&self.ctx, &new, &self.holder);
        tokio::select! {
            outcome = publishing => outcome.map(|outcome| Outcome::Recorded(Box::new(outcome))),
            // The heartbeat continues, but its result is ignored. Publishing ends the lease, so a
            // heartbeat that comes later finds it lost although the snapshot is published; only the
            // answer of `publish` says whether it was lost before. A model that changes this late
            // gets its refresh from the schedule role.
            () = async {
                self.heartbeat(audience, refresh, &progress).await;
                std::future::pending().await
            } => Err(RefreshError::Panicked),
        }
    }

    /// Runs work of a refresh under its heartbeat and within the time limit.
    async fn within_limits<T>(
        &self,
        audience: &Audience,
        refresh: &Refresh,
        progress: &execute::Progress,
        work: impl Future<Output = Result<T, RefreshError>>,
    ) -> Result<T, RefreshError> {
        let limit = time_limit_secs(&self.ctx.spec.load(), audience);
        tokio::select! {
            done = work => done,
            stop = self.heartbeat(audience, refresh, progress) => Err(stop),
            () = tokio::time::sleep(Duration::from_secs(limit)) => {
                Err(RefreshError::Timeout(limit))
            }
        }
    }

    /// Renews the lease and reports progress. Returns only when the work is of no use: the lease is
    /// lost, or the audience's model is not the one that is being run.
    async fn heartbeat(
        &self,
        audience: &Audience,
        refresh: &Refresh,
        progress: &execute::Progress,
    ) -> RefreshError {
        let ctx = &self.ctx;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.ctx.poll_delay(HEARTBEAT_INTERVAL)) => {}
                () = ctx.cancelled.notified() => {}
            }
            match declared(&ctx.spec.load(), &audience.name) {
                None => return RefreshError::NotDeclared(audience.name.clone()),
                Some(current) if model_of(current) != model_of(audience) => {
                    return RefreshError::Superseded;
                }
                Some(_) => {}
            }
            let execute::RowCounts { read, null_keys, expected } = progress.counts();
            let until = ctx.clock.now().plus(LEASE);
            let renewed = ctx
                .ledger
                .record_refresh_progress(refresh.id, &self.holder, until, read, null_keys, expected)
                .await;
            match renewed {
                Ok(()) => ctx.observer.audiences_changed(),
                Err(lost @ LedgerError::LeaseLost { .. }) => return lost.into(),
                // Not the end: the lease lasts for many heartbeats, and a short failure of the
                // ledger must not stop a long query. If it expires, a later call finds it lost.
                Err(error) => tracing::warn!(
                    refresh = %refresh.id,
                    error = &error as &dyn std::error::Error,
                    "failed to renew the lease of a refresh"
                ),
            }
        }
    }

    /// Schedules another try of a refresh that failed, or ends it with an alert.
    pub(super) async fn failed(
        &self,
        refresh: &Refresh,
        audience: Option<&Audience>,
        error: &RefreshError,
    ) -> Result<(), LedgerError> {
        let ctx = &self.ctx;
        let (name, now) = (&refresh.audience, ctx.clock.now());
        ctx.observer.report_error(&format!("refresh of {name}"), error);
        let mut reason = error.describe();
        metrics::counter!(metrics::QUERY_FAILURES_TOTAL, "class" => error.class()).increment(1);
        if let (Some(audience), RefreshError::Lake(_) | RefreshError::Warehouse(_)) =
            (audience, error)
            && !error.is_outage()
        {
            let at = &audience.sql_at;
            reason.push_str(&format!("; the SQL starts at {}:{}", at.file.display(), at.line));
        }
        let spec = ctx.spec.load_full();
        let current = declared(&spec, name);
        let changed = match (audience, current) {
            (Some(tried), Some(current)) => {
                matches!(error, RefreshError::Superseded) || model_of(tried) != model_of(current)
            }
            _ => false,
        };
        // A changed model gets a refresh of its own; another try of the old one would be superseded
        // again.
        let limit = audience.map(|audience| time_limit_secs(&spec, audience));
        let retry_at = if changed { None } else { next_try(refresh, error, limit, now) };
        let ended = ctx.ledger.fail_refresh(refresh.id, &self.holder, &reason, retry_at, now).await;
        let tries = match ended {
            Ok(refresh) => refresh.failures,
            // It was cancelled, or another builder has it: then this failure is not its end.
            Err(LedgerError::LeaseLost { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(at) = retry_at {
            tracing::warn!(audience = %name, refresh = %refresh.id, tries, reason, "refresh failed, will retry");
            let why = format!("try {tries} of {}, the next at {at}: {reason}", max_tries(error));
            history::record(ctx, name, HistoryEvent::Failed, why).await?;
        } else if changed {
            cleanup::remove_parts(ctx, refresh.id).await;
            match ctx.ledger.schedule_refresh(name, RefreshTrigger::Apply, now).await {
                Ok(_) => {}
                // It is paused or pinned; resuming it queues the refresh.
                Err(error) if error.is_wrong_state() => {}
                Err(error) => return Err(error),
            }
            history::record(ctx, name, HistoryEvent::GivenUp, reason).await?;
        } else {
            tracing::error!(audience = %name, refresh = %refresh.id, tries, reason, "refresh failed");
            cleanup::remove_parts(ctx, refresh.id).await;
            // Not of an audience that the spec no longer has: no refresh would ever resolve the
            // alert.
            if current.is_some() {
                ctx.ledger.raise_alert(&alerts::failed_alert(name, &reason), now).await?;
            }
            history::record(ctx, name, HistoryEvent::Failed, format!("given up: {reason}")).await?;
        }
        ctx.observer.audiences_changed();
        Ok(())
    }
}

/// Counts a refresh that has ended.
pub(super) fn count(outcome: &'static str, took: Duration) {
    metrics::counter!(metrics::REFRESHES_TOTAL, "outcome" => outcome).increment(1);
    metrics::histogram!(metrics::REFRESH_SECONDS, "outcome" => outcome).record(took.as_secs_f64());
}

/// The longest time of a refresh, in seconds.
fn time_limit_secs(spec: &Spec, audience: &Audience) -> u64 {
    let source = audience.source.as_ref().and_then(|name| spec.warehouse(name.as_str()));
    source.map_or(spec.node.query_timeout_secs, WarehouseSource::timeout_secs).into()
}

/// The most tries of a refresh that fails with this error.
fn max_tries(error: &RefreshError) -> u32 {
    // Not while a quota is used up: its delay is long already.
    match error.is_outage() && error.retry() == Retry::Backoff {
        true => MAX_OUTAGE_TRIES,
        false => MAX_TRIES,
    }
}

/// When to try again after a failure; `None` if the refresh has failed for good. `limit`: the longest time of the refresh
/// in seconds, which tries during an outage do not exceed.
fn next_try(
    refresh: &Refresh,
    error: &RefreshError,
    limit: Option<u64>,
    now: Timestamp,
) -> Option<Timestamp> {
    let tries = refresh.failures.saturating_add(1);
    if tries >= max_tries(error) {
        return None;
    }
    let next = match error.retry() {
        Retry::Never => return None,
        // The number of the refresh spreads the tries of those that failed together, so that they
        // do not reach the source at the same time again.
        Retry::Backoff => now.plus(BACKOFF.delay(tries, refresh.id.0.unsigned_abs())),
        Retry::After(pause) => now.plus(pause),
    };
    let ends = refresh.started_at.zip(limit);
    let ends = ends.map(|(started, limit)| started.plus(Duration::from_secs(limit)));
    let is_too_late = tries >= MAX_TRIES && ends.is_some_and(|ends| next >= ends);
    (!is_too_late).then_some(next)
}

#[cfg(test)]
mod tests {
    use throng_model::RefreshId;
    use throng_store::{RefreshState, fixture};

    use super::*;
    use crate::warehouse::WarehouseError;

    fn refresh(failures: u32) -> Refresh {
        let processing = fixture::refresh(RefreshState::Processing, Timestamp(0));
        Refresh { id: RefreshId(7), started_at: Some(Timestamp(0)), failures, ..processing }
    }

    /// Tries until the refresh fails for good, and when the last one begins.
    fn tries(error: &RefreshError, limit: u64) -> (u32, Duration) {
        let (mut failures, mut now) = (0, Timestamp(0));
        while let Some(at) = next_try(&refresh(failures), error, Some(limit), now) {
            assert!(at > now);
            (failures, now) = (failures + 1, at);
        }
        (failures + 1, now.since(Timestamp(0)))
    }

    #[test]
    fn an_outage_of_minutes_does_not_end_a_refresh() {
        let unavailable = |after| {
            let message = "status 503".to_owned();
            RefreshError::Warehouse(WarehouseError::Unavailable { message, after })
        };
        let (count, time) = tries(&unavailable(None), 21_600);
        assert_eq!(count, MAX_OUTAGE_TRIES);
        assert!(time > Duration::from_secs(600), "{time:?}");
        // Within the time limit of the refresh.
        let (count, time) = tries(&unavailable(None), 120);
        assert!(count > MAX_TRIES && count < MAX_OUTAGE_TRIES, "{count}");
        assert!(time < Duration::from_secs(120), "{time:?}");
        let quota = unavailable(Some(Duration::from_secs(900)));
        assert_eq!(tries(&quota, 21_600).0, MAX_TRIES);
        assert_eq!(tries(&RefreshError::Panicked, 21_600).0, MAX_TRIES);
        let (message, help) = ("no such column".to_owned(), None);
        let refused = RefreshError::Warehouse(WarehouseError::Refused { message, help });
        assert_eq!(tries(&refused, 21_600).0, 1);
    }
}
