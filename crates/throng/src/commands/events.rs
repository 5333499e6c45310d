//! `throng events` and `throng log`: records of the event log that cannot be applied or read.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;
use throng_api::QuarantineByPartition;

use crate::args::NodeArgs;
use crate::client::Client;
use crate::out::{self, Output};

/// Prints the records that a node skips.
pub(crate) async fn quarantine(node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/events/quarantine").await?;
    let Some(QuarantineByPartition { partitions }) = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    if partitions.is_empty() {
        out::line("no record is in quarantine");
    }
    for partition in partitions {
        let records = out::counted(partition.total, "record");
        out::line(format!("partition {}: {records}", partition.partition));
        for record in partition.records {
            let (offset, tries, reason) = (record.offset, record.count, record.reason);
            out::line(format!("  offset {offset}\ttries {tries}\t{reason}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `throng log repair` prints with `--json`.
#[derive(Serialize)]
struct RepairReport<'a> {
    set_aside: Vec<SetAside<'a>>,
}

/// A damaged part of the log.
#[derive(Serialize)]
struct SetAside<'a> {
    partition: u32,
    file: &'a Path,
    position: u64,
    bytes: u64,
    first_offset: u64,
    next_offset: u64,
    kept_in: Option<&'a Path>,
}

/// Removes damaged parts from the log of a stopped node.
pub(crate) fn repair(dir: &Path, output: Output) -> Result<ExitCode> {
    let log = dir.join("log");
    anyhow::ensure!(log.is_dir(), "{} holds no event log: name a data directory", dir.display());
    let damage = throng_log::repair_log(&log)
        .with_context(|| format!("cannot repair the event log in {}", log.display()))?;
    if output.is_json() {
        let set_aside = damage.iter().map(|one| SetAside {
            partition: one.partition,
            file: &one.path,
            position: one.position,
            bytes: one.bytes,
            first_offset: one.first_offset,
            next_offset: one.next_offset,
            kept_in: one.kept_in.as_deref(),
        });
        out::json(&RepairReport { set_aside: set_aside.collect() });
        return Ok(ExitCode::SUCCESS);
    }
    if damage.is_empty() {
        out::line("the event log is not damaged");
    }
    for one in damage {
        let lost = match one.next_offset.saturating_sub(one.first_offset) {
            0 => format!("the last records from offset {} on are lost", one.first_offset),
            lost => {
                format!("lost: {} from offset {}", out::counted(lost, "record"), one.first_offset)
            }
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
