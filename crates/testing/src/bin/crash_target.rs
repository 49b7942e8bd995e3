//! Steadfast, or the toy with its defects, as a process to be crashed. See
//! `steadfast_testing::target`.

#[cfg(unix)]
fn main() {
    use steadfast_testing::target::ours::Steadfast;
    use steadfast_testing::target::toy::{Defect, Toy};
    use steadfast_testing::target::{CrashTarget, serve};

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let target: Option<Box<dyn CrashTarget>> = match arguments.first_chunk() {
        Some([engine, mode]) if engine == "steadfast" => {
            Steadfast::named(mode).map(|target| Box::new(target) as _)
        }
        Some([engine, defect]) if engine == "toy" => {
            Defect::from_name(defect).map(|defect| Box::new(Toy::new(defect)) as _)
        }
        _ => None,
    };
    let Some(mut target) = target else {
        eprintln!("usage: crash_target steadfast MODE|toy DEFECT start|reopen DIR");
        std::process::exit(2);
    };
    let code = serve(target.as_mut(), &arguments[2..]);
    // Nothing is closed: what was not promised need not survive.
    std::process::exit(code);
}

#[cfg(not(unix))]
fn main() {}
