//! A response of Meta's API.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_destinations::meta::fuzzing::response(bytes));
