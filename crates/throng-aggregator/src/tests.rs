//! Budgets on a log in files, with a checkpoint ahead of its log, with a record that cannot be applied, and
//! with a clock that is set.

use std::path::Path;
use std::time::Duration;

use throng_budget::{Event, EventKind};
use throng_log::{FileLog, FileLogOptions};
use throng_model::{ManualClock, Micros};
use throng_objects::DirectoryObjects;

use super::*;

const START: Timestamp = Timestamp(1_767_268_800_000_000);
/// An event with this in its id panics when it is applied.
const POISON: &str = "poison";

/// A fault of the engine, for tests.
pub(super) fn panic_at(id: &str) {
    assert!(!id.contains(POISON), "a record that cannot be applied");
}

fn spec() -> Spec {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("throng.yaml");
    let text = r#"version: 1
advertisers:
  - { name: shop, currency: USD, time_zone: UTC }
campaigns:
  - { name: autumn, advertiser: shop }
ad_groups:
  - { name: shoes, campaign: autumn, per: impression, price: "0.10", daily_budget: "10.00", impression_rate: 0.5 }
"#;
    std::fs::write(&path, text).unwrap();
    throng_spec::load(&path).unwrap()
}

/// The open problems.
#[derive(Default)]
struct TestHealth(Mutex<BTreeSet<(ProblemKind, String)>>);

impl TestHealth {
    fn kinds(&self) -> Vec<ProblemKind> {
        let mut kinds: Vec<ProblemKind> = self.0.lock().iter().map(|(kind, _)| *kind).collect();
        kinds.dedup();
        kinds
    }
}

impl HealthReporter for TestHealth {
    fn report_problem(&self, kind: ProblemKind, key: &str, _detail: String) {
        self.0.lock().insert((kind, key.to_owned()));
    }

    fn clear_problem(&self, kind: ProblemKind, key: &str) {
        self.0.lock().remove(&(kind, key.to_owned()));
    }
}

/// A process without a gate.
struct NoGate;

impl FrameSink for NoGate {
    fn apply_frame(&self, _frame: &Frame) -> bool {
        true
    }
}

struct Fixture {
    clock: Arc<ManualClock>,
    health: Arc<TestHealth>,
    segment_bytes: u64,
}

impl Fixture {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(START));
        Self { clock, health: Arc::default(), segment_bytes: 200 }
    }

    /// Budgets on one partition in `dir`.
    async fn open(
        &self,
        dir: &Path,
        accept_log_loss: &[u32],
    ) -> Result<Arc<Budgets>, BudgetsError> {
        let options =
            FileLogOptions { segment_bytes: self.segment_bytes, ..FileLogOptions::new(1) };
        let log = Arc::new(FileLog::open_with(&dir.join("log"), options)?);
        let objects = Arc::new(DirectoryObjects::open(dir.join("objects")).unwrap());
        let parts = BudgetsParts {
            objects,
            log,
            feed: None,
            append_mode: AppendMode::Exclusive,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            retention: Retention { bytes: 1 << 30, age: Duration::from_secs(1 << 30) },
            accept_log_loss: accept_log_loss.to_vec(),
            dedupe_window: throng_budget::DEFAULT_DEDUPE_WINDOW,
            health: Arc::<TestHealth>::clone(&self.health),
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
    budgets.tick(&NoGate).await;
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
    let partition = |name: &str| partition_of(&AdGroupName::new(name).unwrap(), 4);
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
    let refused = budgets.accept(vec![fixture.event("more", EventKind::Impression)]).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, BudgetsError::Unavailable { partition: 0 }), "{refused}");
    assert!(budgets.checkpoint().await.is_err(), "its state is not written");

    budgets.restart_failed().await;
    assert_eq!(actual(&budgets), 200_000);
    fixture.impressions(&budgets, 2..4).await;
    assert_eq!(actual(&budgets), 400_000);
    let listed = budgets.quarantine().await.unwrap();
    let [(0, list)] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((list.total, list.records[0].offset), (1, 1));
    assert!(!list.records[0].reason.contains(POISON), "nothing of its contents is listed");
    assert_eq!(fixture.health.kinds(), []);

    // A start without a checkpoint after it skips it too.
    crash(budgets).await;
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    assert_eq!(actual(&budgets), 400_000);
    // A second one soon after: the partition is reopened after a backoff.
    let poison = fixture.event(format!("{POISON}-2"), EventKind::Impression);
    assert!(budgets.accept(vec![poison.clone()]).await.is_ok());
    budgets.restart_failed().await;
    assert!(budgets.accept(vec![Event { id: format!("{POISON}-3"), ..poison }]).await.is_ok());
    budgets.restart_failed().await;
    assert_eq!(fixture.health.kinds(), [ProblemKind::Partition]);
    assert!(budgets.accept(vec![fixture.event(9, EventKind::Impression)]).await.is_err());
    fixture.clock.advance(Duration::from_secs(60));
    budgets.restart_failed().await;
    fixture.impressions(&budgets, 9..10).await;
    assert_eq!(actual(&budgets), 500_000);
    assert_eq!(budgets.quarantine().await.unwrap()[0].1.total, 3);
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

/// Actual and in-flight spend are those of the real time.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_wrong_and_right_again_changes_no_figure() {
    let fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let insertions = (0..10).map(|id| fixture.event(format!("i{id}"), EventKind::Insertion));
    budgets.accept(insertions.collect()).await.unwrap();
    fixture.impressions(&budgets, 0..3).await;
    let right = (Micros(300_000), Micros(500_000));
    assert_eq!(figures(&budgets).await, right);
    let hour = Duration::from_secs(3_600);
    for jump in [hour, 24 * hour, 49 * hour] {
        let real = fixture.clock.now();
        fixture.clock.step(real.plus(jump));
        assert_eq!(figures(&budgets).await, right, "{jump:?} ahead");
        // Events of the real time are accepted, and duplicates are recognized.
        let known = (0..3).map(|id| Event { at: real, ..fixture.event(id, EventKind::Impression) });
        let answer = budgets.accept(known.collect()).await.unwrap();
        assert_eq!((answer.accepted, answer.duplicates), (0, 3), "{jump:?} ahead");
        budgets.checkpoint().await.unwrap();
        fixture.clock.step(real);
        assert_eq!(figures(&budgets).await, right, "{jump:?} ahead, and right again");
        assert_eq!(fixture.impressions(&budgets, 0..3).await.duplicates, 3);
    }
    fixture.clock.step(fixture.clock.now().minus(hour));
    fixture.clock.step(fixture.clock.now().plus(hour));
    assert_eq!(figures(&budgets).await, right);
    // Time that passes closes windows.
    fixture.clock.advance(hour);
    assert_eq!(figures(&budgets).await, (Micros(300_000), Micros(0)));
}
