//! The tables of schemas before their first batch: a table has one file without rows, with all of its columns, so
//! that SQL over it can be checked and audiences can be built. The types of columns are remembered with it.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use throng_files::BatchFile;
use throng_schema::{DEFAULT_WORKSPACE, FieldType, Schema};
use throng_spec::Spec;

use crate::columns::arrow_schema;
use crate::error::IngestError;
use crate::paths::{
    TablePaths, batch_key, create_folder, entries, remove_file, sync_folder, write_whole,
};
use crate::write::write_parquet;

/// The folder of the file without rows: a day that is NULL, so that the table has the column of its partitions.
const NO_DAY: &str = "day=__HIVE_DEFAULT_PARTITION__";
/// The key of the manifest of the file without rows.
const COLUMNS_KEY: &str = "columns";

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct TableColumn {
    name: String,
    #[serde(rename = "type")]
    of: FieldType,
    hashed: bool,
}

/// The manifest of the file without rows.
#[derive(Debug, Serialize, Deserialize)]
struct ColumnsManifest {
    version: u32,
    files: Vec<BatchFile>,
    columns: Vec<TableColumn>,
}

/// Creates the tables of a spec that do not exist, and adds the columns that the existing ones lack. Does nothing
/// without `node.lake`.
///
/// # Errors
/// [`IngestError::Refused`] if a column of a table has another type than its field has now; [`IngestError::Io`].
pub fn create_tables(spec: &Spec) -> Result<(), IngestError> {
    let Some(lake) = &spec.node.lake else { return Ok(()) };
    if spec.schemas.is_empty() {
        return Ok(());
    }
    let folder = lake.join(DEFAULT_WORKSPACE);
    create_folder(&folder)?;
    spec.schemas.iter().try_for_each(|schema| create_table(&folder, schema))
}

/// Creates the table of one schema in the folder of a workspace.
pub(crate) fn create_table(lake: &Path, schema: &Schema) -> Result<(), IngestError> {
    let paths = TablePaths::new(lake, schema.name.as_str());
    let before = read_columns(&paths)?;
    let mut columns =
        before.iter().flat_map(|manifest| manifest.columns.clone()).collect::<Vec<_>>();
    for field in schema.stored() {
        let hashed = field.anonymise.is_some();
        match columns.iter().find(|column| column.name == field.name) {
            None => columns.push(TableColumn { name: field.name.clone(), of: field.of, hashed }),
            Some(column) if column.of == field.of && column.hashed == hashed => {}
            Some(column) => {
                let form = |of: FieldType, hashed: bool| {
                    format!("{of}{}", if hashed { ", hashed" } else { "" })
                };
                let message = format!(
                    "the column `{}` of the schema `{}` is {}, and in its table {}",
                    field.name,
                    schema.name,
                    form(field.of, hashed),
                    form(column.of, column.hashed)
                );
                let help = "declare the field as it was, or a schema with another name: rows that were ingested do \
                            not change";
                return Err(IngestError::refused(message, help));
            }
        }
    }
    if before.as_ref().is_some_and(|manifest| manifest.columns == columns) {
        return Ok(());
    }
    write_columns(&paths, columns)
}

fn read_columns(paths: &TablePaths) -> Result<Option<ColumnsManifest>, IngestError> {
    let path = paths.manifest(COLUMNS_KEY);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(IngestError::io("read", &path)(error)),
    };
    let manifest = serde_json::from_slice(&text)
        .map_err(|error| IngestError::io("read", &path)(io::Error::other(error)))?;
    Ok(Some(manifest))
}

/// Writes a file without rows, then the manifest that names it, and removes the previous file.
fn write_columns(paths: &TablePaths, columns: Vec<TableColumn>) -> Result<(), IngestError> {
    let manifest_path = paths.manifest(COLUMNS_KEY);
    let fail = |error: serde_json::Error| {
        IngestError::io("write", &manifest_path)(io::Error::other(error))
    };
    create_folder(&paths.manifests())?;
    let text = serde_json::to_string(&columns).map_err(fail)?;
    // Named by its columns: a crash leaves a file that no manifest names, which is written again.
    let name = format!("columns-{}.parquet", batch_key(&text));
    let folder = paths.folder.join(NO_DAY);
    create_folder(&folder)?;
    let path = folder.join(&name);
    remove_file(&path)?;
    let schema = arrow_schema(columns.iter().map(|column| (column.name.clone(), column.of)));
    let bytes = write_parquet(&path, &schema, None, 0)?;
    sync_folder(&folder)?;
    sync_folder(&paths.folder)?;
    let files = vec![BatchFile { path: format!("{NO_DAY}/{name}"), bytes, rows: 0 }];
    let manifest = ColumnsManifest { version: 1, files, columns };
    write_whole(&manifest_path, &serde_json::to_vec_pretty(&manifest).map_err(fail)?)?;
    if let Some(parent) = paths.folder.parent() {
        sync_folder(parent)?;
    }
    // Earlier ones, also those that a crash has left.
    for entry in entries(&folder)?.into_iter().filter(|entry| *entry != path) {
        remove_file(&entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &str) -> Schema {
        let text =
            format!(r#"{{"name": "s", "description": null, "key": "id", "fields": {fields}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_table_exists_before_its_rows_and_keeps_its_types() {
        let dir = tempfile::tempdir().unwrap();
        let files = || {
            let found = throng_files::of_folder(dir.path(), dir.path()).unwrap();
            found.tables["s"].as_ref().unwrap().files.clone()
        };
        let id = r#"{"name": "id", "type": "text", "required": true}"#;
        create_table(dir.path(), &schema(&format!("[{id}]"))).unwrap();
        let first = files();
        assert_eq!(first.len(), 1);
        create_table(dir.path(), &schema(&format!("[{id}]"))).unwrap();
        assert_eq!(files(), first);
        let two = schema(&format!(r#"[{id}, {{"name": "n", "type": "integer"}}]"#));
        create_table(dir.path(), &two).unwrap();
        assert!(files().len() == 1 && files() != first);
        // A field that is removed keeps its column, and its type.
        create_table(dir.path(), &schema(&format!("[{id}]"))).unwrap();
        let other = schema(&format!(r#"[{id}, {{"name": "n", "type": "date"}}]"#));
        let error = create_table(dir.path(), &other).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the column `n` of the schema `s` is date, and in its table integer"
        );
    }
}
