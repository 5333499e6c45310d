//! Events as JSON lines or a JSON array.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_budget::fuzzing::events_ndjson(bytes));
