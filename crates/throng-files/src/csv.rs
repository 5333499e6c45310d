//! CSV files: checking their headers, and inferring their schema.

use std::io::Read;
use std::path::Path;

use csv::{ByteRecord, Reader, ReaderBuilder};
use throng_spec::ColumnType;

use crate::discover::DataFile;
use crate::fault::FileFault;
use crate::header::{FirstLine, LINES_BEFORE, line_fault, names_separator};
use crate::names::shown_name;
use crate::node::Node;
use crate::options::{IsValue, ReadOptions};
use crate::plain_words::{HeaderEvidence, PlainWords};
use crate::schema::{TextColumn, TextSchema};
use crate::text::{NOT_UTF8, open};

/// The most fields of a first line.
const MAX_COLUMNS: usize = 10_000;

/// A row that is appended to a file while its schema is inferred. In a complete file it is a
/// separate row; if a quote is still open, it becomes part of the last value.
const END_ROW: &str = "\u{1a}end of file\u{1a}";
const OPEN_QUOTE: &str = "a quote starts in this row and does not end";

fn records<R: Read>(text: R) -> Reader<R> {
    ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text)
}

/// The next record; false at the end.
fn next<R: Read>(
    reader: &mut Reader<R>,
    record: &mut ByteRecord,
    path: &Path,
) -> Result<bool, FileFault> {
    reader.read_byte_record(record).map_err(|error| match error.into_kind() {
        csv::ErrorKind::Io(error) => FileFault::io(path, &error),
        _ => FileFault::new(path, None, "it is not valid CSV"),
    })
}

fn line_of(record: &ByteRecord) -> Option<u64> {
    record.position().map(csv::Position::line)
}

/// The names of the columns in the first line; `None` for an empty file.
///
/// # Errors
/// If the file cannot be read, or the line has too many fields or is not UTF-8.
pub fn header(file: &DataFile) -> Result<Option<Vec<String>>, FileFault> {
    let mut record = ByteRecord::new();
    let found = next(&mut records(open(file)?), &mut record, file.path())?;
    found.then(|| cells(&record, file.path())).transpose()
}

/// The cells of a first line.
fn cells(record: &ByteRecord, path: &Path) -> Result<Vec<String>, FileFault> {
    let line = line_of(record);
    if record.len() > MAX_COLUMNS {
        return Err(FileFault::new(path, line, "the first line has more than 10000 fields"));
    }
    let text = |cell: &[u8]| std::str::from_utf8(cell).map(str::to_owned);
    let not_utf8 = |_| FileFault::new(path, line, "it is not UTF-8").with_help(NOT_UTF8);
    record.iter().map(text).collect::<Result<_, _>>().map_err(not_utf8)
}

/// Refuses a first line that is not a header, by the line itself.
fn check_header(
    names: &[String],
    line: Option<u64>,
    path: &Path,
    options: &ReadOptions,
) -> Result<(), FileFault> {
    if names_separator(names) {
        let text = "the first line is `sep=`, which names the separator to Excel";
        return Err(FileFault::new(path, line, text)
            .with_help("remove the line, and separate columns by commas"));
    }
    match line_fault(names) {
        Some((text, help)) if options.header != Some(true) => {
            Err(FileFault::new(path, line, text).with_help(help))
        }
        _ => Ok(()),
    }
}

/// Refuses a file with a header where the source declares that files have none.
fn check_first_row(record: &ByteRecord, names: &[String], path: &Path) -> Result<(), FileFault> {
    let is_name = |cell: &[u8]| {
        let cell = std::str::from_utf8(without_mark(cell)).unwrap_or_default().trim();
        names.iter().any(|name| name.to_lowercase() == cell.to_lowercase())
    };
    if record.iter().all(is_name) {
        let text =
            "the first line names the columns, and the source declares that there is no such line";
        return Err(FileFault::new(path, line_of(record), text).with_help(
            "remove `header: false` from the source; a source has files with a header, or files without one",
        ));
    }
    Ok(())
}

/// A cell without the byte order mark of a file that was appended to another.
fn without_mark(cell: &[u8]) -> &[u8] {
    cell.strip_prefix("\u{feff}".as_bytes()).unwrap_or(cell)
}

/// Whether a row is the one that is appended to the file.
fn is_end(record: &ByteRecord) -> bool {
    record.iter().eq([END_ROW.as_bytes()])
}

/// Infers the schema of a file from all of its values.
///
/// # Errors
/// If the first line is probably a row of values; if a row has another number of fields than the
/// header, repeats the header, or has a quote that does not end; if a value is not UTF-8, or does
/// not have the declared type of its column.
pub fn infer_schema(
    file: &DataFile,
    options: &ReadOptions,
    is_value: IsValue,
) -> Result<TextSchema, FileFault> {
    let path = file.path();
    let end = format!("\n{END_ROW}");
    let mut reader = records(open(file)?.chain(end.as_bytes()));
    let mut record = ByteRecord::new();
    let mut more = next(&mut reader, &mut record, path)? && !is_end(&record);
    if !more {
        return Ok(TextSchema { columns: Vec::new(), rows: 0, header: HeaderEvidence::Certain });
    }
    let first = line_of(&record);
    let positional = options.positional();
    let by_position = positional.is_some();
    let names = match positional {
        Some(names) => {
            check_first_row(&record, &names, path)?;
            names
        }
        None => {
            let names = cells(&record, path)?;
            if names.last().is_some_and(|name| name.ends_with(END_ROW)) {
                return Err(FileFault::new(path, first, OPEN_QUOTE));
            }
            check_header(&names, first, path, options)?;
            more = next(&mut reader, &mut record, path)? && !is_end(&record);
            names
        }
    };
    let mut columns = Columns::new(path, options, is_value, &names, by_position);
    while more {
        columns.add(&record)?;
        more = next(&mut reader, &mut record, path)? && !is_end(&record);
    }
    if let Some((text, help)) = columns.first_line.as_ref().and_then(FirstLine::fault) {
        return Err(FileFault::new(path, first, text).with_help(help));
    }
    Ok(columns.into_schema())
}

/// The columns of a file while its rows are read.
struct Columns<'a> {
    path: &'a Path,
    options: &'a ReadOptions,
    is_value: IsValue,
    names: &'a [String],
    /// Whether the source declares the names, and the file has no header.
    by_position: bool,
    declared: Vec<Option<ColumnType>>,
    nodes: Vec<Node>,
    /// The first line, if it may be a row of values.
    first_line: Option<FirstLine<'a>>,
    /// The same, if it consists of words that may be names or values.
    words: Option<PlainWords<'a>>,
    rows: u64,
}

impl<'a> Columns<'a> {
    fn new(
        path: &'a Path,
        options: &'a ReadOptions,
        is_value: IsValue,
        names: &'a [String],
        by_position: bool,
    ) -> Self {
        let declared: Vec<_> = names.iter().map(|name| options.declared(name)).collect();
        // A line with a name that is declared is a header.
        let is_header = options.header.is_some() || declared.iter().any(Option::is_some);
        Self {
            path,
            options,
            is_value,
            names,
            by_position,
            declared,
            nodes: vec![Node::default(); names.len()],
            first_line: (!is_header).then(|| FirstLine::of(names)),
            words: PlainWords::of(names).filter(|_| !is_header),
            rows: 0,
        }
    }

    fn fault(&self, record: &ByteRecord, text: impl Into<String>) -> FileFault {
        FileFault::new(self.path, line_of(record), text)
    }

    /// Counts the values of a row.
    fn add(&mut self, record: &ByteRecord) -> Result<(), FileFault> {
        if record.iter().next_back().is_some_and(|cell| cell.ends_with(END_ROW.as_bytes())) {
            return Err(self.fault(record, OPEN_QUOTE));
        }
        let is_header = record.iter().map(without_mark).eq(self.names.iter().map(String::as_bytes));
        if is_header && !self.by_position {
            return Err(self.fault(record, "the header is repeated here").with_help(
                "put the files into one folder instead of joining them; files without a header need \
                 `header: false` in the source",
            ));
        }
        if record.len() != self.names.len() {
            return Err(self.wrong_count(record));
        }
        for (place, cell) in record.iter().enumerate() {
            let Ok(cell) = std::str::from_utf8(cell) else {
                let text = format!("column {} is not UTF-8", place + 1);
                return Err(self.fault(record, text).with_help(NOT_UTF8));
            };
            let cell = self.options.cell(cell);
            if let Some(first_line) = &mut self.first_line {
                first_line.add(place, cell);
            }
            if let Some(words) = &mut self.words {
                words.add(place, cell);
            }
            if cell.is_empty() {
                continue;
            }
            match self.declared[place] {
                None => self.nodes[place].scalars.add(cell),
                Some(declared) if (self.is_value)(declared, cell) => {
                    self.nodes[place].scalars.add_text(cell);
                }
                Some(declared) => {
                    let name = shown_name(&self.names[place]);
                    let text = format!("the value of column {name} is not of type {declared}");
                    return Err(self
                        .fault(record, text)
                        .with_help("declare the column as text, or correct the value"));
                }
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn wrong_count(&self, record: &ByteRecord) -> FileFault {
        let (found, wanted) = (record.len(), self.names.len());
        if self.by_position {
            let text = format!("{found} fields, where the source declares {wanted} columns");
            return self.fault(record, text).with_help(
                "declare all columns in the order of the files; tables with other columns need their own \
                 source",
            );
        }
        let help = match self.names {
            [one] if one.contains([';', '\t', '|']) => {
                "the header is one column: separate columns by commas"
            }
            [one, ..] if wanted == 1 || one.starts_with('#') => LINES_BEFORE,
            _ => "put quotes around values that contain a comma, a quote or a line break",
        };
        let text = format!("{found} fields, where the header has {wanted}");
        self.fault(record, text).with_help(help)
    }

    fn into_schema(self) -> TextSchema {
        let twice = |name: &String| self.names.iter().filter(|there| *there == name).count() > 1;
        let columns = self.names.iter().zip(self.nodes).map(|(name, values)| TextColumn {
            name: name.clone(),
            values,
            twice: twice(name),
            beside: Vec::new(),
        });
        let header = match (&self.first_line, &self.words) {
            (None, _) => HeaderEvidence::Certain,
            (Some(_), Some(words)) if words.are_like_values() => HeaderEvidence::Doubtful,
            (Some(_), _) => HeaderEvidence::Assumed,
        };
        TextSchema { columns: columns.collect(), rows: self.rows, header }
    }
}
