//! Jobs in JetStream: real nats-servers, started by each test on free ports.
//!
//! Needs `nats-server` (Debian's name); without, each test says that it is skipped.

#![allow(clippy::unwrap_used)]

#[path = "../layer/support.rs"]
#[allow(dead_code, reason = "the tests of the layer use more of it")]
mod support;

#[path = "../suites/mod.rs"]
mod suites;

#[path = "../../examples/cluster/servers.rs"]
mod server;
mod site;
mod wire;

mod chaos;
mod estimating;
mod keeping;
mod rerunning;
mod suites_run;
mod trouble;
mod working;
