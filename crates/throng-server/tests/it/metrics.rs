//! Every metric that a node exposes has HELP and TYPE and is in the documented table.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use throng_store::{AlertKind, NewAlert};

use crate::{Client, SPEC, noon, spec, start};

/// The samples of a scrape: name with labels, and value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_has_help_and_type_and_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    let at = throng_model::Clock::now(&*clock).to_string();
    let event = json!({ "id": "1", "kind": "impression", "ad_group": "shoes", "at": at });
    client.events(format!("{event}\n")).await;
    client.post("/v1/gates/one/applied", &json!({ "versions": { "0": 7 } })).await;
    client.get("/v1/users/a/audiences").await;
    node.context().budgets.checkpoint().await.unwrap();
    for _ in 0..3 {
        let alert = NewAlert {
            kind: AlertKind::DiskFull,
            subject: "node".to_owned(),
            message: "x".to_owned(),
        };
        node.context().ledger.raise_alert(&alert, throng_model::Timestamp(1)).await.unwrap();
    }
    let text = client.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();

    let described = |what: &str| -> BTreeSet<&str> {
        let begin = format!("# {what} ");
        let lines = text.lines().filter_map(|line| line.strip_prefix(begin.as_str()));
        lines.filter_map(|line| line.split(' ').next()).collect()
    };
    let (help, types) = (described("HELP"), described("TYPE"));
    let known: BTreeSet<&str> = throng_server::metric_names().collect();
    let samples = samples(&text);
    for sample in samples.keys() {
        let name = sample.split('{').next().unwrap();
        let plain = name.strip_suffix("_sum").or_else(|| name.strip_suffix("_count"));
        let name = plain.filter(|plain| known.contains(plain)).unwrap_or(name);
        assert!(known.contains(name), "{name} is not in the table of metrics");
        assert!(help.contains(name), "{name} has no HELP");
        assert!(types.contains(name), "{name} has no TYPE");
    }
    // Metrics that are read at a scrape are of this node, whatever else runs in this process.
    let value = |sample: &str| samples.get(sample).copied();
    assert_eq!(value("throng_alerts_open{kind=\"disk_full\"}"), Some(1.0));
    assert_eq!(value("throng_alerts_open{kind=\"refresh_failed\"}"), Some(0.0));
    assert_eq!(value("throng_refreshes{state=\"failed\"}"), Some(0.0));
    assert_eq!(value("throng_tasks{state=\"queued\"}"), Some(0.0));
    assert_eq!(value("throng_queue_depth{queue=\"checks\"}"), Some(0.0));
    assert_eq!(value("throng_ledger_readable"), Some(1.0));
    assert_eq!(value("throng_gate_applied_version{gate=\"one\",partition=\"0\"}"), Some(7.0));
    assert!(value("throng_log_bytes").is_some_and(|bytes| bytes > 0.0));
    let free = value("throng_disk_free_bytes").unwrap();
    assert!(free > 0.0 && free <= value("throng_disk_size_bytes").unwrap());
    // The recorder is shared by the nodes of this process, so the value may be of another one.
    let checkpoint = "throng_checkpoint_last_success_timestamp_seconds{partition=\"0\"}";
    assert!(value(checkpoint).is_some_and(|at| at > 0.0));
    node.shutdown().await;
}
