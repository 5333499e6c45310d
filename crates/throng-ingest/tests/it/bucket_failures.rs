//! Batches in a bucket whose requests fail, before or after they took effect.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use throng_ingest::{BucketLake, IngestError, create_tables, sources_for_check};
use throng_objects::{
    DirectoryObjects, ObjectMeta, Objects, ObjectsError, Result, VersionedObject,
};

use super::NOW;
use super::bucket::{Bucket, LATER, TEXT, node, send, spec};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// It had no effect.
    NotDone,
    /// It had its effect, and the answer is lost.
    AnswerLost,
}

/// The outcome of a request, which is `load`, `list`, `swap`, `upload` or `remove`, for the object of a name.
type Rule = dyn Fn(&'static str, &str) -> Outcome + Send + Sync;

/// A folder whose requests fail by a rule.
struct FailingObjects {
    objects: DirectoryObjects,
    rule: Box<Rule>,
}

impl fmt::Debug for FailingObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailingObjects").field("objects", &self.objects).finish_non_exhaustive()
    }
}

impl FailingObjects {
    async fn request<T: Send>(
        &self,
        doing: &'static str,
        name: &str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match (self.rule)(doing, name) {
            Outcome::Answered => return work.await,
            Outcome::NotDone => {}
            Outcome::AnswerLost => drop(work.await?),
        }
        let source = Box::new(std::io::Error::other("no answer"));
        Err(ObjectsError::Store { doing, name: name.to_owned(), source })
    }
}

#[async_trait]
impl Objects for FailingObjects {
    fn root(&self) -> &Path {
        self.objects.root()
    }

    async fn upload(&self, name: &str) -> Result<()> {
        self.request("upload", name, self.objects.upload(name)).await
    }

    async fn download(&self, name: &str) -> Result<PathBuf> {
        self.objects.download(name).await
    }

    fn has_copies(&self) -> bool {
        self.objects.has_copies()
    }

    async fn download_again(&self, name: &str) -> Result<PathBuf> {
        self.objects.download_again(name).await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.request("remove", name, self.objects.remove(name)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        self.request("list", prefix, self.objects.list(prefix)).await
    }

    async fn load(&self, name: &str) -> Result<Option<VersionedObject>> {
        self.request("load", name, self.objects.load(name)).await
    }

    async fn compare_and_swap(
        &self,
        name: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
    ) -> Result<Option<String>> {
        let work = self.objects.compare_and_swap(name, bytes, expected);
        self.request("swap", name, work).await
    }

    async fn evict(&self, needed: &HashSet<String>) -> Result<()> {
        self.objects.evict(needed).await
    }
}

fn lake_by(
    bucket: &Bucket,
    rule: impl Fn(&'static str, &str) -> Outcome + Send + Sync + 'static,
) -> BucketLake {
    let objects = FailingObjects { objects: bucket.objects(), rule: Box::new(rule) };
    bucket.lake_of(Arc::new(objects))
}

/// Whether an object is the manifest of a batch.
fn is_batch(name: &str) -> bool {
    name.contains("/_batches/") && !name.ends_with("/columns.json")
}

/// A rule for the first request that creates the manifest of a batch.
fn first_manifest(outcome: Outcome) -> impl Fn(&'static str, &str) -> Outcome + Send + Sync {
    let is_due = AtomicBool::new(true);
    move |doing, name| match doing == "swap" && is_batch(name) {
        true if is_due.swap(false, Ordering::SeqCst) => outcome,
        _ => Outcome::Answered,
    }
}

#[test]
fn a_batch_is_ingested_if_only_the_answer_of_the_bucket_was_lost() {
    let bucket = Bucket::new();
    let lake = lake_by(&bucket, first_manifest(Outcome::AnswerLost));
    let one = node(&bucket.dir.path().join("one"), lake, NOW);
    let report = send(&one, "b", TEXT).unwrap();
    assert_eq!((report.accepted, report.repeated), (3, false));
    assert_eq!((bucket.rows(), bucket.left_over(), bucket.quarantined("one")), (3, 0, 1));
    assert!(send(&one, "b", TEXT).unwrap().repeated);
    assert_eq!((bucket.rows(), bucket.left_over(), bucket.quarantined("one")), (3, 0, 1));
}

#[test]
fn a_batch_whose_manifest_was_not_created_is_ingested_by_the_next_try() {
    let bucket = Bucket::new();
    let lake = lake_by(&bucket, first_manifest(Outcome::NotDone));
    let one = node(&bucket.dir.path().join("one"), lake, NOW);
    let error = send(&one, "b", TEXT).unwrap_err();
    assert!(matches!(error, IngestError::Bucket(_)), "{error}");
    // The manifest might have been created, or appear later: its files stay.
    assert_eq!((bucket.rows(), bucket.left_over()), (0, 3));
    assert!(!send(&one, "b", TEXT).unwrap().repeated);
    assert_eq!((bucket.rows(), bucket.left_over(), bucket.quarantined("one")), (3, 3, 1));
    assert_eq!((bucket.remove_leftovers(LATER), bucket.rows(), bucket.left_over()), (3, 3, 0));
    assert!(send(&one, "b", TEXT).unwrap().repeated);
}

#[test]
fn a_manifest_that_appears_late_keeps_its_files_and_its_rows_in_quarantine() {
    let bucket = Bucket::new();
    // The manifest is created, and neither that nor the question whether it exists is answered.
    let requests = AtomicUsize::new(0);
    let rule = move |doing: &'static str, name: &str| {
        let turn = |from: usize| {
            let (order, next) = (Ordering::SeqCst, from + 1);
            is_batch(name) && requests.compare_exchange(from, next, order, order).is_ok()
        };
        match doing {
            "swap" if turn(0) => Outcome::AnswerLost,
            "load" if turn(1) => Outcome::NotDone,
            _ => Outcome::Answered,
        }
    };
    let private = bucket.dir.path().join("one");
    let one = node(&private, lake_by(&bucket, rule), NOW);
    let error = send(&one, "b", TEXT).unwrap_err();
    assert!(matches!(error, IngestError::Bucket(_)), "{error}");
    let manifests = bucket.manifests();
    let [manifest] = &manifests[..] else { panic!("{manifests:?}") };
    let (manifest, aside) = (manifest.clone(), bucket.dir.path().join("aside"));
    std::fs::rename(&manifest, &aside).unwrap();
    assert_eq!((bucket.rows(), bucket.left_over()), (0, 3));
    let hook = move |step: &'static str| {
        if step == "quarantine" {
            std::fs::rename(&aside, &manifest).unwrap();
        }
    };
    let again = bucket.node("one").with_step_hook(Arc::new(hook));
    assert!(send(&again, "b", TEXT).unwrap().repeated);
    assert_eq!((bucket.rows(), bucket.left_over(), bucket.quarantined("one")), (3, 0, 1));
}

#[test]
fn files_are_not_removed_one_by_one_from_a_bucket_that_does_not_answer() {
    let bucket = Bucket::new();
    let removals = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&removals);
    let lake = lake_by(&bucket, move |doing, _| match doing {
        "remove" => {
            counted.fetch_add(1, Ordering::SeqCst);
            Outcome::NotDone
        }
        "upload" => Outcome::NotDone,
        _ => Outcome::Answered,
    });
    // Its table exists.
    send(&bucket.node("two"), "a", "email,seen\nz@example.com,2026-11-25\n").unwrap();
    let one = node(&bucket.dir.path().join("one"), lake, NOW);
    let days = (1..=20).map(|day| format!("u{day}@example.com,2026-11-{day:02}\n"));
    let text = format!("email,seen\n{}", days.collect::<String>());
    let error = send(&one, "b", &text).unwrap_err();
    assert!(matches!(error, IngestError::Bucket(_)), "{error}");
    // Those that are requested at a time.
    assert!((1..=8).contains(&removals.load(Ordering::SeqCst)));
    assert_eq!((bucket.rows(), bucket.left_over()), (1, 20));
}

#[test]
fn a_check_of_unchanged_tables_does_not_list_the_bucket() {
    let (bucket, dir) = (Bucket::new(), tempfile::tempdir().unwrap());
    let lake = lake_by(&bucket, |doing, name| match (doing, name) {
        ("list", "default") => Outcome::NotDone,
        _ => Outcome::Answered,
    });
    let first = spec(dir.path(), "");
    create_tables(&first, Some(&lake)).unwrap();
    let checked = sources_for_check(&first, Some(&lake)).unwrap();
    assert!(checked.warning.is_none() && checked.sources[0].bucket.is_some());
    // Those of schemas that the spec no longer has are shown beside a table that changes.
    let added = spec(dir.path(), "      - { name: n, type: date }\n");
    let warning = sources_for_check(&added, Some(&lake)).unwrap().warning.unwrap();
    assert!(warning.contains("when the bucket can be reached"), "{warning}");
}
