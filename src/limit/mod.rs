//! What this process may take on: unfinished jobs, and bytes of memory.

mod budget;
mod buffer;
mod permits;

pub(crate) use self::permits::{Permit, PermitError, Permits};
pub use self::{
    budget::{Budget, Charge, Purpose},
    buffer::{BodyBuffer, BufferedBody},
};
