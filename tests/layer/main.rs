//! The layer as a client and an inner service see it, in process and with the clock paused.

mod support;

mod accepting;
mod canceling;
mod deciding;
mod draining;
mod ending;
mod expiring;
mod handle;
mod limits;
mod monitor;
mod replaying;
mod tracing;
