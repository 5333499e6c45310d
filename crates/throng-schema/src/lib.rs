//! Schemas of ingested records: [`Schema`] is what users declare in `schemas`, [`Schema::problems`] checks it, and
//! [`value`] reads the texts of records as values of its types. Pure.

mod check;
mod field_type;
mod raw;
pub mod value;

use serde::{Deserialize, Serialize};
use throng_model::SchemaName;

pub use check::{MAX_FIELDS, SchemaProblem};
pub use field_type::{FieldType, NotAFieldType, TYPES_HELP};
pub use raw::{RawAnonymise, RawBound, RawField, RawRecordFormat, RawSchema};

/// The column that folders of a table give its rows: the day of the batch's partition.
pub const DAY_COLUMN: &str = "day";
/// The source whose tables are the schemas.
pub const LAKE_SOURCE: &str = "lake";
/// The folder of the lake that the default workspace uses. No workspace has this name.
pub const DEFAULT_WORKSPACE: &str = "default";
/// How long rows in quarantine are kept unless set, in days.
pub const QUARANTINE_DAYS: u32 = 30;

/// The folder of the rows of a workspace, in the lake and in quarantine; `None` is the default workspace.
pub fn workspace_folder(workspace: Option<&str>) -> &str {
    workspace.unwrap_or(DEFAULT_WORKSPACE)
}

/// The declaration of records that are ingested. They become the table `lake.<name>` of their workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// Unique in the spec; in SQL `-` and `.` become `_`.
    pub name: SchemaName,
    /// A description for people.
    pub description: Option<String>,
    /// The only format that is accepted; `None` means every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<RecordFormat>,
    /// The field that the rows of each file are sorted by.
    pub key: String,
    /// The field whose day, in UTC, decides the partition; `None` means the day of arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
    /// Two capital letters, for phone numbers without a calling code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_country: Option<String>,
    /// How many days rows in quarantine are kept, 1 to 365; 30 unless set.
    #[serde(default = "quarantine_days")]
    pub quarantine_days: u32,
    /// The fields, in the order of the table's columns.
    pub fields: Vec<Field>,
}

fn quarantine_days() -> u32 {
    QUARANTINE_DAYS
}

impl Schema {
    /// The field of this name, with its place.
    pub fn field(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields.iter().enumerate().find(|(_, field)| field.name == name)
    }

    /// The fields that are stored: all but those that are dropped.
    pub fn stored(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.anonymise != Some(Anonymise::Drop))
    }
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// The name of the column in files, and in the table.
    pub name: String,
    /// The type of its values.
    #[serde(rename = "type")]
    pub of: FieldType,
    /// Whether a record without a value is refused.
    #[serde(default)]
    pub required: bool,
    /// The least value; of text the least number of characters. As it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<String>,
    /// The largest value; of text the largest number of characters. As it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
    /// What happens to the value before anything is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymise: Option<Anonymise>,
}

/// What happens to a value before anything is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anonymise {
    /// The SHA-256 of the normalised value is stored, as 64 hexadecimal digits.
    Hash,
    /// Nothing is stored.
    Drop,
}

/// The form of a file of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordFormat {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Parquet.
    Parquet,
}

impl RecordFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Csv, Self::Ndjson, Self::Parquet];

    /// Its name in specs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
        }
    }

    /// The content type with which it is sent.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Ndjson => "application/x-ndjson",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The format of a content type without its parameters, in lower case.
    pub fn of_content_type(kind: &str) -> Option<Self> {
        match kind {
            "text/csv" => Some(Self::Csv),
            "application/x-ndjson" | "application/ndjson" => Some(Self::Ndjson),
            "application/vnd.apache.parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}
