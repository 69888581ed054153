//! The tower middleware: [`AcceptedLayer`], its service, and the future and body of its responses.

mod admission;
mod callbacks;
mod candidate;
mod candidate_call;
mod future;
mod layer;
mod options;
mod pass_through;
mod read_body;
mod response_body;
mod service;
mod submitted;

pub use self::{
    future::ResponseFuture, layer::AcceptedLayer, response_body::ResponseBody, service::Accepted,
};
