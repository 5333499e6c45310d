//! Every backend passes the test suite of object stores.

#![expect(clippy::unwrap_used, reason = "tests: a panic is how a case fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use throng_model::Secret;
use throng_objects::conformance::{ObjectsBackend, suite};
use throng_objects::{
    BucketObjects, BucketOptions, DirectoryObjects, Objects, ObjectsError, Service, SourceBucket,
};

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
        let folder = self.local.path().join(number.to_string());
        BucketObjects::open(folder, &self.options(prefix)).unwrap()
    }

    fn options(&self, prefix: &str) -> BucketOptions {
        let keys =
            ["THRONG_S3_ACCESS_KEY", "THRONG_S3_SECRET_KEY"].map(|n| Secret::new(setting(n)));
        let [key, secret] = keys;
        BucketOptions {
            service: Service::S3 {
                endpoint: Some(setting("THRONG_S3")),
                region: "us-east-1".to_owned(),
                keys: Some((key, secret)),
                ca_file: None,
            },
            bucket: "throng".to_owned(),
            prefix: format!("objects-it-{}/{prefix}", self.run),
            cache_bytes: 0,
        }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_others_are_read_as_they_were_listed() {
    let s3 = s3();
    let writer = s3.bucket("source");
    // More than one request, and not a multiple of the bytes of one.
    let large: Vec<u8> =
        (0..40_000_003u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let written = [
        ("a/b/1.csv", b"k\n1\n".to_vec()),
        ("a/empty.csv", Vec::new()),
        ("a/large.csv", large),
        ("ab/1.csv", b"k\n2\n".to_vec()),
    ];
    for (name, bytes) in &written {
        let path = writer.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        writer.upload(name).await.unwrap();
    }
    let options = s3.options("source/a");
    let reader = SourceBucket::open(&options).unwrap();
    let listed = reader.list(10).await.unwrap();
    let names: Vec<&str> = listed
        .iter()
        .map(|object| object.key.strip_prefix(&format!("{}/", options.prefix)).unwrap())
        .collect();
    // Without `ab`: a prefix matches whole parts of keys.
    assert_eq!(names, ["b/1.csv", "empty.csv", "large.csv"]);
    assert_eq!(reader.list(2).await.unwrap().len(), 2);
    let to = s3.local.path().join("downloaded");
    for (object, (name, bytes)) in listed.iter().zip(&written) {
        assert_eq!(object.bytes, bytes.len() as u64, "{name}");
        assert!(object.etag.is_some() && object.modified.0 > 1_600_000_000_000_000, "{object:?}");
        reader.download(object, &to).await.unwrap();
        assert!(std::fs::read(&to).unwrap() == *bytes, "{name}");
    }
    // Content of the same size, between the listing and the request.
    let version = writer.load("a/b/1.csv").await.unwrap().unwrap().version;
    let other = b"k\n7\n".to_vec();
    writer.compare_and_swap("a/b/1.csv", other, Some(&version)).await.unwrap().unwrap();
    let error = reader.download(&listed[0], &to).await.unwrap_err();
    assert!(matches!(error, ObjectsError::Replaced { .. }), "{error}");
    assert!(!to.exists());
    writer.remove("a/empty.csv").await.unwrap();
    let error = reader.download(&listed[1], &to).await.unwrap_err();
    assert!(matches!(error, ObjectsError::Missing { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_of_others_that_does_not_exist_is_named_so() {
    let options = BucketOptions { bucket: "no-such-bucket".to_owned(), ..s3().options("source") };
    let error = SourceBucket::open(&options).unwrap().list(1).await.unwrap_err();
    assert!(matches!(error, ObjectsError::Settings { .. }), "{error}");
    assert!(error.to_string().contains("there is no such bucket"), "{error}");
}
