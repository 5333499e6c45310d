//! Ingesting a CSV file over HTTP, compared with DuckDB, which copies the same file to Parquet that is sorted and
//! partitioned by day, with the same hashes. DuckDB reads the file itself and checks no e-mail addresses and ranges.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use throng_api::IngestReport;

use crate::Programs;
use crate::audiences::python;
use crate::node::Node;

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Number of generated rows
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// The memory limit of DuckDB, in MiB
    #[arg(long, default_value_t = 4096)]
    memory_mib: u64,
    /// Number of alternating runs of each
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// The folder of the data; created if missing, and kept
    #[arg(long, default_value = "target/bench-data")]
    data: PathBuf,
}

const SPEC: &str = "version: 1
schemas:
  - name: records
    key: email
    day: seen
    fields:
      - { name: customer, type: text, required: true, max: 64 }
      - { name: email, type: email, required: true, anonymise: hash }
      - { name: seen, type: timestamp, required: true, min: \"2020-01-01\" }
      - { name: amount, type: \"decimal(10, 2)\", min: 0 }
      - { name: age, type: integer, min: 13, max: 120 }
      - { name: newsletter, type: boolean }
";

pub(crate) fn run(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.data)?;
    let file = options.data.join(format!("records-{}.csv", options.rows));
    if !file.exists() {
        let rows = options.rows.to_string();
        python(&options.programs, &options.data, &["generate-records", &rows])?;
    }
    let bytes = std::fs::metadata(&file)?.len();
    for round in 1..=options.rounds {
        let ours = throng(options, &file)?;
        let memory = format!("{}MiB", options.memory_mib);
        let rows = options.rows.to_string();
        let peer = python(&options.programs, &options.data, &["ingest", &rows, &memory])?;
        ensure!(peer["rows"].as_u64() == Some(options.rows), "DuckDB: {peer}");
        let line = json!({ "figure": "ingest", "round": round, "rows": options.rows, "bytes": bytes,
            "throng": ours, "duckdb": peer });
        println!("{line}");
    }
    Ok(())
}

fn throng(options: &Options, file: &std::path::Path) -> Result<Value> {
    let dir = std::path::absolute(options.data.join("node-ingest"))?;
    let lake = dir.with_file_name("lake-ingest");
    for folder in [&dir, &lake] {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
    }
    let spec = options.data.join("ingest.yaml");
    std::fs::write(&spec, format!("{SPEC}node:\n  lake: \"{}\"\n", lake.display()))?;
    let throng = options.programs.throng()?;
    let node = Node::start(&throng, &dir, &spec)?;
    let before = node.cpu_seconds()?;
    let started = Instant::now();
    let output = Command::new(&throng)
        .args(["ingest", "--json", "--schema", "records", "--dir"])
        .arg(&dir)
        .arg(file)
        .output()
        .context("cannot start throng ingest")?;
    let seconds = started.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("throng ingest: {}", String::from_utf8_lossy(&output.stderr));
    }
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let report: IngestReport = serde_json::from_value(answer["batches"][0].clone())?;
    ensure!(
        report.accepted == options.rows,
        "{} of {} rows accepted",
        report.accepted,
        options.rows
    );
    Ok(json!({
        "seconds": seconds,
        "rows_per_minute": options.rows as f64 / seconds * 60.0,
        "cpu_seconds": node.cpu_seconds()? - before,
        "peak_kib": node.peak_kib()?,
        "files": report.files,
        "bytes": report.bytes,
    }))
}
