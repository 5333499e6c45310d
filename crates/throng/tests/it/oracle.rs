//! Every audience of the example equals the same SQL in another engine, exactly, as a set.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use throng_model::{HashSeed, UserKey};

use crate::process::{NodeProcess, get, http, post, wait_for};

const SCRIPT: &str = r"
import duckdb, json, pathlib, sys
folder, models = pathlib.Path(sys.argv[1]), json.load(sys.stdin)
db = duckdb.connect()
db.execute('CREATE SCHEMA shop')
for file in folder.glob('*.csv'):
    # The customer number keeps its leading zeros.
    db.execute(f'''CREATE VIEW shop.{file.stem} AS SELECT * FROM read_csv('{file}', header = true,
        types = {{'customer_id': 'VARCHAR'}})''' if 'cdnow' in file.stem else
        f'''CREATE VIEW shop.{file.stem} AS SELECT * FROM read_csv('{file}', header = true)''')
answer = {name: sorted({row[0] for row in db.execute(sql).fetchall() if row[0] is not None})
          for name, sql in models.items()}
json.dump(answer, sys.stdout)
";

/// The members of each model by another SQL engine: runs a Python script that gets the folder as its
/// argument and the models on its standard input.
pub(crate) fn members_of_models(
    python: &std::path::Path,
    script: &str,
    folder: &std::path::Path,
    models: &BTreeMap<String, String>,
) -> BTreeMap<String, BTreeSet<String>> {
    use std::io::Write;
    let mut child = Command::new(python)
        .args(["-c", script])
        .arg(folder)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(serde_json::to_string(models).expect("json").as_bytes()).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "the script failed");
    serde_json::from_slice(&output.stdout).expect("the script's answer")
}

#[tokio::test]
async fn audiences_equal_the_same_sql_in_duckdb() {
    let Some(python) = crate::provided("THRONG_ORACLE_PYTHON", "Python with DuckDB") else {
        return;
    };
    let spec = throng_spec::load(&crate::example()).expect("the example is right");
    let models: BTreeMap<String, String> =
        spec.audiences.iter().map(|a| (a.name.to_string(), a.sql.clone())).collect();
    let expected = members_of_models(&python, SCRIPT, &crate::example().join("data"), &models);

    let dir = tempfile::tempdir().expect("temporary folder");
    let node =
        NodeProcess::start(&dir.path().join("data"), &crate::example(), &dir.path().join("log"));
    expect_equal_sets(&http(), &node, &expected).await;
}

/// Asserts that every audience has exactly these members.
pub(crate) async fn expect_equal_sets(
    http: &reqwest::Client,
    node: &NodeProcess,
    expected: &BTreeMap<String, BTreeSet<String>>,
) {
    // A snapshot is served shortly after it is published.
    wait_for("every audience", async || {
        let answer = get(http, format!("{}/v1/node/health", node.url)).await?;
        let served = answer["snapshots"].as_object().ok_or("no snapshots")?.len();
        if served == expected.len() { Ok(()) } else { Err(format!("{served} served: {answer}")) }
    })
    .await;

    // Every key that any audience could hold, and one that none does.
    let mut keys: BTreeSet<String> = expected.values().flatten().cloned().collect();
    keys.insert("no-such-customer".to_owned());
    let keys: Vec<String> = keys.into_iter().collect();
    let mut got: BTreeMap<String, BTreeSet<String>> =
        expected.keys().map(|name| (name.clone(), BTreeSet::new())).collect();
    for chunk in keys.chunks(1_000) {
        let answer: serde_json::Value = post(http, format!("{}/v1/lookups", node.url))
            .json(&serde_json::json!({ "keys": chunk }))
            .send()
            .await
            .expect("answered")
            .json()
            .await
            .expect("json");
        for (key, user) in chunk.iter().zip(answer["users"].as_array().expect("users")) {
            for audience in user["audiences"].as_array().expect("audiences") {
                let name = audience.as_str().expect("a name");
                got.get_mut(name).expect("a declared audience").insert(key.clone());
            }
        }
    }
    for (name, members) in expected {
        assert!(!members.is_empty(), "{name} is empty, so it proves nothing");
        let difference: Vec<_> = members.symmetric_difference(&got[name]).take(5).collect();
        assert!(difference.is_empty(), "{name} differs, for example {difference:?}");
    }
    // The sets above are equal among known keys; equal sizes exclude members beyond them.
    let answer = get(http, format!("{}/v1/audiences", node.url)).await.expect("audiences");
    for audience in answer["audiences"].as_array().expect("list") {
        let name = audience["name"].as_str().expect("name");
        let members = audience["current"]["members"].as_u64().expect("members");
        assert_eq!(members, expected[name].len() as u64, "{name}");
    }
}

#[test]
fn hashes_of_the_expected_keys_do_not_collide() {
    let seed = HashSeed(1);
    let hashes: BTreeSet<u64> =
        (0..100_000).map(|n| UserKey::text(format!("{n:05}")).hash(seed).0).collect();
    assert_eq!(hashes.len(), 100_000);
}
