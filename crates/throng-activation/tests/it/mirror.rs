//! A mirror over several runs whose rows are planned from the delivered state.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;
use throng_activation::{
    Binding, Cell, Delivered, DeliveredState, DifferenceFacts, EndedRun, IdentifierKeys,
    IdentifierRow, PlanFacts, PlanFile, Quotas, Reasons, RunRows, Scan, ScanWriter, Schema,
    TaskInput, TaskOutcome, TaskRows, Worker, WorkerOptions, difference, plan_run,
};
use throng_ledger::SqliteLedger;
use throng_membership::MemberSet;
use throng_model::{
    Clock, Entropy, ManualClock, SHARD_COUNT, SplitMix64, SyncMode, SyncRunId, Timestamp, UserHash,
};
use throng_store::{Ledger, SyncLedger};

use crate::platform::{Fault, Platform};
use crate::rig::SEED;

const LEASE: Duration = Duration::from_secs(3_600);
const USERS: u32 = 40;

struct Mirror {
    dir: tempfile::TempDir,
    ledger: Arc<SqliteLedger>,
    clock: Arc<ManualClock>,
    platform: Arc<Platform>,
    worker: Worker,
    keys: IdentifierKeys,
    columns: Vec<String>,
    delivered: Delivered,
    version: u64,
}

impl Mirror {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Arc::new(SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap());
        let clock = Arc::new(ManualClock::new(Timestamp(1_000_000_000_000)));
        let columns = vec!["EMAIL".to_owned()];
        Self {
            worker: Worker {
                ledger: Arc::clone(&ledger) as Arc<dyn Ledger>,
                clock: Arc::clone(&clock) as Arc<dyn Clock>,
                seed: SEED,
                quotas: Arc::new(Quotas::default()),
                holder: "w".into(),
                options: WorkerOptions { lease: LEASE, ..WorkerOptions::default() },
            },
            dir,
            ledger,
            clock,
            platform: Arc::default(),
            keys: IdentifierKeys::parse(&"ab".repeat(32)).unwrap(),
            delivered: Delivered {
                state: DeliveredState::empty(columns.clone()),
                runs: Vec::new(),
            },
            columns,
            version: 0,
        }
    }

    fn file(&self, purpose: &'static str) -> (PathBuf, Binding) {
        let version = self.version.to_string();
        let path = self.dir.path().join(format!("{purpose}-{version}"));
        (path, Binding { purpose, account: "a".into(), sync: "s".into(), version })
    }

    /// The identifiers of all users.
    fn scan(&self) -> Scan {
        let (path, _) = self.file("scan");
        let reasons = Reasons { skips: &[], notes: &[] };
        let mut scan = ScanWriter::new(reasons, 1, 1 << 20, &path, &self.keys, [0; 32]);
        for user in 0..USERS {
            let row = Ok(vec![Cell::Plain(format!("id{user}").into())].into());
            let row = IdentifierRow { user: UserHash(0), row, notes: Vec::new() };
            scan.push(0, user, &row).unwrap();
        }
        scan.finish().unwrap()
    }

    /// Delivers these users. Returns the number of rows that are not confirmed; `None` if there was nothing to send.
    async fn deliver(&mut self, users: &BTreeSet<u32>) -> Option<u64> {
        self.version += 1;
        let mut shards = vec![RoaringBitmap::new(); SHARD_COUNT];
        shards[0].extend(users.iter().copied());
        let (target, scan) = (MemberSet::new(shards), self.scan());
        let facts = DifferenceFacts {
            delivered: &self.delivered,
            target: &target,
            scan: &scan,
            mode: SyncMode::Mirror,
            replace: false,
            keys: &self.columns,
            strong: &["EMAIL"],
            identifiers: "",
            adopts: None,
        };
        let (path, binding) = self.file("plan");
        let found = difference(&facts, &path, &self.keys, binding.clone(), [1; 32]).unwrap();
        if found.is_empty() {
            return None;
        }
        let object = format!("plans/{}", self.version);
        let run = plan_run(PlanFacts {
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode: SyncMode::Mirror,
            batch_rows: 10,
            priority: 0,
            max_removed_percent: 100,
            from_version: None,
            users_before: Some(found.users_before),
            to_version: self.version,
            users_removed: found.users_removed,
            rows: RunRows::Planned {
                meta: &found.meta,
                object: &object,
                normalised: &found.normalised,
            },
            hold: None,
        });
        let run = self.ledger.plan_run(&run, self.clock.now()).await.unwrap().unwrap();
        let open = || PlanFile::open(&path, &self.keys, binding.clone()).unwrap();
        self.work(run, Arc::new(open())).await;
        let task = self.ledger.task_of_run(run).await.unwrap();
        let batches = self.ledger.batches(task.id).await.unwrap();
        let ended = EndedRun { plan: open(), batches, completed: true };
        self.delivered.runs.push(ended);
        let rejected = self.ledger.run(run).await.unwrap().rejected;
        Some(rejected.values().sum())
    }

    /// Works on a run until it is completed.
    async fn work(&self, run: SyncRunId, plan: Arc<PlanFile>) {
        let input = TaskInput {
            destination: Arc::clone(&self.platform) as _,
            schema: Schema { keys: self.columns.clone(), default_country: None },
            rows: TaskRows::Planned(plan),
            platform_name: "throng: a".into(),
            adopt: false,
            adopts: None,
        };
        for _ in 0..200 {
            let now = self.clock.now();
            let id = self.ledger.task_of_run(run).await.unwrap().id;
            let claimed = self.ledger.claim_task(id, "w", 9, now, now.plus(LEASE)).await.unwrap();
            if let Some(task) = claimed {
                match self.worker.work(&task, Ok(&input)).await.unwrap() {
                    TaskOutcome::Completed => return,
                    TaskOutcome::Failed => self.ledger.requeue_task(id, now).await.unwrap(),
                    TaskOutcome::Rescheduled | TaskOutcome::LeaseLost => {}
                }
            }
            self.clock.advance(Duration::from_secs(700));
        }
        panic!("the run did not end");
    }
}

/// Most requests arrive in part, and some responses are lost.
fn faults(random: &mut SplitMix64) -> Vec<Fault> {
    let one = |_: u32| match random.below(40) {
        0 => Fault::CutAfter,
        1..8 => Fault::Fine,
        8..14 => Fault::Missing(3),
        _ => Fault::Missing(1),
    };
    (0..60).map(one).collect()
}

#[tokio::test]
async fn rows_that_may_have_arrived_leave_the_list_with_their_users() {
    let mut unconfirmed = 0;
    for seed in 0..5 {
        let mut random = SplitMix64::new(seed);
        let mut mirror = Mirror::new().await;
        for _ in 0..5 {
            mirror.platform.script(&faults(&mut random));
            let users: BTreeSet<u32> = (0..USERS).filter(|_| random.below(3) > 0).collect();
            unconfirmed += mirror.deliver(&users).await.unwrap_or_default();
        }
        mirror.platform.end_faults();
        let users: BTreeSet<u32> = (0..USERS).filter(|_| random.below(3) > 0).collect();
        mirror.deliver(&users).await;
        let expected: BTreeSet<String> = users.iter().map(|user| format!("id{user}")).collect();
        assert_eq!(mirror.platform.members(), expected, "seed {seed}");
        assert_eq!(mirror.deliver(&users).await, None, "seed {seed}: everything is confirmed");
    }
    assert!(unconfirmed > 60, "too few rows were not confirmed: {unconfirmed}");
}
