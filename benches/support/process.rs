//! Work in a process of its own: the same binary, started again and told by an environment
//! variable what to do. Fresh memory, a peak that is nobody else's, and something to kill.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

const TASK: &str = "STEADFAST_BENCH_CHILD";

/// Named figures that a child prints and its parent reads.
pub(crate) type Figures = BTreeMap<String, f64>;

/// In a child: its task's name and arguments. In the bench itself: nothing.
pub(crate) fn task() -> Option<Vec<String>> {
    Some(std::env::var(TASK).ok()?.split('\u{1f}').map(str::to_owned).collect())
}

fn start(task: &[&str]) -> Child {
    Command::new(std::env::current_exe().expect("a process knows its binary"))
        .env(TASK, task.join("\u{1f}"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("a bench can start its own binary")
}

/// Runs a task to its end and reads what it [`report`]ed.
pub(crate) fn run(task: &[&str]) -> Figures {
    let mut child = start(task);
    let figures = read_figures(BufReader::new(child.stdout.take().expect("it is piped")));
    let status = child.wait().expect("a child can be waited for");
    assert!(status.success(), "the child {task:?} failed: {status}");
    figures
}

/// Runs a task until it says that it is [`ready_to_die`], then kills it with SIGKILL.
/// Returns what it reported before.
pub(crate) fn run_and_kill(task: &[&str]) -> Figures {
    let mut child = start(task);
    let figures = read_figures(BufReader::new(child.stdout.take().expect("it is piped")));
    assert!(figures.contains_key("ready"), "the child {task:?} ended before it was killed");
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
    figures
}

/// Reads until the end or until `ready`.
fn read_figures(out: BufReader<ChildStdout>) -> Figures {
    let mut figures = Figures::new();
    for line in out.lines() {
        let line = line.expect("a child writes text");
        let Some((name, figure)) = line.rsplit_once(' ') else { continue };
        let Ok(figure) = figure.parse() else { continue };
        figures.insert(name.to_owned(), figure);
        if name == "ready" {
            break;
        }
    }
    figures
}

/// In a child: tells its parent a figure.
pub(crate) fn report(name: &str, figure: f64) {
    println!("{name} {figure}");
}

/// In a child: says that all is done, and waits for the end.
pub(crate) fn ready_to_die() -> ! {
    report("ready", 1.0);
    std::io::stdout().flush().expect("the parent listens");
    loop {
        std::thread::park();
    }
}

/// In a child: the memory it has, and the most it ever had, in bytes.
pub(crate) fn report_memory() {
    report("rss", status_bytes("VmRSS:"));
    report("rss peak", status_bytes("VmHWM:"));
}

/// Processor time that all threads of this process have taken, ended ones too, in steps of a
/// hundredth: what others do to the machine changes it less than the time that passes.
pub(crate) fn cpu_seconds() -> f64 {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit_once(')').expect("Linux says the name").1;
    let ticks = |field: &str| field.parse::<f64>().expect("Linux counts");
    after_name.split_whitespace().skip(11).take(2).map(ticks).sum::<f64>() / TICKS_A_SECOND
}

/// Memory of this process in bytes.
pub(crate) fn rss() -> f64 {
    status_bytes("VmRSS:")
}

/// Anonymous memory of this process in bytes: without mapped files.
pub(crate) fn rss_anonymous() -> f64 {
    status_bytes("RssAnon:")
}

fn status_bytes(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(field)).expect("Linux says it");
    let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok());
    kib.expect("a number of KiB") * 1024.0
}
