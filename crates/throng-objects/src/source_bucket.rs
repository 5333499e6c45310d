//! A bucket that others write to: listed and read, never written.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use object_store::path::{Error as PathError, Path as Key};
use object_store::{Error, GetOptions, GetRange, ObjectStore};
use throng_model::Timestamp;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use crate::client::{BucketOptions, LIST, READ, failed, store_of};
use crate::{ObjectsError, Result};

/// Bytes of one request. The timeout of a request includes its body: a part of this size arrives in time also over a
/// slow connection, and a larger object takes more requests instead of more time.
const PART_BYTES: u64 = 16 << 20;

/// An object that others have written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceObject {
    /// Its key in the bucket, with the prefix. That of a folder marker is without the `/` at its end.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// The store's identifier of its content, without quotes; `None` if the store has none.
    pub etag: Option<String>,
    /// The time of the last write, by the clock of the store.
    pub modified: Timestamp,
}

/// A bucket that others write to. Requests are retried as those of [`BucketObjects`](crate::BucketObjects) are.
#[derive(Debug)]
pub struct SourceBucket {
    store: Arc<dyn ObjectStore>,
    /// Empty for the whole bucket.
    prefix: Key,
    /// The bucket's name and the prefix, for messages.
    name: String,
}

impl SourceBucket {
    /// Opens a bucket. Sends no request. The size of the cache in the options is not used.
    ///
    /// # Errors
    /// [`ObjectsError::Settings`].
    pub fn open(options: &BucketOptions) -> Result<Self> {
        let unusable = |why: String| ObjectsError::Settings { why };
        let prefix = Key::parse(&options.prefix).map_err(|error| unusable(error.to_string()))?;
        let store = store_of(options).map_err(|error| unusable(error.to_string()))?;
        let name = match options.prefix.as_str() {
            "" => options.bucket.clone(),
            prefix => format!("{}/{prefix}", options.bucket),
        };
        Ok(Self { store, prefix, name })
    }

    /// The objects below the prefix in the order of their keys, and no more than `limit` of them: whoever allows
    /// fewer asks for one more. A prefix matches whole parts of keys: `a/b` has `a/b/c` and not `a/bc`. The folder
    /// marker of the prefix itself (`a/b/`) is in the listing, with the prefix as its key.
    ///
    /// # Errors
    /// [`ObjectsError::Key`] if a key is not a path; [`ObjectsError::Settings`] if there is no such bucket;
    /// [`ObjectsError::Store`].
    pub async fn list(&self, limit: usize) -> Result<Vec<SourceObject>> {
        let prefix = (!self.prefix.is_root()).then_some(&self.prefix);
        let mut listed = self.store.list(prefix);
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(meta) = listed.next().await
        {
            let meta = meta.map_err(|error| self.list_error(error))?;
            found.push(SourceObject {
                bytes: meta.size,
                etag: meta.e_tag.as_deref().map(unquoted).filter(|etag| !etag.is_empty()),
                modified: Timestamp(meta.last_modified.timestamp_micros()),
                key: meta.location.into(),
            });
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn list_error(&self, error: Error) -> ObjectsError {
        match error {
            Error::InvalidPath { source } => {
                let (key, why) = refused_key(source);
                ObjectsError::Key { key, why }
            }
            error => {
                let has_no_bucket = throng_model::with_causes(&error).contains("NoSuchBucket");
                let error = failed(LIST, &self.name)(error);
                if has_no_bucket || matches!(error, ObjectsError::Missing { .. }) {
                    let why = "there is no such bucket, or not at this endpoint".to_owned();
                    return ObjectsError::Settings { why };
                }
                error
            }
        }
    }

    /// Writes the content of an object of the listing to a new file, and makes it durable. A file of this name is
    /// replaced; after an error there is none.
    ///
    /// # Errors
    /// [`ObjectsError::Replaced`] if the object is not the listed one, also if it is replaced during the download;
    /// [`ObjectsError::Missing`] if it is gone; [`ObjectsError::IncompleteDownload`], [`ObjectsError::Store`],
    /// [`ObjectsError::Io`].
    pub async fn download(&self, object: &SourceObject, to: &Path) -> Result<()> {
        let written = self.write(object, to).await;
        if written.is_err() {
            // It may not exist. If it cannot be removed, the next download replaces it.
            let _ = tokio::fs::remove_file(to).await;
        }
        written
    }

    async fn write(&self, object: &SourceObject, to: &Path) -> Result<()> {
        let io = |source| ObjectsError::Io { doing: "write", path: to.to_owned(), source };
        let mut file = File::create(to).await.map_err(io)?;
        let mut start = 0;
        loop {
            let end = object.bytes.min(start + PART_BYTES);
            self.append(object, start..end, &mut file, to).await?;
            start = end;
            if start == object.bytes {
                break;
            }
        }
        // Buffered writes report their errors here.
        file.flush().await.map_err(io)?;
        file.sync_all().await.map_err(io)
    }

    /// Appends a part of an object.
    async fn append(
        &self,
        object: &SourceObject,
        part: Range<u64>,
        file: &mut File,
        path: &Path,
    ) -> Result<()> {
        let SourceObject { key, bytes, etag, .. } = object;
        let location = Key::parse(key).map_err(|error| {
            let (key, why) = refused_key(error);
            ObjectsError::Key { key, why }
        })?;
        let is_whole = part == (0..*bytes);
        let options = GetOptions {
            if_match: etag.as_deref().map(quoted),
            range: (!is_whole).then(|| GetRange::Bounded(part.clone())),
            ..GetOptions::default()
        };
        let replaced = || ObjectsError::Replaced { name: key.clone() };
        let got = self.store.get_opts(&location, options).await.map_err(|error| match error {
            Error::Precondition { .. } => replaced(),
            error => failed(READ, key)(error),
        })?;
        // There are servers that ignore the condition.
        let is_other = match (etag, &got.meta.e_tag) {
            (Some(listed), Some(got)) => *listed != unquoted(got),
            _ => false,
        };
        if is_other || got.meta.size != *bytes {
            return Err(replaced());
        }
        let expected = part.end - part.start;
        let mut length = 0;
        let mut stream = got.into_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(failed(READ, key))?;
            length += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(ObjectsError::io("write", path))?;
        }
        if length != expected {
            let (name, got) = (key.clone(), part.start + length);
            return Err(ObjectsError::IncompleteDownload { name, expected: *bytes, got });
        }
        Ok(())
    }
}

/// What weak ETags begin with, before the quotes.
const WEAK: &str = "W/";

/// An ETag without quotes: servers quote it in headers, and not all of them in listings. A weak one stays as it is.
fn unquoted(etag: &str) -> String {
    if etag.starts_with(WEAK) { etag.to_owned() } else { etag.trim_matches('"').to_owned() }
}

/// The reverse of [`unquoted`], as it is in headers.
fn quoted(etag: &str) -> String {
    if etag.starts_with(WEAK) { etag.to_owned() } else { format!("\"{etag}\"") }
}

/// A key that the client refuses, and why.
fn refused_key(error: PathError) -> (String, String) {
    match error {
        PathError::EmptySegment { path } => (path, "a part of it is empty".to_owned()),
        PathError::BadSegment { path, .. } => {
            (path, "a part of it is `.` or `..`, or has a control character".to_owned())
        }
        error => (String::new(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_the_same_with_and_without_quotes() {
        assert_eq!(unquoted("\"a-2\""), "a-2");
        assert_eq!(unquoted("a-2"), "a-2");
        assert_eq!(quoted("a-2"), "\"a-2\"");
        assert_eq!(quoted(&unquoted("W/\"a\"")), "W/\"a\"");
    }

    #[test]
    fn keys_that_are_not_paths_are_refused_by_name() {
        for (key, why) in [
            ("a//b.csv", "empty"),
            ("a/../b.csv", "`..`"),
            ("a/./b.csv", "`.`"),
            ("a/\u{0}.csv", "control character"),
        ] {
            let (named, found) = refused_key(Key::parse(key).unwrap_err());
            assert_eq!(named, key);
            assert!(found.contains(why), "{key}: {found}");
        }
    }
}
