//! Batches: the same again, another content under the same id, several at once.

use std::io::{self, Read};
use std::sync::Arc;

use throng_ingest::{Ingest, IngestError};
use throng_schema::FieldType;

use super::{Rig, csv, schema, settings};

const ONE: &str = "email,seen\nmary@example.com,2026-11-25\n";
const OTHER: &str = "email,seen\nmary@example.com,2026-11-24\n";

#[test]
fn a_batch_that_is_sent_again_is_not_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let first = rig.csv("a", ONE).unwrap();
    let again = rig.csv("a", ONE).unwrap();
    assert!(again.repeated && !first.repeated);
    assert_eq!((again.rows, &again.digest), (first.rows, &first.digest));
    assert_eq!(rig.rows().len(), 1);
    let conflict = rig.csv("a", OTHER).unwrap_err();
    assert!(matches!(&conflict, IngestError::Conflict { batch, .. } if batch == "a"), "{conflict}");
    assert_eq!(rig.rows().len(), 1);
    // Without an id the content is the id.
    assert!(!rig.csv("", OTHER).unwrap().repeated);
    assert!(rig.csv("", OTHER).unwrap().repeated);
    assert_eq!(rig.rows().len(), 2);
    let wrong = rig.csv("a b", ONE).unwrap_err();
    assert_eq!(wrong.to_string(), "this is not an id of a batch");
    assert!(rig.left_over().is_empty());
}

/// A body whose sender is cut off after some bytes.
struct CutOff<'a>(&'a [u8]);

impl Read for CutOff<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::Error::other("cut off")) } else { self.0.read(buffer) }
    }
}

#[test]
fn a_batch_that_is_cut_off_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let text = format!("{ONE}nobody,2026-11-25\n");
    rig.ingest.run(&schema(), &csv("a"), CutOff(text.as_bytes())).unwrap_err();
    assert!(rig.rows().is_empty() && rig.left_over().is_empty() && rig.quarantine().is_empty());
    assert_eq!(rig.csv("a", &text).unwrap().accepted, 1);
}

#[test]
fn a_batch_that_cannot_be_committed_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    let manifests = dir.path().join("lake/default/customers/_batches");
    let aside = manifests.with_extension("aside");
    let (from, to) = (manifests.clone(), aside.clone());
    // The folder of the manifests is gone when they are to be written.
    let hook = Arc::new(move |step: &'static str| {
        if step == "quarantine" {
            std::fs::rename(&from, &to).unwrap();
        }
    });
    rig.ingest = Ingest::new(settings(dir.path(), &rig.clock)).with_step_hook(hook);
    let error = rig.csv("a", &format!("{ONE}nobody,2026-11-25\n")).unwrap_err();
    assert!(matches!(error, IngestError::Io { .. }), "{error}");
    std::fs::rename(&aside, &manifests).unwrap();
    assert!(rig.rows().is_empty() && rig.left_over().is_empty() && rig.quarantine().is_empty());
}

#[test]
fn manifests_of_a_newer_version_are_refused_and_their_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    rig.csv("a", ONE).unwrap();
    let manifests = dir.path().join("lake/default/customers/_batches");
    let paths = || std::fs::read_dir(&manifests).unwrap().map(|entry| entry.unwrap().path());
    let is_columns = |path: &std::path::Path| path.ends_with("columns.json");
    let batch = paths().find(|path| !is_columns(path)).unwrap();
    let columns = paths().find(|path| is_columns(path)).unwrap();
    let days = || std::fs::read_dir(dir.path().join("lake/default/customers/day=2026-11-25"));
    let files = days().unwrap().count();
    for path in [batch, columns] {
        let before = std::fs::read_to_string(&path).unwrap();
        assert!(before.contains("\"version\": 1"), "{before}");
        std::fs::write(&path, before.replace("\"version\": 1", "\"version\": 2")).unwrap();
        let error = rig.csv("a", ONE).unwrap_err();
        assert!(matches!(&error, IngestError::Table(_)), "{error}");
        let text = throng_model::with_causes(&error);
        let expected = format!("{} has version 2", path.display());
        assert!(text.contains(&expected), "{text}");
        assert!(error.help().is_some_and(|help| help.contains("newer version")), "{text}");
        std::fs::write(&path, before).unwrap();
    }
    assert!(rig.csv("a", ONE).unwrap().repeated);
    drop(rig);
    // The next process removes files of batches that did not finish, and cannot know which they are.
    let batch = paths().find(|path| !is_columns(path)).unwrap();
    let before = std::fs::read_to_string(&batch).unwrap();
    std::fs::write(&batch, before.replace("\"version\": 1", "\"version\": 2")).unwrap();
    let error = Rig::new(dir.path()).csv("b", OTHER).unwrap_err();
    assert!(matches!(&error, IngestError::Table(_)), "{error}");
    assert_eq!(days().unwrap().count(), files);
}

#[test]
fn one_process_ingests_to_a_lake() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    rig.csv("a", ONE).unwrap();
    let second = Ingest::new(settings(dir.path(), &rig.clock));
    let error = second.run(&schema(), &csv("b"), ONE.as_bytes()).unwrap_err();
    assert!(matches!(error, IngestError::Locked { .. }), "{error}");
    drop(rig);
    assert_eq!(second.run(&schema(), &csv("b"), ONE.as_bytes()).unwrap().accepted, 1);
}

#[test]
fn batches_at_the_same_time_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let text = |batch: usize| {
        let rows =
            (0..500).map(|row| format!("u{row}@example.com,2026-11-{:02},,{batch}\n", 1 + row % 9));
        format!("email,seen,age,note\n{}", rows.collect::<String>())
    };
    std::thread::scope(|scope| {
        for batch in 0..4 {
            let (rig, text) = (&rig, text(batch));
            scope.spawn(move || {
                let report = rig.csv(&batch.to_string(), &text).unwrap();
                assert_eq!((report.accepted, report.days), (500, 9));
            });
        }
    });
    let rows = rig.rows();
    for batch in 0..4 {
        let of_batch = rows.iter().filter(|row| row.ends_with(&format!(" {batch}")));
        assert_eq!(of_batch.count(), 500, "{batch}");
    }
    assert!(rig.left_over().is_empty());
}

#[test]
fn a_field_keeps_its_type() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    rig.csv("a", ONE).unwrap();
    let mut other = schema();
    other.fields[2].of = FieldType::Text;
    other.fields[2].min = None;
    let error = rig.ingest.run(&other, &csv("b"), ONE.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the column `age` of the schema `customers` is text, and in its table integer"
    );
    assert_eq!(rig.rows().len(), 1);
}
