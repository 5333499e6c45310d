//! Probes writes in the background: a full or failing disk, or a ledger that refuses writes, is
//! reported before a request fails, and cleared when writes succeed again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use throng_model::{StorageProblem, with_causes};
use tokio_util::sync::CancellationToken;

use super::stamps::Stamps;
use crate::{NodeContext, ProblemClass};

/// Between two probes while writes succeed.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Between two probes while a write fails.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// A write to the ledger that takes longer has failed.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(15);
/// The file that is written to probe the disk, and its length: a disk with less room is reported as
/// full.
const PROBE_FILE: &str = "probe.tmp";
const PROBE_BYTES: usize = 64 << 10;
/// The key of the problems that are reported here.
const KEY: &str = "write";

/// Probes ledger and disk until `stop`.
pub(super) async fn watch(
    ctx: Arc<NodeContext>,
    mut stamps: Option<Stamps>,
    stop: CancellationToken,
) {
    let mut checked = false;
    loop {
        let ledger = probe_ledger(&ctx, stamps.as_mut()).await;
        let written = ledger.is_ok();
        report(&ctx, ProblemClass::Ledger, ledger.err());
        let disk = probe_disk(&ctx, &mut stamps, written).await;
        if disk.is_ok() {
            ctx.clear_storage_errors();
        }
        let healthy = written && disk.is_ok();
        report(&ctx, ProblemClass::Disk, disk.err());
        if healthy && !checked {
            checked = true;
            check_structure(&ctx, &stop);
        }
        let pause = if healthy { PROBE_INTERVAL } else { RETRY_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The error with its class and its hint, for people.
fn detail(
    what: &str,
    error: &(dyn std::error::Error + 'static),
    found: Option<StorageProblem>,
) -> String {
    match found {
        Some(problem) => format!("{what}: {problem} ({}); {}", with_causes(error), problem.hint()),
        None => format!("{what}: {}", with_causes(error)),
    }
}

/// Writes to the ledger: the next stamp, if stores of this directory carry stamps.
async fn probe_ledger(ctx: &NodeContext, stamps: Option<&mut Stamps>) -> Result<(), String> {
    let target = stamps.as_ref().map(|stamps| stamps.target());
    let write = async {
        match &target {
            Some(stamp) => ctx.ledger.put_stamp(stamp).await,
            None => ctx.ledger.probe().await,
        }
    };
    match tokio::time::timeout(LEDGER_TIMEOUT, write).await {
        Ok(Ok(())) => {
            if let (Some(stamps), Some(stamp)) = (stamps, target) {
                stamps.ledger_stamped(stamp);
            }
            Ok(())
        }
        Ok(Err(error)) => Err(detail("the ledger cannot be written", &error, error.problem())),
        Err(_) => {
            let seconds = LEDGER_TIMEOUT.as_secs();
            Err(format!("the ledger cannot be written: no response within {seconds} seconds"))
        }
    }
}

/// Writes a small file to the data directory, and the ledger's stamp to the stores if it is new.
async fn probe_disk(
    ctx: &NodeContext,
    stamps: &mut Option<Stamps>,
    stamped: bool,
) -> Result<(), String> {
    let (dir, mut taken) = (ctx.data_dir.clone(), stamps.take());
    let work = move || {
        let mut tried = write_probe(&dir).map_err(|error| (dir, error));
        if tried.is_ok()
            && stamped
            && let Some(stamps) = taken.as_mut()
        {
            tried = stamps.write_stores();
        }
        (taken, tried)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok((back, tried)) => {
            *stamps = back;
            tried.map_err(|(path, error): (PathBuf, io::Error)| {
                let what = format!("{} cannot be written", path.display());
                detail(&what, &error, StorageProblem::of_io(&error))
            })
        }
        // Only when the runtime shuts down, or after a panic; stamps are no longer written then.
        Err(error) => Err(format!("the disk could not be probed: {error}")),
    }
}

fn write_probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(PROBE_FILE);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0x5a; PROBE_BYTES])?;
        file.sync_all()
    });
    // Also after a failed write: the written part takes room on a full disk.
    let removed = fs::remove_file(&path);
    written.and(removed)
}

fn report(ctx: &NodeContext, class: ProblemClass, problem: Option<String>) {
    match problem {
        Some(detail) => ctx.health.report(class, KEY, detail),
        None => ctx.health.clear(class, KEY),
    }
}

/// Checks the structure of a ledger that was too large to be checked at the start, while the node
/// works.
fn check_structure(ctx: &Arc<NodeContext>, stop: &CancellationToken) {
    let (ctx, stop) = (Arc::clone(ctx), stop.clone());
    tokio::spawn(async move {
        let checked = tokio::select! {
            checked = ctx.ledger.check_structure() => checked,
            () = stop.cancelled() => return,
        };
        if let Err(error) = checked {
            let what = "the ledger's structure is damaged";
            let detail = detail(what, &error, error.problem());
            ctx.health.report(ProblemClass::Ledger, "structure", detail);
        }
    });
}
