//! A file of event ids.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_budget::fuzzing::id_file(bytes));
