//! Applying a spec: at start and while the node runs.

mod error;
mod stored;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use throng_aggregator::Budgets;
use throng_gate::Gate;
use throng_lake::{Lake, WorkerCommand};
use throng_model::{AdGroupIndex, AdGroupName, AudienceName, Clock, SyncName, Timestamp};
use throng_spec::{Action, ObjectKind, Plan, Spec, SpecFiles, SpecOrigin};
use throng_store::{HistoryEntry, Ledger, RefreshTrigger, SubjectKind};
use tokio::sync::{Notify, broadcast};

use crate::changes::{self, Change};
use crate::gate::GateSink;
use crate::lake::open_lake;
use crate::limits::NodeLimits;
use crate::running_spec::RunningSpec;
use crate::{CheckError, CheckedModel};

pub use error::ApplyError;
pub(crate) use error::Refusal;
pub(crate) use stored::{LoadedSpec, WrittenSpec, load_applied, load_previous, store};

/// Audiences whose members may differ from their last snapshot: new ones, and those whose SQL or
/// key changed.
fn outdated(plan: &Plan) -> impl Iterator<Item = &str> {
    plan.changes.iter().filter(|c| c.kind == ObjectKind::Audience).filter_map(|change| {
        let is_outdated = match &change.action {
            Action::Added => true,
            Action::Changed(fields) => fields.iter().any(|f| f.field == "sql" || f.field == "key"),
            Action::Removed => false,
        };
        is_outdated.then_some(change.name.as_str())
    })
}

/// History entries of the syncs that were removed, and of those whose removal was cancelled.
fn removal_entries(
    applied: &WrittenSpec,
    actor: Option<&str>,
    now: Timestamp,
) -> Vec<HistoryEntry> {
    let entry = |sync: &SyncName, what: &str, why: String| HistoryEntry {
        subject_kind: SubjectKind::Sync,
        subject: sync.to_string(),
        what: what.to_owned(),
        why,
        at: now,
        actor: actor.map(str::to_owned),
    };
    let version = applied.version;
    let removed = applied.removed.iter().map(|(sync, what)| {
        entry(sync, "removed", format!("version {version} of the spec does not have it: {what}"))
    });
    let cancelled = applied.cancelled.iter().map(|sync| {
        let why = format!("version {version} of the spec has it again; its audience stays");
        entry(sync, "removal_cancelled", why)
    });
    removed.chain(cancelled).collect()
}

/// A spec that was sent and could be applied.
pub(crate) struct Planned {
    spec: Spec,
    lake: Arc<Lake>,
    /// The version that is applied now; 0 if there is none.
    pub(crate) version: u64,
    /// What would change.
    pub(crate) plan: Plan,
    /// The models of its audiences.
    pub(crate) models: Vec<CheckedModel>,
}

/// Applies specs to this process: what has to change together when another spec is applied.
pub(crate) struct SpecApplier {
    /// Has the applied spec.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Queries have their temporary files below it.
    pub(crate) data_dir: PathBuf,
    /// How query workers are started.
    pub(crate) query_worker: WorkerCommand,
    /// What specs that arrive over HTTP may name.
    pub(crate) limits: Arc<NodeLimits>,
    /// The spec of this process.
    pub(crate) running: Arc<RunningSpec>,
    /// SQL over its sources.
    pub(crate) lake: Arc<ArcSwap<Lake>>,
    /// Spend under its prices.
    pub(crate) budgets: Arc<Budgets>,
    /// Decisions about its ad groups.
    pub(crate) gate: Arc<Gate>,
    /// Wakes builders.
    pub(crate) wake_build: Arc<Notify>,
    /// Wakes workers of syncs.
    pub(crate) wake_activate: Arc<Notify>,
    /// Publishes the change.
    pub(crate) changes: broadcast::Sender<Change>,
}

impl SpecApplier {
    /// Schedules the refreshes that a newly applied spec requires, and records it in the history.
    pub(crate) async fn queue_refreshes(
        &self,
        applied: &WrittenSpec,
        actor: Option<&str>,
    ) -> Result<(), ApplyError> {
        let now = self.clock.now();
        let known = self.ledger.audiences().await?;
        let never_built: Vec<AudienceName> = self
            .running
            .load()
            .audiences
            .iter()
            .filter(|a| !known.iter().any(|k| k.name == a.name))
            .map(|a| a.name.clone())
            .collect();
        let changed = outdated(&applied.plan).filter_map(|name| AudienceName::new(name).ok());
        for name in never_built.into_iter().chain(changed) {
            match self.ledger.schedule_refresh(&name, RefreshTrigger::Apply, now).await {
                Ok(_) => {}
                // The audience is paused; resuming it refreshes it.
                Err(error) if error.is_wrong_state() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !applied.plan.changes.is_empty() {
            let (version, changes) = (applied.version, applied.plan.changes.len());
            let entry = HistoryEntry {
                subject_kind: SubjectKind::Spec,
                subject: "spec".to_owned(),
                what: "applied".to_owned(),
                why: format!("version {version} with {changes} changes"),
                at: now,
                actor: actor.map(str::to_owned),
            };
            self.ledger.record_history(&[entry]).await?;
        }
        Ok(self.ledger.record_history(&removal_entries(applied, actor, now)).await?)
    }

    /// Checks a spec that was sent, as `throng check` does and against this node's limits, and
    /// compares it with the applied spec.
    pub(crate) async fn plan_sent(&self, files: SpecFiles) -> Result<Planned, Refusal> {
        let running = self.running.load();
        let access = SpecOrigin::Limited {
            limits: self.limits.now(),
            running: Box::new(running.node.clone()),
        };
        // Checking a large spec blocks its thread.
        let checked = tokio::task::spawn_blocking(move || throng_spec::check(files, access));
        let spec = match checked.await {
            Ok(checked) => checked.map_err(Refusal::Problems)?,
            Err(panicked) => {
                let source = std::io::Error::other(panicked);
                return Err(Refusal::Failed(ApplyError::io("check", "the spec")(source)));
            }
        };
        // The lake caches the columns of the tables; a new one is needed only for other sources.
        let lake = match spec.sources == running.sources {
            true => self.lake.load_full(),
            false => Arc::new(open_lake(&self.data_dir, &spec, &self.query_worker)?),
        };
        let models = match crate::check_sql(&lake, &spec).await {
            Ok(models) => models,
            Err(CheckError::Problems(problems)) => return Err(Refusal::Problems(problems)),
            Err(CheckError::Worker(error)) => return Err(Refusal::Failed(error.into())),
        };
        let (plan, version) = stored::plan(&*self.ledger, &spec).await?;
        Ok(Planned { spec, lake, version, plan, models })
    }

    /// Checks the files of a spec and applies it to the running node, for the caller of this name;
    /// with a `base`, only over that version. Returns the new version and what changed.
    ///
    /// # Errors
    /// [`Refusal`]; the node keeps its spec, or, if the new one is in the ledger, runs that one.
    pub(crate) async fn apply_sent(
        self: &Arc<Self>,
        files: SpecFiles,
        base: Option<u64>,
        actor: &str,
    ) -> Result<(u64, Plan), Refusal> {
        let planned = self.plan_sent(files).await?;
        let (applier, actor) = (Arc::clone(self), actor.to_owned());
        // In a separate task, so that it ends also if the client disconnects: after the write to the
        // ledger this process must switch to the new spec.
        let applying =
            tokio::spawn(async move { applier.apply_planned(planned, base, &actor).await });
        match applying.await {
            Ok(applied) => applied,
            Err(panicked) => {
                let source = std::io::Error::other(panicked);
                Err(Refusal::Failed(ApplyError::io("apply", "the spec")(source)))
            }
        }
    }

    async fn apply_planned(
        &self,
        planned: Planned,
        base: Option<u64>,
        actor: &str,
    ) -> Result<(u64, Plan), Refusal> {
        let Planned { spec, lake, .. } = planned;
        let _lock = self.running.lock().await;
        // The checkpoint keeps the prices of earlier events: a restart replays only the events after
        // it.
        self.budgets.checkpoint().await?;
        let now = self.clock.now();
        let Some(applied) = stored::write(&*self.ledger, &spec, base, now).await? else {
            let version = self.ledger.applied_version().await?.unwrap_or(0);
            return Err(Refusal::Superseded { version });
        };
        let checkpointed = self.switch(spec, lake, &applied.indexes, applied.version).await;
        self.queue_refreshes(&applied, Some(actor)).await?;
        checkpointed?;
        Ok((applied.version, applied.plan))
    }

    /// Switches to the spec that another node applied. The node settings of this process do not
    /// change.
    ///
    /// # Errors
    /// [`ApplyError`]; the node keeps its spec, unless only the checkpoint after the switch failed:
    /// the next one is written soon.
    pub(crate) async fn switch_to_applied(&self) -> Result<(), ApplyError> {
        let _lock = self.running.lock().await;
        let Some(LoadedSpec { spec, version, indexes }) = load_applied(&*self.ledger).await? else {
            return Ok(());
        };
        let (known, had) = self.running.with_version();
        if version <= had {
            return Ok(());
        }
        let spec = Spec { node: known.node.clone(), ..spec };
        let lake = open_lake(&self.data_dir, &spec, &self.query_worker)?;
        // The checkpoint keeps the prices of earlier events: a restart replays only the events after
        // it.
        self.budgets.checkpoint().await?;
        self.switch(spec, Arc::new(lake), &indexes, version).await?;
        tracing::info!(version, "switched to a spec that another node applied");
        Ok(())
    }

    /// Switches every part of this process to another spec. A failure of the checkpoint at the end
    /// does not undo that: the spec is in the ledger, and parts of the process that ran different
    /// specs would price the same events differently.
    async fn switch(
        &self,
        spec: Spec,
        lake: Arc<Lake>,
        indexes: &[(AdGroupName, AdGroupIndex)],
        version: u64,
    ) -> Result<(), ApplyError> {
        self.budgets.apply_spec(&spec, indexes, version);
        self.gate.set_catalog(self.budgets.catalog().as_ref().clone());
        self.budgets.update_gate(&GateSink(&*self.gate));
        self.lake.store(lake);
        self.running.set(spec, version);
        self.wake_build.notify_waiters();
        self.wake_activate.notify_waiters();
        changes::publish(&self.changes, Change::Spec);
        self.budgets.checkpoint().await?;
        Ok(())
    }
}
