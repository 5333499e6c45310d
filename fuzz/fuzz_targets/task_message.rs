//! A message of the task queue.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_activation::fuzzing::task_message(bytes));
