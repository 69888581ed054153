//! Learns how long jobs take: durations in, forecasts out.
//!
//! A [`Sample`] holds the durations of one job that succeeded. The [`History`](history::History) of
//! a [`Kind`] keeps the last samples, and a [`Forecast`](forecast::Forecast) is computed from it:
//!
//! 1. [`change`] selects the samples that still apply.
//! 2. A [`Distribution`](distribution::Distribution) smooths their durations.
//! 3. A [`PollPlan`](poll_plan::PollPlan) minimizes the cost of polls and late notification.
//! 4. A [`ProgressModel`](progress::ProgressModel) interprets the progress that a job reports.
//!
//! Clients of a kind without a forecast back off exponentially ([`backoff`]).

mod backoff;
mod change;
mod distribution;
mod elapsed;
mod estimates;
mod forecast;
mod grid;
mod history;
mod kind;
mod kind_name;
mod kinds;
mod poll_plan;
mod profile;
mod progress;
mod sample;

pub use self::kind::Kind;
pub(crate) use self::{
    elapsed::Elapsed,
    estimates::{Estimates, RETRY_AFTER_WHEN_FULL},
    progress::MidpointSample,
    sample::Sample,
};
