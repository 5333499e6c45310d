//! A checkpoint of spend.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_budget::fuzzing::checkpoint(bytes));
