//! The tables of schemas in a bucket, before their first batch: as in a folder (`tables.rs`), by several nodes.

use std::ffi::OsString;
use std::io;

use throng_files::{BatchFile, MANIFEST_VERSION, parse_manifest};
use throng_model::{Entropy as _, SystemEntropy};
use throng_schema::Schema;

use crate::bucket_lake::{BucketLake, manifest_name, table_of};
use crate::columns::arrow_schema;
use crate::error::IngestError;
use crate::paths::{batch_key, create_folder};
use crate::table_columns::{COLUMNS_KEY, ColumnsManifest, NO_DAY, TableColumn, columns_with};
use crate::write::write_parquet;

/// How often a table that other nodes change at the same time is read.
const MAX_TRIES: u32 = 8;

/// Creates the table of one schema, or adds the columns that it lacks.
pub(crate) fn create_table(bucket: &BucketLake, schema: &Schema) -> Result<(), IngestError> {
    let table = table_of(schema);
    let manifest = manifest_name(&table, COLUMNS_KEY);
    for _ in 0..MAX_TRIES {
        let found = read(bucket, &manifest)?;
        let before = found.as_ref().map_or(&[][..], |(found, _)| found.columns.as_slice());
        let columns = columns_with(before, schema)?;
        let version = match found {
            Some((found, _)) if found.columns == columns && is_whole(bucket, &table, &found)? => {
                return Ok(());
            }
            Some((_, version)) => Some(version),
            None => None,
        };
        if write(bucket, &table, columns, version)? {
            return Ok(());
        }
    }
    let error = io::Error::other("other nodes write it at the same time");
    Err(IngestError::io("write", &bucket.url(&manifest))(error))
}

/// The columns of the table of a schema; `None` if there is none.
pub(crate) fn columns_of(
    bucket: &BucketLake,
    schema: &Schema,
) -> Result<Option<Vec<TableColumn>>, IngestError> {
    let found = read(bucket, &manifest_name(&table_of(schema), COLUMNS_KEY))?;
    Ok(found.map(|(found, _)| found.columns))
}

/// The columns of the tables in the folder of a workspace, by the names of their folders. Lists all of its objects.
pub(crate) fn columns_in(
    bucket: &BucketLake,
    workspace: &str,
) -> Result<Vec<(OsString, Vec<TableColumn>)>, IngestError> {
    let mut found = Vec::new();
    for object in bucket.list(workspace)? {
        let table = object.name.split('/').nth(1).unwrap_or_default();
        let manifest = manifest_name(&format!("{workspace}/{table}"), COLUMNS_KEY);
        if object.name == manifest
            && let Some((columns, _)) = read(bucket, &manifest)?
        {
            found.push((OsString::from(table), columns.columns));
        }
    }
    Ok(found)
}

/// The manifest of the file without rows, with its version.
fn read(bucket: &BucketLake, name: &str) -> Result<Option<(ColumnsManifest, String)>, IngestError> {
    let Some(found) = bucket.load(name)? else { return Ok(None) };
    Ok(Some((parse_manifest(&bucket.url(name), &found.bytes)?, found.version)))
}

fn is_whole(
    bucket: &BucketLake,
    table: &str,
    manifest: &ColumnsManifest,
) -> Result<bool, IngestError> {
    let objects = bucket.list(&format!("{table}/{NO_DAY}"))?;
    let is_object = |file: &BatchFile| {
        let name = format!("{table}/{}", file.path);
        objects.iter().any(|object| object.name == name)
    };
    Ok(manifest.files.iter().all(is_object))
}

/// Uploads a file without rows, then replaces the manifest of this version by one that names the file. `false` if
/// another node has changed it. The previous file stays, for readers that have listed it: it is removed with what
/// crashes have left.
fn write(
    bucket: &BucketLake,
    table: &str,
    columns: Vec<TableColumn>,
    version: Option<String>,
) -> Result<bool, IngestError> {
    let manifest = manifest_name(table, COLUMNS_KEY);
    let fail = |error: serde_json::Error| {
        IngestError::io("write", &bucket.url(&manifest))(io::Error::other(error))
    };
    let text = serde_json::to_string(&columns).map_err(fail)?;
    // Another file for each write: what removes files that no manifest names must not meet one that is named soon.
    let (key, token) = (batch_key(&text), SystemEntropy.next_u64());
    let path = format!("{NO_DAY}/columns-{key}-{token:016x}.parquet");
    let name = format!("{table}/{path}");
    let local = bucket.local(&name);
    if let Some(folder) = local.parent() {
        create_folder(folder)?;
    }
    let schema = arrow_schema(columns.iter().map(|column| (column.name.clone(), column.of)));
    let bytes = write_parquet(&local, &schema, None, 0)?;
    let names = [name];
    bucket.upload(&names)?;
    let files = vec![BatchFile { path, bytes, rows: 0 }];
    let text = ColumnsManifest { version: MANIFEST_VERSION, files, columns };
    let text = serde_json::to_vec_pretty(&text).map_err(fail)?;
    let is_written = bucket.swap(&manifest, text, version)?;
    if !is_written {
        bucket.remove(&names)?;
    }
    Ok(is_written)
}
