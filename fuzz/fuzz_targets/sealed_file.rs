//! An encrypted file of delivered state or of a plan.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_delivered::fuzzing::sealed_file(bytes));
