//! See `steadfast_testing::fuzz::database`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| steadfast_testing::fuzz::database(data));
