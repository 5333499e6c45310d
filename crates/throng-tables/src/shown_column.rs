//! Names of columns as they are shown. Pure.

use std::borrow::Cow;

use throng_files::shown_name;

use super::layout::OpenTable;

/// The name of a column as it is shown: masked if it may be a value of the data.
pub fn shown_column<'n>(name: &'n str, tables: &[OpenTable]) -> Cow<'n, str> {
    let header = tables.iter().map(|table| &table.layout.header).find(|h| h.may_be_value(name));
    header.map_or_else(|| shown_name(name), |header| header.shown(name))
}

/// The name of a column in a list of all of them: masked also if it is not known to be none.
pub fn listed_column<'n>(name: &'n str, tables: &[OpenTable]) -> Cow<'n, str> {
    match tables.iter().any(|table| table.layout.header.is_unsure(name)) {
        true => Cow::Borrowed("…"),
        false => shown_column(name, tables),
    }
}
