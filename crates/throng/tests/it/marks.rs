//! What fails shows no value of the data: not in the data directory, the log, the API or the pages.

use std::path::Path;

use serde_json::Value;

use crate::process::{NodeProcess, get, get_text, http, post, wait_for};

/// It stands in every file that is not read rightly, and nowhere else.
const MARK: &str = "zoemark";

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

/// Files that are right.
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

/// Files that are not.
fn bad() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.replace("MARK", MARK).into_bytes();
    let mut latin = text("id\nMARK");
    latin.extend([0xFC, b'\n']);
    vec![
        ("cast.csv", text("id,v\n1,MARK@example.com\n")),
        ("compared.csv", text("id,v\n1,2\n2,MARK@example.com\n")),
        ("fields.csv", text("id,v\n1,2\nMARK,2,3\n")),
        ("headless/2.csv", text("MARK,MARK@example.com\n")),
        ("other/2.csv", text("MARK1,MARK2\n1,2\n")),
        ("json.jsonl", text("{\"id\":1}\n{\"id\":MARK}\n")),
        ("utf.csv", latin),
        ("declared.csv", text("id,amount\n1,MARK\n")),
        ("retyped/2.csv", text("id,v\n3,MARK\n")),
    ]
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    std::fs::write(path, bytes).expect("written");
}

/// Every file below a folder that holds the mark.
fn marked(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("listed") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            marked(&path, found);
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(MARK.len()).any(|window| window.eq_ignore_ascii_case(MARK.as_bytes()))
        {
            found.push(path.display().to_string());
        }
    }
}

#[tokio::test]
async fn what_fails_shows_no_value() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (data, node_dir, log) =
        (dir.path().join("data"), dir.path().join("node"), dir.path().join("log"));
    GOOD.iter().for_each(|(name, text)| write(&data, name, text.as_bytes()));
    let mut spec = "version: 1\nsources:\n  - { name: s, path: data, columns: { amount: integer } }\naudiences:\n"
        .to_owned();
    for (name, sql) in QUERIES {
        let sql = sql.replace("CAST(v AS INTEGER) > 1", "TRY_CAST(v AS INTEGER) IS NULL");
        spec.push_str(&format!(
            "  - {{ name: {name}, sql: \"{sql}\", guard: {{ min_members: 0 }} }}\n"
        ));
    }
    let spec_file = dir.path().join("throng.yaml");
    std::fs::write(&spec_file, &spec).expect("written");
    let node = NodeProcess::start(&node_dir, &spec_file, &log);
    let http = http();
    let audiences = async |done: &dyn Fn(&Value) -> bool| {
        wait_for("the audiences", async || {
            let answer = get(&http, format!("{}/v1/audiences", node.url)).await?;
            let all = answer["audiences"].as_array().ok_or("no list")?;
            let left: Vec<&Value> = all.iter().filter(|audience| !done(audience)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    };
    audiences(&|audience| audience["current"].is_object()).await;
    bad().iter().for_each(|(name, bytes)| write(&data, name, bytes));
    for (name, _) in QUERIES {
        let url = format!("{}/v1/audiences/{name}/refresh", node.url);
        assert!(post(&http, url).send().await.expect("answered").status().is_success(), "{name}");
    }
    // The cast that is tried finds none, so that this one is published again.
    let ended = |audience: &Value| {
        let state = audience["refresh"]["state"].as_str();
        match audience["name"].as_str() {
            Some("cast") => state == Some("completed"),
            _ => state == Some("failed"),
        }
    };
    audiences(&ended).await;
    // A spec whose query fails over the data as it is.
    let failing = spec.replace("TRY_CAST(v AS INTEGER) IS NULL", "CAST(v AS INTEGER) > 1");
    let sent = serde_json::json!({ "base": dir.path(), "files": [{ "path": "throng.yaml", "text": failing }] });
    let mut said = Vec::new();
    let planned = post(&http, format!("{}/v1/spec/plan", node.url)).json(&sent).send().await;
    said.push(planned.expect("answered").text().await.expect("text"));
    assert!(said[0].contains("cannot be converted"), "{}", said[0]);
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
        let response =
            get_text(&http, format!("{}{path}", node.url)).send().await.expect("answered");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        said.push(response.text().await.expect("text"));
    }
    for (name, _) in QUERIES {
        let url = format!("{}/v1/audiences/{name}", node.url);
        said.push(get(&http, url).await.expect("the audience").to_string());
    }
    for text in &said {
        assert!(!text.to_lowercase().contains(MARK), "{text}");
    }
    // The causes are there, without their values.
    let all = said.join("\n");
    for words in
        ["fields.csv, line 3", "json.jsonl, line 2", "utf.csv, line 2", "declared.csv, line 2"]
    {
        assert!(all.contains(words), "{words}: {all}");
    }
    node.kill();
    let mut found = Vec::new();
    marked(&node_dir, &mut found);
    assert_eq!(found, [""; 0]);
    let log = std::fs::read_to_string(&log).expect("the log");
    assert!(!log.to_lowercase().contains(MARK), "{log}");
}
