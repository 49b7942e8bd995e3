//! See `steadfast_testing::fuzz::replay`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| steadfast_testing::fuzz::replay(data));
