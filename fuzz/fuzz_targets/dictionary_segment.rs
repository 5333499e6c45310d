//! A segment of the user dictionary.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_membership::fuzzing::dictionary_segment(bytes));
