//! Webhooks: their keys and signatures, against the specification and other libraries, and their
//! deliveries from end to end.

#[cfg(feature = "webhook")]
mod budget;
#[cfg(feature = "webhook")]
mod callbacks;
#[cfg(feature = "webhook")]
mod delivering;
#[cfg(feature = "webhook")]
mod draining;
#[cfg(feature = "webhook")]
mod failing;
mod guide;
#[cfg(feature = "webhook")]
mod host_rules;
mod keys;
#[cfg(feature = "webhook")]
mod kit;
#[cfg(feature = "webhook")]
#[path = "../layer/support.rs"]
#[allow(dead_code)]
mod layered;
mod libraries;
#[cfg(feature = "webhook")]
mod logging;
#[cfg(feature = "webhook")]
mod naming;
mod node;
#[cfg(feature = "webhook")]
mod retrying;
#[cfg(feature = "webhook")]
mod running;
mod scripts;
#[cfg(feature = "webhook")]
mod sharing;
mod signed;
mod support;
mod vectors;
mod verifying;
