//! Parts of a scan, with the state of their files when they were planned, so that a part has the
//! same result whenever it runs.

use std::path::{Path, PathBuf};

use datafusion::arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use throng_files::{DataFile, FileError, FileKind, FileStamp, ReadOptions, file_kind};
use throng_tables::{Column, FilePlan, Layout, OpenTable, Origin};

/// A part of a scan. The same part of an unchanged source yields the same keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanPart {
    /// The file that it covers; `None`: the whole query.
    pub file: Option<PathBuf>,
    /// The state of its files when it was planned; `None` in parts that an older version planned.
    #[serde(default, rename = "seen", skip_serializing_if = "Option::is_none")]
    pub planned_files: Option<PlannedFiles>,
}

impl ScanPart {
    /// Whether its files are as they were when it was planned.
    pub(crate) async fn is_current(&self) -> bool {
        let Some(planned) = self.planned_files.clone() else { return false };
        let is_same = move || planned.files.iter().all(|stamp| stamp.compare().is_ok());
        tokio::task::spawn_blocking(is_same).await.unwrap_or(false)
    }
}

/// The state of a part's files when it was planned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFiles {
    files: Vec<FileStamp>,
    /// For a part of one file: the columns of the table, and where the file has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<PlannedColumn>,
}

/// A column of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PlannedColumn {
    name: String,
    /// The engine's type, as the engine writes it.
    of: String,
    origin: Origin,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    converted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<String>,
}

impl PlannedFiles {
    /// One file of a table. If a type cannot be written as text, the columns are left out, and are
    /// inferred again when the part runs.
    pub(crate) fn of_file(layout: &Layout, plan: &FilePlan) -> Self {
        let planned = |(column, origin): (&Column, &Origin)| {
            let of = column.data_type.to_string();
            let readable = of.parse::<DataType>().is_ok_and(|parsed| parsed == column.data_type);
            readable.then(|| PlannedColumn {
                name: column.name.clone(),
                of,
                origin: origin.clone(),
                converted: column.converted,
                written: column.written.clone(),
            })
        };
        let columns = layout.columns.iter().zip(&plan.origins).map(planned).collect::<Option<_>>();
        Self { files: vec![plan.file.stamp.clone()], columns: columns.unwrap_or_default() }
    }

    /// All files of some tables.
    pub(crate) fn of_tables(tables: &[OpenTable]) -> Self {
        let files = tables.iter().flat_map(|table| &table.layout.files);
        let files = files.map(|plan| plan.file.stamp.clone()).collect();
        Self { files, columns: Vec::new() }
    }

    /// The table with this file alone; `None` if its columns must be inferred again.
    pub(crate) fn layout(&self, file: &Path, options: &ReadOptions) -> Option<Layout> {
        let [stamp] = self.files.as_slice() else { return None };
        let name = file.file_name()?.to_str()?;
        let FileKind::Data { format, gzipped, .. } = file_kind(name) else { return None };
        if self.columns.is_empty() || stamp.path != file {
            return None;
        }
        let column = |planned: &PlannedColumn| {
            Some(Column {
                name: planned.name.clone(),
                data_type: planned.of.parse().ok()?,
                converted: planned.converted,
                empty: false,
                written: planned.written.clone(),
            })
        };
        let origins = self.columns.iter().map(|planned| planned.origin.clone()).collect();
        let file = DataFile { stamp: stamp.clone(), format, gzipped, folders: Vec::new() };
        Some(Layout {
            columns: self.columns.iter().map(column).collect::<Option<_>>()?,
            files: vec![FilePlan { file, origins, rows: None }],
            trim: options.trim,
            positional: options.positional(),
            ..Layout::default()
        })
    }

    /// Refuses files that have changed.
    ///
    /// # Errors
    /// [`FileError::Changed`] naming a file; [`FileError::Source`] if one is missing.
    pub(crate) fn compare(&self, tables: &[OpenTable]) -> Result<(), FileError> {
        self.files.iter().try_for_each(FileStamp::compare)?;
        let files = tables.iter().flat_map(|table| &table.layout.files);
        let unseen = files
            .map(|plan| plan.file.path())
            .find(|path| self.files.iter().all(|stamp| stamp.path != *path));
        match unseen {
            // A query over all files would read a file that was added later, which may not be
            // complete.
            Some(path) => Err(FileError::Changed { path: path.to_owned() }),
            None => Ok(()),
        }
    }
}
