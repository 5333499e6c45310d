//! A decrypted section of such a file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng_delivered::fuzzing::sealed_section(bytes));
