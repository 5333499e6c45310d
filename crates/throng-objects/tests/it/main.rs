//! Every backend passes the test suite of object stores.

#![expect(clippy::unwrap_used, reason = "tests: a panic is how a case fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use throng_model::Secret;
use throng_objects::conformance::{ObjectsBackend, suite};
use throng_objects::{BucketObjects, BucketOptions, DirectoryObjects, Objects, Service};

struct Directory(tempfile::TempDir);

#[async_trait]
impl ObjectsBackend for Directory {
    async fn node(&self, name: &str) -> Arc<dyn Objects> {
        Arc::new(DirectoryObjects::open(self.0.path().join(name)).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_passes() {
    suite(&Directory(tempfile::tempdir().unwrap())).await;
}

/// The S3 server that `cargo xtask test` started.
struct S3 {
    local: tempfile::TempDir,
    nodes: AtomicU32,
    run: String,
}

fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests by `cargo xtask test`"))
}

impl S3 {
    fn bucket(&self, prefix: &str) -> BucketObjects {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed);
        let keys =
            ["THRONG_S3_ACCESS_KEY", "THRONG_S3_SECRET_KEY"].map(|n| Secret::new(setting(n)));
        let [key, secret] = keys;
        let settings = BucketOptions {
            service: Service::S3 {
                endpoint: Some(setting("THRONG_S3")),
                region: "us-east-1".to_owned(),
                keys: Some((key, secret)),
                ca_file: None,
            },
            bucket: "throng".to_owned(),
            prefix: format!("objects-it-{}/{prefix}", self.run),
            cache_bytes: 0,
        };
        BucketObjects::open(self.local.path().join(number.to_string()), &settings).unwrap()
    }
}

#[async_trait]
impl ObjectsBackend for S3 {
    async fn node(&self, name: &str) -> Arc<dyn Objects> {
        Arc::new(self.bucket(name))
    }
}

fn s3() -> S3 {
    // Fails if a provider is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let local = tempfile::tempdir().unwrap();
    let run = local.path().file_name().unwrap().to_str().unwrap().trim_matches('.').to_owned();
    S3 { local, nodes: AtomicU32::new(0), run }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_passes() {
    suite(&s3()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_and_buckets_are_reported_in_one_line() {
    let (server, key) = (setting("THRONG_S3"), Secret::new(setting("THRONG_S3_ACCESS_KEY")));
    let local = tempfile::tempdir().unwrap();
    let check = async |bucket: &str, secret: &str| {
        let keys = Some((key.clone(), Secret::new(secret)));
        let settings = BucketOptions {
            service: Service::S3 {
                endpoint: Some(server.clone()),
                region: "us-east-1".into(),
                keys,
                ca_file: None,
            },
            bucket: bucket.to_owned(),
            prefix: String::new(),
            cache_bytes: 0,
        };
        let objects = BucketObjects::open(local.path().to_owned(), &settings).unwrap();
        let error = objects.check("wrong").await.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        (error.to_string(), cause.unwrap_or_default())
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (error, cause) = check("throng", "not the secret").await;
    assert!(cause.starts_with("SignatureDoesNotMatch: "), "{error}: {cause}");
    assert!(!cause.contains('<') && !cause.contains('\n'), "{cause}");
    let (error, _) = check("no-such-bucket", &setting("THRONG_S3_SECRET_KEY")).await;
    assert!(error.contains("there is no such bucket"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_checked_by_using_it() {
    s3().bucket("checked").check("one").await.unwrap();
}
