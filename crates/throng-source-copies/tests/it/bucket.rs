//! A prefix in the bucket of the S3 server that `cargo xtask test` started.

use std::path::{Path, PathBuf};

use throng_model::Secret;
use throng_objects::{BucketObjects, BucketOptions, Objects, Service};
use throng_source_copies::{SourceCopies, SourceOptions};

fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests by `cargo xtask test`"))
}

/// The prefix of one test.
pub(crate) struct Bucket {
    objects: BucketObjects,
    options: BucketOptions,
    dir: tempfile::TempDir,
}

impl Bucket {
    pub(crate) fn new() -> Self {
        // Fails if a provider is installed already, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().file_name().unwrap().to_str().unwrap().trim_matches('.').to_owned();
        let [key, secret] =
            ["THRONG_S3_ACCESS_KEY", "THRONG_S3_SECRET_KEY"].map(|name| Secret::new(setting(name)));
        let options = BucketOptions {
            service: Service::S3 {
                endpoint: Some(setting("THRONG_S3")),
                region: "us-east-1".to_owned(),
                keys: Some((key, secret)),
                ca_file: None,
            },
            bucket: "throng".to_owned(),
            prefix: format!("source-copies-it-{run}"),
            cache_bytes: 0,
        };
        let objects = BucketObjects::open(dir.path().join("written"), &options).unwrap();
        Self { objects, options, dir }
    }

    /// Writes an object, also in the place of another one.
    pub(crate) async fn put(&self, name: &str, content: &str) {
        let found = self.objects.load(name).await.unwrap().map(|found| found.version);
        let bytes = content.as_bytes().to_vec();
        self.objects.compare_and_swap(name, bytes, found.as_deref()).await.unwrap().unwrap();
    }

    pub(crate) async fn remove(&self, name: &str) {
        self.objects.remove(name).await.unwrap();
    }

    /// The source of a prefix in that of the test.
    pub(crate) fn source(&self, prefix: &str) -> SourceOptions {
        let prefix = format!("{}/{prefix}", self.options.prefix);
        let bucket = BucketOptions { prefix, ..self.options.clone() };
        SourceOptions { bucket, max_bytes: 1 << 30 }
    }

    /// The copies of a node.
    pub(crate) fn node(&self, name: &str) -> SourceCopies {
        SourceCopies::new(self.dir.path().join(name))
    }
}

/// The files of a folder and of the folders in it, as relative paths, in their order.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
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
    found.sort();
    found
}
