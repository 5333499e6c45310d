//! A snapshot of an audience.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_membership::fuzzing::snapshot_file(bytes));
