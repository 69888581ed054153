//! The program `accepted-gateway`, tested over sockets and with signals.

mod client;
mod program;
#[cfg(feature = "nats")]
#[path = "../../examples/cluster/servers.rs"]
#[allow(dead_code, reason = "the tests of the store use all of it")]
mod servers;
mod upstream;

#[cfg(feature = "webhook")]
mod callbacks;
mod cors;
mod descriptors;
mod flags;
#[cfg(feature = "follow")]
mod follow;
mod forwarding;
mod health;
mod hostile;
mod jobs;
#[cfg(all(unix, feature = "webhook", any(feature = "sqlite", feature = "nats")))]
mod killed;
mod limits;
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
mod memory;
mod metrics;
#[cfg(feature = "nats")]
mod nats;
mod owners;
mod pass_through;
mod python;
mod shutdown;
#[cfg(feature = "sqlite")]
mod sqlite;
mod streaming;
mod tour;
