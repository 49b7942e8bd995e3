//! Taking times, on one thread and on several, and saying on which machine.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::scratch;

/// How long `times` calls take.
pub(crate) fn time(times: u64, mut call: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        call();
    }
    start.elapsed()
}

/// How long `times` calls take when `threads` share them. Each thread makes its own caller
/// first; the clock starts when all have. A thread that is ahead takes more of the calls, so
/// that none is left alone at the end.
pub(crate) fn time_shared<C: FnMut()>(
    threads: u64,
    times: u64,
    caller: impl Fn(u64) -> C + Sync,
) -> Duration {
    if threads == 1 {
        let call = caller(0);
        return time(times, call);
    }
    // Large enough that taking calls costs nothing beside the calls.
    let chunk = (times / threads / 64).clamp(1, 1024);
    let taken = AtomicU64::new(0);
    let ready = Barrier::new(threads as usize + 1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                let (taken, ready, caller) = (&taken, &ready, &caller);
                scope.spawn(move || {
                    let mut call = caller(number);
                    ready.wait();
                    loop {
                        let from = taken.fetch_add(chunk, Ordering::Relaxed);
                        if from >= times {
                            return;
                        }
                        for _ in from..times.min(from + chunk) {
                            call();
                        }
                    }
                })
            })
            .collect();
        ready.wait();
        let start = Instant::now();
        for worker in workers {
            worker.join().expect("no worker panics");
        }
        start.elapsed()
    })
}

/// The figure that `share` of the samples are at most, `share` between 0 and 1.
pub(crate) fn percentile(sorted: &[u32], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default().into()
}

/// The machine, and whether figures from this build may be quoted.
pub(crate) fn machine() -> String {
    const TMPFS: u64 = 0x0102_1994;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let folder = scratch::root();
    let _ = std::fs::create_dir_all(&folder);
    let in_memory = rustix::fs::statfs(&folder).is_ok_and(|fs| fs.f_type as u64 == TMPFS);
    format!(
        "machine: {cores} cores, {}, Linux {kernel}; {TEST_HOOKS}; data in {}{}",
        model.unwrap_or("unknown processor"),
        folder.display(),
        if in_memory { " (IN MEMORY: no sync means anything)" } else { "" },
    )
}

/// No figure from a build with test hooks is published. There is no such build yet.
const TEST_HOOKS: &str = "test hooks: none";
