//! A limits file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_spec::fuzzing::limits_yaml(bytes));
