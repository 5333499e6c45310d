//! Events in a shared log of an ad group of a spec to which this process has not switched yet.

use async_trait::async_trait;
use bytes::Bytes;
use throng_budget::events_to_record;
use throng_spec::AdGroup;
use throng_store::LedgerError;

use super::*;

/// The newest version in the ledger, and how often it was read.
#[derive(Default)]
struct Newest {
    version: AtomicU64,
    reads: AtomicU64,
}

#[async_trait]
impl NewestSpec for Newest {
    async fn newest_version(&self) -> Result<u64, LedgerError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.version.load(Ordering::Relaxed))
    }
}

/// A shared log in a folder, and the version of the newest spec.
struct Rig {
    fixture: Fixture,
    newest: Arc<Newest>,
    dir: tempfile::TempDir,
}

impl Rig {
    /// With this version in the ledger; budgets are opened under version 1.
    fn new(version: u64) -> Self {
        let newest = Arc::new(Newest { version: version.into(), ..Newest::default() });
        let newest_spec = Arc::<Newest>::clone(&newest) as Arc<dyn NewestSpec>;
        let fixture = Fixture { newest_spec: Some(newest_spec), ..Fixture::new() };
        Self { fixture, newest, dir: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Arc<Budgets> {
        self.fixture.open_shared(self.dir.path(), &[]).await.unwrap()
    }

    /// One record for each impression, appended at once as by a producer without a check.
    async fn append(&self, budgets: &Budgets, ad_groups: &[&str]) {
        let end = budgets.log.end(0).await.unwrap();
        let record = |(number, name): (u64, &&str)| {
            let ad_group = AdGroupName::new(*name).unwrap();
            let event = self.fixture.event(end + number, EventKind::Impression);
            Bytes::from(events_to_record([&Event { ad_group, ..event }]))
        };
        let records = (0..).zip(ad_groups).map(record).collect();
        budgets.log.append(0, self.fixture.clock.now(), records).await.unwrap();
    }
}

/// Applies the later spec, which has hats too.
fn apply_later_spec(budgets: &Budgets) {
    let mut spec = spec();
    let (shoes, hats) = (AdGroupName::new("shoes").unwrap(), AdGroupName::new("hats").unwrap());
    spec.ad_groups.push(AdGroup { name: hats.clone(), ..spec.ad_groups[0].clone() });
    budgets.apply_spec(&spec, &[(shoes, AdGroupIndex(0)), (hats, AdGroupIndex(1))], 2);
}

/// Waits until all that is in the log is applied.
async fn apply_all(budgets: &Budgets) {
    let end = budgets.log.end(0).await.unwrap();
    let partition = Arc::clone(&budgets.led.load()[0]);
    assert!(partition.wait_until_applied(end, Duration::from_secs(600)).await);
}

/// Waits until the partition waits for a spec, and returns the offset of the record that it has not applied.
async fn waiting_at(budgets: &Budgets) -> u64 {
    let partition = Arc::clone(&budgets.led.load()[0]);
    assert!(partition.catch_up(Duration::from_secs(600)).await.unwrap());
    partition.applied()
}

/// The spend by ad group.
fn spent(budgets: &Budgets) -> Vec<(String, i64)> {
    budgets.states().into_iter().map(|s| (s.name.to_string(), s.actual.0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_later_spec_waits_until_the_partition_has_it() {
    let rig = Rig::new(2);
    let budgets = rig.open().await;
    rig.append(&budgets, &["shoes", "shoes", "hats", "shoes"]).await;
    assert_eq!(waiting_at(&budgets).await, 2);
    assert_eq!(spent(&budgets), [("shoes".to_owned(), 200_000)], "what is before it counts");
    // As when a spec is applied: the checkpoint does not pass the record.
    budgets.catch_up().await;
    budgets.checkpoint().await.unwrap();
    apply_later_spec(&budgets);
    apply_all(&budgets).await;
    let wanted = [("hats".to_owned(), 100_000), ("shoes".to_owned(), 300_000)];
    assert_eq!(spent(&budgets), wanted);
    // The same after a replay.
    crash(budgets).await;
    let budgets = rig.open().await;
    assert_eq!(waiting_at(&budgets).await, 2);
    apply_later_spec(&budgets);
    apply_all(&budgets).await;
    assert_eq!(spent(&budgets), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_stops_at_an_event_of_a_later_spec() {
    let rig = Rig::new(1);
    let budgets = rig.open().await;
    // In the log before the process begins, and before it can switch to the spec.
    budgets.close().await.unwrap();
    rig.append(&budgets, &["hats", "shoes"]).await;
    drop(budgets);
    rig.newest.version.store(2, Ordering::Relaxed);
    let budgets = rig.open().await;
    assert_eq!(waiting_at(&budgets).await, 0);
    // The figures of the previous leader may have the events.
    budgets.tick().await;
    assert_eq!(budgets.feed.end(0).await.unwrap(), 0, "no frame without them");
    let (partition, now) = (Arc::clone(&budgets.led.load()[0]), rig.fixture.clock.now());
    partition.observe_epoch(partition.keyframe().epoch + 1);
    assert!(!partition.reclaim(now).await.unwrap(), "a standby replica that publishes has them");
    apply_later_spec(&budgets);
    apply_all(&budgets).await;
    let wanted = [("hats".to_owned(), 100_000), ("shoes".to_owned(), 100_000)];
    assert_eq!(spent(&budgets), wanted);
    assert!(partition.reclaim(now).await.unwrap());
    budgets.tick().await;
    assert_eq!(budgets.feed.end(0).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_read_of_the_ledger_decides_about_all_unknown_ad_groups_in_the_log() {
    let rig = Rig::new(1);
    let budgets = rig.open().await;
    assert_eq!(rig.newest.reads.load(Ordering::Relaxed), 1, "at the start");
    rig.append(&budgets, &["shoes"]).await;
    apply_all(&budgets).await;
    assert_eq!(rig.newest.reads.load(Ordering::Relaxed), 1, "not for ad groups that it has");
    rig.append(&budgets, &["hats", "gloves", "hats", "shoes"]).await;
    apply_all(&budgets).await;
    assert_eq!(rig.newest.reads.load(Ordering::Relaxed), 2);
    assert_eq!(spent(&budgets), [("shoes".to_owned(), 200_000)], "no spec has the others");
}
