//! Jobs in JetStream: real nats-servers, started by each test on free ports.
//!
//! Needs `nats-server` (Debian's name); without, each test says that it is skipped.

#![allow(clippy::unwrap_used)]

#[path = "../layer/support.rs"]
mod support;

mod server;
mod site;

mod working;
