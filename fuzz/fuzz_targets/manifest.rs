//! See `steadfast_testing::fuzz::manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| steadfast_testing::fuzz::manifest(data));
