//! A cache of single objects.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use throng_model::Retry;
use throng_objects::BucketOptions;
use throng_source_copies::{CachedObject, CopyError, ObjectCache};

use crate::bucket::files;
use crate::chosen_server::{Answer, Object, Server, object};

const MODIFIED: u64 = 1_795_600_800_000_001_000;

/// An object of four bytes.
fn named(key: &str, etag: &str) -> CachedObject {
    CachedObject {
        bucket: "s3://lake".to_owned(),
        key: key.to_owned(),
        etag: etag.to_owned(),
        bytes: 4,
        modified: MODIFIED,
    }
}

fn open(server: &Server, folder: &Path, max_bytes: u64) -> Arc<ObjectCache> {
    let bucket: BucketOptions = server.source().bucket;
    Arc::new(ObjectCache::open(folder.to_owned(), max_bytes, &[bucket]).unwrap())
}

async fn server() -> Server {
    let server = Server::start().await;
    let contents = [("e/a.csv", "k\n1\n"), ("e/b.csv", "k\n2\n"), ("e/c.csv", "k\n3\n")];
    server.set(contents.map(|(key, content)| object(key, content, "1")).to_vec());
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_downloaded_once_for_all_who_read_it() {
    let (server, dir) = (server().await, tempfile::tempdir().unwrap());
    let cache = open(&server, dir.path(), 100);
    let (a, b) = (named("e/a.csv", "1"), named("e/b.csv", "1"));
    let asked = (0..8).map(|_| Arc::clone(&cache).hold(vec![a.clone(), b.clone(), a.clone()]));
    let held = futures::future::join_all(asked).await;
    assert!(held.iter().all(Result::is_ok), "{held:?}");
    assert_eq!(server.read(), ["e/a.csv", "e/b.csv"]);
    let path = cache.path_of(&a);
    assert_eq!(fs::read_to_string(&path).unwrap(), "k\n1\n");
    let found = fs::metadata(&path).unwrap();
    assert_eq!(found.modified().unwrap(), UNIX_EPOCH + Duration::from_nanos(MODIFIED));
    assert_eq!(found.permissions().mode() & 0o777, 0o400);
    assert!(path.to_str().unwrap().ends_with("-a.csv"), "{}", path.display());
    // Another content of the key is another object.
    assert_ne!(cache.path_of(&named("e/a.csv", "2")), path);
    drop(held);
    let _again = Arc::clone(&cache).hold(vec![a]).await.unwrap();
    assert_eq!(server.read(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_with_another_content_is_refused() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let cache = open(&server, dir.path(), 100);
    let a = named("e/a.csv", "1");
    for (answer, content, etag, expected) in [
        (Answer::Status(412), "k\n1\n", "1", "replaced"),
        // Servers that do not know the condition.
        (Answer::OtherContent, "k\n1\n", "1", "replaced"),
        (Answer::Content, "k\n1\n", "2", "replaced"),
        (Answer::Content, "k\n17\n", "1", "replaced"),
        (Answer::Status(404), "k\n1\n", "1", "removed"),
    ] {
        server.set(vec![Object { answer, ..object("e/a.csv", content, etag) }]);
        let error = Arc::clone(&cache).hold(vec![a.clone()]).await.unwrap_err();
        let CopyError::Changed { key, change, .. } = &error else { panic!("{error:?}") };
        assert_eq!((key.as_str(), *change), ("e/a.csv", expected), "{answer:?}");
        assert_eq!(error.retry(), Retry::Backoff);
        assert_eq!(files(dir.path()), ["lock"]);
    }
    server.set(vec![object("e/a.csv", "k\n1\n", "1")]);
    let _held = Arc::clone(&cache).hold(vec![a]).await.unwrap();
    assert_eq!(files(dir.path()).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_nobody_reads_are_removed_when_there_is_no_room() {
    let (server, dir) = (server().await, tempfile::tempdir().unwrap());
    let cache = open(&server, dir.path(), 8);
    let [a, b, c] = ["e/a.csv", "e/b.csv", "e/c.csv"].map(|key| named(key, "1"));
    let hold = async |object: &CachedObject| Arc::clone(&cache).hold(vec![object.clone()]).await;
    let is_there = |object: &CachedObject| cache.path_of(object).exists();
    drop(hold(&a).await.unwrap());
    drop(hold(&b).await.unwrap());
    drop(hold(&a).await.unwrap());
    // The one that was used least recently.
    let held = hold(&c).await.unwrap();
    assert!(is_there(&a) && !is_there(&b) && is_there(&c));
    let also_held = hold(&a).await.unwrap();
    let error = hold(&b).await.unwrap_err();
    assert!(matches!(error, CopyError::CacheFull { needed_bytes: 12, max_bytes: 8 }), "{error:?}");
    assert!(is_there(&a) && !is_there(&b) && is_there(&c));
    drop(held);
    let _b = hold(&b).await.unwrap();
    assert!(is_there(&a) && is_there(&b) && !is_there(&c));
    drop(also_held);
    let counts = server.read();
    assert_eq!(counts, ["e/a.csv", "e/b.csv", "e/b.csv", "e/c.csv"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_leaves_is_used_only_if_it_is_complete() {
    let (server, dir) = (server().await, tempfile::tempdir().unwrap());
    let cache = open(&server, dir.path(), 100);
    let (a, b) = (named("e/a.csv", "1"), named("e/b.csv", "1"));
    drop(Arc::clone(&cache).hold(vec![a.clone(), b.clone()]).await.unwrap());
    let (of_a, of_b) = (cache.path_of(&a), cache.path_of(&b));
    let in_use = ObjectCache::open(dir.path().to_owned(), 100, &[]).unwrap_err();
    assert!(throng_model::with_causes(&in_use).contains("another process uses it"));
    drop(cache);
    server.read();
    // Killed when a download was complete and not yet in its place, or when it was not complete.
    fs::rename(&of_b, dir.path().join("staging/7.tmp")).unwrap();
    fs::write(dir.path().join("staging/8.tmp"), "k\n").unwrap();
    let cache = open(&server, dir.path(), 100);
    assert_eq!(files(&dir.path().join("staging")), [""; 0]);
    drop(Arc::clone(&cache).hold(vec![a.clone(), b]).await.unwrap());
    assert_eq!(server.read(), ["e/b.csv"]);
    // A damaged file.
    fs::remove_file(&of_a).unwrap();
    fs::write(&of_a, "k\n7\n").unwrap();
    drop(Arc::clone(&cache).hold(vec![a]).await.unwrap());
    assert_eq!(server.read(), ["e/a.csv"]);
    assert_eq!(fs::read_to_string(&of_a).unwrap(), "k\n1\n");
    drop(cache);
    // With less room it has less.
    drop(open(&server, dir.path(), 4));
    assert_eq!(files(&dir.path().join("objects")).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_other_prefixes_are_not_read() {
    let (server, dir) = (server().await, tempfile::tempdir().unwrap());
    let cache = open(&server, dir.path(), 100);
    let other = CachedObject { bucket: "gs://lake".to_owned(), ..named("e/a.csv", "1") };
    for object in [named("a.csv", "1"), named("ex/a.csv", "1"), other] {
        let url = format!("{}/{}", object.bucket, object.key);
        let error = Arc::clone(&cache).hold(vec![object]).await.unwrap_err();
        let CopyError::NoAccess { object } = &error else { panic!("{error:?}") };
        assert_eq!((object, error.retry()), (&url, Retry::Never));
    }
    assert_eq!(server.read(), [""; 0]);
}
