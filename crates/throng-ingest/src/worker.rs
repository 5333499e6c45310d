//! One of the threads that parse, check and write rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array as _, StringArray};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use memchr::{memchr, memchr_iter};
use throng_schema::Schema;

use crate::cells::Cells;
use crate::columns::{Columns, arrow_schema};
use crate::csv;
use crate::error::IngestError;
use crate::json::{self, FieldNames};
use crate::quarantine::Quarantine;
use crate::reason::{Reason, RowFault};
use crate::row_check::{RowChecks, RowValues};
use crate::split::{BYTE_ORDER_MARK, MAX_RECORD_BYTES, TextBlock};
use crate::tally::Tally;
use crate::write::write_parquet;

/// Rows are written when they take about this many bytes, in all threads together.
const ROWS_BYTES: usize = 192 << 20;
/// Files of one batch, at most: one for each day of each chunk.
const MAX_FILES: usize = 10_000;

/// The place of each field's cell.
pub(crate) type Places = Arc<[Option<usize>]>;

/// Rows that a thread takes.
pub(crate) enum Block {
    Csv {
        block: TextBlock,
        /// Where the first record begins.
        start: usize,
        places: Places,
        /// The columns of the file.
        width: usize,
    },
    Json {
        block: TextBlock,
    },
    /// Columns of text.
    Table {
        rows: RecordBatch,
        /// The number of its first row, from 1.
        first_row: u64,
        places: Places,
    },
    /// A record that is too long, with its beginning.
    TooLong {
        line: u64,
        beginning: Vec<u8>,
    },
}

/// What all threads of a batch share.
#[derive(Debug)]
pub(crate) struct Job<'j> {
    pub(crate) schema: &'j Schema,
    checks: RowChecks,
    names: FieldNames,
    columns: SchemaRef,
    quarantine: &'j Quarantine,
    staging: &'j Path,
    files: AtomicUsize,
    chunk_bytes: usize,
}

impl<'j> Job<'j> {
    /// `staging`: the folder of the batch's files.
    pub(crate) fn new(
        schema: &'j Schema,
        today: i32,
        quarantine: &'j Quarantine,
        staging: &'j Path,
        workers: usize,
    ) -> Self {
        Self {
            schema,
            checks: RowChecks::new(schema, today),
            names: FieldNames::new(schema.fields.iter().map(|field| field.name.as_str())),
            columns: arrow_schema(schema.stored().map(|field| (field.name.clone(), field.of))),
            quarantine,
            staging,
            files: AtomicUsize::new(0),
            chunk_bytes: ROWS_BYTES / workers.max(1),
        }
    }

    /// The places of cells that are in the order of the fields.
    fn in_order(&self) -> Places {
        (0..self.schema.fields.len()).map(Some).collect()
    }
}

/// A file of the batch that is complete.
#[derive(Debug)]
pub(crate) struct StagedFile {
    pub(crate) path: PathBuf,
    /// Days since 1970-01-01.
    pub(crate) day: i32,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
}

/// The state of one thread.
pub(crate) struct Worker<'w> {
    job: &'w Job<'w>,
    in_order: Places,
    cells: Cells,
    values: RowValues,
    columns: Columns,
    pub(crate) tally: Tally,
    pub(crate) files: Vec<StagedFile>,
}

impl<'w> Worker<'w> {
    pub(crate) fn new(job: &'w Job<'w>) -> Self {
        Self {
            job,
            in_order: job.in_order(),
            cells: Cells::default(),
            values: RowValues::default(),
            columns: Columns::new(job.schema),
            tally: Tally::default(),
            files: Vec::new(),
        }
    }

    /// Checks the rows of a block.
    pub(crate) fn take(&mut self, block: Block) -> Result<(), IngestError> {
        match block {
            Block::Csv { block, start, places, width } => self.csv(&block, start, &places, width),
            Block::Json { block } => self.json(&block),
            Block::Table { rows, first_row, places } => self.table(&rows, first_row, &places),
            Block::TooLong { line, beginning } => {
                let fault = RowFault::of_row(Reason::RowTooLong);
                self.end_row(Err(fault), line, rows_in(fault, &beginning), &beginning)
            }
        }
    }

    fn csv(
        &mut self,
        block: &TextBlock,
        start: usize,
        places: &[Option<usize>],
        width: usize,
    ) -> Result<(), IngestError> {
        let bytes = block.bytes.as_slice();
        let (mut at, mut line) = (start, block.first_line);
        while at < bytes.len() {
            let blank = csv::line_end(&bytes[at..]);
            if blank > 0 {
                at += blank;
                line += 1;
                continue;
            }
            let parsed = csv::record(bytes, at, &mut self.cells);
            let row = &bytes[at..parsed.end];
            let fault = match parsed.fault {
                _ if row.len() > MAX_RECORD_BYTES => Some(Reason::RowTooLong),
                _ if self.repeats_header(bytes, places, width) => Some(Reason::RepeatedHeader),
                // The quotes behind it are text, and an unquoted value would have it.
                _ if row.starts_with(BYTE_ORDER_MARK) => Some(Reason::ByteOrderMark),
                None if self.cells.len() != width => Some(Reason::WrongWidth),
                fault => fault,
            };
            let checked = match fault {
                Some(reason) => Err(RowFault::of_row(reason)),
                None => self.job.checks.check(&self.cells, bytes, places, &mut self.values),
            };
            let rows = checked.err().map_or(1, |fault| rows_in(fault, row));
            self.end_row(checked, line, rows, row)?;
            line += memchr_iter(b'\n', row).count() as u64;
            at = parsed.end;
        }
        Ok(())
    }

    /// Whether the cells are the names of the columns, as where a file was appended to another one.
    fn repeats_header(&self, block: &[u8], places: &[Option<usize>], width: usize) -> bool {
        let is_name = |(name, place): (&str, &Option<usize>)| {
            let Some(place) = place else { return true };
            let cell = self.cells.get(*place, block).unwrap_or_default();
            let cell = cell.strip_prefix(BYTE_ORDER_MARK).unwrap_or(cell).trim_ascii();
            match name.len() {
                // A letter in another case may be a value.
                1 => cell == name.as_bytes(),
                _ => cell.eq_ignore_ascii_case(name.as_bytes()),
            }
        };
        let names = self.job.schema.fields.iter().map(|field| field.name.as_str());
        self.cells.len() == width && names.zip(places).all(is_name)
    }

    fn json(&mut self, block: &TextBlock) -> Result<(), IngestError> {
        let bytes = block.bytes.as_slice();
        let places = Arc::clone(&self.in_order);
        let (mut at, mut line) = (0, block.first_line);
        while at < bytes.len() {
            let end = memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |found| at + found);
            // Before the first object of each file that was joined.
            while bytes[at..end].starts_with(BYTE_ORDER_MARK) {
                at += BYTE_ORDER_MARK.len();
            }
            let row = &bytes[at..end];
            if !row.trim_ascii().is_empty() {
                let parsed = if row.len() > MAX_RECORD_BYTES {
                    Err(RowFault::of_row(Reason::RowTooLong))
                } else {
                    json::object(bytes, (at, end), &self.job.names, &mut self.cells)
                };
                let checked = parsed.and_then(|()| {
                    self.job.checks.check(&self.cells, bytes, &places, &mut self.values)
                });
                self.end_row(checked, line, 1, row)?;
            }
            line += 1;
            at = end + 1;
        }
        Ok(())
    }

    fn table(
        &mut self,
        rows: &RecordBatch,
        first_row: u64,
        places: &[Option<usize>],
    ) -> Result<(), IngestError> {
        let columns: Vec<Option<&StringArray>> =
            rows.columns().iter().map(|column| column.as_any().downcast_ref()).collect();
        for row in 0..rows.num_rows() {
            self.cells.clear();
            let mut bytes = 0;
            for column in &columns {
                let value = column.filter(|column| column.is_valid(row)).map(|c| c.value(row));
                bytes += value.map_or(0, str::len);
                match value {
                    Some(value) if bytes <= MAX_RECORD_BYTES => {
                        let start = self.cells.own().len();
                        self.cells.own().extend_from_slice(value.as_bytes());
                        self.cells.push_own(start);
                    }
                    _ => self.cells.push_missing(),
                }
            }
            let checked = match bytes > MAX_RECORD_BYTES {
                true => Err(RowFault::of_row(Reason::RowTooLong)),
                false => self.job.checks.check(&self.cells, &[], places, &mut self.values),
            };
            let shown = if checked.is_err() { self.joined_cells() } else { Vec::new() };
            self.end_row(checked, first_row + row as u64, 1, &shown)?;
        }
        Ok(())
    }

    /// The cells of a row of Parquet, separated by commas, for its line in quarantine.
    fn joined_cells(&self) -> Vec<u8> {
        let cells = (0..self.cells.len()).map(|at| self.cells.get(at, &[]).unwrap_or_default());
        cells.collect::<Vec<_>>().join(&b',')
    }

    /// Adds the row that was checked last to the columns, or to the quarantine. One that failed counts as `rows`.
    fn end_row(
        &mut self,
        checked: Result<(), RowFault>,
        line: u64,
        rows: u64,
        row: &[u8],
    ) -> Result<(), IngestError> {
        match checked {
            Ok(()) => {
                self.tally.accept();
                self.columns.append(&self.values);
                if self.columns.bytes() < self.job.chunk_bytes { Ok(()) } else { self.flush() }
            }
            Err(fault) => {
                self.tally.refuse(fault, line, rows);
                self.job.quarantine.add(fault, line, row.trim_ascii_end())
            }
        }
    }

    /// Writes the rows that are in memory: a file for each day.
    pub(crate) fn flush(&mut self) -> Result<(), IngestError> {
        if self.columns.is_empty() {
            return Ok(());
        }
        let key_column = self.columns.key_column();
        let days = self.columns.take_sorted().map_err(|source| IngestError::Write {
            path: self.job.staging.to_owned(),
            source: source.into(),
        })?;
        for day in days {
            let number = self.job.files.fetch_add(1, Ordering::Relaxed);
            if number >= MAX_FILES {
                let message = format!(
                    "the batch needs more than {MAX_FILES} files: its rows are of too many days"
                );
                let help = "sort the rows by day, and send them in several batches";
                return Err(IngestError::refused(message, help));
            }
            let path = self.job.staging.join(number.to_string());
            let bytes = write_parquet(&path, &self.job.columns, Some(&day.rows), key_column)?;
            let rows = day.rows.num_rows() as u64;
            self.files.push(StagedFile { path, day: day.day, bytes, rows });
        }
        Ok(())
    }
}

/// How many rows a part of a CSV file was that failed. One that cannot be taken apart is as many as it has lines: after a
/// quote that is not closed, it ends at the next quote, which may be many lines later.
fn rows_in(fault: RowFault, row: &[u8]) -> u64 {
    match fault.field {
        None => 1 + memchr_iter(b'\n', row.trim_ascii_end()).count() as u64,
        Some(_) => 1,
    }
}
