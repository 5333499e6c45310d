//! A record of the event log or of the Kafka topic of events.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_budget::fuzzing::event_record(bytes));
