//! CSV files: checking their headers, and inferring their schema.

use std::io::{self, BufRead, Chain, Read};
use std::path::Path;

use csv::{ByteRecord, Reader, ReaderBuilder};
use throng_spec::ColumnType;

use crate::discover::DataFile;
use crate::fault::FileFault;
use crate::format::BYTE_ORDER_MARK;
use crate::header::{FirstLine, LINES_BEFORE, line_fault, names_separator};
use crate::joined::{JOINED, JoinedHeader, footer, without_mark};
use crate::kinds::SEPARATORS;
use crate::names::shown_name;
use crate::node::Node;
use crate::options::{IsValue, ReadOptions};
use crate::plain_words::{HeaderEvidence, PlainWords, may_be_row};
use crate::quotes::QuoteCheck;
use crate::schema::{TextColumn, TextSchema};
use crate::text::{CTRL_Z, NOT_UTF8, TextReader, left_over, open};

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

/// Where a record begins, or the rest of the line break before it.
fn start_of(record: &ByteRecord) -> u64 {
    record.position().map_or(0, csv::Position::byte)
}

/// The line of the first byte at or after `offset` that is not of a line break, from 1. The file is read again: the
/// lines that the reader counts are too few where a record follows `\r\n` or an empty line, because its position is
/// before the rest of the line break.
fn line_at(file: &DataFile, offset: u64) -> Option<u64> {
    let mut text = open(file).ok()?;
    let (mut line, mut at) = (1, 0);
    loop {
        let bytes = text.fill_buf().ok()?;
        if bytes.is_empty() {
            return Some(line);
        }
        for byte in bytes {
            if at >= offset && !matches!(byte, b'\r' | b'\n') {
                return Some(line);
            }
            line += u64::from(*byte == b'\n');
            at += 1;
        }
        let count = bytes.len();
        text.consume(count);
    }
}

/// A fault of the record that begins at `offset`; `text` must not contain a value of the data.
fn fault_at(file: &DataFile, offset: u64, text: impl Into<String>) -> FileFault {
    FileFault::new(file.path(), line_at(file, offset), text)
}

/// A reader that keeps the last byte, and inspects the quotes.
struct Inspected {
    reader: TextReader,
    last: Option<u8>,
    quotes: QuoteCheck,
}

impl Read for Inspected {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        let piece = buffer.get(..count).unwrap_or_default();
        self.last = piece.last().copied().or(self.last);
        self.quotes.add(piece);
        Ok(count)
    }
}

/// The records of a text, and the row that is appended to it.
type Records<'e> = Reader<Chain<Inspected, &'e [u8]>>;

/// The names of the columns in the first line; `None` for an empty file.
///
/// # Errors
/// If the file cannot be read, or the line has too many fields or is not UTF-8.
pub fn header(file: &DataFile) -> Result<Option<Vec<String>>, FileFault> {
    let mut record = ByteRecord::new();
    let found = next(&mut records(open(file)?), &mut record, file.path())?;
    found.then(|| cells(&record, file)).transpose()
}

/// The cells of a first line.
fn cells(record: &ByteRecord, file: &DataFile) -> Result<Vec<String>, FileFault> {
    let start = start_of(record);
    if record.len() > MAX_COLUMNS {
        return Err(fault_at(file, start, "the first line has more than 10000 fields"));
    }
    let text = |cell: &[u8]| std::str::from_utf8(cell).map(str::to_owned);
    let not_utf8 = |_| fault_at(file, start, "it is not UTF-8").with_help(NOT_UTF8);
    record.iter().map(text).collect::<Result<_, _>>().map_err(not_utf8)
}

/// Refuses a first line that is not a header, by the line itself.
fn check_header(
    names: &[String],
    start: u64,
    file: &DataFile,
    options: &ReadOptions,
) -> Result<(), FileFault> {
    if names_separator(names) {
        let text = "the first line is `sep=`, which names the separator to Excel";
        return Err(fault_at(file, start, text)
            .with_help("remove the line, and separate columns by commas"));
    }
    if names.iter().all(|name| name.trim().is_empty()) {
        return Err(fault_at(file, start, "the first line is blank").with_help(
            "start the file with the line that names its columns; a file without rows may be empty",
        ));
    }
    match line_fault(names) {
        Some((text, help)) if options.header != Some(true) => {
            Err(fault_at(file, start, text).with_help(help))
        }
        _ => Ok(()),
    }
}

/// Refuses a file with a header where the source declares that files have none.
fn check_first_row(
    record: &ByteRecord,
    names: &[String],
    file: &DataFile,
) -> Result<(), FileFault> {
    let is_name = |cell: &[u8]| {
        let cell = std::str::from_utf8(without_mark(cell)).unwrap_or_default().trim();
        names.iter().any(|name| name.to_lowercase() == cell.to_lowercase())
    };
    if record.iter().all(is_name) {
        let text =
            "the first line names the columns, and the source declares that there is no such line";
        return Err(fault_at(file, start_of(record), text).with_help(
            "remove `header: false` from the source; a source has files with a header, or files without one",
        ));
    }
    Ok(())
}

/// Whether a row is the one that is appended to the file.
fn is_end(record: &ByteRecord) -> bool {
    record.iter().eq([END_ROW.as_bytes()])
}

/// The fault and the hint of a row that is not part of the text.
fn no_row(record: &ByteRecord, trim: bool) -> Option<(&'static str, &'static str)> {
    let first = record.get(0)?;
    let is_end_mark = |cell: &[u8]| !cell.is_empty() && cell.iter().all(|b| *b == CTRL_Z);
    if first.starts_with(&[0, 0]) {
        // One NUL byte is an empty text of SQL Server.
        left_over(0)
    } else if record.len() == 1 && is_end_mark(first) {
        left_over(CTRL_Z)
    } else if first
        .strip_prefix(BYTE_ORDER_MARK)
        .is_some_and(|rest| !trim || rest.starts_with(b"\""))
    {
        // `trim` removes it, but not the quotes that are text behind it.
        Some((
            "there is a byte order mark in the middle of the file, as in files that were joined",
            "put the files into one folder instead of joining them, or remove the mark",
        ))
    } else {
        footer(record)
    }
}

fn is_blank(cell: &[u8]) -> bool {
    std::str::from_utf8(cell).is_ok_and(|text| text.trim().is_empty())
}

/// The number of columns of a line in which another character separates them; `None` if none does.
fn separated(line: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(line).ok()?;
    let by = SEPARATORS.into_iter().find(|by| text.contains(*by))?;
    Some(text.split(by).count())
}

/// Infers the schema of a file from all of its values.
///
/// # Errors
/// If the first line is probably a row of values; if a row has another number of fields than the
/// header, repeats the header, also in another order or case, has a quote that does not end, or text
/// behind the closing quote of a field; if the file ends with NUL bytes, Ctrl-Z or a count of its
/// rows; if a value is not UTF-8, or does not have the declared type of its column.
pub fn infer_schema(
    file: &DataFile,
    options: &ReadOptions,
    is_value: IsValue,
) -> Result<TextSchema, FileFault> {
    let end = format!("\n{END_ROW}");
    let text = Inspected { reader: open(file)?, last: None, quotes: QuoteCheck::default() };
    let mut reader = records(text.chain(end.as_bytes()));
    let mut in_header = false;
    let found = infer_records(&mut reader, file, options, is_value, &mut in_header);
    let (text, _) = reader.get_ref().get_ref();
    match text.quotes.fault() {
        // What is wrong with the row of the quote, or with a later one, comes from it, unless the file is not CSV.
        Some(fault) if !in_header && (found.is_ok() || fault.offset < reader.position().byte()) => {
            Err(fault_at(file, fault.offset, fault.text).with_help(fault.help))
        }
        _ => found,
    }
}

/// Infers the schema from all records; `in_header`: whether the first line is not a header.
fn infer_records(
    reader: &mut Records<'_>,
    file: &DataFile,
    options: &ReadOptions,
    is_value: IsValue,
    in_header: &mut bool,
) -> Result<TextSchema, FileFault> {
    let path = file.path();
    let mut record = ByteRecord::new();
    let mut more = next(reader, &mut record, path)? && !is_end(&record);
    if !more {
        return Ok(TextSchema { columns: Vec::new(), rows: 0, header: HeaderEvidence::Certain });
    }
    let first = start_of(&record);
    let positional = options.positional();
    let by_position = positional.is_some();
    let names = match positional {
        Some(names) => {
            check_first_row(&record, &names, file)?;
            names
        }
        None => {
            let names = cells(&record, file)?;
            if names.last().is_some_and(|name| name.ends_with(END_ROW)) {
                return Err(fault_at(file, first, OPEN_QUOTE));
            }
            check_header(&names, first, file, options).inspect_err(|_| *in_header = true)?;
            more = next(reader, &mut record, path)? && !is_end(&record);
            names
        }
    };
    let mut columns = Columns::new(file, options, is_value, &names, by_position);
    while more {
        columns.add(&record)?;
        more = next(reader, &mut record, path)? && !is_end(&record);
    }
    let (text, _) = reader.get_ref().get_ref();
    if let Some((text, help)) = text.last.and_then(left_over) {
        return Err(fault_at(file, u64::MAX, text).with_help(help));
    }
    if let Some((text, help)) = columns.first_line.as_ref().and_then(FirstLine::fault) {
        return Err(fault_at(file, first, text).with_help(help));
    }
    Ok(columns.into_schema())
}

/// The columns of a file while its rows are read.
struct Columns<'a> {
    file: &'a DataFile,
    options: &'a ReadOptions,
    is_value: IsValue,
    names: &'a [String],
    joined_header: JoinedHeader,
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
        file: &'a DataFile,
        options: &'a ReadOptions,
        is_value: IsValue,
        names: &'a [String],
        by_position: bool,
    ) -> Self {
        let declared: Vec<_> = names.iter().map(|name| options.declared(name)).collect();
        // A line with a name that is declared is a header.
        let is_header = options.header.is_some() || declared.iter().any(Option::is_some);
        Self {
            file,
            options,
            is_value,
            names,
            joined_header: JoinedHeader::of(names),
            by_position,
            declared,
            nodes: vec![Node::default(); names.len()],
            first_line: (!is_header).then(|| FirstLine::of(names)),
            words: PlainWords::of(names).filter(|_| !is_header),
            rows: 0,
        }
    }

    fn fault(&self, record: &ByteRecord, text: impl Into<String>) -> FileFault {
        fault_at(self.file, start_of(record), text)
    }

    /// Counts the values of a row.
    fn add(&mut self, record: &ByteRecord) -> Result<(), FileFault> {
        if record.iter().next_back().is_some_and(|cell| cell.ends_with(END_ROW.as_bytes())) {
            return Err(self.fault(record, OPEN_QUOTE));
        }
        let is_header = record.iter().map(without_mark).eq(self.names.iter().map(String::as_bytes));
        if !self.by_position && (is_header || self.joined_header.is_in(record)) {
            return Err(self.fault(record, "the header is repeated here").with_help(JOINED));
        }
        if let Some((text, help)) = no_row(record, self.options.trim) {
            return Err(self.fault(record, text).with_help(help));
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
                    self.nodes[place].scalars.add_declared(declared, cell);
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
        let last = record.iter().next_back().unwrap_or_default();
        if let Some((text, help)) = last.last().and_then(|byte| left_over(*byte)) {
            return self.fault(record, text).with_help(help);
        }
        if self.by_position {
            let text = format!("{found} fields, where the source declares {wanted} columns");
            return self.fault(record, text).with_help(
                "declare all columns in the order of the files; tables with other columns need their own \
                 source",
            );
        }
        if let Some((text, help)) = self.joined_header.other_fault(record) {
            return self.fault(record, text).with_help(help);
        }
        let help = match self.names {
            _ if found == 1 && is_blank(last) => "remove the line, which holds only white space",
            _ if found == 1 && separated(last) == Some(wanted) => "separate the columns by commas",
            [one] if one.contains(SEPARATORS) => {
                "the header is one column: separate columns by commas"
            }
            _ if found == wanted + 1 && last.is_empty() => {
                "remove the comma at the end of the row, or add one to the header"
            }
            [one, ..] if wanted == 1 || one.starts_with('#') => LINES_BEFORE,
            _ if found < wanted => {
                "give the row a field for each column, also for columns without a value; put quotes around values \
                 that contain a line break"
            }
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
            (Some(_), _) if may_be_row(self.names, self.rows) => HeaderEvidence::Unsure,
            (Some(_), _) => HeaderEvidence::Assumed,
        };
        TextSchema { columns: columns.collect(), rows: self.rows, header }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;
    use crate::stamp::FileStamp;

    /// No column is declared.
    fn no_value(_: ColumnType, _: &str) -> bool {
        false
    }

    /// What is said of a file, without its path, and the hint.
    fn said(members: &[&[u8]], gzipped: bool) -> Option<(String, &'static str)> {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut bytes = Vec::new();
        for member in members {
            if gzipped {
                let mut packed =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                packed.write_all(member).unwrap();
                bytes.extend(packed.finish().unwrap());
            } else {
                bytes.extend_from_slice(member);
            }
        }
        std::fs::write(&path, bytes).unwrap();
        let stamp = FileStamp::of(&path).unwrap();
        let file = DataFile { stamp, format: Format::Csv, gzipped, folders: Vec::new() };
        let fault = infer_schema(&file, &ReadOptions::default(), no_value).err()?;
        let path = format!("{}, ", path.display());
        Some((fault.to_string().replace(&path, ""), fault.help()))
    }

    #[test]
    fn the_line_of_a_fault_is_that_of_the_file() {
        for (rows, fault) in [
            (&["user_id,n", "1,2", "3,4,5", "6,7"][..], "line 3: 3 fields, where the header has 2"),
            (&["user_id,n", "1,2", "", "", "3"], "line 5: 1 fields, where the header has 2"),
            (&["user_id,n", "1,\"2", "\"", "3"], "line 4: 1 fields, where the header has 2"),
            (&["user_id,n", "1,2", "user_id,n"], "line 3: the header is repeated here"),
            (
                &["user_id,n", "1,2", "3,\"4", "5,6"],
                "line 3: a quote starts in this row and does not end",
            ),
            (&["user_id,n", "u1,\"a\\\"\"", "u2,3"], "line 2: a quote starts in this row"),
            (
                &["n,user_id", "\"26\\\"\",u1", "\"28\\\"\",u2", "3,u3"],
                "line 2: text follows the closing quote of a field",
            ),
            (&["user_id,\"n\\\"\"", "1,2", "3,4"], "line 1: a quote starts in this row"),
            (&["user_id,\"n\"m", "1,2"], "line 1: text follows the closing quote of a field"),
            (&["{\"user_id\":\"1\",\"n\":2}"], "line 1: it is JSON"),
            // The fault of an earlier row is named first.
            (&["user_id,n", "1", "2,\"a\"b"], "line 2: 1 fields, where the header has 2"),
            (&["", "a@example.com,2", "3,4"], "line 2: the first line holds values"),
            (&["", "user_id,n", "1"], "line 3: 1 fields"),
            (&["  ", "1"], "line 1: the first line is blank"),
            (&["", ",,", "user_id,n,x"], "line 2: the first line is blank"),
            (&["user_id,n", "1,2", "(1 row)"], "line 3: this line is a count of rows"),
            (&["user_id", "1", "2", "(2 rows)"], "line 4: this line is a count of rows"),
        ] {
            for end in ["\n", "\r\n"] {
                let text = rows.join(end) + end;
                for gzipped in [false, true] {
                    let (found, _) = said(&[text.as_bytes()], gzipped).unwrap();
                    assert!(found.starts_with(fault), "{rows:?} {end:?}: {found}");
                }
            }
        }
        // A file that is read in several parts.
        let text = format!("user_id,n\r\n{}5\r\n", "1,2\r\n".repeat(200_000));
        let (found, _) = said(&[text.as_bytes()], false).unwrap();
        assert!(found.starts_with("line 200002: 1 fields"), "{found}");
    }

    #[test]
    fn what_is_left_at_the_end_of_a_file_is_refused_with_its_line() {
        let (nul, ctrl_z) = ("there are NUL bytes", "there is a Ctrl-Z character");
        for (text, line, fault) in [
            (&b"user_id\n1\n\0\0\0\0"[..], 3, nul),
            (b"user_id\r\n1\r\n2\0", 3, nul),
            (b"user_id,n\n1,2\n3\0\0\0", 3, nul),
            (b"user_id\n1\n\0\0\0\x002\n3\n", 3, nul),
            (b"\0\0\0\0", 1, nul),
            (b"user_id\r\n1\r\n\x1a", 3, ctrl_z),
            (b"user_id,n\n1,2\n\x1a\x1a\n", 3, ctrl_z),
            (b"user_id\n1\n2\x1a", 3, ctrl_z),
            (b"user_id\x1a", 1, ctrl_z),
        ] {
            let (found, help) = said(&[text], false).unwrap();
            assert!(found.starts_with(&format!("line {line}: {fault}")), "{text:?}: {found}");
            assert!(help.contains("tr -d"), "{help}");
        }
        for text in [&b"user_id,n\n1,\0\n2,a\0b\n"[..], b"user_id\n1\n\r\n\n"] {
            assert_eq!(said(&[text], false), None);
        }
    }

    #[test]
    fn a_byte_order_mark_in_the_middle_of_a_file_is_refused() {
        let mark = "\u{feff}";
        let first = format!("{mark}user_id,n\n24,1\n");
        let second = format!("{mark}25,2\n26,3\n");
        for gzipped in [false, true] {
            let (found, help) = said(&[first.as_bytes(), second.as_bytes()], gzipped).unwrap();
            assert!(found.starts_with("line 3: there is a byte order mark"), "{found}");
            assert!(help.contains("into one folder"), "{help}");
            assert_eq!(said(&[first.as_bytes(), b"25,2\n"], gzipped), None);
        }
    }

    #[test]
    fn a_byte_order_mark_before_a_text_is_one_that_trim_removes() {
        let said = |text: &str, trim| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            std::fs::write(&path, text).unwrap();
            let stamp = FileStamp::of(&path).unwrap();
            let file = DataFile { stamp, format: Format::Csv, gzipped: false, folders: Vec::new() };
            let options = ReadOptions { trim, ..ReadOptions::default() };
            infer_schema(&file, &options, no_value).map(|found| found.rows)
        };
        let plain = "title,user_id\nlamp,24\n\u{feff}sofa,25\n";
        assert_eq!(said(plain, true), Ok(2));
        assert!(said(plain, false).is_err());
        assert!(said("title,user_id\nlamp,24\n\u{feff}\"sofa\",25\n", true).is_err());
    }

    #[test]
    fn a_header_of_joined_files_is_repeated_in_any_order_case_and_spacing() {
        let first: &[u8] = b"user_id,email\nu1,a@x.com\n";
        for second in [
            &b"user_id,email\nb@x.com,u2\n"[..],
            b"email,user_id\nb@x.com,u2\n",
            b"USER_ID,Email\nu2,b@x.com\n",
            b" user_id , email\nu2,b@x.com\n",
            b"\xEF\xBB\xBFemail,user_id\nb@x.com,u2\n",
        ] {
            for gzipped in [false, true] {
                let (found, help) = said(&[first, second], gzipped).unwrap();
                assert_eq!(found, "line 3: the header is repeated here");
                assert!(help.contains("into one folder"), "{help}");
            }
        }
        // A column that stays in its place.
        let (found, _) = said(&[b"a,b,sku\n1,2,3\nb,a,sku\n2,1,3\n"], false).unwrap();
        assert_eq!(found, "line 3: the header is repeated here");
        // A row with one such value.
        assert_eq!(said(&[first, b"email,b@x.com\n"], false), None);
    }

    #[test]
    fn the_hint_for_another_number_of_fields_fits_the_row() {
        for (row, hint) in [
            ("1", "give the row a field for each column"),
            ("1,2,", "remove the comma at the end of the row"),
            ("1,2,3", "put quotes around values that contain a comma"),
            ("1;2", "separate the columns by commas"),
            ("  ", "remove the line, which holds only white space"),
            ("n;user_id", "put the files into one folder instead of joining them, with commas"),
            ("(1 row)", "remove it: `psql --csv`"),
        ] {
            let (_, help) = said(&[b"user_id,n\n", row.as_bytes(), b"\n"], false).unwrap();
            assert!(help.starts_with(hint), "{row}: {help}");
        }
    }
}
