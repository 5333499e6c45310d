//! A log that does not confirm appends, and one whose brokers are gone.

use super::*;

/// What becomes of appends.
#[derive(Debug, Clone, Copy)]
enum Appends {
    Stored,
    /// The client keeps the records.
    Pending,
    /// No broker answers.
    Refused,
}

#[derive(Debug)]
struct BrokenLog {
    log: FileLog,
    appends: Mutex<Appends>,
}

impl BrokenLog {
    fn open(fixture: &Fixture, dir: &Path, appends: Appends) -> Arc<Self> {
        Arc::new(Self { log: fixture.log(dir).unwrap(), appends: Mutex::new(appends) })
    }

    fn set(&self, appends: Appends) {
        *self.appends.lock() = appends;
    }
}

#[async_trait]
impl EventLog for BrokenLog {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    async fn append(
        &self,
        partition: u32,
        at: Timestamp,
        values: Vec<Bytes>,
    ) -> throng_log::Result<u64> {
        let appends = *self.appends.lock();
        match appends {
            Appends::Stored => self.log.append(partition, at, values).await,
            Appends::Pending => std::future::pending().await,
            Appends::Refused => Err(LogError::Unreachable { topic: "throng.events".to_owned() }),
        }
    }

    async fn read(
        &self,
        partition: u32,
        from: u64,
        max_bytes: usize,
    ) -> throng_log::Result<Vec<Record>> {
        self.log.read(partition, from, max_bytes).await
    }

    async fn tail(&self, partition: u32, from: u64) -> throng_log::Result<Box<dyn Tail>> {
        self.log.tail(partition, from).await
    }

    async fn start(&self, partition: u32) -> throng_log::Result<u64> {
        self.log.start(partition).await
    }

    async fn end(&self, partition: u32) -> throng_log::Result<u64> {
        self.log.end(partition).await
    }

    async fn truncate_before(&self, partition: u32, offset: u64) -> throng_log::Result<()> {
        self.log.truncate_before(partition, offset).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_whose_append_is_not_confirmed_in_time_may_be_stored() {
    let fixture = Fixture { append_timeout: Duration::from_millis(1), ..Fixture::new() };
    let dir = tempfile::tempdir().unwrap();
    let log = BrokenLog::open(&fixture, dir.path(), Appends::Pending);
    let budgets = fixture.open_on(Arc::<BrokenLog>::clone(&log), dir.path(), &[]).await.unwrap();
    let event = fixture.event("1", EventKind::Impression);
    let refused = budgets.accept(vec![event]).await.unwrap_err();
    assert!(matches!(&refused, BudgetsError::Append(_)) && refused.may_be_appended(), "{refused}");
    assert_eq!(fixture.health.kinds(), [ProblemKind::Log]);
    // Nobody sends events to a node that is not ready.
    log.set(Appends::Stored);
    budgets.probe_refusing().await;
    assert!(fixture.health.kinds().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_reached_refuses_events_until_it_can() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let log = BrokenLog::open(&fixture, dir.path(), Appends::Refused);
    let budgets = fixture.open_on(Arc::<BrokenLog>::clone(&log), dir.path(), &[]).await.unwrap();
    let event = || vec![fixture.event("1", EventKind::Impression)];
    let refused = budgets.accept(event()).await.unwrap_err();
    assert!(!refused.may_be_appended(), "{refused}");
    // Nothing is left to be cleared once it is back.
    assert!(fixture.health.kinds().is_empty());
    log.set(Appends::Stored);
    assert_eq!(budgets.accept(event()).await.unwrap().accepted, 1);
    assert_eq!(actual(&budgets), 100_000);
}
