//! Batches in the bucket of the S3 server that `cargo xtask test` started, read through copies as query workers do.

use std::sync::Arc;

use throng_ingest::BucketLake;
use throng_model::Secret;
use throng_objects::{BucketObjects, BucketOptions, Service};
use throng_source_copies::{SourceCopies, SourceOptions};

use super::bucket::{node, send};
use super::{NOW, rows_of};

fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests by `cargo xtask test`"))
}

fn options(prefix: &str) -> BucketOptions {
    let [key, secret] =
        ["THRONG_S3_ACCESS_KEY", "THRONG_S3_SECRET_KEY"].map(|name| Secret::new(setting(name)));
    BucketOptions {
        service: Service::S3 {
            endpoint: Some(setting("THRONG_S3")),
            region: "us-east-1".to_owned(),
            keys: Some((key, secret)),
            ca_file: None,
        },
        bucket: "throng".to_owned(),
        prefix: prefix.to_owned(),
        cache_bytes: 0,
    }
}

#[test]
fn batches_of_two_nodes_are_read_through_copies() {
    // Fails if a provider is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().file_name().unwrap().to_str().unwrap().trim_matches('.').to_owned();
    let prefix = format!("ingest-it-{run}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let opened = |name: &str| {
        let root = dir.path().join(name).join("lake");
        let objects = Arc::new(BucketObjects::open(root, &options(&prefix)).unwrap());
        let lake = BucketLake::new(objects, "s3://throng".to_owned(), runtime.handle().clone());
        node(&dir.path().join(name), lake, NOW)
    };
    let (one, two) = (opened("one"), opened("two"));
    let copies = SourceCopies::new(dir.path().join("sources"));
    let bucket = options(&format!("{prefix}/default"));
    let source = SourceOptions { bucket, max_bytes: 1 << 30 };
    let read = || {
        runtime.block_on(copies.update(&source)).unwrap();
        rows_of(&copies.folder_of(&source)).len()
    };
    let days =
        "email,seen\na@example.com,2026-11-24\nb@example.com,2026-11-25\nnobody,2026-11-25\n";
    let report = send(&one, "b", days).unwrap();
    assert_eq!((report.accepted, report.files, read()), (2, 2, 2));
    assert!(send(&two, "b", days).unwrap().repeated);
    let more = "email,seen\nc@example.com,2026-11-25\n";
    assert!(!send(&two, "c", more).unwrap().repeated);
    assert!(send(&one, "c", more).unwrap().repeated);
    assert_eq!(read(), 3);
    // Nothing of them stays on the disks of the nodes, except what is in quarantine.
    for name in ["one", "two"] {
        let mut folders = vec![dir.path().join(name).join("lake")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                assert!(path.is_dir(), "{}", path.display());
                folders.push(path);
            }
        }
    }
}
