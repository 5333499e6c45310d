//! Record batches from a Kafka broker.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_log::fuzzing::record_batch(bytes));
