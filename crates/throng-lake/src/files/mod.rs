//! Files of sources as tables.

mod column_mapping;
mod compare;
mod csv;
mod declared;
mod discover;
mod fault;
mod file_schema;
mod format;
mod header;
mod infer;
mod json;
mod json_objects;
mod names;
mod nested;
mod parquet;
mod provider;
mod text;
mod text_scan;
mod union;
mod widen;
mod written;

pub use discover::PassedOver;
pub(crate) use discover::{DataFile, FileStamp, Folder, Table, of_folder};
pub(crate) use fault::FileFault;
pub(crate) use file_schema::{FileSchema, ReadOptions, infer_schema};
pub(crate) use format::{FileKind, Format, file_kind, sql_name};
pub(crate) use names::{is_personal, shown_name};
pub(crate) use provider::LakeTable;
pub(crate) use union::{Column, FilePlan, Layout, Origin, shown, union};
pub(crate) use written::{as_written, is_written};
