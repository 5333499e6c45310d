//! A row of identifiers from a query worker.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_delivered::fuzzing::prepared_row(bytes));
