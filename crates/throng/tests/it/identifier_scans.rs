//! How often a node queries identifiers to plan runs. A process of its own, because the counters of a process are those
//! of all of its nodes.

use std::path::Path;

use reqwest::Client;
use throng_sim::meta::{MetaSim, MetaSimConfig};

use crate::process::{NodeProcess, get, get_text, http, post, wait_for};

/// The syncs of one account, which deliver the same audience.
const SYNCS: [&str; 2] = ["one", "two"];

fn spec(sim_url: &str) -> String {
    let mut text = format!(
        "version: 1\nsources:\n  - {{ name: shop, path: data }}\naudiences:\n  - {{ name: buyers, sql: \"SELECT customer FROM shop.purchases\", guard: {{ max_growth_percent: 1000 }} }}\ndestinations:\n  - {{ name: meta, platform: meta, account: act_1, access_token: \"env:THRONG_META_TOKEN\", base_url: \"{sim_url}\" }}\nsyncs:\n"
    );
    for name in SYNCS {
        text.push_str(&format!(
            "  - name: {name}\n    audience: buyers\n    destination: meta\n    platform_name: {name}\n    identifiers:\n      key: customer\n      sql: SELECT customer, email FROM shop.customers\n      columns: {{ email: EMAIL }}\n"
        ));
    }
    text
}

/// Replaces a table by a rename, so that no reader sees half of it.
fn write(folder: &Path, table: &str, header: &str, rows: impl Iterator<Item = String>) {
    let aside = folder.join("aside");
    let rows: String = rows.map(|row| format!("{row}\n")).collect();
    std::fs::write(&aside, format!("{header}\n{rows}")).expect("written");
    std::fs::rename(aside, folder.join(format!("data/{table}.csv"))).expect("renamed");
}

fn buyers(folder: &Path, count: u32) {
    write(folder, "purchases", "customer", (0..count).map(|c| format!("c{c}")));
}

/// Waits until every sync has delivered this version.
async fn delivered(http: &Client, node_url: &str, version: u64) {
    wait_for("the version is delivered", async || {
        let answer = get(http, format!("{node_url}/v1/syncs")).await?;
        let syncs = answer["syncs"].as_array().ok_or("no list")?;
        let done = syncs.iter().filter(|sync| sync["delivered_version"] == version).count();
        if done == SYNCS.len() { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}

/// Starts a refresh, and waits until it is completed. Returns whether it found nothing to do.
async fn refreshed(http: &Client, node_url: &str) -> bool {
    let url = format!("{node_url}/v1/audiences/buyers");
    let before = get(http, url.clone()).await.expect("the audience")["refresh"]["id"].clone();
    let started = post(http, format!("{url}/refresh")).send().await.expect("answered");
    assert!(started.status().is_success(), "{}", started.status());
    wait_for("the refresh is completed", async || {
        let answer = get(http, url.clone()).await?;
        let refresh = &answer["refresh"];
        match refresh["id"] != before && refresh["state"] == "completed" {
            true => Ok(refresh["unchanged"] == true),
            false => Err(answer.to_string()),
        }
    })
    .await
}

/// The value of the counter.
async fn scans(http: &Client, node_url: &str) -> u64 {
    let response = get_text(http, format!("{node_url}/metrics")).send().await.expect("answered");
    let text = response.text().await.expect("text");
    let value = text.lines().find_map(|line| line.strip_prefix("throng_identifier_scans_total "));
    value.map_or(0, |value| value.parse().expect("a number"))
}

fn sizes(sim: &MetaSim) -> Vec<Option<u64>> {
    sim.audiences().iter().map(|audience| sim.member_count(&audience.id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identifiers_are_queried_once_for_the_syncs_of_a_version() {
    let sim = MetaSim::start(MetaSimConfig::default()).await.expect("the simulator starts");
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = dir.path();
    std::fs::create_dir(folder.join("data")).expect("created");
    write(folder, "customers", "customer,email", (0..10).map(|c| format!("c{c},c{c}@example.com")));
    buyers(folder, 4);
    let spec_file = folder.join("throng.yaml");
    std::fs::write(&spec_file, spec(&sim.url())).expect("written");
    let node = NodeProcess::start(&folder.join("node"), &spec_file, &folder.join("log"));
    let http = http();

    delivered(&http, &node.url, 1).await;
    assert_eq!((scans(&http, &node.url).await, sizes(&sim)), (1, vec![Some(4); 2]));
    // The planner is woken by the end of the refresh, and finds nothing to do. A scan that it began after the first of
    // these lines would be counted in the last one.
    assert!(refreshed(&http, &node.url).await, "nothing has changed");
    assert_eq!(scans(&http, &node.url).await, 1);
    buyers(folder, 6);
    assert!(!refreshed(&http, &node.url).await, "the source has changed");
    delivered(&http, &node.url, 2).await;
    assert_eq!((scans(&http, &node.url).await, sizes(&sim)), (2, vec![Some(6); 2]));
    assert!(node.terminate());
}
