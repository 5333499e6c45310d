//! Statements that use the whole machine, an unlimited stack, or all of its memory. Those that can be
//! recognized in advance are refused. The node answers while the others run, the processes that ran them end,
//! and the node can be restarted.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Running, Target, answers, built, scale};
use crate::process::{throng, wait_for};

/// The longest that a statement may run, in seconds: enough for a good one on a busy machine.
const QUERY_TIMEOUT_SECS: u64 = 20;

/// Statements over `shop.orders` that are refused before they run, each with a part of the error.
fn refused_statements() -> Vec<(&'static str, String, &'static str)> {
    let members = (0..50_000).map(|n| format!("'x{n}'")).collect::<Vec<_>>().join(", ");
    let nested = format!("{}customer{}", "(".repeat(3_000), ")".repeat(3_000));
    let mut subqueries = "SELECT customer FROM shop.orders".to_owned();
    for level in 0..200 {
        subqueries = format!("SELECT customer FROM ({subqueries}) AS t{level}");
    }
    let series = "SELECT CAST(value AS VARCHAR) AS customer FROM generate_series(1, 1000000000000)";
    vec![
        (
            "long-list",
            format!("SELECT customer FROM shop.orders WHERE customer IN ({members})"),
            "longer than 256 KiB",
        ),
        ("parentheses", format!("SELECT {nested} AS customer FROM shop.orders"), "3000 deep"),
        ("subqueries", subqueries, "nested too deeply"),
        ("series", series.to_owned(), "generate_series is named without its source"),
    ]
}

/// Statements over `shop.orders` that cannot be refused in advance.
fn bad_statements() -> Vec<(&'static str, String)> {
    let orders = "shop.orders";
    let ors = (0..6_000).map(|n| format!("amount = {n}")).collect::<Vec<_>>().join(" OR ");
    let unions = vec![format!("SELECT customer FROM {orders}"); 2_000].join(" UNION ALL ");
    let mut statements = vec![
        (
            "cross-join",
            format!(
                "SELECT a.customer FROM {orders} a, {orders} b, {orders} c, {orders} d WHERE a.amount + b.amount + c.amount + d.amount = -1"
            ),
        ),
        (
            "repeat-repeat",
            format!("SELECT repeat(repeat(customer, 40000), 40000) AS customer FROM {orders}"),
        ),
        (
            "endless-recursion",
            format!(
                "WITH RECURSIVE r AS (SELECT 1 AS n, customer FROM {orders} UNION ALL SELECT n + 1, customer FROM r) SELECT customer FROM r"
            ),
        ),
        ("many-ors", format!("SELECT customer FROM {orders} WHERE {ors}")),
        (
            "repeat",
            format!(
                "SELECT repeat(customer, 40000) AS customer FROM {orders} a CROSS JOIN (SELECT amount AS n FROM {orders}) b"
            ),
        ),
        ("unions", unions),
        (
            "sort-of-a-product",
            format!(
                "SELECT customer FROM (SELECT a.customer, row_number() OVER (ORDER BY a.customer || b.customer || c.customer) AS n FROM {orders} a, {orders} b, {orders} c) WHERE n = 1"
            ),
        ),
        (
            "distinct-product",
            format!(
                "SELECT DISTINCT a.customer || b.customer || c.customer || d.customer AS customer FROM {orders} a, {orders} b, {orders} c, {orders} d"
            ),
        ),
    ];
    statements.truncate(scale(4, statements.len()));
    statements
}

/// Processes of this node that run queries.
fn query_workers(node: &Running) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("listed").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Ok(command) = std::fs::read_to_string(entry.path().join("cmdline")) else { continue };
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
        if parent == Some(&node.process.id().to_string()) && command.contains("query-worker") {
            found.push(id);
        }
    }
    found
}

fn is_running(id: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{id}/stat")) {
        Ok(stat) => !stat.contains(") Z "),
        Err(_) => false,
    }
}

/// The most memory that a process has had, in KiB.
fn peak_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_ends_the_node() {
    let _turn = crate::process::HEAVY.lock().await;
    let target = Target::new();
    let mut audiences = String::new();
    for (name, sql) in bad_statements() {
        let _ = writeln!(audiences, "  - {{ name: {name}, sql: \"{sql}\" }}");
    }
    let with_settings = || {
        let spec = std::fs::read_to_string(target.spec()).expect("the spec");
        format!("{spec}node:\n  query_timeout_secs: {QUERY_TIMEOUT_SECS}\n")
    };
    let good = with_settings();
    target.write_spec(&audiences);
    std::fs::write(target.spec(), with_settings()).expect("written");

    let node = target.start();
    assert_refused_in_advance(&target, &good, &node);
    assert_answers_while_they_run(&node).await;
    let peak = peak_memory(node.process.id());
    assert!(peak < 1 << 20, "the node itself took {peak} KiB");
    let before = answers(&node).await.expect("answers");
    let workers = query_workers(&node);
    node.kill();
    wait_for("the end of the query workers", async || {
        let left: Vec<u32> = workers.iter().copied().filter(|id| is_running(*id)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} run on")) }
    })
    .await;

    // The next node runs the same statements.
    let node = target.start();
    built(&node).await;
    assert_eq!(answers(&node).await.expect("answers"), before);
    for (name, _) in bad_statements() {
        assert_answers(&node).await;
        assert_cancelled(&node, name).await;
    }
    wait_for("the end of the cancelled workers", async || {
        let busy = node.get("/v1/audiences").await?;
        let busy = busy["audiences"].as_array().into_iter().flatten();
        let busy = busy.filter(|a| a["refresh"]["state"] == "processing").count();
        if busy == 0 { Ok(()) } else { Err(format!("{busy} still run")) }
    })
    .await;
    assert!(node.terminate(), "a clean end");
}

/// Sends each statement that can be refused to the node, beside the good ones: a check would also plan the bad ones,
/// each time.
fn assert_refused_in_advance(target: &Target, good: &str, node: &Running) {
    let path = target.folder.path().join("refused.yaml");
    for (name, sql, words) in refused_statements() {
        let audience = format!("audiences:\n  - {{ name: {name}, sql: \"{sql}\" }}\n");
        std::fs::write(&path, good.replacen("audiences:\n", &audience, 1)).expect("written");
        let mut apply = throng();
        let output = apply.arg("apply").arg(&path).args(["--url", &node.url]).output();
        let output = output.expect("throng starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        assert!(stderr.contains(words), "{name}: {stderr}");
    }
}

/// The good audiences are published and everything answers, until each bad one has been tried.
async fn assert_answers_while_they_run(node: &Running) {
    built(node).await;
    wait_for("a try of each bad statement", async || {
        assert_answers(node).await;
        for (name, _) in bad_statements() {
            let audience = node.get(&format!("/v1/audiences/{name}")).await?;
            let refresh = &audience["refresh"];
            let tried = refresh["failures"].as_u64() > Some(0) || refresh["state"] == "completed";
            if !tried {
                return Err(format!("{name}: {refresh}"));
            }
            if let Some(reason) = refresh["reason"].as_str() {
                assert!(!reason.contains("c00"), "{name}: {reason}");
            }
        }
        Ok(())
    })
    .await;
}

/// Cancels the refresh of an audience, unless it has ended.
async fn assert_cancelled(node: &Running, name: &str) {
    let path = format!("/v1/audiences/{name}");
    let has_ended = async || {
        let state = node.get(&path).await?["refresh"]["state"].clone();
        // Any other state is open: `halted` until a builder continues what the killed node had begun.
        if state == "failed" || state == "completed" { Ok(()) } else { Err(state.to_string()) }
    };
    if has_ended().await.is_err() {
        match node.post(&format!("{path}/cancel"), &json!({})).await {
            Ok(cancelled) => assert_eq!(cancelled["refresh"]["state"], "failed", "{cancelled}"),
            // It has ended in between.
            Err(why) => assert!(why.contains("409"), "{name}: {why}"),
        }
    }
    has_ended().await.unwrap_or_else(|state| panic!("{name}: {state}"));
}

async fn assert_answers(node: &Running) {
    let health = node.get("/readyz").await.expect("ready");
    assert_eq!(health["ready"], true, "{health}");
    let question = json!({ "user": "c0099", "ad_groups": ["shoes", "hats"] });
    let decided = node.post("/v1/decide", &question).await.expect("a decision");
    assert_eq!(decided["allowed"], json!(["shoes", "hats"]), "{decided}");
    let audiences: Value = node.get("/v1/audiences").await.expect("the audiences");
    let known = audiences["audiences"].as_array().map_or(0, Vec::len);
    assert_eq!(known, 2 + bad_statements().len());
}
