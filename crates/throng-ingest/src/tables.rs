//! The tables of schemas before their first batch: a table has one file without rows, with all of its columns, so
//! that SQL over it can be checked and audiences can be built. The types of columns are remembered with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use throng_files::{BatchFile, MANIFEST_VERSION, parse_manifest};
use throng_schema::{FieldType, Schema, workspace_folder};
use throng_spec::Spec;

use crate::columns::arrow_schema;
use crate::error::IngestError;
use crate::paths::{
    TablePaths, aside_name, batch_key, create_folder, entries, remove_file, rename_over,
    sync_folder, write_whole,
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
/// [`IngestError::Refused`] if a column of a table has another type than its field has now; [`IngestError::Table`] if a
/// newer version of Throng has written a table; [`IngestError::Io`].
pub fn create_tables(spec: &Spec) -> Result<(), IngestError> {
    let Some(lake) = &spec.node.lake else { return Ok(()) };
    spec.schemas.iter().try_for_each(|schema| {
        let folder = lake.join(workspace_folder(schema.name.workspace()));
        create_folder(&folder)?;
        create_table(&folder, schema)
    })
}

/// Whether [`create_tables`] would create or change a table. Then `folder` gets all tables of the lake as they would
/// be, without rows, in the folders of their workspaces: SQL can be checked over them, and the lake stays as it is.
///
/// # Errors
/// As [`create_tables`].
pub fn preview_tables(spec: &Spec, folder: &Path) -> Result<bool, IngestError> {
    let Some(lake) = spec.node.lake.as_ref().filter(|_| !spec.schemas.is_empty()) else {
        return Ok(false);
    };
    let workspaces: BTreeSet<&str> =
        spec.schemas.iter().map(|schema| workspace_folder(schema.name.workspace())).collect();
    // By their paths in the lake. Also those of schemas that the spec no longer has.
    let mut tables = BTreeMap::new();
    for workspace in workspaces {
        for path in entries(&lake.join(workspace))? {
            let paths = TablePaths { folder: path };
            if let (Some(name), Some(before)) = (paths.folder.file_name(), read_columns(&paths)?) {
                tables.insert(Path::new(workspace).join(name), before.columns);
            }
        }
    }
    let mut changes = false;
    for schema in &spec.schemas {
        let workspace = Path::new(workspace_folder(schema.name.workspace()));
        let table = workspace.join(schema.name.local());
        let before = tables.remove(&table);
        let columns = columns_with(before.as_deref().unwrap_or_default(), schema)?;
        changes |= before.as_ref() != Some(&columns);
        tables.insert(table, columns);
    }
    if changes {
        for (table, columns) in tables {
            write_columns(&TablePaths { folder: folder.join(table) }, columns)?;
        }
    }
    Ok(changes)
}

/// Creates the table of one schema in the folder of a workspace.
pub(crate) fn create_table(lake: &Path, schema: &Schema) -> Result<(), IngestError> {
    let paths = TablePaths::new(lake, schema.name.local());
    let before = read_columns(&paths)?;
    let columns =
        columns_with(before.as_ref().map_or(&[][..], |found| found.columns.as_slice()), schema)?;
    let is_whole = |before: &ColumnsManifest| {
        before.columns == columns
            && before.files.iter().all(|file| paths.folder.join(&file.path).is_file())
    };
    if before.as_ref().is_some_and(is_whole) {
        return Ok(());
    }
    write_columns(&paths, columns)
}

/// The columns of a table with those that the schema adds.
fn columns_with(before: &[TableColumn], schema: &Schema) -> Result<Vec<TableColumn>, IngestError> {
    let mut columns = before.to_vec();
    for field in schema.stored() {
        let hashed = field.anonymise.is_some();
        match columns.iter().find(|column| column.name == field.name) {
            None => {
                refuse_other_case(before, schema, &field.name)?;
                columns.push(TableColumn { name: field.name.clone(), of: field.of, hashed });
            }
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
    Ok(columns)
}

/// Refuses a new column whose name differs from that of another one in case only. In SQL without quotes it would take
/// the place of that one, and be NULL in all earlier rows.
fn refuse_other_case(
    before: &[TableColumn],
    schema: &Schema,
    name: &str,
) -> Result<(), IngestError> {
    let lower = name.to_lowercase();
    let Some(other) = before.iter().find(|column| column.name.to_lowercase() == lower) else {
        return Ok(());
    };
    let message = format!(
        "the column `{name}` of the schema `{}` differs in case only from `{}` of its table",
        schema.name, other.name
    );
    let help = format!(
        "name the field `{}`, and so the column in the files; or declare a schema with another name: rows that were \
         ingested do not change",
        other.name
    );
    Err(IngestError::refused(message, help))
}

fn read_columns(paths: &TablePaths) -> Result<Option<ColumnsManifest>, IngestError> {
    let path = paths.manifest(COLUMNS_KEY);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(IngestError::io("read", &path)(error)),
    };
    Ok(Some(parse_manifest(&path, &text)?))
}

/// Writes a file without rows, then the manifest that names it, and removes the previous file.
fn write_columns(paths: &TablePaths, columns: Vec<TableColumn>) -> Result<(), IngestError> {
    let manifest_path = paths.manifest(COLUMNS_KEY);
    let fail = |error: serde_json::Error| {
        IngestError::io("write", &manifest_path)(io::Error::other(error))
    };
    create_folder(&paths.manifests())?;
    let text = serde_json::to_string(&columns).map_err(fail)?;
    // Named by its columns: a crash leaves a file that no manifest names, which is written again. Another process
    // that writes it at the same time writes the same.
    let name = format!("columns-{}.parquet", batch_key(&text));
    let folder = paths.folder.join(NO_DAY);
    create_folder(&folder)?;
    let (path, aside) = (folder.join(&name), folder.join(aside_name(&name)));
    let schema = arrow_schema(columns.iter().map(|column| (column.name.clone(), column.of)));
    let bytes = write_parquet(&aside, &schema, None, 0)?;
    rename_over(&aside, &path)?;
    sync_folder(&folder)?;
    sync_folder(&paths.folder)?;
    let files = vec![BatchFile { path: format!("{NO_DAY}/{name}"), bytes, rows: 0 }];
    let manifest = ColumnsManifest { version: MANIFEST_VERSION, files, columns };
    write_whole(&manifest_path, &serde_json::to_vec_pretty(&manifest).map_err(fail)?)?;
    if let Some(parent) = paths.folder.parent() {
        sync_folder(parent)?;
    }
    // Earlier ones, also those that a crash has left. What begins with a dot is being written.
    let is_hidden = |entry: &Path| {
        entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    };
    let others = entries(&folder)?.into_iter().filter(|entry| *entry != path && !is_hidden(entry));
    for entry in others {
        remove_file(&entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use throng_schema::DEFAULT_WORKSPACE;

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
        // A file that is missing is written again.
        std::fs::remove_file(files()[0].path()).unwrap();
        create_table(dir.path(), &two).unwrap();
        assert_eq!(files().len(), 1);
    }

    #[test]
    fn a_column_is_not_added_again_in_another_case() {
        let dir = tempfile::tempdir().unwrap();
        let id = r#"{"name": "id", "type": "text", "required": true}"#;
        let with =
            |name: &str| schema(&format!(r#"[{id}, {{"name": "{name}", "type": "integer"}}]"#));
        create_table(dir.path(), &with("Age")).unwrap();
        let columns = || {
            let paths = TablePaths::new(dir.path(), "s");
            let found = read_columns(&paths).unwrap().unwrap();
            found.columns.into_iter().map(|column| column.name).collect::<Vec<_>>()
        };
        let error = create_table(dir.path(), &with("age")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the column `age` of the schema `s` differs in case only from `Age` of its table"
        );
        assert!(error.help().unwrap().starts_with("name the field `Age`"), "{error:?}");
        assert_eq!(columns(), ["id", "Age"]);
        // A table that has both since an earlier version keeps both.
        let paths = TablePaths::new(dir.path(), "s");
        let mut both = read_columns(&paths).unwrap().unwrap().columns;
        both.push(TableColumn { name: "age".to_owned(), of: FieldType::Integer, hashed: false });
        write_columns(&paths, both).unwrap();
        create_table(dir.path(), &with("age")).unwrap();
        create_table(dir.path(), &with("Age")).unwrap();
        assert_eq!(columns(), ["id", "Age", "age"]);
    }

    /// A spec with one schema.
    fn spec(folder: &Path, name: &str, fields: &str) -> Spec {
        let file = folder.join("throng.yaml");
        let text = format!(
            "version: 1\nnode: {{ lake: lake }}\nschemas:\n  - name: {name}\n    key: id\n    fields:\n      \
             - {{ name: id, type: text, required: true }}\n{fields}"
        );
        std::fs::write(&file, text).unwrap();
        throng_spec::load(&file).unwrap()
    }

    #[test]
    fn a_preview_has_the_tables_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        create_tables(&spec(dir.path(), "removed", "")).unwrap();
        let field = |of: &str| format!("      - {{ name: n, type: {of} }}\n");
        let preview = dir.path().join("preview");
        let planned = spec(dir.path(), "s", &field("date"));
        assert!(preview_tables(&planned, &preview).unwrap());
        let tables = |folder: &str| {
            let folder = dir.path().join(folder).join(DEFAULT_WORKSPACE);
            let found = throng_files::of_folder(&folder, &folder).unwrap();
            assert!(found.tables.values().all(Result::is_ok));
            found.tables.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(tables("preview"), ["removed", "s"]);
        assert_eq!(tables("lake"), ["removed"]);
        // The type of a field that was only planned can change; that of a table cannot.
        let applied = spec(dir.path(), "s", &field("integer"));
        create_tables(&applied).unwrap();
        let unused = dir.path().join("unused");
        assert!(!preview_tables(&applied, &unused).unwrap() && !unused.exists());
        preview_tables(&planned, &unused).unwrap_err();
    }
}
