//! What this process may take on: unfinished jobs, and bytes of memory.

mod budget;
mod buffer;
mod permits;

pub use self::{
    budget::{Budget, Charge, Purpose},
    buffer::{BodyBuffer, BufferedBody},
};
pub(crate) use self::permits::{Permit, PermitError, Permits};
