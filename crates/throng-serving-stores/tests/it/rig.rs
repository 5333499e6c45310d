//! A deployment with three audiences and one store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::aio::MultiplexedConnection;
use roaring::RoaringBitmap;
use throng_ledger::SqliteLedger;
use throng_membership::{
    MembershipIndex, ShardDictionary, SnapshotMeta, SnapshotSummary, SnapshotWriter, seed_check,
};
use throng_model::{AudienceName, Clock, HashSeed, ManualClock, Timestamp, UserHash};
use throng_objects::DirectoryObjects;
use throng_serving_stores::{StoreConnector, StoresDeps, run_pass};
use throng_spec::{ServingStore, Spec, StoreEngine};
use throng_store::{
    AudienceLedger as _, Ledger, NewStoreWrite, RefreshGroupLedger as _, RefreshTrigger, Snapshot,
    SnapshotState, StoreWrite, StoreWriteLedger as _, StoreWriteState, SyncLedger as _,
};
use tokio_util::sync::CancellationToken;

use crate::cut::{Cut, CutConnector, Kill};
use crate::table::Table;

const SEED: HashSeed = HashSeed(42);
/// All users are in so many shards, so that the dictionary has few files.
const SHARDS: u64 = 4;
pub(crate) const AUDIENCES: [&str; 3] = ["buyers", "visitors", "winners"];

/// User number `n`.
pub(crate) fn user(n: u64) -> UserHash {
    UserHash(((n % SHARDS) << 56) | (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8)
}

pub(crate) fn audience(name: &str) -> AudienceName {
    name.parse().unwrap()
}

/// Where and how a Redis store of a rig is written.
pub(crate) struct Place<'a> {
    /// The URL of the server.
    pub(crate) url: &'a str,
    /// The number of the database; each test has its own.
    pub(crate) database: u16,
    pub(crate) layout: &'a str,
    /// More fields of the store.
    pub(crate) more: &'a str,
}

impl Place<'_> {
    /// The fields of the store.
    fn fields(&self) -> String {
        let Place { url, database, layout, more } = self;
        format!("type: redis, url: \"{url}/{database}\", layout: {layout}, prefix: \"it:\"{more}")
    }
}

/// A spec with one store.
fn spec(dir: &Path, fields: &str) -> Spec {
    let mut text = "version: 1\nsources: [{ name: shop, path: . }]\naudiences:\n".to_owned();
    for name in AUDIENCES {
        text += &format!("  - {{ name: {name}, sql: \"SELECT id FROM shop.{name}\" }}\n");
    }
    text += &format!(
        "serving_stores:\n  - {{ name: cache, max_writes_per_second: 10000000, {fields} }}\n"
    );
    let path = dir.join("throng.yaml");
    std::fs::write(&path, text).unwrap();
    throng_spec::load(&path).unwrap()
}

pub(crate) struct Rig {
    dir: tempfile::TempDir,
    pub(crate) ledger: Arc<SqliteLedger>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) deps: StoresDeps,
    pub(crate) store: ServingStore,
    pub(crate) cut: Arc<Cut>,
    /// The members that are published.
    pub(crate) model: BTreeMap<AudienceName, BTreeSet<u64>>,
    processes: u32,
    prefix: String,
}

impl Rig {
    /// Users 0 to `users - 1` are known. The store is in Redis.
    pub(crate) async fn new(users: u64, place: Place<'_>, password: Option<&str>) -> Self {
        Self::of(users, &place.fields(), password).await
    }

    /// Users 0 to `users - 1` are known. The store has these fields.
    pub(crate) async fn of(users: u64, fields: &str, password: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Arc::new(SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap());
        let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000_000)));
        let spec = spec(dir.path(), fields);
        let store = spec.serving_stores[0].clone();
        let objects = DirectoryObjects::open(dir.path().join("objects")).unwrap();
        let (cut, password) = (Arc::new(Cut::default()), password.map(str::to_owned));
        let secrets = Arc::new(move |_: &str| password.clone());
        let inner = StoreConnector::new(secrets, Arc::clone(&clock) as Arc<dyn Clock>);
        let mut rig = Self {
            deps: StoresDeps {
                ledger: Arc::clone(&ledger) as Arc<dyn Ledger>,
                objects: Arc::new(objects),
                clock: Arc::clone(&clock) as Arc<dyn Clock>,
                spec: Arc::new(ArcSwap::from_pointee(spec)),
                membership: Arc::new(ArcSwap::from_pointee(MembershipIndex::empty(SEED))),
                seed: SEED,
                holder: "process-0".to_owned(),
                min_poll_interval: Duration::ZERO,
                connector: Arc::new(CutConnector { inner, cut: Arc::clone(&cut) }),
                check_backoff: Arc::default(),
            },
            dir,
            ledger,
            clock,
            store,
            cut,
            model: BTreeMap::new(),
            processes: 0,
            prefix: "it:".to_owned(),
        };
        rig.learn(users).await;
        rig
    }

    /// Applies the spec with a change.
    pub(crate) fn apply(&self, change: impl FnOnce(&mut Spec)) {
        let mut spec = Spec::clone(&self.deps.spec.load_full());
        change(&mut spec);
        self.deps.spec.store(Arc::new(spec));
    }

    /// Adds users to the dictionary.
    async fn learn(&mut self, users: u64) {
        let root = self.dir.path().join("objects");
        for shard in 0..SHARDS as u8 {
            let of_shard = (0..users).map(user).filter(|user| user.shard() == shard);
            let hashes: BTreeSet<UserHash> = of_shard.collect();
            let hashes: Vec<UserHash> = hashes.into_iter().collect();
            let row = self.ledger.dictionary_shard(shard).await.unwrap();
            let dictionary = ShardDictionary::open(&root, &row.manifest).unwrap();
            let manifest = dictionary.assign(&root, &hashes).unwrap().manifest.unwrap();
            let swapped =
                self.ledger.compare_and_swap_dictionary(shard, row.version, &manifest).await;
            assert!(swapped.unwrap());
        }
    }

    /// Publishes a version with these members, and returns it.
    pub(crate) async fn publish(
        &mut self,
        name: &str,
        members: impl IntoIterator<Item = u64>,
    ) -> u64 {
        let (name, members) = (audience(name), members.into_iter().collect::<BTreeSet<u64>>());
        let root = self.dir.path().join("objects");
        let mut dictionary_len = vec![0; 256];
        let mut bitmaps = Vec::new();
        for shard in 0..SHARDS as u8 {
            let row = self.ledger.dictionary_shard(shard).await.unwrap();
            let dictionary = ShardDictionary::open(&root, &row.manifest).unwrap();
            dictionary_len[usize::from(shard)] = dictionary.len();
            let users = members.iter().map(|n| user(*n)).filter(|user| user.shard() == shard);
            let ordinals = users.map(|user| dictionary.ordinal(user).unwrap());
            bitmaps.push(ordinals.collect::<RoaringBitmap>());
        }
        let now = self.clock.now();
        let version = self.ledger.next_version(&name).await.unwrap();
        let meta = SnapshotMeta {
            audience: name.clone(),
            version,
            model_fingerprint: "f00d".to_owned(),
            rows_read: members.len() as u64,
            null_keys: 0,
            created_at: now,
            seed_check: seed_check(SEED),
            dictionary_len,
        };
        let mut writer = SnapshotWriter::new(meta).unwrap();
        for (shard, bitmap) in (0..=u8::MAX).zip(bitmaps) {
            writer.shard(shard, bitmap).unwrap();
        }
        let path = format!("snapshots/{name}/{version}.throng");
        let SnapshotSummary { bytes, members: count, checksum } =
            writer.write(&root, path.as_ref()).unwrap();
        let until = now.plus(Duration::from_secs(60));
        self.ledger.schedule_refresh(&name, RefreshTrigger::Manual, now).await.unwrap();
        let refresh = self.ledger.claim_refresh("builder", now, until).await.unwrap().unwrap();
        let snapshot = Snapshot {
            audience: name.clone(),
            version,
            state: SnapshotState::Published,
            path,
            members: count,
            rows_read: count,
            null_keys: 0,
            bytes,
            checksum: Some(checksum),
            tables: None,
            inputs: None,
            model_fingerprint: "f00d".to_owned(),
            refresh: refresh.id,
            created_at: now,
        };
        self.ledger.publish(&snapshot, "builder", now).await.unwrap();
        self.model.insert(name, members);
        version
    }

    /// Runs one pass; `false` if the process was killed in it.
    pub(crate) async fn pass(&self) -> bool {
        let stop = CancellationToken::new();
        tokio::select! {
            () = self.cut.reached() => false,
            done = run_pass(&self.deps, &self.store, &stop) => {
                done.unwrap();
                true
            }
        }
    }

    /// The next process, which has the ledger alone.
    pub(crate) async fn restart(&mut self) {
        self.cut.set(None);
        self.ledger.expire_leases(self.clock.now()).await.unwrap();
        self.processes += 1;
        self.deps.holder = format!("process-{}", self.processes);
        self.deps.check_backoff = Arc::default();
    }

    /// Runs passes until all is written and checked.
    pub(crate) async fn settle(&mut self) {
        for _ in 0..20 {
            assert!(self.pass().await, "killed");
            let served: BTreeMap<AudienceName, u64> =
                self.ledger.served_versions().await.unwrap().into_iter().collect();
            let rows = self.ledger.newest_store_writes().await.unwrap();
            let is_settled = |row: &StoreWrite| {
                row.state == StoreWriteState::Done
                    && row.check.is_some()
                    && row.write.to_version == served.get(&row.write.audience).copied()
            };
            if rows.len() == served.len() && rows.iter().all(is_settled) {
                return;
            }
        }
        panic!("{:?}", self.ledger.newest_store_writes().await.unwrap());
    }

    /// Runs passes as processes that are killed at a request and started again, until one is not killed.
    pub(crate) async fn settle_killed(&mut self, kill: Kill) {
        self.cut.set(Some(kill));
        for _ in 0..3 {
            if !self.pass().await {
                self.restart().await;
                break;
            }
        }
        self.cut.set(None);
        self.settle().await;
    }

    /// Deletes a version of an audience, as the retention does.
    pub(crate) async fn ledger_delete(&self, name: &str, version: u64) {
        self.ledger.delete_snapshots(&[(audience(name), version)]).await.unwrap();
    }

    pub(crate) async fn newest(&self, name: &str) -> StoreWrite {
        let rows = self.ledger.newest_store_writes().await.unwrap();
        rows.into_iter().find(|row| row.write.audience.as_str() == name).unwrap()
    }

    /// Begins a rewrite, as an operator does.
    pub(crate) async fn rewrite(&self, name: &str) {
        let rows = self.ledger.newest_store_writes().await.unwrap();
        let newest = rows.iter().find(|row| row.write.audience.as_str() == name);
        let served = self.ledger.served_versions().await.unwrap();
        let version = served.into_iter().find(|(of, _)| of.as_str() == name).unwrap().1;
        let write = NewStoreWrite {
            store: self.store.name.clone(),
            audience: audience(name),
            place: self.store.place(),
            from_version: None,
            to_version: Some(version),
            rewrite: true,
        };
        let newest = newest.map(|row| row.id);
        let begun = self.ledger.begin_store_write(&write, newest, self.clock.now()).await;
        assert!(begun.unwrap().is_some());
    }

    /// A connection to the Redis server of the store.
    pub(crate) async fn server(&self) -> MultiplexedConnection {
        let StoreEngine::Redis(settings) = &self.store.engine else { panic!("not in Redis") };
        let client = redis::Client::open(settings.url.as_str()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// Empties the database or the table, which is created if there is none.
    pub(crate) async fn flush(&self) {
        if let StoreEngine::Bigtable(settings) = &self.store.engine {
            return Table::open(settings).await.empty().await;
        }
        let mut server = self.server().await;
        redis::cmd("FLUSHDB").exec_async(&mut server).await.unwrap();
    }

    /// All members in the store, by audience, as an ad server finds them.
    pub(crate) async fn contents(&self) -> BTreeMap<AudienceName, BTreeSet<String>> {
        if let StoreEngine::Bigtable(settings) = &self.store.engine {
            return Table::open(settings).await.contents().await;
        }
        let mut server = self.server().await;
        let pattern = format!("{}*", self.prefix);
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(pattern).query_async(&mut server).await.unwrap();
        let mut contents: BTreeMap<AudienceName, BTreeSet<String>> = BTreeMap::new();
        for keys in keys.chunks(1_000) {
            let mut requests = redis::pipe();
            for key in keys {
                requests.cmd("SMEMBERS").arg(key);
            }
            let sets: Vec<Vec<String>> = requests.query_async(&mut server).await.unwrap();
            for (key, set) in keys.iter().zip(sets) {
                let key = key.strip_prefix(&self.prefix).unwrap();
                match key.split_once(':').unwrap() {
                    ("u", user) => {
                        for name in set {
                            contents.entry(audience(&name)).or_default().insert(user.to_owned());
                        }
                    }
                    ("a", name) => contents.entry(audience(name)).or_default().extend(set),
                    _ => panic!("{key}"),
                }
            }
        }
        contents
    }

    /// The store has the published members and nothing else.
    pub(crate) async fn assert_equal(&self) {
        let hashed = |members: &BTreeSet<u64>| {
            members.iter().map(|n| format!("{:016x}", user(*n).0)).collect::<BTreeSet<String>>()
        };
        let expected: BTreeMap<AudienceName, BTreeSet<String>> = self
            .model
            .iter()
            .filter(|(_, members)| !members.is_empty())
            .map(|(name, members)| (name.clone(), hashed(members)))
            .collect();
        let contents = self.contents().await;
        let sizes = |sets: &BTreeMap<AudienceName, BTreeSet<String>>| {
            sets.iter().map(|(name, set)| (name.to_string(), set.len())).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&contents), sizes(&expected));
        assert!(contents == expected, "the sizes are equal, the members are not");
    }
}
