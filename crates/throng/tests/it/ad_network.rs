//! `examples/ad-network`: the spec is served by a node, and its ad groups keep their budgets with 1,000 gates.

use std::path::PathBuf;

use serde_json::Value;
use throng_model::Micros;

use crate::process::{NodeProcess, get, http, output};

fn example() -> PathBuf {
    crate::example().with_file_name("ad-network")
}

/// What `throng sim network` prints, of this many hours.
fn simulated(hours: &str) -> Value {
    let spec = example();
    let spec = spec.to_str().expect("UTF-8");
    let arguments =
        ["sim", "network", "--json", "--spec", spec, "--gates", "1000", "--hours", hours];
    let run = output(&arguments);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).expect("JSON")
}

fn micros(of: &Value, name: &str) -> i64 {
    of[name].as_i64().unwrap_or_else(|| panic!("no {name} in {of}"))
}

#[test]
fn a_thousand_gates_keep_budgets_with_prices_of_single_events() {
    let hours = 6;
    let report = simulated("6");
    assert_eq!(report["gates"], 1_000);
    assert!(report["slowest_feed_ms"].as_u64().expect("a number") < 10_000, "{report}");
    let ad_groups = report["ad_groups"].as_array().expect("a list");
    assert_eq!(ad_groups.len(), 8);
    let (mut budgets, mut given_away, mut unknown) = (0, 0, 0);
    for ad_group in ad_groups {
        let budget = micros(ad_group, "budget_micros");
        let actual = micros(ad_group, "actual_micros");
        let over = micros(ad_group, "given_away_micros");
        (budgets, given_away) = (budgets + budget, given_away + over);
        assert_eq!(over, (actual - budget).max(0), "{ad_group}");
        let causes = ad_group["given_away_by_cause"].as_object().expect("causes");
        let sum: i64 = causes.values().map(|amount| amount.as_i64().expect("a number")).sum();
        assert_eq!(sum, over, "{ad_group}");
        unknown += causes["unknown_micros"].as_i64().expect("a number");
        // A click of e-bikes costs up to 3 % of the budget.
        assert!(over <= budget / 16, "{ad_group}");
        let name = ad_group["name"].as_str().expect("a name");
        let share = actual as f64 / budget as f64;
        if ["seeds", "helmets", "pilot"].contains(&name) {
            // Spread over the day: a quarter of it has passed.
            let planned = f64::from(hours) / 24.0;
            assert!((planned * 0.7..planned * 1.3).contains(&share), "{ad_group}");
        } else {
            assert!(share >= 0.93, "{ad_group}");
        }
    }
    assert!(given_away * 50 <= budgets, "{} given away", Micros(given_away));
    assert!(unknown * 2 <= given_away, "{} of unknown cause", Micros(unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_serves_the_example() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let root = dir.path();
    let node = NodeProcess::start(&root.join("node"), &example(), &root.join("log"));
    let catalog = get(&http(), format!("{}/v1/catalog", node.url)).await.expect("a catalog");
    let names: Vec<&str> = catalog["ad_groups"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|ad_group| ad_group["name"].as_str())
        .collect();
    assert_eq!(names.len(), 8, "{names:?}");
    assert!(node.terminate());
}
