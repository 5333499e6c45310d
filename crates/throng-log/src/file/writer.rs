//! The thread that writes a partition. Appends that wait at the same time become one commit: one
//! write, one sync, one answer each.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use throng_model::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::disk::{Disk, DiskFloor, forget_cached};
use super::partition::Partition;
use super::record::{self, SEGMENT_HEAD};
use super::segment::{self, Segment};
use crate::{LogError, Result};

/// A commit takes in no more appends once it has this many bytes.
const COMMIT_BYTES: usize = 8 << 20;

/// An append that waits.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) at: Timestamp,
    pub(super) values: Vec<Bytes>,
    pub(super) done: oneshot::Sender<Result<u64>>,
}

/// What a writer is asked for.
#[derive(Debug)]
pub(super) enum Request {
    Append(Append),
    /// To give the next record this offset, which is after the end.
    SkipTo {
        offset: u64,
        done: oneshot::Sender<Result<()>>,
    },
}

/// The writing end of a partition.
pub(super) struct Writer {
    pub(super) partition: Arc<Partition>,
    pub(super) file: File,
    pub(super) segment_bytes: u64,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) floor: DiskFloor,
    /// The disk did not confirm a write: the end of the segment is not to be trusted.
    pub(super) suspect: bool,
    /// Room was below the floor, and is not enough above it yet.
    pub(super) low: bool,
}

impl Writer {
    /// Works until every sender is gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut buffer = Vec::new();
        let mut waiting = None;
        while let Some(request) = waiting.take().or_else(|| queue.blocking_recv()) {
            let first = match request {
                Request::Append(append) => append,
                Request::SkipTo { offset, done } => {
                    // Nobody waiting is no error.
                    let _ = done.send(self.skip_to(offset));
                    continue;
                }
            };
            let mut bytes = weight(&first);
            let mut commit = vec![first];
            while bytes < COMMIT_BYTES
                && let Ok(next) = queue.try_recv()
            {
                match next {
                    Request::Append(next) => {
                        bytes += weight(&next);
                        commit.push(next);
                    }
                    skip @ Request::SkipTo { .. } => {
                        waiting = Some(skip);
                        break;
                    }
                }
            }
            match self.commit(&commit, &mut buffer) {
                Ok(firsts) => {
                    for (append, first) in commit.into_iter().zip(firsts) {
                        // Nobody waits any more: appended all the same.
                        let _ = append.done.send(Ok(first));
                    }
                }
                Err(error) => self.refuse(commit, &error),
            }
            buffer.clear();
            buffer.shrink_to(COMMIT_BYTES);
        }
    }

    /// Goes on at a later offset, in a segment that says so.
    fn skip_to(&mut self, offset: u64) -> Result<()> {
        if self.suspect {
            self.recover()?;
        }
        let active = self.partition.active();
        if offset <= active.end {
            return Ok(());
        }
        let (folder, number) = (&self.partition.folder, self.partition.number);
        let (file, next) = segment::create(&*self.disk, folder, number, offset, Some(&active))?;
        self.file = file;
        self.partition.view().segments.push(next);
        Ok(())
    }

    fn refuse(&self, commit: Vec<Append>, error: &LogError) {
        tracing::error!(
            partition = self.partition.number,
            error = error as &dyn std::error::Error,
            "append failed"
        );
        for append in commit {
            let _ = append.done.send(Err(error.again()));
        }
    }

    /// Refuses while there is less room than there must be. After that a tenth more is wanted, so that
    /// it does not go to and fro.
    fn check_room(&mut self) -> Result<()> {
        let folder = &self.partition.folder;
        let space = self.disk.space(folder).map_err(LogError::io("look for room in", folder))?;
        let floor = self.floor.bytes(space.total);
        let wanted = if self.low { floor.saturating_add(floor / 10) } else { floor };
        self.low = space.available < wanted;
        match self.low {
            true => {
                Err(LogError::DiskLow { path: folder.clone(), available: space.available, floor })
            }
            false => Ok(()),
        }
    }

    /// Makes the partition usable again after a write that the disk did not confirm. What had been
    /// confirmed before is read from the disk and compared with its checksums; nothing of the write
    /// itself stays, and no more is written to that file.
    fn recover(&mut self) -> Result<()> {
        let active = self.partition.active();
        let unknown = |source: std::io::Error| {
            let error = &source as &dyn std::error::Error;
            tracing::error!(path = %active.path.display(), error, "the disk still fails");
            LogError::Unknown { path: active.path.clone() }
        };
        let file = File::options().read(true).write(true).open(&active.path).map_err(unknown)?;
        self.disk.set_len(&file, active.bytes).map_err(unknown)?;
        self.disk.sync_data(&file).map_err(unknown)?;
        forget_cached(&file);
        let mut there = active.outline();
        there.head(&file, self.partition.number)?;
        there.scan_whole(&file)?;
        if (there.end, there.bytes) != (active.end, active.bytes) {
            let why = "acknowledged records are missing at its end";
            return Err(active.damaged(there.bytes, why));
        }
        if active.end > active.base {
            self.next_segment(&active)?;
        } else {
            self.file = file;
        }
        self.suspect = false;
        tracing::warn!(
            partition = self.partition.number,
            offset = active.end,
            "the disk takes writes again; the log goes on"
        );
        Ok(())
    }

    /// Goes on in a new segment.
    fn next_segment(&mut self, full: &Segment) -> Result<Segment> {
        let (folder, number) = (&self.partition.folder, self.partition.number);
        let (file, next) = segment::create(&*self.disk, folder, number, full.end, Some(full))?;
        self.file = file;
        self.partition.view().segments.push(next.clone());
        Ok(next)
    }

    /// Writes and syncs; returns the first offset of each append.
    fn commit(&mut self, appends: &[Append], buffer: &mut Vec<u8>) -> Result<Vec<u64>> {
        self.check_room()?;
        if self.suspect {
            self.recover()?;
        }
        let mut active = self.partition.active();
        if active.bytes >= self.segment_bytes && active.bytes > SEGMENT_HEAD as u64 {
            active = self.next_segment(&active)?;
        }
        let (mut offset, start) = (active.end, active.bytes);
        let mut firsts = Vec::with_capacity(appends.len());
        let mut places = Vec::new();
        for append in appends {
            firsts.push(offset);
            for value in &append.values {
                places.push((offset, start + buffer.len() as u64));
                let begins = buffer.is_empty();
                record::encode(buffer, offset, append.at, value, begins);
                offset += 1;
            }
        }
        if let Err(error) = self.disk.write_all_at(&self.file, buffer, start) {
            // What was written of it must not be taken for a commit later.
            let cut = self.disk.set_len(&self.file, start);
            if cut.and_then(|()| self.disk.sync_data(&self.file)).is_err() {
                self.suspect = true;
                return Err(LogError::Unknown { path: active.path });
            }
            return Err(LogError::io("append to", &active.path)(error));
        }
        if let Err(error) = self.disk.sync_data(&self.file) {
            // The kernel may drop pages after a failed sync and call the next one a success.
            tracing::error!(error = &error as &dyn std::error::Error, "sync failed");
            self.suspect = true;
            return Err(LogError::Unknown { path: active.path });
        }
        let mut view = self.partition.view();
        if let Some(last) = view.segments.last_mut() {
            for (offset, position) in places {
                last.note(offset, position);
            }
            last.end = offset;
            last.bytes = start + buffer.len() as u64;
        }
        drop(view);
        self.partition.grown.notify_waiters();
        Ok(firsts)
    }
}

fn weight(append: &Append) -> usize {
    append.values.iter().map(|v| v.len() + record::RECORD_HEAD).sum()
}
