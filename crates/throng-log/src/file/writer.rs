//! The thread that writes a partition. Appends that wait at the same time become one commit: one
//! write, one sync, one answer each.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use throng_model::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::record::{self, SEGMENT_HEAD};
use super::{Partition, segment};
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

/// The writing end of a partition.
pub(super) struct Writer {
    pub(super) partition: Arc<Partition>,
    pub(super) file: File,
    pub(super) segment_bytes: u64,
    /// The disk did not confirm a write: nothing more is taken.
    pub(super) broken: bool,
}

impl Writer {
    /// Works until every sender is gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Append>) {
        let mut buffer = Vec::new();
        while let Some(first) = queue.blocking_recv() {
            let mut commit = vec![first];
            let mut bytes = weight(&commit[0]);
            while bytes < COMMIT_BYTES
                && let Ok(next) = queue.try_recv()
            {
                bytes += weight(&next);
                commit.push(next);
            }
            match self.commit(&commit, &mut buffer) {
                Ok(firsts) => {
                    for (append, first) in commit.into_iter().zip(firsts) {
                        // Nobody waits any more: appended all the same.
                        let _ = append.done.send(Ok(first));
                    }
                }
                Err(error) => self.refuse(commit, error),
            }
            buffer.clear();
            buffer.shrink_to(COMMIT_BYTES);
        }
    }

    fn refuse(&self, commit: Vec<Append>, error: LogError) {
        tracing::error!(
            partition = self.partition.number,
            error = &error as &dyn std::error::Error,
            "append failed"
        );
        let mut error = Some(error);
        for append in commit {
            let same = match &error {
                Some(LogError::Io { doing, path, source }) => LogError::Io {
                    doing,
                    path: path.clone(),
                    source: std::io::Error::new(source.kind(), source.to_string()),
                },
                Some(LogError::Unknown { path }) => LogError::Unknown { path: path.clone() },
                _ => error.take().unwrap_or(LogError::Closed),
            };
            let _ = append.done.send(Err(same));
        }
    }

    /// Writes and syncs; returns the first offset of each append.
    fn commit(&mut self, appends: &[Append], buffer: &mut Vec<u8>) -> Result<Vec<u64>> {
        if self.broken {
            return Err(LogError::Unknown { path: self.partition.active().path });
        }
        let mut active = self.partition.active();
        if active.bytes >= self.segment_bytes && active.bytes > SEGMENT_HEAD as u64 {
            let (file, next) =
                segment::create(&self.partition.folder, self.partition.number, active.end)?;
            self.file = file;
            self.partition.view().segments.push(next.clone());
            active = next;
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
        if let Err(error) = self.file.write_all_at(buffer, start) {
            // What was written of it must not be taken for a commit later.
            if self.file.set_len(start).and_then(|()| self.file.sync_data()).is_err() {
                self.broken = true;
                return Err(LogError::Unknown { path: active.path });
            }
            return Err(LogError::io("append to", &active.path)(error));
        }
        if let Err(error) = self.file.sync_data() {
            // After a failed sync the kernel may drop the pages: only a restart tells.
            tracing::error!(error = &error as &dyn std::error::Error, "sync failed");
            self.broken = true;
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
