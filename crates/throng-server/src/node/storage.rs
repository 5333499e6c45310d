//! Tries writes in the background, so that a full or failing disk, or a ledger that cannot be
//! written, is known before and after a caller meets it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use throng_model::{StorageProblem, with_causes};
use tokio_util::sync::CancellationToken;

use super::stamps::Stamps;
use crate::{NodeContext, ProblemClass};

/// Between two writes while all is well.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// And while something is wrong.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// A ledger that takes no write for so long cannot be written.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(15);
/// The file that is written to try the disk, and its length: some room is needed for anything.
const PROBE_FILE: &str = "probe.tmp";
const PROBE_BYTES: usize = 64 << 10;
/// The key of the problems that are found here.
const KEY: &str = "write";

/// Runs until `stop`.
pub(super) async fn watch(
    ctx: Arc<NodeContext>,
    mut stamps: Option<Stamps>,
    stop: CancellationToken,
) {
    let mut checked = false;
    loop {
        let ledger = try_ledger(&ctx, stamps.as_mut()).await;
        let written = ledger.is_ok();
        report(&ctx, ProblemClass::Ledger, ledger.err());
        let disk = try_disk(&ctx, &mut stamps, written).await;
        if disk.is_ok() {
            ctx.storage_recovered();
        }
        let well = written && disk.is_ok();
        report(&ctx, ProblemClass::Disk, disk.err());
        if well && !checked {
            checked = true;
            check_structure(&ctx, &stop);
        }
        let pause = if well { PROBE_INTERVAL } else { RETRY_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The class of an error for people, with the error itself and what helps.
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

/// Writes to the ledger: the next stamp, where the stores of this directory carry stamps.
async fn try_ledger(ctx: &NodeContext, stamps: Option<&mut Stamps>) -> Result<(), String> {
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
                stamps.ledger_has(stamp);
            }
            Ok(())
        }
        Ok(Err(error)) => Err(detail("the ledger cannot be written", &error, error.problem())),
        Err(_) => {
            let seconds = LEDGER_TIMEOUT.as_secs();
            Err(format!("the ledger cannot be written: no answer within {seconds} seconds"))
        }
    }
}

/// Writes a small file to the data directory, and the ledger's stamp to the stores if it is new.
async fn try_disk(
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
        // Only at the end of the runtime, or after a panic; stamps are then no longer written.
        Err(error) => Err(format!("the disk could not be tried: {error}")),
    }
}

fn write_probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(PROBE_FILE);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0x5a; PROBE_BYTES])?;
        file.sync_all()
    });
    // Also what was written of it before the disk was full.
    let removed = fs::remove_file(&path);
    written.and(removed)
}

fn report(ctx: &NodeContext, class: ProblemClass, problem: Option<String>) {
    match problem {
        Some(detail) => ctx.health.report(class, KEY, detail),
        None => ctx.health.clear(class, KEY),
    }
}

/// Checks the structure of a ledger that was too large to be checked at the start, beside the node's
/// work.
fn check_structure(ctx: &Arc<NodeContext>, stop: &CancellationToken) {
    let (ctx, stop) = (Arc::clone(ctx), stop.clone());
    tokio::spawn(async move {
        let checked = tokio::select! {
            checked = ctx.ledger.check_structure() => checked,
            () = stop.cancelled() => return,
        };
        if let Err(error) = checked {
            let what = "the ledger's structure is not sound";
            let detail = detail(what, &error, error.problem());
            ctx.health.report(ProblemClass::Ledger, "structure", detail);
        }
    });
}
