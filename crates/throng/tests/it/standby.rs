//! An aggregator is paused, with a session timeout of five minutes: the standby replicas publish the
//! figures of its partitions, and when the aggregator continues, it is the leader again.

use std::path::Path;

use serde_json::Value;
use throng_model::{Clock as _, SystemClock};

use crate::process::{HEAVY, NodeProcess, get, http, post, wait_for};

const AD_GROUPS: u64 = 16;
/// Micros of an impression.
const PRICE: u64 = 130_001;

fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests by `cargo xtask test`"))
}

fn spec(name: &str) -> String {
    let (kafka, s3) = (setting("THRONG_KAFKA"), setting("THRONG_S3"));
    let ad_groups: String = (0..AD_GROUPS)
        .map(|n| {
            format!(
                "  - {{ name: group-{n}, campaign: c, per: impression, price: \"0.130001\", daily_budget: \"1000000\" }}\n"
            )
        })
        .collect();
    let zone = throng_sim::zone_far_from_midnight(SystemClock.now());
    format!(
        "version: 1\nadvertisers:\n  - {{ name: a, currency: USD, time_zone: {zone} }}\ncampaigns:\n  - {{ name: c, advertiser: a }}\nad_groups:\n{ad_groups}node:\n  ledger: postgres\n  ledger_url: env:LEDGER\n  log: kafka\n  kafka: {{ brokers: \"{kafka}\", prefix: \"{name}\", session_ms: 300000 }}\n  objects: s3\n  bucket: {{ name: throng, prefix: \"{name}\", endpoint: \"{s3}\", access_key: \"env:THRONG_S3_ACCESS_KEY\", secret_key: \"env:THRONG_S3_SECRET_KEY\" }}\n  feed_interval_ms: 100\n"
    )
}

fn start(folder: &Path, name: &str, place: &str, roles: &str, join: bool) -> NodeProcess {
    let ledger = format!("{}/{name}", setting("THRONG_POSTGRES"));
    let mut arguments = vec!["--roles", roles];
    if join {
        arguments.push("--join");
    }
    let log = folder.join(format!("log-{place}"));
    let spec = folder.join("throng.yaml");
    NodeProcess::with(&folder.join(place), &spec, &log, &arguments, &[("LEDGER", ledger)])
}

/// Sends impressions of every ad group, ten each.
async fn send_impressions(http: &reqwest::Client, url: &str, round: u64) {
    let at = SystemClock.now();
    let lines: String = (0..10 * AD_GROUPS)
        .map(|n| {
            let group = n % AD_GROUPS;
            format!(
                "{{\"id\":\"{round}-{n}\",\"kind\":\"impression\",\"ad_group\":\"group-{group}\",\"at\":\"{at}\"}}\n"
            )
        })
        .collect();
    let request = post(http, format!("{url}/v1/events")).body(lines);
    let request = request.header("content-type", "application/x-ndjson");
    let answer = request.send().await.expect("answered");
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(body["accepted"], 10 * AD_GROUPS, "{body}");
}

/// Waits until the node shows the spend of so many rounds.
async fn wait_for_spend(http: &reqwest::Client, url: &str, rounds: u64) {
    wait_for("the spend", async || {
        let budgets = get(http, format!("{url}/v1/budgets")).await?;
        let all = budgets["budgets"].as_array().ok_or("no list")?;
        let wanted = rounds * 10 * PRICE;
        match all.iter().find(|b| b["actual_micros"].as_u64() != Some(wanted)) {
            Some(other) => Err(format!("{other} instead of {wanted}")),
            None => Ok(()),
        }
    })
    .await;
}

/// The epoch of every partition, as the feed has it.
async fn epochs(http: &reqwest::Client, url: &str) -> Vec<u64> {
    let gates = get(http, format!("{url}/v1/gates")).await.expect("answered");
    let partitions = gates["partitions"].as_array().expect("a list").clone();
    partitions.iter().map(|p| p["epoch"].as_u64().expect("a number")).collect()
}

fn numbers(list: &Value) -> Vec<usize> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|n| Some(n.as_u64()? as usize)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_publishes_the_figures_of_a_paused_aggregator() {
    // Another test restarts the services.
    let _turn = HEAVY.lock().await;
    let dir = tempfile::tempdir().expect("temporary folder");
    let unique = dir.path().file_name().and_then(|n| n.to_str()).expect("a name");
    let name = format!("standby-{}", unique.trim_matches('.').to_lowercase());
    std::fs::write(dir.path().join("throng.yaml"), spec(&name)).expect("written");
    let http = http();
    let api = start(dir.path(), &name, "api", "api,schedule,relay", false);
    let first = start(dir.path(), &name, "first", "aggregate", true);
    let second = start(dir.path(), &name, "second", "aggregate", true);
    let url = &api.url;
    // The partitions of the first, once each partition has a standby.
    let paused = wait_for("every partition has a leader and a standby", async || {
        let nodes = get(&http, format!("{url}/v1/nodes")).await?;
        let nodes = nodes["nodes"].as_array().ok_or("no list")?.clone();
        let of = |url: &str| nodes.iter().find(|n| n["url"] == url).ok_or(format!("{nodes:?}"));
        let (one, other) = (of(&first.url)?, of(&second.url)?);
        let (mine, theirs) = (numbers(&one["partitions"]), numbers(&other["partitions"]));
        let ready = mine.len() + theirs.len() == 4
            && !mine.is_empty()
            && numbers(&other["stands_by"]) == mine
            && numbers(&one["stands_by"]) == theirs;
        if ready { Ok(mine) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    send_impressions(&http, url, 0).await;
    wait_for_spend(&http, url, 1).await;
    let before = epochs(&http, url).await;

    first.signal("STOP");
    send_impressions(&http, url, 1).await;
    wait_for_spend(&http, url, 2).await;
    let during = epochs(&http, url).await;
    // The exact epoch is not asserted: on a busy machine a standby may have published before the pause
    // too, and then the leader has bumped its epoch far above.
    for partition in &paused {
        let (leader, standby) = (before[*partition], during[*partition]);
        assert!(standby >= leader, "{partition}: {standby} after {leader}");
    }

    first.signal("CONT");
    wait_for("the leader publishes again", async || {
        let after = epochs(&http, url).await;
        let bumped = paused.iter().all(|partition| after[*partition] >= during[*partition] + 1_000);
        if bumped { Ok(()) } else { Err(format!("{after:?} after {during:?}")) }
    })
    .await;
    send_impressions(&http, url, 2).await;
    wait_for_spend(&http, url, 3).await;

    // The standby becomes the leader.
    assert!(first.terminate());
    send_impressions(&http, url, 3).await;
    wait_for_spend(&http, url, 4).await;
    wait_for("the second owns everything", async || {
        let nodes = get(&http, format!("{url}/v1/nodes")).await?;
        let nodes = nodes["nodes"].as_array().ok_or("no list")?;
        let owned = nodes.iter().find(|n| n["url"] == *second.url).map(|n| n["partitions"].clone());
        if owned.as_ref().map(numbers) == Some(vec![0, 1, 2, 3]) {
            Ok(())
        } else {
            Err(format!("{owned:?}"))
        }
    })
    .await;
    send_impressions(&http, url, 4).await;
    wait_for_spend(&http, url, 5).await;
}
