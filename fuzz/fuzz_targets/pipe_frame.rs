//! A message between a node and a query worker.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_lake::worker::fuzzing::pipe_frame(bytes));
