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
mod worker_call;

pub(crate) use self::{
    call::Call,
    drive::Run,
    inner::InnerService,
    job::Job,
    outlets::Outlets,
    relay::{RelayReader, RelayWriter, Relayed, relay},
    span::JobSpans,
    worker_call::WorkerCall,
};
pub use self::{request_body::RequestBody, unreached::Unreached, worker::Worker};
