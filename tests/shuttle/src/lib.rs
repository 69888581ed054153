//! The crate's own synchronization, over models of the primitives that shuttle schedules.
//!
//! `build.rs` copies the permits, the stop signal and the live responses unchanged except for the
//! primitives. Shuttle runs them under many schedules, and reports those that lose a wake-up.

#![allow(
    dead_code,
    unused_imports,
    reason = "the tests use a part of the copied modules"
)]

pub mod dashmap;
pub mod job;
pub mod limit;
pub mod parking_lot;
pub mod telemetry;
pub mod tokio;
pub mod tokio_util;

include!(concat!(env!("OUT_DIR"), "/modules.rs"));
