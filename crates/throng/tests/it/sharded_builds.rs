//! An indexed job: three processes with `JOB_COMPLETION_INDEX` share the audiences. One is evicted by SIGTERM, one
//! is killed; their replacements, with empty data directories, complete the job, and no audience is built twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::process::{HEAVY, NodeProcess, get, http, throng, wait_for};

const PODS: usize = 3;
const AUDIENCES: usize = 12;
const CUSTOMERS: usize = 1_500;
/// Of each of the pods that are ended: one by SIGTERM, one by SIGKILL.
const SIGNALS: [&str; 2] = ["TERM", "KILL"];

fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests by `cargo xtask test`"))
}

/// Audiences whose queries return millions of rows, so that a pod is ended while it builds. The last one of each pod
/// that is ended returns three times as many, so that a test which gets no CPU for a while still finds the pods at
/// work. Those of the other pod return a row of each customer.
fn spec(name: &str) -> String {
    let (kafka, s3) = (setting("THRONG_KAFKA"), setting("THRONG_S3"));
    let audiences: String = (0..AUDIENCES)
        .map(|n| {
            let product = match n % PODS < SIGNALS.len() {
                true if n < AUDIENCES - PODS => " CROSS JOIN shop.visits b",
                true => " CROSS JOIN shop.visits b CROSS JOIN shop.copies c",
                false => "",
            };
            format!(
                "  - {{ name: a{n:02}, sql: \"SELECT a.customer FROM shop.visits a{product} WHERE a.n >= {n}\" }}\n"
            )
        })
        .collect();
    format!(
        "version: 1\nsources:\n  - {{ name: shop, path: data }}\naudiences:\n{audiences}node:\n  ledger: postgres\n  ledger_url: env:LEDGER\n  build_workers: 1\n  log: kafka\n  kafka: {{ brokers: \"{kafka}\", prefix: \"{name}\" }}\n  objects: s3\n  bucket: {{ name: throng, prefix: \"{name}\", endpoint: \"{s3}\", access_key: \"env:THRONG_S3_ACCESS_KEY\", secret_key: \"env:THRONG_S3_SECRET_KEY\" }}\n"
    )
}

/// Starts the pod of an index; its data directory is new with each attempt.
fn pod(folder: &Path, ledger: &str, index: usize, attempt: usize) -> Child {
    let name = format!("pod-{index}-{attempt}");
    let log = std::fs::File::create(folder.join(format!("{name}.log"))).expect("created");
    let mut command = throng();
    command.args(["build", "--join", "--spec"]).arg(folder.join("throng.yaml"));
    command.arg("--dir").arg(folder.join(name)).env("LEDGER", ledger);
    command.env("JOB_COMPLETION_INDEX", index.to_string());
    command.env("JOB_COMPLETIONS", PODS.to_string());
    command.stdout(Stdio::null()).stderr(log).spawn().expect("throng starts")
}

async fn exit_code(mut pod: Child) -> Option<i32> {
    let ended = tokio::task::spawn_blocking(move || pod.wait().expect("ended"));
    ended.await.expect("waited").code()
}

fn signal(pod: &Child, signal: &str) {
    let kill = Command::new("kill").args([&format!("-{signal}"), &pod.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexed_job_completes_although_one_pod_is_evicted_and_one_killed() {
    let _heavy = HEAVY.lock().await;
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = dir.path();
    let unique = folder.file_name().and_then(|n| n.to_str()).expect("a name");
    let name = format!("job-{}", unique.trim_matches('.').to_lowercase());
    std::fs::create_dir(folder.join("data")).expect("created");
    let rows: String = (0..CUSTOMERS).map(|n| format!("c{n:05},{n}\n")).collect();
    std::fs::write(folder.join("data/visits.csv"), format!("customer,n\n{rows}")).expect("written");
    std::fs::write(folder.join("data/copies.csv"), "number\n1\n2\n3\n").expect("written");
    std::fs::write(folder.join("throng.yaml"), spec(&name)).expect("written");
    let ledger = format!("{}/{name}", setting("THRONG_POSTGRES"));
    // It applies the spec and builds nothing.
    let api = NodeProcess::with(
        &folder.join("api"),
        &folder.join("throng.yaml"),
        &folder.join("api.log"),
        &["--roles", "api"],
        &[("LEDGER", ledger.clone())],
    );
    let http = http();
    let audiences = async || {
        let answer = get(&http, format!("{}/v1/audiences", api.url)).await?;
        answer["audiences"].as_array().cloned().ok_or(format!("{answer}"))
    };

    let pods: Vec<Child> = (0..PODS).map(|index| pod(folder, &ledger, index, 0)).collect();
    // Each as soon as it builds, whether or not the other one does at that time.
    for (pod, kind) in SIGNALS.into_iter().enumerate() {
        wait_for("a pod is building", async || {
            let all = audiences().await?;
            let processing = |(n, audience): (usize, &Value)| {
                (audience["refresh"]["state"] == "processing").then_some(n % PODS)
            };
            let busy: BTreeSet<usize> = all.iter().enumerate().filter_map(processing).collect();
            if busy.contains(&pod) { Ok(()) } else { Err(format!("{busy:?}, not {pod}")) }
        })
        .await;
        signal(&pods[pod], kind);
    }
    let mut pods = pods.into_iter();
    let mut next = || pods.next().expect("three pods");
    let (evicted, killed, third) = (next(), next(), next());
    assert_eq!(exit_code(evicted).await, Some(75));
    assert_eq!(exit_code(killed).await, None);

    let (first, second) = (pod(folder, &ledger, 0, 1), pod(folder, &ledger, 1, 1));
    for (index, pod) in [first, second, third].into_iter().enumerate() {
        let code = exit_code(pod).await;
        let log = std::fs::read_to_string(folder.join(format!("pod-{index}-1.log")));
        assert_eq!(code, Some(0), "pod {index}: {}", log.unwrap_or_default());
    }
    let all = audiences().await.expect("answered");
    assert_eq!(all.len(), AUDIENCES);
    for (n, audience) in all.iter().enumerate() {
        assert_eq!(audience["refresh"]["state"], "completed", "{audience}");
        assert_eq!(audience["current"]["version"], 1, "built once: {audience}");
        assert_eq!(audience["current"]["members"], CUSTOMERS - n, "{audience}");
    }
    assert!(api.terminate());
}
