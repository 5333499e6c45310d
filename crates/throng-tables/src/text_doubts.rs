//! Warns of texts of files that are doubtful as keys and identifiers. Pure.

use std::collections::BTreeSet;

use throng_files::DoubtfulForm;

use super::layout::Layout;

/// Doubts about the texts that the columns `texts` of a table give to keys and identifiers.
pub fn text_doubts(table: &str, layout: &Layout, texts: &BTreeSet<String>) -> Vec<String> {
    let used = layout.doubtful.iter().filter(|(column, _)| texts.contains(column));
    used.map(|(column, doubt)| {
        let column = layout.header.shown(column);
        match doubt {
            DoubtfulForm::TwoForms => format!(
                "{table}: whole numbers of the column {column} are written both as `1` and as `1.0`, which are different \
                 keys: write the files with one form; programs write `1.0` once a cell of the column is empty"
            ),
            DoubtfulForm::Changed => format!(
                "{table}: a spreadsheet has changed values of the column {column}, which are written as `1.23E+12`, \
                 `########`, `1-Mar` or `#REF!`, and several may have become one: export the column as text"
            ),
            DoubtfulForm::Apostrophes => format!(
                "{table}: values of the column {column} are between apostrophes, as `'42'`, which are part of the key: \
                 remove them, or write quotes instead"
            ),
        }
    })
    .collect()
}
