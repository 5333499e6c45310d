//! A frame of the budget feed.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_feed::fuzzing::feed_frame(bytes));
