//! Delivered state on this node: the key, the objects, and recording what ended runs have done.

use std::path::PathBuf;
use std::time::Duration;

use throng_activation::{
    Binding, Delivered, DeliveredState, EndedRun, IdentifierKeys, PlanFile, Removals, SealedError,
};
use throng_model::{SyncName, SyncRunId, Timestamp, new_secret};
use throng_objects::ObjectsError;
use throng_store::{DeliveredRecord, LedgerError, RunState, SyncRun};

use super::removals;
use crate::NodeContext;
use crate::access::write_private;

/// The file of a data directory with the keys of identifiers. Not in backups.
pub(crate) const KEY_FILE: &str = "identifiers.key";
/// Refused removals are tried again after this, then after twice as long, up to [`RETRY_AT_MOST`].
const RETRY_REMOVALS: Duration = Duration::from_secs(600);
const RETRY_AT_MOST: Duration = Duration::from_secs(6 * 3_600);

/// Why delivered state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveredError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("an object of identifiers cannot be fetched or kept")]
    Objects(#[from] ObjectsError),
    #[error(transparent)]
    Sealed(#[from] SealedError),
    #[error("{0}")]
    Key(String),
    #[error("the work was broken off")]
    Broken,
}

/// The keys that identifiers are encrypted with. An embedded node makes its own at first; where
/// something was written with a key that is gone, none is made.
pub(crate) async fn keys(ctx: &NodeContext) -> Result<IdentifierKeys, DeliveredError> {
    let spec = ctx.spec.load_full();
    if let Some(reference) = &spec.node.identifiers_key {
        let secret = reference.resolve(&*ctx.env).map_err(|error| {
            DeliveredError::Key(format!("node.identifiers_key cannot be read: {error}"))
        })?;
        return Ok(IdentifierKeys::parse(secret.expose())?);
    }
    if spec.node.is_shared() {
        let message = "node.identifiers_key is not set: what platforms were given is kept encrypted, and \
                       all nodes need the same key. Set it to env:NAME or file:PATH of 64 hexadecimal \
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
            "{} is gone: without it, what platforms were given cannot be read. Put it back, or run \
             `throng sync run NAME --forget-delivered` for each sync, which replaces the platform's list",
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
    let secret = new_secret("").map_err(|_| DeliveredError::Key("no random bytes".to_owned()))?;
    Ok(throng_model::HashedIdentifier::of_normalised(secret.expose()).0)
}

/// A new name of an object in a folder.
pub(super) fn new_object(folder: &str) -> Result<String, DeliveredError> {
    Ok(format!("{folder}/{}", random_hex()?))
}

/// Which account a destination is, in records.
pub(super) fn account_of(destination: &throng_spec::Destination) -> String {
    destination.account()
}

pub(super) fn plan_binding(account: &str, sync: &SyncName, object: &str) -> Binding {
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

/// Where an object lies on this node before it is kept.
pub(super) fn local(ctx: &NodeContext, object: &str) -> PathBuf {
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

/// What the platform was given for a sync: the record, and its runs that ended since, the oldest first.
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
        None => DeliveredState::nothing(columns.to_vec()),
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

async fn batches_of(
    ctx: &NodeContext,
    run: SyncRunId,
) -> Result<Vec<throng_store::Batch>, LedgerError> {
    let task = ctx.ledger.task_of_run(run).await?;
    ctx.ledger.batches(task.id).await
}

/// Records what completed runs have done, but for syncs that rest after a failure. Whether there were
/// any, and what failed: one sync's trouble is no other's.
pub(super) async fn record_ended(
    ctx: &NodeContext,
    rests: impl Fn(&SyncName) -> bool,
) -> Result<(bool, Vec<(SyncName, DeliveredError)>), LedgerError> {
    let ended = ctx.ledger.unrecorded_runs().await?;
    let (mut recorded, mut failed) = (false, Vec::new());
    let mut syncs: Vec<&SyncName> = ended.iter().map(|run| &run.sync).collect();
    syncs.dedup();
    syncs.sort_unstable();
    syncs.dedup();
    for sync in syncs {
        let mut runs: Vec<SyncRun> = ended.iter().filter(|r| r.sync == *sync).cloned().collect();
        // A failed run may be put back in the queue as long as it is the newest one.
        while runs.last().is_some_and(|run| run.state == RunState::Failed) {
            runs.pop();
        }
        if runs.is_empty() || rests(sync) {
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
            Some(removal) => match removals::parts(ctx, &removal) {
                Ok((_, destination)) => account_of(&destination),
                Err(_) => return Ok(()),
            },
            None => return Ok(()),
        },
    };
    let delivered = delivered(ctx, before.as_ref(), &account, &[], runs).await?;
    let newest = delivered.runs.last();
    let due = newest.map_or(0, |run| Removals::of(&run.batches).rejected);
    let identifiers = newest.map_or_else(String::new, |run| run.plan.meta.identifiers.clone());
    let object = new_object("delivered")?;
    let (path, keys, salt) = (local(ctx, &object), keys(ctx).await?, salt()?);
    let bound = binding("delivered", &account, sync, &object);
    let written = tokio::task::spawn_blocking(move || delivered.write(&path, &keys, bound, salt));
    let meta = written.await.map_err(|_| DeliveredError::Broken)??;
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
        retry_at: (due > 0).then(|| ctx.clock.now().plus(pause(tries))),
        tries,
        replace: false,
    };
    ctx.ledger.put_delivered_record(&record, &ids).await?;
    // What is left behind by a crash here is removed at the next start.
    let old = before.and_then(|record| record.state);
    for name in runs.iter().filter_map(|run| run.plan.clone()).chain(old) {
        ctx.objects.remove(&name).await?;
    }
    Ok(())
}

/// How long to wait after so many tries in a row.
pub(super) fn pause(tries: u32) -> Duration {
    RETRY_REMOVALS.saturating_mul(1 << tries.saturating_sub(1).min(8)).min(RETRY_AT_MOST)
}

/// Whether refused removals are to be tried again now.
pub(super) fn is_due(record: Option<&DeliveredRecord>, now: Timestamp) -> bool {
    record.is_some_and(|record| record.due > 0 && record.retry_at.is_none_or(|at| at <= now))
}

/// A person asks for a run of a sync: whether there is anything to send is looked at once more. `full`:
/// everything is sent anew, in a replace session; `forget`: and what was recorded is forgotten.
///
/// # Errors
/// `WrongState` if the sync is paused, if it has an open run and is not to forget it, or if nothing is
/// recorded yet: then whatever there is to send is planned anyway.
pub(crate) async fn ask(
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
        return Err(wrong("at work or held already"));
    }
    let records = ctx.ledger.delivered_records().await?;
    let record = records.into_iter().find(|record| record.sync == *sync);
    let record = record.ok_or_else(|| wrong("without a delivery that was recorded"))?;
    let now = ctx.clock.now();
    let mut asked = DeliveredRecord {
        identifiers: String::new(),
        retry_at: Some(now),
        replace: record.replace || full || forget,
        ..record.clone()
    };
    let mut dropped = Vec::new();
    if forget {
        asked.state = None;
        dropped = ctx.ledger.unrecorded_runs().await?;
        dropped.retain(|run| run.sync == *sync);
    }
    let ids: Vec<SyncRunId> = dropped.iter().map(|run| run.id).collect();
    asked.run = ids.last().copied().unwrap_or(record.run);
    ctx.ledger.put_delivered_record(&asked, &ids).await
}

/// Removes objects that no record and no run names: a process died between writing and recording them.
pub(super) async fn remove_orphans(ctx: &NodeContext) -> Result<(), DeliveredError> {
    const OLD: Duration = Duration::from_secs(3_600);
    let before = ctx.clock.now().minus(OLD);
    for folder in ["delivered", "plans"] {
        let listed = ctx.objects.list(folder).await?;
        if listed.is_empty() {
            continue;
        }
        let named = ctx.ledger.named_objects().await?;
        for object in listed.into_iter().filter(|object| object.modified < before) {
            if !named.objects.iter().any(|known| known.name == object.name) {
                ctx.objects.remove(&object.name).await?;
            }
        }
    }
    Ok(())
}
