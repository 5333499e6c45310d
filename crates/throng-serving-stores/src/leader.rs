//! Writes and checks all stores while this process is the leader: one task for each store, so that a store that
//! does not answer delays no other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use throng_model::{
    AudienceName, Backoff, Entropy as _, RETRY_DELAY, SystemEntropy, poll_delay, with_causes,
};
use throng_spec::{ServingStore, Spec};
use throng_store::{AlertKind, LedgerError, NewAlert, StoreCheck, StoreLease, StoreWrite};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::alerts::{alert_subject, reconcile};
use crate::check::check;
use crate::error::WriteError;
use crate::pass::Pass;
use crate::step::{Step, replacement, step};
use crate::writer::{LEASE, Outcome, Writer};
use crate::{MemberStore, StoreError, StoresDeps};

/// How often the ledger is read for versions to write.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Failed tries of a write after which an alert is raised.
const TRIES_BEFORE_ALERT: u32 = 3;

/// Runs until `shutdown`. Then a write ends after the request that is being sent, and the next leader continues it.
pub async fn run_leader(deps: StoresDeps, shutdown: CancellationToken) {
    let mut running: JoinSet<()> = JoinSet::new();
    let mut busy: HashMap<tokio::task::Id, ServingStore> = HashMap::new();
    let mut reconciled: Option<Arc<Spec>> = None;
    let mut leading = shutdown.child_token();
    loop {
        while let Some(ended) = running.try_join_next_with_id() {
            free(&mut busy, ended);
        }
        let spec = deps.spec.load_full();
        // A pass with earlier settings, which ends before its next request, may raise an alert until then.
        let is_settled = busy.values().all(|store| spec.serving_stores.contains(store));
        let pause = match lead(&deps, &spec, is_settled, &mut reconciled).await {
            Ok(false) => {
                // Another process may lead now.
                leading.cancel();
                leading = shutdown.child_token();
                POLL_INTERVAL
            }
            Ok(true) => {
                for store in &spec.serving_stores {
                    if busy.values().all(|other| other.name != store.name) {
                        let task = run_store(deps.clone(), store.clone(), leading.clone());
                        busy.insert(running.spawn(task).id(), store.clone());
                    }
                }
                POLL_INTERVAL
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to read the state of serving stores"
                );
                RETRY_DELAY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(poll_delay(&*deps.clock, pause, deps.min_poll_interval)) => {}
        }
    }
    while running.join_next().await.is_some() {}
}

/// Makes the store of a task that has ended free for the next one.
fn free(
    busy: &mut HashMap<tokio::task::Id, ServingStore>,
    ended: Result<(tokio::task::Id, ()), tokio::task::JoinError>,
) {
    let id = match ended {
        Ok((id, ())) => id,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "task of a serving store panicked"
            );
            error.id()
        }
    };
    busy.remove(&id);
}

/// Whether this process writes to stores now. Resolves the alerts about stores and audiences that the spec no longer
/// has, once no pass with settings of another spec runs.
async fn lead(
    deps: &StoresDeps,
    spec: &Arc<Spec>,
    is_settled: bool,
    reconciled: &mut Option<Arc<Spec>>,
) -> Result<bool, LedgerError> {
    let is_new = reconciled.as_ref().is_none_or(|last| !Arc::ptr_eq(last, spec));
    if spec.serving_stores.is_empty() && !is_new {
        return Ok(false);
    }
    if !deps.ledger.acquire_leadership().await? {
        return Ok(false);
    }
    if is_new && is_settled {
        reconcile(deps, spec).await?;
        *reconciled = Some(Arc::clone(spec));
    }
    Ok(!spec.serving_stores.is_empty())
}

async fn resolve(deps: &StoresDeps, kind: AlertKind, row: &StoreWrite) -> Result<(), LedgerError> {
    let subject = alert_subject(&row.write.store, &row.write.audience);
    deps.ledger.resolve_alert(kind, &subject, deps.clock.now()).await
}

/// One pass over a store in a task of its own, with a pause after one that failed.
async fn run_store(deps: StoresDeps, store: ServingStore, shutdown: CancellationToken) {
    let usable = run_pass(&deps, &store, &shutdown).await.unwrap_or_else(|error| {
        tracing::error!(
            store = %store.name,
            error = &error as &dyn std::error::Error,
            "failed to read the state of a serving store"
        );
        false
    });
    if !usable {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(RETRY_DELAY) => {}
        }
    }
}

/// Does what is due for each audience of a store: begins a write, continues one, or compares a sample. Returns
/// whether the store could be used. What failed is in the ledger, with its next try. Ends before the next request on
/// `shutdown`, and once the applied spec does not have the store with these settings.
///
/// # Errors
/// [`LedgerError`].
pub async fn run_pass(
    deps: &StoresDeps,
    store: &ServingStore,
    shutdown: &CancellationToken,
) -> Result<bool, LedgerError> {
    let pass = Pass { deps, store, shutdown };
    let mut round =
        Round { pass, connection: None, failed: false, under_other_names: HashSet::new() };
    round.run().await?;
    Ok(!round.failed)
}

/// One pass over the audiences of a store.
struct Round<'a> {
    pass: Pass<'a>,
    /// Opened at the first use.
    connection: Option<Box<dyn MemberStore>>,
    /// The store cannot be used: the other audiences wait for the next pass.
    failed: bool,
    /// Audiences that were written to the same place for a store of another name.
    under_other_names: HashSet<AudienceName>,
}

impl Round<'_> {
    async fn run(&mut self) -> Result<(), LedgerError> {
        let Pass { deps, store, .. } = self.pass;
        let rows = deps.ledger.newest_store_writes().await?;
        let place = store.place();
        let others = rows.iter().filter(|row| row.write.store != store.name);
        let others = others.filter(|row| row.write.place == place);
        self.under_other_names = others.map(|row| row.write.audience.clone()).collect();
        let mut rows: HashMap<AudienceName, StoreWrite> = rows
            .into_iter()
            .filter(|row| row.write.store == store.name)
            .map(|row| (row.write.audience.clone(), row))
            .collect();
        let served: HashMap<AudienceName, u64> =
            deps.ledger.served_versions().await?.into_iter().collect();
        let spec = deps.spec.load_full();
        let declared = spec.audiences.iter().map(|audience| &audience.name);
        let written: Vec<&AudienceName> = declared.filter(|name| store.has(name)).collect();
        for audience in written {
            let version = served.get(audience).copied();
            let newest = rows.remove(audience);
            self.run_audience(audience, version, newest).await?;
        }
        // What the store has of other audiences stays, until a person has it removed. What is open of them is not
        // continued: the retention deletes their versions, and the spec does not want them.
        for (audience, row) in rows {
            if row.write.to_version.is_none() {
                self.run_audience(&audience, None, Some(row)).await?;
            }
        }
        Ok(())
    }

    async fn run_audience(
        &mut self,
        audience: &AudienceName,
        served: Option<u64>,
        newest: Option<StoreWrite>,
    ) -> Result<(), LedgerError> {
        if self.failed || self.pass.has_ended() {
            return Ok(());
        }
        let Pass { deps, store, .. } = self.pass;
        let now = deps.clock.now();
        match step(store, audience, served, newest.as_ref(), now) {
            None => Ok(()),
            Some(Step::Begin(mut write, newest)) => {
                // A store that was renamed: its first write would add members only, and users who left the audience
                // since the last write under the other name would stay members.
                write.rewrite |= newest.is_none() && self.under_other_names.contains(audience);
                // The next pass begins with its row.
                deps.ledger.begin_store_write(&write, newest, now).await?;
                Ok(())
            }
            Some(Step::Continue(row)) => self.write(&row, served).await,
            Some(Step::Check(_)) if deps.check_backoff.is_waiting(&store.name, audience, now) => {
                Ok(())
            }
            Some(Step::Check(row)) => self.check(&row).await,
        }
    }

    async fn connection(&mut self) -> Result<&mut (dyn MemberStore + 'static), StoreError> {
        if self.connection.is_none() {
            let Pass { deps, store, .. } = self.pass;
            self.connection = Some(deps.connector.connect(store).await?);
        }
        let connection = self.connection.as_deref_mut();
        connection.ok_or_else(|| StoreError::Other("no connection".to_owned()))
    }

    /// A connection that failed once is not used again.
    fn disconnect(&mut self, error: &WriteError) {
        self.connection = None;
        self.failed |= error.concerns_the_store();
    }

    async fn write(&mut self, row: &StoreWrite, served: Option<u64>) -> Result<(), LedgerError> {
        let (pass, deps) = (self.pass, self.pass.deps);
        let written = match self.connection().await {
            Ok(connection) => Writer { pass, connection, row }.run().await,
            Err(error) => Err(error.into()),
        };
        let (store, audience) = (&row.write.store, &row.write.audience);
        match written {
            Ok(Outcome::Stopped) => Ok(()),
            Ok(Outcome::Done) => {
                tracing::info!(%store, %audience, version = row.write.to_version.unwrap_or_default(), "wrote to a serving store");
                deps.check_backoff.record_success(store, audience);
                resolve(deps, AlertKind::TaskFailed, row).await
            }
            Err(error) if error.lost_lease() => Ok(()),
            Err(error) => {
                self.disconnect(&error);
                tracing::warn!(%store, %audience, error = &error as &dyn std::error::Error, "failed to write to a serving store");
                self.fail(row, served, &error).await
            }
        }
    }

    async fn fail(
        &self,
        row: &StoreWrite,
        served: Option<u64>,
        error: &WriteError,
    ) -> Result<(), LedgerError> {
        let (deps, now) = (self.pass.deps, self.pass.deps.clock.now());
        if error.lost_snapshot()
            && let Some(write) = replacement(&row.write, served)
        {
            deps.ledger.begin_store_write(&write, Some(row.id), now).await?;
            return Ok(());
        }
        let (tries, text) = (row.tries.saturating_add(1), with_causes(error));
        // A connection that fails has not claimed the write.
        let delay = Backoff::WORK.delay(tries, SystemEntropy.next_u64());
        let lease = StoreLease { id: row.id, holder: &deps.holder, now, until: now.plus(LEASE) };
        if deps.ledger.claim_store_write(lease).await? {
            let failed = StoreLease { until: now.plus(delay), ..lease };
            deps.ledger.fail_store_write(failed, &text).await?;
        }
        if tries >= TRIES_BEFORE_ALERT && !self.pass.has_stopped(&row.write) {
            let subject = alert_subject(&row.write.store, &row.write.audience);
            let message = format!("{tries} tries to write failed, the last one: {text}");
            let alert = NewAlert { kind: AlertKind::TaskFailed, subject, message };
            deps.ledger.raise_alert(&alert, now).await?;
        }
        Ok(())
    }

    async fn check(&mut self, row: &StoreWrite) -> Result<(), LedgerError> {
        let (pass, deps) = (self.pass, self.pass.deps);
        let checked = match self.connection().await {
            Ok(connection) => check(pass, connection, row).await,
            Err(error) => Err(error.into()),
        };
        let (store, audience) = (&row.write.store, &row.write.audience);
        match checked {
            Ok(None) => Ok(()),
            Ok(Some(found)) => {
                deps.check_backoff.record_success(store, audience);
                deps.ledger.record_store_check(row.id, found).await?;
                if found.missing + found.unexpected == 0 {
                    resolve(deps, AlertKind::TaskFailed, row).await?;
                    return resolve(deps, AlertKind::CheckFailed, row).await;
                }
                self.raise(row, AlertKind::CheckFailed, drift(row, found)).await
            }
            Err(error) => {
                self.disconnect(&error);
                let audience = (!error.concerns_the_store()).then_some(audience);
                let (now, seed) = (deps.clock.now(), SystemEntropy.next_u64());
                deps.check_backoff.record_failure(store, audience, now, seed);
                let text = with_causes(&error);
                self.raise(row, AlertKind::TaskFailed, format!("it cannot be checked: {text}"))
                    .await
            }
        }
    }

    async fn raise(
        &self,
        row: &StoreWrite,
        kind: AlertKind,
        message: String,
    ) -> Result<(), LedgerError> {
        // Nothing would resolve it.
        if self.pass.has_stopped(&row.write) {
            return Ok(());
        }
        let deps = self.pass.deps;
        let subject = alert_subject(&row.write.store, &row.write.audience);
        // Each pass would count as another time.
        if deps.ledger.open_alert(kind, &subject).await?.as_ref() == Some(&message) {
            return Ok(());
        }
        let alert = NewAlert { kind, subject, message };
        deps.ledger.raise_alert(&alert, deps.clock.now()).await?;
        Ok(())
    }
}

fn drift(row: &StoreWrite, found: StoreCheck) -> String {
    let StoreCheck { sampled, missing, unexpected, .. } = found;
    let (store, audience) = (&row.write.store, &row.write.audience);
    let version = row.write.to_version.unwrap_or_default();
    format!(
        "the store differs from version {version}: of {sampled} sampled users {missing} are missing in it and \
         {unexpected} must not be in it; `throng store rewrite {store} --audience {audience}` writes it again"
    )
}
