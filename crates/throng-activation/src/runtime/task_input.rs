//! The inputs of a task besides its row: the account, and the rows.

use std::sync::Arc;

use throng_spec::Sync;
use throng_store::{SyncRun, Task};

use super::context::Activation;
use super::declaration::keys_of;
use super::delivered_objects::open_plan;
use super::errors::InputError;
use super::removal::declared;
use super::snapshots::{MAX_RUNS, compute_run_users, covers, failed_versions, snapshot};
use crate::{Advice, Schema, SendClass, SendError, TaskInput, TaskRows};

/// Prepares the inputs of a task.
pub(super) async fn task_input(ctx: &Activation, task: &Task) -> Result<TaskInput, InputError> {
    let (sync, declared) = declared(ctx, &task.sync).await?;
    let destination = ctx.destinations.open(&declared)?;
    let run = ctx.ledger.run(task.run).await?;
    let rows = match &run.plan {
        Some(object) => {
            let plan = open_plan(ctx, &declared.account(), &sync.name, object).await?;
            TaskRows::Planned(Arc::new(plan))
        }
        None => planned_users(ctx, &run, &sync, declared.platform.name()).await?,
    };
    let default_country = sync.identifiers.default_country.clone();
    Ok(TaskInput {
        destination,
        schema: Schema { keys: keys_of(&sync), default_country },
        platform_name: sync.name_on_platform(),
        adopt: sync.adopt == throng_spec::Adopt::Replace,
        adopts: match &rows {
            TaskRows::Planned(plan) => plan.meta.adopts.clone(),
            // An earlier version planned it, which is not to say that somebody has approved it.
            TaskRows::Users { .. } => None,
        },
        rows,
    })
}

/// The users of a run that an earlier version planned: their identifiers are read when the run is sent.
async fn planned_users(
    ctx: &Activation,
    run: &SyncRun,
    sync: &Sync,
    platform: &str,
) -> Result<TaskRows, InputError> {
    let runs = ctx.ledger.runs(Some(&run.sync), MAX_RUNS).await?;
    let before: Vec<SyncRun> = runs.into_iter().filter(|r| r.id < run.id).collect();
    let target = snapshot(ctx, &run.audience, run.to_version).await?;
    let target = target.ok_or_else(|| {
        let message = format!(
            "version {} of audience {} is no longer kept; refresh the audience",
            run.to_version, run.audience
        );
        SendError::local(SendClass::Stop, message).with_advice(Advice::None)
    })?;
    let index = ctx.node.membership();
    if !covers(&index, &target) {
        let message = "the dictionaries of this snapshot are not loaded yet";
        return Err(SendError::local(SendClass::Retry, message).into());
    }
    let failed = failed_versions(&before);
    let computed =
        compute_run_users(ctx, &run.audience, run.mode, target, run.from_version, &failed).await?;
    let unchanged =
        computed.filter(|users| (users.adds(), users.removes()) == (run.adds, run.removes));
    let users = unchanged.ok_or_else(|| {
        let message = format!(
            "the snapshots that run {} was planned from have changed; refresh audience {}",
            run.id, run.audience
        );
        SendError::local(SendClass::Stop, message).with_advice(Advice::None)
    })?;
    Ok(TaskRows::Users { identifiers: ctx.identifiers.query_of(sync, platform), users, index })
}
