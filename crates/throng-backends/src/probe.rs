//! Probes backends in the background, so that a request that asks for their state needs no I/O: a full or
//! failing disk, a ledger that does not respond or refuses writes, or an event log whose brokers are gone, is
//! reported before a request fails, and cleared when it works again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use throng_log::EventLog;
use throng_model::{StorageProblem, with_causes};
use throng_store::Ledger;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::reporter::{BackendProblem, BackendReporter};
use crate::stamps::Stamps;

/// Time between two reads of the ledger.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// A ledger that takes longer to answer a read counts as unavailable.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two writes while they succeed.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two writes while one fails.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// A write to the ledger that takes longer has failed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// The file that is written to probe the disk, and its length: a disk with less room is reported as
/// full.
const PROBE_FILE: &str = "probe.tmp";
const PROBE_BYTES: usize = 64 << 10;
/// The keys of the problems that are reported here.
const READ: &str = "read";
const WRITE: &str = "write";
const STRUCTURE: &str = "structure";
const BROKERS: &str = "brokers";

/// What probes read and write, and where they report. Cheap to clone.
#[derive(Clone)]
pub struct Probes {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// The event log, if the process is not ready while its servers do not answer.
    pub log: Option<Arc<dyn EventLog>>,
    /// The folder on the disk.
    pub data_dir: PathBuf,
    /// Who gets the problems.
    pub reporter: Arc<dyn BackendReporter>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl Probes {
    fn report(&self, problem: BackendProblem, key: &str, detail: Option<String>) {
        match detail {
            Some(detail) => self.reporter.report(problem, key, detail),
            None => self.reporter.clear(problem, key),
        }
    }
}

/// Reads from the ledger every second, and follows whether the event log can be reached, until `stop`.
pub async fn probe_reads(probes: Probes, stop: CancellationToken) {
    let log = async {
        if let Some(reachable) = probes.log.as_ref().and_then(|log| log.reachability()) {
            follow_log(reachable, &*probes.reporter, &stop).await;
        }
    };
    tokio::join!(read_ledger(&probes, &stop), log);
}

/// Reports that the servers of the log do not answer as soon as the log notices, and the end of that.
async fn follow_log(
    mut reachable: watch::Receiver<bool>,
    reporter: &dyn BackendReporter,
    stop: &CancellationToken,
) {
    const DETAIL: &str = "no broker of node.kafka.brokers answers: check that they run and can be reached from here; \
                          events are refused until one does";
    loop {
        let is_reachable = *reachable.borrow_and_update();
        match is_reachable {
            true => reporter.clear(BackendProblem::Log, BROKERS),
            false => reporter.report(BackendProblem::Log, BROKERS, DETAIL.to_owned()),
        }
        tokio::select! {
            changed = reachable.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

async fn read_ledger(probes: &Probes, stop: &CancellationToken) {
    loop {
        let answer = tokio::time::timeout(READ_TIMEOUT, probes.ledger.applied_version()).await;
        let problem = match answer {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(with_causes(&error)),
            Err(_) => Some(format!("no answer within {} s", READ_TIMEOUT.as_secs())),
        };
        probes.report(BackendProblem::Ledger, READ, problem);
        tokio::select! {
            () = tokio::time::sleep(READ_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Writes to ledger and disk until `stop`: the next stamps, if stores of the data directory carry stamps.
pub async fn probe_writes(probes: Probes, mut stamps: Option<Stamps>, stop: CancellationToken) {
    let mut checked = false;
    loop {
        let ledger = write_ledger(&*probes.ledger, stamps.as_mut()).await;
        let written = ledger.is_ok();
        probes.report(BackendProblem::Ledger, WRITE, ledger.err());
        let disk = write_disk(&probes.data_dir, &mut stamps, written).await;
        if disk.is_ok() {
            probes.reporter.disk_is_writable();
        }
        let healthy = written && disk.is_ok();
        probes.report(BackendProblem::Disk, WRITE, disk.err());
        if healthy && !checked {
            checked = true;
            check_structure(probes.clone(), stop.clone());
        }
        let pause = if healthy { WRITE_INTERVAL } else { RETRY_INTERVAL };
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
async fn write_ledger(ledger: &dyn Ledger, stamps: Option<&mut Stamps>) -> Result<(), String> {
    let target = stamps.as_ref().map(|stamps| stamps.target());
    let write = async {
        match &target {
            Some(stamp) => ledger.put_stamp(stamp).await,
            None => ledger.probe().await,
        }
    };
    match tokio::time::timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => {
            if let (Some(stamps), Some(stamp)) = (stamps, target) {
                stamps.ledger_stamped(stamp);
            }
            Ok(())
        }
        Ok(Err(error)) => Err(detail("the ledger cannot be written", &error, error.problem())),
        Err(_) => {
            let seconds = WRITE_TIMEOUT.as_secs();
            Err(format!("the ledger cannot be written: no response within {seconds} seconds"))
        }
    }
}

/// Writes a small file to the data directory, and the ledger's stamp to the stores if it is new.
async fn write_disk(
    data_dir: &Path,
    stamps: &mut Option<Stamps>,
    stamped: bool,
) -> Result<(), String> {
    let (dir, mut taken) = (data_dir.to_owned(), stamps.take());
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

/// Checks the structure of a ledger that was too large to be checked at the start, while the node
/// works.
fn check_structure(probes: Probes, stop: CancellationToken) {
    tokio::spawn(async move {
        let checked = tokio::select! {
            checked = probes.ledger.check_structure() => checked,
            () = stop.cancelled() => return,
        };
        if let Err(error) = checked {
            let what = "the ledger's structure is damaged";
            let detail = detail(what, &error, error.problem());
            probes.reporter.report(BackendProblem::Ledger, STRUCTURE, detail);
        }
    });
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// Whether a problem was reported or cleared.
    struct Reports(mpsc::UnboundedSender<(BackendProblem, bool)>);

    impl BackendReporter for Reports {
        fn report(&self, problem: BackendProblem, _key: &str, _detail: String) {
            self.0.send((problem, true)).unwrap();
        }

        fn clear(&self, problem: BackendProblem, _key: &str) {
            self.0.send((problem, false)).unwrap();
        }

        fn disk_is_writable(&self) {}
    }

    #[tokio::test]
    async fn a_log_without_brokers_is_a_problem_until_one_answers() {
        let (answers, reachable) = watch::channel(true);
        let (sender, mut reports) = mpsc::unbounded_channel();
        let (reporter, stop) = (Reports(sender), CancellationToken::new());
        let changes = async {
            for expected in [false, true, false] {
                assert_eq!(reports.recv().await, Some((BackendProblem::Log, expected)));
                answers.send_replace(expected);
            }
            stop.cancel();
        };
        tokio::join!(follow_log(reachable, &reporter, &stop), changes);
    }
}
