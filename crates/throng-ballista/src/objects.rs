//! The objects of buckets that an executor reads: which ones, with which credentials, and the errors of their downloads.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use throng_files::{FileError, FileStamp};
use throng_model::with_causes;
use throng_objects::BucketOptions;
use throng_source_copies::{CachedObject, CopyError, HeldObjects, ObjectCache, service_of};
use throng_spec::{SourceBucket, load_buckets};
use throng_tables::ScannedObject;

use crate::ClusterError;

/// Opens the cache of an executor in a folder, for the buckets of a file. Reads all that it needs to reach them: later the
/// executor may not.
///
/// # Errors
/// [`ClusterError::Options`] with the problems of the file, a secret that cannot be read, or why the folder cannot be
/// used.
pub(crate) fn open_cache(
    buckets: &Path,
    folder: PathBuf,
    max_bytes: u64,
) -> Result<ObjectCache, ClusterError> {
    let buckets = load_buckets(buckets).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let text = problems.join("\n\n");
        ClusterError::Options(text.strip_prefix("error: ").unwrap_or(&text).to_owned())
    })?;
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is already installed");
    }
    let buckets = buckets.iter().map(options).collect::<Result<Vec<_>, _>>()?;
    ObjectCache::open(folder, max_bytes, &buckets).map_err(|error| {
        ClusterError::Options(format!("{}: {}", with_causes(&error), error.help()))
    })
}

/// The options of a bucket, with the secrets.
fn options(bucket: &SourceBucket) -> Result<BucketOptions, ClusterError> {
    let env = |name: &str| std::env::var(name).ok();
    let service = service_of(&bucket.service, |_, reference| reference.resolve(&env));
    let service = service.map_err(|error| {
        ClusterError::Options(format!("cannot read {}: {}", bucket.url(), with_causes(&error)))
    })?;
    let (bucket, prefix) = (bucket.name.clone(), bucket.prefix.clone());
    Ok(BucketOptions { service, bucket, prefix, cache_bytes: 0 })
}

/// The object that the path of a file names.
pub(crate) fn named_by(stamp: &FileStamp) -> Option<CachedObject> {
    let ScannedObject { bucket, key, etag } = ScannedObject::of_path(&stamp.path)?;
    Some(CachedObject { bucket, key, etag, bytes: stamp.bytes, modified: stamp.modified })
}

fn url_of(object: &CachedObject) -> String {
    format!("{}/{}", object.bucket, object.key)
}

/// The objects of a task.
#[derive(Debug)]
pub(crate) struct StageObjects {
    pub(crate) objects: Vec<CachedObject>,
    pub(crate) cache: Option<Arc<ObjectCache>>,
}

impl StageObjects {
    /// Downloads those that are not there. `None` if there are none.
    ///
    /// # Errors
    /// [`FileError::Changed`] if one has another content or is gone; [`FileError::Table`] if the executor has no
    /// access to it; else [`FileError::Source`].
    pub(crate) async fn hold(&self) -> Result<Option<HeldObjects>, FileError> {
        let Some(first) = self.objects.first() else { return Ok(None) };
        let held = match &self.cache {
            Some(cache) => Arc::clone(cache).hold(self.objects.clone()).await,
            None => Err(CopyError::NoAccess { object: url_of(first) }),
        };
        held.map(Some).map_err(|error| self.file_error(&error))
    }

    fn file_error(&self, error: &CopyError) -> FileError {
        let of_key = |key: &str| self.objects.iter().find(|object| object.key == key);
        match error {
            CopyError::Changed { bucket, key, .. } => {
                let url = of_key(key).map_or_else(|| bucket.clone(), url_of);
                FileError::Changed { path: url.into() }
            }
            CopyError::NoAccess { object } => FileError::Table {
                message: format!(
                    "an executor cannot read {object}: no `prefix` in the file of its option `--buckets` has it"
                ),
                help: "add the bucket to the file of `--buckets` of every executor, or remove `buckets: true` below \
                       node.ballista"
                    .to_owned(),
            },
            error => {
                let text = format!("{} ({})", with_causes(error), error.help());
                let path = self.objects.first().map(|first| first.bucket.clone());
                FileError::Source {
                    path: path.unwrap_or_default().into(),
                    source: io::Error::other(text),
                }
            }
        }
    }

    /// An error of files with the URLs of objects in the place of paths in the cache.
    pub(crate) fn shown(&self, error: FileError) -> FileError {
        let Some(cache) = &self.cache else { return error };
        let named = || self.objects.iter().map(|object| (cache.path_of(object), url_of(object)));
        let shown_path = |path: PathBuf| {
            let url = named().find(|(cached, _)| *cached == path);
            url.map_or(path, |(_, url)| url.into())
        };
        match error {
            FileError::Source { path, source } => {
                FileError::Source { path: shown_path(path), source }
            }
            FileError::Changed { path } => FileError::Changed { path: shown_path(path) },
            FileError::Table { message, help } => {
                let message = named().fold(message, |text, (cached, url)| {
                    text.replace(&*cached.to_string_lossy(), &url)
                });
                FileError::Table { message, help }
            }
            error @ FileError::LeadsOut { .. } => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str) -> CachedObject {
        let (bucket, etag) = ("s3://lake".to_owned(), "1".to_owned());
        CachedObject { bucket, key: key.to_owned(), etag, bytes: 4, modified: 7_000 }
    }

    #[test]
    fn a_file_of_a_plan_names_its_object() {
        let named = ScannedObject {
            bucket: "s3://lake".to_owned(),
            key: "e/a.csv".to_owned(),
            etag: "1".to_owned(),
        };
        let stamp = FileStamp { path: named.path(), bytes: 4, modified: 7_000 };
        assert_eq!(named_by(&stamp), Some(object("e/a.csv")));
        assert_eq!(named_by(&FileStamp { path: "/lake/a.csv".into(), ..stamp }), None);
    }

    #[test]
    fn errors_name_the_object_and_not_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ObjectCache::open(dir.path().to_owned(), 100, &[]).unwrap();
        let (path, other) = (cache.path_of(&object("e/a.csv")), PathBuf::from("/lake/a.csv"));
        let objects = vec![object("e/b.csv"), object("e/a.csv")];
        let objects = StageObjects { objects, cache: Some(Arc::new(cache)) };
        let message = format!("{}, line 7: it is not UTF-8", path.display());
        let shown = objects.shown(FileError::Table { message, help: String::new() });
        assert_eq!(shown.to_string(), "s3://lake/e/a.csv, line 7: it is not UTF-8");
        let shown = objects.shown(FileError::Changed { path });
        assert_eq!(shown.to_string(), "s3://lake/e/a.csv has changed while it was scanned");
        let shown = objects.shown(FileError::Changed { path: other });
        assert_eq!(shown.to_string(), "/lake/a.csv has changed while it was scanned");
    }

    #[tokio::test]
    async fn an_executor_without_the_bucket_says_so() {
        let without = StageObjects { objects: vec![object("e/a.csv")], cache: None };
        let error = without.hold().await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("s3://lake/e/a.csv") && text.contains("`--buckets`"), "{text}");
        assert!(error.help().contains("every executor"), "{}", error.help());
        let none = StageObjects { objects: Vec::new(), cache: None };
        assert!(none.hold().await.unwrap().is_none());
    }

    #[test]
    fn another_content_of_an_object_is_a_file_that_has_changed() {
        let stage = StageObjects { objects: vec![object("e/a.csv")], cache: None };
        let error = stage.file_error(&CopyError::Changed {
            bucket: "s3://lake/e".to_owned(),
            key: "e/a.csv".to_owned(),
            change: "replaced",
        });
        assert_eq!(error.to_string(), "s3://lake/e/a.csv has changed while it was scanned");
        let error = stage.file_error(&CopyError::CacheFull { needed_bytes: 8, max_bytes: 4 });
        assert!(with_causes(&error).contains("the cache may have 4"), "{error:?}");
    }
}
