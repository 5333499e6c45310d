//! The summary of the demo: of one process with its page in `browser`, and of the processes of `--on` here.

use serde_json::Value;

use crate::process::{HEAVY, TIMED, throng};

/// Thirteen processes on real engines: the same audiences, and the same members on the platform.
#[test]
fn the_demo_has_the_same_results_on_shared_engines() {
    let (_timed, _turn) = (TIMED.blocking_lock(), HEAVY.blocking_lock());
    let dir = tempfile::tempdir().expect("temporary folder");
    // Half of the default speed, so that thirteen processes on a small machine have fewer frames in a second. The
    // demo's clock waits for them where that is too fast still.
    let output = throng()
        .args(["demo", "--once", "--json", "--listen", "127.0.0.1:0"])
        .args(["--on", "kafka,postgres,s3", "--speed", "20", "--data-dir"])
        .arg(dir.path())
        .output()
        .expect("throng starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n{}", String::from_utf8_lossy(&output.stdout));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    check(&summary);
    let figures = |list: &str, fields: &[&str]| -> Vec<String> {
        let all = summary[list].as_array().expect(list);
        let line = |one: &Value| fields.iter().map(|f| format!("{} ", one[f])).collect::<String>();
        all.iter().map(line).collect()
    };
    assert_eq!(
        figures("audiences", &["name", "members"]),
        [
            "\"big-baskets\" 3769 ",
            "\"bought-last-90-days\" 3301 ",
            "\"bought-once-never-again\" 11908 ",
            "\"came-back-after-a-year\" 3317 ",
            "\"every-customer\" 23570 ",
            "\"high-average-order\" 2038 ",
            "\"lapsed-six-months\" 18189 ",
            "\"loyal\" 2166 ",
            "\"three-or-more-purchases\" 7583 ",
            "\"top-10-percent-by-spend\" 2357 ",
            "\"valuable-and-lapsed\" 824 ",
        ]
    );
    assert_eq!(
        figures("syncs", &["sync", "sent", "skipped", "on_platform"]),
        [
            "\"everyone-us\" 23570 0 23570 ",
            "\"lapsed-outlet\" 15618 2571 15618 ",
            "\"one-time-buyers-outlet\" 11908 0 11908 ",
            "\"recent-buyers-us\" 3301 0 3301 ",
            "\"top-spenders-us\" 2357 0 2357 ",
            "\"win-back-us\" 824 0 824 ",
        ]
    );
}

/// What every demo reports.
pub(crate) fn check(summary: &Value) {
    assert_eq!(summary["ok"], true, "{}", summary["failures"]);
    assert_eq!(summary["audiences"].as_array().map(Vec::len), Some(11));
    let customers = summary["audiences"]
        .as_array()
        .and_then(|list| list.iter().find(|a| a["name"] == "every-customer"))
        .expect("every-customer");
    assert_eq!(customers["members"], 23_570);
    assert_eq!(customers["rows_read"], 69_659);
    assert_eq!(summary["lookups"]["wrong"], 0);
    assert_eq!(summary["lookups"]["checked"], 23_571);
    for sync in summary["syncs"].as_array().expect("syncs") {
        let count = |field: &str| sync[field].as_u64().expect(field);
        let ends = count("sent") + count("skipped") + count("rejected") + count("pending");
        assert_eq!(count("read"), ends, "{sync}");
        assert!(count("sent") > 0, "{sync}");
    }
    let decisions = &summary["decisions"];
    assert_eq!(decisions["requests"], 20_000);
    assert_eq!(
        decisions["allowed"].as_u64().zip(decisions["refused"].as_u64()).map(|(a, r)| a + r),
        Some(20_000)
    );
    assert_eq!(summary["budgets"].as_array().map(Vec::len), Some(114));
    let with = summary["overdelivery"]["with_prediction"].as_f64().expect("a share");
    let without = summary["overdelivery"]["without_prediction"].as_f64().expect("a share");
    assert!(with < without / 2.0, "{with} against {without}");
    assert_eq!(summary["plain_identifiers_found"], 0);
}
