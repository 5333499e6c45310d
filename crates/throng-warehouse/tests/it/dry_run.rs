//! Checks of SQL without running it, and what the warehouse refuses.

use std::time::Duration;

use throng_lake::KeyKind;
use throng_model::{Micros, Retry};
use throng_refresh::{QueryPlan, WarehouseError, Warehouses};
use throng_sim_bigquery::{CallKind, Column, FaultKind, FaultRule};
use throng_spec::{Spec, WarehouseSettings};
use throng_store::{Refresh, RefreshState};

use crate::{SQL, Site, clicks};

async fn check(
    site: &Site,
    spec: &Spec,
    sql: &str,
    key: Option<&str>,
) -> Result<QueryPlan, WarehouseError> {
    site.warehouses().open(&spec.warehouses[0])?.check(sql, key).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_has_columns_bytes_and_cost_and_makes_no_job() {
    let site = Site::new().await;
    let plan = check(&site, &site.spec, SQL, Some("user_id")).await.unwrap();
    assert_eq!((plan.key_column.as_str(), plan.key_kind), ("user_id", KeyKind::Integer));
    assert_eq!(plan.columns[1], ("score".to_owned(), "FLOAT".to_owned()));
    assert_eq!(plan.bytes_processed, Some(5 << 30));
    // 5/1024 of 6.25.
    assert_eq!(plan.cost, Some(Micros(30_518)));
    let oracle = site.sim.oracle();
    assert_eq!((oracle.dry_runs, oracle.jobs.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_what_to_do() {
    let site = Site::new().await;
    let refused = |result: Result<QueryPlan, WarehouseError>| {
        let error = result.unwrap_err();
        assert_eq!(error.retry(), Retry::Never, "{error}");
        (error.to_string(), error.help().unwrap_or_default().to_owned())
    };
    let (message, help) = refused(check(&site, &site.spec, "SELECT totl", None).await);
    assert!(message.contains("invalidQuery") && message.contains("totl"), "{message}");
    assert!(help.contains("BigQuery's dialect"), "{help}");
    let (message, _) = refused(check(&site, &site.spec, SQL, Some("score")).await);
    assert!(message.contains("score is of type FLOAT"), "{message}");

    let mut dear = site.spec.clone();
    let WarehouseSettings::Bigquery(settings) = &mut dear.warehouses[0].settings else { panic!() };
    settings.maximum_bytes_billed = 1 << 30;
    let (message, help) = refused(check(&site, &dear, SQL, Some("user_id")).await);
    assert!(message.contains("bytesBilledLimitExceeded"), "{message}");
    assert!(help.contains("maximum_bytes_billed"), "{help}");

    let mut nested = clicks(0..2);
    nested.columns[1] = Column::array("tags", "STRING");
    site.engine.set(nested);
    let (message, _) = refused(check(&site, &site.spec, SQL, Some("user_id")).await);
    assert_eq!(message, "the column tags is an array or a struct");
    // The refresh refuses it as well, at once.
    let outcome = site.refresh().await;
    assert_eq!(outcome.state, RefreshState::Failed);
    assert!(outcome.reason.unwrap().contains("the column tags is an array"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_of_the_day_is_tried_again_later() {
    let site = Site::new().await;
    let kind = FaultKind::QuotaExceeded;
    let at_creation = FaultRule { on: CallKind::Insert, after: 0, times: 1, kind };
    site.sim.set_faults(vec![at_creation]);
    let ctx = site.process().await;
    let ledger = site.ledger().await;
    let wait = async {
        loop {
            let newest = ledger.refreshes(None, 1).await.unwrap().pop();
            let waits = |refresh: &Refresh| {
                refresh.state == RefreshState::Scheduled && refresh.failures == 1
            };
            if newest.as_ref().is_some_and(waits) {
                // Fifteen minutes later, on the clock of the refresh.
                return site.clock.advance(Duration::from_secs(901));
            }
            tokio::task::yield_now().await;
        }
    };
    let (outcome, ()) = tokio::join!(crate::refresh(&ctx), wait);
    assert_eq!(outcome.state, RefreshState::Completed, "{outcome:?}");
    site.assert_members(0..10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_of_a_machine_comes_from_its_metadata_server() {
    let mut site = Site::new().await;
    let url = site.sim.url();
    let WarehouseSettings::Bigquery(settings) = &mut site.spec.warehouses[0].settings else {
        panic!()
    };
    (settings.credentials, settings.token_url) = (None, None);
    settings.metadata_url = Some(url);
    assert_eq!(site.refresh().await.state, RefreshState::Completed);
    site.assert_members(0..10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_account_is_refused() {
    let site = Site::new().await;
    let other = crate::KEY_FILE.replace("throng@", "other@");
    let WarehouseSettings::Bigquery(settings) = &site.spec.warehouses[0].settings else { panic!() };
    let path = settings.credentials.as_ref().unwrap().file().unwrap();
    std::fs::write(path, other).unwrap();
    let error = check(&site, &site.spec, SQL, Some("user_id")).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Never);
    assert!(error.to_string().contains("the request for an access token"), "{error}");
}
