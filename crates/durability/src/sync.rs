//! Where this layer takes the locks, channels and threads from that somebody waits on while a
//! file is written or synced: the standard library, or, built with `--cfg shuttle`, a scheduler
//! that explores the orders in which they interleave.

#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Mutex, mpsc},
    thread,
};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Mutex, mpsc},
    thread,
};
