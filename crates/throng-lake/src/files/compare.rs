//! The names of columns over all files, and whether the files belong to one table. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::discover::DataFile;
use super::format::Format;
use super::names::{shown_name, spelling};
use super::survey::Survey;
use crate::LakeError;

/// A file with what was found in it.
type Surveyed<'a> = (&'a DataFile, &'a Survey);

/// The names of columns over all files.
pub(super) struct Names<'a> {
    /// Lower-case name → the name in the table, where no file tells two spellings apart.
    alike: BTreeMap<String, &'a str>,
    /// Columns that a file has twice, by their name in the table.
    pub(super) twice: BTreeMap<String, PathBuf>,
}

impl<'a> Names<'a> {
    pub(super) fn of(files: &[(&'a DataFile, &'a Survey)]) -> Self {
        let mut alike: BTreeMap<String, &str> = BTreeMap::new();
        let mut apart: BTreeSet<String> = BTreeSet::new();
        let mut twice: Vec<(&str, &Path)> = Vec::new();
        for (file, survey) in files {
            let mut here: BTreeMap<String, Vec<&str>> = BTreeMap::new();
            let columns = survey.columns.iter().map(|c| (c.name.as_str(), c.twice));
            let folders = file.folders.iter().map(|(name, _)| (name.as_str(), false));
            let mut seen = BTreeSet::new();
            for (name, is_twice) in columns.chain(folders) {
                if is_twice || !seen.insert(name) {
                    twice.push((name, file.path()));
                }
                let lower = name.to_lowercase();
                let others = here.entry(lower.clone()).or_default();
                let together =
                    |other: &&str| *other != name && share_rows(file, survey, other, name);
                if others.iter().any(together) {
                    apart.insert(lower.clone());
                }
                others.push(name);
                alike.entry(lower).or_insert(name);
            }
        }
        alike.retain(|lower, _| !apart.contains(lower));
        let mut names = Self { alike, twice: BTreeMap::new() };
        for (name, path) in twice {
            let name = names.table_name(name).to_owned();
            names.twice.entry(name).or_insert_with(|| path.to_owned());
        }
        names
    }

    /// The name that a column has in the table.
    pub(super) fn table_name<'n>(&self, name: &'n str) -> &'n str
    where
        'a: 'n,
    {
        self.alike.get(&name.to_lowercase()).copied().unwrap_or(name)
    }

    /// Whether a file has the column twice.
    pub(super) fn is_twice(&self, name: &str) -> bool {
        self.twice.contains_key(name)
    }
}

/// Whether rows of a file have both columns. Those of CSV and Parquet files do; the objects of a JSON file may
/// spell one name in two ways.
fn share_rows(file: &DataFile, survey: &Survey, a: &str, b: &str) -> bool {
    let column = |name: &str| survey.columns.iter().find(|column| column.name == name);
    match (file.format, column(a), column(b)) {
        (Format::Json, Some(one), Some(_)) => one.beside.iter().any(|other| other == b),
        // The column that a folder names is in all rows of its files.
        _ => true,
    }
}

/// The names of the columns of a file.
fn columns<'a>(file: &'a DataFile, survey: &'a Survey) -> impl Iterator<Item = &'a str> {
    let columns = survey.columns.iter().map(|column| column.name.as_str());
    columns.chain(file.folders.iter().map(|(name, _)| name.as_str()))
}

/// Refuses files of one table that spell a column in two ways, such as `user_id` and `userid`: each would
/// have NULL in the other's column. Where rows have both, they are two columns.
pub(super) fn compare_spellings(
    files: &[Surveyed<'_>],
    names: &Names<'_>,
) -> Result<(), LakeError> {
    let with_rows = || files.iter().filter(|(_, survey)| survey.rows > 0);
    let mut spellings: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (file, survey) in with_rows() {
        for name in columns(file, survey).map(|name| names.table_name(name)) {
            spellings.entry(spelling(name)).or_default().insert(name);
        }
    }
    for (spelling, spelled) in spellings.iter().filter(|(_, spelled)| spelled.len() > 1) {
        let is_spelled = |name: &&str| spelled.contains(names.table_name(name));
        let has_both = |(file, survey): &Surveyed<'_>| {
            let here: Vec<&str> = columns(file, survey).filter(is_spelled).collect();
            here.iter().enumerate().any(|(at, one)| {
                here[at + 1..].iter().any(|other| {
                    names.table_name(one) != names.table_name(other)
                        && share_rows(file, survey, one, other)
                })
            })
        };
        if spelling.is_empty() || with_rows().any(has_both) {
            continue;
        }
        let in_files: Vec<String> = spelled
            .iter()
            .filter_map(|name| {
                let (file, _) = with_rows().find(|(file, survey)| {
                    columns(file, survey).any(|column| names.table_name(column) == *name)
                })?;
                Some(format!("{} in {}", shown_name(name), file.path().display()))
            })
            .collect();
        return Err(LakeError::Table {
            message: format!("a column is spelled in several ways: {}", in_files.join(", ")),
            help: "write all rows with one name for the column, or put the files into folders of their own"
                .to_owned(),
        });
    }
    Ok(())
}

/// Refuses CSV files of one table that have little in common: other tables, other spellings of the
/// names, or no header at all. What stands in an odd first line may be data, so it is not said.
pub(super) fn compare_headers(files: &[Surveyed<'_>]) -> Result<(), LakeError> {
    let mut first: Option<&Path> = None;
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (file, survey) in files {
        if file.format != Format::Csv || survey.columns.is_empty() {
            continue;
        }
        let names: BTreeSet<String> =
            survey.columns.iter().map(|column| column.name.to_lowercase()).collect();
        let common = names.intersection(&known).count();
        let smaller = names.len().min(known.len());
        match first {
            None => first = Some(file.path()),
            // One column is a table of keys.
            Some(before) if common * 2 <= smaller && common < smaller => {
                return Err(LakeError::Table {
                    message: format!(
                        "{} has another header than {}: {common} of {} columns are the same",
                        file.path().display(),
                        before.display(),
                        names.len()
                    ),
                    help:
                        "put files of other columns into a folder of their own; begin every file \
                           with a line that names its columns, or none and declare `header: false`"
                            .to_owned(),
                });
            }
            Some(_) => {}
        }
        known.extend(names);
    }
    Ok(())
}

/// Refuses a file that has no column of the files before it: it belongs to another table, or is an error that
/// was saved in place of a file.
pub(super) fn compare_columns(files: &[Surveyed<'_>]) -> Result<(), LakeError> {
    let mut first: Option<&Path> = None;
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (file, survey) in files {
        if survey.rows == 0 || survey.columns.is_empty() {
            continue;
        }
        let names: BTreeSet<String> =
            survey.columns.iter().map(|column| column.name.to_lowercase()).collect();
        match first {
            None => first = Some(file.path()),
            Some(before) if names.is_disjoint(&known) => {
                return Err(LakeError::Table {
                    message: format!(
                        "{} has no column of {}",
                        file.path().display(),
                        before.display()
                    ),
                    help: "put files of other columns into a folder of their own".to_owned(),
                });
            }
            Some(_) => {}
        }
        known.extend(names);
    }
    Ok(())
}
