//! Errors show no value of the data: not in the data directory, the log, the API or the pages.

use std::path::Path;

use reqwest::Client;
use serde_json::Value;

use crate::process::{NodeProcess, get, get_text, http, post, wait_for};

/// A value that is in every invalid file, and nowhere else.
const MARKER: &str = "zoemark";

/// A query over each table.
const QUERIES: [(&str, &str); 9] = [
    ("cast", "SELECT id FROM s.cast WHERE CAST(v AS INTEGER) > 1"),
    ("compared", "SELECT id FROM s.compared WHERE v > 1"),
    ("fields", "SELECT id FROM s.fields"),
    ("headless", "SELECT id FROM s.headless"),
    ("other", "SELECT id FROM s.other"),
    ("json", "SELECT id FROM s.json"),
    ("utf", "SELECT id FROM s.utf"),
    ("declared", "SELECT id FROM s.declared WHERE amount > 1"),
    ("retyped", "SELECT id FROM s.retyped WHERE v > 1"),
];

/// Valid files.
const GOOD: [(&str, &str); 9] = [
    ("cast.csv", "id,v\n1,x\n"),
    ("compared.csv", "id,v\n1,2\n"),
    ("fields.csv", "id,v\n1,2\n"),
    ("headless/1.csv", "id,v\n1,2\n"),
    ("other/1.csv", "id,v\n1,2\n"),
    ("json.jsonl", "{\"id\":1}\n"),
    ("utf.csv", "id\n1\n"),
    ("declared.csv", "id,amount\n1,2\n"),
    ("retyped/1.csv", "id,v\n1,2\n"),
];

/// Invalid files.
fn bad() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.replace("MARKER", MARKER).into_bytes();
    let mut latin = text("id\nMARKER");
    latin.extend([0xFC, b'\n']);
    vec![
        ("cast.csv", text("id,v\n1,MARKER@example.com\n")),
        ("compared.csv", text("id,v\n1,2\n2,MARKER@example.com\n")),
        ("fields.csv", text("id,v\n1,2\nMARKER,2,3\n")),
        ("headless/2.csv", text("MARKER,MARKER@example.com\n")),
        ("other/2.csv", text("MARKER1,MARKER2\n1,2\n")),
        ("json.jsonl", text("{\"id\":1}\n{\"id\":MARKER}\n")),
        ("utf.csv", latin),
        ("declared.csv", text("id,amount\n1,MARKER\n")),
        ("retyped/2.csv", text("id,v\n3,MARKER\n")),
    ]
}

/// Writes a file beside the folder and moves it there, so that the node never reads a part of it.
fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    let aside = folder.with_extension("new");
    std::fs::write(&aside, bytes).expect("written");
    std::fs::rename(aside, path).expect("moved");
}

/// Adds every file below a folder that contains the marker.
fn files_with_marker(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("listed") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files_with_marker(&path, found);
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes
                .windows(MARKER.len())
                .any(|window| window.eq_ignore_ascii_case(MARKER.as_bytes()))
        {
            found.push(path.display().to_string());
        }
    }
}

/// A spec with an audience for each query, which can be built from the valid files.
fn spec() -> String {
    let mut spec = "version: 1\nsources:\n  - { name: s, path: data, columns: { amount: integer } }\naudiences:\n"
        .to_owned();
    for (name, sql) in QUERIES {
        let sql = sql.replace("CAST(v AS INTEGER) > 1", "TRY_CAST(v AS INTEGER) IS NULL");
        spec.push_str(&format!(
            "  - {{ name: {name}, sql: \"{sql}\", guard: {{ min_members: 0 }} }}\n"
        ));
    }
    spec
}

async fn wait_for_audiences(http: &Client, node_url: &str, done: impl Fn(&Value) -> bool) {
    wait_for("the audiences", async || {
        let answer = get(http, format!("{node_url}/v1/audiences")).await?;
        let all = answer["audiences"].as_array().ok_or("no list")?;
        let left: Vec<&Value> = all.iter().filter(|audience| !done(audience)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// Everything that the API and the pages say about the refreshes.
async fn answers_about_errors(http: &Client, node_url: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for path in [
        "/v1/sources",
        "/v1/audiences",
        "/v1/alerts",
        "/v1/why/audience/compared",
        "/metrics",
        "/v1/node/health",
        "/",
        "/sources",
        "/audiences",
        "/audiences/compared",
        "/alerts",
    ] {
        let response = get_text(http, format!("{node_url}{path}")).send().await.expect("answered");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        answers.push(response.text().await.expect("text"));
    }
    for (name, _) in QUERIES {
        let url = format!("{node_url}/v1/audiences/{name}");
        answers.push(get(http, url).await.expect("the audience").to_string());
    }
    answers
}

#[tokio::test]
async fn errors_show_no_value_of_the_data() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (data, node_dir, log) =
        (dir.path().join("data"), dir.path().join("node"), dir.path().join("log"));
    GOOD.iter().for_each(|(name, text)| write(&data, name, text.as_bytes()));
    let spec = spec();
    let spec_file = dir.path().join("throng.yaml");
    std::fs::write(&spec_file, &spec).expect("written");
    let node = NodeProcess::start(&node_dir, &spec_file, &log);
    let http = http();
    wait_for_audiences(&http, &node.url, |audience| audience["current"].is_object()).await;
    bad().iter().for_each(|(name, bytes)| write(&data, name, bytes));
    for (name, _) in QUERIES {
        let url = format!("{}/v1/audiences/{name}/refresh", node.url);
        assert!(post(&http, url).send().await.expect("answered").status().is_success(), "{name}");
    }
    // TRY_CAST does not fail, so this audience is published again.
    let ended = |audience: &Value| {
        let state = audience["refresh"]["state"].as_str();
        match audience["name"].as_str() {
            Some("cast") => state == Some("completed"),
            _ => state == Some("failed"),
        }
    };
    wait_for_audiences(&http, &node.url, ended).await;
    // A spec whose query fails over these files.
    let failing = spec.replace("TRY_CAST(v AS INTEGER) IS NULL", "CAST(v AS INTEGER) > 1");
    let sent = serde_json::json!({ "base": dir.path(), "files": [{ "path": "throng.yaml", "text": failing }] });
    let planned = post(&http, format!("{}/v1/spec/plan", node.url)).json(&sent).send().await;
    let planned = planned.expect("answered").text().await.expect("text");
    assert!(planned.contains("cannot be converted"), "{planned}");
    let mut answers = vec![planned];
    answers.extend(answers_about_errors(&http, &node.url).await);
    for text in &answers {
        assert!(!text.to_lowercase().contains(MARKER), "{text}");
    }
    // The causes are shown, without the values.
    let all = answers.join("\n");
    for words in
        ["fields.csv, line 3", "json.jsonl, line 2", "utf.csv, line 2", "declared.csv, line 2"]
    {
        assert!(all.contains(words), "{words}: {all}");
    }
    node.kill();
    let mut found = Vec::new();
    files_with_marker(&node_dir, &mut found);
    assert_eq!(found, [""; 0]);
    let log = std::fs::read_to_string(&log).expect("the log");
    assert!(!log.to_lowercase().contains(MARKER), "{log}");
}
