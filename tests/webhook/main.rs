//! Webhooks: their keys and signatures, against the specification and other libraries.

#[cfg(feature = "webhook")]
mod delivering;
mod guide;
#[cfg(feature = "webhook")]
mod host_rules;
mod keys;
mod libraries;
mod node;
mod scripts;
mod signed;
mod support;
mod vectors;
mod verifying;
