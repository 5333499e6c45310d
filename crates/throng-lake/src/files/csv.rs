//! CSV files: their headers, what their columns hold, and their rows.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::{ByteRecord, Reader, ReaderBuilder};
use datafusion::arrow::csv::ReaderBuilder as ArrowReaderBuilder;
use datafusion::arrow::csv::reader::BufReader;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use throng_spec::ColumnType;

use super::declared::fits;
use super::discover::DataFile;
use super::fault::FileFault;
use super::header::{FirstLine, LINES_BEFORE, alone, names_separator};
use super::names::shown_name;
use super::survey::{FileColumn, Holds, Node, Reading, Survey};
use super::text::{NOT_UTF8, TextReader, open};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Fields of the longest first line.
const MAX_COLUMNS: usize = 10_000;

/// Put behind a file that is surveyed. In a file that is whole it is a row of its own; where a quote is still
/// open it becomes a part of the last value.
const END: &str = "\u{1a}end of file\u{1a}";
const OPEN_QUOTE: &str = "a quote begins in this row and does not end";

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
        _ => FileFault::new(path, None, "it is no CSV"),
    })
}

fn line_of(record: &ByteRecord) -> Option<u64> {
    record.position().map(csv::Position::line)
}

/// The names of the columns in the first line; `None` of an empty file.
fn header(file: &DataFile) -> Result<Option<Vec<String>>, FileFault> {
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

/// Refuses a first line that is no header by itself.
fn check_header(
    names: &[String],
    line: Option<u64>,
    path: &Path,
    reading: &Reading,
) -> Result<(), FileFault> {
    if names_separator(names) {
        let text = "the first line is `sep=`, which names the separator to Excel";
        return Err(FileFault::new(path, line, text)
            .with_help("take out the line, and separate columns by commas"));
    }
    match alone(names) {
        Some((text, help)) if reading.header != Some(true) => {
            Err(FileFault::new(path, line, text).with_help(help))
        }
        _ => Ok(()),
    }
}

/// Refuses a file whose first line has the names that the source declares because the file has none.
fn check_first_row(record: &ByteRecord, names: &[String], path: &Path) -> Result<(), FileFault> {
    let is_name = |cell: &[u8]| {
        let cell = std::str::from_utf8(without_mark(cell)).unwrap_or_default().trim();
        names.iter().any(|name| name.to_lowercase() == cell.to_lowercase())
    };
    if record.iter().all(is_name) {
        let text =
            "the first line names the columns, and the source declares that there is no such line";
        return Err(FileFault::new(path, line_of(record), text).with_help(
            "take `header: false` out of the source; a source has files with a header, or files without one",
        ));
    }
    Ok(())
}

/// A cell without the byte order mark of a file that was put behind another.
fn without_mark(cell: &[u8]) -> &[u8] {
    cell.strip_prefix("\u{feff}".as_bytes()).unwrap_or(cell)
}

/// Whether a row is the one that is put behind the file.
fn is_end(record: &ByteRecord) -> bool {
    record.iter().eq([END.as_bytes()])
}

/// Looks at every value of a file.
///
/// # Errors
/// If the first line is probably a row of values; if a row has another number of fields than the header, is
/// the header once more, or has a quote that does not end; if a value is not UTF-8, or does not fit the type
/// that is declared for its column.
pub(crate) fn survey(file: &DataFile, reading: &Reading) -> Result<Survey, FileFault> {
    let path = file.path();
    let end = format!("\n{END}");
    let mut reader = records(open(file)?.chain(end.as_bytes()));
    let mut record = ByteRecord::new();
    let mut more = next(&mut reader, &mut record, path)? && !is_end(&record);
    if !more {
        return Ok(Survey { columns: Vec::new(), rows: 0 });
    }
    let first = line_of(&record);
    let positional = reading.positional();
    let by_position = positional.is_some();
    let names = match positional {
        Some(names) => {
            check_first_row(&record, &names, path)?;
            names
        }
        None => {
            let names = cells(&record, path)?;
            if names.last().is_some_and(|name| name.ends_with(END)) {
                return Err(FileFault::new(path, first, OPEN_QUOTE));
            }
            check_header(&names, first, path, reading)?;
            more = next(&mut reader, &mut record, path)? && !is_end(&record);
            names
        }
    };
    let mut columns = Columns::new(path, reading, &names, by_position);
    while more {
        columns.add(&record)?;
        more = next(&mut reader, &mut record, path)? && !is_end(&record);
    }
    if let Some((text, help)) = columns.first_line.as_ref().and_then(FirstLine::fault) {
        return Err(FileFault::new(path, first, text).with_help(help));
    }
    Ok(columns.survey())
}

/// What is found in the columns of a file.
struct Columns<'a> {
    path: &'a Path,
    reading: &'a Reading,
    names: &'a [String],
    /// The source declares the names, and the file has no header.
    by_position: bool,
    declared: Vec<Option<ColumnType>>,
    nodes: Vec<Node>,
    /// The first line, if it may be a row.
    first_line: Option<FirstLine<'a>>,
    rows: u64,
}

impl<'a> Columns<'a> {
    fn new(path: &'a Path, reading: &'a Reading, names: &'a [String], by_position: bool) -> Self {
        let declared: Vec<_> = names.iter().map(|name| reading.declared(name)).collect();
        // A line with a name that is declared is a header.
        let is_header = reading.header.is_some() || declared.iter().any(Option::is_some);
        Self {
            path,
            reading,
            names,
            by_position,
            declared,
            nodes: vec![Node::default(); names.len()],
            first_line: (!is_header).then(|| FirstLine::of(names)),
            rows: 0,
        }
    }

    fn fault(&self, record: &ByteRecord, text: impl Into<String>) -> FileFault {
        FileFault::new(self.path, line_of(record), text)
    }

    /// Counts the values of a row.
    fn add(&mut self, record: &ByteRecord) -> Result<(), FileFault> {
        if record.iter().next_back().is_some_and(|cell| cell.ends_with(END.as_bytes())) {
            return Err(self.fault(record, OPEN_QUOTE));
        }
        let is_header = record.iter().map(without_mark).eq(self.names.iter().map(String::as_bytes));
        if is_header && !self.by_position {
            return Err(self.fault(record, "the header stands here once more").with_help(
                "keep files apart that have headers of their own, in one folder; a file without a header \
                 needs `header: false` in the source",
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
            let cell = self.reading.cell(cell);
            if let Some(first_line) = &mut self.first_line {
                first_line.add(place, cell);
            }
            if cell.is_empty() {
                continue;
            }
            match self.declared[place] {
                None => self.nodes[place].scalars.add(cell),
                Some(declared) if fits(declared, cell) => self.nodes[place].scalars.add_text(cell),
                Some(declared) => {
                    let name = shown_name(&self.names[place]);
                    let text = format!("the value of column {name} is no {declared}");
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
                "declare all columns in the order of the files; tables of other columns need a source of \
                 their own",
            );
        }
        let help = match self.names {
            [one] if one.contains([';', '\t', '|']) => {
                "the header is one column: separate columns by commas"
            }
            [one, ..] if wanted == 1 || one.starts_with('#') => LINES_BEFORE,
            _ => "put quotes around values that hold a comma, a quote or a line break",
        };
        let text = format!("{found} fields, where the header has {wanted}");
        self.fault(record, text).with_help(help)
    }

    fn survey(self) -> Survey {
        let twice = |name: &String| self.names.iter().filter(|there| *there == name).count() > 1;
        let columns = self.names.iter().zip(self.nodes).map(|(name, node)| FileColumn {
            name: name.clone(),
            holds: Holds::Values(node),
            twice: twice(name),
            beside: Vec::new(),
        });
        Survey { columns: columns.collect(), rows: self.rows }
    }
}

/// The rows of a file.
pub(crate) struct Rows {
    path: PathBuf,
    /// `None` of an empty file.
    reader: Option<BufReader<TextReader>>,
    /// The wanted columns' places in the batches that are read.
    order: Vec<usize>,
}

impl Rows {
    /// Opens a file: `wanted` are the names that columns have in it, with the types to read them as, and
    /// `positional` the names of all columns if the file has no header.
    ///
    /// # Errors
    /// If it cannot be opened, or its header is another one.
    pub(crate) fn open(
        file: &DataFile,
        wanted: &[(String, DataType)],
        positional: Option<&[String]>,
    ) -> Result<Self, FileFault> {
        let path = file.path();
        let names = match positional {
            Some(names) => Some(names.to_vec()),
            None => header(file)?,
        };
        let Some(names) = names else {
            return Ok(Self { path: path.to_owned(), reader: None, order: Vec::new() });
        };
        let mut places = Vec::with_capacity(wanted.len());
        for (name, _) in wanted {
            let place = names.iter().position(|there| there == name);
            places.push(
                place.ok_or_else(|| FileFault::new(path, Some(1), "its header has changed"))?,
            );
        }
        let mut fields: Vec<Field> = (0..names.len())
            .map(|place| Field::new(place.to_string(), DataType::Utf8View, true))
            .collect();
        for (place, (_, data_type)) in places.iter().zip(wanted) {
            fields[*place] = Field::new(place.to_string(), data_type.clone(), true);
        }
        // In the file's order; one column at least, which counts the rows.
        let mut projection = places.clone();
        projection.sort_unstable();
        projection.dedup();
        if projection.is_empty() {
            projection.push(0);
        }
        let order =
            places.iter().filter_map(|place| projection.iter().position(|p| p == place)).collect();
        let reader = ArrowReaderBuilder::new(Arc::new(Schema::new(fields)))
            .with_header(positional.is_none())
            .with_batch_size(BATCH_ROWS)
            .with_projection(projection)
            .build_buffered(open(file)?)
            .map_err(|error| FileFault::of_reader(path, &error))?;
        Ok(Self { path: path.to_owned(), reader: Some(reader), order })
    }

    /// The next rows, with the wanted columns in their order; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read as it was surveyed.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>, FileFault> {
        let fail = |error| FileFault::of_reader(&self.path, &error);
        match self.reader.as_mut().and_then(Iterator::next) {
            Some(batch) => {
                batch.and_then(|batch| batch.project(&self.order)).map(Some).map_err(fail)
            }
            None => Ok(None),
        }
    }
}
