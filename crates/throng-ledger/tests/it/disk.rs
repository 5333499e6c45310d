//! A ledger whose disk is full or fails: it refuses writes, and works again as soon as the disk
//! does.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use throng_ledger::SqliteLedger;
use throng_model::{HashSeed, StorageProblem, Timestamp};
use throng_sim::SmallDisk;
use throng_store::{
    HistoryEntry, HistoryEvent, HistoryLedger as _, LedgerError, MaintenanceLedger as _,
    SpecLedger as _, StoreStamp, SubjectKind,
};

/// One history entry, large enough to need new pages.
fn entry(number: usize) -> HistoryEntry {
    HistoryEntry {
        subject_kind: SubjectKind::Sync,
        subject: "disk".to_owned(),
        what: HistoryEvent::from(number.to_string()),
        why: "x".repeat(3_000),
        actor: None,
        at: Timestamp(number as i64),
    }
}

async fn recorded(ledger: &SqliteLedger) -> Vec<usize> {
    let entries = ledger.history(Some((&SubjectKind::Sync, "disk")), 100_000).await.unwrap();
    let mut numbers: Vec<usize> =
        entries.iter().map(|entry| entry.what.name().parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// The failed calls changed nothing, the others are all there.
async fn writes_until_refused(ledger: &SqliteLedger, written: &mut Vec<usize>) -> LedgerError {
    for number in written.len().. {
        match ledger.record_history(&[entry(number)]).await {
            Ok(()) => written.push(number),
            Err(error) => return error,
        }
    }
    unreachable!("the disk is full")
}

#[tokio::test]
async fn a_ledger_on_a_full_disk_refuses_writes_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), 4) else { return };
    let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap();
    let mut written = Vec::new();
    for round in 0..3 {
        let filler = disk.fill().unwrap();
        let refused = writes_until_refused(&ledger, &mut written).await;
        assert_eq!(refused.problem(), Some(StorageProblem::DiskFull), "{refused:?}");
        // Repeated writes are refused too, and reads succeed.
        for _ in 0..3 {
            let refused = ledger.record_history(&[entry(usize::MAX)]).await.unwrap_err();
            assert_eq!(refused.problem(), Some(StorageProblem::DiskFull), "{refused:?}");
        }
        assert_eq!(recorded(&ledger).await, written, "round {round}");
        std::fs::remove_file(filler).unwrap();
        for _ in 0..5 {
            let number = written.len();
            ledger.record_history(&[entry(number)]).await.unwrap();
            written.push(number);
        }
        assert_eq!(recorded(&ledger).await, written, "round {round}");
    }
    ledger.close().await.unwrap();
    let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap();
    assert_eq!(recorded(&ledger).await, written);
    ledger.close().await.unwrap();
}

/// The folder of a child process of [`a_ledger_on_a_failing_disk_works_again_afterwards`].
const CHILD: &str = "THRONG_TEST_FAILING_DISK";

/// Sets the largest file that this process may write.
fn limit_files(limit: &str) {
    let pid = std::process::id().to_string();
    let limit = format!("--fsize={limit}:unlimited");
    let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(set.expect("prlimit runs").success());
}

/// With a file size limit of zero every write to a file fails, which SQLite reports as
/// SQLITE_IOERR: no file system is needed. The limit is one of the whole process, so it runs in a
/// child.
#[test]
fn a_ledger_on_a_failing_disk_works_again_afterwards() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(on_a_failing_disk(Path::new(&folder)));
    }
    let dir = tempfile::tempdir().unwrap();
    // The signal that comes with such a write would end the process; a shell can ignore it.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "disk::a_ledger_on_a_failing_disk_works_again_afterwards", "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (code, signal) = (output.status.code(), output.status.signal());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(code == Some(0), "code {code:?}, signal {signal:?}: {stdout}\n{stderr}");
    assert!(stdout.contains("1 passed"), "{stdout}");
}

async fn on_a_failing_disk(folder: &Path) {
    let ledger = SqliteLedger::open(&folder.join("ledger.db")).await.unwrap();
    ledger.hash_seed(HashSeed(7)).await.unwrap();
    let stamp = |sequence| StoreStamp { instance: "a".to_owned(), sequence };
    let mut written = Vec::new();
    for round in 1..4 {
        for _ in 0..3 {
            ledger.record_history(&[entry(written.len())]).await.unwrap();
            written.push(written.len());
        }
        ledger.put_stamp(&stamp(round)).await.unwrap();
        limit_files("0");
        for _ in 0..3 {
            let in_a_transaction = ledger.record_history(&[entry(usize::MAX)]).await.unwrap_err();
            let alone = ledger.put_stamp(&stamp(round + 1)).await.unwrap_err();
            let probe = ledger.probe().await.unwrap_err();
            for refused in [in_a_transaction, alone, probe] {
                assert_eq!(refused.problem(), Some(StorageProblem::Io), "{refused:?}");
            }
        }
        assert_eq!(recorded(&ledger).await, written);
        assert_eq!(ledger.stamp().await.unwrap(), Some(stamp(round)));
        limit_files("unlimited");
        ledger.probe().await.unwrap();
    }
    ledger.close().await.unwrap();
}
