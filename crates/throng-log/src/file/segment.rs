//! Reads one segment file, and creates new ones.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use throng_model::Timestamp;

use super::disk::Disk;
use super::record::{self, EndKind, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader};
use crate::{LogError, Record, Result};

/// The distance of index entries in bytes: a read scans at most this much before the record it wants.
const INDEX_INTERVAL_BYTES: u64 = 64 << 10;
const READ_AHEAD_BYTES: usize = 256 << 10;

/// The state of a segment.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Offset of its first record.
    pub(super) base: u64,
    /// Offset after its last record.
    pub(super) end: u64,
    /// Position after its last record.
    pub(super) bytes: u64,
    /// There is a gap in the offsets before its first record.
    pub(super) after_gap: bool,
    /// A sparse index: (offset, position) pairs, ascending; extended by writes and reads.
    index: Vec<(u64, u64)>,
}

impl Segment {
    pub(super) fn empty(path: PathBuf, base: u64) -> Self {
        let (bytes, index) = (SEGMENT_HEADER as u64, Vec::new());
        Self { path, base, end: base, bytes, after_gap: false, index }
    }

    /// A copy without the index.
    pub(super) fn without_index(&self) -> Self {
        Self {
            path: self.path.clone(),
            base: self.base,
            end: self.end,
            bytes: self.bytes,
            after_gap: self.after_gap,
            index: Vec::new(),
        }
    }

    /// Adds a record to the index, if it is far enough from the last entry.
    pub(super) fn add_to_index(&mut self, offset: u64, position: u64) {
        // Sparse: an entry for each record would need as much memory as small records themselves.
        let last = self.index.last().map_or(SEGMENT_HEADER as u64, |(_, position)| *position);
        if position >= last + INDEX_INTERVAL_BYTES {
            self.index.push((offset, position));
        }
    }

    /// Where a scan for `offset` begins: (offset, position) of a record at or before it.
    fn indexed_before(&self, offset: u64) -> (u64, u64) {
        let after = self.index.partition_point(|(known, _)| *known <= offset);
        match after.checked_sub(1).and_then(|at| self.index.get(at)) {
            Some(entry) => *entry,
            None => (self.base, SEGMENT_HEADER as u64),
        }
    }

    pub(super) fn damaged(&self, position: u64, why: &'static str) -> LogError {
        LogError::Damaged { path: self.path.clone(), position, why }
    }

    /// Reads the records after `bytes`, up to the first invalid one. Returns whether there are bytes after
    /// the last valid record.
    pub(super) fn scan_valid(&mut self, file: &File) -> Result<bool> {
        let length = file.metadata().map_err(LogError::io("inspect", &self.path))?.len();
        let mut cursor = Cursor::new(file, self.bytes, length);
        loop {
            let step = cursor.next(self.end).map_err(LogError::io("read", &self.path))?;
            match step {
                Step::End => return Ok(false),
                Step::Valid(header) => {
                    self.add_to_index(self.end, self.bytes);
                    self.end += 1;
                    self.bytes += header.size() as u64;
                }
                Step::Invalid => return Ok(true),
            }
        }
    }

    /// Reads the records after `bytes`, up to the first invalid one. `Damaged` if that one was
    /// acknowledged. Returns whether a torn write follows the last valid record.
    pub(super) fn scan(&mut self, file: &File) -> Result<bool> {
        if !self.scan_valid(file)? {
            return Ok(false);
        }
        // All of the rest, as a valid record anywhere in it decides between a torn write and damage. At most
        // a segment: 64 MiB and one commit.
        let length = file.metadata().map_err(LogError::io("inspect", &self.path))?.len();
        let mut rest = vec![0; usize::try_from(length - self.bytes).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut rest, self.bytes).map_err(LogError::io("read", &self.path))?;
        match record::classify_end(&rest, self.end, self.bytes) {
            EndKind::Torn => Ok(true),
            EndKind::Damaged(why) => Err(self.damaged(self.bytes, why)),
        }
    }

    /// Reads a closed segment from its beginning and sets its end. `Damaged` if it has anything but valid
    /// records: a torn write can only be in the last segment.
    pub(super) fn scan_closed(&mut self, file: &File) -> Result<()> {
        (self.end, self.bytes) = (self.base, SEGMENT_HEADER as u64);
        if self.scan(file)? {
            return Err(self.damaged(self.bytes, "it ends with an incomplete record"));
        }
        Ok(())
    }

    /// Reads the header of the file.
    pub(super) fn header(&self, file: &File, partition: u32) -> Result<SegmentHeader> {
        let mut header = [0; SEGMENT_HEADER];
        match file.read_exact_at(&mut header, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged(0, "its header is incomplete"));
            }
            Err(error) => return Err(LogError::io("read", &self.path)(error)),
        }
        // Before the check for damage: after a downgrade the error must not ask to repair a valid log.
        if let Some(found) = record::unsupported_format(&header) {
            return Err(LogError::UnsupportedFormat { path: self.path.clone(), found });
        }
        SegmentHeader::decode(&header)
            .filter(|header| (header.partition, header.base) == (partition, self.base))
            .ok_or_else(|| self.damaged(0, "its header is not that of this partition and offset"))
    }

    /// The time of its first record, if it has one.
    pub(super) fn first_time(&self) -> Result<Option<Timestamp>> {
        let file = throng_fs::open(&self.path).map_err(LogError::io("open", &self.path))?;
        let mut header = [0; RECORD_HEADER];
        match file.read_exact_at(&mut header, SEGMENT_HEADER as u64) {
            Ok(()) => Ok(record::header(&header).map(|header| header.at)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(LogError::io("read", &self.path)(error)),
        }
    }

    /// Adds records from offset `from` (which is in this segment) to `out` until their values exceed
    /// `left` bytes. Returns index entries of the records that were read.
    pub(super) fn read(
        &self,
        from: u64,
        left: &mut usize,
        out: &mut Vec<Record>,
    ) -> Result<Vec<(u64, u64)>> {
        // Opened for each read: with open handles, thousands of segments would exceed the limit of file
        // descriptors, and deleted segments would keep their disk space.
        let file = throng_fs::open(&self.path).map_err(LogError::io("open", &self.path))?;
        let (mut offset, mut position) = self.indexed_before(from);
        let mut found = Vec::new();
        // Limited to the durable end: bytes after it may be a commit in progress.
        let mut cursor = Cursor::new(&file, position, self.bytes);
        while offset < self.end {
            let step = cursor.next(offset).map_err(LogError::io("read", &self.path))?;
            let Step::Valid(header) = step else {
                return Err(self.damaged(position, "an acknowledged record is broken"));
            };
            if offset >= from {
                // The first record is returned whatever its size: the reader would not make progress
                // otherwise.
                if header.length > *left && !out.is_empty() {
                    *left = 0;
                    break;
                }
                *left = left.saturating_sub(header.length);
                let value = Bytes::copy_from_slice(cursor.value(header));
                out.push(Record { offset, at: header.at, value });
            }
            found.push((offset, position));
            offset += 1;
            position += header.size() as u64;
        }
        Ok(found)
    }
}

enum Step {
    /// A valid record; the cursor is after it.
    Valid(RecordHeader),
    /// Bytes that are not a valid record with the expected offset.
    Invalid,
    /// The end of the file.
    End,
}

/// Iterates over the records of a file, with read-ahead.
struct Cursor<'a> {
    file: &'a File,
    limit: u64,
    /// The position of `buffer` in the file.
    origin: u64,
    buffer: Vec<u8>,
    /// The position of the cursor in `buffer`.
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a File, position: u64, limit: u64) -> Self {
        Self { file, limit, origin: position, buffer: Vec::new(), at: 0 }
    }

    /// The next `wanted` bytes, fewer at the end. Does not move the cursor.
    fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.at < wanted {
            self.origin += self.at as u64;
            self.buffer.drain(..self.at);
            self.at = 0;
            let have = self.buffer.len();
            // Not after the limit: a log that is read while it is written has unfinished commits
            // there.
            let left = self.limit.saturating_sub(self.origin + have as u64);
            let more = wanted.max(READ_AHEAD_BYTES) - have;
            let more = usize::try_from(left).map_or(more, |left| left.min(more));
            self.buffer.resize(have + more, 0);
            self.file.read_exact_at(&mut self.buffer[have..], self.origin + have as u64)?;
        }
        let to = self.buffer.len().min(self.at + wanted);
        Ok(&self.buffer[self.at..to])
    }

    fn next(&mut self, expected: u64) -> io::Result<Step> {
        let bytes = self.peek(RECORD_HEADER)?;
        if bytes.is_empty() {
            return Ok(Step::End);
        }
        // A valid record with another offset is an old one: the disk block has contents of an earlier file.
        let Some(header) = record::header(bytes).filter(|h| h.offset == expected) else {
            return Ok(Step::Invalid);
        };
        let bytes = self.peek(header.size())?;
        if header.value(bytes).is_none() {
            return Ok(Step::Invalid);
        }
        self.at += header.size();
        Ok(Step::Valid(header))
    }

    /// The value of the record before the cursor.
    fn value(&self, header: RecordHeader) -> &[u8] {
        &self.buffer[self.at - header.length..self.at]
    }
}

/// Creates a segment file, which is visible only when it is complete and durable. `previous`: the segment
/// that it follows.
pub(super) fn create(
    disk: &dyn Disk,
    folder: &Path,
    partition: u32,
    base: u64,
    previous: Option<&Segment>,
) -> Result<(File, Segment)> {
    let path = folder.join(record::segment_name(base));
    let temporary = path.with_extension("log.tmp");
    let header = SegmentHeader {
        partition,
        base,
        link: previous.map_or(0, |previous| record::link_to(previous.base, previous.bytes)),
        after_gap: previous.is_some_and(|previous| previous.end != base),
    };
    // Renamed when header and file are durable: a crash before that leaves a `.tmp` file, which is ignored.
    // Otherwise a segment without a valid header would be damage.
    let create = || -> io::Result<File> {
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&temporary)?;
        disk.write_all_at(&file, &header.encode(), 0)?;
        disk.sync_data(&file)?;
        std::fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()?;
        Ok(file)
    };
    let file = create().map_err(LogError::io("create", &path))?;
    Ok((file, Segment { after_gap: header.after_gap, ..Segment::empty(path, base) }))
}
