//! The protobuf messages of checkpoints, written by hand so that a build needs no protobuf compiler. Messages
//! of events are read by `throng-events`.

use prost::Message;
use throng_model::Currency;

/// The field that states of every format have.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CheckpointFormat {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
}

/// The state of an engine. A later version with other fields has a higher `format`, which is refused.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Checkpoint {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) partition: u32,
    #[prost(uint64, tag = "3")]
    pub(crate) next_offset: u64,
    #[prost(message, repeated, tag = "4")]
    pub(crate) ad_groups: Vec<AdGroup>,
    /// Recent ids, and up to format 2 those of the previous generation; 10 bytes each, 16 in format 1.
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) recent_ids: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    pub(crate) old_ids: Vec<u8>,
    #[prost(int64, tag = "7")]
    pub(crate) generation_began: i64,
    /// Delays of all ad groups paid per impression, and per click.
    #[prost(message, optional, tag = "8")]
    pub(crate) impressions: Option<Pooled>,
    #[prost(message, optional, tag = "9")]
    pub(crate) clicks: Option<Pooled>,
    /// The log time (up to format 2: since the generation began), and the newest record's time.
    #[prost(int64, optional, tag = "10")]
    pub(crate) generation_micros: Option<i64>,
    #[prost(int64, optional, tag = "11")]
    pub(crate) newest_record: Option<i64>,
    /// Checksum of the record before `next_offset`.
    #[prost(fixed64, optional, tag = "12")]
    pub(crate) last_record: Option<u64>,
    /// Until this log time there may be ids of the second format.
    #[prost(int64, tag = "13")]
    pub(crate) legacy_until: i64,
    /// Stamps of the recent ids: the oldest and the newest.
    #[prost(sint64, optional, tag = "14")]
    pub(crate) recent_oldest: Option<i64>,
    #[prost(sint64, optional, tag = "15")]
    pub(crate) recent_newest: Option<i64>,
    /// Older ids.
    #[prost(message, repeated, tag = "16")]
    pub(crate) runs: Vec<IdRun>,
    /// How long ids are remembered, in microseconds, and the time before which they were forgotten under a
    /// shorter window.
    #[prost(sint64, optional, tag = "17")]
    pub(crate) dedupe_window: Option<i64>,
    #[prost(sint64, optional, tag = "18")]
    pub(crate) forgotten_before: Option<i64>,
    /// Closed slices.
    #[prost(message, repeated, tag = "19")]
    pub(crate) slice_files: Vec<SliceFile>,
    /// The number of the next one.
    #[prost(uint64, tag = "20")]
    pub(crate) next_slice_file: u64,
    /// Open insertions, and the newest block of windows that has had one.
    #[prost(bytes = "vec", tag = "21")]
    pub(crate) open: Vec<u8>,
    #[prost(sint64, optional, tag = "22")]
    pub(crate) open_block: Option<i64>,
    /// Numbers of placements, and the newest ten minutes in which there was one.
    #[prost(message, repeated, tag = "23")]
    pub(crate) placements: Vec<Placement>,
    #[prost(sint64, optional, tag = "24")]
    pub(crate) placements_block: Option<i64>,
}

/// A placement of insertions.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Placement {
    #[prost(uint32, tag = "1")]
    pub(crate) number: u32,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    /// How many insertions have named it.
    #[prost(uint64, tag = "3")]
    pub(crate) used: u64,
}

/// A file of closed slices, as a checkpoint names it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SliceFile {
    #[prost(sint64, tag = "1")]
    pub(crate) first_day: i64,
    #[prost(sint64, tag = "2")]
    pub(crate) last_day: i64,
    /// Increases from file to file.
    #[prost(uint64, tag = "3")]
    pub(crate) number: u64,
    /// The last part of its object's name.
    #[prost(string, tag = "4")]
    pub(crate) name: String,
    /// The file's contents, if it is not written yet.
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) content: Vec<u8>,
}

/// The contents of a slice file.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SliceFileContent {
    #[prost(uint32, tag = "1")]
    pub(crate) partition: u32,
    /// UTC days since 1970.
    #[prost(sint64, tag = "2")]
    pub(crate) first_day: i64,
    #[prost(sint64, tag = "3")]
    pub(crate) last_day: i64,
    /// By name, ascending.
    #[prost(message, repeated, tag = "4")]
    pub(crate) ad_groups: Vec<AdGroupSlices>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AdGroupSlices {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// As in [`AdGroup`].
    #[prost(sint64, repeated, tag = "2")]
    pub(crate) slice_steps: Vec<i64>,
    #[prost(sint64, repeated, tag = "3")]
    pub(crate) slice_spend: Vec<i64>,
    #[prost(uint32, repeated, tag = "4")]
    pub(crate) slice_nanos: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct IdRun {
    #[prost(sint64, tag = "1")]
    pub(crate) newest: i64,
    #[prost(sint64, tag = "2")]
    pub(crate) sealed: i64,
    /// The last part of its object's name.
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    /// The run's contents, if it is not written yet.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) content: Vec<u8>,
    #[prost(sint64, tag = "5")]
    pub(crate) oldest: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Pooled {
    #[prost(message, repeated, tag = "1")]
    pub(crate) windows: Vec<Window>,
    #[prost(double, repeated, tag = "2")]
    pub(crate) complete: Vec<f64>,
    #[prost(sint64, optional, tag = "3")]
    pub(crate) first: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AdGroup {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Spend by budget day, up to format 2.
    #[prost(sint32, repeated, tag = "2")]
    pub(crate) days: Vec<i32>,
    #[prost(sint64, repeated, tag = "3")]
    pub(crate) actual: Vec<i64>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) windows: Vec<Window>,
    #[prost(double, repeated, tag = "5")]
    pub(crate) delays: Vec<f64>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) intervals: Vec<Interval>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) points: Vec<Point>,
    /// Slices with spend that no file has as they are (up to format 3: all): each one's number minus that of
    /// the one before, and its spend.
    #[prost(sint64, repeated, tag = "8")]
    pub(crate) slice_steps: Vec<i64>,
    #[prost(sint64, repeated, tag = "9")]
    pub(crate) slice_spend: Vec<i64>,
    #[prost(sint64, tag = "10")]
    pub(crate) folded: i64,
    #[prost(message, repeated, tag = "11")]
    pub(crate) prices: Vec<Price>,
    /// Up to format 4: whether outcomes settle their own insertions.
    #[prost(bool, tag = "12")]
    pub(crate) settles: bool,
    /// Since when the ad group is not configured.
    #[prost(sint64, optional, tag = "13")]
    pub(crate) removed_since: Option<i64>,
    #[prost(uint32, tag = "14")]
    pub(crate) index: u32,
    /// Billionths of the slices, if any of them has some.
    #[prost(uint32, repeated, tag = "15")]
    pub(crate) slice_nanos: Vec<u32>,
    #[prost(uint32, tag = "16")]
    pub(crate) folded_nanos: u32,
    /// Slices of files count from this file and this slice on; without `kept_from` none does.
    #[prost(uint64, tag = "17")]
    pub(crate) first_slice_file: u64,
    #[prost(sint64, optional, tag = "18")]
    pub(crate) kept_from: Option<i64>,
    /// How many outcomes have settled their own insertions, and how many could not.
    #[prost(uint32, tag = "19")]
    pub(crate) settled_outcomes: u32,
    #[prost(uint32, tag = "20")]
    pub(crate) other_outcomes: u32,
    /// `Learned::stored`.
    #[prost(sint64, repeated, tag = "21")]
    pub(crate) learned: Vec<i64>,
    /// The declared rate of outcomes when that was learned, in billionths.
    #[prost(uint64, optional, tag = "22")]
    pub(crate) declared_rate: Option<u64>,
    /// Sums of intervals that were dropped, with the numbers of their budget days. Earlier versions of this
    /// format do not have them, and ignore them.
    #[prost(message, repeated, tag = "23")]
    pub(crate) predicted_days: Vec<Interval>,
    /// `ApartRates::stored`.
    #[prost(sint64, repeated, tag = "24")]
    pub(crate) apart: Vec<i64>,
    /// The declared impression rate when that was learned, in billionths.
    #[prost(uint64, optional, tag = "25")]
    pub(crate) declared_impressions: Option<u64>,
    /// What was spent above the budgets of the last days, by cause. Earlier versions of this format do not have
    /// it, and ignore it.
    #[prost(message, repeated, tag = "26")]
    pub(crate) over_days: Vec<OverDay>,
    /// The currency of its amounts; empty in checkpoints of earlier versions.
    #[prost(string, tag = "27")]
    pub(crate) currency: String,
    /// The time zone of its days; empty in checkpoints of earlier versions, as are the next two.
    #[prost(string, tag = "28")]
    pub(crate) zone: String,
    /// `FirstDay`, if the zone was changed.
    #[prost(sint32, optional, tag = "29")]
    pub(crate) first_day: Option<i32>,
    #[prost(sint64, optional, tag = "30")]
    pub(crate) first_day_start: Option<i64>,
    /// `FormerCurrencies`; none in checkpoints of earlier versions.
    #[prost(message, repeated, tag = "31")]
    pub(crate) former_currencies: Vec<FormerCurrency>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FormerCurrency {
    #[prost(sint32, tag = "1")]
    pub(crate) changed_on: i32,
    #[prost(string, tag = "2")]
    pub(crate) currency: String,
}

impl AdGroup {
    /// Whether an ad group that is added again continues with these amounts: in another currency they are others.
    pub(crate) fn is_continued_in(&self, currency: Currency) -> bool {
        self.currency.is_empty() || self.currency == currency.as_str()
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OverDay {
    #[prost(sint32, tag = "1")]
    pub(crate) day: i32,
    #[prost(sint64, tag = "2")]
    pub(crate) budget: i64,
    /// `OverdeliveryCauses::amounts`.
    #[prost(sint64, repeated, tag = "3")]
    pub(crate) amounts: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Price {
    #[prost(sint64, tag = "1")]
    pub(crate) since: i64,
    #[prost(sint64, tag = "2")]
    pub(crate) micros: i64,
    #[prost(uint32, tag = "3")]
    pub(crate) nanos: u32,
    /// `EventKind::number` of what it is the price of; 0 in checkpoints of earlier versions.
    #[prost(int32, tag = "4")]
    pub(crate) billed: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Window {
    #[prost(sint64, tag = "1")]
    pub(crate) number: i64,
    /// Without what has an outcome; up to format 4 with it.
    #[prost(sint64, tag = "2")]
    pub(crate) expected: i64,
    /// Outcomes by delay bucket, not yet learned from: (bucket, count) pairs in turn.
    #[prost(uint32, repeated, tag = "3")]
    pub(crate) outcomes: Vec<u32>,
    /// The part of `expected` whose insertions may be named and are not among the open ones.
    #[prost(sint64, tag = "4")]
    pub(crate) linked: i64,
    /// Up to format 4: the part of `linked` that has an outcome.
    #[prost(sint64, tag = "5")]
    pub(crate) settled: i64,
    /// `expected`, each insertion times the probability that it has an outcome.
    #[prost(sint64, optional, tag = "6")]
    pub(crate) weighted: Option<i64>,
    /// All insertions, their outcomes, the sum of their declared rates in billionths, and what they were
    /// expected to earn; 0 in checkpoints of earlier versions.
    #[prost(uint64, tag = "7")]
    pub(crate) insertions: u64,
    #[prost(uint64, tag = "8")]
    pub(crate) outcome_count: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) declared_rates: u64,
    #[prost(sint64, tag = "10")]
    pub(crate) declared: i64,
    /// `Breakdown::stored`; empty if there is none.
    #[prost(uint64, repeated, tag = "11")]
    pub(crate) breakdown: Vec<u64>,
    /// Of all ad groups: insertions that were reported in time, minus those that were not.
    #[prost(sint64, tag = "12")]
    pub(crate) in_time: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Interval {
    #[prost(sint64, tag = "1")]
    pub(crate) number: i64,
    #[prost(sint64, tag = "2")]
    predicted: i64,
    #[prost(sint64, tag = "3")]
    actual: i64,
    /// Billionths of both; 0 in checkpoints of earlier versions, which ignore them.
    #[prost(uint32, tag = "4")]
    predicted_nanos: u32,
    #[prost(uint32, tag = "5")]
    actual_nanos: u32,
}

impl Interval {
    /// With amounts in billionths.
    pub(crate) fn of(number: i64, (predicted, earned): (i128, i128)) -> Self {
        let micros = |nanos: i128| i64::try_from(nanos.div_euclid(1_000)).unwrap_or(i64::MAX);
        let [predicted_nanos, actual_nanos] =
            [predicted, earned].map(|nanos| nanos.rem_euclid(1_000) as u32);
        let (predicted, actual) = (micros(predicted), micros(earned));
        Self { number, predicted, actual, predicted_nanos, actual_nanos }
    }

    /// Its amounts in billionths.
    pub(crate) fn nanos(&self) -> (i128, i128) {
        let nanos = |micros: i64, rest: u32| i128::from(micros) * 1_000 + i128::from(rest.min(999));
        (nanos(self.predicted, self.predicted_nanos), nanos(self.actual, self.actual_nanos))
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Point {
    #[prost(sint64, tag = "1")]
    pub(crate) at: i64,
    #[prost(sint64, tag = "2")]
    pub(crate) actual: i64,
    #[prost(sint64, tag = "3")]
    pub(crate) in_flight: i64,
}
