//! A process that ends at any step of a commit: readers see the batch whole or not at all, before and after the next
//! start, and sending it again completes it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use throng_ingest::Ingest;
use throng_model::ManualClock;

use super::{NOW, Rig, csv, rows, schema, settings};

const DIR: &str = "THRONG_INGEST_TEST_DIR";
const STEPS: &str = "THRONG_INGEST_TEST_STEPS";

/// Three days, and a row for the quarantine.
const TEXT: &str = "email,seen\na@example.com,2026-11-23\nb@example.com,2026-11-24\nc@example.com,2026-11-25\n\
                    nobody,2026-11-25\n";

/// The child process of the test below: ends itself as by a kill after some steps. Does nothing without its variables.
#[test]
fn child() {
    let (Some(dir), Ok(steps)) = (std::env::var_os(DIR), std::env::var(STEPS)) else { return };
    let left = AtomicUsize::new(steps.parse().unwrap());
    let clock = Arc::new(ManualClock::new(NOW));
    let hook = Arc::new(move |_: &'static str| {
        if left.fetch_sub(1, Ordering::SeqCst) == 0 {
            std::process::abort();
        }
    });
    let ingest = Ingest::new(settings(Path::new(&dir), &clock)).with_step_hook(hook);
    ingest.run(&schema(), &csv("b"), TEXT.as_bytes()).unwrap();
}

/// Ingests in a child process that ends after `steps` steps. Whether it came to its end.
fn ingest_in_child(dir: &Path, steps: usize) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--test-threads", "1"])
        .env(DIR, dir)
        .env(STEPS, steps.to_string())
        .output()
        .unwrap()
        .status;
    status.success()
}

#[test]
fn a_batch_is_visible_whole_or_not_at_all_whenever_its_process_ends() {
    let mut ended = 0;
    for steps in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let before = Rig::new(dir.path());
        before.csv("earlier", "email,seen\nz@example.com,2026-11-25\n").unwrap();
        drop(before);
        let completed = ingest_in_child(dir.path(), steps);
        let seen = rows(dir.path()).len();
        assert!(seen == 1 || seen == 4, "{seen} rows after {steps} steps");
        let rig = Rig::new(dir.path());
        rig.ingest.open().unwrap();
        assert_eq!(rig.rows().len(), seen, "{steps}");
        assert!(rig.left_over().is_empty(), "{steps}: {:?}", rig.left_over());
        let report = rig.csv("b", TEXT).unwrap();
        assert_eq!((report.accepted, report.quarantined), (3, 1), "{steps}");
        assert_eq!(report.repeated, seen == 4, "{steps}");
        assert_eq!((rig.rows().len(), rig.quarantine().len()), (4, 1), "{steps}");
        if completed {
            assert_eq!(seen, 4);
            break;
        }
        ended += 1;
    }
    // Before and after each rename, the sync, the quarantine and the manifest.
    assert!(ended >= 9, "{ended}");
}
