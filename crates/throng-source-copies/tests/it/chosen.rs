//! Updates from a server with keys and failures that a test chooses.

use std::fs;

use throng_model::{Fault, Retry};
use throng_source_copies::{CopyError, CopyReport};

use crate::bucket::files;
use crate::chosen_server::{Answer, Object, Server, object};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markers_of_folders_are_not_files() {
    let server = Server::start().await;
    server.set(vec![
        object("e/", "", "0"),
        object("e/day=1/", "", "0"),
        object("e/day=1/a.csv", "k\n1\n", "1"),
        object("e/day=2/", "", "0"),
        object("e/users.csv/", "", "0"),
    ]);
    let source = server.source();
    let folder = server.copies.folder_of(&source);
    let first = server.copies.update(&source).await.unwrap();
    let expected =
        CopyReport { objects: 1, bytes: 4, downloaded: 1, downloaded_bytes: 4, removed: 0 };
    assert_eq!(first, expected);
    assert_eq!(files(&folder), ["day=1/a.csv"]);
    assert_eq!(server.read(), ["e/day=1/a.csv", "e/day=2", "e/users.csv"]);
    // They are remembered.
    server.copies.update(&source).await.unwrap();
    assert_eq!(server.read(), [""; 0]);
    // The folder gets objects.
    let filled = object("e/users.csv/1.csv", "k\n2\n", "2");
    server.set(vec![object("e/users.csv/", "", "0"), filled]);
    assert_eq!(server.copies.update(&source).await.unwrap().removed, 1);
    assert_eq!(files(&folder), ["users.csv/1.csv"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_cannot_be_files_are_refused_by_name() {
    let server = Server::start().await;
    let source = server.source();
    for (objects, key) in [
        (vec![object("e/a", "1", "1"), object("e/a/b.csv", "2", "2")], "e/a"),
        (vec![object("e/a/", "1", "1"), object("e/a/b.csv", "2", "2")], "e/a"),
        (vec![object("e/", "1", "1")], "e"),
        (vec![object("e/a//b.csv", "1", "1")], "e/a//b.csv"),
        (vec![object("e/../b.csv", "1", "1")], "e/../b.csv"),
        (vec![object("e/./b.csv", "1", "1")], "e/./b.csv"),
    ] {
        server.set(objects);
        let error = server.copies.update(&source).await.unwrap_err();
        assert!(matches!(error, CopyError::Key { .. }), "{key}: {error}");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("the object `{key}` of s3://lake/e cannot be")),
            "{text}"
        );
        assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never));
        assert_eq!(server.read(), [""; 0], "nothing is downloaded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_fails_leaves_the_old_copy() {
    let server = Server::start().await;
    let source = server.source();
    let folder = server.copies.folder_of(&source);
    let read = || ["a.csv", "b.csv"].map(|name| fs::read_to_string(folder.join(name)).unwrap());
    server.set(vec![object("e/a.csv", "k\n1\n", "1"), object("e/b.csv", "k\n1\n", "1")]);
    server.copies.update(&source).await.unwrap();
    for (answer, change) in [
        // Replaced between the listing and the request: by a server that checks the condition, and by one that does
        // not.
        (Answer::Status(412), Some("replaced")),
        (Answer::OtherContent, Some("replaced")),
        (Answer::Status(404), Some("removed")),
        (Answer::Status(403), None),
    ] {
        let changed = object("e/b.csv", "k\n2\n", "2");
        server.set(vec![
            object("e/a.csv", "k\n2\n", "2"),
            Object { answer, ..changed },
            object("e/c.csv", "k\n2\n", "2"),
        ]);
        let error = server.copies.update(&source).await.unwrap_err();
        match (&error, change) {
            (CopyError::Changed { key, change, .. }, Some(expected)) => {
                assert_eq!((key.as_str(), *change), ("e/b.csv", expected));
            }
            (CopyError::Bucket { .. }, None) => {
                let text = throng_model::with_causes(&error);
                assert!(text.contains("`e/b.csv`"), "{text}");
                assert!(text.ends_with("Chosen: chosen by the test"), "{text}");
                assert!(!text.contains("not a secret"), "{text}");
            }
            _ => panic!("{answer:?}: {error:?}"),
        }
        assert_eq!(error.retry(), Retry::Backoff, "{answer:?}");
        assert_eq!(read(), ["k\n1\n", "k\n1\n"], "{answer:?}");
        assert_eq!(files(&folder), ["a.csv", "b.csv"], "{answer:?}");
    }
    let objects = ["e/a.csv", "e/b.csv", "e/c.csv"].map(|key| object(key, "k\n2\n", "2"));
    server.set(Vec::from(objects));
    assert_eq!(server.copies.update(&source).await.unwrap().objects, 3);
    assert_eq!(read(), ["k\n2\n", "k\n2\n"]);
    assert_eq!(files(&folder), ["a.csv", "b.csv", "c.csv"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_without_rows_is_not_read() {
    let server = Server::start().await;
    let source = server.source();
    server.set(vec![
        object("e/d/1.parquet", "1", "1"),
        object("e/d/_delta_log/0.json", "{}", "1"),
        object("e/i/metadata/v1.metadata.json", "{}", "1"),
        object("e/t/.1.csv.crc", "crc", "1"),
        object("e/t/1.csv.bz2", "bz2", "1"),
        object("e/t/_SUCCESS", "done", "1"),
    ]);
    server.copies.update(&source).await.unwrap();
    assert_eq!(server.read(), ["e/d/1.parquet"]);
    let folder = server.copies.folder_of(&source);
    let tables = throng_files::of_folder(&folder, &folder).unwrap().tables;
    let refused: Vec<String> = tables
        .iter()
        .map(|(name, table)| format!("{name}: {}", table.as_ref().unwrap_err()))
        .collect();
    let at = |name: &str| folder.join(name).display().to_string();
    assert_eq!(
        refused,
        [
            format!("d: {} is a Delta table, which is not supported", at("d")),
            format!("i: {} is an Iceberg table, which is not supported", at("i")),
            format!("t: {} cannot be read: it is compressed, but not by gzip", at("t/1.csv.bz2")),
        ]
    );
}
