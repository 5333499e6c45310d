//! Reads one segment file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use throng_model::Timestamp;

use super::disk::Disk;
use super::record::{self, Head, RECORD_HEAD, SEGMENT_HEAD, SegmentHead, TailKind};
use crate::{LogError, Record, Result};

/// An entry of the index for every so many bytes: what a read scans in vain at most.
const INDEX_EVERY: u64 = 64 << 10;
const READ_AHEAD: usize = 256 << 10;

/// What is known of a segment.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Offset of its first record.
    pub(super) base: u64,
    /// Offset after its last record.
    pub(super) end: u64,
    /// Where its last record ends.
    pub(super) bytes: u64,
    /// Records before its first one were set aside.
    pub(super) after_gap: bool,
    /// Some (offset, position) pairs, ascending; grows as the segment is written or read.
    index: Vec<(u64, u64)>,
}

impl Segment {
    pub(super) fn empty(path: PathBuf, base: u64) -> Self {
        let (bytes, index) = (SEGMENT_HEAD as u64, Vec::new());
        Self { path, base, end: base, bytes, after_gap: false, index }
    }

    /// The same without its index.
    pub(super) fn outline(&self) -> Self {
        Self {
            path: self.path.clone(),
            base: self.base,
            end: self.end,
            bytes: self.bytes,
            after_gap: self.after_gap,
            index: Vec::new(),
        }
    }

    /// Remembers where a record lies, if it is far enough from what is remembered.
    pub(super) fn note(&mut self, offset: u64, position: u64) {
        let last = self.index.last().map_or(SEGMENT_HEAD as u64, |(_, position)| *position);
        if position >= last + INDEX_EVERY {
            self.index.push((offset, position));
        }
    }

    /// Where to begin to look for `offset`: (offset, position) of a record not after it.
    fn near(&self, offset: u64) -> (u64, u64) {
        let after = self.index.partition_point(|(known, _)| *known <= offset);
        match after.checked_sub(1).and_then(|at| self.index.get(at)) {
            Some(entry) => *entry,
            None => (self.base, SEGMENT_HEAD as u64),
        }
    }

    pub(super) fn damaged(&self, position: u64, why: &'static str) -> LogError {
        LogError::Damaged { path: self.path.clone(), position, why }
    }

    /// Takes in what lies behind `bytes`, up to the first record that is not whole. Returns whether
    /// anything lies there.
    pub(super) fn walk(&mut self, file: &File) -> Result<bool> {
        let length = file.metadata().map_err(LogError::io("look at", &self.path))?.len();
        let mut cursor = Cursor::new(file, self.bytes, length);
        loop {
            let step = cursor.next(self.end).map_err(LogError::io("read", &self.path))?;
            match step {
                Step::End => return Ok(false),
                Step::Whole(head) => {
                    self.note(self.end, self.bytes);
                    self.end += 1;
                    self.bytes += head.size() as u64;
                }
                Step::Broken => return Ok(true),
            }
        }
    }

    /// Takes in what lies behind `bytes`, up to the first record that is not whole. `Damaged` if
    /// that one was acknowledged. Returns whether anything lies behind the last whole record.
    pub(super) fn scan_on(&mut self, file: &File) -> Result<bool> {
        if !self.walk(file)? {
            return Ok(false);
        }
        let length = file.metadata().map_err(LogError::io("look at", &self.path))?.len();
        let mut rest = vec![0; usize::try_from(length - self.bytes).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut rest, self.bytes).map_err(LogError::io("read", &self.path))?;
        match record::tail_of(&rest, self.end, self.bytes) {
            TailKind::Torn => Ok(true),
            TailKind::Damaged(why) => Err(self.damaged(self.bytes, why)),
        }
    }

    /// Reads a segment that another one follows, to its end, which is known then. `Damaged` if anything
    /// but whole records is in it.
    pub(super) fn scan_whole(&mut self, file: &File) -> Result<()> {
        (self.end, self.bytes) = (self.base, SEGMENT_HEAD as u64);
        if self.scan_on(file)? {
            return Err(self.damaged(self.bytes, "it ends with a record that is not whole"));
        }
        Ok(())
    }

    /// Reads the head of the file.
    pub(super) fn head(&self, file: &File, partition: u32) -> Result<SegmentHead> {
        let mut head = [0; SEGMENT_HEAD];
        match file.read_exact_at(&mut head, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged(0, "its head is cut short"));
            }
            Err(error) => return Err(LogError::io("read", &self.path)(error)),
        }
        if let Some(found) = record::newer_format(&head) {
            return Err(LogError::Newer { path: self.path.clone(), found });
        }
        SegmentHead::decode(&head)
            .filter(|head| (head.partition, head.base) == (partition, self.base))
            .ok_or_else(|| self.damaged(0, "its head is not that of this partition and offset"))
    }

    /// The time of its first record, if it has one.
    pub(super) fn first_time(&self) -> Result<Option<Timestamp>> {
        let file = File::open(&self.path).map_err(LogError::io("open", &self.path))?;
        let mut head = [0; RECORD_HEAD];
        match file.read_exact_at(&mut head, SEGMENT_HEAD as u64) {
            Ok(()) => Ok(record::head(&head).map(|head| head.at)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(LogError::io("read", &self.path)(error)),
        }
    }

    /// Adds records from `from` (which this segment holds) to `out` until `room` is used up.
    /// Returns index entries that were found on the way.
    pub(super) fn read(
        &self,
        from: u64,
        room: &mut usize,
        out: &mut Vec<Record>,
    ) -> Result<Vec<(u64, u64)>> {
        let file = File::open(&self.path).map_err(LogError::io("open", &self.path))?;
        let (mut offset, mut position) = self.near(from);
        let mut found = Vec::new();
        let mut cursor = Cursor::new(&file, position, self.bytes);
        while offset < self.end {
            let step = cursor.next(offset).map_err(LogError::io("read", &self.path))?;
            let Step::Whole(head) = step else {
                return Err(self.damaged(position, "an acknowledged record is broken"));
            };
            if offset >= from {
                if head.length > *room && !out.is_empty() {
                    *room = 0;
                    break;
                }
                *room = room.saturating_sub(head.length);
                let value = Bytes::copy_from_slice(cursor.value(head));
                out.push(Record { offset, at: head.at, value });
            }
            found.push((offset, position));
            offset += 1;
            position += head.size() as u64;
        }
        Ok(found)
    }
}

enum Step {
    /// A whole record; the cursor stands behind it.
    Whole(Head),
    /// Something that is not a whole record with the offset that should come.
    Broken,
    /// Nothing.
    End,
}

/// Walks over the records of a file, reading ahead.
struct Cursor<'a> {
    file: &'a File,
    limit: u64,
    /// Where `buffer` begins in the file.
    origin: u64,
    buffer: Vec<u8>,
    /// How far the walk is, in `buffer`.
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a File, position: u64, limit: u64) -> Self {
        Self { file, limit, origin: position, buffer: Vec::new(), at: 0 }
    }

    /// Bytes from here on: `wanted` of them or, at the end, fewer.
    fn look(&mut self, wanted: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.at < wanted {
            self.origin += self.at as u64;
            self.buffer.drain(..self.at);
            self.at = 0;
            let have = self.buffer.len();
            let left = self.limit.saturating_sub(self.origin + have as u64);
            let more = wanted.max(READ_AHEAD) - have;
            let more = usize::try_from(left).map_or(more, |left| left.min(more));
            self.buffer.resize(have + more, 0);
            self.file.read_exact_at(&mut self.buffer[have..], self.origin + have as u64)?;
        }
        let to = self.buffer.len().min(self.at + wanted);
        Ok(&self.buffer[self.at..to])
    }

    fn next(&mut self, expected: u64) -> io::Result<Step> {
        let bytes = self.look(RECORD_HEAD)?;
        if bytes.is_empty() {
            return Ok(Step::End);
        }
        let Some(head) = record::head(bytes).filter(|h| h.offset == expected) else {
            return Ok(Step::Broken);
        };
        let bytes = self.look(head.size())?;
        if head.value(bytes).is_none() {
            return Ok(Step::Broken);
        }
        self.at += head.size();
        Ok(Step::Whole(head))
    }

    /// The value of the record that was just walked over.
    fn value(&self, head: Head) -> &[u8] {
        &self.buffer[self.at - head.length..self.at]
    }
}

/// Makes a new segment file, visible only when whole and durable. `before`: the segment that it follows.
pub(super) fn create(
    disk: &dyn Disk,
    folder: &Path,
    partition: u32,
    base: u64,
    before: Option<&Segment>,
) -> Result<(File, Segment)> {
    let path = folder.join(record::segment_name(base));
    let aside = path.with_extension("log.tmp");
    let head = SegmentHead {
        partition,
        base,
        link: before.map_or(0, |before| record::link_to(before.base, before.bytes)),
        after_gap: before.is_some_and(|before| before.end != base),
    };
    let make = || -> io::Result<File> {
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&aside)?;
        disk.write_all_at(&file, &head.encode(), 0)?;
        disk.sync_data(&file)?;
        std::fs::rename(&aside, &path)?;
        File::open(folder)?.sync_all()?;
        Ok(file)
    };
    let file = make().map_err(LogError::io("make", &path))?;
    Ok((file, Segment { after_gap: head.after_gap, ..Segment::empty(path, base) }))
}
