//! The README's first command, with its summary as a program reads it.

use serde_json::Value;

use crate::process::throng;

#[test]
fn the_demo_does_the_whole_job_and_says_so() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let output = throng()
        .args(["demo", "--once", "--json", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .output()
        .expect("throng starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");

    assert_eq!(summary["ok"], true);
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
