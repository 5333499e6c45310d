//! Refreshes of one template that a worker processes together: those that are unchanged are completed
//! without a scan, the others are built in one scan. Many are published at a time, and each ends by itself.

use std::convert::Infallible;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use throng_model::{RefreshId, Retry, Timestamp};
use throng_spec::Audience;
use throng_store::{LedgerError, Snapshot};
use throng_telemetry::metrics;

use super::error::RefreshError;
use super::execute::BuildOutput;
use super::follow_up::{Recorded, follow_up};
use super::identifier_inputs::IdentifierInputs;
use super::publish::{self, Publication};
use super::siblings::{self, Member};
use super::worker::{Worker, count};
use super::{LEASE, declared_by_name, execute, membership, model_of, shared, unchanged};

/// How often the leases of refreshes that are built together are renewed: a write of up to 5,000 rows.
const GROUP_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// Refreshes that are published by one transaction of the ledger, at most.
const PUBLISHED_TOGETHER: usize = 128;
/// Bytes of the bitmaps of refreshes that are published together, at most, unless one has more: they are in memory.
const MAX_BITMAP_BYTES: u64 = 32 << 20;
/// Such ranges at the same time: the files of some are written while the ledger records another.
const RANGES_AT_ONCE: usize = 3;
/// Failures that are recorded at the same time.
const FAILURES_AT_ONCE: usize = 8;

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
        let completing = self.complete_all(&group, found, &ended, started);
        tokio::select! {
            completed = completing => completed?,
            never = self.renew_all(&group, &ended, &progress) => match never {},
        };
        let rest = group.into_iter().zip(ended).filter(|(_, ended)| !ended.load(Ordering::Relaxed));
        Ok(rest.map(|(member, _)| member).collect())
    }

    /// Completes the refreshes that would make the served versions again.
    async fn complete_all(
        &self,
        group: &[Member],
        found: Vec<Option<Snapshot>>,
        ended: &[AtomicBool],
        started: Timestamp,
    ) -> Result<(), LedgerError> {
        let (ctx, spec) = (&self.ctx, self.ctx.spec.load_full());
        let declared = declared_by_name(&spec);
        let is_current = |audience: &Audience| {
            let now = declared.get(&audience.name);
            now.is_some_and(|now| model_of(now) == model_of(audience))
        };
        let found = group.iter().zip(ended).zip(found);
        let unchanged =
            found.filter_map(|((member, ended), served)| Some((member, ended, served?)));
        // The others are left to the build, which finds them superseded.
        let unchanged: Vec<(&Member, &AtomicBool, Snapshot)> =
            unchanged.filter(|(member, ..)| is_current(&member.audience)).collect();
        for unchanged in unchanged.chunks(PUBLISHED_TOGETHER) {
            // Left to the build too, which halts them.
            if self.shutdown.is_cancelled() {
                return Ok(());
            }
            let version =
                |(member, _, served): &(&Member, _, Snapshot)| (member.refresh.id, served.version);
            let (ids, now): (Vec<_>, _) =
                (unchanged.iter().map(version).collect(), ctx.clock.now());
            let confirming = ctx.ledger.confirm_unchanged_refreshes(&ids, &self.holder, now);
            let results = match confirming.await {
                Ok(results) => results,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to complete unchanged refreshes of a template, building them"
                    );
                    return Ok(());
                }
            };
            let (mut completed, mut recorded) = (Vec::with_capacity(unchanged.len()), Ok(()));
            for ((Member { audience, refresh }, ended, served), result) in
                unchanged.iter().zip(results)
            {
                match result {
                    Ok(true) => completed.push((refresh, served)),
                    // A person has forced it meanwhile, or has made another version current.
                    Ok(false) => continue,
                    Err(error) => {
                        let failure = self.record(audience, refresh, Err(error.into()), started);
                        recorded = recorded.and(failure.await);
                    }
                }
                ended.store(true, Ordering::Relaxed);
            }
            let took = ctx.clock.now().since(started);
            // They are completed: an error of what follows must not keep the others from their build.
            if let Err(error) = unchanged::follow_up(ctx, &completed).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to record unchanged refreshes of a template in the history"
                );
            }
            completed.iter().for_each(|_| count("unchanged", took));
            recorded?;
        }
        Ok(())
    }

    /// Builds refreshes in one scan, and publishes each as a version of its own.
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
        let sizes: Vec<u64> = (0..group.len()).map(|at| built.bytes(at)).collect();
        let publishing = self.publish_group(group, &sizes, &output, &ended, started);
        let published = tokio::select! {
            published = publishing => published,
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

    /// Publishes refreshes that were built together, and records how each ended. Those that are not tried, at shutdown or
    /// after an error, are halted.
    async fn publish_group(
        &self,
        group: &[Member],
        sizes: &[u64],
        output: &(impl Fn(usize, &Member) -> BuildOutput + Sync),
        ended: &[AtomicBool],
        started: Timestamp,
    ) -> Result<(), LedgerError> {
        let has_failed = &AtomicBool::new(false);
        let publish = |range: Range<usize>| async move {
            if self.shutdown.is_cancelled() || has_failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let published = self.publish_members(group, range, output, ended, started).await;
            has_failed.fetch_or(published.is_err(), Ordering::Relaxed);
            published
        };
        // A range that runs is not dropped for the error of another: its snapshots may be in the ledger by now, and
        // what follows for them would be lost.
        let ranges = futures::stream::iter(published_together(sizes)).map(publish);
        let results: Vec<Result<(), LedgerError>> =
            ranges.buffer_unordered(RANGES_AT_ONCE).collect().await;
        let published: Result<(), LedgerError> = results.into_iter().collect();
        let open = open_refreshes(group, ended);
        let halted = if open.is_empty() { Ok(()) } else { self.halt(&open).await };
        published.and(halted)
    }

    /// Publishes some of the refreshes that were built together, and records how each ended; those that are not tried are
    /// left open.
    async fn publish_members(
        &self,
        group: &[Member],
        range: Range<usize>,
        output: &(impl Fn(usize, &Member) -> BuildOutput + Sync),
        ended: &[AtomicBool],
        started: Timestamp,
    ) -> Result<(), LedgerError> {
        let members = group.get(range.clone()).unwrap_or_default();
        let ended = ended.get(range.clone()).unwrap_or_default();
        let spec = self.ctx.spec.load_full();
        let declared = declared_by_name(&spec);
        let (mut new, mut publishing, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for ((at, member), ended) in range.zip(members).zip(ended) {
            let Member { audience, refresh } = member;
            match declared.get(&audience.name).copied() {
                None => {
                    failed.push((member, ended, RefreshError::NotDeclared(audience.name.clone())));
                }
                Some(current) if model_of(current) != model_of(audience) => {
                    failed.push((member, ended, RefreshError::Superseded));
                }
                Some(audience) => {
                    publishing.push((member, ended));
                    new.push(Publication { audience, refresh, output: output(at, member) });
                }
            }
        }
        let publish_all = publish::publish_all(&self.ctx, &new, &self.holder, &self.shutdown);
        let results = match AssertUnwindSafe(publish_all).catch_unwind().await {
            Ok(results) => results,
            Err(_) => new.iter().map(|_| Some(Err(RefreshError::Panicked))).collect(),
        };
        let mut published = Vec::with_capacity(new.len());
        for ((new, (member, ended)), result) in new.iter().zip(publishing).zip(results) {
            match result {
                Some(Ok(outcome)) => {
                    ended.store(true, Ordering::Relaxed);
                    published.push((new.audience, new.refresh, outcome));
                }
                Some(Err(error)) => failed.push((member, ended, error)),
                None => {}
            }
        }
        // Before what follows for the others, which takes long: the leases of these must not expire until then.
        let recording: Vec<_> = failed
            .into_iter()
            .map(|(member, ended, error)| self.record_failure(member, ended, error, started))
            .collect();
        let failures: Vec<Result<(), LedgerError>> =
            futures::stream::iter(recording).buffer_unordered(FAILURES_AT_ONCE).collect().await;
        let recorded: Vec<Recorded<'_>> = published
            .iter()
            .map(|(audience, refresh, outcome)| Recorded { audience, refresh, outcome })
            .collect();
        let took = self.ctx.clock.now().since(started);
        // Lookups get the snapshots of all members at the end.
        follow_up(&self.ctx, &recorded, false).await;
        published.iter().for_each(|(.., outcome)| count(outcome.name(), took));
        failures.into_iter().collect()
    }

    /// Records the failure of one of several refreshes.
    async fn record_failure(
        &self,
        Member { audience, refresh }: &Member,
        ended: &AtomicBool,
        error: RefreshError,
        started: Timestamp,
    ) -> Result<(), LedgerError> {
        let recorded = self.record(audience, refresh, Err(error), started).await;
        // Also if it could not be recorded: when its lease expires, the try counts as a crash, and is not repeated forever.
        ended.store(true, Ordering::Relaxed);
        recorded
    }

    /// Leaves refreshes to builds of their own.
    async fn divide(&self, group: &[Member]) -> Result<(), LedgerError> {
        if let Some(first) = group.first() {
            siblings::build_alone(&self.ctx, &first.audience);
        }
        self.halt_all(group).await
    }

    /// Records the failure of a build with each of its refreshes. They are tried again together, and then each alone.
    async fn fail_all(
        &self,
        group: &[Member],
        error: &RefreshError,
        ended: &[AtomicBool],
    ) -> Result<(), LedgerError> {
        let mut recorded_all = Ok(());
        for (Member { audience, refresh }, ended) in group.iter().zip(ended) {
            let recorded = self.failed(refresh, Some(audience), error).await;
            if recorded.is_ok() {
                ended.store(true, Ordering::Relaxed);
                metrics::counter!(metrics::REFRESHES_TOTAL, "outcome" => "failed").increment(1);
            }
            recorded_all = recorded_all.and(recorded);
        }
        recorded_all
    }

    async fn halt_all(&self, group: &[Member]) -> Result<(), LedgerError> {
        let ids: Vec<RefreshId> = group.iter().map(|member| member.refresh.id).collect();
        self.halt(&ids).await
    }

    /// Renews the leases of all refreshes that have not ended. Never returns: one that was lost is found by its
    /// publishing.
    async fn renew_all(
        &self,
        group: &[Member],
        ended: &[AtomicBool],
        progress: &execute::Progress,
    ) -> Infallible {
        let ctx = &self.ctx;
        loop {
            tokio::time::sleep(ctx.poll_delay(GROUP_HEARTBEAT_INTERVAL)).await;
            let execute::RowCounts { read, null_keys, expected } = progress.counts();
            let ids = open_refreshes(group, ended);
            let until = ctx.clock.now().plus(LEASE);
            let renewed = ctx
                .ledger
                .record_group_progress(&ids, &self.holder, until, read, null_keys, expected)
                .await;
            // Not the end, as of a refresh by itself: the leases last for several renewals.
            if let Err(error) = renewed {
                tracing::warn!(
                    refreshes = ids.len(),
                    error = &error as &dyn std::error::Error,
                    "failed to renew the leases of the refreshes of a template"
                );
            }
            ctx.observer.audiences_changed();
        }
    }
}

/// The refreshes that have not ended.
fn open_refreshes(group: &[Member], ended: &[AtomicBool]) -> Vec<RefreshId> {
    let open = group.iter().zip(ended).filter(|(_, ended)| !ended.load(Ordering::Relaxed));
    open.map(|(member, _)| member.refresh.id).collect()
}

/// The ranges of members that are published together, by the bytes of the bitmaps of each.
fn published_together(sizes: &[u64]) -> Vec<Range<usize>> {
    let (mut ranges, mut start, mut bytes) = (Vec::new(), 0, 0_u64);
    for (at, size) in sizes.iter().enumerate() {
        let with_this = bytes.saturating_add(*size);
        let is_full = at - start >= PUBLISHED_TOGETHER || with_this > MAX_BITMAP_BYTES;
        if is_full && at > start {
            ranges.push(start..at);
            (start, bytes) = (at, *size);
        } else {
            bytes = with_this;
        }
    }
    if start < sizes.len() {
        ranges.push(start..sizes.len());
    }
    ranges
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use throng_store::RefreshState;

    use super::*;
    use crate::builders::BuilderKind;
    use crate::fixture::{HOLDER, Rig};

    #[tokio::test]
    async fn at_shutdown_ranges_that_run_are_published_and_the_others_are_halted() {
        let rig = Rig::new(&["a", "b", "c", "d", "e"]).await;
        let (ctx, holder) = (Arc::clone(&rig.ctx), HOLDER.to_owned());
        let (kind, shutdown) = (BuilderKind::Lake, rig.recorded.clone());
        let worker = Worker { ctx, kind, holder, shutdown };
        let ended: Vec<AtomicBool> = rig.members.iter().map(|_| AtomicBool::new(false)).collect();
        let output = |_: usize, member: &Member| rig.output(member);
        // Each is a range.
        let sizes = [MAX_BITMAP_BYTES; 5];
        let publishing = worker.publish_group(&rig.members, &sizes, &output, &ended, Timestamp(0));
        publishing.await.unwrap();
        let mut states = Vec::new();
        for member in &rig.members {
            let refresh = rig.ctx.ledger.refresh(member.refresh.id).await.unwrap();
            states.push((refresh.state, refresh.crashes));
        }
        let (published, halted) = states.split_at(RANGES_AT_ONCE);
        assert!(published.iter().all(|it| *it == (RefreshState::Completed, 0)), "{states:?}");
        assert!(halted.iter().all(|it| *it == (RefreshState::Halted, 0)), "{states:?}");
        let (files, named) = rig.snapshot_files().await;
        assert_eq!((files.len(), files), (RANGES_AT_ONCE, named));
    }

    #[test]
    fn what_is_published_together_is_limited_in_number_and_bytes() {
        assert!(published_together(&[]).is_empty());
        let small = vec![1; 2 * PUBLISHED_TOGETHER + 3];
        let (first, second) = (PUBLISHED_TOGETHER, 2 * PUBLISHED_TOGETHER);
        assert_eq!(published_together(&small), [0..first, first..second, second..second + 3]);
        // One that is larger than the limit is published by itself.
        let sizes = [MAX_BITMAP_BYTES / 2, MAX_BITMAP_BYTES / 2, 1, u64::MAX, 1, 0];
        assert_eq!(published_together(&sizes), [0..2, 2..3, 3..4, 4..6]);
    }
}
