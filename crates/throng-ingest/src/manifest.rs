//! Manifests of batches: with its manifest a batch is part of its table. [`throng_files`] reads the names of the
//! files, this crate also the report.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use throng_api::IngestReport;
use throng_files::{BatchFile, MANIFEST_VERSION, parse_manifest};

use crate::error::IngestError;
use crate::paths::{TablePaths, write_whole};

/// The manifest of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: u32,
    /// Relative to the folder of the table.
    pub(crate) files: Vec<BatchFile>,
    /// The report of the batch.
    pub(crate) report: IngestReport,
}

impl Manifest {
    pub(crate) fn new(files: Vec<BatchFile>, report: IngestReport) -> Self {
        Self { version: MANIFEST_VERSION, files, report }
    }

    /// The manifest of a batch; `None` if the batch is not ingested.
    pub(crate) fn read(paths: &TablePaths, key: &str) -> Result<Option<Self>, IngestError> {
        let path = paths.manifest(key);
        let text = match throng_fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(IngestError::io("read", &path)(error)),
        };
        Self::parse(&path, &text).map(Some)
    }

    /// Reads the text of the manifest at `path`.
    pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<Self, IngestError> {
        Ok(parse_manifest(path, text)?)
    }

    /// The text of the manifest at `path`.
    pub(crate) fn to_json(&self, path: &Path) -> Result<Vec<u8>, IngestError> {
        serde_json::to_vec_pretty(self)
            .map_err(|error| IngestError::io("write", path)(io::Error::other(error)))
    }

    /// Writes it, durably. After that the batch is part of its table.
    pub(crate) fn write(&self, paths: &TablePaths, key: &str) -> Result<(), IngestError> {
        let path = paths.manifest(key);
        write_whole(&path, &self.to_json(&path)?)
    }

    /// The report, if the content is the same.
    pub(crate) fn repeated(self, digest: &str) -> Result<IngestReport, IngestError> {
        if self.report.digest != digest {
            let IngestReport { schema, batch, .. } = self.report;
            return Err(IngestError::Conflict { schema, batch });
        }
        Ok(IngestReport { repeated: true, ..self.report })
    }
}
