//! The bucket of ingested rows, as threads that block use it.
//!
//! The names of its objects are the paths of a lake in a folder, with the folder of the workspace first. Files of a
//! batch have a random part in addition: two nodes may write files of one batch, and only one of them commits it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use throng_files::{BATCHES_FOLDER, MANIFEST_ENDING, STAGING_FOLDER};
use throng_objects::{ObjectMeta, Objects, ObjectsError, VersionedObject};
use throng_schema::{Schema, value, workspace_folder};
use tokio::runtime::Handle;

use crate::error::IngestError;
use crate::paths::{FILE_ENDING, remove_file};

/// Objects that are uploaded or removed at a time.
const CONCURRENT_REQUESTS: usize = 8;

/// Called with the folder of a workspace after a batch of it was committed.
pub type CommitHook = dyn Fn(&str) + Send + Sync;

/// The bucket of ingested rows.
pub struct BucketLake {
    objects: Arc<dyn Objects>,
    url: String,
    runtime: Handle,
    committed: Box<CommitHook>,
}

impl fmt::Debug for BucketLake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketLake").field("url", &self.url).finish_non_exhaustive()
    }
}

impl BucketLake {
    /// Sends no request. `url` is for messages. The local folder of `objects` has nothing else; files are uploaded from
    /// there, by tasks of `runtime`.
    pub fn new(objects: Arc<dyn Objects>, url: String, runtime: Handle) -> Self {
        Self { objects, url, runtime, committed: Box::new(|_: &str| {}) }
    }

    /// Calls `committed` after every commit.
    #[must_use]
    pub fn with_commit_hook(self, committed: Box<CommitHook>) -> Self {
        Self { committed, ..self }
    }

    /// Calls what was given for commits.
    pub(crate) fn committed(&self, schema: &Schema) {
        (self.committed)(workspace_folder(schema.name.workspace()));
    }

    /// The folder for files that are being written.
    pub(crate) fn staging(&self) -> PathBuf {
        self.objects.root().join(STAGING_FOLDER)
    }

    /// The file that is uploaded as the object of this name.
    pub(crate) fn local(&self, name: &str) -> PathBuf {
        self.objects.root().join(name)
    }

    /// The URL of an object, for messages.
    pub(crate) fn url(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{}/{name}", self.url))
    }

    /// Reads an object; `None` if there is none.
    pub(crate) fn load(&self, name: &str) -> Result<Option<VersionedObject>, IngestError> {
        let (objects, name) = (Arc::clone(&self.objects), name.to_owned());
        self.wait(async move { objects.load(&name).await })
    }

    /// The objects in a folder, and in the folders in it.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>, IngestError> {
        let (objects, folder) = (Arc::clone(&self.objects), folder.to_owned());
        self.wait(async move { objects.list(&folder).await })
    }

    /// Writes an object if it has this version, or if there is none. Whether it was written; after an error it may be.
    pub(crate) fn swap(
        &self,
        name: &str,
        bytes: Vec<u8>,
        expected: Option<String>,
    ) -> Result<bool, IngestError> {
        let (objects, name) = (Arc::clone(&self.objects), name.to_owned());
        let swapped =
            self.wait(
                async move { objects.compare_and_swap(&name, bytes, expected.as_deref()).await },
            )?;
        Ok(swapped.is_some())
    }

    /// Uploads local files as objects of these names, and removes the files. After an error some are objects.
    pub(crate) fn upload(&self, names: &[String]) -> Result<(), IngestError> {
        let (objects, due) = (Arc::clone(&self.objects), names.to_vec());
        let started = due.into_iter().map(move |name| upload(Arc::clone(&objects), name));
        let mut uploads = stream::iter(started).buffer_unordered(CONCURRENT_REQUESTS);
        let uploaded = self.wait(async move {
            while uploads.try_next().await?.is_some() {}
            Ok::<(), ObjectsError>(())
        });
        self.remove_local(names)?;
        uploaded
    }

    /// Removes the local files of objects, if those are copies.
    fn remove_local(&self, names: &[String]) -> Result<(), IngestError> {
        if !self.objects.has_copies() {
            return Ok(());
        }
        names.iter().try_for_each(|name| remove_file(&self.local(name)))
    }

    /// Removes objects, with their local files. Succeeds if there are none. After an error some are left; if the bucket
    /// does not answer, the others are not tried.
    pub(crate) fn remove(&self, names: &[String]) -> Result<(), IngestError> {
        self.remove_local(names)?;
        let (objects, due) = (Arc::clone(&self.objects), names.to_vec());
        let started = due.into_iter().map(move |name| remove(Arc::clone(&objects), name));
        let mut removals = stream::iter(started).buffer_unordered(CONCURRENT_REQUESTS);
        self.wait(async move {
            let mut result = Ok(());
            while let Some(removed) = removals.next().await {
                let is_last = matches!(removed, Err(ObjectsError::Store { .. }));
                result = result.and(removed);
                if is_last {
                    break;
                }
            }
            result
        })
    }

    /// Waits for work on the runtime. Not for one of its tasks.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = throng_objects::Result<T>> + Send + 'static,
    ) -> Result<T, IngestError> {
        let (sender, receiver) = sync_channel(1);
        drop(self.runtime.spawn(async move {
            // Its receiver waits.
            let _ = sender.send(work.await);
        }));
        // It is dropped without a result when the runtime ends.
        Ok(receiver.recv().map_err(|_| IngestError::Stopped)??)
    }
}

async fn upload(objects: Arc<dyn Objects>, name: String) -> throng_objects::Result<()> {
    objects.upload(&name).await
}

async fn remove(objects: Arc<dyn Objects>, name: String) -> throng_objects::Result<()> {
    objects.remove(&name).await
}

/// The folder of a table.
pub(crate) fn table_of(schema: &Schema) -> String {
    format!("{}/{}", workspace_folder(schema.name.workspace()), schema.name.local())
}

/// The manifest of a batch. `table`: the folder of its table.
pub(crate) fn manifest_name(table: &str, key: &str) -> String {
    format!("{table}/{BATCHES_FOLDER}/{key}{MANIFEST_ENDING}")
}

/// A file of a batch, relative to the folder of its table. `token`: of one try to commit the batch.
pub(crate) fn batch_file(day: i32, key: &str, token: &str, number: usize) -> String {
    format!("day={}/{key}-{token}-{number:05}{FILE_ENDING}", value::date_text(day))
}

/// The key and the token in the name of a file that [`batch_file`] has named, without its folder.
pub(crate) fn key_and_token(file: &str) -> Option<(&str, &str)> {
    let mut parts = file.strip_suffix(FILE_ENDING)?.split('-');
    let (key, token, number) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, letters| {
        text.len() == letters && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let is_number = number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_hex(key, 32) && is_hex(token, 16) && is_number && parts.next().is_none())
        .then_some((key, token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::batch_key;

    #[test]
    fn files_of_batches_are_known_by_their_names() {
        let key = batch_key("../x");
        let name = batch_file(20_782, &key, "0123456789abcdef", 7);
        assert_eq!(name, format!("day=2026-11-25/{key}-0123456789abcdef-00007.parquet"));
        let (_, file) = name.split_once('/').unwrap();
        assert_eq!(key_and_token(file), Some((key.as_str(), "0123456789abcdef")));
        for other in ["mine.parquet", "a-b-00001.parquet", &format!("{key}-00001.parquet")] {
            assert_eq!(key_and_token(other), None, "{other}");
        }
    }
}
