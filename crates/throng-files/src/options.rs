//! The settings of a source for reading its files. Pure.

use throng_model::trim_invisible;
use throng_spec::ColumnType;

/// Whether a text is a value of a declared type. The engine decides it: what it accepts here it must be able to
/// convert when it reads the file.
pub type IsValue = fn(ColumnType, &str) -> bool;

/// The settings of a source for reading its files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadOptions {
    /// The declared types, by column.
    pub declared: Vec<(String, ColumnType)>,
    /// Text is read without the white space and invisible characters around it.
    pub trim: bool,
    /// Whether CSV files start with a header; `None`: they do, and a first line that looks like
    /// values is refused.
    pub header: Option<bool>,
    /// Whether the files are copies of the objects of a bucket. Their times are those of the objects, the same ones on
    /// every node; the times at which their inodes changed are those of each copy, and are not part of fingerprints.
    pub copied: bool,
}

impl ReadOptions {
    /// The columns of CSV files in their order, where the source declares that the files have no
    /// header.
    pub fn positional(&self) -> Option<Vec<String>> {
        let names = || self.declared.iter().map(|(name, _)| name.clone()).collect();
        (self.header == Some(false)).then(names)
    }

    /// The declared type of the column with this name, or with one that differs only in case.
    pub fn declared(&self, column: &str) -> Option<ColumnType> {
        let same = self.declared.iter().find(|(name, _)| name == column);
        let lower = column.to_lowercase();
        let alike = || self.declared.iter().find(|(name, _)| name.to_lowercase() == lower);
        same.or_else(alike).map(|(_, declared)| *declared)
    }

    /// The value of a cell after trimming, if that is set.
    pub(crate) fn cell<'a>(&self, text: &'a str) -> &'a str {
        if self.trim { trim_invisible(text) } else { text }
    }
}

/// The white space that `trim` removes beside [`throng_model::INVISIBLE`]: that of Unicode, as [`str::trim`].
pub const WHITE_SPACE: [char; 25] = [
    '\t', '\n', '\u{b}', '\u{c}', '\r', ' ', '\u{85}', '\u{a0}', '\u{1680}', '\u{2000}',
    '\u{2001}', '\u{2002}', '\u{2003}', '\u{2004}', '\u{2005}', '\u{2006}', '\u{2007}', '\u{2008}',
    '\u{2009}', '\u{200a}', '\u{2028}', '\u{2029}', '\u{202f}', '\u{205f}', '\u{3000}',
];

#[cfg(test)]
mod tests {
    use super::WHITE_SPACE;

    #[test]
    fn white_space_is_that_of_unicode() {
        let all: Vec<char> = (char::MIN..=char::MAX).filter(|c| c.is_whitespace()).collect();
        assert_eq!(all, WHITE_SPACE);
    }
}
