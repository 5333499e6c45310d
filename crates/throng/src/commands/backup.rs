//! `throng backup` and `throng restore`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde::Serialize;
use throng_backends::LocalStores;
use throng_backup::{Manifest, PartitionRange, Progress};
use throng_model::{Clock as _, SystemClock};

use crate::out::{self, Output};

/// Shows the copied bytes on a progress bar.
fn progress(bar: &ProgressBar) -> Progress {
    let bar = bar.clone();
    Arc::new(move |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
}

/// What `throng backup` and `throng restore` print with `--json`.
#[derive(Serialize)]
struct BackupReport<'a> {
    path: String,
    version: &'a str,
    made_at: String,
    instance: Option<&'a str>,
    spec_version: Option<u64>,
    partitions: &'a [PartitionRange],
    files: usize,
    bytes: u64,
}

impl<'a> BackupReport<'a> {
    fn new(manifest: &'a Manifest, path: &Path) -> Self {
        Self {
            path: path.display().to_string(),
            version: &manifest.version,
            made_at: manifest.made_at.to_string(),
            instance: manifest.stamp.as_ref().map(|stamp| stamp.instance.as_str()),
            spec_version: manifest.spec_version,
            partitions: &manifest.partitions,
            files: manifest.files.len(),
            bytes: manifest.bytes(),
        }
    }
}

/// The contents of a backup as a sentence.
fn describe(manifest: &Manifest) -> String {
    let snapshots =
        manifest.files.iter().filter(|file| file.path.starts_with("objects/snapshots/")).count();
    let events: u64 = manifest.partitions.iter().map(|range| range.end).sum();
    format!(
        "{}, {}: the ledger with spec version {}, {}, the event log up to {} in {}",
        out::counted(manifest.files.len() as u64, "file"),
        out::counted(manifest.bytes(), "byte"),
        manifest.spec_version.map_or_else(|| "none".to_owned(), |version| version.to_string()),
        out::counted(snapshots as u64, "snapshot"),
        out::counted(events, "record"),
        out::counted(manifest.partitions.len() as u64, "partition"),
    )
}

pub(crate) async fn backup(dir: &Path, to: &Path, output: Output) -> Result<ExitCode> {
    let bar = out::byte_bar("backup");
    let result =
        throng_backup::backup(&LocalStores, dir, to, SystemClock.now(), progress(&bar)).await;
    bar.finish_and_clear();
    let manifest = result.with_context(|| format!("failed to back up {}", dir.display()))?;
    if output.is_json() {
        out::json(&BackupReport::new(&manifest, to));
    } else {
        out::line(format!("{} contains {}", to.display(), describe(&manifest)));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn restore(from: &Path, dir: &Path, output: Output) -> Result<ExitCode> {
    let bar = out::byte_bar("restore");
    let result = throng_backup::restore(Arc::new(LocalStores), from, dir, progress(&bar)).await;
    bar.finish_and_clear();
    let manifest = result.with_context(|| format!("failed to restore {}", from.display()))?;
    if output.is_json() {
        out::json(&BackupReport::new(&manifest, dir));
    } else {
        out::line(format!(
            "{} contains the backup of {} by throng {}: {}",
            dir.display(),
            manifest.made_at,
            manifest.version,
            describe(&manifest)
        ));
        out::line("every file is intact; not in it: later events, and identifiers.key for syncs");
        out::line(format!("start it with: throng up --dir {}", dir.display()));
    }
    Ok(ExitCode::SUCCESS)
}
