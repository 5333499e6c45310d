//! Budgets on a log in files: with a checkpoint ahead of its log, with a record that cannot be applied, with
//! events that are appended and not applied, with a log that confirms none, and with a clock that is set.

mod clock_steps;
mod days;
mod later_specs;
mod lost_records;
mod new_ad_groups;
mod test_log;
mod unconfirmed;

use std::path::Path;
use std::time::Duration;

use throng_budget::{Event, EventKind, EventMoney};
use throng_log::{FileLog, FileLogOptions};
use throng_model::{ManualClock, Micros};
use throng_objects::DirectoryObjects;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use test_log::TestLog;

const START: Timestamp = Timestamp(1_767_268_800_000_000);
/// An event with this in its id panics when it is applied.
const POISON: &str = "poison";

/// A fault of the engine, for tests.
pub(super) fn panic_at(id: &str) {
    assert!(!id.contains(POISON), "a record that cannot be applied");
}

fn spec() -> Spec {
    spec_with_pacing("asap")
}

fn spec_with_pacing(pacing: &str) -> Spec {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("throng.yaml");
    let text = r#"version: 1
advertisers:
  - { name: shop, currency: USD, time_zone: UTC }
campaigns:
  - { name: autumn, advertiser: shop }
ad_groups:
  - { name: shoes, campaign: autumn, per: impression, price: "0.10", daily_budget: "10.00", impression_rate: 0.5, pacing: PACING }
"#;
    std::fs::write(&path, text.replace("PACING", pacing)).unwrap();
    throng_spec::load(&path).unwrap()
}

/// The open problems, with their details.
#[derive(Default)]
struct TestHealth(Mutex<BTreeMap<(ProblemKind, String), String>>);

impl TestHealth {
    fn kinds(&self) -> Vec<ProblemKind> {
        let mut kinds: Vec<ProblemKind> = self.0.lock().keys().map(|(kind, _)| *kind).collect();
        kinds.dedup();
        kinds
    }
}

impl HealthReporter for TestHealth {
    fn report_problem(&self, kind: ProblemKind, key: &str, detail: String) {
        self.0.lock().insert((kind, key.to_owned()), detail);
    }

    fn clear_problem(&self, kind: ProblemKind, key: &str) {
        self.0.lock().remove(&(kind, key.to_owned()));
    }
}

struct Fixture {
    clock: Arc<ManualClock>,
    health: Arc<TestHealth>,
    partitions: u32,
    segment_bytes: u64,
    append_timeout: Duration,
    apply_timeout: Duration,
    newest_spec: Option<Arc<dyn NewestSpec>>,
}

impl Fixture {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(START));
        // Longer than any test: an answer always has what became of the events.
        let (append_timeout, apply_timeout) = (Duration::from_secs(600), Duration::from_secs(600));
        let (health, segment_bytes, newest_spec) = (Arc::default(), 200, None);
        Self {
            clock,
            health,
            partitions: 1,
            segment_bytes,
            append_timeout,
            apply_timeout,
            newest_spec,
        }
    }

    /// Budgets in `dir` that lead the first partition.
    async fn open(
        &self,
        dir: &Path,
        accept_log_loss: &[u32],
    ) -> Result<Arc<Budgets>, BudgetsError> {
        let log = Arc::new(self.log(dir)?);
        self.open_on(log, dir, accept_log_loss).await
    }

    fn log(&self, dir: &Path) -> throng_log::Result<FileLog> {
        let new = FileLogOptions::new(self.partitions);
        let options = FileLogOptions { segment_bytes: self.segment_bytes, ..new };
        FileLog::open_with(&dir.join("log"), options)
    }

    async fn open_on(
        &self,
        log: Arc<dyn EventLog>,
        dir: &Path,
        accept_log_loss: &[u32],
    ) -> Result<Arc<Budgets>, BudgetsError> {
        let objects = Arc::new(DirectoryObjects::open(dir.join("objects")).unwrap());
        let parts = BudgetsDeps {
            objects,
            log,
            feed: Arc::new(LocalFeed::new(self.partitions)),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            retention: Retention { bytes: 1 << 30, age: Duration::from_secs(1 << 30) },
            accept_log_loss: accept_log_loss.to_vec(),
            dedupe_window: throng_budget::DEFAULT_DEDUPE_WINDOW,
            append_timeout: self.append_timeout,
            apply_timeout: self.apply_timeout,
            health: Arc::<TestHealth>::clone(&self.health),
            newest_spec: self.newest_spec.clone(),
        };
        let spec = spec();
        let indexes = [(AdGroupName::new("shoes").unwrap(), AdGroupIndex(0))];
        let budgets = Arc::new(Budgets::new(parts, &spec, &indexes, 1));
        budgets.set_assignment(&[0]).await?;
        Ok(budgets)
    }

    fn event(&self, id: impl std::fmt::Display, kind: EventKind) -> Event {
        Event {
            id: id.to_string(),
            kind,
            ad_group: AdGroupName::new("shoes").unwrap(),
            insertion_id: None,
            at: self.clock.now(),
            inserted_at: None,
            money: EventMoney::NONE,
            placement: None,
        }
    }

    async fn impressions(&self, budgets: &Budgets, ids: std::ops::Range<u32>) -> Accepted {
        let events = ids.map(|id| self.event(id, EventKind::Impression)).collect();
        budgets.accept(events).await.unwrap()
    }
}

/// Ends budgets without a last checkpoint, as a kill does.
async fn crash(budgets: Arc<Budgets>) {
    for partition in budgets.led.load_full().iter() {
        partition.stop().await;
    }
}

/// Actual and in-flight spend, after a tick.
async fn figures(budgets: &Budgets) -> (Micros, Micros) {
    budgets.tick().await;
    let state = &budgets.states()[0];
    (state.actual, state.in_flight)
}

fn actual(budgets: &Budgets) -> i64 {
    budgets.states()[0].actual.0
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &to) } else { _ = std::fs::copy(&path, to).unwrap() }
    }
}

#[test]
fn the_partition_of_an_ad_group_never_changes() {
    let partition = |name: &str| partition_of(name, 4);
    // A change here would split the history of every deployment's ad groups in two.
    assert_eq!(
        ["red", "green", "blue", "amber"].map(partition),
        ["red", "green", "blue", "amber"].map(|n| (xxh3_64(n.as_bytes()) % 4) as usize)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_ahead_of_its_log_is_refused_until_the_loss_is_accepted() {
    let fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    let earlier = tempfile::tempdir().unwrap();
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    fixture.impressions(&budgets, 0..3).await;
    copy(&dir.path().join("log"), earlier.path());
    // One record each, so that the log's end moves.
    for id in 3..8 {
        fixture.impressions(&budgets, id..id + 1).await;
    }
    budgets.close().await.unwrap();
    drop(budgets);
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    copy(earlier.path(), &dir.path().join("log"));

    let refused = fixture.open(dir.path(), &[]).await.unwrap_err();
    let words = refused.to_string();
    assert!(matches!(refused, BudgetsError::LogBehind { checkpoint: 6, end: 1, .. }), "{words}");
    assert!(words.contains("--accept-log-loss 0") && words.contains("5 acknowledged"), "{words}");
    assert_eq!(fixture.health.kinds(), [ProblemKind::Partition]);

    let budgets = fixture.open(dir.path(), &[0]).await.unwrap();
    assert_eq!(fixture.health.kinds(), []);
    assert_eq!(actual(&budgets), 800_000, "the checkpoint has them");
    // New events do not get offsets that the checkpoint has: they are counted after the next start.
    fixture.impressions(&budgets, 8..9).await;
    budgets.log.append(0, START, Vec::new()).await.unwrap();
    assert_eq!(budgets.log.end(0).await.unwrap(), 7);
    crash(budgets).await;
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    assert_eq!(actual(&budgets), 900_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_another_copy_is_refused() {
    let fixture = Fixture::new();
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (dir, first) in [(&dir, 0), (&other, 100)] {
        let budgets = fixture.open(dir.path(), &[]).await.unwrap();
        for id in first..first + 4 {
            fixture.impressions(&budgets, id..id + 1).await;
        }
        budgets.close().await.unwrap();
    }
    // Of the same length, with other records.
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    copy(&other.path().join("log"), &dir.path().join("log"));
    let refused = fixture.open(dir.path(), &[]).await.unwrap_err();
    assert!(matches!(refused, BudgetsError::OtherLog { offset: 3, .. }), "{refused}");
    let budgets = fixture.open(dir.path(), &[0]).await.unwrap();
    assert_eq!(actual(&budgets), 400_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_applied_goes_to_the_quarantine() {
    // With each record read by itself, and with all of them read at once.
    for segment_bytes in [200, 1 << 20] {
        quarantines(Fixture { segment_bytes, ..Fixture::new() }).await;
    }
}

async fn quarantines(fixture: Fixture) {
    let dir = tempfile::tempdir().unwrap();
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    fixture.impressions(&budgets, 0..2).await;
    let poison = fixture.event(POISON, EventKind::Impression);
    let answer = budgets.accept(vec![poison]).await.unwrap();
    assert_eq!((answer.accepted, answer.positions), (1, vec![(0, 2)]), "it is in the log");
    // The log accepts events while nobody applies them.
    let answer = budgets.accept(vec![fixture.event("more", EventKind::Impression)]).await.unwrap();
    assert_eq!((answer.accepted, answer.positions), (1, vec![(0, 3)]));
    assert!(budgets.checkpoint().await.is_err(), "its state is not written");

    budgets.restart_failed().await;
    assert_eq!(actual(&budgets), 300_000);
    fixture.impressions(&budgets, 2..4).await;
    assert_eq!(actual(&budgets), 500_000);
    let listed = budgets.quarantine().await.unwrap();
    let [(0, list)] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((list.total, list.records[0].offset), (1, 1));
    assert!(!list.records[0].reason.contains(POISON), "nothing of its contents is listed");
    assert_eq!(fixture.health.kinds(), []);

    // A start without a checkpoint after it skips it too.
    crash(budgets).await;
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    assert_eq!(actual(&budgets), 500_000);
    // A second one soon after: the partition is reopened after a backoff.
    let poison = fixture.event(format!("{POISON}-2"), EventKind::Impression);
    assert!(budgets.accept(vec![poison.clone()]).await.is_ok());
    budgets.restart_failed().await;
    assert!(budgets.accept(vec![Event { id: format!("{POISON}-3"), ..poison }]).await.is_ok());
    budgets.restart_failed().await;
    assert_eq!(fixture.health.kinds(), [ProblemKind::Partition]);
    assert_eq!(fixture.impressions(&budgets, 9..10).await.accepted, 1, "it is in the log");
    assert_eq!(actual(&budgets), 500_000, "and not applied");
    fixture.clock.advance(Duration::from_secs(60));
    budgets.restart_failed().await;
    assert_eq!(actual(&budgets), 600_000);
    assert_eq!(fixture.impressions(&budgets, 9..10).await.duplicates, 1);
    assert_eq!(budgets.quarantine().await.unwrap()[0].1.total, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_reopened_is_reported_with_the_reason() {
    let fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    budgets.accept(vec![fixture.event(POISON, EventKind::Impression)]).await.unwrap();
    let path = dir.path().join("objects/checkpoints/0");
    let checkpoint = std::fs::read(&path).unwrap();
    std::fs::write(&path, "damaged").unwrap();
    // Also in later rounds, in which it is not tried again because the backoff lasts.
    for _ in 0..3 {
        budgets.restart_failed().await;
        let details: Vec<String> = fixture.health.0.lock().values().cloned().collect();
        assert!(matches!(&details[..], [why] if why.contains("checkpoints/0")), "{details:?}");
    }
    std::fs::write(&path, checkpoint).unwrap();
    budgets.restart_failed().await;
    assert_eq!(fixture.health.kinds(), [ProblemKind::Partition]);
    fixture.clock.advance(Duration::from_secs(1));
    budgets.restart_failed().await;
    assert_eq!(fixture.health.kinds(), []);

    // A partition that is revoked is not a problem of this process.
    let poison = fixture.event(format!("{POISON}-2"), EventKind::Impression);
    budgets.accept(vec![poison]).await.unwrap();
    budgets.restart_failed().await;
    assert_eq!(fixture.health.kinds(), [ProblemKind::Partition]);
    budgets.set_assignment(&[]).await.unwrap();
    assert_eq!(fixture.health.kinds(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_comes_late_does_not_replace_a_newer_one() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let partition = Arc::clone(&budgets.led.load()[0]);
    budgets.apply_spec(&spec(), &[(AdGroupName::new("shoes").unwrap(), AdGroupIndex(0))], 3);
    partition.set_catalog(Vec::new(), 2, fixture.clock.now());
    assert_eq!((partition.catalog_version(), budgets.states().len()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ad_group_with_a_plan_is_held_back_from_its_first_frame_on() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let indexes = [(AdGroupName::new("shoes").unwrap(), AdGroupIndex(0))];
    let rate = || budgets.led.load()[0].keyframe().entries[0].pass_through_rate.share();
    assert_eq!(rate(), 1.0);
    budgets.apply_spec(&spec_with_pacing("even"), &indexes, 2);
    assert!(rate() < 0.01, "{}", rate());
    budgets.apply_spec(&spec(), &indexes, 3);
    assert_eq!(rate(), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_not_applied_in_time_are_acknowledged_and_count_later() {
    let fixture = Fixture { apply_timeout: Duration::from_millis(20), ..Fixture::new() };
    let dir = tempfile::tempdir().unwrap();
    let log = fixture.own_log(dir.path());
    log.set_readable(false);
    let budgets = fixture.open_on(Arc::<TestLog>::clone(&log), dir.path(), &[]).await.unwrap();
    // The same twice: what is not applied yet is not known to be a duplicate.
    for position in 1..3 {
        let answer = fixture.impressions(&budgets, 0..2).await;
        assert_eq!((answer.accepted, answer.duplicates), (2, 0));
        assert_eq!(answer.positions, [(0, position)]);
    }
    assert_eq!(actual(&budgets), 0);
    budgets.checkpoint().await.unwrap();
    log.set_readable(true);
    let applied = budgets.led.load()[0].wait_until_applied(2, Duration::from_secs(600)).await;
    assert!(applied);
    assert_eq!(actual(&budgets), 200_000);

    // Acknowledged without being applied, and then the process ends: they count after a restart.
    log.set_readable(false);
    // A tail that is past the gate returns one batch more.
    fixture.impressions(&budgets, 2..3).await;
    fixture.impressions(&budgets, 3..6).await;
    crash(budgets).await;
    drop(log);
    let fixture = Fixture::new();
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    assert_eq!(actual(&budgets), 600_000);
    let answer = fixture.impressions(&budgets, 0..7).await;
    assert_eq!((answer.accepted, answer.duplicates), (1, 6));
    budgets.close().await.unwrap();
    let refused = budgets.accept(vec![fixture.event(8, EventKind::Impression)]).await;
    assert!(matches!(refused, Err(BudgetsError::Closed)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_what_became_of_each_event() {
    let fixture = Fixture { segment_bytes: 1 << 20, ..Fixture::new() };
    let dir = tempfile::tempdir().unwrap();
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let impression = |id: &str, insertion: Option<&str>| Event {
        insertion_id: insertion.map(str::to_owned),
        ..fixture.event(id, EventKind::Impression)
    };
    let hats = AdGroupName::new("hats").unwrap();
    // More events than fit into one record, with others among them.
    let mut events: Vec<Event> =
        (0..25_000).map(|id| fixture.event(id, EventKind::Impression)).collect();
    events[3] = impression("2", None);
    events[12_345] = Event { ad_group: hats, ..impression("a", None) };
    events[24_000] = impression("b", Some("i"));
    events[24_998] = impression("c", Some("i"));
    events[24_999] = impression("24997", None);
    let answer = budgets.accept(events.clone()).await.unwrap();
    let counts = (answer.accepted, answer.duplicates, answer.repeated, answer.rejected_count);
    assert_eq!(counts, (24_996, 2, 1, 1));
    assert_eq!(answer.rejected[0].0, 12_345);
    assert_eq!(answer.positions, [(0, 3)]);
    // Concurrent calls get the outcomes of their own events.
    let calls = (0..50).map(|call| {
        let mut batch = events[call * 10..call * 10 + 3].to_vec();
        batch.push(fixture.event(format!("new-{call}"), EventKind::Impression));
        let budgets = &budgets;
        async move { budgets.accept(batch).await.unwrap() }
    });
    for answer in futures::future::join_all(calls).await {
        assert_eq!((answer.accepted, answer.duplicates), (1, 3));
    }
}

/// The frames of the feed that are applied here, as a process does that follows it.
#[tokio::test(flavor = "multi_thread")]
async fn the_frames_of_the_leader_reach_the_gate_of_its_process() {
    struct Versions(Mutex<Vec<(u64, bool)>>);
    impl FrameSink for Versions {
        fn apply_frame(&self, frame: &Frame) -> bool {
            let is_keyframe = frame.kind == throng_feed::FrameKind::Keyframe;
            self.0.lock().push((frame.version, is_keyframe));
            true
        }
    }
    let fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let gate = Versions(Mutex::default());
    let mut frames = budgets.feed.follow(0).await.unwrap();
    let mut changed = Vec::new();
    for id in 0..12 {
        if id < 3 {
            fixture.impressions(&budgets, id..id + 1).await;
        }
        budgets.tick().await;
        for frame in frames.next().await.unwrap() {
            changed.push(budgets.apply_frame(&frame, &gate));
        }
    }
    let versions = std::mem::take(&mut *gate.0.lock());
    let first = versions[0].0;
    assert_eq!(
        versions,
        (0..12).map(|n| (first + n, n % 10 == 0)).collect::<Vec<_>>(),
        "every tenth frame is a keyframe"
    );
    assert_eq!(changed[..3], [true; 3]);
    assert_eq!(changed[3..], [false; 9], "the figures are the same");
    let entry = budgets.feed_state.entry(0, AdGroupIndex(0));
    assert_eq!(entry.map(|entry| entry.actual), Some(Micros(300_000)));
}

/// Spend by quarters of an hour, as the API returns it.
async fn slices(budgets: &Budgets) -> Vec<(Timestamp, Micros)> {
    let history = budgets.spend_history(&AdGroupName::new("shoes").unwrap()).await.unwrap();
    history.unwrap().slices
}

#[tokio::test(flavor = "multi_thread")]
async fn spend_of_past_days_is_in_files_that_a_start_needs() {
    let fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("objects/slices/0");
    let files = || -> Vec<std::path::PathBuf> {
        let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    fixture.impressions(&budgets, 0..3).await;
    budgets.checkpoint().await.unwrap();
    assert_eq!(files(), Vec::<std::path::PathBuf>::new(), "the day is not over");
    let hours = |hours: u64| Duration::from_secs(3_600 * hours);
    fixture.clock.advance(hours(14));
    fixture.impressions(&budgets, 3..4).await;
    budgets.checkpoint().await.unwrap();
    assert_eq!(files().len(), 1);
    let spent = [(START, Micros(300_000)), (START.plus(hours(14)), Micros(100_000))];
    assert_eq!(slices(&budgets).await, spent);

    // Late: its day is written again, and the earlier file is removed some time after the checkpoint.
    let late = Event { at: START, ..fixture.event("late", EventKind::Impression) };
    budgets.accept(vec![late]).await.unwrap();
    budgets.checkpoint().await.unwrap();
    assert_eq!(files().len(), 2);
    fixture.clock.advance(Duration::from_secs(601));
    budgets.checkpoint().await.unwrap();
    assert_eq!(files().len(), 1);
    crash(budgets).await;
    let spent = [(START, Micros(400_000)), spent[1]];
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    assert_eq!(slices(&budgets).await, spent);
    // What a node reads of a partition that another one leads.
    let objects = Arc::clone(&budgets.objects);
    let (configs, name) = (budgets.applied.load().configs[0].clone(), "shoes".parse().unwrap());
    let history =
        restore::history_of(objects, 0, configs, &name, fixture.clock.now()).await.unwrap();
    assert_eq!(history.unwrap().slices, spent);
    crash(budgets).await;

    let file = files().remove(0);
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    damaged[20] ^= 1;
    std::fs::write(&file, damaged).unwrap();
    let refused = fixture.open(dir.path(), &[]).await.unwrap_err();
    let words = throng_model::with_causes(&refused);
    assert!(matches!(refused, BudgetsError::Slices { .. }), "{words}");
    assert!(words.contains("slices/0/") && words.contains("checksum"), "{words}");
    std::fs::remove_file(&file).unwrap();
    let refused = fixture.open(dir.path(), &[]).await.unwrap_err();
    assert!(matches!(refused, BudgetsError::Slices { .. }), "{refused}");
    assert_eq!(fixture.health.kinds(), [ProblemKind::Partition]);
    std::fs::write(&file, whole).unwrap();
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    assert_eq!(slices(&budgets).await, spent);
}
