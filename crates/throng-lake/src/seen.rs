//! What the files of a part were when it was planned: a part means the same whenever it is run.

use std::path::Path;

use datafusion::arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use crate::LakeError;
use crate::files::{Column, DataFile, FilePlan, FileStamp, Layout, Named, Origin, Reading, named};
use crate::session::OpenTable;

/// What the files of a part were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    files: Vec<FileStamp>,
    /// Of a part of one file: the columns of the table, and where the file has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<SeenColumn>,
}

/// A column of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SeenColumn {
    name: String,
    /// The engine's type in its own words.
    of: String,
    origin: Origin,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    converted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<String>,
}

impl Seen {
    /// One file of a table. Types that have no words leave the columns out: then they are found out
    /// again.
    pub(crate) fn of_file(layout: &Layout, plan: &FilePlan) -> Self {
        let seen = |(column, origin): (&Column, &Origin)| {
            let of = column.data_type.to_string();
            let readable = of.parse::<DataType>().is_ok_and(|parsed| parsed == column.data_type);
            readable.then(|| SeenColumn {
                name: column.name.clone(),
                of,
                origin: origin.clone(),
                converted: column.converted,
                written: column.written.clone(),
            })
        };
        let columns = layout.columns.iter().zip(&plan.origins).map(seen).collect::<Option<_>>();
        Self { files: vec![plan.file.stamp.clone()], columns: columns.unwrap_or_default() }
    }

    /// All files of some tables.
    pub(crate) fn of_tables(tables: &[OpenTable]) -> Self {
        let files = tables.iter().flat_map(|table| &table.layout.files);
        let files = files.map(|plan| plan.file.stamp.clone()).collect();
        Self { files, columns: Vec::new() }
    }

    /// The table with this file alone; `None` if it must be found out again.
    pub(crate) fn layout(&self, file: &Path, reading: &Reading) -> Option<Layout> {
        let [stamp] = self.files.as_slice() else { return None };
        let name = file.file_name()?.to_str()?;
        let Named::Data { format, gzipped, .. } = named(name) else { return None };
        if self.columns.is_empty() || stamp.path != file {
            return None;
        }
        let column = |seen: &SeenColumn| {
            Some(Column {
                name: seen.name.clone(),
                data_type: seen.of.parse().ok()?,
                converted: seen.converted,
                empty: false,
                written: seen.written.clone(),
            })
        };
        let origins = self.columns.iter().map(|seen| seen.origin.clone()).collect();
        let file = DataFile { stamp: stamp.clone(), format, gzipped, folders: Vec::new() };
        Some(Layout {
            columns: self.columns.iter().map(column).collect::<Option<_>>()?,
            files: vec![FilePlan { file, origins, rows: None }],
            trim: reading.trim,
            positional: reading.positional(),
            ..Layout::default()
        })
    }

    /// Refuses files that are others than they were.
    ///
    /// # Errors
    /// [`LakeError::Changed`] naming a file; [`LakeError::Source`] if one is gone.
    pub(crate) fn compare(&self, tables: &[OpenTable]) -> Result<(), LakeError> {
        self.files.iter().try_for_each(FileStamp::compare)?;
        let files = tables.iter().flat_map(|table| &table.layout.files);
        let unseen = files
            .map(|plan| plan.file.path())
            .find(|path| self.files.iter().all(|stamp| stamp.path != *path));
        match unseen {
            // A whole query reads what is there; a file that came later would be read by half.
            Some(path) => Err(LakeError::Changed { path: path.to_owned() }),
            None => Ok(()),
        }
    }
}
