//! The evidence that the CSV files of a table begin with a header, and what is shown of names that may be values.
//! Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::plain_words::{has_certain_name, is_known_name, is_plain_name};
use crate::{HeaderEvidence, shown_name};

/// Replaces a name that may be a value.
const MASK: &str = "…";

/// The evidence that the files of a table begin with a header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableHeader {
    /// The first line of a file was taken as the header, and the source does not declare that.
    pub is_assumed: bool,
    /// A file whose first line may be a row.
    doubtful: Option<PathBuf>,
    /// The names in such lines, and those in other lines that are written as values.
    names: BTreeSet<String>,
    /// Names that no other file has, in lines without a certain name, which are not written as names are.
    unsure: BTreeSet<String>,
}

impl TableHeader {
    /// `files`: each with its evidence and the names of its columns. A name that several files have is not a value:
    /// their first rows would not be equal.
    pub fn of(files: &[(&Path, HeaderEvidence, BTreeSet<&str>)]) -> Self {
        let is_certain = |evidence: HeaderEvidence| evidence == HeaderEvidence::Certain;
        let is_assumed = files.iter().any(|(_, evidence, _)| !is_certain(*evidence));
        let mut header = Self { is_assumed, ..Self::default() };
        for (path, evidence, names) in files {
            let mut others = files.iter().filter(|(other, ..)| other != path);
            let mut is_elsewhere = || others.any(|(.., other)| !other.is_disjoint(names));
            if is_certain(*evidence) || is_elsewhere() {
                continue;
            }
            let owned = names.iter().map(|name| (*name).to_owned());
            match evidence {
                HeaderEvidence::Doubtful => {
                    header.doubtful.get_or_insert_with(|| path.to_path_buf());
                    header.names.extend(owned);
                }
                HeaderEvidence::Unsure => {
                    header.names.extend(owned.filter(|name| !is_known_name(name)));
                }
                _ if has_certain_name(names.iter().copied()) => {}
                _ => header.unsure.extend(owned.filter(|name| !is_plain_name(name))),
            }
        }
        header
    }

    /// Whether a name may be a value of the data.
    pub fn may_be_value(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether a name may be a value of the data, or is not known to be none: a list of columns in an error does not
    /// show it.
    pub fn is_unsure(&self, name: &str) -> bool {
        self.may_be_value(name) || self.unsure.contains(name)
    }

    /// A name as it is shown.
    pub fn shown<'n>(&self, name: &'n str) -> Cow<'n, str> {
        if self.may_be_value(name) { Cow::Borrowed(MASK) } else { shown_name(name) }
    }

    /// What the author of the spec should check, if there is a doubt.
    pub fn warning(&self) -> Option<String> {
        let path = self.doubtful.as_ref()?;
        Some(format!(
            "the first line of {} was taken as the header and may be a row, because its fields are written like \
             the values below them: if it is a row, declare `header: false` and all `columns` in their order; if it \
             names the columns, declare `header: true`",
            path.display()
        ))
    }
}
