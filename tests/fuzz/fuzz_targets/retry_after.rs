//! The target `retry_after` for `cargo fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::targets::retry_after(input));
