//! Where random choices begin, and the line that repeats them.

use std::path::Path;

/// The environment variable that a seed is taken from.
pub const SEED_VARIABLE: &str = "STEADFAST_SEED";

/// The environment variable that says how many times as much is tried.
pub const EFFORT_VARIABLE: &str = "STEADFAST_EFFORT";

/// How many times as much as usual is to be tried: `STEADFAST_EFFORT`, or 1.
///
/// # Panics
///
/// If the variable holds anything but a number above 0: a long run must not quietly be a short
/// one.
pub fn effort() -> u64 {
    let Ok(text) = std::env::var(EFFORT_VARIABLE) else { return 1 };
    match text.parse() {
        Ok(effort) if effort > 0 => effort,
        _ => panic!("{EFFORT_VARIABLE}={text}: not a number above 0"),
    }
}

/// The seed that `STEADFAST_SEED` names, or else `default`; printed either way, with the line
/// that repeats the calling test.
pub fn seed_or(default: u64) -> u64 {
    let named = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
    let seed = named.unwrap_or(default);
    println!("seed {seed}: {}", replay_line(seed));
    seed
}

/// One line for a shell that runs the calling test again with `seed`.
pub fn replay_line(seed: u64) -> String {
    cargo_line(SEED_VARIABLE, &seed.to_string())
}

/// One line for a shell that runs the calling test again with an environment variable set.
pub(crate) fn cargo_line(variable: &str, value: &str) -> String {
    let plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let value = if plain { value.to_owned() } else { format!("'{value}'") };
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    let program = std::env::current_exe().unwrap_or_default();
    let stem = program.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    // Cargo adds a dash and a hash.
    let stem = stem.unwrap_or_default();
    let target = stem.rsplit_once('-').map_or(stem.as_str(), |(name, _)| name);
    let is_test = program.parent().is_some_and(|folder| folder.ends_with(Path::new("deps")));
    // Cargo tells its name to what it runs; what was started by hand is started so again.
    if is_test && package.is_empty() {
        let test = std::thread::current().name().filter(|name| *name != "main").map(str::to_owned);
        let exact = test.map_or_else(String::new, |test| format!(" --exact {test}"));
        return format!("{variable}={value} {} --nocapture{exact}", program.display());
    }
    if !is_test {
        return format!("{variable}={value} {}", program.display());
    }
    let kind = if target == package.replace('-', "_") {
        "--lib".to_owned()
    } else {
        format!("--test {target}")
    };
    let test = std::thread::current().name().filter(|name| *name != "main").map(str::to_owned);
    let exact = test.map_or_else(String::new, |test| format!(" --exact {test}"));
    format!("{variable}={value} cargo test -p {package} {kind} -- --nocapture{exact}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_this_test_and_its_seed() {
        let line = replay_line(7);
        assert!(
            line.starts_with("STEADFAST_SEED=7 cargo test -p steadfast-testing --lib"),
            "{line}"
        );
        // With one test at a time libtest runs it in the main thread, which has no name of it.
        let name = "seed::tests::the_line_names_this_test_and_its_seed";
        assert!(line.ends_with(name) || line.ends_with("--nocapture"), "{line}");
    }
}
