//! The examples as programs: started, talked to over sockets, and ended with a signal.
//!
//! `cargo test` builds the examples before it runs this; `cargo test --test examples` alone takes
//! those that are there.

mod client;
mod program;
#[cfg(feature = "nats")]
#[path = "../../examples/cluster/servers.rs"]
#[allow(dead_code, reason = "the tests of the store use more of it")]
mod servers;
mod upstream;

mod axum_router;
mod flags;
#[cfg(feature = "follow")]
mod follow;
mod hostile;
mod hyper_bare;
mod jobs;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "nats")]
mod nats;
mod others;
mod passing;
mod shutdown;
mod tour;
