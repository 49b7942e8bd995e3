//! What goes wrong around checkpoints, compaction and copies in other databases, one test for
//! each class, named after it (P4, P6, P8, P9, P10).
#![allow(clippy::unwrap_used)]

mod copies;
mod damage;
mod deletes;
mod story;
mod watermarks;
