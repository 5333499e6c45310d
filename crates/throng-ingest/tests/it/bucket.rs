//! Batches in a bucket, which is a folder here: several nodes, and what is left of batches that did not finish.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use throng_api::IngestReport;
use throng_ingest::{
    BucketLake, Ingest, IngestError, IngestSettings, LakeStore, create_tables, preview_tables,
    sources_for_check,
};
use throng_model::{ManualClock, Timestamp};
use throng_objects::{DirectoryObjects, Objects};
use throng_spec::Spec;
use tokio::runtime::Runtime;

use super::{NOW, csv, rows, schema};

/// Three days, and a row for the quarantine.
pub(crate) const TEXT: &str = "email,seen\na@example.com,2026-11-23\nb@example.com,2026-11-24\nc@example.com,2026-11-25\n\
                    nobody,2026-11-25\n";
/// Objects that are written now are old by then.
pub(crate) const LATER: Timestamp = Timestamp(4_102_444_800_000_000);

/// The bucket of a test.
pub(crate) struct Bucket {
    pub(crate) dir: tempfile::TempDir,
    runtime: Runtime,
}

impl Bucket {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self { dir: tempfile::tempdir().unwrap(), runtime }
    }

    pub(crate) fn objects(&self) -> DirectoryObjects {
        DirectoryObjects::open(self.dir.path().join("lake")).unwrap()
    }

    pub(crate) fn lake_of(&self, objects: Arc<dyn Objects>) -> BucketLake {
        BucketLake::new(objects, "s3://lake".to_owned(), self.runtime.handle().clone())
    }

    fn lake(&self) -> BucketLake {
        self.lake_of(Arc::new(self.objects()))
    }

    pub(crate) fn node(&self, name: &str) -> Ingest {
        // Nodes have local folders of their own. Here these are the bucket itself, where files of batches that begin at
        // the same time in one process would have the same names.
        let own = name.bytes().map(i64::from).sum::<i64>();
        node(&self.dir.path().join(name), self.lake(), Timestamp(NOW.0 + own))
    }

    pub(crate) fn rows(&self) -> usize {
        rows(self.dir.path()).len()
    }

    /// Files without rows of the table.
    pub(crate) fn left_over(&self) -> usize {
        let lake = self.dir.path().join("lake/default");
        let found = throng_files::of_folder(&lake, &lake).unwrap();
        found.tables["customers"].as_ref().unwrap().passed_over.len()
    }

    /// Manifests of batches.
    pub(crate) fn manifests(&self) -> Vec<PathBuf> {
        let folder = self.dir.path().join("lake/default/customers/_batches");
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.ends_with("columns.json")).collect()
    }

    pub(crate) fn quarantined(&self, node: &str) -> usize {
        let folder = self.dir.path().join(node).join("quarantine/default/customers");
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }

    /// Removes what no batch has, at this time. Returns how many objects.
    pub(crate) fn remove_leftovers(&self, now: Timestamp) -> u64 {
        node(&self.dir.path().join("other"), self.lake(), now)
            .remove_leftovers(&[schema()])
            .unwrap()
    }
}

/// A node that ingests to a bucket.
pub(crate) fn node(private: &Path, lake: BucketLake, now: Timestamp) -> Ingest {
    node_at(private, lake, Arc::new(ManualClock::new(now)))
}

fn node_at(private: &Path, lake: BucketLake, clock: Arc<ManualClock>) -> Ingest {
    Ingest::new(IngestSettings {
        lake: LakeStore::Bucket(Arc::new(lake)),
        private: private.to_owned(),
        clock,
        workers: 2,
    })
}

pub(crate) fn send(node: &Ingest, batch: &str, text: &str) -> Result<IngestReport, IngestError> {
    node.run(&schema(), &csv(batch), text.as_bytes())
}

#[test]
fn a_batch_is_stored_once_whichever_node_it_is_sent_to() {
    let bucket = Bucket::new();
    let commits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&commits);
    let lake = bucket.lake().with_commit_hook(Box::new(move |workspace: &str| {
        assert_eq!(workspace, "default");
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    let one = node(&bucket.dir.path().join("one"), lake, NOW);
    let two = bucket.node("two");
    let first = send(&one, "b", TEXT).unwrap();
    assert_eq!((first.accepted, first.quarantined, first.repeated), (3, 1, false));
    for other in [&one, &two] {
        let again = send(other, "b", TEXT).unwrap();
        assert!(again.repeated && again.digest == first.digest);
        let conflict = send(other, "b", "email,seen\nd@example.com,2026-11-25\n").unwrap_err();
        assert!(matches!(conflict, IngestError::Conflict { .. }), "{conflict}");
    }
    assert!(!send(&two, "", "email,seen\nd@example.com,2026-11-25\n").unwrap().repeated);
    assert_eq!((bucket.rows(), bucket.left_over(), commits.load(Ordering::SeqCst)), (4, 0, 1));
    assert_eq!((bucket.quarantined("one"), bucket.quarantined("two")), (1, 0));
}

#[test]
fn of_two_nodes_with_one_batch_one_commits_it() {
    for at in ["staged", "uploaded", "quarantine"] {
        let bucket = Bucket::new();
        let other = Arc::new(bucket.node("two"));
        let hook = move |step: &'static str| {
            if step == at {
                assert!(!send(&other, "b", TEXT).unwrap().repeated);
            }
        };
        let one = bucket.node("one").with_step_hook(Arc::new(hook));
        let report = send(&one, "b", TEXT).unwrap();
        assert!(report.repeated, "{at}");
        assert_eq!((bucket.rows(), bucket.left_over()), (3, 0), "{at}");
        assert_eq!((bucket.quarantined("one"), bucket.quarantined("two")), (0, 1), "{at}");
    }
}

#[test]
fn a_batch_that_ends_at_any_step_is_visible_whole_or_not_at_all() {
    for (at, is_committed, left) in [
        ("staged", false, 0),
        ("uploaded", false, 3),
        ("quarantine", false, 3),
        ("manifest", true, 0),
    ] {
        let bucket = Bucket::new();
        let hook = move |step: &'static str| assert_ne!(step, at, "ended by the test");
        let one = bucket.node("one").with_step_hook(Arc::new(hook));
        catch_unwind(AssertUnwindSafe(|| send(&one, "b", TEXT))).unwrap_err();
        drop(one);
        let visible = if is_committed { 3 } else { 0 };
        assert_eq!((bucket.rows(), bucket.left_over()), (visible, left), "{at}");
        let one = bucket.node("one");
        assert_eq!(send(&one, "b", TEXT).unwrap().repeated, is_committed, "{at}");
        assert_eq!((bucket.rows(), bucket.left_over()), (3, left), "{at}");
        assert_eq!(bucket.quarantined("one"), 1, "{at}");
        // Another node may be uploading young files.
        assert_eq!(bucket.remove_leftovers(Timestamp(0)), 0, "{at}");
        assert_eq!(bucket.remove_leftovers(LATER), left as u64, "{at}");
        assert_eq!((bucket.rows(), bucket.left_over()), (3, 0), "{at}");
    }
}

#[test]
fn files_of_a_batch_that_was_never_committed_are_removed() {
    let bucket = Bucket::new();
    send(&bucket.node("two"), "a", "email,seen\nz@example.com,2026-11-25\n").unwrap();
    let hook = |step: &'static str| assert_ne!(step, "uploaded", "ended by the test");
    let one = bucket.node("one").with_step_hook(Arc::new(hook));
    catch_unwind(AssertUnwindSafe(|| send(&one, "b", TEXT))).unwrap_err();
    assert_eq!((bucket.remove_leftovers(LATER), bucket.rows(), bucket.left_over()), (3, 1, 0));
}

#[test]
fn a_damaged_manifest_does_not_stop_the_removal_of_other_files() {
    let bucket = Bucket::new();
    let end_early = |batch: &str| {
        let hook = |step: &'static str| assert_ne!(step, "uploaded", "ended by the test");
        let one = bucket.node("one").with_step_hook(Arc::new(hook));
        catch_unwind(AssertUnwindSafe(|| send(&one, batch, TEXT))).unwrap_err();
    };
    end_early("d");
    send(&bucket.node("one"), "d", TEXT).unwrap();
    // Its files are looked at after those of the other batch: in the order of the digests of the ids.
    end_early("b");
    assert_eq!((bucket.rows(), bucket.left_over()), (3, 6));
    let manifests = bucket.manifests();
    let [manifest] = &manifests[..] else { panic!("{manifests:?}") };
    let text = std::fs::read(manifest).unwrap();
    std::fs::write(manifest, "damaged").unwrap();
    let later = node(&bucket.dir.path().join("other"), bucket.lake(), LATER);
    let error = later.remove_leftovers(&[schema()]).unwrap_err();
    assert!(matches!(error, IngestError::Table(_)), "{error}");
    std::fs::write(manifest, text).unwrap();
    assert_eq!((bucket.rows(), bucket.left_over()), (3, 3));
    assert_eq!((bucket.remove_leftovers(LATER), bucket.rows(), bucket.left_over()), (3, 3, 0));
}

#[test]
fn a_batch_that_cannot_be_uploaded_leaves_nothing() {
    let bucket = Bucket::new();
    let one = bucket.node("one");
    send(&one, "a", "email,seen\nz@example.com,2026-11-22\n").unwrap();
    // A file in the place of the folder of a day.
    let day = bucket.dir.path().join("lake/default/customers/day=2026-11-25");
    std::fs::write(&day, "x").unwrap();
    send(&one, "b", TEXT).unwrap_err();
    std::fs::remove_file(&day).unwrap();
    assert_eq!((bucket.rows(), bucket.left_over(), bucket.quarantined("one")), (1, 0, 0));
    assert!(!send(&one, "b", TEXT).unwrap().repeated);
    assert_eq!(bucket.rows(), 4);
}

#[test]
fn a_batch_whose_upload_took_too_long_is_not_committed() {
    /// The most that a commit may take.
    const LIMIT: Duration = Duration::from_hours(12);
    const SECOND: Duration = Duration::from_secs(1);
    type Change = fn(&ManualClock);
    let changes: [(Change, bool); 5] = [
        (|clock| clock.advance(LIMIT), true),
        (|clock| clock.advance(LIMIT + SECOND), false),
        // The monotonic clock stands still, as while the machine is suspended.
        (|clock| clock.step(NOW.plus(LIMIT + SECOND)), false),
        // The time of day is set back.
        (
            |clock| {
                clock.advance(LIMIT + SECOND);
                clock.step(NOW);
            },
            false,
        ),
        (|clock| clock.step(Timestamp(0)), true),
    ];
    for (at, (change, is_committed)) in changes.into_iter().enumerate() {
        let bucket = Bucket::new();
        let clock = Arc::new(ManualClock::new(NOW));
        let changed = Arc::clone(&clock);
        let hook = move |step: &'static str| {
            if step == "uploaded" {
                change(&changed);
            }
        };
        let one = node_at(&bucket.dir.path().join("one"), bucket.lake(), clock);
        let one = one.with_step_hook(Arc::new(hook));
        assert_eq!(send(&one, "b", TEXT).is_ok(), is_committed, "{at}");
        let left = (bucket.rows(), bucket.manifests().len(), bucket.left_over());
        assert_eq!(left, if is_committed { (3, 1, 0) } else { (0, 0, 0) }, "{at}");
        assert_eq!(bucket.quarantined("one"), usize::from(is_committed), "{at}");
    }
}

/// A spec with one schema, whose rows are in a bucket.
pub(crate) fn spec(folder: &Path, more: &str) -> Spec {
    let file: PathBuf = folder.join("throng.yaml");
    let text = format!(
        "version: 1\nnode: {{ lake: 's3://lake' }}\nschemas:\n  - name: customers\n    key: id\n    fields:\n      \
         - {{ name: id, type: text, required: true }}\n{more}"
    );
    std::fs::write(&file, text).unwrap();
    throng_spec::load(&file).unwrap()
}

#[test]
fn a_table_exists_before_its_rows_and_a_check_does_not_change_it() {
    let bucket = Bucket::new();
    let (lake, dir) = (bucket.lake(), tempfile::tempdir().unwrap());
    let (first, added) =
        (spec(dir.path(), ""), spec(dir.path(), "      - { name: n, type: date }\n"));
    create_tables(&first, None).unwrap_err();
    let unchanged = |spec: &Spec| {
        let checked = sources_for_check(spec, Some(&lake)).unwrap();
        assert_eq!(checked.warning, None);
        // Otherwise it is a folder with the tables as they would be.
        checked.sources[0].bucket.is_some()
    };
    assert!(!unchanged(&first) && !bucket.dir.path().join("lake/default").exists());
    create_tables(&first, Some(&lake)).unwrap();
    assert!(unchanged(&first) && !unchanged(&added));
    create_tables(&first, Some(&lake)).unwrap();
    assert_eq!((bucket.rows(), bucket.left_over()), (0, 0));
    create_tables(&added, Some(&lake)).unwrap();
    // Those who have read the previous manifest find its file.
    assert_eq!((unchanged(&added), bucket.left_over()), (true, 1));
    assert_eq!(
        (bucket.remove_leftovers(Timestamp(0)), bucket.remove_leftovers(LATER), bucket.left_over()),
        (0, 1, 0)
    );
    assert!(unchanged(&added));
    let other = spec(dir.path(), "      - { name: n, type: text }\n");
    let error = preview_tables(&other, Some(&lake), &dir.path().join("unused")).unwrap_err();
    assert!(error.to_string().starts_with("the column `n` of the schema `customers`"), "{error}");
    // A file that is missing is written again.
    let folder = bucket.dir.path().join("lake/default/customers/day=__HIVE_DEFAULT_PARTITION__");
    std::fs::remove_dir_all(&folder).unwrap();
    create_tables(&added, Some(&lake)).unwrap();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
}
