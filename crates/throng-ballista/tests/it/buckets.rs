//! Sources in the bucket of the S3 server that `cargo xtask test` started.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use throng_backends::BucketCopies;
use throng_lake::{Copies, FileError, KeyBatch, Lake, LakeError, Model};
use throng_model::{ManualClock, Retry, Secret, Timestamp, with_causes};
use throng_objects::{BucketObjects, BucketOptions, Objects, Service};
use throng_spec::{Environment, SecretRef, ServiceSettings, SourceBucket};

use crate::cluster::{JOIN, MODELS, SEED, users};
use crate::{Cluster, files};

const KEYS: [&str; 2] = ["THRONG_S3_ACCESS_KEY", "THRONG_S3_SECRET_KEY"];

fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests by `cargo xtask test`"))
}

/// The source of a cluster as a prefix of the bucket, and the copies of a node.
struct Bucket {
    objects: BucketObjects,
    source: SourceBucket,
    copies: Arc<dyn Copies>,
    clock: Arc<ManualClock>,
}

impl Bucket {
    /// Writes the files of the source as objects.
    async fn of(cluster: &Cluster) -> Self {
        // Fails if a provider is installed already, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = cluster.path("");
        let run = folder.file_name().unwrap().to_str().unwrap().trim_matches('.');
        let prefix = format!("ballista-it-{run}");
        let [key, secret] = KEYS.map(|name| Secret::new(setting(name)));
        let (endpoint, region) = (Some(setting("THRONG_S3")), "us-east-1".to_owned());
        let options = BucketOptions {
            service: Service::S3 {
                endpoint: endpoint.clone(),
                region: region.clone(),
                keys: Some((key, secret)),
                ca_file: None,
            },
            bucket: "throng".to_owned(),
            prefix: prefix.clone(),
            cache_bytes: 0,
        };
        let [key, secret] = KEYS.map(|name| SecretRef::Env(name.to_owned()));
        let keys = Some((key, secret));
        let source = SourceBucket {
            name: "throng".to_owned(),
            prefix,
            max_bytes: SourceBucket::MAX_BYTES,
            service: ServiceSettings::S3 { endpoint, region, keys, ca_file: None, insecure: false },
        };
        let env: Environment = Arc::new(|name: &str| std::env::var(name).ok());
        let clock = Arc::new(ManualClock::new(Timestamp(1_795_600_800_000_000)));
        let shared = Arc::clone(&clock);
        let copies = Arc::new(BucketCopies::of_node(&cluster.path("node"), env, shared));
        let objects = BucketObjects::open(cluster.path("written"), &options).unwrap();
        let bucket = Self { objects, source, copies, clock };
        for name in names(&cluster.shop()) {
            bucket.put(&name, std::fs::read(cluster.shop().join(&name)).unwrap()).await;
        }
        bucket
    }

    /// Writes an object, also in the place of another one.
    async fn put(&self, name: &str, content: Vec<u8>) {
        let found = self.objects.load(name).await.unwrap().map(|found| found.version);
        self.objects.compare_and_swap(name, content, found.as_deref()).await.unwrap().unwrap();
    }

    /// The file that gives this prefix, or another one, to executors.
    fn file(&self, cluster: &Cluster, prefix: &str) -> PathBuf {
        let [key, secret] = KEYS;
        let text = format!(
            "version: 1\nbuckets:\n  - prefix: s3://throng/{prefix}\n    s3:\n      endpoint: {}\n      \
             access_key: env:{key}\n      secret_key: env:{secret}\n",
            setting("THRONG_S3")
        );
        let path = cluster.path("buckets.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A lake over the bucket, whose queries run on the cluster.
    fn lake(&self, cluster: &Cluster) -> Lake {
        let lake = cluster.lake_of(Some(self.source.clone()), Some(&self.copies));
        lake.on_cluster(cluster.options(None, true))
    }
}

/// The files of a folder and of the folders in it, as relative paths.
fn names(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn join() -> Model {
    Model { sql: JOIN.to_owned(), key: None, source: None, parameters: Vec::new() }
}

#[tokio::test]
async fn executors_read_the_objects_of_a_bucket() {
    let mut cluster = Cluster::new();
    files::write(&cluster).await;
    let bucket = Bucket::of(&cluster).await;
    cluster.buckets = Some(bucket.file(&cluster, &bucket.source.prefix));
    cluster.start(2);
    let (alone, distributed) = (cluster.lake(), bucket.lake(&cluster));
    for sql in MODELS {
        let expected = users(&alone, sql).await.unwrap();
        assert!(!expected.is_empty(), "{sql}");
        assert_eq!(users(&distributed, sql).await.unwrap(), expected, "{sql}");
    }
    let cached: Vec<String> = (0..2)
        .flat_map(|executor| names(&cluster.object_cache(executor).join("objects")))
        .collect();
    for name in ["-users.json", "-5.csv", "-a.parquet", "-b.parquet"] {
        assert!(cached.iter().any(|cached| cached.ends_with(name)), "{name}: {cached:?}");
    }
    assert!((0..2).any(|executor| cluster.has_output(executor)), "no query ran on the cluster");
}

#[tokio::test]
async fn an_object_that_was_replaced_after_planning_is_not_read() {
    let mut cluster = Cluster::new();
    files::write(&cluster).await;
    let bucket = Bucket::of(&cluster).await;
    cluster.buckets = Some(bucket.file(&cluster, &bucket.source.prefix));
    cluster.start(2);
    let lake = bucket.lake(&cluster);
    let (_, parts) = lake.plan_scan(&join(), &[]).await.unwrap();
    let before = users(&cluster.lake(), JOIN).await.unwrap();
    // Of the same size: only the ETag is another one.
    let text = std::fs::read_to_string(cluster.shop().join("users.json")).unwrap();
    let text = text.replace("\"region\": \"north\"", "\"region\":  \"east\"");
    bucket.put("users.json", text.clone().into_bytes()).await;
    let mut sink = |_: KeyBatch| Ok(());
    let error = lake.scan(&join(), &parts[0], SEED, &mut sink).await.unwrap_err();
    let LakeError::File(FileError::Changed { path }) = &error else { panic!("{error:?}") };
    assert_eq!(path.display().to_string(), format!("{}/users.json", bucket.source.url()));
    assert_eq!(error.retry(), Retry::Backoff);
    // The copy follows, and with it the executors.
    bucket.clock.advance(Duration::from_secs(60));
    cluster.file("users.json", text);
    let expected = users(&cluster.lake(), JOIN).await.unwrap();
    assert_ne!(expected, before);
    assert_eq!(users(&lake, JOIN).await.unwrap(), expected);
}

#[tokio::test]
async fn an_executor_without_the_bucket_fails_the_query_and_says_why() {
    let mut cluster = Cluster::new();
    files::write(&cluster).await;
    let bucket = Bucket::of(&cluster).await;
    cluster.buckets = Some(bucket.file(&cluster, "another-prefix"));
    cluster.start(1);
    let error = users(&bucket.lake(&cluster), JOIN).await.unwrap_err();
    let text = with_causes(&error);
    assert!(text.contains(&bucket.source.url().to_string()), "{text}");
    assert!(text.contains("`--buckets`"), "{text}");
    assert!(error.help().unwrap().contains("every executor"), "{error:?}");
    assert_eq!(error.retry(), Retry::Never);
}
