//! Applying a spec: at start and while the node runs.

use std::sync::Arc;

use throng_activation::{RemovedSync, removed_syncs};
use throng_lake::Lake;
use throng_model::{AdGroupIndex, AdGroupName, AudienceName, SyncName, Timestamp};
use throng_spec::{Action, ObjectKind, Plan, Problem, Role, Spec, SpecFiles, SpecOrigin};
use throng_store::{HistoryEntry, HistoryEvent, Ledger, RefreshTrigger, SpecApplied, SpecUpdate};

use crate::roles::aggregate::GateSink;
use crate::{CheckError, CheckedModel, NodeContext};

use super::{NodeError, open_lake, publish_spec_change};

/// The newest version of the spec language that this program supports.
const SUPPORTED_SPEC_VERSION: u64 = 1;

/// A spec that was written to the ledger, compared with the previous one.
pub(super) struct WrittenSpec {
    /// The spec's version in the ledger.
    pub(super) version: u64,
    /// The differences from the previous spec.
    plan: Plan,
    /// The feed's indexes of all its ad groups.
    pub(super) indexes: Vec<(AdGroupName, AdGroupIndex)>,
    /// Syncs that it no longer has, and what happens to their audiences on the platforms.
    removed: Vec<(SyncName, String)>,
    /// Syncs that it has again, and whose removal was cancelled because of that.
    cancelled: Vec<SyncName>,
}

/// A spec of the ledger with its version, and the feed's indexes of its ad groups.
pub(super) struct LoadedSpec {
    pub(super) spec: Spec,
    pub(super) version: u64,
    pub(super) indexes: Vec<(AdGroupName, AdGroupIndex)>,
}

/// Reads the applied spec and its version. Reading it runs the checks again.
///
/// # Errors
/// [`NodeError::StoredSpec`] if this version cannot read it, or it does not pass the checks.
async fn read_applied_spec(ledger: &dyn Ledger) -> Result<Option<(Spec, u64)>, NodeError> {
    let Some(applied) = ledger.applied_spec().await? else { return Ok(None) };
    check_language(&applied.spec)?;
    let spec = serde_json::from_value(applied.spec).map_err(NodeError::StoredSpec)?;
    Ok(Some((spec, applied.version)))
}

/// Reads the applied spec and its version before another one replaces it. A spec that cannot be
/// used counts as none, so that a new one can always be applied; everything in it is new then.
async fn read_usable_spec(ledger: &dyn Ledger) -> Result<Option<(Spec, u64)>, NodeError> {
    let Some(applied) = ledger.applied_spec().await? else { return Ok(None) };
    Ok(parse_usable(applied.spec)?.map(|spec| (spec, applied.version)))
}

/// Refuses a spec of a newer language version, before anything else of it is read.
fn check_language(spec: &serde_json::Value) -> Result<(), NodeError> {
    match spec.get("version").and_then(serde_json::Value::as_u64) {
        Some(found) if found > SUPPORTED_SPEC_VERSION => Err(NodeError::NewerSpec { found }),
        _ => Ok(()),
    }
}

/// Parses the JSON form of a spec; `None` if it cannot be used.
///
/// # Errors
/// [`NodeError::NewerSpec`]: this version would drop the fields that it does not know, so it must
/// not replace such a spec.
fn parse_usable(spec: serde_json::Value) -> Result<Option<Spec>, NodeError> {
    check_language(&spec)?;
    Ok(serde_json::from_value(spec)
        .inspect_err(|error| {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "applied spec in the ledger cannot be used, replacing it"
            );
        })
        .ok())
}

async fn indexes(
    ledger: &dyn Ledger,
    spec: &Spec,
) -> Result<Vec<(AdGroupName, AdGroupIndex)>, NodeError> {
    let names: Vec<AdGroupName> = spec.ad_groups.iter().map(|a| a.name.clone()).collect();
    Ok(ledger.ad_group_indexes(&names).await?)
}

/// Loads the applied spec, to run it.
pub(super) async fn load_applied(ledger: &dyn Ledger) -> Result<Option<LoadedSpec>, NodeError> {
    with_indexes(ledger, read_applied_spec(ledger).await?).await
}

/// Loads the applied spec, before another one replaces it.
pub(super) async fn load_previous(ledger: &dyn Ledger) -> Result<Option<LoadedSpec>, NodeError> {
    with_indexes(ledger, read_usable_spec(ledger).await?).await
}

async fn with_indexes(
    ledger: &dyn Ledger,
    stored: Option<(Spec, u64)>,
) -> Result<Option<LoadedSpec>, NodeError> {
    let Some((spec, version)) = stored else { return Ok(None) };
    let indexes = indexes(ledger, &spec).await?;
    Ok(Some(LoadedSpec { spec, version, indexes }))
}

/// The spec in the form that the ledger stores: with every role. The processes of a cluster
/// start with specs that differ in their roles only; without this they would replace each other's
/// specs.
fn as_stored(spec: &Spec) -> Spec {
    let mut stored = spec.clone();
    stored.node.roles = Role::ALL.to_vec();
    stored
}

/// Writes a spec to the ledger; with a `base`, only if that is the applied version. The removals of
/// syncs that it no longer has are recorded in the same step: a crash in between would leave their
/// audiences on the platforms without anybody who removes them.
async fn write(
    ledger: &dyn Ledger,
    spec: &Spec,
    base: Option<u64>,
    now: Timestamp,
) -> Result<Option<WrittenSpec>, NodeError> {
    let stored = as_stored(spec);
    let value = serde_json::to_value(&stored)?;
    let declared: Vec<SyncName> = stored.syncs.iter().map(|sync| sync.name.clone()).collect();
    loop {
        let applied = ledger.applied_spec().await?;
        let at = applied.as_ref().map_or(0, |applied| applied.version);
        if base.is_some_and(|base| base != at) {
            return Ok(None);
        }
        let before = match applied {
            Some(applied) => parse_usable(applied.spec)?,
            None => None,
        };
        let mut plan = throng_spec::plan(before.as_ref(), &stored);
        let gone = removed_syncs(ledger, before.as_ref(), &stored).await?;
        plan.warnings.extend(gone.iter().map(RemovedSync::warning));
        let mut removals = Vec::new();
        for gone in &gone {
            removals.extend(gone.to_record()?);
        }
        let update =
            SpecUpdate { base: at, spec: &value, removals: &removals, declared: &declared };
        // Another node applied a spec since it was read, and the removed syncs may be others now:
        // compare again.
        let Some(written) = ledger.apply_spec_update(update, now).await? else { continue };
        let indexes = indexes(ledger, spec).await?;
        let removed = gone.iter().map(|gone| (gone.sync().clone(), gone.description())).collect();
        let SpecApplied { version, cancelled, .. } = written;
        return Ok(Some(WrittenSpec { version, plan, indexes, removed, cancelled }));
    }
}

/// Writes the spec with which a node was started to the ledger.
pub(super) async fn store(
    ledger: &dyn Ledger,
    spec: &Spec,
    now: Timestamp,
) -> Result<WrittenSpec, NodeError> {
    let written = write(ledger, spec, None, now).await?;
    written.ok_or(NodeError::NothingToJoin)
}

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

/// Schedules the refreshes that a newly applied spec requires, and records it in the history.
pub(super) async fn queue_refreshes(
    ctx: &Arc<NodeContext>,
    applied: &WrittenSpec,
    actor: Option<&str>,
) -> Result<(), NodeError> {
    let now = ctx.clock.now();
    let known = ctx.ledger.audiences().await?;
    let never_built: Vec<AudienceName> = ctx
        .spec
        .load()
        .audiences
        .iter()
        .filter(|a| !known.iter().any(|k| k.name == a.name))
        .map(|a| a.name.clone())
        .collect();
    let changed = outdated(&applied.plan).filter_map(|name| AudienceName::new(name).ok());
    for name in never_built.into_iter().chain(changed) {
        match ctx.ledger.schedule_refresh(&name, RefreshTrigger::Apply, now).await {
            Ok(_) => {}
            // The audience is paused; resuming it refreshes it.
            Err(error) if error.is_wrong_state() => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !applied.plan.changes.is_empty() {
        let entry = HistoryEntry {
            subject_kind: throng_store::SubjectKind::Spec,
            subject: "spec".to_owned(),
            what: HistoryEvent::Applied,
            why: format!("version {} with {} changes", applied.version, applied.plan.changes.len()),
            at: now,
            actor: actor.map(str::to_owned),
        };
        ctx.ledger.record_history(&[entry]).await?;
    }
    Ok(ctx.ledger.record_history(&removal_entries(applied, actor, now)).await?)
}

/// History entries of the syncs that were removed, and of those whose removal was cancelled.
fn removal_entries(
    applied: &WrittenSpec,
    actor: Option<&str>,
    now: Timestamp,
) -> Vec<HistoryEntry> {
    let entry = |sync: &SyncName, what: HistoryEvent, why: String| HistoryEntry {
        subject_kind: throng_store::SubjectKind::Sync,
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

/// Why a spec that was sent is not applied.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is invalid, or names what this node's limits do not allow.
    Problems(Vec<Problem>),
    /// Another spec was applied after the version that it is based on.
    Superseded {
        /// The version that is applied now.
        version: u64,
    },
    /// The node failed; the spec may be right.
    Failed(NodeError),
}

impl<E: Into<NodeError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
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

/// Checks a spec that was sent, as `throng check` does and against this node's limits, and compares
/// it with the applied spec.
pub(crate) async fn plan_sent(
    ctx: &Arc<NodeContext>,
    files: SpecFiles,
) -> Result<Planned, Refusal> {
    let running = ctx.spec.load_full();
    let access =
        SpecOrigin::Limited { limits: ctx.limits.now(), running: Box::new(running.node.clone()) };
    // Checking a large spec blocks its thread.
    let checked = tokio::task::spawn_blocking(move || throng_spec::check(files, access));
    let spec = match checked.await {
        Ok(checked) => checked.map_err(Refusal::Problems)?,
        Err(panicked) => {
            let source = std::io::Error::other(panicked);
            return Err(Refusal::Failed(NodeError::io("check", "the spec")(source)));
        }
    };
    // The lake caches the columns of the tables; a new one is needed only for other sources.
    let lake = match spec.sources == running.sources {
        true => ctx.lake.load_full(),
        false => Arc::new(open_lake(&ctx.data_dir, &spec, &ctx.query_worker)?),
    };
    let models = match crate::check_sql(&lake, &spec).await {
        Ok(models) => models,
        Err(CheckError::Problems(problems)) => return Err(Refusal::Problems(problems)),
        Err(CheckError::Worker(error)) => return Err(Refusal::Failed(error.into())),
    };
    let before = read_usable_spec(&*ctx.ledger).await?;
    let version = match &before {
        Some((_, version)) => *version,
        None => ctx.ledger.applied_version().await?.unwrap_or(0),
    };
    let (before, stored) = (before.map(|(spec, _)| spec), as_stored(&spec));
    let mut plan = throng_spec::plan(before.as_ref(), &stored);
    let gone = removed_syncs(&*ctx.ledger, before.as_ref(), &stored).await?;
    plan.warnings.extend(gone.iter().map(RemovedSync::warning));
    plan.warnings.extend(models.iter().flat_map(CheckedModel::warnings));
    Ok(Planned { spec, lake, version, plan, models })
}

/// Applies a planned spec to the running node, for the caller of this name; with a `base`, only if
/// that is the applied version. Returns the new version and the changes. Must run to its end, also
/// if the caller disconnects: after the write to the ledger this process must switch to the new
/// spec.
///
/// # Errors
/// [`Refusal`]; the node keeps its spec, or, if the new one is in the ledger, runs that one.
pub(crate) async fn apply_planned(
    ctx: &Arc<NodeContext>,
    planned: Planned,
    base: Option<u64>,
    actor: &str,
) -> Result<(u64, Plan), Refusal> {
    let Planned { spec, lake, .. } = planned;
    let _lock = ctx.spec_lock.lock().await;
    // The checkpoint keeps the prices of earlier events: a restart replays only the events after
    // it.
    ctx.budgets.checkpoint().await?;
    let Some(applied) = write(&*ctx.ledger, &spec, base, ctx.clock.now()).await? else {
        let version = ctx.ledger.applied_version().await?.unwrap_or(0);
        return Err(Refusal::Superseded { version });
    };
    let checkpointed = switch_spec(ctx, spec, lake, &applied.indexes, applied.version).await;
    queue_refreshes(ctx, &applied, Some(actor)).await?;
    checkpointed?;
    Ok((applied.version, applied.plan))
}

/// Switches to the spec that another node applied. The node settings of this process do not change.
///
/// # Errors
/// [`NodeError`]; the node keeps its spec, unless only the checkpoint after the switch failed: the
/// next one is written soon.
pub(crate) async fn switch_to_applied_spec(ctx: &Arc<NodeContext>) -> Result<(), NodeError> {
    let _lock = ctx.spec_lock.lock().await;
    let Some(LoadedSpec { spec, version, indexes }) = load_applied(&*ctx.ledger).await? else {
        return Ok(());
    };
    let (known, had) = ctx.spec_and_version();
    if version <= had {
        return Ok(());
    }
    let spec = Spec { node: known.node.clone(), ..spec };
    let lake = open_lake(&ctx.data_dir, &spec, &ctx.query_worker)?;
    // The checkpoint keeps the prices of earlier events: a restart replays only the events after
    // it.
    ctx.budgets.checkpoint().await?;
    switch_spec(ctx, spec, Arc::new(lake), &indexes, version).await?;
    tracing::info!(version, "switched to a spec that another node applied");
    Ok(())
}

/// Switches every part of this process to another spec. A failure of the checkpoint at the end does
/// not undo that: the spec is in the ledger, and parts of the process that ran different specs
/// would price the same events differently.
async fn switch_spec(
    ctx: &NodeContext,
    spec: Spec,
    lake: Arc<Lake>,
    indexes: &[(AdGroupName, AdGroupIndex)],
    version: u64,
) -> Result<(), NodeError> {
    ctx.budgets.apply_spec(&spec, indexes, version);
    ctx.gate.set_catalog(ctx.budgets.catalog().as_ref().clone());
    ctx.budgets.update_gate(&GateSink(&*ctx.gate));
    ctx.lake.store(lake);
    ctx.set_spec(spec, version);
    publish_spec_change(ctx);
    ctx.budgets.checkpoint().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_spec_of_a_newer_version_is_not_replaced() {
        let newer = parse_usable(json!({ "version": 2, "audiences": "of another type" }));
        assert!(matches!(newer, Err(NodeError::NewerSpec { found: 2 })), "{newer:?}");
        // A spec that an older version stored without a check is replaced.
        assert!(parse_usable(json!({ "version": 1, "audiences": [] })).unwrap().is_none());
    }
}
