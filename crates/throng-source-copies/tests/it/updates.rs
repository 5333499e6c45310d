//! Updates from an S3 server.

use std::fs;

use throng_files::{FileStamp, of_folder};
use throng_model::{Fault, Retry};
use throng_objects::BucketOptions;
use throng_source_copies::{CopyError, CopyReport, SourceOptions};

use crate::bucket::{Bucket, files};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_follows_its_bucket() {
    let bucket = Bucket::new();
    for (name, content) in [
        ("lake/users/day=1/1.csv", "k\n1\n"),
        ("lake/users/_SUCCESS", ""),
        ("lake/users/notes.txt", "notes"),
        ("lake/orders.csv.zst", "not read"),
        ("lakes/1.csv", "k\n9\n"),
    ] {
        bucket.put(name, content).await;
    }
    let (copies, source) = (bucket.node("one"), bucket.source("lake"));
    let folder = copies.folder_of(&source);
    let read = |path: &str| fs::read_to_string(folder.join(path)).unwrap();

    let first = copies.update(&source).await.unwrap();
    let all = CopyReport { objects: 4, bytes: 4, downloaded: 1, downloaded_bytes: 4, removed: 0 };
    assert_eq!(first, all);
    assert_eq!(
        files(&folder),
        ["orders.csv.zst", "users/_SUCCESS", "users/day=1/1.csv", "users/notes.txt"]
    );
    assert_eq!(read("users/day=1/1.csv"), "k\n1\n");
    // Its size is that of the object, and its content was not downloaded.
    assert_eq!(read("users/notes.txt"), "\0".repeat(5));
    let found = of_folder(&folder, &folder).unwrap();
    assert_eq!(found.tables["users"].as_ref().unwrap().passed_over.len(), 2);
    assert!(found.tables["orders"].as_ref().unwrap_err().to_string().contains("compressed"));

    let nothing = CopyReport { downloaded: 0, downloaded_bytes: 0, ..all };
    assert_eq!(copies.update(&source).await.unwrap(), nothing);

    // Other content of the same size.
    bucket.put("lake/users/day=1/1.csv", "k\n2\n").await;
    assert_eq!(copies.update(&source).await.unwrap(), all);
    assert_eq!(read("users/day=1/1.csv"), "k\n2\n");

    bucket.put("lake/users/day=2/1.csv", "k\n33\n").await;
    bucket.remove("lake/users/day=1/1.csv").await;
    let changed = copies.update(&source).await.unwrap();
    let expected =
        CopyReport { objects: 4, bytes: 5, downloaded: 1, downloaded_bytes: 5, removed: 1 };
    assert_eq!(changed, expected);
    assert_eq!(read("users/day=2/1.csv"), "k\n33\n");
    assert!(!folder.join("users/day=1").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_and_deleted_files_are_downloaded_again() {
    let bucket = Bucket::new();
    bucket.put("lake/1.csv", "k\n1\n").await;
    let (copies, source) = (bucket.node("one"), bucket.source("lake"));
    copies.update(&source).await.unwrap();
    let file = copies.folder_of(&source).join("1.csv");
    for damaged in [Some("k\n7\n"), Some("k\n"), None] {
        fs::remove_file(&file).unwrap();
        if let Some(content) = damaged {
            fs::write(&file, content).unwrap();
        }
        assert_eq!(copies.update(&source).await.unwrap().downloaded, 1, "{damaged:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "k\n1\n", "{damaged:?}");
    }
    // The index is lost.
    fs::write(copies.folder_of(&source).parent().unwrap().join("index.json"), "{").unwrap();
    assert_eq!(copies.update(&source).await.unwrap().downloaded, 1);
    assert_eq!(copies.update(&source).await.unwrap().downloaded, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stamps_are_equal_on_all_nodes() {
    let bucket = Bucket::new();
    for (name, content) in
        [("lake/t/1.csv", "k\n1\n"), ("lake/t/_SUCCESS", "done"), ("lake/t/x.txt", "x")]
    {
        bucket.put(name, content).await;
    }
    let (one, two, source) = (bucket.node("one"), bucket.node("two"), bucket.source("lake"));
    one.update(&source).await.unwrap();
    let stamps = |folder: std::path::PathBuf| -> Vec<(String, u64, u64)> {
        let stamp = |path: String| {
            let FileStamp { bytes, modified, .. } = FileStamp::of(&folder.join(&path)).unwrap();
            (path, bytes, modified)
        };
        files(&folder).into_iter().map(stamp).collect()
    };
    let first = stamps(one.folder_of(&source));
    // In whole microseconds, as no file that was just written is.
    assert!(first.iter().all(|(_, _, modified)| modified % 1_000 == 0), "{first:?}");
    two.update(&source).await.unwrap();
    assert_eq!(stamps(two.folder_of(&source)), first);
    bucket.put("lake/t/1.csv", "k\n2\n").await;
    bucket.put("lake/t/_SUCCESS", "done again").await;
    two.update(&source).await.unwrap();
    one.update(&source).await.unwrap();
    let second = stamps(one.folder_of(&source));
    assert_eq!(stamps(two.folder_of(&source)), second);
    assert_eq!(second.len(), 3);
    // It has the size of the first one, and may have been written in the same second.
    assert_ne!(second[0], first[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_updates_download_once() {
    let bucket = Bucket::new();
    for name in ["lake/1.csv", "lake/2.csv", "lake/3.csv"] {
        bucket.put(name, "k\n1\n").await;
    }
    // Two that share a lock of the process, and one that has only the lock file.
    let (one, other) = (bucket.node("same"), bucket.node("same"));
    let source = bucket.source("lake");
    let (first, second, third) =
        tokio::join!(one.update(&source), one.update(&source), other.update(&source));
    let reports = [first.unwrap(), second.unwrap(), third.unwrap()];
    assert_eq!(reports.iter().map(|report| report.downloaded).sum::<u64>(), 3, "{reports:?}");
    assert!(reports.iter().all(|report| report.objects == 3), "{reports:?}");
    assert_eq!(files(&one.folder_of(&source)), ["1.csv", "2.csv", "3.csv"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_without_objects_is_an_error_unless_it_had_some() {
    let bucket = Bucket::new();
    bucket.put("lake/users/1.csv", "k\n1\n").await;
    let copies = bucket.node("one");
    // A part of a name is not a prefix.
    let error = copies.update(&bucket.source("lake/user")).await.unwrap_err();
    assert!(matches!(error, CopyError::Empty { .. }), "{error}");
    assert!(error.to_string().starts_with("there are no objects below s3://throng/"), "{error}");
    assert!(error.to_string().ends_with("/lake/user"), "{error}");
    assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Backoff));
    let source = bucket.source("lake/users");
    copies.update(&source).await.unwrap();
    bucket.remove("lake/users/1.csv").await;
    let emptied = copies.update(&source).await.unwrap();
    assert_eq!(emptied, CopyReport { removed: 1, ..CopyReport::default() });
    assert_eq!(files(&copies.folder_of(&source)), [""; 0]);
    assert_eq!(copies.update(&source).await.unwrap(), CopyReport::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_max_bytes_are_refused_before_the_first_download() {
    let bucket = Bucket::new();
    bucket.put("lake/1.csv", "k\n1\n").await;
    bucket.put("lake/2.csv", "k\n22\n").await;
    // Not read, so it takes no space.
    bucket.put("lake/3.txt", "0123456789").await;
    let copies = bucket.node("one");
    let source = SourceOptions { max_bytes: 8, ..bucket.source("lake") };
    let error = copies.update(&source).await.unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("have 9 bytes, and `max_bytes` of the source is 8"), "{text}");
    assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never));
    assert_eq!(files(copies.folder_of(&source).parent().unwrap()), ["lock"]);
    let source = SourceOptions { max_bytes: 9, ..source };
    assert_eq!(copies.update(&source).await.unwrap().downloaded, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_does_not_exist_is_an_error_of_the_settings() {
    let bucket = Bucket::new();
    let source = bucket.source("lake");
    let options = BucketOptions { bucket: "no-such-bucket".to_owned(), ..source.bucket };
    let source = SourceOptions { bucket: options, max_bytes: source.max_bytes };
    let error = bucket.node("one").update(&source).await.unwrap_err();
    assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never));
    let text = throng_model::with_causes(&error);
    assert!(text.starts_with("cannot copy the objects below s3://no-such-bucket/"), "{text}");
    assert!(text.contains("there is no such bucket"), "{text}");
}
