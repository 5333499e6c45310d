//! The tables of schemas before their first batch: a table has one file without rows, with all of its columns, so
//! that SQL over it can be checked and audiences can be built. The types of columns are remembered with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;

use throng_files::{BatchFile, MANIFEST_VERSION, parse_manifest};
use throng_schema::{Schema, workspace_folder};
use throng_spec::Spec;

use crate::bucket_lake::BucketLake;
use crate::bucket_tables;
use crate::columns::arrow_schema;
use crate::error::IngestError;
use crate::paths::{
    TablePaths, aside_name, batch_key, create_folder, entries, remove_file, rename_over,
    sync_folder, write_whole,
};
use crate::table_columns::{COLUMNS_KEY, ColumnsManifest, NO_DAY, TableColumn, columns_with};
use crate::write::write_parquet;

/// Creates the tables of a spec that do not exist, and adds the columns that the existing ones lack. Does nothing
/// without `node.lake`. `bucket`: that of `node.lake_bucket`. Blocks.
///
/// # Errors
/// [`IngestError::Refused`] if a column of a table has another type than its field has now; [`IngestError::Table`] if a
/// newer version of Throng has written a table; [`IngestError::Io`]; [`IngestError::Bucket`].
pub fn create_tables(spec: &Spec, bucket: Option<&BucketLake>) -> Result<(), IngestError> {
    let Some(lake) = &spec.node.lake else { return Ok(()) };
    let bucket = bucket_of(spec, bucket)?;
    spec.schemas.iter().try_for_each(|schema| {
        if let Some(bucket) = bucket {
            return bucket_tables::create_table(bucket, schema);
        }
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
pub fn preview_tables(
    spec: &Spec,
    bucket: Option<&BucketLake>,
    folder: &Path,
) -> Result<bool, IngestError> {
    let Some(lake) = spec.node.lake.as_ref().filter(|_| !spec.schemas.is_empty()) else {
        return Ok(false);
    };
    let bucket = bucket_of(spec, bucket)?;
    if let Some(bucket) = bucket
        && !changes_bucket(bucket, &spec.schemas)?
    {
        return Ok(false);
    }
    let workspaces: BTreeSet<&str> =
        spec.schemas.iter().map(|schema| workspace_folder(schema.name.workspace())).collect();
    // By their paths in the lake. Also those of schemas that the spec no longer has.
    let mut tables = BTreeMap::new();
    for workspace in workspaces {
        let found = match bucket {
            Some(bucket) => bucket_tables::columns_in(bucket, workspace)?,
            None => columns_in(&lake.join(workspace))?,
        };
        for (table, columns) in found {
            tables.insert(Path::new(workspace).join(table), columns);
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

/// Whether these schemas would create or change a table in a bucket. With one request each: listing the objects of all
/// batches takes much longer.
fn changes_bucket(bucket: &BucketLake, schemas: &[Schema]) -> Result<bool, IngestError> {
    for schema in schemas {
        let before = bucket_tables::columns_of(bucket, schema)?;
        let columns = columns_with(before.as_deref().unwrap_or_default(), schema)?;
        if before.as_ref() != Some(&columns) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The bucket of the rows of a spec; `None` if they are in a folder.
fn bucket_of<'b>(
    spec: &Spec,
    bucket: Option<&'b BucketLake>,
) -> Result<Option<&'b BucketLake>, IngestError> {
    let Some(settings) = &spec.node.lake_bucket else { return Ok(None) };
    let url = settings.url().to_string();
    let closed = || io::Error::other("this process has not opened it");
    bucket.map(Some).ok_or_else(|| IngestError::io("use", Path::new(&url))(closed()))
}

/// The columns of the tables in the folder of a workspace, by the names of their folders.
fn columns_in(workspace: &Path) -> Result<Vec<(OsString, Vec<TableColumn>)>, IngestError> {
    let mut found = Vec::new();
    for folder in entries(workspace)? {
        let paths = TablePaths { folder };
        if let (Some(name), Some(before)) = (paths.folder.file_name(), read_columns(&paths)?) {
            found.push((name.to_owned(), before.columns));
        }
    }
    Ok(found)
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

fn read_columns(paths: &TablePaths) -> Result<Option<ColumnsManifest>, IngestError> {
    let path = paths.manifest(COLUMNS_KEY);
    let text = match throng_fs::read(&path) {
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
    use throng_schema::{DEFAULT_WORKSPACE, FieldType};

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
        create_tables(&spec(dir.path(), "removed", ""), None).unwrap();
        let field = |of: &str| format!("      - {{ name: n, type: {of} }}\n");
        let preview = dir.path().join("preview");
        let planned = spec(dir.path(), "s", &field("date"));
        assert!(preview_tables(&planned, None, &preview).unwrap());
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
        create_tables(&applied, None).unwrap();
        let unused = dir.path().join("unused");
        assert!(!preview_tables(&applied, None, &unused).unwrap() && !unused.exists());
        preview_tables(&planned, None, &unused).unwrap_err();
    }
}
