//! A request body with a content encoding.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_http::fuzzing::content_encoding(bytes));
