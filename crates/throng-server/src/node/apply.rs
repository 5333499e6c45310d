//! Applying a spec: at start and while the node runs.

use std::sync::Arc;

use throng_lake::Lake;
use throng_ledger::{HistoryEntry, Ledger, RefreshTrigger};
use throng_model::{AdGroupIndex, AdGroupName, AudienceName, Timestamp};
use throng_spec::{Action, ObjectKind, Plan, Role, Spec};

use crate::NodeContext;

use super::{NodeError, open_lake, spec_changed};

/// What storing a spec brought.
pub(super) struct Applied {
    /// The spec's version in the ledger.
    pub(super) version: u64,
    /// What differs from the one before.
    plan: Plan,
    /// The feed's numbers of all its ad groups.
    pub(super) indexes: Vec<(AdGroupName, AdGroupIndex)>,
}

/// The spec in the ledger.
pub(super) struct Stored {
    pub(super) spec: Spec,
    pub(super) version: u64,
    pub(super) indexes: Vec<(AdGroupName, AdGroupIndex)>,
}

/// The applied spec and its version. One that this version cannot read any more counts as none:
/// everything is new then.
async fn stored_spec(ledger: &dyn Ledger) -> Result<Option<(Spec, u64)>, NodeError> {
    Ok(ledger.applied_spec().await?.and_then(|applied| {
        let spec = serde_json::from_value(applied.spec).ok()?;
        Some((spec, applied.version))
    }))
}

async fn indexes(
    ledger: &dyn Ledger,
    spec: &Spec,
) -> Result<Vec<(AdGroupName, AdGroupIndex)>, NodeError> {
    let names: Vec<AdGroupName> = spec.ad_groups.iter().map(|a| a.name.clone()).collect();
    Ok(ledger.ad_group_indexes(&names).await?)
}

/// The applied spec with the numbers of its ad groups.
pub(super) async fn stored(ledger: &dyn Ledger) -> Result<Option<Stored>, NodeError> {
    match stored_spec(ledger).await? {
        Some((spec, version)) => {
            let indexes = indexes(ledger, &spec).await?;
            Ok(Some(Stored { spec, version, indexes }))
        }
        None => Ok(None),
    }
}

/// Writes a spec to the ledger.
pub(super) async fn store(
    ledger: &dyn Ledger,
    spec: &Spec,
    now: Timestamp,
) -> Result<Applied, NodeError> {
    let before = stored_spec(ledger).await?.map(|(spec, _)| spec);
    let mut stored = spec.clone();
    // Processes of one deployment differ in nothing else, and must not replace each other's specs.
    stored.node.roles = Role::ALL.to_vec();
    let plan = throng_spec::plan(before.as_ref(), &stored);
    let version = ledger.apply_spec(&serde_json::to_value(&stored)?, now).await?;
    let indexes = indexes(ledger, spec).await?;
    Ok(Applied { version, plan, indexes })
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
        ctx.ledger.schedule_refresh(&name, RefreshTrigger::Apply, now).await?;
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
    Ok(())
}

/// Applies a spec to a running node, for the caller of this name, and returns its version. Settings of the process itself (where
/// it listens, its token, how many partitions and workers) count from the next start.
///
/// # Errors
/// [`NodeError`]; the node goes on with the spec that it had, or, if it is in the ledger, with the new
/// one.
pub(crate) async fn apply_spec(
    ctx: &Arc<NodeContext>,
    spec: Spec,
    actor: &str,
) -> Result<u64, NodeError> {
    let lake = open_lake(&ctx.data_dir, &spec)?;
    let _turn = ctx.spec_turn.lock().await;
    // Events before this moment keep the prices that they came under.
    ctx.budgets.checkpoint().await?;
    let applied = store(&*ctx.ledger, &spec, ctx.clock.now()).await?;
    let checkpointed = go_on(ctx, spec, lake, &applied.indexes, applied.version).await;
    queue_refreshes(ctx, &applied, Some(actor)).await?;
    checkpointed?;
    Ok(applied.version)
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
    let lake = open_lake(&ctx.data_dir, &spec)?;
    // Events before this moment keep the prices that they came under.
    ctx.budgets.checkpoint().await?;
    go_on(ctx, spec, lake, &indexes, version).await?;
    tracing::info!(version, "another node applied a spec; it counts here too");
    Ok(())
}

/// Everything of this process goes on with another spec, whatever comes of the checkpoint after it.
async fn go_on(
    ctx: &NodeContext,
    spec: Spec,
    lake: Lake,
    indexes: &[(AdGroupName, AdGroupIndex)],
    version: u64,
) -> Result<(), NodeError> {
    ctx.budgets.apply_spec(&spec, indexes, version);
    ctx.gate.set_catalog(ctx.budgets.catalog().as_ref().clone());
    ctx.budgets.feed_gate(&ctx.gate);
    ctx.lake.store(Arc::new(lake));
    ctx.set_spec(spec, version);
    spec_changed(ctx);
    ctx.budgets.checkpoint().await?;
    Ok(())
}
