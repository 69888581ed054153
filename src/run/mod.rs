//! One call of the inner service, and exactly one end of its job.

mod call;
mod drive;
mod inner;
mod job;
mod log;
mod outlets;
mod payload;
mod relay;
mod request_body;
mod response;
mod span;
mod target;
mod timeout;
mod unreached;
mod unshare;
mod worker;

pub(crate) use self::{
    call::Call,
    drive::Run,
    inner::InnerService,
    job::Job,
    outlets::Outlets,
    relay::{RelayReader, RelayWriter, Relayed, relay},
    span::JobSpans,
};
pub use self::{request_body::RequestBody, unreached::Unreached, worker::Worker};
