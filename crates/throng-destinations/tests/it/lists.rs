//! Random histories of an audience: members are added and removed, identifiers change, are shared, erased and
//! restored, columns change, calls are refused and interrupted. Once calls succeed again, the platform's list
//! equals the audience, whether the platform matches rows or people.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use throng_activation::{
    Binding, Cell, Delivered, DeliveredState, Destination, DestinationLimits, DifferenceFacts,
    EndedRun, EnsuredAudience, IdentifierKeys, IdentifierRow, PlanFacts, PlanFile, PlatformSize,
    PreparedRow, Quotas, Reasons, RunRows, ScanWriter, Schema, SendClass, SendError, SendRequest,
    SendResponse, Skip, TaskInput, TaskOutcome, TaskRows, Worker, WorkerOptions, difference,
    plan_run,
};
use throng_destinations::{Account, MetaAccount, open, preparation};
use throng_ledger::SqliteLedger;
use throng_membership::MemberSet;
use throng_model::{
    Clock, Entropy, HashSeed, ManualClock, Personal, Secret, SplitMix64, SyncMode, Timestamp,
    UserKey,
};
use throng_sim::meta::{MetaSim, MetaSimConfig};
use throng_store::{DeliveredRecord, Ledger, Operation, RunState, SyncLedger, SyncRun};

const USERS: u32 = 10;
const SEED: HashSeed = HashSeed(3);
const LEASE: Duration = Duration::from_secs(3_600);

/// The fault of a call.
#[derive(Clone, Copy)]
enum Fault {
    Fine,
    Refused(SendClass),
    /// The request arrives, its response does not.
    Cut,
    /// Every second row of a removal is refused.
    Rows,
}

struct Flaky {
    inner: Arc<dyn Destination>,
    random: Mutex<Option<SplitMix64>>,
}

impl Flaky {
    fn next(&self) -> Fault {
        let mut random = self.random.lock().unwrap();
        let Some(random) = random.as_mut() else { return Fault::Fine };
        match random.below(10) {
            0 => Fault::Refused(SendClass::Retry),
            1 => Fault::Refused(SendClass::Stop),
            2 | 3 => Fault::Cut,
            4 => Fault::Rows,
            _ => Fault::Fine,
        }
    }
}

#[async_trait]
impl Destination for Flaky {
    fn limits(&self) -> DestinationLimits {
        self.inner.limits()
    }

    async fn ensure_audience(&self, name: &str, owner: &str) -> Result<EnsuredAudience, SendError> {
        self.inner.ensure_audience(name, owner).await
    }

    fn prepare(&self, schema: &Schema, cells: &[Option<Personal>]) -> Result<PreparedRow, Skip> {
        self.inner.prepare(schema, cells)
    }

    async fn send(&self, request: &SendRequest<'_>) -> Result<SendResponse, SendError> {
        match self.next() {
            Fault::Refused(class) => Err(SendError::local(class, "refused")),
            Fault::Cut => {
                self.inner.send(request).await?;
                Err(SendError::local(SendClass::Retry, "cut"))
            }
            Fault::Rows if request.operation == Operation::Remove => {
                let kept: Vec<PreparedRow> =
                    request.rows.iter().skip(1).step_by(2).cloned().collect();
                if !kept.is_empty() {
                    self.inner.send(&SendRequest { rows: &kept, ..*request }).await?;
                }
                let refused: Vec<(usize, String)> =
                    (0..request.rows.len()).step_by(2).map(|at| (at, "refused".into())).collect();
                Ok(SendResponse {
                    http_status: 200,
                    received: request.rows.len() as u64,
                    invalid: refused.len() as u64,
                    invalid_rows: refused,
                    ..SendResponse::default()
                })
            }
            Fault::Rows | Fault::Fine => self.inner.send(request).await,
        }
    }

    async fn size(&self, id: &str) -> Result<PlatformSize, SendError> {
        self.inner.size(id).await
    }

    async fn delete_audience(&self, id: &str) -> Result<(), SendError> {
        self.inner.delete_audience(id).await
    }

    async fn probe(&self) -> Result<(), SendError> {
        self.inner.probe().await
    }
}

/// A user's identifiers: e-mail and phone, by number; `None` is erased.
type Identifiers = (Option<u64>, Option<u64>);

struct World {
    dir: tempfile::TempDir,
    sim: MetaSim,
    ledger: Arc<SqliteLedger>,
    clock: Arc<ManualClock>,
    flaky: Arc<Flaky>,
    worker: Worker,
    keys: IdentifierKeys,
    columns: Vec<String>,
    mode: SyncMode,
    members: BTreeSet<u32>,
    /// The rows of each user in the identifiers' table.
    identifiers: BTreeMap<u32, Vec<Identifiers>>,
    version: u64,
    files: u64,
    random: SplitMix64,
}

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl World {
    async fn new(seed: u64, people: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000_000)));
        let sim = MetaSim::start(MetaSimConfig {
            matches_people: people,
            clock: Arc::clone(&clock) as _,
            ..MetaSimConfig::default()
        });
        let sim = sim.await.unwrap();
        let account = MetaAccount {
            account: "12".into(),
            access_token: Secret::new("token"),
            app_secret: None,
            base_url: Some(sim.url()),
            api_version: "v25.0".into(),
        };
        let flaky = Arc::new(Flaky {
            inner: open(&Account::Meta(account)).unwrap(),
            random: Mutex::new(None),
        });
        let ledger = Arc::new(SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap());
        let worker = Worker {
            ledger: Arc::clone(&ledger) as Arc<dyn Ledger>,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            seed: SEED,
            quotas: Arc::new(Quotas::default()),
            holder: "w".into(),
            options: WorkerOptions { lease: LEASE, pass_rows: 25 },
        };
        Self {
            dir,
            sim,
            ledger,
            clock,
            flaky,
            worker,
            keys: IdentifierKeys::parse(&"ab".repeat(32)).unwrap(),
            columns: columns(&["EMAIL", "PHONE"]),
            mode: SyncMode::Mirror,
            members: BTreeSet::new(),
            identifiers: BTreeMap::new(),
            version: 0,
            files: 0,
            random: SplitMix64::new(seed),
        }
    }

    fn file(&mut self, purpose: &'static str) -> (PathBuf, Binding, [u8; 32]) {
        self.files += 1;
        let path = self.dir.path().join(format!("{purpose}-{}", self.files));
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (path, binding(purpose, &name), [self.files as u8; 32])
    }

    fn change(&mut self) {
        for user in 0..USERS {
            if self.random.below(3) == 0 && !self.members.remove(&user) {
                self.members.insert(user);
            }
            if self.random.below(3) == 0 {
                // Few values, so that users share them; 0 is erased.
                let mut one = |n| Some(self.random.below(n)).filter(|v| *v > 0);
                let mut rows = vec![(one(6), one(5))];
                while rows.len() < 4 && one(3).is_none() {
                    rows.push((one(6), one(5)));
                }
                self.identifiers.insert(user, rows);
            }
        }
        if self.random.below(6) == 0 {
            let by_id = self.columns[0] == "EXTERN_ID";
            self.columns =
                columns(if by_id { &["EMAIL", "PHONE"] } else { &["EXTERN_ID", "EMAIL"] });
        }
    }

    fn rows(&self, user: u32) -> Vec<Result<PreparedRow, Skip>> {
        let rows = self.identifiers.get(&user).into_iter().flatten();
        rows.map(|identifiers| self.prepared(user, identifiers)).collect()
    }

    fn prepared(&self, user: u32, (email, phone): &Identifiers) -> Result<PreparedRow, Skip> {
        let text = |key: &String| match key.as_str() {
            "EMAIL" => email.map(|n| format!("e{n}@example.com")),
            "PHONE" => phone.map(|n| format!("+1202555010{n}")),
            _ => Some(format!("x{user}")),
        };
        let cells: Vec<_> = self.columns.iter().map(|k| text(k).map(Personal::new)).collect();
        let schema = Schema { keys: self.columns.clone(), default_country: None };
        self.flaky.prepare(&schema, &cells)
    }

    /// What was delivered: the recorded state, and the runs that ended since.
    async fn delivered(&self) -> (Delivered, Vec<SyncRun>, Option<DeliveredRecord>) {
        let record = self.ledger.delivered_records().await.unwrap().pop();
        let state = match record.as_ref().and_then(|record| record.state.clone()) {
            Some(name) => {
                let path = self.dir.path().join(&name);
                DeliveredState::open(&path, &self.keys, binding("delivered", &name)).unwrap()
            }
            None => DeliveredState::empty(self.columns.clone()),
        };
        let ended = self.ledger.unrecorded_runs().await.unwrap();
        let mut runs = Vec::new();
        for run in &ended {
            let plan = self.plan_of(run);
            let task = self.ledger.task_of_run(run.id).await.unwrap();
            let batches = self.ledger.batches(task.id).await.unwrap();
            runs.push(EndedRun { plan, batches, completed: run.state == RunState::Completed });
        }
        (Delivered { state, runs }, ended, record)
    }

    fn plan_of(&self, run: &SyncRun) -> PlanFile {
        let name = run.plan.clone().unwrap();
        PlanFile::open(&self.dir.path().join(&name), &self.keys, binding("plan", &name)).unwrap()
    }

    async fn record(&mut self) {
        let (delivered, ended, _) = self.delivered().await;
        if ended.last().is_none_or(|run| run.state != RunState::Completed) {
            return;
        }
        let (path, bound, salt) = self.file("delivered");
        let name = bound.version.clone();
        let meta = delivered.write(&path, &self.keys, bound, salt).unwrap();
        let record = DeliveredRecord {
            sync: "s".parse().unwrap(),
            account: "a".into(),
            columns: meta.keys.join(","),
            identifiers: String::new(),
            state: Some(name),
            users: meta.users,
            run: ended.last().unwrap().id,
            due: 0,
            retry_at: None,
            tries: 0,
            replace: false,
            requested: false,
            tables: None,
        };
        let ids: Vec<_> = ended.iter().map(|run| run.id).collect();
        self.ledger.put_delivered_record(&record, &ids).await.unwrap();
    }

    /// Plans a run. Returns whether there is anything to send.
    async fn plan(&mut self) -> bool {
        self.record().await;
        let (delivered, _, _) = self.delivered().await;
        let (path, _, salt) = self.file("scan");
        let platform = preparation("meta").unwrap();
        let reasons = Reasons { skips: platform.skip_reasons, notes: platform.note_reasons };
        let cells = self.columns.len();
        let mut scan = ScanWriter::new(reasons, cells, 100, &path, &self.keys, salt);
        let mut shards = vec![roaring::RoaringBitmap::new(); 256];
        for user in 0..USERS {
            let shard = (user % 3) as u8;
            if self.members.contains(&user) {
                shards[usize::from(shard)].insert(user);
            }
            for row in self.rows(user) {
                let key = UserKey::text(user.to_string()).hash(SEED);
                let row = IdentifierRow { user: key, row, notes: Vec::new() };
                scan.push(shard, user, &row).unwrap();
            }
        }
        let scan = scan.finish().unwrap();
        let target = MemberSet::new(shards);
        let known = delivered.columns().unwrap();
        let is_certain = known.keys == self.columns && !known.has_several;
        let can_replace = self.mode == SyncMode::Mirror && scan.has_usable_row(&target).unwrap();
        let facts = DifferenceFacts {
            delivered: &delivered,
            target: &target,
            scan: &scan,
            mode: self.mode,
            replace: !is_certain && can_replace,
            keys: &self.columns.clone(),
            strong: platform.strong_keys,
            identifiers: "",
            adopts: None,
        };
        let (path, bound, salt) = self.file("plan");
        let object = bound.version.clone();
        let found = difference(&facts, &path, &self.keys, bound, salt).unwrap();
        if found.is_empty() {
            return false;
        }
        self.version += 1;
        let run = plan_run(PlanFacts {
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode: self.mode,
            batch_rows: 3,
            priority: 0,
            max_removed_percent: 100,
            from_version: None,
            users_before: Some(found.users_before),
            to_version: self.version,
            users_removed: 0,
            rows: RunRows::Planned {
                meta: &found.meta,
                object: &object,
                normalised: &found.normalised,
            },
            hold: None,
        });
        self.ledger.plan_run(&run, self.clock.now()).await.unwrap().unwrap();
        true
    }

    /// Plans a run, and works until it has ended. Returns whether it has replaced the whole list.
    async fn deliver(&mut self) -> bool {
        assert!(self.plan().await, "there is nothing to send");
        let run = self.ledger.runs(None, 1).await.unwrap().remove(0);
        let put = self.plan_of(&run).meta.put;
        self.work().await;
        put == Operation::Replace
    }

    /// Works until the run has ended.
    async fn work(&mut self) {
        for _ in 0..200 {
            self.clock.advance(Duration::from_secs(900));
            let now = self.clock.now();
            let due = self.ledger.tasks_to_enqueue(now, now, 1, 1).await.unwrap();
            let Some(task) = due.first() else { continue };
            let until = now.plus(LEASE);
            let task = self.ledger.claim_task(task.id, "w", 1, now, until).await.unwrap();
            let Some(task) = task else { continue };
            let run = self.ledger.run(task.run).await.unwrap();
            let input = TaskInput {
                destination: Arc::clone(&self.flaky) as _,
                schema: Schema { keys: self.columns.clone(), default_country: None },
                rows: TaskRows::Planned(Arc::new(self.plan_of(&run))),
                platform_name: "throng: a".into(),
                adopt: false,
                adopts: None,
            };
            let outcome = self.worker.work(&task, Ok(&input)).await.unwrap();
            let run = self.ledger.run(task.run).await.unwrap();
            let (skipped, rejected): (u64, u64) =
                (run.skipped.values().sum(), run.rejected.values().sum());
            assert_eq!(run.read, run.sent + skipped + rejected + run.pending, "{run:?}");
            if matches!(outcome, TaskOutcome::Completed | TaskOutcome::Failed) {
                return;
            }
        }
        panic!("the run did not end");
    }

    /// The list on the platform equals the audience's identifier rows. A row that is not the row of a member may
    /// remain if members have all its identifiers: it reaches nobody else.
    fn check(&self, what: &str) {
        let text = |cell: &Cell| match cell {
            Cell::Hashed(hash) => hash.to_hex(),
            Cell::Plain(text) => text.to_string(),
            Cell::Empty => String::new(),
        };
        let named = |row: &PreparedRow| -> BTreeMap<String, String> {
            let cells = self.columns.iter().cloned().zip(row.iter().map(text));
            cells.filter(|(_, text)| !text.is_empty()).collect()
        };
        // Rows with the same EXTERN_ID are one for the platform: of each user the first one is delivered.
        let most = if self.columns.iter().any(|key| key == "EXTERN_ID") { 1 } else { usize::MAX };
        let rows_of = |user: &u32| {
            let mut rows: Vec<_> = self.rows(*user).into_iter().filter_map(Result::ok).collect();
            rows.sort_unstable();
            rows.truncate(most);
            rows
        };
        let rows = self.members.iter().flat_map(rows_of);
        let wanted: BTreeSet<_> = rows.map(|row| named(&row)).collect();
        let audiences = self.sim.audiences();
        let on_platform: BTreeSet<BTreeMap<String, String>> = audiences
            .iter()
            .flat_map(|audience| self.sim.member_rows(&audience.id).unwrap())
            .map(|row| row.into_iter().map(|(key, text)| (key.to_owned(), text)).collect())
            .collect();
        let missing: Vec<_> = wanted.difference(&on_platform).collect();
        assert!(missing.is_empty(), "{what}: not on the platform: {missing:?}");
        let of_members: BTreeSet<_> = wanted.iter().flatten().collect();
        for row in on_platform.difference(&wanted) {
            let all = row.iter().all(|cell| of_members.contains(&cell));
            assert!(all, "{what}: still on the platform: {row:?}");
        }
    }
}

fn binding(purpose: &'static str, name: &str) -> Binding {
    Binding { purpose, account: "a".into(), sync: "s".into(), version: name.to_owned() }
}

async fn history(seed: u64, people: bool) {
    let mut world = World::new(seed, people).await;
    for round in 0..6 {
        for _ in 0..1 + world.random.below(3) {
            world.change();
            let faults = SplitMix64::new(world.random.next_u64());
            *world.flaky.random.lock().unwrap() = Some(faults);
            if world.plan().await {
                world.work().await;
            }
        }
        *world.flaky.random.lock().unwrap() = None;
        while world.plan().await {
            world.work().await;
        }
        world.check(&format!("seed {seed}, people {people}, round {round}"));
    }
}

#[tokio::test]
async fn the_list_of_a_platform_that_matches_rows_equals_the_audience() {
    for seed in 0..40 {
        history(seed, false).await;
    }
}

#[tokio::test]
async fn the_list_of_a_platform_that_matches_people_equals_the_audience() {
    for seed in 0..40 {
        history(seed, true).await;
    }
}

#[tokio::test]
async fn a_run_is_sent_with_the_columns_that_it_was_planned_with() {
    let mut world = World::new(1, false).await;
    world.members = BTreeSet::from([1, 2]);
    let identifiers = [(1, vec![(Some(1), Some(1))]), (2, vec![(Some(2), None)])];
    world.identifiers = BTreeMap::from(identifiers);
    assert!(world.plan().await);
    // The columns of the sync change while its run waits.
    let planned = std::mem::replace(&mut world.columns, columns(&["PHONE", "EMAIL"]));
    world.work().await;
    world.columns = planned;
    world.check("columns that changed");
}

#[tokio::test]
async fn a_mirror_replaces_rows_of_columns_that_its_sync_has_added_earlier() {
    for people in [false, true] {
        let mut world = World::new(1, people).await;
        world.mode = SyncMode::Add;
        world.members = (1..5).collect();
        world.identifiers = (1..5).map(|n| (n, vec![(Some(u64::from(n)), None)])).collect();
        assert!(!world.deliver().await);
        world.columns = columns(&["EXTERN_ID", "EMAIL"]);
        assert!(!world.deliver().await);

        world.mode = SyncMode::Mirror;
        world.members.remove(&1);
        assert!(world.deliver().await, "rows of two column sets");
        world.check("the list is replaced");
        assert!(!world.plan().await);
        // From then on runs are differences.
        world.members.remove(&2);
        assert!(!world.deliver().await);
        world.check("a difference");
    }
}

#[tokio::test]
async fn a_mirror_replaces_its_list_once_when_its_columns_change() {
    let mut world = World::new(1, false).await;
    world.members = (1..5).collect();
    world.identifiers = (1..5).map(|n| (n, vec![(Some(u64::from(n)), None)])).collect();
    assert!(!world.deliver().await);
    for names in [["EXTERN_ID", "EMAIL"], ["EMAIL", "PHONE"]] {
        world.columns = columns(&names);
        assert!(world.deliver().await);
        world.check("other columns");
        world.members.pop_first();
        assert!(!world.deliver().await, "the list has only rows of the new columns");
        world.check("a difference");
    }
}
