//! See `steadfast_cli::fuzz::command_line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| steadfast_cli::fuzz::command_line(data));
