//! Events of ad servers: insertions, impressions and clicks ([`Event`]), as JSON ([`parse_ndjson`]) and as
//! `throng.events.v1.Events` ([`ProtobufEvents`], [`append_event`]), which is also a record of the event log
//! ([`read_record`]). Each event is checked alone: an invalid one does not affect the others. Pure.

mod buffer;
mod encode;
mod event;
mod event_records;
mod json;
mod log_time;
mod look_up;
mod missing_id;
mod money;
mod name_key;
mod protobuf;
mod record;
mod time_unit;
mod unknown_ad_groups;

pub use buffer::EventBuffer;
pub use encode::{append_event, events_to_record};
pub use event::{
    BilledEvent, Event, EventKind, EventProblem, MAX_AHEAD, MAX_ID_BYTES, MAX_INSERTION_AGE,
    MAX_LINE_BYTES, MAX_PROBLEMS, ParsedEvents, RefusedEvents, plausible,
};
pub use event_records::EventRecords;
pub use json::parse_ndjson;
pub use log_time::LogTime;
pub use look_up::look_up_each;
pub use money::{
    EventMoney, MAX_PLACEMENT_BYTES, MAX_PRICE_NANOS, RATE_ONE, expected_micros, rate_in_billionths,
};
pub use name_key::NameKey;
pub use protobuf::ProtobufEvents;
pub use record::{EVENTS_PER_RECORD, EventRef, RecordError, RecordEvents, Text, read_record};
pub use unknown_ad_groups::UnknownAdGroups;
