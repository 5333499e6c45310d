//! Records of durable commits that the tails of this process have not returned yet. Pure.

use std::collections::{BTreeMap, VecDeque};

use crate::Record;

/// What the buffer of one tail holds, in bytes, unless a single commit is larger. A tail that lags further
/// reads from the disk: 256 partitions must not fill the memory.
const MAX_BYTES: usize = 4 << 20;

/// The buffers of the tails of a partition.
#[derive(Debug, Default)]
pub(super) struct TailBuffers {
    /// The number of the next tail.
    next: u64,
    buffers: BTreeMap<u64, TailBuffer>,
}

#[derive(Debug, Default)]
struct TailBuffer {
    /// By offset; those of the newest commits.
    records: VecDeque<Record>,
    bytes: usize,
}

/// The memory that a record takes.
fn size(record: &Record) -> usize {
    // With the record itself: values can be empty.
    record.value.len() + size_of::<Record>()
}

impl TailBuffers {
    /// Adds an empty buffer, and returns its number.
    pub(super) fn add(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.buffers.insert(number, TailBuffer::default());
        number
    }

    /// Removes a buffer.
    pub(super) fn remove(&mut self, number: u64) {
        self.buffers.remove(&number);
    }

    /// Whether nobody follows the partition.
    pub(super) fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Adds the records of a commit to every buffer. Values are shared and not copied.
    pub(super) fn push(&mut self, commit: &[Record]) {
        let bytes: usize = commit.iter().map(size).sum();
        self.buffers.values_mut().for_each(|buffer| buffer.push(commit, bytes));
    }

    /// Takes records from offset `from` on, as many as fit into `max_bytes` and at least one. Empty if the
    /// buffer does not have `from`: it is on the disk, or not appended yet. Records before `from` are dropped.
    pub(super) fn take(&mut self, number: u64, from: u64, max_bytes: usize) -> Vec<Record> {
        self.buffers.get_mut(&number).map_or_else(Vec::new, |buffer| buffer.take(from, max_bytes))
    }
}

impl TailBuffer {
    fn push(&mut self, commit: &[Record], bytes: usize) {
        if self.bytes.saturating_add(bytes) > MAX_BYTES {
            // The tail lags, and reads these from the disk.
            self.records.clear();
            self.bytes = 0;
        }
        self.records.extend(commit.iter().cloned());
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn take(&mut self, from: u64, max_bytes: usize) -> Vec<Record> {
        while self.records.front().is_some_and(|first| first.offset < from) {
            self.pop();
        }
        // The records before the buffer were dropped: returning it would skip them. The tail reads
        // them from the disk, and then continues here.
        if self.records.front().is_none_or(|first| first.offset != from) {
            return Vec::new();
        }
        if self.bytes <= max_bytes {
            self.bytes = 0;
            return std::mem::take(&mut self.records).into();
        }
        let (mut taken, mut left) = (Vec::new(), max_bytes);
        while let Some(first) = self.records.front() {
            // At least one, whatever its size: the tail would not make progress otherwise.
            if size(first) > left && !taken.is_empty() {
                break;
            }
            left = left.saturating_sub(size(first));
            taken.extend(self.pop());
        }
        taken
    }

    fn pop(&mut self) -> Option<Record> {
        let first = self.records.pop_front()?;
        self.bytes = self.bytes.saturating_sub(size(&first));
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use throng_model::Timestamp;

    use super::*;

    fn records(offsets: std::ops::Range<u64>, bytes: usize) -> Vec<Record> {
        let value = Bytes::from(vec![0; bytes]);
        offsets.map(|offset| Record { offset, at: Timestamp(0), value: value.clone() }).collect()
    }

    fn offsets(records: &[Record]) -> Vec<u64> {
        records.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn each_tail_takes_every_record_once() {
        let mut buffers = TailBuffers::default();
        assert!(buffers.is_empty());
        let (one, two) = (buffers.add(), buffers.add());
        buffers.push(&records(3..5, 100));
        buffers.push(&records(5..6, 100));
        assert_eq!(offsets(&buffers.take(one, 3, usize::MAX)), [3, 4, 5]);
        assert_eq!(offsets(&buffers.take(one, 6, usize::MAX)), [] as [u64; 0]);
        // At most the bytes that are wanted, and at least one record.
        assert_eq!(offsets(&buffers.take(two, 3, 1)), [3]);
        assert_eq!(offsets(&buffers.take(two, 4, 2 * (100 + size_of::<Record>()))), [4, 5]);
        buffers.remove(one);
        buffers.push(&records(6..7, 100));
        assert_eq!(offsets(&buffers.take(one, 6, usize::MAX)), [] as [u64; 0]);
        assert_eq!(offsets(&buffers.take(two, 6, usize::MAX)), [6]);
        buffers.remove(two);
        assert!(buffers.is_empty());
    }

    #[test]
    fn what_a_tail_does_not_take_is_bounded_and_left_to_the_disk() {
        let mut buffers = TailBuffers::default();
        let tail = buffers.add();
        for commit in 0..100 {
            buffers.push(&records(commit * 10..commit * 10 + 10, 100_000));
            assert!(buffers.buffers[&tail].bytes <= MAX_BYTES);
        }
        // It reads the offsets before these from the disk, and continues here.
        assert_eq!(offsets(&buffers.take(tail, 0, usize::MAX)), [] as [u64; 0]);
        let first = buffers.buffers[&tail].records[0].offset;
        assert!(first > 900, "{first}");
        let rest = buffers.take(tail, first + 3, usize::MAX);
        assert_eq!(offsets(&rest), (first + 3..1_000).collect::<Vec<u64>>());
        assert_eq!(buffers.buffers[&tail].bytes, 0);
        // Memory is counted for empty values too.
        for commit in 0..20 {
            buffers.push(&records(commit * 10_000..(commit + 1) * 10_000, 0));
        }
        assert!(buffers.buffers[&tail].records.len() < 200_000);
        // A commit that is larger than the limit is kept: its values are in memory anyway.
        buffers.push(&records(0..1, 2 * MAX_BYTES));
        assert_eq!(offsets(&buffers.take(tail, 0, 1)), [0]);
    }
}
