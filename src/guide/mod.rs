//! Guides to tasks that span several types of this crate.
//!
//! | question | guide |
//! |---|---|
//! | Where does the layer go, in axum and among other layers? | [`mounting`] |
//! | How do clients read output while it is produced, and resume after a break? | [`streaming`] |
//! | When should a client poll, and how is that predicted? | [`estimates`] |
//! | How much memory does a process take, and when does it return it? | [`memory`] |
#![cfg_attr(
    feature = "metrics",
    doc = "| Which metrics does a process record? | [`metrics`](self::metrics) |"
)]
#![cfg_attr(
    feature = "sqlite",
    doc = "| What does the store in a SQLite file guarantee? | [`sqlite`](self::sqlite) |"
)]
#![cfg_attr(
    feature = "webhook",
    doc = "| How are clients notified instead of polling? | [`webhooks`] |"
)]
#![cfg_attr(
    feature = "nats",
    doc = "| What does the store in NATS JetStream guarantee? | [`nats`](self::nats) |"
)]
#![cfg_attr(
    feature = "nats",
    doc = "| How do I set up, size and monitor it? | [`nats_operations`] |"
)]
#![cfg_attr(
    feature = "nats",
    doc = "| How does it work inside? | [`nats_internals`] |"
)]
//!
//! Some guides need a feature: `metrics` for the guide to metrics, `sqlite` for the one to SQLite,
//! `webhook` for the one to webhooks, `nats` for those to JetStream.

#[doc = include_str!("mounting.md")]
pub mod mounting {}

#[doc = include_str!("streaming.md")]
pub mod streaming {}

#[doc = include_str!("estimate.md")]
#[doc = include_str!("../../docs/estimate.svg")]
pub mod estimates {}

#[doc = include_str!("memory.md")]
pub mod memory {}

#[cfg(feature = "metrics")]
#[doc = include_str!("metrics.md")]
pub mod metrics {}

#[cfg(feature = "sqlite")]
#[doc = include_str!("sqlite.md")]
pub mod sqlite {}

#[cfg(feature = "webhook")]
#[doc = include_str!("webhooks.md")]
pub mod webhooks {}

#[cfg(feature = "nats")]
#[doc = include_str!("nats.md")]
pub mod nats {}

#[cfg(feature = "nats")]
#[doc = include_str!("nats_operations.md")]
pub mod nats_operations {}

#[cfg(feature = "nats")]
#[doc = include_str!("nats_internals.md")]
pub mod nats_internals {}
