//! CSV files: their headers, what their columns hold, and their rows.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::{ByteRecord, Reader, ReaderBuilder};
use datafusion::arrow::csv::ReaderBuilder as ArrowReaderBuilder;
use datafusion::arrow::csv::reader::BufReader;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;

use super::declared::fits;
use super::discover::DataFile;
use super::fault::FileFault;
use super::survey::{FileColumn, Holds, Node, Reading, Survey};
use super::text::{NOT_UTF8, TextReader, open};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// A longer first line is no header.
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

/// The names of the columns; `None` of an empty file.
///
/// # Errors
/// If the file cannot be read, or begins with a line that is no header.
pub(crate) fn header(file: &DataFile) -> Result<Option<Vec<String>>, FileFault> {
    read_header(&mut records(open(file)?), file.path())
}

fn read_header<R: Read>(
    reader: &mut Reader<R>,
    path: &Path,
) -> Result<Option<Vec<String>>, FileFault> {
    let mut record = ByteRecord::new();
    if !next(reader, &mut record, path)? {
        return Ok(None);
    }
    let line = line_of(&record);
    let not_utf8 = || FileFault::new(path, line, "it is not UTF-8").with_help(NOT_UTF8);
    let names: Vec<String> = record
        .iter()
        .map(|name| std::str::from_utf8(name).map(str::to_owned).map_err(|_| not_utf8()))
        .collect::<Result<_, _>>()?;
    if names.len() > MAX_COLUMNS {
        return Err(FileFault::new(path, line, "the header has more than 10000 columns"));
    }
    if looks_like_data(&names) {
        return Err(FileFault::new(
            path,
            line,
            "the first line holds values and not names of columns",
        )
        .with_help("begin the file with a line that names its columns"));
    }
    Ok(Some(names))
}

/// Whether a first line holds values: an e-mail address, long numbers, or numbers alone.
fn looks_like_data(names: &[String]) -> bool {
    let number = |name: &String| {
        let digits = name.trim().trim_start_matches(['-', '+']);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    };
    names.iter().any(|name| name.contains('@') || (number(name) && name.len() > 4))
        || names.iter().all(number)
}

/// Looks at every value of a file.
///
/// # Errors
/// If a row has another number of fields than the header, is the header once more, or has a quote that does
/// not end; if a value is not UTF-8, or does not fit the type that is declared for its column.
pub(crate) fn survey(file: &DataFile, reading: &Reading) -> Result<Survey, FileFault> {
    let path = file.path();
    let end = format!("\n{END}");
    let mut reader = records(open(file)?.chain(end.as_bytes()));
    let names = read_header(&mut reader, path)?.filter(|names| *names != [END]);
    let Some(names) = names else {
        return Ok(Survey { columns: Vec::new(), rows: 0 });
    };
    if names.last().is_some_and(|name| name.ends_with(END)) {
        return Err(FileFault::new(path, Some(1), OPEN_QUOTE));
    }
    let declared: Vec<_> = names.iter().map(|name| reading.declared(name)).collect();
    let mut nodes = vec![Node::default(); names.len()];
    let mut record = ByteRecord::new();
    let mut rows = 0;
    while next(&mut reader, &mut record, path)? && !record.iter().eq([END.as_bytes()]) {
        if record.iter().next_back().is_some_and(|cell| cell.ends_with(END.as_bytes())) {
            return Err(FileFault::new(path, line_of(&record), OPEN_QUOTE));
        }
        if record.iter().eq(names.iter().map(String::as_bytes)) {
            return Err(FileFault::new(path, line_of(&record), "the header stands here once more")
                .with_help("keep files apart that have headers of their own, in one folder"));
        }
        if record.len() != names.len() {
            let text = format!("{} fields, where the header has {}", record.len(), names.len());
            return Err(FileFault::new(path, line_of(&record), text)
                .with_help("put quotes around values that hold a comma, a quote or a line break"));
        }
        for (place, cell) in record.iter().enumerate() {
            let place_of = || format!("column {}", place + 1);
            let Ok(cell) = std::str::from_utf8(cell) else {
                let text = format!("{} is not UTF-8", place_of());
                return Err(FileFault::new(path, line_of(&record), text).with_help(NOT_UTF8));
            };
            let cell = reading.cell(cell);
            if cell.is_empty() {
                continue;
            }
            match declared[place] {
                None => nodes[place].scalars.add(cell),
                Some(declared) if fits(declared, cell) => nodes[place].scalars.add_text(cell),
                Some(declared) => {
                    let text = format!("the value of column {} is no {declared}", names[place]);
                    return Err(FileFault::new(path, line_of(&record), text)
                        .with_help("declare the column as text, or correct the value"));
                }
            }
        }
        rows += 1;
    }
    let twice = |name: &String| names.iter().filter(|there| *there == name).count() > 1;
    let columns = names.iter().zip(nodes).map(|(name, node)| FileColumn {
        name: name.clone(),
        holds: Holds::Values(node),
        twice: twice(name),
    });
    Ok(Survey { columns: columns.collect(), rows })
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
    /// Opens a file: `wanted` are the names that columns have in it, with the types to read them as.
    ///
    /// # Errors
    /// If it cannot be opened, or its header is another one.
    pub(crate) fn open(file: &DataFile, wanted: &[(String, DataType)]) -> Result<Self, FileFault> {
        let path = file.path();
        let Some(names) = header(file)? else {
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
            .with_header(true)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_values_is_no_header() {
        let is_data = |names: &[&str]| {
            looks_like_data(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
        };
        assert!(is_data(&["u3", "c@example.com"]));
        assert!(is_data(&["1", "2.5"]));
        assert!(is_data(&["u", "15551234567"]));
        assert!(!is_data(&["user_id", "email"]));
        assert!(!is_data(&["region", "2024", "2025"]));
        assert!(!is_data(&[""]));
    }
}
