//! Plans a run for every sync whose audience has a version that was not delivered yet.

use std::collections::HashMap;

use throng_activation::{PlanFacts, plan_run};
use throng_ledger::{
    AlertKind, HistoryEntry, LedgerError, NewAlert, NewRun, PlatformAudience, RunState, SyncMode,
    SyncRun,
};
use throng_model::SyncName;
use throng_spec::Sync;

use super::account;
use super::jobs::{JobError, RUNS_LOOKED_AT, covers, snapshot, tried_versions, work_out};
use crate::NodeContext;

/// Plans what there is to plan. Whether a run was planned. One sync's trouble is no other's.
pub(super) async fn plan_all(ctx: &NodeContext) -> Result<bool, LedgerError> {
    let spec = ctx.spec.load_full();
    let delivered: HashMap<SyncName, PlatformAudience> =
        ctx.ledger.delivered().await?.into_iter().collect();
    // One question for all: of thousands of syncs hardly any needs a plan.
    let unsettled: HashMap<SyncName, RunState> =
        ctx.ledger.unsettled().await?.into_iter().collect();
    let index = ctx.membership.load_full();
    let current: HashMap<_, _> =
        index.versions().map(|(name, version, _)| (name.clone(), version)).collect();
    let mut planned = false;
    for sync in &spec.syncs {
        let Some(version) = current.get(&sync.audience).copied() else { continue };
        let delivered = delivered.get(&sync.name).and_then(|p| p.delivered_version);
        match unsettled.get(&sync.name) {
            Some(RunState::Active | RunState::Held) => continue,
            // The platform may hold something else than what was delivered.
            Some(RunState::Failed) => {}
            Some(RunState::Completed) | None if delivered == Some(version) => continue,
            Some(RunState::Completed) | None => {}
        }
        match plan_sync(ctx, sync, version).await {
            Ok(done) => planned |= done,
            Err(error) => tracing::error!(
                sync = %sync.name,
                error = &error as &dyn std::error::Error,
                "cannot plan a run"
            ),
        }
    }
    Ok(planned)
}

/// Whether a sync with this newest run waits for something else than a new run.
fn waits(newest: Option<&SyncRun>, version: u64) -> bool {
    newest.is_some_and(|run| match run.state {
        RunState::Active | RunState::Held => true,
        // To the same version again only when a person says so: `throng sync requeue`.
        RunState::Failed => run.to_version == version,
        RunState::Completed => false,
    })
}

async fn plan_sync(ctx: &NodeContext, sync: &Sync, version: u64) -> Result<bool, JobError> {
    let newest = ctx.ledger.runs(Some(&sync.name), 1).await?;
    if waits(newest.first(), version) {
        return Ok(false);
    }
    // Read after the newest run: one that completed since the list of all syncs was read has
    // delivered by now, and must not be planned a second time.
    let platform = ctx.ledger.platform_audience(&sync.name).await?;
    let delivered = platform.and_then(|p| p.delivered_version);
    let failed = newest.first().is_some_and(|run| run.state == RunState::Failed);
    if delivered == Some(version) && !failed {
        return Ok(false);
    }
    let target = snapshot(ctx, &sync.audience, version).await?;
    let Some(target) = target.filter(|t| covers(&ctx.membership.load(), t)) else {
        return Ok(false);
    };
    let runs = ctx.ledger.runs(Some(&sync.name), RUNS_LOOKED_AT).await?;
    let mode = mode(sync);
    let tried = tried_versions(&runs);
    let Some(worked) = work_out(ctx, &sync.audience, mode, target, delivered, &tried).await? else {
        return Ok(false);
    };
    let from = match delivered {
        Some(from) => match ctx.ledger.snapshot(&sync.audience, from).await {
            Ok(row) => Some((from, row.members)),
            Err(LedgerError::NotFound { .. }) => Some((from, 0)),
            Err(error) => return Err(error.into()),
        },
        None => None,
    };
    let account_held =
        ctx.ledger.open_alert(AlertKind::RunHeld, &account(&sync.destination)).await?;
    let run = plan_run(PlanFacts {
        sync: sync.name.clone(),
        audience: sync.audience.clone(),
        destination: sync.destination.clone(),
        mode,
        batch_rows: sync.batch_rows,
        priority: sync.priority,
        max_removed_percent: sync.max_removed_percent,
        from,
        to_version: version,
        leaving: worked.leaving,
        users: &worked.users,
        hold: hold(mode, &worked.missing).or_else(|| account_held.clone()),
    });
    Ok(record(ctx, &run, account_held.is_some()).await?)
}

fn mode(sync: &Sync) -> SyncMode {
    match sync.mode {
        throng_spec::SyncMode::Mirror => SyncMode::Mirror,
        throng_spec::SyncMode::Add => SyncMode::Add,
        throng_spec::SyncMode::Replace => SyncMode::Replace,
    }
}

/// A mirror that starts from a snapshot that is gone would leave people behind.
fn hold(mode: SyncMode, missing: &[u64]) -> Option<String> {
    (mode == SyncMode::Mirror && !missing.is_empty()).then(|| {
        format!(
            "version {missing:?} was delivered, in whole or in part, but is not kept any more, so \
             who has left since is not known; approve to add everybody and remove nobody of those, \
             or use mode replace"
        )
    })
}

async fn record(ctx: &NodeContext, run: &NewRun, account_held: bool) -> Result<bool, LedgerError> {
    let now = ctx.clock.now();
    let Some(id) = ctx.ledger.plan_run(run, now).await? else { return Ok(false) };
    let subject = run.sync.to_string();
    let figures = format!(
        "run {id}: version {} to deliver, {} to add, {} to remove",
        run.to_version, run.adds, run.removes
    );
    let (what, why) = match &run.held {
        Some(reason) => ("held", format!("{figures}; {reason}")),
        None => ("planned", figures),
    };
    // For a whole account one alert is enough.
    if let Some(reason) = run.held.as_ref().filter(|_| !account_held) {
        let message = format!("{reason}. `throng sync approve {id}`");
        let alert = NewAlert { kind: AlertKind::RunHeld, subject: subject.clone(), message };
        ctx.ledger.raise_alert(&alert, now).await?;
    }
    let entry = HistoryEntry {
        subject_kind: "sync".to_owned(),
        subject,
        what: what.to_owned(),
        why,
        at: now,
        actor: None,
    };
    ctx.ledger.record(&[entry]).await?;
    Ok(true)
}
