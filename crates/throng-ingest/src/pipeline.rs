//! From content to files in the staging folder: one thread reads and cuts, the others parse, check, sort and write.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow::array::{Array as _, ArrayRef, AsArray as _};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{
    DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;
use throng_schema::{Anonymise, FieldType, RecordFormat};

use crate::cells::Cells;
use crate::error::IngestError;
use crate::paths::{create_file, create_folder, remove_file};
use crate::source::Content;
use crate::split::{Piece, Splitter, TextBlock};
use crate::tally::Tally;
use crate::worker::{Block, Job, Places, StagedFile, Worker};
use crate::{csv, header, unreadable};

/// Rows of Parquet that are read at once.
const PARQUET_ROWS: usize = 1024;
/// Bytes of so many rows as text, at most: a small file can have large rows, as equal values are stored once.
const MAX_PARQUET_BYTES: usize = 32 << 20;
const SPOOL_BYTES: usize = 1 << 20;
/// Bytes of a Parquet file, at most: a small compressed body must not fill the disk of the node.
const MAX_SPOOL_BYTES: u64 = 16 << 30;

/// Where rows go, and whether they are still wanted.
struct Feed {
    blocks: SyncSender<Block>,
    stopped: Arc<AtomicBool>,
}

impl Feed {
    /// `false` once a thread has failed.
    fn send(&self, block: Block) -> bool {
        !self.stopped.load(Ordering::Relaxed) && self.blocks.send(block).is_ok()
    }
}

/// Reads all of the content and writes its rows to files of the staging folder. `spool`: a path for a temporary file.
///
/// # Errors
/// The first [`IngestError`] of any thread; the files that were written are of no use then.
pub(crate) fn run(
    job: &Job<'_>,
    content: &mut Content<'_>,
    format: RecordFormat,
    spool: &Path,
    workers: usize,
) -> Result<(Tally, Vec<StagedFile>), IngestError> {
    let stopped = Arc::new(AtomicBool::new(false));
    let (blocks, receiver) = sync_channel(workers * 2);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..workers).map(|_| scope.spawn(|| work(job, &receiver, &stopped))).collect();
        let feed = Feed { blocks, stopped: Arc::clone(&stopped) };
        let read = match format {
            RecordFormat::Csv => read_csv(job, content, &feed),
            RecordFormat::Ndjson => read_json(content, &feed),
            RecordFormat::Parquet => read_parquet(job, content, spool, &feed),
        };
        let read = read.map_err(|error| unreadable::with_hint(error, content, format, job.schema));
        // The threads end when they have taken all blocks.
        drop(feed);
        let (mut tally, mut files, mut failure) = (Tally::default(), Vec::new(), read.err());
        for thread in threads {
            match thread.join().unwrap_or(Err(IngestError::Panicked)) {
                Ok((counted, written)) => {
                    tally.merge(counted);
                    files.extend(written);
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok((tally, files)),
        }
    })
}

/// One thread: takes blocks until there are no more. After an error it discards them, so that the reader never waits
/// for it.
fn work(
    job: &Job<'_>,
    blocks: &Mutex<Receiver<Block>>,
    stopped: &AtomicBool,
) -> Result<(Tally, Vec<StagedFile>), IngestError> {
    let mut worker = Worker::new(job);
    let mut result = Ok(());
    loop {
        let block = blocks.lock().recv();
        let Ok(block) = block else { break };
        if result.is_err() {
            continue;
        }
        let taken = catch_unwind(AssertUnwindSafe(|| worker.take(block)));
        result = taken.unwrap_or(Err(IngestError::Panicked));
        if result.is_err() {
            stopped.store(true, Ordering::Relaxed);
        }
    }
    result.and_then(|()| worker.flush())?;
    Ok((worker.tally, worker.files))
}

fn empty() -> IngestError {
    IngestError::refused("the content is empty", "send a file with rows")
}

fn read_csv(job: &Job<'_>, content: &mut Content<'_>, feed: &Feed) -> Result<(), IngestError> {
    let mut splitter = Splitter::new(content, true);
    let first = match splitter.next_piece()?.ok_or_else(empty)? {
        Piece::Block(block) => block,
        Piece::TooLong { .. } => {
            let help = "begin with one line that has the names of the columns";
            return Err(IngestError::refused("line 1: the header is longer than 1 MiB", help));
        }
    };
    let mut cells = Cells::default();
    let parsed = csv::record(&first.bytes, 0, &mut cells);
    if parsed.fault.is_some() {
        let help = "write a name with quotes in it as `\"a \"\"name\"\"\"`";
        return Err(IngestError::refused("line 1: a quote of the header is misplaced", help));
    }
    let names = header::names(&cells, &first.bytes);
    let width = names.len();
    let places: Places = header::places(job.schema, &names)?.into();
    let header_lines = first.bytes[..parsed.end].iter().filter(|byte| **byte == b'\n').count();
    let mut start = parsed.end;
    let mut next = Some(Piece::Block(TextBlock {
        bytes: first.bytes,
        first_line: first.first_line + header_lines as u64,
    }));
    while let Some(piece) = next {
        let block = match piece {
            Piece::Block(block) => Block::Csv { block, start, places: Arc::clone(&places), width },
            Piece::TooLong { line, beginning } => Block::TooLong { line, beginning },
        };
        if !feed.send(block) {
            break;
        }
        start = 0;
        next = splitter.next_piece()?;
    }
    Ok(())
}

fn read_json(content: &mut Content<'_>, feed: &Feed) -> Result<(), IngestError> {
    let mut splitter = Splitter::new(content, false);
    let first = splitter.next_piece()?.ok_or_else(empty)?;
    if let Piece::Block(block) = &first
        && block.bytes.trim_ascii_start().first() == Some(&b'[')
    {
        let help = "write one JSON object a line, without brackets and commas around them";
        return Err(IngestError::refused("line 1: the content is a JSON array", help));
    }
    let mut next = Some(first);
    while let Some(piece) = next {
        let block = match piece {
            Piece::Block(block) => Block::Json { block },
            Piece::TooLong { line, beginning } => Block::TooLong { line, beginning },
        };
        if !feed.send(block) {
            break;
        }
        next = splitter.next_piece()?;
    }
    Ok(())
}

/// Parquet begins at its end, so the content is written to a file first. The file has no name from its creation on:
/// it ends with the process.
fn read_parquet(
    job: &Job<'_>,
    content: &mut Content<'_>,
    spool: &Path,
    feed: &Feed,
) -> Result<(), IngestError> {
    let file = spooled(content, spool, MAX_SPOOL_BYTES)?;
    let opened = catch_unwind(AssertUnwindSafe(|| parquet_reader(file).map_err(not_parquet)));
    let mut reader = opened.unwrap_or_else(|_| Err(not_parquet("it is damaged")))?;
    let places = parquet_places(job, &reader)?;
    let mut first_row = 1;
    loop {
        let next = catch_unwind(AssertUnwindSafe(|| reader.next().transpose()));
        let next =
            next.unwrap_or_else(|_| Err(ArrowError::ParquetError("it is damaged".to_owned())));
        let Some(rows) = next.map_err(not_parquet)? else { return Ok(()) };
        let count = rows.num_rows() as u64;
        let rows = as_text(&rows).map_err(not_parquet)?;
        if text_bytes(&rows) > MAX_PARQUET_BYTES {
            let message = format!("rows {first_row} and later have more than 32 KiB on average");
            let help = "write smaller rows, or send them as CSV or JSON lines";
            return Err(IngestError::refused(message, help));
        }
        if !feed.send(Block::Table { rows, first_row, places: Arc::clone(&places) }) {
            return Ok(());
        }
        first_row += count;
    }
}

fn parquet_reader(file: File) -> Result<ParquetRecordBatchReader, ParquetError> {
    let mut metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
    if let Some(schema) = with_wide_times(&metadata) {
        let options = ArrowReaderOptions::new().with_schema(schema);
        metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)?;
    }
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    builder.with_batch_size(PARQUET_ROWS).build()
}

/// The columns with the times of the type INT96 in microseconds; `None` if there are none. The reader has them in
/// nanoseconds, of which 64 bits end in 2262: it would read the year 9999, which stands for no end, as one of 1816.
fn with_wide_times(metadata: &ArrowReaderMetadata) -> Option<SchemaRef> {
    let columns = metadata.parquet_schema();
    let leaves = columns.columns().iter().enumerate();
    let of_int96 = leaves.filter(|(_, column)| column.physical_type() == PhysicalType::INT96);
    let of_int96: BTreeSet<usize> =
        of_int96.map(|(leaf, _)| columns.get_column_root_idx(leaf)).collect();
    if of_int96.is_empty() {
        return None;
    }
    let schema = metadata.schema();
    let fields = schema.fields().iter().enumerate().map(|(at, field)| match field.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) if of_int96.contains(&at) => {
            let wide = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            field.as_ref().clone().with_data_type(wide)
        }
        _ => field.as_ref().clone(),
    });
    let fields: Vec<Field> = fields.collect();
    Some(Arc::new(ArrowSchema::new_with_metadata(fields, schema.metadata().clone())))
}

/// The reader's own message is left out: it may have a value.
fn not_parquet<E>(_: E) -> IngestError {
    let help = "send a whole Parquet file with the content type application/vnd.apache.parquet";
    IngestError::refused("the content cannot be read as Parquet", help)
}

fn spooled(content: &mut Content<'_>, path: &Path, limit: u64) -> Result<File, IngestError> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let mut file = create_file(path)?;
    remove_file(path)?;
    let mut buffer = vec![0; SPOOL_BYTES];
    let mut bytes = 0;
    loop {
        let count = content.fill(&mut buffer)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        if bytes > limit {
            let message = format!("the Parquet file is larger than {} GiB", limit >> 30);
            return Err(IngestError::refused(message, "send it as several files"));
        }
        file.write_all(&buffer[..count]).map_err(IngestError::io("write", path))?;
    }
    file.rewind().map_err(IngestError::io("read", path))?;
    Ok(file)
}

/// The places of the fields' columns.
fn parquet_places(job: &Job<'_>, reader: &ParquetRecordBatchReader) -> Result<Places, IngestError> {
    use arrow::record_batch::RecordBatchReader as _;
    let schema = reader.schema();
    let names: Vec<&[u8]> = schema.fields().iter().map(|field| field.name().as_bytes()).collect();
    let places = header::places(job.schema, &names)?;
    for (field, place) in job.schema.fields.iter().zip(&places) {
        let Some(place) = place else { continue };
        let of = schema.field(*place).data_type();
        if !is_scalar(of) {
            let message = format!("the column `{}` is {of}, which has no text form", field.name);
            let help = "write text, numbers, booleans, dates and timestamps";
            return Err(IngestError::refused(message, help));
        }
        let is_text = matches!(field.of, FieldType::Text | FieldType::Email | FieldType::Phone);
        if is_text && field.anonymise != Some(Anonymise::Drop) && is_float(of) {
            let message =
                format!("the column `{}` is {of}, and its field is {}", field.name, field.of);
            let help =
                "a float has lost how its number was written: write the column as text or integers";
            return Err(IngestError::refused(message, help));
        }
    }
    Ok(places.into())
}

fn is_float(of: &DataType) -> bool {
    match of {
        DataType::Dictionary(_, values) => is_float(values),
        of => of.is_floating(),
    }
}

fn is_scalar(of: &DataType) -> bool {
    // The cast would make NULL of bytes that are not text.
    if let DataType::Dictionary(_, values) = of {
        return is_scalar(values);
    }
    let is_other = matches!(
        of,
        DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
            | DataType::Interval(_)
            | DataType::Duration(_)
            | DataType::Time32(_)
            | DataType::Time64(_)
    );
    !is_other && !of.is_nested() && can_cast_types(of, &DataType::Utf8)
}

/// All columns as text: it is checked as that of other formats is.
fn as_text(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let fields = rows.schema();
    let fields = fields.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, true));
    let schema = Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>()));
    let columns = rows.columns().iter().map(|column| cast(&in_utc(column), &DataType::Utf8));
    RecordBatch::try_new(schema, columns.collect::<Result<_, _>>()?)
}

/// The bytes of columns of text.
fn text_bytes(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| column.as_string::<i32>().values().len()).sum()
}

/// Points in time in UTC, whatever the zone in which they are shown.
fn in_utc(column: &ArrayRef) -> ArrayRef {
    macro_rules! without_zone {
        ($type:ty) => {
            Arc::new(column.as_primitive::<$type>().clone().with_timezone_opt(None::<Arc<str>>))
        };
    }
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, Some(_)) => without_zone!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, Some(_)) => {
            without_zone!(TimestampMillisecondType)
        }
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            without_zone!(TimestampMicrosecondType)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, Some(_)) => {
            without_zone!(TimestampNanosecondType)
        }
        _ => ArrayRef::clone(column),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Encoding;

    #[test]
    fn a_file_that_is_too_large_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let spool = |limit| {
            let mut content = Content::new(&[7_u8; 100][..], Encoding::Identity).unwrap();
            let file = spooled(&mut content, &dir.path().join("spool"), limit);
            file.map(|file| file.metadata().unwrap().len()).map_err(|error| error.to_string())
        };
        assert_eq!(spool(100), Ok(100));
        assert_eq!(spool(99), Err("the Parquet file is larger than 0 GiB".to_owned()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
