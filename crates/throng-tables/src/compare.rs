//! Compares the columns of all files: their names in the table, and whether the files belong to one
//! table. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use throng_files::{DataFile, FileError, Format, ReadOptions, shown_name, spelling};

use super::file_schema::FileSchema;

/// Columns that all files of a Hudi table have.
const HUDI_COLUMNS: [&str; 2] = ["_hoodie_commit_time", "_hoodie_record_key"];

/// A file with its schema.
type FileWithSchema<'a> = (&'a DataFile, &'a FileSchema);

/// The names of columns over all files.
pub(super) struct Names<'a> {
    /// Lower-case name → the name in the table, unless a file has two columns that differ only in
    /// case.
    alike: BTreeMap<String, &'a str>,
    /// Columns that a file has twice, by their name in the table.
    pub(super) twice: BTreeMap<String, PathBuf>,
}

impl<'a> Names<'a> {
    pub(super) fn of(files: &[(&'a DataFile, &'a FileSchema)]) -> Self {
        let mut alike: BTreeMap<String, &str> = BTreeMap::new();
        let mut distinct: BTreeSet<String> = BTreeSet::new();
        let mut twice: Vec<(&str, &Path)> = Vec::new();
        for (file, schema) in files {
            let mut here: BTreeMap<String, Vec<&str>> = BTreeMap::new();
            let columns = schema.columns.iter().map(|c| (c.name.as_str(), c.twice, false));
            let folders = file.folders.iter().map(|(name, _)| (name.as_str(), false, true));
            let mut seen = BTreeSet::new();
            for (name, is_twice, of_folder) in columns.chain(folders) {
                let lower = name.to_lowercase();
                let others = here.entry(lower.clone()).or_default();
                // Engines that write such folders do not distinguish case: `Region=1` is the column `region`.
                let is_again = !seen.insert(name) || (of_folder && !others.is_empty());
                if is_twice || is_again {
                    twice.push((name, file.path()));
                }
                let together =
                    |other: &&str| *other != name && share_rows(file, schema, other, name);
                if !of_folder && others.iter().any(together) {
                    distinct.insert(lower.clone());
                }
                others.push(name);
                alike.entry(lower).or_insert(name);
            }
        }
        alike.retain(|lower, _| !distinct.contains(lower));
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

/// Whether rows of a file have both columns. Rows of CSV and Parquet files have all columns;
/// objects of a JSON file may spell one name in two ways.
fn share_rows(file: &DataFile, schema: &FileSchema, a: &str, b: &str) -> bool {
    let column = |name: &str| schema.columns.iter().find(|column| column.name == name);
    match (file.format, column(a), column(b)) {
        (Format::Json, Some(one), Some(_)) => one.beside.iter().any(|other| other == b),
        // The column of a folder's name is in all rows of its files.
        _ => true,
    }
}

/// The names of the columns of a file.
fn columns<'a>(file: &'a DataFile, schema: &'a FileSchema) -> impl Iterator<Item = &'a str> {
    let columns = schema.columns.iter().map(|column| column.name.as_str());
    columns.chain(file.folders.iter().map(|(name, _)| name.as_str()))
}

/// Refuses files of one table that spell a column in two ways, such as `user_id` and `userid`: each
/// would have NULL in the other's column, and users would be missing. If rows have both, they are
/// two columns.
pub(super) fn compare_spellings(
    files: &[FileWithSchema<'_>],
    names: &Names<'_>,
) -> Result<(), FileError> {
    let with_rows = || files.iter().filter(|(_, schema)| schema.rows > 0);
    let mut spellings: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (file, schema) in with_rows() {
        for name in columns(file, schema).map(|name| names.table_name(name)) {
            spellings.entry(spelling(name)).or_default().insert(name);
        }
    }
    for (spelling, spelled) in spellings.iter().filter(|(_, spelled)| spelled.len() > 1) {
        let is_spelled = |name: &&str| spelled.contains(names.table_name(name));
        let has_both = |(file, schema): &FileWithSchema<'_>| {
            let here: Vec<&str> = columns(file, schema).filter(is_spelled).collect();
            here.iter().enumerate().any(|(at, one)| {
                here[at + 1..].iter().any(|other| {
                    names.table_name(one) != names.table_name(other)
                        && share_rows(file, schema, one, other)
                })
            })
        };
        if spelling.is_empty() || with_rows().any(has_both) {
            continue;
        }
        let in_files: Vec<String> = spelled
            .iter()
            .filter_map(|name| {
                let (file, _) = with_rows().find(|(file, schema)| {
                    columns(file, schema).any(|column| names.table_name(column) == *name)
                })?;
                Some(format!("{} in {}", shown_name(name), file.path().display()))
            })
            .collect();
        return Err(FileError::Table {
            message: format!("a column is spelled in several ways: {}", in_files.join(", ")),
            help: "write all rows with one name for the column, or put the files into separate folders"
                .to_owned(),
        });
    }
    Ok(())
}

/// Refuses Parquet files of a Hudi table, which may have been copied without the folder that says so: they also have
/// earlier versions of its rows. Who declares one of the columns that Hudi adds says that they are an export.
pub(super) fn refuse_hudi_files(
    files: &[FileWithSchema<'_>],
    options: &ReadOptions,
) -> Result<(), FileError> {
    if HUDI_COLUMNS.iter().any(|name| options.declared(name).is_some()) {
        return Ok(());
    }
    let of_hudi = |(file, schema): &&FileWithSchema<'_>| {
        let has = |name: &&str| schema.columns.iter().any(|column| column.name == **name);
        file.format == Format::Parquet && HUDI_COLUMNS.iter().all(has)
    };
    let Some((file, _)) = files.iter().find(of_hudi) else { return Ok(()) };
    let [time, key] = HUDI_COLUMNS;
    Err(FileError::Table {
        message: format!(
            "{} is a file of a Hudi table, which is not supported: it has the columns {time} and {key}",
            file.path().display()
        ),
        help: format!(
            "write the current rows of the table to Parquet files in a separate folder, without these columns; if the \
             files are such an export, declare `columns: {{ {key}: text }}` in the source"
        ),
    })
}

/// The files with the lower-case names of their columns.
fn lower<'a>(
    files: &'a [FileWithSchema<'a>],
    is_compared: impl Fn(&FileWithSchema<'a>) -> bool + 'a,
) -> impl Iterator<Item = (&'a Path, BTreeSet<String>)> {
    let compared = files.iter().filter(move |file| !file.1.columns.is_empty() && is_compared(file));
    compared.map(|(file, schema)| {
        (file.path(), schema.columns.iter().map(|column| column.name.to_lowercase()).collect())
    })
}

/// Refuses CSV files of one table whose headers have little in common.
pub(super) fn compare_headers(files: &[FileWithSchema<'_>]) -> Result<(), FileError> {
    throng_files::compare_headers(lower(files, |(file, _)| file.format == Format::Csv))
}

/// Refuses a file that has no column of the files before it.
pub(super) fn compare_columns(files: &[FileWithSchema<'_>]) -> Result<(), FileError> {
    throng_files::compare_columns(lower(files, |(_, schema)| schema.rows > 0))
}
