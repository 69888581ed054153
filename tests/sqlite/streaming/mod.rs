//! Outputs that are read while they are produced, from any process.
//!
//! `ACCEPTED_STREAM_CASES` sets the number of producers that are killed, and `ACCEPTED_STREAM_SEED`
//! what they do:
//!
//! `ACCEPTED_STREAM_CASES=1000 cargo test --all-features --test sqlite streaming -- --nocapture`

mod ending;
#[cfg(unix)]
mod killed;
mod latency;
pub(crate) mod output;
#[cfg(unix)]
mod producer;
mod reading;
#[cfg(unix)]
mod resuming;
