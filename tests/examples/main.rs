//! The examples as programs, tested over sockets and with signals.
//!
//! `cargo test` builds the examples first. `cargo test --test examples` uses the existing builds.

#[path = "../gateway/client.rs"]
#[allow(dead_code, reason = "the tests of the gateway use all of it")]
mod client;
#[path = "../gateway/program.rs"]
#[allow(dead_code, reason = "the tests of the gateway use all of it")]
mod program;

mod axum_router;
mod custom_store;
mod hyper_bare;
#[cfg(feature = "webhook")]
mod notify;
mod production;
mod proxy;
#[cfg(feature = "sqlite")]
mod restart;
mod soak;
mod tokens;
