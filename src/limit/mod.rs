//! Limits on unfinished jobs and bytes of memory in this process.

mod budget;
mod buffer;
mod compact;
mod fields;
mod pace;
mod permits;
mod price;
mod room;
mod room_queue;

pub use self::{
    budget::{Budget, Charge, Purpose},
    buffer::{BodyBuffer, BufferedBody},
    compact::{compact, compact_fields},
    fields::MAX_FIELD_VALUES,
    price::{fields_price, progress_price, request_price},
    room::ResponseRoom,
};
pub(crate) use self::{
    compact::MAX_COPIED_BYTES,
    pace::{Pace, PaceLimit, Paces},
    permits::{JobPermit, Permit, PermitError, Permits},
    room::MAX_TIMEOUT,
};
