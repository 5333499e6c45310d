//! The keys of encrypted files.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_delivered::fuzzing::identifier_keys(bytes));
