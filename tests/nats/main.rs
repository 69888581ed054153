//! Runs jobs in JetStream, on real nats-servers that each test starts on free ports.
//!
//! The tests need `nats-server` (Debian's package). Without it, each prints that it is skipped.

#![allow(clippy::unwrap_used)]

#[path = "../layer/support.rs"]
#[allow(dead_code, reason = "the tests of the layer use more of it")]
mod support;

#[path = "../suites/mod.rs"]
mod suites;

#[path = "../../examples/cluster/servers.rs"]
mod server;
mod site;
mod streams;
mod wire;

mod absence;
mod bodies;
mod chaos;
mod claims;
mod connecting;
mod estimating;
mod keys;
#[cfg(feature = "webhook")]
mod notifying;
mod outbox;
mod queue;
mod records;
mod rerunning;
mod retention;
mod streaming;
mod suites_run;
mod working;
