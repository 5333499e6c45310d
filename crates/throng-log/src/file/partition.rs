//! One partition of the log: opens its segments, and shows them to readers.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use throng_model::Timestamp;

use super::disk::Disk;
use super::record;
use super::segment::{self, Segment};
use super::sync_folder;
use super::tail_buffer::TailBuffers;
use crate::{LogError, Record, Result, Retention};

/// A partition in segment files. Readers share it with the writer thread.
#[derive(Debug)]
pub(super) struct FilePartition {
    pub(super) folder: PathBuf,
    pub(super) number: u32,
    view: Mutex<View>,
    /// Notified when the end has moved, by this process.
    pub(super) appended: tokio::sync::Notify,
}

#[derive(Debug, Default)]
pub(super) struct View {
    /// By offset; without gaps, except where records were removed or skipped. The last one is active:
    /// appends go to it. Never empty, except in a log that is read while it is created.
    pub(super) segments: Vec<Segment>,
    /// What the tails of this process have not returned yet.
    pub(super) tails: TailBuffers,
}

/// Where the next records of a tail are.
pub(super) enum NextRecords {
    /// In its buffer; at least one.
    InMemory(Vec<Record>),
    /// In the segment files.
    OnDisk,
    /// There are none yet.
    NotAppended,
}

impl FilePartition {
    pub(super) fn new(dir: &Path, number: u32) -> Self {
        Self {
            folder: dir.join(number.to_string()),
            number,
            view: Mutex::default(),
            appended: tokio::sync::Notify::new(),
        }
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        // Every change of the view is a few plain assignments: a panic cannot leave it inconsistent.
        self.view.lock()
    }

    /// The active segment, without its index.
    pub(super) fn active(&self) -> Segment {
        let view = self.view();
        match view.segments.last() {
            Some(last) => last.without_index(),
            None => Segment::empty(self.folder.clone(), 0),
        }
    }

    pub(super) fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<Record>> {
        // Clones, so that the lock is not held during I/O: the writer needs it to publish a commit. The ends
        // are those of durable commits, so bytes of a commit in progress are not read.
        let (segments, first) = {
            let view = self.view();
            let skip = view.segments.partition_point(|s| s.end <= from);
            let wanted: Vec<Segment> = view.segments[skip..].to_vec();
            (wanted, view.segments.first().map_or(0, |s| s.base))
        };
        if from < first {
            return Err(LogError::OffsetOutOfRange { partition: self.number, wanted: from, first });
        }
        let (mut left, mut out) = (max_bytes, Vec::new());
        for segment in segments {
            let start = from.max(segment.base);
            match segment.read(start, &mut left, &mut out) {
                Ok(found) => self.extend_index(segment.base, &found),
                // Deleted between the lookup and the open.
                Err(LogError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && !segment.path.exists() =>
                {
                    let (partition, first) = (self.number, segment.end);
                    return Err(LogError::OffsetOutOfRange { partition, wanted: from, first });
                }
                Err(error) => return Err(error),
            }
            if left == 0 {
                break;
            }
        }
        Ok(out)
    }

    /// The records from `from` on in the buffer of a tail, or else where they are.
    pub(super) fn next_records(&self, tail: u64, from: u64, max_bytes: usize) -> NextRecords {
        // Under one lock, as the writer publishes the end and the records of a commit together: otherwise a
        // tail could see the new end with an empty buffer, and read the disk for nothing.
        let mut view = self.view();
        let records = view.tails.take(tail, from, max_bytes);
        let end = view.segments.last().map_or(0, |segment| segment.end);
        match records.is_empty() {
            false => NextRecords::InMemory(records),
            true if end > from => NextRecords::OnDisk,
            true => NextRecords::NotAppended,
        }
    }

    /// The first offset from `from` on that is not in a gap between segments.
    pub(super) fn after_gap(&self, from: u64) -> u64 {
        let view = self.view();
        let at = view.segments.partition_point(|segment| segment.end <= from);
        let next = view.segments.get(at).or(view.segments.last());
        next.map_or(from, |next| from.max(next.base))
    }

    fn extend_index(&self, base: u64, found: &[(u64, u64)]) {
        if let Some(segment) = self.view().segments.iter_mut().find(|s| s.base == base) {
            for (offset, position) in found {
                segment.add_to_index(*offset, *position);
            }
        }
    }

    /// Deletes the oldest segment while `may_delete` returns true for it and the list of all segments;
    /// never the active one.
    fn delete_while(
        &self,
        may_delete: impl Fn(&Segment, &[Segment]) -> Result<bool>,
    ) -> Result<()> {
        let mut deleted = false;
        loop {
            // A copy, so that the lock is not held during I/O: only the last segment changes meanwhile.
            let segments: Vec<Segment> =
                self.view().segments.iter().map(Segment::without_index).collect();
            let path = match segments.as_slice() {
                [first, _, ..] if may_delete(first, &segments)? => first.path.clone(),
                _ => break,
            };
            // The file first: if it cannot be deleted, the segment stays readable. The oldest first: a crash
            // in between leaves no gap.
            std::fs::remove_file(&path).map_err(LogError::io("delete", &path))?;
            self.view().segments.remove(0);
            deleted = true;
        }
        if deleted {
            sync_folder(&self.folder)?;
        }
        Ok(())
    }

    pub(super) fn truncate_before(&self, offset: u64) -> Result<()> {
        self.delete_while(|first, _| Ok(first.end <= offset))
    }

    /// Deletes the segments that exceed the retention, if all of their records are before `before`.
    pub(super) fn retain(&self, retention: Retention, before: u64, now: Timestamp) -> Result<()> {
        self.delete_while(|first, all| {
            // Records from `before` on are not in a checkpoint yet: without them a restart would lose spend.
            if first.end > before {
                return Ok(false);
            }
            let bytes: u64 = all.iter().map(|segment| segment.bytes).sum();
            if bytes > retention.bytes {
                return Ok(true);
            }
            // The first record of the next segment was appended after the last one of this segment.
            let next = all.get(1).map(|next| next.first_time()).transpose()?.flatten();
            Ok(next.is_some_and(|at| now.since(at) > retention.age))
        })
    }

    /// The segments in the folder by offset, without their records. All but the last one are closed;
    /// those that `known` has are taken from there.
    fn list(&self, known: &[Segment]) -> Result<Vec<Segment>> {
        let mut segments = segments_in(&self.folder)?;
        let headers: Vec<record::SegmentHeader> = segments
            .iter()
            .map(|segment| {
                let file = throng_fs::open(&segment.path);
                segment.header(&file.map_err(LogError::io("open", &segment.path))?, self.number)
            })
            .collect::<Result<_>>()?;
        for at in 1..segments.len() {
            let (header, next) = (headers[at], segments[at].base);
            segments[at].after_gap = header.after_gap;
            let closed = &mut segments[at - 1];
            // Without reading the records: otherwise a start would read the whole log. The link detects a
            // missing segment or one with another length; damage inside of it is found when it is read.
            if let Some(known) = known.iter().find(|k| k.base == closed.base && k.end <= next) {
                *closed = known.clone();
            } else {
                closed.end = next;
                let metadata = closed.path.metadata();
                closed.bytes = metadata.map_err(LogError::io("inspect", &closed.path))?.len();
            }
            self.check_link(closed, header)?;
        }
        Ok(segments)
    }

    /// Checks that a closed segment is the one that the header of the next segment refers to.
    fn check_link(&self, closed: &mut Segment, next: record::SegmentHeader) -> Result<()> {
        let is_linked = record::link_to(closed.base, closed.bytes) == next.link;
        if next.link != 0 && !is_linked {
            let why = "the next segment follows another one: a segment is missing, or the length of \
                       this one has changed";
            return Err(closed.damaged(closed.bytes, why));
        }
        if next.link == 0 || next.after_gap {
            // Written by an earlier version, or its end is not the base of the next one.
            let file = throng_fs::open(&closed.path).map_err(LogError::io("open", &closed.path))?;
            closed.scan_closed(&file)?;
        }
        let follows =
            if next.after_gap { closed.end <= next.base } else { closed.end == next.base };
        if !follows {
            let why = "it does not end where the next segment begins: a segment is missing";
            return Err(closed.damaged(closed.bytes, why));
        }
        Ok(())
    }

    /// For a log that another process writes: reads what that process has changed.
    pub(super) fn reload(&self) -> Result<()> {
        let known: Vec<Segment> = self.view().segments.clone();
        let closed = known.len().saturating_sub(1);
        // The last known segment is not passed on: the other process has appended to it or closed it since.
        let mut listed = match self.list(&known[..closed]) {
            // The writer deleted a segment between the listing and the open: the next listing is
            // without it.
            Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.list(&known[..closed])?
            }
            listed => listed?,
        };
        if let Some(last) = listed.last_mut() {
            if let Some(same) = known.last().filter(|known| known.base == last.base) {
                *last = same.clone();
            }
            let file = throng_fs::open(&last.path).map_err(LogError::io("open", &last.path))?;
            last.scan(&file)?;
        }
        self.view().segments = listed;
        Ok(())
    }

    /// Opens the partition for writing: returns the file of the active segment. Truncates a torn write.
    pub(super) fn open(&self, dir: &Path, disk: &dyn Disk) -> Result<File> {
        let (folder, number) = (&self.folder, self.number);
        std::fs::create_dir_all(folder).map_err(LogError::io("create the folder", folder))?;
        // The entry of the partition's folder must be durable before the first append is acknowledged.
        sync_folder(dir)?;
        let mut segments = self.list(&[])?;
        let file = match segments.last_mut() {
            Some(last) => {
                let open = File::options().read(true).write(true).open(&last.path);
                let file = open.map_err(LogError::io("open", &last.path))?;
                if last.scan(&file)? {
                    let length =
                        file.metadata().map_err(LogError::io("inspect", &last.path))?.len();
                    tracing::warn!(
                        path = %last.path.display(),
                        position = last.bytes,
                        bytes = length - last.bytes,
                        "truncated an unacknowledged write"
                    );
                    disk.set_len(&file, last.bytes)
                        .map_err(LogError::io("truncate", &last.path))?;
                }
                // The writes of a killed process may be only in the page cache. They are readable from now
                // on, so a loss of power must not remove them after somebody has read them.
                disk.sync_data(&file).map_err(LogError::io("sync", &last.path))?;
                file
            }
            None => {
                let (file, first) = segment::create(disk, folder, number, 0, None)?;
                segments.push(first);
                file
            }
        };
        self.view().segments = segments;
        Ok(file)
    }
}

/// The segment files of a folder by offset. Empty if there is no folder.
pub(super) fn segments_in(folder: &Path) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(segments),
        Err(error) => return Err(LogError::io("list", folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(LogError::io("list", folder))?;
        if let Some(base) = entry.file_name().to_str().and_then(record::base_of) {
            segments.push(Segment::empty(entry.path(), base));
        }
    }
    segments.sort_by_key(|s| s.base);
    Ok(segments)
}
