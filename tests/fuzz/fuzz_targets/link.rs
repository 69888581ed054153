//! The target `link` for `cargo fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::targets::link(input));
