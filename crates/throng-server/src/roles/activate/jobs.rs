//! What a task needs besides its row: the account, the users, the identifier query.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_activation::{
    Advice, Destination, Job, JobRows, RunUsers, Schema, SealedError, SendClass, SendError,
};
use throng_destinations::{Account, FileAccount, FileFormat, MetaAccount};
use throng_membership::{MemberSet, MembershipIndex, SnapshotFile};
use throng_model::{AudienceName, DestinationName, Retry, SHARD_COUNT, SyncName};
use throng_objects::ObjectsError;
use throng_spec::{Platform, Spec, Sync};
use throng_store::{LedgerError, RunState, SyncRun, Task};

use super::delivered::{DeliveredError, account_of, open_plan};
use super::hashing::Settings;
use super::identifiers::LakeIdentifiers;
use super::removals;
use crate::NodeContext;
use crate::roles::build::{BuildError, open_snapshot};

/// Runs of a sync that are looked back at for what the platform may hold.
pub(super) const RUNS_LOOKED_AT: u32 = 1_000;
/// Tasks of an account that has not been opened yet.
const TASKS_AT_FIRST: u32 = 4;

/// The open accounts. An account is opened again when its settings or secrets change; until then
/// its connections are kept.
#[derive(Default)]
pub(super) struct Destinations(Mutex<HashMap<DestinationName, Open>>);

type Open = (Account, Arc<dyn Destination>);

impl Destinations {
    /// Opens an account of the spec. Secrets are fetched each time.
    ///
    /// # Errors
    /// `StopAccount` if a secret is missing or the settings make no sense.
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
                // A spec that an older version stored was not checked for it.
                let plain = meta.base_url.as_deref().is_some_and(throng_spec::is_plain_remote);
                if plain && !meta.insecure {
                    let why = "its base_url leads to another machine without encryption: write \
                               https://, or add insecure: true to the destination";
                    return Err(refuse(why.to_owned()));
                }
                Account::Meta(MetaAccount {
                    account: meta.account.clone(),
                    access_token: secret(&meta.access_token)?,
                    app_secret: meta.app_secret.as_ref().map(secret).transpose()?,
                    // The server that was checked to be one that the secrets may go to.
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

    /// How many tasks of this account may be at work.
    pub(super) fn max_tasks(&self, name: &DestinationName) -> u32 {
        let open = self.0.lock();
        open.get(name).map_or(TASKS_AT_FIRST, |(_, destination)| destination.limits().max_tasks)
    }
}

/// The versions that the platform may hold in part, besides the delivered one: the targets of runs
/// that failed since, as of the runs in `runs` (newest first). A run counts also if no batch of it
/// has an end: one may have arrived without its answer. Runs do not change once they have ended, so
/// the answer is the same whenever it is asked for one run.
fn tried_versions(runs: &[SyncRun]) -> Vec<u64> {
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

/// Why what a run needs is not at hand: it may be otherwise in a moment.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("a snapshot cannot be fetched")]
    Objects(#[from] ObjectsError),
    #[error(transparent)]
    Delivered(#[from] DeliveredError),
    /// The identifiers cannot be read, in words.
    #[error("{0}")]
    Identifiers(SendError),
}

/// Opens a kept snapshot; `None` if it is not kept any more.
pub(super) async fn snapshot(
    ctx: &NodeContext,
    audience: &AudienceName,
    version: u64,
) -> Result<Option<Arc<SnapshotFile>>, JobError> {
    let row = match ctx.ledger.snapshot(audience, version).await {
        Ok(row) => row,
        Err(LedgerError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match open_snapshot(&ctx.objects, &row).await {
        Ok(file) => Ok(Some(Arc::new(file))),
        Err(BuildError::Objects(error)) if error.retry() != Retry::Never => Err(error.into()),
        Err(error) => {
            tracing::error!(%audience, version, error = &error as &dyn std::error::Error, "a snapshot cannot be opened");
            Ok(None)
        }
    }
}

/// Works out the users of a run from snapshots; see [`RunUsers::work_out`].
async fn work_out(
    ctx: &NodeContext,
    audience: &AudienceName,
    mode: throng_store::SyncMode,
    target: Arc<SnapshotFile>,
    delivered: Option<u64>,
    tried: &[u64],
) -> Result<Option<RunUsers>, JobError> {
    let mut files = Vec::new();
    let mut sure_of_some = false;
    for version in delivered.iter().chain(tried) {
        if let Some(file) = snapshot(ctx, audience, *version).await? {
            sure_of_some |= delivered == Some(*version);
            files.push(file);
        }
    }
    let worked = tokio::task::spawn_blocking(move || {
        let mut sets: Vec<MemberSet> = files.iter().map(|f| MemberSet::of_snapshot(f)).collect();
        if !sure_of_some {
            // Nothing was delivered whole, so nobody is there for certain.
            sets.push(MemberSet::default());
        }
        RunUsers::work_out(mode, &MemberSet::of_snapshot(&target), &sets)
    });
    Ok(worked.await.ok())
}

/// Whether every ordinal of the snapshot is known to the index.
pub(super) fn covers(index: &MembershipIndex, snapshot: &SnapshotFile) -> bool {
    (0..SHARD_COUNT)
        .zip(&snapshot.meta().dictionary_len)
        .all(|(shard, needs)| index.dictionary(shard as u8).map_or(0, |d| d.len()) >= *needs)
}

/// The parts of the spec that a sync needs; those of its removal, while an approved one is carried out. If
/// they are not there: for good if this process has the newest spec, for a moment if another one has
/// applied a newer one.
pub(super) async fn declared(
    ctx: &NodeContext,
    sync: &SyncName,
) -> Result<Result<(Sync, throng_spec::Destination), SendError>, LedgerError> {
    if let Some(removal) = removals::approved(ctx, sync).await? {
        return Ok(removals::parts(ctx, &removal));
    }
    let (spec, version) = ctx.spec_and_version();
    let missing = match parts_of(&spec, sync) {
        Ok(parts) => return Ok(Ok(parts)),
        Err(missing) => missing,
    };
    Ok(Err(if ctx.ledger.applied_version().await? == Some(version) {
        let message =
            format!("{missing} is not in the applied spec any more; put it back or let it be");
        SendError::local(SendClass::Stop, message)
    } else {
        let message =
            format!("{missing} is not in the spec that this process has; a newer one is applied");
        SendError::local(SendClass::Retry, message)
    }))
}

/// A sync and its destination, or the name of what is missing.
fn parts_of(spec: &Spec, sync: &SyncName) -> Result<(Sync, throng_spec::Destination), String> {
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

/// Gathers what a task needs. The inner error says why it cannot be had.
pub(super) async fn job_for(
    ctx: &NodeContext,
    destinations: &Destinations,
    task: &Task,
) -> Result<Result<Job, SendError>, LedgerError> {
    match gather(ctx, destinations, task).await {
        Ok(job) => Ok(job),
        Err(JobError::Ledger(error)) => Err(error),
        Err(JobError::Objects(error)) => Ok(Err(SendError::local(
            SendClass::Retry,
            format!("a snapshot cannot be fetched: {error}"),
        ))),
        Err(JobError::Delivered(error)) => Ok(Err(not_opened(&error))),
        Err(JobError::Identifiers(error)) => Ok(Err(error)),
    }
}

async fn gather(
    ctx: &NodeContext,
    destinations: &Destinations,
    task: &Task,
) -> Result<Result<Job, SendError>, JobError> {
    let parts = declared(ctx, &task.sync).await?.and_then(|(sync, declared)| {
        destinations.open(&declared, &*ctx.env).map(|open| (sync, declared, open))
    });
    let (sync, declared, destination) = match parts {
        Ok(parts) => parts,
        Err(error) => return Ok(Err(error)),
    };
    let run = ctx.ledger.run(task.run).await?;
    let rows = match &run.plan {
        Some(object) => match open_plan(ctx, &account_of(&declared), &sync.name, object).await {
            Ok(plan) => Ok(JobRows::Planned(Arc::new(plan))),
            Err(DeliveredError::Ledger(error)) => return Err(error.into()),
            Err(error) => Err(not_opened(&error)),
        },
        None => users_of(ctx, task, &run, &sync, declared.platform.name().to_owned()).await?,
    };
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => return Ok(Err(error)),
    };
    let keys = sync.identifiers.columns.iter().map(|(_, key)| key.clone()).collect();
    Ok(Ok(Job {
        destination,
        schema: Schema { keys, default_country: sync.identifiers.default_country.clone() },
        platform_name: platform_name(&sync),
        adopt: sync.adopt == throng_spec::Adopt::Replace,
        rows,
    }))
}

fn not_opened(error: &DeliveredError) -> SendError {
    let class = match error {
        // A node of the version that wrote it may take the task next time.
        DeliveredError::Sealed(SealedError::Io { .. } | SealedError::Format { .. })
        | DeliveredError::Broken => SendClass::Retry,
        DeliveredError::Objects(error) if error.retry() != Retry::Never => SendClass::Retry,
        _ => SendClass::Stop,
    };
    let words = throng_model::with_causes(error);
    SendError::local(class, format!("the rows of the run cannot be read: {words}"))
}

/// The users of a run that an earlier version planned: their identifiers are read when they are sent.
async fn users_of(
    ctx: &NodeContext,
    task: &Task,
    run: &SyncRun,
    sync: &Sync,
    platform: String,
) -> Result<Result<JobRows, SendError>, JobError> {
    let runs = ctx.ledger.runs(Some(&task.sync), RUNS_LOOKED_AT).await?;
    let before: Vec<SyncRun> = runs.into_iter().filter(|r| r.id < run.id).collect();
    let target = snapshot(ctx, &run.audience, run.to_version).await?;
    let Some(target) = target else {
        let message = format!(
            "version {} of audience {} is no longer kept; refresh the audience",
            run.to_version, run.audience
        );
        return Ok(Err(SendError::local(SendClass::Stop, message).advising(Advice::None)));
    };
    let index = ctx.membership.load_full();
    if !covers(&index, &target) {
        let message = "the dictionaries of this snapshot are not loaded yet".to_owned();
        return Ok(Err(SendError::local(SendClass::Retry, message)));
    }
    let tried = tried_versions(&before);
    let worked = work_out(ctx, &run.audience, run.mode, target, run.from_version, &tried).await?;
    let Some(users) =
        worked.filter(|users| (users.puts(), users.removes()) == (run.adds, run.removes))
    else {
        let message = format!(
            "the snapshots that run {} was planned from are not as they were; refresh audience {}",
            run.id, run.audience
        );
        return Ok(Err(SendError::local(SendClass::Stop, message).advising(Advice::None)));
    };
    let identifiers = Arc::new(lake_identifiers(ctx, sync, platform));
    Ok(Ok(JobRows::Users { identifiers, users, index }))
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
        settings: Settings { platform, keys, default_country },
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
    fn failed_runs_since_the_delivered_one_count_as_held() {
        let runs = [
            run(5, 4, RunState::Failed, 3),
            run(4, 3, RunState::Failed, 10),
            run(3, 2, RunState::Completed, 10),
            run(2, 9, RunState::Failed, 10),
        ];
        assert_eq!(tried_versions(&runs), [3, 4]);
        assert_eq!(tried_versions(&[]), Vec::<u64>::new());
    }
}
