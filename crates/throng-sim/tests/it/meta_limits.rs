//! Quotas and usage headers.

use std::time::Duration;

use serde_json::{Value, json};
use throng_sim::meta::{MetaSimConfig, Tier};

use crate::{Meta, Reply, batch, emails};

const BUSINESS: &str = "x-business-use-case-usage";

fn business_usage(reply: &Reply) -> Value {
    let usage: Value = serde_json::from_str(reply.header(BUSINESS).unwrap()).unwrap();
    usage["1"][0].clone()
}

#[tokio::test]
async fn uploads_have_other_usage_headers_than_other_calls() {
    let meta = Meta::plain().await;
    let create = json!({"name": "a", "customer_file_source": "USER_PROVIDED_ONLY"});
    let created = meta.post("act_1/customaudiences", create).await;
    let id = created.body["id"].as_str().unwrap().to_owned();
    let users = format!("{id}/users");
    let removal = meta.delete(&users, emails(0..1)).await;
    let listed = meta.get("act_1/customaudiences").await;
    let read = meta.get(&id).await;
    let upload = meta.post(&users, emails(0..1)).await;
    let replaced = meta.post(&format!("{id}/usersreplace"), batch(0..1, 1, 1, true)).await;
    let deleted = meta.delete(&id, json!({})).await;
    for reply in [&created, &removal, &listed, &read, &deleted] {
        let usage = business_usage(reply);
        assert_eq!(usage["type"], "custom_audience");
        assert_eq!(usage["estimated_time_to_regain_access"], 0);
        assert_eq!((reply.header("x-app-usage"), reply.header("x-ad-account-usage")), (None, None));
    }
    for reply in [&upload, &replaced] {
        assert_eq!(reply.header(BUSINESS), None);
        let app: Value = serde_json::from_str(reply.header("x-app-usage").unwrap()).unwrap();
        assert!(app["call_count"].is_u64() && app["total_cputime"].is_u64(), "{app}");
        let account = reply.header("x-ad-account-usage").unwrap();
        let account: Value = serde_json::from_str(account).unwrap();
        assert!(account["acc_id_util_pct"].is_f64(), "{account}");
    }
}

#[tokio::test]
async fn over_the_quota_calls_are_throttled_until_the_hour_has_rolled() {
    let config = MetaSimConfig { quota_calls_per_hour: Some(4), ..MetaSimConfig::default() };
    let meta = Meta::start(config).await;
    let id = meta.audience("a").await;
    assert_eq!(business_usage(&meta.get(&id).await)["call_count"], 50);
    meta.clock.advance(Duration::from_secs(1_800));
    meta.add(&id, 0..1).await;
    meta.get(&id).await;
    let refused = meta.post(&format!("{id}/users"), emails(1..2)).await;
    assert_eq!((refused.status, refused.code()), (400, (80_003, 2_446_079)));
    assert_eq!(meta.count(&id), 1, "a throttled call has no effect");
    let refused = meta.get(&id).await;
    let usage = business_usage(&refused);
    // Six calls, as refused ones count as well. Two are 30 minutes old; a third one has to expire.
    assert_eq!(usage["call_count"], 150);
    assert_eq!(usage["estimated_time_to_regain_access"], 60);
    assert_eq!(meta.get("act_2").await.status, 200, "other accounts have their own quota");
    meta.clock.advance(Duration::from_secs(3_600));
    assert_eq!(meta.get(&id).await.status, 200);
}

#[tokio::test]
async fn the_older_meter_blocks_reads_with_17_and_writes_with_613() {
    let meta = Meta::start(MetaSimConfig {
        tier: Tier::Limited,
        account_score: true,
        ..MetaSimConfig::default()
    })
    .await;
    for _ in 0..60 {
        assert_eq!(meta.get("act_1").await.status, 200);
    }
    assert_eq!(meta.get("act_1").await.code(), (17, 2_446_079));
    let create = json!({"name": "a", "customer_file_source": "USER_PROVIDED_ONLY"});
    assert_eq!(meta.post("act_1/customaudiences", create).await.code(), (613, 1_487_742));
    meta.clock.advance(Duration::from_secs(301));
    assert_eq!(meta.get("act_1").await.status, 200);
}
