//! Builds of audiences from generated Parquet, compared with DuckDB on the same files with the same memory
//! limit. Both read the files, evaluate the model and write the members durably to disk.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};
use throng_api::AudienceList;

use crate::Programs;
use crate::node::{Node, completed, get, runtime};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Number of generated rows
    #[arg(long, default_value_t = 50_000_000)]
    rows: u64,
    /// The memory limit of each engine, in MiB
    #[arg(long, default_value_t = 4096)]
    memory_mib: u64,
    /// Number of alternating runs of each
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// The folder of the data; created if missing, and kept
    #[arg(long, default_value = "target/bench-data")]
    data: PathBuf,
}

/// Names and models. `customer` has `rows × 0.6` distinct values, of which `half` has a little more than half.
const MODELS: &[(&str, &str)] = &[
    ("half", "SELECT customer FROM shop.orders WHERE amount >= 50"),
    ("filter", "SELECT customer FROM shop.orders WHERE amount >= 80"),
    ("count", "SELECT customer FROM shop.orders GROUP BY customer HAVING count(*) >= 3"),
    ("sum", "SELECT customer FROM shop.orders GROUP BY customer HAVING sum(amount) >= 150"),
];

/// Short, so that the peak of a query worker is read before it ends.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// So many readings of memory to one request.
const POLLS_PER_LIST: u64 = 8;

pub(crate) fn run(options: &Options) -> Result<()> {
    generate(options)?;
    for (name, sql) in MODELS {
        for round in 1..=options.rounds {
            let ours = throng(options, name, sql)?;
            let peer = duckdb(options, name, sql)?;
            if peer["members"].as_u64() != Some(ours.members) {
                bail!("{name}: {} members against {peer}", ours.members);
            }
            let line = json!({ "figure": "audiences", "model": name, "round": round,
                "rows": options.rows, "throng": ours, "duckdb": peer });
            println!("{line}");
        }
    }
    Ok(())
}

fn generate(options: &Options) -> Result<()> {
    if options.data.join("lake/orders").is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(options.data.join("lake"))?;
    python(&options.programs, &options.data, &["generate", &options.rows.to_string()]).map(drop)
}

pub(crate) fn python(programs: &Programs, data: &Path, arguments: &[&str]) -> Result<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/duckdb_peer.py");
    let output = Command::new(&programs.python)
        .arg(script)
        .arg(data)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {}", programs.python.display()))?;
    if !output.status.success() {
        bail!("DuckDB: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn duckdb(options: &Options, name: &str, sql: &str) -> Result<Value> {
    // In DuckDB the files take the place of the source's table.
    let files = options.data.join("lake/orders/*.parquet");
    let sql = sql.replace("shop.orders", &format!("'{}'", files.display()));
    python(
        &options.programs,
        &options.data,
        &["build", name, &sql, &format!("{}MiB", options.memory_mib)],
    )
}

/// The folder of the last node that wait_for_build a model.
pub(crate) fn node_dir(data: &Path, model: &str) -> PathBuf {
    data.join(format!("node-{model}"))
}

/// A build of an audience.
#[derive(Serialize)]
struct Build {
    seconds: f64,
    /// The peaks of the node and of the query workers that ran at one time, added up.
    peak_kib: u64,
    /// The part of the query workers, which scan.
    workers_peak_kib: u64,
    members: u64,
}

fn throng(options: &Options, name: &str, sql: &str) -> Result<Build> {
    let dir = node_dir(&options.data, name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let spec = options.data.join(format!("{name}.yaml"));
    std::fs::write(
        &spec,
        format!(
            "version: 1\nsources:\n  - {{ name: shop, path: lake }}\naudiences:\n  - name: {name}\n    sql: {sql}\nnode:\n  memory_limit_bytes: {}\n",
            options.memory_mib << 20
        ),
    )?;
    let node = Node::start(&options.programs.throng()?, &dir, &spec)?;
    runtime()?.block_on(wait_for_build(&node))
}

/// Waits until the only audience is published.
async fn wait_for_build(node: &Node) -> Result<Build> {
    let http = node.http()?;
    let mut workers_peak_kib = 0;
    loop {
        for _ in 0..POLLS_PER_LIST {
            workers_peak_kib = workers_peak_kib.max(node.workers_peak_kib()?);
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        let list: AudienceList = get(&http, &format!("{}/v1/audiences", node.url)).await?;
        let audience = list.audiences.first().context("no audience")?;
        let Some(refresh) = completed(audience)? else { continue };
        let ended = refresh.finished_at.zip(refresh.started_at);
        let (finished_at, started_at) = ended.context("a completed refresh has no times")?;
        let current = audience.current.as_ref().context("no snapshot")?;
        return Ok(Build {
            seconds: finished_at.since(started_at).as_secs_f64(),
            peak_kib: node.peak_kib()? + workers_peak_kib,
            workers_peak_kib,
            members: current.members,
        });
    }
}
