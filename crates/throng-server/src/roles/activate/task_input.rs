//! The inputs of a task besides its row: the account, the rows, the identifier query.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_activation::{
    Advice, Destination, RunUsers, Schema, SealedError, SendClass, SendError, TaskInput, TaskRows,
};
use throng_destinations::{Account, FileAccount, FileFormat, MetaAccount};
use throng_membership::{MemberSet, MembershipIndex, SnapshotFile};
use throng_model::{AudienceName, DestinationName, Retry, SHARD_COUNT, SyncName};
use throng_objects::ObjectsError;
use throng_refresh::{RefreshError, open_snapshot};
use throng_spec::{Platform, Spec, Sync};
use throng_store::{LedgerError, RunState, SyncRun, Task};

use super::delivered::{DeliveredError, account_of, open_plan};
use super::hashing::HashingSettings;
use super::identifiers::LakeIdentifiers;
use super::removals;
use crate::NodeContext;

/// The newest runs of a sync that are read to find out what the platform's list may contain.
pub(super) const MAX_RUNS: u32 = 1_000;
/// The tasks of an account that may run before the account was opened for the first time.
const DEFAULT_MAX_TASKS: u32 = 4;

/// The open accounts. An account is opened again when its settings or secrets change; otherwise its connections are
/// reused.
#[derive(Default)]
pub(super) struct Destinations(Mutex<HashMap<DestinationName, OpenAccount>>);

type OpenAccount = (Account, Arc<dyn Destination>);

impl Destinations {
    /// Opens an account of the spec. Secrets are resolved on every call.
    ///
    /// # Errors
    /// `StopAccount` if a secret is missing or the settings are invalid.
    pub(super) fn open(
        &self,
        declared: &throng_spec::Destination,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Arc<dyn Destination>, SendError> {
        let refuse = |why: String| {
            let message = format!("destination {}: {why}", declared.name);
            SendError::local(SendClass::StopAccount, message)
        };
        let secret = |reference: &throng_spec::SecretRef| {
            reference.resolve(env).map_err(|error| refuse(error.to_string()))
        };
        let account = match &declared.platform {
            Platform::Meta(meta) => {
                // An older version stored specs without this check.
                let is_unencrypted =
                    meta.base_url.as_deref().is_some_and(throng_spec::is_plain_remote);
                if is_unencrypted && !meta.insecure {
                    let why = "its base_url is on another machine and not encrypted: write https://, or \
                               add insecure: true to the destination";
                    return Err(refuse(why.to_owned()));
                }
                Account::Meta(MetaAccount {
                    account: meta.account.clone(),
                    access_token: secret(&meta.access_token)?,
                    app_secret: meta.app_secret.as_ref().map(secret).transpose()?,
                    // The check of the spec allows secrets for this server only.
                    base_url: Some(meta.server_url().to_owned()),
                    api_version: meta.api_version.clone(),
                })
            }
            Platform::File(file) => Account::File(FileAccount {
                folder: file.folder.clone(),
                root: file.root.clone().unwrap_or_else(|| file.folder.clone()),
                format: match file.format {
                    throng_spec::FileFormat::Csv => FileFormat::Csv,
                    throng_spec::FileFormat::Jsonl => FileFormat::Jsonl,
                },
                gzip: file.gzip,
            }),
        };
        let mut open = self.0.lock();
        if let Some((_, destination)) = open.get(&declared.name).filter(|(a, _)| *a == account) {
            return Ok(Arc::clone(destination));
        }
        let destination =
            throng_destinations::open(&account).map_err(|error| refuse(error.to_string()))?;
        open.insert(declared.name.clone(), (account, Arc::clone(&destination)));
        Ok(destination)
    }

    /// The maximum number of running tasks of an account.
    pub(super) fn max_tasks(&self, name: &DestinationName) -> u32 {
        let open = self.0.lock();
        open.get(name).map_or(DEFAULT_MAX_TASKS, |(_, destination)| destination.limits().max_tasks)
    }
}

/// The versions that may be on the platform in part, besides the delivered one: the targets of runs that failed
/// since then, by `runs` (newest first). A run without a completed batch counts as well: a batch may have arrived
/// without its response. Ended runs do not change, so the result for a run is always the same.
fn failed_versions(runs: &[SyncRun]) -> Vec<u64> {
    let mut versions: Vec<u64> = runs
        .iter()
        .take_while(|run| run.state != RunState::Completed)
        .filter(|run| run.state == RunState::Failed)
        .map(|run| run.to_version)
        .collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

/// An input of a run is not available. It may become available later.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("cannot download a snapshot")]
    Objects(#[from] ObjectsError),
    #[error(transparent)]
    Delivered(#[from] DeliveredError),
    /// The identifiers cannot be read.
    #[error("{0}")]
    Identifiers(SendError),
}

/// Opens a snapshot; `None` if it is no longer kept.
pub(super) async fn snapshot(
    ctx: &NodeContext,
    audience: &AudienceName,
    version: u64,
) -> Result<Option<Arc<SnapshotFile>>, InputError> {
    let row = match ctx.ledger.snapshot(audience, version).await {
        Ok(row) => row,
        Err(LedgerError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match open_snapshot(&ctx.objects, &row).await {
        Ok(file) => Ok(Some(Arc::new(file))),
        Err(RefreshError::Objects(error)) if error.retry() != Retry::Never => Err(error.into()),
        Err(error) => {
            tracing::error!(%audience, version, error = &error as &dyn std::error::Error, "failed to open snapshot");
            Ok(None)
        }
    }
}

/// Computes the users of a run from snapshots; see [`RunUsers::compute`].
async fn compute_run_users(
    ctx: &NodeContext,
    audience: &AudienceName,
    mode: throng_store::SyncMode,
    target: Arc<SnapshotFile>,
    delivered: Option<u64>,
    failed: &[u64],
) -> Result<Option<RunUsers>, InputError> {
    let mut files = Vec::new();
    let mut has_delivered = false;
    for version in delivered.iter().chain(failed) {
        if let Some(file) = snapshot(ctx, audience, *version).await? {
            has_delivered |= delivered == Some(*version);
            files.push(file);
        }
    }
    let computed = tokio::task::spawn_blocking(move || {
        let mut sets: Vec<MemberSet> = files.iter().map(|f| MemberSet::of_snapshot(f)).collect();
        if !has_delivered {
            // No version was delivered completely, so no user is on the platform for certain.
            sets.push(MemberSet::default());
        }
        RunUsers::compute(mode, &MemberSet::of_snapshot(&target), &sets)
    });
    Ok(computed.await.ok())
}

/// Whether the index has every ordinal of the snapshot.
pub(super) fn covers(index: &MembershipIndex, snapshot: &SnapshotFile) -> bool {
    (0..SHARD_COUNT)
        .zip(&snapshot.meta().dictionary_len)
        .all(|(shard, needs)| index.dictionary(shard as u8).map_or(0, |d| d.len()) >= *needs)
}

/// The declaration of a sync and its destination: by its removal while an approved removal is executed, otherwise by
/// the spec. If it is missing, the error is permanent if this process has the newest spec, and transient if a newer
/// spec is applied that this process has not loaded yet.
pub(super) async fn declared(
    ctx: &NodeContext,
    sync: &SyncName,
) -> Result<Result<(Sync, throng_spec::Destination), SendError>, LedgerError> {
    if let Some(removal) = removals::approved(ctx, sync).await? {
        return Ok(removals::sync_and_destination(ctx, &removal));
    }
    let (spec, version) = ctx.spec_and_version();
    let missing = match find_declaration(&spec, sync) {
        Ok(declaration) => return Ok(Ok(declaration)),
        Err(missing) => missing,
    };
    Ok(Err(if ctx.ledger.applied_version().await? == Some(version) {
        let message =
            format!("{missing} is no longer in the applied spec; restore it, or ignore this task");
        SendError::local(SendClass::Stop, message)
    } else {
        let message =
            format!("{missing} is not in the spec of this process; a newer one is applied");
        SendError::local(SendClass::Retry, message)
    }))
}

/// A sync and its destination, or the name of what is missing.
fn find_declaration(
    spec: &Spec,
    sync: &SyncName,
) -> Result<(Sync, throng_spec::Destination), String> {
    let declared =
        spec.syncs.iter().find(|s| s.name == *sync).ok_or_else(|| format!("sync {sync}"))?;
    let destination = spec.destinations.iter().find(|d| d.name == declared.destination);
    let destination = destination.ok_or_else(|| format!("destination {}", declared.destination))?;
    Ok((declared.clone(), destination.clone()))
}

/// The audience's name on the platform.
pub(super) fn platform_name(sync: &Sync) -> String {
    sync.platform_name.clone().unwrap_or_else(|| format!("throng: {}", sync.audience))
}

/// Prepares the inputs of a task. The inner error is the reason why an input is not available.
pub(super) async fn task_input(
    ctx: &NodeContext,
    destinations: &Destinations,
    task: &Task,
) -> Result<Result<TaskInput, SendError>, LedgerError> {
    match prepare(ctx, destinations, task).await {
        Ok(input) => Ok(input),
        Err(InputError::Ledger(error)) => Err(error),
        Err(InputError::Objects(error)) => Ok(Err(SendError::local(
            SendClass::Retry,
            format!("cannot download a snapshot: {error}"),
        ))),
        Err(InputError::Delivered(error)) => Ok(Err(plan_error(&error))),
        Err(InputError::Identifiers(error)) => Ok(Err(error)),
    }
}

async fn prepare(
    ctx: &NodeContext,
    destinations: &Destinations,
    task: &Task,
) -> Result<Result<TaskInput, SendError>, InputError> {
    let opened = declared(ctx, &task.sync).await?.and_then(|(sync, declared)| {
        destinations.open(&declared, &*ctx.env).map(|open| (sync, declared, open))
    });
    let (sync, declared, destination) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error)),
    };
    let run = ctx.ledger.run(task.run).await?;
    let rows = match &run.plan {
        Some(object) => match open_plan(ctx, &account_of(&declared), &sync.name, object).await {
            Ok(plan) => Ok(TaskRows::Planned(Arc::new(plan))),
            Err(DeliveredError::Ledger(error)) => return Err(error.into()),
            Err(error) => Err(plan_error(&error)),
        },
        None => planned_users(ctx, task, &run, &sync, declared.platform.name().to_owned()).await?,
    };
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => return Ok(Err(error)),
    };
    let keys = sync.identifiers.columns.iter().map(|(_, key)| key.clone()).collect();
    Ok(Ok(TaskInput {
        destination,
        schema: Schema { keys, default_country: sync.identifiers.default_country.clone() },
        platform_name: platform_name(&sync),
        adopt: sync.adopt == throng_spec::Adopt::Replace,
        rows,
    }))
}

fn plan_error(error: &DeliveredError) -> SendError {
    let class = match error {
        // Another node, of the version that wrote the file, may take the task next time.
        DeliveredError::Sealed(SealedError::Io { .. } | SealedError::Format { .. })
        | DeliveredError::Interrupted => SendClass::Retry,
        DeliveredError::Objects(error) if error.retry() != Retry::Never => SendClass::Retry,
        _ => SendClass::Stop,
    };
    let text = throng_model::with_causes(error);
    SendError::local(class, format!("the rows of the run cannot be read: {text}"))
}

/// The users of a run that an earlier version planned: their identifiers are read when the run is sent.
async fn planned_users(
    ctx: &NodeContext,
    task: &Task,
    run: &SyncRun,
    sync: &Sync,
    platform: String,
) -> Result<Result<TaskRows, SendError>, InputError> {
    let runs = ctx.ledger.runs(Some(&task.sync), MAX_RUNS).await?;
    let before: Vec<SyncRun> = runs.into_iter().filter(|r| r.id < run.id).collect();
    let target = snapshot(ctx, &run.audience, run.to_version).await?;
    let Some(target) = target else {
        let message = format!(
            "version {} of audience {} is no longer kept; refresh the audience",
            run.to_version, run.audience
        );
        return Ok(Err(SendError::local(SendClass::Stop, message).with_advice(Advice::None)));
    };
    let index = ctx.membership.load_full();
    if !covers(&index, &target) {
        let message = "the dictionaries of this snapshot are not loaded yet".to_owned();
        return Ok(Err(SendError::local(SendClass::Retry, message)));
    }
    let failed = failed_versions(&before);
    let computed =
        compute_run_users(ctx, &run.audience, run.mode, target, run.from_version, &failed).await?;
    let Some(users) =
        computed.filter(|users| (users.adds(), users.removes()) == (run.adds, run.removes))
    else {
        let message = format!(
            "the snapshots that run {} was planned from have changed; refresh audience {}",
            run.id, run.audience
        );
        return Ok(Err(SendError::local(SendClass::Stop, message).with_advice(Advice::None)));
    };
    let identifiers = Arc::new(lake_identifiers(ctx, sync, platform));
    Ok(Ok(TaskRows::Users { identifiers, users, index }))
}

/// The identifier query of a sync.
pub(super) fn lake_identifiers(
    ctx: &NodeContext,
    sync: &Sync,
    platform: String,
) -> LakeIdentifiers {
    let keys = sync.identifiers.columns.iter().map(|(_, key)| key.clone()).collect();
    let default_country = sync.identifiers.default_country.clone();
    LakeIdentifiers {
        lake: ctx.lake.load_full(),
        sync: sync.name.clone(),
        identifiers: sync.identifiers.clone(),
        settings: HashingSettings { platform, keys, default_country },
        seed: ctx.seed,
    }
}

#[cfg(test)]
mod tests {
    use throng_model::{SyncRunId, Timestamp};
    use throng_store::SyncMode;

    use super::*;

    fn run(id: i64, to_version: u64, state: RunState, sent: u64) -> SyncRun {
        SyncRun {
            id: SyncRunId(id),
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode: SyncMode::Mirror,
            from_version: Some(1),
            to_version,
            state,
            adds: 10,
            removes: 0,
            read: 10,
            sent,
            skipped: Default::default(),
            rejected: Default::default(),
            pending: 10 - sent,
            created_at: Timestamp(0),
            finished_at: None,
            reason: None,
            normalised: Default::default(),
            plan: None,
        }
    }

    #[test]
    fn failed_runs_after_the_delivered_one_may_have_been_delivered() {
        let runs = [
            run(5, 4, RunState::Failed, 3),
            run(4, 3, RunState::Failed, 10),
            run(3, 2, RunState::Completed, 10),
            run(2, 9, RunState::Failed, 10),
        ];
        assert_eq!(failed_versions(&runs), [3, 4]);
        assert_eq!(failed_versions(&[]), Vec::<u64>::new());
    }
}
