//! Refreshes of one template that a worker processes together: those that are unchanged are completed
//! without a scan, the others are built in one scan, and each is published by itself.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use throng_model::{Retry, Timestamp};
use throng_spec::Audience;
use throng_store::{LedgerError, Snapshot};
use throng_telemetry::metrics;

use super::error::RefreshError;
use super::execute::BuildOutput;
use super::identifier_inputs::IdentifierInputs;
use super::shared;
use super::siblings::{self, Member};
use super::worker::{Outcome, Worker};
use super::{declared, execute, membership, model_of, publish, unchanged};

/// How often the leases of refreshes that are built together are renewed; each needs a call of the ledger.
const GROUP_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(4);
/// Refreshes that were built together and are published at the same time: most of it is waiting for the disk.
const PUBLISHED_AT_ONCE: usize = 8;

impl Worker {
    /// Processes refreshes of one template together, and records how each ended.
    pub(super) async fn process_group(&self, group: Vec<Member>) -> Result<(), LedgerError> {
        let audiences: Vec<&Audience> = group.iter().map(|member| &member.audience).collect();
        let reading = IdentifierInputs::read(&self.ctx, &audiences);
        let ended: Vec<AtomicBool> = group.iter().map(|_| AtomicBool::new(false)).collect();
        let progress = execute::Progress::default();
        let identifiers = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return self.halt_all(&group).await,
            identifiers = reading => identifiers,
            never = self.renew_all(&group, &ended, &progress) => match never {},
        };
        let group = self.complete_unchanged(group, &identifiers).await?;
        if group.is_empty() {
            return Ok(());
        }
        self.build_group(&group, &identifiers).await
    }

    /// Completes those refreshes whose model and files are those of the served version, and returns the
    /// others. At shutdown all are halted, and none is returned.
    async fn complete_unchanged(
        &self,
        group: Vec<Member>,
        identifiers: &IdentifierInputs,
    ) -> Result<Vec<Member>, LedgerError> {
        let (started, progress) = (self.ctx.clock.now(), execute::Progress::default());
        let ended: Vec<AtomicBool> = group.iter().map(|_| AtomicBool::new(false)).collect();
        let finding =
            AssertUnwindSafe(unchanged::find_among(&self.ctx, &group, identifiers)).catch_unwind();
        let found = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {
                return self.halt_all(&group).await.map(|()| Vec::new());
            }
            found = finding => found.unwrap_or(Err(RefreshError::Panicked)),
            never = self.renew_all(&group, &ended, &progress) => match never {},
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to find unchanged refreshes of a template, building all of them"
                );
                return Ok(group);
            }
        };
        let completing = async {
            let unchanged = found.into_iter().enumerate();
            let unchanged = unchanged.filter_map(|(at, served)| Some((at, served?)));
            let complete = |(at, served)| self.complete_member(&group, at, served, &ended, started);
            let completed = futures::stream::iter(unchanged).map(complete);
            completed.buffer_unordered(PUBLISHED_AT_ONCE).try_collect::<Vec<()>>().await
        };
        tokio::select! {
            completed = completing => completed?,
            never = self.renew_all(&group, &ended, &progress) => match never {},
        };
        let rest = group.into_iter().zip(ended).filter(|(_, ended)| !ended.load(Ordering::Relaxed));
        Ok(rest.map(|(member, _)| member).collect())
    }

    /// Completes a refresh that would make the served version again.
    async fn complete_member(
        &self,
        group: &[Member],
        at: usize,
        served: Snapshot,
        ended: &[AtomicBool],
        started: Timestamp,
    ) -> Result<(), LedgerError> {
        let (Some(member), Some(ended)) = (group.get(at), ended.get(at)) else { return Ok(()) };
        let Member { audience, refresh } = member;
        let spec = self.ctx.spec.load_full();
        let is_current =
            declared(&spec, &audience.name).is_some_and(|now| model_of(now) == model_of(audience));
        // It is left to the build, which halts it or finds it superseded.
        if self.shutdown.is_cancelled() || !is_current {
            return Ok(());
        }
        let (id, version, now) = (refresh.id, served.version, self.ctx.clock.now());
        let confirming = self.ctx.ledger.confirm_unchanged(id, &self.holder, version, now);
        let completed = match confirming.await {
            Ok(true) => Ok(Outcome::Unchanged(Box::new(served))),
            // A person has forced it meanwhile, or has made another version current.
            Ok(false) => return Ok(()),
            Err(error) => Err(error.into()),
        };
        ended.store(true, Ordering::Relaxed);
        self.record(audience, refresh, completed, started, false).await
    }

    /// Builds refreshes in one scan, and publishes each by itself.
    async fn build_group(
        &self,
        group: &[Member],
        identifiers: &IdentifierInputs,
    ) -> Result<(), LedgerError> {
        let ctx = &self.ctx;
        let (started, progress) = (ctx.clock.now(), execute::Progress::default());
        let ended: Vec<AtomicBool> = group.iter().map(|_| AtomicBool::new(false)).collect();
        tracing::info!(refreshes = group.len(), "building the audiences of a template in one scan");
        ctx.observer.audiences_changed();
        let limit = u64::from(ctx.spec.load().node.query_timeout_secs);
        let building = AssertUnwindSafe(shared::build(ctx, group, &progress)).catch_unwind();
        let built = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return self.halt_all(group).await,
            built = building => built.unwrap_or(Err(RefreshError::Panicked)),
            never = self.renew_all(group, &ended, &progress) => match never {},
            () = tokio::time::sleep(Duration::from_secs(limit)) => Err(RefreshError::Timeout(limit)),
        };
        let built = match built {
            Ok(Some(built)) => built,
            Ok(None) => return self.divide(group).await,
            // It may be the error of one of them, such as a column that had another type in its served version. No
            // other try of the group would end differently.
            Err(error) if matches!(error.retry(), Retry::Never) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to build the audiences of a template in one scan, building each alone"
                );
                return self.divide(group).await;
            }
            Err(error) => {
                return tokio::select! {
                    failed = self.fail_all(group, &error, &ended) => failed,
                    never = self.renew_all(group, &ended, &progress) => match never {},
                };
            }
        };
        metrics::counter!(metrics::REFRESH_ROWS_TOTAL).increment(built.rows_read());
        let output = |at: usize, member: &Member| {
            let mut output = built.output(at, member);
            let name = &member.audience.name;
            output.inputs = output.inputs.map(|inputs| identifiers.add_to(name, inputs));
            output
        };
        let publish_one = |at: usize| self.publish_member(group, at, &output, &ended, started);
        let publishing = async {
            let all = futures::stream::iter(0..group.len()).map(publish_one);
            all.buffer_unordered(PUBLISHED_AT_ONCE).try_collect::<Vec<()>>().await
        };
        let published = tokio::select! {
            published = publishing => published.map(|_| ()),
            never = self.renew_all(group, &ended, &progress) => match never {},
        };
        if ctx.serves_membership
            && let Err(error) = membership::reload_membership(ctx).await
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to load the published snapshots of a template"
            );
        }
        ctx.observer.audiences_changed();
        published
    }

    /// Publishes one of the refreshes that were built together.
    async fn publish_member(
        &self,
        group: &[Member],
        at: usize,
        output: &(impl Fn(usize, &Member) -> BuildOutput + Sync),
        ended: &[AtomicBool],
        started: Timestamp,
    ) -> Result<(), LedgerError> {
        let (Some(member), Some(ended)) = (group.get(at), ended.get(at)) else { return Ok(()) };
        let Member { audience, refresh } = member;
        if self.shutdown.is_cancelled() {
            return self.halt(refresh).await;
        }
        let spec = self.ctx.spec.load_full();
        let published = match declared(&spec, &audience.name) {
            None => Err(RefreshError::NotDeclared(audience.name.clone())),
            Some(current) if model_of(current) != model_of(audience) => {
                Err(RefreshError::Superseded)
            }
            Some(current) => {
                let output = output(at, member);
                let publishing =
                    publish::publish(&self.ctx, current, refresh, &self.holder, output);
                let published = AssertUnwindSafe(publishing).catch_unwind().await;
                let published = published.unwrap_or(Err(RefreshError::Panicked));
                published.map(|outcome| Outcome::Recorded(Box::new(outcome)))
            }
        };
        ended.store(true, Ordering::Relaxed);
        self.record(audience, refresh, published, started, false).await
    }

    /// Leaves refreshes to builds of their own.
    async fn divide(&self, group: &[Member]) -> Result<(), LedgerError> {
        if let Some(first) = group.first() {
            siblings::build_alone(&self.ctx, &first.audience);
        }
        self.halt_all(group).await
    }

    /// Records the failure of a build with each of its refreshes. Each is tried again alone.
    async fn fail_all(
        &self,
        group: &[Member],
        error: &RefreshError,
        ended: &[AtomicBool],
    ) -> Result<(), LedgerError> {
        for (Member { audience, refresh }, ended) in group.iter().zip(ended) {
            self.failed(refresh, Some(audience), error).await?;
            ended.store(true, Ordering::Relaxed);
            metrics::counter!(metrics::REFRESHES_TOTAL, "outcome" => "failed").increment(1);
        }
        Ok(())
    }

    async fn halt_all(&self, group: &[Member]) -> Result<(), LedgerError> {
        let halt = |at: usize| async move {
            match group.get(at) {
                Some(member) => self.halt(&member.refresh).await,
                None => Ok(()),
            }
        };
        // Several at a time: at shutdown there is little time.
        let halted = futures::stream::iter(0..group.len()).map(halt);
        halted.buffer_unordered(PUBLISHED_AT_ONCE).try_collect::<Vec<()>>().await.map(|_| ())
    }

    /// Renews the leases of all refreshes that have not ended. Never returns: one that was lost is found by its
    /// publishing.
    async fn renew_all(
        &self,
        group: &[Member],
        ended: &[AtomicBool],
        progress: &execute::Progress,
    ) -> Infallible {
        let (ctx, lease) = (&self.ctx, siblings::lease(group.len()));
        loop {
            tokio::time::sleep(ctx.poll_delay(GROUP_HEARTBEAT_INTERVAL)).await;
            let execute::RowCounts { read, null_keys, expected } = progress.counts();
            for (member, ended) in group.iter().zip(ended) {
                if ended.load(Ordering::Relaxed) {
                    continue;
                }
                let (id, until) = (member.refresh.id, ctx.clock.now().plus(lease));
                let renewed = ctx
                    .ledger
                    .record_refresh_progress(id, &self.holder, until, read, null_keys, expected)
                    .await;
                if let Err(error) = renewed {
                    tracing::debug!(
                        refresh = %id,
                        error = &error as &dyn std::error::Error,
                        "failed to renew the lease of a refresh of a template"
                    );
                }
            }
            ctx.observer.audiences_changed();
        }
    }
}
