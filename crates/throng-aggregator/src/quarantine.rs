//! Records of the log that cannot be applied. They stay in the log; an object lists their offsets and the
//! reasons, so that a restart and other replicas skip them too.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use throng_model::{MisplacedAdGroups, Timestamp};
use throng_objects::Objects;
use throng_telemetry::metrics;

use super::BudgetsError;

/// Records that are listed of each partition; more are only counted.
const MAX_LISTED: usize = 1_000;

/// A record that is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedRecord {
    /// Its offset in the partition.
    pub offset: u64,
    /// Why it cannot be applied. Nothing of its contents.
    pub reason: String,
    /// How many times it was tried.
    pub count: u64,
    /// When it failed first.
    pub at: Timestamp,
}

/// The records of a partition that are skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineList {
    /// How many there are.
    pub total: u64,
    /// The first 1,000 of them, by offset.
    pub records: Vec<QuarantinedRecord>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Quarantine {
    objects: Arc<dyn Objects>,
    partition: u32,
    entries: Mutex<Entries>,
    pub(super) misplaced: MisplacedAdGroups,
}

#[derive(Debug, Default)]
struct Entries {
    total: u64,
    records: BTreeMap<u64, QuarantinedRecord>,
    changed: bool,
}

fn name(partition: u32) -> String {
    format!("quarantine/{partition}")
}

/// Reads the list of a partition. One that cannot be decoded counts as empty: records that cannot be applied
/// fail again and are added again.
pub(super) async fn load(
    objects: &dyn Objects,
    partition: u32,
) -> throng_objects::Result<QuarantineList> {
    let found = objects.load(&name(partition)).await?;
    let list = found.and_then(|found| serde_json::from_slice(&found.bytes).ok());
    Ok(list.unwrap_or_default())
}

impl Quarantine {
    pub(super) async fn open(
        objects: Arc<dyn Objects>,
        partition: u32,
        partitions: u32,
    ) -> Result<Self, BudgetsError> {
        let list = load(&*objects, partition).await;
        let list = list.map_err(|source| BudgetsError::Quarantine { partition, source })?;
        let records = list.records.into_iter().map(|record| (record.offset, record)).collect();
        let entries = Mutex::new(Entries { total: list.total, records, changed: false });
        let misplaced = MisplacedAdGroups::new(partition, partitions);
        Ok(Self { objects, partition, entries, misplaced })
    }

    /// Whether a record is skipped.
    pub(super) fn contains(&self, offset: u64) -> bool {
        let entries = self.entries.lock();
        !entries.records.is_empty() && entries.records.contains_key(&offset)
    }

    /// Adds a record that could not be applied.
    pub(super) fn add(&self, offset: u64, reason: &str, now: Timestamp) {
        let mut entries = self.entries.lock();
        if let Some(known) = entries.records.get_mut(&offset) {
            known.count += 1;
            entries.changed = true;
            return;
        }
        entries.total += 1;
        entries.changed = true;
        metrics::counter!(metrics::EVENTS_QUARANTINED_TOTAL).increment(1);
        tracing::error!(
            partition = self.partition,
            offset,
            reason,
            "quarantined a record that cannot be applied"
        );
        // Limited, as the list is one object that is written as a whole: a producer of invalid
        // records would make it grow without end.
        if entries.records.len() < MAX_LISTED {
            let reason = reason.to_owned();
            entries.records.insert(offset, QuarantinedRecord { offset, reason, count: 1, at: now });
        }
    }

    /// Forgets the records from an offset on, which are of another log. One that is of this log fails again and is
    /// added again.
    pub(super) async fn forget_from(&self, offset: u64) -> throng_objects::Result<()> {
        {
            let mut entries = self.entries.lock();
            let forgotten = entries.records.split_off(&offset);
            entries.total = entries.total.saturating_sub(forgotten.len() as u64);
            entries.changed |= !forgotten.is_empty();
        }
        self.flush().await
    }

    /// Writes the list, if records were added since the last time.
    pub(super) async fn flush(&self) -> throng_objects::Result<()> {
        let written = self.write().await;
        // Another process has written the list in between, or the write failed: the next checkpoint tries again.
        // Without it, that checkpoint would move past records that the stored list does not have.
        if !matches!(written, Ok(true)) {
            self.entries.lock().changed = true;
        }
        written.map(|_| ())
    }

    /// Writes the list if it has changed. `false` if another process writes it at the same time.
    async fn write(&self) -> throng_objects::Result<bool> {
        let list = {
            let mut entries = self.entries.lock();
            // Reset before the write: a record that is added meanwhile sets it again, and the next
            // flush writes it.
            if !std::mem::take(&mut entries.changed) {
                return Ok(true);
            }
            QuarantineList {
                total: entries.total,
                records: entries.records.values().cloned().collect(),
            }
        };
        let bytes = serde_json::to_vec(&list).unwrap_or_default();
        let name = name(self.partition);
        for _ in 0..2 {
            let version = self.objects.load(&name).await?.map(|found| found.version);
            if self
                .objects
                .compare_and_swap(&name, bytes.clone(), version.as_deref())
                .await?
                .is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
