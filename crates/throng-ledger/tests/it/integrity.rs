//! A damaged ledger is refused, an unchanged one is not, and a copy is a complete ledger.

use std::path::Path;

use throng_ledger::SqliteLedger;
use throng_model::Timestamp;
use throng_store::{
    HistoryEntry, HistoryEvent, HistoryLedger as _, LedgerError, MaintenanceLedger as _,
    SubjectKind,
};

fn entry(number: i64) -> HistoryEntry {
    HistoryEntry {
        subject_kind: SubjectKind::Sync,
        subject: "integrity".to_owned(),
        what: HistoryEvent::Published,
        why: format!("number {number}"),
        actor: None,
        at: Timestamp(number),
    }
}

/// A ledger with a few hundred rows, closed cleanly.
async fn closed_ledger(path: &Path) {
    let ledger = SqliteLedger::open(path).await.unwrap();
    let entries: Vec<HistoryEntry> = (0..300).map(entry).collect();
    ledger.record_history(&entries).await.unwrap();
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn every_change_of_a_closed_ledger_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    closed_ledger(&path).await;
    let (whole, sum) =
        (std::fs::read(&path).unwrap(), std::fs::read(dir.path().join("ledger.sum")).unwrap());
    let mut changed = Vec::new();
    for step in 0..68 {
        let mut bytes = whole.clone();
        let at = step * whole.len() / 68 + step;
        bytes[at % whole.len()] ^= 1 << (step % 8);
        changed.push(bytes);
    }
    changed.push(whole[..whole.len() / 2].to_vec());
    changed.push([whole.clone(), vec![0; 4096]].concat());
    for (number, bytes) in changed.into_iter().enumerate() {
        std::fs::write(&path, bytes).unwrap();
        let refused = SqliteLedger::open(&path).await.unwrap_err();
        assert!(matches!(refused, LedgerError::Damaged { .. }), "change {number}: {refused:?}");
        assert!(refused.to_string().contains("throng restore"), "{refused}");
        // A refused open changes nothing, so that a second one is refused too.
        assert_eq!(std::fs::read(dir.path().join("ledger.sum")).unwrap(), sum);
    }
    std::fs::write(&path, &whole).unwrap();
    let ledger = SqliteLedger::open(&path).await.unwrap();
    assert_eq!(ledger.history(None, 1_000).await.unwrap().len(), 300);
    // While it is open there is no checksum.
    assert!(!dir.path().join("ledger.sum").exists());
}

#[tokio::test]
async fn a_write_ahead_log_of_another_state_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let wal = dir.path().join("ledger.db-wal");
    let ledger = SqliteLedger::open(&path).await.unwrap();
    ledger.record_history(&[entry(1)]).await.unwrap();
    let other = std::fs::read(&wal).unwrap();
    ledger.close().await.unwrap();
    assert!(!wal.exists());
    std::fs::write(&wal, other).unwrap();
    let refused = SqliteLedger::open(&path).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Damaged { .. }), "{refused:?}");
}

#[tokio::test]
async fn after_a_crash_a_damaged_structure_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    closed_ledger(&path).await;
    std::fs::remove_file(dir.path().join("ledger.sum")).unwrap();
    let whole = std::fs::read(&path).unwrap();
    // The header of every page except the first has the type of the page.
    for page in 1..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096..page * 4096 + 8].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
        let opened = SqliteLedger::open(&path).await;
        let refused = opened.expect_err("a damaged page");
        assert!(matches!(refused, LedgerError::Damaged { .. }), "page {page}: {refused:?}");
    }
    std::fs::write(&path, &whole).unwrap();
    SqliteLedger::open(&path).await.unwrap();
}

#[tokio::test]
async fn a_copy_of_an_open_ledger_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("ledger.db"), dir.path().join("copy.db"));
    let ledger = SqliteLedger::open(&path).await.unwrap();
    ledger.record_history(&[entry(1), entry(2)]).await.unwrap();
    let attached = SqliteLedger::attach(&path).await.unwrap();
    attached.copy_to(&copy).await.unwrap();
    ledger.record_history(&[entry(3)]).await.unwrap();
    let copied = SqliteLedger::open(&copy).await.unwrap();
    assert_eq!(copied.history(None, 10).await.unwrap().len(), 2);
    // A second copy never replaces the first.
    assert!(attached.copy_to(&copy).await.is_err());
}

#[tokio::test]
async fn attaching_to_a_closed_ledger_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    closed_ledger(&path).await;
    let whole = std::fs::read(&path).unwrap();
    let attached = SqliteLedger::attach(&path).await.unwrap();
    attached.copy_to(&dir.path().join("copy.db")).await.unwrap();
    attached.close().await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    let ledger = SqliteLedger::open(&path).await.unwrap();
    assert_eq!(ledger.history(None, 1_000).await.unwrap().len(), 300);
}
