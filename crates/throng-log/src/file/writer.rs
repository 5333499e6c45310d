//! The thread that writes a partition. Appends that wait at the same time become one commit: one write
//! and one sync for all of them.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use bytes::Bytes;
use throng_model::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::disk::{Disk, MinFreeDisk, drop_page_cache};
use super::partition::FilePartition;
use super::record::{self, SEGMENT_HEADER};
use super::segment::{self, Segment};
use crate::{LogError, Record, Result};

/// A commit of this size accepts no more appends.
const MAX_COMMIT_BYTES: usize = 8 << 20;
/// What is written to test for room: no record begins with it, so that a crash leaves an unfinished write.
const NO_RECORD: u8 = 0xff;

/// An append that waits for its commit.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) at: Timestamp,
    pub(super) values: Vec<Bytes>,
    pub(super) reply: oneshot::Sender<Result<u64>>,
}

/// A request to the writer thread.
#[derive(Debug)]
pub(super) enum Request {
    Append(Append),
    /// Skips offsets, so that the next record gets this one.
    SkipTo {
        offset: u64,
        reply: oneshot::Sender<Result<()>>,
    },
}

/// The state of the writer thread of a partition.
pub(super) struct Writer {
    pub(super) partition: Arc<FilePartition>,
    pub(super) file: File,
    pub(super) segment_bytes: u64,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) min_free_disk: MinFreeDisk,
    /// The disk did not confirm a write: the end of the active segment has to be verified.
    pub(super) is_unverified: bool,
    /// The free space was below the limit, and is not far enough above it again.
    pub(super) is_disk_low: bool,
    /// The bytes of the last write, if it failed.
    pub(super) refused_bytes: usize,
}

impl Writer {
    /// Runs until every sender is dropped.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut buffer = Vec::new();
        let mut waiting = None;
        while let Some(request) = waiting.take().or_else(|| queue.blocking_recv()) {
            let first = match request {
                Request::Append(append) => append,
                Request::SkipTo { offset, reply } => {
                    // The caller may have stopped waiting.
                    let _ = reply.send(self.skip_to(offset));
                    continue;
                }
            };
            // Group commit: all appends that wait now share one sync. Only what waits already, as with
            // `recv` a single append would wait for the next one.
            let mut bytes = encoded_bytes(&first);
            let mut commit = vec![first];
            while bytes < MAX_COMMIT_BYTES
                && let Ok(next) = queue.try_recv()
            {
                match next {
                    Request::Append(next) => {
                        bytes += encoded_bytes(&next);
                        commit.push(next);
                    }
                    // After the commit, in the order of the requests.
                    skip @ Request::SkipTo { .. } => {
                        waiting = Some(skip);
                        break;
                    }
                }
            }
            match self.commit(&commit, &mut buffer) {
                Ok(firsts) => {
                    for (append, first) in commit.into_iter().zip(firsts) {
                        // The caller may have stopped waiting; the records are appended anyway.
                        let _ = append.reply.send(Ok(first));
                    }
                }
                Err(error) => self.fail(commit, &error),
            }
            buffer.clear();
            // One commit of large records must not keep its memory forever: there are 256 partitions.
            buffer.shrink_to(MAX_COMMIT_BYTES);
        }
    }

    /// Starts a segment at a later offset; its header records the gap.
    fn skip_to(&mut self, offset: u64) -> Result<()> {
        // First: the next segment is linked to the length of this one, which may still have bytes
        // of an unconfirmed write.
        if self.is_unverified {
            self.recover()?;
        }
        let active = self.partition.active();
        // Going back would give an offset to two records.
        if offset <= active.end {
            return Ok(());
        }
        let (folder, number) = (&self.partition.folder, self.partition.number);
        let (file, next) = segment::create(&*self.disk, folder, number, offset, Some(&active))?;
        self.file = file;
        self.partition.view().segments.push(next);
        self.partition.appended.notify_waiters();
        Ok(())
    }

    fn fail(&self, commit: Vec<Append>, error: &LogError) {
        tracing::error!(
            partition = self.partition.number,
            error = error as &dyn std::error::Error,
            "append failed"
        );
        for append in commit {
            let _ = append.reply.send(Err(error.duplicate()));
        }
    }

    /// Refuses a commit while the free space is below the limit. Accepts commits again at a tenth above
    /// it, so that small changes of the free space do not switch between both states.
    fn check_free_space(&mut self) -> Result<()> {
        let folder = &self.partition.folder;
        let space = self.disk.space(folder);
        let space = space.map_err(LogError::io("get the free space of", folder))?;
        let min_free = self.min_free_disk.bytes(space.total);
        let limit =
            if self.is_disk_low { min_free.saturating_add(min_free / 10) } else { min_free };
        let available = space.available;
        self.is_disk_low = available < limit;
        match self.is_disk_low {
            true => Err(LogError::DiskLow { path: folder.clone(), available, min_free }),
            false => Ok(()),
        }
    }

    /// Refuses a commit to a segment file that was removed or replaced: a restart would not find its records.
    fn check_file(&self, active: &Segment) -> Result<()> {
        let id = |file: Metadata| (file.dev(), file.ino());
        let (named, open) = (active.path.metadata().map(id), self.file.metadata().map(id));
        let error = match (named, open) {
            (Ok(named), Ok(open)) if named == open => return Ok(()),
            (Ok(_), Ok(_)) => io::Error::other("another file has its name"),
            (Err(error), _) | (_, Err(error)) => error,
        };
        Err(LogError::io("append to", &active.path)(error))
    }

    /// Makes the partition usable again after a write that the disk did not confirm. Reads the records
    /// that were confirmed before from the disk and verifies their checksums; removes the write itself,
    /// and continues in a new file.
    fn recover(&mut self) -> Result<()> {
        let active = self.partition.active();
        let unconfirmed = |source: io::Error| {
            let error = &source as &dyn std::error::Error;
            tracing::error!(path = %active.path.display(), error, "disk still fails");
            LogError::UnconfirmedWrite { path: active.path.clone() }
        };
        let file =
            File::options().read(true).write(true).open(&active.path).map_err(unconfirmed)?;
        self.disk.set_len(&file, active.bytes).map_err(unconfirmed)?;
        self.disk.sync_data(&file).map_err(unconfirmed)?;
        // The page cache may have records that the disk does not have: a check of cached pages would succeed,
        // and acknowledged records would be missing after a restart.
        drop_page_cache(&file);
        let mut stored = active.without_index();
        stored.header(&file, self.partition.number)?;
        stored.scan_closed(&file)?;
        if (stored.end, stored.bytes) != (active.end, active.bytes) {
            let why = "acknowledged records are missing at its end";
            return Err(active.damaged(stored.bytes, why));
        }
        // The failed file is closed for good, unless it has no records: the next segment would have its name.
        if active.end > active.base {
            self.next_segment(&active)?;
        } else {
            self.file = file;
        }
        self.is_unverified = false;
        tracing::warn!(
            partition = self.partition.number,
            offset = active.end,
            "recovered from an unconfirmed write"
        );
        Ok(())
    }

    /// Continues in a new segment.
    fn next_segment(&mut self, full: &Segment) -> Result<Segment> {
        let (folder, number) = (&self.partition.folder, self.partition.number);
        let (file, next) = segment::create(&*self.disk, folder, number, full.end, Some(full))?;
        self.file = file;
        // After the file exists durably: readers open what is in the list.
        self.partition.view().segments.push(next.clone());
        Ok(next)
    }

    /// Writes and syncs; returns the first offset of each append.
    fn commit(&mut self, appends: &[Append], buffer: &mut Vec<u8>) -> Result<Vec<u64>> {
        // Before the disk is full: the ledger on the same disk must still be able to write, and a write that
        // fails halfway costs a truncation and a sync.
        self.check_free_space()?;
        if self.is_unverified {
            self.recover()?;
        }
        let mut active = self.partition.active();
        self.check_file(&active)?;
        if active.bytes >= self.segment_bytes && active.bytes > SEGMENT_HEADER as u64 {
            active = self.next_segment(&active)?;
        }
        let (mut offset, start) = (active.end, active.bytes);
        let mut firsts = Vec::with_capacity(appends.len());
        let mut positions = Vec::new();
        for append in appends {
            firsts.push(offset);
            for value in &append.values {
                positions.push((offset, start + buffer.len() as u64));
                // Marks the first record: a valid one proves after a crash that the previous commit was
                // durable (`record::classify_end`).
                let begins = buffer.is_empty();
                record::encode(buffer, offset, append.at, value, begins);
                offset += 1;
            }
        }
        // An append of nothing asks whether the log accepts appends again. A write of nothing would always succeed, also
        // where a quota or a limit of the size of files leaves no room.
        let is_test = buffer.is_empty() && self.refused_bytes > 0;
        if is_test {
            buffer.resize(self.refused_bytes, NO_RECORD);
        }
        let written = self.disk.write_all_at(&self.file, buffer, start);
        if is_test || written.is_err() {
            // The part that was written must not be read as a commit later.
            let truncated = self.disk.set_len(&self.file, start);
            if truncated.and_then(|()| self.disk.sync_data(&self.file)).is_err() {
                self.is_unverified = true;
                return Err(LogError::UnconfirmedWrite { path: active.path });
            }
        }
        self.refused_bytes = if written.is_err() { buffer.len() } else { 0 };
        written.map_err(LogError::io("append to", &active.path))?;
        if is_test {
            return Ok(firsts);
        }
        if let Err(error) = self.disk.sync_data(&self.file) {
            // Not retried: after a failed sync the kernel may mark the pages clean or drop them, and the
            // next sync succeeds although the data is not on the disk
            // (<https://wiki.postgresql.org/wiki/Fsync_Errors>).
            tracing::error!(error = &error as &dyn std::error::Error, "sync failed");
            self.is_unverified = true;
            return Err(LogError::UnconfirmedWrite { path: active.path });
        }
        self.publish(appends, &firsts, &positions, start + buffer.len() as u64);
        Ok(firsts)
    }

    /// Makes a durable commit readable, which ends at this position of the file. Not before it is durable: a
    /// consumer must not act on a record that a loss of power can remove.
    fn publish(
        &self,
        appends: &[Append],
        firsts: &[u64],
        positions: &[(u64, u64)],
        end_position: u64,
    ) {
        let mut view = self.partition.view();
        if let Some(last) = view.segments.last_mut() {
            for (offset, position) in positions {
                last.add_to_index(*offset, *position);
            }
            last.end = positions.last().map_or(last.end, |(offset, _)| offset + 1);
            last.bytes = end_position;
        }
        if !view.tails.is_empty() {
            view.tails.push(&records(appends, firsts));
        }
        drop(view);
        self.partition.appended.notify_waiters();
    }
}

/// The records of a commit, which share the values of its appends.
fn records(appends: &[Append], firsts: &[u64]) -> Vec<Record> {
    let of_append = |(append, first): (&Append, &u64)| {
        let at = append.at;
        let record =
            move |(offset, value): (u64, &Bytes)| Record { offset, at, value: value.clone() };
        (*first..).zip(&append.values).map(record).collect::<Vec<Record>>()
    };
    appends.iter().zip(firsts).flat_map(of_append).collect()
}

fn encoded_bytes(append: &Append) -> usize {
    append.values.iter().map(|v| v.len() + record::RECORD_HEADER).sum()
}
