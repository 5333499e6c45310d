//! `throng events` and `throng log`: records of the event log that cannot be applied or read.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::answers::Quarantine;
use crate::args::NodeArgs;
use crate::client::Client;
use crate::out;

/// Prints the records that a node skips.
pub(crate) async fn quarantine(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/events/quarantine").await?;
    if json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let Quarantine { partitions } = answer.read()?;
    if partitions.is_empty() {
        out::line("no record is in quarantine");
    }
    for partition in partitions {
        out::line(format!("partition {}: {} records", partition.partition, partition.total));
        for record in partition.records {
            let (offset, tries, reason) = (record.offset, record.count, record.reason);
            out::line(format!("  offset {offset}\ttries {tries}\t{reason}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes damaged parts from the log of a stopped node.
pub(crate) fn repair(dir: &Path, json: bool) -> Result<ExitCode> {
    let log = dir.join("log");
    anyhow::ensure!(log.is_dir(), "{} holds no event log: name a data directory", dir.display());
    let damage = throng_log::repair_log(&log)
        .with_context(|| format!("cannot repair the event log in {}", log.display()))?;
    if json {
        let all: Vec<Value> = damage
            .iter()
            .map(|one| {
                json!({
                    "partition": one.partition,
                    "file": one.path,
                    "position": one.position,
                    "bytes": one.bytes,
                    "first_offset": one.first_offset,
                    "next_offset": one.next_offset,
                    "kept_in": one.kept_in,
                })
            })
            .collect();
        out::json(&json!({ "set_aside": all }));
        return Ok(ExitCode::SUCCESS);
    }
    if damage.is_empty() {
        out::line("the event log is not damaged");
    }
    for one in damage {
        let lost = match one.next_offset.saturating_sub(one.first_offset) {
            0 => format!("the last records from offset {} on are lost", one.first_offset),
            lost => format!("{lost} records from offset {} on are lost", one.first_offset),
        };
        let kept = one.kept_in.map_or_else(
            || "a segment before it is missing".to_owned(),
            |kept| format!("{} bytes are kept in {}", one.bytes, kept.display()),
        );
        let (file, position) = (one.path.display(), one.position);
        out::line(format!(
            "partition {}: {file} at byte {position}: {lost}; {kept}",
            one.partition
        ));
    }
    Ok(ExitCode::SUCCESS)
}
