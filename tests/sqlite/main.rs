//! Runs jobs in SQLite files, each in a temporary directory.

#![allow(clippy::unwrap_used)]

#[path = "../layer/support.rs"]
#[allow(dead_code, reason = "the tests of the layer use more of it")]
mod support;

#[path = "../suites/mod.rs"]
mod suites;

mod deliveries;
mod failing;
mod large;
mod looking_inside;
mod opening;
mod restarting;
mod sharing;
mod site;
mod streaming;
mod versions;

// It passes a listener to its processes as standard input.
#[cfg(unix)]
mod chaos;
mod power;
mod suites_run;
