//! How the benches are run: criterion's settings and the sizes.

use std::time::Duration;

use criterion::Criterion;

/// Criterion with few, short samples: most rows wait for a disk, and a whole `cargo bench`
/// should take minutes.
pub(crate) fn criterion() -> Criterion {
    let crash_points = steadfast_testing::CRASH_POINTS_COMPILED_IN;
    let hooks = crash_points || steadfast_testing::SABOTAGE_COMPILED_IN;
    println!("hooks compiled in: {}", if hooks { "YES: publish no figure" } else { "no" });
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .nresamples(10_000)
        .configure_from_args()
}

/// Whether every bench is only to be run once, to see that it runs (`cargo bench -- --test`,
/// `cargo test --benches`).
pub(crate) fn test_mode() -> bool {
    let mut benching = false;
    for argument in std::env::args() {
        match argument.as_str() {
            "--test" => return true,
            "--bench" => benching = true,
            _ => {}
        }
    }
    !benching
}

/// `full`, or `tiny` in test mode.
pub(crate) fn sized(full: u64, tiny: u64) -> u64 {
    if test_mode() { tiny } else { full }
}

/// Whether the benches that take gigabytes were asked for.
pub(crate) fn large() -> bool {
    std::env::var_os("STEADFAST_BENCH_LARGE").is_some_and(|on| on == "1")
}

/// Whether tables shall show the best samples instead of medians: where others use the machine
/// too, that is what repeats.
pub(crate) fn best() -> bool {
    std::env::var_os("STEADFAST_BENCH_BEST").is_some_and(|on| on == "1")
}

/// The letter that several of a thing have.
pub(crate) fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
