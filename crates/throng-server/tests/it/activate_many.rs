//! 2,000 audiences, 8 workers, and a platform on which every twentieth call fails: in the end the platform has
//! exactly the members of the snapshots. Some audiences get a second version, so that there are removals.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roaring::RoaringBitmap;
use throng_activation::{
    Destination, IdentifierRow, IdentifierRows, IdentifierSource, PlanFacts, Quotas, RunRows,
    RunUsers, Schema, SendError, TaskInput, TaskOutcome, TaskRows, Worker, WorkerOptions, plan_run,
};
use throng_destinations::{Account, MetaAccount};
use throng_ledger::SqliteLedger;
use throng_membership::{MemberSet, MembershipIndex, ShardDictionary};
use throng_model::{
    AdjustableClock, Clock, HashSeed, Personal, Secret, SyncMode, SyncName, UserHash, UserKey,
};
use throng_sim::meta::{FaultScript, MetaSim, MetaSimConfig};
use throng_store::{Ledger, RunState, SyncLedger, Task, TaskState};
use tokio::sync::Mutex;

const AUDIENCES: u32 = 2_000;
/// Audiences with a second version.
const CHANGED: u32 = 300;
const ACCOUNTS: u32 = 8;
const WORKERS: u32 = 8;
const USERS: u32 = 400;
const BATCH_ROWS: u32 = 25;
const SEED: HashSeed = HashSeed(3);
/// Delays after failures take milliseconds; a lease must last longer than the test.
const SPEED: f64 = 5_000.0;
const LEASE: Duration = Duration::from_secs(10_000_000);

/// The users of a version of an audience: about 40 of 400, a quarter of them new in each version.
fn members(audience: u32, version: u32) -> impl Iterator<Item = u32> {
    (0..USERS).filter(move |user| {
        let place = (user * 7 + audience * 13) % 97;
        (version * 3..version * 3 + 10).contains(&place)
    })
}

fn key(user: u32) -> String {
    format!("user-{user}")
}

fn schema() -> Schema {
    Schema { keys: vec!["EXTERN_ID".into(), "EMAIL".into()], default_country: None }
}

/// The identifiers of all users, which every task reads.
struct Everybody;

struct Rows(u32);

#[async_trait]
impl IdentifierSource for Everybody {
    async fn open(&self, _delivered: &[String]) -> Result<Box<dyn IdentifierRows>, SendError> {
        Ok(Box::new(Rows(0)))
    }
}

#[async_trait]
impl IdentifierRows for Rows {
    async fn next(&mut self) -> Result<Option<Vec<IdentifierRow>>, SendError> {
        if self.0 >= USERS {
            return Ok(None);
        }
        let from = self.0;
        self.0 += 100;
        let meta = throng_destinations::preparation("meta").unwrap();
        let row = |user: u32| {
            let email = Personal::new(format!("{}@example.com", key(user)));
            let cells = [Some(Personal::new(key(user))), Some(email)];
            let row = (meta.prepare)(&schema(), 2026, &cells, &mut Vec::new());
            IdentifierRow { user: UserKey::text(key(user)).hash(SEED), row, notes: Vec::new() }
        };
        Ok(Some((from..self.0).map(row).collect()))
    }
}

struct Rig {
    ledger: Arc<SqliteLedger>,
    /// Due tasks, for any free worker.
    queue: Mutex<VecDeque<Task>>,
    clock: Arc<AdjustableClock>,
    index: Arc<MembershipIndex>,
    accounts: Vec<Arc<dyn Destination>>,
}

fn index(root: &Path) -> MembershipIndex {
    let mut shards: BTreeMap<u8, Vec<UserHash>> = BTreeMap::new();
    for user in 0..USERS {
        let hash = UserKey::text(key(user)).hash(SEED);
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

fn sync(audience: u32) -> SyncName {
    format!("s-{audience}").parse().unwrap()
}

impl Rig {
    async fn new(root: &Path, sim: &MetaSim) -> Self {
        let clock = Arc::new(AdjustableClock::default());
        clock.set_speed(SPEED);
        let account = |number: u32| {
            let account = MetaAccount {
                account: format!("act_{}", 100 + number),
                access_token: Secret::new("token"),
                app_secret: None,
                base_url: Some(sim.url()),
                api_version: "v25.0".into(),
            };
            throng_destinations::open(&Account::Meta(account)).unwrap()
        };
        Self {
            ledger: Arc::new(SqliteLedger::open(&root.join("ledger.db")).await.unwrap()),
            queue: Mutex::default(),
            clock,
            index: Arc::new(index(root)),
            accounts: (0..ACCOUNTS).map(account).collect(),
        }
    }

    fn set(&self, audience: u32, version: u32) -> MemberSet {
        let mut shards = vec![RoaringBitmap::new(); 256];
        if version > 0 {
            for user in members(audience, version) {
                let at = self.index.locate(UserKey::text(key(user)).hash(SEED)).unwrap();
                shards[usize::from(at.shard)].insert(at.ordinal);
            }
        }
        MemberSet::new(shards)
    }

    fn users(&self, audience: u32, version: u32) -> RunUsers {
        let (from, to) = (self.set(audience, version - 1), self.set(audience, version));
        RunUsers::compute(SyncMode::Mirror, &to, &[from])
    }

    async fn plan(&self, audience: u32, version: u32) {
        let users = self.users(audience, version);
        let run = plan_run(PlanFacts {
            sync: sync(audience),
            audience: format!("a-{audience}").parse().unwrap(),
            destination: format!("d-{}", audience % ACCOUNTS).parse().unwrap(),
            mode: SyncMode::Mirror,
            batch_rows: BATCH_ROWS,
            priority: 0,
            max_removed_percent: 100,
            from_version: (version > 1).then_some(u64::from(version) - 1),
            users_before: Some(if version > 1 { 40 } else { 0 }),
            to_version: u64::from(version),
            users_removed: 0,
            rows: RunRows::Users(&users),
            hold: None,
        });
        self.ledger.plan_run(&run, self.clock.now()).await.unwrap().unwrap();
    }

    fn input(&self, task: &Task, version: u32) -> TaskInput {
        let audience: u32 = task.sync.as_str()[2..].parse().unwrap();
        TaskInput {
            destination: Arc::clone(&self.accounts[(audience % ACCOUNTS) as usize]),
            schema: schema(),
            rows: TaskRows::Users {
                identifiers: Arc::new(Everybody),
                users: self.users(audience, version),
                index: Arc::clone(&self.index),
            },
            platform_name: format!("throng: a-{audience}"),
            adopt: false,
            adopts: None,
        }
    }

    /// The next task of an available account; `None` if there is none now.
    async fn next(&self, worker: &Worker) -> Option<Task> {
        let now = self.clock.now();
        let unavailable = worker.quotas.unavailable(now, |_| 16);
        let mut queue = self.queue.lock().await;
        if queue.is_empty() {
            *queue = self.ledger.tasks_to_enqueue(now, now, 200, 200).await.unwrap().into();
        }
        let place = queue.iter().position(|task| !unavailable.contains(&task.destination))?;
        queue.remove(place)
    }

    /// Works until no task is open. Returns the number of requeued tasks.
    async fn work(&self, worker: &Worker, version: u32) -> u32 {
        let mut requeued = 0;
        loop {
            let Some(task) = self.next(worker).await else {
                let counts = self.ledger.task_counts().await.unwrap();
                if counts.iter().all(|(state, n)| *state == TaskState::Done || *n == 0) {
                    return requeued;
                }
                let pause = self.clock.wall_duration(Duration::from_secs(20));
                tokio::time::sleep(pause).await;
                continue;
            };
            let now = self.clock.now();
            let (id, until) = (task.id, now.plus(LEASE));
            let claimed = self.ledger.claim_task(id, &worker.holder, 16, now, until).await;
            let Some(task) = claimed.unwrap() else { continue };
            let input = self.input(&task, version);
            if worker.work(&task, Ok(&input)).await.unwrap() == TaskOutcome::Failed {
                // Eight consecutive failures: rare, but it occurs with 2,000 tasks.
                requeued += 1;
                self.ledger.requeue_task(task.id, self.clock.now()).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_thousand_audiences_are_delivered_despite_faults() {
    let dir = tempfile::tempdir().unwrap();
    let faults = FaultScript::mixed(42, 0.05);
    let sim = MetaSim::start(MetaSimConfig { faults, ..MetaSimConfig::default() }).await.unwrap();
    let rig = Arc::new(Rig::new(dir.path(), &sim).await);
    let quotas = Arc::new(Quotas::default());
    for (version, audiences) in [(1, AUDIENCES), (2, CHANGED)] {
        for audience in 0..audiences {
            rig.plan(audience, version).await;
        }
        let mut workers = tokio::task::JoinSet::new();
        for number in 0..WORKERS {
            let worker = Worker {
                ledger: Arc::clone(&rig.ledger) as Arc<dyn Ledger>,
                clock: Arc::clone(&rig.clock) as Arc<dyn Clock>,
                seed: SEED,
                quotas: Arc::clone(&quotas),
                holder: format!("w{number}"),
                options: WorkerOptions { lease: LEASE, ..WorkerOptions::default() },
            };
            let rig = Arc::clone(&rig);
            workers.spawn(async move { rig.work(&worker, version).await });
        }
        let requeued: u32 = workers.join_all().await.into_iter().sum();
        assert!(requeued < 20, "{requeued} tasks failed eight times consecutively");
        assert_equal(&rig, &sim, |audience| if audience < CHANGED { version } else { 1 }).await;
    }
    assert!(sim.injected_faults().iter().sum::<u64>() > 100, "too few faults were injected");
    assert_eq!(sim.requests().unhashed_cells, 0);
}

async fn assert_equal(rig: &Rig, sim: &MetaSim, version_of: impl Fn(u32) -> u32) {
    assert_eq!(sim.audience_count(), AUDIENCES as usize);
    for audience in 0..AUDIENCES {
        let version = version_of(audience);
        let platform = rig.ledger.platform_audience(&sync(audience)).await.unwrap().unwrap();
        assert_eq!(platform.delivered_version, Some(u64::from(version)));
        let mut expected: Vec<String> = members(audience, version).map(key).collect();
        expected.sort();
        assert_eq!(sim.members(&platform.platform_id).unwrap(), expected, "audience {audience}");
    }
    for run in rig.ledger.runs(None, AUDIENCES).await.unwrap() {
        let (skipped, rejected): (u64, u64) =
            (run.skipped.values().sum(), run.rejected.values().sum());
        assert_eq!(run.state, RunState::Completed);
        assert_eq!((run.read, run.pending), (run.sent + skipped + rejected, 0), "{run:?}");
        assert_eq!((skipped, rejected), (0, 0));
    }
}
