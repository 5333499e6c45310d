//! Names of columns as they are shown. Pure.

use std::borrow::Cow;

use throng_files::shown_name;
use throng_tables::OpenTable;

/// The name of a column as it is shown: masked if it may be a value of the data.
pub(crate) fn shown_column<'n>(name: &'n str, tables: &[OpenTable]) -> Cow<'n, str> {
    let header = tables.iter().map(|table| &table.layout.header).find(|h| h.may_be_value(name));
    header.map_or_else(|| shown_name(name), |header| header.shown(name))
}
