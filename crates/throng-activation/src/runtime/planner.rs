//! Plans a run for every sync whose audience has a version that was not delivered yet, or whose identifiers may
//! have changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use throng_membership::{MemberSet, SnapshotFile};
use throng_model::{AudienceName, HashedIdentifier, SyncMode, SyncName};
use throng_spec::{Adopt, Spec, Sync};
use throng_store::{
    AlertKind, DeliveredRecord, ForeignAudience, HistoryEntry, HistoryEvent, Hold, HoldCause,
    LedgerError, NewRun, PlanBase, PlatformAudience, RunState, SyncRun,
};
use throng_telemetry::spans;
use tracing::Instrument as _;

use super::account_hold::account_alert_subject;
use super::backoff::PlanBackoff;
use super::context::Activation;
use super::declaration::keys_of;
use super::delivered_objects::{self, DifferenceInputs, new_object};
use super::errors::{DeliveredError, InputError};
use super::identifier_scan;
use super::planned_run::{end_failure, no_rows_error, record_run, report_plan_failure};
use super::results::is_due;
use super::snapshots::{MAX_RUNS, covers, snapshot};
use super::user_counts;
use crate::{Delivered, DeliveredColumns, PlanFacts, RunRows, Scan, UserCounts, plan_run};

/// A sync that needs a run.
struct PlanRequest<'s> {
    sync: &'s Sync,
    platform: String,
    account: String,
    /// What the decision to plan a run was made from.
    base: PlanBase,
    /// The id of a foreign audience on the platform whose list the run replaces after approval.
    adopts: Option<String>,
    version: u64,
    target: Arc<SnapshotFile>,
}

/// A fingerprint of the declaration of a sync's identifiers. Syncs with the same one share a scan of identifiers.
fn fingerprint(sync: &Sync, platform: &str) -> String {
    let declared = &sync.identifiers;
    let mut text = format!(
        "{platform}\n{}\n{}\n{:?}\n{:?}",
        declared.sql, declared.key, declared.columns, declared.default_country
    );
    // The same SQL reads other tables in another workspace.
    if let Some(workspace) = sync.name.workspace() {
        text.push_str(&format!("\n{workspace}"));
    }
    HashedIdentifier::of_normalised(&text).to_hex().chars().take(16).collect()
}

/// What a delivered state is recorded with: the fingerprint of the identifiers, and the audience. If one of them has
/// changed, the sync is compared with its delivered state again, also if the version to deliver has the number of the
/// delivered one: the versions of two audiences have the same numbers.
fn declaration(sync: &Sync, platform: &str) -> String {
    format!("{} {}", fingerprint(sync, platform), sync.audience)
}

/// Plans the runs of all syncs that need one. Returns whether anything was recorded. A failure of one sync does not
/// affect others.
pub(super) async fn plan_all(ctx: &Activation, backoff: &PlanBackoff) -> Result<bool, LedgerError> {
    let mut changed = false;
    let spec = ctx.node.spec();
    let requests = plan_requests(ctx, backoff, &spec).await?;
    // One pass over the identifiers for all syncs with the same identifier query.
    let mut groups: BTreeMap<String, Vec<PlanRequest<'_>>> = BTreeMap::new();
    for request in requests {
        groups.entry(fingerprint(request.sync, &request.platform)).or_default().push(request);
    }
    for group in groups.into_values() {
        // All requests of the group have the same query.
        let Some(first) = group.first() else { continue };
        let targets = group.iter().map(|request| Arc::clone(&request.target)).collect();
        let tables =
            group.iter().filter_map(|request| request.base.record.as_ref()?.tables.clone());
        let tables: BTreeSet<String> = tables.collect();
        let tables: Vec<String> = tables.into_iter().collect();
        let scan = identifier_scan::read(ctx, first.sync, &first.platform, targets, &tables).await;
        for request in &group {
            let planned = match &scan {
                Ok(scan) => {
                    let span = spans::sync_run(None, &request.sync.name, &request.sync.audience);
                    plan_sync(ctx, request, scan).instrument(span).await
                }
                Err(error) => Err(error.clone().into()),
            };
            let now = ctx.clock.now();
            backoff.record(&request.sync.name, planned.is_ok(), now);
            match planned {
                Ok(done) => changed |= done,
                Err(InputError::Ledger(error)) => return Err(error),
                Err(error) => {
                    changed |= report_plan_failure(ctx, &request.sync.name, &error, now).await?
                }
            }
        }
    }
    Ok(changed)
}

/// The syncs that need a run.
async fn plan_requests<'s>(
    ctx: &Activation,
    backoff: &PlanBackoff,
    spec: &'s Spec,
) -> Result<Vec<PlanRequest<'s>>, LedgerError> {
    let now = ctx.clock.now();
    // One query for all syncs: of thousands only few need a run. Before the delivered versions: a run that completes in
    // between would be missing in both, and its identifiers would be read again.
    let open_runs: HashMap<SyncName, RunState> =
        ctx.ledger.incomplete_syncs().await?.into_iter().collect();
    let mut audiences: HashMap<SyncName, PlatformAudience> =
        ctx.ledger.delivered().await?.into_iter().collect();
    let records = ctx.ledger.delivered_records().await?;
    let mut records: HashMap<SyncName, DeliveredRecord> =
        records.into_iter().map(|record| (record.sync.clone(), record)).collect();
    let foreign = ctx.ledger.foreign_audiences().await?;
    let mut foreign: HashMap<SyncName, ForeignAudience> =
        foreign.into_iter().filter(|f| f.found).map(|f| (f.sync.clone(), f)).collect();
    let index = ctx.node.membership();
    let current: HashMap<_, _> =
        index.snapshots().map(|(name, it)| (name, (it.meta().version, it.members()))).collect();
    let excluded_syncs = excluded_syncs(ctx).await?;
    let mut requests = Vec::new();
    for sync in spec.syncs.iter().filter(|sync| !excluded_syncs.contains(&sync.name)) {
        let Some((version, members)) = current.get(&sync.audience).copied() else { continue };
        let declared = spec.destinations.iter().find(|d| d.name == sync.destination);
        let Some(declared) = declared else { continue };
        let mut record = records.remove(&sync.name);
        let account = declared.account();
        let mut audience = audiences.remove(&sync.name);
        if let Some(old) = record.take_if(|record| record.account != account) {
            record_account_change(ctx, &old, audience.as_ref(), &account).await?;
            audience = None;
        }
        let at = audience.as_ref().and_then(|audience| audience.delivered_version);
        let is_same = record.as_ref().is_none_or(|record| {
            !record.replace
                && !record.requested
                && record.identifiers == declaration(sync, declared.platform.name())
        });
        let settled = at == Some(version)
            && is_same
            && !is_due(record.as_ref(), now)
            && (record.is_some() || is_audience_of_newest_run(ctx, sync).await?);
        match open_runs.get(&sync.name) {
            Some(RunState::Active | RunState::Held) => continue,
            // The platform's list may differ from the delivered state.
            Some(RunState::Failed) => {}
            Some(RunState::Completed) | None if settled => continue,
            Some(RunState::Completed) | None => {}
        }
        if sync.waits_for_members(audience.is_some(), members) {
            end_failure(ctx, &sync.name).await?;
            continue;
        }
        if backoff.is_waiting(&sync.name, now) {
            continue;
        }
        let newest = ctx.ledger.runs(Some(&sync.name), 1).await?;
        // A person has requested a run, and none was planned since.
        let requested = record.as_ref().is_some_and(|record| record.requested);
        let adopts = foreign.remove(&sync.name).filter(|_| sync.adopt == Adopt::Replace);
        // The newest run has found a foreign audience, and no run that replaces its list was planned yet.
        let requested = requested
            || adopts.as_ref().is_some_and(|f| newest.first().is_some_and(|run| run.id == f.run));
        // The audience was recreated: an earlier failure says nothing about the new audience.
        let recreated = audience.is_none() && newest.first().is_some_and(|run| run.plan.is_none());
        if is_blocked(newest.first(), (&sync.audience, version), requested || recreated)
            || is_replaced(newest.first(), record.as_ref())
        {
            continue;
        }
        let Some(target) = target_of(ctx, sync, version).await? else { continue };
        let platform = declared.platform.name().to_owned();
        let adopts = adopts.map(|foreign| foreign.platform_id);
        let base = PlanBase { record, audience, newest: newest.into_iter().next() };
        requests.push(PlanRequest { sync, platform, account, base, adopts, version, target });
    }
    Ok(requests)
}

/// Whether the newest run of a sync has its audience. Only for syncs without a recorded delivery, because it is a query
/// for each.
async fn is_audience_of_newest_run(ctx: &Activation, sync: &Sync) -> Result<bool, LedgerError> {
    let newest = ctx.ledger.runs(Some(&sync.name), 1).await?;
    Ok(newest.first().is_none_or(|run| run.audience == sync.audience))
}

/// The snapshot that a sync is to deliver. `None` if it cannot be opened, or the loaded dictionaries do not cover it.
async fn target_of(
    ctx: &Activation,
    sync: &Sync,
    version: u64,
) -> Result<Option<Arc<SnapshotFile>>, LedgerError> {
    match snapshot(ctx, &sync.audience, version).await {
        Ok(target) => Ok(target.filter(|target| covers(&ctx.node.membership(), target))),
        Err(InputError::Ledger(error)) => Err(error),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(sync = %sync.name, error, "failed to open snapshot");
            Ok(None)
        }
    }
}

/// Syncs without planning: paused ones, and those that are declared again while their removal is executed. They
/// start with an empty delivered state afterwards.
async fn excluded_syncs(ctx: &Activation) -> Result<HashSet<SyncName>, LedgerError> {
    let paused = ctx.ledger.paused_syncs().await?.into_iter().map(|(sync, _)| sync);
    let removals = ctx.ledger.removals().await?.into_iter().map(|removal| removal.sync);
    Ok(paused.chain(removals).collect())
}

/// Records that a sync has another account. The audience on the old account remains and is no longer updated.
async fn record_account_change(
    ctx: &Activation,
    old: &DeliveredRecord,
    audience: Option<&PlatformAudience>,
    account: &str,
) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let id = audience.map(|audience| format!(" {}", audience.platform_id)).unwrap_or_default();
    let why = format!(
        "the sync has moved from account {} to {account}; the audience{id} on the old account keeps its {} \
         users and is no longer updated",
        old.account, old.users
    );
    ctx.ledger.forget_delivered(&old.sync, &why, now).await?;
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Sync,
        subject: old.sync.to_string(),
        what: HistoryEvent::Moved,
        why,
        at: now,
        actor: None,
    };
    ctx.ledger.record_history(&[entry]).await
}

/// Whether a sync with this newest run cannot get a new run to this version of an audience now. `requested`: a person
/// has requested a run, or the audience was recreated.
fn is_blocked(
    newest: Option<&SyncRun>,
    (audience, version): (&AudienceName, u64),
    requested: bool,
) -> bool {
    newest.is_some_and(|run| match run.state {
        RunState::Active | RunState::Held => true,
        // The same version is sent again only after `throng sync requeue`, or if the run has sent all of its rows.
        RunState::Failed => {
            let is_same = run.to_version == version && run.audience == *audience;
            is_same && !requested && (run.pending > 0 || run.read == 0)
        }
        RunState::Completed => false,
    })
}

/// Whether the newest run has just sent the whole list that a person has requested, and its result is not recorded yet:
/// until then the record still demands the whole list.
fn is_replaced(newest: Option<&SyncRun>, record: Option<&DeliveredRecord>) -> bool {
    let is_planned = record.is_some_and(|record| record.replace && !record.requested);
    let is_unrecorded = |run: &SyncRun| run.state == RunState::Completed && run.plan.is_some();
    is_planned && newest.is_some_and(is_unrecorded)
}

/// What a difference starts from.
struct DifferenceBase {
    delivered: Delivered,
    /// The platform's list is known: no rows were delivered without being recorded.
    is_known: bool,
    /// The columns of its rows.
    columns: DeliveredColumns,
    /// The run that has delivered another audience, if the sync has delivered another one so far.
    other: Option<SyncRun>,
    /// What was delivered, if the whole list is replaced: it is only counted.
    replaced: Option<Delivered>,
}

/// The newest completed run if it has delivered another audience, and the current one was not delivered since without
/// a run. `runs`: newest first.
fn run_of_other_audience(request: &PlanRequest<'_>, runs: &[SyncRun]) -> Option<SyncRun> {
    let declared = declaration(request.sync, &request.platform);
    if request.base.record.as_ref().is_some_and(|record| record.identifiers == declared) {
        return None;
    }
    let completed = runs.iter().find(|run| run.state == RunState::Completed);
    completed.filter(|run| run.audience != request.sync.audience).cloned()
}

/// Loads the delivered state that a run of a sync starts from.
async fn difference_base(
    ctx: &Activation,
    request: &PlanRequest<'_>,
    keys: &[String],
) -> Result<DifferenceBase, InputError> {
    let platform = ctx.ledger.platform_audience(&request.sync.name).await?;
    let mut runs = ctx.ledger.runs(Some(&request.sync.name), MAX_RUNS).await?;
    let other = run_of_other_audience(request, &runs);
    runs.reverse();
    let after = request.base.record.as_ref().map(|record| record.run);
    runs.retain(|run| after.is_none_or(|after| run.id > after));
    let ended = |run: &SyncRun| matches!(run.state, RunState::Completed | RunState::Failed);
    // An earlier version delivered without recording rows.
    let unknown = platform.is_some()
        && request.base.record.is_none()
        && runs.iter().any(|run| ended(run) && run.plan.is_none());
    let record = request.base.record.as_ref();
    let replaces = request.adopts.is_some() || record.is_some_and(|record| record.replace);
    runs.retain(|run| ended(run) && run.plan.is_some());
    // If the whole list is replaced, the delivered state is not needed for what is sent.
    let counts = replaces && request.adopts.is_none() && request.sync.mode != SyncMode::Add;
    let replaced = match record.filter(|_| counts) {
        Some(record) => user_counts::open(ctx, record, keys, &runs).await,
        None => None,
    };
    let record = record.filter(|_| !replaces);
    runs.retain(|_| !replaces);
    let delivered =
        delivered_objects::delivered(ctx, record, &request.account, keys, &runs).await?;
    let (delivered, columns) = delivered_objects::with_columns(delivered).await?;
    let is_known = !unknown && !replaces;
    Ok(DifferenceBase { delivered, is_known, columns, other, replaced })
}

/// Plans a run of one sync. Returns whether anything was recorded.
///
/// A mirror whose list on the platform is not known for certain is replaced as a whole: a difference to an unknown
/// list would leave users on the platform who have left the audience. So is one with rows of several column sets, which
/// a sync in mode `add` leaves behind: its removals would name the wrong keys, and the platform would accept them.
async fn plan_sync(
    ctx: &Activation,
    request: &PlanRequest<'_>,
    scan: &Arc<Scan>,
) -> Result<bool, InputError> {
    let sync = request.sync;
    let (keys, identifiers) = (keys_of(sync), declaration(sync, &request.platform));
    let base = difference_base(ctx, request, &keys).await?;
    let DifferenceBase { delivered, is_known, columns, other, replaced } = base;
    let has_same_columns = columns.keys == keys && !columns.has_several;
    let failed = delivered.runs.last().is_some_and(|run| !run.completed);
    let mode = sync.mode;
    let target = MemberSet::of_snapshot(&request.target);
    let replace = is_replace_run(request, mode, is_known && has_same_columns);
    let (target, has_rows) = match replace && !target.is_empty() {
        true => with_usable_rows(scan, target).await?,
        false => {
            let has_users = !target.is_empty();
            (target, has_users)
        }
    };
    let replace = replace && has_rows;
    let unknown = (!is_known && delivered.runs.is_empty()) || columns.has_several;
    if !has_rows && ((unknown && mode != SyncMode::Add) || request.adopts.is_some()) {
        return Err(no_rows_error(&sync.name, target.is_empty(), columns.has_several).into());
    }
    let (counted, target) = user_counts::of_state(replaced, target, scan, &keys).await?;
    let object = new_object("plans")?;
    let inputs = DifferenceInputs {
        delivered,
        target,
        scan: Arc::clone(scan),
        mode,
        replace,
        keys,
        platform: &request.platform,
        identifiers: identifiers.clone(),
        adopts: request.adopts.clone(),
    };
    let diff = inputs.write(ctx, &request.account, &sync.name, &object).await?;
    let platform = ctx.ledger.platform_audience(&sync.name).await?;
    if diff.is_empty() && platform.is_some() && is_known && !failed {
        ctx.objects.remove(&object).await?;
        return Ok(record_up_to_date(ctx, request, identifiers, scan.tables()).await?);
    }
    ctx.objects.upload(&object).await?;
    let of_diff = diff.users(platform.is_some());
    let from_version = platform.and_then(|p| p.delivered_version);
    let users = match (is_known.then_some(of_diff).or(counted), from_version) {
        (None, Some(version)) => users_by_snapshots(ctx, request, version, other.as_ref()).await?,
        (counted, _) => counted,
    };
    let mut run = plan_run(PlanFacts {
        sync: sync.name.clone(),
        audience: sync.audience.clone(),
        destination: sync.destination.clone(),
        mode: if replace { SyncMode::Replace } else { mode },
        batch_rows: sync.batch_rows,
        priority: sync.priority,
        max_removed_percent: sync.max_removed_percent,
        from_version,
        users_before: users.map(|users| users.before),
        to_version: request.version,
        users_removed: users.map_or(0, |users| users.removed),
        rows: RunRows::Planned { meta: &diff.meta, object: &object, normalised: &diff.normalised },
        hold: match adoption_hold(request) {
            None => account_hold(ctx, sync).await?,
            adoption => adoption,
        },
    });
    if let Some(other) = other.filter(|_| from_version.is_some()) {
        note_other_audience(&mut run, &other.audience);
    }
    // A run that was requested or planned since is not replaced by this one, which may be for an older version.
    if record_run(ctx, &run, &request.base).await? {
        return Ok(true);
    }
    ctx.objects.remove(&object).await?;
    Ok(false)
}

/// Whether one of these users has a usable identifier row. Without one no replace session can be sent: the list is
/// emptied row by row instead. Returns the users too.
async fn with_usable_rows(
    scan: &Arc<Scan>,
    users: MemberSet,
) -> Result<(MemberSet, bool), DeliveredError> {
    let scan = Arc::clone(scan);
    let search = tokio::task::spawn_blocking(move || {
        let found = scan.has_usable_row(&users);
        (users, found)
    });
    let (users, found) = search.await.map_err(|_| DeliveredError::Interrupted)?;
    Ok((users, found?))
}

/// Whether a run sends the whole list in a replace session. `certain`: the platform's list is known, and was
/// delivered with the same columns.
fn is_replace_run(request: &PlanRequest<'_>, mode: SyncMode, certain: bool) -> bool {
    request.adopts.is_some() || mode == SyncMode::Replace || (mode == SyncMode::Mirror && !certain)
}

/// The hold of a run that adopts a foreign audience.
fn adoption_hold(request: &PlanRequest<'_>) -> Option<Hold> {
    let id = request.adopts.as_ref()?;
    let reason = format!(
        "the audience `{}` on the platform ({id}) has users that this sync did not add, and \
         adopt = replace: its list would be replaced; approve the run if that is intended",
        request.sync.name_on_platform()
    );
    Some(Hold::new(HoldCause::Adoption, reason))
}

/// The hold of the runs of a held account.
async fn account_hold(ctx: &Activation, sync: &Sync) -> Result<Option<Hold>, LedgerError> {
    let subject = account_alert_subject(&sync.destination);
    let reason = ctx.ledger.open_alert(AlertKind::RunHeld, &subject).await?;
    Ok(reason.map(|reason| Hold::new(HoldCause::Account, reason)))
}

/// Notes in a run that its sync has delivered another audience so far.
fn note_other_audience(run: &mut NewRun, before: &AudienceName) {
    // The delivered version is not one of this audience.
    run.from_version = None;
    if let Some(hold) = &mut run.held {
        hold.reason.push_str(&format!("; the sync has delivered audience {before} so far"));
    }
}

/// Records that the platform already has the version.
async fn record_up_to_date(
    ctx: &Activation,
    request: &PlanRequest<'_>,
    identifiers: String,
    tables: Option<&str>,
) -> Result<bool, LedgerError> {
    let now = ctx.clock.now();
    if let Some(before) = &request.base.record {
        let (due, retry_at, tries, requested) = (0, None, 0, false);
        let tables = tables.map(str::to_owned).or_else(|| before.tables.clone());
        let record = DeliveredRecord {
            identifiers,
            due,
            retry_at,
            tries,
            requested,
            tables,
            ..before.clone()
        };
        // Otherwise a run was requested since: it is planned in the next round.
        if !ctx.ledger.replace_delivered_record(Some(before), &record, &[]).await? {
            return Ok(false);
        }
    }
    ctx.ledger.record_delivered_version(&request.sync.name, request.version, now).await?;
    ctx.ledger.resolve_alert(AlertKind::TaskFailed, request.sync.name.as_str(), now).await?;
    Ok(true)
}

/// The users of the delivered version by its snapshot. `other`: the run that has delivered another audience.
async fn users_by_snapshots(
    ctx: &Activation,
    request: &PlanRequest<'_>,
    version: u64,
    other: Option<&SyncRun>,
) -> Result<Option<UserCounts>, InputError> {
    let (audience, version) =
        other.map_or((&request.sync.audience, version), |run| (&run.audience, run.to_version));
    user_counts::of_snapshots(ctx, audience, version, &request.target).await
}

#[cfg(test)]
mod tests {
    use throng_model::{SyncRunId, Timestamp};

    use super::*;

    fn run(state: RunState, read: u64, pending: u64) -> SyncRun {
        SyncRun {
            id: SyncRunId(1),
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode: SyncMode::Mirror,
            from_version: Some(1),
            to_version: 1,
            state,
            adds: read,
            removes: 0,
            read,
            sent: read - pending,
            skipped: Default::default(),
            rejected: Default::default(),
            pending,
            created_at: Timestamp(0),
            finished_at: None,
            reason: None,
            normalised: Default::default(),
            plan: None,
            users_removed: 0,
        }
    }

    #[test]
    fn a_requested_list_is_sent_once() {
        let record = |requested| DeliveredRecord {
            sync: "s".parse().unwrap(),
            account: String::new(),
            columns: String::new(),
            identifiers: String::new(),
            state: None,
            users: 0,
            run: SyncRunId(0),
            due: 0,
            retry_at: None,
            tries: 0,
            replace: true,
            requested,
            tables: None,
        };
        let recorded = run(RunState::Completed, 9, 0);
        let completed = SyncRun { plan: Some("plans/a".to_owned()), ..recorded.clone() };
        assert!(is_replaced(Some(&completed), Some(&record(false))));
        assert!(!is_replaced(Some(&completed), Some(&record(true))), "requested again");
        assert!(!is_replaced(Some(&recorded), Some(&record(false))), "of another run");
        assert!(!is_replaced(Some(&run(RunState::Failed, 9, 9)), Some(&record(false))));
        assert!(!is_replaced(None, Some(&record(false))) && !is_replaced(Some(&completed), None));
    }

    #[test]
    fn syncs_of_two_workspaces_never_share_a_scan_of_identifiers() {
        let of = |name: &str| {
            let text = format!(
                r#"{{"name": "{name}", "audience": "a", "destination": "d", "mode": "mirror",
                    "identifiers": {{"sql": "SELECT id, email FROM shop.users", "key": "id",
                        "columns": [["email", "EMAIL"]], "default_country": null,
                        "sql_at": {{"file": "throng.yaml", "line": 1}}}},
                    "max_removed_percent": 50, "batch_rows": 1, "priority": 0, "platform_name": null}}"#
            );
            let sync: Sync = serde_json::from_str(&text).unwrap();
            fingerprint(&sync, "meta")
        };
        assert_eq!(of("acme:one"), of("acme:two"));
        assert_ne!(of("acme:one"), of("globex:one"));
        assert_ne!(of("acme:one"), of("one"));
        assert_eq!(of("one"), of("two"));
    }

    #[test]
    fn a_failed_run_blocks_its_version_until_a_request() {
        let failed = run(RunState::Failed, 9, 9);
        let blocked = |run: &SyncRun, audience: &str, version, requested| {
            is_blocked(Some(run), (&audience.parse().unwrap(), version), requested)
        };
        assert!(blocked(&failed, "a", 1, false));
        assert!(!blocked(&failed, "a", 1, true), "a person has requested a run");
        assert!(!blocked(&failed, "a", 2, false), "there is a newer version");
        assert!(!blocked(&failed, "b", 1, false), "it is a version of another audience");
        // A run without rows would fail again at once.
        assert!(blocked(&run(RunState::Failed, 0, 0), "a", 1, false));
        assert!(!blocked(&run(RunState::Failed, 9, 0), "a", 1, false), "all rows were sent");
        assert!(blocked(&run(RunState::Active, 9, 9), "b", 1, true));
    }
}
