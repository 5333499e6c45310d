//! Sources in buckets: when their copies are updated, and what is shown of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use throng_lake::{
    ClusterOptions, Copies, CopyFailure, FileError, InputQuery, InputState, Lake, LakeError,
    LakeLimits, Wait, WorkerCommand,
};
use throng_model::{Fault, Retry};
use throng_spec::{BallistaSettings, ServiceSettings, Source, SourceBucket};

use crate::{Shop, model, scan};

const SQL: &str = "SELECT id FROM lake.t";

/// Copies that an update writes: in each update after the first, the objects are others.
#[derive(Debug)]
struct TestCopies {
    folder: PathBuf,
    updates: AtomicU32,
}

#[async_trait]
impl Copies for TestCopies {
    fn folder(&self, _: &SourceBucket) -> PathBuf {
        std::fs::create_dir_all(self.folder.join("t")).unwrap();
        self.folder.clone()
    }

    async fn update(&self, bucket: &SourceBucket, _: Wait) -> Result<(), CopyFailure> {
        if bucket.name == "gone" {
            return Err(CopyFailure {
                message: "cannot copy s3://gone".to_owned(),
                help: "create it".to_owned(),
                fault: Fault::User,
                retry: Retry::Backoff,
                is_running: false,
            });
        }
        let updates = self.updates.fetch_add(1, Ordering::Relaxed);
        for file in ["1.csv", "2.csv"] {
            let text = "id\n".to_owned() + &"u1\n".repeat(updates.min(1) as usize + 1);
            write_once(&self.folder.join("t").join(file), &text);
        }
        Ok(())
    }

    fn retain(&self, _: &[&SourceBucket]) {}
}

/// Leaves a file with this text as it is.
fn write_once(path: &Path, text: &str) {
    if std::fs::read_to_string(path).ok().as_deref() != Some(text) {
        std::fs::write(path, text).unwrap();
    }
}

fn source(name: &str, bucket: &str) -> Source {
    Source {
        name: name.parse().unwrap(),
        path: format!("s3://{bucket}/a").into(),
        root: None,
        description: None,
        columns: Vec::new(),
        trim: false,
        header: None,
        bucket: Some(SourceBucket {
            name: bucket.to_owned(),
            prefix: "a".to_owned(),
            max_bytes: 1000,
            service: ServiceSettings::of_machine(false),
        }),
    }
}

/// A lake over the buckets `exports` and `gone`, and the number of updates.
fn lake(shop: &Shop) -> (Lake, Arc<TestCopies>) {
    let copies = Arc::new(TestCopies { folder: shop.folder(), updates: AtomicU32::new(0) });
    let limits = LakeLimits {
        memory_bytes: 1 << 30,
        spill_dir: shop.spill(),
        threads: 2,
        queries: 1,
        timeout: Duration::from_secs(600),
        worker: WorkerCommand::of(env!("CARGO_BIN_EXE_lake-query-worker")),
    };
    let sources = [source("lake", "exports"), source("old", "gone")];
    let shared = Arc::clone(&copies) as Arc<dyn Copies>;
    (Lake::new(&sources, limits, Some(&shared)).unwrap(), copies)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_scanned_without_an_update_while_its_files_are_as_planned() {
    let shop = Shop::new();
    let (lake, copies) = lake(&shop);
    let updates = || copies.updates.load(Ordering::Relaxed);
    let model = model(SQL);
    let (info, parts) = lake.plan_scan(&model, &[]).await.unwrap();
    assert_eq!((info.files, parts.len(), updates()), (2, 2, 1));
    scan(&lake, &model, &parts[0]).await.unwrap();
    assert_eq!(updates(), 1);
    // Another node planned it, and this one has no copy: the objects of now are others.
    std::fs::remove_file(shop.folder().join("t/2.csv")).unwrap();
    let error = scan(&lake, &model, &parts[1]).await.unwrap_err();
    let LakeError::File(FileError::Changed { path }) = error else { panic!("{error:?}") };
    assert_eq!((path.as_path(), updates()), (Path::new("s3://exports/a/t/2.csv"), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_in_a_bucket_is_not_read_by_a_cluster() {
    let shop = Shop::new();
    // Nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = "127.0.0.1".to_owned();
    let settings = BallistaSettings { host, port, tls: None, partitions: 2, buckets: false };
    let lake = lake(&shop).0.on_cluster(ClusterOptions::of(&settings).unwrap());
    let rows = async |sql: &str| {
        let model = model(sql);
        let (_, parts) = lake.plan_scan(&model, &[]).await.unwrap();
        scan(&lake, &model, &parts[0]).await
    };
    assert!(rows("SELECT a.id FROM lake.t a JOIN lake.t b ON a.id = b.id").await.is_ok());
    let error = rows("SELECT max(n) AS id FROM (VALUES ('a'), ('b')) AS v(n)").await.unwrap_err();
    let LakeError::Engine { doing, .. } = &error else { panic!("{error:?}") };
    assert_eq!(doing, "connecting to the scheduler of the cluster");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_in_a_bucket_is_read_by_a_cluster_that_reads_buckets() {
    let shop = Shop::new();
    // Nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = "127.0.0.1".to_owned();
    let settings = BallistaSettings { host, port, tls: None, partitions: 2, buckets: true };
    let (lake, copies) = lake(&shop);
    let lake = lake.on_cluster(ClusterOptions::of(&settings).unwrap());
    let model = model("SELECT a.id FROM lake.t a JOIN lake.t b ON a.id = b.id");
    let (_, parts) = lake.plan_scan(&model, &[]).await.unwrap();
    let error = scan(&lake, &model, &parts[0]).await.unwrap_err();
    let LakeError::Engine { doing, .. } = &error else { panic!("{error:?}") };
    assert_eq!(doing, "connecting to the scheduler of the cluster");
    assert_eq!(copies.updates.load(Ordering::Relaxed), 1, "its files are as they were planned");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_read_fails_only_the_queries_that_name_it() {
    let shop = Shop::new();
    let (lake, _) = lake(&shop);
    let old = "SELECT id FROM old.t";
    let error = lake.plan_scan(&model(old), &[]).await.unwrap_err();
    assert!(matches!(error, LakeError::Copy(_)), "{error:?}");
    assert_eq!((error.help().as_deref(), error.retry()), (Some("create it"), Retry::Backoff));
    let query =
        |sql: &str| InputQuery { sql: sql.to_owned(), refuses_time: false, success_file: None };
    let states = lake.input_states(&[query(SQL), query(old)]).await.unwrap();
    assert!(matches!(states[0], InputState::Ready(_)), "{states:?}");
    assert_eq!(states[1], InputState::Refused("cannot copy s3://gone".to_owned()));
    let listed = lake.list().await.unwrap();
    assert_eq!(listed[0].path, Path::new("s3://exports/a"));
    assert_eq!(listed[0].tables[0].files[0].path, Path::new("s3://exports/a/t/1.csv"));
    assert_eq!(listed[1].path, Path::new("s3://gone/a"));
    assert!(listed[1].tables.is_empty(), "{listed:?}");
    assert_eq!(listed[1].refused.as_ref().unwrap().message, "cannot copy s3://gone");
}
