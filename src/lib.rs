//! placeholder

mod accept;
mod body;
mod budget;
mod call;
mod collect;
mod estimate;
#[cfg(feature = "follow")]
pub mod follow;
mod future;
mod gate;
mod job;
mod jobs;
mod layer;
mod monitor;
mod prefer;
mod problem;
mod replay;
mod run;
mod service;
pub mod store;
mod when;

pub use crate::{
    body::{Replay, RequestBody, ResponseBody},
    future::ResponseFuture,
    job::{
        ErrorCode, Event, Failure, JobHandle, JobId, ParseJobIdError, Progress, ResponseHead,
        Snapshot, Status,
    },
    jobs::{Builder, Jobs},
    layer::AcceptedLayer,
    monitor::{Monitor, MonitorFuture},
    service::Accepted,
    when::{Policy, When},
};
