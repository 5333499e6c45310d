//! A ledger, a dictionary of some users, a worker and a platform.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throng_activation::{
    Destination, IdentifierRow, IdentifierRows, IdentifierSource, PlanFacts, Quotas, RunRows,
    RunUsers, Schema, SendError, TaskInput, TaskOutcome, TaskRows, Worker, WorkerOptions, plan_run,
};
use throng_ledger::SqliteLedger;
use throng_membership::{MemberSet, MembershipIndex, ShardDictionary};
use throng_model::{
    Clock, HashSeed, ManualClock, Personal, SyncMode, SyncRunId, Timestamp, UserHash, UserKey,
};
use throng_store::{Ledger, RunState, SyncLedger, SyncRun, Task};

use crate::platform::Platform;

pub(crate) const SEED: HashSeed = HashSeed(11);
const LEASE: Duration = Duration::from_secs(3_600);

pub(crate) struct Rows(Vec<Vec<IdentifierRow>>);

pub(crate) struct Source(Vec<(String, String)>);

#[async_trait]
impl IdentifierSource for Source {
    async fn open(&self, _delivered: &[String]) -> Result<Box<dyn IdentifierRows>, SendError> {
        let row = |(key, value): &(String, String)| -> IdentifierRow {
            let cells = [Some(Personal::new(value.clone()))];
            let schema = Schema { keys: vec!["VALUE".into()], default_country: None };
            let user = UserKey::text(key.clone()).hash(SEED);
            let row = Platform::default().prepare(&schema, &cells);
            IdentifierRow { user, row, notes: Vec::new() }
        };
        Ok(Box::new(Rows(self.0.chunks(7).map(|c| c.iter().map(row).collect()).collect())))
    }
}

#[async_trait]
impl IdentifierRows for Rows {
    async fn next(&mut self) -> Result<Option<Vec<IdentifierRow>>, SendError> {
        Ok(self.0.pop())
    }
}

pub(crate) struct Rig {
    _dir: tempfile::TempDir,
    pub(crate) ledger: Arc<SqliteLedger>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) platform: Arc<Platform>,
    pub(crate) worker: Worker,
    index: Arc<MembershipIndex>,
    source: Vec<(String, String)>,
    delivered: Option<(u64, MemberSet)>,
    target: MemberSet,
    mode: SyncMode,
    pub(crate) adopt: bool,
    /// What the runs were planned to adopt.
    pub(crate) adopts: Option<String>,
}

fn index(root: &Path, keys: &[String]) -> MembershipIndex {
    let mut shards: BTreeMap<u8, Vec<UserHash>> = BTreeMap::new();
    for key in keys {
        let hash = UserKey::text(key.clone()).hash(SEED);
        shards.entry(hash.shard()).or_default().push(hash);
    }
    let mut dictionaries = vec![None; 256];
    for (shard, mut hashes) in shards {
        hashes.sort_unstable();
        let assigned = ShardDictionary::default().assign(root, &hashes).unwrap();
        let manifest = assigned.manifest.unwrap();
        dictionaries[usize::from(shard)] = Some(ShardDictionary::open(root, &manifest).unwrap());
    }
    MembershipIndex::new(SEED, dictionaries, Vec::new()).unwrap()
}

impl Rig {
    /// Users `u0` to `u<users - 1>`; `value` returns the identifiers of each, one row per identifier.
    pub(crate) async fn new(
        mode: SyncMode,
        users: u32,
        value: impl Fn(u32) -> Vec<String>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Arc::new(SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap());
        let clock = Arc::new(ManualClock::new(Timestamp(1_000_000_000_000)));
        let keys: Vec<String> = (0..users).map(|u| format!("u{u}")).collect();
        let source = (0..users)
            .flat_map(|u| value(u).into_iter().map(move |v| (format!("u{u}"), v)))
            .collect();
        Self {
            index: Arc::new(index(dir.path(), &keys)),
            worker: Worker {
                ledger: Arc::clone(&ledger) as Arc<dyn Ledger>,
                clock: Arc::clone(&clock) as Arc<dyn Clock>,
                seed: SEED,
                quotas: Arc::new(Quotas::default()),
                holder: "w".into(),
                options: WorkerOptions { lease: LEASE, pass_rows: 25 },
            },
            _dir: dir,
            ledger,
            clock,
            platform: Arc::default(),
            source,
            delivered: None,
            target: MemberSet::default(),
            mode,
            adopt: false,
            adopts: None,
        }
    }

    fn set(&self, users: impl IntoIterator<Item = u32>) -> MemberSet {
        let mut shards = vec![roaring::RoaringBitmap::new(); 256];
        for user in users {
            let at = self.index.locate(UserKey::text(format!("u{user}")).hash(SEED)).unwrap();
            shards[usize::from(at.shard)].insert(at.ordinal);
        }
        MemberSet::new(shards)
    }

    fn users(&self) -> RunUsers {
        let held = self.delivered.as_ref().map_or_else(MemberSet::default, |(_, set)| set.clone());
        RunUsers::compute(self.mode, &self.target, &[held])
    }

    /// Plans a run to these users, in batches of ten.
    pub(crate) async fn plan(&mut self, users: impl IntoIterator<Item = u32>) -> SyncRunId {
        self.target = self.set(users);
        let users = self.users();
        let run = plan_run(PlanFacts {
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode: self.mode,
            batch_rows: 10,
            priority: 0,
            max_removed_percent: 100,
            from_version: self.delivered.as_ref().map(|(version, _)| *version),
            users_before: Some(self.delivered.as_ref().map_or(0, |(_, set)| set.len())),
            to_version: self.delivered.as_ref().map_or(1, |(version, _)| version + 1),
            users_removed: 0,
            rows: RunRows::Users(&users),
            hold: None,
        });
        self.ledger.plan_run(&run, self.clock.now()).await.unwrap().unwrap()
    }

    pub(crate) async fn claim(&self) -> Option<Task> {
        let now = self.clock.now();
        let unavailable = self.worker.quotas.unavailable(now, |_| 8);
        let due = self.ledger.tasks_to_enqueue(now, now, 9, 9).await.unwrap();
        let task = due.iter().find(|task| !unavailable.contains(&task.destination))?;
        self.ledger.claim_task(task.id, "w", 9, now, now.plus(LEASE)).await.unwrap()
    }

    /// Claims and works once; `None` if nothing is due.
    pub(crate) async fn step(&mut self) -> Option<TaskOutcome> {
        let task = self.claim().await?;
        Some(self.work(&task).await)
    }

    /// Works on a claimed task once.
    pub(crate) async fn work(&mut self, task: &Task) -> TaskOutcome {
        let input = TaskInput {
            destination: Arc::clone(&self.platform) as _,
            schema: Schema { keys: vec!["EXTERN_ID".into()], default_country: None },
            rows: TaskRows::Users {
                identifiers: Arc::new(Source(self.source.clone())),
                users: self.users(),
                index: Arc::clone(&self.index),
            },
            platform_name: "throng: a".into(),
            adopt: self.adopt,
            adopts: self.adopts.clone(),
        };
        let outcome = self.worker.work(task, Ok(&input)).await.unwrap();
        self.assert_conserved(task.run).await;
        self.update_delivered(task.run).await;
        outcome
    }

    /// Updates what the planner would read from the ledger.
    pub(crate) async fn update_delivered(&mut self, id: SyncRunId) {
        let run = self.run(id).await;
        if run.state == RunState::Completed {
            self.delivered = Some((run.to_version, self.target.clone()));
        }
    }

    /// Works until the task is completed, advancing the clock in between; returns the number of tries.
    pub(crate) async fn finish(&mut self) -> u32 {
        for tries in 1..500 {
            match self.step().await {
                Some(TaskOutcome::Completed) => return tries,
                Some(TaskOutcome::Failed) => panic!("the task failed"),
                _ => self.clock.advance(Duration::from_secs(700)),
            }
        }
        panic!("the task did not end");
    }

    pub(crate) async fn run(&self, id: SyncRunId) -> SyncRun {
        self.ledger.run(id).await.unwrap()
    }

    pub(crate) async fn assert_conserved(&self, id: SyncRunId) {
        let run = self.run(id).await;
        let (skipped, rejected): (u64, u64) =
            (run.skipped.values().sum(), run.rejected.values().sum());
        assert_eq!(run.read, run.sent + skipped + rejected + run.pending, "{run:?}");
    }
}
