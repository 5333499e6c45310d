//! Templates over HTTP: rows become audiences, appear by schedule, are held when they vanish, and survive a restart
//! without their query.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use throng_model::ManualClock;
use throng_server::Node;
use throng_store::{AlertKind, Refresh, RefreshState};

use crate::{Client, noon, sent_file, until};

const SPEC: &str = r#"version: 1
sources:
  - { name: shop, path: data }
audiences:
  - name: "{slug}-buyers"
    description: "Buyers in {region}"
    for_each: SELECT slug, region FROM shop.regions
    schedule: { cron: "0 * * * *" }
    sql: SELECT customer FROM shop.orders WHERE region = $region
"#;

fn write(path: &Path, text: &str) {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(temporary, path).unwrap();
}

fn regions(dir: &Path, rows: &[&str]) {
    let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
    write(&dir.join("data/regions.csv"), &format!("slug,region\n{rows}"));
}

async fn members(client: &Client, name: &str) -> Option<u64> {
    let response = client.request("GET", &format!("/v1/audiences/{name}")).send().await.unwrap();
    if response.status() != 200 {
        return None;
    }
    response.json::<Value>().await.unwrap()["current"]["members"].as_u64()
}

async fn built(client: &Client, expected: &[(&str, u64)]) {
    for (name, count) in expected {
        let what = format!("{name} has {count} members");
        until(&what, async || members(client, name).await == Some(*count)).await;
    }
}

/// The audiences of the applied spec, and whether each is held.
async fn applied(client: &Client) -> Vec<(String, bool)> {
    let spec = client.get("/v1/spec").await;
    let audiences = spec["spec"]["audiences"].as_array().unwrap().iter();
    let audience = |audience: &Value| {
        let name = audience["name"].as_str().unwrap().to_owned();
        (name, audience["made_from"]["held"] == json!(true))
    };
    audiences.map(audience).collect()
}

fn names(names: &[(&str, bool)]) -> Vec<(String, bool)> {
    names.iter().map(|(name, held)| ((*name).to_owned(), *held)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_become_audiences_and_are_held_when_they_vanish() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("data")).unwrap();
    let file = dir.join("throng.yaml");
    std::fs::write(&file, SPEC).unwrap();
    let odd = "odd,O'Brien; DROP TABLE orders --";
    regions(dir, &["emea,EMEA", odd]);
    let orders: String = (0..30)
        .map(|n| {
            let region = ["EMEA", "EMEA", "O'Brien; DROP TABLE orders --", "LATAM"][n % 4];
            format!("c{n},{region}\n")
        })
        .collect();
    write(&dir.join("data/orders.csv"), &format!("customer,region\n{orders}"));

    let clock = noon();
    let start = async || -> Node {
        let spec = throng_spec::load(&file).unwrap();
        crate::start(&dir.join("node"), spec, &clock).await.unwrap()
    };
    let node = start().await;
    let client = Client::of(&node);
    built(&client, &[("emea-buyers", 16), ("odd-buyers", 7)]).await;
    let spec = client.get("/v1/spec").await;
    assert!(spec.to_string().contains("Buyers in O'Brien; DROP TABLE orders --"), "{spec}");

    // A row appears: the plan shows it, and the schedule applies it.
    regions(dir, &["emea,EMEA", odd, "latam,LATAM"]);
    let (status, planned) = client.post("/v1/spec/plan", &sent_file(&file)).await;
    assert_eq!(status, 200, "{planned}");
    let changes = planned["plan"]["changes"].as_array().unwrap();
    let changed: Vec<&str> = changes.iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(changed, ["latam-buyers"], "{planned}");
    assert_eq!(changes[0]["template"], "{slug}-buyers");
    let one_scan = json!([{ "name": "{slug}-buyers", "audiences": 3, "one_scan": true }]);
    assert_eq!(planned["templates"], one_scan);
    clock.advance(Duration::from_secs(3_700));
    built(&client, &[("latam-buyers", 7)]).await;

    // Rows vanish: the plan says what is held, and the audiences stay.
    regions(dir, &["latam,LATAM"]);
    let (_, planned) = client.post("/v1/spec/plan", &sent_file(&file)).await;
    let warning = planned["plan"]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("`emea-buyers`, `odd-buyers`"), "{planned}");
    clock.advance(Duration::from_secs(3_600));
    let held = names(&[("emea-buyers", true), ("latam-buyers", false), ("odd-buyers", true)]);
    until("the vanished rows are held", async || applied(&client).await == held).await;
    assert_eq!(members(&client, "emea-buyers").await, Some(16));

    // A restart needs no rows.
    node.shutdown().await;
    std::fs::remove_file(dir.join("data/regions.csv")).unwrap();
    let node = start().await;
    let client = Client::of(&node);
    assert_eq!(applied(&client).await, held);
    // Nor does a plan: the template is applied in this form. It says where the query is.
    let (status, planned) = client.post("/v1/spec/plan", &sent_file(&file)).await;
    assert_eq!(status, 200, "{planned}");
    assert_eq!(planned["plan"]["changes"], json!([]), "{planned}");
    let warning = planned["plan"]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("keeps the objects that it has"), "{warning}");
    assert!(warning.contains("shop.regions") && warning.ends_with("throng.yaml:7)"), "{warning}");
    // A template that is changed is refused.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("{slug}-buyers", "{slug}-customers")).unwrap();
    let (status, refused) = client.post("/v1/spec/plan", &sent_file(&file)).await;
    assert_eq!(status, 400, "{refused}");
    let problem = &refused["error"]["problems"][0];
    assert_eq!(problem["line"], json!(7), "{problem}");
    assert!(problem["message"].as_str().unwrap().contains("shop.regions"), "{problem}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_audiences_of_a_template_have_the_members_of_their_rows() {
    const COUNT: u64 = 120;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("data")).unwrap();
    let file = dir.join("throng.yaml");
    std::fs::write(&file, SPEC).unwrap();
    let rows: Vec<String> = (0..COUNT).map(|n| format!("r{n},R{n}")).collect();
    regions(dir, &rows.iter().map(String::as_str).collect::<Vec<_>>());
    // The region of number n has the users 0 to n.
    let orders: String =
        (0..COUNT).flat_map(|n| (0..=n).map(move |user| format!("c{user},R{n}\n"))).collect();
    write(&dir.join("data/orders.csv"), &format!("customer,region\n{orders}"));
    let clock = noon();
    let spec = throng_spec::load(&file).unwrap();
    let node = crate::start(&dir.join("node"), spec, &clock).await.unwrap();
    let client = Client::of(&node);
    let names: Vec<(String, u64)> = (0..COUNT).map(|n| (format!("r{n}-buyers"), n + 1)).collect();
    let expected: Vec<(&str, u64)> =
        names.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    built(&client, &expected).await;
    let last = format!("c{}", COUNT - 1);
    until("the last user is served", async || {
        let found = client.get(&format!("/v1/users/{last}/audiences")).await;
        found["audiences"] == json!([format!("r{}-buyers", COUNT - 1)])
    })
    .await;
    let one = client.get("/v1/audiences/r9-buyers").await;
    assert_eq!(one["current"]["rows_read"], json!(10), "{one}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_fails_keeps_no_other_template_from_its_rows() {
    const TIERS: &str = r#"  - name: "{tier}-tier"
    for_each: SELECT tier FROM shop.tiers
    schedule: { cron: "0 * * * *" }
    sql: SELECT customer FROM shop.orders WHERE region = $tier
"#;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("data")).unwrap();
    let file = dir.join("throng.yaml");
    std::fs::write(&file, format!("{SPEC}{TIERS}")).unwrap();
    regions(dir, &["emea,EMEA"]);
    write(&dir.join("data/tiers.csv"), "tier,title\ngold,Gold\n");
    write(&dir.join("data/orders.csv"), "customer,region\nu1,EMEA\nu2,LATAM\nu3,gold\n");
    let clock = noon();
    let spec = throng_spec::load(&file).unwrap();
    let node = crate::start(&dir.join("node"), spec, &clock).await.unwrap();
    let client = Client::of(&node);
    built(&client, &[("emea-buyers", 1), ("gold-tier", 1)]).await;

    std::fs::remove_file(dir.join("data/tiers.csv")).unwrap();
    regions(dir, &["emea,EMEA", "latam,LATAM"]);
    clock.advance(Duration::from_secs(3_700));
    built(&client, &[("latam-buyers", 1)]).await;
    // The audiences of the template whose query failed are as they were.
    let expected = names(&[("emea-buyers", false), ("latam-buyers", false), ("gold-tier", false)]);
    assert_eq!(applied(&client).await, expected);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_cannot_be_built_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("data")).unwrap();
    let file = dir.join("throng.yaml");
    std::fs::write(&file, SPEC).unwrap();
    regions(dir, &["a,A"]);
    write(&dir.join("data/orders.csv"), "customer,region\nu1,A\nu2,A\n");
    let clock = noon();
    let spec = throng_spec::load(&file).unwrap();
    let node = crate::start(&dir.join("node"), spec, &clock).await.unwrap();
    let client = Client::of(&node);
    built(&client, &[("a-buyers", 2)]).await;

    // The key has another type than in the version that `a` serves. The others have served nothing.
    write(&dir.join("data/orders.csv"), "customer,region\n1,A\n2,B\n3,B\n4,C\n");
    regions(dir, &["a,A", "b,B", "c,C"]);
    clock.advance(Duration::from_secs(3_700));
    built(&client, &[("b-buyers", 2), ("c-buyers", 1)]).await;
    until("the refresh of `a` has failed", async || {
        let refresh = newest_refresh(&node, "a-buyers").await;
        refresh.failures > 0 && refresh.reason.is_some_and(|why| why.contains("customer"))
    })
    .await;
    assert_eq!(members(&client, "a-buyers").await, Some(2));
    node.shutdown().await;
}

const THREE: [&str; 3] = ["a-buyers", "b-buyers", "c-buyers"];

async fn newest_refresh(node: &Node, name: &str) -> Refresh {
    let name = name.parse().unwrap();
    node.context().ledger.refreshes(Some(&name), 1).await.unwrap().remove(0)
}

/// Waits until the newest refreshes have ended, and until their versions are loaded for lookups: one that is not is
/// made again. Returns whether each was unchanged, and its version.
async fn ended(node: &Node, client: &Client) -> Vec<(bool, Option<u64>)> {
    let mut ended = Vec::new();
    for name in THREE {
        until("the refresh has ended", async || {
            newest_refresh(node, name).await.finished_at.is_some()
        })
        .await;
        let refresh = newest_refresh(node, name).await;
        ended.push((refresh.unchanged, refresh.snapshot_version));
    }
    until("the versions are served", async || {
        let health = client.get("/v1/node/health").await;
        let mut versions = THREE.iter().zip(&ended);
        versions.all(|(name, (_, version))| health["snapshots"][*name] == json!(version))
    })
    .await;
    ended
}

/// Lets the schedule fire, which queues the refreshes of all audiences together, and waits for this version of some.
async fn fire(node: &Node, clock: &ManualClock, names: &[&str], version: u64) {
    clock.advance(Duration::from_secs(3_600));
    for name in names {
        until("the version is made", async || {
            newest_refresh(node, name).await.snapshot_version == Some(version)
        })
        .await;
    }
}

async fn refresh(client: &Client, name: &str, query: &str) {
    let path = format!("/v1/audiences/{name}/refresh{query}");
    let (status, answer) = client.post(&path, &json!({})).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_audiences_of_a_template_are_completed_without_a_scan() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("data")).unwrap();
    let file = dir.join("throng.yaml");
    std::fs::write(&file, SPEC).unwrap();
    regions(dir, &["a,A", "b,B", "c,C"]);
    write(&dir.join("data/orders.csv"), "customer,region\nu1,A\nu2,A\nu1,B\nu3,C\n");
    let spec = throng_spec::load(&file).unwrap();
    let node = crate::start(&dir.join("node"), spec, &noon()).await.unwrap();
    let client = Client::of(&node);
    built(&client, &[("a-buyers", 2), ("b-buyers", 1), ("c-buyers", 1)]).await;
    assert_eq!(ended(&node, &client).await, [(false, Some(1)); 3]);

    for name in THREE {
        refresh(&client, name, "").await;
    }
    assert_eq!(ended(&node, &client).await, [(true, Some(1)); 3]);

    // One is forced, with two that are not.
    for (name, query) in THREE.iter().zip(["", "?force=true", ""]) {
        refresh(&client, name, query).await;
    }
    let expected = [(true, Some(1)), (false, Some(2)), (true, Some(1))];
    assert_eq!(ended(&node, &client).await, expected);

    // A change of the files is found, and what it makes is unchanged again.
    write(&dir.join("data/orders.csv"), "customer,region\nu1,A\nu2,A\nu1,B\nu3,C\nu4,B\n");
    for name in THREE {
        refresh(&client, name, "").await;
    }
    let expected = [(false, Some(2)), (false, Some(3)), (false, Some(2))];
    assert_eq!(ended(&node, &client).await, expected);
    assert_eq!(members(&client, "b-buyers").await, Some(2));
    for name in THREE {
        refresh(&client, name, "").await;
    }
    let expected = [(true, Some(2)), (true, Some(3)), (true, Some(2))];
    assert_eq!(ended(&node, &client).await, expected);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audiences_of_one_scan_are_held_published_and_retained_each_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("data")).unwrap();
    let file = dir.join("throng.yaml");
    let text = SPEC.replace("    schedule:", "    keep_snapshots: 2\n    schedule:");
    std::fs::write(&file, text).unwrap();
    regions(dir, &["a,A", "b,B", "c,C"]);
    let orders = |counts: [usize; 3]| {
        let of_region = |(region, count): (&str, usize)| -> String {
            (0..count).map(|n| format!("u{n},{region}\n")).collect()
        };
        let rows: String = ["A", "B", "C"].into_iter().zip(counts).map(of_region).collect();
        write(&dir.join("data/orders.csv"), &format!("customer,region\n{rows}"));
    };
    orders([4; 3]);
    let spec = throng_spec::load(&file).unwrap();
    let clock = noon();
    let node = crate::start(&dir.join("node"), spec, &clock).await.unwrap();
    let client = Client::of(&node);
    built(&client, &THREE.map(|name| (name, 4))).await;
    assert_eq!(ended(&node, &client).await, [(false, Some(1)); 3]);
    for version in 2..=3 {
        orders([version as usize + 3; 3]);
        fire(&node, &clock, &THREE, version).await;
        assert_eq!(ended(&node, &client).await, [(false, Some(version)); 3]);
    }
    let ledger = &node.context().ledger;
    for name in THREE {
        let audience = name.parse().unwrap();
        until("the oldest version is deleted, with its file", async || {
            let kept = ledger.snapshots(&audience).await.unwrap();
            let versions: Vec<u64> = kept.iter().map(|snapshot| snapshot.version).collect();
            let files = dir.join(format!("node/objects/snapshots/{name}"));
            versions == [3, 2] && std::fs::read_dir(files).unwrap().count() == 2
        })
        .await;
    }

    // One of them loses most of its members.
    orders([1, 7, 7]);
    fire(&node, &clock, &THREE[1..], 4).await;
    built(&client, &[("b-buyers", 7), ("c-buyers", 7)]).await;
    until("the version of `a` is held", async || {
        newest_refresh(&node, "a-buyers").await.state == RefreshState::Held
    })
    .await;
    let held = AlertKind::SnapshotHeld;
    until("its alert is raised", async || {
        ledger.open_alert(held, "a-buyers").await.unwrap().is_some()
    })
    .await;
    assert_eq!(ledger.open_alert(held, "b-buyers").await.unwrap(), None);
    assert_eq!(members(&client, "a-buyers").await, Some(6));
    let why = newest_refresh(&node, "a-buyers").await.reason.unwrap();
    assert!(why.contains("1 member after 6"), "{why}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_cannot_be_published_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("data")).unwrap();
    let file = dir.join("throng.yaml");
    std::fs::write(&file, SPEC).unwrap();
    regions(dir, &["a,A", "b,B", "c,C"]);
    write(&dir.join("data/orders.csv"), "customer,region\nu1,A\nu1,B\nu1,C\n");
    let spec = throng_spec::load(&file).unwrap();
    let clock = noon();
    let node = crate::start(&dir.join("node"), spec, &clock).await.unwrap();
    let client = Client::of(&node);
    built(&client, &THREE.map(|name| (name, 1))).await;
    assert_eq!(ended(&node, &client).await, [(false, Some(1)); 3]);

    // A file is in the place of the folder of one audience.
    let folder = |name: &str| dir.join("node/objects/snapshots").join(name);
    std::fs::rename(folder("b-buyers"), dir.join("b-buyers")).unwrap();
    std::fs::write(folder("b-buyers"), "").unwrap();
    write(&dir.join("data/orders.csv"), "customer,region\nu1,A\nu1,B\nu1,C\nu2,A\nu2,B\nu2,C\n");
    fire(&node, &clock, &["a-buyers", "c-buyers"], 2).await;
    built(&client, &[("a-buyers", 2), ("c-buyers", 2)]).await;
    until("the refresh of `b` has failed", async || {
        newest_refresh(&node, "b-buyers").await.failures > 0
    })
    .await;
    assert_eq!(members(&client, "b-buyers").await, Some(1));
    for name in ["a-buyers", "c-buyers"] {
        let files = std::fs::read_dir(folder(name)).unwrap().count();
        assert_eq!(files, 2, "one for each version of {name}");
    }
    node.shutdown().await;
}
