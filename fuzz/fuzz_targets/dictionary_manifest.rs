//! The manifest of a user dictionary.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_membership::fuzzing::dictionary_manifest(bytes));
