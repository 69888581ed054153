//! Limits on unfinished jobs and bytes of memory in this process.

mod budget;
mod buffer;
mod fields;
mod permits;

pub(crate) use self::permits::{Permit, PermitError, Permits};
pub use self::{
    budget::{Budget, Charge, Purpose},
    buffer::{BodyBuffer, BufferedBody},
    fields::MAX_FIELD_VALUES,
};
