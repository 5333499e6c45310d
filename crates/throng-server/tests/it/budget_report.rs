//! The report of budgets, and alerts about them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use throng_model::Clock as _;

use crate::{Client, SPEC, noon, spec, start, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_report_has_what_was_given_away_and_alerts_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let settings = format!("{SPEC}node:\n  budget_alerts: true\n");
    let node = start(dir.path(), spec(&settings), &clock).await.unwrap();
    let client = Client::of(&node);
    let at = clock.now().to_string();
    let line = |n: u32| {
        let event =
            json!({ "id": n.to_string(), "kind": "impression", "ad_group": "shoes", "at": at });
        format!("{event}\n")
    };
    client.events((0..12).map(line).collect::<String>()).await;
    // Budget days are written once a minute.
    clock.advance(Duration::from_secs(61));
    let path = "/v1/budgets/report?advertiser=shop&from=2026-11-23&to=2026-11-23";
    until("the ledger has the spend", async || {
        client.get(path).await["totals"][0]["actual_micros"] == json!(1_200_000)
    })
    .await;
    let report = client.get(path).await;
    let total = &report["totals"][0];
    let amounts = ["budget_micros", "billable_micros", "given_away_micros", "left_over_micros"];
    assert_eq!(
        amounts.map(|name| total[name].as_i64().unwrap()),
        [101_000_000, 1_000_000, 200_000, 100_000_000]
    );
    // The ads were not reported as inserted: nothing is known of when they were.
    let causes = total["given_away_by_cause"].as_object().unwrap();
    let causes: Vec<(&str, i64)> = causes
        .iter()
        .map(|(name, amount)| (name.as_str(), amount.as_i64().unwrap()))
        .filter(|(_, amount)| *amount != 0)
        .collect();
    assert_eq!(causes, [("unknown_micros", 200_000)]);
    assert_eq!((&total["currency"], &total["is_over"]), (&json!("USD"), &json!(false)));
    assert_eq!(report["days"].as_array().unwrap().len(), 2, "{report}");

    let response = client.request("GET", "/v1/budgets/report?format=csv").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/csv; charset=utf-8");
    let csv = response.text().await.unwrap();
    let shoes =
        "2026-11-23,false,shop,shoes,USD,1.00,1.20,1.00,0.20,0.00,,,,0.00,0.00,0.00,0.00,0.00,0.20";
    assert!(csv.lines().any(|line| line == shoes), "{csv}");
    // Links get such parameters on their way. Only the API refuses those that it does not know.
    let page = "/budgets/report?utm_source=mail";
    let html = client.request("GET", page).send().await.unwrap();
    let html = html.text().await.unwrap();
    assert!(html.contains("0.20 USD (20.00 %)"), "{html}");
    assert!(html.contains("unknown 0.20 USD"), "{html}");
    for (query, status) in [
        ("from=today", 400),
        ("from=2026-11-24&to=2026-11-23", 400),
        ("from=2020-01-01", 400),
        ("format=xml", 400),
        ("advertiser=nobody", 404),
    ] {
        let path = format!("/v1/budgets/report?{query}");
        let response = client.request("GET", &path).send().await.unwrap();
        assert_eq!(response.status(), status, "{query}");
    }

    // Kinds of the alerts about the ad group, and how many of them are open.
    let alerts = async || {
        let response = client.get("/v1/alerts").await;
        let all = response["alerts"].as_array().unwrap();
        let subject = "ad_group shoes on 2026-11-23";
        let own: Vec<_> = all.iter().filter(|alert| alert["subject"] == subject).collect();
        let open = own.iter().filter(|alert| alert["resolved_at"].is_null()).count();
        let kinds = own.iter().map(|alert| alert["kind"].as_str().unwrap().to_owned());
        (kinds.collect::<BTreeSet<String>>(), open)
    };
    let kinds = ["budget_nearly_spent", "budget_spent", "overdelivery"].map(str::to_owned);
    until("the alerts are raised", async || alerts().await == (kinds.clone().into(), 3)).await;
    clock.advance(Duration::from_secs(13 * 3_600));
    until("the day has ended", async || alerts().await == (kinds.clone().into(), 0)).await;
    assert_eq!(client.get(path).await["totals"][0]["is_over"], json!(true));
    node.shutdown().await;
}
