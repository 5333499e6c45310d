//! The state of a partition.

use std::collections::{HashMap, HashSet};

use throng_budget::{AdGroupConfig, DaySpend, Engine, EventBuffer, LogPosition};
use throng_feed::Frame;
use throng_log::Record;
use throng_model::{AdGroupName, Timestamp};
use throng_store::BudgetDayRow;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The state of a partition up to an offset of the log.
pub(super) struct PartitionState {
    pub(super) engine: Engine,
    /// The next record of the log to apply.
    pub(super) offset: u64,
    /// The checksum of the record before it: see [`LogPosition`].
    pub(super) last_record: Option<u64>,
    pub(super) epoch: u64,
    /// For the events that are applied next.
    pub(super) buffer: EventBuffer,
}

impl PartitionState {
    /// Moves to `position`, after these records were applied.
    pub(super) fn advance(&mut self, position: u64, records: &[Record]) {
        let last = records.last().filter(|last| last.offset + 1 == position);
        match last {
            Some(last) => self.last_record = Some(checksum(last.at, &last.value)),
            // The last offset has no record: it is a marker of a Kafka transaction.
            None if position != self.offset => self.last_record = None,
            None => {}
        }
        self.offset = position;
    }

    /// Makes the next version of the figures and returns it as a delta.
    pub(super) fn next_delta(&mut self, now: Timestamp) -> Frame {
        self.engine.delta_at(now, self.offset)
    }

    /// The spend of the last days of the ad groups that are not among `kept`.
    pub(super) fn days_without(&self, kept: &[AdGroupConfig], now: Timestamp) -> Vec<BudgetDayRow> {
        let kept: HashSet<&AdGroupName> = kept.iter().map(|config| &config.name).collect();
        let mut days: HashMap<AdGroupName, Vec<DaySpend>> =
            self.engine.all_days(now).into_iter().collect();
        days.retain(|name, _| !kept.contains(name));
        if days.is_empty() {
            return Vec::new();
        }
        let mut rows = Vec::new();
        for state in self.engine.states(now) {
            let spent = days.remove(&state.name).unwrap_or_default();
            rows.extend(spent.into_iter().map(|(day, actual, currency)| BudgetDayRow {
                ad_group: state.name.clone(),
                day,
                budget: state.budget,
                actual,
                prediction: None,
                currency: Some(currency),
                causes: None,
            }));
        }
        rows
    }

    /// Its position in the log.
    pub(super) fn position(&self) -> LogPosition {
        LogPosition { next_offset: self.offset, last_record: self.last_record }
    }
}

/// The checksum of a record, by which a checkpoint recognizes the log from which it was made.
pub(super) fn checksum(at: Timestamp, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, at.0.cast_unsigned())
}
