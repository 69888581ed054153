//! What a user of the crate sets.

mod dialect;
mod idempotency;
mod links;
mod settings;
mod when;

pub use self::{
    dialect::Dialect,
    idempotency::{Fingerprint, Idempotency, Key},
    links::Links,
    when::{Policy, When},
};
pub(crate) use self::{
    idempotency::Malformed,
    links::{At, is_plain},
    settings::{Config, OwnerOf},
    when::{Plan, choose, is_passed},
};
