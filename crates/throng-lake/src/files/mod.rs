//! Files of sources, as tables.

mod compare;
mod csv;
mod declared;
mod discover;
mod evidence;
mod fault;
mod format;
mod header;
mod json;
mod names;
mod nested;
mod objects;
mod parquet;
mod placing;
mod provider;
mod survey;
mod text;
mod text_scan;
mod union;
mod widen;
mod written;

pub use discover::PassedOver;
pub(crate) use discover::{DataFile, FileStamp, Folder, Table, of_folder};
pub(crate) use fault::FileFault;
pub(crate) use format::{Format, Named, named, sql_name};
pub(crate) use names::{is_personal, shown_name};
pub(crate) use provider::LakeTable;
pub(crate) use survey::{Reading, Survey, survey};
pub(crate) use union::{Column, FilePlan, Layout, Origin, shown, union};
pub(crate) use written::{as_written, is_written};
