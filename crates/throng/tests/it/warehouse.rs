//! `throng sim bigquery`, and a build over it that is killed and continued.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;

use super::process::{throng, wait_for};

/// A simulator in a process of its own.
pub(crate) struct Simulator {
    child: Child,
    pub(crate) url: String,
}

impl Simulator {
    /// Starts it with more arguments, and waits until it listens.
    pub(crate) fn start(data: &Path, faults: &Path, arguments: &[&str]) -> Self {
        let mut child = throng()
            .args(["sim", "bigquery", "--json", "--port", "0", "--data"])
            .arg(data)
            .arg("--faults")
            .arg(faults)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("throng starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("its first line");
        let ready: Value = serde_json::from_str(&line).expect("it is up");
        Self { child, url: ready["url"].as_str().expect("url").to_owned() }
    }

    /// What happened until now.
    pub(crate) async fn oracle(&self) -> Result<Value, String> {
        let answer = reqwest::get(format!("{}/oracle", self.url)).await;
        let answer = answer.map_err(|error| error.to_string())?;
        answer.json().await.map_err(|error| error.to_string())
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Twelve rows with ten users, and a spec with an audience of those who clicked on music.
fn write(dir: &Path) {
    std::fs::create_dir_all(dir.join("bq/events")).expect("works");
    let rows = (0..12).map(|row| format!("{},music\n{},sport\n", 1000 + row % 10, 2000 + row));
    let csv = format!("user_id,campaign\n{}", rows.collect::<String>());
    std::fs::write(dir.join("bq/events/clicks.csv"), csv).expect("works");
    let faults = r#"[{ "on": "page", "after": 1, "times": 1, "kind": "hang" }]"#;
    std::fs::write(dir.join("faults.json"), faults).expect("works");
}

fn write_spec(dir: &Path, url: &str) {
    let spec = format!(
        "version: 1\nsources:\n  - {{ name: app, type: bigquery, project: p, location: US, page_rows: 5, \
         price_per_tib: \"6.25\", endpoint: \"{url}\", metadata_url: \"{url}\" }}\naudiences:\n  - name: \
         music\n    source: app\n    sql: SELECT user_id FROM `p.events.clicks` WHERE campaign = 'music'\n"
    );
    std::fs::write(dir.join("throng.yaml"), spec).expect("works");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_killed_continues_at_the_next_page() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().expect("works");
    let dir = dir.path();
    write(dir);
    let sim = Simulator::start(&dir.join("bq"), &dir.join("faults.json"), &[]);
    write_spec(dir, &sim.url);

    let mut check = throng();
    let check = check.args(["check", "--json", "--connect"]).arg(dir.join("throng.yaml"));
    let checked: Value =
        serde_json::from_slice(&check.output().expect("works").stdout).expect("works");
    let model = &checked["models"][0];
    assert_eq!(model["model"]["key_kind"], "integer", "{checked}");
    assert!(model["query"]["bytes_processed"].as_u64().is_some_and(|bytes| bytes > 0), "{checked}");

    let build = || {
        let mut build = throng();
        build.args(["build", "--json", "--spec"]).arg(dir.join("throng.yaml"));
        build.arg("--dir").arg(dir.join("node"));
        build
    };
    let mut killed = build().stdout(Stdio::null()).spawn().expect("works");
    let hangs = wait_for("the second page is asked for", || async {
        let oracle = sim.oracle().await?;
        (oracle["hanging"] == 1).then_some(()).ok_or_else(|| oracle.to_string())
    });
    hangs.await;
    killed.kill().expect("works");
    killed.wait().expect("works");

    let output = build().output().expect("works");
    let built: Value = serde_json::from_slice(&output.stdout).expect("works");
    assert_eq!(built["audiences"][0]["state"], "completed", "{built}");
    assert_eq!(built["audiences"][0]["members"], 10, "{built}");
    let oracle = sim.oracle().await.expect("works");
    let jobs = oracle["jobs"].as_array().expect("works");
    assert_eq!(jobs.len(), 1, "{oracle}");
    assert_eq!(jobs[0]["pages"], serde_json::json!([0, 5, 10]));
}
