//! A segment of the event log.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_log::fuzzing::log_segment(bytes));
