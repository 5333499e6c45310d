//! A batch becomes part of its table:
//!
//! 1. Its files are complete and synced in the staging folder.
//! 2. They are renamed to the folders of their days. No reader takes them: no manifest names them.
//! 3. The rows in quarantine get their name.
//! 4. The manifest is written aside, synced, and renamed. From then on every reader takes all files of the batch.
//!
//! A crash before the rename of the manifest leaves files that no manifest names. [`recover`] removes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use throng_api::IngestReport;
use throng_files::{BatchFile, finished_files};

use crate::error::IngestError;
use crate::manifest::Manifest;
use crate::paths::{
    TablePaths, create_folder, entries, is_batch_file, name_of, remove_file, sync_folder,
};
use crate::quarantine::Quarantine;
use crate::worker::StagedFile;

/// Called between the steps of a commit, for tests that end the process there.
pub type StepHook = dyn Fn(&'static str) + Send + Sync;

/// What is committed.
pub(crate) struct Batch<'b> {
    pub(crate) paths: &'b TablePaths,
    pub(crate) key: &'b str,
    pub(crate) files: Vec<StagedFile>,
    pub(crate) quarantine: &'b Quarantine,
    /// Days since 1970-01-01.
    pub(crate) today: i32,
    pub(crate) report: IngestReport,
}

impl Batch<'_> {
    /// Makes the batch part of its table. After an error before the manifest was renamed it is not, and none of its
    /// files is left, nor are its rows in quarantine.
    pub(crate) fn commit(self, step: &StepHook) -> Result<IngestReport, IngestError> {
        let mut renamed = Vec::new();
        let result = self.rename_files(step, &mut renamed);
        let result = result.and_then(|files| self.write_manifest(files, step));
        if result.is_err()
            && Manifest::read(self.paths, self.key).is_ok_and(|found| found.is_none())
        {
            for path in renamed {
                if let Err(error) = remove_file(&path) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to remove a file of a batch"
                    );
                }
            }
            self.quarantine.discard();
        }
        result
    }

    fn rename_files(
        &self,
        step: &StepHook,
        renamed: &mut Vec<PathBuf>,
    ) -> Result<Vec<BatchFile>, IngestError> {
        // A number within each day.
        let mut numbers: BTreeMap<i32, usize> = BTreeMap::new();
        let mut folders = BTreeSet::new();
        let mut files = Vec::with_capacity(self.files.len());
        for staged in &self.files {
            let number = numbers.entry(staged.day).or_default();
            let relative = TablePaths::relative(staged.day, self.key, *number);
            *number += 1;
            let path = self.paths.folder.join(&relative);
            let folder = path.parent().unwrap_or(&path).to_owned();
            create_folder(&folder)?;
            step("folder");
            std::fs::rename(&staged.path, &path)
                .map_err(IngestError::io("rename", &staged.path))?;
            step("renamed");
            renamed.push(path);
            folders.insert(folder);
            let relative = relative.to_string_lossy().into_owned();
            files.push(BatchFile { path: relative, bytes: staged.bytes, rows: staged.rows });
        }
        for folder in &folders {
            sync_folder(folder)?;
        }
        sync_folder(&self.paths.folder)?;
        step("synced");
        Ok(files)
    }

    fn write_manifest(
        &self,
        files: Vec<BatchFile>,
        step: &StepHook,
    ) -> Result<IngestReport, IngestError> {
        self.quarantine.finish(self.today, self.key)?;
        step("quarantine");
        let manifest = Manifest::new(files, self.report.clone());
        manifest.write(self.paths, self.key)?;
        step("manifest");
        Ok(manifest.report)
    }
}

/// Removes what a crash has left of batches that did not finish. No batch of the table may be under way.
pub(crate) fn recover(paths: &TablePaths) -> Result<(), IngestError> {
    for staged in entries(&paths.staging())? {
        remove_folder(&staged)?;
    }
    for manifest in entries(&paths.manifests())? {
        if name_of(&manifest).starts_with('.') {
            remove_file(&manifest)?;
        }
    }
    let Some(finished) = finished_files(&paths.folder)? else { return Ok(()) };
    for day in entries(&paths.folder)? {
        if !name_of(&day).starts_with("day=") {
            continue;
        }
        for file in entries(&day)? {
            let relative = file.strip_prefix(&paths.folder).unwrap_or(&file);
            if is_batch_file(&name_of(&file)) && !finished.contains_key(relative) {
                remove_file(&file)?;
                tracing::info!("removed a file of a batch that did not finish");
            }
        }
    }
    Ok(())
}

fn remove_folder(path: &Path) -> Result<(), IngestError> {
    std::fs::remove_dir_all(path).map_err(IngestError::io("remove", path))
}
