//! A spec.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_spec::fuzzing::spec_yaml(bytes));
