//! Money in flight. Ad servers report insertions, impressions and clicks ([`Event`]); an [`Engine`]
//! keeps, for one partition of the event log, what every ad group has spent today (exact to the
//! micro) and what ads that were inserted will probably still earn, and makes the frames for gates.
//! Pure: the time is passed in with each call, and there is no I/O.
//!
//! * expected spend of an insertion = price × impression rate × action rate, summed per ad group into
//!   10-second tumbling windows: one update per event
//! * in-flight spend = Σ over windows of expected × survival(age), where survival is the share of
//!   outcomes that come after that age ([`Survival`])
//! * an insertion may carry its own price and rates ([`EventMoney`]), and an outcome its own price
//! * an outcome that names its insertion settles it: what that was expected to earn is no longer in flight
//! * the rates of impressions and actions are learned by ad group and placement, with priors from other ad groups,
//!   and expected spend is scaled by what declared rates are wrong by ([`AdGroupRates`])
//! * an ad group is open while actual + in flight + some deviations of it < budget, and shown at a falling share
//!   of requests before that, or at that of an even pace (`throng-rates`)
//!
//! The formula is Pinterest's ("Using Kafka Streams API for predictive budgeting", 2017), where
//! survival is a step at three minutes; here it is that step until enough outcomes have come.

mod config;
mod engine;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod wire;

pub use config::AdGroupConfig;
pub use engine::{
    AdGroupRates, AdGroupState, CheckpointFiles, DEFAULT_DEDUPE_WINDOW, Engine, EventCounts,
    EventEffect, IdFile, IdRun, InvalidCheckpoint, LogPosition, NamedFiles, PlacementFigures,
    REMOVED_RETENTION, RateFigures, SLICE_SECS, SliceFile, Survival, WINDOW_SECS,
};
pub use throng_events::{
    BilledEvent, EVENTS_PER_RECORD, Event, EventBuffer, EventKind, EventMoney, EventProblem,
    EventRecords, EventRef, MAX_AHEAD, MAX_ID_BYTES, MAX_INSERTION_AGE, MAX_LINE_BYTES,
    MAX_PLACEMENT_BYTES, MAX_PRICE_NANOS, MAX_PROBLEMS, NameKey, ParsedEvents, ProtobufEvents,
    RATE_ONE, RecordError, RecordEvents, RefusedEvents, Text, UnknownAdGroups, append_event,
    events_to_record, look_up_each, parse_ndjson, read_record,
};
pub use throng_model::series::{DayPrediction, DaySpend, Interval, Series, SpendPoint};
pub use throng_rates::Rate;
