//! Files become one table: columns are matched by name, the table has the columns of all files, and a
//! column has the narrowest type that holds the values of all files. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::declared;
use super::discover::{DataFile, Table};
use super::evidence::WRITTEN;
use super::format::Format;
use super::survey::{Holds, Node, Reading, Survey};
use super::widen::widened;
use crate::LakeError;

/// A column of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) data_type: DataType,
    /// CSV and JSON files have it as text that is converted: its type is declared.
    pub(crate) converted: bool,
    /// No file has a value of it: its type says nothing.
    pub(crate) empty: bool,
    /// How its values are written, where the engine would write them in another way.
    pub(crate) written: Option<String>,
}

impl Column {
    fn field(&self) -> Field {
        let field = Field::new(&self.name, self.data_type.clone(), true);
        match &self.written {
            Some(written) => field.with_metadata([(WRITTEN.to_owned(), written.clone())].into()),
            None => field,
        }
    }
}

/// Where a file has the values of a column of the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// Nowhere: they are NULL.
    Missing,
    /// In its column of this name.
    Column(String),
    /// In the name of its folder; `None` is NULL.
    Folder(Option<String>),
}

/// A file, and where it has the columns of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FilePlan {
    pub(crate) file: DataFile,
    pub(crate) origins: Vec<Origin>,
    /// Its rows, if they are known.
    pub(crate) rows: Option<u64>,
}

/// A table as it is read.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Layout {
    pub(crate) columns: Vec<Column>,
    pub(crate) files: Vec<FilePlan>,
    /// Columns that a file has twice, with the file. They cannot be used.
    pub(crate) twice: Vec<(String, PathBuf)>,
    /// Text columns with values that have white space around them.
    pub(crate) padded: Vec<String>,
    /// Text is read without the white space around it.
    pub(crate) trim: bool,
    /// Only about so many rows of each file are read, and of Parquet files of each partition.
    pub(crate) sample: Option<usize>,
}

impl Layout {
    pub(crate) fn schema(&self) -> SchemaRef {
        Schema::new(self.columns.iter().map(Column::field).collect::<Vec<_>>()).into()
    }

    /// Rows of all files, if they are known.
    pub(crate) fn rows(&self) -> Option<u64> {
        self.files.iter().map(|file| file.rows).sum()
    }
}

/// Makes one table of the files with what was found in each.
///
/// # Errors
/// [`LakeError::Table`] if the files do not belong together: it names two files.
pub(crate) fn union(
    table: &Table,
    surveys: &[impl AsRef<Survey>],
    reading: &Reading,
) -> Result<Layout, LakeError> {
    let files: Vec<(&DataFile, &Survey)> =
        table.files.iter().zip(surveys.iter().map(AsRef::as_ref)).collect();
    compare_headers(&files)?;
    let names = Names::of(&files);
    compare_spellings(&files, &names)?;
    let mut layout = Layout { trim: reading.trim, ..Layout::default() };
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut gathered: Vec<Gathered<'_>> = Vec::new();
    for (file, survey) in &files {
        let columns = survey.columns.iter().map(|c| (c.name.as_str(), Some(&c.holds)));
        let folders = file.folders.iter().map(|(name, _)| (name.as_str(), None));
        for (name, holds) in columns.chain(folders) {
            let name = names.table_name(name);
            if names.is_twice(name) {
                continue;
            }
            let at = *places.entry(name.to_owned()).or_insert_with(|| {
                gathered.push(Gathered { name, values: Vec::new(), typed: Vec::new() });
                gathered.len() - 1
            });
            match holds {
                Some(Holds::Values(node)) => gathered[at].values.push((file.path(), node)),
                Some(Holds::Typed(of)) => gathered[at].typed.push((file.path(), of)),
                None => {}
            }
        }
    }
    for column in &gathered {
        layout.columns.push(column.settle(reading)?);
        if column.values.iter().any(|(_, node)| node.scalars.padded) {
            layout.padded.push(column.name.to_owned());
        }
    }
    for (file, survey) in &files {
        let mut origins = vec![Origin::Missing; layout.columns.len()];
        let mut put = |name: &str, origin| {
            if let Some(at) = places.get(names.table_name(name)) {
                origins[*at] = origin;
            }
        };
        for column in &survey.columns {
            put(&column.name, Origin::Column(column.name.clone()));
        }
        for (name, value) in &file.folders {
            put(name, Origin::Folder(value.clone()));
        }
        layout.files.push(FilePlan { file: (*file).clone(), origins, rows: Some(survey.rows) });
    }
    layout.twice = names.twice.into_iter().collect();
    Ok(layout)
}

/// The names of columns over all files.
struct Names<'a> {
    /// Lower-case name → the name in the table, where no file tells two spellings apart.
    alike: BTreeMap<String, &'a str>,
    /// Columns that a file has twice, by their name in the table.
    twice: BTreeMap<String, PathBuf>,
}

impl<'a> Names<'a> {
    fn of(files: &[(&'a DataFile, &'a Survey)]) -> Self {
        let mut alike: BTreeMap<String, &str> = BTreeMap::new();
        let mut apart: BTreeSet<String> = BTreeSet::new();
        let mut twice: Vec<(&str, &Path)> = Vec::new();
        for (file, survey) in files {
            let mut here: BTreeMap<String, &str> = BTreeMap::new();
            let columns = survey.columns.iter().map(|c| (c.name.as_str(), c.twice));
            let folders = file.folders.iter().map(|(name, _)| (name.as_str(), false));
            let mut seen = BTreeSet::new();
            for (name, is_twice) in columns.chain(folders) {
                if is_twice || !seen.insert(name) {
                    twice.push((name, file.path()));
                }
                let lower = name.to_lowercase();
                if here.insert(lower.clone(), name).is_some_and(|other| other != name) {
                    apart.insert(lower.clone());
                }
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

    fn table_name<'n>(&self, name: &'n str) -> &'n str
    where
        'a: 'n,
    {
        self.alike.get(&name.to_lowercase()).copied().unwrap_or(name)
    }

    fn is_twice(&self, name: &str) -> bool {
        self.twice.contains_key(name)
    }
}

/// The first file of CSV or JSON that has a value, the type of all of them, and what keeps their text.
type Written<'a> = (&'a Path, DataType, Option<&'static str>);

/// What the files say about a column.
struct Gathered<'a> {
    name: &'a str,
    /// Of CSV and JSON files.
    values: Vec<(&'a Path, &'a Node)>,
    /// Of Parquet files.
    typed: Vec<(&'a Path, &'a DataType)>,
}

impl Gathered<'_> {
    fn settle(&self, reading: &Reading) -> Result<Column, LakeError> {
        let column = |data_type, written: Option<&str>| Column {
            name: self.name.to_owned(),
            data_type,
            converted: false,
            empty: false,
            written: written.map(str::to_owned),
        };
        if let Some(declared) = reading.declared(self.name) {
            let wanted = declared::data_type(declared);
            for (path, of) in &self.typed {
                if widened(of, &wanted).as_ref() != Some(&wanted) {
                    let name = self.name;
                    return Err(LakeError::Table {
                        message: format!(
                            "column {name} is {} in {} and declared {declared}",
                            shown(of),
                            path.display()
                        ),
                        help: format!(
                            "a Parquet file states the types of its columns: leave the type of {name} \
                             undeclared, and use CAST in the SQL"
                        ),
                    });
                }
            }
            return Ok(Column { converted: true, ..column(wanted, None) });
        }
        let (values, typed) = (self.values()?, self.typed()?);
        let (Some((text_path, of, _)), Some((typed_path, wanted))) = (&values, &typed) else {
            return Ok(match (values, typed) {
                (Some((_, of, written)), _) => column(of, written),
                (None, Some((_, of))) => column(of, None),
                // No file has a value.
                (None, None) => Column { empty: true, ..column(DataType::Utf8View, None) },
            });
        };
        let doubles = *wanted == DataType::Float64
            && self.values.iter().all(|(_, node)| node.scalars.fits_double());
        match widened(of, wanted) {
            Some(both) => Ok(column(both, None)),
            None if doubles => Ok(column(DataType::Float64, None)),
            None => Err(self.refusal(text_path, &shown(of), Some(typed_path), &shown(wanted))),
        }
    }

    /// The type of the CSV and JSON files together, with the first file that has a value.
    fn values(&self) -> Result<Option<Written<'_>>, LakeError> {
        let mut all = Node::default();
        let mut first = None;
        for (path, node) in &self.values {
            let alone = node.data_type();
            if !matches!(alone, Ok(None)) {
                first.get_or_insert((*path, node));
            }
            all.merge(node);
            if all.data_type().is_err() {
                let (before, node) = first.map_or((*path, "objects"), |(p, n)| (p, kind_of(n)));
                return Err(match alone {
                    Err(_) => self.refusal(path, "objects and other values", None, "mixed"),
                    Ok(_) => self.refusal(before, node, Some(path), kind_of_result(&alone)),
                });
            }
        }
        let settled = all.data_type().ok().flatten();
        Ok(settled.zip(first).map(|((of, written), (path, _))| (path, of, written)))
    }

    /// The type of the Parquet files together, with the first file that has it or a narrower one.
    fn typed(&self) -> Result<Option<(&Path, DataType)>, LakeError> {
        let mut settled: Option<(&Path, DataType)> = None;
        for (path, of) in &self.typed {
            settled = match settled {
                _ if **of == DataType::Null => settled,
                None => Some((path, (*of).clone())),
                Some((before, wide)) => match widened(&wide, of) {
                    Some(both) if both == wide => Some((before, wide)),
                    Some(both) => Some((path, both)),
                    None => {
                        return Err(self.refusal(before, &shown(&wide), Some(path), &shown(of)));
                    }
                },
            };
        }
        Ok(settled)
    }

    fn refusal(&self, a: &Path, a_type: &str, b: Option<&Path>, b_type: &str) -> LakeError {
        let name = self.name;
        let other = match b {
            Some(b) => format!("{b_type} in {}", b.display()),
            None => b_type.to_owned(),
        };
        LakeError::Table {
            message: format!("column {name} is {a_type} in {} and {other}", a.display()),
            help: format!(
                "write both files with one type; or, if all values are to be text, declare \
                 `columns: {{ {name}: text }}` in the source"
            ),
        }
    }
}

fn kind_of(node: &Node) -> &'static str {
    kind_of_result(&node.data_type())
}

fn kind_of_result<E>(of: &Result<Option<(DataType, Option<&'static str>)>, E>) -> &'static str {
    match of {
        Ok(Some((DataType::Struct(_), _))) => "objects",
        Ok(Some((DataType::List(_), _))) => "arrays",
        Ok(_) => "plain values",
        Err(_) => "objects and other values",
    }
}

/// A type in words.
pub(crate) fn shown(of: &DataType) -> String {
    match of {
        DataType::Utf8View => "text".to_owned(),
        DataType::BinaryView => "bytes".to_owned(),
        other => other.to_string(),
    }
}

/// A name without what spellings differ in.
fn plain(name: &str) -> String {
    let matters = |c: &char| !matches!(c, '_' | '-' | ' ' | '.');
    name.chars().filter(matters).flat_map(char::to_lowercase).collect()
}

/// Refuses files of one table that spell a column in two ways, such as `user_id` and `userid`: each would
/// have NULL in the other's column. Where a file has both, they are two columns.
fn compare_spellings(files: &[(&DataFile, &Survey)], names: &Names<'_>) -> Result<(), LakeError> {
    let of_file = |(file, survey): &(&DataFile, &Survey)| -> BTreeSet<String> {
        let columns = survey.columns.iter().map(|column| column.name.as_str());
        let all = columns.chain(file.folders.iter().map(|(name, _)| name.as_str()));
        all.map(|name| names.table_name(name).to_owned()).collect()
    };
    let with_rows = || files.iter().filter(|(_, survey)| survey.rows > 0);
    let mut spellings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in with_rows().flat_map(of_file) {
        spellings.entry(plain(&name)).or_default().insert(name);
    }
    for (plain, spelled) in spellings.iter().filter(|(_, spelled)| spelled.len() > 1) {
        let has_both = with_rows().any(|file| of_file(file).intersection(spelled).count() > 1);
        if plain.is_empty() || has_both {
            continue;
        }
        let in_files: Vec<String> = spelled
            .iter()
            .filter_map(|name| {
                let (file, _) = with_rows().find(|file| of_file(file).contains(name))?;
                Some(format!("{name} in {}", file.path().display()))
            })
            .collect();
        return Err(LakeError::Table {
            message: format!("a column is spelled in several ways: {}", in_files.join(", ")),
            help: "write all files with one name for the column, or put them into folders of their own"
                .to_owned(),
        });
    }
    Ok(())
}

/// Refuses CSV files of one table that have little in common: other tables, other spellings of the
/// names, or no header at all. What stands in an odd first line may be data, so it is not said.
fn compare_headers(files: &[(&DataFile, &Survey)]) -> Result<(), LakeError> {
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
                    help: "put files of other columns into a folder of their own, and begin every \
                           file with a line that names its columns"
                        .to_owned(),
                });
            }
            Some(_) => {}
        }
        known.extend(names);
    }
    Ok(())
}
