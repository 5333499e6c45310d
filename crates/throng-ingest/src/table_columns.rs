//! The columns of a table, which are remembered with its file without rows.

use serde::{Deserialize, Serialize};
use throng_files::BatchFile;
use throng_schema::{FieldType, Schema};

use crate::error::IngestError;

/// The folder of the file without rows: a day that is NULL, so that the table has the column of its partitions.
pub(crate) const NO_DAY: &str = "day=__HIVE_DEFAULT_PARTITION__";
/// The key of the manifest of the file without rows.
pub(crate) const COLUMNS_KEY: &str = "columns";

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) of: FieldType,
    pub(crate) hashed: bool,
}

/// The manifest of the file without rows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ColumnsManifest {
    pub(crate) version: u32,
    pub(crate) files: Vec<BatchFile>,
    pub(crate) columns: Vec<TableColumn>,
}

/// The columns of a table with those that the schema adds.
pub(crate) fn columns_with(
    before: &[TableColumn],
    schema: &Schema,
) -> Result<Vec<TableColumn>, IngestError> {
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
