//! Applying a spec: at start and while the node runs.

use std::sync::Arc;

use throng_activation::{RemovedSync, removed_syncs};
use throng_lake::Lake;
use throng_model::{AdGroupIndex, AdGroupName, AudienceName, SyncName, Timestamp};
use throng_spec::{Access, Action, ObjectKind, Plan, Problem, Role, Spec, SpecFiles};
use throng_store::{HistoryEntry, Ledger, RefreshTrigger, SpecApplied, SpecUpdate};

use crate::{CheckError, CheckedModel, NodeContext};

use super::{NodeError, open_lake, spec_changed};

/// The newest version of the spec language that this program knows.
const SPEC_LANGUAGE: u64 = 1;

/// What storing a spec brought.
pub(super) struct Applied {
    /// The spec's version in the ledger.
    pub(super) version: u64,
    /// What differs from the one before.
    plan: Plan,
    /// The feed's numbers of all its ad groups.
    pub(super) indexes: Vec<(AdGroupName, AdGroupIndex)>,
    /// Syncs that it does not have any longer, and what becomes of their audiences on the platforms.
    removed: Vec<(SyncName, String)>,
    /// Syncs that it has again, and whose removal was cancelled for that.
    cancelled: Vec<SyncName>,
}

/// The spec in the ledger.
pub(super) struct Stored {
    pub(super) spec: Spec,
    pub(super) version: u64,
    pub(super) indexes: Vec<(AdGroupName, AdGroupIndex)>,
}

/// The applied spec and its version, checked again.
///
/// # Errors
/// [`NodeError::StoredSpec`] if this version cannot read it, or no check would let it through.
async fn read_stored(ledger: &dyn Ledger) -> Result<Option<(Spec, u64)>, NodeError> {
    let Some(applied) = ledger.applied_spec().await? else { return Ok(None) };
    check_language(&applied.spec)?;
    let spec = serde_json::from_value(applied.spec).map_err(NodeError::StoredSpec)?;
    Ok(Some((spec, applied.version)))
}

/// The applied spec and its version, where another one replaces it. One that cannot be used counts
/// as none: everything is new then.
async fn stored_spec(ledger: &dyn Ledger) -> Result<Option<(Spec, u64)>, NodeError> {
    let Some(applied) = ledger.applied_spec().await? else { return Ok(None) };
    Ok(usable(applied.spec)?.map(|spec| (spec, applied.version)))
}

/// Refuses a spec of a newer version, whatever else is in it.
fn check_language(spec: &serde_json::Value) -> Result<(), NodeError> {
    match spec.get("version").and_then(serde_json::Value::as_u64) {
        Some(found) if found > SPEC_LANGUAGE => Err(NodeError::NewerSpec { found }),
        _ => Ok(()),
    }
}

/// The spec in its JSON form; `None` if it cannot be used.
///
/// # Errors
/// [`NodeError::NewerSpec`]: what this version does not understand is not replaced by what it makes of it.
fn usable(spec: serde_json::Value) -> Result<Option<Spec>, NodeError> {
    check_language(&spec)?;
    Ok(serde_json::from_value(spec)
        .inspect_err(|error| {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "the applied spec in the ledger cannot be used; it is replaced"
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

/// The applied spec with the numbers of its ad groups, to go on with.
pub(super) async fn stored(ledger: &dyn Ledger) -> Result<Option<Stored>, NodeError> {
    with_indexes(ledger, read_stored(ledger).await?).await
}

/// The applied spec with the numbers of its ad groups, before another one replaces it.
pub(super) async fn replaced(ledger: &dyn Ledger) -> Result<Option<Stored>, NodeError> {
    with_indexes(ledger, stored_spec(ledger).await?).await
}

async fn with_indexes(
    ledger: &dyn Ledger,
    stored: Option<(Spec, u64)>,
) -> Result<Option<Stored>, NodeError> {
    let Some((spec, version)) = stored else { return Ok(None) };
    let indexes = indexes(ledger, &spec).await?;
    Ok(Some(Stored { spec, version, indexes }))
}

/// A spec as the ledger holds it. Processes of one deployment differ in their roles only, and must
/// not replace each other's specs for that.
fn as_stored(spec: &Spec) -> Spec {
    let mut stored = spec.clone();
    stored.node.roles = Role::ALL.to_vec();
    stored
}

/// Writes a spec to the ledger; with a `base`, only over that version. What becomes of the audiences of
/// syncs that it does not have any longer is recorded with it.
async fn write(
    ledger: &dyn Ledger,
    spec: &Spec,
    base: Option<u64>,
    now: Timestamp,
) -> Result<Option<Applied>, NodeError> {
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
            Some(applied) => usable(applied.spec)?,
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
        // Somebody else has applied one since it was read: what is removed may be other syncs now.
        let Some(written) = ledger.apply_spec_update(update, now).await? else { continue };
        let indexes = indexes(ledger, spec).await?;
        let removed = gone.iter().map(|gone| (gone.sync().clone(), gone.description())).collect();
        let SpecApplied { version, cancelled, .. } = written;
        return Ok(Some(Applied { version, plan, indexes, removed, cancelled }));
    }
}

/// Writes the spec that a node was started with to the ledger.
pub(super) async fn store(
    ledger: &dyn Ledger,
    spec: &Spec,
    now: Timestamp,
) -> Result<Applied, NodeError> {
    let written = write(ledger, spec, None, now).await?;
    written.ok_or(NodeError::NothingToJoin)
}

/// Audiences whose members may differ from what the last snapshot says: those that are new, and
/// those whose SQL or key changed.
fn outdated(plan: &Plan) -> impl Iterator<Item = &str> {
    plan.changes.iter().filter(|c| c.kind == ObjectKind::Audience).filter_map(|change| {
        let counts = match &change.action {
            Action::Added => true,
            Action::Changed(fields) => fields.iter().any(|f| f.field == "sql" || f.field == "key"),
            Action::Removed => false,
        };
        counts.then_some(change.name.as_str())
    })
}

/// Queues the refreshes that a newly applied spec makes due, and records what was applied.
pub(super) async fn queue_refreshes(
    ctx: &Arc<NodeContext>,
    applied: &Applied,
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
            // It is stopped; whoever resumes it brings it up to date.
            Err(error) if error.is_wrong_state() => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !applied.plan.changes.is_empty() {
        let entry = HistoryEntry {
            subject_kind: "spec".to_owned(),
            subject: "spec".to_owned(),
            what: "applied".to_owned(),
            why: format!("version {} with {} changes", applied.version, applied.plan.changes.len()),
            at: now,
            actor: actor.map(str::to_owned),
        };
        ctx.ledger.record(&[entry]).await?;
    }
    Ok(ctx.ledger.record(&removal_entries(applied, actor, now)).await?)
}

/// The history of the syncs that were removed, and of those whose removal was cancelled.
fn removal_entries(applied: &Applied, actor: Option<&str>, now: Timestamp) -> Vec<HistoryEntry> {
    let entry = |sync: &SyncName, what: &str, why: String| HistoryEntry {
        subject_kind: "sync".to_owned(),
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

/// Why a spec that was sent is not applied.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Something in it is wrong, or more than this node allows.
    Problems(Vec<Problem>),
    /// Another one was applied since the version that it was made for.
    Superseded {
        /// The version that is applied now.
        version: u64,
    },
    /// Not the spec's fault.
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
    /// What its SQL texts are.
    pub(crate) models: Vec<CheckedModel>,
}

/// Checks a spec that was sent, as `throng check` does and against this node's limits, and compares it
/// with the applied one.
pub(crate) async fn plan_sent(
    ctx: &Arc<NodeContext>,
    files: SpecFiles,
) -> Result<Planned, Refusal> {
    let running = ctx.spec.load_full();
    let access =
        Access::Limited { limits: ctx.limits.now(), running: Box::new(running.node.clone()) };
    // A large spec keeps a thread busy for a moment.
    let checked = tokio::task::spawn_blocking(move || throng_spec::check(files, access));
    let spec = match checked.await {
        Ok(checked) => checked.map_err(Refusal::Problems)?,
        Err(panicked) => {
            let source = std::io::Error::other(panicked);
            return Err(Refusal::Failed(NodeError::io("check", "the spec")(source)));
        }
    };
    // What is known of the tables' columns is kept while the sources are the same.
    let lake = match spec.sources == running.sources {
        true => ctx.lake.load_full(),
        false => Arc::new(open_lake(&ctx.data_dir, &spec, &ctx.query_worker)?),
    };
    let models = match crate::check_sql(&lake, &spec).await {
        Ok(models) => models,
        Err(CheckError::Problems(problems)) => return Err(Refusal::Problems(problems)),
        Err(CheckError::Worker(error)) => return Err(Refusal::Failed(error.into())),
    };
    let before = stored_spec(&*ctx.ledger).await?;
    let version = match &before {
        Some((_, version)) => *version,
        None => ctx.ledger.applied_version().await?.unwrap_or(0),
    };
    let (before, stored) = (before.map(|(spec, _)| spec), as_stored(&spec));
    let mut plan = throng_spec::plan(before.as_ref(), &stored);
    let gone = removed_syncs(&*ctx.ledger, before.as_ref(), &stored).await?;
    plan.warnings.extend(gone.iter().map(RemovedSync::warning));
    Ok(Planned { spec, lake, version, plan, models })
}

/// Applies a spec that was sent to the running node, for the caller of this name; with a `base`, only
/// over that version. Returns the new version and what changed. To be run to its end.
///
/// # Errors
/// [`Refusal`]; the node goes on with the spec that it had, or, if the new one is in the ledger, with
/// that.
pub(crate) async fn apply_planned(
    ctx: &Arc<NodeContext>,
    planned: Planned,
    base: Option<u64>,
    actor: &str,
) -> Result<(u64, Plan), Refusal> {
    let Planned { spec, lake, .. } = planned;
    let _turn = ctx.spec_turn.lock().await;
    // Events before this moment keep the prices that they came under.
    ctx.budgets.checkpoint().await?;
    let Some(applied) = write(&*ctx.ledger, &spec, base, ctx.clock.now()).await? else {
        let version = ctx.ledger.applied_version().await?.unwrap_or(0);
        return Err(Refusal::Superseded { version });
    };
    let checkpointed = go_on(ctx, spec, lake, &applied.indexes, applied.version).await;
    queue_refreshes(ctx, &applied, Some(actor)).await?;
    checkpointed?;
    Ok((applied.version, applied.plan))
}

/// Goes on with the spec that another node applied. The settings of this process stay.
///
/// # Errors
/// [`NodeError`]; the node goes on with the spec that it had, unless only the budgets' checkpoint
/// failed: another one is made soon.
pub(crate) async fn follow_spec(ctx: &Arc<NodeContext>) -> Result<(), NodeError> {
    let _turn = ctx.spec_turn.lock().await;
    let Some(Stored { spec, version, indexes }) = stored(&*ctx.ledger).await? else {
        return Ok(());
    };
    let (known, had) = ctx.spec_and_version();
    if version <= had {
        return Ok(());
    }
    let spec = Spec { node: known.node.clone(), ..spec };
    let lake = open_lake(&ctx.data_dir, &spec, &ctx.query_worker)?;
    // Events before this moment keep the prices that they came under.
    ctx.budgets.checkpoint().await?;
    go_on(ctx, spec, Arc::new(lake), &indexes, version).await?;
    tracing::info!(version, "another node applied a spec; it counts here too");
    Ok(())
}

/// Everything of this process goes on with another spec, whatever comes of the checkpoint after it.
async fn go_on(
    ctx: &NodeContext,
    spec: Spec,
    lake: Arc<Lake>,
    indexes: &[(AdGroupName, AdGroupIndex)],
    version: u64,
) -> Result<(), NodeError> {
    ctx.budgets.apply_spec(&spec, indexes, version);
    ctx.gate.set_catalog(ctx.budgets.catalog().as_ref().clone());
    ctx.budgets.feed_gate(&ctx.gate);
    ctx.lake.store(lake);
    ctx.set_spec(spec, version);
    spec_changed(ctx);
    ctx.budgets.checkpoint().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_spec_of_a_newer_version_is_not_replaced() {
        let newer = usable(json!({ "version": 2, "audiences": "of another type" }));
        assert!(matches!(newer, Err(NodeError::NewerSpec { found: 2 })), "{newer:?}");
        // One that an older version took without a check is.
        assert!(usable(json!({ "version": 1, "audiences": [] })).unwrap().is_none());
    }
}
