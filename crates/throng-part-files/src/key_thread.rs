//! Writes the keys of a scan for several models on a thread of its own: the query worker need not wait while a batch is
//! divided by user shard.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use throng_query::keys::SharedBatch;

use crate::error::PartFileError;
use crate::key_file::KeyFileWriter;

/// Batches that wait for the thread, at most: while it writes one, the next one is received.
const WAITING: usize = 1;

/// A thread that writes to a key file. Dropped before it is finished, it ends after the batch that it writes.
#[derive(Debug)]
pub struct KeyThread {
    batches: SyncSender<SharedBatch>,
    /// Batches that were written: their memory is used again.
    written: Receiver<SharedBatch>,
    thread: JoinHandle<Result<KeyFileWriter, PartFileError>>,
}

impl KeyThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`PartFileError::Io`] if the system starts none.
    pub fn start(writer: KeyFileWriter) -> Result<Self, PartFileError> {
        let (batches, received) = sync_channel(WAITING);
        let (sender, written) = channel();
        let thread = std::thread::Builder::new().name("throng-keys".to_owned());
        let thread = thread.spawn(move || write(writer, &received, &sender));
        let thread =
            thread.map_err(PartFileError::io("start a thread that writes", Path::new("keys")))?;
        Ok(Self { batches, written, thread })
    }

    /// Writes a batch, and leaves one without keys in its place. Waits while there are too many. `false` if the thread has
    /// ended, for an error that [`finish`](Self::finish) returns.
    pub fn push(&mut self, batch: &mut SharedBatch) -> bool {
        let next = self.written.try_recv().unwrap_or_default();
        self.batches.send(std::mem::replace(batch, next)).is_ok()
    }

    /// Waits until all batches are written.
    ///
    /// # Errors
    /// [`PartFileError::Io`] of any of them.
    ///
    /// # Panics
    /// If the thread has panicked, with the same payload.
    pub fn finish(self) -> Result<KeyFileWriter, PartFileError> {
        drop(self.batches);
        // A panic stays one: whoever runs the build handles those of its own thread.
        self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

fn write(
    mut writer: KeyFileWriter,
    batches: &Receiver<SharedBatch>,
    written: &Sender<SharedBatch>,
) -> Result<KeyFileWriter, PartFileError> {
    for mut batch in batches {
        writer.push_shared(&batch)?;
        batch.clear();
        // The receiver is gone at the end: the memory is not needed then.
        let _ = written.send(batch);
    }
    Ok(writer)
}

#[cfg(test)]
mod tests {
    use throng_model::UserHash;

    use super::*;
    use crate::key_file::KeyFile;

    fn batch(numbers: std::ops::Range<u64>) -> SharedBatch {
        let hashes: Vec<UserHash> = numbers.map(UserHash).collect();
        SharedBatch { groups: vec![7; hashes.len()], values: Vec::new(), hashes }
    }

    #[test]
    fn batches_are_written_in_their_order_and_an_error_is_returned_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.keys");
        let mut thread = KeyThread::start(KeyFileWriter::create(&path).unwrap().scratch()).unwrap();
        for number in 0..100 {
            let mut batch = batch(number * 10..(number + 1) * 10);
            assert!(thread.push(&mut batch));
            assert_eq!(batch, SharedBatch::default());
        }
        let checksum = thread.finish().unwrap().finish().unwrap();
        let mut words = Vec::new();
        KeyFile::open(&path, Some(checksum)).unwrap().read(0, &mut words).unwrap();
        let expected: Vec<u64> = (0..1_000).flat_map(|hash| [hash, 7]).collect();
        assert_eq!(words, expected);

        // Every write to it fails.
        let full = KeyFileWriter::to_full_device().unwrap();
        let mut thread = KeyThread::start(full).unwrap();
        while thread.push(&mut batch(0..20_000)) {}
        assert!(matches!(thread.finish(), Err(PartFileError::Io { .. })));
    }
}
