//! Files of sources, before any query engine: which files of a folder are tables, whether the first line of a
//! CSV file is a header, and the types that the values of CSV and JSON files have in common.
//!
//! [`of_folder`] finds the tables of a source. [`infer_schema` of CSV](crate::csv::infer_schema) and
//! [of JSON](crate::json::infer_schema) read a whole file and return its columns with the kinds of their values.
//! Nothing here knows how an engine reads a file: the caller decides whether a text is a value of a declared type
//! ([`IsValue`]).
//!
//! No error has a value of the data, and names of columns that look like personal data are masked
//! ([`shown_name`]).

mod batches;
mod beneath;
mod copy_names;
pub mod csv;
mod discover;
mod error;
mod fault;
mod file_names;
mod format;
mod header;
mod infer;
mod joined;
pub mod json;
mod json_objects;
mod kinds;
mod moment_forms;
mod names;
mod nested;
mod node;
mod number_forms;
mod options;
mod plain_words;
mod quotes;
mod repeated;
mod schema;
mod stamp;
mod state;
mod table_format;
mod table_header;
mod text;
mod text_forms;
mod unread;

pub use batches::{
    BATCHES_FOLDER, BatchFile, MANIFEST_ENDING, MANIFEST_VERSION, STAGING_FOLDER, finished_files,
    parse_manifest,
};
pub use beneath::check_beneath;
pub use copy_names::named_copies;
pub use discover::{DataFile, Folder, PassedOver, Table, of_folder};
pub use error::FileError;
pub use fault::FileFault;
pub use format::{
    FileKind, Format, ICEBERG_FOLDER, file_kind, is_iceberg_metadata, passed_over_by_name, sql_name,
};
pub use infer::{InferredType, SHORTEST, TimeUnit, ValueType};
pub use json_objects::JsonObjects;
pub use kinds::{
    FileColumns, Shown, compare_columns, compare_headers, compare_kinds, doubt, renamed,
};
pub use names::{is_personal, shown_name, shown_path, spelling, unusual_character};
pub use nested::{compare_fields, mixed};
pub use node::{Node, Step};
pub use number_forms::NumberForms;
pub use options::{IsValue, ReadOptions, WHITE_SPACE};
pub use plain_words::HeaderEvidence;
pub use schema::{TextColumn, TextSchema};
pub use stamp::{FileStamp, ScannedFiles};
pub use state::{Fingerprint, first_incomplete};
pub use table_header::TableHeader;
pub use text::{TextReader, git_lfs_pointer, open};
pub use text_forms::{DoubtfulForm, TextForms};
pub use unread::unread;
