//! Statements that want the whole machine, a stack without end, or all of its memory. The node
//! answers while they run, the processes that ran them are gone afterwards, and a restart is well.

use std::fmt::Write as _;

use super::{Running, Target, answers, built};
use crate::process::wait_for;

/// Twelve statements over `shop.orders`, each bad in its own way.
fn bad_statements() -> Vec<(&'static str, String)> {
    let orders = "shop.orders";
    let ors = (0..6_000).map(|n| format!("amount = {n}")).collect::<Vec<_>>().join(" OR ");
    let members = (0..50_000).map(|n| format!("'x{n}'")).collect::<Vec<_>>().join(", ");
    let nested = format!("{}customer{}", "(".repeat(3_000), ")".repeat(3_000));
    let mut subqueries = format!("SELECT customer FROM {orders}");
    for level in 0..200 {
        subqueries = format!("SELECT customer FROM ({subqueries}) AS t{level}");
    }
    let unions = vec![format!("SELECT customer FROM {orders}"); 2_000].join(" UNION ALL ");
    vec![
        (
            "cross-join",
            format!(
                "SELECT a.customer FROM {orders} a, {orders} b, {orders} c, {orders} d WHERE a.amount + b.amount + c.amount + d.amount = -1"
            ),
        ),
        ("many-ors", format!("SELECT customer FROM {orders} WHERE {ors}")),
        (
            "repeat",
            format!(
                "SELECT repeat(customer, 40000) AS customer FROM {orders} a CROSS JOIN (SELECT amount AS n FROM {orders}) b"
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
        ("long-list", format!("SELECT customer FROM {orders} WHERE customer IN ({members})")),
        ("parentheses", format!("SELECT {nested} AS customer FROM {orders}")),
        ("subqueries", subqueries),
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
        (
            "series",
            "SELECT CAST(value AS VARCHAR) AS customer FROM generate_series(1, 1000000000000)"
                .to_owned(),
        ),
    ]
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

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_takes_the_node_with_it() {
    let _turn = crate::process::HEAVY.lock().await;
    let target = Target::new();
    let mut audiences = String::new();
    for (name, sql) in bad_statements() {
        let _ = writeln!(audiences, "  - {{ name: {name}, sql: \"{sql}\" }}");
    }
    target.write_spec(&audiences);
    let node = target.start();
    healthy_while_they_run(&node).await;
    let before = answers(&node).await.expect("answers");
    let workers = query_workers(&node);
    node.kill();
    wait_for("the end of the query workers", async || {
        let left: Vec<u32> = workers.iter().copied().filter(|id| is_running(*id)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} run on")) }
    })
    .await;
    // The node that comes next meets the same statements.
    let node = target.start();
    healthy_while_they_run(&node).await;
    assert_eq!(answers(&node).await.expect("answers"), before);
    for (name, _) in bad_statements() {
        let audience = node.get(&format!("/v1/audiences/{name}")).await.expect("the audience");
        if audience["refresh"]["state"] == "processing" {
            let cancelled =
                node.post(&format!("/v1/audiences/{name}/cancel"), &serde_json::json!({})).await;
            cancelled.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    assert!(node.terminate(), "a clean end");
}

fn is_running(id: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{id}/stat")) {
        Ok(stat) => !stat.contains(") Z "),
        Err(_) => false,
    }
}

/// The good audiences are published and everything answers, whatever the bad ones do.
async fn healthy_while_they_run(node: &Running) {
    built(node).await;
    let audiences = node.get("/v1/audiences").await.expect("the audiences");
    let known = audiences["audiences"].as_array().map_or(0, Vec::len);
    assert_eq!(known, 2 + bad_statements().len());
    for _ in 0..50 {
        let health = node.get("/readyz").await.expect("ready");
        assert_eq!(health["ready"], true, "{health}");
        let decided = node
            .post(
                "/v1/decide",
                &serde_json::json!({ "user": "c0099", "ad_groups": ["shoes", "hats"] }),
            )
            .await
            .expect("a decision");
        assert_eq!(decided["allowed"], serde_json::json!(["shoes", "hats"]), "{decided}");
    }
}
