//! The tower middleware: [`AcceptedLayer`], its service and the future of its response.

pub(crate) mod admission;
mod body;
mod future;
mod layer;
mod options;
mod pass_through;
mod service;

pub(crate) use self::body::MAX_COPIED;
pub use self::{
    body::{MonitorBody, Replay, RequestBody, ResponseBody},
    future::ResponseFuture,
    layer::AcceptedLayer,
    service::Accepted,
};
