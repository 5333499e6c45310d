//! Plans and delivered states: encrypted objects, their names, and how they are opened and written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use throng_membership::MemberSet;
use throng_model::{HashedIdentifier, SyncMode, SyncName, SyncRunId, new_secret, to_hex};
use throng_store::{Batch, DeliveredRecord, LedgerError, RunState, SyncRun};

use super::context::Activation;
use super::errors::DeliveredError;
use crate::{
    Binding, Delivered, DeliveredColumns, DeliveredState, Difference, DifferenceFacts, EndedRun,
    PlanFile, Scan, StateMeta, difference,
};

/// 32 random hexadecimal digits.
pub(super) fn random_hex() -> Result<String, DeliveredError> {
    Ok(to_hex(&salt()?[..16]))
}

/// Random bytes.
pub(super) fn salt() -> Result<[u8; 32], DeliveredError> {
    let secret = new_secret("")
        .map_err(|_| DeliveredError::Key("cannot generate random bytes".to_owned()))?;
    Ok(HashedIdentifier::of_normalised(secret.expose()).0)
}

/// A new object name in a folder.
pub(super) fn new_object(folder: &str) -> Result<String, DeliveredError> {
    Ok(format!("{folder}/{}", random_hex()?))
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
fn local_path(ctx: &Activation, object: &str) -> PathBuf {
    ctx.objects.root().join(object)
}

/// Opens the plan of a run.
pub(super) async fn open_plan(
    ctx: &Activation,
    account: &str,
    sync: &SyncName,
    object: &str,
) -> Result<PlanFile, DeliveredError> {
    let keys = ctx.node.identifier_keys().await?;
    let path = ctx.objects.download(object).await?;
    Ok(PlanFile::open(&path, &keys, plan_binding(account, sync, object))?)
}

/// What was delivered for a sync: the recorded state, and the runs that ended since, oldest first.
pub(super) async fn delivered(
    ctx: &Activation,
    record: Option<&DeliveredRecord>,
    account: &str,
    columns: &[String],
    runs: &[SyncRun],
) -> Result<Delivered, DeliveredError> {
    let state = match record.and_then(|record| record.state.as_ref().map(|state| (record, state))) {
        Some((record, object)) => {
            let keys = ctx.node.identifier_keys().await?;
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

/// The columns of what was delivered, which is returned too.
pub(super) async fn with_columns(
    delivered: Delivered,
) -> Result<(Delivered, DeliveredColumns), DeliveredError> {
    let reading = tokio::task::spawn_blocking(move || {
        let columns = delivered.columns();
        (delivered, columns)
    });
    let (delivered, columns) = reading.await.map_err(|_| DeliveredError::Interrupted)?;
    Ok((delivered, columns?))
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
    /// The id of the audience on the platform that the run adopts.
    pub(super) adopts: Option<String>,
}

impl DifferenceInputs<'_> {
    /// Computes the difference and writes it as a plan to the local path of an object.
    pub(super) async fn write(
        self,
        ctx: &Activation,
        account: &str,
        sync: &SyncName,
        object: &str,
    ) -> Result<Difference, DeliveredError> {
        let path = local_path(ctx, object);
        let binding = plan_binding(account, sync, object);
        let (secret, salt) = (ctx.node.identifier_keys().await?, salt()?);
        let strong = ctx.destinations.strong_keys(self.platform);
        let Self { delivered, target, scan, mode, replace, keys, identifiers, adopts, .. } = self;
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
                adopts: adopts.as_deref(),
            };
            difference(&facts, &path, &secret, binding, salt)
        });
        Ok(written.await.map_err(|_| DeliveredError::Interrupted)??)
    }
}

async fn batches_of(ctx: &Activation, run: SyncRunId) -> Result<Vec<Batch>, LedgerError> {
    let task = ctx.ledger.task_of_run(run).await?;
    ctx.ledger.batches(task.id).await
}

/// Writes what was delivered as the new state of a sync, and uploads it.
pub(super) async fn write_delivered(
    ctx: &Activation,
    delivered: Delivered,
    account: &str,
    sync: &SyncName,
) -> Result<(String, StateMeta), DeliveredError> {
    let object = new_object("delivered")?;
    let (path, keys) = (local_path(ctx, &object), ctx.node.identifier_keys().await?);
    let (binding, salt) = (binding("delivered", account, sync, &object), salt()?);
    let written = tokio::task::spawn_blocking(move || delivered.write(&path, &keys, binding, salt));
    let meta = written.await.map_err(|_| DeliveredError::Interrupted)??;
    ctx.objects.upload(&object).await?;
    Ok((object, meta))
}

/// Removes objects that no record and no run references: a process died between writing and recording them.
pub(super) async fn remove_orphans(ctx: &Activation) -> Result<(), DeliveredError> {
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
