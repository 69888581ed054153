//! The settings of a registry, and the policies of a layer.

mod backpressure;
mod dialect;
mod error;
mod idempotency;
mod links;
mod outcomes;
mod policy;
mod settings;
mod when;

pub use self::{
    backpressure::Backpressure,
    dialect::Dialect,
    error::ConfigError,
    idempotency::Idempotency,
    links::Links,
    outcomes::Outcomes,
    policy::{AnyMethod, Policy, WhenFn},
    when::When,
};
pub(crate) use self::{
    links::LinkOrigin,
    policy::{choose, passes_through},
    settings::{OriginFn, OwnerFn, Settings},
    when::Schedule,
};
