//! Whether the files of one table are of one kind, by the names of their columns. Columns are matched by name, and a
//! column that a file does not have is NULL in its rows: files of two tables in one folder, or a file in which a
//! column has another name, would give wrong users without an error. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::FileError;

/// Names of columns that a message has of each file, at most.
const MAX_SHOWN: usize = 5;
/// Characters that separate columns instead of commas.
pub(crate) const SEPARATORS: [char; 3] = [';', '\t', '|'];
/// Sets of columns of one table that are compared with each other, at most.
const MAX_COMPARED: usize = 64;
/// Letters that a part of a file's name has at least, to say what is in the file.
const MIN_WORD: usize = 4;

/// The columns of a file, by their names in the table.
#[derive(Debug, Clone)]
pub struct FileColumns<'a> {
    /// The file.
    pub path: &'a Path,
    /// Whether a row may leave out columns, as in a JSON file.
    pub sparse: bool,
    /// Its columns.
    pub columns: BTreeSet<&'a str>,
}

/// How a name is shown: without what may be a value of the data.
pub type Shown<'s> = &'s dyn Fn(&str) -> String;

/// Refuses a CSV file whose header has little in common with those before it: the files are of different tables,
/// spell the names differently, or have no header. The error does not contain the first line, which may be data.
/// `files`: lower-case names of their columns.
///
/// # Errors
/// [`FileError::Table`].
pub fn compare_headers<'a>(
    files: impl Iterator<Item = (&'a Path, BTreeSet<String>)>,
) -> Result<(), FileError> {
    let mut first: Option<&Path> = None;
    let mut undivided: Option<&Path> = None;
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (path, names) in files {
        let common = names.intersection(&known).count();
        let smaller = names.len().min(known.len());
        if names.len() == 1 && names.iter().all(|name| name.contains(SEPARATORS)) {
            undivided.get_or_insert(path);
        }
        match (first, undivided) {
            (None, _) => first = Some(path),
            (Some(_), Some(undivided)) if common * 2 <= smaller && common < smaller => {
                return Err(FileError::Table {
                    message: format!(
                        "{} has one column where other files have several: its columns are not separated by \
                         commas",
                        undivided.display()
                    ),
                    help: "separate the columns of all files by commas".to_owned(),
                });
            }
            // With one column in common and none missing, the file is a table of keys.
            (Some(before), None) if common * 2 <= smaller && common < smaller => {
                return Err(FileError::Table {
                    message: format!(
                        "{} has another header than {}: {common} of {} columns are the same",
                        path.display(),
                        before.display(),
                        names.len()
                    ),
                    help:
                        "put files with other columns into a separate folder; start every file with \
                           a line that names its columns, or none and declare `header: false`"
                            .to_owned(),
                });
            }
            (Some(_), _) => {}
        }
        known.extend(names);
    }
    Ok(())
}

/// Refuses a file that has no column of the files before it: it belongs to another table, or is an
/// error message that was saved as a file. `files`: lower-case names of their columns.
///
/// # Errors
/// [`FileError::Table`].
pub fn compare_columns<'a>(
    files: impl Iterator<Item = (&'a Path, BTreeSet<String>)>,
) -> Result<(), FileError> {
    let mut first: Option<&Path> = None;
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (path, names) in files {
        match first {
            None => first = Some(path),
            Some(before) if names.is_disjoint(&known) => {
                return Err(FileError::Table {
                    message: format!("{} has no column of {}", path.display(), before.display()),
                    help: "put files with other columns into a separate folder".to_owned(),
                });
            }
            Some(_) => {}
        }
        known.extend(names);
    }
    Ok(())
}

/// Refuses two groups of files of which each has columns that the other lacks, if their names say that they are of
/// different tables, such as `customers.csv` beside `orders.csv`. Files to which columns were added have all columns
/// of earlier ones, and files of one export share a word (`part-0001.csv`) or have none. `is_declared`: whether the
/// source declares a column, which says that it is one of the table.
///
/// # Errors
/// [`FileError::Table`] naming a file of each group.
pub fn compare_kinds(
    files: &[FileColumns<'_>],
    is_declared: impl Fn(&str) -> bool,
    shown: Shown<'_>,
) -> Result<(), FileError> {
    let others = |names: &BTreeSet<&str>| names.iter().any(|name| !is_declared(name));
    let refused = |pair: &Unlike<'_>| {
        let (one, other) = (words(&pair.one), words(&pair.other));
        let named = !one.is_empty() && !other.is_empty() && one.is_disjoint(&other);
        named && others(&pair.only_one) && others(&pair.only_other)
    };
    match unlike(files).find(refused) {
        None => Ok(()),
        Some(pair) => Err(FileError::Table {
            message: pair.describe(shown),
            help: "put files of different tables into separate folders; if they are of one table, declare the \
                   columns that some of them lack under `columns` of the source"
                .to_owned(),
        }),
    }
}

/// What is doubtful about files of which each has columns that the other lacks.
pub fn doubt(files: &[FileColumns<'_>], shown: Shown<'_>) -> Option<String> {
    let pair = unlike(files).next()?;
    Some(format!(
        "{}: the rows of each have NULL there; put files of different tables into separate folders, and give a \
         column one name in all files",
        pair.describe(shown)
    ))
}

/// What is doubtful about a column that some files lack, if one of these has columns that no file with it has: the
/// column may have another name there.
pub fn renamed(files: &[FileColumns<'_>], column: &str, shown: Shown<'_>) -> Option<String> {
    let (with, without): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| file.columns.contains(column));
    let known: BTreeSet<&str> = with.iter().flat_map(|file| &file.columns).copied().collect();
    let has = with.first()?;
    let mut unknown = without.iter().filter_map(|file| {
        let own: BTreeSet<&str> = file.columns.difference(&known).copied().collect();
        (!own.is_empty()).then_some((file, own))
    });
    let (lacks, own) = unknown.next()?;
    let more = match unknown.count() {
        0 => String::new(),
        count => format!(" and {count} more files"),
    };
    Some(format!(
        "column {} is in {} but not in {}{more}, which has {} instead: rows of such files have no value of it; give \
         the column one name in all files",
        shown(column),
        has.path.display(),
        lacks.path.display(),
        list(&own, shown)
    ))
}

/// Two groups of files with the same columns, of which each has columns that the other lacks.
struct Unlike<'f> {
    one: Vec<&'f Path>,
    other: Vec<&'f Path>,
    only_one: BTreeSet<&'f str>,
    only_other: BTreeSet<&'f str>,
}

impl Unlike<'_> {
    fn describe(&self, shown: Shown<'_>) -> String {
        let name = |paths: &[&Path]| paths.first().map(|p| p.display().to_string());
        let (one, other) = (name(&self.one), name(&self.other));
        let (one, other) = (one.unwrap_or_default(), other.unwrap_or_default());
        format!(
            "{other} lacks {}, which {one} has, and {one} lacks {}, which {other} has",
            list(&self.only_one, shown),
            list(&self.only_other, shown)
        )
    }
}

/// All pairs of such groups. A row of a JSON file may leave out columns: those are not compared with each other.
fn unlike<'f>(files: &'f [FileColumns<'_>]) -> impl Iterator<Item = Unlike<'f>> {
    let mut groups: BTreeMap<(bool, &BTreeSet<&str>), Vec<&Path>> = BTreeMap::new();
    for file in files {
        groups.entry((file.sparse, &file.columns)).or_default().push(file.path);
    }
    let groups: Vec<_> = groups.into_iter().take(MAX_COMPARED).collect();
    let mut found = Vec::new();
    for (at, ((sparse, columns), one)) in groups.iter().enumerate() {
        for ((other_sparse, others), other) in &groups[at + 1..] {
            let only_one: BTreeSet<&str> = columns.difference(others).copied().collect();
            let only_other: BTreeSet<&str> = others.difference(columns).copied().collect();
            let are_comparable = !(*sparse && *other_sparse);
            if are_comparable && !only_one.is_empty() && !only_other.is_empty() {
                found.push(Unlike { one: one.clone(), other: other.clone(), only_one, only_other });
            }
        }
    }
    found.into_iter()
}

/// Whether a word is the name of a month or of a day of the week, or its beginning, such as `sept` and `thurs`.
fn is_of_date(word: &str) -> bool {
    const NAMES: [&str; 19] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    NAMES.iter().any(|name| name.starts_with(word))
}

/// The words in the names of files that say what is in them: not numbers, dates and hexadecimal digits.
fn words(paths: &[&Path]) -> BTreeSet<String> {
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
    let stems = names.map(|name| name.split('.').next().unwrap_or(name).to_lowercase());
    let mut found = BTreeSet::new();
    for stem in stems {
        let parts = stem.split(|c: char| !c.is_alphabetic());
        let is_word = |part: &&str| {
            part.chars().count() >= MIN_WORD
                && !part.chars().all(|c| c.is_ascii_hexdigit())
                && !is_of_date(part)
        };
        found.extend(parts.filter(is_word).map(str::to_owned));
    }
    found
}

fn list(names: &BTreeSet<&str>, shown: Shown<'_>) -> String {
    let first: Vec<String> = names.iter().take(MAX_SHOWN).map(|name| shown(name)).collect();
    let more = match names.len().saturating_sub(MAX_SHOWN) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    format!("{}{more}", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file<'a>(path: &'a str, columns: &'a str) -> FileColumns<'a> {
        FileColumns {
            path: Path::new(path),
            sparse: path.ends_with("jsonl"),
            columns: columns.split(' ').collect(),
        }
    }

    fn refusal(files: &[FileColumns<'_>], declared: &[&str]) -> Option<String> {
        let compared =
            compare_kinds(files, |name| declared.contains(&name), &|name| name.to_owned());
        compared.err().map(|error| error.to_string())
    }

    fn doubt_of(files: &[FileColumns<'_>]) -> Option<String> {
        doubt(files, &|name| name.to_owned())
    }

    #[test]
    fn a_file_whose_columns_are_not_separated_by_commas_is_named() {
        let compared = |headers: &[(&'static str, &[&str])]| {
            let names = |(path, names): &(&'static str, &[&str])| {
                let names = names.iter().map(|name| (*name).to_owned());
                (Path::new(*path), names.collect::<BTreeSet<String>>())
            };
            let compared = compare_headers(headers.iter().map(names));
            compared.err().map(|error| format!("{error}; {}", error.help()))
        };
        let (two, others) = (["user_id", "ref_id"], [["name"], ["ref_id"]]);
        let commas = ("a.csv", &two[..]);
        for other in ["ref_id;user_id", "ref_id\tuser_id", "ref_id|user_id"] {
            let one = [other];
            let other = ("b.csv", &one[..]);
            for headers in [[commas, other], [other, commas]] {
                let said = compared(&headers).unwrap();
                assert!(said.starts_with("b.csv has one column"), "{said}");
                assert!(said.contains("by commas"), "{said}");
            }
        }
        let said = compared(&[commas, ("b.csv", &others[0][..])]).unwrap();
        assert!(said.starts_with("b.csv has another header than a.csv: 0 of 1"), "{said}");
        assert_eq!(compared(&[commas, ("b.csv", &others[1][..])]), None);
    }

    #[test]
    fn files_of_two_tables_are_refused_by_name() {
        for other in ["orders.csv", "orders.jsonl", "orders-2026-01.parquet"] {
            let files =
                [file("customers.csv", "id name created"), file(other, "id customer_id created")];
            let message = refusal(&files, &[]).unwrap();
            for word in ["customers.csv", other, "name", "customer_id"] {
                assert!(message.contains(word), "{message}");
            }
            assert_eq!(refusal(&files, &["name", "customer_id"]), None, "declared columns");
        }
    }

    #[test]
    fn files_of_one_table_are_accepted() {
        // Columns were added.
        let added = [file("customers.csv", "id"), file("orders.csv", "id name")];
        assert_eq!((refusal(&added, &[]), doubt_of(&added)), (None, None));
        // A column has another name in some files: doubtful, but the names say nothing.
        for (one, other) in [
            ("part-0001.csv", "part-0002.csv"),
            ("2026-01.csv", "2026-02.csv"),
            ("January.csv", "2026-february.csv"),
            ("monday.csv", "thurs.csv"),
            ("users_eu.csv", "users_us.csv"),
            ("1f3a-deadbeef.csv", "orders.csv"),
            ("a.csv", "b.csv"),
        ] {
            let files = [file(one, "user_id n"), file(other, "uid n")];
            assert_eq!(refusal(&files, &[]), None);
            let message = doubt_of(&files).unwrap();
            for word in [one, other, "user_id", "uid"] {
                assert!(message.contains(word), "{message}");
            }
        }
        // Rows of JSON files leave out fields.
        let sparse = [file("anna.jsonl", "id coupon"), file("bert.jsonl", "id referrer")];
        assert_eq!((refusal(&sparse, &[]), doubt_of(&sparse)), (None, None));
    }

    #[test]
    fn a_column_with_another_name_in_some_files_is_doubtful() {
        let renamed = |files: &[FileColumns<'_>], column| {
            super::renamed(files, column, &|name| name.to_owned())
        };
        let (old, new) = (file("1.csv", "user_id n"), file("2.csv", "uid n"));
        let also = file("3.jsonl", "uid n");
        let message = renamed(&[old.clone(), new, also], "user_id").unwrap();
        for word in ["user_id", "uid", "1.csv", "2.csv", "and 1 more files"] {
            assert!(message.contains(word), "{message}");
        }
        // The column was added later.
        let earlier = file("0.csv", "n");
        assert_eq!(renamed(&[old.clone(), earlier], "user_id"), None);
        assert_eq!(renamed(&[old], "other"), None);
    }
}
