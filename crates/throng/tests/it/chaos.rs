//! Two hundred kills at random times, during builds, activation and aggregation. At the end every audience,
//! every audience on the platform and all spend are exactly as expected.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use throng_model::{Clock, Entropy, SplitMix64, SystemClock};
use throng_sim::meta::{MetaSim, MetaSimConfig};

use crate::process::{NodeProcess, TIMED, TIMEOUT, get, http, post, wait_for};

const ROUNDS: u64 = 200;
const CUSTOMERS: u64 = 3_000;
const PRICE: i64 = 130_001;

/// What was done to the node from outside, and so what it has to show.
pub(crate) struct Workload {
    folder: PathBuf,
    pub(crate) random: SplitMix64,
    /// (customer, amount in whole units) of every purchase so far.
    purchases: Vec<(u64, u64)>,
    /// Events that the node has not accepted yet.
    unsent: Vec<Value>,
    /// Impressions by ad group, each with an id of its own.
    impressions: BTreeMap<String, u64>,
    events: u64,
}

impl Workload {
    pub(crate) fn new(folder: &Path, seed: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            random: SplitMix64::new(seed),
            purchases: (0..50).map(|customer| (customer, 10)).collect(),
            unsent: Vec::new(),
            impressions: BTreeMap::new(),
            events: 0,
        }
    }

    /// Writes the spec, followed by these node settings (YAML).
    pub(crate) fn write_spec(&self, sim: &str, node: &str) {
        let mut syncs = String::new();
        let mut audiences = String::new();
        for (name, condition) in AUDIENCES {
            let _ = write!(
                audiences,
                "  - name: {name}\n    guard: {{ min_members: 0, max_shrink_percent: 100, max_growth_percent: 1000000 }}\n    sql: SELECT customer FROM shop.purchases GROUP BY customer HAVING {condition}\n"
            );
            let _ = write!(
                syncs,
                "  - name: to-{name}\n    audience: {name}\n    destination: meta\n    mode: mirror\n    batch_rows: 40\n    max_removed_percent: 100\n    identifiers:\n      key: customer\n      sql: SELECT DISTINCT customer, 'c' || customer || '@example.com' AS email FROM shop.purchases\n      columns: {{ email: EMAIL }}\n"
            );
        }
        let ad_groups: String = AD_GROUPS
            .iter()
            .map(|name| {
                format!("  - {{ name: {name}, campaign: c, per: impression, price: \"0.130001\", daily_budget: \"100000\", impression_rate: 0.9 }}\n")
            })
            .collect();
        let zone = throng_sim::zone_far_from_midnight(SystemClock.now());
        let text = format!(
            "version: 1\nsources:\n  - {{ name: shop, path: data }}\naudiences:\n{audiences}destinations:\n  - {{ name: meta, platform: meta, account: act_1, access_token: \"env:THRONG_META_TOKEN\", base_url: \"{sim}\" }}\nsyncs:\n{syncs}advertisers:\n  - {{ name: a, currency: USD, time_zone: {zone} }}\ncampaigns:\n  - {{ name: c, advertiser: a }}\nad_groups:\n{ad_groups}{node}"
        );
        std::fs::write(self.folder.join("throng.yaml"), text).expect("spec written");
    }

    /// Replaces the file of purchases by a rename, so that no reader sees half of it.
    pub(crate) fn write_purchases(&self) {
        let mut text = String::from("customer,amount\n");
        for (customer, amount) in &self.purchases {
            let _ = writeln!(text, "{customer:06},{amount}");
        }
        let temporary = self.folder.join("purchases.new");
        std::fs::write(&temporary, text).expect("written");
        std::fs::rename(temporary, self.folder.join("data/purchases.csv")).expect("renamed");
    }

    /// Adds some purchases and events.
    pub(crate) fn add_activity(&mut self) {
        for _ in 0..20 {
            let purchase = (self.random.below(CUSTOMERS), self.random.below(100));
            self.purchases.push(purchase);
        }
        self.write_purchases();
        for _ in 0..40 {
            self.events += 1;
            let ad_group = AD_GROUPS[self.random.below(AD_GROUPS.len() as u64) as usize];
            let kind = if self.random.below(2) == 0 { "insertion" } else { "impression" };
            if kind == "impression" {
                *self.impressions.entry(ad_group.to_owned()).or_default() += 1;
            }
            self.unsent.push(json!({
                "id": format!("e{}", self.events),
                "kind": kind,
                "ad_group": ad_group,
                "insertion_id": format!("i{}", self.events),
                "at": SystemClock.now().to_string(),
            }));
        }
    }

    /// The members of an audience, computed from the purchases.
    fn members(&self, name: &str) -> BTreeSet<String> {
        let mut totals: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
        for (customer, amount) in &self.purchases {
            let total = totals.entry(*customer).or_default();
            *total = (total.0 + 1, total.1 + amount, total.2.max(*amount));
        }
        let belongs = |(count, sum, largest): (u64, u64, u64)| match name {
            "everybody" => true,
            "three-or-more" => count >= 3,
            "once" => count == 1,
            "spent-100" => sum >= 100,
            "small" => largest < 50,
            other => unreachable!("no audience {other}"),
        };
        totals
            .into_iter()
            .filter(|(_, total)| belongs(*total))
            .map(|(customer, _)| format!("{customer:06}"))
            .collect()
    }

    /// Sends the unsent events; keeps those without an answer, to be sent again.
    pub(crate) async fn send_events(
        &mut self,
        http: &reqwest::Client,
        url: &str,
    ) -> Result<(), String> {
        let body: String = self.unsent.iter().map(|event| format!("{event}\n")).collect();
        let response = post(http, format!("{url}/v1/events"))
            .header("content-type", "application/x-ndjson")
            .body(body)
            .send()
            .await
            .map_err(|e| e.to_string())?;
        if !response.status().is_success() {
            return Err(response.text().await.unwrap_or_default());
        }
        let answer: Value = response.json().await.map_err(|e| e.to_string())?;
        assert_eq!(answer["rejected"].as_array().map(Vec::len), Some(0), "{answer}");
        let taken = answer["accepted"].as_u64().zip(answer["duplicates"].as_u64());
        assert_eq!(taken.map(|(a, d)| a + d), Some(self.unsent.len() as u64), "{answer}");
        self.unsent.clear();
        Ok(())
    }
}

const AUDIENCES: &[(&str, &str)] = &[
    ("everybody", "count(*) >= 1"),
    ("three-or-more", "count(*) >= 3"),
    // Users leave this one again, so that removals are tested too.
    ("once", "count(*) = 1"),
    ("spent-100", "sum(amount) >= 100"),
    ("small", "max(amount) < 50"),
];
const AD_GROUPS: &[&str] = &["red", "green", "blue", "amber", "violet"];

pub(crate) async fn refresh_all(http: &reqwest::Client, url: &str) -> Result<(), String> {
    for (name, _) in AUDIENCES {
        let request =
            post(http, format!("{url}/v1/audiences/{name}/refresh?force=true")).json(&json!({}));
        let response = request.send().await.map_err(|e| e.to_string())?;
        if !response.status().is_success() {
            return Err(response.text().await.unwrap_or_default());
        }
    }
    Ok(())
}

/// Sends the unsent events until there is an answer. Events that were counted already count once.
pub(crate) async fn send_events_until(http: &reqwest::Client, url: &str, workload: &mut Workload) {
    let sending = async {
        while workload.send_events(http, url).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let sent = tokio::time::timeout(TIMEOUT, sending).await;
    assert!(sent.is_ok(), "the events were not accepted within {TIMEOUT:?}");
}

/// The versions that all audiences have published so far.
async fn published(http: &reqwest::Client, url: &str) -> Result<u64, String> {
    let answer = get(http, format!("{url}/v1/audiences")).await?;
    let list = answer["audiences"].as_array().ok_or("no list")?;
    Ok(list.iter().filter_map(|audience| audience["current"]["version"].as_u64()).sum())
}

/// It waits for the demos only: one process at a time does not keep the machine busy, and neither do the faults of services,
/// whose test runs beside it.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_kills_lose_nothing_and_count_nothing_twice() {
    let _timed = TIMED.lock().await;
    let dir = tempfile::tempdir().expect("temporary folder");
    std::fs::create_dir(dir.path().join("data")).expect("made");
    let config = MetaSimConfig { tokens: vec!["simulator".to_owned()], ..Default::default() };
    let sim = MetaSim::start(config).await.expect("the simulator starts");
    let mut workload = Workload::new(dir.path(), 7);
    workload.write_spec(&sim.url(), "");
    workload.write_purchases();
    let (spec, data, log) =
        (dir.path().join("throng.yaml"), dir.path().join("node"), dir.path().join("log"));
    let http = http();

    // What was done before kills. On a machine that is too slow for anything before a kill, nothing would be tested.
    let (mut accepted, mut refreshed) = (0, 0);
    for _ in 0..ROUNDS {
        workload.add_activity();
        let node = NodeProcess::start(&data, &spec, &log);
        let moment = Duration::from_micros(workload.random.below(400_000));
        let url = node.url.clone();
        let work = async {
            // The kill causes errors here.
            let _ = refresh_all(&http, &url).await;
            let events = workload.unsent.len();
            if workload.send_events(&http, &url).await.is_ok() {
                accepted += events;
            }
            if let Ok(versions) = published(&http, &url).await {
                refreshed = versions;
            }
            std::future::pending::<()>().await;
        };
        // This is not a wait for a condition: the random time of the kill is what is tested.
        let _ = tokio::time::timeout(moment, work).await;
        node.kill();
    }
    assert!(accepted > 0, "no events were accepted before a kill");
    assert!(refreshed > 0, "no refresh was finished before a kill");

    let node = NodeProcess::start(&data, &spec, &log);
    workload.send_events(&http, &node.url).await.expect("the node accepts events");
    settle(&http, &node.url).await;
    check_audiences(&http, &node.url, &workload).await;
    check_platform(&http, &node.url, &workload, &sim).await;
    wait_for_money(&http, &node.url, &workload).await;
    assert!(node.terminate(), "a clean end");
    sim.shutdown().await;
}

/// Refreshes everything again and waits until all refreshes and runs have ended.
pub(crate) async fn settle(http: &reqwest::Client, url: &str) {
    // An interrupted refresh is resumed first; the last one must begin after the last purchase was
    // written.
    for _ in 0..2 {
        // A service that was killed in the last round may still be starting.
        wait_for("the refreshes are queued", async || refresh_all(http, url).await).await;
        wait_for("the end of all refreshes", async || {
            let answer = get(http, format!("{url}/v1/audiences")).await?;
            let list = answer["audiences"].as_array().ok_or("no list")?.clone();
            let ended = list.iter().all(|a| a["refresh"]["state"] == "completed");
            if ended { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }
    wait_for("the end of all runs", async || {
        let audiences = get(http, format!("{url}/v1/audiences")).await?;
        let syncs = get(http, format!("{url}/v1/syncs")).await?;
        for audience in audiences["audiences"].as_array().ok_or("no list")? {
            let name = audience["name"].as_str().ok_or("no name")?;
            let sync = syncs["syncs"]
                .as_array()
                .and_then(|list| list.iter().find(|s| s["audience"] == name))
                .ok_or_else(|| format!("no sync of {name}"))?;
            // An audience that never had a member has no list on the platform.
            let has_no_list = audience["current"]["members"] == 0 && sync["platform_id"].is_null();
            if !has_no_list && sync["delivered_version"] != audience["current"]["version"] {
                return Err(format!("{sync} of {audience}"));
            }
        }
        Ok(())
    })
    .await;
    // A snapshot is served shortly after it is published.
    wait_for("every audience is served", async || {
        let health = get(http, format!("{url}/v1/node/health")).await?;
        let audiences = get(http, format!("{url}/v1/audiences")).await?;
        for audience in audiences["audiences"].as_array().ok_or("no list")? {
            let name = audience["name"].as_str().ok_or("no name")?;
            if health["snapshots"][name] != audience["current"]["version"] {
                return Err(format!("{health} of {audience}"));
            }
        }
        Ok(())
    })
    .await;
}

pub(crate) async fn check_audiences(http: &reqwest::Client, url: &str, workload: &Workload) {
    let keys: Vec<String> = (0..CUSTOMERS).map(|c| format!("{c:06}")).collect();
    let answer: Value = post(http, format!("{url}/v1/lookups"))
        .json(&json!({ "keys": keys }))
        .send()
        .await
        .expect("answered")
        .json()
        .await
        .expect("json");
    for (name, _) in AUDIENCES {
        let got: BTreeSet<String> = keys
            .iter()
            .zip(answer["users"].as_array().expect("users"))
            .filter(|(_, user)| {
                user["audiences"].as_array().is_some_and(|a| a.contains(&json!(name)))
            })
            .map(|(key, _)| key.clone())
            .collect();
        assert_eq!(got, workload.members(name), "{name}");
    }
}

pub(crate) async fn check_platform(
    http: &reqwest::Client,
    url: &str,
    workload: &Workload,
    sim: &MetaSim,
) {
    let runs = get(http, format!("{url}/v1/runs")).await.expect("runs");
    for run in runs["runs"].as_array().expect("list") {
        let count = |field: &str| run[field].as_u64().expect(field);
        let sum = |field: &str| -> u64 {
            run[field].as_object().expect(field).values().filter_map(Value::as_u64).sum()
        };
        let ends = count("sent") + sum("skipped") + sum("rejected") + count("pending");
        assert_eq!(count("read"), ends, "{run}");
    }
    let syncs = get(http, format!("{url}/v1/syncs")).await.expect("syncs");
    let mut without_list = 0;
    for (name, _) in AUDIENCES {
        let sync = syncs["syncs"]
            .as_array()
            .and_then(|list| list.iter().find(|s| s["audience"] == *name))
            .expect("a sync");
        let Some(platform_id) = sync["platform_id"].as_str() else {
            assert!(workload.members(name).is_empty(), "{name} has no list on the platform");
            without_list += 1;
            continue;
        };
        let expected: BTreeSet<String> = workload
            .members(name)
            .iter()
            .map(|customer| {
                let email = format!("c{customer}@example.com");
                throng_model::HashedIdentifier::of_normalised(&email).to_hex()
            })
            .collect();
        let got: BTreeSet<String> =
            sim.members(platform_id).expect("the audience").into_iter().collect();
        assert_eq!(got, expected, "{name} on the platform");
    }
    let lists = AUDIENCES.len() - without_list;
    assert_eq!(sim.audience_count(), lists, "no audience was created twice");
}

/// Waits for the spend of all events: those that are accepted may be counted a moment later.
pub(crate) async fn wait_for_money(http: &reqwest::Client, url: &str, workload: &Workload) {
    wait_for("the spend of all events", async || {
        let (got, expected) = money(http, url, workload).await?;
        if got == expected { Ok(()) } else { Err(format!("{got:?} instead of {expected:?}")) }
    })
    .await;
}

type Spend = BTreeMap<String, i64>;

/// The spend by ad group, as the node shows it and as expected.
async fn money(
    http: &reqwest::Client,
    url: &str,
    workload: &Workload,
) -> Result<(Spend, Spend), String> {
    let answer = get(http, format!("{url}/v1/budgets")).await?;
    let mut got = BTreeMap::new();
    for state in answer["budgets"].as_array().expect("list") {
        let name = state["name"].as_str().expect("name").to_owned();
        got.insert(name, state["actual_micros"].as_i64().expect("micros"));
    }
    let expected: Spend = AD_GROUPS
        .iter()
        .map(|name| {
            let count = workload.impressions.get(*name).copied().unwrap_or(0);
            ((*name).to_owned(), PRICE * i64::try_from(count).expect("few"))
        })
        .collect();
    Ok((got, expected))
}
