//! The form that people write, for the JSON schema that editors use.

use schemars::JsonSchema;
use serde::Deserialize;

/// The declaration of records that are ingested. They become the table `lake.<name>`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSchema {
    /// 1 to 128 of a-z, 0-9, `-`, `_`, `.`; in SQL `-` and `.` become `_`.
    pub name: String,
    /// A description for people.
    pub description: Option<String>,
    /// The only format that is accepted (all).
    pub format: Option<RawRecordFormat>,
    /// The field that the rows of each file are sorted by; it is required.
    pub key: String,
    /// The field of the type date or timestamp whose day decides the partition (the day of arrival).
    pub day: Option<String>,
    /// Two capital letters such as US, for phone numbers without a calling code.
    pub default_country: Option<String>,
    /// How many days rows in quarantine are kept (30).
    #[schemars(range(min = 1, max = 365))]
    pub quarantine_days: Option<u32>,
    /// The fields of a record: all columns that files may have.
    pub fields: Vec<RawField>,
}

/// A field of a record.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawField {
    /// The name of the column in files and in the table.
    pub name: String,
    /// `text`, `integer`, `decimal(12, 2)`, `boolean`, `timestamp`, `date`, `email` or `phone`.
    pub r#type: String,
    /// Whether a record without a value goes to quarantine (false).
    #[serde(default)]
    pub required: bool,
    /// The least value; of text the least number of characters.
    pub min: Option<RawBound>,
    /// The largest value; of text the largest number of characters.
    pub max: Option<RawBound>,
    /// What happens to the value before anything is stored (nothing).
    pub anonymise: Option<RawAnonymise>,
}

/// A bound of values, as text or as a number.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawBound {
    /// Such as "2020-01-01".
    Text(String),
    /// Such as 18.
    Number(f64),
}

/// What happens to a value before anything is stored.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawAnonymise {
    /// Its SHA-256 is stored, of e-mail addresses and phone numbers after they are normalised.
    Hash,
    /// Nothing is stored.
    Drop,
}

/// The format of a file of records.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawRecordFormat {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Parquet.
    Parquet,
}
