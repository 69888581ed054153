//! Limits on unfinished jobs and bytes of memory in this process.

mod budget;
mod buffer;
mod compact;
mod fields;
mod permits;
mod price;
mod room;
mod room_queue;

pub(crate) use self::permits::{JobPermit, Permit, PermitError, Permits};
pub use self::{
    budget::{Budget, Charge, Purpose},
    buffer::{BodyBuffer, BufferedBody},
    compact::{compact, compact_fields},
    fields::MAX_FIELD_VALUES,
    price::{fields_price, progress_price, request_price},
    room::ResponseRoom,
};
