//! What unit tests of this crate share.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use throng_lake::{Lake, LakeLimits, Model, WorkerCommand};
use throng_ledger::SqliteLedger;
use throng_membership::MembershipIndex;
use throng_model::{AudienceName, Clock, HashSeed, ManualClock, SHARD_COUNT, Timestamp};
use throng_objects::{DirectoryObjects, Objects};
use throng_part_files::bits::{self, ShardBits};
use throng_spec::WarehouseSource;
use throng_store::{AudienceRow, Ledger, Refresh, RefreshState, RefreshTrigger, fixture};
use tokio_util::sync::CancellationToken;

use crate::execute::{BuildOutput, Built, PartFile};
use crate::siblings::Member;
use crate::{LEASE, Observer, RefreshContext, RefreshDeps, Warehouse, WarehouseError, Warehouses};

/// An audience whose newest refresh has this state, and has made this version. No version is served.
pub(crate) fn audience_row(state: RefreshState, snapshot_version: Option<u64>) -> AudienceRow {
    fixture::audience_row(Refresh {
        reason: Some("because".into()),
        snapshot_version,
        ..fixture::refresh(state, Timestamp(0))
    })
}

/// The builder that has the refreshes of a [`Rig`].
pub(crate) const HOLDER: &str = "b";

/// A process on an empty data directory. Its builder has claimed a refresh of each audience of its spec.
pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) ctx: Arc<RefreshContext>,
    pub(crate) members: Vec<Member>,
    /// Cancelled when the first snapshot is recorded.
    pub(crate) recorded: CancellationToken,
}

struct CancelOnRecord(CancellationToken);

impl Observer for CancelOnRecord {
    fn audiences_changed(&self) {}
    fn snapshot_recorded(&self) {
        self.0.cancel();
    }
    fn membership_loaded(&self, _index: &Arc<MembershipIndex>) {}
    fn report_problem(&self, _key: &str, _detail: &str) {}
    fn clear_problem(&self, _key: &str) {}
    fn report_error(&self, _part: &str, _error: &(dyn std::error::Error + 'static)) {}
}

struct NoWarehouses;

impl Warehouses for NoWarehouses {
    fn open(&self, _source: &WarehouseSource) -> Result<Arc<dyn Warehouse>, WarehouseError> {
        Err(WarehouseError::Refused { message: "there is none".to_owned(), help: None })
    }
}

impl Rig {
    pub(crate) async fn new(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for folder in ["data", "spill"] {
            std::fs::create_dir(root.join(folder)).unwrap();
        }
        let file = root.join("throng.yaml");
        let audience = |name: &&str| format!("  - {{ name: {name}, sql: SELECT id FROM s.t }}\n");
        let audiences: String = names.iter().map(audience).collect();
        let sources = "sources:\n  - { name: s, path: data }";
        std::fs::write(&file, format!("version: 1\n{sources}\naudiences:\n{audiences}")).unwrap();
        let spec = throng_spec::load(&file).unwrap();
        let ledger: Arc<dyn Ledger> =
            Arc::new(SqliteLedger::open(&root.join("ledger.db")).await.unwrap());
        let objects: Arc<dyn Objects> =
            Arc::new(DirectoryObjects::open(root.join("objects")).unwrap());
        let limits = LakeLimits::of(&spec.node, root.join("spill"), WorkerCommand::of("/none"));
        let lake = Lake::new(&spec.sources, limits, None).unwrap();
        let (now, seed, recorded) = (Timestamp(0), HashSeed(7), CancellationToken::new());
        let mut members = Vec::new();
        for audience in &spec.audiences {
            let name = &audience.name;
            ledger.schedule_refresh(name, RefreshTrigger::Manual, now).await.unwrap();
            let claimed = ledger.claim_refresh_of(name, HOLDER, now, now.plus(LEASE)).await;
            let refresh = claimed.unwrap().unwrap();
            members.push(Member { audience: audience.clone(), refresh });
        }
        let ctx = Arc::new(RefreshContext::new(RefreshDeps {
            clock: Arc::new(ManualClock::new(now)) as Arc<dyn Clock>,
            ledger,
            objects,
            seed,
            holder: "process".to_owned(),
            serves_membership: false,
            helps_others: false,
            min_poll_interval: Duration::from_millis(1),
            spec: Arc::new(ArcSwap::from_pointee(spec)),
            lake: Arc::new(ArcSwap::from_pointee(lake)),
            warehouses: Arc::new(NoWarehouses),
            membership: Arc::new(ArcSwap::from_pointee(MembershipIndex::empty(seed))),
            wake: Arc::default(),
            observer: Arc::new(CancelOnRecord(recorded.clone())),
        }));
        let rig = Self { dir, ctx, members, recorded };
        let shards: Vec<ShardBits> = (0..SHARD_COUNT).map(|_| ShardBits::default()).collect();
        bits::write(&rig.no_members(), &shards).unwrap();
        rig
    }

    /// A file of bitmaps without a member.
    fn no_members(&self) -> PathBuf {
        self.dir.path().join("none.bits")
    }

    /// What the build of a refresh has found: no member.
    pub(crate) fn output(&self, member: &Member) -> BuildOutput {
        BuildOutput {
            model: Model::of(&member.audience),
            rows_read: 3,
            null_keys: 0,
            padded_keys: 0,
            tables: None,
            inputs: None,
            bits: Built::Parts(vec![PartFile { path: self.no_members(), checksum: None }]),
        }
    }

    /// The files of snapshots: those on the disk, and those that the ledger names.
    pub(crate) async fn snapshot_files(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let objects = self.ctx.objects.list("snapshots").await.unwrap();
        let files = objects.into_iter().map(|object| object.name);
        let files = files.filter(|name| name.ends_with(".throng")).collect();
        let names: Vec<AudienceName> =
            self.members.iter().map(|member| member.audience.name.clone()).collect();
        let named = self.ctx.ledger.snapshots_of(&names).await.unwrap();
        (files, named.into_iter().map(|snapshot| snapshot.path).collect())
    }
}
