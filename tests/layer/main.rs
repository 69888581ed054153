//! Tests the layer in process, as clients and inner services see it, with the clock paused.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "../suites/mod.rs"]
mod suites;

mod accepting;
mod always_ready;
mod canceling;
mod deciding;
mod dialects;
mod draining;
mod ending;
mod estimating;
mod events;
mod exchanges;
mod expiring;
mod handle;
mod idempotency;
mod in_process;
mod keeping_keys;
mod last_results;
mod limits;
mod linking;
mod listing;
mod memory;
mod monitor;
mod owning;
mod pacing;
mod page;
mod preferring;
mod producing;
mod readers;
mod replaying;
mod slow_store;
mod streaming;
mod streaming_model;
mod submitting;
mod suites_run;
mod titling;
mod tracing;
mod unneeded;
mod validating;
mod waiting;
