//! The evidence that the CSV files of a table begin with a header, and what is shown of names that may be values.
//! Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;

use throng_files::{DataFile, HeaderEvidence, shown_name};

use super::file_schema::FileSchema;

/// Replaces a name that may be a value.
const MASK: &str = "…";

/// The evidence that the files of a table begin with a header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TableHeader {
    /// The first line of a file was taken as the header, and the source does not declare that.
    pub(crate) is_assumed: bool,
    /// A file whose first line may be a row.
    doubtful: Option<PathBuf>,
    /// The names in such lines.
    names: BTreeSet<String>,
}

impl TableHeader {
    /// A name that several files have is not a value: their first rows would not be equal.
    pub(super) fn of(files: &[(&DataFile, &FileSchema)]) -> Self {
        let is_assumed = files.iter().any(|(_, schema)| schema.header != HeaderEvidence::Certain);
        let mut header = Self { is_assumed, ..Self::default() };
        for (file, schema) in files {
            let names: BTreeSet<&str> =
                schema.columns.iter().map(|column| column.name.as_str()).collect();
            let mut others = files.iter().filter(|(other, _)| other.path() != file.path());
            let mut is_elsewhere = || {
                others
                    .any(|(_, other)| other.columns.iter().any(|c| names.contains(c.name.as_str())))
            };
            if schema.header != HeaderEvidence::Doubtful || is_elsewhere() {
                continue;
            }
            header.doubtful.get_or_insert_with(|| file.path().to_owned());
            header.names.extend(schema.columns.iter().map(|column| column.name.clone()));
        }
        header
    }

    /// Whether a name may be a value of the data.
    pub(crate) fn may_be_value(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// A name as it is shown.
    pub(crate) fn shown<'n>(&self, name: &'n str) -> Cow<'n, str> {
        if self.may_be_value(name) { Cow::Borrowed(MASK) } else { shown_name(name) }
    }

    /// What the author of the spec should check, if there is a doubt.
    pub(crate) fn warning(&self) -> Option<String> {
        let path = self.doubtful.as_ref()?;
        Some(format!(
            "the first line of {} was taken as the header and may be a row, because its fields are written like \
             the values below them: if it is a row, declare `header: false` and all `columns` in their order; if it \
             names the columns, declare `header: true`",
            path.display()
        ))
    }
}
