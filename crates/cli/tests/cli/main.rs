//! The command line as other programs meet it: the real binary, its streams, its exit status.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod apply;
mod checkpoint;
mod copies;
mod crash_test;
mod damage;
mod demo;
mod diff;
mod dump_load;
mod history;
mod import;
mod kill;
mod read_only;
mod retention;
mod runs;
mod signals;
mod support;
mod usage;
