//! Delivered state of a node: the encryption key, the objects, and recording the results of ended runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use throng_activation::{
    Binding, Delivered, DeliveredState, Difference, DifferenceFacts, EndedRun, IdentifierKeys,
    PlanFile, RemovalCounts, Scan, SealedError, difference,
};
use throng_membership::MemberSet;
use throng_model::{SyncName, SyncRunId, Timestamp, new_secret};
use throng_objects::ObjectsError;
use throng_store::{DeliveredRecord, LedgerError, RunState, SyncMode, SyncRun};

use super::removals;
use crate::NodeContext;
use crate::access::write_private;

/// The file of the data directory with the keys of identifiers. Not part of backups.
pub(crate) const KEY_FILE: &str = "identifiers.key";
/// Refused removals are retried after this, then after twice as long, up to [`MAX_RETRY_DELAY`].
const RETRY_DELAY: Duration = Duration::from_secs(600);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(6 * 3_600);

/// An error of reading or writing delivered state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveredError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("cannot download or upload an object of identifiers")]
    Objects(#[from] ObjectsError),
    #[error(transparent)]
    Sealed(#[from] SealedError),
    #[error("{0}")]
    Key(String),
    #[error("the work was interrupted")]
    Interrupted,
}

/// The keys that identifiers are encrypted with. An embedded node creates its own key at the first use. If
/// delivered state exists and the key is missing, no new key is created: with a new key the old state could never
/// be read, and the loss would not be noticed.
pub(crate) async fn keys(ctx: &NodeContext) -> Result<IdentifierKeys, DeliveredError> {
    let spec = ctx.spec.load_full();
    if let Some(reference) = &spec.node.identifiers_key {
        let secret = reference.resolve(&*ctx.env).map_err(|error| {
            DeliveredError::Key(format!("node.identifiers_key cannot be read: {error}"))
        })?;
        return Ok(IdentifierKeys::parse(secret.expose())?);
    }
    if spec.node.is_shared() {
        let message = "node.identifiers_key is not set: delivered state is encrypted, and all nodes need the \
                       same key. Set it to env:NAME or file:PATH of 64 hexadecimal \
                       digits, such as `openssl rand -hex 32` prints";
        return Err(DeliveredError::Key(message.to_owned()));
    }
    let path = ctx.data_dir.join(KEY_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => return Ok(IdentifierKeys::parse(&text)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(DeliveredError::Key(format!("cannot read {}: {error}", path.display())));
        }
    }
    let records = ctx.ledger.delivered_records().await?;
    if records.iter().any(|record| record.state.is_some()) {
        let message = format!(
            "{} is missing: delivered state cannot be read without it. Restore it, or run `throng sync \
             run NAME --forget-delivered` for each sync, which replaces the platform's list",
            path.display()
        );
        return Err(DeliveredError::Key(message));
    }
    let key = random_hex()? + &random_hex()?;
    write_private(&path, &key)
        .map_err(|error| DeliveredError::Key(throng_model::with_causes(&error)))?;
    Ok(IdentifierKeys::parse(&key)?)
}

/// 32 random hexadecimal digits.
fn random_hex() -> Result<String, DeliveredError> {
    let salt = salt()?;
    Ok(salt.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// Random bytes.
pub(super) fn salt() -> Result<[u8; 32], DeliveredError> {
    let secret = new_secret("")
        .map_err(|_| DeliveredError::Key("cannot generate random bytes".to_owned()))?;
    Ok(throng_model::HashedIdentifier::of_normalised(secret.expose()).0)
}

/// A new object name in a folder.
pub(super) fn new_object(folder: &str) -> Result<String, DeliveredError> {
    Ok(format!("{folder}/{}", random_hex()?))
}

/// The account of a destination, as records name it.
pub(super) fn account_of(destination: &throng_spec::Destination) -> String {
    destination.account()
}

fn plan_binding(account: &str, sync: &SyncName, object: &str) -> Binding {
    binding("plan", account, sync, object)
}

fn binding(purpose: &'static str, account: &str, sync: &SyncName, object: &str) -> Binding {
    Binding {
        purpose,
        account: account.to_owned(),
        sync: sync.to_string(),
        version: object.to_owned(),
    }
}

/// The path of an object on this node before it is uploaded.
fn local_path(ctx: &NodeContext, object: &str) -> PathBuf {
    ctx.objects.root().join(object)
}

/// Opens the plan of a run.
pub(super) async fn open_plan(
    ctx: &NodeContext,
    account: &str,
    sync: &SyncName,
    object: &str,
) -> Result<PlanFile, DeliveredError> {
    let keys = keys(ctx).await?;
    let path = ctx.objects.download(object).await?;
    Ok(PlanFile::open(&path, &keys, plan_binding(account, sync, object))?)
}

/// What was delivered for a sync: the recorded state, and the runs that ended since, oldest first.
pub(super) async fn delivered(
    ctx: &NodeContext,
    record: Option<&DeliveredRecord>,
    account: &str,
    columns: &[String],
    runs: &[SyncRun],
) -> Result<Delivered, DeliveredError> {
    let state = match record.and_then(|record| record.state.as_ref().map(|state| (record, state))) {
        Some((record, object)) => {
            let keys = keys(ctx).await?;
            let path = ctx.objects.download(object).await?;
            DeliveredState::open(&path, &keys, binding("delivered", account, &record.sync, object))?
        }
        None => DeliveredState::empty(columns.to_vec()),
    };
    let mut ended = Vec::new();
    for run in runs {
        let Some(object) = &run.plan else { continue };
        let plan = open_plan(ctx, account, &run.sync, object).await?;
        let batches = batches_of(ctx, run.id).await?;
        ended.push(EndedRun { plan, batches, completed: run.state == RunState::Completed });
    }
    Ok(Delivered { state, runs: ended })
}

/// The inputs of a difference. Owned, because the difference is computed on another thread.
pub(super) struct DifferenceInputs<'p> {
    pub(super) delivered: Delivered,
    pub(super) target: MemberSet,
    pub(super) scan: Arc<Scan>,
    pub(super) mode: SyncMode,
    pub(super) replace: bool,
    pub(super) keys: Vec<String>,
    pub(super) platform: &'p str,
    pub(super) identifiers: String,
}

impl DifferenceInputs<'_> {
    /// Computes the difference and writes it as a plan to the local path of an object.
    pub(super) async fn write(
        self,
        ctx: &NodeContext,
        account: &str,
        sync: &SyncName,
        object: &str,
    ) -> Result<Difference, DeliveredError> {
        let path = local_path(ctx, object);
        let binding = plan_binding(account, sync, object);
        let (secret, salt) = (keys(ctx).await?, salt()?);
        let strong = throng_destinations::preparation(self.platform)
            .map_or(&[][..], |preparation| preparation.strong_keys);
        let Self { delivered, target, scan, mode, replace, keys, identifiers, .. } = self;
        let written = tokio::task::spawn_blocking(move || {
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
            difference(&facts, &path, &secret, binding, salt)
        });
        Ok(written.await.map_err(|_| DeliveredError::Interrupted)??)
    }
}

async fn batches_of(
    ctx: &NodeContext,
    run: SyncRunId,
) -> Result<Vec<throng_store::Batch>, LedgerError> {
    let task = ctx.ledger.task_of_run(run).await?;
    ctx.ledger.batches(task.id).await
}

/// Records the results of completed runs, except for syncs that are backing off after a failure. Returns whether
/// there were any, and the failures: a failure of one sync does not affect others.
pub(super) async fn record_ended(
    ctx: &NodeContext,
    is_backing_off: impl Fn(&SyncName) -> bool,
) -> Result<(bool, Vec<(SyncName, DeliveredError)>), LedgerError> {
    let ended = ctx.ledger.unrecorded_runs().await?;
    let (mut recorded, mut failed) = (false, Vec::new());
    let mut syncs: Vec<&SyncName> = ended.iter().map(|run| &run.sync).collect();
    syncs.dedup();
    syncs.sort_unstable();
    syncs.dedup();
    for sync in syncs {
        let mut runs: Vec<SyncRun> = ended.iter().filter(|r| r.sync == *sync).cloned().collect();
        // A failed run can be requeued as long as it is the newest one, so its result is not final.
        while runs.last().is_some_and(|run| run.state == RunState::Failed) {
            runs.pop();
        }
        if runs.is_empty() || is_backing_off(sync) {
            continue;
        }
        match record_sync(ctx, sync, &runs).await {
            Ok(()) => recorded = true,
            Err(DeliveredError::Ledger(error)) => return Err(error),
            Err(error) => failed.push((sync.clone(), error)),
        }
    }
    Ok((recorded, failed))
}

async fn record_sync(
    ctx: &NodeContext,
    sync: &SyncName,
    runs: &[SyncRun],
) -> Result<(), DeliveredError> {
    let Some(last) = runs.last() else { return Ok(()) };
    let ids: Vec<SyncRunId> = runs.iter().map(|run| run.id).collect();
    let records = ctx.ledger.delivered_records().await?;
    let before = records.into_iter().find(|record| record.sync == *sync);
    let spec = ctx.spec.load_full();
    let declared = spec.destinations.iter().find(|d| d.name == last.destination);
    let account = match (&before, declared) {
        (Some(record), _) => record.account.clone(),
        (None, Some(destination)) => account_of(destination),
        (None, None) => match removals::approved(ctx, sync).await? {
            Some(removal) => match removals::sync_and_destination(ctx, &removal) {
                Ok((_, destination)) => account_of(&destination),
                Err(_) => return Ok(()),
            },
            None => return Ok(()),
        },
    };
    let delivered = delivered(ctx, before.as_ref(), &account, &[], runs).await?;
    let newest = delivered.runs.last();
    let due = newest.map_or(0, |run| RemovalCounts::of(&run.batches).rejected);
    let identifiers = newest.map_or_else(String::new, |run| run.plan.meta.identifiers.clone());
    let object = new_object("delivered")?;
    let (path, keys, salt) = (local_path(ctx, &object), keys(ctx).await?, salt()?);
    let bound = binding("delivered", &account, sync, &object);
    let written = tokio::task::spawn_blocking(move || delivered.write(&path, &keys, bound, salt));
    let meta = written.await.map_err(|_| DeliveredError::Interrupted)??;
    ctx.objects.upload(&object).await?;
    let tries = if due == 0 { 0 } else { before.as_ref().map_or(0, |r| r.tries) + 1 };
    let record = DeliveredRecord {
        sync: sync.clone(),
        account,
        columns: meta.keys.join(","),
        identifiers,
        state: Some(object),
        users: meta.users,
        run: last.id,
        due,
        retry_at: (due > 0).then(|| ctx.clock.now().plus(retry_delay(tries))),
        tries,
        replace: false,
    };
    ctx.ledger.put_delivered_record(&record, &ids).await?;
    // Objects that a crash leaves behind here are removed when the next process leads.
    let old = before.and_then(|record| record.state);
    for name in runs.iter().filter_map(|run| run.plan.clone()).chain(old) {
        ctx.objects.remove(&name).await?;
    }
    Ok(())
}

/// The delay after this many consecutive tries.
pub(super) fn retry_delay(tries: u32) -> Duration {
    RETRY_DELAY.saturating_mul(1 << tries.saturating_sub(1).min(8)).min(MAX_RETRY_DELAY)
}

/// Whether refused removals are due for a retry.
pub(super) fn is_due(record: Option<&DeliveredRecord>, now: Timestamp) -> bool {
    record.is_some_and(|record| record.due > 0 && record.retry_at.is_none_or(|at| at <= now))
}

/// Requests a run of a sync: the planner compares the audience with the delivered state again. `full`: the whole
/// list is sent in a replace session; `forget`: the delivered state is discarded as well.
///
/// # Errors
/// `WrongState` if the sync is paused, if it has an open run, or if no delivery is recorded yet: then the planner
/// plans a run without a request.
pub(crate) async fn request_run(
    ctx: &NodeContext,
    sync: &SyncName,
    full: bool,
    forget: bool,
) -> Result<(), LedgerError> {
    let wrong = |state: &str| LedgerError::WrongState {
        what: "sync",
        name: sync.to_string(),
        state: state.to_owned(),
        wanted: "run",
    };
    if ctx.ledger.is_sync_paused(sync).await? {
        return Err(wrong("paused"));
    }
    let newest = ctx.ledger.runs(Some(sync), 1).await?;
    let open = |run: &SyncRun| matches!(run.state, RunState::Active | RunState::Held);
    if newest.first().is_some_and(open) {
        return Err(wrong("running or held already"));
    }
    let records = ctx.ledger.delivered_records().await?;
    let record = records.into_iter().find(|record| record.sync == *sync);
    let record = record.ok_or_else(|| wrong("without a recorded delivery"))?;
    let now = ctx.clock.now();
    let mut requested = DeliveredRecord {
        identifiers: String::new(),
        retry_at: Some(now),
        replace: record.replace || full || forget,
        ..record.clone()
    };
    let mut discarded = Vec::new();
    if forget {
        requested.state = None;
        discarded = ctx.ledger.unrecorded_runs().await?;
        discarded.retain(|run| run.sync == *sync);
    }
    let ids: Vec<SyncRunId> = discarded.iter().map(|run| run.id).collect();
    requested.run = ids.last().copied().unwrap_or(record.run);
    ctx.ledger.put_delivered_record(&requested, &ids).await
}

/// Removes objects that no record and no run references: a process died between writing and recording them.
pub(super) async fn remove_orphans(ctx: &NodeContext) -> Result<(), DeliveredError> {
    const MIN_AGE: Duration = Duration::from_secs(3_600);
    let before = ctx.clock.now().minus(MIN_AGE);
    for folder in ["delivered", "plans"] {
        let listed = ctx.objects.list(folder).await?;
        if listed.is_empty() {
            continue;
        }
        let named = ctx.ledger.referenced_objects().await?;
        for object in listed.into_iter().filter(|object| object.modified < before) {
            if !named.objects.iter().any(|known| known.name == object.name) {
                ctx.objects.remove(&object.name).await?;
            }
        }
    }
    Ok(())
}
