//! Refreshing a list of audiences until all have ended, for batch jobs: each pod has its share of
//! them.

use std::sync::Arc;

use futures::StreamExt;
use throng_model::{AudienceName, POLL_INTERVAL, RETRY_DELAY, RefreshId};
use throng_store::{LedgerError, Refresh, RefreshState, RefreshTrigger};
use tokio_util::sync::CancellationToken;

use super::builders::BuilderKind;
use super::error::is_outage;
use super::worker::Worker;
use super::{LEASE, siblings};
use crate::RefreshContext;

/// How the refresh of an audience ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshOutcome {
    /// The audience.
    pub audience: AudienceName,
    /// `Completed`, `Held` or `Failed`; `Halted` or earlier if this process was stopped.
    pub state: RefreshState,
    /// It is completed without a scan: model and files are those of the served version.
    pub unchanged: bool,
    /// It failed because its warehouse was not available: another refresh may succeed.
    pub is_outage: bool,
    /// Why it failed or is held.
    pub reason: Option<String>,
    /// Members of the new snapshot, or of the one that is unchanged.
    pub members: Option<u64>,
}

/// Queues a refresh of each audience and processes them until all have ended, `node.build_workers`
/// at a time, and besides them `node.warehouse_workers` whose SQL a warehouse runs; `ended` is called
/// for each. An audience that is paused or pinned counts as failed. A refresh that another process
/// has claimed is waited for. At `shutdown` the open refreshes are halted; whoever claims them next
/// resumes them. `force`: they scan even if nothing has changed.
///
/// # Errors
/// [`LedgerError`] if the refreshes cannot be queued.
pub async fn refresh_audiences(
    ctx: &Arc<RefreshContext>,
    audiences: &[AudienceName],
    force: bool,
    shutdown: &CancellationToken,
    ended: impl Fn(&RefreshOutcome),
) -> Result<Vec<RefreshOutcome>, LedgerError> {
    let (mut queued, mut outcomes) = (Vec::new(), Vec::new());
    // All are queued before one is processed: an error of the ledger ends the job before it has run
    // a query.
    for (number, name) in audiences.iter().enumerate() {
        let now = ctx.clock.now();
        let queueing = match force {
            true => ctx.ledger.force_refresh(name, RefreshTrigger::Manual, now).await,
            false => ctx.ledger.schedule_refresh(name, RefreshTrigger::Manual, now).await,
        };
        match queueing {
            Ok(id) => queued.push((number, name.clone(), id)),
            // One paused audience is a result and not an error: the others are refreshed.
            Err(error) if error.is_wrong_state() => {
                let (state, reason) = (RefreshState::Failed, Some(error.to_string()));
                let refused = RefreshOutcome {
                    audience: name.clone(),
                    state,
                    unchanged: false,
                    is_outage: false,
                    reason,
                    members: None,
                };
                ended(&refused);
                outcomes.push(refused);
            }
            Err(error) => return Err(error),
        }
    }
    let spec = ctx.spec.load_full();
    let (of_warehouses, of_lake): (Vec<_>, Vec<_>) = queued
        .into_iter()
        .partition(|(_, name, _)| BuilderKind::of(&spec, name) == BuilderKind::Warehouse);
    let ended = &ended;
    let process = |kind: BuilderKind, queued: Vec<(usize, AudienceName, RefreshId)>| {
        let refreshes = futures::stream::iter(queued).map(move |(number, name, id)| async move {
            // A holder for each refresh: a lease belongs to its holder, so one of two with the same
            // name could renew or end that of the other.
            let worker = Worker {
                ctx: Arc::clone(ctx),
                kind,
                holder: format!("{}/job-{number}", ctx.holder),
                shutdown: shutdown.clone(),
            };
            let outcome = worker.run_refresh(name, id).await;
            ended(&outcome);
            outcome
        });
        refreshes.buffer_unordered(kind.count(&spec.node) as usize)
    };
    let processed = futures::stream::select(
        process(BuilderKind::Lake, of_lake),
        process(BuilderKind::Warehouse, of_warehouses),
    );
    outcomes.extend(processed.collect::<Vec<RefreshOutcome>>().await);
    Ok(outcomes)
}

impl Worker {
    /// Claims and processes this refresh until it has ended, or until shutdown.
    async fn run_refresh(&self, audience: AudienceName, id: RefreshId) -> RefreshOutcome {
        loop {
            let pause = match self.try_refresh(&audience, id).await {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => POLL_INTERVAL,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "failed to claim or process a refresh"
                    );
                    RETRY_DELAY
                }
            };
            tokio::select! {
                () = self.shutdown.cancelled() => {
                    let reason = Some("the process was stopped".to_owned());
                    let state = RefreshState::Halted;
                    let (unchanged, is_outage, members) = (false, false, None);
                    return RefreshOutcome {
                        audience,
                        state,
                        unchanged,
                        is_outage,
                        reason,
                        members,
                    };
                }
                () = tokio::time::sleep(self.ctx.poll_delay(pause)) => {}
            }
        }
    }

    /// Processes the refresh if it can be claimed; `None` if it has not ended.
    async fn try_refresh(
        &self,
        audience: &AudienceName,
        id: RefreshId,
    ) -> Result<Option<RefreshOutcome>, LedgerError> {
        let ctx = &self.ctx;
        // Nothing is claimed after the signal; a claim that came just before it is halted by
        // `process`.
        if !self.shutdown.is_cancelled() {
            let claimed = {
                let _claiming = ctx.builders.claiming().await;
                let (now, holder) = (ctx.clock.now(), &self.holder);
                let until = now.plus(LEASE);
                match ctx.ledger.claim_refresh_of(audience, holder, now, until).await? {
                    Some(refresh) => Some(siblings::claim(ctx, holder, refresh).await),
                    None => None,
                }
            };
            if let Some(claimed) = claimed {
                self.process_claimed(claimed).await?;
            }
        }
        // Read in any case: another process may have claimed the refresh, and its end is the result
        // too.
        let refresh = ctx.ledger.refresh(id).await?;
        let has_ended = matches!(
            refresh.state,
            RefreshState::Completed | RefreshState::Failed | RefreshState::Held
        );
        if !has_ended {
            return Ok(None);
        }
        let members = match refresh.snapshot_version {
            Some(version) => {
                ctx.ledger.snapshot(audience, version).await.ok().map(|snapshot| snapshot.members)
            }
            None => None,
        };
        let Refresh { state, unchanged, reason, .. } = refresh;
        let audience = audience.clone();
        let is_outage = state == RefreshState::Failed && reason.as_deref().is_some_and(is_outage);
        Ok(Some(RefreshOutcome { audience, state, unchanged, is_outage, reason, members }))
    }
}
