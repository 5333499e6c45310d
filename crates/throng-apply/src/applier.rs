//! Applying a spec while a process runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tempfile::TempDir;
use throng_aggregator::Budgets;
use throng_gate::Gate;
use throng_lake::Lake;
use throng_model::{
    AdGroupIndex, AdGroupName, AudienceName, Clock, POLL_INTERVAL, SyncName, Timestamp,
};
use throng_spec::{Action, Limits, ObjectKind, Plan, Spec, SpecFiles, SpecOrigin};
use throng_store::{HistoryEntry, HistoryEvent, Ledger, RefreshTrigger, SubjectKind};
use throng_templates::{ExpandError, Queries, has_templates};

use crate::error::{ApplyError, Refusal};
use crate::gate::GateSink;
use crate::lake::LakeOpener;
use crate::running::RunningSpec;
use crate::stored::{self, LoadedSpec, WrittenSpec, load_applied};

/// After an error of a poll.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// The fields of an audience that say who its members are.
const MODEL_FIELDS: [&str; 3] = ["sql", "key", "source"];

/// Audiences whose members may differ from their last snapshot: new ones, and those whose SQL,
/// key, source or row of a template changed.
fn outdated(plan: &Plan) -> impl Iterator<Item = &str> {
    plan.changes.iter().filter(|c| c.kind == ObjectKind::Audience).filter_map(|change| {
        let is_outdated = match &change.action {
            Action::Added => true,
            Action::Changed(fields) => {
                let is_of_model = |f: &str| MODEL_FIELDS.contains(&f) || f == "made_from.values";
                fields.iter().any(|changed| is_of_model(&changed.field))
            }
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
    let entry = |sync: &SyncName, what: HistoryEvent, why: String| HistoryEntry {
        subject_kind: SubjectKind::Sync,
        subject: sync.to_string(),
        what,
        why,
        at: now,
        actor: actor.map(str::to_owned),
    };
    let version = applied.version;
    let removed = applied.removed.iter().map(|(sync, what)| {
        entry(
            sync,
            HistoryEvent::Removed,
            format!("version {version} of the spec does not have it: {what}"),
        )
    });
    let cancelled = applied.cancelled.iter().map(|sync| {
        let why = format!("version {version} of the spec has it again; its audience stays");
        entry(sync, HistoryEvent::RemovalCancelled, why)
    });
    removed.chain(cancelled).collect()
}

/// History entries of the audiences whose members may differ, because the spec has another model for them.
fn model_entries(
    applied: &WrittenSpec,
    actor: Option<&str>,
    now: Timestamp,
) -> impl Iterator<Item = HistoryEntry> {
    let audiences = applied.plan.changes.iter().filter(|c| c.kind == ObjectKind::Audience);
    audiences.filter_map(move |change| {
        let Action::Changed(fields) = &change.action else { return None };
        let fields = fields.iter().map(|changed| changed.field.as_str());
        let fields: Vec<&str> = fields.filter(|field| MODEL_FIELDS.contains(field)).collect();
        (!fields.is_empty()).then(|| HistoryEntry {
            subject_kind: SubjectKind::Audience,
            subject: change.name.clone(),
            what: HistoryEvent::Applied,
            why: format!(
                "version {} of the spec changed its {}",
                applied.version,
                fields.join(", ")
            ),
            at: now,
            actor: actor.map(str::to_owned),
        })
    })
}

/// A spec that was sent and has no problems by itself.
pub struct CheckedSpec {
    /// The spec.
    pub spec: Spec,
    /// SQL over its sources.
    pub lake: Arc<Lake>,
    /// What to know before it is applied, such as what happens to objects of templates whose rows are gone. The plan has
    /// them, and so has the answer once it is applied.
    pub warnings: Vec<String>,
    /// The folder of the tables that `lake` reads, if the spec would create or change tables.
    preview: Option<TempDir>,
}

impl std::fmt::Debug for CheckedSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckedSpec").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// A spec that could be applied, compared with the applied one.
#[derive(Debug)]
pub struct Planned {
    checked: CheckedSpec,
    /// The version that is applied now; 0 if there is none.
    pub version: u64,
    /// What would change.
    pub plan: Plan,
}

/// Receives every switch to another spec. The method must not block.
pub trait SpecObserver: Send + Sync {
    /// The process runs another spec: whoever depends on it reads it again.
    fn spec_switched(&self);
}

/// Applies specs to this process: what has to change together when another spec is applied.
pub struct SpecApplier {
    /// Has the applied spec.
    pub ledger: Arc<dyn Ledger>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What lakes are opened with.
    pub opener: LakeOpener,
    /// The spec of this process.
    pub running: Arc<RunningSpec>,
    /// SQL over its sources.
    pub lake: Arc<ArcSwap<Lake>>,
    /// Spend under its prices.
    pub budgets: Arc<Budgets>,
    /// Decisions about its ad groups.
    pub gate: Arc<Gate>,
    /// Wakes whoever depends on the spec.
    pub observer: Arc<dyn SpecObserver>,
}

impl std::fmt::Debug for SpecApplier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpecApplier").field("opener", &self.opener).finish_non_exhaustive()
    }
}

impl SpecApplier {
    /// Schedules the refreshes that a newly applied spec requires, and records it in the history.
    ///
    /// # Errors
    /// [`ApplyError::Ledger`].
    pub async fn queue_refreshes(
        &self,
        applied: &WrittenSpec,
        actor: Option<&str>,
    ) -> Result<(), ApplyError> {
        self.queue_outdated(applied).await?;
        self.record(applied, actor).await
    }

    /// Schedules the refreshes of audiences that were never built, or whose members may differ.
    async fn queue_outdated(&self, applied: &WrittenSpec) -> Result<(), ApplyError> {
        let now = self.clock.now();
        let known = self.ledger.audiences().await?;
        // A set: templates make up to 100,000 audiences each.
        let known: BTreeSet<AudienceName> = known.into_iter().map(|row| row.name).collect();
        let never_built: Vec<AudienceName> = self
            .running
            .load()
            .audiences
            .iter()
            .filter(|a| !known.contains(&a.name))
            .map(|a| a.name.clone())
            .collect();
        let changed = outdated(&applied.plan).filter_map(|name| AudienceName::new(name).ok());
        let wanted: Vec<AudienceName> = never_built.into_iter().chain(changed).collect();
        // Not those that are paused: resuming one refreshes it.
        self.ledger.schedule_refreshes(&wanted, RefreshTrigger::Apply, now).await?;
        Ok(())
    }

    /// Records a newly applied spec in the history.
    async fn record(&self, applied: &WrittenSpec, actor: Option<&str>) -> Result<(), ApplyError> {
        let now = self.clock.now();
        if !applied.plan.changes.is_empty() {
            let (version, changes) = (applied.version, applied.plan.changes.len());
            let entry = HistoryEntry {
                subject_kind: SubjectKind::Spec,
                subject: "spec".to_owned(),
                what: HistoryEvent::Applied,
                why: format!("version {version} with {changes} changes"),
                at: now,
                actor: actor.map(str::to_owned),
            };
            self.ledger.record_history(&[entry]).await?;
        }
        let mut entries = removal_entries(applied, actor, now);
        entries.extend(model_entries(applied, actor, now));
        Ok(self.ledger.record_history(&entries).await?)
    }

    /// Checks the files of a spec, also against the limits of this node, and expands its templates. Its other
    /// SQL is not checked.
    ///
    /// # Errors
    /// [`Refusal::Problems`], or [`Refusal::Failed`] if the check itself failed.
    pub async fn check(
        &self,
        files: SpecFiles,
        limits: Arc<Limits>,
    ) -> Result<CheckedSpec, Refusal> {
        let running = self.running.load();
        let access = SpecOrigin::Limited { limits, running: Box::new(running.node.clone()) };
        // Checking a large spec blocks its thread.
        let checked = tokio::task::spawn_blocking(move || throng_spec::check(files, access));
        let spec = match checked.await {
            Ok(checked) => checked.map_err(Refusal::Problems)?,
            Err(panicked) => {
                let source = std::io::Error::other(panicked);
                return Err(Refusal::Failed(ApplyError::io("check", "the spec")(source)));
            }
        };
        let before = match has_templates(&spec) {
            true => stored::read_usable_spec(&*self.ledger).await?.map(|(before, _)| before),
            false => None,
        };
        let mut preview = self.opener.preview_tables(&spec).await?;
        let mut expanded = None;
        if preview.is_some() && has_templates(&spec) {
            // Over the tables as they are, because those of the preview have no rows.
            let mut existing = spec.clone();
            existing.node.lake = None;
            let (lake, sent) = (self.opener.open(&existing).await?, spec.clone());
            match throng_templates::expand(&lake, sent, before.as_ref(), Queries::All).await {
                Ok(found) => expanded = Some(found),
                // A query may name what the schemas add, beside rows that are there. Only then the tables are
                // created before the spec is applied. That removes nothing and changes no row or column; a column
                // keeps its type, also if the spec is not applied.
                Err(ExpandError::Problems(_)) => {
                    self.opener.create_tables(&spec).await?;
                    preview = None;
                }
                Err(error) => return Err(Refusal::of_expansion(error)),
            }
        }
        // The lake caches the columns of the tables; a new one is needed only for other sources.
        let lake = match &preview {
            Some((shown, _)) => Arc::new(self.opener.open(shown).await?),
            None if spec.sources == running.sources => self.lake.load_full(),
            None => Arc::new(self.opener.open(&spec).await?),
        };
        let expanded = match expanded {
            Some(expanded) => expanded,
            None => throng_templates::expand(&lake, spec, before.as_ref(), Queries::All)
                .await
                .map_err(Refusal::of_expansion)?,
        };
        let preview = preview.map(|(_, folder)| folder);
        Ok(CheckedSpec { spec: expanded.spec, lake, warnings: expanded.warnings, preview })
    }

    /// Compares a checked spec with the applied one. Changes nothing.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn plan(&self, checked: CheckedSpec) -> Result<Planned, ApplyError> {
        let (mut plan, version) = stored::plan(&*self.ledger, &checked.spec).await?;
        plan.warnings.extend(checked.warnings.iter().cloned());
        Ok(Planned { checked, version, plan })
    }

    /// Applies a planned spec to the running process, for the caller of this name; with a `base`,
    /// only over that version. Returns the new version and what changed. Once the ledger has the spec, it is
    /// applied: what fails after that (a checkpoint, queueing refreshes, the history) is logged, and not
    /// returned as an error.
    ///
    /// # Errors
    /// [`Refusal`]; the process keeps its spec. Only where the task panicked, or the ledger does not respond
    /// to the write, the spec may be applied; each node then switches to it when it polls the ledger.
    pub async fn apply(
        self: &Arc<Self>,
        planned: Planned,
        base: Option<u64>,
        actor: &str,
    ) -> Result<(u64, Plan), Refusal> {
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
        let CheckedSpec { spec, lake, warnings, preview } = planned.checked;
        // The objects of rows that are gone come from the version that was planned over: over a newer one, those
        // that it has in addition would be lost.
        let base = base.or_else(|| has_templates(&spec).then_some(planned.version));
        let _lock = self.running.lock().await;
        let lake = match preview {
            Some(_) => {
                self.opener.create_tables(&spec).await?;
                Arc::new(self.opener.open(&spec).await?)
            }
            None => lake,
        };
        // What was acknowledged is applied under the spec of that time.
        self.budgets.catch_up().await;
        // The checkpoint keeps the prices of earlier events: a restart replays only the events after
        // it.
        self.budgets.checkpoint().await?;
        let now = self.clock.now();
        let Some(applied) = stored::write(&*self.ledger, &spec, base, now).await? else {
            let version = self.ledger.applied_version().await?.unwrap_or(0);
            return Err(Refusal::Superseded { version });
        };
        // The spec is applied. An error from here on would say that it is not, and the next try would be
        // refused, because a newer version than its base is applied.
        let version = applied.version;
        if let Err(error) = self.switch(spec, lake, &applied.indexes, version).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                version,
                "failed to write a checkpoint under a newly applied spec; the next one is written soon"
            );
        }
        if let Err(error) = self.queue_outdated(&applied).await {
            // The role `schedule` compares models with snapshots, and a refresh that failed has no snapshot.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                version,
                "failed to queue the refreshes of a newly applied spec; the role schedule queues them, but \
                 not those of audiences whose last refresh failed: refresh these"
            );
        }
        if let Err(error) = self.record(&applied, Some(actor)).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                version,
                actor,
                "failed to record a newly applied spec in the history"
            );
        }
        let mut plan = applied.plan;
        plan.warnings.extend(warnings);
        Ok((version, plan))
    }

    /// Switches to a newer spec, if another node has applied one. Returns how long to wait before the next call. To be
    /// called in a task of its own: partitions wait for the spec before they apply events of its new ad groups.
    pub async fn poll_applied(&self) -> Duration {
        let polled = async {
            let newest = self.ledger.applied_version().await?.unwrap_or(0);
            match newest > self.running.with_version().1 {
                true => self.switch_to_applied().await,
                false => Ok(()),
            }
        };
        match polled.await {
            Ok(()) => self.running.poll_delay(&*self.clock, POLL_INTERVAL),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to switch to the spec that another node applied"
                );
                RETRY_DELAY
            }
        }
    }

    /// Switches to the spec that another node applied. The node settings of this process do not
    /// change.
    ///
    /// # Errors
    /// [`ApplyError`]; the node keeps its spec, unless only the checkpoint after the switch failed:
    /// the next one is written soon.
    pub async fn switch_to_applied(&self) -> Result<(), ApplyError> {
        let _lock = self.running.lock().await;
        let Some(LoadedSpec { spec, version, indexes }) = load_applied(&*self.ledger).await? else {
            return Ok(());
        };
        let (known, had) = self.running.with_version();
        if version <= had {
            return Ok(());
        }
        let spec = Spec { node: known.node.clone(), ..spec };
        let lake = self.opener.open(&spec).await?;
        // What was acknowledged is applied under the spec of that time.
        self.budgets.catch_up().await;
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
        self.opener.retain_copies(&spec);
        self.running.set(spec, version);
        self.observer.spec_switched();
        self.budgets.checkpoint().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use throng_spec::{Change, FieldChange};

    use super::*;

    #[test]
    fn an_audience_whose_row_has_other_values_is_outdated() {
        let changed = |name: &str, field: &str| Change {
            kind: ObjectKind::Audience,
            name: name.to_owned(),
            currency: None,
            currency_before: None,
            template: None,
            action: Action::Changed(vec![FieldChange {
                field: field.to_owned(),
                old: Value::Null,
                new: Value::Bool(true),
            }]),
        };
        let changes = vec![
            changed("values", "made_from.values"),
            changed("held", "made_from.held"),
            changed("description", "description"),
            changed("sql", "sql"),
        ];
        let plan = Plan { changes, warnings: Vec::new() };
        assert_eq!(outdated(&plan).collect::<Vec<_>>(), ["values", "sql"]);
        let (removed, cancelled, indexes) = (Vec::new(), Vec::new(), Vec::new());
        let applied =
            WrittenSpec { version: 3, previous: Some(2), plan, indexes, removed, cancelled };
        let entries: Vec<_> = model_entries(&applied, Some("ann"), Timestamp(0)).collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!((&*entries[0].subject, entries[0].actor.as_deref()), ("sql", Some("ann")));
        assert_eq!(entries[0].why, "version 3 of the spec changed its sql");
    }
}
