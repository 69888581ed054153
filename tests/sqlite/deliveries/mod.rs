//! Deliveries: recorded with the end of their job, and leased to one process at a time.
//!
//! `ACCEPTED_DELIVERY_CASES` sets the number of processes that are killed between ends and their
//! deliveries, and `ACCEPTED_DELIVERY_SEED` when:
//!
//! `ACCEPTED_DELIVERY_CASES=100 cargo test --all-features --test sqlite deliveries -- --nocapture`

mod ending;
mod expiring;
#[cfg(unix)]
mod killed;
mod leasing;
mod observing;
#[cfg(unix)]
mod short_lived;
pub(crate) mod steps;
