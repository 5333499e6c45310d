//! A batch becomes part of its table in a bucket:
//!
//! 1. Its files are complete in the staging folder on the local disk.
//! 2. They are uploaded to the folders of their days. No reader takes them: no manifest names them.
//! 3. The rows in quarantine, which stay on the local disk, get their name.
//! 4. The manifest is created, if there is none. From then on every reader takes all files of the batch.
//!
//! Of several nodes that ingest one batch, one creates the manifest; the others remove their files, and answer with its
//! report. A crash, or an error whose outcome is not known, leaves files that no manifest names: `bucket_leftovers.rs`
//! removes them when they are old.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use throng_api::IngestReport;
use throng_files::BatchFile;
use throng_model::{Clock, Entropy as _, SystemEntropy, Timestamp};
use throng_schema::Schema;

use crate::bucket_lake::{BucketLake, batch_file, manifest_name, table_of};
use crate::commit::StepHook;
use crate::error::IngestError;
use crate::manifest::Manifest;
use crate::paths::create_folder;
use crate::quarantine::Quarantine;
use crate::worker::StagedFile;

/// Files that were uploaded longer ago are not committed: they may have been removed as those of a crash.
pub(crate) const MAX_COMMIT: Duration = Duration::from_hours(12);

/// What is committed.
pub(crate) struct BucketBatch<'b> {
    pub(crate) bucket: &'b BucketLake,
    pub(crate) schema: &'b Schema,
    pub(crate) key: &'b str,
    pub(crate) files: Vec<StagedFile>,
    pub(crate) quarantine: &'b Quarantine,
    /// Days since 1970-01-01.
    pub(crate) today: i32,
    pub(crate) report: IngestReport,
    /// Held while the rows in quarantine get their name, which is that of the batch.
    pub(crate) committing: &'b Mutex<()>,
    pub(crate) clock: &'b dyn Clock,
}

/// The manifest of a batch; `None` if the batch is not ingested.
pub(crate) fn manifest(
    bucket: &BucketLake,
    schema: &Schema,
    key: &str,
) -> Result<Option<Manifest>, IngestError> {
    let name = manifest_name(&table_of(schema), key);
    let Some(found) = bucket.load(&name)? else { return Ok(None) };
    Ok(Some(Manifest::parse(&bucket.url(&name), &found.bytes)?))
}

impl BucketBatch<'_> {
    /// Makes the batch part of its table, unless another one has. After an error it is not, except if the bucket did
    /// not answer: then the batch is sent again.
    pub(crate) fn commit(mut self, step: &StepHook) -> Result<IngestReport, IngestError> {
        // The monotonic clock may stand still while the machine is suspended, and the time of day may be set back.
        let began = (self.clock.elapsed(), self.clock.now());
        let table = table_of(self.schema);
        let files = self.named_files();
        let names: Vec<String> =
            files.iter().map(|file| format!("{table}/{}", file.path)).collect();
        let uploaded = self.place(&names).and_then(|()| self.bucket.upload(&names));
        if let Err(error) = uploaded {
            self.discard(&names);
            return Err(error);
        }
        step("uploaded");
        let manifest = Manifest::new(files, self.report.clone());
        let one = self.committing.lock();
        let other = match self.prepare(began) {
            Ok(None) => {
                step("quarantine");
                // After an error nothing is removed: the manifest may exist, now or in a moment.
                self.create(&manifest)?
            }
            Ok(other) => other,
            Err(error) => {
                drop(one);
                self.discard(&names);
                return Err(error);
            }
        };
        // Removing files takes long if the bucket does not answer.
        drop(one);
        let Some(other) = other else {
            step("manifest");
            self.bucket.committed(self.schema);
            return Ok(manifest.report);
        };
        // Another node was faster.
        self.discard(&names);
        other.repeated(&self.report.digest)
    }

    /// The files with the names that they get.
    fn named_files(&self) -> Vec<BatchFile> {
        let token = format!("{:016x}", SystemEntropy.next_u64());
        // A number within each day.
        let mut numbers: BTreeMap<i32, usize> = BTreeMap::new();
        let named = self.files.iter().map(|staged| {
            let number = numbers.entry(staged.day).or_default();
            let path = batch_file(staged.day, self.key, &token, *number);
            *number += 1;
            BatchFile { path, bytes: staged.bytes, rows: staged.rows }
        });
        named.collect()
    }

    /// Renames the staged files to where they are uploaded from.
    fn place(&mut self, names: &[String]) -> Result<(), IngestError> {
        for (staged, name) in std::mem::take(&mut self.files).into_iter().zip(names) {
            let path = self.bucket.local(name);
            if let Some(folder) = path.parent() {
                create_folder(folder)?;
            }
            std::fs::rename(&staged.path, &path)
                .map_err(IngestError::io("rename", &staged.path))?;
        }
        Ok(())
    }

    /// What comes before the manifest. Returns that of another batch with the same id, if there is one by now.
    fn prepare(&self, began: (Duration, Timestamp)) -> Result<Option<Manifest>, IngestError> {
        let elapsed = self.clock.elapsed().saturating_sub(began.0);
        if elapsed.max(self.clock.now().since(began.1)) > MAX_COMMIT {
            return Err(self.failed("write", "the upload of its files took too long"));
        }
        let other = manifest(self.bucket, self.schema, self.key)?;
        if other.is_none() {
            self.quarantine.finish(self.today, self.key)?;
        }
        Ok(other)
    }

    /// Creates the manifest. Returns that of another try, if there is one. After an error it may exist, now or in a
    /// moment: nothing that it names may be removed.
    fn create(&self, manifest: &Manifest) -> Result<Option<Manifest>, IngestError> {
        let name = manifest_name(&table_of(self.schema), self.key);
        let url = self.bucket.url(&name);
        let text = manifest.to_json(&url)?;
        let created = self.bucket.swap(&name, text.clone(), None);
        if matches!(created, Ok(true)) {
            return Ok(None);
        }
        // It is this one if only the answer was lost.
        match (created, self.bucket.load(&name)) {
            (_, Ok(Some(found))) if found.bytes == text => Ok(None),
            (_, Ok(Some(found))) => Manifest::parse(&url, &found.bytes).map(Some),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(_), Ok(None)) => Err(self.failed("read", "it is gone")),
        }
    }

    /// Removes the rows in quarantine, and what was uploaded; if the bucket does not answer, that is removed later with
    /// what crashes have left.
    fn discard(&self, names: &[String]) {
        self.quarantine.discard_new();
        if let Err(error) = self.bucket.remove(names) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to remove files of a batch"
            );
        }
    }

    fn failed(&self, doing: &'static str, why: &'static str) -> IngestError {
        let name = manifest_name(&table_of(self.schema), self.key);
        IngestError::io(doing, &self.bucket.url(&name))(io::Error::other(why))
    }
}
