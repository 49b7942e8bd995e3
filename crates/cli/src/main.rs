//! The `steadfast` program: what people and other programs type.

use std::process::ExitCode;

fn main() -> ExitCode {
    steadfast_cli::main()
}
