//! Events as protobuf.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_budget::fuzzing::events_protobuf(bytes));
