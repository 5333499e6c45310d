//! Refreshes of audiences whose SQL a simulated BigQuery runs, over HTTP, or a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "tests: a panic is how a case fails")]

mod builders;
mod dry_run;
mod faults;
mod key_ranges;
mod key_types;
mod postgres;
mod resume;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use throng_lake::{Lake, LakeLimits, WorkerCommand};
use throng_ledger::SqliteLedger;
use throng_membership::MembershipIndex;
use throng_model::{
    AudienceName, Backoff, Clock, HashSeed, ManualClock, RefreshId, Timestamp, UserKey,
};
use throng_objects::{DirectoryObjects, Objects};
use throng_refresh::{
    Observer, RefreshContext, RefreshDeps, RefreshOutcome, WarehouseJob, Warehouses,
    load_membership, recover, refresh_audiences,
};
use throng_sim_bigquery::{
    AcceptedAccount, BigQuerySim, BigQuerySimConfig, Column, Engine, SqlError, Table,
};
use throng_spec::Spec;
use throng_store::Ledger;
use throng_warehouse::{CallOptions, OpenWarehouses};
use tokio_util::sync::CancellationToken;

pub(crate) const SEED: HashSeed = HashSeed(7);
pub(crate) const KEY_FILE: &str = include_str!("test-service-account.json");
/// The SQL of the audience.
pub(crate) const SQL: &str = "SELECT user_id, score FROM `p.app.clicks`";

/// How long a test waits for a condition. It is not a measurement: a busy machine may take that long.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// Polls until the condition holds, with a delay in between so that others get the processor.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let polling = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(TIMEOUT, polling).await.is_ok(), "{what}: not within {TIMEOUT:?}");
}

/// Answers every query with the newest table: what a warehouse has changes.
#[derive(Default)]
pub(crate) struct Newest(Mutex<Table>);

impl Newest {
    pub(crate) fn set(&self, table: Table) {
        *self.0.lock() = table;
    }
}

#[async_trait]
impl Engine for Newest {
    async fn query(&self, sql: &str, _dataset: Option<&str>) -> Result<Table, SqlError> {
        match sql {
            SQL => Ok(self.0.lock().clone()),
            _ => Err(SqlError("Unrecognized name: totl at [1:8]".to_owned())),
        }
    }
}

/// A row for each user, one user twice, and a row without a user.
pub(crate) fn clicks(users: std::ops::Range<u32>) -> Table {
    let cells = |user: Option<u32>| vec![user.map(|user| user.to_string()), Some("1.5".to_owned())];
    let mut rows: Vec<_> = users.clone().map(|user| cells(Some(user))).collect();
    rows.push(cells(Some(users.start)));
    rows.push(cells(None));
    let columns = vec![Column::new("user_id", "INTEGER"), Column::new("score", "FLOAT")];
    Table { columns, rows, bytes: 5 << 30 }
}

struct Silent;

impl Observer for Silent {
    fn audiences_changed(&self) {}
    fn snapshot_recorded(&self) {}
    fn membership_loaded(&self, _index: &Arc<MembershipIndex>) {}
    fn report_problem(&self, _key: &str, _detail: &str) {}
    fn clear_problem(&self, _key: &str) {}
    fn report_error(&self, _part: &str, _error: &(dyn std::error::Error + 'static)) {}
}

/// A data directory, a warehouse, and a spec with one audience.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) engine: Arc<Newest>,
    pub(crate) sim: BigQuerySim,
    pub(crate) spec: Spec,
    /// The longest time of a call.
    pub(crate) timeout: Duration,
}

impl Site {
    /// A warehouse with ten users, whose pages have three rows.
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-23T12:00:00Z".parse().unwrap()));
        let engine = Arc::new(Newest::default());
        engine.set(clicks(0..10));
        let sim = BigQuerySim::start(BigQuerySimConfig {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            account: AcceptedAccount::of_key_file(KEY_FILE),
            ..BigQuerySimConfig::new(Arc::clone(&engine) as Arc<dyn Engine>)
        });
        let sim = sim.await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key.json"), KEY_FILE).unwrap();
        std::fs::create_dir(dir.path().join("spill")).unwrap();
        let spec = spec(dir.path(), &sim.url(), "");
        Self { dir, clock, engine, sim, spec, timeout: TIMEOUT }
    }

    pub(crate) fn warehouses(&self) -> OpenWarehouses {
        let first = Duration::from_millis(1);
        let backoff = Backoff { first, longest: first * 4 };
        let timeout = self.timeout;
        OpenWarehouses::new(
            Arc::new(|_: &str| None::<String>),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
        )
        .with_options(CallOptions { timeout, retry: backoff, poll: backoff })
    }

    pub(crate) async fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::new(SqliteLedger::open(&self.dir.path().join("ledger.db")).await.unwrap())
    }

    /// A process that starts, after another one has died.
    pub(crate) async fn process(&self) -> Arc<RefreshContext> {
        self.process_with(Arc::new(self.warehouses())).await
    }

    /// The same, with these warehouses.
    pub(crate) async fn process_with(
        &self,
        warehouses: Arc<dyn Warehouses>,
    ) -> Arc<RefreshContext> {
        let ledger = self.ledger().await;
        let objects: Arc<dyn Objects> =
            Arc::new(DirectoryObjects::open(self.dir.path().join("objects")).unwrap());
        let spill = self.dir.path().join("spill");
        let limits = LakeLimits::of(&self.spec.node, spill, WorkerCommand::of("/none"));
        let lake = Lake::new(&self.spec.sources, limits, None).unwrap();
        let loaded = load_membership(&objects, &*ledger, SEED, &self.spec).await.unwrap();
        let ctx = Arc::new(RefreshContext::new(RefreshDeps {
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            ledger,
            objects,
            seed: SEED,
            holder: "process".to_owned(),
            serves_membership: true,
            helps_others: false,
            min_poll_interval: Duration::from_millis(1),
            spec: Arc::new(ArcSwap::from_pointee(self.spec.clone())),
            lake: Arc::new(ArcSwap::from_pointee(lake)),
            warehouses,
            membership: Arc::new(ArcSwap::from_pointee(loaded.index)),
            wake: Arc::default(),
            observer: Arc::new(Silent),
        }));
        recover(&ctx).await.unwrap();
        ctx
    }

    /// Refreshes the audience in this process.
    pub(crate) async fn refresh(&self) -> RefreshOutcome {
        let ctx = self.process().await;
        refresh(&ctx).await
    }

    /// Refreshes the audience in a process that is killed once `condition` holds.
    pub(crate) async fn refresh_until(&self, what: &str, condition: impl Fn() -> bool) {
        let ctx = self.process().await;
        tokio::select! {
            outcome = refresh(&ctx) => panic!("{what}: {outcome:?}"),
            () = until(what, condition) => {}
        }
    }

    /// Checks that exactly these users are members, in a process that has just started.
    pub(crate) async fn assert_members(&self, users: std::ops::Range<u32>) {
        let ledger = self.ledger().await;
        let objects: Arc<dyn Objects> =
            Arc::new(DirectoryObjects::open(self.dir.path().join("objects")).unwrap());
        let index = load_membership(&objects, &*ledger, SEED, &self.spec).await.unwrap().index;
        let is_member =
            |user: &u32| index.contains(UserKey::integer((*user).into()).hash(SEED), &audience());
        let members: BTreeSet<u32> = (0..1000).filter(is_member).collect();
        assert_eq!(members, users.clone().collect::<BTreeSet<u32>>());
        let current = ledger.audience(&audience()).await.unwrap().unwrap().current.unwrap();
        assert_eq!(current.members, users.len() as u64);
        // A user twice, and a row without a user.
        assert_eq!(current.rows_read, users.len() as u64 + 2);
        assert_eq!(current.null_keys, 1);
    }

    /// The first rows of the pages that were served, for each job.
    pub(crate) fn pages(&self) -> Vec<Vec<usize>> {
        self.sim.oracle().jobs.into_iter().map(|job| job.pages).collect()
    }
}

pub(crate) async fn refresh(ctx: &Arc<RefreshContext>) -> RefreshOutcome {
    let shutdown = CancellationToken::new();
    let outcomes = refresh_audiences(ctx, &[audience()], false, &shutdown, |_| {}).await.unwrap();
    outcomes.into_iter().next().unwrap()
}

pub(crate) fn audience() -> AudienceName {
    "clickers".parse().unwrap()
}

/// The first job of a refresh of this audience.
pub(crate) fn first_job() -> WarehouseJob {
    WarehouseJob {
        deployment: 1,
        audience: audience(),
        refresh: RefreshId(1),
        scheduled_at: Timestamp(1),
        attempt: 0,
    }
}

/// The spec of a site; `fields` are more fields of the source.
pub(crate) fn spec(dir: &Path, url: &str, fields: &str) -> Spec {
    let text = format!(
        "version: 1\nsources:\n  - {{ name: app, type: bigquery, project: p, location: US, page_rows: 3, \
         price_per_tib: \"6.25\", credentials: \"file:key.json\", token_url: \"{url}/token\", \
         endpoint: \"{url}\"{fields} }}\naudiences:\n  - {{ name: clickers, source: app, key: user_id, \
         sql: \"{SQL}\" }}\n"
    );
    let path = dir.join("throng.yaml");
    std::fs::write(&path, text).unwrap();
    throng_spec::load(&path).unwrap()
}
