//! The file system that loses power, where there is FUSE.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[cfg(target_os = "linux")]
mod linux;

#[cfg(not(target_os = "linux"))]
#[test]
fn needs_linux() {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED power_loss_fs: this is not Linux");
}
