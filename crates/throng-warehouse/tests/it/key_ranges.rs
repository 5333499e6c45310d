//! Results of a real PostgreSQL that are read in key ranges, while sessions and processes are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use throng_model::{Retry, UserHash};
use throng_refresh::{
    KeySink, Page, PageRequest, QueryPlan, RefreshContext, RefreshOutcome, Session, Warehouse,
    WarehouseError, Warehouses,
};
use throng_spec::WarehouseSource;
use throng_store::{HistoryEvent, RefreshState, SubjectKind};
use throng_warehouse::OpenWarehouses;

use crate::postgres::{CLICKS, Shop, connect, run, spec};
use crate::{SEED, TIMEOUT, audience, first_job, refresh, until};

/// Rows of a range: the twelve rows of the table are three ranges, wherever the user with two rows is.
const RANGE_ROWS: u32 = 4;

async fn shop(test: &str) -> Option<Shop> {
    let mut shop = Shop::new(test).await?;
    shop.settings().key_range_rows = Some(RANGE_ROWS);
    Some(shop)
}

/// Ends all sessions of refreshes, and waits until they have ended.
async fn end_sessions(url: &str) {
    let mut admin = connect(url).await;
    let ending = async {
        loop {
            let open: i64 = sqlx::query_scalar(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name LIKE 'throng %'",
            )
            .fetch_one(&mut admin)
            .await
            .unwrap();
            if open == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(TIMEOUT, ending).await.is_ok(), "a session does not end");
}

/// What is read, and what happens before a page.
#[derive(Default)]
struct Watch {
    /// Before this page, counted from 1, the process hangs.
    hangs_at: usize,
    /// Before this page the server ends the sessions of refreshes in the database of this URL.
    ends_at: Option<(usize, String)>,
    calls: AtomicUsize,
    is_hanging: AtomicBool,
    /// The rows of all pages, also of those that failed.
    rows: AtomicU64,
    pages: Mutex<Vec<Page>>,
}

struct Watched<W> {
    inner: W,
    watch: Arc<Watch>,
}

impl Warehouses for Watched<OpenWarehouses> {
    fn open(&self, source: &WarehouseSource) -> Result<Arc<dyn Warehouse>, WarehouseError> {
        let inner = self.inner.open(source)?;
        Ok(Arc::new(Watched { inner, watch: Arc::clone(&self.watch) }))
    }
}

#[async_trait]
impl Warehouse for Watched<Arc<dyn Warehouse>> {
    async fn check(&self, sql: &str, key: Option<&str>) -> Result<QueryPlan, WarehouseError> {
        self.inner.check(sql, key).await
    }

    async fn page(
        &self,
        request: &PageRequest<'_>,
        keys: &mut KeySink<'_>,
        session: &mut Session,
    ) -> Result<Page, WarehouseError> {
        let watch = &self.watch;
        let call = watch.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if call == watch.hangs_at {
            watch.is_hanging.store(true, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        if let Some((_, url)) = watch.ends_at.as_ref().filter(|(at, _)| *at == call) {
            end_sessions(url).await;
        }
        let mut counted = |hashes: &[UserHash], null_keys: u64| {
            watch.rows.fetch_add(hashes.len() as u64 + null_keys, Ordering::SeqCst);
            keys(hashes, null_keys)
        };
        let page = self.inner.page(request, &mut counted, session).await?;
        watch.pages.lock().push(page.clone());
        Ok(page)
    }
}

impl Watch {
    fn rows(&self) -> u64 {
        self.rows.load(Ordering::SeqCst)
    }

    /// For each page whether it is of a later moment than the one before it.
    fn later(&self) -> Vec<bool> {
        self.pages.lock().iter().map(|page| page.is_later).collect()
    }
}

/// A process that starts, and is watched.
async fn process(shop: &Shop, watch: &Arc<Watch>) -> Arc<RefreshContext> {
    let (inner, watch) = (shop.site.warehouses(), Arc::clone(watch));
    shop.site.process_with(Arc::new(Watched { inner, watch })).await
}

/// Refreshes in a process that is killed when it has read two ranges.
async fn refresh_killed_after_two_ranges(shop: &Shop) -> Arc<Watch> {
    let watch = Arc::new(Watch { hangs_at: 3, ..Watch::default() });
    let ctx = process(shop, &watch).await;
    tokio::select! {
        outcome = refresh(&ctx) => panic!("{outcome:?}"),
        () = until("the third range", || watch.is_hanging.load(Ordering::SeqCst)) => {}
    }
    assert_eq!(watch.later(), [false, false]);
    watch
}

/// What the history says of refreshes that go on.
async fn resumed(shop: &Shop) -> Vec<String> {
    let ledger = shop.site.ledger().await;
    let name = audience();
    let history = ledger.history(Some((&SubjectKind::Audience, name.as_str())), 100).await.unwrap();
    let resumed = history.into_iter().filter(|entry| entry.what == HistoryEvent::RefreshResumed);
    resumed.map(|entry| entry.why).collect()
}

fn assert_completed(outcome: &RefreshOutcome) {
    assert_eq!(outcome.state, RefreshState::Completed, "{outcome:?}");
}

async fn read_page(
    shop: &Shop,
    sql: &str,
    cursor: Option<&Value>,
    session: &mut Session,
    read: &mut Vec<UserHash>,
) -> Result<Page, WarehouseError> {
    let job = first_job();
    let request = PageRequest { sql, key: None, job: &job, cursor, seed: SEED };
    let mut keys = |hashes: &[UserHash], _: u64| {
        read.extend_from_slice(hashes);
        Ok::<(), WarehouseError>(())
    };
    let warehouse = shop.site.warehouses().open(&shop.site.spec.warehouses[0])?;
    warehouse.page(&request, &mut keys, session).await
}

/// Reads a result in one session, or each page in another one. The hashes of all rows are ascending.
async fn read_all(shop: &Shop, sql: &str, in_one: bool) -> (Vec<UserHash>, Vec<Page>) {
    let (mut session, mut cursor) = (Session::default(), None::<Value>);
    let (mut read, mut pages) = (Vec::new(), Vec::new());
    loop {
        if !in_one {
            session = Session::default();
        }
        let page = read_page(shop, sql, cursor.as_ref(), &mut session, &mut read).await.unwrap();
        cursor.clone_from(&page.next);
        pages.push(page);
        if cursor.is_none() {
            read.sort_unstable();
            return (read, pages);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_have_every_row_of_a_result_once_also_if_each_is_read_in_another_session() {
    let Some(mut shop) = Shop::new("ranges").await else { return };
    for sql in [
        CLICKS,
        "SELECT user_id AS \"A \"\"b\" FROM clicks",
        "SELECT CAST(n % 4 AS TEXT) AS id FROM generate_series(1, 20) AS n -- five rows each",
        "SELECT NULLIF(n % 5, 0) AS id FROM generate_series(1, 20) AS n ORDER BY n",
        "SELECT CAST(n AS VARCHAR(9)) AS id FROM generate_series(1, 20) AS n",
        "SELECT CAST(md5(CAST(n AS TEXT)) AS UUID) AS id FROM generate_series(1, 20) AS n",
        "SELECT decode(md5(CAST(n AS TEXT)), 'hex') AS id FROM generate_series(1, 20) AS n",
        "SELECT CAST(NULL AS BIGINT) AS id FROM generate_series(1, 20) AS n",
        "SELECT 1 AS id WHERE false",
    ] {
        shop.settings().key_range_rows = None;
        let (whole, pages) = read_all(&shop, sql, true).await;
        let [page] = pages.as_slice() else { panic!("{pages:?}") };
        let (rows, null_keys, key) = (page.rows, page.null_keys, page.key.clone());
        shop.settings().key_range_rows = Some(RANGE_ROWS);
        for in_one in [true, false] {
            let (read, pages) = read_all(&shop, sql, in_one).await;
            assert_eq!(read, whole, "{sql}");
            let (last, ranges) = pages.split_last().unwrap();
            assert_eq!(last.total_rows, Some(rows), "{sql}");
            assert!(ranges.iter().all(|page| page.rows >= u64::from(RANGE_ROWS)), "{pages:?}");
            assert!(ranges.iter().all(|page| page.total_rows.is_none()), "{pages:?}");
            assert_eq!(pages.iter().map(|page| page.rows).sum::<u64>(), rows, "{sql}");
            assert_eq!(pages.iter().map(|page| page.null_keys).sum::<u64>(), null_keys, "{sql}");
            assert!(pages.iter().all(|page| page.key == key), "{pages:?}");
            let later = pages.iter().filter(|page| page.is_later).count();
            assert_eq!(later, if in_one { 0 } else { ranges.len() }, "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_is_not_interrupted_reads_all_ranges_at_one_moment() {
    let Some(shop) = shop("ranges_whole").await else { return };
    let watch = Arc::default();
    assert_completed(&refresh(&process(&shop, &watch).await).await);
    shop.site.assert_members(0..10).await;
    assert_eq!((watch.later(), watch.rows()), (vec![false; 3], 12));
    assert_eq!(resumed(&shop).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_goes_on_behind_the_ranges_of_one_that_was_killed() {
    let Some(shop) = shop("ranges_killed").await else { return };
    let killed = refresh_killed_after_two_ranges(&shop).await;
    // What the ledger has of the third range.
    let ledger = shop.site.ledger().await;
    let open = ledger.refreshes(None, 1).await.unwrap().remove(0).id;
    let parts = ledger.parts(open).await.unwrap();
    let cursor = parts[2].covers["page"]["cursor"].as_object().unwrap();
    let mut fields: Vec<&str> = cursor.keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["behind", "key", "rows", "source"]);
    assert_eq!(cursor["rows"], killed.rows());
    let watch = Arc::default();
    assert_completed(&refresh(&process(&shop, &watch).await).await);
    shop.site.assert_members(0..10).await;
    assert_eq!(watch.later(), [true]);
    assert_eq!(killed.rows() + watch.rows(), 12, "rows are read twice or left out");
    let [why] = <[String; 1]>::try_from(resumed(&shop).await).unwrap();
    let counted = format!("goes on behind 2 pages with {} rows", killed.rows());
    assert!(why.contains(&counted) && why.contains("of a later moment"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_goes_on_behind_the_ranges_that_its_lost_session_has_read() {
    let Some(shop) = shop("ranges_ended").await else { return };
    let ends_at = Some((3, shop.url.clone()));
    let watch = Arc::new(Watch { ends_at, ..Watch::default() });
    let ctx = process(&shop, &watch).await;
    let ledger = shop.site.ledger().await;
    // The next try is due after some seconds of the clock.
    let waiting = async {
        loop {
            let row = ledger.audience(&audience()).await.unwrap();
            if row.and_then(|row| row.refresh).is_some_and(|refresh| refresh.failures == 1) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shop.site.clock.advance(Duration::from_secs(60));
    };
    let both = async { tokio::join!(refresh(&ctx), waiting) };
    let (outcome, ()) = tokio::time::timeout(TIMEOUT, both).await.unwrap();
    assert_completed(&outcome);
    shop.site.assert_members(0..10).await;
    assert_eq!(watch.later(), [false, false, true]);
    let pages = watch.pages.lock().iter().map(|page| page.rows).sum::<u64>();
    assert_eq!(pages, 12);
    assert_eq!(resumed(&shop).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_another_sql_are_not_continued() {
    let Some(mut shop) = shop("ranges_sql").await else { return };
    refresh_killed_after_two_ranges(&shop).await;
    let other = "SELECT user_id FROM clicks WHERE user_id < 5 OR user_id IS NULL";
    shop.site.spec = spec(&shop.site, &shop.url, other);
    shop.settings().key_range_rows = Some(RANGE_ROWS);
    let outcome = shop.site.refresh().await;
    assert_eq!(outcome.state, RefreshState::Failed, "{outcome:?}");
    assert!(outcome.reason.unwrap().contains("the model has changed"));
    assert_completed(&shop.site.refresh().await);
    shop.site.assert_members(0..5).await;
    assert_eq!(resumed(&shop).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_no_longer_read_in_ranges_is_read_from_its_first_row() {
    let Some(mut shop) = shop("ranges_off").await else { return };
    refresh_killed_after_two_ranges(&shop).await;
    shop.settings().key_range_rows = None;
    assert_completed(&shop.site.refresh().await);
    shop.site.assert_members(0..10).await;
    assert_eq!(resumed(&shop).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_of_a_range_is_an_outage_and_another_table_is_another_job() {
    let Some(mut shop) = shop("ranges_lost").await else { return };
    let (mut session, mut read) = (Session::default(), Vec::new());
    let first = read_page(&shop, CLICKS, None, &mut session, &mut read).await.unwrap();
    let cursor = first.next.unwrap();
    end_sessions(&shop.url).await;
    let mut failed = Vec::new();
    let error = read_page(&shop, CLICKS, Some(&cursor), &mut session, &mut failed).await;
    let error = error.unwrap_err();
    assert_eq!(error.retry(), Retry::Backoff, "{error}");
    assert!(error.to_string().contains("goes on behind its last key range"), "{error}");
    let next = read_page(&shop, CLICKS, Some(&cursor), &mut session, &mut read).await.unwrap();
    assert!(next.is_later && next.rows >= u64::from(RANGE_ROWS), "{next:?}");

    // Keys of another type are other users.
    end_sessions(&shop.url).await;
    run(&mut shop.raw, "ALTER TABLE clicks ALTER user_id TYPE TEXT USING user_id::TEXT").await;
    for username in [None, Some("another")] {
        if let Some(username) = username {
            shop.settings().username = username.to_owned();
        }
        let mut session = Session::default();
        let other = read_page(&shop, CLICKS, Some(&cursor), &mut session, &mut failed).await;
        assert!(matches!(other, Err(WarehouseError::JobLost { .. })), "{other:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_plans_the_statement_that_reads_ranges() {
    let Some(shop) = shop("ranges_plan").await else { return };
    let plan = shop.check(CLICKS).await.unwrap();
    assert_eq!((plan.key_column.as_str(), plan.estimated_rows), ("user_id", Some(12)));
    assert_eq!(plan.columns, [("user_id".to_owned(), "INT4".to_owned())]);
}
