//! Plans a run for every sync whose audience has a version that was not delivered yet, or whose
//! identifiers have to be sent anew.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use throng_activation::{
    Delivered, DifferenceFacts, PlanFacts, RunRows, Scan, SendClass, SendError, difference,
    plan_run,
};
use throng_membership::{MemberSet, SnapshotFile};
use throng_model::{Backoff, HashedIdentifier, SyncName, Timestamp};
use throng_spec::{Adopt, Sync};
use throng_store::{
    AlertKind, DeliveredRecord, ForeignAudience, HistoryEntry, Hold, HoldCause, LedgerError,
    NewAlert, NewRun, PlatformAudience, RunState, SyncMode, SyncRun,
};
use throng_telemetry::spans;
use tracing::Instrument as _;

use super::delivered::{self, DeliveredError, account_of, is_due, new_object, salt};
use super::jobs::{JobError, RUNS_LOOKED_AT, covers, platform_name, snapshot};
use super::{account, removals, scans};
use crate::NodeContext;

/// Between tries to plan a sync whose identifiers cannot be read.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(600) };

/// What the planner remembers between rounds. Lost with the process, which costs a try.
#[derive(Debug, Default)]
pub(super) struct Planner {
    /// Syncs that could not be planned: failures in a row, and when the next try is due.
    failed: Mutex<HashMap<SyncName, (u32, Timestamp)>>,
}

impl Planner {
    pub(super) fn rests(&self, sync: &SyncName, now: Timestamp) -> bool {
        let failed = self.failed.lock();
        failed.get(sync).is_some_and(|(_, until)| *until > now)
    }

    pub(super) fn note(&self, sync: &SyncName, ok: bool, now: Timestamp) {
        let mut failed = self.failed.lock();
        if ok {
            failed.remove(sync);
            return;
        }
        let failures = failed.get(sync).map_or(0, |(failures, _)| *failures).saturating_add(1);
        let until = now.plus(BACKOFF.delay(failures, failures.into()));
        failed.insert(sync.clone(), (failures, until));
    }
}

/// A sync for which a run is to be planned.
pub(super) struct Todo<'s> {
    pub(super) sync: &'s Sync,
    pub(super) platform: String,
    account: String,
    record: Option<DeliveredRecord>,
    /// The id of an audience on the platform whose list a run is to replace, once a person approves.
    adopts: Option<String>,
    version: u64,
    pub(super) target: Arc<SnapshotFile>,
}

/// A fingerprint of what makes the identifiers of a sync what they are.
fn fingerprint(sync: &Sync, platform: &str) -> String {
    let of = &sync.identifiers;
    let text =
        format!("{platform}\n{}\n{}\n{:?}\n{:?}", of.sql, of.key, of.columns, of.default_country);
    HashedIdentifier::of_normalised(&text).to_hex().chars().take(16).collect()
}

fn keys_of(sync: &Sync) -> Vec<String> {
    sync.identifiers.columns.iter().map(|(_, key)| key.clone()).collect()
}

/// Plans what there is to plan. Whether a run was planned. One sync's trouble is no other's.
pub(super) async fn plan_all(ctx: &NodeContext, planner: &Planner) -> Result<bool, LedgerError> {
    let now = ctx.clock.now();
    let (mut changed, failed) =
        delivered::record_ended(ctx, |sync| planner.rests(sync, now)).await?;
    for (sync, error) in failed {
        planner.note(&sync, false, now);
        changed |= cannot_plan(ctx, &sync, &error.into(), now).await?;
    }
    changed |= removals::advance(ctx, planner).await?;
    let spec = ctx.spec.load_full();
    let todo = to_plan(ctx, planner, &spec).await?;
    // One pass over the identifiers for all syncs that read the same.
    let mut groups: BTreeMap<String, Vec<Todo<'_>>> = BTreeMap::new();
    for todo in todo {
        groups.entry(fingerprint(todo.sync, &todo.platform)).or_default().push(todo);
    }
    for (identifiers, group) in groups {
        let scan = scans::read(ctx, &group).await;
        for todo in &group {
            let planned = match &scan {
                Ok(scan) => {
                    let span = spans::sync_run(None, &todo.sync.name, &todo.sync.audience);
                    plan_sync(ctx, todo, scan, &identifiers).instrument(span).await
                }
                Err(error) => Err(error.clone().into()),
            };
            let now = ctx.clock.now();
            planner.note(&todo.sync.name, planned.is_ok(), now);
            match planned {
                Ok(done) => changed |= done,
                Err(JobError::Ledger(error)) => return Err(error),
                Err(error) => changed |= cannot_plan(ctx, &todo.sync.name, &error, now).await?,
            }
        }
    }
    Ok(changed)
}

impl From<SendError> for JobError {
    fn from(error: SendError) -> Self {
        Self::Identifiers(error)
    }
}

/// Says that a sync cannot be planned; it is tried again.
async fn cannot_plan(
    ctx: &NodeContext,
    sync: &SyncName,
    error: &JobError,
    now: Timestamp,
) -> Result<bool, LedgerError> {
    let words = throng_model::with_causes(error);
    tracing::error!(%sync, error = words, "cannot plan a run");
    let message = format!("no run can be planned: {words}. It is tried again.");
    let alert = NewAlert { kind: AlertKind::TaskFailed, subject: sync.to_string(), message };
    ctx.ledger.raise_alert(&alert, now).await?;
    Ok(true)
}

/// The syncs for which a run is to be planned.
async fn to_plan<'s>(
    ctx: &NodeContext,
    planner: &Planner,
    spec: &'s throng_spec::Spec,
) -> Result<Vec<Todo<'s>>, LedgerError> {
    let now = ctx.clock.now();
    let delivered: HashMap<SyncName, PlatformAudience> =
        ctx.ledger.delivered().await?.into_iter().collect();
    // One question for all: of thousands of syncs hardly any needs a plan.
    let unsettled: HashMap<SyncName, RunState> =
        ctx.ledger.unsettled().await?.into_iter().collect();
    let records = ctx.ledger.delivered_records().await?;
    let mut records: HashMap<SyncName, DeliveredRecord> =
        records.into_iter().map(|record| (record.sync.clone(), record)).collect();
    let foreign = ctx.ledger.foreign_audiences().await?;
    let mut foreign: HashMap<SyncName, ForeignAudience> =
        foreign.into_iter().map(|found| (found.sync.clone(), found)).collect();
    let index = ctx.membership.load_full();
    let current: HashMap<_, _> =
        index.versions().map(|(name, version, _)| (name.clone(), version)).collect();
    let stopped = stopped(ctx).await?;
    let mut todo = Vec::new();
    for sync in spec.syncs.iter().filter(|sync| !stopped.contains(&sync.name)) {
        let Some(version) = current.get(&sync.audience).copied() else { continue };
        let declared = spec.destinations.iter().find(|d| d.name == sync.destination);
        let Some(declared) = declared else { continue };
        let mut record = records.remove(&sync.name);
        let account = account_of(declared);
        if let Some(old) = record.take_if(|record| record.account != account) {
            moved(ctx, &old, &account).await?;
        }
        let at = delivered.get(&sync.name).and_then(|p| p.delivered_version);
        let same = record.as_ref().is_none_or(|record| {
            !record.replace && record.identifiers == fingerprint(sync, declared.platform.name())
        });
        let settled = at == Some(version) && same && !is_due(record.as_ref(), now);
        match unsettled.get(&sync.name) {
            Some(RunState::Active | RunState::Held) => continue,
            // The platform may hold something else than what was delivered.
            Some(RunState::Failed) => {}
            Some(RunState::Completed) | None if settled => continue,
            Some(RunState::Completed) | None => {}
        }
        if planner.rests(&sync.name, now) {
            continue;
        }
        let newest = ctx.ledger.runs(Some(&sync.name), 1).await?;
        // A person asked for a run.
        let asked =
            record.as_ref().is_some_and(|record| record.replace || record.identifiers.is_empty());
        let foreign = foreign.remove(&sync.name).filter(|foreign| foreign.found);
        let adopts = foreign.filter(|_| sync.adopt == Adopt::Replace);
        // The newest run found it, and no run to replace its list was planned yet.
        let asked = asked
            || adopts.as_ref().is_some_and(|f| newest.first().is_some_and(|run| run.id == f.run));
        // It was recreated: what failed before says nothing about the new audience.
        let recreated = !delivered.contains_key(&sync.name)
            && newest.first().is_some_and(|run| run.plan.is_none());
        if waits(newest.first(), version, asked || recreated) {
            continue;
        }
        let target = match snapshot(ctx, &sync.audience, version).await {
            Ok(target) => target.filter(|t| covers(&ctx.membership.load(), t)),
            Err(JobError::Ledger(error)) => return Err(error),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(sync = %sync.name, error, "cannot plan a run");
                None
            }
        };
        let Some(target) = target else { continue };
        let platform = declared.platform.name().to_owned();
        let adopts = adopts.map(|foreign| foreign.platform_id);
        todo.push(Todo { sync, platform, account, record, adopts, version, target });
    }
    Ok(todo)
}

/// Syncs of which no run is planned: those that are paused, and those that are declared again while their
/// removal is carried out. They begin anew after that.
async fn stopped(ctx: &NodeContext) -> Result<HashSet<SyncName>, LedgerError> {
    let paused = ctx.ledger.paused_syncs().await?.into_iter().map(|(sync, _)| sync);
    let removals = ctx.ledger.removals().await?.into_iter().map(|removal| removal.sync);
    Ok(paused.chain(removals).collect())
}

/// The sync has another account: what the old one has stays there, and is no longer kept equal.
async fn moved(ctx: &NodeContext, old: &DeliveredRecord, account: &str) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let why = format!(
        "the sync has moved from account {} to {account}; the audience on the old account keeps its {} \
         users and is no longer updated",
        old.account, old.users
    );
    ctx.ledger.forget_delivered(&old.sync, &why, now).await?;
    let entry = HistoryEntry {
        subject_kind: "sync".to_owned(),
        subject: old.sync.to_string(),
        what: "moved".to_owned(),
        why,
        at: now,
        actor: None,
    };
    ctx.ledger.record(&[entry]).await
}

/// Whether a sync with this newest run waits for something else than a new run. `asked`: a person wants
/// everything to be sent anew.
fn waits(newest: Option<&SyncRun>, version: u64, asked: bool) -> bool {
    newest.is_some_and(|run| match run.state {
        RunState::Active | RunState::Held => true,
        // To the same version again only when a person says so: `throng sync requeue`.
        RunState::Failed => run.to_version == version && !asked && run.pending > 0,
        RunState::Completed => false,
    })
}

/// What the platform was given; whether that is known for certain, and was given by the same columns.
async fn base(
    ctx: &NodeContext,
    todo: &Todo<'_>,
    keys: &[String],
) -> Result<(Delivered, bool, bool), JobError> {
    let platform = ctx.ledger.platform_audience(&todo.sync.name).await?;
    let mut runs = ctx.ledger.runs(Some(&todo.sync.name), RUNS_LOOKED_AT).await?;
    runs.reverse();
    let after = todo.record.as_ref().map(|record| record.run);
    runs.retain(|run| after.is_none_or(|after| run.id > after));
    let ended = |run: &SyncRun| matches!(run.state, RunState::Completed | RunState::Failed);
    // An earlier version delivered without remembering what.
    let unknown = platform.is_some()
        && todo.record.is_none()
        && runs.iter().any(|run| ended(run) && run.plan.is_none());
    let record = todo.record.as_ref();
    let asked = todo.adopts.is_some() || record.is_some_and(|record| record.replace);
    // What was done is not looked at where everything is sent anew.
    let planned: Vec<SyncRun> =
        runs.into_iter().filter(|run| !asked && ended(run) && run.plan.is_some()).collect();
    let record = record.filter(|_| !asked);
    let delivered = delivered::delivered(ctx, record, &todo.account, keys, &planned).await?;
    let same = |known: &[String]| known == keys;
    let columns = same(&delivered.state.meta.keys)
        && delivered.runs.iter().all(|run| same(&run.plan.meta.keys));
    Ok((delivered, !unknown && !asked, columns))
}

/// Plans a run of one sync. Whether anything was recorded.
async fn plan_sync(
    ctx: &NodeContext,
    todo: &Todo<'_>,
    scan: &Arc<Scan>,
    identifiers: &str,
) -> Result<bool, JobError> {
    let sync = todo.sync;
    let keys = keys_of(sync);
    let (delivered, known, columns) = base(ctx, todo, &keys).await?;
    let failed = delivered.runs.last().is_some_and(|run| !run.completed);
    let mode = mode(sync);
    let target = MemberSet::of_snapshot(&todo.target);
    let replace = !target.is_empty() && replaces(todo, mode, known && columns);
    let unknown = !known && mode != SyncMode::Add && delivered.runs.is_empty();
    if target.is_empty() && (unknown || todo.adopts.is_some()) {
        let message = format!(
            "the audience is empty, and what the platform holds is not known: it cannot be emptied row \
             by row. `throng sync recreate {}` makes a new audience there",
            sync.name
        );
        return Err(SendError::local(SendClass::Stop, message).into());
    }
    let object = new_object("plans")?;
    let path = delivered::local(ctx, &object);
    let bound = delivered::plan_binding(&todo.account, &sync.name, &object);
    let (secret, salt) = (delivered::keys(ctx).await?, salt()?);
    let strong =
        throng_destinations::preparation(&todo.platform).map_or(&[][..], |p| p.strong_keys);
    let (scan, identifiers) = (Arc::clone(scan), identifiers.to_owned());
    let fingerprint = identifiers.clone();
    let worked = tokio::task::spawn_blocking(move || {
        let facts = DifferenceFacts {
            delivered: &delivered,
            target: &target,
            scan: &scan,
            mode,
            replace,
            keys: &keys,
            strong,
            identifiers: &identifiers,
        };
        difference(&facts, &path, &secret, bound, salt)
    });
    let found = worked.await.map_err(|_| DeliveredError::Broken)?.map_err(DeliveredError::from)?;
    let platform = ctx.ledger.platform_audience(&sync.name).await?;
    if found.is_empty() && platform.is_some() && known && !failed {
        ctx.objects.remove(&object).await?;
        return Ok(nothing_to_do(ctx, todo, fingerprint).await?);
    }
    ctx.objects.keep(&object).await?;
    let delivered = platform.and_then(|p| p.delivered_version);
    let (from, leaving) = match delivered {
        Some(version) if known => (Some((version, found.before)), found.leaving),
        Some(version) => of_snapshots(ctx, todo, version).await?,
        None => (None, 0),
    };
    let account_held =
        ctx.ledger.open_alert(AlertKind::RunHeld, &account(&sync.destination)).await?;
    let account_held = account_held.map(|reason| Hold::new(HoldCause::Account, reason));
    let run = plan_run(PlanFacts {
        sync: sync.name.clone(),
        audience: sync.audience.clone(),
        destination: sync.destination.clone(),
        mode: if replace { SyncMode::Replace } else { mode },
        batch_rows: sync.batch_rows,
        priority: sync.priority,
        max_removed_percent: sync.max_removed_percent,
        from,
        to_version: todo.version,
        leaving,
        rows: RunRows::Planned {
            meta: &found.meta,
            object: &object,
            normalised: &found.normalised,
        },
        hold: adoption(todo).or_else(|| account_held.clone()),
    });
    if record(ctx, &run, account_held.is_some()).await? {
        return Ok(true);
    }
    ctx.objects.remove(&object).await?;
    Ok(false)
}

/// Whether a run sends everything in a replace session. `certain`: what the platform holds is known, and
/// was given by the same columns.
fn replaces(todo: &Todo<'_>, mode: SyncMode, certain: bool) -> bool {
    todo.adopts.is_some() || mode == SyncMode::Replace || (mode == SyncMode::Mirror && !certain)
}

/// Why a run that takes over an audience waits for a person.
fn adoption(todo: &Todo<'_>) -> Option<Hold> {
    let id = todo.adopts.as_ref()?;
    let reason = format!(
        "the audience `{}` on the platform ({id}) has users that this sync did not put there, and \
         adopt = replace: its list would be replaced; approve the run if that is meant",
        platform_name(todo.sync)
    );
    Some(Hold::new(HoldCause::Adoption, reason))
}

/// The platform has all of it already.
async fn nothing_to_do(
    ctx: &NodeContext,
    todo: &Todo<'_>,
    identifiers: String,
) -> Result<bool, LedgerError> {
    let now = ctx.clock.now();
    ctx.ledger.deliver_version(&todo.sync.name, todo.version, now).await?;
    ctx.ledger.resolve_alert(AlertKind::TaskFailed, todo.sync.name.as_str(), now).await?;
    if let Some(record) = &todo.record {
        let (due, retry_at, tries) = (0, None, 0);
        let record = DeliveredRecord { identifiers, due, retry_at, tries, ..record.clone() };
        ctx.ledger.put_delivered_record(&record, &[]).await?;
    }
    Ok(true)
}

/// Who was delivered by an earlier version, and how many of them would leave.
async fn of_snapshots(
    ctx: &NodeContext,
    todo: &Todo<'_>,
    version: u64,
) -> Result<(Option<(u64, u64)>, u64), JobError> {
    let Some(old) = snapshot(ctx, &todo.sync.audience, version).await? else {
        return Ok((Some((version, 0)), 0));
    };
    let target = Arc::clone(&todo.target);
    let counted = tokio::task::spawn_blocking(move || {
        let old = MemberSet::of_snapshot(&old);
        (old.len(), old.minus(&MemberSet::of_snapshot(&target)).len())
    });
    let (members, leaving) = counted.await.map_err(|_| DeliveredError::Broken)?;
    Ok((Some((version, members)), leaving))
}

fn mode(sync: &Sync) -> SyncMode {
    match sync.mode {
        throng_spec::SyncMode::Mirror => SyncMode::Mirror,
        throng_spec::SyncMode::Add => SyncMode::Add,
        throng_spec::SyncMode::Replace => SyncMode::Replace,
    }
}

/// Records a run in ledger and history, with an alert if it is held. `false` if it cannot be planned now.
pub(super) async fn record(
    ctx: &NodeContext,
    run: &NewRun,
    account_held: bool,
) -> Result<bool, LedgerError> {
    let now = ctx.clock.now();
    let Some(id) = ctx.ledger.plan_run(run, now).await? else { return Ok(false) };
    let subject = run.sync.to_string();
    let figures = format!(
        "run {id}: version {} to deliver, {} to add, {} to remove",
        run.to_version, run.adds, run.removes
    );
    let (what, why) = match &run.held {
        Some(hold) => ("held", format!("{figures}; {}", hold.reason)),
        None => ("planned", figures),
    };
    // For a whole account one alert is enough.
    if let Some(hold) = run.held.as_ref().filter(|_| !account_held) {
        let message = format!("{}. `throng sync approve {id}`", hold.reason);
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
