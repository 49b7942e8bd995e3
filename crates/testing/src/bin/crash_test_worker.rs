//! The process that crash tests kill. See `steadfast_testing::worker`.

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    std::process::exit(steadfast_testing::worker::main(&args));
}
