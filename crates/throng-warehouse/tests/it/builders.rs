//! Refreshes whose jobs wait, beside a refresh over a folder.

use std::sync::Arc;
use std::time::Duration;

use throng_model::{AudienceName, Clock as _};
use throng_refresh::refresh_audiences;
use throng_sim_bigquery::{CallKind, FaultKind, FaultRule};
use throng_store::{Ledger, Refresh, RefreshState, RefreshTrigger};
use tokio_util::sync::CancellationToken;

use crate::{SQL, Site, TIMEOUT, until};

/// Audiences of the warehouse, in the order in which they are queued; the one over a folder follows.
const OF_WAREHOUSE: [&str; 4] = ["w0", "w1", "w2", "w3"];
const OVER_FOLDER: &str = "local";

fn name(name: &str) -> AudienceName {
    name.parse().unwrap()
}

/// A site whose jobs do not end, with one builder for folders and two for warehouses.
async fn site() -> Site {
    let mut site = Site::new().await;
    std::fs::create_dir(site.dir.path().join("data")).unwrap();
    let of_warehouse = OF_WAREHOUSE
        .map(|name| format!("  - {{ name: {name}, source: app, key: user_id, sql: \"{SQL}\" }}\n"));
    let (url, of_warehouse) = (site.sim.url(), of_warehouse.concat());
    let text = format!(
        "version: 1\nsources:\n  - {{ name: shop, path: data }}\n  - {{ name: app, type: bigquery, \
         project: p, location: US, credentials: \"file:key.json\", token_url: \"{url}/token\", \
         endpoint: \"{url}\" }}\nnode: {{ build_workers: 1, warehouse_workers: 2 }}\naudiences:\n\
         {of_warehouse}  - {{ name: {OVER_FOLDER}, sql: SELECT id FROM shop.t }}\n"
    );
    let path = site.dir.path().join("throng.yaml");
    std::fs::write(&path, text).unwrap();
    site.spec = throng_spec::load(&path).unwrap();
    let (on, kind) = (CallKind::Poll, FaultKind::Hang);
    site.sim.set_faults(vec![FaultRule { on, after: 0, times: u64::MAX, kind }]);
    site
}

async fn newest(ledger: &dyn Ledger, audience: &str) -> Refresh {
    ledger.audience(&name(audience)).await.unwrap().unwrap().refresh.unwrap()
}

/// Waits until two jobs wait, and the refresh over a folder was tried: it fails, because there is no query worker here.
async fn until_all_builders_were_used(site: &Site, ledger: &dyn Ledger) {
    until("two jobs", || site.sim.oracle().hanging == 2).await;
    let polling = async {
        while newest(ledger, OVER_FOLDER).await.failures == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let tried = tokio::time::timeout(TIMEOUT, polling).await;
    assert!(tried.is_ok(), "{:?}", newest(ledger, OVER_FOLDER).await);
    assert_eq!(site.sim.oracle().jobs.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_that_wait_for_jobs_do_not_delay_one_over_a_folder() {
    let site = site().await;
    let (ctx, ledger) = (site.process().await, site.ledger().await);
    for (n, audience) in (0..).zip(OF_WAREHOUSE.into_iter().chain([OVER_FOLDER])) {
        let at = site.clock.now().plus(Duration::from_micros(n));
        ledger.schedule_refresh(&name(audience), RefreshTrigger::Manual, at).await.unwrap();
    }
    site.clock.advance(Duration::from_secs(1));
    let shutdown = CancellationToken::new();
    let building = tokio::spawn(throng_refresh::run(Arc::clone(&ctx), shutdown.clone()));
    until_all_builders_were_used(&site, &*ledger).await;
    let (processing, scheduled) = (RefreshState::Processing, RefreshState::Scheduled);
    for (audience, state) in
        OF_WAREHOUSE.into_iter().zip([processing, processing, scheduled, scheduled])
    {
        assert_eq!(newest(&*ledger, audience).await.state, state, "{audience}: the oldest first");
    }
    shutdown.cancel();
    building.await.unwrap();
    for audience in &OF_WAREHOUSE[..2] {
        assert_eq!(newest(&*ledger, audience).await.state, RefreshState::Halted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_over_both_kinds_processes_them_side_by_side() {
    let site = site().await;
    let (ctx, ledger) = (site.process().await, site.ledger().await);
    let names: Vec<AudienceName> =
        OF_WAREHOUSE.into_iter().chain([OVER_FOLDER]).map(name).collect();
    let shutdown = CancellationToken::new();
    tokio::select! {
        outcomes = refresh_audiences(&ctx, &names, false, &shutdown, |_| {}) => {
            panic!("jobs that do not end: {outcomes:?}")
        }
        () = async {
            // They are queued by then.
            until("two jobs", || site.sim.oracle().hanging == 2).await;
            until_all_builders_were_used(&site, &*ledger).await;
        } => {}
    }
}
