//! What this process may take on: unfinished jobs, and bytes of memory.

mod budget;
mod buffered;
mod permits;

pub use self::{
    budget::{Budget, Charge},
    buffered::Collected,
};
pub(crate) use self::{
    buffered::{Collect, CollectError},
    permits::{Gate, Refused, Slot},
};
