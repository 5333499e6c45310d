//! Files in a folder: what a consumer sees, and the effects of crashes and of files that others change.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use throng_activation::{
    BatchPart, Destination, EnsuredAudience, PreparedRow, Schema, SendClass, SendError,
    SendRequest, SendResponse, SessionStep,
};
use throng_destinations::{Account, FileAccount, open};
use throng_model::{FileFormat, HashedIdentifier, Personal, SyncRunId};
use throng_store::Operation;

use crate::consumer;

const OWNER: &str = "0123456789abcdef";

struct Files {
    dir: tempfile::TempDir,
    destination: Arc<dyn Destination>,
    id: String,
}

fn account(folder: &Path) -> FileAccount {
    let root = folder.to_owned();
    FileAccount { folder: root.clone(), root, format: FileFormat::Csv, gzip: false }
}

fn opened(account: FileAccount) -> Arc<dyn Destination> {
    open(&Account::File(account)).unwrap()
}

fn hash(user: u32) -> String {
    HashedIdentifier::of_normalised(&format!("user{user}@example.com")).to_hex()
}

fn schema() -> Schema {
    Schema { keys: vec!["EMAIL".into()], default_country: None }
}

fn rows(destination: &dyn Destination, users: std::ops::Range<u32>) -> Vec<PreparedRow> {
    let row = |user| {
        let email = Personal::new(format!("User{user}@example.com"));
        destination.prepare(&schema(), &[Some(email)]).unwrap()
    };
    users.map(row).collect()
}

impl Files {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let destination = opened(account(dir.path()));
        let id = destination.ensure_audience("throng: buyers", OWNER).await.unwrap().platform_id;
        Self { dir, destination, id }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join(&self.id)
    }

    /// Sends users as a batch. `session`: the number of the request, whether it is the last one, and the rows
    /// that were sent before.
    async fn send(
        &self,
        run: i64,
        batch: u32,
        operation: Operation,
        users: std::ops::Range<u32>,
        session: Option<(u64, bool, u64)>,
    ) -> Result<SendResponse, SendError> {
        let request = SendRequest {
            platform_id: &self.id,
            part: BatchPart { run: SyncRunId(run), batch, first: 0 },
            operation,
            schema: &schema(),
            rows: &rows(&*self.destination, users),
            session: session.map(|(seq, last, sent_before)| SessionStep {
                id: run * 100,
                seq,
                last,
                repeated: false,
                sent_before,
                estimated_total: 100,
            }),
        };
        self.destination.send(&request).await
    }

    /// A complete set in two files.
    async fn set(&self, run: i64, users: u32) {
        let half = users / 2;
        let (first, last) = (Some((1, false, 0)), Some((2, true, u64::from(half))));
        self.send(run, 0, Operation::Replace, 0..half, first).await.unwrap();
        self.send(run, 1, Operation::Replace, half..users, last).await.unwrap();
    }

    fn files(&self) -> Vec<String> {
        consumer::files(&self.folder())
    }
}

#[tokio::test]
async fn a_batch_is_a_file_with_the_same_bytes_each_time() {
    let files = Files::new().await;
    assert!(files.id.starts_with("throng-buyers-"), "{}", files.id);
    let name = "run-0000000003-batch-000001-add.csv";
    let mut written = Vec::new();
    for _ in 0..3 {
        let response = files.send(3, 1, Operation::Add, 0..2, None).await.unwrap();
        assert_eq!((response.received, response.invalid), (2, 0));
        assert_eq!(response.platform_ref.as_deref(), Some(name));
        written.push(std::fs::read_to_string(files.folder().join(name)).unwrap());
    }
    let expected = format!("EMAIL\n{}\n{}\n", hash(0), hash(1));
    assert!(written.iter().all(|text| *text == expected), "{written:?}");
    files.send(3, 2, Operation::Remove, 5..6, None).await.unwrap();
    assert_eq!(
        files.files(),
        ["audience.json", name, "run-0000000003-batch-000002-remove.csv"],
        "no file is written twice"
    );
}

#[tokio::test]
async fn a_set_is_complete_once_its_manifest_lists_it() {
    let files = Files::new().await;
    files.send(4, 0, Operation::Add, 50..60, None).await.unwrap();
    files.send(5, 0, Operation::Replace, 0..3, Some((1, false, 0))).await.unwrap();
    assert_eq!(consumer::manifest(&files.folder()), None, "the set is not complete");
    files.send(5, 1, Operation::Replace, 3..5, Some((2, true, 3))).await.unwrap();
    let manifest = consumer::manifest(&files.folder()).unwrap();
    let listed = manifest["files"].as_array().unwrap();
    let names = ["run-0000000005-batch-000000-set.csv", "run-0000000005-batch-000001-set.csv"];
    for ((file, name), rows) in listed.iter().zip(names).zip([3u64, 2]) {
        let bytes = std::fs::read(files.folder().join(name)).unwrap();
        let sha256 = HashedIdentifier(Sha256::digest(&bytes).into()).to_hex();
        assert_eq!(file["name"], name);
        assert_eq!(file["rows"], rows);
        assert_eq!(file["bytes"], bytes.len());
        assert_eq!(file["sha256"], sha256);
    }
    assert_eq!(manifest["run"], 5);
    assert_eq!(manifest["rows"], 5);
    assert_eq!(manifest["columns"], serde_json::json!(["EMAIL"]));
    assert_eq!(files.files(), ["audience.json", "manifest.json", names[0], names[1]]);
    let size = files.destination.size(&files.id).await.unwrap();
    assert_eq!((size.lower, size.upper), (Some(5), Some(5)));
    // Later files are not part of the set.
    files.send(6, 0, Operation::Remove, 0..1, None).await.unwrap();
    let size = files.destination.size(&files.id).await.unwrap();
    assert_eq!((size.lower, size.upper, size.problem), (None, None, None));
    let expected: std::collections::BTreeSet<String> = (1..5).map(hash).collect();
    assert_eq!(consumer::members(&files.folder()), Some(expected));
}

#[tokio::test]
async fn the_previous_set_remains_until_the_next_one() {
    let files = Files::new().await;
    let of = |run: i64| {
        files.files().iter().filter(|name| name.starts_with(&format!("run-{run:010}"))).count()
    };
    files.set(1, 4).await;
    files.send(2, 0, Operation::Add, 10..12, None).await.unwrap();
    files.set(3, 6).await;
    assert_eq!((of(1), of(2), of(3)), (2, 0, 2));
    // Its last response was lost: the whole set is sent again.
    files.set(3, 6).await;
    assert_eq!(of(3), 2);
    files.set(4, 8).await;
    assert_eq!((of(1), of(3), of(4)), (0, 2, 2));
    std::fs::write(files.folder().join("notes.txt"), "mine").unwrap();
    files.set(5, 2).await;
    assert_eq!((of(3), of(4), of(5)), (0, 2, 2));
    assert!(files.folder().join("notes.txt").exists(), "it is not a file of the destination");
}

#[tokio::test]
async fn a_session_whose_files_are_missing_is_not_closed() {
    let files = Files::new().await;
    files.set(1, 4).await;
    files.send(2, 0, Operation::Replace, 0..2, Some((1, false, 0))).await.unwrap();
    std::fs::remove_file(files.folder().join("run-0000000002-batch-000000-set.csv")).unwrap();
    let error = files.send(2, 1, Operation::Replace, 2..4, Some((2, true, 2))).await.unwrap_err();
    assert_eq!(error.class, SendClass::Restart);
    assert_eq!(consumer::manifest(&files.folder()).unwrap()["run"], 1, "the previous set remains");
    files.set(2, 4).await;
    assert_eq!(consumer::manifest(&files.folder()).unwrap()["run"], 2);
}

#[tokio::test]
async fn a_set_that_another_try_has_begun_again_is_not_closed_without_its_files() {
    let files = Files::new().await;
    files.set(1, 4).await;
    // A worker is paused before its last request, and another one begins the set again.
    let first = || files.send(2, 0, Operation::Replace, 0..2, Some((1, false, 0)));
    let second = || files.send(2, 1, Operation::Replace, 2..4, Some((2, false, 2)));
    let last = || files.send(2, 2, Operation::Replace, 4..6, Some((3, true, 4)));
    first().await.unwrap();
    second().await.unwrap();
    first().await.unwrap();
    assert_eq!(last().await.unwrap_err().class, SendClass::Restart);
    assert_eq!(consumer::manifest(&files.folder()).unwrap()["run"], 1, "the previous set remains");
    second().await.unwrap();
    // The first request of the worker that was paused is late, too.
    first().await.unwrap();
    assert_eq!(last().await.unwrap_err().class, SendClass::Restart);
    assert_eq!(consumer::manifest(&files.folder()).unwrap()["run"], 1, "the previous set remains");
    for sent in [first().await, second().await, last().await] {
        sent.unwrap();
    }
    let manifest = consumer::manifest(&files.folder()).unwrap();
    assert_eq!(manifest["run"], 2);
    assert_eq!(manifest["rows"], 6);
}

#[tokio::test]
async fn the_check_names_files_that_others_changed() {
    let files = Files::new().await;
    files.set(1, 4).await;
    let first = files.folder().join("run-0000000001-batch-000000-set.csv");
    std::fs::write(&first, "EMAIL\n").unwrap();
    let problem = files.destination.size(&files.id).await.unwrap().problem.unwrap();
    assert!(problem.contains("has 6 bytes, not 136"), "{problem}");
    std::fs::remove_file(&first).unwrap();
    let size = files.destination.size(&files.id).await.unwrap();
    assert!(size.problem.unwrap().contains("not in the folder") && size.upper.is_none());
    std::fs::write(files.folder().join("manifest.json"), "{").unwrap();
    let problem = files.destination.size(&files.id).await.unwrap().problem.unwrap();
    assert_eq!(problem, "manifest.json cannot be read");
}

#[tokio::test]
async fn a_crash_while_an_audience_is_created_leaves_no_foreign_audience() {
    let files = Files::new().await;
    let ensure = || files.destination.ensure_audience("throng: buyers", OWNER);
    let about = files.folder().join("audience.json");
    std::fs::remove_file(&about).unwrap();
    std::fs::write(files.folder().join(".audience.json.tmp"), "{").unwrap();
    let second = ensure().await.unwrap();
    let created = EnsuredAudience { platform_id: files.id.clone(), created: true, own: true };
    assert_eq!(second, created);
    // After a crash right after it, nobody knows that the audience was created.
    assert_eq!(ensure().await.unwrap(), created);
    let other_owner = files.destination.ensure_audience("throng: buyers", "fedcba9876543210").await;
    let foreign = EnsuredAudience { created: false, own: false, ..created.clone() };
    assert_eq!(other_owner.unwrap(), foreign);
    // Consumers remove files that they have applied.
    let response = files.send(1, 0, Operation::Add, 0..1, None).await.unwrap();
    let name = response.platform_ref.unwrap();
    for _ in 0..2 {
        assert_eq!(ensure().await.unwrap(), EnsuredAudience { created: false, ..created.clone() });
        let _ = std::fs::remove_file(files.folder().join(&name));
    }
    // A folder with other files belongs to another owner.
    std::fs::remove_file(&about).unwrap();
    std::fs::write(files.folder().join("report.csv"), "x\n").unwrap();
    let found = ensure().await.unwrap();
    assert_eq!(found, foreign);
    std::fs::write(&about, "{}").unwrap();
    let error = ensure().await.unwrap_err();
    assert!(error.class == SendClass::Stop && error.message.contains("audience.json"), "{error}");
}

#[tokio::test]
async fn a_deleted_audience_leaves_files_of_others() {
    let files = Files::new().await;
    files.set(1, 4).await;
    files.send(2, 0, Operation::Add, 4..5, None).await.unwrap();
    std::fs::write(files.folder().join("notes.txt"), "mine").unwrap();
    files.destination.delete_audience(&files.id).await.unwrap();
    assert_eq!(files.files(), ["notes.txt"]);
    std::fs::remove_file(files.folder().join("notes.txt")).unwrap();
    files.destination.delete_audience(&files.id).await.unwrap();
    assert!(!files.folder().exists());
}

#[tokio::test]
async fn a_deletion_frees_space_before_it_writes_its_mark() {
    let files = Files::new().await;
    files.set(1, 4).await;
    let about = files.folder().join("audience.json");
    // No mark can be written.
    let marks = files.dir.path().join(".throng");
    std::fs::remove_dir_all(&marks).unwrap();
    std::fs::write(&marks, "").unwrap();
    for _ in 0..2 {
        files.destination.delete_audience(&files.id).await.unwrap_err();
        assert!(about.exists() && !files.folder().join("manifest.json").exists());
        let is_batch = |name: &String| name.starts_with("run-");
        assert!(!files.files().iter().any(is_batch), "{:?}", files.files());
    }
    std::fs::remove_file(&marks).unwrap();
    for _ in 0..2 {
        files.destination.delete_audience(&files.id).await.unwrap();
        assert!(!files.folder().exists());
    }
}

#[tokio::test]
async fn nothing_is_deleted_or_sent_while_the_file_system_is_not_mounted() {
    let files = Files::new().await;
    files.set(1, 4).await;
    // Not mounted: the folder is an empty one.
    let empty = tempfile::tempdir().unwrap();
    let destination = opened(account(empty.path()));
    let unmounted = Files { dir: empty, destination, id: files.id };
    for _ in 0..2 {
        for error in [
            unmounted.destination.delete_audience(&unmounted.id).await.unwrap_err(),
            unmounted.send(2, 0, Operation::Remove, 0..4, None).await.unwrap_err(),
            unmounted.send(2, 0, Operation::Replace, 0..4, Some((1, true, 0))).await.unwrap_err(),
            unmounted.destination.size(&unmounted.id).await.unwrap_err(),
        ] {
            assert!(matches!(error.class, SendClass::RetryLater(_)), "{error}");
            assert!(error.message.contains("mount the file system"), "{error}");
        }
        // Another audience that is created meanwhile is not evidence.
        unmounted.destination.ensure_audience("throng: others", OWNER).await.unwrap();
    }
    let mounted = opened(account(files.dir.path()));
    assert_eq!(consumer::manifest(&files.dir.path().join(&unmounted.id)).unwrap()["run"], 1);
    for _ in 0..2 {
        mounted.delete_audience(&unmounted.id).await.unwrap();
        assert!(!files.dir.path().join(&unmounted.id).exists());
    }
}

#[tokio::test]
async fn audiences_of_an_earlier_version_have_no_marks_and_are_adopted() {
    let files = Files::new().await;
    let other = files.destination.ensure_audience("throng: others", OWNER).await.unwrap();
    let removed = files.destination.ensure_audience("throng: removed", OWNER).await.unwrap();
    std::fs::remove_dir_all(files.dir.path().join(".throng")).unwrap();
    // It was removed by hand, and the other audiences show that the folder is mounted.
    std::fs::remove_dir_all(files.dir.path().join(&removed.platform_id)).unwrap();
    files.destination.delete_audience(&removed.platform_id).await.unwrap();
    files.set(1, 4).await;
    assert_eq!(consumer::manifest(&files.folder()).unwrap()["run"], 1);
    std::fs::remove_dir_all(files.dir.path().join(&other.platform_id)).unwrap();
    for id in [&other.platform_id, &files.id] {
        for _ in 0..2 {
            files.destination.delete_audience(id).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_missing_folder_is_not_created_and_a_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let below = |name: &str| FileAccount {
        folder: dir.path().join(name),
        root: dir.path().to_owned(),
        ..account(dir.path())
    };
    let missing = opened(below("gone"));
    for error in [
        missing.probe().await.unwrap_err(),
        missing.ensure_audience("a", OWNER).await.unwrap_err(),
        missing.delete_audience("a-1").await.unwrap_err(),
    ] {
        assert_eq!(error.class, SendClass::StopAccount, "{error}");
        assert!(error.message.contains("mount"), "{error}");
    }
    assert!(!dir.path().join("gone").exists());
    symlink(outside.path(), dir.path().join("link")).unwrap();
    let link = opened(below("link"));
    assert!(link.ensure_audience("a", OWNER).await.is_err());
    // A link in place of an audience.
    let existing = opened(account(dir.path()));
    let id = existing.ensure_audience("a", OWNER).await.unwrap().platform_id;
    existing.delete_audience(&id).await.unwrap();
    symlink(outside.path(), dir.path().join(&id)).unwrap();
    let error = existing.ensure_audience("a", OWNER).await.unwrap_err();
    assert!(error.class == SendClass::Stop && error.message.contains("symbolic link"), "{error}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_changed_format_in_a_session_leaves_no_file_of_the_previous_format() {
    let files = Files::new().await;
    files.send(2, 0, Operation::Replace, 0..3, Some((1, false, 0))).await.unwrap();
    let lines =
        opened(FileAccount { format: FileFormat::Jsonl, gzip: true, ..account(files.dir.path()) });
    let files = Files { destination: lines, ..files };
    files.set(2, 4).await;
    assert_eq!(
        files.files(),
        [
            "audience.json",
            "manifest.json",
            "run-0000000002-batch-000000-set.jsonl.gz",
            "run-0000000002-batch-000001-set.jsonl.gz",
        ]
    );
}
